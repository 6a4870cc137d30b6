//! The cores' wishes as commands of the cluster: those of a kind share one entry.

use holdfast_raft::model::{AdminCommand, ClusterState, Command, ExtentStamp};
use holdfast_replication::core::api::{Change, Identity, Proposal, RoleName, Status};
use holdfast_types::ExtentId;

/// One command for each change of the same kind by the same run. A hand-over for which nobody is there makes none: it is wished again.
pub fn commands(state: &ClusterState, batch: impl IntoIterator<Item = (ExtentId, Proposal)>) -> Vec<Command> {
    let mut groups: Vec<((Change, Identity), Vec<ExtentStamp>)> = Vec::new();
    let mut commands = Vec::new();
    for (extent, proposal) in batch {
        let stamp = ExtentStamp {
            extent,
            epoch: proposal.epoch,
            version: proposal.version,
        };
        if proposal.change == Change::HandOver || forgot(state, stamp.extent, &proposal) {
            commands.extend(hand_over(state, stamp, proposal.by));
            continue;
        }
        let key = (proposal.change, proposal.by);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, items)) => items.push(stamp),
            None => groups.push((key, vec![stamp])),
        }
    }
    commands.extend(
        groups
            .into_iter()
            .filter_map(|((change, by), items)| command(change, by, items)),
    );
    commands
}

fn command(change: Change, by: Identity, items: Vec<ExtentStamp>) -> Option<Command> {
    let proposer = by.node;
    Some(match change {
        Change::Shrink { node } => Command::Shrink {
            items,
            proposer,
            remove: node,
        },
        Change::Grow { node, run } => Command::Grow {
            items,
            proposer,
            add: node,
            run: Some(run),
        },
        Change::GrowVoid => Command::GrowVoid { items, proposer },
        Change::CacheSettled => Command::CacheSettled { items, proposer },
        Change::Retire => AdminCommand::Retire { items, proposer }.into(),
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
        Change::HandOver => return None,
    })
}

/// W5: a primary that was started anew may lack what it acknowledged in its earlier run, while another member has it. That one is to serve.
fn forgot(state: &ClusterState, extent: ExtentId, proposal: &Proposal) -> bool {
    let by = proposal.by.node;
    let primary = state.extents.get(&extent).and_then(|extent| extent.primary);
    proposal.change == Change::Reopen && primary == Some(by) && !state.has_all(by, extent)
}

/// A primary whose own replica cannot serve hands over to the first in-sync member that is up and has not said the same of its own (J1,
/// J2), to one that stays before one that goes. It serves nothing, in whatever run the epoch names, so it has handed back already (E6).
fn hand_over(state: &ClusterState, item: ExtentStamp, by: Identity) -> Option<Command> {
    let extent = state.extents.get(&item.extent)?;
    let from_incarnation = extent.primary_incarnation?;
    let (to, to_incarnation) = extent
        .in_sync
        .iter()
        .filter(|node| **node != by.node && state.may_reign(**node, item.extent))
        .filter_map(|node| Some((*node, state.node(*node)?.incarnation?)))
        .min_by_key(|(node, _)| extent.retiring.contains(node))?;
    Some(Command::Switchover {
        items: vec![item],
        from: by.node,
        from_incarnation,
        to,
        to_incarnation,
    })
}

/// Extents without primary that this run should open: those whose replica here can serve, by what `status` says of it. With `late`, also
/// those that another member should have opened first.
pub fn openings(
    state: &ClusterState,
    me: Identity,
    late: bool,
    status: impl Fn(ExtentId) -> Option<Status>,
) -> Option<Command> {
    let command = if late {
        state.reopening_late(me.node, me.incarnation)
    } else {
        state.reopening(me.node, me.incarnation)
    };
    let Some(Command::Reopen {
        mut items,
        node,
        incarnation,
    }) = command
    else {
        return None;
    };
    // Those with a primary are their core's own business.
    let unowned = |extent| {
        state
            .extents
            .get(&extent)
            .is_some_and(|extent| extent.primary.is_none())
    };
    let able = |status: Status| status.role == RoleName::Replica && status.base.is_none() && status.fit;
    items.retain(|item| unowned(item.extent) && status(item.extent).is_some_and(able));
    (!items.is_empty()).then_some(Command::Reopen {
        items,
        node,
        incarnation,
    })
}
