//! Where random tests get their seed.

use crate::say;

/// `HOLDFAST_SEED`, or a fresh one; printed, so that a run can be repeated.
///
/// # Panics
/// `HOLDFAST_SEED` is not a number.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("HOLDFAST_SEED").ok();
    let seed = given.map_or_else(rand::random, |text| {
        text.parse().expect("HOLDFAST_SEED is a number")
    });
    say(&format!("{test}: HOLDFAST_SEED={seed}"));
    seed
}

/// A number from the environment, for tests whose length somebody may want to choose.
///
/// # Panics
/// The variable is there and not a number.
pub fn number(variable: &str, usual: u32) -> u32 {
    let given = std::env::var(variable).ok();
    given.map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not '{text}'"))
    })
}
