//! The keeper, rule by rule.

use std::time::Duration;

use holdfast_types::{Incarnation, LEASE_TIME, LeaseGeneration, Mono, NodeId};

use super::rig::Rig;
use super::*;
use crate::model::Command;
use crate::model::fixture::{self, A, B, W};

fn at(ms: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(ms)
}

fn sends(actions: &[Action]) -> Vec<&Datagram> {
    fn datagram(action: &Action) -> Option<&Datagram> {
        match action {
            Action::Send { datagram, .. } => Some(datagram),
            Action::ResetConnections { .. } => None,
        }
    }
    actions.iter().filter_map(datagram).collect()
}

/// b's keeper, started at 10 s with everything applied.
fn keeper() -> (Keeper, crate::model::ClusterState) {
    let state = fixture::led_by_a(1);
    let mut keeper = Keeper::new(B, Incarnation(20), at(10_000));
    assert_eq!(keeper.applied(&state, at(10_000)), []);
    (keeper, state)
}

fn heartbeat(from: NodeId, seq: u64) -> Heartbeat {
    Heartbeat {
        cluster: fixture::trio(0).cluster.unwrap().id.short(),
        from,
        to: B,
        incarnation: Incarnation(10),
        seq,
        generation: LeaseGeneration(0),
        lease_ms: 600,
        revision: 3.into(),
        voter_set: 1,
        term: 1,
        leader: None,
        hears: vec![],
        run_out: vec![],
    }
}

/// The answer to a heartbeat, `None` if there is none.
fn promised(keeper: &mut Keeper, now: Mono, heartbeat: &Heartbeat) -> Option<bool> {
    let actions = keeper.receive(now, &Datagram::Heartbeat(heartbeat.clone()));
    match sends(&actions)[..] {
        [Datagram::Ack(ack)] => {
            assert_eq!(
                (ack.of_seq, ack.of_incarnation),
                (heartbeat.seq, heartbeat.incarnation)
            );
            Some(ack.promise)
        }
        [] => None,
        _ => panic!("{actions:?}"),
    }
}

#[test]
fn nothing_is_sent_before_the_cluster_is_known() {
    let mut keeper = Keeper::new(B, Incarnation(1), at(0));
    assert_eq!(keeper.tick(at(100)), []);
    assert_eq!(promised(&mut keeper, at(100), &heartbeat(A, 1)), None);
    assert_eq!(keeper.lease_until(at(100)), None);
    let _ = keeper.applied(&crate::model::ClusterState::default(), at(100));
    assert_eq!(keeper.tick(at(200)), []);
}

#[test]
fn l1_one_heartbeat_to_each_other_voter_every_50_ms() {
    let (mut keeper, _) = keeper();
    let mut count = 0;
    for ms in 10_000..11_000 {
        let actions = keeper.tick(at(ms));
        let to: Vec<u64> = sends(&actions)
            .iter()
            .map(|d| match d {
                Datagram::Heartbeat(h) => h.to.0,
                Datagram::Ack(_) => panic!("nothing to answer"),
            })
            .collect();
        assert!(to.is_empty() || to == [A.0, W.0]);
        count += to.len();
    }
    assert_eq!(count, 40);
    assert!(
        sends(&keeper.tick(at(15_000))).len() == 2 && keeper.tick(at(15_001)).is_empty(),
        "no burst after a pause"
    );
}

#[test]
fn l1_l5_promises_begin_when_the_voter_has_caught_up() {
    let (mut keeper, mut state) = keeper();
    assert_eq!(promised(&mut keeper, at(10_010), &heartbeat(A, 1)), Some(false));
    keeper.caught_up();
    assert_eq!(promised(&mut keeper, at(10_060), &heartbeat(A, 2)), Some(true));
    let suspicion = fixture::suspect(&mut state, A);
    let _ = keeper.applied(&state, at(10_100));
    assert_eq!(
        promised(&mut keeper, at(10_110), &heartbeat(A, 3)),
        Some(false),
        "answered, without a promise"
    );
    fixture::must(&Command::ClearSuspect { node: A, suspicion }, &mut state);
    let _ = keeper.applied(&state, at(10_200));
    assert_eq!(
        promised(&mut keeper, at(10_210), &heartbeat(A, 4)),
        Some(false),
        "an older generation"
    );
    let mut current = heartbeat(A, 5);
    current.generation = LeaseGeneration(1);
    assert_eq!(promised(&mut keeper, at(10_260), &current), Some(true));
    current.generation = LeaseGeneration(2);
    assert_eq!(
        promised(&mut keeper, at(10_300), &current),
        Some(true),
        "the sender is ahead"
    );
}

#[test]
fn l5_no_lease_before_the_node_has_caught_up() {
    let mut rig = Rig::new();
    rig.restart(A, 1);
    rig.go(1000);
    assert!(!rig.lease(A), "promised to, but what it has applied may be old");
    rig.caught_up(A);
    rig.go(100);
    assert!(rig.lease(A));
}

#[test]
fn a_voter_is_not_silent_from_before_it_was_known() {
    let mut keeper = Keeper::new(B, Incarnation(20), at(0));
    for ms in 0..100 {
        let _ = keeper.tick(at(ms * 100));
    }
    let _ = keeper.applied(&fixture::trio(1), at(9_900));
    let view = keeper.view(at(10_000));
    assert_eq!(view.peers.len(), 2);
    assert!(
        view.peers
            .values()
            .all(|p| p.silent_both == Duration::from_millis(100))
    );
}

#[test]
fn strangers_are_not_answered() {
    let (mut keeper, _) = keeper();
    keeper.caught_up();
    let mut other_cluster = heartbeat(A, 1);
    other_cluster.cluster ^= 1;
    let mut not_for_b = heartbeat(A, 1);
    not_for_b.to = W;
    let not_a_voter = heartbeat(NodeId(9), 1);
    let from_itself = heartbeat(B, 1);
    for stranger in [other_cluster, not_for_b, not_a_voter, from_itself] {
        assert_eq!(promised(&mut keeper, at(10_010), &stranger), None, "{stranger:?}");
    }
}

fn run_outs(keeper: &mut Keeper, now: Mono) -> Vec<u64> {
    let actions = keeper.tick(now);
    let reports = sends(&actions).into_iter().flat_map(|d| match d {
        Datagram::Heartbeat(h) => h.run_out.clone(),
        Datagram::Ack(_) => vec![],
    });
    let mut ids: Vec<u64> = reports.map(|r| r.suspicion.0).collect();
    ids.dedup();
    ids
}

#[test]
fn l3_l5_a_report_waits_for_promises_and_for_l_after_the_start() {
    let (mut keeper, mut state) = keeper();
    let suspicion = fixture::suspect(&mut state, A);
    let _ = keeper.applied(&state, at(10_001));
    let (mut behind, _) = self::keeper();
    let _ = behind.applied(&state, at(10_001));
    assert_eq!(run_outs(&mut behind, at(19_000)), [0; 0], "it has not caught up");
    keeper.caught_up();
    assert_eq!(run_outs(&mut keeper, at(10_599)), [0; 0]);
    assert!(keeper.next_wake() <= at(10_600));
    assert_eq!(run_outs(&mut keeper, at(10_600)), [suspicion.0]);
    // The next suspicion, with a promise in between.
    fixture::must(&Command::ClearSuspect { node: A, suspicion }, &mut state);
    let _ = keeper.applied(&state, at(20_000));
    assert_eq!(
        run_outs(&mut keeper, at(20_000)),
        [0; 0],
        "it names a suspicion that stands, or nothing"
    );
    let mut current = heartbeat(A, 5);
    current.generation = LeaseGeneration(1);
    assert_eq!(promised(&mut keeper, at(20_300), &current), Some(true));
    let second = fixture::suspect(&mut state, A);
    let _ = keeper.applied(&state, at(20_301));
    assert_eq!(run_outs(&mut keeper, at(20_899)), [0; 0]);
    assert_eq!(
        keeper.next_wake(),
        at(20_900),
        "the report goes out at once, not with the next heartbeat"
    );
    assert_eq!(run_outs(&mut keeper, at(20_900)), [second.0]);
    assert_eq!(keeper.view(at(20_900)).reports.len(), 1);
}

#[test]
fn l2_a_promise_lasts_for_the_longer_of_the_two_lease_times() {
    let (mut keeper, mut state) = keeper();
    keeper.caught_up();
    let mut long = heartbeat(A, 1);
    long.lease_ms = 5000;
    assert_eq!(promised(&mut keeper, at(11_000), &long), Some(true));
    let suspicion = fixture::suspect(&mut state, A);
    let _ = keeper.applied(&state, at(11_000));
    assert_eq!(run_outs(&mut keeper, at(15_999)), [0; 0]);
    assert_eq!(run_outs(&mut keeper, at(16_000)), [suspicion.0]);
}

#[test]
fn l2_the_lease_is_the_majoritys_and_ends_without_it() {
    let mut rig = Rig::new();
    assert!(rig.lease(A) && rig.lease(B) && rig.lease(W));
    rig.cut_both(A, B);
    rig.go(1000);
    assert!(
        rig.lease(A) && rig.lease(B),
        "w's promise and the own one are two of three"
    );
    rig.cut_both(A, W);
    let left = rig.nodes[&A]
        .keeper
        .lease_until(rig.nodes[&A].local(rig.now))
        .unwrap();
    assert!(left.since(rig.nodes[&A].local(rig.now)) <= LEASE_TIME);
    rig.go(600);
    assert!(!rig.lease(A) && rig.lease(B));
    rig.heal();
    rig.go(60);
    assert!(rig.lease(A));
}

#[test]
fn l2_one_way_links_give_no_lease() {
    let mut rig = Rig::new();
    rig.cut.extend([(B, A), (W, A)]);
    rig.go(700);
    assert!(!rig.lease(A), "promised, but it never learns");
    assert!(rig.lease(B) && rig.lease(W));
}

#[test]
fn l2_an_acknowledgement_for_an_earlier_run_does_not_count() {
    let mut rig = Rig::new();
    rig.delay.insert((B, A), 30_000);
    rig.delay.insert((W, A), 30_000);
    rig.go(100);
    let late: Vec<_> = rig
        .flying
        .iter()
        .filter(|(_, _, to, _)| *to == A)
        .cloned()
        .collect();
    assert!(late.iter().any(|(_, _, _, d)| matches!(d, Datagram::Ack(_))));
    rig.restart(A, 0);
    rig.cut.extend([(A, B), (A, W)]);
    rig.caught_up(A);
    rig.flying.extend(late);
    rig.go(60);
    assert!(!rig.lease(A));
}

#[test]
fn l8_a_voter_set_that_others_know_is_to_be_counted() {
    let (mut keeper, _) = keeper();
    keeper.caught_up();
    let mut newer = heartbeat(A, 1);
    let actions = keeper.tick(at(10_100));
    let ack = |voter_set| {
        Datagram::Ack(Ack {
            cluster: newer.cluster,
            from: A,
            to: B,
            incarnation: Incarnation(10),
            of_incarnation: Incarnation(20),
            of_seq: 1,
            promise: true,
            generation: LeaseGeneration(0),
            voter_set,
        })
    };
    assert!(matches!(sends(&actions)[0], Datagram::Heartbeat(h) if h.to == A && h.seq == 1));
    let _ = keeper.receive(at(10_110), &ack(1));
    assert!(keeper.lease_until(at(10_110)).is_some());
    newer.voter_set = 7;
    promised(&mut keeper, at(10_120), &newer);
    assert_eq!(keeper.lease_until(at(10_120)), None);
}

#[test]
fn l7_connections_are_reset_when_the_generation_ends() {
    let mut rig = Rig::new();
    rig.suspect(A);
    rig.apply_all(A);
    let suspicion = rig.head.suspicion(A).unwrap();
    assert_eq!(
        rig.nodes[&A].resets,
        [(LeaseGeneration(0), ResetCause::Suspected)]
    );
    rig.commit(&Command::ClearSuspect { node: A, suspicion });
    rig.everybody_applies();
    assert_eq!(
        rig.nodes[&A].resets[1..],
        [(LeaseGeneration(0), ResetCause::NewGeneration)]
    );
    assert!(rig.nodes[&B].resets.is_empty());
}

#[test]
fn l7_a_pause_is_seen_before_anything_else_is_done() {
    let mut rig = Rig::new();
    rig.nodes.get_mut(&A).unwrap().paused = true;
    rig.go(3000);
    rig.nodes.get_mut(&A).unwrap().paused = false;
    assert!(!rig.lease(A));
    rig.go(1);
    let [(generation, ResetCause::Gap(gap))] = rig.nodes[&A].resets[..] else {
        panic!("{:?}", rig.nodes[&A].resets);
    };
    assert_eq!(generation, LeaseGeneration(0));
    assert!((3000..3010).contains(&gap.as_millis()));
    let (mut keeper, _) = keeper();
    let actions = keeper.receive(at(12_000), &Datagram::Heartbeat(heartbeat(A, 1)));
    assert!(matches!(
        actions[..],
        [Action::ResetConnections { .. }, Action::Send { .. }]
    ));
}

#[test]
fn nobody_was_silent_while_nobody_listened() {
    let mut rig = Rig::new();
    rig.nodes.get_mut(&W).unwrap().paused = true;
    rig.go(3000);
    let bench = rig.nodes.get_mut(&W).unwrap();
    bench.paused = false;
    let now = bench.local(rig.now);
    let _ = bench.keeper.tick(now);
    let view = bench.keeper.view(now);
    assert!(
        view.peers
            .values()
            .all(|p| p.silent_both.is_zero() && !p.is_heard()),
        "{view:?}"
    );
}

#[test]
fn l6_the_view_tells_who_hears_whom_both_ways() {
    let mut rig = Rig::new();
    rig.cut.insert((A, B));
    rig.go(600);
    let view = |rig: &Rig, node: NodeId| rig.nodes[&node].keeper.view(rig.nodes[&node].local(rig.now));
    let w = view(&rig, W);
    assert!(w.peers[&A].is_heard() && w.peers[&B].is_heard());
    assert!(!w.peers[&A].says_it_hears(B) && !w.peers[&B].says_it_hears(A));
    let a = view(&rig, A);
    assert!(!a.peers[&B].is_heard() && a.peers[&B].silent < Duration::from_millis(60));
    assert!(a.peers[&B].silent_both > Duration::from_millis(500));
    assert!(a.peers[&W].says_it_hears(B) && a.peers[&W].both_for > Duration::from_secs(2));
    rig.heal();
    rig.go(100);
    let both_for = view(&rig, A).peers[&B].both_for;
    assert!(!both_for.is_zero() && both_for < Duration::from_millis(200));
}

#[test]
fn late_datagrams_of_an_earlier_run_tell_nothing() {
    let (mut keeper, _) = keeper();
    let mut old = heartbeat(A, 500);
    promised(&mut keeper, at(10_010), &old);
    let mut new = heartbeat(A, 1);
    new.incarnation = Incarnation(11);
    new.revision = 9.into();
    promised(&mut keeper, at(10_020), &new);
    old.seq = 501;
    assert_eq!(promised(&mut keeper, at(10_030), &old), None);
    let peer = &keeper.view(at(10_030)).peers[&A];
    assert_eq!(peer.incarnation, Some(Incarnation(11)));
    assert_eq!(peer.told.as_ref().unwrap().revision, 9.into());
}

#[test]
fn the_cell_shows_the_lease_without_a_lock() {
    let cell = LeaseCell::default();
    assert!(!cell.holds(at(0)));
    cell.publish(Some(at(600)), LeaseGeneration(3), at(100));
    assert_eq!(cell.read(at(599)), LeaseReading::Held(at(600)));
    assert_eq!(cell.read(at(600)), LeaseReading::Lost);
    assert_eq!(cell.generation(), LeaseGeneration(3));
    cell.publish(Some(at(9000)), LeaseGeneration(3), at(100));
    assert_eq!(
        cell.read(at(1101)),
        LeaseReading::Paused,
        "held by its time, but the thread did not run"
    );
}

#[test]
fn three_heartbeat_threads_hold_leases_over_real_sockets() {
    use std::net::UdpSocket;
    use std::sync::{Arc, Mutex};
    let sockets: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut state = fixture::led_by_a(1);
    for (node, socket) in [A, B, W].iter().zip(&sockets) {
        state.nodes.get_mut(node).unwrap().addresses.heartbeat = socket.local_addr().unwrap();
    }
    let resets = Arc::new(Mutex::new(Vec::new()));
    let clock = driver::boot_clock();
    let mut running: Vec<_> = [A, B, W]
        .into_iter()
        .zip(sockets)
        .map(|(node, socket)| {
            let told = Arc::clone(&resets);
            let on_reset =
                Arc::new(move |generation, cause| told.lock().unwrap().push((node, generation, cause)));
            let keys = holdfast_trust::Key::new([7; 32]);
            let trust =
                holdfast_trust::Trust::new(node, &[1], &keys, &holdfast_trust::Generations::default())
                    .unwrap();
            let lease = driver::Lease::new(node, Incarnation(node.0), Arc::clone(&clock), on_reset);
            lease.applied(&state);
            lease.caught_up();
            let thread = lease.spawn(socket, trust).unwrap();
            (lease, thread)
        })
        .collect();
    let within = |what: &dyn Fn() -> bool| {
        for _ in 0..1000 {
            if what() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    };
    assert!(within(&|| running
        .iter()
        .all(|(lease, _)| lease.cell().holds(clock()))));
    let (lost, thread) = running.pop().unwrap();
    drop(thread);
    let suspicion = fixture::suspect(&mut state, W);
    assert_eq!(suspicion.0, state.revision.0);
    running.iter().for_each(|(lease, _)| lease.applied(&state));
    assert!(within(&|| {
        let view = running[0].0.view();
        view.reports.values().any(|who| who.len() == 2)
    }));
    assert!(
        running.iter().all(|(lease, _)| lease.cell().holds(clock())),
        "two of three"
    );
    lost.applied(&state);
    assert_eq!(
        resets.lock().unwrap()[..],
        [(W, LeaseGeneration(0), ResetCause::Suspected)]
    );
}
