//! The journal of a node with real files.
#![allow(
    clippy::cast_possible_truncation,
    clippy::type_complexity,
    reason = "small numbers, plain tuples"
)]

use std::sync::mpsc;

use holdfast_journal::Completion;
use holdfast_types::{BlockRange, BlockSize, Epoch, Lba, Revision};

use super::*;
use crate::core::api::RecordBody;
use crate::store::ExtentMeta;

const ID: ExtentId = ExtentId::from_u128(9);

fn config() -> Config {
    Config {
        segment_size: 64 << 10,
        max_segments: 6,
        ..Config::replication("test")
    }
}

fn pos(lsn: u64) -> LogPos {
    LogPos::new(Epoch(1), Lsn(lsn))
}

fn record(lsn: u64) -> Record {
    Record {
        pos: pos(lsn),
        commit: Lsn(lsn - 1),
        name: None,
        body: RecordBody::Write {
            range: BlockRange::new(Lba(lsn), 8).unwrap(),
            data: Bytes::from(vec![lsn as u8; 4096]),
        },
    }
}

struct Rig {
    _dir: tempfile::TempDir,
    store: NodeStore,
    files: Vec<(ExtentId, Arc<ExtentFile>)>,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = NodeStore::new(dir.path()).unwrap();
        let meta = ExtentMeta {
            id: ID,
            bytes: 1 << 20,
            block_size: BlockSize::B512,
            created: Revision(1),
            damaged: None,
            sums: true,
            device: None,
        };
        let file = ExtentFile::create(&store.extents(), meta).unwrap();
        Self {
            _dir: dir,
            store,
            files: vec![(ID, Arc::new(file))],
        }
    }

    fn open(&self) -> Result<(NodeJournal<u64>, Recovered, Arc<Place>, mpsc::Receiver<u64>), StoreError> {
        let (tell, told) = mpsc::channel();
        let (journal, mut opened) = NodeJournal::open(&self.store, &config(), &self.files, || {
            let tell = tell.clone();
            Box::new(move |completion| {
                if let Completion::Durable { tags, .. } = completion {
                    for tag in tags {
                        let _ = tell.send(tag);
                    }
                }
            })
        })?;
        let (recovered, place) = opened.extents.remove(&ID).unwrap();
        Ok((journal, recovered, place, told))
    }
}

fn first_entry(journal: &NodeJournal<u64>, place: &Arc<Place>, told: &mpsc::Receiver<u64>) {
    journal.append(place, Entry::Checkpoint(Checkpoint::default()), false, 0);
    assert_eq!(told.recv().unwrap(), 0);
}

#[test]
fn stable_records_are_recovered_and_checkpoints_shorten_recovery() {
    let rig = Rig::new();
    {
        let (journal, recovered, place, told) = rig.open().unwrap();
        assert!(
            recovered.damaged,
            "files without any journal entry are not trusted (J1)"
        );
        rig.files[0].1.mark(None).unwrap();
        first_entry(&journal, &place, &told);
        (1..=5).for_each(|lsn| journal.append(&place, Entry::Record(record(lsn)), false, lsn));
        (1..=5).for_each(|lsn| assert_eq!(told.recv().unwrap(), lsn));
    }
    {
        let (journal, recovered, place, told) = rig.open().unwrap();
        assert!(!recovered.damaged);
        assert_eq!(recovered.tail, (1..=5).map(record).collect::<Vec<_>>());
        assert_eq!(recovered.commit, Lsn(4));
        let history = EpochHistory::from_lasts(vec![LogPos::EMPTY, pos(3)]).unwrap();
        let checkpoint = Checkpoint {
            applied: pos(3),
            end: pos(5),
            commit: Lsn(4),
            seen: Epoch(1),
            base: None,
            history,
        };
        journal.append(&place, Entry::Checkpoint(checkpoint), false, 77);
        assert_eq!(told.recv().unwrap(), 77);
    }
    let (_, recovered, _, _) = rig.open().unwrap();
    assert_eq!(recovered.applied, pos(3));
    assert_eq!(recovered.tail, [record(4), record(5)]);
}

#[test]
fn j3_a_full_journal_keeps_entries_waiting_until_there_is_room() {
    let rig = Rig::new();
    let (journal, _, place, told) = rig.open().unwrap();
    rig.files[0].1.mark(None).unwrap();
    first_entry(&journal, &place, &told);
    // Far more than six segments of 64 KiB hold.
    (1..=200).for_each(|lsn| journal.append(&place, Entry::Record(record(lsn)), false, lsn));
    assert!(journal.fill_percent() > 100);
    let mut stable = 0;
    while stable < 200 {
        while let Ok(lsn) = told.recv_timeout(std::time::Duration::from_millis(50)) {
            if lsn > 0 {
                assert_eq!(lsn, stable + 1);
                stable = lsn;
            }
        }
        let checkpoint = Checkpoint {
            applied: pos(stable),
            end: pos(stable),
            history: EpochHistory::from_lasts(vec![pos(stable)]).unwrap(),
            ..Checkpoint::default()
        };
        journal.append(&place, Entry::Checkpoint(checkpoint), true, 0);
        // On a busy machine some of what was appended earlier is told only now.
        loop {
            match told.recv().unwrap() {
                0 => break,
                lsn => assert_eq!(lsn, stable + 1),
            }
            stable += 1;
        }
        journal.release_before(place.needed_from().unwrap());
    }
    drop(journal);
    let (_, recovered, _, _) = rig.open().unwrap();
    assert!(!recovered.damaged);
    assert_eq!(recovered.applied, pos(200));
}

#[test]
fn j1_a_damaged_journal_marks_every_extent_and_goes_on() {
    let rig = Rig::new();
    {
        let (journal, _, place, told) = rig.open().unwrap();
        rig.files[0].1.mark(None).unwrap();
        first_entry(&journal, &place, &told);
        for lsn in 1..=9 {
            journal.append(&place, Entry::Record(record(lsn)), false, lsn);
            assert_eq!(told.recv().unwrap(), lsn);
        }
    }
    // A byte in the middle of what was acknowledged.
    let segment = std::fs::read_dir(rig.store.journal())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("segment"))
        .min()
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[24 << 10] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let (journal, recovered, place, told) = rig.open().unwrap();
    assert!(recovered.damaged);
    assert_eq!(rig.files[0].1.meta().damaged, Some(Damage::Journal));
    // The mark stays until a resync has begun, whatever else is written.
    let checkpoint = Checkpoint {
        applied: recovered.applied,
        end: recovered.applied,
        history: recovered.history,
        ..Checkpoint::default()
    };
    journal.append(&place, Entry::Checkpoint(checkpoint), false, 1);
    assert_eq!(told.recv().unwrap(), 1);
    drop(journal);
    let (_, recovered, _, _) = rig.open().unwrap();
    assert!(recovered.damaged);
}

/// Fills the journal to its last segment, so that nothing more goes in.
fn fill(journal: &NodeJournal<u64>, place: &Arc<Place>) -> u64 {
    let mut lsn = 0;
    while journal.queue().waiting.is_empty() {
        lsn += 1;
        journal.append(place, Entry::Record(record(lsn)), true, lsn);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    lsn
}

#[test]
fn j3_copies_that_wait_for_room_keep_their_order() {
    let rig = Rig::new();
    let (journal, _, place, told) = rig.open().unwrap();
    first_entry(&journal, &place, &told);
    let first = fill(&journal, &place);
    journal.append(&place, Entry::Record(record(first + 3)), false, first + 3);
    journal.append(&place, Entry::Record(record(first + 1)), true, first + 1);
    journal.append(&place, Entry::Record(record(first + 2)), true, first + 2);
    let waiting: Vec<u64> = journal
        .queue()
        .waiting
        .iter()
        .map(|waiting| waiting.tag)
        .collect();
    assert_eq!(waiting, [first, first + 1, first + 2, first + 3]);
}

#[test]
fn j3_cuts_of_many_logs_go_ahead_of_what_waits_for_room() {
    // Logs that nothing of is applied fill the journal, and more waits. Then all of them are cut, as under a new primary, and from what
    // stays applied. Each cut waits behind the records of the others, and checkpoints wait for the cuts: unless cuts go ahead.
    let dir = tempfile::tempdir().unwrap();
    let store = NodeStore::new(dir.path()).unwrap();
    let (tell, told) = mpsc::channel();
    let sink = || {
        let tell = tell.clone();
        let sink: Box<dyn Sink<u64>> = Box::new(move |completion| {
            if let Completion::Durable { tags, .. } = completion {
                tags.into_iter().try_for_each(|tag| tell.send(tag)).ok();
            }
        });
        sink
    };
    let (journal, _) = NodeJournal::open(&store, &config(), &[], sink).unwrap();
    let places: Vec<Arc<Place>> = (1..=4)
        .map(|id| Arc::new(Place::new(ExtentId::from_u128(id))))
        .collect();
    for place in &places {
        journal.append(place, Entry::Checkpoint(Checkpoint::default()), false, 0);
    }
    let mut lsn = 0;
    while journal.fill_percent() <= 100 || lsn < 24 {
        lsn += 1;
        assert!(lsn < 200, "the journal does not fill");
        for place in &places {
            journal.append(place, Entry::Record(record(lsn)), false, 1000 + lsn);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
        journal.pump();
    }
    // What is not in the journal goes with the cut: all of it is behind.
    let stable: Vec<LogPos> = places.iter().map(|place| place.log().end()).collect();
    for (place, end) in places.iter().zip(&stable) {
        journal.append(place, Entry::Truncate { after: *end }, false, 1);
    }
    assert_eq!(journal.waiting_bytes(), 0, "the cuts are in, and nothing waits");
    for (place, end) in places.iter().zip(&stable) {
        assert!(!journal.must_wait(place, true));
        let checkpoint = Checkpoint {
            applied: *end,
            end: *end,
            commit: end.lsn,
            seen: Epoch(1),
            base: None,
            history: EpochHistory::from_lasts(vec![LogPos::EMPTY, *end]).unwrap(),
        };
        journal.append(place, Entry::Checkpoint(checkpoint), true, 2);
    }
    while told.recv_timeout(std::time::Duration::from_secs(30)).unwrap() != 2 {}
    for _ in 0..3 {
        while told.recv_timeout(std::time::Duration::from_secs(30)).unwrap() != 2 {}
    }
    let needed = places
        .iter()
        .filter_map(|place| place.needed_from())
        .min()
        .unwrap();
    journal.release_before(needed);
    let place = &places[0];
    journal.append(place, Entry::Record(record(stable[0].lsn.0 + 1)), false, 3);
    let in_time = (0..3000).any(|_| {
        journal.pump();
        told.recv_timeout(std::time::Duration::from_millis(10)) == Ok(3)
    });
    assert!(in_time, "there is room again");
}
