//! What a node does between its planes: committed state as the cores see it, their wishes as commands. `node` does the same around sockets
//! and threads.

use holdfast_raft::model::{ClusterState, Command, Extent, ExtentStamp};
use holdfast_replication::core::api::{Change, Identity, NodeState, Policy, Proposal, View};
use holdfast_types::{ExtentId, Incarnation};

use super::{Node, node_id};

pub(super) fn extent_id(extent: usize) -> ExtentId {
    ExtentId::from_u128(extent as u128 + 1)
}

pub(super) fn view(state: &ClusterState, extent: &Extent, policy: Policy) -> View {
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
        blocks: extent.size_bytes >> extent.block_size.shift(),
        block_size: extent.block_size,
        unit: std::sync::Arc::new(extent.unit.rule()),
        nodes: state
            .nodes
            .iter()
            .map(|(node, member)| NodeState {
                node: *node,
                suspect: member.is_suspect(),
                generation: member.lease_generation,
            })
            .collect(),
        policy,
    }
}

/// A core's wish as a command.
pub(super) fn command(state: &ClusterState, extent: usize, wish: &Proposal) -> Option<Command> {
    let stamp = ExtentStamp {
        extent: extent_id(extent),
        epoch: wish.epoch,
        version: wish.version,
    };
    let (items, by) = (vec![stamp], wish.by);
    let proposer = by.node;
    Some(match wish.change {
        Change::Shrink { node } => Command::Shrink {
            items,
            proposer,
            remove: node,
        },
        Change::Grow { node } => Command::Grow {
            items,
            proposer,
            add: node,
        },
        Change::GrowVoid => Command::GrowVoid { items, proposer },
        Change::Switchover { to } => Command::Switchover {
            items,
            from: by.node,
            from_incarnation: by.incarnation,
            to: to.node,
            to_incarnation: to.incarnation,
        },
        Change::Reopen => Command::Reopen {
            items,
            node: by.node,
            incarnation: by.incarnation,
        },
        Change::HandOver => return hand_over(state, stamp, by),
    })
}

/// To the first member of the in-sync set that is up.
fn hand_over(state: &ClusterState, item: ExtentStamp, by: Identity) -> Option<Command> {
    let extent = state.extents.get(&item.extent)?;
    let from_incarnation = extent.primary_incarnation?;
    let (to, to_incarnation) = extent
        .in_sync
        .iter()
        .filter(|node| **node != by.node && !state.is_suspect(**node))
        .find_map(|node| Some((*node, state.node(*node)?.incarnation?)))?;
    Some(Command::Switchover {
        items: vec![item],
        from: by.node,
        from_incarnation,
        to,
        to_incarnation,
    })
}

/// Extents without primary that `node` should open, of those that it `can` serve.
pub(super) fn reopening(
    state: &ClusterState,
    node: Node,
    run: Incarnation,
    late: bool,
    can: impl Fn(ExtentId) -> bool,
) -> Option<Command> {
    let me = node_id(node);
    let command = if late {
        state.reopening_late(me, run)
    } else {
        state.reopening(me, run)
    };
    let Some(Command::Reopen {
        mut items,
        node,
        incarnation,
    }) = command
    else {
        return None;
    };
    items.retain(|item| {
        let unowned = state
            .extents
            .get(&item.extent)
            .is_some_and(|extent| extent.primary.is_none());
        unowned && can(item.extent)
    });
    (!items.is_empty()).then_some(Command::Reopen {
        items,
        node,
        incarnation,
    })
}
