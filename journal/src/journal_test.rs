//! The handle, its thread, room and files.

use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;

use crate::harness_test::*;
use crate::*;

const PATIENCE: Duration = Duration::from_secs(20);

type Heard = mpsc::Receiver<Completion<Tag>>;

fn threaded(device: impl LogDevice, config: Config) -> (Journal<Tag>, Recovery, Vec<Record>, Heard) {
    let (tell, heard) = mpsc::channel();
    let mut found = Vec::new();
    let sink = move |completion| drop(tell.send(completion));
    let (journal, recovery) = Journal::open(device, config, OpenOptions::default(), sink, |f| {
        found.push(f.record)
    })
    .unwrap();
    (journal, recovery, found, heard)
}

/// Waits for `count` tags, which must come as `from..`.
fn wait_for(heard: &Heard, from: Tag, count: u64) -> Position {
    let mut next = from;
    loop {
        match heard.recv_timeout(PATIENCE).unwrap() {
            Completion::Durable { tags, through } => {
                for tag in tags {
                    assert_eq!(tag, next);
                    next += 1;
                }
                if next == from + count {
                    return through;
                }
            }
            Completion::Failed { error, .. } => panic!("{error}"),
        }
    }
}

#[test]
fn a_log_in_files_rolls_recycles_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let config = Config {
        max_segments: 4,
        ..small()
    };
    let mut appended = Vec::new();
    let mut tag = 0;
    for life in 0..3_u8 {
        let device = FileDevice::open(&path).unwrap();
        let (journal, recovery, found, heard) = threaded(device, config.clone());
        assert_eq!(recovery.verdict, Verdict::Clean);
        appended.retain(|(position, _)| *position >= recovery.first);
        let found: Vec<(Position, Vec<u8>)> =
            found.iter().map(|r| (r.position, r.payload.to_vec())).collect();
        assert_eq!(found, appended);
        assert_eq!(journal.first_position(), recovery.first);
        for round in 0..60_u8 {
            let payload = vec![life * 60 + round; 5000];
            let position = journal
                .append(3, "head".into(), payload.clone().into(), tag)
                .unwrap();
            appended.push((position, payload));
            let through = wait_for(&heard, tag, 1);
            assert!(through > position && through <= journal.durable_through());
            tag += 1;
            let record = journal.read(position).unwrap();
            assert_eq!(
                (record.kind, &record.header[..], &record.payload[..]),
                (3, &b"head"[..], &appended.last().unwrap().1[..])
            );
            if round % 10 == 9 {
                journal.release_before(position);
            }
        }
        journal.close();
        assert!(matches!(
            journal.append(1, "a".into(), "b".into(), 0),
            Err(AppendError::Closed)
        ));
        let old = appended[0].0;
        assert!(matches!(journal.read(old), Err(ReadError::Released(_))));
        let files = FileDevice::open(&path).unwrap().list().unwrap();
        assert!(files.len() <= 6, "{files:?}");
        assert!(files.iter().all(|(_, len)| *len == 64 << 10), "{files:?}");
    }
}

#[test]
fn a_log_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = threaded(FileDevice::open(dir.path()).unwrap(), small());
    let again = || {
        Journal::<Tag>::open(
            FileDevice::open(dir.path()).unwrap(),
            small(),
            OpenOptions::default(),
            |_| {},
            |_| {},
        )
    };
    let error = again().unwrap_err().to_string();
    assert!(
        error.contains("already open elsewhere") && error.contains("is locked by"),
        "{error}"
    );
    drop(journal);
    again().unwrap();
    let device = SimDevice::new(1);
    let _rig = open(&device);
    assert!(matches!(
        open_with(&device, small(), OpenOptions::default()).0,
        Err(OpenError::Busy { .. })
    ));
}

#[test]
fn old_bytes_behind_the_end_of_a_recycled_segment_are_nothing() {
    let device = SimDevice::new(1);
    let mut rig = open(&device);
    for round in 0..80_u64 {
        let position = rig.put(vec![1; 3000]);
        rig.journal.release_before(position);
        rig.drain();
        let again = open(&device.fork(round));
        assert_eq!(again.recovery.verdict, Verdict::Clean, "round {round}");
        assert_eq!(again.found.last().unwrap().record.position, position);
    }
    assert!(rig.journal.first_position() > Position::new(5 << 16));
}

#[test]
fn a_handle_goes_anywhere() {
    fn shared<X: Clone + Send + Sync + 'static>() {}
    // A tag need only be `Send`.
    shared::<Journal<std::cell::Cell<u8>>>();
}

#[test]
fn many_threads_append_and_read() {
    let device = SimDevice::new(3);
    let config = Config {
        max_queued_bytes: 40_000,
        max_segments: 6,
        ..small()
    };
    let (journal, _, _, heard) = threaded(device.clone(), config.clone());
    let workers: Vec<_> = (0..4_u8)
        .map(|worker| {
            let journal = journal.clone();
            std::thread::spawn(move || {
                let mut taken = 0;
                for round in 0..150 {
                    let payload = vec![worker; 100 + round * 20];
                    let position = loop {
                        match journal.append(u16::from(worker), "x".into(), payload.clone().into(), 0) {
                            Ok(position) => break position,
                            Err(AppendError::Full | AppendError::NoRoom) => {
                                // Old records are of no use to anybody here.
                                journal.release_before(journal.durable_through());
                                std::thread::yield_now();
                            }
                            Err(error) => panic!("{error}"),
                        }
                    };
                    taken += 1;
                    match journal.read(position) {
                        Ok(record) => assert_eq!(
                            (record.kind, &record.payload[..]),
                            (u16::from(worker), &payload[..])
                        ),
                        Err(ReadError::Released(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                taken
            })
        })
        .collect();
    let taken: usize = workers.into_iter().map(|w| w.join().unwrap()).sum();
    journal.close();
    let mut reported = 0;
    for completion in heard.try_iter() {
        match completion {
            Completion::Durable { tags, .. } => reported += tags.len(),
            Completion::Failed { error, .. } => panic!("{error}"),
        }
    }
    assert_eq!(reported, taken);
    assert_eq!(journal.usage().queued_bytes, 0);
    drop(journal);
    let (_, recovery, ..) = threaded(device, config);
    assert_eq!(recovery.verdict, Verdict::Clean);
}

#[test]
fn a_queued_record_can_be_read_and_waiting_ones_are_one_group() {
    let device = SimDevice::new(1);
    let mut rig = open(&device);
    rig.put("first");
    let before = device.operations();
    let positions: Vec<Position> = (0..6)
        .map(|n| {
            rig.journal
                .append(9, "h".into(), vec![n; 50].into(), u64::from(n))
                .unwrap()
        })
        .collect();
    assert_eq!(rig.journal.read(positions[4]).unwrap().payload, vec![4; 50]);
    assert!(matches!(
        rig.journal.read(Position::new(positions[4].get() + 1)),
        Err(ReadError::NotARecord(_))
    ));
    rig.drain();
    assert_eq!(device.operations(), before + 1, "one write for all");
    assert_eq!(rig.journal.read(positions[4]).unwrap().payload, vec![4; 50]);
    let beyond = Position::new(rig.journal.durable_through().get() + 64);
    assert!(matches!(rig.journal.read(beyond), Err(ReadError::NotARecord(_))));
    let inside = Position::new(positions[2].get() + 8);
    assert!(matches!(rig.journal.read(inside), Err(ReadError::NotARecord(_))));
}

#[test]
fn quiet_records_are_written_once_the_writer_is_woken() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _, _, heard) = threaded(FileDevice::open(dir.path()).unwrap(), small());
    for round in 0..20 {
        for i in 0..5 {
            let payload = Bytes::from(vec![1; 100]);
            journal
                .append_quietly(1, Bytes::new(), payload, false, round * 5 + i)
                .unwrap();
        }
        journal.wake();
        wait_for(&heard, round * 5, 5);
    }
    journal.close();
}

#[test]
fn no_group_shares_a_block_with_an_earlier_one() {
    let device = SimDevice::new(1);
    let mut rig = open(&device);
    for len in [0, 1, 3990, 4000, 4032, 4100, 9000, 1] {
        let position = rig.put(vec![1; len]);
        assert_eq!(
            position.get() % 4096,
            64,
            "behind a group header on a block border"
        );
    }
}

#[test]
fn a_rotten_record_is_not_read() {
    let device = SimDevice::new(1);
    let mut rig = open(&device);
    let position = rig.put(vec![1; 9000]);
    device
        .flip_bit(FileName::Segment(1), position.get() % (64 << 10) + 8000, 2)
        .unwrap();
    assert!(matches!(rig.journal.read(position), Err(ReadError::Damaged(_))));
}

#[test]
fn limits_refuse_and_change_nothing() {
    let device = SimDevice::new(1);
    let config = Config {
        max_queued_bytes: 10_000,
        max_segments: 3,
        ..small()
    };
    let mut rig = open_with(&device, config, OpenOptions::default()).0.unwrap();
    let max = rig.journal.max_record();
    let append = |rig: &Rig, len: usize| rig.journal.append(1, "".into(), vec![0; len].into(), 0);
    assert!(matches!(append(&rig, max + 1), Err(AppendError::TooLarge { .. })));
    append(&rig, max).unwrap();
    assert!(
        matches!(append(&rig, 1), Err(AppendError::Full)),
        "more than the limit waits"
    );
    rig.drain();
    append(&rig, max).unwrap();
    rig.drain();
    let usage = rig.journal.usage();
    assert!(matches!(append(&rig, 100), Err(AppendError::NoRoom)));
    assert_eq!(rig.journal.usage(), usage);
    // The last segment is for records that are copied forward (J3).
    let copy = rig
        .journal
        .append_reclaim(1, "".into(), "copied".into(), 0)
        .unwrap();
    rig.drain();
    rig.journal.release_before(copy);
    rig.drain();
    assert_eq!(
        rig.journal.first_position().get(),
        copy.get() / (64 << 10) * (64 << 10)
    );
    let after = append(&rig, 100).unwrap();
    rig.drain();
    drop(rig);
    device.restart();
    let rig = open(&device);
    let found: Vec<Position> = rig.found.iter().map(|f| f.record.position).collect();
    assert_eq!(found, [copy, after]);
    let bad = Config {
        segment_size: 5000,
        ..small()
    };
    assert!(matches!(
        open_with(&SimDevice::new(1), bad, OpenOptions::default()).0,
        Err(OpenError::Config { .. })
    ));
}

#[test]
fn j3_a_full_disk_stalls_and_a_release_goes_on() {
    for threads in [false, true] {
        let device = SimDevice::new(1);
        let mut rig = open(&device);
        let mut last = Position::ZERO;
        // Four segments, then no room on the disk for the next.
        for _ in 0..4 {
            last = rig.put(vec![1; 50_000]);
        }
        device.set_full(true);
        drop(rig);
        device.restart();
        let left: Vec<_> = device.list().unwrap();
        assert!(
            left.iter().all(|(name, _)| matches!(name, FileName::Segment(_))),
            "{left:?}"
        );
        if threads {
            let (journal, _, _, heard) = threaded(device, small());
            journal.append(1, "".into(), vec![2; 50_000].into(), 0).unwrap();
            heard.recv_timeout(Duration::from_millis(150)).unwrap_err();
            journal.release_before(last);
            wait_for(&heard, 0, 1);
        } else {
            let mut rig = open(&device);
            rig.journal
                .append(1, "".into(), vec![2; 50_000].into(), 0)
                .unwrap();
            assert_eq!(rig.drain(), Step::Stalled);
            rig.journal.release_before(last);
            assert_eq!(rig.drain(), Step::Idle);
            assert!(matches!(
                rig.report.lock().unwrap()[..],
                [Completion::Durable { .. }]
            ));
        }
    }
}

#[test]
fn a_log_keeps_its_segment_size() {
    let device = SimDevice::new(1);
    let mut rig = open(&device);
    let position = rig.put("one");
    drop(rig);
    let config = Config {
        segment_size: 1 << 20,
        ..small()
    };
    let mut rig = open_with(&device, config, OpenOptions::default()).0.unwrap();
    assert_eq!(rig.journal.read(position).unwrap().payload, "one");
    rig.put(vec![0; 30_000]);
    rig.put(vec![0; 30_000]);
    drop(rig);
    assert_eq!(open(&device).found.len(), 3);
}

#[test]
fn a_sink_that_panics_leaves_a_log_that_takes_nothing() {
    let (tell, heard) = mpsc::channel();
    let sink = move |_: Completion<Tag>| {
        tell.send(()).unwrap();
        panic!("as ordered by the test");
    };
    let (journal, _) =
        Journal::open(SimDevice::new(1), small(), OpenOptions::default(), sink, |_| {}).unwrap();
    journal.append(1, "".into(), "".into(), 0).unwrap();
    heard.recv_timeout(PATIENCE).unwrap();
    journal.close();
    assert!(matches!(
        journal.append(1, "".into(), "".into(), 0),
        Err(AppendError::Failed(_))
    ));
}
