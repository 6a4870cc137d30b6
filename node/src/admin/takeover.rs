//! What a takeover without a quorum would do, for people and scripts.

use std::fmt::Write;

use holdfast_raft::model::{Fate, Role};
use holdfast_types::ExtentId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TakeoverPlan {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// Who goes on alone.
    pub(crate) node: String,
    /// The newest entry of the cluster's state that this node has. Whatever the others have committed since is gone.
    pub(crate) revision: u64,
    /// The nodes that are left behind.
    pub(crate) gone: Vec<GoneNode>,
    /// Every extent.
    pub(crate) extents: Vec<PlannedExtent>,
    /// Takeovers that there have been before.
    pub(crate) takeovers_before: usize,
}

/// A node that is left behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct GoneNode {
    /// Its name.
    pub(crate) name: String,
    /// What it is for.
    #[schema(value_type = String)]
    pub(crate) role: Role,
    /// For how long nothing has come from it; `None`: it was not heard since this node's process began.
    pub(crate) silent_seconds: Option<u64>,
}

/// What becomes of an extent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct PlannedExtent {
    /// Its name.
    pub(crate) name: String,
    /// Its id.
    #[schema(value_type = String)]
    pub(crate) id: ExtentId,
    /// What becomes of it.
    #[schema(value_type = String)]
    pub(crate) fate: Fate,
    /// Who has every acknowledged write, as far as this node knows.
    pub(crate) in_sync: Vec<String>,
}

impl TakeoverPlan {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "Takeover of cluster {} by {} alone, from revision {} of its state.\n\
             What the others have committed after that revision, and acknowledged to initiators without {}, is gone for this cluster.\n\
             If one of them still serves, the cluster is split in two: make sure that they are off and stay off.\n\nLEFT BEHIND\n",
            self.cluster, self.node, self.revision, self.node
        );
        for gone in &self.gone {
            let silent = match gone.silent_seconds {
                Some(seconds) => format!("silent for {}", span(seconds)),
                None => "not heard since this node was started".to_owned(),
            };
            let role = match gone.role {
                Role::Data => "data",
                Role::Witness => "witness",
            };
            let _ = writeln!(text, "  {} ({role}): {silent}", gone.name);
        }
        text.push_str("\nEXTENTS\n");
        for extent in &self.extents {
            let _ = writeln!(text, "  {}: {}", extent.name, self.fate(extent));
        }
        if self.extents.is_empty() {
            text.push_str("  there are none\n");
        }
        text
    }

    fn fate(&self, extent: &PlannedExtent) -> String {
        let (node, others) = (&self.node, extent.in_sync.join(", "));
        match extent.fate {
            Fate::Served => format!("served from the replica on {node}, which was in sync"),
            Fate::Unfit => format!(
                "not served unless {node} finds its replica whole: its disk has failed or lost something"
            ),
            Fate::Stale => format!(
                "not served: the replica on {node} was not in sync, {others} had what is missing there; see 'holdfast extent \
                 accept-data-loss'"
            ),
            Fate::Absent => format!("lost here: {node} has no replica, {others} had"),
        }
    }
}

/// A time that has passed, roughly.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
