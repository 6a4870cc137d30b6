//! Three nodes in one process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_proto::raft as proto;
use holdfast_types::{Incarnation, NodeId, SuspicionId};

use super::rig::{CLUSTER, LONG, Seat, cluster, eventually, propose, seats, settle, target, targets, trust};
use super::wire::put_envelope;
use super::{Control, InitializeError, ProposeError, ReadIndexError, TransferError};
use crate::model::{Candidate, ClusterId, ClusterState, Command, Reply};

async fn leader_of(controls: &[Control]) -> usize {
    let mut leader = None;
    eventually("one leads", || {
        leader = controls.iter().position(|control| control.metrics().am_leader);
        leader.is_some()
    })
    .await;
    leader.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l6_any_voter_relays_proposals_and_all_apply_the_same() {
    let (_dir, seats) = seats(3, 2000);
    let controls = cluster(&seats).await;
    for (number, control) in controls.iter().enumerate() {
        propose(control, number * 5..number * 5 + 5).await;
    }
    let mut states = Vec::new();
    for control in &controls {
        states.push(settle(control).await);
    }
    assert_eq!(targets(&states[0]), 15);
    assert_eq!(states[0], states[1]);
    assert_eq!(states[0], states[2]);
    // A refusal is a reply, through a relay too.
    let name: holdfast_types::IscsiName = "iqn.2026-11.example:nobody".parse().unwrap();
    for control in &controls {
        let refused = control
            .propose(Command::DeleteTarget { name: name.clone() })
            .await
            .unwrap();
        assert!(matches!(refused, Reply::Refused { .. }), "{refused:?}");
    }
    let members = BTreeMap::from([(seats[0].node, seats[0].address)]);
    let error = controls[0].initialize(members).await.unwrap_err();
    assert!(matches!(error, InitializeError::AlreadyInitialized), "{error}");
    for control in &controls {
        eventually("all know of the quorum", || control.metrics().has_quorum).await;
        control.shutdown().await;
        assert!(control.metrics().stopped.is_some());
        let refused = control.propose(target(99)).await.unwrap_err();
        assert!(matches!(refused, ProposeError::Stopped(_)), "{refused}");
    }
}

/// What an administrator did at a node is there for what he asks of the same node next, though it follows and is slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_applied_at_the_node_that_was_asked_when_it_says_so() {
    let (_dir, seats) = seats(3, 2000);
    let mut controls = cluster(&seats).await;
    let at = (leader_of(&controls).await + 1) % 3;
    settle(&controls[at]).await;
    drop(controls.remove(at));
    // Each state that it applies takes its time.
    let slow = Arc::new(|_: &Arc<ClusterState>| std::thread::sleep(Duration::from_millis(30)));
    controls.insert(at, seats[at].start_with(slow).await.unwrap());
    let has = |control: &Control, number| {
        let name = format!("iqn.2026-11.example:t{number}").parse().unwrap();
        control.state().targets.contains_key(&name)
    };
    for number in 0..20 {
        for control in &controls {
            let number = number * 3
                + controls
                    .iter()
                    .position(|one| std::ptr::eq(one, control))
                    .unwrap();
            let reply = control.propose_applied(target(number), LONG).await.unwrap();
            assert_eq!(reply, Reply::DONE);
            assert!(has(control, number), "target {number} is not there yet");
        }
    }
    // Bounded, and told plainly: the command counts all the same.
    let behind = controls[at].propose_applied(target(99), Duration::ZERO).await;
    if !controls[at].metrics().am_leader {
        let error = behind.unwrap_err();
        assert!(matches!(error, ProposeError::NotApplied(_)), "{error}");
    }
    settle(&controls[at]).await;
    assert!(has(&controls[at], 99));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_is_replaced_and_comes_back() {
    let (_dir, seats) = seats(3, 2000);
    let mut controls = cluster(&seats).await;
    for round in 0..3 {
        let at = leader_of(&controls).await;
        propose(&controls[at], round * 10..round * 10 + 5).await;
        let term = controls[at].metrics().term;
        let dead = controls.remove(at);
        let started = Instant::now();
        drop(dead);
        propose(&controls[0], round * 10 + 5..round * 10 + 10).await;
        eprintln!(
            "round {round}: a follower's proposals went on after {:?}",
            started.elapsed()
        );
        assert!(controls[leader_of(&controls).await].metrics().term > term);
        controls.insert(at, seats[at].start().await.unwrap());
        assert_eq!(targets(&*settle(&controls[at]).await), (round + 1) * 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lags_behind_the_log_gets_a_snapshot() {
    let (_dir, seats) = seats(3, 32);
    let mut controls = cluster(&seats).await;
    propose(&controls[0], 0..5).await;
    let at = (leader_of(&controls).await + 1) % 3;
    settle(&controls[at]).await;
    let had = controls[at].metrics().last_log.unwrap();
    drop(controls.remove(at));
    propose(&controls[0], 5..300).await;
    let leader = leader_of(&controls).await;
    eventually("the log is purged beyond it", || {
        controls[leader].metrics().purged > Some(had)
    })
    .await;
    controls.insert(at, seats[at].start().await.unwrap());
    let state = settle(&controls[at]).await;
    assert_eq!(targets(&state), 300);
    assert!(controls[at].metrics().snapshot.unwrap() > had);
    // What it got is as good on disk.
    drop(controls.remove(at));
    let again = seats[at].start().await.unwrap();
    assert_eq!(targets(&*settle(&again).await), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_commands_travel_in_several_messages_and_huge_ones_not_at_all() {
    let (_dir, seats) = seats(3, 2000);
    let mut controls = cluster(&seats).await;
    let command = |count| Command::NewEpoch {
        suspect: NodeId(2),
        suspicion: SuspicionId(77),
        candidates: vec![
            Candidate {
                node: NodeId(1),
                incarnation: Incarnation(1 << 60),
            };
            count
        ],
        voters: 1,
    };
    let at = (leader_of(&controls).await + 1) % 3;
    drop(controls.remove(at));
    // About 0.9 MB each, and 2 MiB go into one message.
    for _ in 0..8 {
        let reply = controls[0].propose(command(22_000)).await.unwrap();
        assert!(matches!(reply, Reply::Refused { .. }), "nobody is suspect");
    }
    let error = controls[0].propose(command(60_000)).await.unwrap_err();
    assert!(matches!(error, ProposeError::Refused(_)), "{error}");
    controls.insert(at, seats[at].start().await.unwrap());
    propose(&controls[at], 0..3).await;
    assert_eq!(targets(&*settle(&controls[at]).await), 3);
    assert_eq!(controls[at].metrics().snapshot, None, "all of it came as entries");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l6_leadership_is_handed_to_a_voter_that_has_caught_up() {
    let (_dir, seats) = seats(3, 2000);
    let mut controls = cluster(&seats).await;
    for round in 0..4 {
        let at = leader_of(&controls).await;
        let to = (at + 1) % 3;
        propose(&controls[to], round..round + 1).await;
        let started = Instant::now();
        controls[at].transfer_leader(seats[to].node).await.unwrap();
        eprintln!("handed over in {:?}", started.elapsed());
        eventually("the successor leads", || controls[to].metrics().am_leader).await;
        // Its metrics come from another task than the word that the successor leads.
        eventually("the old leader knows", || !controls[at].metrics().am_leader).await;
        let late = controls[at].transfer_leader(seats[at].node).await.unwrap_err();
        assert_eq!(late, TransferError::NotLeader);
    }
    let at = leader_of(&controls).await;
    let nobody = controls[at].transfer_leader(NodeId(77)).await.unwrap_err();
    assert_eq!(nobody, TransferError::NotVoter(NodeId(77)));
    let away = (at + 1) % 3;
    let leader = controls[at].clone();
    drop(controls.remove(away));
    for number in 0..70 {
        leader.propose(target(1000 + number)).await.unwrap();
    }
    let behind = leader.transfer_leader(seats[away].node).await.unwrap_err();
    assert!(
        matches!(behind, TransferError::Behind { missing: 65.., .. }),
        "{behind}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_confirmed() {
    let (_dir, seats) = seats(3, 2000);
    let mut controls = cluster(&seats).await;
    propose(&controls[0], 0..3).await;
    settle(&controls[0]).await;
    controls.truncate(1);
    eventually("the quorum is gone", || !controls[0].metrics().has_quorum).await;
    let error = controls[0].propose(target(3)).await.unwrap_err();
    assert!(
        matches!(error, ProposeError::NoLeader | ProposeError::Timeout),
        "{error}"
    );
    let error = controls[0].read_index().await.unwrap_err();
    assert_eq!(error, ReadIndexError::NoLeader);
    // The last known state is still there to be shown.
    assert_eq!(targets(&controls[0].state()), 3);
    controls.push(seats[1].start().await.unwrap());
    assert!(targets(&*settle(&controls[0]).await) >= 3);
}

/// A client as node `me` has it.
fn client_of(seat: &Seat, me: NodeId) -> proto::raft_client::RaftClient<tonic::transport::Channel> {
    let (trust, to, address) = (trust(me, &[CLUSTER]), seat.node, seat.address);
    let endpoint = tonic::transport::Endpoint::from_static("http://peer");
    let channel = holdfast_trust::channel(&endpoint, move || {
        let trust = Arc::clone(&trust);
        async move { trust.dial(holdfast_trust::Port::Raft, to, address, LONG).await }
    });
    proto::raft_client::RaftClient::new(channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_other_clusters_and_bad_ones_are_refused_by_name() {
    let (_dir, seats) = seats(3, 2000);
    let controls = cluster(&seats).await;
    let mut client = client_of(&seats[0], NodeId(2));
    let term = controls[0].metrics().term;
    let mut vote = proto::VoteRequest {
        envelope: Some(put_envelope(ClusterId(9), NodeId(2), NodeId(1))),
        vote: Some(proto::Vote {
            term: term + 100,
            node: 2,
            committed: false,
        }),
        ..proto::VoteRequest::default()
    };
    let refused = client.vote(vote.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("of another cluster"), "{refused}");
    vote.envelope = Some(put_envelope(CLUSTER, NodeId(2), NodeId(3)));
    let refused = client.vote(vote.clone()).await.unwrap_err();
    assert!(refused.message().contains("is for node 3"), "{refused}");
    vote.envelope = Some(put_envelope(CLUSTER, NodeId(3), NodeId(1)));
    let refused = client.vote(vote.clone()).await.unwrap_err();
    let said = "names node 2 of cluster";
    assert!(
        refused.message().contains(said) && refused.message().contains("node 3 sends it"),
        "{refused}"
    );
    let mut third = client_of(&seats[0], NodeId(3));
    let refused = third.vote(vote.clone()).await.unwrap_err();
    assert!(
        refused.message().contains("the vote of another node"),
        "{refused}"
    );
    vote.envelope = None;
    assert!(client.vote(vote).await.is_err());
    // Entries that do not follow each other, from a node that could lead.
    let entry = |index| proto::Entry {
        id: Some(proto::LogId { term, node: 2, index }),
        payload: Some(proto::entry::Payload::Blank(proto::Blank {})),
    };
    let append = proto::AppendRequest {
        envelope: Some(put_envelope(CLUSTER, NodeId(2), NodeId(1))),
        vote: Some(proto::Vote {
            term: term + 1,
            node: 2,
            committed: true,
        }),
        entries: vec![entry(0), entry(2)],
        ..proto::AppendRequest::default()
    };
    let refused = client.append(append).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    // Nothing has changed, and nobody has stopped.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(controls[0].metrics().term, term);
    propose(&controls[0], 0..1).await;
    assert!(
        controls[0]
            .wait_applied(settle(&controls[0]).await.revision, LONG)
            .await
    );
}
