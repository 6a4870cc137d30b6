//! Known bad traces (A3 to A6 of the protocol's review), each with its rule in force and with it broken. A trace returns whether
//! some node would have answered a read under an epoch that a commit had ended. Each is replayed with varied timing.

use holdfast_types::NodeId;

use super::rig::{Rig, VARIATION};
use crate::fault::{self, Fault};
use crate::governor::Proposal;
use crate::model::Command;
use crate::model::fixture::{A, B, W};

pub(super) fn caught_only_with(fault: Fault, trace: fn() -> bool) {
    for seed in 0..40 {
        VARIATION.set(seed);
        assert!(
            !trace(),
            "variation {seed}: with every rule in force nothing stale is read"
        );
    }
    let caught = (0..40).filter(|seed| {
        VARIATION.set(*seed);
        fault::with(Some(fault), trace)
    });
    let caught = caught.count();
    VARIATION.set(0);
    assert!(
        caught >= 10,
        "without the rule the trace is bad in {caught} of 40 variations: {fault:?}"
    );
}

/// Commits the new epoch that `leader` wants (there must be one), which nobody but the leader applies.
fn promote(rig: &mut Rig, leader: NodeId) {
    let command = rig.new_epoch(leader).expect("the reports are in");
    rig.commit(&command);
    rig.apply_all(leader);
    assert_eq!(rig.head.extents.values().next().unwrap().primary, Some(B));
}

/// Runs for `ms`; whether anybody was stale at any step.
pub(super) fn stale_within(rig: &mut Rig, ms: u64) -> bool {
    let end = rig.now + ms * 1000;
    while rig.now < end {
        if rig.stale().is_some() {
            return true;
        }
        rig.now += rig.step;
        rig.once();
    }
    rig.stale().is_some()
}

/// A6: a and b are the reporting majority; w, which has not applied the suspicion, goes on promising to a.
fn suspect_counts_itself() -> bool {
    let mut rig = Rig::new();
    rig.suspect(A);
    rig.apply_all(A);
    rig.apply_all(B);
    rig.go(700);
    promote(&mut rig, B);
    stale_within(&mut rig, 50)
}

#[test]
fn l2_the_promise_to_oneself_obeys_the_same_rules() {
    caught_only_with(Fault::SelfAlwaysCounts, suspect_counts_itself);
}

/// b and w reported while they could not hear a; now they can, and a has applied nothing.
fn suspect_is_promised_again() -> bool {
    let mut rig = Rig::new();
    rig.suspect(A);
    rig.apply_all(B);
    rig.apply_all(W);
    rig.cut_both(A, B);
    rig.cut_both(A, W);
    rig.go(700);
    rig.heal();
    rig.go(120);
    promote(&mut rig, B);
    stale_within(&mut rig, 200)
}

#[test]
fn l3_a_voter_that_applied_the_suspicion_promises_nothing_more() {
    caught_only_with(Fault::SuspectStillPromised, suspect_is_promised_again);
}

/// Only b reports; a has its own promise and w's.
fn one_report() -> bool {
    let mut rig = Rig::new();
    rig.suspect(A);
    rig.apply_all(B);
    rig.cut_both(A, B);
    rig.go(700);
    match rig.new_epoch(B) {
        Some(command) => {
            rig.commit(&command);
            stale_within(&mut rig, 50)
        }
        None => false,
    }
}

#[test]
fn l3_a_new_epoch_needs_the_reports_of_a_majority() {
    caught_only_with(Fault::OneReportIsEnough, one_report);
}

/// A3: reports of the first suspicion are counted for the second.
fn reports_of_another_suspicion() -> bool {
    let mut rig = Rig::new();
    rig.suspect(A);
    rig.apply_all(B);
    rig.apply_all(W);
    rig.go(700);
    let suspicion = rig.head.suspicion(A).unwrap();
    rig.commit(&Command::ClearSuspect { node: A, suspicion });
    rig.everybody_applies();
    rig.go(300);
    assert!(rig.serves(A));
    rig.suspect(A);
    rig.apply_all(B);
    match rig.new_epoch(B) {
        Some(command) => {
            rig.commit(&command);
            stale_within(&mut rig, 50)
        }
        None => false,
    }
}

#[test]
fn l3_reports_name_their_suspicion() {
    caught_only_with(Fault::ReportWithoutId, reports_of_another_suspicion);
}

/// A3: the suspicion was cleared, and a has fresh promises, before the new epoch is applied.
fn new_epoch_after_clearing() -> bool {
    let mut rig = Rig::new();
    rig.suspect(A);
    rig.apply_all(B);
    rig.apply_all(W);
    rig.go(700);
    let late = rig.new_epoch(B).expect("the reports are in");
    let suspicion = rig.head.suspicion(A).unwrap();
    rig.commit(&Command::ClearSuspect { node: A, suspicion });
    rig.everybody_applies();
    rig.go(200);
    assert!(rig.serves(A), "cleared, and promised to again");
    rig.commit(&late);
    stale_within(&mut rig, 50)
}

/// Without the first commit: b just takes what a silent node had.
fn new_epoch_without_suspect() -> bool {
    let mut rig = Rig::new();
    rig.cut_both(A, B);
    rig.go(550);
    let candidates = vec![crate::model::Candidate {
        node: B,
        incarnation: rig.nodes[&B].run,
    }];
    rig.commit(&Command::NewEpoch {
        suspect: A,
        suspicion: 1.into(),
        candidates,
        voters: 1,
    });
    stale_within(&mut rig, 50)
}

#[test]
fn l3_a_new_epoch_needs_the_suspicion_it_names() {
    caught_only_with(Fault::NewEpochWithoutSuspicion, new_epoch_after_clearing);
    caught_only_with(Fault::NewEpochWithoutSuspicion, new_epoch_without_suspect);
}

/// A4: a is cleared and has applied none of it, b and w have applied all.
fn cleared_node_lags() -> bool {
    let mut rig = Rig::new();
    rig.suspect(A);
    rig.apply_all(B);
    rig.apply_all(W);
    rig.go(700);
    promote(&mut rig, B);
    let suspicion = rig.head.suspicion(A).unwrap();
    rig.commit(&Command::ClearSuspect { node: A, suspicion });
    rig.apply_all(B);
    rig.apply_all(W);
    stale_within(&mut rig, 300)
}

#[test]
fn l1_l4_a_cleared_node_gets_no_lease_before_it_knows() {
    caught_only_with(Fault::NoGeneration, cleared_node_lags);
}

/// A4, the acknowledgement's side: promises from before the suspicion do not count in the new generation.
#[test]
fn l4_acknowledgements_of_an_older_generation_do_not_count() {
    let mut rig = Rig::new();
    rig.delay.insert((B, A), 300_000);
    rig.delay.insert((W, A), 300_000);
    rig.go(1000);
    assert!(
        rig.lease(A),
        "late acknowledgements are enough for some of the time"
    );
    rig.suspect(A);
    let suspicion = rig.head.suspicion(A).unwrap();
    rig.commit(&Command::ClearSuspect { node: A, suspicion });
    rig.apply_all(A);
    assert!(!rig.lease(A));
    rig.cut.extend([(A, B), (A, W)]);
    rig.go(290);
    assert!(!rig.lease(A), "what came in was for the older generation");
}

/// A5 (i): b forgets in a restart that it had promised.
fn restarted_voter_reports() -> bool {
    let mut rig = Rig::new();
    rig.cut_both(A, W);
    rig.go(700);
    assert!(rig.serves(A), "with its own promise and b's");
    rig.suspect(A);
    rig.apply_all(W);
    rig.restart(B, 0);
    rig.announce(B);
    rig.apply_all(B);
    rig.caught_up(B);
    rig.cut_both(A, B);
    for _ in 0..130 {
        rig.go(5);
        if let Some(command) = rig.new_epoch(B) {
            rig.commit(&command);
            rig.apply_all(B);
        }
        if rig.stale().is_some() {
            return true;
        }
    }
    assert_eq!(
        rig.head.extents.values().next().unwrap().primary,
        Some(B),
        "it did come to that"
    );
    false
}

#[test]
fn l5_a_voter_that_starts_waits_before_it_reports() {
    caught_only_with(Fault::NoWaitAfterStart, restarted_voter_reports);
}

/// A5 (ii): w's applied state is rolled back by a restart, behind the suspicion that it has reported.
fn rolled_back_voter_promises() -> bool {
    let mut rig = Rig::new();
    rig.suspect(A);
    rig.apply_all(B);
    rig.apply_all(W);
    rig.cut_both(A, B);
    rig.go(700);
    rig.restart(W, 1);
    rig.go(120);
    promote(&mut rig, B);
    stale_within(&mut rig, 100)
}

#[test]
fn l5_a_voter_that_starts_promises_nothing_before_it_has_caught_up() {
    caught_only_with(Fault::PromiseBeforeCaughtUp, rolled_back_voter_promises);
}

/// Acknowledgements are long on their way.
fn slow_acknowledgements() -> bool {
    let mut rig = Rig::new();
    rig.delay.insert((B, A), 500_000);
    rig.delay.insert((W, A), 500_000);
    rig.go(1000);
    rig.cut.extend([(A, B), (A, W)]);
    rig.suspect(A);
    rig.apply_all(B);
    rig.apply_all(W);
    for _ in 0..200 {
        rig.go(5);
        if let Some(command) = rig.new_epoch(B) {
            rig.commit(&command);
            return stale_within(&mut rig, 300);
        }
    }
    panic!("no new epoch");
}

#[test]
fn l2_promises_are_counted_from_when_the_heartbeat_was_sent() {
    caught_only_with(Fault::CountedFromAck, slow_acknowledgements);
}

/// The primary's clock is as slow, and the voters' are as fast, as the bound allows.
fn clocks_apart() -> bool {
    let mut rig = Rig::with_rates([999_500, 1_000_499, 1_000_499]);
    // A slow link would hide half a millisecond.
    rig.delay.clear();
    rig.step = 50;
    rig.go(20);
    rig.suspect(A);
    rig.apply_all(B);
    rig.apply_all(W);
    // a goes on renewing its promise to itself.
    rig.go(500);
    loop {
        rig.now += rig.step;
        rig.once();
        if let Some(command) = rig.new_epoch(B) {
            rig.commit(&command);
            return stale_within(&mut rig, 10);
        }
    }
}

#[test]
fn l2_the_lease_is_shorter_than_l_by_the_bound_on_clocks() {
    caught_only_with(Fault::NoDriftMargin, clocks_apart);
}

/// L6, A11: one link is cut; a is primary, b leads, w hears both.
fn one_link_cut() -> Vec<Proposal> {
    let mut rig = Rig::new();
    rig.cut_both(A, B);
    (0..200)
        .flat_map(|_| {
            rig.go(5);
            rig.governs(B)
        })
        .collect()
}

#[test]
fn l6_a_leader_hands_over_to_who_hears_both_and_suspects_nobody() {
    let wanted = one_link_cut();
    assert!(
        !wanted.is_empty() && wanted.iter().all(|p| *p == Proposal::TransferLeader(W)),
        "{wanted:?}"
    );
    let broken = fault::with(Some(Fault::SuspectsWhomOthersHear), one_link_cut);
    assert!(
        broken
            .iter()
            .any(|p| matches!(p, Proposal::Command(Command::Suspect { node: A, .. })))
    );
}
