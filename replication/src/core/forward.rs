//! Commands on their way to the primary, and the primary's answers (F1, F2).

use std::time::Duration;

use holdfast_types::{BlockOp, CommandName, Epoch, NodeId, OpOutcome, Origin};

use super::ExtentCore;
use super::api::{Command, Ctx, Fate, ForwardAnswer, LinkId, Message, OpId};
use super::front::{Op, OpKey, OpState};
use super::names::Known;
use super::replica::{Sender, session};
use super::role::{Role, Session};
use crate::fault::{self, Fault};

impl ExtentCore {
    /// Sends a command of this node to the primary, or holds it. One that is to be aborted is asked for instead.
    pub(crate) fn forward(&mut self, ctx: &Ctx, key: OpKey, out: &mut Vec<Command>) {
        let OpKey::Local(id) = key else {
            // Only a primary takes forwarded commands.
            return self.refuse_op(key, out);
        };
        let target = self.view.as_ref().filter(|view| view.epoch >= self.seen);
        let target = target.and_then(|view| view.primary.map(|primary| (primary, view.epoch)));
        let Some((primary, epoch)) = target.filter(|(primary, _)| primary.node != self.me.node) else {
            return self.hold(key);
        };
        if self.outside() && self.ops.get(&key).is_some_and(|op| !is_fence(&op.request)) {
            return self.end_outside(key, out);
        }
        // The link must be to the very run that the epoch names: another one is not the primary (E1).
        let Some(link) = self.link_of(primary.node).filter(|link| link.peer == primary) else {
            return self.hold(key);
        };
        let (to, link) = (primary.node, link.link);
        let at = Session {
            node: to,
            link,
            epoch,
        };
        let Some(op) = self.ops.get_mut(&key) else { return };
        if op.abort {
            let left = op.deadline.since(ctx.now);
            return self.ask_fate(ctx, key, at, left, out);
        }
        op.state = OpState::Forwarded { at };
        let message = Message::Forward {
            op: id,
            epoch,
            name: op.name,
            generation: op.generation,
            waited: ctx.now.since(op.received),
            origin: op.origin,
            again: std::mem::replace(&mut op.again, true),
            request: op.request.clone(),
        };
        out.push(Command::Send { to, link, message });
    }

    /// Asks the primary what became of a command; from then on it never gets an lsn, if it has none (F2).
    pub(crate) fn ask_fate(
        &mut self,
        ctx: &Ctx,
        key: OpKey,
        at: Session,
        limit: Duration,
        out: &mut Vec<Command>,
    ) {
        let (OpKey::Local(id), Some(op)) = (key, self.ops.get_mut(&key)) else {
            return;
        };
        let answered = false;
        op.state = OpState::Asked { at, answered };
        op.deadline = ctx.now + limit;
        let (op, name) = (id, op.name);
        let Session { node, link, epoch } = at;
        let to = node;
        let message = Message::Fate { op, epoch, name };
        out.push(Command::Send { to, link, message });
    }

    /// Whether this primary takes a command of `node` (F4): of a member of the in-sync set, unless its leaving is proposed. A fence is no
    /// member's alone.
    fn takes_forwards_of(&self, node: NodeId, request: &BlockOp) -> bool {
        let member = self
            .view
            .as_ref()
            .is_some_and(|view| view.in_sync.contains(&node));
        let leaving = self
            .role
            .primary()
            .is_some_and(|primary| primary.leaving.contains(&node));
        (member && !leaving) || is_fence(request) || fault::on(Fault::ForwardOfLeaving)
    }

    /// `node` is about to leave the in-sync set (F4): what it forwarded and has no position goes back to it, and nothing more is taken, so
    /// that once it has learned that it is out, none of its commands can take effect any more but those with a position.
    pub(crate) fn part_from(&mut self, node: NodeId, out: &mut Vec<Command>) {
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        if primary.leaving.contains(&node) || fault::on(Fault::ForwardOfLeaving) {
            return;
        }
        primary.leaving.push(node);
        let of_node = |key: &OpKey| matches!(key, OpKey::Remote { node: from, .. } if *from == node);
        let open = self
            .ops
            .iter()
            .filter(|(key, op)| of_node(key) && !is_fence(&op.request));
        let mut keys: Vec<OpKey> = open.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        for key in keys {
            let Some(op) = self.ops.get(&key) else { continue };
            let answer = not_taken(op.again, &op.request);
            match op.state {
                // Its outcome comes. Its sender may give it up before that.
                OpState::Logged { lsn } => {
                    self.overdue(lsn);
                    continue;
                }
                OpState::Locked { lock, io } => self.abandon(lock, io),
                _ => {}
            }
            self.end_op(key, answer, out);
        }
    }

    /// Whether this node is no member of the in-sync set of the epoch that it would forward to: its port group is standby (P4), and its
    /// commands end elsewhere.
    fn outside(&self) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| !view.in_sync.contains(&self.me.node))
    }

    /// Ends a command of a node that is outside, if it can be told that it never takes effect from now on (F4).
    fn end_outside(&mut self, key: OpKey, out: &mut Vec<Command>) {
        let Some(op) = self.ops.get(&key) else { return };
        if !op.again || !op.request.writes() {
            let outcome = if op.abort {
                OpOutcome::Aborted
            } else {
                OpOutcome::Standby
            };
            return self.finish(key, outcome, out);
        }
        // It was sent. Where the primary proposed that this node leaves, it has dropped it, or it has a position. A node that an operator
        // took off the list of replicas left without that.
        let proposed = self
            .view
            .as_ref()
            .is_some_and(|view| view.replicas.contains(&self.me.node));
        if proposed {
            self.refuse_op(key, out);
        } else {
            self.hold(key);
        }
    }

    /// Whether this node takes forwarded commands under that epoch.
    fn primary_of(&self, epoch: Epoch) -> bool {
        self.role.primary().is_some_and(|primary| primary.epoch == epoch)
    }

    pub(crate) fn on_forward(
        &mut self,
        ctx: &Ctx,
        from: NodeId,
        link: LinkId,
        message: Message,
        out: &mut Vec<Command>,
    ) {
        let Message::Forward {
            op,
            epoch,
            name,
            generation,
            waited,
            origin,
            again,
            request,
        } = message
        else {
            return;
        };
        let key = OpKey::Remote { node: from, link, op };
        let mut say = |answer| {
            let message = Message::Forwarded { op, epoch, answer };
            let to = from;
            out.push(Command::Send { to, link, message });
        };
        if !self.primary_of(epoch) {
            return say(ForwardAnswer::NotPrimary);
        }
        let fits = self
            .view
            .as_ref()
            .is_some_and(|view| request.check(view.blocks, view.block_size));
        if !fits || name.session.node != from || self.ops.contains_key(&key) {
            say(ForwardAnswer::Refused);
            return Self::bad(
                out,
                from,
                "a forwarded command that is not its own, open already, or does not fit",
            );
        }
        if self.is_outdated(from, generation) || waited >= self.config.hold_limit {
            return say(ForwardAnswer::Refused);
        }
        if !self.takes_forwards_of(from, &request) {
            return say(not_taken(again, &request));
        }
        let received = ctx.now - waited;
        let op = Op {
            name,
            received,
            deadline: received + self.config.hold_limit,
            generation,
            origin,
            request,
            state: OpState::Held,
            issued: ctx.now,
            confirm: None,
            again,
            abort: false,
        };
        self.take_op(ctx, key, op, out);
    }

    pub(crate) fn on_forwarded(
        &mut self,
        sender: Sender,
        op: OpId,
        answer: ForwardAnswer,
        out: &mut Vec<Command>,
    ) {
        let from = sender.0;
        let key = OpKey::Local(op);
        let Some(open) = self.ops.get(&key) else { return };
        let asked = matches!(open.state, OpState::Asked { .. });
        match open.state {
            OpState::Forwarded { at } | OpState::Asked { at, .. } if at == session(sender) => {}
            _ => return,
        }
        match answer {
            // It was sent before the question for its fate arrived there, whose answer may be that the command is open.
            ForwardAnswer::NotPrimary | ForwardAnswer::NotTaken if asked => {}
            ForwardAnswer::Outcome(outcome) if fits(&open.request, &outcome, self.block_bytes()) => {
                self.finish(key, outcome, out);
            }
            ForwardAnswer::Outcome(_) => {
                Self::bad(out, from, "an outcome that the command cannot have");
                self.refuse_op(key, out);
            }
            ForwardAnswer::NotPrimary => self.hold(key),
            ForwardAnswer::NotTaken => {
                if let Some(op) = self.ops.get_mut(&key) {
                    op.again = false;
                }
                self.hold(key);
            }
            ForwardAnswer::Ended => self.finish(key, OpOutcome::Aborted, out),
            ForwardAnswer::Refused => self.refuse_op(key, out),
        }
    }

    fn block_bytes(&self) -> u64 {
        self.view
            .as_ref()
            .map_or(512, |view| u64::from(view.block_size.bytes()))
    }

    /// What became of a command? If it has no lsn, it never gets one (F2).
    pub(crate) fn on_fate(
        &mut self,
        ctx: &Ctx,
        (from, link, epoch): Sender,
        op: OpId,
        name: CommandName,
        out: &mut Vec<Command>,
    ) {
        let key = OpKey::Remote { node: from, link, op };
        let fate = if !self.primary_of(epoch) || name.session.node != from {
            Fate::NotPrimary
        } else if let Some(open) = self.ops.get(&key) {
            // It may have an lsn of an earlier epoch that was not looked up yet.
            let again = open.again && open.request.writes();
            match open.state {
                OpState::Logged { lsn } => {
                    self.overdue(lsn);
                    Fate::Underway
                }
                state => {
                    if let OpState::Locked { lock, io } = state {
                        self.abandon(lock, io);
                    }
                    self.ops.remove(&key);
                    if again {
                        self.fate_by_name(ctx, key, name)
                    } else {
                        self.bar(ctx, name)
                    }
                }
            }
        } else {
            self.fate_by_name(ctx, key, name)
        };
        let message = Message::FateIs { op, epoch, fate };
        let to = from;
        out.push(Command::Send { to, link, message });
    }

    fn bar(&mut self, ctx: &Ctx, name: CommandName) -> Fate {
        if !fault::on(Fault::FateDoesNotBar) {
            self.names.bar(name, ctx.now);
        }
        Fate::Barred
    }

    /// The fate of a command that is not open here. Until the tail is settled, the log does not say (E5).
    fn fate_by_name(&mut self, ctx: &Ctx, key: OpKey, name: CommandName) -> Fate {
        if !matches!(self.role, Role::Serving(_)) {
            return Fate::NotPrimary;
        }
        match self.names.look_up(&name, ctx.now - self.config.hold_limit * 2) {
            // A committed one is done, applied or not.
            Known::Logged(lsn) => match self.log.uncommitted(lsn) {
                Some(entry) => {
                    entry.op = Some(key);
                    let op = Op {
                        name,
                        received: ctx.now,
                        deadline: ctx.now + self.config.hold_limit,
                        generation: holdfast_types::LeaseGeneration(u64::MAX),
                        origin: Origin::default(),
                        request: BlockOp::Flush,
                        state: OpState::Logged { lsn },
                        issued: ctx.now,
                        confirm: None,
                        again: true,
                        abort: false,
                    };
                    self.ops.insert(key, op);
                    self.overdue(lsn);
                    Fate::Underway
                }
                None => Fate::Ended(OpOutcome::Done),
            },
            Known::Never | Known::Barred => self.bar(ctx, name),
            // It cannot be told: no answer that would let it be called aborted.
            Known::Unknown => Fate::NotPrimary,
        }
    }

    pub(crate) fn on_fate_is(&mut self, sender: Sender, op: OpId, fate: Fate, out: &mut Vec<Command>) {
        let key = OpKey::Local(op);
        let bytes = self.block_bytes();
        let Some(open) = self.ops.get_mut(&key) else {
            return;
        };
        let OpState::Asked { at, answered } = &mut open.state else {
            return;
        };
        if *at != session(sender) {
            return;
        }
        match fate {
            Fate::Underway => *answered = true,
            Fate::Ended(outcome) if fits(&open.request, &outcome, bytes) => self.finish(key, outcome, out),
            Fate::Barred if open.abort => self.finish(key, OpOutcome::Aborted, out),
            Fate::Barred | Fate::Ended(_) => self.refuse_op(key, out),
            Fate::NotPrimary => {
                // Asked again, there or elsewhere, until its time is over.
                self.hold(key);
            }
        }
    }
}

/// A question of the unit's own state (P2): it is no initiator's, and asked from outside the set as well (F4).
const fn is_fence(request: &BlockOp) -> bool {
    matches!(request, BlockOp::Fence { .. })
}

/// Why a command is not carried out for a node that leaves. One that was sent before may have a position that was not looked up yet.
fn not_taken(again: bool, request: &BlockOp) -> ForwardAnswer {
    if again && request.writes() {
        ForwardAnswer::NotPrimary
    } else {
        ForwardAnswer::NotTaken
    }
}

/// Whether a command can end so: a peer's word is not trusted.
fn fits(op: &BlockOp, outcome: &OpOutcome, block_bytes: u64) -> bool {
    match (op, outcome) {
        (BlockOp::Read { range }, OpOutcome::Data(data)) => {
            data.len() as u64 == range.blocks().saturating_mul(block_bytes)
        }
        (BlockOp::CompareAndWrite { .. } | BlockOp::Verify { .. }, OpOutcome::Miscompare { .. }) => true,
        (BlockOp::Map { from, runs: most }, OpOutcome::Map(runs)) => {
            let mut next = *from;
            let joined = runs.iter().all(|run| {
                let fits = run.range.lba() == next && !run.range.is_empty();
                next = run.range.end();
                fits
            });
            joined && !runs.is_empty() && runs.len() <= usize::from(*most)
        }
        (BlockOp::Read { .. } | BlockOp::Map { .. }, OpOutcome::Done)
        | (_, OpOutcome::Data(_) | OpOutcome::Map(_) | OpOutcome::Miscompare { .. }) => false,
        (_, OpOutcome::Aborted | OpOutcome::Standby) => false,
        (op, OpOutcome::NoSpace) => op.writes(),
        _ => true,
    }
}
