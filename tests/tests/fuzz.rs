//! Every parser of foreign bytes, under mutated inputs: short here, `make fuzz MINUTES=30` by hand.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use holdfast_tests::fuzz::targets::TARGETS;
use holdfast_tests::fuzz::{Effort, fuzz, read_corpus, write_input};
use holdfast_tests::{say, seed};

/// Inputs of each target where no time is given.
const RUNS: u32 = 20_000;

/// Minutes for each target: `HOLDFAST_FUZZ_MINUTES`.
#[test]
fn no_input_makes_a_parser_panic() -> Result<()> {
    let minutes = seed::number("HOLDFAST_FUZZ_MINUTES", 0);
    let effort = match minutes {
        0 => Effort::Runs(u64::from(seed::number("HOLDFAST_FUZZ_RUNS", RUNS))),
        minutes => Effort::Time(Duration::from_secs(60 * u64::from(minutes))),
    };
    let seed = seed::seed("fuzz");
    // As many at a time as there are processors: half an hour each is half a working day else.
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(target) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = fuzz(target, seed, effort)?;
            say(&format!(
                "{}: {} inputs, {} with an outcome of their own, slowest {:?}, no findings",
                target.name, report.runs, report.kept, report.slowest
            ));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // A panic that is not an input's is this test's own.
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

#[test]
fn the_corpus_reads_back_as_it_is_written() -> Result<()> {
    for target in TARGETS {
        for input in read_corpus(target.name)? {
            let text = write_input(&input);
            assert!(text.lines().all(|line| line.len() <= 128), "{}", target.name);
            assert!(!input.is_empty());
        }
    }
    Ok(())
}

/// A target that cannot fail would find nothing either.
#[test]
fn a_planted_panic_is_found() {
    fn planted(input: &[u8]) -> u64 {
        assert!(!input.windows(2).any(|pair| pair == [0xff, 0xff]), "planted");
        0
    }
    let target = holdfast_tests::fuzz::Target {
        name: "sense",
        words: &[],
        run: planted,
    };
    let error = fuzz(&target, 1, Effort::Runs(200_000)).unwrap_err().to_string();
    assert!(error.contains("makes it panic"), "{error}");
    let path = holdfast_tests::tree::root().join("target/fuzz/sense-finding.txt");
    assert!(std::fs::read_to_string(&path).unwrap().contains("ff"));
    std::fs::remove_file(path).unwrap();
}
