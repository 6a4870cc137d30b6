//! Bringing a replica to the barrier (R2, R3): comparing ranges while new records flow to it already.
//!
//! Per range, the primary holds it exclusively: every write to it with an lsn is applied here, and no other gets one. What both sides then
//! have, once the replica has applied as much, must be equal. It is hashed piece by piece, and the pieces that differ become a record of
//! their own, with its own lsn, so that they can never overtake a newer write; and the range is compared again once that record is
//! committed. A range that was equal once stays equal, because both sides apply the same records.
//!
//! A piece that is bad on the replica equals nothing, so it is sent; one that is bad here is repaired from an in-sync replica first (I10,
//! `repair`). What nobody has any more is never proven equal: the range waits, and is tried again from time to time.
//!
//! The same goes for a replica that only missed the newer end of the log: it gets the records, and the ranges they touch are compared.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use holdfast_types::{BlockRange, Epoch, Lba, Lsn, Mono, NodeId};

use super::api::{
    Command, Config, Ctx, Digests, IoToken, Message, Note, Record, RecordBody, ResyncStatus, View,
};
use super::primary::{FollowerState, Growth};
use super::ranges::{Blocks, Want};
use super::repair::Waiter;
use super::role::Role;
use super::scrub::Pace;
use super::{ExtentCore, Owner};
use crate::fault::{self, Fault};

/// A replica's way to the barrier.
#[derive(Debug)]
pub(crate) struct Resync {
    /// Blocks of a range, and of the extent.
    unit: u64,
    /// Blocks of a piece.
    piece: u64,
    blocks: u64,
    block_bytes: u64,
    /// Which ranges have not been started, one bit each.
    todo: Vec<u64>,
    /// No range before this one is to be started.
    next: u64,
    active: Vec<Active>,
    /// Ranges with blocks that nobody can read; all of them are tried again at the given time.
    unreadable: Vec<u64>,
    try_again: Option<Mono>,
    /// Records up to here are not in the stream: they must be committed before the barrier, so that what was compared holds them.
    from: Lsn,
    total: u64,
    left: u64,
    sent: u64,
    in_flight: usize,
    /// The extent's answer about changes is waited for, under this token.
    asked: Option<u64>,
    phase: Phase,
    /// Its replica is in sync: there is no hurry.
    pace: Option<Pace>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Comparing,
    /// Every range is proven. Commits need the replica from here on; once it has everything up to `upto`, its growth is proposed.
    Barrier {
        upto: Lsn,
    },
    Proposed,
}

#[derive(Debug)]
struct Active {
    no: u64,
    lock: u64,
    step: Step,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
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
    /// Its contents travel as this record.
    Sent(Lsn),
}

impl Active {
    /// Whether this node's disk is being read for it.
    fn reads_here(&self) -> bool {
        match &self.step {
            Step::Waits | Step::Sent(_) | Step::Repairing => false,
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

    /// Whether another range may be started now. If not yet, when.
    fn may_start(&mut self, now: Mono) -> Result<bool, Mono> {
        if self.active.len() >= self.in_flight || self.asked.is_some() {
            return Ok(false);
        }
        let bytes = self.unit.saturating_mul(self.block_bytes);
        match &mut self.pace {
            Some(pace) => pace.start(now, bytes).map(|()| true),
            None => Ok(true),
        }
    }

    /// The range of a scrub that has been held for too long, and is not any more: its lock, whether I/O for it is under way, and where it
    /// is. If there is none yet, when there may be.
    pub(crate) fn overdue(&mut self, now: Mono) -> Result<(u64, bool, BlockRange), Option<Mono>> {
        let held = self
            .active
            .first()
            .filter(|active| !matches!(active.step, Step::Sent(_) | Step::Repairing));
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
    fn put_back(&mut self, no: u64) {
        let index = usize::try_from(no / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.todo.get_mut(index) {
            *word |= 1 << (no % 64);
            self.next = self.next.min(no / 64 * 64);
        }
    }

    fn take_next(&mut self) -> Option<u64> {
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

    fn range(&self, no: u64) -> BlockRange {
        let lba = no * self.unit;
        between(lba, lba + self.unit.min(self.blocks.saturating_sub(lba)))
    }

    /// The pieces of range `no` for which `which` holds, as few ranges as possible.
    fn pieces(&self, no: u64, which: impl Fn(usize) -> bool) -> Vec<BlockRange> {
        let whole = self.range(no);
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

    fn active(&mut self, no: u64) -> Option<&mut Active> {
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
fn unreachable_range() -> BlockRange {
    BlockRange::try_from((0, 0)).expect("an empty range at 0 is always one")
}

/// The blocks from `lo` on, before `hi`: within an extent.
pub(super) fn between(lo: u64, hi: u64) -> BlockRange {
    BlockRange::new(Lba(lo), hi.saturating_sub(lo)).unwrap_or_else(|_| unreachable_range())
}

/// The smallest range that holds all of them, which are in order.
fn enclosing(ranges: &[BlockRange]) -> Option<BlockRange> {
    let (first, last) = (ranges.first()?, ranges.last()?);
    Some(between(first.lba().0, last.end().0))
}

/// The ranges' bytes out of the bytes that begin at `first`.
fn gather(first: Lba, data: &Bytes, ranges: &[BlockRange], block_bytes: u64) -> Bytes {
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

impl ExtentCore {
    pub(super) fn resync_mut(&mut self, node: NodeId) -> Option<&mut Resync> {
        self.role.primary_mut()?.follower(node)?.resync_mut()
    }

    /// Ends a replica's resync; its ranges are free again.
    pub(crate) fn drop_resync(&mut self, node: NodeId) {
        let Some(follower) = self.role.primary_mut().and_then(|primary| primary.follower(node)) else {
            return;
        };
        let FollowerState::Streaming { resync, .. } = &mut follower.state else {
            return;
        };
        if let Some(resync) = resync.take() {
            for active in resync.active {
                let io = active.reads_here();
                if fault::on(Fault::ResyncWithoutLock) && !io {
                    self.table.remove(active.lock);
                    continue;
                }
                self.abandon(active.lock, io);
            }
        }
    }

    /// Takes every step of every resync that can be taken.
    pub(crate) fn drive_resyncs(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        self.pace = None;
        let Role::Serving(primary) = &self.role else {
            return;
        };
        let nodes = primary.followers.iter().filter(|f| f.resync().is_some());
        // Mostly there are none: no allocation then.
        for node in nodes.map(|follower| follower.node).collect::<Vec<_>>() {
            self.try_unreadable(ctx, node);
            self.compare_again(node, out);
            self.start_ranges(ctx, node, out);
            self.pace_scrub(ctx, node, out);
            self.barrier(ctx, node, out);
        }
    }

    /// Ranges whose contents are on their way as a committed record are compared again.
    fn compare_again(&mut self, node: NodeId, out: &mut Vec<Command>) {
        let committed = self.log.committed;
        let trust = fault::on(Fault::ResyncWithoutLock);
        while let Some(resync) = self.resync_mut(node)
            && let Some(active) = resync
                .active
                .iter_mut()
                .find(|active| matches!(active.step, Step::Sent(lsn) if lsn <= committed))
        {
            let no = active.no;
            if trust {
                self.proven(node, no);
                continue;
            }
            self.compare(node, no, out);
        }
    }

    /// What changed since the position up to which a replica is complete.
    pub(crate) fn on_changed(
        &mut self,
        ctx: &Ctx,
        io: IoToken,
        ranges: &[BlockRange],
        out: &mut Vec<Command>,
    ) {
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        let waits = primary.followers.iter_mut().find_map(|follower| {
            let node = follower.node;
            let resync = follower.resync_mut()?;
            (resync.asked == Some(io.0)).then_some((node, resync))
        });
        if let Some((node, resync)) = waits {
            resync.asked = None;
            resync.mark_all(ranges);
            let ranges = resync.ranges_left();
            out.push(Command::Note(Note::ResyncStarted { node, ranges }));
            self.drive_resyncs(ctx, out);
        }
    }

    /// Ranges that had blocks which nobody could read, after a while.
    fn try_unreadable(&mut self, ctx: &Ctx, node: NodeId) {
        let retry = self.config.unreadable_retry;
        let Some(resync) = self.resync_mut(node) else {
            return;
        };
        if resync.unreadable.is_empty() {
            return;
        }
        if ctx.now < *resync.try_again.get_or_insert(ctx.now + retry) {
            return;
        }
        resync.try_again = None;
        for no in std::mem::take(&mut resync.unreadable) {
            resync.put_back(no);
        }
    }

    fn start_ranges(&mut self, ctx: &Ctx, node: NodeId, out: &mut Vec<Command>) {
        if self.room_of(node).crowded || self.room_of(self.me.node).crowded {
            return;
        }
        while let Some(resync) = self.resync_mut(node) {
            match resync.may_start(ctx.now) {
                Ok(true) => {}
                Ok(false) => break,
                Err(next) => {
                    self.look_again(next);
                    break;
                }
            }
            let Some(no) = resync.take_next() else { break };
            let (lock, step) = (0, Step::Waits);
            resync.active.push(Active { no, lock, step });
            self.compare(node, no, out);
        }
    }

    /// Asks for the range.
    fn compare(&mut self, node: NodeId, no: u64, out: &mut Vec<Command>) {
        let lock = self.next_id();
        let Some(resync) = self.resync_mut(node) else {
            return;
        };
        let range = resync.range(no);
        let Some(active) = resync.active(no) else { return };
        active.lock = lock;
        active.step = Step::Waits;
        let want = Want::Exclusive;
        let want = if fault::on(Fault::ResyncWithoutLock) {
            Want::Read
        } else {
            want
        };
        let owner = Owner::Compare { node, no };
        if self.table.add(lock, want, Blocks::one(range), owner) {
            self.compare_granted(node, no, lock, out);
        }
    }

    /// The range is held: every write to it that has an lsn is applied here. Both sides hash it.
    pub(crate) fn compare_granted(&mut self, node: NodeId, no: u64, lock: u64, out: &mut Vec<Command>) {
        let at = self.log.committed;
        self.tell_commit_to(node, out);
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        let epoch = primary.epoch;
        let Some(follower) = primary.follower(node) else {
            return;
        };
        let Some(link) = follower.streaming() else { return };
        let Some(resync) = follower.resync_mut() else {
            return;
        };
        let range = resync.range(no);
        let Some(active) = resync.active(no).filter(|active| active.lock == lock) else {
            return;
        };
        let (mine, theirs) = (None, None);
        active.step = Step::Hashing { mine, theirs };
        let io = IoToken(lock);
        let renew = false;
        out.push(Command::Hash { io, range, renew });
        let id = lock;
        let message = Message::HashRequest { epoch, id, range, at };
        let to = node;
        out.push(Command::Send { to, link, message });
    }

    pub(crate) fn hashed_here(
        &mut self,
        ctx: &Ctx,
        (node, no, lock): (NodeId, u64, u64),
        digests: Digests,
        out: &mut Vec<Command>,
    ) {
        if let Some(active) = self.resync_mut(node).and_then(|resync| resync.active(no))
            && active.lock == lock
            && let Step::Hashing { mine, .. } = &mut active.step
        {
            *mine = Some(digests);
        }
        self.judge_range(ctx, node, no, out);
    }

    pub(crate) fn on_hash_reply(
        &mut self,
        ctx: &Ctx,
        (from, epoch): (NodeId, Epoch),
        id: u64,
        digests: Digests,
        out: &mut Vec<Command>,
    ) {
        if self.role.primary().is_none_or(|primary| primary.epoch != epoch) {
            return;
        }
        let Some(resync) = self.resync_mut(from) else {
            return;
        };
        let Some(active) = resync.active.iter_mut().find(|active| active.lock == id) else {
            return;
        };
        let no = active.no;
        if let Step::Hashing { theirs, .. } = &mut active.step {
            *theirs = Some(digests);
        }
        self.judge_range(ctx, from, no, out);
    }

    fn judge_range(&mut self, ctx: &Ctx, node: NodeId, no: u64, out: &mut Vec<Command>) {
        let Some(resync) = self.resync_mut(node) else {
            return;
        };
        let Some(active) = resync.active(no) else { return };
        let lock = active.lock;
        let (mine, theirs) = match &mut active.step {
            Step::Hashing {
                mine: Some(mine),
                theirs: Some(theirs),
            } => (std::mem::take(mine), std::mem::take(theirs)),
            _ => return,
        };
        let bad_here = resync.pieces(no, |index| mine.get(index).is_none_or(Option::is_none));
        if !bad_here.is_empty() {
            return self.repair_compared(ctx, (node, no, lock), &bad_here, out);
        }
        // A replica that counted its pieces wrong has none that is equal.
        let counted = mine.len() == theirs.len();
        let differ = resync.pieces(no, |index| !counted || mine[index] != theirs[index]);
        let bad_there = theirs.iter().filter(|digest| digest.is_none()).count() as u64;
        let (piece, range, scrubs) = (resync.piece, enclosing(&differ), resync.scrubs());
        let blocks: u64 = differ.iter().map(|range| range.blocks()).sum();
        let diverged = blocks.saturating_sub(bad_there * piece);
        if let Some(range) = range {
            if let Some(active) = resync.active(no) {
                active.step = Step::Reading { differ };
            }
            let io = IoToken(lock);
            out.push(Command::Read { io, range });
        } else {
            self.table.remove(lock);
            self.proven(node, no);
            self.drive_resyncs(ctx, out);
        }
        if scrubs && diverged > 0 {
            let (range, blocks) = (range.unwrap_or_else(unreachable_range), diverged);
            out.push(Command::Note(Note::Diverged { node, range, blocks }));
            self.checks.diverged += blocks;
        }
        if bad_there > 0 {
            let blocks = bad_there * piece;
            out.push(Command::Note(Note::BadBlocks { node, blocks }));
            self.checks.found += blocks;
            self.checks.repaired += blocks;
        }
    }

    /// Blocks of a range under comparison are bad here: they are repaired, and the range is compared again.
    pub(crate) fn repair_compared(
        &mut self,
        ctx: &Ctx,
        (node, no, lock): (NodeId, u64, u64),
        bad: &[BlockRange],
        out: &mut Vec<Command>,
    ) {
        self.table.remove(lock);
        if let Some(active) = self.resync_mut(node).and_then(|resync| resync.active(no)) {
            active.step = Step::Repairing;
            active.lock = 0;
        }
        for range in bad {
            self.start_repair(ctx, *range, Waiter::Compare { node, no }, out);
        }
    }

    /// The blocks of a range under comparison were repaired, or cannot be.
    pub(crate) fn compared_repaired(
        &mut self,
        node: NodeId,
        no: u64,
        repaired: bool,
        out: &mut Vec<Command>,
    ) {
        let Some(resync) = self.resync_mut(node) else {
            return;
        };
        let waits = resync
            .active(no)
            .is_some_and(|active| active.step == Step::Repairing);
        if !waits {
            return;
        }
        if repaired {
            return self.compare(node, no, out);
        }
        resync.active.retain(|active| active.no != no);
        resync.unreadable.push(no);
    }

    fn proven(&mut self, node: NodeId, no: u64) {
        if let Some(resync) = self.resync_mut(node) {
            resync.active.retain(|active| active.no != no);
            resync.left -= 1;
        }
    }

    /// The range's contents were read under its lock: they become a record (R2).
    pub(crate) fn compare_read(
        &mut self,
        ctx: &Ctx,
        node: NodeId,
        no: u64,
        lock: u64,
        data: &Bytes,
        out: &mut Vec<Command>,
    ) {
        let Some(resync) = self.resync_mut(node) else {
            self.table.remove(lock);
            return;
        };
        let block_bytes = resync.block_bytes;
        let differ = match resync.active(no).filter(|active| active.lock == lock) {
            Some(Active {
                step: Step::Reading { differ },
                ..
            }) => std::mem::take(differ),
            _ => {
                self.table.remove(lock);
                return;
            }
        };
        let Some(whole) = enclosing(&differ) else { return };
        let data = &gather(whole.lba(), data, &differ, block_bytes);
        let ranges: Arc<[BlockRange]> = differ.into();
        resync.sent += data.len() as u64;
        let body = RecordBody::Resync { ranges, data: None };
        let lsn = self.append(ctx, body, None, None, 0, Some((node, data)), out);
        if let Some(active) = self.resync_mut(node).and_then(|resync| resync.active(no)) {
            active.step = Step::Sent(lsn);
        }
        self.table.remove(lock);
        self.advance(ctx, out);
    }

    /// R3, E3.
    fn barrier(&mut self, ctx: &Ctx, node: NodeId, out: &mut Vec<Command>) {
        let (end, committed) = (self.log.end().lsn, self.log.committed);
        let Some(version) = self.view.as_ref().map(|view| view.version) else {
            return;
        };
        let skip = fault::on(Fault::GrowWithoutBarrier);
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        let free = primary.growth.is_none();
        let Some(follower) = primary.follower(node) else {
            return;
        };
        let durable = follower.durable;
        let Some(resync) = follower.resync_mut() else {
            return;
        };
        if resync.asked.is_some() && !skip {
            return;
        }
        if resync.scrubs() {
            if resync.active.is_empty() && resync.left == resync.unreadable.len() as u64 {
                self.end_scrub(ctx, node, out);
            }
            return;
        }
        if resync.phase == Phase::Comparing && ((resync.left == 0 && resync.active.is_empty()) || skip) {
            resync.phase = Phase::Barrier { upto: end };
        }
        let Phase::Barrier { upto } = resync.phase else {
            return;
        };
        if free && (skip || (durable >= upto && committed >= resync.from)) {
            resync.phase = Phase::Proposed;
            primary.growth = Some(Growth { node, version });
            out.push(Command::Note(Note::Growing { node }));
        }
    }

    /// A growth was made void by another change: its replica is as good as before, and goes through the barrier again.
    pub(crate) fn growth_voided(&mut self, node: NodeId) {
        let end = self.log.end().lsn;
        if let Some(resync) = self.resync_mut(node)
            && resync.phase == Phase::Proposed
        {
            resync.phase = Phase::Barrier { upto: end };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::api::Policy;
    use holdfast_types::{BlockSize, InSyncVersion, Revision};

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
            policy: Policy::default(),
        }
    }

    #[test]
    fn all_ranges_come_once_and_the_last_is_cut() {
        let config = Config {
            resync_range_bytes: 4096,
            ..Config::default()
        };
        let mut resync = Resync::of_all(&config, &view(8 * 70 + 3), Lsn(0));
        assert_eq!(resync.ranges_left(), 71);
        let all: Vec<u64> = std::iter::from_fn(|| resync.take_next()).collect();
        assert_eq!(all, (0..71).collect::<Vec<_>>());
        assert_eq!(resync.range(70).blocks(), 3);
    }
}
