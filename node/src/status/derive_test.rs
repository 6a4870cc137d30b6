use holdfast_raft::model::{
    ClusterId, Command, Init, NewExtent, NewNode, NodeAddresses, Reply, Role, SecondaryAccess,
};
use holdfast_types::{BlockSize, Incarnation, Revision};

use super::*;

/// A cluster of one data node and a witness.
fn cluster() -> ClusterState {
    cluster_of(&[(1, "a", Role::Data), (2, "w", Role::Witness)])
}

fn cluster_of(nodes: &[(u16, &str, Role)]) -> ClusterState {
    let node = |id: u16, name: &str, role| NewNode {
        id: NodeId(id.into()),
        name: name.into(),
        role,
        addresses: NodeAddresses {
            raft: ([127, 0, 0, 1], 1000 + id).into(),
            replication: (role == Role::Data).then(|| ([127, 0, 0, 1], 2000 + id).into()),
            spare_replication: Vec::new(),
            admin: None,
            heartbeat: ([127, 0, 0, 1], 4000 + id).into(),
            portals: Vec::new(),
        },
    };
    let init = Command::Init(Init {
        name: "one".into(),
        id: ClusterId(1),
        nodes: nodes
            .iter()
            .map(|(id, name, role)| node(*id, name, *role))
            .collect(),
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

/// At night somebody wants to know what the extent waits for, and what to type.
#[test]
fn w5_what_an_extent_with_write_back_waits_for_is_said() {
    let mut state = cluster_of(&[
        (1, "a", Role::Data),
        (2, "w", Role::Witness),
        (3, "b", Role::Data),
    ]);
    let mut go = |command: &Command| {
        let reply = state.apply(Revision(state.revision.value() + 1), command);
        assert!(!matches!(reply, Reply::Refused { .. }), "{reply:?}");
        state.clone()
    };
    let announce = |node, run| Command::Announce {
        node: NodeId(node),
        incarnation: Incarnation(run),
        number: 1,
        unfit: BTreeSet::new(),
        after: None,
    };
    go(&announce(1, 10));
    go(&announce(3, 30));
    let id = ExtentId::from_u128(7);
    go(&Command::CreateExtent(NewExtent {
        id,
        name: "vol".into(),
        size_bytes: 1 << 30,
        block_size: BlockSize::B512,
        thin: true,
        on_devices: false,
        confirmed_reads: false,
        write_cache: true,
        replicas: [NodeId(1), NodeId(3)].into(),
        preferred: Some(NodeId(1)),
        secondary: SecondaryAccess::NonOptimized,
    }));
    // Power is gone everywhere; b is not back.
    let state = go(&announce(1, 11));
    let status = derive(&state, seen());
    let alarm =
        "extent vol waits for b: acknowledged writes may be in memory or on disk there and nowhere else";
    assert!(
        status.alarms.len() == 1 && status.alarms[0].starts_with(alarm),
        "{:?}",
        status.alarms
    );
    assert!(status.alarms[0].contains("'holdfast extent write-cache vol off --lost'"));
    // It is: it will serve in a moment.
    let heard = [NodeId(1), NodeId(2), NodeId(3)].into();
    let status = derive(&state, Seen { heard, ..seen() });
    assert_eq!(status.alarms, Vec::<String>::new());
}
