//! Storms, drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fault::{Fault, Place, Way};

/// Strikes of a storm, at most; those that come behind others are not counted.
const STRIKES_MAX: usize = 6;
/// When the last strike of a storm has begun, at the latest, but for those that come behind others.
const BEGUN_WITHIN: Duration = Duration::from_secs(8);
/// What a fault lasts, at least and at most.
const LASTS_MIN: Duration = Duration::from_millis(80);
const LASTS_MAX: Duration = Duration::from_secs(12);
/// What a node that initiators reach is cut off from the others, at least: less is over before anybody else could take over.
const SEVERED_MIN: Duration = Duration::from_millis(900);
/// A link that flaps is up and down so long each, at least and at most, and so often.
const FLAP_MIN: Duration = Duration::from_millis(60);
const FLAP_MAX: Duration = Duration::from_millis(900);
const FLAPS_MAX: u32 = 8;
/// Of a hundred strikes so many are followed by another one, while the cluster is still busy with the first: right after its end (a node
/// comes back, and copies what it missed) or, where it has none, its beginning (a switchover is under way).
const CHASED_PERCENT: u32 = 35;
/// How soon, at least and at most.
const CHASED_MIN: Duration = Duration::from_millis(3);
const CHASED_MAX: Duration = Duration::from_millis(1500);

/// A fault, when it begins in its storm, and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// From the storm's beginning.
    pub at: Duration,
    /// How long.
    pub lasts: Duration,
    /// What is done.
    pub fault: Fault,
}

impl Strike {
    /// When it ends.
    pub fn end(&self) -> Duration {
        self.at + self.lasts
    }

    fn meets(&self, other: &Self) -> bool {
        self.fault.subject() == other.fault.subject() && self.at < other.end() && other.at < self.end()
    }
}

/// Strikes in the order of their beginnings; at any time no two of them are about the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Storm {
    /// Its strikes.
    pub strikes: Vec<Strike>,
}

/// All storms of a seed, one after the other.
#[derive(Debug)]
pub struct Storms {
    random: StdRng,
    /// Whether disks can be made to hang and to be full.
    disks: bool,
}

impl Storms {
    /// The storms of a seed. `disks`: whether the ground has disks that hang and fill up; the same seed has other storms then.
    pub fn new(seed: u64, disks: bool) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            disks,
        }
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        // Short ones as often as long ones of ten times their length.
        let share: f64 = self.random.random_range(0.0..1.0);
        least.mul_f64((most.as_secs_f64() / least.as_secs_f64()).powf(share))
    }

    fn node(&mut self) -> Place {
        Place::NODES[self.random.random_range(0..Place::NODES.len())]
    }

    fn data_node(&mut self) -> Place {
        [Place::A, Place::B][self.random.random_range(0..2)]
    }

    fn way(&mut self) -> Way {
        [Way::Both, Way::Both, Way::Out, Way::In][self.random.random_range(0..4)]
    }

    fn link(&mut self) -> (Place, Place) {
        // The host has no link to the witness.
        const LINKS: [(Place, Place); 7] = [
            (Place::A, Place::B),
            (Place::A, Place::B),
            (Place::A, Place::W),
            (Place::B, Place::W),
            (Place::A, Place::Host),
            (Place::B, Place::Host),
            (Place::A, Place::B),
        ];
        LINKS[self.random.random_range(0..LINKS.len())]
    }

    fn fault(&mut self) -> Fault {
        let disks = if self.disks { 12 } else { 0 };
        match self.random.random_range(0..100 + disks) {
            0..24 => {
                let ((at, from), way) = (self.link(), self.way());
                Fault::Cut { at, from, way }
            }
            24..38 => {
                let (at, way) = (self.node(), self.way());
                Fault::Isolate { at, way }
            }
            38..44 => Fault::Slow {
                at: self.node(),
                rate: 1024 << self.random.random_range(4..13),
            },
            44..60 => Fault::Kill { at: self.node() },
            60..76 => Fault::Freeze { at: self.node() },
            76..88 => Fault::Switchover { to: self.data_node() },
            88..100 => {
                let (at, way) = (self.data_node(), self.way());
                Fault::Sever { at, way }
            }
            100..109 => Fault::HangDisk { at: self.data_node() },
            _ => Fault::FillDisk { at: self.data_node() },
        }
    }

    /// A strike that begins then, with one behind it that finds the cluster busy with it, perhaps.
    fn draw(&mut self) -> Vec<Strike> {
        let at = BEGUN_WITHIN.mul_f64(self.random.random_range(0.0..1.0));
        let mut drawn = self.strike(at);
        if self.random.random_range(0..100) < CHASED_PERCENT {
            let after = drawn.last().map_or(at, Strike::end);
            let at = after + self.between(CHASED_MIN, CHASED_MAX);
            let behind = self.strike(at);
            if !behind.iter().any(|new| drawn.iter().any(|old| old.meets(new))) {
                drawn.extend(behind);
            }
        }
        drawn
    }

    fn strike(&mut self, at: Duration) -> Vec<Strike> {
        let fault = self.fault();
        let is_flap = matches!(fault, Fault::Cut { .. }) && self.random.random_range(0..4) == 0;
        if !is_flap {
            let lasts = match fault {
                Fault::Switchover { .. } => Duration::ZERO,
                Fault::Sever { .. } => self.between(SEVERED_MIN, LASTS_MAX),
                _ => self.between(LASTS_MIN, LASTS_MAX),
            };
            return vec![Strike { at, lasts, fault }];
        }
        let mut from = at;
        let mut flaps = Vec::new();
        for _ in 0..self.random.random_range(2..=FLAPS_MAX) {
            let lasts = self.between(FLAP_MIN, FLAP_MAX);
            flaps.push(Strike {
                at: from,
                lasts,
                fault,
            });
            from += lasts + self.between(FLAP_MIN, FLAP_MAX);
        }
        flaps
    }
}

impl Iterator for Storms {
    type Item = Storm;

    /// The next storm; there is always one.
    fn next(&mut self) -> Option<Storm> {
        let mut strikes: Vec<Strike> = Vec::new();
        for _ in 0..self.random.random_range(1..=STRIKES_MAX) {
            let drawn = self.draw();
            if !drawn.iter().any(|new| strikes.iter().any(|old| old.meets(new))) {
                strikes.extend(drawn);
            }
        }
        strikes.sort_by_key(|strike| strike.at);
        Some(Storm { strikes })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_has_its_storms_and_no_two_strikes_meet() {
        let mut kinds = BTreeSet::new();
        let mut many_at_a_time = 0;
        for seed in 0..200 {
            let storms: Vec<Storm> = Storms::new(seed, true).take(10).collect();
            assert_eq!(storms, Storms::new(seed, true).take(10).collect::<Vec<_>>());
            for storm in &storms {
                assert!(!storm.strikes.is_empty());
                for (number, strike) in storm.strikes.iter().enumerate() {
                    assert!(strike.lasts <= LASTS_MAX);
                    kinds.insert(strike.fault.kind());
                    let others = &storm.strikes[number + 1..];
                    assert!(others.iter().all(|other| !strike.meets(other)), "{storm:?}");
                    many_at_a_time += usize::from(others.iter().any(|other| other.at < strike.end()));
                }
            }
        }
        assert_eq!(kinds.len(), 12, "{kinds:?}");
        assert!(many_at_a_time > 2000, "{many_at_a_time}");
        let without_disks = Storms::new(1, false).take(500).flat_map(|storm| storm.strikes);
        assert!(
            without_disks
                .map(|strike| strike.fault)
                .all(|fault| !matches!(fault, Fault::HangDisk { .. } | Fault::FillDisk { .. }))
        );
    }

    #[test]
    fn whoever_is_cut_off_reaches_nobody() {
        let cuts = |way| Fault::Isolate { at: Place::B, way }.cuts();
        assert_eq!((cuts(Way::Both).len(), cuts(Way::Out).len()), (6, 3));
        assert!(cuts(Way::In).iter().all(|(_, to)| *to == Place::B));
        let cuts = |way| Fault::Sever { at: Place::B, way }.cuts();
        assert_eq!((cuts(Way::Both).len(), cuts(Way::Out).len()), (4, 2));
        assert!(
            cuts(Way::Both)
                .iter()
                .all(|(from, to)| *from != Place::Host && *to != Place::Host)
        );
    }
}
