//! What a keeper knows of the others, for the governor and for status pages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_types::{Incarnation, LeaseGeneration, NodeId, Revision, SILENT_AFTER};

use super::wire::RunOut;

/// Who was heard within this is taken as heard at present: some lost heartbeats do not matter, and it is short against
/// [`SILENT_AFTER`], so that two voters that lose a node at the same moment do not each take the other for better placed.
pub const HEARS_WITHIN: Duration = Duration::from_millis(250);
const _: () = assert!(HEARS_WITHIN.as_millis() * 2 <= SILENT_AFTER.as_millis());

/// What a peer said in its newest heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// How long ago that came.
    pub age: Duration,
    /// What the peer has applied.
    pub revision: Revision,
    /// The peer's lease generation as it has applied it.
    pub generation: LeaseGeneration,
    /// The peer's Raft term.
    pub term: u64,
    /// Whom the peer takes for the leader.
    pub leader: Option<NodeId>,
    /// How long ago the peer had a round trip with whom, counted up to now.
    pub both: BTreeMap<NodeId, Duration>,
}

/// A peer as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerView {
    /// Its run, if it was ever heard.
    pub incarnation: Option<Incarnation>,
    /// Time since anything came from it. Counted only while this node itself was running.
    pub silent: Duration,
    /// Time since it last acknowledged something. Counted in the same way.
    pub silent_both: Duration,
    /// For how long it has been heard both ways without a break; zero if it is not now.
    pub both_for: Duration,
    /// What it said last.
    pub told: Option<Told>,
}

impl PeerView {
    /// Whether it is heard both ways at present.
    pub fn is_heard(&self) -> bool {
        !self.both_for.is_zero()
    }

    /// Whether it says that it hears `node` both ways at present.
    pub fn says_it_hears(&self, node: NodeId) -> bool {
        let both = self.told.as_ref().and_then(|told| told.both.get(&node));
        both.is_some_and(|age| *age <= HEARS_WITHIN)
    }
}

/// A keeper's knowledge at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeeperView {
    /// Every other voter.
    pub peers: BTreeMap<NodeId, PeerView>,
    /// Who has reported which promises as run out, this node included (L3).
    pub reports: BTreeMap<RunOut, BTreeSet<NodeId>>,
    /// Whether this node has caught up since its start (L5).
    pub caught_up: bool,
    /// What this node has applied.
    pub revision: Revision,
}
