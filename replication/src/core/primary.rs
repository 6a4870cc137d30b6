//! The primary's side: giving positions, sending, counting, committing; which followers there are; what is known of them.

use std::time::Duration;

use bytes::Bytes;
use holdfast_types::{CommandName, Epoch, InSyncVersion, LogPos, Lsn, Mono, NodeId};

use super::ExtentCore;
use super::api::{Command, Ctx, LinkId, Message, Record, RecordBody, View};
use super::front::OpKey;
use super::repair::Repair;
use super::resync::Resync;
use super::role::Role;
use super::scrub::Scrub;
use super::stuck::Mark;
use crate::fault::{self, Fault};

/// Records in memory that are not applied here and stored on every streaming replica; above it new writes wait for their lsn.
const WINDOW_RECORDS: usize = 1 << 16;

/// State of a node that is primary.
#[derive(Debug)]
pub(crate) struct Primary {
    pub(crate) epoch: Epoch,
    /// Of the epoch's first record.
    pub(crate) start: Lsn,
    /// Records of the tail that is settled (E5).
    pub(crate) tail: u64,
    pub(crate) followers: Vec<Follower>,
    /// The growth that is proposed and whose outcome is not applied yet (E3).
    pub(crate) growth: Option<Growth>,
    /// Members whose leaving was proposed under the present version: it may be committed until the version changes (F4).
    pub(crate) leaving: Vec<NodeId>,
    /// Up to here every member of the set had what it got: answered, where writes are answered early (W5).
    pub(crate) early: Lsn,
    /// When a commit position that could not ride on a record goes alone.
    pub(crate) commit_due: Option<Mono>,
    pub(crate) throttled_since: Option<Mono>,
    pub(crate) repairs: Vec<Repair>,
    /// The scrub under way.
    pub(crate) scrub: Option<Scrub>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Growth {
    pub(crate) node: NodeId,
    pub(crate) version: InSyncVersion,
}

/// Another replica, as its primary sees it.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) node: NodeId,
    pub(crate) state: FollowerState,
    /// Stable there, told under this epoch since the last verdict.
    pub(crate) durable: Lsn,
    /// In memory there, told so as well (W5).
    pub(crate) received: Lsn,
    pub(crate) applied: Lsn,
    /// Commit position that it was told.
    pub(crate) told: Lsn,
    /// Whether it stores what it is sent (I10).
    pub(crate) moved: Mark,
    /// Whether its disk has room for what it is sent.
    pub(crate) room: Mark,
}

#[derive(Debug)]
pub(crate) enum FollowerState {
    /// `lost`: it had a link in this run, which went down.
    Unlinked { since: Mono, lost: bool },
    /// Asked for its log, for the last time at `asked`.
    Probing { link: LinkId, since: Mono, asked: Mono },
    /// Gets every record.
    Streaming {
        link: LinkId,
        resync: Option<Box<Resync>>,
    },
    /// Must leave the in-sync set before anything else.
    Leaving { link: LinkId },
    /// Fenced, and not in the set.
    Unfit { link: LinkId },
    /// Stuck, and not in the set: asked again from time to time.
    Stuck { link: LinkId, asked: Mono },
}

impl Follower {
    pub(crate) fn resync(&self) -> Option<&Resync> {
        match &self.state {
            FollowerState::Streaming { resync, .. } => resync.as_deref(),
            _ => None,
        }
    }

    /// Whether it is being made equal; a scrub is none of that.
    pub(crate) fn resyncing(&self) -> bool {
        self.resync().is_some_and(|resync| !resync.scrubs())
    }

    pub(crate) fn resync_mut(&mut self) -> Option<&mut Resync> {
        match &mut self.state {
            FollowerState::Streaming { resync, .. } => resync.as_deref_mut(),
            _ => None,
        }
    }

    pub(crate) fn link(&self) -> Option<LinkId> {
        match self.state {
            FollowerState::Unlinked { .. } => None,
            FollowerState::Probing { link, .. }
            | FollowerState::Streaming { link, .. }
            | FollowerState::Leaving { link }
            | FollowerState::Unfit { link }
            | FollowerState::Stuck { link, .. } => Some(link),
        }
    }

    pub(crate) fn streaming(&self) -> Option<LinkId> {
        match self.state {
            FollowerState::Streaming { link, .. } => Some(link),
            _ => None,
        }
    }

    /// Whether it cannot do its part, as a member of the in-sync set.
    pub(crate) fn gone(&self, now: Mono, absent_after: Duration, stuck_after: Duration) -> bool {
        match self.state {
            FollowerState::Unlinked { since, lost } => lost || now.since(since) >= absent_after,
            FollowerState::Probing { since, .. } => now.since(since) >= absent_after,
            FollowerState::Streaming { .. } => self.stuck(now, stuck_after),
            FollowerState::Leaving { .. } | FollowerState::Unfit { .. } | FollowerState::Stuck { .. } => true,
        }
    }
}

impl Primary {
    pub(crate) fn new(epoch: Epoch, start: Lsn) -> Self {
        Self {
            epoch,
            start,
            tail: 0,
            followers: Vec::new(),
            growth: None,
            leaving: Vec::new(),
            early: Lsn(0),
            commit_due: None,
            throttled_since: None,
            repairs: Vec::new(),
            scrub: None,
        }
    }

    pub(crate) fn follower(&mut self, node: NodeId) -> Option<&mut Follower> {
        self.followers.iter_mut().find(|follower| follower.node == node)
    }
}

impl ExtentCore {
    /// The first steps of an epoch: its followers, its first record (E5).
    pub(crate) fn begin_epoch(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        self.add_followers(ctx, out);
        let tail = self.log.end().lsn.0 - self.log.committed.0;
        if let Some(primary) = self.role.primary_mut() {
            primary.tail = tail;
        }
        self.append(ctx, RecordBody::EpochStart, None, None, 0, None, out);
        if fault::on(Fault::ReadBeforeSettled)
            && let Role::Settling(_) = &self.role
            && let Role::Settling(primary) = std::mem::replace(&mut self.role, Role::Idle)
        {
            self.role = Role::Serving(primary);
        }
    }

    /// The position of the next record.
    pub(crate) fn next_pos(&self) -> LogPos {
        let end = self.log.end();
        let epoch = self.role.primary().map_or(end.epoch, |primary| primary.epoch);
        LogPos::new(epoch, end.lsn.next())
    }

    /// Gives a record its position: from here on the command has taken effect, or will (W1). It goes to the local journal and to every
    /// streaming replica at the same time. `copy` is the payload of a resync record, for that replica alone, which may be this one.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn append(
        &mut self,
        ctx: &Ctx,
        body: RecordBody,
        name: Option<CommandName>,
        op: Option<OpKey>,
        lock: u64,
        copy: Option<(NodeId, &Bytes)>,
        out: &mut Vec<Command>,
    ) -> Lsn {
        let (prev, pos) = (self.log.end(), self.next_pos());
        let epoch = pos.epoch;
        let commit = self.log.committed;
        let record = Record {
            pos,
            commit,
            name,
            body,
        };
        let copied = |record: &Record, node: NodeId| {
            let mut record = record.clone();
            if let (RecordBody::Resync { data, .. }, Some((to, copy))) = (&mut record.body, copy)
                && to == node
            {
                *data = Some(copy.clone());
            }
            record
        };
        let seq = self.next_seq(pos.lsn);
        let own = copied(&record, self.me.node);
        out.push(Command::Append {
            seq,
            record: own.clone(),
        });
        if let Some(primary) = self.role.primary_mut() {
            for follower in &mut primary.followers {
                let Some(link) = follower.streaming() else {
                    continue;
                };
                let record = copied(&record, follower.node);
                follower.told = commit;
                let to = follower.node;
                let message = Message::Replicate { epoch, prev, record };
                out.push(Command::Send { to, link, message });
            }
            primary.commit_due = None;
        }
        if let Some(name) = name {
            self.names.logged(name, pos.lsn, ctx.now);
        }
        self.replays.overwritten(pos, own.body.ranges());
        self.log.push(own, op, lock);
        pos.lsn
    }

    /// Whether a commit needs this follower (W2, E3).
    pub(crate) fn counts(&self, follower: &Follower, view: &View) -> bool {
        let growing = self
            .role
            .primary()
            .and_then(|primary| primary.growth)
            .is_some_and(|growth| growth.node == follower.node);
        let barrier = follower.resync().is_some_and(Resync::at_barrier);
        if fault::on(Fault::GrowthNotCounted) {
            return view.in_sync.contains(&follower.node);
        }
        view.in_sync.contains(&follower.node) || growing || barrier
    }

    /// Those that a commit needs.
    pub(crate) fn counted<'a>(
        &'a self,
        primary: &'a Primary,
        view: &'a View,
    ) -> impl Iterator<Item = &'a Follower> {
        let followers = primary.followers.iter();
        followers.filter(|follower| self.counts(follower, view))
    }

    /// What is stable everywhere it has to be.
    fn stable(&self) -> Lsn {
        let (Some(primary), Some(view)) = (self.role.primary(), self.view.as_ref()) else {
            return Lsn(0);
        };
        let unstable = fault::on(Fault::ExtentBeforeJournal) && view.cache.since.is_some();
        let local = if fault::on(Fault::AckBeforeLocal) || unstable {
            self.log.end().lsn
        } else {
            self.log.durable
        };
        if fault::on(Fault::AckWithoutReplica) {
            return local;
        }
        self.counted(primary, view)
            .map(|follower| {
                if unstable {
                    follower.received
                } else {
                    follower.durable
                }
            })
            .fold(local, Lsn::min)
    }

    /// Moves the commit position (W2).
    pub(crate) fn advance(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        if self.role.primary().is_none() {
            return;
        }
        let stable = self.stable();
        if stable > self.log.committed {
            self.log.committed = stable;
            let due = ctx.now + self.config.commit_idle;
            if let Some(primary) = self.role.primary_mut() {
                primary.commit_due.get_or_insert(due);
            }
            self.hand_committed(out);
        }
        self.answer_early(out);
        self.drive_resyncs(ctx, out);
    }

    /// Commit positions that found no message to ride on go alone.
    pub(crate) fn tell_commit(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let committed = self.log.committed;
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        if primary.commit_due.is_none_or(|due| ctx.now < due) {
            return;
        }
        primary.commit_due = None;
        if fault::on(Fault::CommitOnlyPiggybacked) {
            return;
        }
        let epoch = primary.epoch;
        for follower in &mut primary.followers {
            tell(follower, epoch, committed, out);
        }
    }

    pub(crate) fn tell_commit_to(&mut self, node: NodeId, out: &mut Vec<Command>) {
        let committed = self.log.committed;
        if let Some(primary) = self.role.primary_mut() {
            let epoch = primary.epoch;
            if let Some(follower) = primary.follower(node) {
                tell(follower, epoch, committed, out);
            }
        }
    }

    pub(crate) fn on_ack(
        &mut self,
        ctx: &Ctx,
        (from, link, epoch): (NodeId, LinkId, Epoch),
        [durable, applied, received]: [Lsn; 3],
        out: &mut Vec<Command>,
    ) {
        let end = self.log.end().lsn;
        let Some(primary) = self.role.primary_mut().filter(|primary| primary.epoch == epoch) else {
            return;
        };
        let Some(follower) = primary.follower(from) else {
            return;
        };
        if follower.streaming() != Some(link) {
            return;
        }
        if durable > end || received > end {
            return Self::bad(out, from, "it acknowledges what was never sent");
        }
        follower.durable = follower.durable.max(durable);
        follower.received = follower.received.max(received);
        follower.applied = applied;
        self.advance(ctx, out);
        self.trim();
    }

    /// Frees records that nobody needs from memory any more.
    pub(crate) fn trim(&mut self) {
        let was = self.throttled();
        let stored = self.role.primary().map_or(Lsn(u64::MAX), |primary| {
            primary
                .followers
                .iter()
                .filter(|follower| follower.streaming().is_some())
                .map(|follower| follower.durable)
                .fold(Lsn(u64::MAX), Lsn::min)
        });
        self.log.trim(stored, self.config.keep_bytes);
        if was && !self.throttled() {
            self.pump = true;
        }
    }

    /// Whether new writes have to wait for the slowest replica or a disk.
    pub(crate) fn throttled(&self) -> bool {
        self.backed_up() || self.crowded()
    }

    /// Whether too much is in memory that is not applied here and stored on every streaming replica.
    pub(crate) fn backed_up(&self) -> bool {
        self.log.bytes() > self.config.keep_bytes + self.config.window_bytes
            || self.log.unapplied_len() > WINDOW_RECORDS
    }
}

fn tell(follower: &mut Follower, epoch: Epoch, commit: Lsn, out: &mut Vec<Command>) {
    if let Some(link) = follower.streaming()
        && follower.told < commit
    {
        follower.told = commit;
        let to = follower.node;
        let message = Message::Commit { epoch, commit };
        out.push(Command::Send { to, link, message });
    }
}
