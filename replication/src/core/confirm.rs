//! Confirmed reads (W4): for machines whose clock *rate* may lie, so that a lease proves too little.
//!
//! A read that came in is answered only after a round of questions that began later: every other member of the in-sync set, and a replica
//! that is being added, has said that it still follows this epoch. Any next primary is one of them, and follows nobody older from the
//! moment that it is one (E4). So when the last of them answered, no other primary had served, and what this one has committed and applied
//! is all that was acknowledged before the read came in. Where the set has no other member, a Raft read index does the same: what is
//! committed up to there was given to this core, and its epoch still stands.
//!
//! Rounds go one after the other, and a round serves all that waited when it began. The lease is needed all the same.

use holdfast_types::{Epoch, Mono, NodeId};

use super::ExtentCore;
use super::api::{Command, Ctx, LinkId, Message};
use super::front::OpKey;
use super::replica::Sender;
use super::role::Role;
use crate::fault::{self, Fault};

/// Rounds of questions.
#[derive(Debug, Default)]
pub(crate) struct Confirming {
    /// The newest round, and the newest that is done.
    begun: u64,
    done: u64,
    since: Mono,
    /// Who has not answered yet. Empty: the cluster is asked.
    waits: Vec<(NodeId, LinkId)>,
    /// Something waits for a round that has not begun.
    wanted: bool,
}

impl ExtentCore {
    /// Whether a read may be answered as far as this rule goes. If not, it is waited for, and the command is tried again then.
    pub(crate) fn confirmed(&mut self, ctx: &Ctx, key: OpKey, out: &mut Vec<Command>) -> bool {
        let needed = self.view.as_ref().is_some_and(|view| view.policy.confirmed_reads);
        let next = self.confirming.begun + 1;
        let done = self.confirming.done;
        let Some(op) = self.ops.get_mut(&key).filter(|_| needed) else {
            return true;
        };
        match &mut op.confirm {
            Some((round, confirmed)) => {
                *confirmed |= done >= *round;
                if *confirmed {
                    return true;
                }
            }
            none => *none = Some((next, false)),
        }
        self.confirming.wanted |= op.confirm.is_some_and(|(round, _)| round == next);
        self.next_round(ctx, out);
        false
    }

    /// Begins a round if one is wanted and none is under way, or the one under way takes long: then an answer may be lost.
    fn next_round(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let under_way = self.confirming.begun > self.confirming.done;
        let late = ctx.now.since(self.confirming.since) >= self.config.repropose;
        if under_way && !late || !under_way && !self.confirming.wanted {
            return;
        }
        let Some((epoch, waits)) = self.whom_to_ask() else {
            return;
        };
        self.confirming.begun += 1;
        self.confirming.since = ctx.now;
        self.confirming.wanted = false;
        let round = self.confirming.begun;
        if waits.is_empty() {
            out.push(Command::Confirm { round });
        }
        for (to, link) in waits.iter().copied() {
            let message = Message::Confirm { epoch, round };
            out.push(Command::Send { to, link, message });
        }
        self.confirming.waits = waits;
    }

    /// Who has to confirm which epoch. `None` while somebody cannot be asked: a member without a link is asked out, or comes back.
    fn whom_to_ask(&self) -> Option<(Epoch, Vec<(NodeId, LinkId)>)> {
        let (Role::Serving(primary), Some(view)) = (&self.role, self.view.as_ref()) else {
            return None;
        };
        let mut others = primary
            .followers
            .iter()
            .filter(|follower| self.counts(follower, view));
        if fault::on(Fault::ConfirmedByOne) {
            let last = others.rev().find_map(|f| Some((f.node, f.streaming()?)))?;
            return Some((primary.epoch, vec![last]));
        }
        let waits = others.try_fold(Vec::new(), |mut waits, follower| {
            waits.push((follower.node, follower.streaming()?));
            Some(waits)
        });
        Some((primary.epoch, waits?))
    }

    /// A primary asks whether it is still followed.
    pub(crate) fn on_confirm(&mut self, sender: Sender, round: u64, out: &mut Vec<Command>) {
        if self.follows(sender, out) {
            let (to, link, epoch) = sender;
            let message = Message::Confirmed { epoch, round };
            out.push(Command::Send { to, link, message });
        }
    }

    pub(crate) fn on_confirmed(
        &mut self,
        ctx: &Ctx,
        (from, link, epoch): Sender,
        round: u64,
        out: &mut Vec<Command>,
    ) {
        let current = self.role.primary().is_some_and(|primary| primary.epoch == epoch);
        if !current || round != self.confirming.begun || self.confirming.waits.is_empty() {
            return;
        }
        self.confirming.waits.retain(|asked| *asked != (from, link));
        if self.confirming.waits.is_empty() {
            self.round_done(ctx, round, out);
        }
    }

    /// A majority of voters confirmed a commit position after this round began, and all of it was given to this core.
    pub(crate) fn on_cluster_confirmed(&mut self, ctx: &Ctx, round: u64, out: &mut Vec<Command>) {
        if round == self.confirming.begun && self.confirming.waits.is_empty() {
            self.round_done(ctx, round, out);
        }
    }

    fn round_done(&mut self, ctx: &Ctx, round: u64, out: &mut Vec<Command>) {
        // Whoever came into the set since then was not asked.
        let (Role::Serving(_), true) = (&self.role, self.confirming.done < round) else {
            return;
        };
        self.confirming.done = round;
        self.pump = true;
        self.next_round(ctx, out);
    }

    /// A new epoch of this node: rounds of the old one say nothing about it.
    pub(crate) fn forget_rounds(&mut self) {
        self.confirming.begun += 1;
        self.confirming.waits.clear();
        self.confirming.done = self.confirming.begun;
        for op in self.ops.values_mut() {
            op.confirm = None;
        }
    }

    /// Rounds whose answers are late are asked again, as long as something waits for them.
    pub(crate) fn repeat_round(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        if self.confirming.begun > self.confirming.done {
            self.next_round(ctx, out);
        }
    }
}
