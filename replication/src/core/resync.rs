//! Bringing a replica to the barrier (R2, R3): comparing ranges while new records flow to it already.
//!
//! Per range, the primary holds it exclusively: every write to it with an lsn is applied here, and no other gets one. What both sides then
//! have, once the replica has applied as much, must be equal. It is hashed piece by piece, and the pieces that differ become a record of
//! their own, with its own lsn, so that they can never overtake a newer write. Nothing is held while they travel. Once the replica has
//! applied them, what spans them is compared again. What was equal once stays equal, because both sides apply the same records.
//!
//! A piece that is bad on the replica equals nothing, so it is sent; one that is bad here is repaired from an in-sync replica first (I10,
//! `repair`). What nobody has any more is never proven equal: the range waits, and is tried again from time to time.
//!
//! The same goes for a replica that only missed the newer end of the log: it gets the records, and the ranges they touch are compared.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::{BlockRange, Epoch, NodeId};

use super::api::{Command, Ctx, Digests, IoToken, Message, Note, RecordBody};
use super::comparison::{Active, Phase, Step, enclosing, gather, unreachable_range};
use super::primary::{FollowerState, Growth};
use super::ranges::{Blocks, Want};
use super::repair::Waiter;
use super::role::Role;
use super::{ExtentCore, Owner};
use crate::fault::{self, Fault};

pub(crate) use super::comparison::Resync;
pub(super) use super::comparison::between;

/// For how long initiators count as waiting after a command: one that is answered mostly has a successor.
pub(super) const BUSY_FOR: Duration = Duration::from_millis(50);

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
            self.follow_sent(node, out);
            self.compare_again(ctx, node, out);
            self.start_ranges(ctx, node, out);
            self.pace_scrub(ctx, node, out);
            self.barrier(ctx, node, out);
        }
    }

    /// Contents on their way are to be applied there as soon as they are committed: no later message may come that says so.
    fn follow_sent(&mut self, node: NodeId, out: &mut Vec<Command>) {
        let committed = self.log.committed;
        let Some(follower) = self.role.primary_mut().and_then(|primary| primary.follower(node)) else {
            return;
        };
        let told = follower.told;
        let news = follower.resync().is_some_and(|resync| {
            let mut steps = resync.active.iter().map(|active| &active.step);
            steps.any(|step| matches!(step, Step::Sent(lsn, _) if *lsn > told && *lsn <= committed))
        });
        if news {
            self.tell_commit_to(node, out);
        }
    }

    /// Ranges whose contents have arrived are compared again: committed, and applied there as well, so that no initiator's write has to
    /// wait for them to travel.
    fn compare_again(&mut self, ctx: &Ctx, node: NodeId, out: &mut Vec<Command>) {
        let (committed, busy) = (self.log.committed, self.initiators_wait(ctx));
        let trust = fault::on(Fault::ResyncWithoutLock);
        let Some(follower) = self.role.primary_mut().and_then(|primary| primary.follower(node)) else {
            return;
        };
        let applied = if trust { committed } else { follower.applied };
        let arrived = |step: &Step| matches!(step, Step::Sent(lsn, _) if *lsn <= committed.min(applied));
        while let Some(resync) = self.resync_mut(node)
            && (trust || resync.may_hold(busy))
            && let Some(active) = resync.active.iter_mut().find(|active| arrived(&active.step))
        {
            let no = active.no;
            if trust {
                self.proven(ctx, node, no);
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

    /// Whether commands of initiators are open here, or were a moment ago: what is compared takes less of this node then.
    pub(super) fn initiators_wait(&self, ctx: &Ctx) -> bool {
        !self.ops.is_empty() || ctx.now < self.busy_until
    }

    fn start_ranges(&mut self, ctx: &Ctx, node: NodeId, out: &mut Vec<Command>) {
        let busy = self.initiators_wait(ctx);
        if self.room_of(node).crowded || self.room_of(self.me.node).crowded {
            return;
        }
        while let Some(resync) = self.resync_mut(node) {
            match resync.may_start(ctx.now, busy) {
                Ok(true) => {}
                Ok(false) => break,
                Err(next) => {
                    self.look_again(next);
                    break;
                }
            }
            let Some((no, left)) = resync.take_next() else {
                break;
            };
            let (range, rest) = resync.part(left, busy);
            let (lock, since, step) = (0, ctx.now, Step::Waits);
            resync.active.push(Active {
                no,
                lock,
                range,
                rest,
                since,
                step,
            });
            self.compare(node, no, out);
        }
    }

    /// Asks for the range.
    fn compare(&mut self, node: NodeId, no: u64, out: &mut Vec<Command>) {
        let lock = self.next_id();
        let Some(resync) = self.resync_mut(node) else {
            return;
        };
        let Some(active) = resync.active(no) else { return };
        let range = active.range;
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
        let Some(active) = resync.active(no).filter(|active| active.lock == lock) else {
            return;
        };
        let range = active.range;
        let (mine, theirs) = (None, None);
        active.step = Step::Hashing { mine, theirs };
        let io = IoToken(lock);
        let renew = false;
        out.push(Command::Hash { io, range, renew });
        let id = lock;
        // The replica need not have applied what touches other blocks: contents of other ranges may be on their way to it.
        let at = self.log.newest_on(range);
        self.tell_commit_to(node, out);
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
        let (lock, whole) = (active.lock, active.range);
        let (mine, theirs) = match &mut active.step {
            Step::Hashing {
                mine: Some(mine),
                theirs: Some(theirs),
            } => (std::mem::take(mine), std::mem::take(theirs)),
            _ => return,
        };
        let bad_here = resync.pieces(whole, |index| mine.get(index).is_none_or(Option::is_none));
        if !bad_here.is_empty() {
            return self.repair_compared(ctx, (node, no, lock), &bad_here, out);
        }
        // A replica that counted its pieces wrong has none that is equal.
        let counted = mine.len() == theirs.len();
        let differ = resync.pieces(whole, |index| !counted || mine[index] != theirs[index]);
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
            self.proven(ctx, node, no);
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

    fn proven(&mut self, ctx: &Ctx, node: NodeId, no: u64) {
        if let Some(resync) = self.resync_mut(node) {
            resync.proven(ctx.now, no);
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
                range,
                ..
            }) => {
                let differ = std::mem::take(differ);
                // What is equal stays equal.
                *range = enclosing(&differ).unwrap_or(*range);
                differ
            }
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
            active.step = Step::Sent(lsn, data.len());
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
