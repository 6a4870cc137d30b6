//! What the page says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_types::ExtentId;

use super::exposition::{Kind, Page};
use super::traffic::{BUCKETS_US, Meter, Operation, Traffic};
use crate::status::{
    ExtentStatus, Health, LinkStatus, NodeState, NodeStatus, ReplicaState, ReplicaStatus, ReplicationStatus,
    StatusDocument,
};

/// What only this node knows of itself.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Processor time that the process has used.
    pub(crate) cpu: Duration,
    /// Bytes of memory that it occupies.
    pub(crate) resident_bytes: u64,
    /// How long the quorum lease still holds; zero without one.
    pub(crate) lease_left: Duration,
    pub(crate) raft_term: u64,
    pub(crate) raft_log_bytes: usize,
    /// iSCSI connections, logged in or not.
    pub(crate) connections: usize,
    pub(crate) traffic: Arc<Traffic>,
    /// Size and free bytes of the disk; `None` on a witness.
    pub(crate) disk: Option<(u64, u64)>,
    /// Capacity and used bytes of the journal.
    pub(crate) journal: Option<(u64, u64)>,
}

impl Facts {
    /// What the system says of this process; zero where it does not.
    pub(crate) fn of_process() -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        });
        Self {
            cpu: Duration::try_from(cpu).unwrap_or_default(),
            resident_bytes: kib.map_or(0, |kib: u64| kib * 1024),
            ..Self::default()
        }
    }
}

/// A value of a node.
type OfNode = fn(&StatusDocument, &NodeStatus) -> bool;
/// A value of a link.
type OfLink = fn(&LinkStatus) -> bool;
/// A value of an extent.
type OfExtent = fn(&ExtentStatus) -> u64;

/// The whole page.
pub(super) fn page(document: &StatusDocument, facts: &Facts) -> String {
    let mut page = Page::default();
    process(&mut page, document, facts);
    cluster(&mut page, document);
    nodes(&mut page, document);
    extents(&mut page, &document.extents);
    replicas(&mut page, &document.extents);
    scrubs(&mut page, &document.extents);
    links(&mut page, &document.replication);
    sessions(&mut page, document, facts);
    let names: BTreeMap<ExtentId, &str> = document
        .extents
        .iter()
        .map(|extent| (extent.id, extent.name.as_str()))
        .collect();
    let meters = facts.traffic.extents();
    let of_extents: Vec<(&str, &Meter)> = meters
        .iter()
        .filter_map(|(id, meter)| Some((*names.get(id)?, &**meter)))
        .collect();
    traffic(&mut page, "extent", &of_extents);
    let meters = facts.traffic.initiators();
    let of_initiators: Vec<(&str, &Meter)> = meters
        .iter()
        .map(|(name, meter)| (name.as_str(), &**meter))
        .collect();
    traffic(&mut page, "initiator", &of_initiators);
    page.finish()
}

fn process(page: &mut Page, document: &StatusDocument, facts: &Facts) {
    use Kind::{Counter, Gauge};
    page.family(
        "holdfast_build_info",
        Gauge,
        "Always 1; the node that answers, and its version.",
    );
    let labels = [
        ("node", document.answered_by.as_str()),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    page.sample("holdfast_build_info", &labels, 1);
    let help = "Processor time that this node's process has used.";
    page.single(
        "holdfast_process_cpu_seconds_total",
        Counter,
        help,
        facts.cpu.as_secs_f64(),
    );
    let help = "Memory that this node's process occupies.";
    page.single(
        "holdfast_process_resident_bytes",
        Gauge,
        help,
        facts.resident_bytes,
    );
    let help = "How long this node's quorum lease still holds; 0 without one.";
    page.single(
        "holdfast_lease_left_seconds",
        Gauge,
        help,
        facts.lease_left.as_secs_f64(),
    );
    let help = "Raft's term as this node knows it: it rises with every election.";
    page.single("holdfast_raft_term", Gauge, help, facts.raft_term);
    let help = "Bytes of the entries in this node's Raft log.";
    page.single("holdfast_raft_log_bytes", Gauge, help, facts.raft_log_bytes);
    if let Some((total, free)) = facts.disk {
        let help = "Size of the file system that this node stores extents and journal on.";
        page.single("holdfast_disk_size_bytes", Gauge, help, total);
        let help = "What this node may still write there.";
        page.single("holdfast_disk_free_bytes", Gauge, help, free);
    }
    if let Some((capacity, used)) = facts.journal {
        let help = "Most that this node's journal takes.";
        page.single("holdfast_journal_capacity_bytes", Gauge, help, capacity);
        let help = "What it takes now; writes slow down when it is nearly full.";
        page.single("holdfast_journal_used_bytes", Gauge, help, used);
    }
}

fn cluster(page: &mut Page, document: &StatusDocument) {
    use Kind::Gauge;
    let help = "Whether this node sees a majority, a leader and the present state; without it, what follows is the last known state.";
    page.single("holdfast_cluster_quorum", Gauge, help, u8::from(document.quorum));
    page.family(
        "holdfast_cluster_health",
        Gauge,
        "1 for the state that the cluster is in.",
    );
    let all = [
        (Health::Ok, "ok"),
        (Health::Degraded, "degraded"),
        (Health::AtRisk, "at_risk"),
        (Health::Down, "down"),
    ];
    for (health, word) in all {
        page.sample(
            "holdfast_cluster_health",
            &[("state", word)],
            u8::from(document.health == health),
        );
    }
    let help = "Revision of the cluster's state that this node has applied.";
    page.single("holdfast_cluster_revision", Gauge, help, document.revision);
    let help = "Alarms that need somebody's attention.";
    page.single("holdfast_alarms", Gauge, help, document.alarms.len());
}

fn links(page: &mut Page, peers: &[ReplicationStatus]) {
    let families: [(&str, &str, OfLink); 2] = [
        (
            "holdfast_replication_link_up",
            "Whether the link is up; 1 is the preferred one.",
            |link| link.up,
        ),
        (
            "holdfast_replication_link_used",
            "Whether replication with that node runs over the link.",
            |link| link.used,
        ),
    ];
    for (name, help, value) in families {
        page.family(name, Kind::Gauge, help);
        for peer in peers {
            for (at, link) in (1..).zip(&peer.links) {
                let labels = [("peer", peer.peer.as_str()), ("link", &format!("{at}"))];
                page.sample(name, &labels, u8::from(value(link)));
            }
        }
    }
    let name = "holdfast_replication_link_moves_total";
    let help = "How often replication with that node has moved from one link to another.";
    page.family(name, Kind::Counter, help);
    for peer in peers {
        page.sample(name, &[("peer", &peer.peer)], peer.moves);
    }
}

fn nodes(page: &mut Page, document: &StatusDocument) {
    let families: [(&str, &str, OfNode); 4] = [
        ("holdfast_node_up", "Whether the node is heard.", |_, node| {
            node.state != NodeState::Down
        }),
        (
            "holdfast_node_draining",
            "Whether the node is to give its extents away and take none.",
            |_, node| node.state == NodeState::Draining,
        ),
        (
            "holdfast_node_lease",
            "Whether the node holds its quorum lease, as far as this one knows.",
            |_, node| node.lease,
        ),
        (
            "holdfast_node_leader",
            "Whether the node leads Raft, as far as this one knows.",
            |document, node| document.leader.as_ref() == Some(&node.name),
        ),
    ];
    for (name, help, value) in families {
        page.family(name, Kind::Gauge, help);
        for node in &document.nodes {
            page.sample(name, &[("node", &node.name)], u8::from(value(document, node)));
        }
    }
}

fn extents(page: &mut Page, extents: &[ExtentStatus]) {
    let families: [(&str, &str, OfExtent); 5] = [
        (
            "holdfast_extent_size_bytes",
            "Size that initiators see.",
            |extent| extent.size_bytes,
        ),
        (
            "holdfast_extent_epoch",
            "Newest epoch: it rises whenever the primary changes.",
            |extent| extent.epoch,
        ),
        (
            "holdfast_extent_served",
            "Whether its primary is up and serves.",
            |extent| u64::from(extent.served),
        ),
        (
            "holdfast_extent_in_sync_replicas",
            "Replicas that hold every acknowledged write.",
            |extent| extent.in_sync.len() as u64,
        ),
        (
            "holdfast_extent_replicas",
            "Replicas that are meant to.",
            |extent| extent.replicas.len() as u64,
        ),
    ];
    for (name, help, value) in families {
        page.family(name, Kind::Gauge, help);
        for extent in extents {
            page.sample(name, &[("extent", &extent.name)], value(extent));
        }
    }
    page.family(
        "holdfast_extent_primary",
        Kind::Gauge,
        "1 for the node that serves the extent.",
    );
    for extent in extents {
        if let Some(primary) = &extent.primary {
            page.sample(
                "holdfast_extent_primary",
                &[("extent", &extent.name), ("node", primary)],
                1,
            );
        }
    }
}

fn labels<'a>(extent: &'a ExtentStatus, replica: &'a ReplicaStatus) -> [(&'a str, &'a str); 2] {
    [("extent", &extent.name), ("node", &replica.node)]
}

fn replicas(page: &mut Page, extents: &[ExtentStatus]) {
    let all = || {
        extents
            .iter()
            .flat_map(|extent| extent.replicas.iter().map(move |replica| (extent, replica)))
    };
    page.family(
        "holdfast_replica_state",
        Kind::Gauge,
        "1 for the state that the replica is in.",
    );
    let states = [
        (ReplicaState::InSync, "in_sync"),
        (ReplicaState::Resyncing, "resyncing"),
        (ReplicaState::Offline, "offline"),
        (ReplicaState::Fenced, "fenced"),
    ];
    for (extent, replica) in all() {
        for (state, word) in states {
            let [extent, node] = labels(extent, replica);
            let labels = [extent, node, ("state", word)];
            page.sample(
                "holdfast_replica_state",
                &labels,
                u8::from(replica.state == state),
            );
        }
    }
    let help = "Position up to which the replica's extent is written, as far as this node knows; 0 where it knows nothing.";
    page.family("holdfast_replica_applied_lsn", Kind::Gauge, help);
    for (extent, replica) in all() {
        page.sample(
            "holdfast_replica_applied_lsn",
            &labels(extent, replica),
            replica.applied_lsn,
        );
    }
    let resyncs = || all().filter_map(|(extent, replica)| Some((extent, replica, replica.resync?)));
    page.family(
        "holdfast_resync_left_bytes",
        Kind::Gauge,
        "What a running resync still has to compare.",
    );
    for (extent, replica, resync) in resyncs() {
        page.sample(
            "holdfast_resync_left_bytes",
            &labels(extent, replica),
            resync.bytes_left,
        );
    }
    let help = "How fast a running resync is, in bytes compared or copied a second.";
    page.family("holdfast_resync_rate_bytes", Kind::Gauge, help);
    for (extent, replica, resync) in resyncs() {
        page.sample(
            "holdfast_resync_rate_bytes",
            &labels(extent, replica),
            resync.rate,
        );
    }
}

fn scrubs(page: &mut Page, extents: &[ExtentStatus]) {
    let all = || {
        extents.iter().filter_map(|extent| {
            let last = extent.scrub.as_ref()?.last.as_ref()?;
            Some((extent, last))
        })
    };
    let help = "When the last scrub ended, in seconds since 1970; known at the primary's node.";
    page.family("holdfast_scrub_ended_timestamp_seconds", Kind::Gauge, help);
    for (extent, last) in all() {
        let labels = [("extent", extent.name.as_str())];
        page.sample(
            "holdfast_scrub_ended_timestamp_seconds",
            &labels,
            last.ended_unix_seconds,
        );
    }
    let help = "What the last scrub found, in blocks: bad (repaired or not), lost (bad on every replica in sync), diverged.";
    page.family("holdfast_scrub_found_blocks", Kind::Gauge, help);
    for (extent, last) in all() {
        let found = [
            ("bad", last.bad_blocks),
            ("lost", last.lost_blocks),
            ("diverged", last.diverged_blocks),
        ];
        for (word, blocks) in found {
            let labels = [("extent", extent.name.as_str()), ("found", word)];
            page.sample("holdfast_scrub_found_blocks", &labels, blocks);
        }
    }
}

fn sessions(page: &mut Page, document: &StatusDocument, facts: &Facts) {
    let mut counted: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for session in &document.sessions {
        let target = session.target.as_deref().unwrap_or("(discovery)");
        *counted.entry((session.initiator.as_str(), target)).or_default() += 1;
    }
    page.family("holdfast_sessions", Kind::Gauge, "Sessions at this node.");
    for ((initiator, target), count) in counted {
        page.sample(
            "holdfast_sessions",
            &[("initiator", initiator), ("target", target)],
            count,
        );
    }
    let help = "iSCSI connections at this node, logged in or not.";
    page.single("holdfast_connections", Kind::Gauge, help, facts.connections);
    let help = "Connections that this node reset because a command could not be told to have ended, or its lease generation was over.";
    page.single(
        "holdfast_connections_reset_total",
        Kind::Counter,
        help,
        facts.traffic.resets(),
    );
}

/// Latencies, bytes and outcomes at this node, by extent or by initiator.
fn traffic(page: &mut Page, label: &str, meters: &[(&str, &Meter)]) {
    let name = format!("holdfast_{label}_operation_seconds");
    let help = "From the arrival of a command at this node until its answer; commands that are forwarded to the primary included.";
    page.family(&name, Kind::Histogram, help);
    let readings = || {
        meters.iter().flat_map(|(of, meter)| {
            let read = |(operation, word)| Some((*of, word, meter.read(operation)?));
            Operation::ALL.into_iter().filter_map(read)
        })
    };
    for (of, word, reading) in readings() {
        let ends = BUCKETS_US
            .iter()
            .map(|end| format!("{}", Duration::from_micros(*end).as_secs_f64()));
        let mut sum = 0;
        for (end, count) in ends.chain(["+Inf".to_owned()]).zip(reading.buckets) {
            sum += count;
            let labels = [(label, of), ("operation", word), ("le", end.as_str())];
            page.sample(&format!("{name}_bucket"), &labels, sum);
        }
        page.sample(
            &format!("{name}_sum"),
            &[(label, of), ("operation", word)],
            reading.seconds,
        );
        page.sample(
            &format!("{name}_count"),
            &[(label, of), ("operation", word)],
            reading.count(),
        );
    }
    let name = format!("holdfast_{label}_transferred_bytes_total");
    page.family(
        &name,
        Kind::Counter,
        "Read or written by commands that succeeded.",
    );
    for (of, word, reading) in readings() {
        page.sample(&name, &[(label, of), ("operation", word)], reading.bytes);
    }
    let name = format!("holdfast_{label}_operations_total");
    page.family(&name, Kind::Counter, "Operations by how they ended.");
    for (of, meter) in meters {
        for (word, count) in meter.outcomes() {
            page.sample(&name, &[(label, of), ("outcome", word)], count);
        }
    }
}

#[cfg(test)]
#[path = "page_test.rs"]
mod tests;
