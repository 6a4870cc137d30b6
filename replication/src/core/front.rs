//! Commands of initiators on this node, and forwarded ones: carried out here if this node serves, held while nobody does (I8), ended when
//! they waited too long (W1, I11).

use std::sync::Arc;

use bytes::Bytes;
use holdfast_types::{
    BlockOp, BlockRange, CommandName, LeaseGeneration, Lsn, MappedRun, Mono, NodeId, OpOutcome, Origin,
};

use super::api::{
    AbortScope, Command, Ctx, ForwardAnswer, IoToken, LinkId, Message, OpId, RecordBody, Request, View,
};
use super::names::Known;
use super::ranges::{Blocks, Want};
use super::replay::Repeat;
use super::role::{Role, Session};
use super::{ExtentCore, Owner};
use crate::fault::{self, Fault};

/// An open command: of this node, or forwarded by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum OpKey {
    Local(OpId),
    Remote { node: NodeId, link: LinkId, op: OpId },
}

/// Where a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpState {
    /// Waits for a primary, a lease, a link, room.
    Held,
    /// Waits for its range, or holds it; `io`: its blocks are being read.
    Locked { lock: u64, io: bool },
    /// Has its lsn: it completes (W1).
    Logged { lsn: Lsn },
    /// A flush behind records that are not committed.
    Flushing,
    /// Its blocks are bad here and are being repaired (I10); it is tried again.
    Repairing,
    /// At the primary.
    Forwarded { at: Session },
    /// The primary was asked what became of it (F2); `answered`: it is under way there.
    Asked { at: Session, answered: bool },
}

/// An open command.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) name: CommandName,
    pub(crate) received: Mono,
    /// When it has waited long enough.
    pub(crate) deadline: Mono,
    pub(crate) generation: LeaseGeneration,
    pub(crate) origin: Origin,
    pub(crate) request: BlockOp,
    pub(crate) state: OpState,
    /// When the local disk was asked for its blocks last.
    pub(crate) issued: Mono,
    /// The round that confirms the epoch for it, and whether it has (W4).
    pub(crate) confirm: Option<(u64, bool)>,
    /// A primary, this node or another, may have given it an lsn: its name is looked up before it is carried out.
    pub(crate) again: bool,
    /// Task management wants it gone.
    pub(crate) abort: bool,
}

/// How long an abort may take beyond the hold limit of its command.
const ABORT_LIMIT: std::time::Duration = std::time::Duration::from_secs(1);
/// Between two looks at a command with an lsn that waits long.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

impl ExtentCore {
    pub(crate) fn on_submit(&mut self, ctx: &Ctx, op: OpId, request: Request, out: &mut Vec<Command>) {
        let key = OpKey::Local(op);
        let deadline = request.received + self.config.hold_limit;
        let op = Op {
            name: request.name,
            received: request.received,
            deadline,
            generation: request.generation,
            origin: request.origin,
            request: request.op,
            state: OpState::Held,
            issued: ctx.now,
            confirm: None,
            again: false,
            abort: false,
        };
        self.take_op(ctx, key, op, out);
    }

    pub(crate) fn take_op(&mut self, ctx: &Ctx, key: OpKey, op: Op, out: &mut Vec<Command>) {
        self.ops.insert(key, op);
        self.route(ctx, key, out);
    }

    /// Answers a command, wherever it came from. One that is not open any more needs no answer.
    pub(crate) fn finish(&mut self, key: OpKey, outcome: OpOutcome, out: &mut Vec<Command>) {
        if self.ops.remove(&key).is_some() {
            self.answer(key, ForwardAnswer::Outcome(outcome), out);
        }
    }

    /// Ends a command whose fate cannot be told, or that must never be carried out.
    pub(crate) fn refuse_op(&mut self, key: OpKey, out: &mut Vec<Command>) {
        self.end_op(key, ForwardAnswer::Refused, out);
    }

    pub(crate) fn end_op(&mut self, key: OpKey, answer: ForwardAnswer, out: &mut Vec<Command>) {
        if self.ops.remove(&key).is_some() {
            self.answer(key, answer, out);
        }
    }

    fn answer(&self, key: OpKey, answer: ForwardAnswer, out: &mut Vec<Command>) {
        match key {
            OpKey::Local(op) => {
                let outcome = match answer {
                    ForwardAnswer::Outcome(outcome) => outcome,
                    ForwardAnswer::Ended => OpOutcome::Aborted,
                    ForwardAnswer::NotPrimary | ForwardAnswer::NotTaken | ForwardAnswer::Refused => {
                        OpOutcome::Reset
                    }
                };
                out.push(Command::Complete { op, outcome });
            }
            OpKey::Remote { node, link, op } => {
                // Forwarded commands are open only under the epoch that they were forwarded under.
                let epoch = self.role.primary().map_or(self.seen, |primary| primary.epoch);
                let message = Message::Forwarded { op, epoch, answer };
                let to = node;
                out.push(Command::Send { to, link, message });
            }
        }
    }

    pub(crate) fn hold(&mut self, key: OpKey) {
        if let Some(op) = self.ops.get_mut(&key) {
            op.state = OpState::Held;
            self.held.push_back(key);
        }
    }

    /// Tries all held commands again.
    pub(crate) fn route_held(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        for _ in 0..self.held.len() {
            if let Some(key) = self.held.pop_front() {
                self.route(ctx, key, out);
            }
        }
    }

    /// Sends a held command where it can be carried out now, or holds it on.
    fn route(&mut self, ctx: &Ctx, key: OpKey, out: &mut Vec<Command>) {
        let Some(op) = self.ops.get(&key).filter(|op| op.state == OpState::Held) else {
            return;
        };
        if ctx.now >= op.deadline {
            return self.expire(ctx, key, out);
        }
        if self.stale(ctx, key) {
            return self.refuse_op(key, out);
        }
        match &self.role {
            Role::Serving(_) => self.admit(ctx, key, out),
            Role::HandedBack { .. } if fault::on(Fault::SwitchoverNotClosed) => self.admit(ctx, key, out),
            Role::Settling(_) | Role::Draining { .. } | Role::HandedBack { .. } | Role::Closed => {
                self.hold(key);
            }
            Role::Idle | Role::Replica(_) | Role::Fenced => self.forward(ctx, key, out),
        }
    }

    /// Whether the command belongs to an older lease generation of the node it came in on (L7, F1).
    fn stale(&self, ctx: &Ctx, key: OpKey) -> bool {
        let Some(op) = self.ops.get(&key) else { return true };
        match key {
            OpKey::Local(_) => op.generation < ctx.generation,
            OpKey::Remote { node, .. } => self.is_outdated(node, op.generation),
        }
    }

    /// Whether a forward of `node` under that generation comes too late (F1).
    pub(crate) fn is_outdated(&self, node: NodeId, generation: LeaseGeneration) -> bool {
        let newer = self.generation_of(node).is_some_and(|now| generation < now);
        newer && !fault::on(Fault::ForwardOfOldGeneration)
    }

    /// Whether reads may be answered (W3): the lease is held, and the view is not of an older generation than the lease. The log tells the
    /// lease keeper first and the extents later; a node that was suspected, lost its epoch and was cleared again would otherwise
    /// answer for that epoch under its new lease (A4 of the review).
    pub(crate) fn leased(&self, ctx: &Ctx) -> bool {
        let known = self.generation_of(self.me.node);
        ctx.leased() && known.is_some_and(|known| known >= ctx.generation)
    }

    pub(crate) fn generation_of(&self, node: NodeId) -> Option<LeaseGeneration> {
        let view = self.view.as_ref()?;
        let state = view.nodes.iter().find(|state| state.node == node)?;
        Some(state.generation)
    }

    /// This node serves: the command takes its range.
    fn admit(&mut self, ctx: &Ctx, key: OpKey, out: &mut Vec<Command>) {
        let Some(op) = self.ops.get(&key) else { return };
        if op.request.writes() && (op.again || matches!(key, OpKey::Remote { .. })) {
            match self.known(op) {
                Known::Never => {}
                Known::Logged(lsn) => return self.attach(key, lsn, out),
                Known::Barred => return self.refuse_op(key, out),
                Known::Unknown if op.again => return self.refuse_op(key, out),
                Known::Unknown => {}
            }
        }
        let (throttled, leased) = (self.throttled(), self.leased(ctx));
        let Some(op) = self.ops.get_mut(&key) else { return };
        if op.abort {
            let name = op.name;
            self.names.bar(name, ctx.now);
            return self.finish(key, OpOutcome::Aborted, out);
        }
        op.again = false;
        if !self.judged(ctx, key, out) {
            return;
        }
        let Some(op) = self.ops.get(&key) else { return };
        if let Some(outcome) = nothing_to_do(&op.request) {
            return self.finish(key, outcome, out);
        }
        // A flush must know of all that was answered: no deposed primary does.
        let reads = op.request.reads() || (op.request == BlockOp::Flush && self.is_cached());
        let reads = reads && !fault::on(Fault::ReadWithoutLease);
        if (reads && !leased) || (op.request.writes() && throttled) {
            return self.hold(key);
        }
        if reads && !self.confirmed(ctx, key, out) {
            return self.hold(key);
        }
        let Some(op) = self.ops.get(&key) else { return };
        let (want, blocks) = match &op.request {
            BlockOp::Flush => return self.flush(key, out),
            BlockOp::Fence { version } => return self.fence(key, *version, out),
            BlockOp::Read { range } | BlockOp::Verify { range, .. } => (Want::Read, Blocks::one(*range)),
            BlockOp::CompareAndWrite { range, .. } | BlockOp::OrWrite { range, .. } => {
                (Want::Exclusive, Blocks::one(*range))
            }
            BlockOp::Map { from, .. } => (Want::Read, Blocks::from(*from)),
            BlockOp::Write { range, .. } | BlockOp::WriteSame { range, .. } => {
                (Want::Write, Blocks::one(*range))
            }
            BlockOp::Zero { ranges } => (Want::Write, Blocks::many(&Arc::from(ranges.as_slice()))),
        };
        let lock = self.next_id();
        if let Some(op) = self.ops.get_mut(&key) {
            op.state = OpState::Locked { lock, io: false };
        }
        if self.table.add(lock, want, blocks, Owner::Op(key)) {
            self.op_granted(ctx, key, lock, out);
        }
    }

    fn known(&self, op: &Op) -> Known {
        if fault::on(Fault::ForgetNames) {
            return Known::Never;
        }
        self.names.look_up(&op.name, op.received)
    }

    /// A command that has a record already is done when that is committed.
    pub(crate) fn attach(&mut self, key: OpKey, lsn: Lsn, out: &mut Vec<Command>) {
        if lsn <= self.log.handed {
            return self.finish(key, OpOutcome::Done, out);
        }
        match (self.log.uncommitted(lsn), self.ops.get_mut(&key)) {
            (Some(entry), Some(op)) => {
                entry.op = Some(key);
                op.state = OpState::Logged { lsn };
            }
            _ => self.refuse_op(key, out),
        }
    }

    /// What has an lsn is waited for: what was answered and is not stable yet (W5), and what was not answered, so that a host that does
    /// not wait gets what it means.
    pub(crate) fn flush(&mut self, key: OpKey, out: &mut Vec<Command>) {
        let end = self.log.end().lsn;
        if self.log.committed >= end || self.flushes_blindly(key) {
            return self.finish(key, OpOutcome::Done, out);
        }
        if let Some(op) = self.ops.get_mut(&key) {
            op.state = OpState::Flushing;
            self.flushing.push_back((end, key));
        }
    }

    pub(crate) fn finish_flushes(&mut self, out: &mut Vec<Command>) {
        while let Some((lsn, key)) = self.flushing.front().copied() {
            let open = self.ops.get(&key).is_some_and(|op| op.state == OpState::Flushing);
            if open && lsn > self.log.committed {
                break;
            }
            self.flushing.pop_front();
            if open {
                self.finish(key, OpOutcome::Done, out);
            }
        }
    }

    /// The command holds its range.
    pub(crate) fn op_granted(&mut self, ctx: &Ctx, key: OpKey, lock: u64, out: &mut Vec<Command>) {
        let Some(op) = self.ops.get_mut(&key) else {
            self.table.remove(lock);
            return;
        };
        match &op.request {
            BlockOp::Read { range }
            | BlockOp::Verify { range, .. }
            | BlockOp::CompareAndWrite { range, .. } => {
                let range = *range;
                self.read_locked(ctx, key, lock, range, out);
            }
            BlockOp::Map { from, runs } => {
                let (io, from, runs) = (IoToken(lock), *from, *runs);
                op.state = OpState::Locked { lock, io: true };
                op.issued = ctx.now;
                out.push(Command::Map { io, from, runs });
            }
            _ => self.order_in_space(ctx, key, lock, out),
        }
    }

    /// A command holds its range: its blocks are read.
    fn read_locked(&mut self, ctx: &Ctx, key: OpKey, lock: u64, range: BlockRange, out: &mut Vec<Command>) {
        if let Some(op) = self.ops.get_mut(&key) {
            op.state = OpState::Locked { lock, io: true };
            op.issued = ctx.now;
            let io = IoToken(lock);
            out.push(Command::Read { io, range });
        }
    }

    /// A write holds its range and has its space: it gets its lsn, or reads first what it adds to.
    pub(crate) fn order(&mut self, ctx: &Ctx, key: OpKey, lock: u64, out: &mut Vec<Command>) {
        let Some(op) = self.ops.get(&key) else {
            self.table.remove(lock);
            return;
        };
        let body = match &op.request {
            BlockOp::Write { range, data, .. } | BlockOp::CompareAndWrite { range, data, .. } => {
                let (range, data) = (*range, data.clone());
                RecordBody::Write { range, data }
            }
            BlockOp::WriteSame { range, block } => {
                let (range, block) = (*range, block.clone());
                RecordBody::WriteSame { range, block }
            }
            BlockOp::Zero { ranges } => {
                let ranges = Arc::from(ranges.as_slice());
                RecordBody::Zero { ranges }
            }
            BlockOp::OrWrite { range, .. } => {
                let range = *range;
                return self.read_locked(ctx, key, lock, range, out);
            }
            BlockOp::Read { .. }
            | BlockOp::Verify { .. }
            | BlockOp::Map { .. }
            | BlockOp::Flush
            | BlockOp::Fence { .. } => return,
        };
        self.order_body(ctx, key, lock, body, out);
    }

    /// The moment a write takes effect (W1): it holds its range and gets its lsn, unless it waited too long or is fenced off.
    fn order_body(&mut self, ctx: &Ctx, key: OpKey, lock: u64, body: RecordBody, out: &mut Vec<Command>) {
        let Some(op) = self.ops.get(&key) else {
            self.table.remove(lock);
            return;
        };
        if ctx.now >= op.deadline || self.stale(ctx, key) {
            self.table.remove(lock);
            return self.refuse_op(key, out);
        }
        let (name, compares) = (op.name, matches!(op.request, BlockOp::CompareAndWrite { .. }));
        // P1: the table may have changed since the command took its range.
        if !self.judged(ctx, key, out) {
            self.table.remove(lock);
            return;
        }
        if compares {
            self.remember(ctx, key, out);
        }
        let lsn = self.append(ctx, body, Some(name), Some(key), lock, None, out);
        self.table.order(lock, lsn, Owner::Record(lsn));
        if let Some(op) = self.ops.get_mut(&key) {
            op.state = OpState::Logged { lsn };
        }
        self.advance(ctx, out);
    }

    pub(crate) fn on_read_done(&mut self, ctx: &Ctx, io: IoToken, data: Bytes, out: &mut Vec<Command>) {
        let lock = io.0;
        let key = match self.table.owner(lock) {
            Some(Owner::Op(key)) => key,
            Some(Owner::Compare { node, no }) => {
                return self.compare_read(ctx, node, no, lock, &data, out);
            }
            Some(Owner::HashFor {
                to, link, epoch, id, ..
            }) => {
                self.table.remove(lock);
                return self.give((to, link, epoch), id, Some(data), out);
            }
            Some(Owner::Dead) => {
                self.table.remove(lock);
                return;
            }
            _ => return,
        };
        if let Some(fetch) = self.fetches.iter_mut().find(|fetch| fetch.lock == lock) {
            fetch.local = false;
        }
        self.read_came(ctx, key, lock, data, out);
    }

    /// The blocks that a command reads, from the local disk or from a replica (I10).
    pub(crate) fn read_came(
        &mut self,
        ctx: &Ctx,
        key: OpKey,
        lock: u64,
        data: Bytes,
        out: &mut Vec<Command>,
    ) {
        if !self.ops.contains_key(&key) {
            self.table.remove(lock);
            return;
        }
        let leased = self.leased(ctx);
        let leased = leased || fault::on(Fault::ReadWithoutLease);
        if !leased {
            // W3: it is read again when the lease is back, here or elsewhere.
            self.done_reading(lock);
            return self.hold(key);
        }
        if !self.judged(ctx, key, out) {
            self.done_reading(lock);
            return;
        }
        let Some(op) = self.ops.get(&key) else { return };
        let outcome = match &op.request {
            BlockOp::CompareAndWrite { expect, .. } => match difference(expect, &data) {
                None => {
                    self.end_fetch(lock);
                    return self.order_in_space(ctx, key, lock, out);
                }
                Some(offset) => match self.repeats(ctx, key, &data) {
                    Repeat::Yes => OpOutcome::Done,
                    Repeat::No => OpOutcome::Miscompare { offset },
                    Repeat::Unclear => {
                        self.done_reading(lock);
                        return self.hold(key);
                    }
                },
            },
            BlockOp::OrWrite { range, data: mask } => {
                // The command itself stays as it came: where it has to be carried out anew, it is on what is there then.
                let (range, data) = (*range, either(mask, &data));
                self.end_fetch(lock);
                return self.order_body(ctx, key, lock, RecordBody::Write { range, data }, out);
            }
            BlockOp::Verify { expect, .. } => expect
                .as_ref()
                .and_then(|expect| difference(expect, &data))
                .map_or(OpOutcome::Done, |offset| OpOutcome::Miscompare { offset }),
            _ => OpOutcome::Data(data),
        };
        self.done_reading(lock);
        self.finish(key, outcome, out);
    }

    /// GET LBA STATUS has its answer.
    pub(crate) fn on_mapped(&mut self, ctx: &Ctx, io: IoToken, runs: Vec<MappedRun>, out: &mut Vec<Command>) {
        let lock = io.0;
        let owner = self.table.owner(lock);
        self.table.remove(lock);
        let Some(Owner::Op(key)) = owner else { return };
        if !self.ops.contains_key(&key) {
            return;
        }
        // W3 and P1, as for every read.
        if !self.leased(ctx) {
            self.hold(key);
        } else if self.judged(ctx, key, out) {
            self.finish(key, OpOutcome::Map(runs), out);
        }
    }

    /// Lets a read's slot go. It stays while the local disk may still be reading into it.
    fn done_reading(&mut self, lock: u64) {
        if self.end_fetch(lock) == Some(true) {
            self.table.linger(lock, Owner::Dead);
        } else {
            self.table.remove(lock);
        }
    }

    /// This node serves no more. Forwarded commands are their sender's again; own ones go on elsewhere, by name where they may have an lsn.
    pub(crate) fn front_leave(&mut self, out: &mut Vec<Command>) {
        self.flushing.clear();
        let mut keys: Vec<OpKey> = self.ops.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            let Some(op) = self.ops.get_mut(&key) else {
                continue;
            };
            let state = op.state;
            op.again |= matches!(state, OpState::Logged { .. });
            if let OpState::Locked { lock, io } = state {
                self.abandon(lock, io);
            }
            if matches!(key, OpKey::Remote { .. }) {
                self.ops.remove(&key);
                self.answer(key, ForwardAnswer::NotPrimary, out);
            } else if state != OpState::Held {
                self.hold(key);
            }
        }
    }

    /// Commands that waited long enough are ended (W1, I8).
    pub(crate) fn sweep(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        self.pump |= !self.held.is_empty();
        self.look_at_reads(ctx, out);
        self.repeat_round(ctx, out);
        let late = |op: &Op| ctx.now >= op.deadline;
        let mut keys: Vec<OpKey> = self
            .ops
            .iter()
            .filter(|(_, op)| late(op))
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        for key in keys {
            self.expire(ctx, key, out);
        }
    }

    fn expire(&mut self, ctx: &Ctx, key: OpKey, out: &mut Vec<Command>) {
        let Some(op) = self.ops.get(&key) else { return };
        let harmless = !op.again || !op.request.writes();
        let local = matches!(key, OpKey::Local(_));
        match op.state {
            OpState::Held if local && harmless && !op.abort && self.changing(ctx) => {
                self.finish(key, OpOutcome::Transitioning, out);
            }
            OpState::Held => self.refuse_op(key, out),
            OpState::Locked { lock, io } => {
                self.abandon(lock, io);
                self.refuse_op(key, out);
            }
            OpState::Flushing | OpState::Repairing => self.refuse_op(key, out),
            // It has its lsn: it completes, late if need be, and only our own trouble makes its sender look elsewhere.
            // Its initiator may have given it up by now, or is told to (I11).
            OpState::Logged { lsn } => {
                self.overdue(lsn);
                if local && self.in_trouble(ctx) {
                    self.refuse_op(key, out);
                } else if let Some(op) = self.ops.get_mut(&key) {
                    op.deadline = ctx.now + LOOK_AGAIN;
                }
            }
            OpState::Forwarded { at } => {
                let limit = self.config.fate_limit;
                self.ask_fate(ctx, key, at, limit, out);
            }
            OpState::Asked { at, answered } => {
                self.refuse_op(key, out);
                if !answered {
                    // It may still lie in a buffer on the way: it must not arrive any more (I11).
                    let (node, link) = (at.node, at.link);
                    out.push(Command::ResetLink { node, link });
                }
            }
        }
    }

    /// The sender of a command with an lsn is told, or tells itself, that its fate is open: once a read has not seen it, it must not turn
    /// up.
    pub(crate) fn overdue(&mut self, lsn: Lsn) {
        if let Some(entry) = self.log.get(lsn) {
            self.table.overdue(entry.lock);
        }
    }

    /// Whether an epoch change is under way, in sight of a quorum (I8).
    fn changing(&self, ctx: &Ctx) -> bool {
        let Some(view) = self.view.as_ref() else {
            return false;
        };
        let serving = matches!(self.role, Role::Serving(_));
        ctx.quorum
            && !serving
            && (view.epoch < self.seen
                || view.primary.is_none_or(|primary| view.is_suspect(primary.node))
                || self.role.primary().is_some()
                || matches!(self.role, Role::Closed | Role::Fenced))
    }

    fn in_trouble(&self, ctx: &Ctx) -> bool {
        let Role::Serving(primary) = &self.role else {
            return true;
        };
        let lost = primary.growth.is_some()
            || self.view.as_ref().is_some_and(|view| {
                primary
                    .followers
                    .iter()
                    .any(|f| view.in_sync.contains(&f.node) && f.streaming().is_none())
            });
        !ctx.quorum || lost
    }

    pub(crate) fn on_abort(&mut self, ctx: &Ctx, scope: AbortScope, out: &mut Vec<Command>) {
        let mut keys: Vec<OpKey> = self
            .ops
            .iter()
            .filter(|(key, op)| match (key, scope) {
                (OpKey::Remote { .. }, _) => false,
                (OpKey::Local(_), AbortScope::All) => true,
                (OpKey::Local(id), AbortScope::Op(wanted)) => *id == wanted,
                (OpKey::Local(_), AbortScope::Session(wanted)) => op.name.session == wanted,
            })
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        for key in keys {
            self.abort(ctx, key, out);
        }
    }

    /// What has no lsn is dropped; what has one completes; what was forwarded is barred at the primary first (F2).
    fn abort(&mut self, ctx: &Ctx, key: OpKey, out: &mut Vec<Command>) {
        let Some(op) = self.ops.get_mut(&key) else { return };
        let harmless = !op.again || !op.request.writes();
        match op.state {
            OpState::Held if harmless => self.finish(key, OpOutcome::Aborted, out),
            OpState::Flushing | OpState::Repairing => self.finish(key, OpOutcome::Aborted, out),
            OpState::Locked { lock, io } => {
                self.abandon(lock, io);
                self.finish(key, OpOutcome::Aborted, out);
            }
            // Whoever aborts it, or has gone, may look next whether it was carried out (I11).
            OpState::Logged { lsn } => self.overdue(lsn),
            OpState::Held | OpState::Asked { .. } => {
                op.abort = true;
                op.deadline = op.deadline.max(ctx.now + ABORT_LIMIT);
                self.pump = true;
            }
            OpState::Forwarded { at } => {
                op.abort = true;
                self.ask_fate(ctx, key, at, ABORT_LIMIT, out);
            }
        }
    }

    /// Commands that another node has are asked for again where the view says now.
    pub(crate) fn front_view_changed(&mut self, old: Option<&View>, new: &View) {
        if old.is_some_and(|old| old.epoch == new.epoch) {
            return;
        }
        self.recall(|_| true);
    }

    /// A link is gone: what was forwarded over it is asked for again; what came over it and has no lsn is dropped (F1).
    pub(crate) fn front_link_lost(&mut self, node: NodeId, link: LinkId) {
        self.recall(|at| (at.node, at.link) == (node, link));
        let mut gone: Vec<OpKey> = self
            .ops
            .keys()
            .copied()
            .filter(|key| matches!(key, OpKey::Remote { node: n, link: l, .. } if (*n, *l) == (node, link)))
            .collect();
        gone.sort_unstable();
        for key in gone {
            match self.ops.remove(&key).map(|op| op.state) {
                Some(OpState::Locked { lock, io }) => self.abandon(lock, io),
                Some(OpState::Logged { lsn }) => self.overdue(lsn),
                _ => {}
            }
        }
    }

    fn recall(&mut self, from: impl Fn(Session) -> bool) {
        let mut keys: Vec<OpKey> = self
            .ops
            .iter()
            .filter(|(_, op)| match op.state {
                OpState::Forwarded { at } | OpState::Asked { at, .. } => from(at),
                _ => false,
            })
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        for key in keys {
            self.hold(key);
        }
    }
}

/// Outcome of a command that names no block.
fn nothing_to_do(op: &BlockOp) -> Option<OpOutcome> {
    if matches!(op, BlockOp::Flush | BlockOp::Fence { .. } | BlockOp::Map { .. })
        || op.ranges().iter().any(|range: &BlockRange| !range.is_empty())
    {
        return None;
    }
    Some(match op {
        BlockOp::Read { .. } => OpOutcome::Data(Bytes::new()),
        _ => OpOutcome::Done,
    })
}

/// ORWRITE: bit by bit, of two equally long.
fn either(mask: &[u8], found: &[u8]) -> Bytes {
    mask.iter().zip(found).map(|(a, b)| a | b).collect()
}

/// Offset of the first byte that differs. Where one block is expected and several were found, each must equal it.
fn difference(expect: &[u8], found: &[u8]) -> Option<u32> {
    let (at, part) = found
        .chunks(expect.len().max(1))
        .enumerate()
        .find(|(_, part)| *part != expect)?;
    let common = expect.iter().zip(part).take_while(|(a, b)| a == b).count();
    Some(u32::try_from(at * expect.len() + common).unwrap_or(u32::MAX))
}
