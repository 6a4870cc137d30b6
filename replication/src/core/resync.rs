//! Bringing a replica to the barrier (R2, R3): comparing ranges while new records flow to it already.
//!
//! Per range, the primary holds it exclusively: every write to it with an lsn is applied here, and no other gets one. What both sides then
//! have, once the replica has applied as much, must be equal. If the hashes differ, the range's contents become a record of their own, with
//! its own lsn, so that they can never overtake a newer write; and the range is compared again once that record is committed. A range that
//! was equal once stays equal, because both sides apply the same records.
//!
//! The same goes for a replica that only missed the newer end of the log: it gets the records, and the ranges they touch are compared.

use bytes::Bytes;
use holdfast_types::{BlockRange, Epoch, Lba, Lsn, NodeId};

use super::api::{
    Command, Config, Ctx, IoToken, Message, Note, RangeHash, Record, RecordBody, ResyncStatus, View,
};
use super::primary::{FollowerState, Growth};
use super::ranges::{Blocks, Want};
use super::role::Role;
use super::{ExtentCore, Owner};
use crate::fault::{self, Fault};

/// A replica's way to the barrier.
#[derive(Debug)]
pub(crate) struct Resync {
    /// Blocks of a range, and of the extent.
    unit: u64,
    blocks: u64,
    block_bytes: u64,
    /// Which ranges have not been started, one bit each.
    todo: Vec<u64>,
    /// No range before this one is to be started.
    next: u64,
    active: Vec<Active>,
    /// Records up to here are not in the stream: they must be committed before the barrier, so that what was compared holds them.
    from: Lsn,
    total: u64,
    left: u64,
    sent: u64,
    in_flight: usize,
    phase: Phase,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Waits,
    Hashing {
        mine: Option<RangeHash>,
        theirs: Option<RangeHash>,
    },
    Reading,
    /// Its contents travel as this record.
    Sent(Lsn),
}

impl Resync {
    fn new(config: &Config, view: &View, from: Lsn) -> Self {
        let block_bytes = u64::from(view.block_size.bytes());
        let unit = (config.resync_range_bytes / block_bytes).max(1);
        let count = view.blocks.div_ceil(unit);
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            unit,
            blocks: view.blocks,
            block_bytes,
            todo: vec![0; words],
            next: 0,
            active: Vec::new(),
            from,
            total: 0,
            left: 0,
            sent: 0,
            in_flight: config.resync_in_flight.max(1),
            phase: Phase::Comparing,
        }
    }

    /// Every range.
    pub(crate) fn of_all(config: &Config, view: &View, from: Lsn) -> Self {
        let mut resync = Self::new(config, view, from);
        resync.mark(0, view.blocks);
        resync
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
        let blocks = self.unit.min(self.blocks.saturating_sub(lba));
        BlockRange::new(Lba(lba), blocks).unwrap_or_else(|_| unreachable_range())
    }

    fn active(&mut self, no: u64) -> Option<&mut Active> {
        self.active.iter_mut().find(|active| active.no == no)
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
        }
    }
}

/// Ranges are cut to the extent's size, which is far below the end of addresses.
fn unreachable_range() -> BlockRange {
    BlockRange::try_from((0, 0)).expect("an empty range at 0 is always one")
}

impl ExtentCore {
    fn resync_mut(&mut self, node: NodeId) -> Option<&mut Resync> {
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
                let io = match active.step {
                    Step::Waits | Step::Sent(_) => false,
                    Step::Hashing { mine, .. } => mine.is_none(),
                    Step::Reading => true,
                };
                if fault::on(Fault::ResyncWithoutLock) && !io {
                    self.table.remove(active.lock);
                    continue;
                }
                self.abandon(active.lock, io);
            }
        }
    }

    /// Takes every step of every resync that can be taken.
    pub(crate) fn drive_resyncs(&mut self, out: &mut Vec<Command>) {
        let Role::Serving(primary) = &self.role else {
            return;
        };
        let nodes = primary.followers.iter().filter(|f| f.resync().is_some());
        // Mostly there are none: no allocation then.
        for node in nodes.map(|follower| follower.node).collect::<Vec<_>>() {
            self.compare_again(node, out);
            self.start_ranges(node, out);
            self.barrier(node, out);
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

    fn start_ranges(&mut self, node: NodeId, out: &mut Vec<Command>) {
        while let Some(resync) = self.resync_mut(node) {
            if resync.active.len() >= resync.in_flight {
                break;
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
        out.push(Command::Hash { io, range });
        let id = lock;
        let message = Message::HashRequest { epoch, id, range, at };
        let to = node;
        out.push(Command::Send { to, link, message });
    }

    pub(crate) fn hashed_here(
        &mut self,
        node: NodeId,
        no: u64,
        lock: u64,
        hash: RangeHash,
        out: &mut Vec<Command>,
    ) {
        if let Some(active) = self.resync_mut(node).and_then(|resync| resync.active(no))
            && active.lock == lock
            && let Step::Hashing { mine, .. } = &mut active.step
        {
            *mine = Some(hash);
        }
        self.judge_range(node, no, out);
    }

    pub(crate) fn on_hash_reply(
        &mut self,
        (from, epoch): (NodeId, Epoch),
        id: u64,
        hash: RangeHash,
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
            *theirs = Some(hash);
        }
        self.judge_range(from, no, out);
    }

    fn judge_range(&mut self, node: NodeId, no: u64, out: &mut Vec<Command>) {
        let Some(resync) = self.resync_mut(node) else {
            return;
        };
        let range = resync.range(no);
        let Some(active) = resync.active(no) else { return };
        let Step::Hashing {
            mine: Some(mine),
            theirs: Some(theirs),
        } = active.step
        else {
            return;
        };
        let lock = active.lock;
        if mine == theirs {
            self.table.remove(lock);
            self.proven(node, no);
            self.drive_resyncs(out);
        } else {
            active.step = Step::Reading;
            let io = IoToken(lock);
            out.push(Command::Read { io, range });
        }
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
        let range = resync.range(no);
        let current = resync
            .active(no)
            .is_some_and(|active| active.lock == lock && active.step == Step::Reading);
        if !current {
            self.table.remove(lock);
            return;
        }
        resync.sent += data.len() as u64;
        let body = RecordBody::Resync { range, data: None };
        let lsn = self.append(ctx, body, None, None, 0, Some((node, data)), out);
        if let Some(active) = self.resync_mut(node).and_then(|resync| resync.active(no)) {
            active.step = Step::Sent(lsn);
        }
        self.table.remove(lock);
        self.advance(ctx, out);
    }

    /// R3, E3.
    fn barrier(&mut self, node: NodeId, out: &mut Vec<Command>) {
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
