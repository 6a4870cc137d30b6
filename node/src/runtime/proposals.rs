//! The cores' wishes, on their way to the cluster.

use holdfast_planes::commands;
use holdfast_raft::consensus::Control;
use holdfast_raft::model::{ItemOutcome, Reply};
use holdfast_replication::core::api::Proposal;
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
