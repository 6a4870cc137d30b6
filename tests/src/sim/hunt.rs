//! Rules broken on purpose: how many seeds it takes until that is noticed.

use super::{Broken, Options, Outcome, Scenario, rules, run};
use holdfast_raft::fault::{self as control, Fault as ControlFault};
use holdfast_replication::fault::{self as data, Fault as DataFault};
use holdfast_scsi::fault as unit;

/// How a broken rule was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// Seeds run, the one that noticed included.
    pub seeds: u64,
    /// The seed that noticed.
    pub seed: u64,
    /// What it played. `None` there is chance alone.
    pub scenario: Scenario,
    /// The first line of the finding.
    pub what: String,
}

impl Broken {
    /// As the table and `--broken` have it.
    pub fn name(self) -> String {
        match self {
            Self::Control(fault) => format!("{fault:?}"),
            Self::Data(fault) => format!("{fault:?}"),
            Self::Unit(fault) => format!("{fault:?}"),
            other => format!("{other:?}"),
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        rules()
            .filter_map(|rule| rule.broken)
            .find(|one| one.name() == name)
    }

    /// The scenario that goes where the rule is needed, for those that seeds find late or never.
    pub fn scenario(self) -> Option<Scenario> {
        use ControlFault as C;
        use DataFault as D;
        Some(match self {
            Self::Control(fault) => match fault {
                C::NoSuspectStep => Scenario::Isolated,
                C::SelfAlwaysCounts | C::SuspectStillPromised => Scenario::OwnSuspicion,
                C::CountedFromAck => Scenario::LateAcknowledgements,
                C::NoDriftMargin => Scenario::DriftAtBound,
                C::OneReportIsEnough => Scenario::EarlyReport,
                C::ReportWithoutId => Scenario::SecondSuspicion,
                C::NewEpochWithoutSuspicion => Scenario::LateNewEpoch,
                C::NoPrecondition => Scenario::LateShrink,
                C::NoGeneration => Scenario::ClearedUnlinked,
                C::NoWaitAfterStart => Scenario::ForgetfulVoter,
                C::PromiseBeforeCaughtUp => Scenario::RolledBackVoter,
                C::UnfitPromoted | C::SuspectTakenOut => Scenario::DamagedOnePromoted,
                C::SuspectsWhomOthersHear => Scenario::OneLinkCut,
                C::OlderLeaseCounted => Scenario::LeaseShortenedUnanswered,
                C::ReportBeforeCaughtUp => Scenario::LeaseLengthened,
                C::LeaseSettledAtOnce => Scenario::LeaseShortened,
                C::RestartedPromoted => Scenario::ForgetfulReplica,
                C::VotersUnnamed | C::NoWaitAfterVoters => Scenario::VoterReplaced,
                _ => return None,
            },
            Self::Data(fault) => match fault {
                D::AckBeforeLocal => Scenario::CrashAtDone,
                D::ReadBeforeSettled => Scenario::LostWithTail,
                D::AcceptOldEpoch => Scenario::OldPrimaryReturns,
                D::GrowthNotCounted => Scenario::CutAtGrowth,
                D::ReadWithoutLease => Scenario::Isolated,
                D::ServeAfterRestart => Scenario::RestartedPrimary,
                D::ForgetNames => Scenario::ForwarderStopped,
                D::BaseForgotten => Scenario::CrashInResync,
                D::ResyncWithoutLsn => Scenario::WritesInResync,
                D::SourceForgotten => Scenario::CrashInResync,
                D::CommitOnlyPiggybacked => Scenario::IdleAfterWrite,
                D::SwitchoverNotClosed => Scenario::SwitchoverUnheard,
                D::ResumeByTimer => Scenario::LateSwitchover,
                D::RestartUnflushed => Scenario::PowerAfterGrowth,
                D::FlushWithoutWaiting => Scenario::FlushedAndLost,
                D::ConfirmedByOne => Scenario::StaleConfirmation,
                _ => return None,
            },
            Self::Unit(_) => return None,
            Self::FlushRetried => Scenario::FlushFails,
            Self::SumsIgnored => return None,
            Self::ClockBeyondBound => Scenario::StaleConfirmation,
            Self::RecoveryOverDamage => Scenario::DamagedOnePromoted,
        })
    }
}

/// Runs a seed with a rule broken, in this thread.
pub fn run_broken(options: &Options, broken: Broken) -> Outcome {
    let work = || {
        run(&Options {
            broken: Some(broken),
            ..options.clone()
        })
    };
    match broken {
        Broken::Control(fault) => control::with(Some(fault), work),
        Broken::Data(fault) => data::with(Some(fault), work),
        Broken::Unit(fault) => unit::with(Some(fault), work),
        _ => work(),
    }
}

/// Seeds until the broken rule is noticed, at most so many; then its scenario alone.
pub fn hunt(broken: Broken, most: u64) -> Option<Caught> {
    let plain = (1..=most).find_map(|seed| look(broken, seed, None));
    plain.or_else(|| {
        let scenario = broken.scenario()?;
        (1..=most).find_map(|seed| look(broken, seed, Some(scenario)))
    })
}

/// One seed with a rule broken.
pub fn look(broken: Broken, seed: u64, scenario: Option<Scenario>) -> Option<Caught> {
    let options = Options {
        scenario,
        ..Options::seed(seed)
    };
    let outcome = run_broken(&options, broken);
    let what = outcome.finding?;
    Some(Caught {
        seeds: seed,
        seed,
        scenario: outcome.scenario,
        what: what.lines().next().unwrap_or_default().to_owned(),
    })
}
