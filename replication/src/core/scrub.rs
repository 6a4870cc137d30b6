//! Comparing replicas in peace: what rotted, or came to differ, is found before it is needed.
//!
//! A scrub is the comparison of a resync (`resync`) with a replica that is in sync: range by range under its lock, at one position, and
//! what differs travels. It has no barrier, since its replica counts all the time, and it is slow on purpose. Both sides check every
//! block against its sum on the way; what is bad here is repaired first (`repair`).
//!
//! A range is held while both sides read it, and writes to it wait. A side that does not read it in time must not make initiators wait
//! (I10): the range is let go, and compared later.

use std::time::Duration;

use holdfast_types::{Mono, NodeId};

use super::ExtentCore;
use super::api::{Command, Config, Ctx, Note};
use super::primary::FollowerState;
use super::report::{Checks, ScrubOutcome};
use super::resync::Resync;
use super::role::Role;

/// A scrub under way, of all replicas.
#[derive(Debug)]
pub(crate) struct Scrub {
    /// Whom it has to compare yet.
    pub(crate) left: Vec<NodeId>,
    began: Mono,
    /// What had been found when it began.
    before: Checks,
}

impl Scrub {
    fn outcome(&self, now: Mono, checks: Checks) -> ScrubOutcome {
        ScrubOutcome {
            took: now.since(self.began),
            found: checks.found - self.before.found,
            repaired: checks.repaired - self.before.repaired,
            lost: checks.lost - self.before.lost,
            diverged: checks.diverged - self.before.diverged,
        }
    }
}

/// How fast a scrub goes, and how long it may hold a range.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second.
    rate: u64,
    /// When the next range may be started.
    pub(crate) next: Mono,
    pub(crate) patience: Duration,
    /// Before the next range is started where one was let go.
    pub(crate) pause: Duration,
    /// Since when the present range is held, or waited for.
    pub(crate) held_since: Option<Mono>,
}

impl Pace {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            rate: config.scrub_rate.max(1),
            next: Mono::ZERO,
            patience: config.fetch_after,
            pause: config.unreadable_retry,
            held_since: None,
        }
    }

    /// Starts a range of so many bytes. If that is too early, when it may be.
    pub(crate) fn start(&mut self, now: Mono, bytes: u64) -> Result<(), Mono> {
        if now < self.next {
            return Err(self.next);
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        self.next = now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Ok(())
    }
}

impl ExtentCore {
    /// Compares every in-sync replica with this primary, or goes on with those whose comparison was cut short. Harmless to repeat.
    pub(crate) fn on_scrub(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let (Some(view), Role::Serving(primary)) = (self.view.clone(), &mut self.role) else {
            return;
        };
        let able = |node: &NodeId| view.in_sync.contains(node);
        let (began, before) = (ctx.now, self.checks);
        let left = Vec::new();
        let scrub = primary.scrub.get_or_insert(Scrub { left, began, before });
        scrub.left.retain(able);
        if scrub.left.is_empty() {
            let others = primary.followers.iter().map(|follower| follower.node);
            scrub.left = others.filter(able).collect();
        }
        for follower in &mut primary.followers {
            if let FollowerState::Streaming { resync, .. } = &mut follower.state
                && resync.is_none()
                && scrub.left.contains(&follower.node)
            {
                let node = follower.node;
                *resync = Some(Box::new(Resync::of_scrub(&self.config, &view)));
                out.push(Command::Note(Note::ScrubStarted { node }));
            }
        }
        if scrub.left.is_empty() {
            // There is nobody to compare with.
            primary.scrub = None;
        }
        self.drive_resyncs(ctx, out);
    }

    /// When a comparison that is slow on purpose is looked at next.
    pub(crate) fn look_again(&mut self, at: Mono) {
        self.pace = Some(self.pace.map_or(at, |pace| pace.min(at)));
    }

    /// Lets go of a range that a scrub has held for too long.
    pub(crate) fn pace_scrub(&mut self, ctx: &Ctx, node: NodeId, out: &mut Vec<Command>) {
        let Some(resync) = self.resync_mut(node) else {
            return;
        };
        match resync.overdue(ctx.now) {
            Err(None) => {}
            Err(Some(until)) => self.look_again(until),
            Ok((lock, io, range)) => {
                self.abandon(lock, io);
                out.push(Command::Note(Note::ScrubWaits { node, range }));
                self.look_again(ctx.now + self.config.unreadable_retry);
            }
        }
    }

    /// A replica's comparison has come to its end.
    pub(crate) fn end_scrub(&mut self, ctx: &Ctx, node: NodeId, out: &mut Vec<Command>) {
        self.drop_resync(node);
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        if let Some(scrub) = &mut primary.scrub {
            scrub.left.retain(|left| *left != node);
        }
        if let Some(scrub) = primary.scrub.take_if(|scrub| scrub.left.is_empty()) {
            self.checks.scrubs += 1;
            let outcome = scrub.outcome(ctx.now, self.checks);
            out.push(Command::Note(Note::Scrubbed { outcome }));
        }
    }
}
