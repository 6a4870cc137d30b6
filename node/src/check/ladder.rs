//! How large a packet passes: which sizes to try next, and what follows from the answers.

/// Sizes of packets that networks have: IPv6's least, tunnels, PPPoE, Ethernet, jumbo frames.
const COMMON: [usize; 8] = [1280, 1400, 1420, 1450, 1492, 1500, 8950, 9000];
/// Sizes tried at a time.
const STEPS: usize = 8;

/// The search. Sizes are bytes of a whole packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ladder {
    /// So much passes.
    passes: usize,
    /// So much does not, or is not wanted.
    fails: usize,
    rounds: u32,
}

impl Ladder {
    /// `passes` is known to pass; more than `wanted` is not asked for.
    pub(super) fn new(passes: usize, wanted: usize) -> Self {
        Self {
            passes,
            fails: wanted.max(passes) + 1,
            rounds: 0,
        }
    }

    /// The sizes to try now, smallest first; none when it is known.
    pub(super) fn next(&self) -> Vec<usize> {
        let between = self.passes + 1..self.fails;
        match self.rounds {
            _ if between.is_empty() => Vec::new(),
            // Mostly all of it passes.
            0 => vec![self.fails - 1],
            1 => {
                let common = COMMON.into_iter().filter(|size| between.contains(size));
                let steps = self.steps();
                let mut sizes: Vec<usize> = common.chain(steps).collect();
                sizes.sort_unstable();
                sizes.dedup();
                sizes
            }
            _ => self.steps(),
        }
    }

    fn steps(&self) -> Vec<usize> {
        let width = self.fails - self.passes;
        let steps = (1..=STEPS).map(|step| self.passes + width * step / (STEPS + 1));
        let mut sizes: Vec<usize> = steps.filter(|size| *size > self.passes).collect();
        sizes.dedup();
        if sizes.is_empty() {
            sizes.push(self.passes + 1);
        }
        sizes
    }

    /// Of the sizes that [`Self::next`] gave, these were answered.
    pub(super) fn heard(&mut self, answered: &[usize]) {
        let tried = self.next();
        self.rounds += 1;
        let passes = tried.iter().filter(|size| answered.contains(size)).max();
        self.passes = passes.copied().unwrap_or(self.passes);
        let fails = tried.iter().filter(|size| **size > self.passes).min();
        self.fails = fails.copied().unwrap_or(self.fails);
    }

    /// The largest size that is known to pass.
    pub(super) const fn passes(&self) -> usize {
        self.passes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A way that carries `limit` bytes; what is found, and in how many rounds.
    fn search(wanted: usize, limit: usize) -> (usize, u32) {
        let mut ladder = Ladder::new(576, wanted);
        loop {
            let tried = ladder.next();
            if tried.is_empty() {
                return (ladder.passes(), ladder.rounds);
            }
            assert!(tried.iter().all(|size| *size <= wanted) && ladder.rounds < 12);
            let answered: Vec<usize> = tried.into_iter().filter(|size| *size <= limit).collect();
            ladder.heard(&answered);
        }
    }

    #[test]
    fn a_way_that_carries_what_the_interface_does_is_known_at_once() {
        assert_eq!(search(1500, 9000), (1500, 1));
        assert_eq!(search(9000, 9000), (9000, 1));
        assert_eq!(search(576, 9000), (576, 0));
        assert_eq!(search(100, 9000), (576, 0), "nothing below what passes is asked");
    }

    #[test]
    fn a_cut_jumbo_frame_is_measured_to_the_byte() {
        for limit in [1500, 1450, 1492, 600, 576, 8999, 4321] {
            let (found, rounds) = search(9000, limit);
            assert_eq!(found, limit);
            assert!(rounds <= 6, "{limit}: {rounds}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_limit_it_is_found(wanted in 577usize..9300, limit in 576usize..9300) {
            prop_assert_eq!(search(wanted, limit).0, limit.min(wanted));
        }

        /// Lost answers only make it say less.
        #[test]
        fn whatever_is_lost_it_ends_and_claims_no_more_than_was_answered(
            seed in any::<u64>(), wanted in 577usize..9300, limit in 576usize..9300
        ) {
            let mut ladder = Ladder::new(576, wanted);
            let mut dice = seed;
            for _ in 0..40 {
                let tried = ladder.next();
                let lucky = |size: &usize| {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    *size <= limit && dice >> 62 != 0
                };
                let answered: Vec<usize> = tried.into_iter().filter(lucky).collect();
                ladder.heard(&answered);
            }
            prop_assert!(ladder.next().is_empty() && ladder.passes() <= limit.min(wanted).max(576));
        }
    }
}
