//! The policy, rule by rule, on views made by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_types::{Incarnation, Mono, NodeId, SuspicionId};

use super::*;
use crate::lease::{KeeperView, PeerView, RunOut, Told};
use crate::model::fixture::{self, A, B, C, W};
use crate::model::{Candidate, ClusterState, Command, Role};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(millis: u64) -> Mono {
    Mono::ZERO + ms(millis)
}

/// A peer that is heard, has applied `revision` and hears `both` itself.
fn heard(run: u64, revision: u64, both: &[NodeId]) -> PeerView {
    PeerView {
        incarnation: Some(Incarnation(run)),
        silent: ms(20),
        silent_both: ms(20),
        both_for: ms(60_000),
        told: Some(Told {
            age: ms(20),
            revision: revision.into(),
            generation: 0.into(),
            term: 1,
            leader: None,
            both: both.iter().map(|node| (*node, ms(40))).collect(),
        }),
    }
}

fn silent(millis: u64) -> PeerView {
    PeerView {
        silent: ms(millis),
        silent_both: ms(millis),
        both_for: ms(0),
        ..heard(99, 0, &[])
    }
}

/// A leader with what it sees.
struct Seat {
    governor: Governor,
    state: ClusterState,
    me: NodeId,
    view: KeeperView,
    raft: RaftView,
}

impl Seat {
    /// b leads; a is primary; everybody is heard by everybody.
    fn new(state: ClusterState) -> Self {
        let all: Vec<NodeId> = state.nodes.keys().copied().collect();
        let revision = state.revision;
        let peers = all.iter().filter(|node| **node != B);
        Self {
            governor: Governor::new(),
            me: B,
            view: KeeperView {
                peers: peers
                    .map(|node| (*node, heard(node.0 * 10, revision.0, &all)))
                    .collect(),
                reports: BTreeMap::new(),
                caught_up: true,
                revision,
            },
            raft: RaftView {
                am_leader: true,
                leader: Some(B),
                committed: revision.0,
                matched: all.iter().map(|node| (*node, revision.0)).collect(),
                ..RaftView::default()
            },
            state,
        }
    }

    fn tick(&mut self, now: u64) -> Vec<Proposal> {
        let input = GovernorInput {
            state: &self.state,
            me: self.me,
            incarnation: Incarnation(20),
            view: &self.view,
            raft: &self.raft,
        };
        self.governor.tick(at(now), &input)
    }

    fn sees(&mut self, node: NodeId, peer: PeerView) {
        self.view.peers.insert(node, peer);
    }

    /// `node` stops: everybody else says so.
    fn loses(&mut self, lost: NodeId) {
        for peer in self.view.peers.values_mut() {
            peer.told.as_mut().unwrap().both.insert(lost, ms(480));
        }
        self.sees(lost, silent(500));
    }

    fn suspects(&mut self, node: NodeId) -> SuspicionId {
        let suspicion = fixture::suspect(&mut self.state, node);
        self.view.revision = self.state.revision;
        suspicion
    }

    fn reported(&mut self, node: NodeId, suspicion: SuspicionId, by: &[NodeId]) {
        let report = RunOut { node, suspicion };
        self.view.reports.insert(report, by.iter().copied().collect());
    }
}

fn suspect(node: NodeId) -> Proposal {
    Proposal::Command(Command::Suspect {
        node,
        generation: 0.into(),
    })
}

#[test]
fn l6_all_is_well_and_nothing_is_proposed() {
    let mut seat = Seat::new(fixture::led_by_a(2));
    assert_eq!(seat.tick(0), []);
}

#[test]
fn l6_only_the_leader_suspects_and_only_after_the_silence() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    seat.loses(A);
    seat.sees(A, silent(499));
    assert_eq!(seat.tick(0), []);
    seat.sees(A, silent(500));
    seat.raft.am_leader = false;
    assert_eq!(seat.tick(20), []);
    seat.raft.am_leader = true;
    assert_eq!(seat.tick(40), [suspect(A)]);
}

#[test]
fn l7_a_silent_witness_is_suspected_too() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    seat.loses(W);
    assert_eq!(seat.tick(0), [suspect(W)]);
}

#[test]
fn nothing_is_proposed_twice_within_a_short_time() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    seat.loses(A);
    assert_eq!(seat.tick(0), [suspect(A)]);
    assert_eq!(seat.tick(299), []);
    assert_eq!(seat.tick(300), [suspect(A)]);
}

#[test]
fn l6_without_a_majority_nobody_is_suspected() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    seat.loses(A);
    seat.loses(W);
    let wanted = seat.tick(0);
    assert!(
        !wanted.iter().any(|p| matches!(p, Proposal::Command(_))),
        "{wanted:?}"
    );
}

#[test]
fn l6_a_leader_that_hears_nobody_lets_others_lead_in_turn() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    seat.sees(A, silent(600));
    seat.sees(W, silent(499));
    assert_eq!(seat.tick(0), []);
    seat.sees(W, silent(500));
    let first = seat.tick(20);
    let second = seat.tick(1020);
    let all = [first, second].concat();
    assert!(
        all.contains(&Proposal::TransferLeader(A)) && all.contains(&Proposal::TransferLeader(W)),
        "{all:?}"
    );
}

#[test]
fn l6_leadership_goes_to_who_hears_both_once_it_has_caught_up() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    seat.sees(A, silent(600));
    seat.raft.matched.insert(W, seat.raft.committed - 1);
    assert_eq!(seat.tick(0), [], "it waits; nobody is suspected meanwhile");
    seat.raft.matched.insert(W, seat.raft.committed);
    assert_eq!(seat.tick(20), [Proposal::TransferLeader(W)]);
    assert_eq!(seat.tick(1000), [], "not again and again");
    assert_eq!(seat.tick(1020), [Proposal::TransferLeader(W)]);
}

#[test]
fn l6_a_suspect_does_not_get_leadership() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    seat.suspects(W);
    seat.view.peers.get_mut(&W).unwrap().both_for = ms(10);
    seat.sees(A, silent(600));
    assert_eq!(seat.tick(0), [suspect(A)]);
}

const V: NodeId = NodeId(5);

fn four() -> ClusterState {
    with(vec![])
}

fn with(more: Vec<crate::model::NewNode>) -> ClusterState {
    let mut state = ClusterState::default();
    let mut nodes = vec![
        fixture::new_node(A, "a", Role::Data),
        fixture::new_node(B, "b", Role::Data),
        fixture::new_node(W, "w", Role::Witness),
        fixture::new_node(C, "c", Role::Data),
    ];
    nodes.extend(more);
    fixture::must(&fixture::init(nodes), &mut state);
    fixture::must(&fixture::new_extent(1, &[A, B, C]), &mut state);
    fixture::must(&fixture::new_extent(2, &[A, C]), &mut state);
    fixture::all_announce(&mut state);
    fixture::reopen(&mut state, A, 10);
    state
}

#[test]
fn l6_who_hears_the_missed_one_but_not_the_rest_is_not_better_placed() {
    let mut seat = Seat::new(four());
    seat.loses(A);
    seat.sees(W, heard(30, 9, &[A, B]));
    assert_eq!(seat.tick(0), [suspect(A)], "w does not hear c");
    let mut seat = Seat::new(four());
    seat.loses(A);
    seat.sees(W, heard(30, 9, &[A, B, C]));
    assert_eq!(seat.tick(0), [Proposal::TransferLeader(W)]);
}

fn candidates(proposals: &[Proposal]) -> Option<Vec<Candidate>> {
    proposals.iter().find_map(|p| match p {
        Proposal::Command(Command::NewEpoch { candidates, .. }) => Some(candidates.clone()),
        _ => None,
    })
}

fn candidate(node: NodeId, run: u64) -> Candidate {
    Candidate {
        node,
        incarnation: Incarnation(run),
    }
}

#[test]
fn l3_a_new_epoch_wants_a_majority_of_reports_for_that_suspicion() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    seat.loses(A);
    let suspicion = seat.suspects(A);
    seat.reported(A, suspicion, &[B]);
    assert_eq!(seat.tick(0), []);
    seat.reported(A, SuspicionId(suspicion.0 - 1), &[B, W]);
    assert_eq!(seat.tick(20), []);
    seat.reported(A, suspicion, &[B, NodeId(77)]);
    assert_eq!(seat.tick(40), [], "a stranger is no voter");
    seat.reported(A, suspicion, &[B, W]);
    assert_eq!(candidates(&seat.tick(60)), Some(vec![candidate(B, 20)]));
}

#[test]
fn l3_a_suspect_without_extents_needs_no_new_epoch() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    seat.loses(W);
    let suspicion = seat.suspects(W);
    seat.reported(W, suspicion, &[A, B]);
    assert_eq!(seat.tick(0), []);
}

#[test]
fn l3_candidates_are_heard_members_those_that_know_first_then_by_share() {
    let mut seat = Seat::new(four());
    seat.loses(A);
    let suspicion = seat.suspects(A);
    seat.reported(A, suspicion, &[B, W, C]);
    seat.sees(C, heard(40, suspicion.0, &[B, W]));
    assert_eq!(
        candidates(&seat.tick(0)),
        Some(vec![candidate(C, 40), candidate(B, 20)]),
        "c is in sync for two"
    );
    seat.sees(C, heard(40, suspicion.0 - 1, &[B, W]));
    assert_eq!(
        candidates(&seat.tick(300)),
        Some(vec![candidate(B, 20), candidate(C, 40)]),
        "c has to catch up"
    );
}

#[test]
fn l3_the_decision_waits_a_moment_for_a_member_that_is_neither_heard_nor_suspect() {
    let mut seat = Seat::new(with(vec![fixture::new_node(V, "v", Role::Witness)]));
    seat.loses(A);
    seat.sees(C, silent(450));
    let suspicion = seat.suspects(A);
    seat.reported(A, suspicion, &[B, W, C]);
    assert_eq!(seat.tick(0), [], "extent 2 has nobody else than c");
    assert_eq!(seat.tick(900), []);
    assert_eq!(candidates(&seat.tick(1000)), Some(vec![candidate(B, 20)]));
}

#[test]
fn l3_with_nobody_to_promote_the_extents_are_left_without_primary() {
    let mut state = fixture::led_by_a(1);
    fixture::must(&fixture::shrink(&state, A, B), &mut state);
    let mut seat = Seat::new(state);
    seat.loses(A);
    let suspicion = seat.suspects(A);
    seat.reported(A, suspicion, &[B, W]);
    assert_eq!(candidates(&seat.tick(0)), Some(vec![]));
}

fn clears(seat: &mut Seat, (node, run): (NodeId, u64), suspicion: SuspicionId, from: u64) -> u64 {
    let wanted = Proposal::Command(Command::ClearSuspect { node, suspicion });
    let mut peer = heard(run, suspicion.0, &[B, W]);
    for step in 0..10_000 {
        peer.both_for = ms(step * 10);
        seat.sees(node, peer.clone());
        if seat.tick(from + step * 10).contains(&wanted) {
            return step * 10;
        }
    }
    panic!("never cleared");
}

/// How long a has to be heard after each loss: the time that it held before, and the run in which it is back.
fn waits(losses: &[(u64, u64)]) -> Vec<u64> {
    let mut seat = Seat::new(fixture::led_by_a(1));
    let (mut now, mut waits) = (0, Vec::new());
    for (held, run) in losses {
        now += held;
        let suspicion = seat.suspects(A);
        seat.view.peers.get_mut(&A).unwrap().silent_both = ms(500);
        seat.tick(now);
        let wait = clears(&mut seat, (A, *run), suspicion, now);
        waits.push(wait);
        now += wait;
        fixture::must(&Command::ClearSuspect { node: A, suspicion }, &mut seat.state);
        seat.tick(now);
    }
    waits
}

#[test]
fn l4_the_wait_doubles_with_each_relapse_and_is_forgotten_in_time() {
    let losses = [
        (0, 10),
        (1000, 10),
        (1000, 10),
        (1000, 10),
        (100_000, 10),
        (1000, 10),
    ];
    assert_eq!(waits(&losses), [1000, 2000, 4000, 8000, 1000, 2000]);
}

#[test]
fn l4_a_process_that_was_started_anew_is_no_relapse() {
    let losses = [
        (0, 10),
        (1000, 11),
        (1000, 12),
        (1000, 12),
        (1000, 12),
        (1000, 13),
        (1000, 13),
    ];
    assert_eq!(waits(&losses), [1000, 1000, 1000, 2000, 4000, 1000, 2000]);
}

#[test]
fn l4_a_suspect_is_cleared_once_it_knows() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    let suspicion = seat.suspects(A);
    seat.sees(A, heard(10, suspicion.0 - 1, &[B, W]));
    assert_eq!(seat.tick(0), []);
    seat.sees(A, heard(10, suspicion.0, &[B, W]));
    assert_eq!(
        seat.tick(20),
        [Proposal::Command(Command::ClearSuspect { node: A, suspicion })]
    );
}

#[test]
fn l4_a_leader_that_is_suspect_itself_is_cleared_on_a_majoritys_hearing() {
    let mut seat = Seat::new(fixture::led_by_a(1));
    let suspicion = seat.suspects(B);
    let clear = Proposal::Command(Command::ClearSuspect { node: B, suspicion });
    assert_eq!(seat.tick(0), [clear]);
    let mut seat = Seat::new(fixture::led_by_a(1));
    seat.suspects(B);
    for peer in seat.view.peers.values_mut() {
        peer.both_for = ms(900);
    }
    assert_eq!(seat.tick(0), [], "not long enough");
}
