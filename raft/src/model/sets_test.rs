//! Suspicions, epochs and in-sync sets, rule by rule.

use holdfast_alua::AccessState;
use holdfast_types::{Epoch, InSyncVersion, LeaseGeneration, SuspicionId};

use super::fixture::*;
use super::*;
use crate::fault::{self, Fault};

fn clear(node: holdfast_types::NodeId, suspicion: SuspicionId) -> Command {
    Command::ClearSuspect { node, suspicion }
}

fn states(state: &ClusterState) -> Vec<AccessState> {
    state
        .lu(extent_id(1))
        .unwrap()
        .groups
        .iter()
        .map(|g| g.state)
        .collect()
}

#[test]
fn l3_the_suspicions_id_is_the_entrys_index() {
    let mut state = led_by_a(1);
    let first = suspect(&mut state, A);
    assert_eq!(first.0, state.revision.0);
    assert_eq!(
        suspect(&mut state, A),
        first,
        "a second proposal finds the first one's"
    );
}

#[test]
fn l3_one_new_epoch_moves_every_extent_of_the_suspect() {
    let mut state = led_by_a(3);
    must(&shrink(&state, A, B), &mut state);
    let suspicion = suspect(&mut state, A);
    let reply = must(&new_epoch(A, suspicion, &[(W, 30), (B, 20)]), &mut state);
    assert!(matches!(&reply, Reply::Items { items } if items.len() == 3));
    let lone = extent(&state, 1);
    assert_eq!(
        (lone.primary, lone.epoch),
        (None, Epoch(2)),
        "b had been taken out of its set"
    );
    assert_eq!(lone.in_sync, set(&[A]));
    for number in [2, 3] {
        let e = extent(&state, number);
        assert_eq!((e.primary, e.primary_incarnation), (Some(B), Some(run(20))));
        assert_eq!((e.epoch, e.version), (Epoch(2), InSyncVersion(3)));
        assert_eq!(
            e.in_sync,
            set(&[A, B]),
            "b takes a out once it has shown that it can serve"
        );
    }
    let again = must(&new_epoch(A, suspicion, &[(B, 20)]), &mut state);
    assert_eq!(
        again,
        Reply::Items { items: vec![] },
        "nothing is the suspect's any more"
    );
}

#[test]
fn l3_a_suspect_is_not_promoted() {
    let mut state = led_by_a(1);
    let suspicion = suspect(&mut state, A);
    suspect(&mut state, B);
    must(&new_epoch(A, suspicion, &[(B, 20)]), &mut state);
    assert_eq!(extent(&state, 1).primary, None);
    assert_eq!(
        extent(&state, 1).in_sync,
        set(&[A, B]),
        "nobody was left out for it"
    );
}

/// A3: the suspicion was cleared, or is another one, when the late proposal is applied.
fn late_new_epoch_takes_the_extent() -> bool {
    let mut state = led_by_a(1);
    let first = suspect(&mut state, A);
    let late = new_epoch(A, first, &[(B, 20)]);
    must(&clear(A, first), &mut state);
    go(&late, &mut state);
    suspect(&mut state, A);
    go(&late, &mut state);
    extent(&state, 1).primary != Some(A)
}

#[test]
fn l3_a_new_epoch_needs_its_own_suspicion_to_stand() {
    assert!(!late_new_epoch_takes_the_extent());
    assert!(fault::with(
        Some(Fault::NewEpochWithoutSuspicion),
        late_new_epoch_takes_the_extent
    ));
}

/// a, whole, is suspect; b has said that its replica cannot serve.
fn damaged_member_is_promoted() -> bool {
    let mut state = led_by_a(2);
    must(&announce(B, 20, 1, &[1]), &mut state);
    let suspicion = suspect(&mut state, A);
    must(&new_epoch(A, suspicion, &[(B, 20)]), &mut state);
    assert_eq!(
        extent(&state, 2).primary,
        Some(B),
        "the other extent is none the worse"
    );
    extent(&state, 1).primary == Some(B)
}

#[test]
fn i5_j1_a_member_that_cannot_serve_is_not_promoted() {
    assert!(!damaged_member_is_promoted());
    assert!(fault::with(
        Some(Fault::UnfitPromoted),
        damaged_member_is_promoted
    ));
}

#[test]
fn i5_j1_a_run_that_has_not_announced_itself_is_not_promoted() {
    let mut state = led_by_a(1);
    let suspicion = suspect(&mut state, A);
    must(&new_epoch(A, suspicion, &[(B, 21)]), &mut state);
    assert_eq!(
        extent(&state, 1).primary,
        None,
        "nobody knows what run 21 found on its disk"
    );
    assert_eq!(state.reopening(A, run(10)), None, "a is suspect");
    must(&announce(B, 21, 0, &[1]), &mut state);
    assert_eq!(state.reopening(B, run(21)), None);
    must(&clear(A, suspicion), &mut state);
    reopen(&mut state, A, 10);
    assert_eq!(
        extent(&state, 1).primary,
        Some(A),
        "the whole one opens it when it is back"
    );
}

#[test]
fn i5_j1_of_three_members_the_fit_one_is_promoted() {
    let mut state = ClusterState::default();
    let nodes = [(A, "a"), (B, "b"), (C, "c")].map(|(id, name)| new_node(id, name, Role::Data));
    must(&init(nodes.to_vec()), &mut state);
    must(&new_extent(1, &[A, B, C]), &mut state);
    all_announce(&mut state);
    reopen(&mut state, A, 10);
    must(&announce(B, 20, 1, &[1]), &mut state);
    let suspicion = suspect(&mut state, A);
    must(&new_epoch(A, suspicion, &[(B, 20), (C, 40)]), &mut state);
    assert_eq!(extent(&state, 1).primary, Some(C));
    assert_eq!(extent(&state, 1).in_sync, set(&[A, B, C]));
}

#[test]
fn j1_j2_nothing_is_given_to_a_replica_that_cannot_serve() {
    let mut state = led_by_a(1);
    must(&announce(B, 20, 1, &[1]), &mut state);
    assert_eq!(
        refusals(&go(&switchover(&state, (A, 10), (B, 20)), &mut state)),
        [Refusal::Unfit { node: B }]
    );
    let asked = AdminCommand::RequestSwitchover {
        extents: vec![extent_id(1)],
        to: Some(B),
    };
    assert!(go(&asked.into(), &mut state).refusal().is_some());
    must(&shrink(&state, A, B), &mut state);
    assert_eq!(
        refusals(&go(&grow(&state, A, B), &mut state)),
        [Refusal::Unfit { node: B }]
    );
    // What it said first comes late; then it is healed.
    let late = announce(B, 20, 0, &[]);
    assert_eq!(
        go(&late, &mut state).refusal(),
        Some(&Refusal::AnnouncedSince { node: B })
    );
    must(&announce(B, 20, 2, &[]), &mut state);
    must(&grow(&state, A, B), &mut state);
    assert_eq!(
        refusals(&go(&switchover(&state, (A, 10), (B, 19)), &mut state)),
        [Refusal::OtherIncarnation]
    );
    must(&switchover(&state, (A, 10), (B, 20)), &mut state);
}

/// A7 (ii): the shrink is committed before the new epoch.
fn shrunk_member_is_promoted() -> bool {
    let mut state = led_by_a(1);
    must(&shrink(&state, A, B), &mut state);
    let suspicion = suspect(&mut state, A);
    must(&new_epoch(A, suspicion, &[(B, 20)]), &mut state);
    extent(&state, 1).primary == Some(B)
}

#[test]
fn i5_only_a_member_of_the_in_sync_set_is_promoted() {
    assert!(!shrunk_member_is_promoted());
    assert!(fault::with(Some(Fault::NoInSyncCheck), shrunk_member_is_promoted));
}

#[test]
fn l4_clearing_starts_a_new_generation_and_a_late_suspicion_is_void() {
    let mut state = led_by_a(1);
    let suspicion = suspect(&mut state, A);
    let late = Command::Suspect {
        node: A,
        generation: LeaseGeneration(0),
    };
    assert_eq!(
        must(&clear(A, suspicion), &mut state),
        Reply::Cleared {
            generation: LeaseGeneration(1)
        }
    );
    let reply = go(&clear(A, suspicion), &mut state);
    assert_eq!(reply.refusal(), Some(&Refusal::NoSuchSuspicion { node: A }));
    assert!(matches!(
        go(&late, &mut state).refusal(),
        Some(Refusal::GenerationMoved { .. })
    ));
    assert!(!state.is_suspect(A));
    assert_eq!(
        extent(&state, 1).primary,
        Some(A),
        "it kept what nobody had taken"
    );
}

#[test]
fn e1_a_restarted_primary_opens_a_new_epoch() {
    let mut state = led_by_a(2);
    assert_eq!(extent(&state, 1).share(A, run(10)), Share::Primary);
    assert_eq!(extent(&state, 1).share(A, run(11)), Share::PrimaryBefore);
    assert_eq!(state.reopening(A, run(10)), None);
    let command = state.reopening(A, run(11)).unwrap();
    must(&command, &mut state);
    assert_eq!(
        (extent(&state, 2).epoch, extent(&state, 2).primary_incarnation),
        (Epoch(2), Some(run(11)))
    );
    let again = refusals(&go(&command, &mut state));
    assert!(matches!(
        again[..],
        [Refusal::EpochMoved { .. }, Refusal::EpochMoved { .. }]
    ));
}

#[test]
fn e1_only_the_named_primary_reopens() {
    let mut state = led_by_a(1);
    let items = vec![stamp(&state, 1)];
    let by_b = Command::Reopen {
        items: items.clone(),
        node: B,
        incarnation: run(20),
    };
    assert_eq!(
        refusals(&go(&by_b, &mut state)),
        [Refusal::NotPrimary { node: B }]
    );
    suspect(&mut state, A);
    let by_a = Command::Reopen {
        items,
        node: A,
        incarnation: run(11),
    };
    assert_eq!(refusals(&go(&by_a, &mut state)), [Refusal::Suspect { node: A }]);
}

#[test]
fn e1_an_extent_without_primary_is_opened_by_a_member_of_its_set() {
    let mut state = led_by_a(1);
    must(&shrink(&state, A, B), &mut state);
    let suspicion = suspect(&mut state, A);
    must(&new_epoch(A, suspicion, &[(B, 20)]), &mut state);
    assert_eq!(
        states(&state),
        [AccessState::Transitioning, AccessState::Transitioning]
    );
    assert_eq!(state.reopening(B, run(20)), None, "it is not in sync");
    assert_eq!(state.reopening(A, run(10)), None, "it is still suspect");
    let by_b = Command::Reopen {
        items: vec![stamp(&state, 1)],
        node: B,
        incarnation: run(20),
    };
    assert_eq!(refusals(&go(&by_b, &mut state)), [Refusal::NotInSync { node: B }]);
    must(&clear(A, suspicion), &mut state);
    reopen(&mut state, A, 10);
    assert_eq!(
        (extent(&state, 1).primary, extent(&state, 1).epoch),
        (Some(A), Epoch(3))
    );
}

#[test]
fn an_extent_without_primary_is_the_preferred_nodes_first_and_anybodys_later() {
    let mut state = trio(1);
    assert_eq!(state.reopening(B, run(20)), None);
    assert!(state.reopening(A, run(10)).is_some());
    assert_eq!(state.reopening_late(W, run(30)), None);
    let late = state.reopening_late(B, run(20)).unwrap();
    must(&late, &mut state);
    assert_eq!(extent(&state, 1).primary, Some(B));
}

/// A7, M4: a, which has not yet applied its own shrink of b, hands over to b.
fn hand_over_passes_a_shrink() -> bool {
    let mut state = led_by_a(1);
    let late = switchover(&state, (A, 10), (B, 20));
    let regrow = grow(&state, A, B);
    must(&shrink(&state, A, B), &mut state);
    go(&regrow, &mut state);
    go(&late, &mut state);
    extent(&state, 1).primary == Some(B)
}

#[test]
fn e2_a_proposal_from_before_a_shrink_is_void() {
    assert!(!hand_over_passes_a_shrink());
    assert!(fault::with(
        Some(Fault::NoPrecondition),
        hand_over_passes_a_shrink
    ));
}

#[test]
fn e2_a_growth_that_was_given_up_is_void() {
    let mut state = led_by_a(1);
    must(&shrink(&state, A, B), &mut state);
    let late = grow(&state, A, B);
    must(
        &Command::GrowVoid {
            items: vec![stamp(&state, 1)],
            proposer: A,
        },
        &mut state,
    );
    assert!(matches!(
        refusals(&go(&late, &mut state))[..],
        [Refusal::VersionMoved { .. }]
    ));
    assert_eq!(extent(&state, 1).in_sync, set(&[A]));
    must(&grow(&state, A, B), &mut state);
    assert_eq!(extent(&state, 1).in_sync, set(&[A, B]));
    assert_eq!(extent(&state, 1).epoch, Epoch(1), "sets change within an epoch");
}

#[test]
fn e2_a_suspect_primary_changes_no_set() {
    let mut state = led_by_a(1);
    suspect(&mut state, A);
    let void = Command::GrowVoid {
        items: vec![stamp(&state, 1)],
        proposer: A,
    };
    for command in [
        shrink(&state, A, B),
        grow(&state, A, B),
        void,
        switchover(&state, (A, 10), (B, 20)),
    ] {
        assert_eq!(
            refusals(&go(&command, &mut state)),
            [Refusal::Suspect { node: A }],
            "{command:?}"
        );
    }
}

#[test]
fn e2_a_silent_replica_is_taken_out_by_its_healthy_primary_and_not_let_in() {
    let mut state = led_by_a(1);
    let suspicion = suspect(&mut state, B);
    must(&shrink(&state, A, B), &mut state);
    assert_eq!(extent(&state, 1).in_sync, set(&[A]));
    assert_eq!(
        refusals(&go(&grow(&state, A, B), &mut state)),
        [Refusal::Suspect { node: B }]
    );
    must(&clear(B, suspicion), &mut state);
    must(&grow(&state, A, B), &mut state);
}

#[test]
fn e2_sets_are_the_primarys_and_keep_it() {
    let mut state = led_by_a(1);
    assert_eq!(
        refusals(&go(&shrink(&state, A, A), &mut state)),
        [Refusal::RemovesPrimary { node: A }]
    );
    assert_eq!(
        refusals(&go(&shrink(&state, B, A), &mut state)),
        [Refusal::NotPrimary { node: B }]
    );
    assert_eq!(
        refusals(&go(&shrink(&state, A, W), &mut state)),
        [Refusal::NotInSync { node: W }]
    );
    assert_eq!(
        refusals(&go(&grow(&state, A, W), &mut state)),
        [Refusal::NotReplica { node: W }]
    );
    assert_eq!(
        refusals(&go(&grow(&state, A, B), &mut state)),
        [Refusal::AlreadyInSync { node: B }]
    );
    assert_eq!(
        refusals(&go(&grow(&state, B, B), &mut state)),
        [Refusal::NotPrimary { node: B }]
    );
    assert_eq!(
        refusals(&go(&shrink(&state, A, C), &mut state)),
        [Refusal::NotInSync { node: C }]
    );
    assert_eq!(
        refusals(&go(&shrink(&state, C, A), &mut state)),
        [Refusal::NoSuchNode { node: C }]
    );
    assert_eq!(extent(&state, 1).version, InSyncVersion(2));
}

#[test]
fn e6_a_switchover_names_the_run_that_handed_back_and_goes_to_a_member() {
    let mut state = led_by_a(2);
    assert_eq!(
        refusals(&go(&switchover(&state, (A, 9), (B, 20)), &mut state)),
        [Refusal::OtherIncarnation]
    );
    assert_eq!(
        refusals(&go(&switchover(&state, (A, 10), (W, 30)), &mut state)),
        [Refusal::NotInSync { node: W }]
    );
    assert_eq!(
        refusals(&go(&switchover(&state, (B, 20), (A, 10)), &mut state)),
        [Refusal::NotPrimary { node: B }]
    );
    assert!(
        go(&switchover(&state, (A, 10), (A, 10)), &mut state)
            .refusal()
            .is_some()
    );
    must(&switchover(&state, (A, 10), (B, 20)), &mut state);
    let e = extent(&state, 1);
    assert_eq!(
        (e.primary, e.epoch, &e.in_sync),
        (Some(B), Epoch(2), &set(&[A, B]))
    );
    assert_eq!(extent(&state, 2).primary, Some(A));
    let suspicion = suspect(&mut state, A);
    assert_eq!(
        refusals(&go(&switchover(&state, (B, 20), (A, 10)), &mut state)),
        [Refusal::Suspect { node: A }]
    );
    must(&clear(A, suspicion), &mut state);
}

#[test]
fn e6_a_new_epoch_for_itself_makes_the_switchover_void() {
    let mut state = led_by_a(1);
    let late = switchover(&state, (A, 10), (B, 20));
    let void = Command::Reopen {
        items: vec![stamp(&state, 1)],
        node: A,
        incarnation: run(10),
    };
    must(&void, &mut state);
    assert!(matches!(
        refusals(&go(&late, &mut state))[..],
        [Refusal::EpochMoved { .. }]
    ));
    assert_eq!(extent(&state, 1).primary, Some(A));
}

#[test]
fn p4_a_suspicion_alone_shows_nothing() {
    let mut state = led_by_a(1);
    let shown = states(&state);
    assert_eq!(
        shown,
        [AccessState::ActiveOptimized, AccessState::ActiveNonOptimized]
    );
    let counter = extent(&state, 1).alua_changes;
    let suspicion = suspect(&mut state, A);
    assert_eq!((states(&state), extent(&state, 1).alua_changes), (shown, counter));
    must(&clear(A, suspicion), &mut state);
    assert_eq!(extent(&state, 1).alua_changes, counter);
}

#[test]
fn p3_the_counter_is_raised_when_and_only_when_a_group_changes() {
    let mut state = led_by_a(1);
    let counter = extent(&state, 1).alua_changes;
    assert_eq!(counter, 1, "opening it changed both groups at once");
    let suspicion = suspect(&mut state, A);
    must(&new_epoch(A, suspicion, &[(B, 20)]), &mut state);
    must(&shrink(&state, B, A), &mut state);
    assert_eq!(
        states(&state),
        [AccessState::Unavailable, AccessState::ActiveOptimized]
    );
    assert_eq!(extent(&state, 1).alua_changes, 3);
    must(&clear(A, suspicion), &mut state);
    assert_eq!(
        states(&state),
        [AccessState::Standby, AccessState::ActiveOptimized]
    );
    must(
        &Command::GrowVoid {
            items: vec![stamp(&state, 1)],
            proposer: B,
        },
        &mut state,
    );
    assert_eq!(extent(&state, 1).alua_changes, 4);
    must(&grow(&state, B, A), &mut state);
    assert_eq!(
        states(&state),
        [AccessState::ActiveNonOptimized, AccessState::ActiveOptimized]
    );
    let groups = state.lu(extent_id(1)).unwrap().groups;
    assert!(
        groups.iter().all(|g| !g.preferred),
        "the preferred node is not the primary"
    );
    must(&switchover(&state, (B, 20), (A, 10)), &mut state);
    assert!(state.lu(extent_id(1)).unwrap().groups[0].preferred);
    reopen(&mut state, A, 11);
    assert_eq!(
        extent(&state, 1).alua_changes,
        6,
        "a new epoch of the same primary shows nothing"
    );
}

#[test]
fn e1_what_an_earlier_run_of_the_primary_proposed_changes_no_set() {
    let mut state = led_by_a(1);
    let late = shrink(&state, A, B);
    must(&announce(A, 11, 0, &[]), &mut state);
    assert_eq!(refusals(&go(&late, &mut state)), [Refusal::OtherIncarnation]);
    assert_eq!(extent(&state, 1).in_sync, set(&[A, B]));
    reopen(&mut state, A, 11);
    must(&shrink(&state, A, B), &mut state);
    assert_eq!(extent(&state, 1).in_sync, set(&[A]));
}
