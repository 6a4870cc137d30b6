//! Steps of a change of Raft's membership (L8). Which ones, and when, is the governor's business.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};

use holdfast_types::NodeId;

use super::control::Control;
use super::error::MembershipError;
use super::kind::{Kind, PeerAddress};

/// Longest wait for a step.
const STEP: Duration = Duration::from_secs(10);

/// Who is in Raft's membership, by the newest one in this node's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Who votes: one set, or while it is joint two, the newer one last.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// Who gets the log without a vote.
    pub learners: BTreeSet<NodeId>,
}

impl Control {
    /// Raft's membership.
    pub fn membership(&self) -> Membership {
        let metrics = self.core().raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        Membership {
            voters: membership.get_joint_config().clone(),
            learners: membership.learner_ids().collect(),
        }
    }

    /// Sends the log to a new node from now on, on this node, which leads. Returns at once; the node catches up in its own time.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn add_learner(&self, node: NodeId) -> Result<(), MembershipError> {
        let state = self.state();
        let member = state.node(node).ok_or(MembershipError::NoAddress(node))?;
        let address = PeerAddress {
            raft: member.addresses.raft,
        };
        let added = self.core().raft.add_learner(node, address, false);
        outcome(tokio::time::timeout(STEP, added).await)
    }

    /// Makes `voters` the only voters, by way of a joint membership; of a joint one, this is the end. Those that lose their vote get
    /// nothing more. Every new one must be a learner.
    ///
    /// # Errors
    /// [`MembershipError`]. A step that is broken off leaves a joint membership; the same call ends it.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembershipError> {
        let changed = self
            .core()
            .raft
            .change_membership(ChangeMembers::ReplaceAllVoters(voters), false);
        outcome(tokio::time::timeout(STEP, changed).await)
    }

    /// Sends nothing more to a node without a vote.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), MembershipError> {
        let gone = BTreeSet::from([node]);
        let changed = self
            .core()
            .raft
            .change_membership(ChangeMembers::RemoveNodes(gone), false);
        outcome(tokio::time::timeout(STEP, changed).await)
    }
}

fn outcome<T>(
    result: Result<Result<T, RaftError<Kind, ClientWriteError<Kind>>>, tokio::time::error::Elapsed>,
) -> Result<(), MembershipError> {
    match result {
        Ok(Ok(_)) => Ok(()),
        Err(_) => Err(MembershipError::Timeout),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(MembershipError::NotLeader),
        Ok(Err(RaftError::APIError(error))) => Err(MembershipError::Refused(error.to_string())),
        Ok(Err(RaftError::Fatal(error))) => Err(MembershipError::Stopped(error.to_string())),
    }
}
