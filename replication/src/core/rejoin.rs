//! How a replica comes (back) under a primary: one table.

use holdfast_types::{InSyncVersion, LogPos};

use super::api::LogSummary;
use super::log::EpochHistory;

/// What a primary does with a replica that told its log. Only what the table says, and every verdict is noted when it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A member of the in-sync set: drops what is behind the position, gets the rest, counts.
    InSyncAlready {
        /// Last common position.
        after: LogPos,
    },
    /// Out of the set, but the log since its position is in memory: gets it, ranges that the log touched are compared.
    LogTail {
        /// Complete up to here.
        after: LogPos,
        /// It has an unfinished resync behind it: its log starts anew here.
        restart: bool,
    },
    /// Out of the set, and the log since its position is not in memory: the ranges changed since then on either side are compared.
    ChangedSince {
        /// Complete up to here.
        after: LogPos,
    },
    /// Out of the set: every range is compared.
    FullCompare,
    /// A member that cannot stay one (damaged, fenced, or its end is no longer in memory): it leaves by commit first.
    MustLeave,
    /// Out of the set and fenced: nothing can be done until its process starts anew.
    Unfit,
    /// Out of the set, and its disk makes no progress: nothing can be done until it does (I10).
    Stuck,
}

/// What the primary knows when it judges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge<'a> {
    /// The replica is in the committed in-sync set, as applied here.
    pub(crate) in_sync: bool,
    /// Version of that set.
    pub(crate) version: InSyncVersion,
    /// The primary's log.
    pub(crate) history: &'a EpochHistory,
    /// The position before the oldest record that the primary has in memory.
    pub(crate) before: LogPos,
}

/// The table (E5, R1, R2, J1, J2).
pub(crate) fn decide_rejoin(judge: Judge<'_>, log: &LogSummary) -> Verdict {
    // A mark made before the version that took it in (again) is over: the node has not applied that commit yet.
    let base = log
        .base
        .filter(|base| !(judge.in_sync && base.version < judge.version));
    let in_memory = |pos: &LogPos| pos.lsn >= judge.before.lsn;
    let shared = judge.history.common(&log.history);
    let common = shared.filter(in_memory);
    // What is known of an empty log says nothing of what is on the disk.
    let changed_since = |after: LogPos| {
        if after.lsn > LogPos::EMPTY.lsn && judge.history.holds(after) {
            Verdict::ChangedSince { after }
        } else {
            Verdict::FullCompare
        }
    };
    let base_held = base
        .map(|base| base.pos)
        .filter(|pos| in_memory(pos) && judge.history.holds(*pos));
    if log.stuck && !log.fenced {
        return match judge.in_sync {
            true => Verdict::MustLeave,
            false => Verdict::Stuck,
        };
    }
    match (judge.in_sync, log.fenced, log.damaged, base) {
        (true, true, _, _) | (true, _, true, _) | (true, _, _, Some(_)) => Verdict::MustLeave,
        (false, true, _, _) => Verdict::Unfit,
        (false, false, true, _) => Verdict::FullCompare,
        (true, false, false, None) => match common {
            Some(after) if after.lsn >= log.committed.lsn => Verdict::InSyncAlready { after },
            _ => Verdict::MustLeave,
        },
        (false, false, false, None) => match common {
            Some(after) if after.lsn >= log.committed.lsn => Verdict::LogTail {
                after,
                restart: false,
            },
            _ if shared.is_some_and(|shared| shared.lsn >= log.committed.lsn) => changed_since(log.applied),
            _ => Verdict::FullCompare,
        },
        (false, false, false, Some(base)) => match base_held {
            Some(after) => Verdict::LogTail { after, restart: true },
            None => changed_since(base.pos),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::api::Base;
    use holdfast_types::{Epoch, Lsn};

    fn pos(epoch: u64, lsn: u64) -> LogPos {
        LogPos::new(Epoch(epoch), Lsn(lsn))
    }

    fn history(lasts: &[(u64, u64)]) -> EpochHistory {
        EpochHistory::from_lasts(lasts.iter().map(|(e, l)| pos(*e, *l)).collect()).unwrap()
    }

    fn verdict(in_sync: bool, log: &LogSummary) -> Verdict {
        let history = history(&[(0, 0), (1, 100), (2, 200)]);
        let judge = Judge {
            in_sync,
            version: InSyncVersion(7),
            history: &history,
            before: pos(1, 90),
        };
        decide_rejoin(judge, log)
    }

    fn log(lasts: &[(u64, u64)], committed: LogPos) -> LogSummary {
        LogSummary {
            history: history(lasts),
            committed,
            applied: committed,
            unapplied: vec![],
            base: None,
            damaged: false,
            fenced: false,
            stuck: false,
        }
    }

    #[test]
    fn r1_an_unfinished_resync_counts_from_its_base_never_from_the_end_of_its_log() {
        let mut half = log(&[(2, 200)], pos(2, 200));
        let base = |pos, version| {
            Some(Base {
                pos,
                version: InSyncVersion(version),
            })
        };
        half.base = base(pos(1, 50), 6);
        let after = pos(1, 50);
        assert_eq!(verdict(false, &half), Verdict::ChangedSince { after });
        half.base = base(LogPos::EMPTY, 6);
        assert_eq!(verdict(false, &half), Verdict::FullCompare);
        half.base = base(pos(1, 95), 6);
        let tail = Verdict::LogTail {
            after: pos(1, 95),
            restart: true,
        };
        assert_eq!(verdict(false, &half), tail);
        // Taken in by a later version than the mark's: the mark is over.
        assert_eq!(
            verdict(true, &half),
            Verdict::InSyncAlready { after: pos(2, 200) }
        );
        // A mark of the same version contradicts the set: out first.
        half.base = base(pos(1, 95), 7);
        assert_eq!(verdict(true, &half), Verdict::MustLeave);
    }

    #[test]
    fn r2_cheapest_way_first() {
        let near = log(&[(1, 105)], pos(1, 95));
        assert_eq!(
            verdict(true, &near),
            Verdict::InSyncAlready { after: pos(1, 100) }
        );
        let tail = Verdict::LogTail {
            after: pos(1, 100),
            restart: false,
        };
        assert_eq!(verdict(false, &near), tail);
        let far = log(&[(1, 80)], pos(1, 80));
        assert_eq!(verdict(true, &far), Verdict::MustLeave);
        let after = pos(1, 80);
        assert_eq!(verdict(false, &far), Verdict::ChangedSince { after });
        // It counts from what its extent holds, not from the end of its log.
        let applied = LogSummary {
            applied: pos(1, 70),
            ..far.clone()
        };
        let after = pos(1, 70);
        assert_eq!(verdict(false, &applied), Verdict::ChangedSince { after });
        let empty = LogSummary {
            applied: LogPos::EMPTY,
            ..far
        };
        assert_eq!(verdict(false, &empty), Verdict::FullCompare);
    }

    #[test]
    fn i7_a_replica_that_knows_committed_what_the_primary_does_not_hold_is_never_trusted() {
        let ahead = log(&[(1, 105)], pos(1, 103));
        assert_eq!(verdict(true, &ahead), Verdict::MustLeave);
        assert_eq!(verdict(false, &ahead), Verdict::FullCompare);
    }

    #[test]
    fn j1_damage_and_j2_fences_leave_the_set() {
        let mut bad = log(&[(2, 200)], pos(2, 200));
        bad.damaged = true;
        assert_eq!(verdict(true, &bad), Verdict::MustLeave);
        assert_eq!(verdict(false, &bad), Verdict::FullCompare);
        bad.fenced = true;
        assert_eq!(verdict(true, &bad), Verdict::MustLeave);
        assert_eq!(verdict(false, &bad), Verdict::Unfit);
    }
}
