//! Comparing replicas in peace: what rotted, or came to differ, is found before it is needed.
//!
//! A scrub is the comparison of a resync (`resync`) with a replica that is in sync: range by range under its lock, at one position, and
//! what differs travels. It has no barrier, since its replica counts all the time, and it is slow on purpose. Both sides check every
//! block against its sum on the way; what is bad here is repaired first (`repair`).

use holdfast_types::NodeId;

use super::ExtentCore;
use super::api::{Command, Ctx, Note};
use super::primary::FollowerState;
use super::resync::Resync;
use super::role::Role;

impl ExtentCore {
    /// Compares every in-sync replica with this primary, or goes on with those whose comparison was cut short. Harmless to repeat.
    pub(crate) fn on_scrub(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let (Some(view), Role::Serving(primary)) = (self.view.clone(), &mut self.role) else {
            return;
        };
        let able = |node: &NodeId| view.in_sync.contains(node);
        primary.scrubbing.retain(able);
        if primary.scrubbing.is_empty() {
            let others = primary.followers.iter().map(|follower| follower.node);
            primary.scrubbing = others.filter(able).collect();
        }
        for follower in &mut primary.followers {
            if let FollowerState::Streaming { resync, .. } = &mut follower.state
                && resync.is_none()
                && primary.scrubbing.contains(&follower.node)
            {
                let node = follower.node;
                *resync = Some(Box::new(Resync::of_scrub(&self.config, &view)));
                out.push(Command::Note(Note::ScrubStarted { node }));
            }
        }
        self.drive_resyncs(ctx, out);
    }

    /// A replica's comparison has come to its end.
    pub(crate) fn end_scrub(&mut self, node: NodeId, out: &mut Vec<Command>) {
        self.drop_resync(node);
        let Some(primary) = self.role.primary_mut() else {
            return;
        };
        primary.scrubbing.retain(|scrubbing| *scrubbing != node);
        if primary.scrubbing.is_empty() {
            self.checks.scrubs += 1;
            out.push(Command::Note(Note::Scrubbed { checks: self.checks }));
        }
    }
}
