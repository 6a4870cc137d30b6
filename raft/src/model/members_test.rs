use holdfast_types::Incarnation;

use super::super::fixture::{self, A, B, C, W, extent, go, must, set};
use super::super::{AdminCommand, Command, ExtentChange, NodeAddresses};
use super::*;

fn token(id: &str) -> Token {
    Token {
        id: id.into(),
        key: "a".repeat(64),
        expires: 0,
        used: None,
    }
}

fn join(token: &str, nonce: &str, name: &str, replaces: Option<NodeId>) -> Command {
    let port = 40 + u64::from(name.as_bytes()[0]);
    let join = Join {
        token: token.into(),
        nonce: nonce.into(),
        node: fixture::new_node(NodeId(port), name, Role::Data),
        replaces,
    };
    AdminCommand::Join(Box::new(join)).into()
}

fn why(reply: &Reply) -> String {
    reply.refusal().map(ToString::to_string).unwrap_or_default()
}

fn leave(node: NodeId, drop_replicas: bool) -> Command {
    AdminCommand::Leave { node, drop_replicas }.into()
}

#[test]
fn l8_a_token_lets_one_node_in_once_and_the_same_node_again() {
    let mut state = fixture::trio(1);
    must(&AdminCommand::AddToken(token("t")).into(), &mut state);
    assert_eq!(
        must(&join("t", "n1", "c", None), &mut state),
        Reply::Joined { node: C }
    );
    let after = (state.nodes.clone(), state.last_tpg);
    assert_eq!(
        must(&join("t", "n1", "c", None), &mut state),
        Reply::Joined { node: C },
        "its answer was lost"
    );
    assert!(why(&go(&join("t", "n2", "d", None), &mut state)).contains("used before"));
    assert!(why(&go(&join("x", "n2", "d", None), &mut state)).contains("not known"));
    assert_eq!(
        (state.nodes.clone(), state.last_tpg),
        after,
        "nothing else changed"
    );
    assert!(!state.voters.contains(C), "its vote is Raft's to give");
}

#[test]
fn l8_ids_are_never_given_twice() {
    let mut state = fixture::trio(0);
    for (number, name) in [(4, "c"), (5, "d"), (6, "e")] {
        must(&AdminCommand::AddToken(token(name)).into(), &mut state);
        must(&join(name, "n", name, None), &mut state);
        let node = NodeId(number);
        assert_eq!(state.node_named(name), Some(node));
        must(&leave(node, false), &mut state);
        must(&AdminCommand::ForgetNode { node }.into(), &mut state);
        must(&AdminCommand::ForgetNode { node }.into(), &mut state);
        assert!(state.node(node).is_none());
    }
}

#[test]
fn i12_a_node_that_does_not_fit_is_not_let_in() {
    let mut state = fixture::trio(1);
    must(&AdminCommand::AddToken(token("t")).into(), &mut state);
    let before = state.nodes.clone();
    for (name, word) in [("a", "exists"), ("C", "no name"), ("", "")] {
        let command = if name.is_empty() {
            let node = NewNode {
                addresses: fixture::addresses(B),
                ..fixture::new_node(C, "c", Role::Data)
            };
            let (token, nonce) = ("t".into(), "n".into());
            AdminCommand::Join(Box::new(Join {
                token,
                nonce,
                node,
                replaces: None,
            }))
            .into()
        } else {
            join("t", "n", name, None)
        };
        let why = why(&go(&command, &mut state));
        assert!(!why.is_empty() && why.contains(word), "{name}: {why}");
    }
    assert!(why(&go(&join("t", "n", "c", Some(W)), &mut state)).contains("another role"));
    assert_eq!(state.nodes, before);
    assert_eq!(state.tokens[0].used, None, "the token still lets one in");
}

/// Further addresses for replication: a member of before them reads and is written as it was, and no two nodes have one in common.
#[test]
fn i12_spare_addresses_are_a_nodes_own() {
    let old = r#"{"raft":"127.0.0.1:1","replication":"127.0.0.1:2","admin":null,"heartbeat":"127.0.0.1:3","portals":[]}"#;
    let mut addresses: NodeAddresses = serde_json::from_str(old).unwrap();
    assert_eq!(addresses.replication_links(), [([127, 0, 0, 1], 2).into()]);
    assert_eq!(serde_json::to_string(&addresses).unwrap(), old);
    addresses.spare_replication = vec![([127, 0, 0, 2], 2).into()];
    let text = serde_json::to_string(&addresses).unwrap();
    assert_eq!(serde_json::from_str::<NodeAddresses>(&text).unwrap(), addresses);

    let mut state = fixture::trio(1);
    must(&AdminCommand::AddToken(token("t")).into(), &mut state);
    let Command::Admin(command) = join("t", "n", "c", None) else {
        panic!("no command of an administrator")
    };
    let AdminCommand::Join(mut join) = command else {
        panic!("no join")
    };
    join.node.addresses.spare_replication = fixture::addresses(B).replication_links();
    let join: Command = AdminCommand::Join(join).into();
    assert!(why(&go(&join, &mut state)).contains("one of its addresses"));
}

#[test]
fn a_replacement_gets_the_replicas_and_the_preference() {
    let mut state = fixture::led_by_a(1);
    must(&AdminCommand::AddToken(token("t")).into(), &mut state);
    must(&join("t", "n", "c", Some(A)), &mut state);
    let now = extent(&state, 1);
    assert_eq!(
        (now.replicas.clone(), now.retiring.clone()),
        (set(&[A, B, C]), set(&[A]))
    );
    assert_eq!((now.in_sync.clone(), now.preferred), (set(&[A, B]), Some(C)));
    assert!(state.nodes[&A].leaving && !state.may_take(A));
    let again = go(&AdminCommand::ForgetNode { node: A }.into(), &mut state);
    assert!(again.refusal().is_some(), "it votes and serves");
}

#[test]
fn a_node_leaves_only_without_replicas_or_where_others_are_in_sync() {
    let mut state = fixture::led_by_a(1);
    assert!(why(&go(&leave(B, false), &mut state)).contains("'e1'"));
    must(&fixture::shrink(&state, A, B), &mut state);
    assert!(why(&go(&leave(A, true), &mut state)).contains("only replica"));
    let reply = must(&leave(B, true), &mut state);
    assert!(matches!(reply, Reply::Done { warnings } if warnings[0].contains("two voters")));
    assert!(extent(&state, 1).may_retire());
    must(&leave(W, false), &mut state);
    assert!(why(&go(&leave(A, true), &mut state)).contains("last one"));
}

/// The other replica is in sync as the set says, and damaged as its node has told since.
#[test]
fn i5_a_node_does_not_leave_with_the_only_replica_that_can_serve() {
    let mut state = fixture::led_by_a(1);
    must(&fixture::announce(A, 10, 9, &[1]), &mut state);
    assert!(why(&go(&leave(B, true), &mut state)).contains("only replica"));
}

#[test]
fn draining_says_what_has_to_stay() {
    let mut state = fixture::led_by_a(1);
    let drain = Command::from(AdminCommand::SetDraining {
        node: A,
        draining: true,
    });
    assert_eq!(must(&drain, &mut state), Reply::DONE);
    must(&fixture::shrink(&state, A, B), &mut state);
    let reply = must(&drain, &mut state);
    assert!(matches!(reply, Reply::Done { warnings } if warnings[0].contains("e1")));
}

#[test]
fn l8_voters_follow_rafts_membership_and_majorities_are_of_both_sets() {
    let mut state = fixture::trio(0);
    state.set_voters(Revision(50), set(&[A, C, W]), set(&[A, B, W]));
    let voters = &state.voters;
    assert!(voters.is_joint() && voters.contains(B) && voters.id == 50);
    assert!(!voters.is_majority(|node| node == C || node == W));
    assert!(!voters.is_majority(|node| node == B || node == A));
    assert!(voters.is_majority(|node| node == A || node == W));
    let nobody = VoterSet::default();
    assert!(!nobody.is_majority(|_| true));
    let mut young = ClusterState::default();
    young.set_voters(Revision(1), set(&[A]), set(&[]));
    assert_eq!(young.voters, VoterSet::default(), "before init there is nothing");
    let _ = Incarnation(0);
}

/// Heartbeats go between voters: a primary without a vote holds no lease, and when it dies nobody suspects it.
#[test]
fn l8_nothing_is_handed_over_to_a_node_without_a_vote() {
    let mut state = fixture::led_by_a(1);
    let no_vote = [Refusal::NoVote { node: B }];
    state.set_voters(Revision(90), set(&[A, W]), set(&[A, B, W]));
    state.advance(Revision(90));
    let to_b = fixture::switchover(&state, (A, 10), (B, 20));
    assert_eq!(
        fixture::refusals(&go(&to_b, &mut state)),
        no_vote,
        "it is about to lose it"
    );
    state.set_voters(Revision(95), set(&[A, W]), set(&[]));
    state.advance(Revision(95));
    assert_eq!(fixture::refusals(&go(&to_b, &mut state)), no_vote);
    assert_eq!(extent(&state, 1).primary, Some(A));
    state.set_voters(Revision(99), set(&[A, B, W]), set(&[]));
    state.advance(Revision(99));
    must(&to_b, &mut state);
}

/// a, b and c in sync, a primary and preferred, b on its way out of the replicas.
fn b_is_to_go() -> ClusterState {
    let mut state = ClusterState::default();
    let data = [(A, "a"), (B, "b"), (C, "c")].map(|(id, name)| fixture::new_node(id, name, Role::Data));
    let mut nodes = data.to_vec();
    nodes.push(fixture::new_node(W, "w", Role::Witness));
    must(&fixture::init(nodes), &mut state);
    must(&fixture::new_extent(1, &[A, B, C]), &mut state);
    fixture::all_announce(&mut state);
    fixture::reopen(&mut state, A, 10);
    let wanted = AdminCommand::SetReplicas {
        extent: fixture::extent_id(1),
        replicas: set(&[A, C]),
    };
    must(&wanted.into(), &mut state);
    state
}

#[test]
fn l8_a_replica_that_is_to_go_is_promoted_only_where_none_that_stays_can_be() {
    let candidates = [(B, 20), (C, 40)];
    let mut state = b_is_to_go();
    let suspicion = fixture::suspect(&mut state, A);
    must(&fixture::new_epoch(A, suspicion, &candidates), &mut state);
    assert_eq!(extent(&state, 1).primary, Some(C));
    let mut state = b_is_to_go();
    must(&fixture::announce(C, 40, 1, &[1]), &mut state);
    let suspicion = fixture::suspect(&mut state, A);
    must(&fixture::new_epoch(A, suspicion, &candidates), &mut state);
    assert_eq!(
        extent(&state, 1).primary,
        Some(B),
        "it serves until another one can"
    );
}

#[test]
fn l8_a_replica_that_is_to_go_opens_an_extent_last() {
    let mut state = b_is_to_go();
    fixture::suspect(&mut state, C);
    let suspicion = fixture::suspect(&mut state, A);
    must(&fixture::new_epoch(A, suspicion, &[]), &mut state);
    assert_eq!(extent(&state, 1).primary, None);
    let mut all = state.clone();
    for node in [A, C] {
        let suspicion = all.suspicion(node).unwrap();
        must(&Command::ClearSuspect { node, suspicion }, &mut all);
    }
    let preferred = AdminCommand::SetExtent {
        extent: fixture::extent_id(1),
        change: ExtentChange::Preferred(None),
    };
    must(&preferred.into(), &mut all);
    must(&fixture::announce(A, 10, 1, &[1]), &mut all);
    assert_eq!(all.reopening(B, fixture::run(20)), None, "c is there");
    assert!(all.reopening(C, fixture::run(40)).is_some());
    assert!(state.reopening(B, fixture::run(20)).is_some(), "nobody else is");
}
