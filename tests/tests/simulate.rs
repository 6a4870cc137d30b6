//! Some seeds of the simulator in each run of the tests, and what makes a seed worth something: that it can be replayed.
//!
//! `make simulate SEEDS=N` runs many. `HOLDFAST_SEED=S` runs that one here, `HOLDFAST_SEEDS=N` so many.

use holdfast_tests::seed::number;
use holdfast_tests::sim::{self, Options, Scenario};

fn seeds(usual: u32) -> Vec<u64> {
    match std::env::var("HOLDFAST_SEED") {
        Ok(seed) => vec![seed.parse().expect("HOLDFAST_SEED is a number")],
        Err(_) => (1..=u64::from(number("HOLDFAST_SEEDS", usual))).collect(),
    }
}

/// What some seeds come to in any case, else they show little.
const WANTED: [&str; 25] = [
    "crash",
    "pause",
    "suspected",
    "cleared",
    "new epoch",
    "switchover",
    "handed back",
    "shrunk",
    "grown",
    "truncated",
    "settled a tail",
    "log tail",
    "full compare",
    "path given up",
    "connections reset",
    "aborted",
    "changed since",
    "joined",
    "members changed",
    "confirmed by the cluster",
    "reserved",
    "conflict",
    "no space",
    "rotten",
    "scrubbed",
];

#[test]
fn nothing_is_lost_stale_or_stuck_in_some_seeds() {
    let seeds = seeds(60);
    let usual = seeds.len() as u64;
    // What is rare may need some more of them.
    let more = if usual == 1 {
        0..0
    } else {
        usual + 1..10 * usual + 1
    };
    let mut seen = std::collections::BTreeMap::new();
    let mut missing = None;
    for (ran, seed) in (0..).zip(seeds.into_iter().chain(more)) {
        if ran >= usual && missing.is_none() {
            break;
        }
        let outcome = sim::run(&Options::seed(seed));
        for (note, count) in outcome.notes {
            *seen.entry(note).or_insert(0) += count;
        }
        if let Some(finding) = outcome.finding {
            panic!("{}: {finding}\nreplay: make simulate SEED={seed}", outcome.plan);
        }
        missing = WANTED.into_iter().find(|wanted| !seen.contains_key(wanted));
    }
    assert!(
        usual == 1 || missing.is_none(),
        "it never came to {missing:?}: {seen:?}"
    );
    eprintln!("{seen:?}");
}

#[test]
fn every_known_bad_trace_is_survived() {
    for scenario in Scenario::ALL {
        for seed in seeds(1) {
            let outcome = sim::run(&Options {
                scenario: Some(*scenario),
                ..Options::seed(seed)
            });
            if let Some(finding) = outcome.finding {
                panic!(
                    "{}: {finding}\nreplay: make simulate SEED={seed} SCENARIO={scenario:?}",
                    outcome.plan
                );
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in [3, 4, 5, 6] {
        let run = || {
            sim::run(&Options {
                trace: true,
                ..Options::seed(seed)
            })
        };
        let (first, second) = (run(), run());
        assert!(first.trace.len() > 1000, "seed {seed} does something");
        assert_eq!(first.trace.join("\n"), second.trace.join("\n"), "seed {seed}");
        assert_eq!(first.digest, second.digest);
        let silent = sim::run(&Options::seed(seed));
        assert_eq!(
            silent.digest, first.digest,
            "a trace that is kept changes nothing, seed {seed}"
        );
    }
}

/// No switch is left out of the table, and what it says of traces is so: the file has the test, and breaks that rule.
#[test]
fn every_rule_that_can_be_broken_is_in_the_table_with_what_notices_it() {
    use holdfast_raft::fault::Fault as Control;
    use holdfast_replication::fault::Fault as Data;
    use holdfast_scsi::fault::Fault as Unit;
    use sim::{Broken, Shown};

    let control = Control::ALL.iter().copied().map(Broken::Control);
    let data = Data::ALL.iter().copied().map(Broken::Data);
    let unit = Unit::ALL.iter().copied().map(Broken::Unit);
    for broken in control.chain(data).chain(unit) {
        let known = sim::rules().any(|rule| rule.broken == Some(broken));
        assert!(known, "{broken:?} is in no row of tests/src/sim/rules.rs");
    }
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for rule in sim::rules() {
        match (rule.shown, rule.broken) {
            (Shown::Trace(file, test), Some(broken)) => {
                let text = std::fs::read_to_string(top.join(file)).expect("a file of this repository");
                let (Broken::Control(_) | Broken::Data(_) | Broken::Unit(_)) = broken else {
                    panic!("{}: no crate has that switch", rule.text);
                };
                let debug = format!("{broken:?}");
                let fault = debug.split(['(', ')']).nth(1).expect("a name in brackets");
                assert!(text.contains(test), "{file} has no test {test}");
                assert!(text.contains(fault), "{file} does not break {fault}");
            }
            (Shown::Seeds | Shown::Play(_), None) => panic!("{}: what is to be broken?", rule.text),
            _ => {}
        }
    }
}

/// Every rule that seeds or plays must notice, in few seeds each. To be run with `--release`.
#[cfg(feature = "faults")]
#[test]
fn rules_broken_on_purpose_are_noticed() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let all: Vec<_> = sim::rules()
        .filter_map(|rule| match (rule.shown, rule.broken?) {
            (sim::Shown::Seeds, broken) => Some((broken, None)),
            (sim::Shown::Play(play), broken) => Some((broken, Some(play))),
            _ => None,
        })
        .collect();
    assert!(all.len() > 30, "the table has its rules");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((broken, play)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let caught = match play {
                        None => sim::hunt(*broken, 300),
                        play => (1..=300).find_map(|seed| sim::look(*broken, seed, *play)),
                    };
                    assert!(caught.is_some(), "{} is not noticed", broken.name());
                }
            });
        }
    });
}
