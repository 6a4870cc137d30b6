//! A member that listens elsewhere than the cluster knows: what its `node.toml` says is told to the cluster when somebody asks for that,
//! never by itself. A copy of a node's directory that is started on another machine would else take the node's place.

use std::net::SocketAddr;

use holdfast_raft::model::{NodeAddresses, Reply};
use tonic::Status;

use super::server::{failed, fault};
use crate::runtime::Running;

/// Has the cluster know that this node listens at `own`; what to say once it is done.
pub(super) async fn move_to(running: &Running, own: NodeAddresses) -> Result<(Reply, String), Status> {
    let state = running.state();
    let member = state
        .node(running.me())
        .ok_or_else(|| failed("this node is no member of the cluster"))?;
    let Some(news) = difference(&member.addresses, &own) else {
        let message = format!("The cluster knows the addresses of {} already.", member.name);
        return Ok((Reply::DONE, message));
    };
    let known = member.addresses.raft;
    if known != own.raft && running.is_twin(known).await {
        return Err(failed(format!(
            "another process answers as {} at {known}, where the cluster knows it: its directory is in use twice; stop one for good",
            member.name
        )));
    }
    let reply = running.move_to(own).await.map_err(fault)?;
    Ok((
        reply,
        format!("The cluster knows {} at its new addresses: {news}.", member.name),
    ))
}

/// What differs, for people; `None` where nothing does.
pub(crate) fn difference(known: &NodeAddresses, own: &NodeAddresses) -> Option<String> {
    let one = |address: SocketAddr| vec![address];
    let rows = [
        ("raft", one(known.raft), one(own.raft)),
        ("heartbeat", one(known.heartbeat), one(own.heartbeat)),
        ("replication", known.replication_links(), own.replication_links()),
        ("portals", known.portals.clone(), own.portals.clone()),
        (
            "admin.tcp",
            known.admin.into_iter().collect(),
            own.admin.into_iter().collect(),
        ),
    ];
    let list = |addresses: &[SocketAddr]| match addresses {
        [] => "none".to_owned(),
        some => some
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" and "),
    };
    let differing = rows.iter().filter(|(_, known, own)| known != own);
    let words: Vec<String> = differing
        .map(|(what, known, own)| format!("{what} {} instead of {}", list(own), list(known)))
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_differs_is_told_and_nothing_else() {
        let known = NodeAddresses {
            raft: at("192.0.2.1:7400"),
            replication: Some(at("192.0.2.1:7401")),
            spare_replication: Vec::new(),
            admin: None,
            heartbeat: at("192.0.2.1:7402"),
            portals: vec![at("198.51.100.1:3260")],
        };
        assert_eq!(difference(&known, &known.clone()), None);
        let own = NodeAddresses {
            spare_replication: vec![at("203.0.113.1:7401")],
            admin: Some(at("192.0.2.1:7403")),
            portals: vec![at("198.51.100.9:3260")],
            ..known.clone()
        };
        assert_eq!(
            difference(&known, &own).unwrap(),
            "replication 192.0.2.1:7401 and 203.0.113.1:7401 instead of 192.0.2.1:7401, \
             portals 198.51.100.9:3260 instead of 198.51.100.1:3260, admin.tcp 192.0.2.1:7403 instead of none"
        );
    }
}
