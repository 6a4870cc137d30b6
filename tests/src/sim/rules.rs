//! Every rule whose loss something must notice, and what does: each fault that the protocol's design demands, and each switch that there
//! is. `simulate --mutations` goes through this table; `tests/tests/simulate.rs` keeps it true.

use holdfast_raft::fault::Fault as C;
use holdfast_replication::fault::Fault as D;
use holdfast_scsi::fault::Fault as U;

use super::{Broken, Scenario};

/// What notices that a rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Seeds as they come; if those do not, the play that belongs to the fault (`Broken::scenario`) alone.
    Seeds,
    /// Seeds that all play this.
    Play(Scenario),
    /// A trace in a crate's own tests, which runs the real cores with the rule in force and broken: path of the file, name of the test.
    Trace(&'static str, &'static str),
    /// Nothing, and nothing has to: why.
    NotNeeded(&'static str),
}

/// A rule, the switch that breaks it, and what notices.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// In the words of the protocol.
    pub text: &'static str,
    /// `None`: there is nothing to switch off.
    pub broken: Option<Broken>,
    /// What notices.
    pub shown: Shown,
}

const fn control(text: &'static str, fault: C, shown: Shown) -> Rule {
    let broken = Some(Broken::Control(fault));
    Rule { text, broken, shown }
}

const fn data(text: &'static str, fault: D, shown: Shown) -> Rule {
    let broken = Some(Broken::Data(fault));
    Rule { text, broken, shown }
}

const fn other(text: &'static str, broken: Broken, shown: Shown) -> Rule {
    let broken = Some(broken);
    Rule { text, broken, shown }
}

const fn none(text: &'static str, shown: Shown) -> Rule {
    let broken = None;
    Rule { text, broken, shown }
}

const STEPS: &str = "replication/src/core/broken_test.rs";
use Shown::{NotNeeded, Play, Seeds, Trace};

/// Of leases, suspicions, voters.
#[rustfmt::skip]
const LEASES: &[Rule] = &[
    data("lease: no check", D::ReadWithoutLease, Seeds),
    control("lease: self always counts", C::SelfAlwaysCounts, Seeds),
    control("lease: counted from the acknowledgement", C::CountedFromAck, Seeds),
    control("lease: no drift margin", C::NoDriftMargin, Seeds),
    control("lease: no suspect step", C::NoSuspectStep, Seeds),
    control("lease: an applied suspect still promised to", C::SuspectStillPromised, Seeds),
    control("lease: one report is enough", C::OneReportIsEnough, Seeds),
    control("lease: report without id", C::ReportWithoutId, Seeds),
    control("lease: new epoch without suspicion id", C::NewEpochWithoutSuspicion, Seeds),
    control("lease: heartbeat without generation", C::NoGeneration, Seeds),
    control("lease: no L after a start", C::NoWaitAfterStart, Seeds),
    control("lease: promise before caught up", C::PromiseBeforeCaughtUp, Seeds),
    control("lease: an older, longer lease time goes on counting", C::OlderLeaseCounted, Seeds),
    control("lease: report before caught up", C::ReportBeforeCaughtUp, Seeds),
    control("lease: a change of the lease time settled at once", C::LeaseSettledAtOnce, Seeds),
    control("a voter swapped during a lease: promises do not name the set", C::VotersUnnamed, Seeds),
    control("a voter swapped during a lease: reports right after", C::NoWaitAfterVoters,
        Play(Scenario::VoterReplaced)),
    control("a leader that suspects a node others hear", C::SuspectsWhomOthersHear, Seeds),
];

/// Of epochs and in-sync sets.
#[rustfmt::skip]
const SETS: &[Rule] = &[
    data("epoch: same epoch after a restart", D::ServeAfterRestart, Seeds),
    control("epoch: no precondition", C::NoPrecondition, Seeds),
    control("set: no in-sync check at apply", C::NoInSyncCheck, Seeds),
    control("set: an unfit replica promoted, the suspect taken out for it", C::UnfitPromoted, Seeds),
    control("set: the suspect taken out before the next primary has shown that it can serve", C::SuspectTakenOut, Seeds),
    data("set: growth not counted while pending", D::GrowthNotCounted, Seeds),
    data("set: growth without barrier", D::GrowWithoutBarrier, Seeds),
    data("epoch: a replica accepts an old one", D::AcceptOldEpoch, Seeds),
    data("switchover: not closed", D::SwitchoverNotClosed, Seeds),
    data("switchover: resumed by a timer", D::ResumeByTimer, Seeds),
    data("switchover: forgotten by a restart", D::ServeAfterRestart, Play(Scenario::SwitchoverAndRestart)),
];

/// Of data.
#[rustfmt::skip]
const DATA: &[Rule] = &[
    data("data: acknowledged without the replica", D::AckWithoutReplica, Seeds),
    data("data: acknowledged before it is stable locally", D::AckBeforeLocal, Seeds),
    data("data: reads before the tail is settled", D::ReadBeforeSettled, Seeds),
    data("data: base position forgotten in resync", D::BaseForgotten, Seeds),
    data("data: resync block without its lock", D::ResyncWithoutLock, Seeds),
    data("data: resync block without lsn", D::ResyncWithoutLsn, Seeds),
    data("data: source changed midway", D::SourceForgotten, Seeds),
    data("data: dropped ranges not compared", D::DroppedNotCompared, NotNeeded(
        "an extent holds only what was committed (I7), and the primary's log and its map of changes name all of that")),
    data("data: changes between two checkpoints not noted", D::ChangesForgotten, Seeds),
    data("data: extent not flushed before its log starts anew", D::RestartUnflushed,
        Play(Scenario::PowerAfterGrowth)),
    other("data: recovery over mid-log damage", Broken::RecoveryOverDamage, Seeds),
    other("data: a flush retried", Broken::FlushRetried, Seeds),
    other("data: checksums of blocks not looked at", Broken::SumsIgnored, Seeds),
    data("data: extent before journal with WCE=1", D::ExtentBeforeJournal, Seeds),
    data("write-back: answered before every member has received it", D::EarlyBeforeReceived, Seeds),
    control("write-back: a member that was started anew is promoted", C::RestartedPromoted, Seeds),
    data("write-back: SYNCHRONIZE CACHE does not wait", D::FlushWithoutWaiting, Seeds),
    data("data: commit position only piggybacked", D::CommitOnlyPiggybacked, Seeds),
    data("confirmed reads: one replica of several", D::ConfirmedByOne, Play(Scenario::StaleConfirmation)),
    none("confirmed reads: a majority that has applied a suspicion", NotNeeded(
        "no majority of voters is asked: every other member of the set is, or, alone in it, a Raft read index is applied")),
];

/// Of takeovers without a quorum.
#[rustfmt::skip]
const TAKEOVERS: &[Rule] = &[
    control("takeover: the same incarnation", C::IncarnationKept, NotNeeded(
        "who is no member of the new one gets no promise, no vote and no place in a set there, and ids of nodes are never given twice")),
    control("takeover: without the log's tail", C::TailDropped, Play(Scenario::StaleTakeover)),
    control("takeover: a growth in the tail believed", C::TailBelieved,
        Trace("raft/src/model/takeover_test.rs", "t2_a_growth_in_the_tail_that_is_believed_is_noticed")),
    control("takeover: a replica that is not in sync counts", C::StaleCounted, Play(Scenario::StaleTakeover)),
    control("takeover: epochs not raised", C::EpochsKept, NotNeeded(
        "links refuse the incarnation before, and the first opening raises the epoch by one")),
];

/// Of what initiators see.
#[rustfmt::skip]
const FRONT: &[Rule] = &[
    data("front: names forgotten (a command may be carried out twice)", D::ForgetNames, Seeds),
    data("front: reservation acknowledged before the primary applied it", D::FenceBeforeApplied, Seeds),
    data("front: reservation judged at the forwarder", D::JudgedAtForwarder, Seeds),
    data("front: a conflict told without the lease", D::ConflictWithoutLease,
        Trace("replication/src/core/unit_test.rs", "p1_a_conflict_told_without_the_lease_is_noticed")),
    data("front: forward after a generation change", D::ForwardOfOldGeneration,
        Trace(STEPS, "f1_a_forward_after_a_generation_change_is_noticed")),
    data("front: forwards of a node whose leaving is proposed", D::ForwardOfLeaving,
        Trace("replication/src/core/leave_test.rs", "f4_a_forward_of_a_leaving_node_is_noticed")),
    data("front: a fate query that does not bar", D::FateDoesNotBar,
        Trace(STEPS, "f2_a_fate_query_that_does_not_bar_is_noticed")),
    other("front: unit attention per entry", Broken::Unit(U::AttentionPerEntry),
        Trace("scsi/src/nexus.rs", "p3_a_unit_attention_per_entry_is_noticed")),
    other("(an assumption) clocks beyond the bound", Broken::ClockBeyondBound, Play(Scenario::StaleConfirmation)),
];

/// All of them.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [LEASES, SETS, DATA, TAKEOVERS, FRONT].into_iter().flatten()
}
