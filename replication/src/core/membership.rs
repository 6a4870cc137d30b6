//! What a primary does about itself: settled, drained, handed back; and the change of the committed state that is wanted now.

use holdfast_types::{Mono, NodeId};

use super::api::{Change, Command, Ctx, Note, Proposal, View};
use super::primary::{Follower, Growth, Primary};
use super::resync::Resync;
use super::role::Role;
use super::{ExtentCore, HOUSEKEEPING};
use crate::fault::{self, Fault};

impl ExtentCore {
    /// Steps that a primary takes when something it waited for has come.
    pub(crate) fn move_primary(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let old = self.role.name();
        self.role = match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Settling(primary) if self.log.applied >= primary.start => {
                let (epoch, records) = (primary.epoch, primary.tail);
                out.push(Command::Note(Note::Settled { epoch, records }));
                Role::Serving(primary)
            }
            Role::Draining { primary, to, since } => self.drain(ctx, primary, to, since, out),
            Role::HandedBack { primary, since, .. }
                if fault::on(Fault::ResumeByTimer) && ctx.now.since(since) > self.config.switchover_limit =>
            {
                Role::Serving(primary)
            }
            role => role,
        };
        if self.role.name() != old {
            let (role, epoch) = (self.role.name(), self.log.end().epoch);
            out.push(Command::Note(Note::Role { role, epoch }));
            self.pump = true;
        }
    }

    fn drain(
        &mut self,
        ctx: &Ctx,
        mut primary: Box<Primary>,
        to: NodeId,
        since: Mono,
        out: &mut Vec<Command>,
    ) -> Role {
        let link = self.link_of(to);
        let member = self.view.as_ref().is_some_and(|view| view.in_sync.contains(&to));
        let late = ctx.now.since(since) >= self.config.switchover_limit;
        let Some(link) = link.filter(|_| member && !late) else {
            out.push(Command::Note(Note::SwitchoverGivenUp { to }));
            return Role::Serving(primary);
        };
        let empty = self.table.len() == 0 && self.flushing.is_empty();
        if !empty || self.log.applied < self.log.end().lsn {
            return Role::Draining { primary, to, since };
        }
        // E6: everything is committed, so every member of the set has it. Closed from here on.
        primary.commit_due = Some(ctx.now);
        Role::HandedBack {
            primary,
            to: link.peer,
            since: ctx.now,
        }
    }

    pub(crate) fn on_switchover(&mut self, ctx: &Ctx, to: NodeId, out: &mut Vec<Command>) {
        let member = self.view.as_ref().is_some_and(|view| view.in_sync.contains(&to));
        let Role::Serving(primary) = &mut self.role else {
            return;
        };
        let ready = primary
            .follower(to)
            .is_some_and(|follower| follower.streaming().is_some() && !follower.resyncing());
        if !member || !ready || primary.growth.is_some() {
            out.push(Command::Note(Note::SwitchoverGivenUp { to }));
            return;
        }
        let resyncing: Vec<NodeId> = primary
            .followers
            .iter()
            .filter(|follower| follower.resyncing())
            .map(|follower| follower.node)
            .collect();
        let scrub = primary.scrub.take();
        for node in scrub.into_iter().flat_map(|scrub| scrub.left) {
            self.drop_resync(node);
        }
        for node in resyncing {
            self.probe(ctx, node, out);
        }
        if let Role::Serving(primary) = std::mem::replace(&mut self.role, Role::Idle) {
            let since = ctx.now;
            self.role = Role::Draining { primary, to, since };
        }
    }

    /// Ends a primary's role: what has no lsn goes back to where it came from.
    pub(crate) fn leave_primary(&mut self, out: &mut Vec<Command>) {
        let nodes: Vec<NodeId> = self
            .role
            .primary()
            .map(|primary| primary.followers.iter().map(|follower| follower.node).collect())
            .unwrap_or_default();
        for node in nodes {
            self.drop_resync(node);
        }
        self.drop_repairs();
        self.front_leave(out);
    }

    /// The change of the committed state that this node wants now.
    fn wish(&self, ctx: &Ctx) -> Option<Change> {
        let view = self.view.as_ref()?;
        let named = view.primary.is_some_and(|primary| primary.node == self.me.node);
        match &self.role {
            Role::Idle | Role::Replica(_) => None,
            Role::Fenced => named.then_some(Change::HandOver),
            Role::Closed if self.damaged || self.base.is_some() => Some(Change::HandOver),
            Role::Closed => Some(Change::Reopen),
            Role::HandedBack { to, since, .. } => {
                let lost = self.link_of(to.node).is_none_or(|link| link.peer != *to);
                let late = ctx.now.since(*since) >= self.config.switchover_limit;
                Some(if lost || late {
                    Change::Reopen
                } else {
                    Change::Switchover { to: *to }
                })
            }
            Role::Settling(primary) | Role::Serving(primary) | Role::Draining { primary, .. } => {
                let settling = matches!(self.role, Role::Settling(_));
                let gone = |follower: &&Follower| {
                    let stuck_after = self.patience(view);
                    // A suspect that does not answer at once is not waited for: its extents are what this epoch took.
                    let lost = settling && view.is_suspect(follower.node) && follower.streaming().is_none();
                    let gone = lost || follower.gone(ctx.now, self.config.absent_after, stuck_after);
                    view.in_sync.contains(&follower.node) && (gone || self.has_forgotten(follower.node, view))
                };
                // L3: who has not shown that its own disk takes the new epoch takes nobody out: the other one may be whole.
                let shown = self.log.durable >= primary.start;
                if let Some(follower) = primary.followers.iter().filter(|_| shown).find(gone) {
                    return Some(Change::Shrink { node: follower.node });
                }
                let Some(Growth { node, .. }) = primary.growth else {
                    // F4: a leaving that was proposed is taken back by commit only.
                    let void = (!primary.leaving.is_empty()).then_some(Change::GrowVoid);
                    return void
                        .or_else(|| self.lets_go(view))
                        .or_else(|| self.settles_cache(view, primary.early));
                };
                let stuck_after = view.policy.stuck_after;
                let ready =
                    |f: &Follower| f.resync().is_some_and(Resync::proposed) && !f.stuck(ctx.now, stuck_after);
                let ready = primary.followers.iter().any(|f| f.node == node && ready(f));
                let run = self.run_of(node).filter(|_| ready);
                Some(run.map_or(Change::GrowVoid, |peer| Change::Grow {
                    node,
                    run: peer.incarnation,
                }))
            }
        }
    }

    /// I5: replicas that are to go are let go by a primary that serves: its present run has put the epoch's beginning into the journal, and
    /// its log into the extent. The committed state cannot tell whether what stays is whole: its node may have lost a disk a moment ago.
    fn lets_go(&self, view: &View) -> Option<Change> {
        let serves = matches!(self.role, Role::Serving(_)) && self.watch.stuck().is_none();
        (view.retiring.may_go && serves).then_some(Change::Retire)
    }

    /// Slow conditions: proposals that may have been lost, questions without an answer.
    pub(crate) fn housekeep(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let mut busy = false;
        if let (Some(change), Some(view)) = (self.wish(ctx), self.view.as_ref()) {
            busy = true;
            let proposal = Proposal {
                epoch: view.epoch,
                version: view.version,
                by: self.me,
                change,
            };
            let repeat = self.config.repropose;
            let due = self
                .last_wish
                .is_none_or(|(last, at)| last != proposal || ctx.now.since(at) >= repeat);
            if due {
                self.last_wish = Some((proposal, ctx.now));
                if let Change::Shrink { node } = change {
                    self.part_from(node, out);
                }
                out.push(Command::Propose(proposal));
            }
        } else {
            self.last_wish = None;
        }
        busy |= self.reprobe(ctx, out);
        self.housekeeping = busy.then_some(ctx.now + HOUSEKEEPING);
    }
}
