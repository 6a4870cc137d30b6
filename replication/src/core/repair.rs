//! Blocks that are bad here, out of an in-sync replica (I10).
//!
//! A read that fails, or whose blocks are not what was written, answers nothing: its blocks are taken exclusively, so that every write to
//! them with an lsn is applied here and no other gets one, and read from an in-sync replica that has applied as much. What comes
//! becomes a record of its own, with its own lsn, so that it can never overtake a newer write; other replicas log a marker. Once that is
//! applied, whoever wanted the blocks tries again.
//!
//! Blocks that are bad in every replica of the in-sync set are lost: the command ends as unreadable, and one line says which. While a
//! member of the set cannot be asked, the command waits, up to the hold limit.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_types::{BlockRange, Lsn, NodeId, OpOutcome};

use super::api::{Command, Ctx, LinkId, Message, Note, RecordBody};
use super::front::{OpKey, OpState};
use super::ranges::{Blocks, Want};
use super::resync::between;
use super::{ExtentCore, Owner};

/// Who waits for blocks to be repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    Op(OpKey),
    /// A range under comparison with a replica.
    Compare {
        node: NodeId,
        no: u64,
    },
}

/// A repair under way.
#[derive(Debug)]
pub(crate) struct Repair {
    lock: u64,
    range: BlockRange,
    waiters: Vec<Waiter>,
    /// Whose blocks are bad, too.
    bad: Vec<NodeId>,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// For its blocks.
    Waits,
    Asked {
        node: NodeId,
        link: LinkId,
    },
    /// No member of the in-sync set that was not asked can be.
    Nobody,
    /// The contents travel as this record.
    Sent(Lsn),
}

impl ExtentCore {
    /// Repairs blocks of this primary.
    pub(crate) fn start_repair(
        &mut self,
        ctx: &Ctx,
        range: BlockRange,
        waiter: Waiter,
        out: &mut Vec<Command>,
    ) {
        let Some(primary) = self.role.primary_mut() else {
            return self.woken(waiter, true, out);
        };
        if let Some(repair) = primary
            .repairs
            .iter_mut()
            .find(|repair| repair.range.overlaps(range))
        {
            // It tries again when that is done, and finds what is still bad.
            return repair.waiters.push(waiter);
        }
        self.checks.found += range.blocks();
        let (node, blocks) = (self.me.node, range.blocks());
        out.push(Command::Note(Note::BadBlocks { node, blocks }));
        self.begin_repair(ctx, range, vec![waiter], Vec::new(), out);
    }

    fn begin_repair(
        &mut self,
        ctx: &Ctx,
        range: BlockRange,
        waiters: Vec<Waiter>,
        bad: Vec<NodeId>,
        out: &mut Vec<Command>,
    ) {
        let lock = self.next_id();
        let step = Step::Waits;
        let repair = Repair {
            lock,
            range,
            waiters,
            bad,
            step,
        };
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        primary.repairs.push(repair);
        if self
            .table
            .add(lock, Want::Exclusive, Blocks::one(range), Owner::Repair)
        {
            self.repair_granted(ctx, lock, out);
        }
    }

    fn repair(&mut self, lock: u64) -> Option<&mut Repair> {
        let primary = self.role.primary_mut()?;
        primary.repairs.iter_mut().find(|repair| repair.lock == lock)
    }

    fn take_repair(&mut self, lock: u64) -> Option<Repair> {
        let primary = self.role.primary_mut()?;
        let index = primary.repairs.iter().position(|repair| repair.lock == lock)?;
        Some(primary.repairs.swap_remove(index))
    }

    /// The blocks are held, so every write to them that has an lsn is applied here: an in-sync replica is asked that has applied as much.
    pub(crate) fn repair_granted(&mut self, ctx: &Ctx, lock: u64, out: &mut Vec<Command>) {
        let (at, me) = (self.log.committed, self.me.node);
        let (Some(view), Some(primary)) = (self.view.clone(), self.role.primary_mut()) else {
            return;
        };
        let epoch = primary.epoch;
        let Some(repair) = primary.repairs.iter_mut().find(|repair| repair.lock == lock) else {
            return;
        };
        let asked = |node: NodeId| node == me || repair.bad.contains(&node);
        let next = primary.followers.iter().find_map(|follower| {
            let fit = view.in_sync.contains(&follower.node) && !asked(follower.node);
            follower
                .streaming()
                .filter(|_| fit)
                .map(|link| (follower.node, link))
        });
        let (id, range) = (lock, repair.range);
        if let Some((node, link)) = next {
            repair.step = Step::Asked { node, link };
            self.tell_commit_to(node, out);
            let message = Message::Fetch { epoch, id, range, at };
            let to = node;
            out.push(Command::Send { to, link, message });
        } else if view.in_sync.iter().any(|node| !asked(*node)) {
            repair.step = Step::Nobody;
        } else {
            self.repair_failed(ctx, lock, out);
        }
    }

    /// No member of the in-sync set has all of the blocks. Of several, half may still be there.
    fn repair_failed(&mut self, ctx: &Ctx, lock: u64, out: &mut Vec<Command>) {
        let Some(Repair { range, waiters, .. }) = self.take_repair(lock) else {
            return;
        };
        self.table.remove(lock);
        if range.blocks() > 1 {
            let (lo, half) = (range.lba().0, range.blocks() / 2);
            return self.begin_repair(ctx, between(lo, lo + half), waiters, Vec::new(), out);
        }
        self.checks.lost += 1;
        let lba = range.lba();
        out.push(Command::Note(Note::Unreadable { lba }));
        for waiter in waiters {
            if let Waiter::Op(key) = waiter
                && self.repairing(key)
            {
                self.finish(key, OpOutcome::Unreadable { lba }, out);
            } else {
                self.woken(waiter, false, out);
            }
        }
    }

    fn repairing(&self, key: OpKey) -> bool {
        self.ops
            .get(&key)
            .is_some_and(|op| op.state == OpState::Repairing)
    }

    fn woken(&mut self, waiter: Waiter, repaired: bool, out: &mut Vec<Command>) {
        match waiter {
            Waiter::Op(key) if self.repairing(key) => {
                self.hold(key);
                self.pump = true;
            }
            Waiter::Op(_) => {}
            Waiter::Compare { node, no } => self.compared_repaired(node, no, repaired, out),
        }
    }

    /// The answer of the replica that was asked; `None`: they are bad there, too.
    pub(crate) fn repair_came(
        &mut self,
        ctx: &Ctx,
        (from, link): (NodeId, LinkId),
        id: u64,
        data: Option<&Bytes>,
        out: &mut Vec<Command>,
    ) {
        let size = self.view.as_ref().map(|view| view.block_size);
        let (node, me) = (from, self.me.node);
        let Some(repair) = self
            .repair(id)
            .filter(|repair| repair.step == Step::Asked { node, link })
        else {
            return;
        };
        let range = repair.range;
        let whole = |data: &&Bytes| size.is_some_and(|size| data.len() as u64 == range.byte_len(size));
        let Some(data) = data.filter(whole) else {
            repair.bad.push(node);
            return self.repair_granted(ctx, id, out);
        };
        let ranges: Arc<[BlockRange]> = Arc::from([range]);
        let body = RecordBody::Resync { ranges, data: None };
        let lsn = self.append(ctx, body, None, None, id, Some((me, data)), out);
        self.table.order(id, lsn, Owner::Record(lsn));
        if let Some(repair) = self.repair(id) {
            repair.step = Step::Sent(lsn);
        }
        self.advance(ctx, out);
    }

    /// Takes every step of every repair that can be taken.
    pub(crate) fn drive_repairs(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let Some(primary) = self.role.primary().filter(|primary| !primary.repairs.is_empty()) else {
            return;
        };
        let moves = |repair: &&Repair| match repair.step {
            Step::Waits => false,
            Step::Nobody => true,
            Step::Asked { node, link } => !primary
                .followers
                .iter()
                .any(|follower| follower.node == node && follower.streaming() == Some(link)),
            Step::Sent(lsn) => self.log.get(lsn).is_none_or(|entry| entry.applied),
        };
        let ready: Vec<u64> = primary.repairs.iter().filter(moves).map(|r| r.lock).collect();
        for lock in ready {
            if self
                .repair(lock)
                .is_some_and(|r| !matches!(r.step, Step::Sent(_)))
            {
                self.repair_granted(ctx, lock, out);
            } else if let Some(repair) = self.take_repair(lock) {
                let (node, blocks) = (self.me.node, repair.range.blocks());
                self.checks.repaired += blocks;
                out.push(Command::Note(Note::Repaired { node, blocks }));
                for waiter in repair.waiters {
                    self.woken(waiter, true, out);
                }
            }
        }
    }

    /// This node is primary no more: what has an lsn goes on, what has none is forgotten.
    pub(crate) fn drop_repairs(&mut self) {
        let repairs = self
            .role
            .primary_mut()
            .map(|primary| std::mem::take(&mut primary.repairs))
            .unwrap_or_default();
        for repair in repairs {
            if !matches!(repair.step, Step::Sent(_)) {
                self.abandon(repair.lock, false);
            }
        }
    }
}
