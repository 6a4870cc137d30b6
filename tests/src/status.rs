//! `holdfast status --json`: the fields that scripts may rely on. A field that is missing or of another type is an error.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

/// The whole document.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct Status {
    pub cluster: String,
    pub health: Health,
    pub reasons: Vec<serde_json::Value>,
    pub alarms: Vec<serde_json::Value>,
    pub sessions: Vec<serde_json::Value>,
    pub quorum: bool,
    pub leader: Option<String>,
    pub revision: u64,
    pub nodes: Vec<Node>,
    pub extents: Vec<Extent>,
    pub targets: Vec<Target>,
    #[serde(default)]
    pub replication: Vec<Replication>,
}

/// Links of the node that answers to another data node.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct Replication {
    pub peer: String,
    pub moves: u64,
    pub links: Vec<Link>,
}

/// One of them.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct Link {
    pub address: String,
    pub up: bool,
    pub used: bool,
}

/// The cluster's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of the interface")]
pub enum Health {
    Ok,
    Degraded,
    AtRisk,
    Down,
}

/// One node.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct Node {
    pub name: String,
    pub role: Role,
    pub state: NodeState,
    pub lease: bool,
    pub voter: bool,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of the interface")]
pub enum Role {
    Data,
    Witness,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of the interface")]
pub enum NodeState {
    Up,
    Down,
    Starting,
    Draining,
}

/// One extent.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct Extent {
    pub name: String,
    pub naa: String,
    pub size_bytes: u64,
    pub block_size: u32,
    pub epoch: u64,
    pub primary: Option<String>,
    pub in_sync: Vec<String>,
    pub replicas: Vec<Replica>,
}

/// One replica of an extent.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct Replica {
    pub node: String,
    pub state: ReplicaState,
    pub applied_lsn: u64,
}

/// How a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of the interface")]
pub enum ReplicaState {
    InSync,
    Resyncing,
    Offline,
    Fenced,
}

/// One target.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct Target {
    pub iqn: String,
    pub luns: Vec<Lun>,
}

/// One LUN of a target.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct Lun {
    pub lun: u16,
    pub extent: String,
    pub groups: Vec<Group>,
}

/// One port group of a LUN.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct Group {
    pub node: String,
    pub id: u16,
    pub state: String,
    pub preferred: bool,
}

/// Looks again and again until the status is as wanted. An answer that fails is none.
///
/// # Errors
/// It is not within `limit`; the last answer is in the text, and what `logs` says.
pub async fn wait_for(
    what: &str,
    limit: Duration,
    look: impl AsyncFn() -> Result<Status>,
    is: impl Fn(&Status) -> bool,
    logs: impl Fn() -> String,
) -> Result<Status> {
    let start = Instant::now();
    loop {
        let status = look().await;
        if let Ok(status) = &status
            && is(status)
        {
            return Ok(status.clone());
        }
        if start.elapsed() >= limit {
            bail!("not within {limit:?}: {what}; last: {status:?}\n{}", logs());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

impl Status {
    /// The only extent's primary.
    pub fn primary(&self) -> Option<&str> {
        self.extents.first()?.primary.as_deref()
    }

    /// Whether every extent is served and every replica of it is in sync.
    pub fn is_whole(&self) -> bool {
        let whole = |extent: &Extent| {
            let in_sync = |replica: &Replica| {
                replica.state == ReplicaState::InSync && extent.in_sync.contains(&replica.node)
            };
            extent.primary.is_some() && extent.replicas.len() == 2 && extent.replicas.iter().all(in_sync)
        };
        self.quorum && !self.extents.is_empty() && self.extents.iter().all(whole)
    }

    /// The replica of the only extent on a node.
    pub fn replica(&self, node: &str) -> Option<&Replica> {
        self.extents
            .first()?
            .replicas
            .iter()
            .find(|replica| replica.node == node)
    }
}
