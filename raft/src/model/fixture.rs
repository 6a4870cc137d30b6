//! Small clusters for tests: data nodes 1 and 2 (and 4), witness 3.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use holdfast_types::{BlockSize, ExtentId, Incarnation, IscsiName, Lun, NodeId, Revision, SuspicionId};

use super::*;

pub(crate) const A: NodeId = NodeId(1);
pub(crate) const B: NodeId = NodeId(2);
pub(crate) const W: NodeId = NodeId(3);
pub(crate) const C: NodeId = NodeId(4);

pub(crate) fn run(number: u64) -> Incarnation {
    Incarnation(number)
}

pub(crate) fn address(port: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()))
}

pub(crate) fn addresses(node: NodeId) -> NodeAddresses {
    NodeAddresses {
        raft: address(1000 + node.0),
        replication: Some(address(2000 + node.0)),
        spare_replication: Vec::new(),
        admin: Some(address(3000 + node.0)),
        heartbeat: address(4000 + node.0),
        portals: vec![address(3260 + node.0)],
    }
}

pub(crate) fn new_node(id: NodeId, name: &str, role: Role) -> NewNode {
    NewNode {
        id,
        name: name.into(),
        role,
        addresses: addresses(id),
    }
}

pub(crate) fn init(nodes: Vec<NewNode>) -> Command {
    Command::Init(Init {
        name: "test".into(),
        id: ClusterId(0xfeed),
        nodes,
    })
}

pub(crate) fn extent_id(number: u128) -> ExtentId {
    ExtentId::from_u128(number)
}

pub(crate) fn new_extent(number: u128, replicas: &[NodeId]) -> Command {
    Command::CreateExtent(NewExtent {
        id: extent_id(number),
        name: format!("e{number}"),
        size_bytes: 1 << 30,
        block_size: BlockSize::B512,
        thin: true,
        on_devices: false,
        confirmed_reads: false,
        write_cache: false,
        replicas: replicas.iter().copied().collect(),
        preferred: replicas.first().copied(),
        secondary: SecondaryAccess::NonOptimized,
    })
}

/// Applies at the next index.
pub(crate) fn go(command: &Command, state: &mut ClusterState) -> Reply {
    let next = Revision(state.revision.0 + 1);
    state.apply(next, command)
}

/// Applies at the next index and wants no refusal, of the whole or of an item.
pub(crate) fn must(command: &Command, state: &mut ClusterState) -> Reply {
    let reply = go(command, state);
    assert!(refusals(&reply).is_empty(), "{command:?} -> {reply:?}");
    reply
}

/// Every refusal in a reply.
pub(crate) fn refusals(reply: &Reply) -> Vec<Refusal> {
    match reply {
        Reply::Refused { refusal } => vec![refusal.clone()],
        Reply::Items { items } => items
            .iter()
            .filter_map(|item| match &item.outcome {
                ItemOutcome::Refused { refusal } => Some(refusal.clone()),
                ItemOutcome::Done { .. } => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// a, b, w and `extents` extents on a and b, without primary.
pub(crate) fn trio(extents: u128) -> ClusterState {
    let mut state = ClusterState::default();
    let nodes = vec![
        new_node(A, "a", Role::Data),
        new_node(B, "b", Role::Data),
        new_node(W, "w", Role::Witness),
    ];
    must(&init(nodes), &mut state);
    for number in 1..=extents {
        must(&new_extent(number, &[A, B]), &mut state);
    }
    all_announce(&mut state);
    state
}

/// Node n announces run 10 n, and that all its replicas can serve.
pub(crate) fn all_announce(state: &mut ClusterState) {
    let nodes: Vec<NodeId> = state.nodes.keys().copied().collect();
    for node in nodes {
        must(&announce(node, node.0 * 10, 0, &[]), state);
    }
}

pub(crate) fn announce(node: NodeId, incarnation: u64, number: u64, unfit: &[u128]) -> Command {
    Command::Announce {
        node,
        incarnation: run(incarnation),
        number,
        unfit: unfit.iter().map(|number| extent_id(*number)).collect(),
        after: None,
    }
}

/// As [`trio`], with a (run 10) primary of everything.
pub(crate) fn led_by_a(extents: u128) -> ClusterState {
    let mut state = trio(extents);
    reopen(&mut state, A, 10);
    state
}

/// Opens whatever `node` should open.
pub(crate) fn reopen(state: &mut ClusterState, node: NodeId, incarnation: u64) {
    let command = state
        .reopening(node, run(incarnation))
        .expect("there is something to open");
    must(&command, state);
}

pub(crate) fn extent(state: &ClusterState, number: u128) -> &Extent {
    &state.extents[&extent_id(number)]
}

pub(crate) fn stamp(state: &ClusterState, number: u128) -> ExtentStamp {
    extent(state, number).stamp(extent_id(number))
}

pub(crate) fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
    nodes.iter().copied().collect()
}

pub(crate) fn suspect(state: &mut ClusterState, node: NodeId) -> SuspicionId {
    let generation = state.nodes[&node].lease_generation;
    match go(&Command::Suspect { node, generation }, state) {
        Reply::Suspected { suspicion } => suspicion,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn new_epoch(suspect: NodeId, suspicion: SuspicionId, candidates: &[(NodeId, u64)]) -> Command {
    Command::NewEpoch {
        suspect,
        suspicion,
        candidates: candidates
            .iter()
            .map(|(node, incarnation)| Candidate {
                node: *node,
                incarnation: run(*incarnation),
            })
            .collect(),
        voters: 1,
    }
}

pub(crate) fn shrink(state: &ClusterState, proposer: NodeId, remove: NodeId) -> Command {
    Command::Shrink {
        items: vec![stamp(state, 1)],
        proposer,
        remove,
    }
}

pub(crate) fn grow(state: &ClusterState, proposer: NodeId, add: NodeId) -> Command {
    Command::Grow {
        items: vec![stamp(state, 1)],
        proposer,
        add,
        run: None,
    }
}

pub(crate) fn switchover(state: &ClusterState, from: (NodeId, u64), to: (NodeId, u64)) -> Command {
    Command::Switchover {
        items: vec![stamp(state, 1)],
        from: from.0,
        from_incarnation: run(from.1),
        to: to.0,
        to_incarnation: run(to.1),
    }
}

pub(crate) fn iqn() -> IscsiName {
    "iqn.2026-11.example:disk".parse().unwrap()
}

pub(crate) fn lun(number: u16) -> Lun {
    Lun::try_from(number).unwrap()
}

pub(crate) fn map(number: u16, extent: u128) -> Command {
    Command::MapLun {
        target: iqn(),
        lun: lun(number),
        extent: extent_id(extent),
    }
}
