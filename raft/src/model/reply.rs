//! What became of a proposal.

use holdfast_scsi::reservation::UnitOutcome;
use holdfast_types::{
    Epoch, ExtentId, InSyncVersion, IscsiName, LeaseGeneration, Lun, NodeId, SuspicionId, UnitVersion,
};
use serde::{Deserialize, Serialize};

/// The answer to a command, given when it is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done, or already as asked.
    Done {
        /// What a person should know about it.
        #[serde(default)]
        warnings: Vec<String>,
    },
    /// The node is suspect under this id, by this command or an earlier one.
    Suspected {
        /// The suspicion that stands.
        suspicion: SuspicionId,
    },
    /// The suspicion is cleared.
    Cleared {
        /// The node's new lease generation.
        generation: LeaseGeneration,
    },
    /// The node is a member under that id, by this command or the same one before.
    Joined {
        /// Its id.
        node: NodeId,
    },
    /// What became of a change of a unit's state.
    Unit {
        /// What to answer.
        outcome: UnitOutcome,
        /// The unit's version behind it: what its primary must have applied before GOOD (P2).
        version: UnitVersion,
    },
    /// A command over many extents; each item stands for itself.
    Items {
        /// In the order of the command; for a new epoch, one for each extent of the suspect.
        items: Vec<ItemResult>,
    },
    /// Nothing was changed.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

impl Default for Reply {
    fn default() -> Self {
        Self::DONE
    }
}

impl Reply {
    /// Done, with nothing to add. Also the reply to entries without a command.
    pub const DONE: Self = Self::Done { warnings: Vec::new() };

    /// Why the whole command was refused, if it was.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal } => Some(refusal),
            _ => None,
        }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal }
    }
}

/// What became of one extent of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemResult {
    /// Which extent.
    pub extent: ExtentId,
    /// What became of it.
    pub outcome: ItemOutcome,
}

/// See [`ItemResult`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemOutcome {
    /// It took effect.
    Done {
        /// The epoch now.
        epoch: Epoch,
        /// The version of the in-sync set now.
        version: InSyncVersion,
        /// The primary now; `None` where a new epoch found no member to promote.
        primary: Option<NodeId>,
    },
    /// Nothing was changed.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

/// Why a command, or an item of it, changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The node was started anew since writes were answered that are not stable yet, and another member of the set was not (W5).
    #[error("node {node} may lack writes that were acknowledged before it was started anew")]
    Forgot {
        /// Which.
        node: NodeId,
    },
    /// The node does not vote, or is about to vote no more, so it holds no lease (L8).
    #[error("node {node} has no vote, so it cannot serve")]
    NoVote {
        /// Which.
        node: NodeId,
    },
    /// `Init` came twice.
    #[error("the cluster was initialized before")]
    AlreadyInitialized,
    /// Anything before `Init`.
    #[error("the cluster is not initialized; run 'holdfast cluster init'")]
    NotInitialized,
    /// The index is not above the newest one applied.
    #[error("the entry was applied before")]
    AppliedBefore,
    /// See [`super::check_name`].
    #[error("'{name}' is no name here: {why}")]
    BadName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The name or id is taken.
    #[error("{what} exists already")]
    Exists {
        /// What was to be created.
        what: String,
    },
    /// No member of that id.
    #[error("node {node} is no member")]
    NoSuchNode {
        /// Who.
        node: NodeId,
    },
    /// No extent of that id.
    #[error("there is no extent {extent}")]
    NoSuchExtent {
        /// Which.
        extent: ExtentId,
    },
    /// No target of that name.
    #[error("there is no target {name}")]
    NoSuchTarget {
        /// Which.
        name: IscsiName,
    },
    /// The target has no such LUN.
    #[error("target {target} has no LUN {lun}")]
    NoSuchLun {
        /// Which target.
        target: IscsiName,
        /// Which number.
        lun: Lun,
    },
    /// The LUN stands for another extent.
    #[error("LUN {lun} of {target} is taken")]
    LunTaken {
        /// Which target.
        target: IscsiName,
        /// Which number.
        lun: Lun,
    },
    /// Its node has proposed a newer change of the same unit.
    #[error("a newer change of the unit by the same node came first")]
    Superseded,
    /// Something refers to it.
    #[error("{what} is in use: {by}")]
    InUse {
        /// What was to be removed.
        what: String,
        /// What refers to it.
        by: String,
    },
    /// A value out of its range.
    #[error("{0}")]
    Invalid(String),
    /// The node keeps no extents, or none of this one.
    #[error("node {node} keeps no replica of the extent")]
    NotReplica {
        /// Who.
        node: NodeId,
    },
    /// The epoch is not the one that the proposal starts from.
    #[error("the extent is at epoch {now}, not {named}")]
    EpochMoved {
        /// In the proposal.
        named: Epoch,
        /// In force.
        now: Epoch,
    },
    /// The in-sync set is not the one that the proposal starts from.
    #[error("the in-sync set is at version {now}, not {named}")]
    VersionMoved {
        /// In the proposal.
        named: InSyncVersion,
        /// In force.
        now: InSyncVersion,
    },
    /// Only the primary may do that.
    #[error("node {node} is not the primary")]
    NotPrimary {
        /// Who tried.
        node: NodeId,
    },
    /// The primary has restarted since.
    #[error("the epoch names another run of the primary")]
    OtherIncarnation,
    /// Not in the in-sync set.
    #[error("node {node} is not in sync")]
    NotInSync {
        /// Who.
        node: NodeId,
    },
    /// Already in the in-sync set.
    #[error("node {node} is in sync already")]
    AlreadyInSync {
        /// Who.
        node: NodeId,
    },
    /// Its replica is damaged or fenced, as the node has announced.
    #[error("the replica on node {node} cannot serve")]
    Unfit {
        /// Who.
        node: NodeId,
    },
    /// The node has announced something newer.
    #[error("node {node} has announced something newer since")]
    AnnouncedSince {
        /// Who.
        node: NodeId,
    },
    /// A suspicion stands against the node.
    #[error("node {node} is suspect")]
    Suspect {
        /// Who.
        node: NodeId,
    },
    /// The suspicion named does not stand (any more).
    #[error("that suspicion of node {node} does not stand")]
    NoSuchSuspicion {
        /// Who.
        node: NodeId,
    },
    /// The lease generation has moved on since the proposal was made.
    #[error("node {node} is at lease generation {now}, not {named}")]
    GenerationMoved {
        /// Who.
        node: NodeId,
        /// In the proposal.
        named: LeaseGeneration,
        /// In force.
        now: LeaseGeneration,
    },
    /// The primary is never taken out of its in-sync set.
    #[error("node {node} is the primary and stays in the in-sync set")]
    RemovesPrimary {
        /// Who.
        node: NodeId,
    },
    /// The voters have changed since those who reported were counted (L8).
    #[error("the voters have changed since")]
    VotersMoved,
}
