//! The cores' wishes as commands of the cluster: those of a kind share one entry.

use holdfast_raft::consensus::Control;
use holdfast_raft::model::{ClusterState, Command, ExtentStamp, ItemOutcome, Reply};
use holdfast_replication::core::api::{Change, Identity, Proposal};
use holdfast_replication::driver::Proposer;
use holdfast_types::ExtentId;
use tokio::sync::mpsc;

/// Proposes through the control plane.
pub(super) struct Proposals {
    control: Control,
    /// Reads that wait for a confirmed commit position.
    ask: mpsc::UnboundedSender<(ExtentId, u64)>,
    runtime: tokio::runtime::Handle,
}

impl Proposals {
    /// To be made within the runtime that proposals run on.
    pub(super) fn new(control: Control, ask: mpsc::UnboundedSender<(ExtentId, u64)>) -> Self {
        Self {
            control,
            ask,
            runtime: tokio::runtime::Handle::current(),
        }
    }
}

impl Proposer for Proposals {
    fn propose(&self, batch: Vec<(ExtentId, Proposal)>) {
        let state = self.control.state();
        for command in commands(&state, batch) {
            let control = self.control.clone();
            // Each on its own: none waits for another, and all of them may get lost.
            self.runtime.spawn(async move {
                tracing::debug!(?command, "proposing");
                match control.propose(command).await {
                    Ok(reply) => note_refusals(&reply),
                    Err(error) => {
                        tracing::info!(%error, "a proposal is lost; it is made again while it is wanted")
                    }
                }
            });
        }
    }

    fn confirm(&self, extent: ExtentId, round: u64) {
        // Nobody listens any more only when the node stops.
        let _ = self.ask.send((extent, round));
    }
}

fn note_refusals(reply: &Reply) {
    match reply {
        Reply::Refused { refusal } => tracing::info!(%refusal, "a proposal was refused"),
        Reply::Items { items } => {
            for item in items {
                if let ItemOutcome::Refused { refusal } = &item.outcome {
                    tracing::info!(extent = %item.extent, %refusal, "a proposal was refused");
                }
            }
        }
        _ => {}
    }
}

/// One command for each change of the same kind by the same run.
fn commands(state: &ClusterState, batch: Vec<(ExtentId, Proposal)>) -> Vec<Command> {
    let mut groups: Vec<((Change, Identity), Vec<ExtentStamp>)> = Vec::new();
    let mut commands = Vec::new();
    for (extent, proposal) in batch {
        let stamp = ExtentStamp {
            extent,
            epoch: proposal.epoch,
            version: proposal.version,
        };
        if proposal.change == Change::HandOver {
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
        Change::HandOver => return None,
    })
}

/// A primary whose own replica cannot serve hands over to the first in-sync member that is up (J1, J2). It serves nothing, in whatever run
/// the epoch names, so it has handed back already (E6).
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
