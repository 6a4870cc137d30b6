//! When a primary hands extents over, planned: because it was asked to, because its node drains or leaves, or because the preferred node is
//! back. Each node looks after the extents that it is primary of.
//!
//! Going back to a preferred node is only a comfort, so it is slow: that node has to be in sync and stable for a while, nobody may be
//! suspect, and an extent that did not stay there waits twice as long the next time.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_types::{Epoch, ExtentId, Incarnation, Mono, NodeId};

use crate::lease::KeeperView;
use crate::model::{ClusterState, Extent, SettingKey, Share};

/// A hand-over that did not come about is tried again after this long; longer than a primary itself tries.
const AGAIN_AFTER: Duration = Duration::from_secs(12);
/// The wait before going back doubles with each time that it did not last, up to this many times.
const DOUBLINGS_MAX: u32 = 6;
/// Going back has lasted when it held for this many times the wait.
const LASTED_AFTER: u32 = 10;

/// What a node looks at.
#[derive(Debug, Clone, Copy)]
pub struct PlacementInput<'a> {
    /// The applied cluster state.
    pub state: &'a ClusterState,
    /// This node.
    pub me: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// What its keeper sees.
    pub view: &'a KeeperView,
    /// Whether this process is about to end.
    pub stopping: bool,
}

/// What this node remembers of an extent.
#[derive(Debug, Clone, Copy)]
struct Watched {
    epoch: Epoch,
    /// Since when this epoch, with the same preferred node in sync, stands.
    since: Mono,
    ready: Option<NodeId>,
    asked: Option<Mono>,
    /// Another node than the preferred one reigns.
    away: bool,
    /// When it went back last, and how often that did not last.
    returned: Option<Mono>,
    doublings: u32,
}

/// One per node.
#[derive(Debug, Default)]
pub struct Placement {
    extents: BTreeMap<ExtentId, Watched>,
}

impl Placement {
    /// One that has watched nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which extents should be handed over now, and to whom.
    pub fn tick(&mut self, now: Mono, input: &PlacementInput<'_>) -> Vec<(ExtentId, NodeId)> {
        self.extents.retain(|id, _| input.state.extents.contains_key(id));
        let mut moves = Vec::new();
        for (id, extent) in &input.state.extents {
            let watched = self.watch(now, input, *id, extent);
            if extent.share(input.me, input.incarnation) != Share::Primary {
                continue;
            }
            let wanted = asked(extent)
                .or_else(|| away(input, *id, extent))
                .or_else(|| back(now, input, extent, watched))
                .filter(|to| input.state.may_reign(*to, *id) && input.state.voters.members.contains(to));
            let due = watched.asked.is_none_or(|at| now.since(at) >= AGAIN_AFTER);
            if let Some(to) = wanted.filter(|_| due) {
                watched.asked = Some(now);
                moves.push((*id, to));
            }
        }
        moves
    }

    fn watch(
        &mut self,
        now: Mono,
        input: &PlacementInput<'_>,
        id: ExtentId,
        extent: &Extent,
    ) -> &mut Watched {
        let home = extent.preferred.is_some() && extent.primary == extent.preferred;
        let away = extent.primary.is_some() && !home;
        let ready = extent.preferred.filter(|node| extent.in_sync.contains(node));
        let watched = self.extents.entry(id).or_insert(Watched {
            epoch: extent.epoch,
            since: now,
            ready,
            asked: None,
            away,
            returned: None,
            doublings: 0,
        });
        if watched.epoch != extent.epoch {
            watched.epoch = extent.epoch;
            watched.asked = None;
            watched.since = now;
            let wait = wait(input, watched.doublings);
            if home && watched.away {
                watched.returned = Some(now);
            } else if !home && let Some(returned) = watched.returned.take() {
                let lasted = now.since(returned) >= wait.saturating_mul(LASTED_AFTER);
                watched.doublings = if lasted {
                    0
                } else {
                    (watched.doublings + 1).min(DOUBLINGS_MAX)
                };
            }
        }
        watched.away = away;
        if watched.ready != ready {
            watched.ready = ready;
            watched.since = now;
        }
        watched
    }
}

fn wait(input: &PlacementInput<'_>, doublings: u32) -> Duration {
    let setting = input.state.settings.time(SettingKey::FailbackAfter);
    setting.unwrap_or(Duration::MAX).saturating_mul(1 << doublings)
}

/// Somebody asked for it, and the replica there has not begun to go since.
fn asked(extent: &Extent) -> Option<NodeId> {
    extent.handover.filter(|to| !extent.retiring.contains(to))
}

/// This node is to serve it no longer: whoever is in sync, up and staying gets it; the preferred node first, then who serves least.
fn away(input: &PlacementInput<'_>, id: ExtentId, extent: &Extent) -> Option<NodeId> {
    let state = input.state;
    let leaves = state
        .node(input.me)
        .is_none_or(|member| member.draining || member.leaving);
    if !(input.stopping || leaves || extent.retiring.contains(&input.me)) {
        return None;
    }
    let load = |node: NodeId| {
        state
            .extents
            .values()
            .filter(|other| other.primary == Some(node))
            .count()
    };
    let others = extent.in_sync.iter().copied().filter(|node| {
        let heard = input.view.peers.get(node).is_some_and(|peer| peer.is_heard());
        let fit = state.may_take(*node) && state.may_reign(*node, id);
        *node != input.me && heard && fit && !extent.retiring.contains(node)
    });
    others.min_by_key(|node| (Some(*node) != extent.preferred, load(*node), *node))
}

/// The preferred node is back, and has been for long enough.
fn back(now: Mono, input: &PlacementInput<'_>, extent: &Extent, watched: &Watched) -> Option<NodeId> {
    let state = input.state;
    state.settings.time(SettingKey::FailbackAfter)?;
    let to = watched
        .ready
        .filter(|node| *node != input.me && state.may_take(*node))?;
    let wait = wait(input, watched.doublings);
    let calm = state.nodes.values().all(|node| !node.is_suspect());
    let stable = input
        .view
        .peers
        .get(&to)
        .is_some_and(|peer| peer.both_for >= wait);
    let full = extent.replicas.iter().all(|node| extent.in_sync.contains(node));
    (calm && stable && full && now.since(watched.since) >= wait).then_some(to)
}

#[cfg(test)]
#[path = "placement_test.rs"]
mod tests;
