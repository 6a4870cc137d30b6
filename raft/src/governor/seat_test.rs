//! Where leadership rests in peace (L6), on views made by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_types::{Incarnation, Mono, NodeId};

use super::*;
use crate::lease::{KeeperView, PeerView, Told};
use crate::model::fixture::{self, A, B, W};
use crate::model::{AdminCommand, ClusterState};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Everybody hears everybody; `me` leads or not.
struct Peace {
    governor: Governor,
    state: ClusterState,
    me: NodeId,
    leads: bool,
    deaf: Option<(NodeId, NodeId)>,
    raft: RaftView,
    now: u64,
}

impl Peace {
    fn new(state: ClusterState, me: NodeId) -> Self {
        let matched = state.nodes.keys().map(|node| (*node, state.revision.0)).collect();
        Self {
            governor: Governor::new(),
            me,
            leads: true,
            deaf: None,
            raft: RaftView {
                committed: state.revision.0,
                matched,
                store: [(A, ms(2)), (B, ms(3)), (W, ms(9))].into(),
                ..RaftView::default()
            },
            state,
            now: 0,
        }
    }

    fn view(&self) -> KeeperView {
        let all = || self.state.voters.members.iter().copied();
        let peer = |node: NodeId| PeerView {
            incarnation: Some(Incarnation(node.0)),
            silent: ms(20),
            silent_both: ms(20),
            both_for: ms(60_000),
            told: Some(Told {
                age: ms(20),
                revision: self.state.revision,
                generation: 0.into(),
                term: 1,
                leader: Some(self.me),
                both: all()
                    .filter(|other| self.deaf != Some((node, *other)))
                    .map(|other| (other, ms(40)))
                    .collect(),
            }),
        };
        KeeperView {
            peers: all()
                .filter(|node| *node != self.me)
                .map(|node| (node, peer(node)))
                .collect(),
            reports: BTreeMap::new(),
            caught_up: true,
            revision: self.state.revision,
        }
    }

    fn tick(&mut self) -> Vec<Proposal> {
        self.now += 25;
        self.raft.am_leader = self.leads;
        let view = self.view();
        let input = GovernorInput {
            state: &self.state,
            me: self.me,
            incarnation: Incarnation(7),
            view: &view,
            raft: &self.raft,
        };
        self.governor.tick(Mono::ZERO + ms(self.now), &input)
    }

    /// Milliseconds until it hands leadership over, and to whom; `None` within `limit`.
    fn hands_over(&mut self, limit: u64) -> Option<(u64, NodeId)> {
        let start = self.now;
        while self.now - start < limit {
            if let [Proposal::TransferLeader(to)] = self.tick()[..] {
                return Some((self.now - start, to));
            }
        }
        None
    }
}

#[test]
fn l6_leadership_is_drawn_to_a_witness_that_stores_quickly() {
    let mut peace = Peace::new(fixture::led_by_a(2), A);
    let (after, to) = peace.hands_over(20_000).unwrap();
    assert_eq!(to, W);
    assert!((5000..6000).contains(&after), "{after}");
    let mut there = Peace::new(fixture::led_by_a(2), W);
    assert_eq!(there.hands_over(60_000), None, "it stays there");
}

#[test]
fn l6_with_a_slow_witness_it_rests_on_the_primary_of_most_extents() {
    let mut peace = Peace::new(fixture::led_by_a(2), B);
    peace.raft.store.insert(W, ms(80));
    assert_eq!(peace.hands_over(20_000).unwrap().1, A);
    let mut there = Peace::new(fixture::led_by_a(2), A);
    there.raft.store.insert(W, ms(80));
    assert_eq!(there.hands_over(60_000), None);
    let mut nobody = Peace::new(fixture::trio(2), B);
    nobody.raft.store.insert(W, ms(80));
    assert_eq!(nobody.hands_over(60_000), None, "of equals the leader itself");
}

#[test]
fn l6_figures_that_waver_do_not_move_leadership() {
    let mut there = Peace::new(fixture::led_by_a(2), W);
    for round in 0..4000 {
        there.raft.store.insert(W, ms(if round % 7 < 3 { 8 } else { 40 }));
        assert_eq!(there.tick(), []);
    }
    // Away from it, the stricter bound has to hold all the time.
    let mut away = Peace::new(fixture::led_by_a(2), A);
    for round in 0..4000 {
        away.raft
            .store
            .insert(W, ms(if round % 100 == 0 { 40 } else { 8 }));
        assert_eq!(away.tick(), []);
    }
}

#[test]
fn l6_only_to_a_voter_that_has_caught_up_and_only_in_peace() {
    let mut behind = Peace::new(fixture::led_by_a(1), A);
    behind.raft.matched.insert(W, behind.raft.committed - 1);
    assert_eq!(behind.hands_over(20_000), None);
    for deaf in [(W, B), (B, W), (B, A)] {
        let mut cut = Peace::new(fixture::led_by_a(1), A);
        cut.deaf = Some(deaf);
        assert_eq!(cut.hands_over(20_000), None, "{deaf:?}");
    }
    let mut state = fixture::led_by_a(1);
    fixture::suspect(&mut state, B);
    let mut trouble = Peace::new(state, A);
    trouble.raft.store.insert(W, ms(1));
    assert!(
        !trouble
            .tick()
            .iter()
            .any(|p| matches!(p, Proposal::TransferLeader(_)))
    );
}

#[test]
fn l6_leadership_that_comes_back_moves_more_and_more_rarely() {
    let mut peace = Peace::new(fixture::led_by_a(1), A);
    let mut waits = Vec::new();
    for _ in 0..4 {
        waits.push(peace.hands_over(200_000).unwrap().0 / 1000);
        peace.leads = false;
        peace.tick();
        peace.now += 2000;
        peace.leads = true;
    }
    assert_eq!(waits, [5, 10, 20, 40]);
    // It has held for long: a new story.
    peace.leads = false;
    peace.tick();
    peace.now += 1_000_000;
    peace.leads = true;
    assert_eq!(peace.hands_over(200_000).unwrap().0 / 1000, 5);
}

#[test]
fn l6_a_draining_node_is_no_seat() {
    let mut state = fixture::led_by_a(1);
    let drain = AdminCommand::SetDraining {
        node: W,
        draining: true,
    };
    fixture::must(&drain.into(), &mut state);
    let mut peace = Peace::new(state, B);
    assert_eq!(peace.hands_over(20_000).unwrap().1, A);
}
