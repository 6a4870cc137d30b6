//! Nodes, extents, targets, and how they are stored.

use holdfast_types::{Epoch, InSyncVersion, NodeId, Revision, TpgId};

use super::fixture::*;
use super::*;

#[test]
fn init_gives_every_node_a_port_group_of_its_own() {
    let state = trio(0);
    let tpgs: Vec<_> = state.nodes.values().map(|n| n.tpg).collect();
    assert_eq!(tpgs, [TpgId(1), TpgId(2), TpgId(3)]);
    assert_eq!(state.voters.members, set(&[A, B, W]));
    assert_eq!(state.voters.id, 1);
    assert!(state.voters.is_majority(|node| node != A) && !state.voters.is_majority(|node| node == A));
}

#[test]
fn init_says_plainly_that_two_voters_do_not_fail_over() {
    let warning = |nodes: Vec<NewNode>| match go(&init(nodes), &mut ClusterState::default()) {
        Reply::Done { warnings } => warnings.join(" "),
        other => panic!("{other:?}"),
    };
    let (a, b) = (new_node(A, "a", Role::Data), new_node(B, "b", Role::Data));
    let w = new_node(W, "w", Role::Witness);
    assert!(warning(vec![a.clone(), b.clone()]).contains("nothing will fail over by itself"));
    assert!(warning(vec![a.clone(), w.clone()]).contains("nothing will fail over by itself"));
    assert!(warning(vec![a.clone()]).contains("nothing is highly available"));
    assert_eq!(warning(vec![a, b, w]), "");
}

#[test]
fn init_refuses_what_cannot_be_a_cluster() {
    let cases = [
        (vec![], "needs a data node"),
        (vec![new_node(W, "w", Role::Witness)], "needs a data node"),
        (vec![new_node(NodeId(0), "a", Role::Data)], "is 0 or given twice"),
        (
            vec![new_node(A, "a", Role::Data), new_node(A, "b", Role::Data)],
            "is 0 or given twice",
        ),
        (
            vec![new_node(A, "a", Role::Data), new_node(B, "a", Role::Data)],
            "node 'a' exists already",
        ),
        (vec![new_node(A, "A!", Role::Data)], "'A!' is no name here"),
        (
            (1..=10)
                .map(|n| new_node(NodeId(n), &format!("n{n}"), Role::Data))
                .collect(),
            "at most 9 nodes",
        ),
    ];
    for (nodes, why) in cases {
        let mut state = ClusterState::default();
        let reply = go(&init(nodes), &mut state);
        let text = reply.refusal().expect(why).to_string();
        assert!(text.contains(why), "{text}");
        assert_eq!(
            state,
            ClusterState {
                revision: Revision(1),
                ..ClusterState::default()
            }
        );
    }
}

#[test]
fn nothing_goes_before_init_and_init_goes_once() {
    let mut state = ClusterState::default();
    assert_eq!(
        go(&new_extent(1, &[A]), &mut state).refusal(),
        Some(&Refusal::NotInitialized)
    );
    let mut state = trio(0);
    let again = init(vec![]);
    assert_eq!(
        go(&again, &mut state),
        Reply::DONE,
        "the same cluster: the reply was lost"
    );
    let other = Command::Init(Init {
        name: "x".into(),
        id: ClusterId(2),
        nodes: vec![],
    });
    assert_eq!(
        go(&other, &mut state).refusal(),
        Some(&Refusal::AlreadyInitialized)
    );
}

#[test]
fn an_index_is_applied_once() {
    let mut state = trio(1);
    let before = state.clone();
    let reply = state.apply(before.revision, &new_extent(2, &[A, B]));
    assert_eq!(reply.refusal(), Some(&Refusal::AppliedBefore));
    assert_eq!(state, before);
    state.advance(Revision(0));
    assert_eq!(state.revision, before.revision);
}

#[test]
fn names_are_short_and_plain() {
    for good in ["a", "vm-1", "0.db_x", &"x".repeat(63)] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    for bad in ["", "A", "-a", ".a", "a b", "ä", "a/b", &"x".repeat(64)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_new_extent_is_in_sync_everywhere_and_has_no_primary() {
    let state = trio(1);
    let e = extent(&state, 1);
    assert_eq!(
        (e.epoch, e.version, e.primary),
        (Epoch(0), InSyncVersion(1), None)
    );
    assert_eq!(e.in_sync, set(&[A, B]));
}

#[test]
fn extents_that_cannot_be_are_refused() {
    let mut state = trio(1);
    let change = |f: fn(&mut NewExtent)| match new_extent(7, &[A, B]) {
        Command::CreateExtent(mut new) => {
            f(&mut new);
            Command::CreateExtent(new)
        }
        _ => unreachable!("it creates an extent"),
    };
    let bad = [
        change(|n| n.name = "e1".into()),
        change(|n| n.name = String::new()),
        change(|n| n.size_bytes = 0),
        change(|n| n.size_bytes += 1),
        change(|n| n.size_bytes = u64::MAX),
        change(|n| n.replicas.clear()),
        change(|n| n.replicas = set(&[A, W])),
        change(|n| n.replicas = set(&[A, NodeId(9)])),
        change(|n| n.preferred = Some(W)),
        change(|n| n.id = extent_id(1)),
    ];
    for command in bad {
        let before = state.clone();
        let reply = go(&command, &mut state);
        assert!(reply.refusal().is_some(), "{command:?}");
        assert_eq!(
            state,
            ClusterState {
                revision: state.revision,
                ..before
            }
        );
    }
    assert_eq!(
        go(&new_extent(1, &[A, B]), &mut state),
        Reply::DONE,
        "the same one again"
    );
}

#[test]
fn extents_only_grow_and_the_capacity_counter_follows_the_size() {
    let mut state = trio(1);
    let resize = |size_bytes| Command::ResizeExtent {
        extent: extent_id(1),
        size_bytes,
    };
    assert!(go(&resize(1 << 29), &mut state).refusal().is_some());
    assert!(go(&resize((1 << 30) + 5), &mut state).refusal().is_some());
    must(&resize(1 << 30), &mut state);
    assert_eq!(extent(&state, 1).capacity_changes, 0);
    must(&resize(1 << 31), &mut state);
    assert_eq!(
        (extent(&state, 1).size_bytes, extent(&state, 1).capacity_changes),
        (1 << 31, 1)
    );
}

#[test]
fn luns_are_mapped_once_and_what_is_in_use_stays() {
    let mut state = trio(2);
    let create = Command::CreateTarget { name: iqn() };
    assert!(matches!(
        go(&map(0, 1), &mut state).refusal(),
        Some(Refusal::NoSuchTarget { .. })
    ));
    must(&create, &mut state);
    must(&map(0, 1), &mut state);
    must(&map(0, 1), &mut state);
    must(&create, &mut state);
    assert_eq!(state.targets[&iqn()].lun_changes, 1);
    assert!(matches!(
        go(&map(0, 2), &mut state).refusal(),
        Some(Refusal::LunTaken { .. })
    ));
    assert!(matches!(
        go(&map(1, 1), &mut state).refusal(),
        Some(Refusal::Exists { .. })
    ));
    assert!(matches!(
        go(&map(1, 9), &mut state).refusal(),
        Some(Refusal::NoSuchExtent { .. })
    ));
    let delete_target = Command::DeleteTarget { name: iqn() };
    let delete_extent = Command::DeleteExtent { extent: extent_id(1) };
    for command in [&delete_target, &delete_extent] {
        assert!(matches!(
            go(command, &mut state).refusal(),
            Some(Refusal::InUse { .. })
        ));
    }
    assert_eq!(state.lun(&iqn(), lun(0)).unwrap().id, extent_id(1));
    let unmap = Command::UnmapLun {
        target: iqn(),
        lun: lun(0),
    };
    must(&unmap, &mut state);
    assert!(matches!(
        go(&unmap, &mut state).refusal(),
        Some(Refusal::NoSuchLun { .. })
    ));
    assert_eq!(state.targets[&iqn()].lun_changes, 2);
    must(&delete_target, &mut state);
    must(&delete_extent, &mut state);
    assert!(state.targets.is_empty() && !state.extents.contains_key(&extent_id(1)));
}

#[test]
fn nodes_move_and_restart() {
    let mut state = trio(0);
    let elsewhere = addresses(NodeId(9));
    let moves = |from: &NodeAddresses, to: &NodeAddresses| {
        Command::SetNode(Box::new(Move {
            node: B,
            before: from.clone(),
            addresses: to.clone(),
        }))
    };
    must(&moves(&addresses(B), &elsewhere), &mut state);
    must(&moves(&addresses(B), &elsewhere), &mut state);
    must(&announce(B, 5, 0, &[]), &mut state);
    assert_eq!(state.nodes[&B].addresses, elsewhere);
    // Another member's address, one of them alone too, is never given twice, and a data node always has one for replication.
    let one = NodeAddresses {
        portals: vec![state.nodes[&A].addresses.portals[0]],
        ..elsewhere.clone()
    };
    let none = NodeAddresses {
        replication: None,
        ..elsewhere.clone()
    };
    for refused in [&addresses(A), &one, &none] {
        let reply = go(&moves(&elsewhere, refused), &mut state);
        assert!(matches!(reply.refusal(), Some(Refusal::Invalid(_))), "{reply:?}");
    }
    // One that comes late starts from what is no longer so.
    let reply = go(&moves(&addresses(B), &addresses(C)), &mut state);
    assert!(matches!(reply.refusal(), Some(Refusal::Invalid(_))), "{reply:?}");
    assert_eq!(state.nodes[&B].addresses, elsewhere);
    assert_eq!(state.nodes[&B].incarnation, Some(run(5)));
    let reply = go(&announce(C, 5, 0, &[]), &mut state);
    assert_eq!(reply.refusal(), Some(&Refusal::NoSuchNode { node: C }));
}

#[test]
fn state_reads_back_from_its_json() {
    let mut state = led_by_a(2);
    must(&Command::CreateTarget { name: iqn() }, &mut state);
    must(&map(3, 2), &mut state);
    suspect(&mut state, B);
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<ClusterState>(&text).unwrap(), state);
}

#[test]
fn a_state_without_the_fields_of_later_versions_reads() {
    let text = r#"{"format":1,"revision":4,"cluster":{"name":"x","id":"0000000000000000000000000000feed"},
        "extents":{"00000000-0000-0000-0000-000000000001":{"name":"e","size_bytes":1048576,"block_size":512,"replicas":[1],
        "epoch":1,"primary":1,"primary_incarnation":7,"in_sync":[1],"version":2}}}"#;
    let state: ClusterState = serde_json::from_str(text).unwrap();
    assert_eq!(extent(&state, 1).primary, Some(A));
    assert_eq!(state.settings, Settings::default());
}

#[test]
fn the_stored_form_of_commands_does_not_change() {
    let state = led_by_a(1);
    let cases = [
        (
            shrink(&state, A, B),
            r#"{"shrink":{"items":[{"extent":"00000000-0000-0000-0000-000000000001","epoch":1,"version":2}],"proposer":1,"remove":2}}"#,
        ),
        (
            new_epoch(A, holdfast_types::SuspicionId(9), &[(B, 5)]),
            r#"{"new_epoch":{"suspect":1,"suspicion":9,"candidates":[{"node":2,"incarnation":5}],"voters":1}}"#,
        ),
        (
            map(0, 1),
            r#"{"map_lun":{"target":"iqn.2026-11.example:disk","lun":0,"extent":"00000000-0000-0000-0000-000000000001"}}"#,
        ),
    ];
    for (command, text) in cases {
        assert_eq!(serde_json::to_string(&command).unwrap(), text);
        assert_eq!(serde_json::from_str::<Command>(text).unwrap(), command);
    }
}

#[test]
fn every_reply_reads_back_from_its_json() {
    let mut state = led_by_a(1);
    let mut replies = vec![
        go(&shrink(&trio(1), A, B), &mut state),
        go(&map(0, 1), &mut state),
        go(
            &Command::Suspect {
                node: A,
                generation: 4.into(),
            },
            &mut state,
        ),
    ];
    let suspicion = suspect(&mut state, A);
    replies.push(Reply::Suspected { suspicion });
    replies.push(go(&new_epoch(A, suspicion, &[(B, 20)]), &mut state));
    replies.push(go(&Command::ClearSuspect { node: A, suspicion }, &mut state));
    for reply in replies {
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply, "{text}");
    }
}
