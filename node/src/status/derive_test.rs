use holdfast_raft::model::{ClusterId, Command, Init, NewNode, NodeAddresses, Reply, Role};
use holdfast_types::Revision;

use super::*;

/// A cluster of one data node and a witness.
fn cluster() -> ClusterState {
    let node = |id: u16, name: &str, role| NewNode {
        id: NodeId(id.into()),
        name: name.into(),
        role,
        addresses: NodeAddresses {
            raft: ([127, 0, 0, 1], 1000 + id).into(),
            replication: (role == Role::Data).then(|| ([127, 0, 0, 1], 2000 + id).into()),
            admin: None,
            heartbeat: ([127, 0, 0, 1], 4000 + id).into(),
            portals: Vec::new(),
        },
    };
    let init = Command::Init(Init {
        name: "one".into(),
        id: ClusterId(1),
        nodes: vec![node(1, "a", Role::Data), node(2, "w", Role::Witness)],
    });
    let mut state = ClusterState::default();
    assert!(!matches!(state.apply(Revision(1), &init), Reply::Refused { .. }));
    state
}

fn seen() -> Seen {
    Seen {
        me: NodeId(1),
        my_name: "a".into(),
        leader: Some(NodeId(2)),
        majority: true,
        caught_up: true,
        heard: [NodeId(1), NodeId(2)].into(),
        ..Seen::default()
    }
}

/// Whoever restarts nodes one by one and waits for `status` in between would else be told by a node that has just started that everything
/// is in sync, as it was before it was stopped, and stop the next one.
#[test]
fn l5_a_node_that_has_not_caught_up_claims_no_quorum() {
    let state = cluster();
    assert!(derive(&state, seen()).quorum);
    let starting = derive(
        &state,
        Seen {
            caught_up: false,
            ..seen()
        },
    );
    assert!(!starting.quorum && starting.leader.is_none());
    assert_eq!(starting.health, Health::Down);
    assert!(
        starting
            .reasons
            .iter()
            .any(|why| why.contains("has not caught up")),
        "{:?}",
        starting.reasons
    );
}

#[test]
fn without_a_majority_or_a_leader_the_state_is_the_last_known() {
    let state = cluster();
    let alone = Seen {
        majority: false,
        ..seen()
    };
    let unled = Seen {
        leader: None,
        ..seen()
    };
    assert!(!derive(&state, alone).quorum);
    assert!(!derive(&state, unled).quorum);
}
