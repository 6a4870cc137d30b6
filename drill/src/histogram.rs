//! Latencies in buckets of constant relative width.

use std::time::Duration;

/// Buckets per doubling: a value is off by less than 1/64.
const STEPS: usize = 64;
const STEPS_SHIFT: u32 = 6;
/// Doublings from 64 ns to 2^40 ns (18 minutes); longer ones count as that.
const DOUBLINGS: usize = 35;

/// Counts of durations, log-linear: exact below 64 ns, then 64 buckets per doubling.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max_ns: u64,
    sum_ns: u128,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Nothing counted.
    pub fn new() -> Self {
        Self {
            counts: vec![0; STEPS * DOUBLINGS],
            count: 0,
            max_ns: 0,
            sum_ns: 0,
        }
    }

    /// How many were counted.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub const fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The mean, zero when nothing was counted.
    pub fn mean(&self) -> Duration {
        let mean = self.sum_ns / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The value that `share` (0 to 1) of all do not exceed, rounded up to its bucket's end; zero when nothing was counted.
    pub fn quantile(&self, share: f64) -> Duration {
        if self.count == 0 {
            return Duration::ZERO;
        }
        let mut left = rank(share, self.count);
        for (index, count) in self.counts.iter().enumerate() {
            if *count >= left {
                return Duration::from_nanos(bucket_end(index).min(self.max_ns));
            }
            left -= count;
        }
        self.max()
    }

    /// Counts one.
    pub fn add(&mut self, value: Duration) {
        let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
        self.sum_ns += u128::from(ns);
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.sum_ns += other.sum_ns;
    }
}

/// Which one in order, from 1 on, stands at `share`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank that is off by rounding falls into the same bucket or the next; it is clamped to the count"
)]
fn rank(share: f64, count: u64) -> u64 {
    ((share * count as f64).ceil() as u64).clamp(1, count)
}

#[expect(clippy::cast_possible_truncation, reason = "what is cast was cut to six bits")]
const fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let top = 63 - ns.leading_zeros();
    let doubling = (top - STEPS_SHIFT + 1) as usize;
    if doubling >= DOUBLINGS {
        return STEPS * DOUBLINGS - 1;
    }
    let step = (ns >> (top - STEPS_SHIFT)) & (STEPS as u64 - 1);
    doubling * STEPS + (step & (STEPS as u64 - 1)) as usize
}

/// The largest value of a bucket.
const fn bucket_end(index: usize) -> u64 {
    let (doubling, step) = (index / STEPS, (index % STEPS) as u64);
    if doubling == 0 {
        return step;
    }
    let width = doubling - 1;
    ((STEPS as u64 + step + 1) << width) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_of_a_known_row() {
        let mut histogram = Histogram::new();
        for us in 1..=1000 {
            histogram.add(Duration::from_micros(us));
        }
        let close = |share: f64, us: f64| {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!((found - us).abs() / us < 0.02, "{share}: {found} for {us}");
        };
        close(0.5, 500.0);
        close(0.99, 990.0);
        close(0.999, 999.0);
        assert_eq!(histogram.max(), Duration::from_millis(1));
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
    }

    #[test]
    fn an_empty_one_answers_zero_and_a_huge_value_is_kept_as_longest() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        histogram.add(Duration::from_secs(100_000));
        assert_eq!(histogram.max(), Duration::from_secs(100_000));
        assert!(histogram.quantile(0.5) <= histogram.max());
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(ns in 0u64..1 << 40) {
            let index = bucket(ns);
            prop_assert!(ns <= bucket_end(index));
            prop_assert!(index == 0 || ns > bucket_end(index - 1));
            prop_assert!(bucket_end(index) - ns <= ns / 64 + 1);
        }

        #[test]
        fn merging_is_counting_together(a in proptest::collection::vec(0u64..1 << 36, 0..50),
                                        b in proptest::collection::vec(0u64..1 << 36, 0..50)) {
            let of = |values: &[u64]| {
                let mut histogram = Histogram::new();
                values.iter().for_each(|ns| histogram.add(Duration::from_nanos(*ns)));
                histogram
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            let together = of(&[a, b].concat());
            for share in [0.0, 0.5, 0.9, 1.0] {
                prop_assert_eq!(merged.quantile(share), together.quantile(share));
            }
            prop_assert_eq!(merged.mean(), together.mean());
        }
    }
}
