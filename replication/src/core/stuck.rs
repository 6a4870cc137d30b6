//! Slow is not dead, stuck is (I10): who makes no progress although work waits for it.
//!
//! Nothing of this is on the way of a command. Every now and then, while there is work, it is looked at whether anything has moved since
//! the last look. Whoever has not moved for [`Policy::stuck_after`](super::api::Policy) is stuck:
//! - a replica tells its primary, which has it leave the in-sync set by commit, and asks from time to time whether it moves again;
//! - a primary closes, as for a switchover (E6), and hands the extent over by commit to a member of the in-sync set that moves. It cannot
//!   drain: its own journal may never take the newest records. That is safe without it. What was acknowledged is stable on every member
//!   (I1), so on the next primary; that one keeps its whole log, has all of it stored by its set under the new epoch, or the old primary
//!   shrunk away, before it answers (E5). A record that only the old primary has was never acknowledged, and is dropped when it comes back,
//!   whether its append has ended by then or not: the cut is behind it in the same journal. From closing on the old primary reads nothing
//!   and gives no lsn. An acknowledgement that it still gives is for a record that every member has, so the next primary's log has it.
//!
//! A primary without such a member stays what it is, and its commands wait for its disk.

use std::time::Duration;

use holdfast_types::{Lsn, Mono, NodeId, RUN_GAP};

use super::ExtentCore;
use super::api::{Command, Ctx, Event, Note, StuckPart};
use super::primary::{Follower, FollowerState};
use super::role::Role;

/// Looks while a limit passes.
const LOOKS: u32 = 10;

/// Something that should move, and since when it has not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mark {
    /// What it looked like; `None` while no work waits.
    seen: Option<u64>,
    since: Mono,
}

impl Mark {
    fn look(&mut self, now: Mono, seen: Option<u64>) {
        if seen.is_none() || seen != self.seen {
            *self = Self { seen, since: now };
        }
    }

    /// How long work has waited without progress.
    fn idle(&self, now: Mono) -> Duration {
        self.seen.map_or(Duration::ZERO, |_| now.since(self.since))
    }
}

/// What this replica's own disk does.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    next: Option<Mono>,
    looked: Mono,
    journal: Mark,
    extent: Mark,
    /// Committed records wait for space here.
    full: Mark,
    /// Accesses to the extent that are under way, and how many have ended.
    open: u64,
    ended: u64,
    stuck: Option<StuckPart>,
}

impl Watch {
    /// Counts what an event ends, before it is handled.
    pub(crate) fn ends(&mut self, event: &Event) {
        if matches!(
            event,
            Event::Applied { .. }
                | Event::ReadDone { .. }
                | Event::ReadFailed { .. }
                | Event::Hashed { .. }
                | Event::Allocated { .. }
        ) {
            self.open = self.open.saturating_sub(1);
            self.ended += 1;
        }
    }

    /// Counts what was asked for.
    pub(crate) fn begins(&mut self, commands: &[Command]) {
        let io = |command: &&Command| {
            matches!(
                command,
                Command::Apply { .. }
                    | Command::Read { .. }
                    | Command::Hash { .. }
                    | Command::Allocated { .. }
            )
        };
        self.open += commands.iter().filter(io).count() as u64;
    }

    /// What is stuck.
    pub(crate) const fn stuck(&self) -> Option<StuckPart> {
        self.stuck
    }

    /// When it is looked at next.
    pub(crate) const fn next(&self) -> Option<Mono> {
        self.next
    }
}

impl ExtentCore {
    fn stuck_after(&self) -> Duration {
        self.view
            .as_ref()
            .map_or(holdfast_types::STUCK_AFTER, |view| view.policy.stuck_after)
    }

    /// Looks whether anything that should move does, if it is time.
    pub(crate) fn watch(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let now = ctx.now;
        let every = self.stuck_after() / LOOKS;
        match self.watch.next {
            None if self.works() => {
                self.watch.next = Some(now + every);
                self.watch.looked = now;
                self.forget_marks(now);
                self.look(now);
            }
            Some(next) if now >= next => {
                // This process did not run, so that nothing could have moved, or did not hear of it.
                if now.since(self.watch.looked) >= every + RUN_GAP {
                    self.forget_marks(now);
                }
                self.watch.looked = now;
                self.look(now);
                self.judge(ctx, out);
                self.watch.next = self.works().then_some(now + every);
            }
            _ => {}
        }
    }

    /// Whether anything is waited for.
    fn works(&self) -> bool {
        let end = self.log.end().lsn;
        !self.journal.is_empty()
            || self.watch.open > 0
            || self.watch.stuck.is_some()
            || !self.rooms.is_empty()
            || self
                .role
                .primary()
                .is_some_and(|primary| primary.followers.iter().any(|f| behind(f, end).is_some()))
    }

    fn forget_marks(&mut self, now: Mono) {
        let mark = Mark {
            seen: None,
            since: now,
        };
        self.watch.journal = mark;
        self.watch.extent = mark;
        self.watch.full = mark;
        for follower in self.role.primary_mut().into_iter().flat_map(|p| &mut p.followers) {
            (follower.moved, follower.room) = (mark, mark);
        }
    }

    fn look(&mut self, now: Mono) {
        let end = self.log.end().lsn;
        let front = self.journal.front().map(|(seq, _)| *seq);
        self.watch.journal.look(now, front);
        let io = (self.watch.open > 0).then_some(self.watch.ended);
        self.watch.extent.look(now, io);
        let full = self.room_of(self.me.node).full;
        self.watch.full.look(now, full.then_some(0));
        let rooms = &self.rooms;
        let roomless = |node: NodeId, member: bool| {
            rooms
                .iter()
                .any(|(of, room)| *of == node && (room.full || (room.crowded && !member)))
        };
        let members = self.view.as_ref().map_or(&[][..], |view| &view.in_sync);
        for follower in self.role.primary_mut().into_iter().flat_map(|p| &mut p.followers) {
            let waits = behind(follower, end);
            follower.moved.look(now, waits);
            // A full journal slows members down and costs none its place (J3); it must not slow them down for who is none.
            let roomless = roomless(follower.node, members.contains(&follower.node));
            follower.room.look(now, roomless.then_some(0));
        }
    }

    fn judge(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let limit = self.stuck_after();
        let stuck = if self.fenced.is_some() {
            None
        } else if self.watch.journal.idle(ctx.now) >= limit {
            Some(StuckPart::Journal)
        } else if self.watch.extent.idle(ctx.now).max(self.watch.full.idle(ctx.now)) >= limit {
            Some(StuckPart::Extent)
        } else {
            None
        };
        if stuck != self.watch.stuck {
            self.watch.stuck = stuck;
            out.push(Command::Note(match stuck {
                Some(part) => Note::Stuck { part },
                None => Note::Moves,
            }));
            if stuck.is_some() {
                self.tell_unfit(out);
            }
        }
        if stuck.is_some() {
            self.hand_over_stuck(ctx, out);
        }
        self.ask_stuck_followers(ctx, limit, out);
    }

    /// Members that are stuck are asked out by the wish for it. A replica in resync that is stuck is asked for its log anew: it says so.
    fn ask_stuck_followers(&mut self, ctx: &Ctx, limit: Duration, out: &mut Vec<Command>) {
        let (Some(view), Some(primary)) = (self.view.as_ref(), self.role.primary()) else {
            return;
        };
        let growth = primary.growth.map(|growth| growth.node);
        let again: Vec<NodeId> = primary
            .followers
            .iter()
            .filter(|f| !view.in_sync.contains(&f.node) && growth != Some(f.node))
            .filter(|f| f.stuck(ctx.now, limit))
            .map(|f| f.node)
            .collect();
        for node in again {
            if let Some(link) = self.link_of(node).filter(|_| self.room_of(node).crowded) {
                self.drop_resync(node);
                let (link, asked) = (link.link, ctx.now);
                self.set_follower(node, FollowerState::Stuck { link, asked });
            } else {
                self.probe(ctx, node, out);
            }
        }
    }

    /// A stuck primary closes and hands over, if somebody can take over.
    fn hand_over_stuck(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let limit = self.stuck_after();
        let (Some(view), Role::Serving(primary) | Role::Settling(primary) | Role::Draining { primary, .. }) =
            (self.view.as_ref(), &self.role)
        else {
            return;
        };
        let fit = |follower: &&Follower| {
            view.in_sync.contains(&follower.node)
                && matches!(follower.state, FollowerState::Streaming { .. })
                && !follower.resyncing()
                && follower.moved.idle(ctx.now) < limit / 2
                && !self.room_of(follower.node).low
        };
        let next = primary.followers.iter().filter(fit).map(|f| {
            (
                view.retiring.nodes.contains(&f.node),
                f.moved.idle(ctx.now),
                f.node,
            )
        });
        let Some(to) = next.min().and_then(|(_, _, node)| self.link_of(node)) else {
            return;
        };
        let resyncing: Vec<NodeId> = primary
            .followers
            .iter()
            .filter(|follower| follower.resync().is_some())
            .map(|follower| follower.node)
            .collect();
        for node in resyncing {
            self.drop_resync(node);
        }
        self.front_leave(out);
        self.role = match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Serving(primary) | Role::Settling(primary) | Role::Draining { primary, .. } => {
                Role::HandedBack {
                    primary,
                    to: to.peer,
                    since: ctx.now,
                }
            }
            role => role,
        };
        let (role, epoch) = (self.role.name(), self.log.end().epoch);
        out.push(Command::Note(Note::Role { role, epoch }));
        self.pump = true;
    }
}

impl Follower {
    /// Whether it takes records and has not stored one for so long, although some wait.
    pub(crate) fn stuck(&self, now: Mono, limit: Duration) -> bool {
        matches!(self.state, FollowerState::Streaming { .. })
            && self.moved.idle(now).max(self.room.idle(now)) >= limit
    }
}

/// What a follower has stored, if more waits for it.
fn behind(follower: &Follower, end: Lsn) -> Option<u64> {
    let waits = matches!(follower.state, FollowerState::Streaming { .. }) && follower.durable < end;
    waits.then_some(follower.durable.0)
}
