//! Requests that change one thing, made into commands of the cluster.

use std::collections::BTreeSet;

use holdfast_proto::admin::change_request::Change;
use holdfast_proto::admin::{
    Drain, IsnsServer, Leave, ResizeExtent, RevokeApiToken, RotateCertificates, SetExtent, SetReplicas,
    SetSetting,
};
use holdfast_raft::model::{AdminCommand, ClusterState, Command, ExtentChange, SecondaryAccess, SettingKey};
use holdfast_types::{ByteSize, ExtentId, NodeId};
use serde::Serialize;
use tonic::Status;

use super::server::{extent_named, failed, invalid, node_named, preferred_named, refuse_witness};

/// What to propose, and what to say once it is done.
pub(crate) type Proposal = (Command, String);

/// The command for a change, every name looked up and every value checked.
pub(crate) fn command(state: &ClusterState, change: Change) -> Result<Proposal, Status> {
    match change {
        Change::Setting(setting) => set(&setting),
        Change::Drain(drain) => draining(state, &drain),
        Change::ResizeExtent(resize) => resized(state, &resize),
        Change::SetExtent(set) => set_extent(state, set),
        Change::SetReplicas(set) => replicas(state, &set),
        Change::Leave(leave) => leaves(state, &leave),
        Change::IsnsServer(server) => isns_server(&server),
        Change::RotateCertificates(RotateCertificates {}) => Ok(rotation(state)),
        Change::RevokeApiToken(revoke) => Ok(revoked(revoke)),
    }
}

fn revoked(revoke: RevokeApiToken) -> Proposal {
    let name = revoke.name;
    let message = format!("API token '{name}' opens nothing any more.");
    (AdminCommand::RevokeApiToken { name }.into(), message)
}

fn rotation(state: &ClusterState) -> Proposal {
    let from = state.certificates.present.number;
    let salt = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let message = "The certificates are being rotated, which waits for every member ('holdfast status' says for whom); connections stay. \
                   Files of 'holdfast cluster certificate' are good until it is done: make new ones then."
        .to_owned();
    (AdminCommand::RotateCertificates { from, salt }.into(), message)
}

fn set(setting: &SetSetting) -> Result<Proposal, Status> {
    let key = SettingKey::named(&setting.key).map_err(invalid)?;
    let value = match setting.value.as_str() {
        "" => key.spec().default,
        text => key.parse(text).map_err(invalid)?,
    };
    let message = format!("{key} is {}.", key.print(value));
    Ok((AdminCommand::SetSetting { key, value }.into(), message))
}

fn draining(state: &ClusterState, drain: &Drain) -> Result<Proposal, Status> {
    let node = node_named(state, &drain.node)?;
    let draining = drain.draining;
    if draining {
        refuse_witness(
            state,
            node,
            "it has no extents that could move away; stop it when the others are up",
        )?;
    }
    let message = if draining {
        format!(
            "{} drains: its extents move away, and none comes back until 'holdfast cluster undrain'.",
            drain.node
        )
    } else {
        format!("{} takes extents again.", drain.node)
    };
    Ok((AdminCommand::SetDraining { node, draining }.into(), message))
}

fn isns_server(change: &IsnsServer) -> Result<Proposal, Status> {
    let server = change.server.parse::<std::net::SocketAddr>();
    let server = server.map_err(|_| invalid(format!("'{}' is no address with a port", change.server)))?;
    let told = change.told;
    let message = if told {
        format!("iSNS server {server} is told of all targets and portals; see 'holdfast isns list'.")
    } else {
        format!("iSNS server {server} is told nothing any more.")
    };
    Ok((AdminCommand::SetIsnsServer { server, told }.into(), message))
}

fn resized(state: &ClusterState, resize: &ResizeExtent) -> Result<Proposal, Status> {
    let extent = extent_named(state, &resize.name)?;
    let size_bytes = resize.size_bytes;
    let message = format!("Extent {} has {}.", resize.name, ByteSize(size_bytes));
    Ok((Command::ResizeExtent { extent, size_bytes }, message))
}

fn set_extent(state: &ClusterState, set: SetExtent) -> Result<Proposal, Status> {
    let extent = extent_named(state, &set.name)?;
    let values = (
        set.new_name.as_str(),
        set.preferred.as_str(),
        set.secondary.as_str(),
    );
    let (change, message) = match values {
        ("", "", "") => {
            return Err(invalid(
                "nothing to change: give --preferred, --secondary or --name",
            ));
        }
        ("", "none", "") => (
            ExtentChange::Preferred(None),
            format!("Extent {} prefers no node.", set.name),
        ),
        ("", node, "") => (
            ExtentChange::Preferred(Some(preferred(state, extent, node)?)),
            format!("Extent {} prefers {node}.", set.name),
        ),
        (name, "", "") => (
            ExtentChange::Name(name.to_owned()),
            format!("Extent {} is called {name} now.", set.name),
        ),
        ("", "", access) => (
            ExtentChange::Secondary(secondary(access)?),
            format!(
                "Nodes other than its primary show extent {} as {access}.",
                set.name
            ),
        ),
        _ => {
            return Err(invalid(
                "one change at a time: --preferred, --secondary or --name",
            ));
        }
    };
    Ok((AdminCommand::SetExtent { extent, change }.into(), message))
}

fn preferred(state: &ClusterState, extent: ExtentId, name: &str) -> Result<NodeId, Status> {
    let replicas = state.extents.get(&extent).map(|extent| &extent.replicas);
    preferred_named(state, replicas.into_iter().flatten(), name)
}

fn secondary(text: &str) -> Result<SecondaryAccess, Status> {
    match text {
        "non-optimized" => Ok(SecondaryAccess::NonOptimized),
        "standby" => Ok(SecondaryAccess::Standby),
        other => Err(invalid(format!(
            "secondary '{other}': it is non-optimized or standby"
        ))),
    }
}

fn replicas(state: &ClusterState, set: &SetReplicas) -> Result<Proposal, Status> {
    let extent = extent_named(state, &set.name)?;
    let nodes: Result<BTreeSet<NodeId>, Status> =
        set.nodes.iter().map(|name| node_named(state, name)).collect();
    let replicas = nodes?;
    let now = &state.extents[&extent];
    let comes = replicas.iter().any(|node| !now.replicas.contains(node));
    let goes = now.replicas.iter().any(|node| !replicas.contains(node));
    let how = match (comes, goes) {
        (true, true) => "new replicas are resynchronized, then the others go",
        (true, false) => "new replicas are resynchronized",
        (false, true) => "the others go",
        (false, false) => "that is so already",
    };
    let message = format!(
        "Extent {} is to have replicas on {}: {how}.",
        set.name,
        set.nodes.join(", ")
    );
    Ok((AdminCommand::SetReplicas { extent, replicas }.into(), message))
}

fn leaves(state: &ClusterState, leave: &Leave) -> Result<Proposal, Status> {
    let node = node_named(state, &leave.node)?;
    if state.nodes[&node].leaving {
        return Err(failed(format!("node '{}' is leaving already", leave.node)));
    }
    let message = format!("{} leaves the cluster.", leave.node);
    let drop_replicas = leave.drop_replicas;
    Ok((AdminCommand::Leave { node, drop_replicas }.into(), message))
}

/// A setting, as `cluster show` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    key: &'static str,
    value: String,
    default: String,
    set: bool,
    allowed: String,
    help: &'static str,
}

/// All settings, in their order.
pub(crate) fn settings(state: &ClusterState) -> Vec<Setting> {
    let one = |key: SettingKey| {
        let spec = key.spec();
        Setting {
            key: spec.name,
            value: key.print(state.settings.get(key)),
            default: key.print(spec.default),
            set: state.settings.is_set(key),
            allowed: key.allowed(),
            help: spec.help,
        }
    };
    SettingKey::ALL.into_iter().map(one).collect()
}
