//! A primary's followers: linked, asked for their logs, judged, streamed to, dropped.

use holdfast_types::{BlockRange, Epoch, LogPos, Lsn, NodeId};

use super::ExtentCore;
use super::api::{Command, Ctx, IoToken, LinkId, LogSummary, Message, Note, View};
use super::primary::{Follower, FollowerState};
use super::rejoin::{Judge, Verdict, decide_rejoin};
use super::resync::Resync;
use super::role::Role;
use super::stuck::Mark;
use crate::fault::{self, Fault};

/// What a replica has in its log and had not applied (R2).
fn not_applied(log: &LogSummary) -> &[BlockRange] {
    if fault::on(Fault::DroppedNotCompared) {
        return &[];
    }
    &log.unapplied
}

impl ExtentCore {
    /// Followers for the replicas that have none yet.
    pub(crate) fn add_followers(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let Some(view) = self.view.clone() else { return };
        for node in view.in_sync.iter().chain(&view.replicas).copied() {
            let known = self
                .role
                .primary_mut()
                .is_none_or(|primary| primary.follower(node).is_some());
            if known || node == self.me.node {
                continue;
            }
            let lost = self.met.contains(&node);
            let follower = Follower {
                node,
                state: FollowerState::Unlinked { since: ctx.now, lost },
                durable: Lsn(0),
                received: Lsn(0),
                applied: Lsn(0),
                told: Lsn(0),
                moved: Mark::default(),
                room: Mark::default(),
            };
            if let Some(primary) = self.role.primary_mut() {
                primary.followers.push(follower);
            }
            if let Some(link) = self.link_of(node) {
                self.follower_linked(ctx, node, link.link, out);
            }
        }
    }

    pub(crate) fn follower_linked(&mut self, ctx: &Ctx, node: NodeId, link: LinkId, out: &mut Vec<Command>) {
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        let epoch = primary.epoch;
        let Some(follower) = primary.follower(node) else {
            return;
        };
        let since = match follower.state {
            FollowerState::Probing { since, .. } => since,
            _ => ctx.now,
        };
        let asked = ctx.now;
        follower.state = FollowerState::Probing { link, since, asked };
        (follower.durable, follower.received) = (Lsn(0), Lsn(0));
        let message = Message::Probe { epoch };
        let to = node;
        out.push(Command::Send { to, link, message });
    }

    /// Asks a follower for its log (again), dropping what was going on with it.
    pub(crate) fn probe(&mut self, ctx: &Ctx, node: NodeId, out: &mut Vec<Command>) {
        self.drop_resync(node);
        if let Some(link) = self.link_of(node) {
            self.follower_linked(ctx, node, link.link, out);
        }
    }

    pub(crate) fn follower_lost(&mut self, ctx: &Ctx, node: NodeId, out: &mut Vec<Command>) {
        self.drop_resync(node);
        if let Some(follower) = self.role.primary_mut().and_then(|primary| primary.follower(node)) {
            let (since, lost) = (ctx.now, true);
            follower.state = FollowerState::Unlinked { since, lost };
            let in_sync = self
                .view
                .as_ref()
                .is_some_and(|view| view.in_sync.contains(&node));
            if in_sync {
                out.push(Command::Note(Note::Shrinking { node }));
            }
        }
    }

    pub(crate) fn on_refused(
        &mut self,
        ctx: &Ctx,
        from: NodeId,
        link: LinkId,
        newest: Epoch,
        out: &mut Vec<Command>,
    ) {
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        let epoch = primary.epoch;
        let Some(follower) = primary.follower(from) else {
            return;
        };
        if newest > epoch {
            out.push(Command::Note(Note::RefusedBy { node: from, newest }));
        }
        if follower.streaming() == Some(link) {
            // Asked again after a while: its view may be ahead of ours, or it lost track.
            self.drop_resync(from);
            if let Some(follower) = self.role.primary_mut().and_then(|primary| primary.follower(from)) {
                let (since, asked) = (ctx.now, ctx.now);
                follower.state = FollowerState::Probing { link, since, asked };
                (follower.durable, follower.received) = (Lsn(0), Lsn(0));
            }
        }
    }

    pub(crate) fn on_summary(
        &mut self,
        ctx: &Ctx,
        from: NodeId,
        link: LinkId,
        epoch: Epoch,
        log: &LogSummary,
        out: &mut Vec<Command>,
    ) {
        let serving = matches!(self.role, Role::Serving(_));
        let Some(view) = self.view.clone() else { return };
        let in_sync = view.in_sync.contains(&from);
        let Some(primary) = self.role.primary_mut().filter(|primary| primary.epoch == epoch) else {
            return;
        };
        // E3: as long as a growth may be committed, its node starts nothing that it would have to start over.
        let growing = primary.growth.is_some_and(|growth| growth.node == from);
        let Some(follower) = primary.follower(from) else {
            return;
        };
        if follower.link() != Some(link) {
            return;
        }
        let probing = matches!(follower.state, FollowerState::Probing { .. });
        // Where committed records wait for space here as well, nobody is put out for the same.
        let unfit = log.fenced || (log.stuck && in_sync && !self.room_of(self.me.node).full);
        if !unfit && (!probing || growing || !(in_sync || serving)) {
            return;
        }
        let (verdict, why) = self.verdict_on(from, &view, log);
        let node = from;
        out.push(Command::Note(Note::Verdict { node, verdict, why }));
        self.drop_resync(from);
        let unapplied = not_applied(log);
        match verdict {
            Verdict::InSyncAlready { after } => self.stream_after(from, link, after, false, None, out),
            Verdict::LogTail { after, restart } => {
                let mut resync = Resync::of_tail(&self.config, &view, self.log.behind(after.lsn), after.lsn);
                resync.mark_all(unapplied);
                self.stream_after(from, link, after, restart, Some(resync), out);
            }
            Verdict::ChangedSince { after } => {
                let (end, id) = (self.log.end(), self.next_id());
                // What is not applied here is not in the extent's map of changes either.
                let mine = self.log.behind(self.log.applied);
                let mut resync = Resync::of_tail(&self.config, &view, mine, end.lsn);
                resync.mark_all(unapplied);
                resync.wait_for_changes(id);
                let (io, since) = (IoToken(id), after.lsn);
                out.push(Command::Changed { io, since });
                self.stream_after(from, link, end, true, Some(resync), out);
            }
            Verdict::FullCompare => {
                let end = self.log.end();
                let resync = Resync::of_all(&self.config, &view, end.lsn);
                self.stream_after(from, link, end, true, Some(resync), out);
            }
            Verdict::MustLeave => self.set_follower(from, FollowerState::Leaving { link }),
            Verdict::Unfit => self.set_follower(from, FollowerState::Unfit { link }),
            Verdict::Stuck => {
                let asked = ctx.now;
                self.set_follower(from, FollowerState::Stuck { link, asked });
            }
        }
        self.advance(ctx, out);
    }

    /// What follows from a log; W5: a member that lost its memory leaves before it may be promoted.
    fn verdict_on(&self, from: NodeId, view: &View, log: &LogSummary) -> (Verdict, &'static str) {
        let judge = Judge {
            in_sync: view.in_sync.contains(&from),
            version: view.version,
            history: self.log.history(),
            before: self.log.before(),
        };
        match decide_rejoin(judge, log) {
            (Verdict::InSyncAlready { .. }, _) if self.has_forgotten(from, view) => (
                Verdict::MustLeave,
                "it was started anew while writes were answered early",
            ),
            decided => decided,
        }
    }

    pub(crate) fn set_follower(&mut self, node: NodeId, state: FollowerState) {
        if let Some(follower) = self.role.primary_mut().and_then(|primary| primary.follower(node)) {
            follower.state = state;
        }
    }

    /// From here on the follower gets every record behind `after`: first those in memory, then each new one as it is made.
    fn stream_after(
        &mut self,
        node: NodeId,
        link: LinkId,
        after: LogPos,
        restart: bool,
        resync: Option<Resync>,
        out: &mut Vec<Command>,
    ) {
        let Some(view) = self.view.as_ref() else { return };
        let version = view.version;
        let committed = self.log.committed;
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        let epoch = primary.epoch;
        let Some(follower) = primary.follower(node) else {
            return;
        };
        if let Some(resync) = resync.as_ref().filter(|resync| resync.planned()) {
            let ranges = resync.ranges_left();
            out.push(Command::Note(Note::ResyncStarted { node, ranges }));
        }
        let resync = resync.map(Box::new);
        follower.state = FollowerState::Streaming { link, resync };
        (follower.durable, follower.received) = (Lsn(0), Lsn(0));
        follower.told = committed;
        let mut send = |message| {
            let to = node;
            out.push(Command::Send { to, link, message });
        };
        send(if restart {
            let history = self.log.history().up_to(after.lsn);
            let from = after;
            Message::Restart {
                epoch,
                version,
                from,
                history,
            }
        } else {
            Message::Adopt { epoch, after }
        });
        // Before the records that they are of.
        if let Some(news) = self.replays.news() {
            send(Message::Statuses { news });
        }
        let mut prev = after;
        for record in self.log.behind(after.lsn) {
            let pos = record.pos;
            let record = record.clone();
            send(Message::Replicate { epoch, prev, record });
            prev = pos;
        }
        let commit = committed;
        send(Message::Commit { epoch, commit });
    }

    /// The committed membership changed under this primary.
    pub(crate) fn members_changed(
        &mut self,
        ctx: &Ctx,
        old: Option<&View>,
        new: &View,
        out: &mut Vec<Command>,
    ) {
        let me = self.me.node;
        let Some(primary) = self
            .role
            .primary_mut()
            .filter(|primary| primary.epoch == new.epoch)
        else {
            return;
        };
        let meant = |node: NodeId| new.in_sync.contains(&node) || new.replicas.contains(&node);
        let dropped: Vec<NodeId> = primary
            .followers
            .iter()
            .map(|f| f.node)
            .filter(|n| !meant(*n))
            .collect();
        if old.is_none_or(|old| old.version != new.version) {
            primary.leaving.clear();
        }
        let voided = primary.growth.filter(|growth| growth.version != new.version);
        if voided.is_some() {
            primary.growth = None;
        }
        for node in dropped {
            self.drop_resync(node);
            if let Some(primary) = self.role.primary_mut() {
                primary.followers.retain(|follower| follower.node != node);
            }
        }
        let old_set = old
            .filter(|old| old.epoch == new.epoch)
            .map_or(&new.in_sync, |old| &old.in_sync);
        for node in old_set.iter().copied().filter(|node| !new.in_sync.contains(node)) {
            out.push(Command::Note(Note::Shrunk { node }));
            self.probe(ctx, node, out);
        }
        for node in new.in_sync.iter().copied().filter(|node| !old_set.contains(node)) {
            out.push(Command::Note(Note::Grown { node }));
            self.drop_resync(node);
        }
        if let Some(growth) = voided
            && !new.in_sync.contains(&growth.node)
        {
            self.growth_voided(growth.node);
        }
        debug_assert!(new.in_sync.contains(&me) || new.primary.is_none_or(|p| p.node == me));
        self.add_followers(ctx, out);
        self.advance(ctx, out);
    }

    pub(crate) fn reprobe(&mut self, ctx: &Ctx, out: &mut Vec<Command>) -> bool {
        let repeat = self.config.repropose;
        let absent = self.config.absent_after;
        let throttled = self.backed_up();
        let crowded = self.rooms.iter().filter(|(_, room)| room.crowded);
        let crowded: Vec<NodeId> = crowded.map(|(node, _)| *node).collect();
        let (Some(view), Some(primary)) = (self.view.as_ref(), self.role.primary_mut()) else {
            return false;
        };
        let stuck = throttled && ctx.now.since(*primary.throttled_since.get_or_insert(ctx.now)) >= absent;
        if !throttled || stuck {
            primary.throttled_since = None;
        }
        let growth = primary.growth.map(|growth| growth.node);
        let mut busy = throttled;
        let mut again = Vec::new();
        for follower in &mut primary.followers {
            let member = view.in_sync.contains(&follower.node);
            match &mut follower.state {
                FollowerState::Unlinked { .. } => busy |= member,
                FollowerState::Stuck { asked, .. } => {
                    busy = true;
                    let crowded = crowded.contains(&follower.node);
                    if ctx.now.since(*asked) >= absent && !crowded {
                        again.push(follower.node);
                    }
                }
                FollowerState::Probing { asked, .. } => {
                    busy = true;
                    if ctx.now.since(*asked) >= repeat {
                        again.push(follower.node);
                    }
                }
                // A replica in resync that holds up the foreground is dropped and asked anew.
                FollowerState::Streaming { .. } if stuck && !member && growth != Some(follower.node) => {
                    again.push(follower.node);
                }
                FollowerState::Unfit { .. } if member => busy = true,
                _ => {}
            }
        }
        for node in again {
            self.probe(ctx, node, out);
        }
        busy
    }
}
