//! Many initiators at once: none starves another, and those that never log in keep nobody out.

use std::time::Duration;

use bytes::Bytes;
use holdfast_iscsi::initiator::{Event, ScsiRequest};
use holdfast_iscsi::pdu::{Cdb, ScsiStatus};
use holdfast_types::TRANSFER_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::memory_test::Mood;
use super::rig_test::{Peer, Rig, cdb, eventually, sense};

const MIB: usize = 1 << 20;

async fn send_mib(peer: &mut Peer, count: usize) {
    for _ in 0..count {
        let data = Bytes::from(vec![3; MIB]);
        peer.send(ScsiRequest::write(0, cdb(0x8a, 0, 2048), data)).await;
    }
}

/// Answers of a noisy peer, until there are `count`: how many were GOOD, and how many TASK SET FULL.
async fn answers(peer: &mut Peer, count: usize) -> (usize, usize) {
    let (mut good, mut full) = (0, 0);
    while good + full < count {
        match peer.event().await {
            Ok(Event::Command(_, result)) if result.status == ScsiStatus::TASK_SET_FULL => full += 1,
            Ok(Event::Command(_, result)) => {
                assert_eq!(sense(&result), (0, 0, 0));
                good += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    (good, full)
}

/// Beside a quiet one a noisy session has one of its long commands in storage, some more waiting, and hears TASK SET FULL for the rest.
#[tokio::test]
async fn a_noisy_session_waits_for_its_share_and_a_quiet_one_goes_straight_in() {
    let rig = Rig::start().await;
    let (mut noisy, mut quiet) = (rig.peer(1).await, rig.peer(2).await);
    rig.memory.set_mood(Mood::Holding);
    let first = quiet.send_write(0, 1).await;
    rig.until_kept(1).await;
    let shares = rig.front.registry.shares();
    let noise = tokio::spawn(async move {
        send_mib(&mut noisy, 48).await;
        let all = answers(&mut noisy, 48).await;
        (noisy, all)
    });
    // The quiet one's, and one of the noisy one's.
    rig.until_kept(2).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.memory.kept(), 2);
    assert_eq!(shares.busy(), 2);
    let second = quiet.send_write(1, 2).await;
    rig.until_kept(3).await;
    rig.memory.set_mood(Mood::Sound);
    rig.memory.release(None);
    for _ in 0..2 {
        let (tag, result) = quiet.end().await;
        assert!(tag == first || tag == second);
        assert_eq!(sense(&result), (0, 0, 0));
    }
    let (noisy, (good, full)) = noise.await.unwrap();
    assert!(good >= 31 && full >= 1, "{good} GOOD, {full} TASK SET FULL");
    eventually("nothing is under way", || {
        shares.busy() == 0 && shares.bytes() == 0
    })
    .await;
    drop((noisy, quiet));
}

/// What a session had under way is counted no more when it is gone, however it went.
#[tokio::test]
async fn a_session_that_goes_leaves_nothing_counted() {
    let rig = Rig::start().await;
    let shares = rig.front.registry.shares();
    let mut peer = rig.peer(1).await;
    rig.memory.set_mood(Mood::Holding);
    for _ in 0..4 {
        // Short enough to come with the command.
        let data = Bytes::from(vec![3; 128 << 10]);
        peer.send(ScsiRequest::write(0, cdb(0x8a, 0, 256), data)).await;
    }
    rig.until_kept(4).await;
    assert_eq!(shares.bytes(), 512 << 10);
    drop(peer);
    eventually("it is gone", || rig.front.registry.len() == 0).await;
    eventually("nothing is counted", || shares.busy() == 0 && shares.bytes() == 0).await;
}

/// What an initiator has asked for and does not take is held for it, and counts until it is taken or the connection is gone.
#[tokio::test]
async fn answers_that_are_not_taken_count() {
    const READ: u32 = 4 << 20;
    let rig = Rig::start().await;
    let shares = rig.front.registry.shares();
    let mut deaf = rig.peer(1).await;
    for _ in 0..16 {
        deaf.initiator
            .command(ScsiRequest::read(0, cdb(0x88, 0, READ / 512), READ));
    }
    deaf.flush().await;
    eventually("answers wait", || {
        shares.bytes() == 0 && shares.unsent() >= 16 << 20
    })
    .await;
    for _ in 0..16 {
        deaf.end().await;
    }
    eventually("all of it is sent", || shares.unsent() == 0).await;
    for _ in 0..16 {
        deaf.initiator
            .command(ScsiRequest::read(0, cdb(0x88, 0, READ / 512), READ));
    }
    deaf.flush().await;
    eventually("answers wait again", || shares.unsent() >= 16 << 20).await;
    drop(deaf);
    eventually("it is gone", || rig.front.registry.len() == 0).await;
    assert_eq!(shares.unsent(), 0);
}

/// A VERIFY that sends one block, or none, counts for what it reads.
#[tokio::test]
async fn a_verify_counts_for_what_it_reads() {
    let rig = Rig::start().await;
    let shares = rig.front.registry.shares();
    let mut peer = rig.peer(1).await;
    rig.memory.set_mood(Mood::Holding);
    let largest = u64::from(TRANSFER_BYTES_MAX);
    let verify = |byte_check: u8| match cdb(0x8f, 0, TRANSFER_BYTES_MAX / 512) {
        Cdb::Short(mut bytes) => {
            bytes[1] = byte_check;
            Cdb::Short(bytes)
        }
        other => other,
    };
    peer.send(ScsiRequest::none(0, verify(0))).await;
    peer.send(ScsiRequest::write(0, verify(0x06), Bytes::from(vec![0; 512])))
        .await;
    rig.until_kept(2).await;
    assert_eq!(shares.bytes(), 2 * largest);
    rig.memory.release(None);
    for _ in 0..2 {
        assert_eq!(sense(&peer.end().await.1), (0, 0, 0));
    }
    eventually("nothing is counted", || shares.bytes() == 0).await;
}

/// Connections that do not log in make room for others, oldest first.
#[tokio::test]
async fn half_open_logins_keep_nobody_out() {
    const MANY: usize = 1024;
    let rig = Rig::start().await;
    let mut bystander = rig.peer(1).await;
    let mut oldest = TcpStream::connect(rig.portal).await.unwrap();
    oldest.write_all(&[0x43, 0x87]).await.unwrap();
    eventually("the oldest is there", || rig.front.registry.len() == 2).await;
    let mut others = Vec::new();
    for _ in 0..MANY {
        let mut stream = TcpStream::connect(rig.portal).await.unwrap();
        stream.write_all(&[0x43]).await.unwrap();
        others.push(stream);
    }
    let mut byte = [0];
    let end = tokio::time::timeout(super::rig_test::PATIENCE, oldest.read(&mut byte)).await;
    assert!(end.expect("the oldest is ended").is_err(), "by a reset");
    assert!(rig.front.registry.len() <= MANY + 2);
    assert_eq!(sense(&bystander.ready().await), (0, 0, 0));
    rig.peer(2).await;
}
