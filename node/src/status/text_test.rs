use super::super::document::*;
use super::*;
use holdfast_raft::model::ClusterId;
use holdfast_types::{ExtentId, Naa};

/// The target of the pair.
fn target() -> TargetStatus {
    let group = |node: &str, id, state: &str| GroupStatus {
        node: node.into(),
        id,
        state: state.into(),
        preferred: node == "a",
    };
    TargetStatus {
        iqn: "iqn.2026-11.example:demo".parse().unwrap(),
        luns: vec![LunStatus {
            lun: 0,
            extent: "disk".into(),
            groups: vec![
                group("a", 1, "active/optimized"),
                group("b", 2, "active/non-optimized"),
            ],
        }],
        access: Default::default(),
    }
}

/// A healthy pair.
pub(crate) fn sample() -> StatusDocument {
    let id = ExtentId::from_u128(7);
    let node = |name: &str, role| NodeStatus {
        name: name.into(),
        role,
        state: NodeState::Up,
        lease: true,
        voter: true,
    };
    let replica = |node: &str| ReplicaStatus {
        node: node.into(),
        state: ReplicaState::InSync,
        applied_lsn: 9,
        resync: None,
        scrub: None,
        retiring: false,
    };
    StatusDocument {
        cluster: "demo".into(),
        health: Health::Ok,
        reasons: vec![],
        alarms: vec![],
        sessions: vec![],
        quorum: true,
        leader: Some("a".into()),
        revision: 17,
        answered_by: "a".into(),
        nodes: vec![
            node("a", crate::config::Role::Data),
            node("b", crate::config::Role::Data),
            node("w", crate::config::Role::Witness),
        ],
        extents: vec![ExtentStatus {
            name: "disk".into(),
            id,
            naa: Naa::of(id).to_string(),
            size_bytes: 1 << 30,
            block_size: 512,
            write_cache: false,
            confirmed_reads: Some(false),
            thin: Some(true),
            on_devices: false,
            secondary: Some(Secondary::NonOptimized),
            epoch: 3,
            preferred: Some("a".into()),
            primary: Some("a".into()),
            served: true,
            in_sync: vec!["a".into(), "b".into()],
            reservation: None,
            replicas: vec![replica("a"), replica("b")],
            scrub: None,
        }],
        targets: vec![target()],
        access: Default::default(),
        portals: vec![],
        cluster_id: Some(ClusterId(1)),
        isns: vec![],
        replication: vec![],
        takeovers: vec![],
        losses: vec![],
    }
}

#[test]
fn a_healthy_pair_says_so_in_a_sentence() {
    assert_eq!(summary(&sample()), "Healthy: every block is on a and b.");
    let all = text(&sample());
    assert!(all.contains("disk      1 GiB      a         3"), "{all}");
    assert!(all.contains("group 2 (b) active/non-optimized"), "{all}");
}

#[test]
fn watchers_hear_what_changed() {
    let before = sample();
    assert_eq!(changes(&before, &before), Vec::<String>::new());
    let mut after = sample();
    after.nodes[0].state = NodeState::Down;
    after.leader = Some("w".into());
    after.health = Health::Degraded;
    after.reasons = vec!["a is down".into()];
    after.extents[0].epoch = 4;
    after.extents[0].primary = Some("b".into());
    after.extents[0].in_sync = vec!["b".into()];
    let resync = ResyncStatus {
        done: 0.25,
        bytes_left: 3 << 28,
        rate: 0,
    };
    after.extents[0].replicas[0].resync = Some(resync);
    assert_eq!(
        changes(&before, &after),
        [
            "a is not heard any more",
            "w leads the cluster now",
            "disk: epoch 4 begins, b is primary",
            "disk: a is out of the in-sync set",
            "disk: resync of a at 25 %, 768 MiB left",
            "Degraded: a is down.",
        ]
    );
    assert_eq!(changes(&after, &after), Vec::<String>::new());
}

#[test]
fn the_last_scrub_is_told_with_what_it_found() {
    let mut status = sample();
    let scrub = |asked_for, last| Some(ScrubStatus { asked_for, last });
    status.extents[0].scrub = scrub(false, None);
    assert!(!extents_text(&status).contains("scrub"));
    status.extents[0].scrub = scrub(true, None);
    assert!(extents_text(&status).contains("a scrub was asked for\n"));
    let mut last = ScrubResult {
        ended_unix_seconds: 0,
        took_seconds: 16,
        bad_blocks: 0,
        repaired_blocks: 0,
        lost_blocks: 0,
        diverged_blocks: 0,
    };
    status.extents[0].scrub = scrub(false, Some(last.clone()));
    let text = extents_text(&status);
    assert!(text.contains(" days ago: nothing bad\n"), "{text}");
    (
        last.bad_blocks,
        last.repaired_blocks,
        last.lost_blocks,
        last.diverged_blocks,
    ) = (9, 8, 1, 16);
    status.extents[0].scrub = scrub(true, Some(last));
    let text = extents_text(&status);
    let found = "9 bad blocks, 8 of them repaired, 1 LOST ON EVERY REPLICA, 16 IN WHICH REPLICAS DIFFERED; another one was asked for\n";
    assert!(text.contains(found), "{text}");
}
