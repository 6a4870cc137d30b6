use std::collections::BTreeMap;

use holdfast_types::{Incarnation, NodeId};

use super::*;
use crate::governor::RaftView;
use crate::lease::{KeeperView, PeerView};
use crate::model::fixture::{self, A, B, C, W, set};
use crate::model::{AdminCommand, ClusterState, Command, Join, Role, Token};

/// w leads; Raft's membership is as `raft` says.
struct Leads {
    state: ClusterState,
    raft: RaftView,
    silent: BTreeSet<NodeId>,
    me: NodeId,
}

impl Leads {
    fn new(state: ClusterState) -> Self {
        let raft = RaftView {
            am_leader: true,
            committed: 100,
            matched: BTreeMap::from([(A, 100), (B, 100), (C, 100)]),
            voters: vec![set(&[A, B, W])],
            ..RaftView::default()
        };
        Self {
            state,
            raft,
            silent: BTreeSet::new(),
            me: W,
        }
    }

    fn step(&self) -> Option<MemberStep> {
        let peer = |node: &NodeId| PeerView {
            both_for: std::time::Duration::from_secs(u64::from(!self.silent.contains(node))),
            ..PeerView::default()
        };
        let peers = self
            .state
            .voters
            .all()
            .into_iter()
            .filter(|node| *node != self.me);
        let view = KeeperView {
            peers: peers.map(|node| (node, peer(&node))).collect(),
            ..KeeperView::default()
        };
        member_step(&GovernorInput {
            state: &self.state,
            me: self.me,
            incarnation: Incarnation(1),
            view: &view,
            raft: &self.raft,
        })
    }

    fn must(&mut self, command: impl Into<Command>) {
        fixture::must(&command.into(), &mut self.state);
    }

    /// Raft takes the step, and everybody applies it.
    fn take(&mut self, step: &MemberStep) {
        match step {
            MemberStep::AddLearner(node) => drop(self.raft.learners.insert(*node)),
            MemberStep::RemoveLearner(node) => drop(self.raft.learners.remove(node)),
            MemberStep::SetVoters(voters) => {
                self.raft.learners.retain(|node| !voters.contains(node));
                self.raft.voters = vec![voters.clone()];
                let next = (self.state.revision.0 + 1).into();
                self.state.set_voters(next, voters.clone(), BTreeSet::new());
                self.state.advance(next);
            }
            MemberStep::HandOver(_) => {}
        }
    }
}

fn join(name: &str, role: Role, replaces: Option<NodeId>, state: &mut ClusterState) {
    let token = Token {
        id: name.into(),
        key: "0".repeat(64),
        expires: 0,
        used: None,
    };
    fixture::must(&AdminCommand::AddToken(token).into(), state);
    let node = fixture::new_node(NodeId(50 + state.revision.0), name, role);
    let (token, nonce) = (name.into(), "n".into());
    fixture::must(
        &AdminCommand::Join(Box::new(Join {
            token,
            nonce,
            node,
            replaces,
        }))
        .into(),
        state,
    );
}

#[test]
fn l8_a_new_node_gets_the_log_first_and_its_vote_when_it_has_caught_up() {
    let mut leads = Leads::new(fixture::trio(1));
    assert_eq!(leads.step(), None);
    join("c", Role::Data, None, &mut leads.state);
    assert_eq!(leads.step(), Some(MemberStep::AddLearner(C)));
    leads.take(&MemberStep::AddLearner(C));
    leads.raft.matched.insert(C, 20);
    assert_eq!(leads.step(), None, "it misses too much");
    leads.raft.matched.insert(C, 60);
    let all = MemberStep::SetVoters(set(&[A, B, C, W]));
    assert_eq!(leads.step(), Some(all.clone()));
    leads.take(&all);
    assert_eq!(leads.step(), None);
}

#[test]
fn l8_no_voter_changes_while_a_node_is_suspect_or_not_heard() {
    let mut leads = Leads::new(fixture::trio(1));
    join("c", Role::Data, None, &mut leads.state);
    leads.take(&MemberStep::AddLearner(C));
    leads.silent.insert(B);
    assert_eq!(leads.step(), None);
    leads.silent.clear();
    fixture::suspect(&mut leads.state, A);
    assert_eq!(leads.step(), None);
}

#[test]
fn l8_what_was_begun_is_finished_whatever_else_is_wanted() {
    let mut leads = Leads::new(fixture::trio(1));
    join("c", Role::Data, None, &mut leads.state);
    leads.raft.voters = vec![set(&[A, B, W]), set(&[A, B, C, W])];
    fixture::suspect(&mut leads.state, A);
    assert_eq!(leads.step(), Some(MemberStep::SetVoters(set(&[A, B, C, W]))));
}

/// The witness moves: one joint step, with the old one dead or alive.
#[test]
fn l8_a_replaced_voter_goes_in_the_step_in_which_the_new_one_comes() {
    for dead in [false, true] {
        let mut leads = Leads::new(fixture::trio(1));
        leads.me = A;
        leads.raft.matched.insert(W, 100);
        join("w2", Role::Witness, Some(W), &mut leads.state);
        if dead {
            leads.silent.insert(W);
            fixture::suspect(&mut leads.state, W);
        }
        leads.take(&leads.step().unwrap());
        let step = leads.step().unwrap();
        assert_eq!(step, MemberStep::SetVoters(set(&[A, B, C])));
        leads.take(&step);
        assert_eq!(leads.step(), None);
        leads.must(AdminCommand::ForgetNode { node: W });
        assert_eq!(leads.step(), None);
    }
}

#[test]
fn l8_a_replaced_voter_stays_until_the_new_one_has_caught_up() {
    let mut leads = Leads::new(fixture::trio(1));
    leads.me = A;
    join("w2", Role::Witness, Some(W), &mut leads.state);
    leads.take(&MemberStep::AddLearner(C));
    leads.raft.matched.insert(C, 20);
    assert_eq!(leads.step(), None, "two voters would be left meanwhile");
    leads.raft.matched.insert(C, 60);
    assert_eq!(leads.step(), Some(MemberStep::SetVoters(set(&[A, B, C]))));
}

#[test]
fn l8_a_leader_that_goes_hands_leadership_over_first() {
    let mut leads = Leads::new(fixture::trio(1));
    join("w2", Role::Witness, Some(W), &mut leads.state);
    leads.take(&MemberStep::AddLearner(C));
    assert_eq!(leads.step(), Some(MemberStep::HandOver(A)));
}

/// A data node that serves keeps its vote, and with it its lease, until its replicas are elsewhere.
#[test]
fn l8_a_data_node_is_no_voter_less_before_it_serves_nothing() {
    let mut leads = Leads::new(fixture::led_by_a(1));
    join("c", Role::Data, Some(A), &mut leads.state);
    leads.take(&MemberStep::AddLearner(C));
    let all = MemberStep::SetVoters(set(&[A, B, C, W]));
    assert_eq!(leads.step(), Some(all.clone()));
    leads.take(&all);
    assert_eq!(leads.step(), None);
    leads.must(fixture::grow(&leads.state, A, C));
    leads.must(fixture::switchover(&leads.state, (A, 10), (B, 20)));
    let stamp = fixture::stamp(&leads.state, 1);
    let (items, proposer) = (vec![stamp], B);
    leads.must(AdminCommand::Retire { items, proposer });
    assert_eq!(fixture::extent(&leads.state, 1).in_sync, set(&[B, C]));
    assert_eq!(leads.step(), Some(MemberStep::SetVoters(set(&[B, C, W]))));
}

#[test]
fn l8_what_is_gone_from_the_cluster_is_sent_nothing() {
    let mut leads = Leads::new(fixture::trio(0));
    leads.raft.learners.insert(NodeId(9));
    assert_eq!(leads.step(), Some(MemberStep::RemoveLearner(NodeId(9))));
}

/// What was on its way when the step began could put it into a set again, and hand the extent to it: nobody misses who has no vote.
#[test]
fn l8_a_leaving_node_votes_for_as_long_as_it_may_be_in_sync_again() {
    let mut leads = Leads::new(fixture::led_by_a(1));
    leads.must(fixture::shrink(&leads.state, A, B));
    join("c", Role::Data, Some(B), &mut leads.state);
    leads.take(&MemberStep::AddLearner(C));
    let all = MemberStep::SetVoters(set(&[A, B, C, W]));
    assert_eq!(leads.step(), Some(all.clone()));
    leads.take(&all);
    assert_eq!(leads.step(), None, "b is a replica still");
    leads.must(fixture::grow(&leads.state, A, B));
    assert_eq!(leads.step(), None, "it is in sync again");
    leads.must(fixture::shrink(&leads.state, A, B));
    let stale = fixture::grow(&leads.state, A, B);
    let (items, proposer) = (vec![fixture::stamp(&leads.state, 1)], A);
    leads.must(AdminCommand::Retire { items, proposer });
    assert_eq!(leads.step(), Some(MemberStep::SetVoters(set(&[A, C, W]))));
    // From here on nothing brings it back.
    let mut unstamped = leads.state.clone();
    let now = fixture::grow(&unstamped, A, B);
    for late in [stale, now] {
        assert!(!fixture::refusals(&fixture::go(&late, &mut unstamped)).is_empty());
    }
    let new = fixture::go(&fixture::new_extent(2, &[A, B]), &mut unstamped);
    assert!(new.refusal().is_some(), "nor does it get a new extent");
}
