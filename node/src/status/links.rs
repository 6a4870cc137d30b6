//! The links to other data nodes: which one is used, and what somebody should know of them.

use std::fmt::Write;

use holdfast_raft::model::ClusterState;
use holdfast_replication::net::PeerReport;
use holdfast_types::NodeId;

use super::derive::Seen;
use super::document::{LinkStatus, ReplicationStatus, StatusDocument};

/// What people call the links, the preferred one first.
const ORDINALS: [&str; holdfast_types::REPLICATION_LINKS_MAX] = ["first", "second", "third", "fourth"];

fn ordinal(at: usize) -> &'static str {
    ORDINALS.get(at).copied().unwrap_or("last")
}

/// As this node sees them.
pub(super) fn links(seen: &Seen, name: &impl Fn(NodeId) -> String) -> Vec<ReplicationStatus> {
    let of_peer = |report: &PeerReport| ReplicationStatus {
        peer: name(report.peer),
        moves: report.moves,
        links: report
            .paths
            .iter()
            .map(|(address, path)| LinkStatus {
                address: address.clone(),
                up: path.up,
                used: path.used,
                failed: path.failed,
                error: path.why.clone().filter(|_| !path.up),
            })
            .collect(),
    };
    seen.links.iter().map(of_peer).collect()
}

/// What is wrong with a link, in a few words.
fn trouble(link: &LinkStatus) -> String {
    let address = &link.address;
    match link.error.as_deref() {
        None => format!("{address} is down"),
        Some(why) if why == "does not answer" || why.ends_with("took too long") => {
            format!("{address} does not answer")
        }
        Some(why) => format!("{address} does not work ({why})"),
    }
}

/// Replication runs over another link than the preferred one, or could not move to a spare one, or nodes have not as many addresses.
pub(super) fn alarms(
    state: &ClusterState,
    me: NodeId,
    replication: &[ReplicationStatus],
    my_name: &str,
) -> Vec<String> {
    let mut alarms = Vec::new();
    for peer in replication {
        let between = format!("replication between {my_name} and {}", peer.peer);
        // Where nothing works the peer is away, and other lines say so.
        let Some(used) = peer.links.iter().position(|link| link.used) else {
            continue;
        };
        let (better, spare) = peer.links.split_at(used);
        if used > 0 {
            let down: Vec<String> = better.iter().filter(|link| !link.up).map(trouble).collect();
            let why = match down.is_empty() {
                true => "a preferred one works again, and is used once it has worked for a while".to_owned(),
                false => down.join(", "),
            };
            alarms.push(format!("{between} runs over its {} link: {why}", ordinal(used)));
        }
        for (at, link) in spare.iter().enumerate().filter(|(_, link)| link.failed) {
            alarms.push(format!(
                "{between} could not move to its {} link: {}",
                ordinal(used + at),
                trouble(link)
            ));
        }
    }
    alarms.extend(unequal(state, me));
    alarms
}

/// Data nodes that have not as many addresses as this one.
fn unequal(state: &ClusterState, me: NodeId) -> Vec<String> {
    let Some(own) = state.node(me) else {
        return Vec::new();
    };
    let count = |node: &holdfast_raft::model::Node| node.addresses.replication_links().len();
    let (many, mut alarms) = (count(own), Vec::new());
    for (id, other) in state.nodes.iter().filter(|(id, _)| **id != me) {
        let theirs = count(other);
        if many != theirs && many > 0 && theirs > 0 {
            // The lower id dials.
            let dialled = if me < *id { &other.name } else { &own.name };
            alarms.push(format!(
                "{} has {many} and {} has {theirs} addresses in listen.replication: there is a link for each address of {dialled}; give \
                 both as many",
                own.name, other.name
            ));
        }
    }
    alarms
}

/// For people, where there is more than one link.
pub(super) fn text(status: &StatusDocument) -> String {
    let mut text = String::new();
    for peer in status.replication.iter().filter(|peer| peer.links.len() > 1) {
        let _ = write!(text, "LINKS from {} to {}:", status.answered_by, peer.peer);
        for link in &peer.links {
            let how = match (link.used, link.up) {
                (true, _) => "in use",
                (false, true) => "spare",
                (false, false) => "down",
            };
            let _ = write!(text, "  {} {how}", link.address);
        }
        let _ = writeln!(text, "  ({} moves)", peer.moves);
    }
    text
}

#[cfg(test)]
#[path = "links_test.rs"]
mod tests;
