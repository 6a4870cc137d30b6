//! The status document, out of committed state and what this node sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use holdfast_iscsi::isns::Condition;
use holdfast_raft::model::{ClusterState, Extent, Node, Role as ModelRole};
use holdfast_replication::core::api::{RoleName, Status as CoreStatus};
use holdfast_replication::driver::Scrubs;
use holdfast_replication::net::PeerReport;
use holdfast_types::{ExtentId, Naa, NodeId};

use super::document::{
    ExtentStatus, GroupStatus, Health, IsnsStatus, LunStatus, NodeState, NodeStatus, PortalStatus,
    ReplicaState, ReplicaStatus, ResyncStatus, ScrubResult, ScrubStatus, SessionStatus, StatusDocument,
    TargetStatus,
};
use super::reservations::reservation;
use crate::config::Role;

/// What a node sees, beside what is committed.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The node that looks.
    pub(crate) me: NodeId,
    /// Its name, for the time before the cluster is made.
    pub(crate) my_name: String,
    /// Raft's leader, as far as it knows.
    pub(crate) leader: Option<NodeId>,
    /// A majority of voters is heard.
    pub(crate) majority: bool,
    /// It has applied what was committed before it started (L5). Until then the committed state is that of an earlier run, and says
    /// nothing of the present: not that a replica is in sync either, this node's own least of all.
    pub(crate) caught_up: bool,
    /// It holds its quorum lease.
    pub(crate) lease: bool,
    /// Nodes that it hears, itself included.
    pub(crate) heard: BTreeSet<NodeId>,
    /// Its links to other data nodes.
    pub(crate) links: Vec<PeerReport>,
    /// Its replication cores.
    pub(crate) cores: BTreeMap<ExtentId, CoreStatus>,
    /// Scrubs of extents whose primary it is.
    pub(crate) scrubs: BTreeMap<ExtentId, Scrubs>,
    /// Bytes a second of running resyncs, by extent and node.
    pub(crate) resync_rates: BTreeMap<(ExtentId, NodeId), u64>,
    /// Initiators' sessions here.
    pub(crate) sessions: Vec<SessionStatus>,
    /// iSNS servers that it speaks to.
    pub(crate) isns: BTreeMap<SocketAddr, Condition>,
    /// What needs somebody's attention.
    pub(crate) alarms: Vec<String>,
}

impl Seen {
    /// Whether `state` is the present one, as far as can be known without asking: a majority is heard and led, and this node has caught up
    /// with it since it started.
    fn quorum(&self, state: &ClusterState) -> bool {
        state.is_initialized() && self.majority && self.leader.is_some() && self.caught_up
    }

    /// Why the present state is not known.
    const fn ignorance(&self) -> &'static str {
        if !self.majority {
            "hears no majority of voters"
        } else if !self.caught_up {
            "has just started and has not caught up with the cluster"
        } else {
            "knows of no leader: an election is under way"
        }
    }
}

/// The status document.
pub(crate) fn derive(state: &ClusterState, seen: Seen) -> StatusDocument {
    let name = |node: NodeId| {
        state
            .node(node)
            .map_or_else(|| format!("node {node}"), |member| member.name.clone())
    };
    let quorum = seen.quorum(state);
    let nodes: Vec<NodeStatus> = state
        .nodes
        .keys()
        .map(|id| node_status(state, &seen, *id))
        .collect();
    let extents: Vec<ExtentStatus> = state
        .extents
        .iter()
        .map(|(id, extent)| extent_status(state, &seen, *id, extent, &name))
        .collect();
    let targets = state
        .targets
        .iter()
        .map(|(iqn, target)| TargetStatus {
            iqn: iqn.clone(),
            luns: target
                .luns
                .iter()
                .map(|(lun, extent)| lun_status(state, lun.value(), *extent, &name))
                .collect(),
            access: super::access::target_access(state, iqn),
        })
        .collect();
    let (health, reasons) = judge(state, &seen, &nodes, &extents);
    let unserved = extents.iter().filter(|extent| quorum && !extent.served);
    let waits: Vec<String> = unserved
        .filter_map(|extent| waits_for_memory(state, &seen, extent, &name))
        .collect();
    let isns = isns(state, &seen, &name);
    let replication = super::links::links(&seen, &name);
    let links = super::links::alarms(state, seen.me, &replication, &seen.my_name);
    let alarms = seen.alarms.into_iter().chain(waits).chain(links).collect();
    StatusDocument {
        cluster: state
            .cluster
            .as_ref()
            .map(|cluster| cluster.name.clone())
            .unwrap_or_default(),
        health,
        reasons,
        alarms,
        sessions: seen.sessions,
        quorum,
        leader: seen.leader.filter(|_| quorum).map(name),
        revision: state.revision.value(),
        answered_by: seen.my_name,
        nodes,
        extents,
        targets,
        access: super::access::access(state),
        portals: portals(state),
        isns,
        replication,
        cluster_id: state.cluster.as_ref().map(|cluster| cluster.id),
        takeovers: state.takeovers.clone(),
        losses: state.losses.clone(),
    }
}

/// W5: why an extent with write-back is left without primary although members of its set are up, and what can be done.
fn waits_for_memory(
    state: &ClusterState,
    seen: &Seen,
    extent: &ExtentStatus,
    name: &impl Fn(NodeId) -> String,
) -> Option<String> {
    let members = state.remembering(extent.id);
    let serves =
        |node: &NodeId| (*node == seen.me || seen.heard.contains(node)) && !state.is_unfit(*node, extent.id);
    if members.is_empty() || members.iter().any(serves) {
        return None;
    }
    let names: Vec<String> = members.into_iter().map(name).collect();
    let (label, names) = (&extent.name, names.join(", "));
    Some(format!(
        "extent {label} waits for {names}: acknowledged writes may be in memory or on disk there and nowhere else, since its write cache \
         is on and every other replica was started anew. Start holdfast on {names}. If that is impossible, 'holdfast extent write-cache \
         {label} off --lost' gives those writes up"
    ))
}

fn isns(state: &ClusterState, seen: &Seen, name: &impl Fn(NodeId) -> String) -> Vec<IsnsStatus> {
    let told_by = crate::isns::speaker(state).map(name);
    let status = |server: &SocketAddr| {
        let condition = seen.isns.get(server);
        IsnsStatus {
            server: *server,
            told_by: told_by.clone(),
            registered: condition.map(|condition| *condition == Condition::Registered),
            error: match condition {
                Some(Condition::Failing(why)) => Some(why.clone()),
                _ => None,
            },
        }
    };
    state.isns.iter().map(status).collect()
}

fn portals(state: &ClusterState) -> Vec<PortalStatus> {
    let of_node = |node: &Node| {
        let (name, group) = (node.name.clone(), node.tpg.value());
        let portal = move |address: &std::net::SocketAddr| PortalStatus {
            node: name.clone(),
            address: *address,
            group,
        };
        node.addresses
            .portals
            .iter()
            .map(portal)
            .collect::<Vec<PortalStatus>>()
    };
    state.nodes.values().flat_map(of_node).collect()
}

fn node_status(state: &ClusterState, seen: &Seen, id: NodeId) -> NodeStatus {
    let member = &state.nodes[&id];
    let heard = id == seen.me || seen.heard.contains(&id);
    // A node without a vote sends no heartbeats: it is on its way in or out.
    let votes = state.voters.contains(id);
    let node_state = match (heard || !votes, member.is_suspect() || !votes) {
        (true, false) if member.draining || member.leaving => NodeState::Draining,
        (true, false) => NodeState::Up,
        (true, true) => NodeState::Starting,
        (false, _) => NodeState::Down,
    };
    NodeStatus {
        name: member.name.clone(),
        role: match member.role {
            ModelRole::Data => Role::Data,
            ModelRole::Witness => Role::Witness,
        },
        state: node_state,
        lease: if id == seen.me {
            seen.lease
        } else {
            matches!(node_state, NodeState::Up | NodeState::Draining)
        },
        voter: votes,
    }
}

fn extent_status(
    state: &ClusterState,
    seen: &Seen,
    id: ExtentId,
    extent: &Extent,
    name: &impl Fn(NodeId) -> String,
) -> ExtentStatus {
    let core = seen.cores.get(&id);
    let here = extent.primary == Some(seen.me);
    let served = match extent.primary {
        None => false,
        Some(_) if here => {
            seen.lease && core.is_some_and(|core| matches!(core.role, RoleName::Primary | RoleName::Draining))
        }
        Some(primary) => {
            let run = state.node(primary).and_then(|member| member.incarnation);
            seen.heard.contains(&primary) && !state.is_suspect(primary) && run == extent.primary_incarnation
        }
    };
    let replicas = extent
        .replicas
        .iter()
        .map(|node| replica_status(seen, id, extent, *node, name))
        .collect();
    ExtentStatus {
        name: extent.name.clone(),
        id,
        naa: Naa::of(id).to_string(),
        size_bytes: extent.size_bytes,
        block_size: extent.block_size.bytes(),
        write_cache: extent.cache.since.is_some(),
        confirmed_reads: Some(extent.confirmed_reads),
        thin: Some(extent.thin),
        on_devices: extent.on_devices,
        secondary: Some(extent.secondary.into()),
        epoch: extent.epoch.value(),
        preferred: extent.preferred.map(name),
        primary: extent.primary.map(name),
        served,
        in_sync: extent.in_sync.iter().map(|node| name(*node)).collect(),
        replicas,
        reservation: reservation(&extent.unit),
        scrub: seen.scrubs.get(&id).map(scrub_status),
    }
}

fn scrub_status(scrubs: &Scrubs) -> ScrubStatus {
    let last = scrubs.last.and_then(|last| {
        let outcome = last.outcome?;
        Some(ScrubResult {
            ended_unix_seconds: last.at,
            took_seconds: outcome.took.as_secs(),
            bad_blocks: outcome.found,
            repaired_blocks: outcome.repaired,
            lost_blocks: outcome.lost,
            diverged_blocks: outcome.diverged,
        })
    });
    ScrubStatus {
        asked_for: scrubs.wanted,
        last,
    }
}

fn replica_status(
    seen: &Seen,
    id: ExtentId,
    extent: &Extent,
    node: NodeId,
    name: &impl Fn(NodeId) -> String,
) -> ReplicaStatus {
    let core = seen.cores.get(&id);
    let peer = core.and_then(|core| core.replicas.iter().find(|replica| replica.node == node));
    let mine = core.filter(|_| node == seen.me);
    let fenced =
        mine.is_some_and(|core| core.role == RoleName::Fenced) || peer.is_some_and(|peer| peer.fenced);
    let heard = node == seen.me || seen.heard.contains(&node);
    let state = match (fenced, extent.in_sync.contains(&node), heard) {
        (true, _, _) => ReplicaState::Fenced,
        (false, true, true) => ReplicaState::InSync,
        (false, false, true) => ReplicaState::Resyncing,
        (false, _, false) => ReplicaState::Offline,
    };
    let progress = |compared: holdfast_replication::core::api::ResyncStatus| ResyncStatus {
        done: share(
            compared.bytes_total.saturating_sub(compared.bytes_left),
            compared.bytes_total,
        ),
        bytes_left: compared.bytes_left,
        rate: seen.resync_rates.get(&(id, node)).copied().unwrap_or(0),
    };
    let resync = peer
        .and_then(|peer| peer.resync)
        .filter(|_| state == ReplicaState::Resyncing)
        .map(progress);
    let scrub = peer
        .and_then(|peer| peer.scrub)
        .filter(|_| state == ReplicaState::InSync)
        .map(progress);
    // A member of the set holds everything that is committed; how much of it another one has applied, only its primary hears.
    let elsewhere = || {
        core.filter(|_| extent.in_sync.contains(&node))
            .map_or(0, |core| core.committed.value())
    };
    let applied_lsn = mine
        .map(|core| core.applied.value())
        .or_else(|| peer.map(|peer| peer.applied.value()))
        .unwrap_or_else(elsewhere);
    ReplicaStatus {
        node: name(node),
        state,
        applied_lsn,
        resync,
        scrub,
        retiring: extent.retiring.contains(&node),
    }
}

/// A share of 0 to 1, to a ten-thousandth.
fn share(part: u64, of: u64) -> f64 {
    if of == 0 {
        return 1.0;
    }
    let tenthousandths = u128::from(part) * 10_000 / u128::from(of);
    f64::from(u32::try_from(tenthousandths).unwrap_or(10_000)) / 10_000.0
}

fn lun_status(
    state: &ClusterState,
    lun: u16,
    extent: ExtentId,
    name: &impl Fn(NodeId) -> String,
) -> LunStatus {
    let groups = state.lu(extent).map(|lu| lu.groups).unwrap_or_default();
    LunStatus {
        lun,
        extent: state
            .extents
            .get(&extent)
            .map(|extent| extent.name.clone())
            .unwrap_or_default(),
        groups: groups
            .iter()
            .map(|group| GroupStatus {
                node: name(group.node),
                id: group.id.value(),
                state: group.state.to_string(),
                preferred: group.preferred,
            })
            .collect(),
    }
}

/// What a takeover has left an extent without (T2).
fn after_takeover(extent: &Extent) -> Option<(Health, String)> {
    let (name, has, wanted) = (&extent.name, extent.replicas.len(), extent.replicas_wanted);
    if extent.in_sync.is_empty() {
        let way = match has {
            0 => "delete it, and restore it from a backup".to_owned(),
            _ => format!("'holdfast extent accept-data-loss {name}' serves what is left of it"),
        };
        return Some((
            Health::Down,
            format!("extent {name} has no whole replica since a takeover: {way}"),
        ));
    }
    (has < wanted).then(|| {
        let health = if has < 2 { Health::AtRisk } else { Health::Degraded };
        let copies = if has == 1 { "one replica" } else { "fewer replicas" };
        (
            health,
            format!("extent {name} has {copies} since a takeover, not {wanted}: name new ones with 'holdfast extent replicas'"),
        )
    })
}

/// Health, and every reason why it is not ok, worst first.
fn judge(
    state: &ClusterState,
    seen: &Seen,
    nodes: &[NodeStatus],
    extents: &[ExtentStatus],
) -> (Health, Vec<String>) {
    let mut found: Vec<(Health, String)> = Vec::new();
    if !state.is_initialized() {
        found.push((
            Health::Down,
            "this node belongs to no cluster yet; see 'holdfast cluster init'".to_owned(),
        ));
    } else if !seen.quorum(state) {
        found.push((
            Health::Down,
            format!(
                "{} {}; this is the last known state",
                seen.my_name,
                seen.ignorance()
            ),
        ));
    }
    for extent in extents.iter().filter(|extent| !extent.served) {
        let primary = extent.primary.as_deref().unwrap_or("nobody");
        found.push((
            Health::Down,
            format!("extent {} is not served (primary: {primary})", extent.name),
        ));
    }
    for extent in extents {
        let missing: Vec<&str> = extent
            .replicas
            .iter()
            .filter(|replica| replica.state != ReplicaState::InSync)
            .map(|replica| replica.node.as_str())
            .collect();
        let in_sync = extent.replicas.len() - missing.len();
        if in_sync < 2 && extent.replicas.len() > 1 {
            let copies = if in_sync == 1 {
                "one copy"
            } else {
                "no copy that is up"
            };
            found.push((
                Health::AtRisk,
                format!(
                    "extent {} has {copies}: {} is not in sync",
                    extent.name,
                    missing.join(", ")
                ),
            ));
        } else if !missing.is_empty() {
            found.push((
                Health::Degraded,
                format!("extent {}: {} is not in sync", extent.name, missing.join(", ")),
            ));
        }
    }
    found.extend(state.extents.values().filter_map(after_takeover));
    for node in nodes.iter().filter(|node| node.state != NodeState::Up) {
        let word = match node.state {
            NodeState::Down => "is down",
            NodeState::Draining => "is drained: nothing fails over to it by plan",
            NodeState::Starting if !node.voter => "does not vote (yet)",
            NodeState::Up | NodeState::Starting => "is coming back",
        };
        found.push((Health::Degraded, format!("{} {word}", node.name)));
    }
    found.sort_by_key(|(health, _)| std::cmp::Reverse(*health));
    let health = found.first().map_or(Health::Ok, |(health, _)| *health);
    (health, found.into_iter().map(|(_, reason)| reason).collect())
}

#[cfg(test)]
#[path = "derive_test.rs"]
mod tests;
