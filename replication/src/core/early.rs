//! Write-back (W5): writes that are answered once every member of the in-sync set has received them.
//!
//! Only the answer is early. A record is committed, and applied to any extent, once it is stable on every member, as without write-back;
//! reads of its blocks, and writes over them, wait for that. So nothing is ever seen that can be lost, and the extents never hold what no
//! journal does.

use holdfast_types::{BlockOp, Lsn, NodeId, OpOutcome};

use super::ExtentCore;
use super::api::{Change, Command, Identity, View};
use super::front::OpKey;
use super::primary::Follower;
use super::role::Role;
use crate::fault::{self, Fault};

impl ExtentCore {
    /// Whether a member has, in the run that its link is of, all that was answered early. Somebody else cannot have lost it.
    pub(crate) fn has_memory(&self, follower: &Follower, view: &View) -> bool {
        let linked = self.run_of(follower.node);
        !view.in_sync.contains(&follower.node) || linked.is_some_and(|peer| view.cache.remembers(peer))
    }

    /// What every member of the set that counts has received.
    fn received(&self, view: &View) -> Lsn {
        let Some(primary) = self.role.primary() else {
            return Lsn(0);
        };
        let end = self.log.end().lsn;
        if fault::on(Fault::EarlyBeforeReceived) {
            return end;
        }
        let counted = || self.counted(primary, view);
        // With a member that may lack something, the others are no better than their disks: either may be promoted when all start anew.
        if !counted().all(|follower| self.has_memory(follower, view)) {
            return self.log.committed;
        }
        counted()
            .map(|follower| follower.received.max(follower.durable))
            .fold(end, Lsn::min)
    }

    /// A member that is here in a run that is not noted as having everything leaves before it may be promoted, and comes back with all.
    pub(crate) fn has_forgotten(&self, node: NodeId, view: &View) -> bool {
        let linked = self.run_of(node);
        view.in_sync.contains(&node) && linked.is_some_and(|peer| !view.cache.remembers(peer))
    }

    /// Answers what every member has received, here (it went to the journal when it got its position) and elsewhere. What asks to be stable
    /// waits for its commit: FUA, and all whose answer depends on contents. So does what a node took that had not applied the change to
    /// write-back: its initiators were told WCE=0.
    pub(crate) fn answer_early(&mut self, out: &mut Vec<Command>) {
        let Some(view) = self.view.as_ref() else { return };
        let Some(since) = view.cache.since.filter(|_| view.cache.remembers(self.me)) else {
            return;
        };
        let received = self.received(view);
        let (Role::Serving(primary) | Role::Draining { primary, .. }) = &mut self.role else {
            return;
        };
        let mut at = primary.early.max(self.log.committed);
        primary.early = primary.early.max(received);
        while at < received {
            at = at.next();
            let Some(key) = self.log.get(at).and_then(|entry| entry.op) else {
                continue;
            };
            let early = self.ops.get(&key).is_some_and(|op| {
                let hasty = match &op.request {
                    BlockOp::Write { fua, .. } => !fua,
                    BlockOp::WriteSame { .. } | BlockOp::Zero { .. } => true,
                    _ => false,
                };
                hasty && op.origin.admitted >= since
            });
            if early && let Some(entry) = self.log.get_mut(at) {
                entry.op = None;
                // Whoever reads from now on must not miss it.
                self.overdue(at);
                self.finish(key, OpOutcome::Done, out);
            }
        }
    }

    /// Tells the primary at once what came, where writes are answered for it.
    pub(crate) fn tell_received(&self, out: &mut Vec<Command>) {
        if self.view.as_ref().is_some_and(|view| view.cache.since.is_some()) {
            self.ack_primary(out);
        }
    }

    /// Whether a flush has something to wait for that it has to know as a read does: a primary that was deposed does not know of the
    /// writes that its successor has answered.
    pub(crate) fn is_cached(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.cache.is_in_force())
    }

    /// Whether a flush does not wait, because that rule is broken.
    pub(crate) fn flushes_blindly(&self, key: OpKey) -> bool {
        let flush = self.ops.get(&key).is_some_and(|op| op.request == BlockOp::Flush);
        flush && self.is_cached() && fault::on(Fault::FlushWithoutWaiting)
    }

    /// Write-back was switched off, and all that was answered early is stable on every member.
    pub(crate) fn settles_cache(&self, view: &View, early: Lsn) -> Option<Change> {
        let done = matches!(self.role, Role::Serving(_)) && self.log.committed >= early;
        (view.cache.since.is_none() && view.cache.is_in_force() && done).then_some(Change::CacheSettled)
    }

    /// Which run of a node there is a link to.
    pub(crate) fn run_of(&self, node: NodeId) -> Option<Identity> {
        self.link_of(node).map(|link| link.peer)
    }
}
