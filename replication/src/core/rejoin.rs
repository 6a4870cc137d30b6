//! What a replica is, found at its start or when it comes (back) under a primary: two tables with a name for each row.
//!
//! [`STANDINGS`] says what a node makes of itself, from what recovery found on its disk and what is committed. [`REJOINS`] says what a
//! primary does with a replica that told its log. Rows are looked at from the top, and the first that fits counts. Tests go through
//! every combination: each finds a row, and each row is found.

use holdfast_types::{InSyncVersion, LogPos};

use super::api::LogSummary;
use super::log::EpochHistory;
use crate::fault::{self, Fault};

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
    /// A member that cannot stay one: it leaves by commit first.
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

/// What the replica says of its disk, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// It failed in this run (J2).
    Fenced,
    /// It makes no progress (I10).
    Stuck,
    /// It lost something (J1).
    Damaged,
    Sound,
}

/// From where its log can be followed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The last common position is in the primary's memory, and nothing is behind it that the replica knows as committed.
    Log,
    /// It has an unfinished resync (R1), and the position up to which it is complete is in the primary's memory.
    Base,
    /// It has an unfinished resync, and that position is in the primary's log, but not in memory.
    OldBase,
    /// It has an unfinished resync, and that position is not in the primary's log, or before the first record.
    NoBase,
    /// The last common position is not in memory; the primary's log holds the one up to which the replica's extent is complete.
    OldLog,
    /// There is no position that both know.
    NoLog,
    /// It knows as committed what the primary's log does not hold (I7).
    Ahead,
}

/// What is done, without positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    InSyncAlready,
    LogTail,
    LogTailFromBase,
    ChangedSince,
    FullCompare,
    MustLeave,
    Unfit,
    Stuck,
}

/// A row: its name, whom it fits (`None`: everybody), and what is done.
type Rejoin = (&'static str, Option<bool>, Option<Disk>, Option<Reach>, What);

/// E5, R1, R2, J1, J2, I10. Columns: in the committed in-sync set, its disk, reach of its log.
#[rustfmt::skip]
const REJOINS: &[Rejoin] = &[
    ("a member whose disk failed", Some(true), Some(Disk::Fenced), None, What::MustLeave),
    ("a member whose disk makes no progress", Some(true), Some(Disk::Stuck), None, What::MustLeave),
    ("a member whose disk lost something", Some(true), Some(Disk::Damaged), None, What::MustLeave),
    ("a member that was never resynced to its end", Some(true), None, Some(Reach::Base), What::MustLeave),
    ("a member whose resync was broken off long ago", Some(true), None, Some(Reach::OldBase), What::MustLeave),
    ("a member with a resync from nothing that counts", Some(true), None, Some(Reach::NoBase), What::MustLeave),
    ("a member that was away for too long", Some(true), None, Some(Reach::OldLog), What::MustLeave),
    ("a member of which nothing is known", Some(true), None, Some(Reach::NoLog), What::MustLeave),
    ("a member that is ahead", Some(true), None, Some(Reach::Ahead), What::MustLeave),
    ("a member", Some(true), None, Some(Reach::Log), What::InSyncAlready),
    ("its disk failed", None, Some(Disk::Fenced), None, What::Unfit),
    ("its disk makes no progress", None, Some(Disk::Stuck), None, What::Stuck),
    ("its disk lost something", None, Some(Disk::Damaged), None, What::FullCompare),
    ("it missed the newer end of the log", None, None, Some(Reach::Log), What::LogTail),
    ("its resync was broken off lately", None, None, Some(Reach::Base), What::LogTailFromBase),
    ("its resync was broken off long ago", None, None, Some(Reach::OldBase), What::ChangedSince),
    ("its resync was from nothing that counts", None, None, Some(Reach::NoBase), What::FullCompare),
    ("it was away for too long", None, None, Some(Reach::OldLog), What::ChangedSince),
    ("nothing is known of it", None, None, Some(Reach::NoLog), What::FullCompare),
    ("it is ahead", None, None, Some(Reach::Ahead), What::FullCompare),
];

fn rejoin_row(in_sync: bool, disk: Disk, reach: Reach) -> Option<&'static Rejoin> {
    REJOINS
        .iter()
        .find(|(_, wants_in_sync, wants_disk, wants_reach, _)| {
            wants_in_sync.is_none_or(|wanted| wanted == in_sync)
                && wants_disk.is_none_or(|wanted| wanted == disk)
                && wants_reach.is_none_or(|wanted| wanted == reach)
        })
}

/// The table's verdict, and the name of its row.
pub(crate) fn decide_rejoin(judge: Judge<'_>, log: &LogSummary) -> (Verdict, &'static str) {
    let disk = match (log.fenced, log.stuck, log.damaged) {
        (true, _, _) => Disk::Fenced,
        (_, true, _) => Disk::Stuck,
        (_, _, true) => Disk::Damaged,
        _ => Disk::Sound,
    };
    // A mark made before the version that took it in (again) is over: the node has not applied that commit yet.
    let over = |version: InSyncVersion| judge.in_sync && version < judge.version;
    let base = log.base.filter(|base| !over(base.version)).map(|base| base.pos);
    let in_memory = |pos: &LogPos| pos.lsn >= judge.before.lsn;
    let shared = judge.history.common(&log.history);
    // What is known of an empty log says nothing of what is on the disk.
    let told = |pos: LogPos| pos.lsn > LogPos::EMPTY.lsn && judge.history.holds(pos);
    let (reach, after) = match (base, shared) {
        // A base at the empty log is that of a replica that was not trusted (J1): what lies in its blocks, no log can tell.
        (Some(base), _) if base != LogPos::EMPTY && in_memory(&base) && judge.history.holds(base) => {
            (Reach::Base, base)
        }
        (Some(base), _) if told(base) => (Reach::OldBase, base),
        (Some(base), _) => (Reach::NoBase, base),
        (None, Some(shared)) if shared.lsn < log.committed.lsn => (Reach::Ahead, shared),
        (None, Some(shared)) if in_memory(&shared) => (Reach::Log, shared),
        // It counts from what its extent holds, not from the end of its log.
        (None, Some(_)) if told(log.applied) => (Reach::OldLog, log.applied),
        (None, _) => (Reach::NoLog, LogPos::EMPTY),
    };
    let (name, what) = rejoin_row(judge.in_sync, disk, reach)
        .map_or(("nothing fits", What::Unfit), |(name, _, _, _, what)| {
            (*name, *what)
        });
    let verdict = match what {
        What::InSyncAlready => Verdict::InSyncAlready { after },
        What::LogTail => Verdict::LogTail {
            after,
            restart: false,
        },
        What::LogTailFromBase => Verdict::LogTail { after, restart: true },
        What::ChangedSince => Verdict::ChangedSince { after },
        What::FullCompare => Verdict::FullCompare,
        What::MustLeave => Verdict::MustLeave,
        What::Unfit => Verdict::Unfit,
        What::Stuck => Verdict::Stuck,
    };
    (verdict, name)
}

/// Who the newest committed epoch names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// Somebody else, or nobody.
    NotThis,
    /// This node, in an earlier run.
    EarlierRun,
    /// This run, which serves the epoch already.
    Serving,
    /// This run, whose log ends in the epoch: it served it, and left.
    Left,
    /// This run, for an epoch that is new to it.
    ThisRun,
}

/// What recovery found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// Journal or extent failed in this run (J2).
    Failed,
    /// Journal or files lost something, or are gone (J1).
    Damaged,
    /// An unfinished resync (R1).
    Unfinished,
    /// A log without a gap.
    Whole,
}

/// What a node makes of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// Holds no replica.
    Outside,
    /// Follows whoever is primary.
    Replica,
    /// Named as primary, and serves nothing.
    Closed,
    /// Primary.
    Primary,
    /// Answers nothing.
    Fenced,
}

/// What a node knows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What recovery, and this run, found.
    pub(crate) own: Own,
    /// It is meant to hold a replica, or is in the in-sync set.
    pub(crate) replica: bool,
    /// A newer epoch than the committed one that was applied here was heard of.
    pub(crate) behind: bool,
    /// Whom the newest committed epoch names.
    pub(crate) named: Named,
}

/// A row: its name, whom it fits (`None`: everybody), and what follows.
type Row = (
    &'static str,
    Option<Own>,
    Option<bool>,
    Option<bool>,
    Option<Named>,
    Stands,
);

/// E1, E4, J1, J2, R1. Columns: what recovery found, holds a replica, a newer epoch was heard of, whom the epoch names.
#[rustfmt::skip]
const STANDINGS: &[Row] = &[
    ("its disk failed", Some(Own::Failed), None, None, None, Stands::Fenced),
    ("it is no replica", None, Some(false), None, None, Stands::Outside),
    ("a newer epoch was heard of", None, None, Some(true), None, Stands::Replica),
    ("somebody else is primary, or nobody", None, None, None, Some(Named::NotThis), Stands::Replica),
    ("an earlier run of it is primary", None, None, None, Some(Named::EarlierRun), Stands::Closed),
    ("it is primary and serves", None, None, None, Some(Named::Serving), Stands::Primary),
    ("it served this epoch and left", None, None, None, Some(Named::Left), Stands::Closed),
    ("it is primary, and its disk lost something", Some(Own::Damaged), None, None, None, Stands::Closed),
    ("it is primary, and was never resynced to its end", Some(Own::Unfinished), None, None, None, Stands::Closed),
    ("it is primary", None, None, None, Some(Named::ThisRun), Stands::Primary),
];

fn standing_row(standing: Standing) -> Option<&'static Row> {
    STANDINGS.iter().find(|(_, own, replica, behind, named, _)| {
        own.is_none_or(|wanted| wanted == standing.own)
            && replica.is_none_or(|wanted| wanted == standing.replica)
            && behind.is_none_or(|wanted| wanted == standing.behind)
            && named.is_none_or(|wanted| wanted == standing.named)
    })
}

/// What the node is, and the name of the table's row.
pub(crate) fn decide_standing(standing: Standing) -> (Stands, &'static str) {
    let (stands, why) = standing_row(standing).map_or((Stands::Fenced, "nothing fits"), |row| (row.5, row.0));
    if fault::on(Fault::ServeAfterRestart) && standing.named == Named::EarlierRun && stands == Stands::Closed
    {
        return (Stands::Primary, "a rule is broken on purpose");
    }
    (stands, why)
}

#[cfg(test)]
#[path = "rejoin_test.rs"]
mod tests;
