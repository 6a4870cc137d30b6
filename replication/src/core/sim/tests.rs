//! Whole extents under a seed: crashes, pauses, cuts, late views, leases; and the same with rules broken on purpose.
//!
//! `HOLDFAST_SEED=n` runs one seed, `HOLDFAST_SEEDS=n` that many (from `HOLDFAST_FROM` on), `HOLDFAST_TRACE=1` prints every event.

use super::{Plan, Script, World};
use crate::fault::{self, Fault};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

const SCRIPTS: [Script; 8] = [
    Script::CrashAtDone,
    Script::CutAtGrowth,
    Script::CrashInResync,
    Script::PowerAfterGrowth,
    Script::Switchovers,
    Script::OldPrimaryReturns,
    Script::Isolated,
    Script::Pair,
];

fn plan(seed: u64, script: Script) -> Plan {
    let (nodes, replicas) = match (script, seed % 6) {
        (Script::OldPrimaryReturns | Script::Pair, _) | (_, 0) => (3, 3),
        (_, 3) => (4, 3),
        (_, 5) => (3, 2),
        _ => (2, 2),
    };
    Plan {
        script,
        nodes,
        replicas,
        keep_bytes: match script {
            Script::CrashInResync => 12 << 10,
            _ => [4 << 10, 64 << 10, 1 << 20][usize::try_from(seed / 3 % 3).unwrap()],
        },
        run_ms: 6000,
        disasters: !matches!(
            script,
            Script::OldPrimaryReturns | Script::Isolated | Script::Pair
        ),
        guided: seed % 2 == 1,
        hash_ms: [2, 60][usize::try_from(seed / 2 % 2).unwrap()],
        confirmed: seed % 5 == 4,
        clock_lies: false,
    }
}

fn run(seed: u64, script: Script, fault: Option<Fault>) -> Result<World, String> {
    fault::with(fault, || {
        let mut world = World::new(seed, plan(seed, script));
        world.run()?;
        Ok(world)
    })
}

#[test]
fn no_acknowledged_write_is_lost_no_read_is_stale_and_all_heals() {
    let seeds = match (number("HOLDFAST_SEED"), number("HOLDFAST_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => {
            number("HOLDFAST_FROM").unwrap_or(0)..number("HOLDFAST_FROM").unwrap_or(0) + count.unwrap_or(60)
        }
    };
    let mut seen = std::collections::BTreeMap::new();
    let single = seeds.end - seeds.start == 1;
    for seed in seeds {
        match run(seed, Script::None, None) {
            Ok(world) => {
                for (note, count) in world.notes {
                    *seen.entry(note).or_insert(0) += count;
                }
            }
            Err(error) => panic!("HOLDFAST_SEED={seed}: {error}"),
        }
    }
    eprintln!("{seen:?}");
    let wanted = [
        "in sync already",
        "log tail",
        "full compare",
        "changed since",
        "settled a tail",
        "truncated",
        "shrunk",
        "grown",
        "handed back",
        "must leave",
        "damaged",
        "stuck journal",
        "stuck outside",
        "unreadable",
        "rotten",
        "repaired",
        "no space",
        "scrubbed",
        "done",
        "read",
        "miscompare",
        "reset",
        "aborted",
    ];
    for note in wanted {
        assert!(single || seen.contains_key(note), "it never came to '{note}'");
    }
}

#[test]
fn known_bad_traces_with_variations() {
    let seeds = match (number("HOLDFAST_SEED"), number("HOLDFAST_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(12),
    };
    for seed in seeds {
        for script in SCRIPTS {
            if let Err(error) = run(seed, script, None) {
                panic!("HOLDFAST_SEED={seed} {script:?}: {error}");
            }
        }
    }
}

/// As `run`, where a lease proves nothing.
fn run_lying(seed: u64, script: Script, confirmed: bool, fault: Option<Fault>) -> Result<World, String> {
    fault::with(fault, || {
        let clock_lies = true;
        let plan = Plan {
            confirmed,
            clock_lies,
            ..plan(seed, script)
        };
        let mut world = World::new(seed, plan);
        world.run()?;
        Ok(world)
    })
}

#[test]
fn w4_confirmed_reads_hold_where_the_clock_lies() {
    for seed in 0..25 {
        for script in [Script::Isolated, Script::Pair, Script::None] {
            if let Err(error) = run_lying(seed, script, true, None) {
                panic!("HOLDFAST_SEED={seed} {script:?}: {error}");
            }
        }
    }
}

#[test]
fn w4_without_confirmed_reads_a_lying_clock_is_noticed() {
    let stale = (0..100).find_map(|seed| run_lying(seed, Script::Isolated, false, None).err());
    assert!(stale.is_some_and(|error| error.contains("not linearizable")));
}

#[test]
fn w4_a_confirmation_of_one_replica_is_noticed() {
    let fault = Some(Fault::ConfirmedByOne);
    let stale = (0..100).find_map(|seed| run_lying(seed, Script::Pair, true, fault).err());
    assert!(stale.is_some_and(|error| error.contains("not linearizable")));
}

/// Runs seeds with a rule broken until the simulator notices; how many that took.
fn caught(script: Script, most: u64, fault: Fault) -> u64 {
    for seed in 0..most {
        if let Err(error) = run(seed, script, Some(fault)) {
            eprintln!("{fault:?}: seed {seed}: {error}");
            return seed + 1;
        }
    }
    panic!("{fault:?}: not noticed in {most} seeds");
}

macro_rules! broken {
    ($($test:ident: $fault:ident, $script:ident, $most:expr;)*) => {$(
        #[test]
        fn $test() {
            assert!(caught(Script::$script, $most, Fault::$fault) > 0);
        }
    )*};
}

broken! {
    w2_acknowledged_without_the_replica_is_noticed: AckWithoutReplica, None, 100;
    w2_acknowledged_before_stable_here_is_noticed: AckBeforeLocal, CrashAtDone, 100;
    e5_reads_before_the_tail_is_settled_are_noticed: ReadBeforeSettled, None, 100;
    e4_accepting_an_old_epoch_is_noticed: AcceptOldEpoch, OldPrimaryReturns, 100;
    r3_growth_without_barrier_is_noticed: GrowWithoutBarrier, None, 100;
    e3_growth_not_counted_is_noticed: GrowthNotCounted, CutAtGrowth, 100;
    r2_resync_block_without_lock_is_noticed: ResyncWithoutLock, None, 300;
    w3_reads_without_a_lease_are_noticed: ReadWithoutLease, Isolated, 100;
    e1_serving_on_after_a_restart_is_noticed: ServeAfterRestart, None, 100;
    f1_names_forgotten_are_noticed: ForgetNames, None, 400;
    r1_base_forgotten_is_noticed: BaseForgotten, CrashInResync, 100;
    r2_changes_forgotten_are_noticed: ChangesForgotten, None, 300;
    r1_extent_not_flushed_before_the_log_starts_anew_is_noticed: RestartUnflushed, PowerAfterGrowth, 300;
    e6_resumed_by_a_timer_is_noticed: ResumeByTimer, Switchovers, 100;
}
