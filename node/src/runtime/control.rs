//! The loops that keep the control plane going: the governor's proposals, this run's announcement, catching up after the start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_planes::Announcer;
use holdfast_raft::consensus::Control;
use holdfast_raft::governor::{
    Governor, GovernorInput, MemberStep, Placement, PlacementInput, Proposal, RaftView,
};
use holdfast_raft::lease::driver::{Clock, Lease};
use holdfast_raft::model::{ClusterState, Reply};
use holdfast_replication::core::api::Identity;
use holdfast_replication::driver::DataNode;
use holdfast_types::{ExtentId, HEARTBEAT_EVERY, Incarnation, NodeId, Revision};
use tokio::sync::watch;

use crate::events::{self, Recorder, Story};

/// Between two tries of something that needs a leader.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Between two looks at where extents should be.
const PLACE_EVERY: Duration = Duration::from_millis(50);

/// The control plane's parts, as its loops use them.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) me: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) control: Control,
    pub(super) lease: Lease,
    pub(super) clock: Clock,
}

impl Parts {
    /// Who this process is.
    pub(super) const fn run(&self) -> Identity {
        Identity {
            node: self.me,
            incarnation: self.incarnation,
        }
    }

    /// Once after the start: everything that a leader confirmed as committed since then is applied here (L5). Up to where that is.
    pub(super) async fn catch_up(&self) -> Revision {
        loop {
            if let Ok(index) = self.control.read_index().await
                && self.control.wait_applied(index, Duration::from_secs(10)).await
            {
                self.lease.caught_up();
                tracing::info!(%index, "caught up with the cluster");
                return index;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Tells the cluster of this run, which has no replicas, whenever the committed state names another one (E1): at the start, and should
    /// a proposal of an earlier run come late.
    pub(super) async fn announce_alone(self) {
        self.catch_up().await;
        let mut announcer = Announcer::new(self.run());
        let mut watch = self.control.watch();
        loop {
            let state = Arc::clone(&watch.borrow_and_update());
            let made = self.announce(&mut announcer, &state, &BTreeSet::new()).await;
            if !made && watch.changed().await.is_err() {
                return;
            }
        }
    }

    /// Proposes what `announcer` wants said, if anything; whether it did. Lost proposals are made again.
    pub(super) async fn announce(
        &self,
        announcer: &mut Announcer,
        state: &ClusterState,
        unfit: &BTreeSet<ExtentId>,
    ) -> bool {
        let Some(command) = announcer.propose(state, unfit) else {
            return false;
        };
        let _ = self.control.propose(command).await;
        tokio::time::sleep(AGAIN_AFTER).await;
        true
    }

    /// Has everything that changes told to people.
    pub(super) fn tell(&self, recorder: Arc<Recorder>) -> impl Future<Output = ()> + use<> {
        events::follow(Story {
            control: self.control.clone(),
            lease: self.lease.clone(),
            clock: Arc::clone(&self.clock),
            recorder,
        })
    }

    /// Looks at leases and liveness all the time, and proposes what the governor wants.
    pub(super) async fn govern(self) {
        let mut governor = Governor::new();
        let mut tick = tokio::time::interval(HEARTBEAT_EVERY / 2);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let metrics = self.control.metrics();
            self.lease.raft_hint(metrics.term, metrics.leader);
            let membership = self.control.membership();
            let raft = RaftView {
                am_leader: metrics.am_leader,
                leader: metrics.leader,
                committed: metrics.committed.unwrap_or(0),
                matched: metrics
                    .peers
                    .iter()
                    .map(|(node, peer)| (*node, peer.matched.unwrap_or(0)))
                    .collect(),
                store: self.control.store_times(),
                voters: membership.voters,
                learners: membership.learners,
            };
            let state = self.control.state();
            let view = self.lease.view();
            let input = GovernorInput {
                state: &state,
                me: self.me,
                incarnation: self.incarnation,
                view: &view,
                raft: &raft,
            };
            for proposal in governor.tick((self.clock)(), &input) {
                // Each on its own: one that waits for a lost follower must not hold up the others.
                tokio::spawn(carry_out(self.control.clone(), proposal));
            }
        }
    }
}

async fn carry_out(control: Control, proposal: Proposal) {
    match proposal {
        Proposal::Command(command) => {
            tracing::info!(?command, "governor proposes");
            match control.propose(command).await {
                Ok(Reply::Refused { refusal }) => {
                    tracing::info!(%refusal, "the governor's proposal came too late")
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::info!(%error, "the governor's proposal is lost; it is made again while it is wanted")
                }
            }
        }
        Proposal::TransferLeader(to) | Proposal::Members(MemberStep::HandOver(to)) => {
            tracing::info!(%to, "governor hands leadership over");
            if let Err(error) = control.transfer_leader(to).await {
                tracing::info!(%error, "leadership stays where it is");
            }
        }
        Proposal::Members(step) => {
            tracing::info!(?step, "governor changes the membership");
            let taken = match step {
                MemberStep::AddLearner(node) => control.add_learner(node).await,
                MemberStep::SetVoters(voters) => control.set_voters(voters).await,
                MemberStep::RemoveLearner(node) => control.remove_learner(node).await,
                MemberStep::HandOver(_) => Ok(()),
            };
            if let Err(error) = taken {
                tracing::info!(%error, "the step of the membership is taken again while it is wanted");
            }
        }
    }
}

/// Hands extents over, planned, whenever the cluster wants them elsewhere.
pub(super) async fn place(parts: Parts, data: Arc<DataNode>, stopping: watch::Receiver<bool>) {
    let mut placement = Placement::new();
    let mut tick = tokio::time::interval(PLACE_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (state, view) = (parts.control.state(), parts.lease.view());
        let input = PlacementInput {
            state: &state,
            me: parts.me,
            incarnation: parts.incarnation,
            view: &view,
            stopping: *stopping.borrow(),
        };
        for (extent, to) in placement.tick((parts.clock)(), &input) {
            tracing::info!(%extent, %to, "the extent is handed over, planned");
            // One that is not known here yet is looked at again.
            let _ = data.switchover(extent, to);
        }
    }
}

/// Keeps `on_state` told of every newer committed state, the present one first.
pub(super) async fn follow_state(
    control: Control,
    mut on_state: impl FnMut(&Arc<holdfast_raft::model::ClusterState>) + Send + 'static,
) {
    let mut state = control.watch();
    loop {
        let newest = Arc::clone(&state.borrow_and_update());
        on_state(&newest);
        if state.changed().await.is_err() {
            return;
        }
    }
}
