//! What lies between the control plane and the data plane, which do not know each other: committed state as extents' cores see it, and what
//! cores want as commands of the cluster. Pure: `node` puts threads and sockets around it, the simulator a virtual clock.

mod announce;
mod proposals;

pub use announce::{Announcer, unfit};
pub use proposals::{commands, openings};

use std::sync::Arc;

use holdfast_raft::lease::{LeaseCell, LeaseReading};
use holdfast_raft::model::{ClusterState, Extent};
use holdfast_replication::core::api::{Cache, Ctx, Identity, NodeState, Policy, Retiring, View};
use holdfast_types::{ExtentId, Incarnation, Mono};

/// What cores are told of the lease at `now` (L2). A majority's live promises are a quorum that is seen.
pub fn ctx(cell: &LeaseCell, now: Mono) -> Ctx {
    let lease_until = match cell.read(now) {
        LeaseReading::Held(until) => Some(until),
        LeaseReading::Lost | LeaseReading::Paused => None,
    };
    Ctx {
        now,
        lease_until,
        generation: cell.generation(),
        quorum: lease_until.is_some(),
    }
}

/// An extent's committed state as its core sees it. What the extent has no choice of its own for is taken from `usual`.
pub fn view(state: &ClusterState, id: ExtentId, extent: &Extent, usual: Policy) -> View {
    let run = |node| Identity {
        node,
        incarnation: extent.primary_incarnation.unwrap_or(Incarnation(0)),
    };
    View {
        revision: state.revision,
        epoch: extent.epoch,
        primary: extent.primary.map(run),
        version: extent.version,
        in_sync: extent.in_sync.iter().copied().collect(),
        replicas: extent.replicas.iter().copied().collect(),
        retiring: Retiring {
            nodes: extent.retiring.iter().copied().collect(),
            may_go: state.may_retire(id, extent),
        },
        blocks: extent.size_bytes >> extent.block_size.shift(),
        block_size: extent.block_size,
        unit: Arc::new(extent.unit.rule()),
        nodes: state
            .nodes
            .iter()
            .map(|(node, member)| NodeState {
                node: *node,
                suspect: member.is_suspect(),
                generation: member.lease_generation,
            })
            .collect(),
        cache: Cache {
            since: extent.cache.since,
            runs: extent
                .cache
                .runs
                .iter()
                .map(|(&node, &incarnation)| Identity { node, incarnation })
                .collect(),
        },
        policy: Policy {
            thin: extent.thin,
            on_devices: extent.on_devices,
            confirmed_reads: extent.confirmed_reads,
            ..usual
        },
    }
}
