//! Status as JSON. Scripts rely on these fields; more may come, none goes.

use std::fmt;

use holdfast_raft::model::{AcceptedLoss, ClusterId, SecondaryAccess, Takeover};
use holdfast_types::{ExtentId, IscsiName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{AccessStatus, TargetAccessStatus};
use super::reservations::ReservationStatus;

/// How the cluster is, worst of all extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Health {
    /// Every block is on every replica, every node is up, and any node may be lost.
    Ok,
    /// Everything is served, but a node or a replica is missing.
    Degraded,
    /// Everything is served, but the next loss stops something.
    AtRisk,
    /// Something is not served.
    Down,
}

impl Health {
    /// Exit status of `status --check`, as monitoring plugins have it: 0 fine, 1 warning, 2 critical.
    pub(crate) const fn exit_status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Degraded => 1,
            Self::AtRisk | Self::Down => 2,
        }
    }
}

/// What `holdfast status --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct StatusDocument {
    pub(crate) cluster: String,
    pub(crate) health: Health,
    /// Why health is not ok, for people.
    pub(crate) reasons: Vec<String>,
    pub(crate) alarms: Vec<String>,
    pub(crate) sessions: Vec<SessionStatus>,
    pub(crate) quorum: bool,
    pub(crate) leader: Option<String>,
    pub(crate) revision: u64,
    /// The node that answered.
    pub(crate) answered_by: String,
    pub(crate) nodes: Vec<NodeStatus>,
    pub(crate) extents: Vec<ExtentStatus>,
    pub(crate) targets: Vec<TargetStatus>,
    /// Initiator groups and CHAP users.
    #[serde(default)]
    pub(crate) access: AccessStatus,
    #[serde(default)]
    pub(crate) portals: Vec<PortalStatus>,
    /// iSNS servers, and what they know.
    #[serde(default)]
    pub(crate) isns: Vec<IsnsStatus>,
    /// The links of the node that answers to other data nodes.
    #[serde(default)]
    pub(crate) replication: Vec<ReplicationStatus>,
    /// The id of the cluster's present incarnation: a takeover without a quorum begins a new one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) cluster_id: Option<ClusterId>,
    /// Every takeover without a quorum that there has been, oldest first.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub(crate) takeovers: Vec<Takeover>,
    /// Every loss of data that an operator has accepted, oldest first.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub(crate) losses: Vec<AcceptedLoss>,
}

/// An iSCSI portal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct PortalStatus {
    pub(crate) node: String,
    #[schema(value_type = String)]
    pub(crate) address: std::net::SocketAddr,
    /// Its portal group: TPGT, and target port group of its units.
    pub(crate) group: u16,
}

/// Replication between the node that answers and another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ReplicationStatus {
    pub(crate) peer: String,
    /// How often it has moved from one link to another, since the node that answers was started.
    pub(crate) moves: u64,
    /// One for each pair of addresses, the preferred one first.
    pub(crate) links: Vec<LinkStatus>,
}

/// A link between two data nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct LinkStatus {
    /// The other node's address.
    pub(crate) address: String,
    pub(crate) up: bool,
    /// Replication runs over it.
    pub(crate) used: bool,
    /// It is down while another one works, and not only for a moment.
    pub(crate) failed: bool,
    /// Why it failed last.
    pub(crate) error: Option<String>,
}

/// An iSNS server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct IsnsStatus {
    #[schema(value_type = String)]
    pub(crate) server: std::net::SocketAddr,
    /// The node that speaks for the cluster.
    pub(crate) told_by: Option<String>,
    /// Whether it knows all targets and portals, as far as that node knows; `None` at other nodes.
    pub(crate) registered: Option<bool>,
    /// Why the last try failed.
    pub(crate) error: Option<String>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct NodeStatus {
    pub(crate) name: String,
    pub(crate) role: crate::config::Role,
    pub(crate) state: NodeState,
    /// Whether it holds its quorum lease; known of the node that answers, and of others by what they say.
    pub(crate) lease: bool,
    pub(crate) voter: bool,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeState {
    Up,
    Down,
    Starting,
    Draining,
}

/// An extent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ExtentStatus {
    pub(crate) name: String,
    #[schema(value_type = String)]
    pub(crate) id: ExtentId,
    pub(crate) naa: String,
    pub(crate) size_bytes: u64,
    pub(crate) block_size: u32,
    /// Writes are acknowledged before they are stable (WCE=1).
    #[serde(default)]
    pub(crate) write_cache: bool,
    /// Reads wait until the epoch is confirmed. This and the next two are not told by every release.
    #[serde(default)]
    pub(crate) confirmed_reads: Option<bool>,
    /// Space is allocated as it is written.
    #[serde(default)]
    pub(crate) thin: Option<bool>,
    /// It lies on block devices of the nodes.
    #[serde(default)]
    pub(crate) on_devices: bool,
    /// How nodes other than the primary show it.
    #[serde(default)]
    pub(crate) secondary: Option<Secondary>,
    pub(crate) epoch: u64,
    /// Where it is when all is well.
    #[serde(default)]
    pub(crate) preferred: Option<String>,
    pub(crate) primary: Option<String>,
    /// Whether the primary serves: it is up, its log's tail is settled.
    pub(crate) served: bool,
    pub(crate) in_sync: Vec<String>,
    pub(crate) replicas: Vec<ReplicaStatus>,
    /// Who has registered with it or reserved it; `None` for nobody.
    #[serde(default)]
    pub(crate) reservation: Option<ReservationStatus>,
    /// Scrubs; known of the primary's node.
    #[serde(default)]
    pub(crate) scrub: Option<ScrubStatus>,
}

/// What the primary's node knows of an extent's scrubs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ScrubStatus {
    /// Somebody asked for one that has not ended yet; `scrub` of a replica says how far it is.
    pub(crate) asked_for: bool,
    /// The last one that this node ended.
    pub(crate) last: Option<ScrubResult>,
}

/// A scrub that has ended. Blocks are counted at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ScrubResult {
    /// When, in seconds since 1970.
    pub(crate) ended_unix_seconds: u64,
    pub(crate) took_seconds: u64,
    /// Blocks that were not what was written, on either side.
    pub(crate) bad_blocks: u64,
    /// Of these, repaired.
    pub(crate) repaired_blocks: u64,
    /// Of these, bad on every replica in sync.
    pub(crate) lost_blocks: u64,
    /// Blocks in which replicas differed though both checksums were right.
    pub(crate) diverged_blocks: u64,
}

/// What a group is towards an extent that works but is not the primary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Secondary {
    /// Its node forwards commands to the primary.
    NonOptimized,
    /// It answers questions and carries no data.
    Standby,
}

impl fmt::Display for Secondary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NonOptimized => "non-optimized",
            Self::Standby => "standby",
        })
    }
}

impl From<SecondaryAccess> for Secondary {
    fn from(access: SecondaryAccess) -> Self {
        match access {
            SecondaryAccess::NonOptimized => Self::NonOptimized,
            SecondaryAccess::Standby => Self::Standby,
        }
    }
}

/// A replica of an extent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ReplicaStatus {
    pub(crate) node: String,
    pub(crate) state: ReplicaState,
    /// As far as the answering node knows; 0 where it knows nothing, as a witness.
    pub(crate) applied_lsn: u64,
    pub(crate) resync: Option<ResyncStatus>,
    /// It is in sync and being compared with the primary; known of the primary's node.
    #[serde(default)]
    pub(crate) scrub: Option<ResyncStatus>,
    /// It goes once the others are in sync.
    #[serde(default)]
    pub(crate) retiring: bool,
}

/// Where a replica stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplicaState {
    InSync,
    Resyncing,
    Offline,
    Fenced,
}

/// A resync's progress.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ResyncStatus {
    /// 0 to 1.
    pub(crate) done: f64,
    pub(crate) bytes_left: u64,
    /// Bytes a second, compared or copied.
    pub(crate) rate: u64,
}

/// An initiator's session on the answering node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct SessionStatus {
    /// Names it to `session close` on that node; never used again while the node runs.
    #[serde(default)]
    pub(crate) id: u64,
    pub(crate) initiator: String,
    pub(crate) target: Option<String>,
    pub(crate) portal: String,
    pub(crate) peer: String,
    pub(crate) node: String,
    /// The initiator group that let it in; `None` where everyone may use the target.
    #[serde(default)]
    pub(crate) group: Option<String>,
    /// The CHAP user that it has proven to be.
    #[serde(default)]
    pub(crate) user: Option<String>,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TargetStatus {
    #[schema(value_type = String)]
    pub(crate) iqn: IscsiName,
    pub(crate) luns: Vec<LunStatus>,
    #[serde(default)]
    pub(crate) access: TargetAccessStatus,
}

/// A LUN of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct LunStatus {
    pub(crate) lun: u16,
    pub(crate) extent: String,
    pub(crate) groups: Vec<GroupStatus>,
}

/// A target port group of a LUN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct GroupStatus {
    pub(crate) node: String,
    pub(crate) id: u16,
    /// As SPC prints it: `active/optimized`, `active/non-optimized`, `standby`, `transitioning`, …
    pub(crate) state: String,
    pub(crate) preferred: bool,
}

#[cfg(test)]
#[path = "document_test.rs"]
mod tests;
