//! The part of an extent's log that is in memory, and the history of epochs that tells two logs apart.

use std::collections::VecDeque;

use holdfast_types::{BlockRange, Epoch, LogPos, Lsn};

use super::api::Record;
use super::front::OpKey;

/// Epochs that a history keeps. Older ones only matter to replicas that were away for as many failovers; those are compared in full.
const SPANS_MAX: usize = 64;

/// Where each epoch's records end in a log: enough to find the last position that two logs share, without comparing records (E5).
///
/// The first element is the oldest position that is known to be in the log; the last one is its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochHistory(Vec<LogPos>);

impl Default for EpochHistory {
    fn default() -> Self {
        Self::empty()
    }
}

impl EpochHistory {
    /// Of the empty log.
    pub fn empty() -> Self {
        Self(vec![LogPos::EMPTY])
    }

    /// From the last positions of epochs, oldest first, as read from a wire or a disk. `None` unless epochs rise and positions do too.
    pub fn from_lasts(lasts: Vec<LogPos>) -> Option<Self> {
        let rising = lasts
            .windows(2)
            .all(|pair| pair[0].epoch < pair[1].epoch && pair[0].lsn < pair[1].lsn);
        (!lasts.is_empty() && lasts.len() <= SPANS_MAX && rising).then_some(Self(lasts))
    }

    /// The last positions of epochs, oldest first. Never empty.
    pub fn lasts(&self) -> &[LogPos] {
        &self.0
    }

    /// The end of the log.
    pub fn end(&self) -> LogPos {
        self.0.last().copied().unwrap_or_default()
    }

    /// The position with this lsn, if it is known to be in the log.
    pub fn at(&self, lsn: Lsn) -> Option<LogPos> {
        let index = self.0.partition_point(|last| last.lsn < lsn);
        let span = self.0.get(index)?;
        // Where the first epoch's records begin is not known.
        (index > 0 || span.lsn == lsn).then_some(LogPos::new(span.epoch, lsn))
    }

    /// Whether the position is known to be in the log.
    pub fn holds(&self, pos: LogPos) -> bool {
        self.at(pos.lsn) == Some(pos)
    }

    /// Adds a record's position, which follows the end.
    pub(crate) fn push(&mut self, pos: LogPos) {
        match self.0.last_mut() {
            Some(last) if last.epoch == pos.epoch => last.lsn = pos.lsn,
            _ => self.0.push(pos),
        }
        if self.0.len() > SPANS_MAX {
            self.0.remove(0);
        }
    }

    /// The history of the log up to `lsn`. A position older than all that is known leaves the oldest known one's epoch.
    #[must_use]
    pub fn up_to(&self, lsn: Lsn) -> Self {
        let mut lasts: Vec<LogPos> = self.0.iter().copied().filter(|last| last.lsn < lsn).collect();
        if let Some(pos) = self.at(lsn) {
            lasts.push(pos);
        } else if lasts.is_empty() {
            let epoch = self.0.first().map_or(Epoch(0), |first| first.epoch);
            lasts.push(LogPos::new(epoch, lsn));
        }
        Self(lasts)
    }

    /// The last position that both logs hold: in the newest epoch that both know, the smaller end. Logs that share a position share all
    /// before it (a record is only taken behind its predecessor), and all records of an epoch come from one primary. `None` if they share
    /// no epoch that is still known.
    pub fn common(&self, other: &Self) -> Option<LogPos> {
        self.0.iter().rev().find_map(|mine| {
            let theirs = other.0.iter().find(|theirs| theirs.epoch == mine.epoch)?;
            Some(LogPos::new(mine.epoch, mine.lsn.min(theirs.lsn)))
        })
    }
}

/// A record in memory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    /// The open command that it carries out, if this node has to answer it; until it is committed.
    pub(crate) op: Option<OpKey>,
    /// Its place in the range table; 0 for one that has none (yet).
    pub(crate) lock: u64,
    pub(crate) applied: bool,
}

/// The log's end in memory: everything that is not applied here, and some more for replicas that were away for a moment.
#[derive(Debug)]
pub(crate) struct Log {
    /// Position before the first entry.
    before: LogPos,
    entries: VecDeque<Entry>,
    history: EpochHistory,
    bytes: usize,
    /// Stable in the local journal.
    pub(crate) durable: Lsn,
    /// Known as committed. Never beyond the end.
    pub(crate) committed: Lsn,
    /// Up to where committed records were given to the range table.
    pub(crate) handed: Lsn,
    /// Applied without gaps.
    pub(crate) applied: Lsn,
}

impl Log {
    /// A log that ends at `end`, with everything stable and applied.
    pub(crate) fn new(end: LogPos, history: EpochHistory) -> Self {
        Self {
            before: end,
            entries: VecDeque::new(),
            history,
            bytes: 0,
            durable: end.lsn,
            committed: end.lsn,
            handed: end.lsn,
            applied: end.lsn,
        }
    }

    pub(crate) fn end(&self) -> LogPos {
        self.entries.back().map_or(self.before, |entry| entry.record.pos)
    }

    pub(crate) fn history(&self) -> &EpochHistory {
        &self.history
    }

    /// Position before the oldest record in memory.
    pub(crate) fn before(&self) -> LogPos {
        self.before
    }

    /// Records that are not applied here.
    pub(crate) fn unapplied_len(&self) -> usize {
        usize::try_from(self.end().lsn.0 - self.applied.0).unwrap_or(usize::MAX)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The position applied without gaps.
    pub(crate) fn applied_pos(&self) -> LogPos {
        self.pos_at(self.applied)
            .unwrap_or_else(|| LogPos::new(self.before.epoch, self.applied))
    }

    /// The position with this lsn, if it is in memory or known from the history.
    pub(crate) fn pos_at(&self, lsn: Lsn) -> Option<LogPos> {
        if lsn == self.before.lsn {
            return Some(self.before);
        }
        self.get(lsn)
            .map(|entry| entry.record.pos)
            .or_else(|| self.history.at(lsn))
    }

    fn index(&self, lsn: Lsn) -> Option<usize> {
        let index = lsn.0.checked_sub(self.before.lsn.0 + 1)?;
        usize::try_from(index)
            .ok()
            .filter(|index| *index < self.entries.len())
    }

    pub(crate) fn get(&self, lsn: Lsn) -> Option<&Entry> {
        self.entries.get(self.index(lsn)?)
    }

    pub(crate) fn get_mut(&mut self, lsn: Lsn) -> Option<&mut Entry> {
        let index = self.index(lsn)?;
        self.entries.get_mut(index)
    }

    /// The records behind `lsn` that are in memory.
    pub(crate) fn behind(&self, lsn: Lsn) -> impl Iterator<Item = &Record> {
        let skip = lsn.0.saturating_sub(self.before.lsn.0);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip).map(|entry| &entry.record)
    }

    /// A position up to the committed one behind which no committed record touches these blocks: as old as a short look tells.
    pub(crate) fn newest_on(&self, blocks: BlockRange) -> Lsn {
        const LOOK: u64 = 1024;
        let touches = |record: &Record| record.body.ranges().iter().any(|range| range.overlaps(blocks));
        let mut at = self.committed;
        let oldest = Lsn(self.before.lsn.0.max(at.0.saturating_sub(LOOK)));
        while at > oldest && self.get(at).is_some_and(|entry| !touches(&entry.record)) {
            at = Lsn(at.0 - 1);
        }
        at
    }

    /// Appends; the record's lsn must be the next one, its epoch not older than the end's.
    pub(crate) fn push(&mut self, record: Record, op: Option<OpKey>, lock: u64) {
        debug_assert_eq!(record.pos.lsn, self.end().lsn.next());
        debug_assert!(record.pos.epoch >= self.end().epoch);
        self.history.push(record.pos);
        self.bytes += record.body.payload_len();
        self.entries.push_back(Entry {
            record,
            op,
            lock,
            applied: false,
        });
    }

    /// Takes off the last entry if it is behind `after`.
    pub(crate) fn pop_behind(&mut self, after: LogPos) -> Option<Entry> {
        if self.end().lsn <= after.lsn {
            return None;
        }
        let entry = self.entries.pop_back()?;
        self.bytes -= entry.record.body.payload_len();
        self.history = self.history.up_to(self.end().lsn);
        self.durable = self.durable.min(self.end().lsn);
        Some(entry)
    }

    /// The entry, if its command is not done yet.
    pub(crate) fn uncommitted(&mut self, lsn: Lsn) -> Option<&mut Entry> {
        if lsn <= self.handed {
            None
        } else {
            self.get_mut(lsn)
        }
    }

    /// Marks an entry as applied and moves the gapless position.
    pub(crate) fn applied(&mut self, lsn: Lsn) {
        let Some(entry) = self.get_mut(lsn) else { return };
        entry.applied = true;
        while self.get(self.applied.next()).is_some_and(|entry| entry.applied) {
            self.applied = self.applied.next();
        }
    }

    /// Frees applied records up to `stored` (what every streaming replica holds), oldest first, as long as more than `keep` bytes, or
    /// more entries than bytes justify, are held.
    pub(crate) fn trim(&mut self, stored: Lsn, keep: usize) {
        let upto = self.applied.min(stored);
        while let Some(first) = self.entries.front() {
            let crowded = self.bytes > keep || self.entries.len() > keep / 256 + 8;
            if !crowded || first.record.pos.lsn > upto {
                break;
            }
            self.before = first.record.pos;
            self.bytes -= first.record.body.payload_len();
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(lasts: &[(u64, u64)]) -> EpochHistory {
        EpochHistory::from_lasts(
            lasts
                .iter()
                .map(|(e, l)| LogPos::new(Epoch(*e), Lsn(*l)))
                .collect(),
        )
        .unwrap()
    }

    fn pos(epoch: u64, lsn: u64) -> LogPos {
        LogPos::new(Epoch(epoch), Lsn(lsn))
    }

    #[test]
    fn e5_common_point_is_epoch_by_epoch() {
        let new_primary = history(&[(0, 0), (1, 10), (3, 15)]);
        // Longer in an old epoch: what the primary does not hold goes, though the lsn is smaller than the primary's end.
        assert_eq!(new_primary.common(&history(&[(0, 0), (1, 12)])), Some(pos(1, 10)));
        // Records of an epoch that the primary never saw go.
        assert_eq!(
            new_primary.common(&history(&[(0, 0), (1, 10), (2, 14)])),
            Some(pos(1, 10))
        );
        assert_eq!(new_primary.common(&history(&[(1, 7)])), Some(pos(1, 7)));
        assert_eq!(new_primary.common(&history(&[(2, 7)])), None);
        assert_eq!(new_primary.common(&new_primary), Some(pos(3, 15)));
    }

    #[test]
    fn history_knows_positions_and_cuts() {
        let h = history(&[(1, 10), (3, 15)]);
        assert_eq!(h.at(Lsn(10)), Some(pos(1, 10)));
        assert_eq!(h.at(Lsn(9)), None);
        assert_eq!(h.at(Lsn(11)), Some(pos(3, 11)));
        assert_eq!(h.at(Lsn(16)), None);
        assert_eq!(h.up_to(Lsn(12)), history(&[(1, 10), (3, 12)]));
        assert_eq!(h.up_to(Lsn(10)), history(&[(1, 10)]));
        assert_eq!(h.up_to(Lsn(4)), history(&[(1, 4)]));
    }

    #[test]
    fn malformed_histories_are_refused() {
        assert!(EpochHistory::from_lasts(vec![]).is_none());
        assert!(EpochHistory::from_lasts(vec![pos(2, 1), pos(1, 2)]).is_none());
        assert!(EpochHistory::from_lasts(vec![pos(1, 2), pos(2, 2)]).is_none());
    }
}
