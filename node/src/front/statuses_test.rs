//! What storage is told of statuses of COMPARE AND WRITEs (W6).

use bytes::Bytes;
use holdfast_drill::cdb;
use holdfast_drill::initiator::Session;
use holdfast_replication::core::api::StatusNews;
use holdfast_types::Lba;

use super::rig_test::{Rig, eventually};

async fn swap(session: &Session, old: u8, new: u8) {
    let data: Bytes = [[old; 512], [new; 512]].concat().into();
    let cdb = cdb::compare_and_write(Lba(3), 1);
    session.command_out(cdb, data).await.unwrap();
}

/// A status counts as arrived once a later PDU of the initiator says so, and what is not acknowledged at the end of the session never is.
#[tokio::test]
async fn w6_a_status_is_acknowledged_by_what_comes_next_or_lost_with_its_session() {
    let rig = Rig::start().await;
    let session = rig.session(1).await;
    assert!(session.inquiry(None).await.is_ok());
    let _heard: Result<_, _> = session.command(cdb::test_unit_ready(), None).await;
    swap(&session, 0, 1).await;
    assert_eq!(rig.memory.statuses(), []);
    session.ping().await.unwrap();
    let news = rig.memory.statuses();
    let [StatusNews::Acknowledged(name)] = news[..] else {
        panic!("{news:?}")
    };
    swap(&session, 1, 2).await;
    drop(session);
    eventually("the session has ended", || rig.memory.statuses().len() > 1).await;
    let ended = StatusNews::Ended(name.session);
    assert_eq!(rig.memory.statuses(), [StatusNews::Acknowledged(name), ended]);
}

/// One that did not take effect, or is none, is nothing to tell of.
#[tokio::test]
async fn w6_a_session_without_a_compare_and_write_tells_nothing() {
    let rig = Rig::start().await;
    let session = rig.session(1).await;
    let _heard: Result<_, _> = session.command(cdb::test_unit_ready(), None).await;
    session.ping().await.unwrap();
    drop(session);
    eventually("the session has ended", || {
        rig.front.registry.sessions().is_empty()
    })
    .await;
    assert_eq!(rig.memory.statuses(), []);
}
