//! How the control plane of a node is started.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_trust::Trust;
use holdfast_types::NodeId;
use openraft::SnapshotPolicy;

use super::error::StartError;
use crate::model::ClusterId;

/// Times of Raft and of its messages. The defaults suit machines on one LAN; virtual machines and busy disks may want a heartbeat of
/// 100 ms and elections of 300 to 600 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Shortest election timeout. Must be above `heartbeat`.
    pub election_min: Duration,
    /// Longest election timeout, and how long a voter stays with a leader that it heard. Must be above `election_min`.
    pub election_max: Duration,
    /// Longest time for a TCP connection to a peer to come about.
    pub connect: Duration,
    /// Longest time for a proposal, counted from the call to its reply.
    pub propose: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            connect: Duration::from_millis(250),
            propose: Duration::from_secs(5),
        }
    }
}

/// What [`super::Control::start`] needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory for log, snapshots and applied state. Made if it is not there.
    pub dir: PathBuf,
    /// The cluster that the node belongs to. Peers of another one are refused.
    pub cluster: ClusterId,
    /// The node's id, not 0; never one that was used before with another log (L8).
    pub node: NodeId,
    /// The node was a voter before: without a log it stays out instead of starting with an empty one (L8).
    pub expect_log: bool,
    /// With what it proves who it is, and has peers prove it.
    pub trust: Arc<Trust>,
    /// Times.
    pub timers: Timers,
    /// A snapshot is taken after that many entries; about twice as many stay in the log. At least 16.
    pub snapshot_after: u64,
}

impl Config {
    /// The defaults for a node.
    pub fn new(dir: impl Into<PathBuf>, cluster: ClusterId, node: NodeId, trust: Arc<Trust>) -> Self {
        Self {
            dir: dir.into(),
            cluster,
            node,
            expect_log: false,
            trust,
            timers: Timers::default(),
            snapshot_after: 2000,
        }
    }

    pub(crate) fn openraft(&self) -> Result<openraft::Config, StartError> {
        if self.node == NodeId(0) {
            return Err(StartError::Config("node id 0 is nobody's".into()));
        }
        if self.snapshot_after < 16 {
            return Err(StartError::Config("snapshot_after must be at least 16".into()));
        }
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: ms(self.timers.heartbeat),
            election_timeout_min: ms(self.timers.election_min),
            election_timeout_max: ms(self.timers.election_max),
            install_snapshot_timeout: 30_000,
            max_payload_entries: 256,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_after),
            // The snapshot before the newest must do together with the log, should the newest break.
            max_in_snapshot_log_to_keep: self.snapshot_after + self.snapshot_after / 4,
            purge_batch_size: (self.snapshot_after / 4).min(256),
            replication_lag_threshold: self.snapshot_after * 4,
            enable_pre_vote: Some(true),
            // A restarted leader asks for votes like anybody else.
            enable_leader_restore: Some(false),
            ..openraft::Config::default()
        };
        config
            .validate()
            .map_err(|error| StartError::Config(format!("the timers of Raft do not fit together: {error}")))
    }
}
