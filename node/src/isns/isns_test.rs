//! What is said of a cluster, and by whom; and the driver against a server that counts.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use holdfast_raft::model::{
    AdminCommand, ClusterId, ClusterState, Command, Init, NewNode, NodeAddresses, Reply, Role,
};
use holdfast_types::{Incarnation, LeaseGeneration, NodeId, Revision};

use super::{entity, has_successor, objects, speaker};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn apply(state: &mut ClusterState, command: &Command) -> Reply {
    let next = Revision(state.revision.0 + 1);
    state.apply(next, command)
}

fn node(id: u64, role: Role) -> NewNode {
    let at = |base: u16| SocketAddr::from(([127, 0, 0, 1], base + u16::try_from(id).unwrap()));
    let data = role == Role::Data;
    NewNode {
        id: NodeId(id),
        name: format!("n{id}"),
        role,
        addresses: NodeAddresses {
            raft: at(1000),
            replication: data.then(|| at(2000)),
            spare_replication: Vec::new(),
            admin: None,
            heartbeat: at(4000),
            portals: if data { vec![at(3260)] } else { Vec::new() },
        },
    }
}

fn announce(node: NodeId) -> Command {
    Command::Announce {
        node,
        incarnation: Incarnation(7),
        number: 1,
        unfit: BTreeSet::new(),
        after: None,
    }
}

/// Witness 3 and data nodes 1 and 2, none of which has told of itself; one target.
fn cluster() -> ClusterState {
    let mut state = ClusterState::default();
    let init = Command::Init(Init {
        name: "told".to_owned(),
        id: ClusterId(0xc),
        nodes: vec![node(1, Role::Data), node(2, Role::Data), node(3, Role::Witness)],
    });
    apply(&mut state, &init);
    let name = "iqn.2026-11.example:disk".parse().unwrap();
    apply(&mut state, &Command::CreateTarget { name });
    state
}

fn portals(state: &ClusterState) -> Vec<u16> {
    objects(state).portals.keys().map(SocketAddr::port).collect()
}

#[test]
fn portals_of_nodes_that_are_up_are_told_by_the_first_of_them() {
    let mut state = cluster();
    assert_eq!((speaker(&state), portals(&state)), (None, vec![]));
    for node in [B, A, NodeId(3)] {
        apply(&mut state, &announce(node));
        if node == B {
            assert_eq!((speaker(&state), portals(&state)), (Some(B), vec![3262]));
            assert!(!has_successor(&state, B));
        }
    }
    assert_eq!((speaker(&state), portals(&state)), (Some(A), vec![3261, 3262]));
    assert!(has_successor(&state, A) && has_successor(&state, B));
    assert_eq!(objects(&state).targets.len(), 1);
    let suspect = Command::Suspect {
        node: A,
        generation: LeaseGeneration(0),
    };
    apply(&mut state, &suspect);
    assert_eq!((speaker(&state), portals(&state)), (Some(B), vec![3262]));
    assert!(!has_successor(&state, B));
}

/// A takeover makes another cluster id of it; initiators see the same targets, and so do servers.
#[test]
fn the_entity_keeps_its_name() {
    assert_eq!(entity(&ClusterState::default()), None);
    let name = "holdfast-0000000000000000000000000000000c";
    assert_eq!(entity(&cluster()).as_deref(), Some(name));
    assert!(name.len() <= 255);
}

#[test]
fn servers_are_part_of_the_clusters_state() {
    let mut state = cluster();
    let set = |server: &str, told| {
        let server = server.parse().unwrap();
        Command::from(AdminCommand::SetIsnsServer { server, told })
    };
    for _ in 0..2 {
        assert_eq!(apply(&mut state, &set("192.0.2.5:3205", true)), Reply::DONE);
    }
    assert_eq!(state.isns.len(), 1);
    for bad in ["0.0.0.0:3205", "[::]:3205", "192.0.2.5:0"] {
        assert!(
            matches!(apply(&mut state, &set(bad, true)), Reply::Refused { .. }),
            "{bad}"
        );
    }
    for server in 1..8 {
        let server = format!("192.0.2.5:{server}");
        assert_eq!(apply(&mut state, &set(&server, true)), Reply::DONE);
    }
    let one_more = apply(&mut state, &set("192.0.2.5:9", true));
    assert!(matches!(one_more, Reply::Refused { .. }));
    assert_eq!(apply(&mut state, &set("192.0.2.5:3205", true)), Reply::DONE);
    assert_eq!(apply(&mut state, &set("192.0.2.5:3205", false)), Reply::DONE);
    assert_eq!(apply(&mut state, &set("192.0.2.5:3205", false)), Reply::DONE);
    assert_eq!(state.isns.len(), 7);
}
