//! Known bad traces of changes while leases are held: of the voters (A20) and of the lease time. Each with its rule in force and broken.

use holdfast_types::NodeId;

use super::rig::{Rig, VARIATION};
use super::trace_test::{caught_only_with, stale_within};
use crate::fault::{self, Fault};
use crate::governor::Proposal;
use crate::model::fixture::{self, A, B, C, W};
use crate::model::{AdminCommand, ClusterState, Command, Join, SettingKey, Token};

/// The trio with its lease time set, and c, which has joined and does not vote yet.
fn four(lease_ms: u64) -> ClusterState {
    let mut state = fixture::trio(1);
    let key = SettingKey::LeaseTime;
    fixture::must(
        &AdminCommand::SetSetting { key, value: lease_ms }.into(),
        &mut state,
    );
    if let Some(longer) = state.settings.longer_lease {
        fixture::must(
            &AdminCommand::LeaseSettled { since: longer.since }.into(),
            &mut state,
        );
    }
    let token = Token {
        id: "t".into(),
        key: "0".repeat(64),
        expires: 0,
        used: None,
    };
    fixture::must(&AdminCommand::AddToken(token).into(), &mut state);
    let mut join = Join {
        token: "t".into(),
        nonce: "n".into(),
        node: fixture::new_node(NodeId(0), "c", crate::model::Role::Data),
        replaces: None,
    };
    join.node.addresses = fixture::addresses(C);
    fixture::must(&AdminCommand::Join(Box::new(join)).into(), &mut state);
    assert!(state.nodes.contains_key(&C), "c is node 4");
    state
}

/// a is primary, everybody has caught up, and some time has passed.
fn standing(lease_ms: u64) -> Rig {
    let mut rig = Rig::fresh(&four(lease_ms), [1_000_000; 4]);
    rig.go(VARIATION.get() % 40);
    for node in [A, B, W, C] {
        rig.announce(node);
    }
    let run = rig.nodes[&A].run;
    let open = rig.head.reopening(A, run).unwrap();
    rig.commit(&open);
    // a alone is in sync, so nobody waits for another candidate.
    let alone = fixture::shrink(&rig.head, A, B);
    rig.commit(&alone);
    for node in [A, B, W, C] {
        rig.apply_all(node);
        rig.caught_up(node);
    }
    rig.go(1000);
    assert!(rig.serves(A), "it stands");
    rig
}

fn apply_all(rig: &mut Rig, nodes: &[NodeId]) {
    for node in nodes {
        rig.apply_all(*node);
    }
}

/// Lets `leader` decide as soon as it may, for `ms`; whether a would then answer from its old epoch.
fn stale_after_decision(rig: &mut Rig, leader: NodeId, ms: u64) -> bool {
    for _ in 0..ms / 10 {
        rig.go(10);
        if let Some(command) = rig.new_epoch(leader) {
            rig.commit(&command);
            rig.apply_all(leader);
            assert_ne!(
                rig.head.extents.values().next().unwrap().primary,
                Some(A),
                "it was decided"
            );
            return stale_within(rig, 300);
        }
    }
    false
}

/// b is replaced by c while a, the primary, hears b alone. a counts b's promises, and c and w decide: two majorities that share nobody.
fn swap() -> bool {
    let mut rig = standing(600);
    rig.cut_both(A, W);
    rig.cut_both(A, C);
    rig.go(700);
    assert!(rig.lease(A), "by its own promise and b's");
    // b, w and c have it in their logs, which commits it; b applies nothing more.
    rig.commit_voters(&[A, C, W], &[A, B, W], &[B, C, W]);
    rig.commit_voters(&[A, C, W], &[], &[C, W]);
    rig.suspect(A);
    apply_all(&mut rig, &[C, W]);
    stale_after_decision(&mut rig, W, 1500)
}

#[test]
fn l8_nobody_reports_right_after_a_change_of_voters() {
    caught_only_with(Fault::NoWaitAfterVoters, swap);
}

#[test]
fn l8_promises_name_the_newest_voter_set_in_their_voters_log() {
    caught_only_with(Fault::VotersUnnamed, swap);
}

/// While the set is joint, majorities of both are needed: c and w are none of the set before.
#[test]
fn l8_a_joint_set_decides_with_both_majorities() {
    let mut rig = standing(600);
    rig.cut_both(A, W);
    rig.cut_both(A, C);
    rig.commit_voters(&[A, C, W], &[A, B, W], &[B, C, W]);
    rig.suspect(A);
    apply_all(&mut rig, &[C, W]);
    rig.go(2000);
    assert_eq!(rig.new_epoch(W), None, "b has not reported");
    apply_all(&mut rig, &[B]);
    rig.go(2000);
    assert!(rig.new_epoch(W).is_some());
}

#[test]
fn l8_a_decision_counted_under_other_voters_is_refused_when_it_is_applied() {
    let mut rig = standing(600);
    rig.cut_both(A, W);
    rig.cut_both(A, B);
    rig.suspect(A);
    apply_all(&mut rig, &[B, W]);
    rig.go(800);
    let command = rig.new_epoch(W).expect("b and w have reported");
    rig.commit_voters(&[A, C, W], &[A, B, W], &[B, C, W]);
    let reply = rig.commit(&command);
    assert!(reply.refusal().is_some(), "{reply:?}");
    assert_eq!(rig.head.extents.values().next().unwrap().primary, Some(A));
}

fn change_lease(rig: &mut Rig, value: u64) {
    let key = SettingKey::LeaseTime;
    rig.commit(&AdminCommand::SetSetting { key, value }.into());
}

/// What w, which leads, finishes.
fn settle(rig: &mut Rig) -> bool {
    let wanted = rig.governs(W);
    let settled = wanted.into_iter().find_map(|proposal| match proposal {
        Proposal::Command(command @ Command::Admin(AdminCommand::LeaseSettled { .. })) => Some(command),
        _ => None,
    });
    settled.is_some_and(|command| {
        rig.commit(&command);
        true
    })
}

/// b and w forget what they promised; a is cut off and suspected.
fn forget_and_suspect(rig: &mut Rig) {
    rig.cut_both(A, B);
    rig.cut_both(A, W);
    rig.suspect(A);
    for node in [B, W] {
        rig.restart(node, 0);
        rig.apply_all(node);
        rig.caught_up(node);
    }
}

/// L goes from 2 s to 400 ms, and a has not heard of it: it counts what b and w promised before.
fn shorter_lease() -> bool {
    let mut rig = standing(2000);
    change_lease(&mut rig, 400);
    apply_all(&mut rig, &[B, W]);
    if settle(&mut rig) {
        apply_all(&mut rig, &[B, W]);
    }
    forget_and_suspect(&mut rig);
    stale_after_decision(&mut rig, W, 2500)
}

#[test]
fn l2_a_shorter_lease_time_waits_out_the_promises_of_the_longer_one() {
    caught_only_with(Fault::LeaseSettledAtOnce, shorter_lease);
}

/// The same, but a has applied the change, and it is settled: then nobody waits for the longer one, so a must not count it.
fn settled_lease() -> bool {
    let mut rig = standing(2000);
    change_lease(&mut rig, 400);
    apply_all(&mut rig, &[A, B, W]);
    rig.go(30);
    for _ in 0..20 {
        rig.go(10);
        if settle(&mut rig) {
            break;
        }
    }
    assert!(rig.head.settings.longer_lease.is_none(), "everybody has told");
    apply_all(&mut rig, &[A, B, W]);
    forget_and_suspect(&mut rig);
    stale_after_decision(&mut rig, W, 2500)
}

#[test]
fn l2_a_promise_never_counts_for_longer_than_the_lease_time_in_force() {
    // Only the promises asked for before the change are longer ones, so the change must be the newest thing that happened.
    let trace = || {
        let mut rig = standing(2000);
        rig.cut_both(A, B);
        rig.cut_both(A, W);
        rig.go(20);
        change_lease(&mut rig, 400);
        apply_all(&mut rig, &[A, B, W]);
        let since = rig.head.revision;
        // a's word that it has applied the change comes through, and nothing back.
        rig.commit(&AdminCommand::LeaseSettled { since }.into());
        apply_all(&mut rig, &[B, W]);
        forget_and_suspect(&mut rig);
        stale_after_decision(&mut rig, W, 2500)
    };
    caught_only_with(Fault::OlderLeaseCounted, trace);
    VARIATION.set(0);
    assert!(!settled_lease());
}

/// L goes from 400 ms to 2 s right behind a suspicion that b and w apply after they promised for 2 s, and after which they restart: what
/// they have applied then is the suspicion without the change.
fn report_from_the_past() -> bool {
    let mut rig = standing(400);
    rig.suspect(A);
    change_lease(&mut rig, 2000);
    apply_all(&mut rig, &[A]);
    rig.go(120);
    rig.cut_both(A, B);
    rig.cut_both(A, W);
    for node in [B, W] {
        rig.restart(node, 0);
        rig.apply(node, 1);
    }
    let stale = stale_after_decision(&mut rig, W, 1000);
    if stale || fault::on(Fault::ReportBeforeCaughtUp) {
        return stale;
    }
    for node in [B, W] {
        rig.apply_all(node);
        rig.caught_up(node);
    }
    let stale = stale_after_decision(&mut rig, W, 3000);
    assert_ne!(
        rig.head.extents.values().next().unwrap().primary,
        Some(A),
        "it is decided in the end"
    );
    stale
}

#[test]
fn l5_nothing_is_reported_before_the_voter_has_caught_up() {
    caught_only_with(Fault::ReportBeforeCaughtUp, report_from_the_past);
}
