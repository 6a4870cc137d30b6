//! What the tests share: a log on a simulated disk, and a model of what must be in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::*;

/// Small segments, so that a short test rolls and recycles often.
pub(crate) fn small() -> Config {
    Config {
        name: "test".into(),
        segment_size: 64 << 10,
        max_segments: 9,
        max_spares: 1,
        max_queued_bytes: 256 << 10,
        max_group_bytes: 24 << 10,
        max_group_records: 6,
    }
}

/// The seeds of a random test: `count` from a base that is printed, or the one in HOLDFAST_SEED.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("HOLDFAST_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            let base = std::time::SystemTime::UNIX_EPOCH
                .elapsed()
                .unwrap()
                .subsec_nanos();
            let base = u64::from(base) << 20;
            eprintln!("HOLDFAST_SEED={base} and the {count} that follow");
            (base..base + count).collect()
        }
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

pub(crate) type Tag = u64;
pub(crate) type Report = Arc<Mutex<Vec<Completion<Tag>>>>;

/// What a record is made of; compared as a whole.
pub(crate) type Body = (u16, Bytes, Bytes);

/// An open log whose writer the test drives.
pub(crate) struct Rig {
    pub(crate) journal: Journal<Tag>,
    pub(crate) writer: Writer<Tag>,
    pub(crate) recovery: Recovery,
    pub(crate) found: Vec<Recovered>,
    pub(crate) report: Report,
}

pub(crate) fn open_with(
    device: &SimDevice,
    config: Config,
    options: OpenOptions,
) -> (Result<Rig, OpenError>, Vec<Recovered>) {
    let mut found = Vec::new();
    let report = Report::default();
    let sink = {
        let report = report.clone();
        move |completion| report.lock().unwrap().push(completion)
    };
    let opened = Journal::open_manual(device.clone(), config, options, sink, |record| found.push(record));
    let rig = opened.map(|(journal, writer, recovery)| Rig {
        journal,
        writer,
        recovery,
        found: found.clone(),
        report,
    });
    (rig, found)
}

pub(crate) fn open(device: &SimDevice) -> Rig {
    open_with(device, small(), OpenOptions::default()).0.unwrap()
}

impl Rig {
    /// Runs the writer until it has nothing to do.
    pub(crate) fn drain(&mut self) -> Step {
        loop {
            match self.writer.step() {
                Step::Progress => {}
                other => return other,
            }
        }
    }

    /// Appends one record and has it written.
    pub(crate) fn put(&mut self, payload: impl Into<Bytes>) -> Position {
        let position = self
            .journal
            .append(1, Bytes::from_static(b"head"), payload.into(), 0)
            .unwrap();
        assert_eq!(self.drain(), Step::Idle);
        position
    }
}

pub(crate) fn body(record: &Record) -> Body {
    (record.kind, record.header.clone(), record.payload.clone())
}

/// What must be in the log.
#[derive(Default)]
pub(crate) struct Model {
    /// Everything reported durable, or found by a recovery, and not released.
    pub(crate) durable: BTreeMap<Position, Body>,
    /// Everything appended in this life and not yet reported, in order, with its tag.
    pub(crate) pending: Vec<(Tag, Position, Body)>,
    /// The highest position ever reported durable.
    pub(crate) through: Position,
    /// The highest position that was released before.
    pub(crate) released: Position,
    pub(crate) next_tag: Tag,
    pub(crate) failed: bool,
}

impl Model {
    /// Appends a random record; now and then one whose payload is a piece of the log itself.
    pub(crate) fn append(&mut self, rig: &Rig, device: &SimDevice, random: &mut Random) {
        let tag = self.next_tag;
        let len = match random.below(4) {
            0 => random.below(64),
            1 | 2 => random.below(5000),
            _ => random.below(30_000),
        };
        let mut payload = vec![u8::try_from(tag % 251).unwrap(); usize::try_from(len).unwrap()];
        if random.below(4) == 0
            && let Ok(files) = device.list()
            && !files.is_empty()
        {
            let (name, _) = files[usize::try_from(random.below(files.len() as u64)).unwrap()];
            // A failed read leaves the payload as it is.
            let _ = device.read_at(name, random.below(16) * 4096, &mut payload);
        }
        let kind = u16::try_from(random.below(7)).unwrap();
        let head = Bytes::copy_from_slice(&tag.to_le_bytes()[..usize::try_from(random.below(9)).unwrap()]);
        // The tag is in the payload too, so that no two records are alike.
        payload.extend_from_slice(&tag.to_le_bytes());
        let payload = Bytes::from(payload);
        match rig.journal.append(kind, head.clone(), payload.clone(), tag) {
            Ok(position) => {
                assert!(position > self.through, "a durable position was given again");
                if let Some((_, last, _)) = self.pending.last() {
                    assert!(position > *last, "positions grow");
                }
                self.pending.push((tag, position, (kind, head, payload)));
                self.next_tag += 1;
            }
            Err(AppendError::Full | AppendError::NoRoom) => {}
            Err(AppendError::Failed(_)) => self.failed = true,
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes what the sink was told.
    pub(crate) fn hear(&mut self, rig: &Rig) {
        for completion in rig.report.lock().unwrap().drain(..) {
            assert!(!self.failed, "nothing follows a failure");
            match completion {
                Completion::Durable { tags, through } => {
                    assert!(through > self.through);
                    self.through = through;
                    for tag in tags {
                        let (expected, position, body) = self.pending.remove(0);
                        assert_eq!(tag, expected, "in order");
                        assert!(position < through);
                        self.durable.insert(position, body);
                    }
                }
                Completion::Failed { tags, .. } => {
                    let expected: Vec<Tag> = self.pending.iter().map(|(tag, ..)| *tag).collect();
                    assert_eq!(tags, expected, "every tag comes back once");
                    self.failed = true;
                }
            }
        }
    }

    /// Compares with what a recovery found, and takes over what it kept of the pending records.
    pub(crate) fn check(&mut self, recovery: &Recovery, found: &[Recovered]) {
        assert!(
            !matches!(recovery.verdict, Verdict::Damaged { .. }),
            "{recovery:?}"
        );
        assert!(
            recovery.first <= self.released.max(Position::new(64 << 10)),
            "kept until released"
        );
        assert!(
            recovery.end >= self.through,
            "durable to {}, {recovery:?}",
            self.through
        );
        self.durable.retain(|&position, _| position >= recovery.first);
        let mut expected = self.durable.iter();
        let mut extra = self.pending.iter();
        let mut kept = Vec::new();
        let mut last = Position::ZERO;
        for Recovered { record, after_damage } in found {
            assert!(record.position > last && !after_damage);
            last = record.position;
            if let Some((&position, wanted)) = expected.next() {
                assert_eq!(
                    (record.position, &body(record)),
                    (position, wanted),
                    "durable records, in order"
                );
            } else {
                // A group that was whole although nobody was told.
                let (_, position, wanted) = extra.next().expect("only what was appended");
                assert_eq!((record.position, &body(record)), (*position, wanted));
                kept.push((record.position, body(record)));
            }
        }
        assert_eq!(expected.next(), None, "every durable record is there");
        self.durable.extend(kept);
        self.pending.clear();
        self.through = self.through.max(recovery.end);
        self.failed = false;
    }
}
