use super::super::fixture::{self, A, B, W, extent, extent_id, go, led_by_a, must, set, stamp};
use super::super::{AdminCommand, Command};
use super::*;

fn replicas(nodes: &[NodeId]) -> Command {
    AdminCommand::SetReplicas {
        extent: extent_id(1),
        replicas: set(nodes),
    }
    .into()
}

/// As extent 1's primary proposes it.
fn retire(state: &ClusterState) -> Command {
    let proposer = extent(state, 1).primary.unwrap_or_default();
    AdminCommand::Retire {
        items: vec![stamp(state, 1)],
        proposer,
    }
    .into()
}

fn change(change: ExtentChange) -> Command {
    let extent = extent_id(1);
    AdminCommand::SetExtent { extent, change }.into()
}

/// a, b, w and a third data node, c, without replicas.
fn with_c() -> ClusterState {
    let mut state = ClusterState::default();
    let data =
        [(A, "a"), (B, "b"), (fixture::C, "c")].map(|(id, name)| fixture::new_node(id, name, Role::Data));
    let mut nodes = data.to_vec();
    nodes.push(fixture::new_node(W, "w", Role::Witness));
    must(&fixture::init(nodes), &mut state);
    must(&fixture::new_extent(1, &[A, B]), &mut state);
    fixture::all_announce(&mut state);
    fixture::reopen(&mut state, A, 10);
    state
}

#[test]
fn i5_i6_a_replica_goes_only_when_those_that_stay_are_in_sync() {
    let c = fixture::C;
    let mut state = with_c();
    must(&replicas(&[A, c]), &mut state);
    assert_eq!(
        (&extent(&state, 1).replicas, &extent(&state, 1).retiring),
        (&set(&[A, B, c]), &set(&[B]))
    );
    assert!(
        !fixture::refusals(&go(&retire(&state), &mut state)).is_empty(),
        "c is not in sync"
    );
    must(&fixture::grow(&state, A, c), &mut state);
    let old = retire(&state);
    must(&old, &mut state);
    let now = extent(&state, 1);
    assert_eq!(
        (&now.replicas, &now.in_sync, &now.retiring),
        (&set(&[A, c]), &set(&[A, c]), &set(&[]))
    );
    assert!(!fixture::refusals(&go(&old, &mut state)).is_empty(), "once");
}

#[test]
fn the_primary_never_retires_before_it_has_handed_over() {
    let c = fixture::C;
    let mut state = with_c();
    must(&replicas(&[B, c]), &mut state);
    must(&fixture::grow(&state, A, c), &mut state);
    assert!(!extent(&state, 1).may_retire());
    must(&fixture::switchover(&state, (A, 10), (c, 40)), &mut state);
    must(&retire(&state), &mut state);
    assert_eq!(extent(&state, 1).in_sync, set(&[B, c]));
}

/// I5: in sync as the set says, and damaged as its node has told since. What would go is all that is whole.
#[test]
fn i5_nobody_retires_for_a_replica_that_cannot_serve() {
    let mut state = with_c();
    must(&replicas(&[A]), &mut state);
    must(&fixture::announce(A, 10, 9, &[1]), &mut state);
    assert!(!state.may_retire(fixture::extent_id(1), extent(&state, 1)));
    assert!(!fixture::refusals(&go(&retire(&state), &mut state)).is_empty());
    assert!(extent(&state, 1).in_sync.contains(&B));
    must(&fixture::announce(A, 10, 10, &[]), &mut state);
    must(&retire(&state), &mut state);
    assert_eq!(extent(&state, 1).in_sync, set(&[A]));
}

/// I5: in sync as the set says, and nobody has heard of it since it may have lost something. What would go is all that is whole.
#[test]
fn i5_nobody_retires_for_a_replica_whose_node_is_lost() {
    let c = fixture::C;
    let mut state = with_c();
    must(&replicas(&[A]), &mut state);
    let suspicion = fixture::suspect(&mut state, A);
    assert!(!state.may_retire(extent_id(1), extent(&state, 1)));
    assert!(!fixture::refusals(&go(&retire(&state), &mut state)).is_empty());
    let back = Command::ClearSuspect { node: A, suspicion };
    must(&back, &mut state);
    assert!(state.may_retire(extent_id(1), extent(&state, 1)));
    // Nor while another one that stays is lost.
    must(&replicas(&[A, c]), &mut state);
    must(&fixture::grow(&state, A, c), &mut state);
    let suspicion = fixture::suspect(&mut state, c);
    assert!(!state.may_retire(extent_id(1), extent(&state, 1)));
    must(&Command::ClearSuspect { node: c, suspicion }, &mut state);
    must(&retire(&state), &mut state);
    assert_eq!(extent(&state, 1).in_sync, set(&[A, c]));
}

/// I5: only the primary can tell that what stays is whole, and only in the run that it tells it of.
#[test]
fn i5_only_the_primarys_present_run_lets_replicas_go() {
    let mut state = with_c();
    must(&replicas(&[A]), &mut state);
    let by = |proposer| {
        let items = vec![stamp(&state, 1)];
        Command::from(AdminCommand::Retire { items, proposer })
    };
    for (wrong, named) in [(B, B), (W, W)] {
        let reply = go(&by(wrong), &mut state.clone());
        assert_eq!(fixture::refusals(&reply), [Refusal::NotPrimary { node: named }]);
    }
    let late = by(A);
    must(&fixture::announce(A, 11, 0, &[]), &mut state);
    assert_eq!(
        fixture::refusals(&go(&late, &mut state)),
        [Refusal::OtherIncarnation]
    );
    assert!(extent(&state, 1).in_sync.contains(&B));
    fixture::reopen(&mut state, A, 11);
    must(&retire(&state), &mut state);
    assert_eq!(extent(&state, 1).replicas, set(&[A]));
}

#[test]
fn e6_nothing_moves_to_a_replica_that_is_to_go() {
    let mut state = with_c();
    must(&replicas(&[A]), &mut state);
    let ask = AdminCommand::RequestSwitchover {
        extents: vec![extent_id(1)],
        to: Some(B),
    };
    assert!(go(&ask.into(), &mut state).refusal().is_some());
    assert_eq!(extent(&state, 1).handover, None);
}

#[test]
fn e6_nothing_moves_to_a_node_that_drains() {
    let mut state = led_by_a(1);
    let drain = |draining| Command::from(AdminCommand::SetDraining { node: B, draining });
    let ask = Command::from(AdminCommand::RequestSwitchover {
        extents: vec![extent_id(1)],
        to: Some(B),
    });
    must(&drain(true), &mut state);
    assert!(go(&ask, &mut state).refusal().is_some());
    assert_eq!(extent(&state, 1).handover, None);
    must(&drain(false), &mut state);
    must(&ask, &mut state);
    assert_eq!(extent(&state, 1).handover, Some(B));
}

#[test]
fn a_lost_replica_goes_at_once_and_the_only_one_in_sync_never() {
    let c = fixture::C;
    let mut state = with_c();
    must(&fixture::shrink(&state, A, B), &mut state);
    must(&replicas(&[A, c]), &mut state);
    must(&retire(&state), &mut state);
    assert_eq!(extent(&state, 1).replicas, set(&[A, c]));
    must(&replicas(&[c]), &mut state);
    assert!(!extent(&state, 1).may_retire(), "a is the only one");
    // Taken back before it took effect.
    must(&replicas(&[A, c]), &mut state);
    assert_eq!(extent(&state, 1).retiring, set(&[]));
}

#[test]
fn i12_replicas_are_on_data_nodes_that_stay() {
    let mut state = with_c();
    let before = extent(&state, 1).clone();
    for wrong in [&[W][..], &[], &[NodeId(77)]] {
        assert!(go(&replicas(wrong), &mut state).refusal().is_some(), "{wrong:?}");
    }
    assert_eq!(extent(&state, 1), &before);
}

#[test]
fn names_and_preferences_are_checked() {
    let mut state = led_by_a(2);
    must(&change(ExtentChange::Name("vm".into())), &mut state);
    must(&change(ExtentChange::Name("vm".into())), &mut state);
    for wrong in ["e2", "No", ""] {
        assert!(
            go(&change(ExtentChange::Name(wrong.into())), &mut state)
                .refusal()
                .is_some(),
            "{wrong}"
        );
    }
    assert!(
        go(&change(ExtentChange::Preferred(Some(W))), &mut state)
            .refusal()
            .is_some()
    );
    must(&change(ExtentChange::Preferred(None)), &mut state);
    assert_eq!(extent(&state, 1).preferred, None);
}

#[test]
fn e6_a_switchover_is_asked_for_only_where_it_can_be() {
    let ask = |to| {
        Command::from(AdminCommand::RequestSwitchover {
            extents: vec![extent_id(1)],
            to,
        })
    };
    let mut state = led_by_a(1);
    must(&ask(Some(B)), &mut state);
    assert_eq!(extent(&state, 1).handover, Some(B));
    must(&ask(None), &mut state);
    assert_eq!(extent(&state, 1).handover, None);
    must(&fixture::shrink(&state, A, B), &mut state);
    assert!(
        go(&ask(Some(B)), &mut state).refusal().is_some(),
        "b is not in sync"
    );
    assert!(go(&ask(Some(NodeId(77))), &mut state).refusal().is_some());
}
