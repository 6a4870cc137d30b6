//! How an extent stands on this node, for people and for `holdfast status`.

use std::collections::HashMap;
use std::time::Duration;

use holdfast_types::{Mono, NodeId};

use super::extent::Slot;
use crate::core::api::{FenceReason, Status};
use crate::store::{Damage, LastScrub};

/// An extent on this node at a glance.
#[derive(Debug, Clone)]
pub struct ExtentStatus {
    /// What its core says.
    pub core: Status,
    /// Who is in sync, by the newest committed state that is known here.
    pub in_sync: Vec<NodeId>,
    /// Why this replica answers nothing any more (J2).
    pub fenced: Option<FenceReason>,
    /// Why this replica is not trusted until it is resynced (J1).
    pub damaged: Option<Damage>,
    /// Resyncs and scrubs under way from here.
    pub resyncs: Vec<ResyncRate>,
    /// Scrubs from here.
    pub scrubs: Scrubs,
}

/// What this node knows, as primary, of an extent's scrubs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubs {
    /// The last one that it ended.
    pub last: Option<LastScrub>,
    /// Somebody asked for one, which has not ended yet.
    pub wanted: bool,
}

/// How fast a resync goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResyncRate {
    /// Who is resynced.
    pub node: NodeId,
    /// Share that is proven equal, from 0 to 1.
    pub done: f64,
    /// Bytes not proven yet.
    pub bytes_left: u64,
    /// Bytes proven per second since it began.
    pub rate: u64,
    /// How long it has been going on.
    pub since: Duration,
}

/// When resyncs began.
#[derive(Debug, Default)]
pub(super) struct Progress {
    began: HashMap<NodeId, (Mono, u64)>,
}

impl Progress {
    /// Looks at the core's status and gives the rates.
    fn rates(&mut self, status: &Status, now: Mono) -> Vec<ResyncRate> {
        let under_way = status
            .replicas
            .iter()
            .filter_map(|replica| Some((replica.node, replica.resync.or(replica.scrub)?)));
        let mut began = HashMap::new();
        let mut rates = Vec::new();
        for (node, resync) in under_way {
            let (since, left) = self
                .began
                .get(&node)
                // More left than ever before: another resync has begun since.
                .filter(|(_, left)| *left >= resync.bytes_left)
                .copied()
                .unwrap_or((now, resync.bytes_left));
            began.insert(node, (since, left));
            let proven = left.saturating_sub(resync.bytes_left);
            let millis = u64::try_from(now.since(since).as_millis())
                .unwrap_or(u64::MAX)
                .max(1);
            let total = resync.bytes_total.max(1);
            #[allow(clippy::cast_precision_loss)]
            let done = 1.0 - resync.bytes_left.min(total) as f64 / total as f64;
            rates.push(ResyncRate {
                node,
                done,
                bytes_left: resync.bytes_left,
                rate: proven.saturating_mul(1000) / millis,
                since: now.since(since),
            });
        }
        self.began = began;
        rates
    }
}

/// Takes stock under the extent's lock.
pub(super) fn snapshot(slot: &mut Slot, damaged: Option<Damage>, scrubs: Scrubs, now: Mono) -> ExtentStatus {
    let core = slot.core.status();
    let resyncs = slot.progress.rates(&core, now);
    ExtentStatus {
        in_sync: slot
            .view
            .as_ref()
            .map(|view| view.in_sync.clone())
            .unwrap_or_default(),
        fenced: slot.fenced,
        damaged,
        resyncs,
        scrubs,
        core,
    }
}
