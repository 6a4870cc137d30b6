//! How connections end, and what may not be carried out any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_iscsi::initiator::{Event, ScsiRequest};
use holdfast_raft::model::UnitCall;
use holdfast_scsi::reservation::UnitChange;
use holdfast_types::{Isid, Nexus, NodeId, OpOutcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::memory_test::Mood;
use super::rig_test::{A, B, EXTENT, Ending, PATIENCE, Peer, Rig, cdb, eventually, sense, target};

/// RFC 7143, 6.3.5: a login with the ISID of a session ends that session's connection and is answered then.
#[tokio::test]
async fn reinstatement_resets_the_old_connection() {
    let rig = Rig::start().await;
    let mut old = rig.peer(1).await;
    let mut other = rig.peer(2).await;
    let mut new = rig.fresh(1).await;
    assert_eq!(old.ending().await, Ending::Reset);
    assert_eq!(sense(&new.ready().await), (6, 0x29, 0));
    assert_eq!(sense(&new.ready().await), (0, 0, 0));
    assert_eq!(sense(&other.ready().await), (0, 0, 0));
    assert_eq!(rig.front.registry.sessions().len(), 2);
}

/// F2: the new login is answered only after storage has confirmed the end of the old session's commands.
#[tokio::test]
async fn f2_reinstatement_waits_for_the_old_sessions_commands() {
    let rig = Rig::start().await;
    let mut old = rig.peer(1).await;
    rig.memory.set_mood(Mood::Deaf);
    old.send_write(0, 1).await;
    rig.until_kept(1).await;
    let mut new = Peer::dial(rig.portal, 1).await;
    assert!(new.is_silent().await);
    assert_eq!(old.ending().await, Ending::Reset);
    // A third login of the same session waits for both.
    let mut newest = Peer::dial(rig.portal, 1).await;
    assert!(newest.is_silent().await);
    assert_eq!(new.ending().await, Ending::Reset);
    assert!(newest.is_silent().await);
    rig.memory.release(None);
    newest.logged_in().await;
}

/// F2: when the end cannot be confirmed, the login is not answered either.
#[tokio::test]
async fn f2_reinstatement_that_cannot_be_confirmed_is_reset() {
    let rig = Rig::start().await;
    let mut old = rig.peer(1).await;
    rig.memory.set_mood(Mood::Deaf);
    old.send_write(0, 1).await;
    rig.until_kept(1).await;
    let mut new = Peer::dial(rig.portal, 1).await;
    assert!(new.is_silent().await);
    assert_eq!(old.ending().await, Ending::Reset);
    rig.jump(Duration::from_secs(6));
    assert_eq!(new.ending().await, Ending::Reset);
}

/// F2: a session that was reset since the cluster could not be asked is over, so that its initiator can come back.
#[tokio::test]
async fn f2_a_session_whose_question_had_no_answer_can_be_replaced() {
    let rig = Rig::start().await;
    let mut old = rig.peer(1).await;
    rig.cut_off(true);
    old.send(ScsiRequest::none(0, cdb(0x16, 0, 0))).await;
    assert_eq!(old.ending().await, Ending::Reset);
    rig.cut_off(false);
    let mut new = Peer::dial(rig.portal, 1).await;
    new.logged_in().await;
    eventually("the old one is gone", || rig.front.registry.len() == 1).await;
}

/// A connection that just ends has its commands aborted.
#[tokio::test]
async fn commands_of_a_lost_connection_are_aborted() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.memory.set_mood(Mood::Holding);
    peer.send_write(0, 1).await;
    rig.until_kept(1).await;
    drop(peer);
    rig.until_kept(0).await;
    eventually("the connection is gone", || rig.front.registry.len() == 0).await;
    assert_eq!(rig.memory.bytes(EXTENT, 0, 1), [0]);
}

/// L7: a connection belongs to one lease generation; what it sends under the next one is reset, unread.
#[tokio::test]
async fn l7_a_new_lease_generation_resets_connections_unread() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.lease(2);
    peer.send_write(0, 1).await;
    assert_eq!(peer.ending().await, Ending::Reset);
    assert_eq!(rig.memory.submitted(), 0);
    // Who comes now is served.
    let mut new = rig.peer(1).await;
    let write = new.send_write(0, 2).await;
    assert_eq!(new.end().await.0, write);
    assert_eq!(rig.memory.bytes(EXTENT, 0, 1), [2]);
}

/// L7: nor is a command carried out that was held when the generation changed, though the state that it waited for is there now.
#[tokio::test]
async fn l7_a_new_lease_generation_ends_held_commands() {
    let rig = Rig::start_without_primary().await;
    let mut peer = rig.peer(1).await;
    // The first would be told of the change, the second would be carried out.
    peer.send_write(0, 1).await;
    peer.send_write(1, 1).await;
    assert!(peer.is_silent().await);
    rig.lease(2);
    rig.reopen(A);
    assert_eq!(peer.ending().await, Ending::Reset);
    assert_eq!(rig.memory.submitted(), 0);
}

/// L7: a command that storage answers after the change is not answered.
#[tokio::test]
async fn l7_answers_of_an_older_generation_are_not_sent() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.memory.set_mood(Mood::Holding);
    peer.send_write(0, 1).await;
    rig.until_kept(1).await;
    rig.lease(2);
    rig.memory.release(None);
    assert_eq!(peer.ending().await, Ending::Reset);
}

/// L7: nothing that lay in a socket while the process was stopped is carried out.
#[tokio::test]
async fn l7_a_pause_resets_connections_unread() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.pause();
    peer.send_write(0, 1).await;
    assert_eq!(peer.ending().await, Ending::Reset);
    assert_eq!(rig.memory.submitted(), 0);
}

/// I8: without its lease for longer than commands are held, the node's ports refuse TCP; with it they open again.
#[tokio::test]
async fn i8_without_a_lease_portals_refuse_tcp() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.lose_lease();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(peer.is_silent().await, "a short loss costs nothing");
    rig.jump(Duration::from_secs(3));
    assert_eq!(peer.ending().await, Ending::Reset);
    eventually("the port refuses", || {
        let error = std::net::TcpStream::connect(rig.portal).err();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    })
    .await;
    rig.lease(1);
    eventually("the port is open", || {
        std::net::TcpStream::connect(rig.portal).is_ok()
    })
    .await;
    let mut peer = rig.peer(1).await;
    assert_eq!(sense(&peer.ready().await), (0, 0, 0));
}

/// I8: the initiator tries again elsewhere; it hears no error.
#[tokio::test]
async fn i8_what_cannot_be_carried_out_resets_the_connection() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.memory.set_mood(Mood::Answering(OpOutcome::Reset));
    peer.send_write(0, 1).await;
    assert_eq!(peer.ending().await, Ending::Reset);
    // An outcome that does not belong to the operation is a fault of ours.
    let mut peer = rig.peer(1).await;
    rig.memory.set_mood(Mood::Answering(OpOutcome::Done));
    peer.send(ScsiRequest::read(0, cdb(0x88, 0, 1), 512)).await;
    assert_eq!(peer.ending().await, Ending::Reset);
}

/// What is left of a connection after these bytes: whatever comes, until it ends.
async fn after(rig: &Rig, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect(rig.portal).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}

/// Garbage, a length beyond all limits and a login that never ends cost their own connection only.
#[tokio::test]
async fn misbehaving_peers_cost_their_own_connection_only() {
    let rig = Rig::start().await;
    let mut good = rig.peer(1).await;
    assert!(after(&rig, b"GET / HTTP/1.1\r\nHost: somebody\r\nUser-Agent: x\r\n\r\n").await);
    assert!(after(&rig, &[0xff; 4096]).await);
    let mut huge = [0; 48];
    (huge[0], huge[1]) = (0x43, 0x87);
    huge[5..8].fill(0xff);
    assert!(after(&rig, &huge).await);
    let mut command_first = [0; 48];
    (command_first[0], command_first[1]) = (0x01, 0x80);
    assert!(after(&rig, &command_first).await);
    assert_eq!(sense(&good.ready().await), (0, 0, 0));
    // In the full feature phase too.
    let mut bad = rig.peer(2).await;
    huge[0] = 0x01;
    bad.initiator.raw(Bytes::copy_from_slice(&huge));
    bad.flush().await;
    while bad.event().await.is_ok() {}
    assert_eq!(sense(&good.ready().await), (0, 0, 0));
    eventually("the bad ones are gone", || rig.front.registry.len() == 1).await;
}

#[tokio::test]
async fn a_half_open_login_ends_after_its_time() {
    let rig = Rig::start().await;
    let mut good = rig.peer(1).await;
    let mut half = TcpStream::connect(rig.portal).await.unwrap();
    half.write_all(&[0x43, 0x87, 0, 0]).await.unwrap();
    eventually("it is accepted", || rig.front.registry.len() == 2).await;
    rig.jump(Duration::from_secs(16));
    // Wakes it: its timer was set before the clock went forward.
    half.write_all(&[0]).await.unwrap();
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, half.read_to_end(&mut rest)).await.unwrap();
    assert!(read.is_err() || rest.is_empty());
    let pinged = good.ready().await;
    assert_eq!(sense(&pinged), (0, 0, 0));
}

/// An initiator that sends without reading is not served for ever, and does not keep others from it.
#[tokio::test]
async fn a_peer_that_does_not_read_does_not_stop_others() {
    let rig = Rig::start().await;
    let mut deaf = rig.peer(1).await;
    for _ in 0..100 {
        deaf.initiator
            .command(ScsiRequest::read(0, cdb(0x88, 0, 8192), 4 << 20));
    }
    deaf.flush().await;
    eventually("it is served as far as it goes", || rig.memory.submitted() >= 4).await;
    let mut good = rig.peer(2).await;
    assert_eq!(sense(&good.ready().await), (0, 0, 0));
    drop(deaf);
    eventually("it is gone", || rig.front.registry.len() == 1).await;
}

/// A node that ends says what it still has to say, and closes.
#[tokio::test]
async fn connections_are_closed_in_order_when_the_node_ends() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.front.registry.close_all();
    assert!(
        matches!(peer.event().await, Ok(Event::Async(..))),
        "it says that this is the end"
    );
    assert_eq!(peer.ending().await, Ending::Closed);
}

#[tokio::test]
async fn a_logout_is_answered_and_ends_the_session() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    peer.initiator.logout(holdfast_iscsi::pdu::LogoutReason::SESSION);
    peer.flush().await;
    assert!(matches!(peer.event().await, Ok(Event::LoggedOut(..))));
    assert_eq!(peer.ending().await, Ending::Closed);
    eventually("the session is gone", || rig.front.registry.sessions().is_empty()).await;
}

/// A front by itself, for initiators of others: `HOLDFAST_FRONT=127.0.0.1:3270 cargo test -p holdfast by_hand -- --ignored`. With
/// `HOLDFAST_FRONT_DELAY_MS` every operation takes that long. Ends after an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs for an hour, for initiators that are started by hand"]
async fn by_hand() {
    let portal = std::env::var("HOLDFAST_FRONT").unwrap_or_else(|_| "127.0.0.1:3270".to_owned());
    let rig = Rig::start_on(portal.parse().unwrap(), 1 << 30);
    rig.reopen(A);
    if let Some(delay) = std::env::var("HOLDFAST_FRONT_DELAY_MS")
        .ok()
        .and_then(|ms| ms.parse().ok())
    {
        rig.memory.set_mood(Mood::Slow(Duration::from_millis(delay)));
    }
    eprintln!("iscsi://{portal}/{}/0", super::rig_test::TARGET);
    tokio::time::sleep(Duration::from_secs(3600)).await;
}

/// A change of the unit's state by a nexus that has no session here.
fn unit_change(rig: &Rig, node: NodeId, change: UnitChange) {
    static SERIAL: AtomicU64 = AtomicU64::new(1 << 32);
    let by = Nexus {
        initiator: "iqn.2026-11.example:gone".parse().unwrap(),
        isid: Isid([1; 6]),
        target: target(),
        tpg: rig.cluster.lock().unwrap().nodes[&node].tpg,
    };
    rig.apply(&holdfast_raft::model::Command::Unit {
        call: UnitCall {
            node,
            incarnation: rig.front.incarnation,
            serial: SERIAL.fetch_add(1, Ordering::SeqCst),
        },
        extent: EXTENT,
        by,
        change,
    });
}

/// RESERVE ends with its nexus (SPC-2, 5.5.1), here by a commit that takes a moment: whoever comes after the end of the session waits for
/// it.
#[tokio::test]
async fn a_reservation_whose_session_has_ended_here_is_waited_out() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    let conflict = holdfast_iscsi::pdu::ScsiStatus::RESERVATION_CONFLICT;
    // The session of its holder is at the other node, and may well be there.
    unit_change(&rig, B, UnitChange::Reserve { node: B });
    assert_eq!(peer.ready().await.status, conflict);
    unit_change(&rig, B, UnitChange::NexusLost);
    unit_change(&rig, A, UnitChange::Reserve { node: A });
    let waits = peer.send(ScsiRequest::none(0, cdb(0, 0, 0))).await;
    assert!(peer.is_silent().await);
    unit_change(&rig, A, UnitChange::NexusLost);
    let (tag, result) = peer.end().await;
    assert_eq!((tag, sense(&result)), (waits, (0, 0, 0)));
    // A release that does not come is not waited for for ever.
    unit_change(&rig, A, UnitChange::Reserve { node: A });
    let waits = peer.send(ScsiRequest::none(0, cdb(0, 0, 0))).await;
    assert!(peer.is_silent().await);
    rig.jump(Duration::from_secs(4));
    let (tag, result) = peer.end().await;
    assert_eq!((tag, result.status), (waits, conflict));
}

/// I13: who hears that a host has logged out finds what it had reserved free, at whatever node.
#[tokio::test]
async fn i13_a_logout_is_answered_once_its_reservation_is_released() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    let reserved = peer.command(ScsiRequest::none(0, cdb(0x16, 0, 0))).await;
    assert_eq!(sense(&reserved), (0, 0, 0));
    let holder = || rig.cluster.lock().unwrap().extents[&EXTENT].unit.legacy.clone();
    assert!(holder().is_some());
    peer.initiator.logout(holdfast_iscsi::pdu::LogoutReason::SESSION);
    peer.flush().await;
    assert!(matches!(peer.event().await, Ok(Event::LoggedOut(..))));
    assert_eq!(holder(), None);
}
