//! Rehearsed failures: a cluster is hurt under a checked workload, round after round, and what its initiators noticed is told in figures.
//!
//! The workload writes through several disks (*lanes*), each of which prefers another node. Two figures come of each round:
//! - the **stall**: the longest time in which no write was completed on any lane. That is the target's own part.
//! - the **worst lane's stall**: the same on the lane that noticed most. Where a node falls silent without a reset, it includes the
//!   initiator's own path timer, as it does for every multipath host.

mod chart;
mod report;
mod stall;
pub(crate) mod timeline;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

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
    /// The link between the two replicas carries nothing any more.
    CutReplication,
    /// Whatever passes the link between the two replicas comes later, by [`Failure::SLOWED_BY`].
    SlowReplication,
    /// Whatever reaches the primary's disk does.
    SlowPrimary,
    /// The primary's links with all other nodes carry nothing any more; initiators go on reaching it.
    SeverPrimary,
    /// The primary's disk hangs: no write and no flush comes to an end.
    HangPrimary,
    /// The same with the other replica's.
    HangReplica,
}

impl Failure {
    /// All of them, mildest first.
    pub const ALL: [Self; 11] = [
        Self::Switchover,
        Self::KillWitness,
        Self::SlowReplication,
        Self::SlowPrimary,
        Self::KillReplica,
        Self::CutReplication,
        Self::KillPrimary,
        Self::FreezePrimary,
        Self::SeverPrimary,
        Self::HangReplica,
        Self::HangPrimary,
    ];

    /// What a slow link or disk adds to each message or operation: far more than a bad day does, and not enough for anything to be given
    /// up.
    pub const SLOWED_BY: Duration = Duration::from_millis(20);

    /// Whether it lasts until it is taken back.
    pub const fn lasts(self) -> bool {
        !matches!(self, Self::Switchover)
    }

    /// How long a round must look on at least to see what comes of it: a disk counts as stuck after 5 s.
    const fn shows_within(self) -> Duration {
        match self {
            Self::HangPrimary | Self::HangReplica => Duration::from_secs(8),
            _ => Duration::ZERO,
        }
    }

    /// What taking it back is, in words.
    pub const fn healing(self) -> &'static str {
        match self {
            Self::Switchover => "nothing to take back",
            Self::FreezePrimary => "goes on (SIGCONT)",
            Self::KillPrimary | Self::KillReplica | Self::KillWitness => "started again",
            Self::CutReplication | Self::SeverPrimary => "links carry again",
            Self::SlowReplication | Self::SlowPrimary => "as fast as ever",
            Self::HangPrimary | Self::HangReplica => "the disk goes on",
        }
    }

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Switchover => "planned switchover",
            Self::KillPrimary => "kill -9 of the primary",
            Self::FreezePrimary => "freeze of the primary",
            Self::KillReplica => "kill -9 of a replica",
            Self::KillWitness => "kill -9 of the witness",
            Self::CutReplication => "link between the replicas cut",
            Self::SlowReplication => "slow link between the replicas",
            Self::SlowPrimary => "slow disk of the primary",
            Self::SeverPrimary => "primary cut off from the nodes",
            Self::HangPrimary => "disk of the primary hangs",
            Self::HangReplica => "disk of a replica hangs",
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
            Failure::Switchover
            | Failure::KillPrimary
            | Failure::FreezePrimary
            | Failure::CutReplication
            | Failure::SlowReplication
            | Failure::SlowPrimary
            | Failure::SeverPrimary
            | Failure::HangPrimary => &self.primary,
            Failure::KillReplica | Failure::HangReplica => &self.replica,
            Failure::KillWitness => &self.witness,
        }
    }
}

/// How often commands came to what, by [`Error::kind`].
pub type Errors = BTreeMap<String, u64>;

/// What one node says of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Of the cluster's state that it knows.
    pub revision: u64,
    /// Whether it hears a majority.
    pub quorum: bool,
    /// Who leads Raft.
    pub leader: Option<String>,
    /// The extent's primary.
    pub primary: Option<String>,
    /// The extent's epoch.
    pub epoch: u64,
    /// Whether it says that it serves the extent itself: as its primary, under a lease.
    pub serves: bool,
    /// State of its own target port group for the unit, in SPC's words; `None` for a witness.
    pub group: Option<String>,
}

/// A look at one node. `T` is [`Instant`] as a stage takes it, and time since the workload's start in a [`Round`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look<T = Duration> {
    /// Number of the node in [`Stage::nodes`].
    pub node: usize,
    /// When it was asked.
    pub asked: T,
    /// When it answered; when it was asked, for one that gave no answer.
    pub at: T,
    /// What it said; `None` for no answer.
    pub view: Option<View>,
}

impl Look<Instant> {
    /// The same by a workload's clock, which showed `now` at `clock`. What was before its start is at its start.
    pub fn by_workload(self, now: Duration, clock: Instant) -> Look {
        let by = |at: Instant| now.saturating_sub(clock.saturating_duration_since(at));
        Look {
            node: self.node,
            asked: by(self.asked),
            at: by(self.at),
            view: self.view,
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

    /// Names of all nodes.
    fn nodes(&self) -> Vec<String>;

    /// What the nodes said since the last call, as far as somebody looks: in the order of time for each node. The first looks may be from
    /// before that call.
    fn looks(&self) -> Vec<Look<Instant>>;
}

/// How far a rehearsal is.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// It waits until the cluster is whole, before a failure's round of this number (from 1).
    Settling(Failure, u32),
    /// The failure is in place, and initiators are watched.
    Watching(Failure, u32),
    /// It is taken back.
    Healing(Failure, u32),
    /// The round of this number is over.
    Done(u32, &'a Round),
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

/// What one round saw. Times are the workload's.
#[derive(Debug, Clone)]
pub struct Round {
    /// What was done.
    pub failure: Failure,
    /// The node that it was done to.
    pub victim: String,
    /// Whether that node led Raft, so that an election ran too.
    pub led: bool,
    /// Longest time without a completed write on any lane, from the failure until it was taken back.
    pub stall: Duration,
    /// The same on the lane that noticed most.
    pub lane_stall: Duration,
    /// Longest time without a completed write on any lane while the cluster healed.
    pub healing_stall: Duration,
    /// From taking the failure back until every replica was in sync again.
    pub recovery: Duration,
    /// When it was done.
    pub at: Duration,
    /// When it began to be taken back.
    pub healed: Duration,
    /// When the round was over.
    pub end: Duration,
    /// The writes around it, in the order of their answers.
    pub samples: Vec<Sample>,
    /// What commands met meanwhile, besides GOOD; hidden from the workload by its paths where it can be.
    pub errors: Errors,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// What they said.
    pub looks: Vec<Look>,
}

#[cfg(test)]
impl Round {
    /// Something done to node a at 1 s, taken back at 4 s.
    fn example(failure: Failure, stall: Duration, recovery: Duration) -> Self {
        let at = Duration::from_secs(1);
        let healed = at + Duration::from_secs(3);
        Self {
            failure,
            victim: "a".to_owned(),
            led: false,
            stall,
            lane_stall: stall + Duration::from_millis(1),
            healing_stall: Duration::ZERO,
            recovery,
            at,
            healed,
            end: healed + recovery + AFTER,
            samples: Vec::new(),
            errors: Errors::new(),
            nodes: ["a", "b", "w"].map(str::to_owned).into(),
            looks: Vec::new(),
        }
    }
}

/// Before the failure, and after all is in sync again: how much of the quiet time is kept.
const BEFORE: Duration = Duration::from_millis(300);
const AFTER: Duration = Duration::from_millis(300);
/// For a lane to come back to work.
const SERVED_WITHIN: Duration = Duration::from_secs(30);

/// Carries the plan out. `errors` tells what commands have met until now; `tell` hears how far it is.
///
/// # Errors
/// The first thing that the stage cannot do, or a lane that is not served again.
pub async fn run<S: Stage>(
    plan: &Plan,
    stage: &S,
    load: &Running,
    errors: impl Fn() -> Errors,
    mut tell: impl FnMut(Step<'_>),
) -> Result<Vec<Round>, S::Error> {
    let mut rounds = Vec::new();
    for failure in &plan.failures {
        for number in 1..=plan.rounds {
            let before = errors();
            let mut round = one((*failure, number), plan.observe, stage, load, &mut tell).await?;
            round.errors = since(&before, errors());
            tell(Step::Done(number, &round));
            rounds.push(round);
        }
    }
    Ok(rounds)
}

/// What came to `after` since `before`.
fn since(before: &Errors, after: Errors) -> Errors {
    let more = after.into_iter().map(|(kind, count)| {
        let had = before.get(&kind).copied().unwrap_or(0);
        (kind, count - had.min(count))
    });
    more.filter(|(_, count)| *count > 0).collect()
}

async fn one<S: Stage>(
    (failure, number): (Failure, u32),
    observe: Duration,
    stage: &S,
    load: &Running,
    tell: &mut impl FnMut(Step<'_>),
) -> Result<Round, S::Error> {
    tell(Step::Settling(failure, number));
    let roles = stage.settle().await?;
    for lane in 0..load.lanes() {
        load.served(lane, SERVED_WITHIN).await?;
    }
    load.record();
    drop(stage.looks());
    tokio::time::sleep(BEFORE).await;
    tell(Step::Watching(failure, number));
    let at = load.now();
    let injected = stage.inject(failure, &roles).await;
    if injected.is_ok() {
        let observe = observe.max(failure.shows_within());
        tokio::time::sleep(observe.saturating_sub(load.now().saturating_sub(at))).await;
    }
    // Healed also when it could not be done as a whole.
    tell(Step::Healing(failure, number));
    let observed = load.now();
    stage.heal(failure, &roles).await?;
    injected?;
    let healed = load.now();
    stage.settle().await?;
    let in_sync = load.now();
    tokio::time::sleep(AFTER).await;
    let (end, clock) = (load.now(), Instant::now());
    let samples = load.recorded();
    let until = |limit: Duration| samples.iter().filter(move |sample| sample.answered <= limit);
    let of_lane = |lane: usize| longest(until(observed).filter(move |s| s.lane == lane), at, observed);
    let looks = stage.looks().into_iter();
    let looks = looks.map(|look| look.by_workload(end, clock));
    Ok(Round {
        failure,
        victim: roles.victim(failure).to_owned(),
        led: roles.leader.as_deref() == Some(roles.victim(failure)),
        stall: longest(until(observed), at, observed),
        lane_stall: (0..load.lanes()).map(of_lane).max().unwrap_or_default(),
        healing_stall: longest(until(in_sync), observed, in_sync),
        recovery: in_sync.saturating_sub(healed),
        at,
        healed,
        end,
        looks: looks.collect(),
        samples,
        errors: Errors::new(),
        nodes: stage.nodes(),
    })
}
