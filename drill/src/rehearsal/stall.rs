//! The longest pause.

use std::time::Duration;

use crate::workload::Sample;

/// The longest time between two completed writes that ended after `at`, or had not ended at `end`. `samples` are in the order of their
/// answers; what was answered last before `at` is where the first pause begins.
pub fn longest<'a>(samples: impl Iterator<Item = &'a Sample>, at: Duration, end: Duration) -> Duration {
    let (mut last, mut longest) = (at, Duration::ZERO);
    for sample in samples {
        if sample.answered > at {
            longest = longest.max(sample.answered.saturating_sub(last));
        }
        last = sample.answered;
    }
    longest.max(end.saturating_sub(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(answered: &[u64]) -> Vec<Sample> {
        let sample = |ms: &u64| Sample {
            lane: 0,
            issued: Duration::from_millis(ms.saturating_sub(1)),
            answered: Duration::from_millis(*ms),
        };
        answered.iter().map(sample).collect()
    }

    fn of(answered: &[u64], at: u64, end: u64) -> u64 {
        let samples = samples(answered);
        let stall = longest(
            samples.iter(),
            Duration::from_millis(at),
            Duration::from_millis(end),
        );
        u64::try_from(stall.as_millis()).unwrap()
    }

    #[test]
    fn a_pause_before_the_failure_does_not_count() {
        assert_eq!(of(&[10, 500, 510, 520, 530], 505, 535), 10);
    }

    #[test]
    fn the_pause_that_the_failure_fell_into_counts_from_the_last_answer() {
        assert_eq!(of(&[100, 190, 900, 910], 200, 920), 710);
    }

    #[test]
    fn a_pause_that_never_ended_counts_up_to_the_end() {
        assert_eq!(of(&[100, 210], 200, 3000), 2790);
        assert_eq!(of(&[], 200, 3000), 2800);
    }
}
