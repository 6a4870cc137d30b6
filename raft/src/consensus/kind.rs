//! openraft closed over one configuration. No other module of the project names its types.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use holdfast_types::NodeId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{Command, Reply};

openraft::declare_raft_types!(
    /// The one configuration of openraft that the project uses.
    pub(crate) Kind:
        D = Proposal,
        R = Reply,
        NodeId = NodeId,
        Node = PeerAddress,
        LeaderId = openraft::impls::leader_id_adv::LeaderId<Self::Term, Self::NodeId>,
);

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Kind>;
pub(crate) type LeaderId = openraft::type_config::alias::LeaderIdOf<Kind>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Kind>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Kind>;
pub(crate) type Payload = openraft::type_config::alias::PayloadOf<Kind>;
pub(crate) type Membership = openraft::Membership<NodeId, PeerAddress>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Kind>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Kind>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Kind, bytes::Bytes>;
pub(crate) type IoFlushed = openraft::storage::IOFlushed<Kind>;
pub(crate) type Raft = openraft::Raft<Kind, super::machine::StateMachine>;

/// A log id from its parts.
pub(crate) fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId {
            term,
            node_id: NodeId(node),
        },
        index,
    }
}

/// Where a voter listens for Raft messages: what the membership knows of a node. The cluster state has the address in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerAddress {
    pub(crate) raft: SocketAddr,
}

impl Default for PeerAddress {
    /// Nowhere; only openraft's storage suite makes such nodes.
    fn default() -> Self {
        Self {
            raft: (Ipv4Addr::UNSPECIFIED, 0).into(),
        }
    }
}

/// A command in the log. Shared, because the log, the peers and the state machine each hold it for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Arc<Command>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Command::deserialize(deserializer).map(|command| Self(Arc::new(command)))
    }
}
