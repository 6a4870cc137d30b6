//! What can be proposed to the cluster.

use std::collections::BTreeSet;

use holdfast_alua::SecondaryAccess;
use holdfast_scsi::reservation::UnitChange;
use holdfast_types::{
    BlockSize, Epoch, ExtentId, InSyncVersion, Incarnation, IscsiName, LeaseGeneration, Lun, Nexus, NodeId,
    SuspicionId,
};
use serde::{Deserialize, Serialize};

use super::access::AccessCommand;
use super::admin::AdminCommand;
use super::apply_unit::UnitCall;
use super::state::{ClusterId, NodeAddresses, Role};

/// The state of an extent that a proposal starts from (E2). Anything else at apply refuses the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExtentStamp {
    /// Which extent.
    pub extent: ExtentId,
    /// Its epoch as the proposer saw it.
    pub epoch: Epoch,
    /// The version of its in-sync set as the proposer saw it.
    pub version: InSyncVersion,
}

/// A node that may be promoted, with the run it is in (E1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
}

/// A member of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// Its id, not 0.
    pub id: NodeId,
    /// Its name, see [`super::check_name`].
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Where it listens.
    pub addresses: NodeAddresses,
}

/// The first command of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// The cluster's name.
    pub name: String,
    /// The cluster's UUID, drawn by the proposer.
    pub id: ClusterId,
    /// Every member; all of them vote.
    pub nodes: Vec<NewNode>,
}

/// An extent to create. Its replicas start equal (all zeros), so all of them start in sync, and nobody is primary until a member opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewExtent {
    /// Its UUID, drawn by the proposer.
    pub id: ExtentId,
    /// Its name.
    pub name: String,
    /// Size in bytes: a multiple of the block size within the limits of `holdfast_types`.
    pub size_bytes: u64,
    /// Logical block size.
    pub block_size: BlockSize,
    /// Whether space is allocated as it is written.
    #[serde(default)]
    pub thin: bool,
    /// Whether it lies on block devices of the nodes, all of it allocated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_devices: bool,
    /// Whether reads wait until the epoch is confirmed since they came in (W4).
    #[serde(default)]
    pub confirmed_reads: bool,
    /// Whether writes are answered before they are stable (W5).
    #[serde(default)]
    pub write_cache: bool,
    /// Data nodes that keep a replica.
    pub replicas: BTreeSet<NodeId>,
    /// Which of them is primary when all is well.
    #[serde(default)]
    pub preferred: Option<NodeId>,
    /// How the others show the unit.
    #[serde(default)]
    pub secondary: SecondaryAccess,
}

/// A member comes to listen elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Who.
    pub node: NodeId,
    /// Where it listened so far, as whoever proposes this knows it.
    pub before: NodeAddresses,
    /// Where.
    pub addresses: NodeAddresses,
}

/// A proposal. Late and doubled ones are harmless: each names what it starts from, or is the same the second time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Makes the cluster.
    Init(Init),
    /// Where a node listens from now on.
    SetNode(Box<Move>),
    /// A node tells of the run that it is in, and of its replicas that cannot serve. Made when its process has started, and whenever that
    /// changes.
    Announce {
        /// Who.
        node: NodeId,
        /// Its run.
        incarnation: Incarnation,
        /// Raised with each announcement of a run: of two, the later counts, in whatever order they come.
        number: u64,
        /// Extents whose replica there is damaged or fenced (J1, J2).
        unfit: BTreeSet<ExtentId>,
        /// The run that the proposer saw as the newest, 0 if it saw none: it takes effect only if that, or `incarnation`, is the newest
        /// still. So what an earlier run said never comes behind what a later one did. `None`, in entries of old: not looked at.
        #[serde(default)]
        after: Option<Incarnation>,
    },
    /// Makes an extent.
    CreateExtent(NewExtent),
    /// Makes an extent larger; smaller is refused.
    ResizeExtent {
        /// Which.
        extent: ExtentId,
        /// Its new size in bytes.
        size_bytes: u64,
    },
    /// Has reads of an extent wait until its epoch is confirmed, or no longer (W4).
    SetConfirmedReads {
        /// Which.
        extent: ExtentId,
        /// From now on.
        on: bool,
    },
    /// Has writes of an extent answered before they are stable, or no longer (W5).
    SetWriteCache {
        /// Which.
        extent: ExtentId,
        /// From now on.
        on: bool,
        /// With `on` being false: what is nowhere but in the memory of members that do not come back is given up.
        #[serde(default)]
        lost: bool,
    },
    /// The primary says that everything it answered is stable on every member: for extents whose write-back was switched off.
    CacheSettled {
        /// From where.
        items: Vec<ExtentStamp>,
        /// The primary.
        proposer: NodeId,
    },
    /// Removes an extent that no LUN stands for.
    DeleteExtent {
        /// Which.
        extent: ExtentId,
    },
    /// Makes a target without LUNs.
    CreateTarget {
        /// Its iSCSI name.
        name: IscsiName,
    },
    /// Removes a target without LUNs.
    DeleteTarget {
        /// Its iSCSI name.
        name: IscsiName,
    },
    /// Who may use what.
    Access(AccessCommand),
    /// Shows an extent as a LUN.
    MapLun {
        /// Of which target.
        target: IscsiName,
        /// Under which number.
        lun: Lun,
        /// What it stands for.
        extent: ExtentId,
    },
    /// Takes a LUN away.
    UnmapLun {
        /// Of which target.
        target: IscsiName,
        /// Which.
        lun: Lun,
    },
    /// Changes a logical unit's state: reservations, mode parameters, resets (I9, I13).
    Unit {
        /// Its name, so that it is carried out once.
        call: UnitCall,
        /// Which unit.
        extent: ExtentId,
        /// The nexus that asks.
        by: Nexus,
        /// What for.
        change: UnitChange,
    },
    /// First commit of L3: nobody promises `node` anything from here on.
    Suspect {
        /// Who is silent.
        node: NodeId,
        /// Its lease generation as the proposer saw it, so that a late proposal does not raise a suspicion that was cleared.
        generation: LeaseGeneration,
    },
    /// Second commit of L3: all extents of the suspect get a new primary, in one decision.
    NewEpoch {
        /// Who lost them.
        suspect: NodeId,
        /// The suspicion that a majority reported as run out.
        suspicion: SuspicionId,
        /// Who may be promoted, best first. An extent takes the first that is in its in-sync set and not suspect.
        candidates: Vec<Candidate>,
        /// [`super::VoterSet::id`] of the set of which a majority reported; another one at apply refuses it (L8).
        voters: u64,
    },
    /// The suspect is back (L4).
    ClearSuspect {
        /// Who.
        node: NodeId,
        /// Which suspicion.
        suspicion: SuspicionId,
    },
    /// A new epoch for the primary itself, after its restart (E1) or to make a switchover void (E6), or for an in-sync member of an extent
    /// that has no primary.
    Reopen {
        /// From where.
        items: Vec<ExtentStamp>,
        /// Who: only ever the proposer itself.
        node: NodeId,
        /// Its run.
        incarnation: Incarnation,
    },
    /// The primary takes a member out of in-sync sets.
    Shrink {
        /// From where.
        items: Vec<ExtentStamp>,
        /// The primary.
        proposer: NodeId,
        /// Who goes.
        remove: NodeId,
    },
    /// The primary takes a replica into in-sync sets, after the barrier (R3).
    Grow {
        /// From where.
        items: Vec<ExtentStamp>,
        /// The primary.
        proposer: NodeId,
        /// Who comes.
        add: NodeId,
        /// In which run it has got what was answered.
        #[serde(default)]
        run: Option<Incarnation>,
    },
    /// The primary gives a growth up: only the version is raised, so that the growth can no longer take effect (E3).
    GrowVoid {
        /// From where.
        items: Vec<ExtentStamp>,
        /// The primary.
        proposer: NodeId,
    },
    /// The primary, drained and closed, hands extents over (E6).
    Switchover {
        /// From where.
        items: Vec<ExtentStamp>,
        /// The primary.
        from: NodeId,
        /// The run in which it handed back.
        from_incarnation: Incarnation,
        /// The next primary.
        to: NodeId,
        /// Its run.
        to_incarnation: Incarnation,
    },
    /// What people ask for: settings, members, placement.
    Admin(AdminCommand),
}
