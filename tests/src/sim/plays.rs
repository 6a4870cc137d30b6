//! The plays: who does what when. Times in milliseconds; the seed draws within them.

use super::rng::Rng;
use super::scenario::Who::{Primary, Replica, Spare, Third};
use super::scenario::{Kind, Mark, Scenario, Step, Step::*};

pub(super) fn steps(scenario: Scenario, rng: &mut Rng) -> Vec<Step> {
    suspicions(scenario, rng)
        .or_else(|| promises(scenario))
        .or_else(|| sets(scenario, rng))
        .or_else(|| moves(scenario, rng))
        .or_else(|| disks(scenario, rng))
        .or_else(|| others(scenario, rng))
        .or_else(|| lease_times(scenario))
        .or_else(|| takeovers(scenario, rng))
        .or_else(|| caches(scenario))
        .unwrap_or_else(|| vec![Sleep((500, 1500))])
}

/// Of suspicions: clears, reports, new epochs that are late.
fn suspicions(scenario: Scenario, rng: &mut Rng) -> Option<Vec<Step>> {
    Some(match scenario {
        Scenario::None | Scenario::CrashAtDone => vec![Sleep((500, 1500))],
        Scenario::LateNewEpoch => vec![
            Lead(if rng.chance(50) { Replica } else { Third }),
            Sleep((200, 400)),
            Hold(Kind::NewEpoch, (1600, 3000), 4000),
            Pin(Primary),
            Pause(Primary, (640, 900)),
            Until(Mark::Cleared, 5000),
            LagApply(Primary, (1500, 3000)),
            Sleep((2000, 3500)),
        ],
        Scenario::SecondSuspicion => vec![
            Pin(Primary),
            Pause(Primary, (640, 900)),
            Until(Mark::Cleared, 5000),
            Until(Mark::Grown, 5000),
            Sleep((300, 600)),
            Switch(Primary),
            Until(Mark::Serving, 2000),
            Sleep((300, 600)),
            LagApply(Primary, (1500, 3000)),
            Isolate(Primary, (1500, 2500)),
            Sleep((2500, 4000)),
        ],
        Scenario::ClearedLaggard => vec![
            Lead(if rng.chance(50) { Replica } else { Third }),
            Sleep((200, 400)),
            Pin(Primary),
            Pause(Primary, (600, 800)),
            Until(Mark::Suspected, 1500),
            Sleep((150, 400)),
            LagApply(Primary, (3000, 4500)),
            Until(Mark::Cleared, 4000),
            Sleep((2000, 3000)),
        ],
        Scenario::ClearedUnlinked => vec![
            Lead(Third),
            Sleep((200, 400)),
            Pin(Primary),
            Pause(Primary, (560, 700)),
            Unlink(Primary, Replica, (6000, 7000)),
            Until(Mark::Suspected, 1500),
            Sleep((200, 450)),
            LagApply(Primary, (3500, 4500)),
            Until(Mark::Cleared, 5000),
            Sleep((2000, 3000)),
        ],
        Scenario::OwnSuspicion => vec![
            Lead(Replica),
            Sleep((200, 400)),
            LagApply(Third, (3000, 4000)),
            Pin(Primary),
            Pause(Primary, (600, 900)),
            Until(Mark::Suspected, 1500),
            Sleep((150, 450)),
            LagApply(Primary, (2500, 3500)),
            Sleep((3500, 4500)),
        ],
        Scenario::DriftAtBound => vec![
            Lead(Replica),
            Sleep((300, 600)),
            Isolate(Primary, (1200, 1500)),
            Sleep((1500, 2500)),
        ],
        _ => return None,
    })
}

/// Of promises and leases.
fn promises(scenario: Scenario) -> Option<Vec<Step>> {
    Some(match scenario {
        Scenario::ForgetfulVoter => vec![
            Deaf(Primary, Replica),
            Sleep((1200, 1800)),
            Pin(Primary),
            LagApply(Primary, (2000, 3000)),
            Isolate(Primary, (1500, 2500)),
            Sleep((60, 350)),
            Crash(Third, false),
            Sleep((1500, 2500)),
            Heal,
            Sleep((2000, 3000)),
        ],
        Scenario::RolledBackVoter => vec![
            Lead(Replica),
            Sleep((200, 400)),
            Pin(Primary),
            LagApply(Primary, (5000, 6000)),
            Pause(Primary, (650, 750)),
            Until(Mark::NewEpoch, 3000),
            CutBoth(Primary, Replica, (2500, 3500)),
            LagApply(Third, (2500, 3500)),
            Back(Third, (4, 9)),
            Crash(Third, false),
            Sleep((2500, 3500)),
        ],
        Scenario::LateAcknowledgements => vec![
            Lead(Replica),
            Slow(Replica, Primary, 550),
            Slow(Third, Primary, 550),
            Pin(Primary),
            Sleep((700, 1200)),
            LagApply(Primary, (2500, 3500)),
            Cut(Primary, Replica, (2000, 2500)),
            Cut(Primary, Third, (2000, 2500)),
            Sleep((2500, 3000)),
            Heal,
            Sleep((2000, 3000)),
        ],
        Scenario::EarlyReport => vec![
            Deaf(Primary, Replica),
            Sleep((1200, 1800)),
            Pin(Primary),
            LagApply(Primary, (2000, 3000)),
            Isolate(Primary, (1500, 2500)),
            Sleep((1500, 2500)),
            Heal,
            Sleep((2000, 3000)),
        ],
        Scenario::Isolated => vec![
            Pin(Primary),
            LagApply(Primary, (3000, 4000)),
            Isolate(Primary, (1500, 3000)),
            Sleep((3500, 4500)),
        ],
        _ => return None,
    })
}

/// Of in-sync sets and epochs.
fn sets(scenario: Scenario, rng: &mut Rng) -> Option<Vec<Step>> {
    Some(match scenario {
        Scenario::CutAtGrowth => vec![
            Crash(Replica, rng.chance(50)),
            Hold(Kind::Sets, (0, 400), 8000),
            Until(Mark::Growing, 8000),
            LagApply(Primary, (1500, 2500)),
            CutBoth(Primary, Replica, (1500, 2500)),
            Sleep((10, 600)),
            Crash(Primary, true),
            Sleep((1500, 3000)),
        ],
        Scenario::LateShrink => vec![
            Hold(Kind::Sets, (200, 1500), 4000),
            LagApply(Primary, (500, 1500)),
            CutBoth(Primary, Replica, (200, 1500)),
            Sleep((50, 900)),
            if rng.chance(50) {
                Switch(Replica)
            } else {
                Pause(Primary, (600, 1500))
            },
            Sleep((1500, 3500)),
        ],
        Scenario::LostWithTail => vec![
            Slow(Primary, Replica, rng.pick(&[5, 30])),
            Sleep((100, 400)),
            if rng.chance(50) {
                Pause(Primary, (700, 2500))
            } else {
                Crash(Primary, rng.chance(50))
            },
            Until(Mark::Serving, 3000),
            Sleep((1, 60)),
            Crash(Replica, rng.chance(50)),
            Sleep((2000, 4000)),
        ],
        Scenario::OldPrimaryReturns => vec![
            Pin(Primary),
            LagApply(Primary, (3000, 3500)),
            Cut(Replica, Primary, (2500, 3000)),
            Cut(Primary, Replica, (2500, 3000)),
            Sleep((1, 50)),
            Deaf(Primary, Third),
            Until(Mark::NewEpoch, 2500),
            Sleep((50, 600)),
            Crash(Replica, false),
            BreakLinks(Primary),
            Sleep((60, 120)),
            BreakLinks(Primary),
            Sleep((1000, 2500)),
            Heal,
            Sleep((1000, 2000)),
        ],
        _ => return None,
    })
}

/// Of switchovers, forwards, cut links.
fn moves(scenario: Scenario, rng: &mut Rng) -> Option<Vec<Step>> {
    Some(match scenario {
        Scenario::ForwarderStopped => vec![
            Pin(Replica),
            Sleep((100, 300)),
            if rng.chance(50) {
                Pause(Replica, (100, 2500))
            } else {
                Cut(Replica, Primary, (300, 1800))
            },
            Sleep((1000, 3500)),
        ],
        Scenario::OneLinkCut => {
            let (a, b) = rng.pick(&[(Primary, Replica), (Primary, Third), (Replica, Third)]);
            let (a, b) = if rng.chance(50) { (a, b) } else { (b, a) };
            let cut = if rng.chance(50) {
                Cut(a, b, (6000, 6500))
            } else {
                CutBoth(a, b, (6000, 6500))
            };
            let leader = rng.pick(&[Primary, Replica, Third]);
            let (settle, last) = (Sleep((2000, 2500)), Sleep((5500, 5900)));
            vec![Lead(leader), settle, Expect, cut, last, Expected, settle]
        }
        Scenario::LateSwitchover => vec![
            Hold(Kind::Switchover, (550, 900), 3000),
            Switch(Replica),
            Until(Mark::HandedBack, 1500),
            Pin(Primary),
            Sleep((400, 650)),
            LagApply(Primary, (1500, 2000)),
            if rng.chance(50) {
                Isolate(Primary, (1200, 1800))
            } else {
                CutBoth(Primary, Replica, (1200, 1800))
            },
            Sleep((2000, 3500)),
        ],
        Scenario::SwitchoverUnheard => vec![
            Pin(Primary),
            Sleep((50, 200)),
            LagApply(Primary, (2500, 3000)),
            LagViews(Replica, (80, 200)),
            Switch(Replica),
            Until(Mark::HandedBack, 1500),
            Sleep((5, 40)),
            Unlink(Primary, Replica, (3000, 3500)),
            Sleep((3000, 4000)),
        ],
        Scenario::SwitchoverAndRestart => vec![
            Hold(Kind::Switchover, (100, 900), 3000),
            Switch(Replica),
            Until(Mark::HandedBack, 1500),
            LagApply(Primary, (500, 1500)),
            Pin(Primary),
            Crash(Primary, false),
            Sleep((2000, 3500)),
        ],
        _ => return None,
    })
}

/// Of crashes, resyncs, disks.
fn disks(scenario: Scenario, rng: &mut Rng) -> Option<Vec<Step>> {
    Some(match scenario {
        Scenario::RestartedPrimary => vec![
            BreakLinks(Primary),
            Crash(Primary, rng.chance(50)),
            Sleep((500, 2500)),
        ],
        Scenario::CrashInResync => vec![
            Crash(Replica, true),
            Until(Mark::ResyncStarted, 6000),
            Sleep((1, 200)),
            Crash(if rng.chance(70) { Replica } else { Primary }, true),
            Sleep((500, 4000)),
        ],
        Scenario::PowerAfterGrowth => vec![
            Crash(Replica, true),
            Until(Mark::Grown, 8000),
            Sleep((1, 100)),
            CrashAll,
            Sleep((2000, 5000)),
        ],
        Scenario::IdleAfterWrite => vec![
            LagViews(Replica, (10, 300)),
            Sleep((100, 900)),
            Quiet((300, 600)),
            Sleep((400, 800)),
        ],
        Scenario::WritesInResync => vec![
            Crash(Replica, rng.chance(50)),
            Until(Mark::Grown, 8000),
            Sleep((100, 1000)),
        ],
        Scenario::FlushFails => vec![
            FlushFails(if rng.chance(50) { Primary } else { Replica }),
            Sleep((1500, 3000)),
            CrashAll,
            Sleep((3000, 5000)),
        ],
        Scenario::DamagedOnePromoted => vec![
            if rng.chance(50) {
                Pause(Primary, (1500, 3500))
            } else {
                Isolate(Primary, (1500, 3500))
            },
            Sleep((1, 900)),
            Damage(Replica),
            Sleep((4000, 6000)),
        ],
        _ => return None,
    })
}

/// Of voters that change, and of clocks that lie.
fn others(scenario: Scenario, rng: &mut Rng) -> Option<Vec<Step>> {
    Some(match scenario {
        Scenario::VoterReplaced => vec![
            Lead(Replica),
            Sleep((200, 400)),
            Pin(Primary),
            Replace(Third),
            Until(Mark::Learner, 2000),
            LagApply(Primary, (3500, 4500)),
            LagApply(Third, (3500, 4500)),
            // The leader misses the primary for a while before the spare has caught up, and not for so long that it waits for it.
            CutBoth(Replica, Spare, (60, 200)),
            Sleep((0, 20)),
            CutBoth(Primary, Replica, (3000, 3500)),
            CutBoth(Primary, Spare, (3000, 3500)),
            Until(Mark::Joint, 800),
            // Or the voter that goes is heard on, and does not hear that it has gone.
            if rng.chance(50) {
                CutBoth(Primary, Third, (2000, 2500))
            } else {
                Sleep((0, 1))
            },
            Sleep((3500, 4500)),
        ],
        Scenario::StaleConfirmation => vec![
            Lead(Replica),
            Sleep((300, 500)),
            Pin(Primary),
            LagApply(Primary, (3500, 4000)),
            LagViews(Third, (3000, 3500)),
            Deaf(Primary, Third),
            CutBoth(Primary, Replica, (2500, 3000)),
            Unlink(Replica, Third, (2500, 3000)),
            Sleep((3000, 3500)),
            Heal,
            Sleep((1000, 2000)),
        ],
        _ => return None,
    })
}

/// Of one that goes on alone.
fn takeovers(scenario: Scenario, rng: &mut Rng) -> Option<Vec<Step>> {
    let (alone, other, mut steps) = match scenario {
        Scenario::Takeover => {
            let (alone, other) = rng.pick(&[(Primary, Replica), (Replica, Primary)]);
            let mut steps = vec![Pin(rng.pick(&[alone, other]))];
            if rng.chance(50) {
                steps.extend([LagApply(alone, (3000, 6000)), Sleep((0, 600))]);
            }
            (alone, other, steps)
        }
        Scenario::StaleTakeover => {
            let steps = vec![
                Pin(Primary),
                Lead(Primary),
                Sleep((200, 400)),
                LagApply(Replica, (9000, 9000)),
                Unlink(Primary, Replica, (20_000, 20_000)),
                Until(Mark::Shrunk, 4000),
                Sleep((100, 800)),
            ];
            (Replica, Primary, steps)
        }
        _ => return None,
    };
    for gone in [other, Third] {
        steps.push(if rng.chance(60) {
            Kill(gone, rng.chance(50))
        } else {
            Isolate(gone, (60_000, 60_000))
        });
    }
    steps.extend([Sleep((3100, 4500)), TakeOver(alone), Sleep((300, 2500))]);
    let back = rng.pick(&[(other, Third), (Third, other)]);
    steps.extend([Return(back.0, back.1), Sleep((100, 1500)), Return(back.1, back.0)]);
    steps.push(Sleep((500, 1500)));
    if rng.chance(30) {
        steps.extend([Crash(alone, rng.chance(50)), Sleep((100, 1000))]);
    }
    steps.extend([Rejoin, Sleep((20_000, 20_000))]);
    Some(steps)
}

/// Of lease times that change.
fn lease_times(scenario: Scenario) -> Option<Vec<Step>> {
    Some(match scenario {
        Scenario::LeaseShortened => vec![
            Lease(2000),
            Until(Mark::LeaseSet, 1500),
            Lead(Third),
            Sleep((800, 1200)),
            Pin(Primary),
            Isolate(Primary, (3000, 3500)),
            Lease(300),
            Until(Mark::LeaseSet, 1500),
            Sleep((60, 150)),
            Crash(Replica, false),
            Crash(Third, false),
            Sleep((3500, 4500)),
        ],
        Scenario::LeaseShortenedUnanswered => vec![
            Lease(2000),
            Until(Mark::LeaseSet, 1500),
            Lead(Third),
            Sleep((800, 1200)),
            Pin(Primary),
            Unheard(Replica, Primary),
            Unheard(Third, Primary),
            Lease(300),
            Until(Mark::LeaseSettled, 1500),
            Sleep((10, 60)),
            Isolate(Primary, (3000, 3500)),
            Crash(Replica, false),
            Crash(Third, false),
            Sleep((2500, 3500)),
            Heal,
            Sleep((1000, 2000)),
        ],
        Scenario::LeaseLengthened => vec![
            Lease(300),
            Until(Mark::LeaseSettled, 2500),
            Lead(Third),
            Sleep((500, 700)),
            Pin(Primary),
            LagApply(Replica, (6000, 7000)),
            LagApply(Third, (6000, 7000)),
            Pause(Primary, (530, 620)),
            Until(Mark::Suspected, 1500),
            Lease(2000),
            Until(Mark::LeaseSet, 1500),
            Sleep((120, 300)),
            CutBoth(Primary, Replica, (3500, 4000)),
            CutBoth(Primary, Third, (3500, 4000)),
            ApplySuspicionOnly(Replica, (2000, 2500)),
            ApplySuspicionOnly(Third, (2000, 2500)),
            Crash(Replica, false),
            Crash(Third, false),
            Sleep((4000, 5000)),
        ],
        _ => return None,
    })
}

/// Of writes that are answered from memory.
fn caches(scenario: Scenario) -> Option<Vec<Step>> {
    Some(match scenario {
        Scenario::ForgetfulReplica => vec![
            Hang(Replica, (500, 700)),
            Sleep((150, 400)),
            Hold(Kind::Sets, (3500, 4500), 3000),
            Crash(Replica, true),
            Sleep((500, 1300)),
            Isolate(Primary, (3000, 3500)),
            Sleep((4000, 5000)),
        ],
        Scenario::FlushedAndLost => vec![
            Hang(Primary, (600, 900)),
            Hang(Replica, (600, 900)),
            Sleep((200, 550)),
            CrashAll,
            Sleep((2000, 4000)),
        ],
        _ => return None,
    })
}
