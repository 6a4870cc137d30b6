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

#[test]
fn nothing_is_lost_stale_or_stuck_in_some_seeds() {
    let seeds = seeds(60);
    let single = seeds.len() == 1;
    let mut seen = std::collections::BTreeMap::new();
    for seed in seeds {
        let outcome = sim::run(&Options::seed(seed));
        for (note, count) in outcome.notes {
            *seen.entry(note).or_insert(0) += count;
        }
        if let Some(finding) = outcome.finding {
            panic!("{}: {finding}\nreplay: make simulate SEED={seed}", outcome.plan);
        }
    }
    eprintln!("{seen:?}");
    for wanted in [
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
    ] {
        assert!(single || seen.contains_key(wanted), "it never came to '{wanted}'");
    }
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

/// A quick part of what `make mutations` shows in full.
#[cfg(feature = "faults")]
#[test]
fn rules_broken_on_purpose_are_noticed() {
    use holdfast_raft::fault::Fault as Control;
    use holdfast_replication::fault::Fault as Data;
    use sim::Broken;

    for broken in [
        Broken::Control(Control::SuspectStillPromised),
        Broken::Control(Control::ReportWithoutId),
        Broken::Control(Control::NoInSyncCheck),
        Broken::Data(Data::AckWithoutReplica),
        Broken::Data(Data::GrowWithoutBarrier),
        Broken::Data(Data::ReadWithoutLease),
        Broken::Data(Data::ServeAfterRestart),
        Broken::ClockBeyondBound,
    ] {
        let caught = sim::hunt(broken, 300);
        assert!(caught.is_some(), "{} is not noticed", broken.name());
    }
}
