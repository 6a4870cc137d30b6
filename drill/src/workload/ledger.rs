//! What may be read back: per unit of the disk, which values were given out, acknowledged and seen.
//!
//! A unit has one writer with at most one write on its way, so its values have an order: the sequence in the stamp. A read that
//! starts now may find any value from the *floor* (the newest that was acknowledged or already seen by somebody) up to the newest
//! that was given out. A value below the floor is stale, or an acknowledged write was lost, or a write that got no answer came to
//! life after a newer one was acknowledged. All three are the same fault: the unit went back.

use std::sync::atomic::{AtomicU64, Ordering};

use super::stamp::{Found, Stamp};

/// A read that must not have been possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The unit holds an older value than somebody was told.
    #[error(
        "unit {unit} went back: it holds value {found}, but {floor} was acknowledged or seen before ({path})"
    )]
    WentBack {
        /// The unit.
        unit: u64,
        /// Sequence of the value read; 0 when nothing of this run was there.
        found: u64,
        /// The oldest value that would have been right.
        floor: u64,
        /// Where it was read.
        path: String,
    },
    /// The unit holds a value that was never given out.
    #[error("unit {unit} holds value {found}, but only {issued} were written ({path})")]
    NeverWritten {
        /// The unit.
        unit: u64,
        /// Sequence of the value read.
        found: u64,
        /// The newest value given out.
        issued: u64,
        /// Where it was read.
        path: String,
    },
    /// The unit holds parts of two writes, or damage.
    #[error("unit {unit} is torn or damaged: {stamp:?} ({path})")]
    Torn {
        /// The unit.
        unit: u64,
        /// The stamp at its start.
        stamp: Stamp,
        /// Where it was read.
        path: String,
    },
    /// The unit holds what was written somewhere else.
    #[error("unit {unit} holds what belongs to unit {}: {stamp:?} ({path})", stamp.unit)]
    Misplaced {
        /// The unit.
        unit: u64,
        /// The stamp found.
        stamp: Stamp,
        /// Where it was read.
        path: String,
    },
}

/// Values of one unit.
#[derive(Debug, Default)]
struct Unit {
    issued: AtomicU64,
    floor: AtomicU64,
}

/// Values of all units, shared by writers and readers.
#[derive(Debug)]
pub struct Ledger {
    run: u64,
    units: Vec<Unit>,
}

/// What a read that starts now must at least find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadStart {
    unit: u64,
    floor: u64,
}

impl Ledger {
    /// Nothing written yet: `units` units, and whatever is on the disk is not of this `run`.
    pub fn new(run: u64, units: usize) -> Self {
        Self {
            run,
            units: std::iter::repeat_with(Unit::default).take(units).collect(),
        }
    }

    /// How many units.
    pub const fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether there is no unit.
    pub const fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// How many units have a value that was acknowledged or seen.
    pub fn settled(&self) -> usize {
        let is_settled = |unit: &&Unit| unit.floor.load(Ordering::Acquire) > 0;
        self.units.iter().filter(is_settled).count()
    }

    /// The next value of a unit, to be written by its one writer. Sending the same value again over another path is no new one.
    ///
    /// # Panics
    /// `unit` is not below [`Ledger::len`].
    pub fn issue(&self, unit: usize, writer: u64) -> Stamp {
        let sequence = self.units[unit].issued.fetch_add(1, Ordering::AcqRel) + 1;
        Stamp {
            run: self.run,
            writer,
            sequence,
            unit: unit as u64,
        }
    }

    /// The write of this value was answered with GOOD: nothing older may be read from now on.
    pub fn acknowledged(&self, stamp: &Stamp) {
        if let Some(unit) = self.unit(stamp.unit) {
            unit.floor.fetch_max(stamp.sequence, Ordering::AcqRel);
        }
    }

    /// To be called before the read is sent: what was acknowledged until now counts, what comes later may or may not be seen.
    pub fn before_read(&self, unit: usize) -> ReadStart {
        ReadStart {
            unit: unit as u64,
            floor: self.units[unit].floor.load(Ordering::Acquire),
        }
    }

    /// Judges what the read found, and remembers it: whoever reads after this may find nothing older.
    ///
    /// # Errors
    /// The [`Fault`], `path` in its text.
    pub fn after_read(&self, start: ReadStart, block: &[u8], path: &str) -> Result<(), Fault> {
        let ReadStart { unit, floor } = start;
        let path = || path.to_owned();
        let found = match Stamp::find(block) {
            Found::Torn(stamp) => {
                let path = path();
                return Err(Fault::Torn { unit, stamp, path });
            }
            Found::Whole(stamp) if stamp.run == self.run && stamp.unit != unit => {
                let path = path();
                return Err(Fault::Misplaced { unit, stamp, path });
            }
            Found::Whole(stamp) if stamp.run == self.run => stamp.sequence,
            Found::Whole(_) | Found::Blank => 0,
        };
        let Some(values) = self.unit(unit) else {
            return Ok(());
        };
        let issued = values.issued.load(Ordering::Acquire);
        if found < floor {
            let path = path();
            Err(Fault::WentBack {
                unit,
                found,
                floor,
                path,
            })
        } else if found > issued {
            let path = path();
            Err(Fault::NeverWritten {
                unit,
                found,
                issued,
                path,
            })
        } else {
            values.floor.fetch_max(found, Ordering::AcqRel);
            Ok(())
        }
    }

    fn unit(&self, unit: u64) -> Option<&Unit> {
        usize::try_from(unit).ok().and_then(|index| self.units.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 512;

    fn read(ledger: &Ledger, block: &[u8]) -> Result<(), Fault> {
        ledger.after_read(ledger.before_read(3), block, "here")
    }

    #[test]
    fn an_acknowledged_value_must_be_there() {
        let ledger = Ledger::new(7, 8);
        assert_eq!(read(&ledger, &[0; BYTES]), Ok(()));
        let first = ledger.issue(3, 1);
        ledger.acknowledged(&first);
        assert_eq!(read(&ledger, &first.fill(BYTES)), Ok(()));
        assert!(matches!(
            read(&ledger, &[0; BYTES]),
            Err(Fault::WentBack {
                found: 0,
                floor: 1,
                ..
            })
        ));
        let other_run = Stamp {
            run: 6,
            sequence: 9,
            ..first
        };
        assert!(matches!(
            read(&ledger, &other_run.fill(BYTES)),
            Err(Fault::WentBack { .. })
        ));
    }

    #[test]
    fn an_unanswered_value_may_be_there_or_not_but_stays_once_seen() {
        let ledger = Ledger::new(7, 8);
        let first = ledger.issue(3, 1);
        ledger.acknowledged(&first);
        let second = ledger.issue(3, 1);
        assert_eq!(read(&ledger, &first.fill(BYTES)), Ok(()));
        assert_eq!(read(&ledger, &second.fill(BYTES)), Ok(()));
        assert!(matches!(
            read(&ledger, &first.fill(BYTES)),
            Err(Fault::WentBack { floor: 2, .. })
        ));
    }

    #[test]
    fn an_unanswered_value_must_not_come_back_after_a_newer_acknowledged_one() {
        let ledger = Ledger::new(7, 8);
        let ghost = ledger.issue(3, 1);
        ledger.acknowledged(&ledger.issue(3, 1));
        assert!(matches!(
            read(&ledger, &ghost.fill(BYTES)),
            Err(Fault::WentBack {
                found: 1,
                floor: 2,
                ..
            })
        ));
    }

    #[test]
    fn a_read_that_began_before_the_acknowledgement_may_find_the_older_value() {
        let ledger = Ledger::new(7, 8);
        let start = ledger.before_read(3);
        ledger.acknowledged(&ledger.issue(3, 1));
        assert_eq!(ledger.after_read(start, &[0; BYTES], "here"), Ok(()));
    }

    #[test]
    fn torn_misplaced_and_invented_values_are_faults() {
        let ledger = Ledger::new(7, 8);
        let stamp = ledger.issue(3, 1);
        let mut torn = stamp.fill(BYTES).to_vec();
        torn[300] ^= 1;
        assert!(matches!(read(&ledger, &torn), Err(Fault::Torn { .. })));
        let elsewhere = Stamp { unit: 4, ..stamp };
        assert!(matches!(
            read(&ledger, &elsewhere.fill(BYTES)),
            Err(Fault::Misplaced { .. })
        ));
        let invented = Stamp { sequence: 2, ..stamp };
        assert!(matches!(
            read(&ledger, &invented.fill(BYTES)),
            Err(Fault::NeverWritten { .. })
        ));
    }
}
