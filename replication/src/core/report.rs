//! What the core tells people: what happened, and how things stand.

use std::time::Duration;

use holdfast_types::{BlockRange, Epoch, ExtentId, Lba, LogPos, Lsn, NodeId};

use super::api::{Base, FenceReason, StuckPart, Verdict};

/// What a node does for an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleName {
    /// No view yet, or not a replica.
    Idle,
    /// A replica of another node's, or of nobody's, epoch.
    Replica,
    /// Named as primary, but in an earlier run (E1).
    Closed,
    /// Primary whose tail is not settled (E5).
    Settling,
    /// Primary, serving.
    Primary,
    /// Primary that drains for a planned switchover (E6).
    Draining,
    /// Primary that handed back (E6).
    HandedBack,
    /// Its journal or extent failed, or is damaged (J1, J2).
    Fenced,
}

/// What happened, for logs, events and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The role changed.
    Role {
        /// To this.
        role: RoleName,
        /// In this epoch.
        epoch: Epoch,
    },
    /// The role is about to change, by this row of the table.
    Standing {
        /// The row.
        why: &'static str,
    },
    /// The tail is settled; commands are served (E5).
    Settled {
        /// The epoch.
        epoch: Epoch,
        /// Records of the tail.
        records: u64,
    },
    /// A returning replica was judged.
    Verdict {
        /// Who.
        node: NodeId,
        /// How.
        verdict: Verdict,
        /// The table's row.
        why: &'static str,
    },
    /// A replica is to leave the in-sync set.
    Shrinking {
        /// Who.
        node: NodeId,
    },
    /// A replica left the in-sync set by commit.
    Shrunk {
        /// Who.
        node: NodeId,
    },
    /// A replica's barrier is reached (I6); its growth is proposed.
    Growing {
        /// Who.
        node: NodeId,
    },
    /// A replica joined the in-sync set by commit.
    Grown {
        /// Who.
        node: NodeId,
    },
    /// A resync by comparison begins.
    ResyncStarted {
        /// Who is resynced.
        node: NodeId,
        /// Ranges to prove.
        ranges: u64,
    },
    /// This replica dropped records that the primary's log does not hold (E5).
    Truncated {
        /// Last position that stays.
        after: LogPos,
        /// How many records went.
        records: u64,
    },
    /// This replica starts anew behind a gap (R1).
    Restarted {
        /// Complete up to here.
        base: LogPos,
    },
    /// Another node has seen a newer epoch than this primary's (E4).
    RefusedBy {
        /// Who.
        node: NodeId,
        /// What it has seen.
        newest: Epoch,
    },
    /// This replica answers nothing any more (J2).
    Fenced {
        /// Why; `None`: found damaged at start (J1).
        reason: Option<FenceReason>,
    },
    /// The disk here makes no progress although work waits (I10).
    Stuck {
        /// What of it.
        part: StuckPart,
    },
    /// The disk here makes progress again.
    Moves,
    /// A planned switchover was given up before the extent was closed.
    SwitchoverGivenUp {
        /// To whom it was meant.
        to: NodeId,
    },
    /// Blocks cannot be read, or are not what was written (I10).
    BadBlocks {
        /// On whose disk.
        node: NodeId,
        /// How many at most.
        blocks: u64,
    },
    /// Bad blocks of this node have their contents again (I10).
    Repaired {
        /// On whose disk.
        node: NodeId,
        /// How many.
        blocks: u64,
    },
    /// A replica in sync differs from the primary although both copies are what was written to them: the primary's contents, which
    /// initiators were given, replace its own.
    Diverged {
        /// Whose contents are replaced.
        node: NodeId,
        /// Where: what differs is in here.
        range: BlockRange,
        /// How many blocks, at most.
        blocks: u64,
    },
    /// A replica that is in sync is being compared.
    ScrubStarted {
        /// Which.
        node: NodeId,
    },
    /// One side did not read a range for a scrub in time: writes to it go on, and it is compared later.
    ScrubWaits {
        /// Which replica it is compared with.
        node: NodeId,
        /// The range.
        range: BlockRange,
    },
    /// Every replica in sync was compared.
    Scrubbed {
        /// What was found.
        outcome: ScrubOutcome,
    },
    /// A block that no member of the in-sync set has any more. Writing it makes it good.
    Unreadable {
        /// Which.
        lba: Lba,
    },
    /// A message that no correct peer sends was dropped.
    BadMessage {
        /// From whom.
        from: NodeId,
        /// What is wrong.
        what: &'static str,
    },
}

/// A replica, as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Which.
    pub node: NodeId,
    /// In the committed in-sync set.
    pub in_sync: bool,
    /// Linked, and following this primary.
    pub following: bool,
    /// Known as damaged or fenced.
    pub fenced: bool,
    /// Its disk makes no progress (I10).
    pub stuck: bool,
    /// Stable in its journal.
    pub durable: Lsn,
    /// Applied to its extent.
    pub applied: Lsn,
    /// A resync by comparison, under way.
    pub resync: Option<ResyncStatus>,
    /// A scrub, under way.
    pub scrub: Option<ResyncStatus>,
}

/// How far a resync is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResyncStatus {
    /// Bytes to prove, all in all.
    pub bytes_total: u64,
    /// Bytes not proven yet.
    pub bytes_left: u64,
    /// Bytes found different and sent.
    pub bytes_sent: u64,
    /// Ranges that wait for blocks which no member of the in-sync set has.
    pub unreadable: u64,
}

/// What became of bad blocks, as far as this primary saw them, since its process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checks {
    /// Blocks found bad, at most, here or on a replica.
    pub found: u64,
    /// Of these, how many have their contents again.
    pub repaired: u64,
    /// How often a block was wanted that no member of the in-sync set has any more.
    pub lost: u64,
    /// Blocks in which a replica in sync differed though both copies were what was written, at most.
    pub diverged: u64,
    /// Scrubs that came to their end.
    pub scrubs: u64,
}

/// What a scrub found while it ran, at most: what reads found meanwhile counts, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubOutcome {
    /// How long it took, from its first range on.
    pub took: Duration,
    /// Blocks found bad.
    pub found: u64,
    /// Of these, how many have their contents again.
    pub repaired: u64,
    /// How often a block was wanted that no member of the in-sync set has any more.
    pub lost: u64,
    /// Blocks in which a replica differed though both copies were what was written.
    pub diverged: u64,
}

/// The core at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Which extent.
    pub extent: ExtentId,
    /// This node's role.
    pub role: RoleName,
    /// Newest epoch applied from the cluster's state.
    pub epoch: Epoch,
    /// End of the log.
    pub end: LogPos,
    /// Stable in the local journal.
    pub durable: Lsn,
    /// Committed, as far as known here.
    pub committed: Lsn,
    /// Applied to the local extent, without gaps.
    pub applied: Lsn,
    /// Commands open here, from initiators of this node and forwarded ones.
    pub open: usize,
    /// A resync of this replica is unfinished (R1).
    pub base: Option<Base>,
    /// Whether this replica can serve: its disk has neither lost anything (J1) nor failed (J2).
    pub fit: bool,
    /// The disk here makes no progress although work waits (I10).
    pub stuck: Option<StuckPart>,
    /// Bad blocks.
    pub checks: Checks,
    /// The other replicas, where this node is the primary.
    pub replicas: Vec<ReplicaStatus>,
}
