//! Status for people.

use std::fmt::Write;
use std::time::SystemTime;

use holdfast_types::{ByteSize, unix_seconds, utc};

use super::document::ScrubStatus;
use super::{ExtentStatus, Health, NodeState, ReplicaState, StatusDocument};

/// One sentence: how it is.
pub(crate) fn summary(status: &StatusDocument) -> String {
    let word = match status.health {
        Health::Ok => "Healthy",
        Health::Degraded => "Degraded",
        Health::AtRisk => "At risk",
        Health::Down => "Down",
    };
    if status.health == Health::Ok {
        let mut places: Vec<&str> = status
            .extents
            .iter()
            .flat_map(|extent| &extent.in_sync)
            .map(String::as_str)
            .collect();
        places.sort_unstable();
        places.dedup();
        return match places.len() {
            0 => format!("{word}: there is no extent yet."),
            _ => format!("{word}: every block is on {}.", join(&places)),
        };
    }
    format!("{word}: {}.", join_with(&status.reasons, "; "))
}

fn join(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

fn join_with(parts: &[String], with: &str) -> String {
    if parts.is_empty() {
        "no reason is known".to_owned()
    } else {
        parts.join(with)
    }
}

/// All of it: a sentence, nodes, extents, targets, sessions.
pub(crate) fn text(status: &StatusDocument) -> String {
    let mut text = summary(status);
    for alarm in &status.alarms {
        let _ = write!(text, "\nAlarm: {alarm}");
    }
    let leader = status.leader.as_deref().unwrap_or("nobody");
    let quorum = if status.quorum {
        ""
    } else {
        "; no quorum: this is the last known state"
    };
    let _ = write!(
        text,
        "\n\nCluster {}, revision {}, led by {leader} (answered by {}){quorum}\n",
        status.cluster, status.revision, status.answered_by
    );
    let _ = write!(text, "\n{}{}", nodes_text(status), takeovers_text(status));
    text.push_str(&super::links::text(status));
    let _ = write!(text, "\n{}\n{}", extents_text(status), targets_text(status));
    if !status.sessions.is_empty() {
        let _ = write!(text, "\nSESSIONS on {}\n", status.answered_by);
        for session in &status.sessions {
            let target = session.target.as_deref().unwrap_or("discovery");
            let _ = writeln!(
                text,
                "  {} from {} at {} ({target})",
                session.initiator, session.peer, session.portal
            );
        }
    }
    text
}

/// Every takeover and every accepted loss, a line each; nothing where there was none.
pub(crate) fn takeovers_text(status: &StatusDocument) -> String {
    let mut text = String::new();
    for takeover in &status.takeovers {
        let (order, at) = (&takeover.order, utc(takeover.order.at));
        let gone: Vec<&str> = takeover.gone.iter().map(|gone| gone.name.as_str()).collect();
        let _ = writeln!(
            text,
            "Takeover on {at} by {} (asked for by {}), from revision {}: without {}, which are refused for ever",
            takeover.name,
            order.by,
            takeover.revision,
            join(&gone)
        );
    }
    for loss in &status.losses {
        let at = utc(loss.at);
        let _ = writeln!(
            text,
            "Loss of data accepted on {at} by {}: extent {}, served from the replica on {}",
            loss.by, loss.name, loss.node_name
        );
    }
    text
}

/// The nodes as a table.
pub(crate) fn nodes_text(status: &StatusDocument) -> String {
    let mut text = "NODE      ROLE     STATE     LEASE\n".to_owned();
    for node in &status.nodes {
        let role = format!("{:?}", node.role).to_lowercase();
        let state = match node.state {
            NodeState::Up => "up",
            NodeState::Down => "down",
            NodeState::Starting => "starting",
            NodeState::Draining => "draining",
        };
        let _ = writeln!(
            text,
            "{:<9} {role:<8} {state:<9} {}",
            node.name,
            if node.lease { "yes" } else { "no" }
        );
    }
    text
}

/// The extents as a table.
pub(crate) fn extents_text(status: &StatusDocument) -> String {
    let mut text = "EXTENT    SIZE       PRIMARY   EPOCH  REPLICAS\n".to_owned();
    for extent in &status.extents {
        let primary = extent.primary.as_deref().unwrap_or("none");
        let size = ByteSize(extent.size_bytes).to_string();
        let _ = write!(
            text,
            "{:<9} {size:<10} {primary:<9} {:<6}",
            extent.name, extent.epoch
        );
        for (i, replica) in extent.replicas.iter().enumerate() {
            let state = match replica.state {
                ReplicaState::InSync => match &replica.scrub {
                    None => "in sync".to_owned(),
                    Some(scrub) => format!("in sync, scrub {:.0} %", scrub.done * 100.0),
                },
                ReplicaState::Offline => "offline".to_owned(),
                ReplicaState::Fenced => "fenced".to_owned(),
                ReplicaState::Resyncing => match &replica.resync {
                    None => "resyncing".to_owned(),
                    Some(resync) => {
                        let left = ByteSize(resync.bytes_left);
                        format!(
                            "resyncing {:.0} %, {left} left, {}/s",
                            resync.done * 100.0,
                            ByteSize(resync.rate)
                        )
                    }
                },
            };
            let _ = write!(
                text,
                "{}{}: {state}",
                if i == 0 { " " } else { ", " },
                replica.node
            );
        }
        text.push('\n');
        if extent.write_cache {
            text.push_str(
                "          write cache on: what is not flushed is lost when all replicas lose power\n",
            );
        }
        if let Some(scrub) = &extent.scrub {
            text.push_str(&scrub_text(scrub));
        }
    }
    text
}

fn scrub_text(scrub: &ScrubStatus) -> String {
    let asked = if scrub.asked_for {
        "; another one was asked for"
    } else {
        ""
    };
    let Some(last) = &scrub.last else {
        return match scrub.asked_for {
            true => "          a scrub was asked for\n".to_owned(),
            false => String::new(),
        };
    };
    let mut found = match last.bad_blocks {
        0 => "nothing bad".to_owned(),
        bad => format!("{bad} bad blocks, {} of them repaired", last.repaired_blocks),
    };
    if last.lost_blocks > 0 {
        let _ = write!(found, ", {} LOST ON EVERY REPLICA", last.lost_blocks);
    }
    if last.diverged_blocks > 0 {
        let _ = write!(found, ", {} IN WHICH REPLICAS DIFFERED", last.diverged_blocks);
    }
    let ago = ago(unix_seconds(SystemTime::now()).saturating_sub(last.ended_unix_seconds));
    format!("          last scrub {ago} ago: {found}{asked}\n")
}

/// A time that has passed, in one unit.
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The targets, their LUNs and port groups.
pub(crate) fn targets_text(status: &StatusDocument) -> String {
    let mut text = String::new();
    for target in &status.targets {
        let _ = writeln!(text, "TARGET {}", target.iqn);
        text.push_str(&super::access::target_text(&target.access));
        for lun in &target.luns {
            let read_only = target.access.read_only.contains(&lun.lun);
            let how = if read_only { " (read-only)" } else { "" };
            let _ = write!(text, "  LUN {} is {}{how}:", lun.lun, lun.extent);
            for group in &lun.groups {
                let preferred = if group.preferred { ", preferred" } else { "" };
                let _ = write!(
                    text,
                    "  group {} ({}) {}{preferred}",
                    group.id, group.node, group.state
                );
            }
            text.push('\n');
        }
    }
    text
}

/// What happened between two looks, a line each: for those who watch.
pub(crate) fn changes(before: &StatusDocument, after: &StatusDocument) -> Vec<String> {
    let mut lines = Vec::new();
    for node in &after.nodes {
        let was = before
            .nodes
            .iter()
            .find(|other| other.name == node.name)
            .map(|other| other.state);
        match (was, node.state) {
            (Some(NodeState::Up), NodeState::Down) => {
                lines.push(format!("{} is not heard any more", node.name))
            }
            (Some(NodeState::Down | NodeState::Starting), NodeState::Up) => {
                lines.push(format!("{} is up", node.name))
            }
            _ => {}
        }
    }
    if before.leader != after.leader
        && let Some(leader) = &after.leader
    {
        lines.push(format!("{leader} leads the cluster now"));
    }
    for extent in &after.extents {
        if let Some(was) = before.extents.iter().find(|other| other.id == extent.id) {
            extent_changes(was, extent, &mut lines);
        }
    }
    if before.health != after.health {
        lines.push(summary(after));
    }
    lines
}

fn extent_changes(was: &ExtentStatus, now: &ExtentStatus, lines: &mut Vec<String>) {
    let name = &now.name;
    if was.epoch != now.epoch {
        let primary = now.primary.as_deref().unwrap_or("nobody");
        lines.push(format!(
            "{name}: epoch {} begins, {primary} is primary",
            now.epoch
        ));
    }
    for node in was.in_sync.iter().filter(|node| !now.in_sync.contains(node)) {
        lines.push(format!("{name}: {node} is out of the in-sync set"));
    }
    for node in now.in_sync.iter().filter(|node| !was.in_sync.contains(node)) {
        lines.push(format!("{name}: {node} is in sync"));
    }
    for replica in &now.replicas {
        let Some(resync) = &replica.resync else { continue };
        let before = was
            .replicas
            .iter()
            .find(|other| other.node == replica.node)
            .and_then(|other| other.resync);
        if before.is_none_or(|before| (before.done * 10.0).floor() < (resync.done * 10.0).floor()) {
            let left = ByteSize(resync.bytes_left);
            lines.push(format!(
                "{name}: resync of {} at {:.0} %, {left} left",
                replica.node,
                resync.done * 100.0
            ));
        }
    }
}

#[cfg(test)]
#[path = "text_test.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::sample;
