//! What initiators connect to: portals, connections and their sessions, tied to the replicated extents behind them.
//!
//! The protocol lives in `iscsi`, what a disk answers in `scsi`, what a write is in `replication`: here they are put together.

mod access;
mod clears;
mod connection;
mod copy;
mod portals;
mod redirect;
mod registry;
mod senses;
mod session;
mod shares;
mod state;
mod statuses;
mod tasks;
mod tmf;
mod units;
mod well_known;

#[cfg(test)]
mod access_test;
#[cfg(test)]
mod copy_test;
#[cfg(test)]
mod fair_test;
#[cfg(test)]
mod front_test;
#[cfg(test)]
mod memory_test;
#[cfg(test)]
mod redirect_test;
#[cfg(test)]
mod reset_test;
#[cfg(test)]
mod rig_test;
#[cfg(test)]
mod sanitize_test;
#[cfg(test)]
mod statuses_test;

use std::sync::Arc;
use std::time::SystemTime;

use holdfast_raft::lease::{LeaseCell, LeaseReading};
use holdfast_replication::core::api::{AbortScope, OpId, Request, StatusNews};
use holdfast_types::{ExtentId, Incarnation, LeaseGeneration, Mono, NodeId, OpOutcome, UnixMillis};
use tokio::sync::watch;

pub(crate) use portals::Portals;
pub(crate) use registry::{ConnectionId, Inbound, Registry};
pub(crate) use state::FrontState;

pub(crate) use units::{UnitAnswer, UnitJob, UnitWant, Units};

/// Where storage operations go.
pub(crate) trait Backend: Send + Sync {
    /// Carries a command out, here or on its primary. Answered once: through the registry, or at once where nobody can take it now.
    fn submit(&self, extent: ExtentId, op: OpId, request: Request) -> Option<OpOutcome>;
    /// Task management. Each command concerned is still answered once.
    fn abort(&self, extent: ExtentId, scope: AbortScope);
    /// What is known of the statuses of this node's COMPARE AND WRITEs (W6).
    fn statuses(&self, extent: ExtentId, news: Vec<StatusNews>);
    /// What this thread submits until [`Backend::release`] may leave together then. Nothing is waited for meanwhile.
    fn hold(&self) {}
    /// The end of [`Backend::hold`].
    fn release(&self) {}
}

/// Holds a backend as long as it lives.
struct Held<'a>(&'a dyn Backend);

impl<'a> Held<'a> {
    fn new(backend: &'a dyn Backend) -> Self {
        backend.hold();
        Self(backend)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// What all connections of a node share.
pub(crate) struct Front {
    /// This node, and its run: part of the names of commands (F1).
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) clock: Arc<dyn Fn() -> Mono + Send + Sync>,
    pub(crate) lease: Arc<LeaseCell>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) units: Arc<dyn Units>,
    pub(crate) registry: Arc<Registry>,
    /// What initiators see, derived from the newest committed state that this node has applied.
    pub(crate) state: watch::Receiver<Arc<FrontState>>,
}

impl Front {
    /// The time.
    pub(crate) fn now(&self) -> Mono {
        (self.clock)()
    }

    /// What the calendar says, for hosts that ask.
    pub(crate) fn calendar() -> UnixMillis {
        SystemTime::now().into()
    }

    /// Whether a connection of that lease generation may go on (L7): its generation stands, and this process was not stopped meanwhile.
    /// Asked before anything that a connection has received is looked at.
    pub(crate) fn connection_stands(&self, generation: LeaseGeneration, now: Mono) -> bool {
        self.lease.generation() == generation && self.lease.read(now) != LeaseReading::Paused
    }
}
