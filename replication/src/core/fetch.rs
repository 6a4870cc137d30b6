//! Reads that the local disk does not answer in time: an in-sync replica does (I10).
//!
//! The primary goes on holding the range, so nothing that overlaps is applied here meanwhile, and every record that overlaps and was
//! committed before is applied here already. The replica answers once it has applied as much; what it has applied beyond is committed, and
//! later reads here wait until it is applied. So its answer is one that this disk could have given, and it is judged in the same way:
//! under the lease, looked at after the bytes came (W3).

use bytes::Bytes;
use holdfast_types::{BlockOp, BlockRange, Lsn, Mono, NodeId};

use super::api::{Command, Ctx, IoToken, LinkId, Message};
use super::front::OpState;
use super::primary::Follower;
use super::repair::Waiter;
use super::replica::{Sender, session};
use super::role::{HashWait, Role};
use super::{ExtentCore, Owner};

/// A read that a replica is asked for.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// The slot that holds the range.
    pub(crate) lock: u64,
    /// The local read may still end.
    pub(crate) local: bool,
    /// Who was asked last, over which link.
    asked: Option<(NodeId, LinkId)>,
    since: Mono,
    /// Who cannot read it either.
    tried: Vec<NodeId>,
}

impl ExtentCore {
    /// The local disk does not give the bytes, or not those that were written: they are repaired (`repair`). A command that a replica
    /// answers already goes on without the disk.
    pub(crate) fn on_read_failed(&mut self, ctx: &Ctx, io: IoToken, bad: BlockRange, out: &mut Vec<Command>) {
        let lock = io.0;
        match self.table.owner(lock) {
            Some(Owner::Op(key)) => {
                let fetch = self.fetches.iter_mut().find(|fetch| fetch.lock == lock);
                let fetched = fetch.map(|fetch| fetch.local = false).is_some();
                let Some(op) = self.ops.get_mut(&key) else {
                    self.table.remove(lock);
                    return;
                };
                if fetched {
                    op.state = OpState::Locked { lock, io: false };
                    return;
                }
                op.state = OpState::Repairing;
                self.table.remove(lock);
                self.start_repair(ctx, bad, Waiter::Op(key), out);
            }
            Some(Owner::HashFor {
                to, link, epoch, id, ..
            }) => {
                self.table.remove(lock);
                self.give((to, link, epoch), id, None, out);
            }
            Some(Owner::Compare { node, no }) => self.repair_compared(ctx, (node, no, lock), &[bad], out),
            Some(Owner::Dead) => {
                self.table.remove(lock);
            }
            Some(Owner::Record(_) | Owner::Repair) | None => {}
        }
    }

    /// Asks a replica for what the slot's command reads. `local`: the disk may still answer.
    fn fetch(&mut self, ctx: &Ctx, lock: u64, local: bool, out: &mut Vec<Command>) {
        match self.fetches.iter_mut().find(|fetch| fetch.lock == lock) {
            Some(fetch) => fetch.local &= local,
            None => self.fetches.push(Fetch {
                lock,
                local,
                asked: None,
                since: ctx.now,
                tried: Vec::new(),
            }),
        }
        self.ask_for(ctx, lock, out);
    }

    /// Asks the next replica that can answer. If all of them were tried in vain, they are tried again after a while: the command waits
    /// until then, or until it has waited too long.
    fn ask_for(&mut self, ctx: &Ctx, lock: u64, out: &mut Vec<Command>) {
        let at = self.log.committed;
        let (Some(view), Role::Serving(primary)) = (self.view.clone(), &self.role) else {
            return;
        };
        let Some(range) = self.read_by(lock) else { return };
        let Some(fetch) = self.fetches.iter_mut().find(|fetch| fetch.lock == lock) else {
            return;
        };
        fetch.since = ctx.now;
        let fit = |follower: &&Follower| {
            view.in_sync.contains(&follower.node)
                && !follower.resyncing()
                && !fetch.tried.contains(&follower.node)
        };
        let next = primary.followers.iter().filter(fit);
        let next = next.filter_map(|follower| Some((follower.node, follower.streaming()?)));
        let Some((to, link)) = next.min_by_key(|(node, _)| *node) else {
            fetch.asked = None;
            fetch.tried.clear();
            return;
        };
        fetch.asked = Some((to, link));
        let epoch = primary.epoch;
        self.tell_commit_to(to, out);
        let id = lock;
        let message = Message::Fetch { epoch, id, range, at };
        out.push(Command::Send { to, link, message });
    }

    /// What the command reads that holds this slot.
    fn read_by(&self, lock: u64) -> Option<BlockRange> {
        let Some(Owner::Op(key)) = self.table.owner(lock) else {
            return None;
        };
        match self.ops.get(&key)?.request {
            BlockOp::Read { range }
            | BlockOp::Verify { range, .. }
            | BlockOp::CompareAndWrite { range, .. }
            | BlockOp::OrWrite { range, .. } => Some(range),
            _ => None,
        }
    }

    /// A primary asks for contents.
    pub(crate) fn on_fetch(
        &mut self,
        sender: Sender,
        id: u64,
        range: BlockRange,
        at: Lsn,
        out: &mut Vec<Command>,
    ) {
        let contents = true;
        let wait = HashWait {
            id,
            range,
            at,
            contents,
        };
        self.wanted_by(sender, wait, out);
    }

    /// Gives a primary the contents that it asked for, if it is still the one that is followed.
    pub(crate) fn give(&mut self, to: Sender, id: u64, data: Option<Bytes>, out: &mut Vec<Command>) {
        let current = self
            .role
            .replica()
            .is_some_and(|replica| replica.following == Some(session(to)));
        if current {
            let (to, link, epoch) = to;
            let message = Message::Fetched { epoch, id, data };
            out.push(Command::Send { to, link, message });
        }
    }

    /// A replica's answer.
    pub(crate) fn on_fetched(
        &mut self,
        ctx: &Ctx,
        (from, link, epoch): Sender,
        lock: u64,
        data: Option<Bytes>,
        out: &mut Vec<Command>,
    ) {
        if self.role.primary().is_none_or(|primary| primary.epoch != epoch) {
            return;
        }
        if let Some(Owner::Repair) = self.table.owner(lock) {
            return self.repair_came(ctx, (from, link), lock, data.as_ref(), out);
        }
        let (Some(range), Some(view)) = (self.read_by(lock), self.view.as_ref()) else {
            return;
        };
        let fits = |data: &Bytes| data.len() as u64 == range.byte_len(view.block_size);
        let sound = data.as_ref().is_none_or(fits);
        let Some(fetch) = self.fetches.iter_mut().find(|fetch| fetch.lock == lock) else {
            return;
        };
        if fetch.asked != Some((from, link)) {
            return;
        }
        match data.filter(fits) {
            Some(data) => {
                if let Some(Owner::Op(key)) = self.table.owner(lock) {
                    self.read_came(ctx, key, lock, data, out);
                }
            }
            None => {
                fetch.tried.push(from);
                self.ask_for(ctx, lock, out);
            }
        }
        if !sound {
            Self::bad(out, from, "contents that are not of the length asked for");
        }
    }

    /// Whether a slot's read was asked of a replica, and then whether the local one may still end. Nothing is waited for any more.
    pub(crate) fn end_fetch(&mut self, lock: u64) -> Option<bool> {
        let index = self.fetches.iter().position(|fetch| fetch.lock == lock)?;
        Some(self.fetches.swap_remove(index).local)
    }

    /// Reads that have waited long for the local disk, or for a replica.
    pub(crate) fn look_at_reads(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        if !matches!(self.role, Role::Serving(_)) {
            return;
        }
        let after = self.config.fetch_after;
        // A compare that gets its lsn while the local read may still end would be applied beside that read: it waits.
        let late = |op: &super::front::Op| {
            let alone = matches!(op.request, BlockOp::Read { .. } | BlockOp::Verify { .. });
            alone && ctx.now.since(op.issued) >= after
        };
        let mut locks: Vec<u64> = self
            .ops
            .values()
            .filter(|op| late(op))
            .filter_map(|op| match op.state {
                OpState::Locked { lock, io: true } => Some(lock),
                _ => None,
            })
            .filter(|lock| !self.fetches.iter().any(|fetch| fetch.lock == *lock))
            .collect();
        locks.sort_unstable();
        for lock in locks {
            self.fetch(ctx, lock, true, out);
        }
        let waits = |fetch: &&Fetch| ctx.now.since(fetch.since) >= after;
        let mut again: Vec<u64> = self.fetches.iter().filter(waits).map(|f| f.lock).collect();
        again.sort_unstable();
        for lock in again {
            if let Some(fetch) = self.fetches.iter_mut().find(|fetch| fetch.lock == lock)
                && let Some((node, _)) = fetch.asked
            {
                fetch.tried.push(node);
            }
            self.ask_for(ctx, lock, out);
        }
    }

    /// A link is gone: what was asked over it is asked of somebody else.
    pub(crate) fn fetches_lost(&mut self, ctx: &Ctx, node: NodeId, out: &mut Vec<Command>) {
        let lost = |fetch: &&Fetch| fetch.asked.is_some_and(|(asked, _)| asked == node);
        let locks: Vec<u64> = self.fetches.iter().filter(lost).map(|f| f.lock).collect();
        for lock in locks {
            self.ask_for(ctx, lock, out);
        }
    }
}
