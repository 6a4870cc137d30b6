//! iSNS servers (RFC 4171) are told which targets there are, and where.
//!
//! A target belongs to one entity on a server, so the whole cluster is one entity, and one data node at a time speaks for it. What it says
//! is a function of committed state.

mod driver;
#[cfg(test)]
mod isns_test;

use holdfast_iscsi::isns::Objects;
use holdfast_raft::model::{ClusterState, Node, Role};
use holdfast_types::NodeId;

pub(crate) use driver::{Isns, Parts};

/// Whether initiators can log in at a node, as far as is committed.
fn is_up(node: &Node) -> bool {
    node.role == Role::Data && node.incarnation.is_some() && !node.is_suspect()
}

/// Who speaks for the cluster: the first data node that is up. It does so while it holds its lease.
pub(crate) fn speaker(state: &ClusterState) -> Option<NodeId> {
    let up = state.nodes.iter().find(|(_, node)| is_up(node));
    up.map(|(id, _)| *id)
}

/// Whether another data node than `me` is up, and takes over what is registered.
fn has_successor(state: &ClusterState, me: NodeId) -> bool {
    state.nodes.iter().any(|(id, node)| *id != me && is_up(node))
}

/// The portals of the nodes that are up, and all targets.
fn objects(state: &ClusterState) -> Objects {
    let up = state.nodes.values().filter(|node| is_up(node));
    let portals = up.flat_map(|node| node.addresses.portals.iter().map(|portal| (*portal, node.tpg)));
    Objects {
        portals: portals.collect(),
        targets: state.targets.keys().cloned().collect(),
    }
}

/// The name of the cluster's entity: the same before and after a takeover, since what initiators see is the same, too.
fn entity(state: &ClusterState) -> Option<String> {
    let first = state.takeovers.first().map(|takeover| takeover.order.before);
    let id = first.or_else(|| state.cluster.as_ref().map(|cluster| cluster.id))?;
    Some(format!("holdfast-{id}"))
}
