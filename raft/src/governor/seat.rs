//! Where leadership rests in peace (L6).
//!
//! A lost primary is replaced fastest when the leader is somebody else, for then no election is needed. So leadership is drawn to a
//! witness, as long as that one stores entries quickly; without one it rests on the primary of most extents, whose proposals are then the
//! shortest. Nothing depends on it but time, so it moves rarely: only when everybody hears everybody, when the better seat has been the
//! same one for a while, and more and more rarely should it come back each time.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_types::{Mono, NodeId};

use super::policy::GovernorInput;
use crate::model::{ClusterState, Role};

/// A better seat has to be the same one for this long, and the leader the same one too, before leadership moves.
const CALM: Duration = Duration::from_secs(5);
/// That time doubles with each move after which leadership came back, up to this many times.
const DOUBLINGS_MAX: u32 = 6;
/// A move that held this many times the calm that it waited for has proved itself.
const PROVED_AFTER: u32 = 12;
/// A witness may take this long to store an entry, round trip included, whatever the others take.
const STORE_ALWAYS: Duration = Duration::from_millis(25);
/// It may also take this many times as long as the fastest other voter.
const STORE_TIMES: u32 = 4;
/// A witness that leads already may be this much slower still: figures that waver do not move leadership.
const STORE_SLACK: u32 = 2;

/// What one node remembers of leadership.
#[derive(Debug, Default)]
pub(super) struct Seat {
    leads_since: Option<Mono>,
    better: Option<(NodeId, Mono)>,
    given: Option<Mono>,
    doublings: u32,
}

impl Seat {
    /// To be called at each look, whether this node leads or not.
    pub(super) fn watch(&mut self, now: Mono, leads: bool) {
        if !leads {
            self.leads_since = None;
            self.better = None;
        } else if self.leads_since.is_none() {
            self.leads_since = Some(now);
            if let Some(given) = self.given.take() {
                // It was given away, and is back.
                let proved = now.since(given) >= self.calm() * PROVED_AFTER;
                self.doublings = if proved {
                    0
                } else {
                    (self.doublings + 1).min(DOUBLINGS_MAX)
                };
            }
        }
    }

    fn calm(&self) -> Duration {
        CALM * (1 << self.doublings)
    }

    /// Who should get leadership now from this node, which leads.
    pub(super) fn move_to(&mut self, now: Mono, input: &GovernorInput<'_>) -> Option<NodeId> {
        let better = is_peace(input).then(|| best(input)).flatten();
        let Some(better) = better.filter(|node| *node != input.me) else {
            self.better = None;
            return None;
        };
        let since = match self.better {
            Some((node, since)) if node == better => since,
            _ => now,
        };
        self.better = Some((better, since));
        let from = self.leads_since.map_or(now, |leads| leads.max(since));
        (now.since(from) >= self.calm()).then_some(better)
    }

    /// It was handed on.
    pub(super) fn moved(&mut self, now: Mono) {
        self.given = Some(now);
        self.better = None;
        // Should the hand-over fail, the next try waits as long again.
        self.leads_since = self.leads_since.map(|_| now);
    }
}

/// Nobody is suspect, and every voter is heard and hears every other one.
fn is_peace(input: &GovernorInput<'_>) -> bool {
    let voters = &input.state.voters;
    let hears_all = |node: &NodeId| {
        input.view.peers.get(node).is_some_and(|peer| {
            let others = voters.members.iter().filter(|other| *other != node);
            peer.is_heard() && others.into_iter().all(|other| peer.says_it_hears(*other))
        })
    };
    !voters.is_joint()
        && input.state.nodes.values().all(|node| !node.is_suspect())
        && voters
            .members
            .iter()
            .filter(|node| **node != input.me)
            .all(hears_all)
}

/// A witness that stores quickly enough, else the primary of most extents; the leader itself where nobody is better.
fn best(input: &GovernorInput<'_>) -> Option<NodeId> {
    let state = input.state;
    let fit = |node: NodeId| {
        state.voters.members.contains(&node)
            && state
                .node(node)
                .is_some_and(|member| !member.draining && !member.leaving)
            && (node == input.me || has_caught_up(input, node))
    };
    let witness = |node: &NodeId| {
        state
            .node(*node)
            .is_some_and(|member| member.role == Role::Witness)
    };
    let mut witnesses: Vec<NodeId> = state.nodes.keys().copied().filter(witness).collect();
    witnesses.sort_unstable_by_key(|node| *node != input.me);
    if let Some(quick) = witnesses
        .into_iter()
        .find(|node| fit(*node) && is_quick(input, *node))
    {
        return Some(quick);
    }
    let shares = primaries(state);
    let share = |node: NodeId| shares.get(&node).copied().unwrap_or(0);
    let data = state
        .nodes
        .keys()
        .copied()
        .filter(|node| !witness(node) && fit(*node));
    // Of equals the leader itself, then the first.
    data.max_by_key(|node| (share(*node), *node == input.me, std::cmp::Reverse(*node)))
}

fn primaries(state: &ClusterState) -> BTreeMap<NodeId, usize> {
    let mut shares = BTreeMap::new();
    for primary in state.extents.values().filter_map(|extent| extent.primary) {
        *shares.entry(primary).or_default() += 1;
    }
    shares
}

/// Whether a witness stores entries about as quickly as the others do. One that was never measured may lead: it is measured then.
fn is_quick(input: &GovernorInput<'_>, witness: NodeId) -> bool {
    let store = &input.raft.store;
    let Some(mine) = store.get(&witness) else {
        return true;
    };
    let others = store.iter().filter(|(node, _)| **node != witness);
    let fastest = others.map(|(_, took)| *took).min().unwrap_or_default();
    let mut limit = STORE_ALWAYS.max(fastest * STORE_TIMES);
    if witness == input.me {
        limit *= STORE_SLACK;
    }
    *mine <= limit
}

/// L6: whether that voter's log has all that is committed.
pub(super) fn has_caught_up(input: &GovernorInput<'_>, node: NodeId) -> bool {
    input
        .raft
        .matched
        .get(&node)
        .is_some_and(|matched| *matched >= input.raft.committed)
}
