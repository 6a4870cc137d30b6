//! Faults of drills, by names: what an administrator asks a node to suffer for a while.

use std::time::{Duration, Instant};

use holdfast_injection::{Disk, HERE, Harm, LASTS_MAX, Site, Way};
use holdfast_raft::model::ClusterState;
use holdfast_types::NodeId;
use tonic::Status;

use super::server::{failed, invalid, node_named};
use crate::runtime::blow::{Blow, PROCESS};

/// Between two looks whether a fault is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The sites that a name stands for: `link:PEER`, `link:PEER:in`, `link:PEER:out`, `disk:NAME`.
fn sites(text: &str, me: NodeId, state: &ClusterState) -> Result<Vec<Site>, Status> {
    let mut words = text.split(':');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("link"), Some(peer), way, None) => {
            let node = node_named(state, peer)?;
            if node == me {
                return Err(invalid(format!(
                    "{peer} is this very node, which has no link to itself"
                )));
            }
            let ways: &[Way] = match way {
                None => &[Way::In, Way::Out],
                Some("in") => &[Way::In],
                Some("out") => &[Way::Out],
                Some(other) => return Err(invalid(format!("'{other}' is no direction: it is in or out"))),
            };
            Ok(ways.iter().map(|way| Site::Link(node, *way)).collect())
        }
        (Some("disk"), Some(name), None, None) => {
            let disk = Disk::ALL.into_iter().find(|disk| disk.name() == name);
            let names = Disk::ALL.map(Disk::name).join(", ");
            let disk =
                disk.ok_or_else(|| invalid(format!("there is no disk '{name}'; the disks are {names}")))?;
            Ok(vec![Site::Disk(disk)])
        }
        (Some(PROCESS), None, None, None) => Err(invalid(
            "nothing heals a process: one that was killed or frozen goes on when its time is over",
        )),
        _ => Err(invalid(format!(
            "'{text}' is nothing that can be hurt: it is link:NODE, link:NODE:in, link:NODE:out, disk:NAME or process"
        ))),
    }
}

/// A site's name.
fn name(site: Site, state: &ClusterState) -> String {
    match site {
        Site::Link(peer, way) => {
            let peer = state
                .node(peer)
                .map_or_else(|| peer.to_string(), |node| node.name.clone());
            let way = match way {
                Way::In => "in",
                Way::Out => "out",
            };
            format!("link:{peer}:{way}")
        }
        Site::Disk(disk) => format!("disk:{}", disk.name()),
    }
}

/// Puts a fault into this process, and says so in the log, also when it is over.
pub(super) fn put(
    (site, harm, lasts): (&str, &str, Duration),
    by: &str,
    me: NodeId,
    state: &ClusterState,
) -> Result<String, Status> {
    if lasts.is_zero() || lasts > LASTS_MAX {
        return Err(invalid(format!(
            "a fault lasts from 1 ms to {} s, not {} ms",
            LASTS_MAX.as_secs(),
            lasts.as_millis()
        )));
    }
    if site == PROCESS {
        return strike(harm, lasts, by);
    }
    let found = sites(site, me, state)?;
    let parsed: Harm = harm.parse().map_err(|why: String| invalid(why))?;
    if matches!((&found[..], parsed), ([Site::Disk(_)], Harm::Lose(_))) {
        return Err(invalid(
            "a disk loses nothing: a fault of a disk is cut, delay or slow",
        ));
    }
    let now = Instant::now();
    let put = |at: &&Site| HERE.put(**at, parsed, lasts, now);
    if found.iter().filter(put).count() > 0 {
        let millis = lasts.as_millis();
        tracing::warn!(by, "a drill hurts this node: {site} {harm} for {millis} ms");
        tokio::spawn(tell_end(site.to_owned(), found));
    }
    Ok(format!(
        "{harm} for {} ms; it heals by itself.",
        lasts.as_millis()
    ))
}

/// Kills or freezes this very process.
fn strike(blow: &str, lasts: Duration, by: &str) -> Result<String, Status> {
    let parsed: Blow = blow.parse().map_err(|why: String| invalid(why))?;
    let millis = lasts.as_millis();
    tracing::warn!(by, "a drill hurts this node: {PROCESS} {blow} for {millis} ms");
    parsed.strike(lasts).map_err(failed)?;
    Ok(format!(
        "{blow} for {millis} ms; it goes on by itself, and no earlier."
    ))
}

/// Says in the log when all of that is over.
async fn tell_end(name: String, sites: Vec<Site>) {
    let suffers = |at: &Site| HERE.list(Instant::now()).iter().any(|(other, ..)| other == at);
    while sites.iter().any(suffers) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tracing::warn!("{name} is whole again: its fault is over or was healed");
}

/// Heals a site, or all of them where the name is empty.
pub(super) fn heal(site: &str, by: &str, me: NodeId, state: &ClusterState) -> Result<String, Status> {
    let healed: Vec<String> = if site.is_empty() {
        HERE.heal(None)
    } else {
        let found = sites(site, me, state)?;
        found.into_iter().flat_map(|site| HERE.heal(Some(site))).collect()
    }
    .into_iter()
    .map(|(site, harm)| format!("{} {harm}", name(site, state)))
    .collect();
    if healed.is_empty() {
        return Ok("There was nothing to heal.".to_owned());
    }
    let healed = healed.join(", ");
    tracing::warn!(by, "a drill's faults are healed: {healed}");
    Ok(format!("Healed: {healed}."))
}

/// What a drill makes this node suffer now, for its status.
pub(crate) fn alarms(me: &str, state: &ClusterState) -> Vec<String> {
    let suffered = HERE.list(Instant::now()).into_iter();
    let told = suffered.map(|(site, harm, left)| {
        let seconds = left.as_secs_f64().ceil();
        format!(
            "a drill hurts {me}: {} {harm}, {seconds} s more",
            name(site, state)
        )
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_what_is_allowed() {
        let state = ClusterState::default();
        for (text, why) in [
            ("link:x", "there is no node 'x'"),
            ("disk:sda", "the disks are journal, extents, raft"),
            ("disk", "link:NODE"),
            ("disk:raft:in", "link:NODE"),
            ("", "link:NODE"),
        ] {
            let refused = sites(text, NodeId(1), &state).unwrap_err();
            assert!(refused.message().contains(why), "{text}: {}", refused.message());
        }
        assert_eq!(
            sites("disk:raft", NodeId(1), &state).unwrap(),
            [Site::Disk(Disk::Raft)]
        );
        let put = |what, lasts| super::put((what, "lose=5", lasts), "me", NodeId(1), &state);
        let refused = put("disk:raft", Duration::from_secs(1)).unwrap_err();
        assert!(refused.message().contains("a disk loses nothing"));
        let refused = put("disk:raft", Duration::from_secs(61)).unwrap_err();
        assert!(refused.message().contains("from 1 ms to 60 s"));
        assert_eq!(
            name(Site::Link(NodeId(7), Way::In), &state),
            "link:7:in",
            "nobody of that number"
        );
    }
}
