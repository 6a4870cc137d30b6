//! COMPARE AND WRITEs that took effect and whose initiators may not know (W6).
//!
//! An initiator that has lost a path sends what was open there again, on another one. A COMPARE AND WRITE that had taken effect would then
//! miscompare against itself, and a host would take its own lock for another's. So the primary remembers each, and tells the members of
//! the set, until its initiator has acknowledged its status (ExpStatSN), or newer contents lie on its blocks.
//!
//! The same command again is answered with GOOD only once the session of the first one has ended or its node was lost. As long as that
//! session lives, its status may reach the initiator there, and then what comes on another path is a command of its own, which must
//! miscompare: it waits until one or the other is known, and where that takes too long its connection is reset (W1).
//! What a member learned only from its journal is not remembered: whether its status was acknowledged is not known then.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::{
    BlockOp, BlockRange, CommandName, InitiatorTag, LogPos, Lsn, Mono, NodeId, SessionInstance,
};

use super::ExtentCore;
use super::api::{Command, Ctx, Digest, LinkId, Message, digest};
use super::front::OpKey;
use super::log::Log;
use super::role::Role;

/// Commands that are remembered at a time; the oldest one goes first.
const MAX: usize = 1024;
/// For how long. Initiators give a path up within two minutes, by their own defaults.
const KEEP_FOR: Duration = Duration::from_secs(180);

/// A COMPARE AND WRITE whose status was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Its record.
    pub pos: LogPos,
    /// Its name.
    pub name: CommandName,
    /// Who sent it.
    pub initiator: InitiatorTag,
    /// Where.
    pub range: BlockRange,
    /// Of what it expected. What it put is on its blocks as long as its record is the newest there.
    pub expected: Digest,
}

/// What is told of the statuses of COMPARE AND WRITEs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusNews {
    /// Primary to replica: this has a record.
    Unconfirmed(Unconfirmed),
    /// Its initiator has acknowledged the status.
    Acknowledged(CommandName),
    /// The session has ended: nothing that was not acknowledged will be.
    Ended(SessionInstance),
}

#[derive(Debug)]
struct Kept {
    what: Unconfirmed,
    since: Mono,
    /// Its session has ended.
    ended: bool,
}

/// What a COMPARE AND WRITE that miscompares may be besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing: a command of its own.
    No,
    /// One that took effect before, if its first status does not arrive: not known yet.
    Unclear,
    /// One that took effect before, sent again by its initiator.
    Yes,
}

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    kept: VecDeque<Kept>,
    /// What this node's front has told, for a primary that has not heard it.
    own: VecDeque<(Mono, StatusNews)>,
    /// Who has heard all of it.
    told: Option<(NodeId, Option<LinkId>)>,
}

impl Replays {
    /// This record, which touches these blocks, is in the log.
    pub(crate) fn overwritten(&mut self, pos: LogPos, ranges: &[BlockRange]) {
        if !self.kept.is_empty() {
            self.kept
                .retain(|kept| kept.what.pos == pos || !touches(ranges, kept.what.range));
        }
    }

    fn keep(&mut self, what: Unconfirmed, now: Mono) {
        make_room(&mut self.kept, |kept| now.since(kept.since));
        self.kept.push_back(Kept {
            what,
            since: now,
            ended: false,
        });
    }

    /// Another primary is followed from now on: it tells what it knows.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Records behind `after` were dropped from the log.
    pub(crate) fn truncate(&mut self, after: Lsn) {
        self.kept.retain(|kept| kept.what.pos.lsn <= after);
    }

    fn acknowledged(&mut self, name: CommandName) {
        self.kept.retain(|kept| kept.what.name != name);
    }

    fn ended(&mut self, session: SessionInstance) {
        for kept in &mut self.kept {
            kept.ended |= kept.what.name.session == session;
        }
    }

    /// What became of a status. Of records it says nothing.
    fn hear(&mut self, item: StatusNews) {
        match item {
            StatusNews::Unconfirmed(_) => {}
            StatusNews::Acknowledged(name) => self.acknowledged(name),
            StatusNews::Ended(session) => self.ended(session),
        }
    }

    /// What a replica that begins to follow is told, if there is anything.
    pub(crate) fn news(&self) -> Option<Vec<StatusNews>> {
        let news = |kept: &Kept| {
            let ended = kept.ended.then_some(StatusNews::Ended(kept.what.name.session));
            [Some(StatusNews::Unconfirmed(kept.what)), ended]
        };
        let news: Vec<StatusNews> = self.kept.iter().flat_map(news).flatten().collect();
        (!news.is_empty()).then_some(news)
    }
}

/// Room for one more: what is too old goes, and the oldest ones of too many.
fn make_room<T>(queue: &mut VecDeque<T>, age: impl Fn(&T) -> Duration) {
    while queue
        .front()
        .is_some_and(|oldest| queue.len() >= MAX || age(oldest) > KEEP_FOR)
    {
        queue.pop_front();
    }
}

impl ExtentCore {
    /// The record of this COMPARE AND WRITE gets the next position now. Replicas hear of it before they get the record, so that none ever
    /// holds the one without the other.
    pub(crate) fn remember(&mut self, ctx: &Ctx, key: OpKey, out: &mut Vec<Command>) {
        let pos = self.next_pos();
        let Some(op) = self.ops.get(&key) else { return };
        let BlockOp::CompareAndWrite { range, expect, .. } = &op.request else {
            return;
        };
        if op.origin.initiator == InitiatorTag::NOBODY {
            return;
        }
        let what = Unconfirmed {
            pos,
            name: op.name,
            initiator: op.origin.initiator,
            range: *range,
            expected: digest(expect),
        };
        self.replays.keep(what, ctx.now);
        self.tell_replicas(&[StatusNews::Unconfirmed(what)], out);
    }

    /// Whether a COMPARE AND WRITE that miscompares is one that took effect before, sent again by its initiator: what is on its blocks is
    /// what it puts, by a record of that initiator which is the newest there, for the same expectation, and whose status went nowhere.
    pub(crate) fn repeats(&self, ctx: &Ctx, key: OpKey, found: &Bytes) -> Repeat {
        let Some(op) = self.ops.get(&key) else {
            return Repeat::No;
        };
        let BlockOp::CompareAndWrite { range, expect, data } = &op.request else {
            return Repeat::No;
        };
        if data != found {
            return Repeat::No;
        }
        let same = |kept: &&Kept| {
            let what = &kept.what;
            what.initiator == op.origin.initiator
                && what.range == *range
                && what.name.session != op.name.session
                && ctx.now.since(kept.since) <= KEEP_FOR
                && self.log.pos_at(what.pos.lsn) == Some(what.pos)
                && what.expected == digest(expect)
        };
        match self.replays.kept.iter().find(same) {
            None => Repeat::No,
            Some(kept) if kept.ended || self.has_ended(kept.what.name.session) => Repeat::Yes,
            Some(_) => Repeat::Unclear,
        }
    }

    /// Whether the session's node, or its run, is lost (L3): nobody can be answered there any more.
    fn has_ended(&self, session: SessionInstance) -> bool {
        if session.node == self.me.node {
            return session.incarnation != self.me.incarnation;
        }
        let suspect = self
            .view
            .as_ref()
            .is_some_and(|view| view.is_suspect(session.node));
        let other_run = |link: &super::Link| link.peer.incarnation != session.incarnation;
        suspect || self.link_of(session.node).is_some_and(|link| other_run(&link))
    }

    /// This node's front has news of statuses.
    pub(crate) fn on_statuses(&mut self, ctx: &Ctx, news: Vec<StatusNews>, out: &mut Vec<Command>) {
        for item in &news {
            make_room(&mut self.replays.own, |(since, _)| ctx.now.since(*since));
            self.replays.own.push_back((ctx.now, *item));
        }
        self.tell(news, out);
    }

    /// A primary that has heard nothing yet of this node's front, over this link, is told all of it. To be called when views, roles or
    /// links have changed.
    pub(crate) fn tell_primary(&mut self, out: &mut Vec<Command>) {
        let primary = self.view.as_ref().and_then(|view| view.primary);
        let here = primary == Some(self.me) && self.role.primary().is_some();
        let at = primary.and_then(|primary| match self.link_of(primary.node) {
            _ if here => Some((primary.node, None)),
            Some(link) if link.peer == primary => Some((primary.node, Some(link.link))),
            _ => None,
        });
        if at == self.replays.told {
            return;
        }
        self.replays.told = at;
        let news: Vec<StatusNews> = self.replays.own.iter().map(|(_, item)| *item).collect();
        if at.is_some() && !news.is_empty() {
            self.tell(news, out);
        }
    }

    /// News of this node's sessions: for itself, and for the primary, if that is known and reached.
    fn tell(&mut self, news: Vec<StatusNews>, out: &mut Vec<Command>) {
        self.take_statuses(&news, out);
        if let Some((node, Some(link))) = self.replays.told {
            self.send_statuses(node, link, news, out);
        }
    }

    /// Notes what nodes have told of their own sessions, and passes it on where this is the primary.
    fn take_statuses(&mut self, news: &[StatusNews], out: &mut Vec<Command>) {
        news.iter().for_each(|item| self.replays.hear(*item));
        if self.role.primary().is_some() {
            self.pump |= !self.held.is_empty();
            self.tell_replicas(news, out);
        }
    }

    /// News from another node. What it may speak of: as the primary that is followed, of everything, and so as a member of the set to a
    /// primary that begins; else of its own sessions.
    pub(crate) fn on_statuses_from(
        &mut self,
        ctx: &Ctx,
        (from, link): (NodeId, LinkId),
        news: Vec<StatusNews>,
        out: &mut Vec<Command>,
    ) {
        let followed = self
            .role
            .replica()
            .and_then(|replica| replica.following)
            .is_some_and(|at| at.node == from && at.link == link);
        let member = self
            .view
            .as_ref()
            .is_some_and(|view| view.in_sync.contains(&from));
        if followed || (member && matches!(self.role, Role::Settling(_))) {
            for item in news {
                if let StatusNews::Unconfirmed(what) = item {
                    self.learn(ctx, what);
                }
                self.replays.hear(item);
            }
            return;
        }
        let own = |item: &StatusNews| match item {
            StatusNews::Unconfirmed(_) => false,
            StatusNews::Acknowledged(name) => name.session.node == from,
            StatusNews::Ended(session) => session.node == from,
        };
        let news: Vec<StatusNews> = news.into_iter().filter(own).collect();
        if self.role.primary().is_some() && !news.is_empty() {
            self.take_statuses(&news, out);
        }
    }

    /// A replica is told of a record that it holds, or gets next.
    fn learn(&mut self, ctx: &Ctx, what: Unconfirmed) {
        let newest = |log: &Log| {
            !log.behind(what.pos.lsn)
                .any(|record| touches(record.body.ranges(), what.range))
        };
        let comes = what.pos.lsn > self.log.end().lsn;
        if comes || (self.log.pos_at(what.pos.lsn) == Some(what.pos) && newest(&self.log)) {
            self.replays.acknowledged(what.name);
            self.replays.keep(what, ctx.now);
        }
    }

    fn tell_replicas(&self, news: &[StatusNews], out: &mut Vec<Command>) {
        let Some(primary) = self.role.primary() else {
            return;
        };
        for follower in &primary.followers {
            if let Some(link) = follower.streaming() {
                self.send_statuses(follower.node, link, news.to_vec(), out);
            }
        }
    }

    pub(crate) fn send_statuses(
        &self,
        to: NodeId,
        link: LinkId,
        news: Vec<StatusNews>,
        out: &mut Vec<Command>,
    ) {
        let message = Message::Statuses { news };
        out.push(Command::Send { to, link, message });
    }
}

fn touches(ranges: &[BlockRange], blocks: BlockRange) -> bool {
    ranges.iter().any(|range| range.overlaps(blocks))
}
