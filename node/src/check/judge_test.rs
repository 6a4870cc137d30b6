//! What measurements mean, without any.

use super::super::look::Login;
use super::super::way::Sizes;
use super::*;
use crate::status::{PortalStatus, TargetStatus, sample};

const LEASE: Duration = Duration::from_millis(600);

fn way(to: &str, network: Network, probed: Option<Probed>) -> Way {
    Way {
        to: to.into(),
        network,
        link: 0,
        address: "10.0.0.2:7400".parse().unwrap(),
        unreached: None,
        probed,
        unprobed: None,
    }
}

fn probed(round_trip_us: u64, passes: usize) -> Probed {
    Probed {
        round_trip_us,
        asked: 5,
        answered: 5,
        sizes: Sizes { route: 9000, passes },
    }
}

fn look(ways: Vec<Way>) -> NodeLook {
    NodeLook {
        version: "0.1.0".into(),
        ways,
        ..NodeLook::default()
    }
}

fn looks(all: impl IntoIterator<Item = (&'static str, Looked)>) -> BTreeMap<String, Looked> {
    all.into_iter()
        .map(|(name, look)| (name.to_owned(), look))
        .collect()
}

/// a and b, with every way between them, and both measured with this.
fn pair(probed: Probed) -> BTreeMap<String, Looked> {
    let ways = |to| {
        vec![
            way(to, Network::Raft, None),
            way(to, Network::Heartbeat, Some(probed)),
            way(to, Network::Replication, Some(probed)),
        ]
    };
    looks([("a", Ok(look(ways("b")))), ("b", Ok(look(ways("a"))))])
}

fn not_ok(lines: &[CheckLine]) -> Vec<(&str, &str, Verdict)> {
    let lines = lines.iter().filter(|line| line.verdict != Verdict::Ok);
    lines
        .map(|line| (line.check.as_str(), line.about.as_str(), line.verdict))
        .collect()
}

#[test]
fn a_pair_that_is_well_has_a_line_for_each_network_and_none_to_look_at() {
    let lines = ways(&pair(probed(200, 9000)), LEASE);
    assert!(not_ok(&lines).is_empty(), "{lines:#?}");
    let about: Vec<(&str, &str)> = lines
        .iter()
        .map(|line| (line.check.as_str(), line.about.as_str()))
        .collect();
    assert_eq!(
        about,
        [
            ("reach", "a - b, raft"),
            ("round trip", "a - b, heartbeat"),
            ("packets", "a - b, heartbeat"),
            ("round trip", "a - b, replication"),
            ("packets", "a - b, replication")
        ]
    );
    assert!(lines.iter().all(|line| line.advice.is_none()));
}

#[test]
fn a_cut_jumbo_frame_is_told_in_the_direction_in_which_it_is_cut() {
    let mut looks = pair(probed(200, 9000));
    if let Some(Ok(look)) = looks.get_mut("a") {
        look.ways[2].probed = Some(probed(200, 1500));
    }
    let lines = ways(&looks, LEASE);
    assert_eq!(
        not_ok(&lines),
        [("packets", "a -> b, replication", Verdict::Failed)]
    );
    let line = lines.iter().find(|line| line.verdict == Verdict::Failed).unwrap();
    assert!(
        line.found.contains("9000 bytes") && line.found.contains("above 1500"),
        "{line:?}"
    );
    assert!(line.advice.as_ref().unwrap().contains("MTU of 9000"), "{line:?}");
}

#[test]
fn each_of_several_links_has_lines_of_its_own() {
    let mut looks = pair(probed(200, 9000));
    if let Some(Ok(look)) = looks.get_mut("a") {
        look.ways.push(Way {
            link: 1,
            unreached: Some("timed out".into()),
            ..way("b", Network::Replication, None)
        });
    }
    let lines = ways(&looks, LEASE);
    assert_eq!(
        not_ok(&lines),
        [("reach", "a -> b, replication link 2", Verdict::Failed)]
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.about == "a - b, replication")
            .count(),
        2
    );
}

#[test]
fn interfaces_of_two_sizes_are_no_cut() {
    let mut looks = pair(probed(200, 9000));
    for (name, route, passes) in [("a", 9000, 1500), ("b", 1500, 1500)] {
        if let Some(Ok(look)) = looks.get_mut(name) {
            let sizes = Sizes { route, passes };
            look.ways[2].probed = Some(Probed {
                sizes,
                ..probed(200, passes)
            });
        }
    }
    let lines = ways(&looks, LEASE);
    assert_eq!(
        not_ok(&lines),
        [("packets", "a -> b, replication", Verdict::Warning)]
    );
}

#[test]
fn a_round_trip_is_held_against_heartbeats_and_leases() {
    let verdict = |micros, lost| round_trip("x", micros, lost, LEASE).verdict;
    assert_eq!(verdict(24_999, 0), Verdict::Ok);
    assert_eq!(verdict(25_000, 0), Verdict::Warning);
    assert_eq!(verdict(299_999, 0), Verdict::Warning);
    assert_eq!(verdict(300_000, 0), Verdict::Failed);
    assert_eq!(verdict(100, 1), Verdict::Warning);
}

#[test]
fn an_address_that_does_not_answer_and_probes_that_do_not_pass_are_told_apart() {
    let mut looks = pair(probed(200, 9000));
    if let Some(Ok(look)) = looks.get_mut("a") {
        look.ways[1] = Way {
            unreached: Some("connection refused".into()),
            ..way("b", Network::Heartbeat, None)
        };
        look.ways[2] = Way {
            unprobed: Some("timed out".into()),
            ..way("b", Network::Replication, None)
        };
    }
    let lines = ways(&looks, LEASE);
    assert_eq!(
        not_ok(&lines),
        [
            ("reach", "a -> b, heartbeat", Verdict::Failed),
            ("packets", "a -> b, replication", Verdict::Warning)
        ]
    );
}

#[test]
fn a_node_that_is_gone_is_one_line_and_one_that_others_reach_is_not_gone() {
    let lost = |to| Way {
        unreached: Some("no answer".into()),
        ..way(to, Network::Raft, None)
    };
    let gone = || Err(MeetError::Failed("no answer".into()));
    let silent = || way("b", Network::Heartbeat, None);
    let all = looks([
        (
            "a",
            Ok(look(vec![lost("b"), silent(), way("w", Network::Raft, None)])),
        ),
        ("b", gone()),
        ("w", Ok(look(vec![lost("b"), way("a", Network::Raft, None)]))),
    ]);
    assert_eq!(not_ok(&nodes("a", &all)), [("node", "b", Verdict::Failed)]);
    assert!(not_ok(&ways(&all, LEASE)).is_empty());
    let partial = looks([
        ("a", Ok(look(vec![lost("b")]))),
        ("b", gone()),
        ("w", Ok(look(vec![way("b", Network::Raft, None)]))),
    ]);
    assert_eq!(
        not_ok(&ways(&partial, LEASE)),
        [("reach", "a -> b, raft", Verdict::Failed)]
    );
    let earlier = looks([("a", Ok(look(Vec::new()))), ("b", Err(MeetError::Earlier))]);
    assert_eq!(not_ok(&nodes("a", &earlier)), [("node", "b", Verdict::Warning)]);
}

#[test]
fn clocks_are_told_apart_only_by_more_than_the_measurement_may_be_off() {
    let clock = |ahead_us, within_us| ClockLook {
        of: "b".into(),
        ahead_us,
        within_us,
    };
    assert!(clock_line("a", &clock(1_999_999, 0)).is_none());
    assert!(clock_line("a", &clock(2_500_000, 600_000)).is_none());
    let line = clock_line("a", &clock(-3_000_000, 100)).unwrap();
    assert_eq!(line.verdict, Verdict::Warning);
    assert!(line.found.contains("b is 3000 ms behind that of a"), "{line:?}");
    // The more exact of two measurements counts.
    let with = |of: &str, ahead_us, within_us| NodeLook {
        clocks: vec![ClockLook {
            of: of.into(),
            ..clock(ahead_us, within_us)
        }],
        ..look(Vec::new())
    };
    let both = looks([
        ("a", Ok(with("b", 5_000_000, 10))),
        ("b", Ok(with("a", 0, 9_000_000))),
    ]);
    assert_eq!(not_ok(&clocks(&both)).len(), 1);
    let fine = looks([("a", Ok(with("b", 300, 10))), ("b", Ok(with("a", -290, 9)))]);
    let lines = clocks(&fine);
    assert!(
        matches!(&lines[..], [one] if one.about == "a, b" && one.verdict == Verdict::Ok),
        "{lines:?}"
    );
}

#[test]
fn releases_that_differ_are_told_with_who_has_which() {
    let newer = NodeLook {
        version: "0.2.0".into(),
        ..look(Vec::new())
    };
    let line = versions(&looks([("a", Ok(look(Vec::new()))), ("b", Ok(newer))])).unwrap();
    assert_eq!(
        (line.verdict, line.found.as_str()),
        (Verdict::Warning, "a at 0.1.0; b at 0.2.0")
    );
    assert_eq!(versions(&pair(probed(1, 9000))).unwrap().verdict, Verdict::Ok);
    assert!(versions(&looks([])).is_none());
}

/// A status of two data nodes and a witness with one target.
fn status() -> StatusDocument {
    let mut status = sample();
    let portal = |node: &str, address: &str| PortalStatus {
        node: node.into(),
        address: address.parse().unwrap(),
        group: 1,
    };
    status.portals = vec![portal("a", "10.0.0.1:3260"), portal("b", "10.0.0.2:3260")];
    status
}

#[test]
fn hosts_with_one_path_are_told_where_the_other_one_is_and_no_host_is_judged_by_half_of_what_there_is() {
    let status = status();
    let target: &TargetStatus = status.targets.first().unwrap();
    let with = |hosts: &[&str]| NodeLook {
        logins: hosts
            .iter()
            .map(|host| Login {
                initiator: (*host).into(),
                target: target.iqn.to_string(),
            })
            .collect(),
        ..look(Vec::new())
    };
    let one = looks([("a", Ok(with(&["x", "y"]))), ("b", Ok(with(&["x"])))]);
    let lines = hosts(&status, &one);
    assert_eq!(not_ok(&lines), [("hosts", "y", Verdict::Warning)]);
    assert!(
        lines[0].advice.as_ref().unwrap().contains("10.0.0.2:3260 (b)"),
        "{lines:?}"
    );
    let both = looks([("a", Ok(with(&["x"]))), ("b", Ok(with(&["x"])))]);
    assert!(matches!(&hosts(&status, &both)[..], [line] if line.verdict == Verdict::Ok));
    let half = looks([("a", Ok(with(&["x"]))), ("b", Err(MeetError::Earlier))]);
    assert!(hosts(&status, &half).is_empty());
    let mut sent_on = status.clone();
    sent_on.targets[0].access.redirect = true;
    assert!(not_ok(&hosts(&sent_on, &one)).is_empty());
}

#[test]
fn replicas_that_are_missing_are_told_and_a_lonely_one_is() {
    let whole = status().extents.remove(0);
    assert_eq!(replicas(&whole).verdict, Verdict::Ok, "{whole:?}");
    let mut missing = whole.clone();
    missing.replicas[1].state = ReplicaState::Resyncing;
    missing.in_sync.truncate(1);
    let line = replicas(&missing);
    assert!(
        line.verdict == Verdict::Warning && line.found.contains("b is being resynchronized"),
        "{line:?}"
    );
    let mut lonely = missing.clone();
    lonely.replicas.truncate(1);
    assert!(replicas(&lonely).found.contains("only replica"));
    let mut down = whole;
    down.served = false;
    assert_eq!(replicas(&down).verdict, Verdict::Failed);
}

#[test]
fn a_verdict_is_the_worst_line_and_each_line_is_one_line() {
    use super::super::CheckDocument;
    let status = status();
    let looks = pair(probed(30_000, 1500));
    let lines = judge(&Evidence {
        status: &status,
        lease: LEASE,
        looks: &looks,
    });
    let document = CheckDocument::new("c".into(), "a".into(), lines);
    assert_eq!(document.verdict, Verdict::Failed);
    assert_eq!(document.text().lines().count(), document.lines.len());
    assert!(document.trouble().unwrap().contains("failed"));
    assert!(
        CheckDocument::new("c".into(), "a".into(), Vec::new())
            .trouble()
            .is_none()
    );
}

#[test]
fn times_are_written_as_people_read_them() {
    for (micros, text) in [
        (40, "less than 0.1 ms"),
        (250, "0.2 ms"),
        (3_400, "3.4 ms"),
        (25_000, "25 ms"),
        (12_000_000, "12 s"),
    ] {
        assert_eq!(millis(micros), text);
    }
}
