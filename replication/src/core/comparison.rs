//! What is left to compare of a replica, and how far each range is; who takes the steps is `resync`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_types::{BlockRange, Lba, Lsn, Mono};

use super::api::{Config, Digests, Record, ResyncStatus, View};
use super::scrub::Pace;

/// However long a part took, the next one is not put off for longer.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A replica's way to the barrier.
#[derive(Debug)]
pub(crate) struct Resync {
    /// Blocks of a range, and of the extent.
    pub(super) unit: u64,
    /// Blocks of a piece.
    pub(super) piece: u64,
    pub(super) blocks: u64,
    pub(super) block_bytes: u64,
    /// Which ranges have not been started, one bit each.
    pub(super) todo: Vec<u64>,
    /// No range before this one is to be started.
    pub(super) next: u64,
    pub(super) active: Vec<Active>,
    /// Ranges with blocks that nobody can read; all of them are tried again at the given time.
    pub(super) unreadable: Vec<u64>,
    pub(super) try_again: Option<Mono>,
    /// Records up to here are not in the stream: they must be committed before the barrier, so that what was compared holds them.
    pub(super) from: Lsn,
    pub(super) total: u64,
    pub(super) left: u64,
    pub(super) sent: u64,
    /// Ranges under comparison at a time, and bytes of contents on their way at which no more are started.
    pub(super) in_flight: usize,
    pub(super) window: usize,
    /// The same, and under one lock, while initiators wait for something on this node.
    pub(super) busy_bytes: usize,
    /// Ranges of which a part is proven, and what of each comes after that.
    pub(super) begun: Vec<(u64, BlockRange)>,
    /// While initiators wait, nothing is started before this.
    pub(super) pause_until: Mono,
    /// How long that is after a part, in times of what the part took.
    pub(super) pause_times: u32,
    /// The extent's answer about changes is waited for, under this token.
    pub(super) asked: Option<u64>,
    pub(super) phase: Phase,
    /// Its replica is in sync: there is no hurry.
    pub(super) pace: Option<Pace>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Comparing,
    /// Every range is proven. Commits need the replica from here on; once it has everything up to `upto`, its growth is proposed.
    Barrier {
        upto: Lsn,
    },
    Proposed,
}

/// A range that was started.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) no: u64,
    pub(super) lock: u64,
    /// What of it is not proven yet: first all, then what spans the pieces that differed. Whole pieces, as far as the extent goes.
    pub(super) range: BlockRange,
    /// What of it comes after that.
    pub(super) rest: BlockRange,
    /// When this part was begun.
    pub(super) since: Mono,
    pub(super) step: Step,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Waits,
    Hashing {
        mine: Option<Digests>,
        theirs: Option<Digests>,
    },
    /// The ranges that differ are being read, with all between them.
    Reading {
        differ: Vec<BlockRange>,
    },
    /// Blocks are bad here and repaired first.
    Repairing,
    /// Its contents travel as this record of so many bytes. Nothing is held meanwhile.
    Sent(Lsn, usize),
}

impl Active {
    /// Whether this node's disk is being read for it.
    pub(super) fn reads_here(&self) -> bool {
        match &self.step {
            Step::Waits | Step::Sent(..) | Step::Repairing => false,
            Step::Hashing { mine, .. } => mine.is_none(),
            Step::Reading { .. } => true,
        }
    }
}

impl Resync {
    fn new(config: &Config, view: &View, from: Lsn) -> Self {
        let block_bytes = u64::from(view.block_size.bytes());
        let unit = (config.resync_range_bytes / block_bytes).max(1);
        let piece = (config.resync_piece_bytes / block_bytes).clamp(1, unit);
        let count = view.blocks.div_ceil(unit);
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            unit,
            piece,
            blocks: view.blocks,
            block_bytes,
            todo: vec![0; words],
            next: 0,
            active: Vec::new(),
            unreadable: Vec::new(),
            try_again: None,
            from,
            total: 0,
            left: 0,
            sent: 0,
            in_flight: config.resync_in_flight.max(1),
            window: config.resync_window_bytes.max(1),
            busy_bytes: config.resync_busy_bytes.max(1),
            begun: Vec::new(),
            pause_until: Mono::ZERO,
            pause_times: config.resync_pause_times,
            asked: None,
            phase: Phase::Comparing,
            pace: None,
        }
    }

    /// Every range.
    pub(crate) fn of_all(config: &Config, view: &View, from: Lsn) -> Self {
        let mut resync = Self::new(config, view, from);
        resync.mark(0, view.blocks);
        resync
    }

    /// Every range of a replica that is in sync, one at a time, not too fast.
    pub(crate) fn of_scrub(config: &Config, view: &View) -> Self {
        let mut resync = Self::of_all(config, view, Lsn(0));
        resync.pace = Some(Pace::new(config));
        resync.in_flight = 1;
        resync
    }

    pub(crate) fn scrubs(&self) -> bool {
        self.pace.is_some()
    }

    /// Whether one more range may be held now. Where `busy`, initiators wait for something on this node: one at a time is enough then.
    pub(super) fn may_hold(&self, busy: bool) -> bool {
        let sent = |active: &&Active| matches!(active.step, Step::Sent(..));
        let held = self.active.len() - self.active.iter().filter(sent).count();
        held < if busy { 1 } else { self.in_flight }
    }

    /// Whether another range may be started now. If not yet, when.
    pub(super) fn may_start(&mut self, now: Mono, busy: bool) -> Result<bool, Mono> {
        let on_their_way = self.active.iter().map(|active| match active.step {
            Step::Sent(_, bytes) => bytes,
            _ => 0,
        });
        let full = match self.pace {
            // One range at a time, from its beginning to its end.
            Some(_) => self.active.len() >= self.in_flight,
            None => {
                let window = if busy { self.busy_bytes } else { self.window };
                !self.may_hold(busy) || on_their_way.sum::<usize>() >= window
            }
        };
        if full || self.asked.is_some() {
            return Ok(false);
        }
        let bytes = self.unit.saturating_mul(self.block_bytes);
        match &mut self.pace {
            Some(pace) => pace.start(now, bytes).map(|()| true),
            None if busy && now < self.pause_until => Err(self.pause_until),
            None => Ok(true),
        }
    }

    /// The range of a scrub that has been held for too long, and is not any more: its lock, whether I/O for it is under way, and where it
    /// is. If there is none yet, when there may be.
    pub(crate) fn overdue(&mut self, now: Mono) -> Result<(u64, bool, BlockRange), Option<Mono>> {
        let held = self
            .active
            .first()
            .filter(|active| !matches!(active.step, Step::Sent(..) | Step::Repairing));
        let Some(pace) = &mut self.pace else {
            return Err(None);
        };
        let Some(active) = held else {
            pace.held_since = None;
            return Err(None);
        };
        let until = *pace.held_since.get_or_insert(now) + pace.patience;
        if now < until {
            return Err(Some(until));
        }
        pace.held_since = None;
        pace.next = now + pace.pause;
        let (no, lock, io) = (active.no, active.lock, active.reads_here());
        self.active.clear();
        self.put_back(no);
        Ok((lock, io, self.range(no)))
    }

    /// The ranges that these records touch. They are in the stream, so nothing before them matters.
    pub(crate) fn of_tail<'a>(
        config: &Config,
        view: &View,
        records: impl Iterator<Item = &'a Record>,
        from: Lsn,
    ) -> Self {
        let mut resync = Self::new(config, view, from);
        for record in records {
            for range in record.body.ranges() {
                resync.mark(range.lba().0, range.end().0);
            }
        }
        resync
    }

    /// These ranges, too.
    pub(crate) fn mark_all(&mut self, ranges: &[BlockRange]) {
        for range in ranges {
            self.mark(range.lba().0, range.end().0);
        }
    }

    /// More ranges come once the extent has answered.
    pub(crate) fn wait_for_changes(&mut self, token: u64) {
        self.asked = Some(token);
    }

    fn mark(&mut self, lo: u64, hi: u64) {
        for no in lo / self.unit..hi.min(self.blocks).div_ceil(self.unit) {
            let (word, bit) = (usize::try_from(no / 64).unwrap_or(usize::MAX), 1 << (no % 64));
            if let Some(word) = self.todo.get_mut(word)
                && *word & bit == 0
            {
                *word |= bit;
                self.total += 1;
                self.left += 1;
            }
        }
    }

    /// The range is to be started again.
    pub(super) fn put_back(&mut self, no: u64) {
        let index = usize::try_from(no / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.todo.get_mut(index) {
            *word |= 1 << (no % 64);
            self.next = self.next.min(no / 64 * 64);
        }
    }

    /// The range that is to be compared next, and what of it.
    pub(super) fn take_next(&mut self) -> Option<(u64, BlockRange)> {
        if let Some(begun) = self.begun.pop() {
            return Some(begun);
        }
        let no = self.take_new()?;
        Some((no, self.range(no)))
    }

    fn take_new(&mut self) -> Option<u64> {
        let mut index = usize::try_from(self.next / 64).ok()?;
        while let Some(word) = self.todo.get_mut(index) {
            if *word != 0 {
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                self.next = index as u64 * 64;
                return Some(self.next + u64::from(bit));
            }
            index += 1;
        }
        self.next = index as u64 * 64;
        None
    }

    pub(super) fn range(&self, no: u64) -> BlockRange {
        let lba = no * self.unit;
        between(lba, lba + self.unit.min(self.blocks.saturating_sub(lba)))
    }

    /// What of these blocks is compared first, and what comes after it: whole pieces, and where `busy` no more than initiators may have to
    /// wait for.
    pub(super) fn part(&self, range: BlockRange, busy: bool) -> (BlockRange, BlockRange) {
        let (lo, end) = (range.lba().0, range.end().0);
        let pieces = self.busy_bytes as u64 / self.block_bytes / self.piece;
        let blocks = if busy && !self.scrubs() {
            pieces.max(1) * self.piece
        } else {
            range.blocks()
        };
        let middle = end.min(lo + blocks);
        (between(lo, middle), between(middle, end))
    }

    /// The pieces of a range for which `which` holds, as few ranges as possible.
    pub(super) fn pieces(&self, whole: BlockRange, which: impl Fn(usize) -> bool) -> Vec<BlockRange> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut lba = whole.lba().0;
        let mut index = 0;
        while lba < whole.end().0 {
            let end = (lba + self.piece).min(whole.end().0);
            if which(index) {
                match runs.last_mut().filter(|(_, to)| *to == lba) {
                    Some((_, to)) => *to = end,
                    None => runs.push((lba, end)),
                }
            }
            (lba, index) = (end, index + 1);
        }
        runs.into_iter().map(|(lo, hi)| between(lo, hi)).collect()
    }

    /// A part of a range is equal, and the range as a whole if it was the last one.
    pub(super) fn proven(&mut self, now: Mono, no: u64) {
        let Some(at) = self.active.iter().position(|active| active.no == no) else {
            return;
        };
        let active = self.active.swap_remove(at);
        if active.rest.blocks() > 0 {
            self.begun.push((no, active.rest));
        } else {
            self.left -= 1;
        }
        self.pause_until = now + (now.since(active.since) * self.pause_times).min(PAUSE_MAX);
    }

    pub(super) fn active(&mut self, no: u64) -> Option<&mut Active> {
        self.active.iter_mut().find(|active| active.no == no)
    }

    /// Whether it is known what is to be compared.
    pub(crate) fn planned(&self) -> bool {
        self.asked.is_none()
    }

    pub(crate) fn ranges_left(&self) -> u64 {
        self.left
    }

    /// Whether commits need the replica already (E3).
    pub(crate) fn at_barrier(&self) -> bool {
        self.phase != Phase::Comparing
    }

    pub(crate) fn proposed(&self) -> bool {
        self.phase == Phase::Proposed
    }

    pub(crate) fn status(&self) -> ResyncStatus {
        let bytes = self.unit * self.block_bytes;
        let whole = self.blocks * self.block_bytes;
        ResyncStatus {
            bytes_total: (self.total * bytes).min(whole),
            bytes_left: (self.left * bytes).min(whole),
            bytes_sent: self.sent,
            unreadable: self.unreadable.len() as u64,
        }
    }
}

/// Ranges are cut to the extent's size, which is far below the end of addresses.
pub(super) fn unreachable_range() -> BlockRange {
    BlockRange::try_from((0, 0)).expect("an empty range at 0 is always one")
}

/// The blocks from `lo` on, before `hi`: within an extent.
pub(super) fn between(lo: u64, hi: u64) -> BlockRange {
    BlockRange::new(Lba(lo), hi.saturating_sub(lo)).unwrap_or_else(|_| unreachable_range())
}

/// The smallest range that holds all of them, which are in order.
pub(super) fn enclosing(ranges: &[BlockRange]) -> Option<BlockRange> {
    let (first, last) = (ranges.first()?, ranges.last()?);
    Some(between(first.lba().0, last.end().0))
}

/// The ranges' bytes out of the bytes that begin at `first`.
pub(super) fn gather(first: Lba, data: &Bytes, ranges: &[BlockRange], block_bytes: u64) -> Bytes {
    let cut = |range: &BlockRange| {
        let from = (range.lba().0 - first.0) * block_bytes;
        let to = (range.end().0 - first.0) * block_bytes;
        usize::try_from(from).unwrap_or(usize::MAX)..usize::try_from(to).unwrap_or(usize::MAX)
    };
    if let [one] = ranges {
        return data.slice(cut(one));
    }
    let mut all = BytesMut::with_capacity(data.len());
    for range in ranges {
        all.extend_from_slice(&data[cut(range)]);
    }
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::api::Policy;
    use holdfast_types::{BlockSize, Epoch, InSyncVersion, Revision};

    fn view(blocks: u64) -> View {
        View {
            revision: Revision(1),
            epoch: Epoch(1),
            primary: None,
            version: InSyncVersion(1),
            in_sync: vec![],
            replicas: vec![],
            blocks,
            block_size: BlockSize::B512,
            unit: std::sync::Arc::default(),
            nodes: vec![],
            retiring: Default::default(),
            cache: Default::default(),
            policy: Policy::default(),
        }
    }

    #[test]
    fn r2_a_range_comes_in_parts_while_initiators_wait() {
        let config = Config {
            resync_busy_bytes: 3 * 4096 + 100,
            ..Config::default()
        };
        let resync = Resync::of_all(&config, &view(4096), Lsn(0));
        let whole = between(2048, 2048 + 40);
        assert_eq!(resync.part(whole, false), (whole, between(2088, 2088)));
        let (first, rest) = resync.part(whole, true);
        assert_eq!((first, rest), (between(2048, 2072), between(2072, 2088)));
        assert_eq!(
            resync.part(rest, true),
            (rest, between(2088, 2088)),
            "the last one"
        );
        let scrub = Resync::of_scrub(&config, &view(4096));
        assert_eq!(scrub.part(whole, true), (whole, between(2088, 2088)));
        let config = Config {
            resync_busy_bytes: 1,
            ..Config::default()
        };
        let resync = Resync::of_all(&config, &view(4096), Lsn(0));
        assert_eq!(
            resync.part(whole, true).0,
            between(2048, 2056),
            "one piece at least"
        );
    }

    #[test]
    fn r2_parts_follow_each_other_with_pauses_while_initiators_wait() {
        let config = Config {
            resync_busy_bytes: 1 << 19,
            resync_pause_times: 2,
            ..Config::default()
        };
        let at = |ms| Mono::ZERO + Duration::from_millis(ms);
        let mut resync = Resync::of_all(&config, &view(2048), Lsn(0));
        let (no, whole) = resync.take_next().unwrap();
        let (range, rest) = resync.part(whole, true);
        let part = |range, rest, since| Active {
            no,
            lock: 0,
            range,
            rest,
            since,
            step: Step::Waits,
        };
        resync.active.push(part(range, rest, at(4)));
        assert_eq!(resync.may_start(at(10), true), Ok(false), "one at a time");
        resync.proven(at(10), no);
        assert_eq!(resync.ranges_left(), 1, "half of it is left");
        assert_eq!(resync.may_start(at(21), true), Err(at(22)));
        assert_eq!(resync.may_start(at(22), true), Ok(true));
        assert_eq!(resync.may_start(at(10), false), Ok(true), "nobody waits any more");
        assert_eq!(resync.take_next(), Some((no, rest)));
        resync.active.push(part(rest, between(2048, 2048), at(22)));
        resync.proven(at(10_000), no);
        assert_eq!(resync.ranges_left(), 0);
        assert_eq!(resync.take_next(), None);
        let until = at(10_000) + PAUSE_MAX;
        assert_eq!(
            resync.may_start(at(10_000), true),
            Err(until),
            "no longer than that"
        );
    }

    #[test]
    fn all_ranges_come_once_and_the_last_is_cut() {
        let config = Config {
            resync_range_bytes: 4096,
            ..Config::default()
        };
        let mut resync = Resync::of_all(&config, &view(8 * 70 + 3), Lsn(0));
        assert_eq!(resync.ranges_left(), 71);
        let all: Vec<u64> = std::iter::from_fn(|| resync.take_new()).collect();
        assert_eq!(all, (0..71).collect::<Vec<_>>());
        assert_eq!(resync.range(70).blocks(), 3);
    }
}
