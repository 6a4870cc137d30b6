//! What a journal's entries say about one extent: replayed at start, and kept up to date while the node runs.

use std::collections::VecDeque;

use holdfast_journal::Position;
use holdfast_types::{Epoch, LogPos, Lsn};

use super::entry::{Checkpoint, Entry};
use crate::core::api::{Base, EpochHistory, Record, Recovered};

/// Entries that no correct run of this program leaves behind: the replica counts as damaged (J1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    /// A record that does not follow the one before it.
    #[error("record {found} follows {end}")]
    Gap {
        /// The record.
        found: LogPos,
        /// The end of the log before it.
        end: LogPos,
    },
    /// Two records with the same number.
    #[error("record {found} has the place of {held}")]
    Twice {
        /// The later one in the journal.
        found: LogPos,
        /// The earlier one.
        held: LogPos,
    },
    /// What is applied would be dropped (I7).
    #[error("the log is cut at {after}, but is applied up to {applied}")]
    CutApplied {
        /// The last position that would stay.
        after: LogPos,
        /// Applied up to here.
        applied: LogPos,
    },
    /// Records that were stable are gone.
    #[error("the log ends at {end}, but was stable up to {stable}")]
    Lost {
        /// What is left.
        end: LogPos,
        /// What there was.
        stable: LogPos,
    },
    /// Nothing says where the log begins.
    #[error("the journal has no checkpoint of it")]
    NoCheckpoint,
}

/// The index of one extent's part of the journal: what recovery starts from, and where every record behind it is. `R` is the
/// record itself during recovery, and nothing while the node runs: then the journal is read again where a record is wanted.
#[derive(Debug)]
pub(crate) struct ExtentLog<R> {
    /// Where the newest entry is that sets the log's beginning (checkpoint, restart); `None` before the first.
    anchor: Option<Position>,
    /// Stable in the extent file up to here.
    applied: LogPos,
    commit: Lsn,
    seen: Epoch,
    base: Option<Base>,
    /// Of the log up to `applied`.
    origin: EpochHistory,
    /// Of the whole log.
    history: EpochHistory,
    /// Records behind `applied`.
    tail: VecDeque<Place<R>>,
    /// Known to have been stable; the log must reach it.
    stable: LogPos,
    /// The records follow `applied` without a gap and reach `stable`. Not so while a journal whose beginning is gone is replayed:
    /// then records are taken as they come, until a checkpoint, and the copies behind it (J3), or a restart make it whole.
    whole: bool,
}

/// A record's place in the journal.
#[derive(Debug)]
pub(crate) struct Place<R> {
    pub(crate) pos: LogPos,
    pub(crate) at: Position,
    pub(crate) record: R,
}

impl<R> ExtentLog<R> {
    pub(crate) fn new() -> Self {
        Self {
            anchor: None,
            applied: LogPos::EMPTY,
            commit: Lsn(0),
            seen: Epoch(0),
            base: None,
            origin: EpochHistory::empty(),
            history: EpochHistory::empty(),
            tail: VecDeque::new(),
            stable: LogPos::EMPTY,
            whole: false,
        }
    }

    pub(crate) fn end(&self) -> LogPos {
        self.tail.back().map_or(self.applied, |place| place.pos)
    }

    pub(crate) fn applied(&self) -> LogPos {
        self.applied
    }

    /// The position with this lsn, at or behind the checkpoint.
    pub(crate) fn pos_at(&self, lsn: Lsn) -> Option<LogPos> {
        let index = lsn.0.checked_sub(self.applied.lsn.0)?;
        match usize::try_from(index).ok()?.checked_sub(1) {
            None => Some(self.applied),
            Some(index) => self.tail.get(index).map(|place| place.pos),
        }
    }

    /// The oldest place in the journal that recovery of this extent needs.
    pub(crate) fn needed_from(&self) -> Option<Position> {
        let anchor = self.anchor?;
        Some(self.tail.front().map_or(anchor, |first| first.at.min(anchor)))
    }

    /// A record was appended at `at`.
    ///
    /// # Errors
    /// [`Inconsistent`] if it does not follow; nothing is changed then.
    pub(crate) fn record(
        &mut self,
        at: Position,
        pos: LogPos,
        commit: Lsn,
        record: R,
    ) -> Result<(), Inconsistent> {
        let end = self.end();
        if self.anchor.is_some() && pos.lsn <= self.applied.lsn {
            return Ok(());
        }
        let held = pos
            .lsn
            .0
            .checked_sub(self.tail.front().map_or(u64::MAX, |first| first.pos.lsn.0))
            .and_then(|index| usize::try_from(index).ok());
        if let Some(held) = held.and_then(|index| self.tail.get_mut(index)) {
            if held.pos != pos {
                return Err(Inconsistent::Twice {
                    found: pos,
                    held: held.pos,
                });
            }
            // Copied forward (J3): the newer place counts.
            held.at = at;
            return Ok(());
        }
        let follows = end.lsn.0.checked_add(1) == Some(pos.lsn.0) && pos.epoch >= end.epoch;
        if !follows {
            if self.whole {
                return Err(Inconsistent::Gap { found: pos, end });
            }
            self.tail.clear();
        }
        if self.whole {
            self.history.push(pos);
        }
        self.seen = self.seen.max(pos.epoch);
        self.commit = self.commit.max(commit);
        self.tail.push_back(Place { pos, at, record });
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        if !self.whole && self.anchor.is_some() && self.follows() && self.end().lsn >= self.stable.lsn {
            self.whole = true;
            self.history = self.origin.clone();
            self.tail.iter().for_each(|place| self.history.push(place.pos));
        }
    }

    /// Whether the oldest record is the one behind `applied`.
    fn follows(&self) -> bool {
        let next = self.applied.lsn.0.checked_add(1);
        self.tail
            .front()
            .is_none_or(|first| next == Some(first.pos.lsn.0))
    }

    /// Records behind `after` are dropped (E5).
    ///
    /// # Errors
    /// [`Inconsistent::CutApplied`]; nothing is changed then.
    pub(crate) fn truncate(&mut self, after: LogPos) -> Result<(), Inconsistent> {
        if self.anchor.is_some() && after.lsn < self.applied.lsn {
            return Err(Inconsistent::CutApplied {
                after,
                applied: self.applied,
            });
        }
        while self.tail.back().is_some_and(|last| last.pos.lsn > after.lsn) {
            self.tail.pop_back();
        }
        if self.whole {
            self.history = self.history.up_to(self.end().lsn);
        }
        if self.stable.lsn > after.lsn {
            self.stable = after;
        }
        self.settle();
        Ok(())
    }

    /// The log starts anew behind `from` (R1).
    pub(crate) fn restart(&mut self, at: Position, base: Base, from: LogPos, history: EpochHistory) {
        self.anchor = Some(at);
        self.applied = from;
        self.commit = from.lsn;
        self.seen = self.seen.max(from.epoch);
        self.base = Some(base);
        self.origin = history.clone();
        self.history = history;
        self.tail.clear();
        self.stable = from;
        self.whole = true;
    }

    /// The resync is over (R1).
    pub(crate) fn clear_base(&mut self) {
        self.base = None;
    }

    /// A checkpoint was written at `at`.
    pub(crate) fn checkpointed(&mut self, at: Position, checkpoint: &Checkpoint) {
        while self
            .tail
            .front()
            .is_some_and(|first| first.pos.lsn <= checkpoint.applied.lsn)
        {
            self.tail.pop_front();
        }
        self.applied = checkpoint.applied;
        self.whole = self.whole && self.follows();
        self.origin = checkpoint.history.clone();
        self.anchor = Some(at);
        self.commit = self.commit.max(checkpoint.commit);
        self.seen = self.seen.max(checkpoint.seen);
        self.base = checkpoint.base;
        self.stable = checkpoint.end;
        // A log that was whole and ends early has lost records, and stays whole to say so.
        self.settle();
    }
}

impl ExtentLog<Record> {
    /// Takes in the next entry of this extent.
    ///
    /// # Errors
    /// [`Inconsistent`]: the entry is skipped and the extent counts as damaged (J1).
    pub(crate) fn replay(&mut self, at: Position, entry: Entry) -> Result<(), Inconsistent> {
        match entry {
            Entry::Record(record) => self.record(at, record.pos, record.commit, record),
            Entry::Truncate { after } => self.truncate(after),
            Entry::Restart { base, from, history } => {
                self.restart(at, base, from, history);
                Ok(())
            }
            Entry::ClearBase => {
                self.clear_base();
                Ok(())
            }
            Entry::Checkpoint(checkpoint) => {
                self.checkpointed(at, &checkpoint);
                Ok(())
            }
        }
    }

    /// Ends recovery: what the core starts from, and the index that goes on. The verdict is about what the entries say; `damaged`
    /// is set by it.
    pub(crate) fn finish(self) -> (Recovered, ExtentLog<()>, Result<(), Inconsistent>) {
        let usable = self.anchor.is_some() && self.follows();
        let end = if usable { self.end() } else { self.applied };
        let verdict = if self.anchor.is_none() {
            Err(Inconsistent::NoCheckpoint)
        } else if !usable || end.lsn < self.stable.lsn {
            Err(Inconsistent::Lost {
                end,
                stable: self.stable,
            })
        } else {
            Ok(())
        };
        let mut places = VecDeque::with_capacity(self.tail.len());
        let mut records = Vec::with_capacity(self.tail.len());
        for Place { pos, at, record } in self.tail.into_iter().filter(|_| usable) {
            places.push_back(Place { pos, at, record: () });
            records.push(record);
        }
        let recovered = Recovered {
            applied: self.applied,
            tail: records,
            history: self.origin.clone(),
            commit: self.commit.min(end.lsn),
            seen: self.seen,
            base: self.base,
            damaged: verdict.is_err(),
        };
        let live = ExtentLog {
            anchor: self.anchor,
            applied: self.applied,
            commit: recovered.commit,
            seen: self.seen,
            base: self.base,
            origin: self.origin.clone(),
            history: if self.whole { self.history } else { self.origin },
            tail: places,
            stable: self.stable.min(end),
            whole: true,
        };
        (recovered, live, verdict)
    }
}

#[cfg(test)]
#[path = "replay_test.rs"]
mod tests;
