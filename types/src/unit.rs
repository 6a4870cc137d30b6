//! What a logical unit's committed state means for the commands of its data path.

use crate::{BlockOp, InitiatorTag, NexusTag, UnitVersion};

/// Reservations and resets in the form in which the data path looks at them (P1, I13). `scsi` makes it from the unit's committed state,
/// `replication` judges by it where a command takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitRule {
    /// Version of the state that it was made from.
    pub version: UnitVersion,
    /// Whether who is not among `holders` may read.
    pub others_read: bool,
    /// Whether who is not among `holders` may write.
    pub others_write: bool,
    /// Who may do everything; sorted.
    pub holders: Vec<NexusTag>,
    /// What was admitted under an older version was ended by a reset of the unit.
    pub cleared: UnitVersion,
    /// The same for the commands of single nexuses (PREEMPT AND ABORT); sorted.
    pub aborted: Vec<(NexusTag, UnitVersion)>,
    /// A SANITIZE is under way, or has failed: no nexus reads or writes, and what comes all the same has ended. What was admitted under a
    /// newer version knows more: it is over.
    pub closed: bool,
}

impl Default for UnitRule {
    /// Nothing reserved, nothing reset.
    fn default() -> Self {
        Self {
            version: UnitVersion(0),
            others_read: true,
            others_write: true,
            holders: Vec::new(),
            cleared: UnitVersion(0),
            aborted: Vec::new(),
            closed: false,
        }
    }
}

/// Where a command comes from, as far as reservations and resets of the unit care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The nexus.
    pub nexus: NexusTag,
    /// Version of the unit's state under which the node that took the command admitted it.
    pub admitted: UnitVersion,
    /// Whose nexus it is.
    pub initiator: InitiatorTag,
}

/// The verdict on a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitVerdict {
    /// It may take effect.
    Admit,
    /// RESERVATION CONFLICT.
    Conflict,
    /// Task management has ended it: it never takes effect and is not answered.
    Ended,
}

impl UnitRule {
    /// Whether a command may take effect now. What reads alone is READ and VERIFY; everything else,
    /// SYNCHRONIZE CACHE too, is a write to a reservation (SBC-3, 4.17).
    pub fn judge(&self, op: &BlockOp, from: Origin) -> UnitVerdict {
        let Origin { nexus, admitted, .. } = from;
        if nexus == NexusTag::NOBODY || matches!(op, BlockOp::Fence { .. }) {
            return UnitVerdict::Admit;
        }
        let ended = |at: UnitVersion| admitted < at;
        let aborted = || {
            let found = self.aborted.binary_search_by_key(&nexus, |(tag, _)| *tag);
            found.ok().is_some_and(|at| ended(self.aborted[at].1))
        };
        let closed = self.closed && admitted <= self.version;
        if closed || ended(self.cleared) || (!self.aborted.is_empty() && aborted()) {
            return UnitVerdict::Ended;
        }
        let reads_alone = op.reads() && !op.writes();
        let open = if reads_alone {
            self.others_read
        } else {
            self.others_write
        };
        if open || self.holders.binary_search(&nexus).is_ok() {
            UnitVerdict::Admit
        } else {
            UnitVerdict::Conflict
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockRange, Lba};

    const HOLDER: NexusTag = NexusTag(7);
    const OTHER: NexusTag = NexusTag(9);

    fn read() -> BlockOp {
        BlockOp::Read {
            range: BlockRange::new(Lba(0), 1).unwrap(),
        }
    }

    fn compare_and_write() -> BlockOp {
        BlockOp::CompareAndWrite {
            range: BlockRange::new(Lba(0), 1).unwrap(),
            expect: bytes::Bytes::new(),
            data: bytes::Bytes::new(),
        }
    }

    #[test]
    fn i13_a_unit_that_is_shut_lets_in_only_who_knows_that_it_is_open_again() {
        let rule = UnitRule {
            version: UnitVersion(5),
            cleared: UnitVersion(4),
            closed: true,
            ..UnitRule::default()
        };
        let from = |admitted| Origin {
            nexus: OTHER,
            admitted: UnitVersion(admitted),
            ..Origin::default()
        };
        for admitted in 0..=5 {
            assert_eq!(
                rule.judge(&read(), from(admitted)),
                UnitVerdict::Ended,
                "{admitted}"
            );
        }
        // The front of its node has applied the end already, this primary has not: it must not be left without an answer.
        assert_eq!(rule.judge(&read(), from(6)), UnitVerdict::Admit);
        // The cluster's own operations.
        assert_eq!(rule.judge(&read(), Origin::default()), UnitVerdict::Admit);
    }

    #[test]
    fn p1_who_may_do_what() {
        let by = |nexus| Origin {
            nexus,
            admitted: UnitVersion(5),
            ..Origin::default()
        };
        for (others_read, others_write) in [(true, true), (true, false), (false, false)] {
            let rule = UnitRule {
                others_read,
                others_write,
                holders: vec![NexusTag(3), HOLDER],
                ..UnitRule::default()
            };
            for op in [read(), BlockOp::Flush, compare_and_write()] {
                assert_eq!(rule.judge(&op, by(HOLDER)), UnitVerdict::Admit);
                let open = if op == read() { others_read } else { others_write };
                let admitted = rule.judge(&op, by(OTHER)) == UnitVerdict::Admit;
                assert_eq!(admitted, open, "{op:?}");
                assert_eq!(rule.judge(&op, by(NexusTag::NOBODY)), UnitVerdict::Admit);
            }
        }
    }

    #[test]
    fn i13_what_was_admitted_before_a_reset_is_ended() {
        let rule = UnitRule {
            cleared: UnitVersion(4),
            aborted: vec![(HOLDER, UnitVersion(6))],
            ..UnitRule::default()
        };
        let verdict = |nexus, version| {
            let admitted = UnitVersion(version);
            let from = Origin {
                nexus,
                admitted,
                ..Origin::default()
            };
            rule.judge(&read(), from)
        };
        assert_eq!(verdict(OTHER, 3), UnitVerdict::Ended);
        assert_eq!(verdict(OTHER, 4), UnitVerdict::Admit);
        assert_eq!(verdict(HOLDER, 5), UnitVerdict::Ended);
        assert_eq!(verdict(HOLDER, 6), UnitVerdict::Admit);
        let fence = BlockOp::Fence {
            version: UnitVersion(1),
        };
        assert_eq!(
            rule.judge(
                &fence,
                Origin {
                    nexus: HOLDER,
                    ..Origin::default()
                }
            ),
            UnitVerdict::Admit
        );
    }
}
