//! Rehearsed failures: a cluster is hurt under a checked workload, round after round, and what its initiators noticed is told in figures.
//!
//! The workload writes through several disks (*lanes*), each of which prefers another node. Two figures come of each round:
//! - the **stall**: the longest time in which no write was completed on any lane. That is the target's own part.
//! - the **worst lane's stall**: the same on the lane that noticed most. Where a node falls silent without a reset, it includes the
//!   initiator's own path timer, as it does for every multipath host.

mod chart;
mod report;
mod stall;
mod verdict;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;

pub use chart::svg;
pub use report::{Report, Row, Spread};
pub use stall::longest;
pub use verdict::{Budget, DrillReport, Scenario};

use crate::error::Error;
use crate::workload::{Running, Sample};

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The extent is moved to the other node, planned.
    Switchover,
    /// `kill -9` of the primary.
    KillPrimary,
    /// The primary's process is stopped (SIGSTOP): its sockets stay open and say nothing.
    FreezePrimary,
    /// `kill -9` of the other replica.
    KillReplica,
    /// `kill -9` of the witness.
    KillWitness,
}

impl Failure {
    /// All of them, mildest first.
    pub const ALL: [Self; 5] = [
        Self::Switchover,
        Self::KillWitness,
        Self::KillReplica,
        Self::KillPrimary,
        Self::FreezePrimary,
    ];

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Switchover => "planned switchover",
            Self::KillPrimary => "kill -9 of the primary",
            Self::FreezePrimary => "freeze of the primary",
            Self::KillReplica => "kill -9 of a replica",
            Self::KillWitness => "kill -9 of the witness",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// Who is what when a round begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// The extent's primary.
    pub primary: String,
    /// The other in-sync replica.
    pub replica: String,
    /// The node that votes only.
    pub witness: String,
    /// Who leads Raft.
    pub leader: Option<String>,
}

impl Roles {
    /// Who is hurt.
    pub fn victim(&self, failure: Failure) -> &str {
        match failure {
            Failure::Switchover | Failure::KillPrimary | Failure::FreezePrimary => &self.primary,
            Failure::KillReplica => &self.replica,
            Failure::KillWitness => &self.witness,
        }
    }
}

/// A cluster that can be hurt and healed.
pub trait Stage {
    /// Why it could not do something.
    type Error: From<Error>;

    /// Waits until every node is up and every replica in sync.
    ///
    /// # Errors
    /// That does not come about.
    fn settle(&self) -> impl Future<Output = Result<Roles, Self::Error>>;

    /// Hurts it.
    ///
    /// # Errors
    /// It cannot be done.
    fn inject(&self, failure: Failure, roles: &Roles) -> impl Future<Output = Result<(), Self::Error>>;

    /// Takes back what [`Stage::inject`] did. The cluster may still be busy afterwards.
    ///
    /// # Errors
    /// It cannot be done.
    fn heal(&self, failure: Failure, roles: &Roles) -> impl Future<Output = Result<(), Self::Error>>;
}

/// How to rehearse.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What, in this order.
    pub failures: Vec<Failure>,
    /// How often each.
    pub rounds: u32,
    /// How long a round looks on after the failure.
    pub observe: Duration,
}

/// What one round saw.
#[derive(Debug, Clone)]
pub struct Round {
    /// What was done.
    pub failure: Failure,
    /// Whether the node that was hurt led Raft, so that an election ran too.
    pub led: bool,
    /// Longest time without a completed write on any lane.
    pub stall: Duration,
    /// The same on the lane that noticed most.
    pub lane_stall: Duration,
    /// From taking the failure back until every replica was in sync again.
    pub recovery: Duration,
    /// When it was done, in the workload's time.
    pub at: Duration,
    /// The writes around it.
    pub samples: Vec<Sample>,
}

/// Before the failure: how much of the quiet time is kept.
const BEFORE: Duration = Duration::from_millis(300);
/// For a lane to come back to work.
const SERVED_WITHIN: Duration = Duration::from_secs(30);

/// Carries the plan out. `tell` hears each round's end.
///
/// # Errors
/// The first thing that the stage cannot do, or a lane that is not served again.
pub async fn run<S: Stage>(
    plan: &Plan,
    stage: &S,
    load: &Running,
    mut tell: impl FnMut(u32, &Round),
) -> Result<Vec<Round>, S::Error> {
    let mut rounds = Vec::new();
    for failure in &plan.failures {
        for number in 1..=plan.rounds {
            let round = one(*failure, plan.observe, stage, load).await?;
            tell(number, &round);
            rounds.push(round);
        }
    }
    Ok(rounds)
}

async fn one<S: Stage>(
    failure: Failure,
    observe: Duration,
    stage: &S,
    load: &Running,
) -> Result<Round, S::Error> {
    let roles = stage.settle().await?;
    for lane in 0..load.lanes() {
        load.served(lane, SERVED_WITHIN).await?;
    }
    load.record();
    tokio::time::sleep(BEFORE).await;
    let at = load.now();
    let injected = stage.inject(failure, &roles).await;
    if injected.is_ok() {
        tokio::time::sleep(observe.saturating_sub(load.now().saturating_sub(at))).await;
    }
    let (end, samples) = (load.now(), load.recorded());
    // Healed also when it could not be done as a whole.
    stage.heal(failure, &roles).await?;
    injected?;
    let healed = load.now();
    stage.settle().await?;
    let recovery = load.now().saturating_sub(healed);
    let of_lane = |lane: usize| longest(samples.iter().filter(move |s| s.lane == lane), at, end);
    Ok(Round {
        failure,
        led: roles.leader.as_deref() == Some(roles.victim(failure)),
        stall: longest(samples.iter(), at, end),
        lane_stall: (0..load.lanes()).map(of_lane).max().unwrap_or_default(),
        recovery,
        at,
        samples,
    })
}
