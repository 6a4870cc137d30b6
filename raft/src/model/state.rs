//! What the cluster has agreed on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use holdfast_alua::SecondaryAccess;
use holdfast_scsi::reservation::UnitState;
use holdfast_types::{
    BlockSize, Epoch, ExtentId, InSyncVersion, Incarnation, IscsiName, LeaseGeneration, Lun, NodeId,
    Revision, SuspicionId, TpgId,
};
use serde::{Deserialize, Serialize};

use super::access::Access;
use super::api_tokens::ApiToken;
use super::apply_unit::AnsweredCalls;
use super::audit::Audit;
use super::cache::WriteCache;
use super::certificates::Certificates;
use super::importing::Importing;
use super::members::Token;
use super::settings::Settings;
use super::takeover::{AcceptedLoss, Takeover};

/// Format of a stored [`ClusterState`]. A reader refuses a newer one.
pub const STATE_FORMAT: u32 = 2;

/// The id of one incarnation of a cluster: drawn by `cluster init`, and anew by each takeover without a quorum (T1). Nothing that
/// initiators see comes from it. Stored as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// A short form for datagrams, so that the traffic of another cluster is told apart: the two halves folded together.
    pub const fn short(self) -> u64 {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0.to_be_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) ^ u64::from_be_bytes([i, j, k, l, m, n, o, p])
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ClusterId> for String {
    fn from(id: ClusterId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for ClusterId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("a cluster id has 32 hexadecimal digits".into());
        }
        u128::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|e| e.to_string())
    }
}

/// The cluster's name and id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterIdentity {
    /// The name people gave it.
    pub name: String,
    /// The id of its present incarnation.
    pub id: ClusterId,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Keeps replicas and serves initiators.
    Data,
    /// Votes and keeps the cluster state, has no extents.
    Witness,
}

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// Raft messages (TCP).
    pub raft: SocketAddr,
    /// Replication and forwarded commands (TCP); `None` for a witness.
    #[serde(default)]
    pub replication: Option<SocketAddr>,
    /// Further addresses for the same, which are used while the first does not work, in order of preference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spare_replication: Vec<SocketAddr>,
    /// The admin service (TCP); `None` where it is reached through a local socket only.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// Heartbeats (UDP).
    pub heartbeat: SocketAddr,
    /// iSCSI portals of the node's home set (TCP); empty for a witness.
    #[serde(default)]
    pub portals: Vec<SocketAddr>,
}

impl NodeAddresses {
    /// All addresses for replication, the preferred one first; none of a witness.
    pub fn replication_links(&self) -> Vec<SocketAddr> {
        self.replication
            .into_iter()
            .chain(self.spare_replication.iter().copied())
            .collect()
    }
}

/// A cluster member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The name people gave it, unique in the cluster.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Where it listens.
    pub addresses: NodeAddresses,
    /// Its home set of portals: group id, TPGT and relative target port id. Unique, never used again.
    pub tpg: TpgId,
    /// Raised by each cleared suspicion (L4).
    #[serde(default)]
    pub lease_generation: LeaseGeneration,
    /// Set while the node is suspect (L3).
    #[serde(default)]
    pub suspicion: Option<SuspicionId>,
    /// The run that the node told of last.
    #[serde(default)]
    pub incarnation: Option<Incarnation>,
    /// The number of what that run announced last.
    #[serde(default)]
    pub announced: u64,
    /// Extents whose replica there cannot serve: damaged (J1) or fenced (J2), by the word of that run. None of them is given to it.
    #[serde(default)]
    pub unfit: BTreeSet<ExtentId>,
    /// Its extents move away, and none comes back to it.
    #[serde(default)]
    pub draining: bool,
    /// It is on its way out of the cluster; nothing new is given to it.
    #[serde(default)]
    pub leaving: bool,
}

impl Node {
    /// Whether a suspicion stands against it.
    pub const fn is_suspect(&self) -> bool {
        self.suspicion.is_some()
    }
}

/// An extent: a replicated volume, what a logical unit stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The name people gave it, unique in the cluster.
    pub name: String,
    /// Size in bytes, a multiple of the block size.
    pub size_bytes: u64,
    /// Logical block size.
    pub block_size: BlockSize,
    /// Whether space is allocated as it is written.
    #[serde(default)]
    pub thin: bool,
    /// Whether it lies on block devices of the nodes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_devices: bool,
    /// Reads wait until the epoch is confirmed since they came in (W4).
    #[serde(default)]
    pub confirmed_reads: bool,
    /// Whether writes are answered before they are stable, and who has them then (W5).
    #[serde(default)]
    pub cache: WriteCache,
    /// The data nodes that keep a replica, in sync or not.
    pub replicas: BTreeSet<NodeId>,
    /// How many there were before a takeover left fewer of them, until somebody says anew where replicas are to be; 0 otherwise.
    #[serde(default)]
    pub replicas_wanted: usize,
    /// Those of them that go once the others are in sync.
    #[serde(default)]
    pub retiring: BTreeSet<NodeId>,
    /// The replica that is primary when all is well.
    #[serde(default)]
    pub preferred: Option<NodeId>,
    /// Whom the primary was asked to hand over to; over with its reign.
    #[serde(default)]
    pub handover: Option<NodeId>,
    /// The present reign (I2). 0 until the extent had its first primary.
    pub epoch: Epoch,
    /// Who reigns; `None` where nobody may serve until an in-sync member opens the extent.
    pub primary: Option<NodeId>,
    /// The run of the primary that the epoch names (E1).
    pub primary_incarnation: Option<Incarnation>,
    /// Who holds every acknowledged write; holds the primary. Empty only after a takeover by a node that was not in it (T2), until what may
    /// be lost is accepted (T4).
    pub in_sync: BTreeSet<NodeId>,
    /// Raised by every change of primary or in-sync set (E2).
    pub version: InSyncVersion,
    /// How nodes other than the primary show the unit.
    #[serde(default)]
    pub secondary: SecondaryAccess,
    /// Raised whenever a port group's state towards this unit changes (P3).
    #[serde(default)]
    pub alua_changes: u64,
    /// Raised whenever the size changes (P3).
    #[serde(default)]
    pub capacity_changes: u64,
    /// The unit beyond its blocks: reservations, mode parameters, resets (I9, I13).
    #[serde(default)]
    pub unit: UnitState,
    /// The newest call of each node that changed, or was to change, the unit's state.
    #[serde(default)]
    pub answered: AnsweredCalls,
    /// The newest import of an image, if it did not say that it is over; see [`ClusterState::importing`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importing: Option<Importing>,
}

/// An iSCSI target and its LUN map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Which extent each LUN stands for.
    #[serde(default)]
    pub luns: BTreeMap<Lun, ExtentId>,
    /// Raised whenever the map changes (P3).
    #[serde(default)]
    pub lun_changes: u64,
}

/// Who votes. Lease and reports need a majority of the newest set, and of both sets while it is joint (L8).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterSet {
    /// Log index of the entry that made it.
    pub id: u64,
    /// Its members.
    pub members: BTreeSet<NodeId>,
    /// While it is being changed: the members before. Empty otherwise.
    #[serde(default)]
    pub outgoing: BTreeSet<NodeId>,
}

/// The committed cluster state: what every node holds after it applied the same entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// [`STATE_FORMAT`] of the writer.
    pub format: u32,
    /// Log index of the newest entry that is applied.
    pub revision: Revision,
    /// `None` before `cluster init`.
    pub cluster: Option<ClusterIdentity>,
    /// Cluster-wide settings.
    #[serde(default)]
    pub settings: Settings,
    /// Members.
    #[serde(default)]
    pub nodes: BTreeMap<NodeId, Node>,
    /// Who votes.
    #[serde(default)]
    pub voters: VoterSet,
    /// Extents.
    #[serde(default)]
    pub extents: BTreeMap<ExtentId, Extent>,
    /// Targets.
    #[serde(default)]
    pub targets: BTreeMap<IscsiName, Target>,
    /// Who may use what.
    #[serde(default)]
    pub access: Access,
    /// iSNS servers that are told of targets and portals (RFC 4171).
    #[serde(default)]
    pub isns: BTreeSet<SocketAddr>,
    /// The target port group id given last.
    #[serde(default)]
    pub last_tpg: TpgId,
    /// The newest node id that was given to a node that is gone.
    #[serde(default)]
    pub last_node: NodeId,
    /// The certificates of the nodes.
    #[serde(default)]
    pub certificates: Certificates,
    /// Tokens that let nodes in, used ones included.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// Tokens with which programs use the admin service, by their names.
    #[serde(default)]
    pub api_tokens: BTreeMap<String, ApiToken>,
    /// The newest calls that changed something, or were to.
    #[serde(default)]
    pub audit: Audit,
    /// Every takeover without a quorum, oldest first. None is ever removed.
    #[serde(default)]
    pub takeovers: Vec<Takeover>,
    /// Every accepted loss of data, oldest first. None is ever removed.
    #[serde(default)]
    pub losses: Vec<AcceptedLoss>,
}

impl Default for ClusterState {
    fn default() -> Self {
        Self {
            format: STATE_FORMAT,
            revision: Revision(0),
            cluster: None,
            settings: Settings::default(),
            nodes: BTreeMap::new(),
            voters: VoterSet::default(),
            extents: BTreeMap::new(),
            targets: BTreeMap::new(),
            access: Access::default(),
            last_tpg: TpgId(0),
            last_node: NodeId(0),
            certificates: Certificates::default(),
            tokens: Vec::new(),
            api_tokens: BTreeMap::new(),
            audit: Audit::new(),
            takeovers: Vec::new(),
            losses: Vec::new(),
            isns: BTreeSet::new(),
        }
    }
}

impl ClusterState {
    /// Whether `cluster init` was applied.
    pub const fn is_initialized(&self) -> bool {
        self.cluster.is_some()
    }

    /// The member `node`.
    pub fn node(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(&node)
    }

    /// The suspicion that stands against `node`.
    pub fn suspicion(&self, node: NodeId) -> Option<SuspicionId> {
        self.nodes.get(&node).and_then(|n| n.suspicion)
    }

    /// Whether a suspicion stands against `node`. A node that is no member counts as suspect: nothing is given to it.
    pub fn is_suspect(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_none_or(Node::is_suspect)
    }

    /// The node of that name.
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().find(|(_, n)| n.name == name).map(|(id, _)| *id)
    }

    /// The extent of that name.
    pub fn extent_named(&self, name: &str) -> Option<ExtentId> {
        self.extents
            .iter()
            .find(|(_, e)| e.name == name)
            .map(|(id, _)| *id)
    }

    /// An entry without a command (Raft's own) was applied.
    pub fn advance(&mut self, index: Revision) {
        self.revision = self.revision.max(index);
    }
}
