//! What a node keeps: a Raft log, a journal shared by its extents, the extents' blocks behind a page cache.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use holdfast_replication::core::api::{Base, EpochHistory, Record, RecordBody, Recovered, Room};
use holdfast_types::{BlockRange, Epoch, Lba, LogPos, Lsn};

use super::changes::Changes;
use super::raft::Durable;
use super::rng::{Rng, at};

/// Value of a block whose parts do not belong together.
const TORN: u64 = u64::MAX;
/// Value of a block whose bits have flipped: its checksum does not fit any more, so it is never given to anybody.
pub(super) const ROTTEN: u64 = u64::MAX - 7;

/// An entry of the journal.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Record(Record),
    Truncate(LogPos),
    Restart(Base, LogPos, EpochHistory),
    ClearBase,
    Checkpoint(Checkpoint),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Checkpoint {
    pub(super) applied: LogPos,
    pub(super) history: EpochHistory,
    pub(super) commit: Lsn,
    pub(super) seen: Epoch,
    pub(super) base: Option<Base>,
}

/// Reading or writing of an extent, under way.
#[derive(Debug, Clone)]
pub(super) enum Io {
    Apply(Record),
    Read(BlockRange),
    /// With `true` the range counts as changed from then on.
    Hash(BlockRange, bool),
    /// Which ranges may have changed behind a position.
    Changed(Lsn),
    /// Whether the whole range has its space.
    Allocated(BlockRange),
    /// Which blocks from the first on have space, as so many runs at most.
    Map(Lba, u16),
}

impl Io {
    pub(super) fn ranges(&self) -> &[BlockRange] {
        match self {
            Self::Apply(record) => record.body.ranges(),
            Self::Read(range) | Self::Hash(range, _) => std::slice::from_ref(range),
            Self::Changed(_) | Self::Allocated(_) | Self::Map(..) => &[],
        }
    }
}

/// One extent's replica.
#[derive(Debug, Default)]
pub(super) struct Replica {
    /// What the stable part of the journal says of it.
    pub(super) found: Recovered,
    /// As a read sees it.
    pub(super) blocks: Vec<u64>,
    /// Blocks that differ on the platter, with what is there.
    dirty: BTreeMap<u64, u64>,
    /// Blocks that a failed flush dropped: nothing will write them any more.
    dropped: BTreeMap<u64, u64>,
    /// Blocks that rotted, and what they were.
    rotted: Vec<(u64, u64)>,
    pub(super) io: BTreeMap<u64, Io>,
    /// A flush under way: blocks as they were when it began.
    syncing: Option<BTreeMap<u64, u64>>,
    /// Times the log was started anew in this run.
    pub(super) restarts: u64,
    /// When what changed last.
    pub(super) changes: Changes,
}

impl Replica {
    pub(super) fn new(blocks: u64) -> Self {
        Self {
            blocks: vec![0; at(blocks)],
            ..Self::default()
        }
    }

    fn put(&mut self, block: u64, value: u64) {
        let old = std::mem::replace(&mut self.blocks[at(block)], value);
        let platter = self.dropped.remove(&block).unwrap_or(old);
        self.dirty.entry(block).or_insert(platter);
    }

    /// Carries a record out in the page cache.
    pub(super) fn apply(&mut self, record: &Record) {
        self.changes.touch(record.body.ranges());
        for (block, value) in effects(record) {
            self.put(block, value);
        }
    }

    /// A process starts: what lies behind the checkpoint may be carried out, in whole or in part, and counts as changed.
    pub(super) fn doubt(&mut self) {
        for record in &self.found.tail {
            self.changes.touch(record.body.ranges());
        }
    }

    /// Some of what a record does, as far as it came.
    fn apply_part(&mut self, record: &Record, rng: &mut Rng) {
        for (block, value) in effects(record) {
            if rng.chance(50) {
                self.put(block, value);
            }
        }
    }

    pub(super) fn sync_begins(&mut self) {
        let now = self
            .dirty
            .keys()
            .map(|block| (*block, self.blocks[at(*block)]))
            .collect();
        self.syncing = Some(now);
    }

    /// What was dirty when the flush began is on the platter.
    pub(super) fn synced(&mut self) {
        for (block, value) in self.syncing.take().unwrap_or_default() {
            if self.blocks[at(block)] == value {
                self.dirty.remove(&block);
            } else {
                self.dirty.insert(block, value);
            }
        }
    }

    /// A flush fails as Linux has it: the pages count as clean from now on, the platter has the old contents.
    pub(super) fn sync_failed(&mut self) {
        self.syncing = None;
        for (block, old) in std::mem::take(&mut self.dirty) {
            self.dropped.entry(block).or_insert(old);
        }
    }

    /// Everything given so far is finished and on the platter, and noted as changed at `now`.
    pub(super) fn settle(&mut self, now: Lsn) {
        let under_way: Vec<Record> = self
            .io
            .values()
            .filter_map(|io| match io {
                Io::Apply(record) => Some(record.clone()),
                _ => None,
            })
            .collect();
        for record in under_way {
            self.apply(&record);
        }
        self.dirty.clear();
        self.syncing = None;
        self.changes.note_begins(now);
        self.changes.noted();
    }

    /// The process ends: what was being written is written in part. With `power` the page cache goes too.
    pub(super) fn crash(&mut self, power: bool, rng: &mut Rng) {
        for io in std::mem::take(&mut self.io).into_values() {
            if let Io::Apply(record) = io {
                self.apply_part(&record, rng);
            }
        }
        self.syncing = None;
        self.restarts = 0;
        self.changes.crash(power, rng);
        if power {
            let keep = rng.pick(&[0, 50, 95]);
            for (block, old) in std::mem::take(&mut self.dirty) {
                if !rng.chance(keep) {
                    self.blocks[at(block)] = old;
                }
            }
            for (block, old) in std::mem::take(&mut self.dropped) {
                self.blocks[at(block)] = old;
            }
        }
    }

    /// Bits of a block flip, on the platter.
    pub(super) fn rot(&mut self, block: u64) {
        self.rotted.push((block, self.blocks[at(block)]));
        self.blocks[at(block)] = ROTTEN;
        self.dirty.remove(&block);
        self.dropped.remove(&block);
    }

    /// Blocks that have rotted and were not written since.
    pub(super) fn rotten(&self) -> impl Iterator<Item = u64> {
        let rotted = self.rotted.iter().map(|(block, _)| *block);
        rotted.filter(|block| self.blocks[at(*block)] == ROTTEN)
    }

    /// A block that has rotted is what it was.
    pub(super) fn unrot(&mut self, block: u64) {
        let before = self
            .rotted
            .iter()
            .rfind(|(rotted, value)| *rotted == block && *value != ROTTEN);
        if let Some((_, value)) = before {
            self.blocks[at(block)] = *value;
        }
    }

    pub(super) fn is_rotten(&self) -> bool {
        self.blocks.contains(&ROTTEN)
    }

    /// The first block of the range that cannot be given.
    pub(super) fn bad_block(&self, range: BlockRange) -> Option<BlockRange> {
        let blocks = range.lba().0..range.end().0;
        let first = blocks
            .into_iter()
            .find(|block| self.blocks[at(*block)] == ROTTEN)?;
        BlockRange::new(Lba(first), 1).ok()
    }

    /// Spoils blocks, as a disk does whose damage is noticed at the next start.
    pub(super) fn spoil(&mut self, rng: &mut Rng) {
        for block in &mut self.blocks {
            if rng.chance(20) {
                *block = TORN - 1;
            }
        }
        self.dirty.clear();
        self.found.damaged = true;
    }

    /// The journal's newest stable records are unreadable, and something behind them is not (J1).
    pub(super) fn lose_records(&mut self, count: usize) {
        let keep = self.found.tail.len().saturating_sub(count);
        self.found.tail.truncate(keep);
    }

    /// An entry of the journal is stable.
    pub(super) fn journaled(&mut self, item: Item) {
        let found = &mut self.found;
        match item {
            Item::Record(record) => {
                found.commit = found.commit.max(record.commit);
                found.seen = found.seen.max(record.pos.epoch);
                found.tail.push(record);
            }
            Item::Truncate(after) => found.tail.retain(|record| record.pos.lsn <= after.lsn),
            Item::Restart(base, from, history) => {
                found.tail.clear();
                found.base = Some(base);
                found.applied = from;
                found.history = history;
                found.commit = from.lsn;
                found.damaged = false;
            }
            Item::ClearBase => found.base = None,
            Item::Checkpoint(checkpoint) => {
                found.applied = checkpoint.applied;
                found.history = checkpoint.history;
                found.commit = found.commit.max(checkpoint.commit);
                found.seen = found.seen.max(checkpoint.seen);
                found.base = checkpoint.base;
                found
                    .tail
                    .retain(|record| record.pos.lsn > checkpoint.applied.lsn);
            }
        }
    }
}

/// All that a node keeps.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) raft: Durable,
    pub(super) replicas: Vec<Replica>,
    /// Not stable yet: extent, number, entry.
    pub(super) pending: VecDeque<(usize, u64, Item)>,
    /// How many of them the flush under way covers.
    pub(super) flushing: Option<usize>,
    /// Nothing comes back from the disk before this.
    pub(super) hangs: u64,
    /// Some reads fail until then (I10).
    pub(super) bad_reads: u64,
    /// What it can still take in.
    pub(super) room: Room,
    /// Extents that are fenced in this run, so that the next one finds them marked (J2).
    pub(super) failed: Vec<bool>,
}

impl Disk {
    /// The process ends; a prefix of what was not stable is there all the same.
    pub(super) fn crash(&mut self, power: bool, rng: &mut Rng) {
        let kept = rng.below(self.pending.len() as u64 + 1);
        for (extent, _, item) in std::mem::take(&mut self.pending).into_iter().take(at(kept)) {
            self.replicas[extent].journaled(item);
        }
        self.flushing = None;
        self.hangs = 0;
        for (replica, failed) in self.replicas.iter_mut().zip(&mut self.failed) {
            replica.crash(power, rng);
            if std::mem::take(failed) {
                replica.found.damaged = true;
            }
        }
    }
}

/// A block's bytes for its value: the value over and over, so that a torn one shows.
pub(super) fn bytes(values: impl IntoIterator<Item = u64>) -> Bytes {
    let mut data = Vec::new();
    for value in values {
        let start = data.len();
        data.resize(start + 512, 0);
        if value != 0 {
            for word in data[start..].chunks_exact_mut(8) {
                word.copy_from_slice(&value.to_be_bytes());
            }
        }
    }
    Bytes::from(data)
}

/// The values of blocks.
pub(super) fn values(data: &[u8]) -> impl Iterator<Item = u64> + '_ {
    data.chunks_exact(512).map(|block| {
        let (first, rest) = block.split_at(8);
        if rest.chunks_exact(8).all(|word| word == first) {
            u64::from_be_bytes(first.try_into().expect("eight bytes"))
        } else {
            TORN
        }
    })
}

fn effects(record: &Record) -> Vec<(u64, u64)> {
    let span = |range: &BlockRange| range.lba().0..range.end().0;
    match &record.body {
        RecordBody::Write { range, data } => span(range).zip(values(data)).collect(),
        RecordBody::Resync {
            ranges,
            data: Some(data),
        } => ranges.iter().flat_map(span).zip(values(data)).collect(),
        RecordBody::WriteSame { range, block } => {
            let value = values(block).next().unwrap_or(TORN);
            span(range).map(|at| (at, value)).collect()
        }
        RecordBody::Zero { ranges } => ranges.iter().flat_map(span).map(|at| (at, 0)).collect(),
        RecordBody::EpochStart | RecordBody::Resync { data: None, .. } => Vec::new(),
    }
}
