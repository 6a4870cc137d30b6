//! Whole extents under a seed: crashes, pauses, cuts, late views, leases; and the same with rules broken on purpose.
//!
//! `HOLDFAST_SEED=n` runs one seed, `HOLDFAST_SEEDS=n` that many, `HOLDFAST_TRACE=1` prints every event.

use super::Faults;
use super::sim_world::{Plan, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn plan(seed: u64, faults: Faults) -> Plan {
    Plan {
        nodes: if seed % 3 == 0 { 3 } else { 2 },
        faults,
        keep_bytes: [4 << 10, 64 << 10, 1 << 20][usize::try_from(seed / 3 % 3).unwrap()],
        run_ms: 6000,
        disasters: true,
    }
}

fn run(seed: u64, faults: Faults) -> Result<World, String> {
    let mut world = World::new(seed, plan(seed, faults));
    world.run()?;
    Ok(world)
}

#[test]
fn no_acknowledged_write_is_lost_no_read_is_stale_and_all_heals() {
    let seeds = match (number("HOLDFAST_SEED"), number("HOLDFAST_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(60),
    };
    let mut seen = std::collections::BTreeMap::new();
    let single = seeds.end - seeds.start == 1;
    for seed in seeds {
        match run(seed, Faults::default()) {
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
        "log tail from base",
        "full compare",
        "settled a tail",
        "truncated",
        "shrunk",
        "grown",
        "handed back",
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
