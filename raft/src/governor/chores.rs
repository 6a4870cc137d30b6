//! What a leader finishes for others once its condition holds: each is checked again when it is applied.

use holdfast_types::{NodeId, Revision};

use super::members::{MemberStep, member_step};
use super::policy::{GovernorInput, Proposal};
use crate::fault::{self, Fault};
use crate::model::AdminCommand;

/// Something to finish; the same one is proposed again only after a while.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chore {
    Lease(Revision),
    Forget(NodeId),
    Members(MemberStep),
}

/// All that can be finished now.
pub(super) fn chores(input: &GovernorInput<'_>) -> impl Iterator<Item = (Chore, Proposal)> {
    let mut found = Vec::new();
    if let Some(since) = settled_lease(input) {
        found.push((Chore::Lease(since), command(AdminCommand::LeaseSettled { since })));
    }
    if let Some(node) = gone(input) {
        found.push((Chore::Forget(node), command(AdminCommand::ForgetNode { node })));
    }
    if let Some(step) = member_step(input) {
        found.push((Chore::Members(step.clone()), Proposal::Members(step)));
    }
    found.into_iter()
}

fn command(command: AdminCommand) -> Proposal {
    Proposal::Command(command.into())
}

/// L2: every voter says that it has applied the newest change of the lease time. From then on it counts with no longer one, in this run
/// and, since a run holds no lease before it has caught up, in every later one.
fn settled_lease(input: &GovernorInput<'_>) -> Option<Revision> {
    let since = input.state.settings.longer_lease?.since;
    let has_applied = |node: NodeId| {
        let told = input.view.peers.get(&node).and_then(|peer| peer.told.as_ref());
        node == input.me
            || told.is_some_and(|told| told.revision >= since)
            || fault::on(Fault::LeaseSettledAtOnce)
    };
    let all = input.state.voters.all();
    (!input.state.voters.is_joint() && all.into_iter().all(has_applied)).then_some(since)
}

/// A node that leaves, and that neither Raft nor an extent knows any more.
fn gone(input: &GovernorInput<'_>) -> Option<NodeId> {
    let (state, raft) = (input.state, input.raft);
    let used = |node: &NodeId| {
        state.voters.contains(*node)
            || raft.voters.iter().any(|set| set.contains(node))
            || raft.learners.contains(node)
            || state
                .extents
                .values()
                .any(|extent| extent.replicas.contains(node))
    };
    let leaving = state.nodes.iter().filter(|(_, node)| node.leaving);
    leaving
        .map(|(id, _)| *id)
        .find(|node| !used(node) && !raft.voters.is_empty())
}
