//! The replica's side: following the primary of the newest epoch, and nobody else.

use holdfast_types::{BlockRange, Epoch, InSyncVersion, LogPos, Lsn, NodeId};

use super::api::{
    Base, Command, Ctx, Digests, EpochHistory, IoToken, LinkId, LogSummary, Message, Note, Record, RecordBody,
};
use super::log::Log;
use super::ranges::{Blocks, Want};
use super::role::{HashWait, Role, Session};
use super::{ExtentCore, Owner};
use crate::fault::{self, Fault};

/// Longest list of ranges that a replica tells.
const UNAPPLIED_MAX: usize = 1024;

/// Who speaks, over what, and for which epoch.
pub(crate) type Sender = (NodeId, LinkId, Epoch);

pub(crate) const fn session((node, link, epoch): Sender) -> Session {
    Session { node, link, epoch }
}

impl ExtentCore {
    fn reply(to: NodeId, link: LinkId, message: Message, out: &mut Vec<Command>) {
        out.push(Command::Send { to, link, message });
    }

    fn refuse(&self, to: NodeId, link: LinkId, out: &mut Vec<Command>) {
        let newest = self.seen;
        Self::reply(to, link, Message::Refused { newest }, out);
    }

    /// Whether the sender is the primary that this replica follows; otherwise it is told the newest epoch seen (E4).
    pub(crate) fn follows(&self, sender: Sender, out: &mut Vec<Command>) -> bool {
        if fault::on(Fault::AcceptOldEpoch)
            && let Some(replica) = self.role.replica()
            && replica
                .following
                .is_some_and(|f| (f.node, f.link) == (sender.0, sender.1))
        {
            return true;
        }
        let current = self
            .role
            .replica()
            .is_some_and(|replica| replica.following == Some(session(sender)));
        if !current || sender.2 < self.seen {
            self.refuse(sender.0, sender.1, out);
            return false;
        }
        true
    }

    fn summary(&self) -> LogSummary {
        let base = self.base;
        let base = if fault::on(Fault::BaseForgotten) {
            None
        } else {
            base
        };
        let committed = self.log.pos_at(self.log.committed).unwrap_or(self.log.end());
        let committed = if fault::on(Fault::AcceptOldEpoch) {
            LogPos::EMPTY
        } else {
            committed
        };
        LogSummary {
            history: self.log.history().clone(),
            committed,
            applied: self.log.applied_pos(),
            unapplied: self.unapplied_ranges(),
            base,
            damaged: self.damaged,
            fenced: self.fenced.is_some(),
            stuck: self.watch.stuck().is_some(),
        }
    }

    /// What records touch that are not applied; everything, if that would make too long a list.
    fn unapplied_ranges(&self) -> Vec<BlockRange> {
        let ranges = || self.unapplied().flat_map(|record| record.body.ranges());
        if ranges().take(UNAPPLIED_MAX + 1).count() <= UNAPPLIED_MAX {
            return ranges().copied().collect();
        }
        let blocks = self.view.as_ref().map_or(0, |view| view.blocks);
        vec![super::resync::between(0, blocks)]
    }

    pub(crate) fn on_probe(
        &mut self,
        ctx: &Ctx,
        from: NodeId,
        link: LinkId,
        epoch: Epoch,
        out: &mut Vec<Command>,
    ) {
        let Some(view) = self.view.as_ref() else { return };
        if matches!(self.role, Role::Idle) {
            return;
        }
        let old = epoch < self.seen;
        let old = old && !fault::on(Fault::AcceptOldEpoch);
        if old {
            return self.refuse(from, link, out);
        }
        let named = view.primary.map(|primary| primary.node);
        let other = self
            .role
            .replica()
            .and_then(|replica| replica.probed)
            .is_some_and(|probed| probed.epoch == epoch && probed.node != from);
        if (view.epoch == epoch && named != Some(from)) || other {
            return Self::bad(out, from, "it speaks for an epoch that is another node's");
        }
        if epoch > self.seen {
            if fault::on(Fault::SourceForgotten) {
                self.base = None;
            }
            // Ahead of the committed state that was applied here: a primary of an older epoch steps down, too.
            self.seen = epoch;
            self.enter_role(ctx, out);
        }
        let log = self.summary();
        if let Some(replica) = self.role.replica_mut() {
            replica.probed = Some(Session {
                node: from,
                link,
                epoch,
            });
            replica.following = None;
            replica.hashes.clear();
            replica.awaited.clear();
        } else if self.fenced.is_none() {
            return;
        }
        // A new primary may remember less: it may be a new run of the old one.
        if let Some(news) = self.replays.news() {
            self.send_statuses(from, link, news, out);
        }
        Self::reply(from, link, Message::Summary { epoch, log }, out);
    }

    /// The sender asked for the log last, and may tell what to do with it.
    fn probed_by(&self, sender: Sender) -> bool {
        let newest = sender.2 >= self.seen;
        let newest = newest || fault::on(Fault::AcceptOldEpoch);
        newest
            && self
                .role
                .replica()
                .is_some_and(|replica| replica.probed == Some(session(sender)))
    }

    fn follow(&mut self, sender: Sender, out: &mut Vec<Command>) {
        self.replays.clear();
        if let Some(replica) = self.role.replica_mut() {
            replica.following = Some(session(sender));
        }
        self.ack_primary(out);
    }

    pub(crate) fn unfollow(&mut self, node: NodeId) {
        if let Some(replica) = self.role.replica_mut() {
            replica.following = replica.following.filter(|session| session.node != node);
            replica.probed = replica.probed.filter(|session| session.node != node);
            if replica.following.is_none() {
                replica.hashes.clear();
            }
        }
    }

    pub(crate) fn on_adopt(
        &mut self,
        from: NodeId,
        link: LinkId,
        epoch: Epoch,
        after: LogPos,
        out: &mut Vec<Command>,
    ) {
        if !self.probed_by((from, link, epoch)) {
            return self.refuse(from, link, out);
        }
        if self.log.pos_at(after.lsn) != Some(after) {
            Self::bad(out, from, "it wants the log cut at a position that is not in it");
            return self.refuse(from, link, out);
        }
        let cut_off = after.lsn < self.log.committed;
        if cut_off && !fault::on(Fault::AcceptOldEpoch) {
            // What is committed is never cut. A primary that asked twice, the answer being late, and decides by the first answer may want
            // it all the same: more was committed here between its questions. It asks once more.
            return self.refuse(from, link, out);
        }
        self.truncate(after, out);
        self.follow((from, link, epoch), out);
    }

    /// Drops what the primary's log does not hold (E5). None of it is committed, so none of it is applied (I7).
    fn truncate(&mut self, after: LogPos, out: &mut Vec<Command>) {
        let mut records = 0;
        while let Some(entry) = self.log.pop_behind(after) {
            self.table.remove(entry.lock);
            records += 1;
        }
        if records == 0 {
            return;
        }
        if fault::on(Fault::AcceptOldEpoch) {
            self.log.committed = self.log.committed.min(after.lsn);
            self.log.handed = self.log.handed.min(after.lsn);
            self.log.applied = self.log.applied.min(after.lsn);
        }
        self.names.truncate(after.lsn);
        self.replays.truncate(after.lsn);
        for (_, lsn) in &mut self.journal {
            *lsn = (*lsn).min(after.lsn);
        }
        let seq = self.next_seq(after.lsn);
        out.push(Command::Truncate { seq, after });
        out.push(Command::Note(Note::Truncated { after, records }));
    }

    pub(crate) fn on_restart(
        &mut self,
        ctx: &Ctx,
        sender: Sender,
        version: InSyncVersion,
        at: LogPos,
        history: EpochHistory,
        out: &mut Vec<Command>,
    ) {
        let (from, link, _) = sender;
        if !self.probed_by(sender) {
            return self.refuse(from, link, out);
        }
        if history.end() != at {
            Self::bad(out, from, "the history does not end where the log starts anew");
            return self.refuse(from, link, out);
        }
        // R1: an older mark stays, whatever the log behind the gap says. A damaged replica is complete up to nowhere.
        let pos = match self.base {
            _ if self.damaged => LogPos::EMPTY,
            Some(base) => base.pos,
            None => self.log.applied_pos(),
        };
        let base = Base { pos, version };
        self.damaged = false;
        self.base = Some(base);
        while let Some(entry) = self.log.pop_behind(LogPos::EMPTY) {
            self.abandon(entry.lock, false);
        }
        for (_, lsn) in &mut self.journal {
            *lsn = Lsn(0);
        }
        self.names.restart(ctx.now);
        self.log = Log::new(at, history.clone());
        self.log.durable = Lsn(0);
        let seq = self.next_seq(at.lsn);
        let from = at;
        out.push(Command::Restart {
            seq,
            base,
            from,
            history,
        });
        out.push(Command::Note(Note::Restarted { base: pos }));
        self.follow(sender, out);
    }

    pub(crate) fn on_replicate(
        &mut self,
        ctx: &Ctx,
        sender: Sender,
        prev: LogPos,
        record: Record,
        out: &mut Vec<Command>,
    ) {
        if !self.follows(sender, out) {
            return;
        }
        let (from, link, epoch) = sender;
        let end = self.log.end();
        let pos = record.pos;
        let fits = self
            .view
            .as_ref()
            .is_some_and(|view| record.body.check(view.blocks, view.block_size));
        let next = prev == end && pos.lsn == end.lsn.next() && pos.epoch >= end.epoch && pos.epoch <= epoch;
        if !fits || !next {
            Self::bad(out, from, "a record that does not follow the log or does not fit");
            self.unfollow(from);
            return self.refuse(from, link, out);
        }
        let commit = record.commit;
        if let RecordBody::Resync { data: Some(_), .. } = record.body
            && let Some(replica) = self.role.replica_mut()
        {
            replica.awaited.push_back(pos.lsn);
        }
        let seq = self.next_seq(pos.lsn);
        out.push(Command::Append {
            seq,
            record: record.clone(),
        });
        self.take_record(record, ctx.now);
        self.commit_up_to(commit, out);
        self.tell_received(out);
    }

    fn commit_up_to(&mut self, commit: Lsn, out: &mut Vec<Command>) {
        let commit = commit.min(self.log.end().lsn);
        if commit > self.log.committed {
            self.log.committed = commit;
            self.hand_committed(out);
            self.tell_arrived(out);
            self.hash_waiting(out);
        }
    }

    /// Tells the primary that contents which it sent are applied here.
    pub(crate) fn tell_arrived(&mut self, out: &mut Vec<Command>) {
        let applied = self.log.applied;
        let Some(replica) = self.role.replica_mut() else {
            return;
        };
        let waited = replica.awaited.len();
        while replica.awaited.pop_front_if(|lsn| *lsn <= applied).is_some() {}
        if replica.awaited.len() < waited {
            self.ack_primary(out);
        }
    }

    pub(crate) fn on_commit(&mut self, sender: Sender, commit: Lsn, out: &mut Vec<Command>) {
        if self.follows(sender, out) {
            self.commit_up_to(commit, out);
            if self.journal.is_empty() {
                // Idle: no acknowledgement of a record will carry the applied position.
                self.ack_primary(out);
            }
        }
    }

    /// Tells the primary what is stable here.
    pub(crate) fn ack_primary(&self, out: &mut Vec<Command>) {
        let following = self.role.replica().and_then(|replica| replica.following);
        if let Some(Session { node, link, epoch }) = following {
            let ack = Message::Ack {
                epoch,
                durable: self.log.durable,
                applied: self.log.applied,
                received: self.log.end().lsn,
            };
            Self::reply(node, link, ack, out);
        }
    }

    /// J2, I10: the primary hears at once.
    pub(crate) fn tell_unfit(&self, out: &mut Vec<Command>) {
        let session = self
            .role
            .replica()
            .and_then(|replica| replica.following.or(replica.probed));
        if let Some(Session { node, link, epoch }) = session {
            let log = self.summary();
            Self::reply(node, link, Message::Summary { epoch, log }, out);
        }
    }

    pub(crate) fn on_hash_request(
        &mut self,
        sender: Sender,
        id: u64,
        range: BlockRange,
        at: Lsn,
        out: &mut Vec<Command>,
    ) {
        let contents = false;
        let wait = HashWait {
            id,
            range,
            at,
            contents,
        };
        self.wanted_by(sender, wait, out);
    }

    /// Takes in what a primary wants to know of a range.
    pub(crate) fn wanted_by(&mut self, sender: Sender, wait: HashWait, out: &mut Vec<Command>) {
        if !self.follows(sender, out) {
            return;
        }
        let fits = self
            .view
            .as_ref()
            .is_some_and(|view| wait.range.end().0 <= view.blocks);
        if !fits || wait.at > self.log.end().lsn {
            return Self::bad(out, sender.0, "a range that it cannot ask for");
        }
        if let Some(replica) = self.role.replica_mut() {
            replica.hashes.push_back(wait);
        }
        self.hash_waiting(out);
    }

    /// Starts the hashes that waited for records to be applied.
    pub(crate) fn hash_waiting(&mut self, out: &mut Vec<Command>) {
        let applied = self.log.applied;
        while let Some(replica) = self.role.replica_mut()
            && let Some(session) = replica.following
            && let Some(next) = replica.hashes.iter().position(|wait| wait.at <= applied)
            && let Some(wait) = replica.hashes.remove(next)
        {
            let Session { node, link, epoch } = session;
            let owner = Owner::HashFor {
                to: node,
                link,
                epoch,
                id: wait.id,
                range: wait.range,
                contents: wait.contents,
            };
            let slot = self.next_id();
            if self.table.add(slot, Want::Read, Blocks::one(wait.range), owner) {
                self.emit_hash(slot, out);
            }
        }
    }

    pub(crate) fn emit_hash(&self, slot: u64, out: &mut Vec<Command>) {
        if let Some(Owner::HashFor { range, contents, .. }) = self.table.owner(slot) {
            let io = IoToken(slot);
            out.push(match contents {
                true => Command::Read { io, range },
                false => {
                    let renew = self.base.is_some();
                    Command::Hash { io, range, renew }
                }
            });
        }
    }

    pub(crate) fn on_hashed(&mut self, ctx: &Ctx, io: IoToken, digests: Digests, out: &mut Vec<Command>) {
        match self.table.owner(io.0) {
            Some(Owner::Compare { node, no }) => self.hashed_here(ctx, (node, no, io.0), digests, out),
            Some(Owner::HashFor {
                to, link, epoch, id, ..
            }) => {
                self.table.remove(io.0);
                let current = self
                    .role
                    .replica()
                    .is_some_and(|replica| replica.following == Some(session((to, link, epoch))));
                if current {
                    Self::reply(to, link, Message::HashReply { epoch, id, digests }, out);
                }
            }
            Some(Owner::Dead) => {
                self.table.remove(io.0);
            }
            _ => {}
        }
    }
}
