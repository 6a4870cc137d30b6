//! What measurements mean: looks in, lines out. Nothing is measured here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_raft::consensus::MeetError;
use holdfast_types::{ByteSize, HEARTBEAT_EVERY};

use super::document::{CheckLine, Verdict};
use super::look::{ClockLook, Looked, Network, NodeLook, Way};
use super::way::Probed;
use crate::config::Role;
use crate::status::{ExtentStatus, ReplicaState, StatusDocument};

#[path = "judge_disk.rs"]
mod of_disk;

/// Clocks that are further apart are worth a line.
const CLOCKS_APART: Duration = Duration::from_secs(2);

/// All that is known.
pub(crate) struct Evidence<'a> {
    /// The cluster as the node sees it that was asked.
    pub(crate) status: &'a StatusDocument,
    /// The lease time in force.
    pub(crate) lease: Duration,
    /// What each member found.
    pub(crate) looks: &'a BTreeMap<String, Looked>,
}

/// All lines, what concerns everybody first.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Vec<CheckLine> {
    let Evidence { status, looks, .. } = evidence;
    let mut lines = quorum(status);
    lines.extend(nodes(&status.answered_by, looks));
    lines.extend(versions(looks));
    lines.extend(clocks(looks));
    lines.extend(ways(looks, evidence.lease));
    for (name, look) in seen(looks) {
        lines.extend(of_disk::lines(name, look.disk.as_ref()));
    }
    if status.quorum {
        lines.extend(status.extents.iter().map(replicas));
    }
    lines.extend(hosts(status, looks));
    lines
}

/// Those that could be asked.
fn seen(looks: &BTreeMap<String, Looked>) -> impl Iterator<Item = (&String, &NodeLook)> {
    looks
        .iter()
        .filter_map(|(name, look)| Some((name, look.as_ref().ok()?)))
}

fn millis(micros: u64) -> String {
    let (whole, tenths) = (micros / 1000, micros % 1000 / 100);
    match whole {
        0 if tenths == 0 => "less than 0.1 ms".to_owned(),
        0..10 => format!("{whole}.{tenths} ms"),
        10..10_000 => format!("{whole} ms"),
        _ => format!("{} s", whole / 1000),
    }
}

fn quorum(status: &StatusDocument) -> Vec<CheckLine> {
    let about = status.cluster.clone();
    if status.quorum {
        return vec![CheckLine::ok(
            "quorum",
            about,
            format!("{} hears a majority of voters", status.answered_by),
        )];
    }
    vec![CheckLine::not_ok(
        Verdict::Failed,
        ("quorum", about),
        format!("{} knows of none, so replicas are not judged", status.answered_by),
        "see 'holdfast status', and 'Links are cut' in docs/runbooks.md",
    )]
}

fn nodes(asked: &str, looks: &BTreeMap<String, Looked>) -> Vec<CheckLine> {
    let line = |(name, look): (&String, &Looked)| match look {
        Ok(_) => None,
        Err(MeetError::Earlier) => Some(CheckLine::not_ok(
            Verdict::Warning,
            ("node", name.clone()),
            "it runs an earlier release, which cannot look at itself",
            "bring all nodes to one release",
        )),
        Err(MeetError::Failed(why)) => Some(CheckLine::not_ok(
            Verdict::Failed,
            ("node", name.clone()),
            format!("it does not answer {asked} ({why}), so nothing is known of it"),
            "see that it runs, and 'A node is gone' in docs/runbooks.md",
        )),
    };
    looks.iter().filter_map(line).collect()
}

fn versions(looks: &BTreeMap<String, Looked>) -> Option<CheckLine> {
    let mut by_version: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, look) in seen(looks) {
        by_version.entry(&look.version).or_default().push(name);
    }
    let told: Vec<String> = by_version
        .iter()
        .map(|(version, names)| format!("{} at {version}", names.join(", ")))
        .collect();
    let about = "releases";
    match told.len() {
        0 => None,
        1 => Some(CheckLine::ok("version", about, told.concat())),
        _ => Some(CheckLine::not_ok(
            Verdict::Warning,
            ("version", about.into()),
            told.join("; "),
            "bring all nodes to one release: see 'Upgrade' in docs/runbooks.md",
        )),
    }
}

fn clocks(looks: &BTreeMap<String, Looked>) -> Vec<CheckLine> {
    // Each pair was measured from both sides: the more exact one counts.
    let mut pairs: BTreeMap<[&str; 2], (&str, &ClockLook)> = BTreeMap::new();
    for (name, look) in seen(looks) {
        for clock in &look.clocks {
            let mut pair = [name.as_str(), clock.of.as_str()];
            pair.sort_unstable();
            let best = pairs.entry(pair).or_insert((name, clock));
            if clock.within_us < best.1.within_us {
                *best = (name, clock);
            }
        }
    }
    if pairs.is_empty() {
        return Vec::new();
    }
    let apart: Vec<CheckLine> = pairs
        .values()
        .filter_map(|(by, clock)| clock_line(by, clock))
        .collect();
    if !apart.is_empty() {
        return apart;
    }
    let most = pairs
        .values()
        .map(|(_, clock)| clock.ahead_us.unsigned_abs() + clock.within_us);
    let names: BTreeSet<&str> = pairs.keys().flatten().copied().collect();
    let about = names.into_iter().collect::<Vec<_>>().join(", ");
    let found = format!("they differ by at most {}", millis(most.max().unwrap_or(0)));
    vec![CheckLine::ok("clock", about, found)]
}

/// Where a clock is off, for certain: what the measurement itself may be off is taken out.
pub(super) fn clock_line(by: &str, clock: &ClockLook) -> Option<CheckLine> {
    let apart = clock.ahead_us.unsigned_abs();
    let limit = u64::try_from(CLOCKS_APART.as_micros()).unwrap_or(u64::MAX);
    if apart.saturating_sub(clock.within_us) < limit {
        return None;
    }
    let word = if clock.ahead_us > 0 { "ahead of" } else { "behind" };
    Some(CheckLine::not_ok(
        Verdict::Warning,
        ("clock", format!("{}, {by}", clock.of)),
        format!(
            "the clock of {} is {} {word} that of {by}",
            clock.of,
            millis(apart)
        ),
        "have both follow the same NTP servers: leases and replication use no such clock, but the audit log, events, tokens and \
         certificates do",
    ))
}

/// Both directions of one network between two nodes.
type Pair<'a> = (BTreeSet<&'a str>, (Network, usize), Vec<(&'a str, &'a Way)>);

fn ways(looks: &BTreeMap<String, Looked>, lease: Duration) -> Vec<CheckLine> {
    let all: Vec<(&str, &Way)> = seen(looks)
        .flat_map(|(name, look)| look.ways.iter().map(move |way| (name.as_str(), way)))
        .collect();
    // A line says already that such a node is gone.
    let is_gone = |name: &str| {
        // A heartbeat address is reached where a probe was answered, others where a connection came about.
        let answers = |way: &Way| {
            way.unreached.is_none() && (way.network != Network::Heartbeat || way.probed.is_some())
        };
        let reached = |(_, way): &(&str, &Way)| way.to == name && answers(way);
        matches!(looks.get(name), Some(Err(_))) && !all.iter().any(reached)
    };
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    for (from, way) in all.iter().filter(|(_, way)| !is_gone(&way.to)) {
        let both = BTreeSet::from([*from, way.to.as_str()]);
        let link = (way.network, way.link);
        match pairs
            .iter_mut()
            .find(|(pair, of, _)| *pair == both && *of == link)
        {
            Some((.., ways)) => ways.push((from, way)),
            None => pairs.push((both, link, vec![(from, way)])),
        }
    }
    pairs.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    pairs.iter().flat_map(|pair| pair_lines(pair, lease)).collect()
}

fn pair_lines((names, (network, _), ways): &Pair<'_>, lease: Duration) -> Vec<CheckLine> {
    let mut lines: Vec<CheckLine> = ways
        .iter()
        .filter_map(|(from, way)| unreached(from, way))
        .collect();
    let names: Vec<&str> = names.iter().copied().collect();
    let label = ways.first().map(|(_, way)| way.label()).unwrap_or_default();
    let about = format!("{}, {label}", names.join(" - "));
    if *network == Network::Raft {
        if lines.is_empty() {
            lines.push(CheckLine::ok("reach", about, "connections come about"));
        }
        return lines;
    }
    let probed: Vec<&Probed> = ways.iter().filter_map(|(_, way)| way.probed.as_ref()).collect();
    if let Some(slowest) = probed.iter().max_by_key(|probed| probed.round_trip_us) {
        let lost = probed.iter().map(|probed| probed.lost()).sum();
        lines.push(round_trip(&about, slowest.round_trip_us, lost, lease));
    }
    let size_of = |name: &str| {
        let mut back = ways.iter().filter(|(from, _)| *from == name);
        back.find_map(|(_, way)| Some(way.probed.as_ref()?.sizes.route))
    };
    let packets: Vec<CheckLine> = ways
        .iter()
        .filter_map(|(from, way)| packets(from, way, size_of(&way.to)))
        .collect();
    if packets.is_empty() && !probed.is_empty() {
        let least = probed.iter().map(|probed| probed.sizes.passes).min().unwrap_or(0);
        let found = format!("packets of {least} bytes pass undivided, as large as they are sent");
        lines.push(CheckLine::ok("packets", about, found));
    }
    lines.extend(packets);
    lines
}

/// Where nobody answers at an address.
pub(super) fn unreached(from: &str, way: &Way) -> Option<CheckLine> {
    let why = way.unreached.as_ref()?;
    let Way {
        to, network, address, ..
    } = way;
    let protocol = match network {
        Network::Heartbeat => "UDP",
        Network::Raft | Network::Replication => "TCP",
    };
    let label = way.label();
    Some(CheckLine::not_ok(
        Verdict::Failed,
        ("reach", format!("{from} -> {to}, {label}")),
        format!("the {network} address {address} of {to} does not answer {from} ({why})"),
        format!("see that {protocol} from {from} to {address} passes: firewalls, cables, switches"),
    ))
}

/// `lost` small probes had no answer.
pub(super) fn round_trip(about: &str, micros: u64, lost: u32, lease: Duration) -> CheckLine {
    let took = Duration::from_micros(micros);
    let line = |verdict, found: String, advice: &str| {
        CheckLine::not_ok(verdict, ("round trip", about.to_owned()), found, advice)
    };
    let told = millis(micros);
    if took >= lease / 2 {
        return line(
            Verdict::Failed,
            format!(
                "{told}, and the lease time is {} ms: leases run out for no other reason",
                lease.as_millis()
            ),
            "use a faster way between them, or raise lease-time with 'holdfast cluster set'",
        );
    }
    if took >= HEARTBEAT_EVERY / 2 {
        return line(
            Verdict::Warning,
            format!(
                "{told}: heartbeats go out every {} ms, and every write waits that long for each replica",
                HEARTBEAT_EVERY.as_millis()
            ),
            "use a faster way between them: this is made for one site",
        );
    }
    if lost > 0 {
        return line(
            Verdict::Warning,
            format!("{told}, and {lost} of the probes were lost"),
            "look at the interfaces' and switches' error counters, and check again",
        );
    }
    CheckLine::ok("round trip", about, told)
}

/// Where packets that are sent do not pass, or where nothing is known of it. `other` is what the other end's packets have, if that is
/// known: TCP sends none that are larger.
pub(super) fn packets(from: &str, way: &Way, other: Option<usize>) -> Option<CheckLine> {
    let Way { to, address, .. } = way;
    let about = ("packets", format!("{from} -> {to}, {}", way.label()));
    if let Some(why) = &way.unprobed {
        return Some(CheckLine::not_ok(
            Verdict::Warning,
            about,
            format!("which sizes pass is not known: probes over UDP to {address} have no answer ({why})"),
            format!("let UDP from {from} to {address} pass, too; only checks use it"),
        ));
    }
    let sizes = way.probed.as_ref()?.sizes;
    let (sent, passes) = (sizes.route, sizes.passes);
    if passes >= sizes.tried() {
        return None;
    }
    let advice = format!(
        "set every interface and switch between them to an MTU of {sent}, or that of {from}'s interface to {passes}"
    );
    let (verdict, found) = match other {
        Some(other) if other <= passes => (
            Verdict::Warning,
            format!(
                "{from} would send packets of {sent} bytes to {address}, and {to} takes {other}: connections agree on the smaller ones"
            ),
        ),
        _ => (
            Verdict::Failed,
            format!(
                "{from} sends packets of {sent} bytes to {address}, and those above {passes} get lost on the way"
            ),
        ),
    };
    Some(CheckLine::not_ok(verdict, about, found, advice))
}

fn replicas(extent: &ExtentStatus) -> CheckLine {
    let name = &extent.name;
    let line = |verdict, found: String, advice: String| {
        CheckLine::not_ok(verdict, ("replicas", name.clone()), found, advice)
    };
    let state = |state| match state {
        ReplicaState::InSync => "in sync",
        ReplicaState::Resyncing => "being resynchronized",
        ReplicaState::Offline => "offline",
        ReplicaState::Fenced => "fenced",
    };
    let missing: Vec<String> = extent
        .replicas
        .iter()
        .filter(|replica| replica.state != ReplicaState::InSync)
        .map(|replica| format!("{} is {}", replica.node, state(replica.state)))
        .collect();
    if !extent.served {
        let found = "nobody serves it at present".to_owned();
        return line(
            Verdict::Failed,
            found,
            "see 'holdfast status' for the reason".to_owned(),
        );
    }
    if !missing.is_empty() {
        return line(
            Verdict::Warning,
            format!(
                "in sync on {} only: {}",
                extent.in_sync.join(", "),
                missing.join(", ")
            ),
            "see 'holdfast status' for how far it is".to_owned(),
        );
    }
    if extent.replicas.len() < 2 {
        return line(
            Verdict::Warning,
            format!(
                "its only replica is on {}, and is lost with it",
                extent.in_sync.join(", ")
            ),
            format!("give it another one: 'holdfast extent replicas {name} NODE,NODE'"),
        );
    }
    CheckLine::ok(
        "replicas",
        name.clone(),
        format!("in sync on {}", extent.in_sync.join(", ")),
    )
}

/// Hosts that lose a disk with one node, though another one could show it to them.
fn hosts(status: &StatusDocument, looks: &BTreeMap<String, Looked>) -> Vec<CheckLine> {
    let is_data = |name: &str| {
        let mut nodes = status.nodes.iter();
        nodes.any(|node| node.name == name && node.role == Role::Data)
    };
    // Of a node that could not be asked nobody knows who is logged in there.
    let data: Vec<(&String, &NodeLook)> = seen(looks).filter(|(name, _)| is_data(name)).collect();
    let expected = status.nodes.iter().filter(|node| node.role == Role::Data).count();
    if expected < 2 || data.len() < expected {
        return Vec::new();
    }
    let mut through: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (name, look) in &data {
        for login in &look.logins {
            let places = through.entry((&login.initiator, &login.target)).or_default();
            places.insert(name.as_str());
        }
    }
    let hosts: BTreeSet<&str> = through.keys().map(|(host, _)| *host).collect();
    let alone = through.into_iter().filter(|(_, places)| places.len() < 2);
    let lines: Vec<CheckLine> = alone
        .map(|(who, places)| host_line(status, who, &places))
        .filter(|line| line.verdict != Verdict::Ok)
        .collect();
    if lines.is_empty() && !hosts.is_empty() {
        let found = format!(
            "{} logged in, none through one node alone without being sent on",
            hosts.len()
        );
        return vec![CheckLine::ok("hosts", "paths", found)];
    }
    lines
}

fn host_line(status: &StatusDocument, (host, target): (&str, &str), places: &BTreeSet<&str>) -> CheckLine {
    let redirects = |iqn: &str| {
        let mut targets = status.targets.iter();
        targets.any(|target| target.iqn.as_str() == iqn && target.access.redirect)
    };
    let place = places.iter().copied().next().unwrap_or_default();
    if redirects(target) {
        return CheckLine::ok("hosts", host, format!("{target} sends it on from {place}"));
    }
    let portals = status.portals.iter().filter(|portal| portal.node != place);
    let portals: Vec<String> = portals
        .map(|portal| format!("{} ({})", portal.address, portal.node))
        .collect();
    CheckLine::not_ok(
        Verdict::Warning,
        ("hosts", host.to_owned()),
        format!("it has {target} through {place} only, and loses its disks with {place}"),
        format!(
            "log in at {}, too, and use multipath ('holdfast advise')",
            portals.join(", ")
        ),
    )
}

/// Room on a disk, for people.
pub(super) fn bytes(bytes: u64) -> String {
    ByteSize(bytes >> 20 << 20).to_string()
}

#[cfg(test)]
#[path = "judge_test.rs"]
mod tests;
