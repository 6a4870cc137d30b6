//! EXTENDED COPY over a session, and operations that are refused at once.

use bytes::Bytes;
use holdfast_iscsi::initiator::ScsiRequest;
use holdfast_iscsi::pdu::{Cdb, TaskFunction, TaskResult};
use holdfast_types::{Naa, OpOutcome};

use super::memory_test::Mood;
use super::rig_test::{EXTENT, Ending, Rig, cdb, sense};

/// EXTENDED COPY(LID1), list identifier 5, within the unit.
fn copy(from: u8, to: u64, blocks: u8) -> ScsiRequest {
    let mut list = vec![5, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
    list.extend_from_slice(&[0xe4, 0, 0, 0, 1, 3, 0, 16]);
    list.extend_from_slice(&Naa::of(EXTENT).bytes());
    list.extend_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0]);
    list.extend_from_slice(&[0x02, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, blocks]);
    list.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, from]);
    list.extend_from_slice(&to.to_be_bytes());
    let mut bytes = [0; 16];
    (bytes[0], bytes[13]) = (0x83, 76);
    ScsiRequest::write(0, Cdb::Short(bytes), Bytes::from(list))
}

/// RECEIVE COPY RESULTS: the status of list identifier 5, and how many KiB were written.
async fn status(peer: &mut super::rig_test::Peer) -> Option<(u8, u8)> {
    let mut bytes = [0; 16];
    (bytes[0], bytes[2], bytes[13]) = (0x84, 5, 12);
    let result = peer.command(ScsiRequest::read(0, Cdb::Short(bytes), 12)).await;
    Some((*result.data.get(4)?, *result.data.get(11)?))
}

#[tokio::test]
async fn a_copy_is_carried_out_and_remembered() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    for lba in 0..4 {
        let tag = peer.send_write(lba, 7).await;
        assert_eq!(peer.end().await.0, tag);
    }
    assert_eq!(status(&mut peer).await, None);
    assert_eq!(sense(&peer.command(copy(0, 10, 4)).await), (0, 0, 0));
    assert_eq!(
        rig.memory.bytes(EXTENT, 9 * 512, 5 * 512),
        [vec![0; 512], vec![7; 2048]].concat()
    );
    assert_eq!(status(&mut peer).await, Some((1, 2)));
    // Beyond the end: nothing is copied, and the older result stays.
    assert_eq!(sense(&peer.command(copy(0, 1 << 40, 4)).await).0, 0x0a);
    assert_eq!(status(&mut peer).await, Some((1, 2)));
}

/// F2: a copy that is aborted ends with the operation under way; nothing is written after the abort is answered.
#[tokio::test]
async fn f2_an_aborted_copy_goes_no_further() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    peer.send_write(0, 7).await;
    peer.end().await;
    rig.memory.set_mood(Mood::Deaf);
    let tag = peer.send(copy(0, 10, 1)).await;
    rig.until_kept(1).await;
    let abort = peer.manage(TaskFunction::ABORT_TASK, Some(tag)).await;
    assert!(peer.is_silent().await, "its read is under way");
    let before = rig.memory.submitted();
    rig.memory.release(None);
    assert_eq!(peer.managed(abort).await, TaskResult::COMPLETE);
    assert_eq!((rig.memory.submitted(), rig.memory.kept()), (before, 0));
    rig.memory.set_mood(Mood::Sound);
    assert_eq!(sense(&peer.ready().await), (0, 0, 0));
    assert_eq!(rig.memory.bytes(EXTENT, 10 * 512, 1), [0]);
    assert_eq!(status(&mut peer).await.map(|(code, _)| code), Some(2));
}

/// I8: storage that refuses at once what came with solicited data is heard: the connection ends, the command is not left without an answer.
#[tokio::test]
async fn i8_a_refusal_after_solicited_data_ends_the_connection() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.memory.set_mood(Mood::Answering(OpOutcome::Reset));
    let data = Bytes::from(vec![1; 1 << 20]);
    peer.send(ScsiRequest::write(0, cdb(0x8a, 0, 2048), data)).await;
    assert_eq!(peer.ending().await, Ending::Reset);
}
