use std::collections::BTreeSet;

use super::super::fixture::{self, A, B, W, extent, extent_id, go, led_by_a, must, set, shrink};
use super::super::{AdminCommand, Command, ExtentChange, Reply, Token};
use super::*;

const OLD: ClusterId = ClusterId(0xfeed);
const NEW: ClusterId = ClusterId(0xbeef);

fn order(node: NodeId) -> TakeoverOrder {
    TakeoverOrder {
        before: OLD,
        cluster: NEW,
        node,
        committed: Revision(0),
        at: 1_795_921_445,
        by: "anna".into(),
    }
}

fn taken_over(state: &ClusterState, node: NodeId) -> ClusterState {
    let mut state = state.clone();
    let next = Revision(state.revision.0 + 1);
    state.take_over(next, &order(node)).unwrap();
    state
}

fn accept(number: u128, node: NodeId) -> Command {
    let loss = LossAccepted {
        extent: extent_id(number),
        node,
        at: 7,
        by: "anna".into(),
    };
    AdminCommand::AcceptDataLoss(loss).into()
}

fn why(reply: &Reply) -> String {
    reply.refusal().map(ToString::to_string).unwrap_or_default()
}

/// a reigns over e1 to e3; b is out of the set of e1, and a of that of e2, which b took over.
fn torn() -> ClusterState {
    let mut state = led_by_a(3);
    must(&shrink(&state, A, B), &mut state);
    let to_b = Command::Switchover {
        items: vec![fixture::stamp(&state, 2)],
        from: A,
        from_incarnation: fixture::run(10),
        to: B,
        to_incarnation: fixture::run(20),
    };
    must(&to_b, &mut state);
    let without_a = Command::Shrink {
        items: vec![fixture::stamp(&state, 2)],
        proposer: B,
        remove: A,
    };
    must(&without_a, &mut state);
    state
}

#[test]
fn t1_the_new_incarnation_has_another_id_and_one_member() {
    let mut before = torn();
    let token = Token {
        id: "t".into(),
        key: "a".repeat(64),
        expires: 0,
        used: None,
    };
    must(&AdminCommand::AddToken(token).into(), &mut before);
    let after = taken_over(&before, A);
    assert_eq!(after.cluster.as_ref().unwrap().id, NEW);
    assert_eq!(after.cluster.as_ref().unwrap().name, "test");
    assert_eq!(after.nodes.keys().copied().collect::<Vec<_>>(), [A]);
    assert_eq!(after.voters.members, set(&[A]));
    assert_eq!(after.voters.id, after.revision.0);
    assert!(after.tokens.is_empty(), "a token lets nobody into both");
    assert_eq!(after.last_node, W, "ids are never given twice");
    assert_eq!(after.last_tpg, before.last_tpg);
    let takeover = &after.takeovers[0];
    assert_eq!(takeover.revision, before.revision);
    assert_eq!(
        takeover.gone.iter().map(|gone| gone.node).collect::<Vec<_>>(),
        [B, W]
    );
    assert_eq!(after.was_taken_over(OLD), Some(takeover));
    assert_eq!(after.was_taken_over(NEW), None);
    assert_eq!(after.nodes[&A].tpg, before.nodes[&A].tpg);
    assert_eq!(after.targets, before.targets);
    assert_eq!(after.access, before.access);
    for (id, extent) in &after.extents {
        assert_eq!(extent.unit.version, before.extents[id].unit.version);
        assert_eq!(extent.name, before.extents[id].name);
    }
}

#[test]
fn t2_only_what_was_in_sync_serves_and_in_an_epoch_that_nobody_else_had() {
    let before = torn();
    for (node, in_sync) in [
        (A, [set(&[A]), set(&[]), set(&[A])]),
        (B, [set(&[]), set(&[B]), set(&[B])]),
    ] {
        let mut after = taken_over(&before, node);
        for (number, wanted) in (1..).zip(&in_sync) {
            let extent = extent(&after, number);
            assert_eq!(extent.in_sync, *wanted, "e{number} on {node}");
            assert_eq!(extent.replicas, set(&[node]));
            assert_eq!(extent.replicas_wanted, 2);
            assert_eq!(extent.epoch, Epoch(EPOCHS_APART));
            assert_eq!((extent.primary, extent.primary_incarnation), (None, None));
            assert!(extent.version > fixture::extent(&before, number).version);
            let fate = if wanted.is_empty() {
                Fate::Stale
            } else {
                Fate::Served
            };
            let old = fixture::extent(&before, number);
            assert_eq!(before.fate(node, extent_id(number), old), fate);
        }
        must(&fixture::announce(node, 77, 0, &[]), &mut after);
        fixture::reopen(&mut after, node, 77);
        let led: Vec<bool> = (1..=3).map(|n| extent(&after, n).primary == Some(node)).collect();
        assert_eq!(led, in_sync.each_ref().map(|set| !set.is_empty()));
    }
}

/// Whether b's replica counts after b has taken over with one of these tails behind what it knows as committed.
fn counted() -> [bool; 5] {
    let grow = |state: &ClusterState| Command::Grow {
        items: vec![fixture::stamp(state, 1)],
        proposer: A,
        add: B,
        run: None,
    };
    let whole = led_by_a(1);
    let mut without_b = whole.clone();
    must(&shrink(&whole, A, B), &mut without_b);
    let mut again = without_b.clone();
    must(&grow(&without_b), &mut again);
    assert_eq!(extent(&again, 1).in_sync, set(&[A, B]));
    let (out, back) = (shrink(&whole, A, B), grow(&without_b));
    let tails = [
        (&whole, vec![]),
        (&again, vec![]),
        (&whole, vec![&out]),
        (&without_b, vec![&back]),
        (&whole, vec![&out, &back]),
    ];
    tails.map(|(known, tail)| {
        let (mut state, length) = (known.clone(), tail.len() as u64);
        follow_tail(&mut state, B, tail, |state, command| {
            let next = Revision(state.revision.0 + 1);
            state.apply(next, command);
        });
        assert_eq!(state.revision.0, known.revision.0 + length);
        !extent(&taken_over(&state, B), 1).in_sync.is_empty()
    })
}

/// What of a tail's entries was committed is not known here. A growth that came to nothing left this replica without what was written
/// since; a shrink may have been acted on; and one that comes before a growth is not undone by it.
#[test]
fn t2_a_growth_in_the_tail_is_not_believed_and_a_shrink_is() {
    assert_eq!(counted(), [true, true, false, false, false]);
}

#[test]
fn t2_a_growth_in_the_tail_that_is_believed_is_noticed() {
    let believed = fault::with(Some(Fault::TailBelieved), counted);
    assert_eq!(believed, [true, true, false, true, true]);
}

/// The order is for one state of one cluster; anything else changes nothing.
#[test]
fn t2_an_order_for_another_cluster_or_a_witness_changes_nothing() {
    let before = torn();
    let other = TakeoverOrder {
        before: ClusterId(1),
        ..order(A)
    };
    for (order, index) in [
        (other, before.revision.0 + 1),
        (order(W), before.revision.0 + 1),
        (order(NodeId(9)), before.revision.0 + 1),
        (order(A), before.revision.0),
    ] {
        let mut state = before.clone();
        state.take_over(Revision(index), &order).unwrap_err();
        assert_eq!(state, before);
    }
}

#[test]
fn t2_a_second_takeover_is_kept_beside_the_first() {
    let first = taken_over(&torn(), A);
    let mut second = first.clone();
    let order = TakeoverOrder {
        before: NEW,
        cluster: ClusterId(3),
        ..order(A)
    };
    second.take_over(Revision(first.revision.0 + 5), &order).unwrap();
    assert_eq!(second.takeovers.len(), 2);
    assert_eq!(extent(&second, 1).epoch, Epoch(2 * EPOCHS_APART));
    assert_eq!(extent(&second, 1).replicas_wanted, 2);
    assert!(second.was_taken_over(OLD).is_some() && second.was_taken_over(NEW).is_some());
}

/// Whatever is proposed, an extent whose whole replicas are out of reach has no primary before its loss is accepted, and there are no new
/// replicas of it that could be taken for whole.
#[test]
fn t4_a_stale_replica_serves_only_once_its_loss_is_accepted() {
    let mut state = taken_over(&torn(), A);
    must(&fixture::announce(A, 77, 0, &[]), &mut state);
    let reopen = Command::Reopen {
        items: vec![fixture::stamp(&state, 2)],
        node: A,
        incarnation: fixture::run(77),
    };
    assert_eq!(fixture::refusals(&go(&reopen, &mut state)).len(), 1);
    let replicas = AdminCommand::SetReplicas {
        extent: extent_id(2),
        replicas: BTreeSet::from([A]),
    };
    assert!(why(&go(&replicas.into(), &mut state)).contains("accept-data-loss"));
    assert!(why(&go(&accept(1, A), &mut state)).contains("nothing to accept"));
    assert!(
        why(&go(&accept(2, B), &mut state)).contains("no member"),
        "{:?}",
        why(&go(&accept(2, B), &mut state))
    );
    let version = extent(&state, 2).version;
    must(&accept(2, A), &mut state);
    assert_eq!(extent(&state, 2).in_sync, set(&[A]));
    assert!(extent(&state, 2).version > version);
    let loss = &state.losses[0];
    assert_eq!((loss.node, loss.by.as_str(), loss.at), (A, "anna", 7));
    must(&accept(2, A), &mut state);
    assert_eq!(state.losses.len(), 1, "the same again changes nothing");
    fixture::reopen(&mut state, A, 77);
    assert_eq!(extent(&state, 2).primary, Some(A));
}

/// A replica whose disk has lost something is no replica to go on with.
#[test]
fn t4_a_damaged_replica_cannot_be_accepted() {
    let mut state = taken_over(&torn(), A);
    must(&fixture::announce(A, 77, 0, &[2]), &mut state);
    assert!(!why(&go(&accept(2, A), &mut state)).is_empty());
    assert!(extent(&state, 2).in_sync.is_empty());
    assert!(state.losses.is_empty());
    let rename = AdminCommand::SetExtent {
        extent: extent_id(2),
        change: ExtentChange::Name("kept".into()),
    };
    must(&rename.into(), &mut state);
    must(&Command::DeleteExtent { extent: extent_id(2) }, &mut state);
}
