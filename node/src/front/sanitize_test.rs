//! SANITIZE over a session: answered at its end, or at once.

use bytes::Bytes;
use holdfast_iscsi::initiator::ScsiRequest;
use holdfast_iscsi::pdu::{Cdb, TaskFunction, TaskResult};
use holdfast_raft::model::{Command, UnitCall};
use holdfast_scsi::reservation::UnitChange;
use holdfast_types::UnitVersion;

use super::rig_test::{A, EXTENT, Peer, RUN, Rig, sense};

const IN_PROGRESS: (u8, u8, u8) = (0x02, 0x04, 0x1b);

/// BLOCK ERASE, at once with IMMED.
fn erase(immediate: bool) -> ScsiRequest {
    let mut bytes = [0; 16];
    (bytes[0], bytes[1]) = (0x48, 0x02 | u8::from(immediate) << 7);
    ScsiRequest::none(0, Cdb::Short(bytes))
}

/// What the primary commits at the end.
fn over(rig: &Rig, failed: bool) {
    let cluster = rig.cluster.lock().unwrap();
    let running = cluster.extents[&EXTENT].unit.sanitize.running().unwrap().clone();
    drop(cluster);
    rig.apply(&Command::Unit {
        call: UnitCall {
            node: A,
            incarnation: RUN,
            serial: 1 << 40,
        },
        extent: EXTENT,
        by: running.by,
        change: UnitChange::SanitizeOver {
            begun: running.begun,
            failed,
        },
    });
}

async fn two() -> (Rig, Peer, Peer) {
    let rig = Rig::start().await;
    let (one, other) = (rig.peer(1).await, rig.peer(2).await);
    (rig, one, other)
}

#[tokio::test]
async fn without_immed_it_is_answered_when_all_blocks_are_gone_through() {
    let (rig, mut one, mut other) = two().await;
    let tag = one.send(erase(false)).await;
    assert!(one.is_silent().await);
    assert_eq!(sense(&other.ready().await), IN_PROGRESS);
    assert_eq!(
        rig.front.state.borrow().admits(EXTENT),
        None,
        "nor parts of copies"
    );
    over(&rig, false);
    let (ended, result) = one.end().await;
    assert_eq!((ended, sense(&result)), (tag, (0, 0, 0)));
    assert_eq!(sense(&other.ready().await), (0, 0, 0));
    assert!(rig.front.state.borrow().admits(EXTENT) > Some(UnitVersion(0)));
}

/// A host with two paths goes on through the other one.
#[tokio::test]
async fn i13_it_is_answered_once_every_node_knows_that_it_is_over() {
    let (rig, mut one, mut other) = two().await;
    let tag = one.send(erase(false)).await;
    assert!(one.is_silent().await);
    rig.set_behind(true);
    over(&rig, false);
    assert!(
        one.is_silent().await,
        "another node would still find the unit shut"
    );
    assert_eq!(sense(&other.ready().await), (0, 0, 0));
    rig.set_behind(false);
    let (ended, result) = one.end().await;
    assert_eq!((ended, sense(&result)), (tag, (0, 0, 0)));
}

#[tokio::test]
async fn with_immed_it_is_answered_at_once_and_a_failure_is_told_later() {
    let (rig, mut one, mut other) = two().await;
    assert_eq!(sense(&one.command(erase(true)).await), (0, 0, 0));
    assert_eq!(sense(&one.ready().await), IN_PROGRESS);
    over(&rig, true);
    assert_eq!(sense(&other.ready().await), (0x03, 0x31, 0x03));
}

#[tokio::test]
async fn a_failure_is_the_answer_of_who_waits() {
    let (rig, mut one, _other) = two().await;
    one.send(erase(false)).await;
    assert!(one.is_silent().await);
    over(&rig, true);
    assert_eq!(sense(&one.end().await.1), (0x03, 0x31, 0x03));
}

/// The command can be aborted, what it began goes on.
#[tokio::test]
async fn an_abort_ends_the_wait_alone() {
    let (rig, mut one, mut other) = two().await;
    let tag = one.send(erase(false)).await;
    assert!(one.is_silent().await);
    let abort = one.manage(TaskFunction::ABORT_TASK, Some(tag)).await;
    assert_eq!(one.managed(abort).await, TaskResult::COMPLETE);
    assert_eq!(sense(&other.ready().await), IN_PROGRESS);
    over(&rig, false);
    assert!(one.is_silent().await, "it was aborted");
    assert_eq!(sense(&one.ready().await), (0, 0, 0));
}

/// What another session had open ends, and its initiator hears why.
#[tokio::test]
async fn i13_open_commands_of_others_end() {
    let (rig, mut one, mut other) = two().await;
    rig.memory.set_mood(super::memory_test::Mood::Holding);
    other.send_write(0, 7).await;
    rig.until_kept(1).await;
    one.send(erase(false)).await;
    assert!(one.is_silent().await);
    assert_eq!(sense(&other.ready().await), (0x06, 0x2f, 0x00));
    over(&rig, false);
    let list = Bytes::from_static(&[0x01, 0, 0, 1, 0xaa]);
    let mut bytes = [0; 16];
    (bytes[0], bytes[1], bytes[8]) = (0x48, 0x01, 9);
    assert_eq!(
        sense(
            &other
                .command(ScsiRequest::write(0, Cdb::Short(bytes), list))
                .await
        ),
        (0x05, 0x0e, 0x03),
        "fewer bytes than the CDB says"
    );
}
