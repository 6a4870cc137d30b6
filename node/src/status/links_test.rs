//! What is told of links.

use super::*;

fn link(address: &str, up: bool, used: bool, error: Option<&str>) -> LinkStatus {
    LinkStatus {
        address: address.into(),
        up,
        used,
        failed: !up,
        error: error.map(str::to_owned),
    }
}

fn alarms_of(links: Vec<LinkStatus>) -> Vec<String> {
    let peer = ReplicationStatus {
        peer: "b".into(),
        moves: 1,
        links,
    };
    alarms(&ClusterState::default(), NodeId(1), &[peer], "a")
}

#[test]
fn a_second_link_in_use_and_a_dead_spare_are_told_by_name() {
    let fine = link("10.1.0.2:7401", true, true, None);
    let spare = link("10.2.0.2:7401", true, false, None);
    assert_eq!(alarms_of(vec![fine.clone(), spare]), Vec::<String>::new());
    let dead = link("10.2.0.2:7401", false, false, Some("connecting took too long"));
    assert_eq!(
        alarms_of(vec![fine, dead]),
        ["replication between a and b could not move to its second link: 10.2.0.2:7401 does not answer"]
    );
    let dead = link("10.1.0.2:7401", false, false, Some("does not answer"));
    let used = link("10.2.0.2:7401", true, true, None);
    assert_eq!(
        alarms_of(vec![dead, used.clone()]),
        ["replication between a and b runs over its second link: 10.1.0.2:7401 does not answer"]
    );
    let back = link("10.1.0.2:7401", true, false, None);
    assert!(alarms_of(vec![back, used])[0].contains("works again"));
}

/// A peer that is away is no trouble of links.
#[test]
fn links_to_a_peer_that_is_away_raise_no_alarm() {
    let down = |address| link(address, false, false, Some("the peer ended it"));
    let none = alarms_of(vec![down("10.1.0.2:7401"), down("10.2.0.2:7401")]);
    assert_eq!(none, Vec::<String>::new());
}
