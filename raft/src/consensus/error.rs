//! Errors of the control plane, each one line that says what to do.

use std::path::PathBuf;

use holdfast_types::{NodeId, Revision};

use crate::model::ClusterId;

/// Why the control plane does not start. The node stays out of the cluster; the cluster serves on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// L8: a voter whose log is damaged could break promises that it gave.
    #[error(
        "the Raft log in {dir} is damaged ({why}); this node stays out: remove it from the cluster and add it again as a new member"
    )]
    LogDamaged {
        /// Where.
        dir: PathBuf,
        /// What was found.
        why: String,
    },
    /// L8, as above: what is beside it proves that there was one.
    #[error(
        "the Raft log in {dir} is gone, but {proof}; this node stays out: remove it from the cluster and add it again as a new member"
    )]
    LogGone {
        /// Where.
        dir: PathBuf,
        /// Why there must have been one.
        proof: String,
    },
    /// The directory belongs to another node or cluster.
    #[error(
        "the Raft log in {dir} belongs to node {found_node} of cluster {found_cluster}, not to node {node} of cluster {cluster}"
    )]
    OtherOwner {
        /// Where.
        dir: PathBuf,
        /// Whose it is.
        found_node: NodeId,
        /// Of which cluster.
        found_cluster: ClusterId,
        /// Who asked.
        node: NodeId,
        /// Of which cluster.
        cluster: ClusterId,
    },
    /// Neither the applied state nor a snapshot together with the log gives the committed state.
    #[error(
        "the cluster state in {dir} cannot be rebuilt ({why}); this node stays out: remove it from the cluster and add it \
         again as a new member"
    )]
    StateLost {
        /// Where.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// Written by a newer version.
    #[error("{path} was written by a newer version of holdfast ({what}); install that version")]
    Newer {
        /// Which file or directory.
        path: PathBuf,
        /// What is newer.
        what: String,
    },
    /// A setting that cannot work.
    #[error("{0}")]
    Config(String),
    /// The disk or the system.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// Raft itself.
    #[error("Raft does not start: {0}")]
    Raft(String),
}

impl StartError {
    pub(crate) fn io(what: impl Into<String>, error: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            error,
        }
    }
}

/// Why a cluster could not be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InitializeError {
    /// This node is no member of what it should initialize, or there are no members.
    #[error("{0}")]
    Invalid(String),
    /// It has a log or has voted already.
    #[error("this node belongs to a cluster already")]
    AlreadyInitialized,
    /// Raft has stopped.
    #[error("the control plane has stopped: {0}")]
    Stopped(String),
}

/// Why a proposal has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No leader was found in the time allowed, and nothing was proposed.
    #[error("no leader is known: the cluster has no quorum, or an election is under way")]
    NoLeader,
    /// It was proposed, but no reply came in time; it may or may not take effect.
    #[error("no reply in time; the command may or may not take effect")]
    Timeout,
    /// It is committed, but this node has not applied it in time.
    #[error(
        "the cluster has decided (entry {0}), but this node does not know what came of it yet: look in a moment"
    )]
    NotApplied(Revision),
    /// The command can never be proposed.
    #[error("{0}")]
    Refused(String),
    /// Raft has stopped on this node.
    #[error("the control plane of this node has stopped: {0}")]
    Stopped(String),
}

/// Why there is no confirmed commit index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// No leader confirmed one in the time allowed.
    #[error("no leader confirmed a commit index: the cluster has no quorum, or an election is under way")]
    NoLeader,
    /// Raft has stopped on this node.
    #[error("the control plane of this node has stopped: {0}")]
    Stopped(String),
}

/// Why leadership did not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader can hand leadership over.
    #[error("this node does not lead")]
    NotLeader,
    /// The receiver does not vote.
    #[error("node {0} is no voter")]
    NotVoter(NodeId),
    /// The receiver misses entries (L6).
    #[error("node {node} has not caught up: it misses {missing} entries")]
    Behind {
        /// Who.
        node: NodeId,
        /// How many entries.
        missing: u64,
    },
    /// It was asked for, but did not happen in time; it may still.
    #[error("node {0} did not take leadership in time")]
    Timeout(NodeId),
    /// Raft has stopped on this node.
    #[error("the control plane of this node has stopped: {0}")]
    Stopped(String),
}

/// Why Raft's membership did not change. The step is taken again while it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader can change it.
    #[error("this node does not lead")]
    NotLeader,
    /// Raft refuses the step.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows where the node listens.
    #[error("the address of node {0} is not known")]
    NoAddress(NodeId),
    /// No majority has stored it in time; it may still take effect.
    #[error("no majority has stored it in time")]
    Timeout,
    /// Raft has stopped on this node.
    #[error("the control plane of this node has stopped: {0}")]
    Stopped(String),
}
