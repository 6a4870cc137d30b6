//! Random tests print their seed and take it back.

use proptest::test_runner::{Config, RngSeed};
use std::hash::{BuildHasher, RandomState};

/// The configuration of a random test: the seed is `HOLDFAST_SEED`, or a fresh one. The test harness shows it when the test fails.
pub(crate) fn seeded() -> Config {
    let given = std::env::var("HOLDFAST_SEED").ok();
    let seed = given.map_or_else(
        || RandomState::new().hash_one(0),
        |text| text.parse().expect("HOLDFAST_SEED is a number"),
    );
    eprintln!("HOLDFAST_SEED={seed}");
    Config {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    }
}
