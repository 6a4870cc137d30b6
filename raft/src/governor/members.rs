//! Raft's membership follows the nodes of the cluster state, one voter at a time (L8).
//!
//! Each look gives at most one step, out of what is committed and what Raft's membership is: whoever leads goes on where the one before was
//! broken off. A step that has begun (a joint membership) is always brought to its end first.

use std::collections::BTreeSet;

use holdfast_types::NodeId;

use super::policy::GovernorInput;
use super::seat::has_caught_up;
use crate::model::ClusterState;

/// Entries that a new node may still miss when it gets a vote.
const CLOSE: u64 = 64;

/// One step of a change of Raft's membership.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberStep {
    /// Send the log to that node, which has no vote yet.
    AddLearner(NodeId),
    /// These vote; of a joint membership, this ends it.
    SetVoters(BTreeSet<NodeId>),
    /// That node gets nothing more.
    RemoveLearner(NodeId),
    /// This node would lose its vote: somebody else leads first.
    HandOver(NodeId),
}

/// The next step, if one is wanted and allowed.
pub(super) fn member_step(input: &GovernorInput<'_>) -> Option<MemberStep> {
    let raft = input.raft;
    let current = match raft.voters.as_slice() {
        [] => return None,
        [current] => current,
        // Begun, so it is finished: the newer set is the last one.
        [.., newest] => return Some(MemberStep::SetVoters(newest.clone())),
    };
    let nodes = &input.state.nodes;
    let known = |node: &&NodeId| current.contains(node) || raft.learners.contains(node);
    if let Some(new) = nodes.iter().find(|(id, node)| !node.leaving && !known(id)) {
        return Some(MemberStep::AddLearner(*new.0));
    }
    if let Some(gone) = raft
        .learners
        .iter()
        .find(|id| nodes.get(id).is_none_or(|node| node.leaving))
    {
        return Some(MemberStep::RemoveLearner(*gone));
    }
    let comer = raft.learners.iter().copied().find(|node| is_close(input, *node));
    // Nobody goes while somebody else is to vote and cannot yet: in between there would be a voter less than before and after.
    let goes = |node: &NodeId| may_go(input.state, *node) && (comer.is_some() || raft.learners.is_empty());
    let goer = current.iter().copied().find(goes);
    if (goer.is_none() && comer.is_none()) || !is_calm(input, current, goer) {
        return None;
    }
    if goer == Some(input.me) {
        let fit = |node: &&NodeId| {
            **node != input.me && !input.state.is_suspect(**node) && has_caught_up(input, **node)
        };
        return current.iter().find(fit).map(|to| MemberStep::HandOver(*to));
    }
    let mut next = current.clone();
    next.extend(comer);
    next.retain(|node| Some(*node) != goer);
    (!next.is_empty()).then_some(MemberStep::SetVoters(next))
}

/// Whether `node` may lose its vote: it is leaving, and is a replica of nothing any more, which a leaving node never becomes again. To look
/// whether it is in sync or primary would not do: both may change while the step is on its way. Without a vote it holds no lease, and
/// nobody misses it.
fn may_go(state: &ClusterState, node: NodeId) -> bool {
    state.nodes.get(&node).is_none_or(|member| member.leaving)
        && !state
            .extents
            .values()
            .any(|extent| extent.replicas.contains(&node))
}

fn is_close(input: &GovernorInput<'_>, node: NodeId) -> bool {
    let matched = input.raft.matched.get(&node).copied().unwrap_or(0);
    matched > 0 && matched + CLOSE >= input.raft.committed
}

/// L8: no node is suspect, and all old voters are heard; but the one that goes, which may be dead.
fn is_calm(input: &GovernorInput<'_>, current: &BTreeSet<NodeId>, goer: Option<NodeId>) -> bool {
    let voters = &input.state.voters;
    let suspect = input
        .state
        .nodes
        .iter()
        .any(|(id, node)| node.is_suspect() && Some(*id) != goer);
    let heard = |node: &NodeId| {
        *node == input.me
            || Some(*node) == goer
            || input.view.peers.get(node).is_some_and(|peer| peer.is_heard())
    };
    !suspect && !voters.is_joint() && voters.members == *current && current.iter().all(heard)
}

#[cfg(test)]
#[path = "members_test.rs"]
mod tests;
