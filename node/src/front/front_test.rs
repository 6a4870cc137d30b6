//! Commands, unit attentions and task management, through real connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_iscsi::initiator::ScsiRequest;
use holdfast_iscsi::pdu::{Residual, ScsiStatus, TaskFunction, TaskResult};
use holdfast_raft::model::Command;
use holdfast_types::{Lba, Lun, OpOutcome, TRANSFER_BYTES_MAX};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::memory_test::Mood;
use super::rig_test::{A, B, DISK_BYTES, EXTENT, Ending, Rig, cdb, eventually, sense};

fn seed() -> u64 {
    let given = std::env::var("HOLDFAST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("HOLDFAST_SEED={seed}");
    seed
}

/// Many workers on one session, each on its own part of the disk, with sizes from one block to the largest transfer.
async fn many_sizes(mood: Mood, digests: bool) {
    const WORKERS: u64 = 16;
    const PART: u64 = DISK_BYTES as u64 / 512 / WORKERS;
    let seed = seed();
    let rig = Rig::start().await;
    rig.memory.set_mood(mood);
    let mut dial = rig.dial(1);
    dial.digests = digests;
    let session = Arc::new(holdfast_drill::initiator::Session::connect(&dial).await.unwrap());
    assert_eq!(session.capacity().bytes(), DISK_BYTES as u64);
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        let session = Arc::clone(&session);
        workers.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed ^ worker << 32);
            let mut mirror = vec![0; usize::try_from(PART * 512).unwrap()];
            for _ in 0..24 {
                let blocks = 1 << random.random_range(0..=11_u32);
                let blocks = random.random_range(1..=blocks).min(PART);
                let at = random.random_range(0..=PART - blocks);
                let bytes = usize::try_from(at * 512).unwrap()..usize::try_from((at + blocks) * 512).unwrap();
                let lba = Lba(worker * PART + at);
                if random.random_bool(0.5) {
                    random.fill(&mut mirror[bytes.clone()]);
                    session
                        .write(lba, Bytes::copy_from_slice(&mirror[bytes]))
                        .await
                        .unwrap();
                } else {
                    let read = session.read(lba, u32::try_from(blocks).unwrap()).await.unwrap();
                    assert_eq!(read, &mirror[bytes], "{lba} {blocks}");
                }
            }
            mirror
        }));
    }
    for (worker, task) in workers.into_iter().enumerate() {
        let mirror = task.await.unwrap();
        assert!(mirror == rig.memory.bytes(EXTENT, worker * mirror.len(), mirror.len()));
    }
}

#[tokio::test]
async fn reads_and_writes_of_many_sizes_at_queue_depth() {
    many_sizes(Mood::Sound, false).await;
}

#[tokio::test]
async fn answers_may_come_late_and_with_digests() {
    many_sizes(Mood::Slow(Duration::from_millis(2)), true).await;
}

/// The largest transfer moves through immediate, unsolicited and solicited data and back; one block more is refused.
#[tokio::test]
async fn the_largest_transfer_fits_and_no_larger_one() {
    let rig = Rig::start().await;
    let session = rig.session(1).await;
    let data: Vec<u8> = (0..TRANSFER_BYTES_MAX)
        .map(|at| (at >> 9 ^ at).to_le_bytes()[0])
        .collect();
    session.write(Lba(3), Bytes::from(data.clone())).await.unwrap();
    let blocks = TRANSFER_BYTES_MAX / 512;
    assert!(session.read(Lba(3), blocks).await.unwrap() == data);
    let more = session.read(Lba(3), blocks + 1).await.unwrap_err();
    assert_eq!(more.sense().map(|sense| (sense.key, sense.asc)), Some((5, 0x24)));
}

/// RFC 7143, 11.4.5: what the CDB moves against what the initiator expects, either way, for reads and for writes.
#[tokio::test]
async fn residuals_tell_what_did_not_move() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    let read = peer.command(ScsiRequest::read(0, cdb(0x88, 0, 2), 4096)).await;
    assert_eq!((read.data.len(), read.residual), (1024, Residual::Under(3072)));
    let read = peer.command(ScsiRequest::read(0, cdb(0x88, 0, 8), 512)).await;
    assert_eq!((read.data.len(), read.residual), (512, Residual::Over(3584)));
    // More data announced than the CDB wants, all of it immediate: the rest is not taken.
    let write = ScsiRequest::write(0, cdb(0x8a, 0, 1), Bytes::from(vec![7; 4096]));
    let write = peer.command(write).await;
    assert_eq!(
        (write.status, write.residual),
        (ScsiStatus::GOOD, Residual::Under(3584))
    );
    // The same where the rest would have to be asked for.
    let write = ScsiRequest::write(0, cdb(0x8a, 8, 1024), Bytes::from(vec![8; 1 << 20]));
    let write = peer.command(write).await;
    assert_eq!(
        (write.status, write.residual),
        (ScsiStatus::GOOD, Residual::Under(1 << 19))
    );
    assert_eq!(rig.memory.bytes(EXTENT, 0, 1024), [[7; 512], [0; 512]].concat());
    assert!(rig.memory.bytes(EXTENT, 8 * 512 + (1 << 19), 512) == [0; 512]);
    // Fewer blocks than the CDB names: those are written. Part of a block: refused, and nothing is changed (I12).
    let short = |bytes| ScsiRequest::write(0, cdb(0x8a, 0, 3), Bytes::from(vec![9; bytes]));
    for (bytes, missing) in [(1023, 513), (0, 1536)] {
        let write = peer.command(short(bytes)).await;
        assert_eq!(write.status == ScsiStatus::GOOD, bytes == 0);
        assert_eq!(write.residual, Residual::Over(missing));
        assert_eq!(rig.memory.bytes(EXTENT, 0, 1), [7]);
    }
    let write = peer.command(short(1024)).await;
    assert_eq!(
        (write.status, write.residual),
        (ScsiStatus::GOOD, Residual::Over(512))
    );
    let blocks = rig.memory.bytes(EXTENT, 0, 1536);
    assert_eq!(blocks, [[9; 512], [9; 512], [0; 512]].concat());
}

#[tokio::test]
async fn compare_and_write_verify_zero_and_write_same_reach_storage() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    let caw = |expect: u8, put: u8| {
        let mut bytes = [0; 16];
        bytes[0] = 0x89;
        bytes[13] = 1;
        let data = [[expect; 512], [put; 512]].concat();
        ScsiRequest::write(0, holdfast_iscsi::pdu::Cdb::Short(bytes), Bytes::from(data))
    };
    assert_eq!(sense(&peer.command(caw(0, 5)).await), (0, 0, 0));
    let missed = peer.command(caw(0, 6)).await;
    assert_eq!(sense(&missed), (0x0e, 0x1d, 0));
    assert_eq!(rig.memory.bytes(EXTENT, 0, 1), [5]);
    let same = ScsiRequest::write(0, cdb(0x93, 4, 4), Bytes::from(vec![3; 512]));
    assert_eq!(sense(&peer.command(same).await), (0, 0, 0));
    assert!(rig.memory.bytes(EXTENT, 4 * 512, 4 * 512) == [3; 2048]);
    let mut unmap = cdb(0x42, 0, 0).as_bytes().to_vec();
    unmap[7..9].copy_from_slice(&24_u16.to_be_bytes());
    let mut list = [0; 24];
    (list[1], list[3], list[15], list[19]) = (22, 16, 5, 2);
    let unmap = holdfast_iscsi::pdu::Cdb::new(&unmap).unwrap();
    let unmap = ScsiRequest::write(0, unmap, Bytes::copy_from_slice(&list));
    assert_eq!(sense(&peer.command(unmap).await), (0, 0, 0));
    assert!(rig.memory.bytes(EXTENT, 4 * 512, 2048) == [[3; 512], [0; 512], [0; 512], [3; 512]].concat());
    let mut verify = cdb(0x8f, 4, 1).as_bytes().to_vec();
    verify[1] = 2;
    let verify = holdfast_iscsi::pdu::Cdb::new(&verify).unwrap();
    let with = |byte| ScsiRequest::write(0, verify.clone(), Bytes::from(vec![byte; 512]));
    assert_eq!(sense(&peer.command(with(3)).await), (0, 0, 0));
    assert_eq!(sense(&peer.command(with(4)).await), (0x0e, 0x1d, 0));
}

/// P3: a new session hears 06/29/00 alone, whatever happened before; a change of port groups is told once on each nexus, however often
/// it changed.
#[tokio::test]
async fn p3_one_unit_attention_for_a_change_of_port_groups() {
    let rig = Rig::start().await;
    rig.switchover(A, B);
    let mut first = rig.fresh(1).await;
    assert_eq!(sense(&first.ready().await), (6, 0x29, 0));
    assert_eq!(sense(&first.ready().await), (0, 0, 0));
    let mut second = rig.peer(2).await;
    rig.switchover(B, A);
    rig.switchover(A, B);
    rig.switchover(B, A);
    for peer in [&mut first, &mut second] {
        assert_eq!(sense(&peer.ready().await), (6, 0x2a, 6));
        assert_eq!(sense(&peer.ready().await), (0, 0, 0));
    }
    let mut third = rig.fresh(3).await;
    assert_eq!(sense(&third.ready().await), (6, 0x29, 0));
    assert_eq!(sense(&third.ready().await), (0, 0, 0));
}

/// I8: while nobody is primary a command is held, not refused; it goes on when somebody is.
#[tokio::test]
async fn i8_commands_are_held_while_the_group_is_transitioning() {
    let rig = Rig::start_without_primary().await;
    let mut peer = rig.peer(1).await;
    let write = peer.send_write(0, 1).await;
    assert!(peer.is_silent().await);
    assert_eq!(rig.memory.submitted(), 0);
    rig.reopen(A);
    let (tag, result) = peer.end().await;
    // SAM-5, 5.14: the change is told first, by the command that waited for it.
    assert_eq!((tag, sense(&result)), (write, (6, 0x2a, 6)));
    let write = peer.send_write(0, 1).await;
    assert_eq!(peer.end().await, (write, peer_good()));
}

fn peer_good() -> holdfast_iscsi::initiator::ScsiResult {
    holdfast_iscsi::initiator::ScsiResult {
        response: holdfast_iscsi::pdu::ServiceResponse::COMPLETED,
        status: ScsiStatus::GOOD,
        sense: Bytes::new(),
        data: Bytes::new(),
        residual: Residual::None,
    }
}

/// I8, I11: held for the hold limit, with quorum: 02/04/0A, and never carried out.
#[tokio::test]
async fn i8_a_command_held_too_long_hears_of_the_transition() {
    let rig = Rig::start_without_primary().await;
    let mut peer = rig.peer(1).await;
    let write = peer.send_write(0, 1).await;
    let (tag, result) = peer.end().await;
    assert_eq!((tag, sense(&result)), (write, (2, 4, 0x0a)));
    assert_eq!(rig.memory.submitted(), 0);
}

/// I8: the same without quorum costs the connection.
#[tokio::test]
async fn i8_a_command_held_too_long_without_quorum_resets_the_connection() {
    let rig = Rig::start_without_primary().await;
    let mut peer = rig.peer(1).await;
    rig.lose_lease();
    peer.send_write(0, 1).await;
    assert_eq!(peer.ending().await, Ending::Reset);
    assert_eq!(rig.memory.submitted(), 0);
}

#[tokio::test]
async fn i8_transitioning_from_storage_is_told() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.memory.set_mood(Mood::Answering(OpOutcome::Transitioning));
    let write = peer.send_write(0, 1).await;
    let (tag, result) = peer.end().await;
    assert_eq!((tag, sense(&result)), (write, (2, 4, 0x0a)));
}

/// ABORT TASK is answered when storage has confirmed it; the command is not answered at all, and others go on.
#[tokio::test]
async fn f2_abort_task_ends_a_held_command() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.memory.set_mood(Mood::Holding);
    let first = peer.send_write(0, 1).await;
    let second = peer.send_write(1, 2).await;
    rig.until_kept(2).await;
    let abort = peer.manage(TaskFunction::ABORT_TASK, Some(first)).await;
    assert_eq!(peer.managed(abort).await, TaskResult::COMPLETE);
    rig.memory.release(None);
    assert_eq!(peer.end().await.0, second);
    assert!(peer.is_silent().await);
    assert_eq!(rig.memory.bytes(EXTENT, 0, 513), [vec![0; 512], vec![2]].concat());
    let again = peer.manage(TaskFunction::ABORT_TASK, Some(first)).await;
    assert_eq!(peer.managed(again).await, TaskResult::NO_SUCH_TASK);
}

/// F2: an abort that comes too late is answered after the command; one that is not confirmed is not answered.
#[tokio::test]
async fn f2_an_abort_is_answered_only_when_it_is_confirmed() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    rig.memory.set_mood(Mood::Deaf);
    let write = peer.send_write(0, 1).await;
    rig.until_kept(1).await;
    let abort = peer.manage(TaskFunction::ABORT_TASK, Some(write)).await;
    assert!(peer.is_silent().await);
    rig.memory.release(None);
    assert_eq!(peer.end().await, (write, peer_good()));
    // It came too late: its task was answered.
    assert_eq!(peer.managed(abort).await, TaskResult::NO_SUCH_TASK);
    let write = peer.send_write(0, 2).await;
    rig.until_kept(1).await;
    peer.manage(TaskFunction::ABORT_TASK, Some(write)).await;
    eventually("the abort reached storage", || rig.memory.aborts() == 2).await;
    rig.jump(Duration::from_secs(6));
    assert_eq!(peer.ending().await, Ending::Reset);
}

#[tokio::test]
async fn abort_task_set_ends_this_sessions_commands_alone() {
    let rig = Rig::start().await;
    let (mut mine, mut other) = (rig.peer(1).await, rig.peer(2).await);
    rig.memory.set_mood(Mood::Holding);
    mine.send_write(0, 1).await;
    mine.send_write(1, 1).await;
    let theirs = other.send_write(2, 1).await;
    rig.until_kept(3).await;
    let abort = mine.manage(TaskFunction::ABORT_TASK_SET, None).await;
    assert_eq!(mine.managed(abort).await, TaskResult::COMPLETE);
    assert_eq!(rig.memory.kept(), 1);
    rig.memory.release(None);
    assert_eq!(other.end().await.0, theirs);
    rig.memory.set_mood(Mood::Sound);
    assert_eq!(sense(&other.ready().await), (0, 0, 0));
    assert_eq!(sense(&mine.ready().await), (0, 0, 0));
}

/// LOGICAL UNIT RESET ends everybody's commands on the unit, and everybody hears of it (SAM-5, 7.7 and 6.3.3).
#[tokio::test]
async fn i13_logical_unit_reset_reaches_every_session() {
    let rig = Rig::start().await;
    let (mut mine, mut other) = (rig.peer(1).await, rig.peer(2).await);
    rig.memory.set_mood(Mood::Holding);
    mine.send_write(0, 1).await;
    other.send_write(1, 2).await;
    rig.until_kept(2).await;
    let reset = mine.manage(TaskFunction::LOGICAL_UNIT_RESET, None).await;
    assert_eq!(mine.managed(reset).await, TaskResult::COMPLETE);
    assert_eq!(rig.memory.kept(), 0);
    assert_eq!(rig.memory.bytes(EXTENT, 0, 1024), [0; 1024]);
    rig.memory.set_mood(Mood::Sound);
    for peer in [&mut other, &mut mine] {
        assert!(peer.is_silent().await);
        assert_eq!(sense(&peer.ready().await), (6, 0x29, 3));
        assert_eq!(sense(&peer.ready().await), (0, 0, 0));
    }
}

/// F2: not before the other session's commands are confirmed to be gone.
#[tokio::test]
async fn f2_logical_unit_reset_waits_for_the_other_sessions_commands() {
    let rig = Rig::start().await;
    let (mut mine, mut other) = (rig.peer(1).await, rig.peer(2).await);
    rig.memory.set_mood(Mood::Deaf);
    other.send_write(1, 2).await;
    rig.until_kept(1).await;
    let reset = mine.manage(TaskFunction::LOGICAL_UNIT_RESET, None).await;
    assert!(mine.is_silent().await);
    // Also when that session goes meanwhile: its command may still take effect.
    drop(other);
    assert!(mine.is_silent().await);
    rig.memory.release(None);
    assert_eq!(mine.managed(reset).await, TaskResult::COMPLETE);
}

/// CLEAR TASK SET is told to the others whose commands it ended as 06/2F/00 (SAM-5, 7.4), not as a reset.
#[tokio::test]
async fn clear_task_set_is_told_as_commands_cleared() {
    let rig = Rig::start().await;
    let (mut mine, mut other, mut idle) = (rig.peer(1).await, rig.peer(2).await, rig.peer(3).await);
    rig.memory.set_mood(Mood::Holding);
    mine.send_write(0, 1).await;
    other.send_write(1, 2).await;
    rig.until_kept(2).await;
    let clear = mine.manage(TaskFunction::CLEAR_TASK_SET, None).await;
    assert_eq!(mine.managed(clear).await, TaskResult::COMPLETE);
    rig.memory.set_mood(Mood::Sound);
    assert_eq!(sense(&other.ready().await), (6, 0x2f, 0));
    for peer in [&mut other, &mut mine, &mut idle] {
        assert_eq!(sense(&peer.ready().await), (0, 0, 0));
    }
}

#[tokio::test]
async fn functions_that_are_not_there_say_so() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    let reassign = peer.manage(TaskFunction::TASK_REASSIGN, None).await;
    assert_eq!(peer.managed(reassign).await, TaskResult::REASSIGN_NOT_SUPPORTED);
    let nowhere = peer
        .initiator
        .task_management(TaskFunction::LOGICAL_UNIT_RESET, 5 << 48, None);
    peer.flush().await;
    assert_eq!(peer.managed(nowhere).await, TaskResult::NO_SUCH_LUN);
}

/// A discovery session lists the target with every node's portals, and takes no commands.
#[tokio::test]
async fn discovery_lists_the_target_with_all_portals() {
    let rig = Rig::start().await;
    let found = holdfast_drill::initiator::Session::discover(&rig.dial(1))
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, super::rig_test::TARGET);
    assert_eq!(
        found[0].1,
        [format!("{},1", rig.portal), "127.0.0.1:1,2".to_owned()]
    );
}

#[tokio::test]
async fn a_lun_that_is_not_there_answers_inquiry_and_refuses_the_rest() {
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    let absent = peer.command(ScsiRequest::none(9 << 48, cdb(0, 0, 0))).await;
    assert_eq!(sense(&absent), (5, 0x25, 0));
    let mut luns = cdb(0xa0, 0, 0).as_bytes().to_vec();
    luns[9] = 64;
    let luns = holdfast_iscsi::pdu::Cdb::new(&luns).unwrap();
    let luns = peer.command(ScsiRequest::read(9 << 48, luns, 64)).await;
    assert_eq!(luns.data[..8], [0, 0, 0, 8, 0, 0, 0, 0]);
}

/// What SAM-5 calls the REPORT LUNS well-known logical unit.
#[tokio::test]
async fn the_well_known_unit_lists_luns_and_hears_when_they_change() {
    const FIELD: u64 = 0xc101 << 48;
    let rig = Rig::start().await;
    let mut peer = rig.peer(1).await;
    let list = |select| {
        let mut list = cdb(0xa0, 0, 0).as_bytes().to_vec();
        (list[2], list[9]) = (select, 64);
        ScsiRequest::read(FIELD, holdfast_iscsi::pdu::Cdb::new(&list).unwrap(), 64)
    };
    let ready = || ScsiRequest::none(FIELD, cdb(0, 0, 0));
    assert_eq!(sense(&peer.command(ready()).await), (6, 0x29, 0), "of its own");
    assert_eq!(peer.command(ready()).await.status, ScsiStatus::GOOD);
    let own = peer.command(list(1)).await;
    assert_eq!(own.data[..], [0, 0, 0, 8, 0, 0, 0, 0, 0xc1, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(peer.command(list(2)).await.data[..4], [0, 0, 0, 16]);
    let mut inquiry = cdb(0x12, 0, 0).as_bytes().to_vec();
    inquiry[4] = 96;
    let inquiry = holdfast_iscsi::pdu::Cdb::new(&inquiry).unwrap();
    let inquiry = peer.command(ScsiRequest::read(FIELD, inquiry, 96)).await;
    assert_eq!((inquiry.data[0], &inquiry.data[8..16]), (0x1e, &b"HOLDFAST"[..]));
    let read = peer.command(ScsiRequest::read(FIELD, cdb(0x88, 0, 1), 512)).await;
    assert_eq!(sense(&read), (5, 0x20, 0), "it has no blocks");
    // The map changes: both units tell it, and reading the list through one makes it old news for both.
    let again = |lun: u16| Command::MapLun {
        target: super::rig_test::target(),
        lun: lun.try_into().unwrap(),
        extent: EXTENT,
    };
    let unmap = Command::UnmapLun {
        target: super::rig_test::target(),
        lun: Lun::ZERO,
    };
    rig.apply(&unmap);
    rig.apply(&again(0));
    assert_eq!(sense(&peer.command(ready()).await), (6, 0x3f, 0x0e));
    rig.apply(&unmap);
    rig.apply(&again(0));
    assert_eq!(peer.command(list(0)).await.data[..4], [0, 0, 0, 8]);
    assert_eq!(peer.command(ready()).await.status, ScsiStatus::GOOD);
    assert_eq!(peer.ready().await.status, ScsiStatus::GOOD, "LUN 0, too");
}
