//! One of two voters goes on alone, over real directories.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_types::{NodeId, Revision};

use super::rig::{CLUSTER, Seat, cluster, eventually, propose, seats, settle, targets, trust};
use super::{Config, Control, StartError, begin_incarnation};
use crate::model::{ClusterId, TakeoverOrder};

const NEW: ClusterId = ClusterId(0xc2);

fn order(before: ClusterId) -> TakeoverOrder {
    TakeoverOrder {
        before,
        cluster: NEW,
        node: NodeId(1),
        committed: Revision(0),
        at: 1,
        by: "test".into(),
    }
}

fn next(seat: &Seat) -> PathBuf {
    seat.dir.with_extension("next")
}

/// Puts the new log in the place of the old one, which stays beside it.
fn switch(seat: &Seat) {
    std::fs::rename(&seat.dir, seat.dir.with_extension("before")).unwrap();
    std::fs::rename(next(seat), &seat.dir).unwrap();
}

async fn start(seat: &Seat, cluster: ClusterId) -> Result<Control, StartError> {
    let config = Config {
        cluster,
        expect_log: true,
        trust: trust(seat.node, &[cluster, CLUSTER]),
        ..seat.config()
    };
    Control::start(config, Arc::new(|_| {}), Arc::new(|_| {})).await
}

/// All of it: every entry is there, the one voter leads by itself, restarts and goes on; the old peer is refused and gets no vote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_t2_one_of_two_goes_on_alone_and_refuses_the_other() {
    let (_dir, seats) = seats(2, 16);
    let mut controls = cluster(&seats).await;
    propose(&controls[0], 0..50).await;
    settle(&controls[1]).await;
    let before = settle(&controls[0]).await;
    for control in controls.drain(..) {
        control.shutdown().await;
    }
    let seat = &seats[0];
    let state = begin_incarnation(&seat.dir, &next(seat), &order(CLUSTER)).unwrap();
    assert_eq!(targets(&state), 50);
    assert!(state.revision > before.revision);
    // The old one is as it was until the rename.
    start(seat, CLUSTER).await.unwrap().shutdown().await;
    switch(seat);
    let wrong = start(seat, CLUSTER).await.unwrap_err();
    assert!(matches!(wrong, StartError::OtherOwner { .. }), "{wrong}");
    for round in 0..3 {
        let control = start(seat, NEW).await.unwrap();
        control.serve(tokio::net::TcpListener::bind(seat.address).await.unwrap());
        let now = settle(&control).await;
        assert_eq!(now.cluster.as_ref().unwrap().id, NEW);
        assert_eq!(control.metrics().voters, [NodeId(1)].into());
        assert_eq!(now.voters.members, [NodeId(1)].into());
        propose(&control, 100 + round * 20..120 + round * 20).await;
        assert_eq!(targets(&*settle(&control).await), 50 + (round + 1) * 20);
        if round == 1 {
            let old = seats[1].start().await.unwrap();
            eventually("the old peer is refused", || !old.refusals().is_empty()).await;
            let said: BTreeMap<NodeId, String> = old.refusals();
            assert!(said[&NodeId(1)].contains("taken over"), "{said:?}");
            assert!(!old.metrics().has_quorum);
            assert!(old.read_index().await.is_err());
            old.shutdown().await;
        }
        control.shutdown().await;
    }
}

/// What is in the log and was never known as committed here may have been: it is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t2_the_tail_of_the_log_is_kept() {
    let (_dir, seats) = seats(2, 1000);
    let mut controls = cluster(&seats).await;
    propose(&controls[0], 0..10).await;
    settle(&controls[1]).await;
    if controls[1].metrics().am_leader {
        controls[1].transfer_leader(NodeId(1)).await.unwrap();
    }
    eventually("node 1 leads", || controls[0].metrics().am_leader).await;
    controls.remove(1).shutdown().await;
    let control = controls.remove(0);
    let lost = control.propose(super::rig::target(77)).await;
    assert!(lost.is_err());
    let in_log = targets(&control.newest_state());
    assert_eq!(
        (targets(&control.state()), in_log),
        (10, 11),
        "nobody has confirmed it"
    );
    control.shutdown().await;
    let seat = &seats[0];
    let state = begin_incarnation(&seat.dir, &next(seat), &order(CLUSTER)).unwrap();
    assert_eq!(targets(&state), in_log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t3_an_order_that_does_not_fit_writes_nothing() {
    let (_dir, seats) = seats(1, 16);
    let control = cluster(&seats).await.remove(0);
    propose(&control, 0..5).await;
    control.shutdown().await;
    let seat = &seats[0];
    begin_incarnation(&seat.dir, &next(seat), &order(ClusterId(9))).unwrap_err();
    let witness = TakeoverOrder {
        node: NodeId(2),
        ..order(CLUSTER)
    };
    begin_incarnation(&seat.dir, &next(seat), &witness).unwrap_err();
    assert!(!next(seat).exists());
    start(seat, CLUSTER).await.unwrap().shutdown().await;
}
