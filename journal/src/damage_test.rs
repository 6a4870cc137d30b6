//! Damage is told from a torn tail (J1), and never taken for records.

use std::io::{self, IoSlice};

use proptest::prelude::*;

use crate::format::*;
use crate::harness_test::*;
use crate::*;

const SEGMENT: u64 = 64 << 10;

/// A log over several segments; returns the disk, the durable records and where the log ends.
fn filled(records: u64, close: bool) -> (SimDevice, Vec<(Position, Body)>, Position) {
    let device = SimDevice::new(7);
    let mut rig = open(&device);
    let mut model = Model::default();
    let mut random = Random(11);
    for _ in 0..records {
        let len = usize::try_from(random.below(9000)).unwrap();
        let payload: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
        let position = rig.put(payload.clone());
        model.durable.insert(position, (1, "head".into(), payload.into()));
    }
    let end = rig.journal.durable_through();
    if close {
        rig.journal.close();
        assert_eq!(rig.drain(), Step::Finished);
    }
    drop(rig);
    device.restart();
    (device, model.durable.into_iter().collect(), end)
}

fn damage_of(error: OpenError) -> (Position, Damage, Recovery) {
    match error {
        OpenError::Damaged { recovery, .. } => match recovery.verdict.clone() {
            Verdict::Damaged { position, reason } => (position, reason, recovery),
            other => panic!("{other:?}"),
        },
        other => panic!("{other}"),
    }
}

fn refused(device: &SimDevice, options: OpenOptions) -> (Position, Damage, Vec<Recovered>) {
    let operations = device.operations();
    let (rig, found) = open_with(device, small(), options);
    let (position, damage, _) = damage_of(rig.err().expect("damage is refused"));
    assert_eq!(
        device.operations(),
        operations,
        "a refused opening changes nothing"
    );
    (position, damage, found)
}

fn known(position: Position) -> OpenOptions {
    OpenOptions {
        known_durable: Some(position),
        ..OpenOptions::default()
    }
}

/// Every bit that matters of every acknowledged record, after a crash, by the owner's knowledge; after an orderly close, by the log's own.
#[test]
fn j1_a_flipped_bit_anywhere_in_acknowledged_data_is_damage() {
    for close in [false, true] {
        let (device, records, end) = filled(28, close);
        let options = if close { OpenOptions::default() } else { known(end) };
        let clean = open_with(&device.fork(1), small(), options).0.unwrap();
        assert_eq!(clean.recovery.verdict, Verdict::Clean);
        assert_eq!(clean.found.len(), records.len());
        let mut random = Random(if close { 5 } else { 6 });
        for (index, (position, body)) in records.iter().enumerate() {
            let len = (RECORD_HEADER_LEN + body.1.len() + body.2.len()) as u64;
            // Once in the group's header, which the record is the first behind, once in the record.
            for (from, len) in [(position.get() - 64, 56), (position.get(), len)] {
                let at = from + random.below(len);
                let copy = device.fork(index as u64);
                let bit = u32::try_from(random.below(8)).unwrap();
                copy.flip_bit(FileName::Segment(at / SEGMENT), at % SEGMENT, bit)
                    .unwrap();
                let (damaged_at, _, found) = refused(&copy, options);
                assert!(damaged_at.get() <= at, "{damaged_at} for {at:#x}");
                let missing: Vec<_> = records
                    .iter()
                    .filter(|(p, _)| !found.iter().any(|f| f.record.position == *p))
                    .collect();
                assert!(
                    missing.len() <= 1,
                    "every other record is offered: {}",
                    missing.len()
                );
                for f in &found {
                    let (_, wanted) = records.iter().find(|(p, _)| *p == f.record.position).unwrap();
                    assert_eq!(&body_of(f), wanted, "nothing but what was appended");
                    assert_eq!(f.after_damage, f.record.position > damaged_at);
                }
            }
        }
    }
}

fn body_of(found: &Recovered) -> Body {
    body(&found.record)
}

#[test]
fn j1_a_bad_segment_header_a_missing_and_a_short_segment_are_damage() {
    let (device, records, _) = filled(40, true);
    let files = device.list().unwrap();
    let segments: Vec<u64> = files
        .iter()
        .filter_map(|(name, _)| match name {
            FileName::Segment(n) => Some(*n),
            _ => None,
        })
        .collect();
    assert!(segments.len() >= 3, "{segments:?}");
    for &segment in &segments {
        let name = FileName::Segment(segment);
        for byte in [0, 12, 20, 40, 60, 90, 511] {
            let copy = device.fork(1);
            copy.flip_bit(name, byte, 1).unwrap();
            let (_, damage, found) = refused(&copy, OpenOptions::default());
            assert_eq!(damage, Damage::BadHeader(segment));
            assert_eq!(
                found.len(),
                records.len(),
                "the records themselves are still good"
            );
        }
        let last = Some(&segment) == segments.last();
        let copy = device.fork(1);
        copy.remove(name).unwrap();
        let options = if last {
            known(records.last().unwrap().0)
        } else {
            OpenOptions::default()
        };
        let (position, damage, _) = refused(&copy, options);
        if last {
            assert!(matches!(damage, Damage::BelowKnownDurable(_)), "{damage}");
        } else {
            assert_eq!(
                (position, damage),
                (Position::new(segment * SEGMENT), Damage::MissingSegment(segment))
            );
        }
        let copy = device.fork(1);
        copy.edit(name, |bytes| {
            bytes.truncate(9000);
            Ok(())
        })
        .unwrap();
        assert_eq!(
            refused(&copy, OpenOptions::default()).1,
            Damage::ShortSegment(segment)
        );
        let copy = device.fork(1);
        copy.make_unreadable(name);
        assert!(matches!(
            refused(&copy, OpenOptions::default()).1,
            Damage::Unreadable(..)
        ));
    }
}

#[test]
fn j1_the_owner_knows_of_more_or_needs_more() {
    let (device, records, end) = filled(5, false);
    let (_, damage, found) = refused(&device.fork(1), known(Position::new(end.get() + 1)));
    assert!(matches!(damage, Damage::BelowKnownDurable(_)));
    assert_eq!(found.len(), records.len());
    let needed = OpenOptions {
        needed_from: Some(Position::new(SEGMENT - 1)),
        ..OpenOptions::default()
    };
    assert!(matches!(
        refused(&device.fork(1), needed).1,
        Damage::AboveNeeded(_)
    ));
    let (_, damage, _) = refused(&SimDevice::new(1), known(Position::new(1 << 20)));
    assert!(
        matches!(damage, Damage::BelowKnownDurable(_)),
        "a log that vanished altogether"
    );
}

/// Rot in the newest group would look like a torn write, and cutting it would lose what was acknowledged.
#[test]
fn j1_a_flipped_bit_in_the_last_group_is_no_torn_tail() {
    let (device, records, end) = filled(3, false);
    let (last, _) = records.last().unwrap();
    let at = |position: Position| usize::try_from(position.get() % SEGMENT).unwrap();
    let name = FileName::Segment(last.get() / SEGMENT);
    // From the group's header on. The last sector is nearly empty, perhaps.
    let group = at(*last) / BLOCK_LEN * BLOCK_LEN;
    let full = at(end) / 512 * 512;
    let mut bits: Vec<usize> = (group * 8..(group + 96) * 8).collect();
    bits.extend(((group + 96) * 8..full * 8).step_by(41));
    for bit in bits {
        let copy = device.fork(1);
        copy.edit(name, |bytes| {
            bytes[bit / 8] ^= 1 << (bit % 8);
            Ok(())
        })
        .unwrap();
        // Bytes of the group's header that nobody reads may be wrong.
        let (rig, found) = open_with(&copy, small(), OpenOptions::default());
        if rig.is_ok() {
            assert_eq!(found.len(), records.len(), "bit {bit}: nothing is cut");
            continue;
        }
        let (_, damage, _) = damage_of(rig.err().unwrap());
        assert_eq!(damage, Damage::BadRecord, "bit {bit}");
    }
}

#[test]
fn j1_a_torn_tail_is_cut_and_said() {
    let mut torn = 0;
    for seed in 0..60 {
        let device = SimDevice::new(seed);
        let mut rig = open(&device);
        let kept = rig.put("kept");
        let end = rig.journal.durable_through();
        device.cut_power_at(device.operations());
        rig.journal
            .append(2, "lost".into(), vec![3; 20_000].into(), 0)
            .unwrap();
        assert_eq!(rig.drain(), Step::Finished);
        drop(rig);
        device.restart();
        let rig = open_with(&device, small(), known(end)).0.unwrap();
        if let Verdict::TornTail { position, bytes } = rig.recovery.verdict {
            torn += 1;
            assert_eq!((position, bytes), (end, 64 + 32 + 4 + 20_000));
            assert_eq!(rig.found.len(), 1);
        }
        assert_eq!(rig.found[0].record.position, kept);
    }
    assert!(torn > 15, "{torn}");
}

#[test]
fn j1_accepted_damage_is_left_behind_and_the_log_goes_on() {
    let (device, records, end) = filled(40, true);
    let (position, _) = &records[10];
    device
        .flip_bit(
            FileName::Segment(position.get() / SEGMENT),
            position.get() % SEGMENT + 40,
            3,
        )
        .unwrap();
    let (damaged_at, damage, _) = refused(&device, known(end));
    assert_eq!((&damaged_at, damage), (position, Damage::BadRecord));
    let accept = OpenOptions {
        accept_damage: true,
        ..known(end)
    };
    // Not written to yet: the damage is still news at the next opening.
    drop(open_with(&device, small(), accept).0.unwrap());
    refused(&device, known(end));
    let mut rig = open_with(&device, small(), accept).0.unwrap();
    assert_eq!(rig.found.len(), records.len() - 1);
    rig.journal.release_before(Position::new(3 * SEGMENT));
    let fresh = rig.put("after");
    assert!(fresh > end);
    drop(rig);
    for _ in 0..2 {
        let rig = open_with(&device, small(), known(fresh)).0.unwrap();
        assert_eq!(rig.recovery.verdict, Verdict::Clean);
        assert!(rig.recovery.accepted.unwrap() > end);
        assert!(rig.found.iter().all(|f| !f.after_damage));
        assert_eq!(rig.found.last().unwrap().record.position, fresh);
        assert_eq!(rig.journal.read(fresh).unwrap().payload, "after");
    }
    // New damage behind the accepted one is news.
    let mut rig = open(&device);
    rig.put("more");
    drop(rig);
    device
        .flip_bit(
            FileName::Segment(fresh.get() / SEGMENT),
            fresh.get() % SEGMENT + 1,
            0,
        )
        .unwrap();
    assert_eq!(refused(&device, OpenOptions::default()).0, fresh);
}

#[test]
fn a_log_without_any_good_header_is_damage_and_can_be_left_behind() {
    let (device, _, end) = filled(3, false);
    device.flip_bit(FileName::Segment(1), 100, 0).unwrap();
    assert_eq!(refused(&device, OpenOptions::default()).1, Damage::BadHeader(1));
    let accept = OpenOptions {
        accept_damage: true,
        ..OpenOptions::default()
    };
    let mut rig = open_with(&device, small(), accept).0.unwrap();
    let fresh = rig.put("after");
    assert!(fresh > end);
    drop(rig);
    let rig = open(&device);
    assert_eq!((rig.found.len(), rig.recovery.verdict), (1, Verdict::Clean));
}

#[test]
fn j1_a_write_that_never_reached_the_medium_is_damage() {
    let device = SimDevice::new(1);
    let mut rig = open(&device);
    rig.put("one");
    let stale = device.fork(2);
    drop(rig);
    // The same place twice: what a lying disk kept, and what it said to have written.
    let (mut kept, mut said) = (open(&stale), open(&device));
    let position = kept.put("kept by the disk");
    assert_eq!(said.put("said to be written"), position);
    let behind = said.put("three");
    let block = position.get() / BLOCK * BLOCK % SEGMENT;
    let mut old = vec![0; BLOCK_LEN];
    stale.read_at(FileName::Segment(1), block, &mut old).unwrap();
    drop(said);
    device
        .write_durable(FileName::Segment(1), block, &mut [IoSlice::new(&old)])
        .unwrap();
    let (at, damage, found) = refused(&device, OpenOptions::default());
    assert_eq!(
        (at.get() / BLOCK, damage),
        (behind.get() / BLOCK, Damage::BrokenChain)
    );
    assert!(found.last().unwrap().after_damage);
}

#[test]
fn a_release_past_missing_segments_is_done_once() {
    let (device, _, _) = filled(40, true);
    device.remove(FileName::Segment(1)).unwrap();
    device.remove(FileName::Segment(2)).unwrap();
    let accept = OpenOptions {
        accept_damage: true,
        ..OpenOptions::default()
    };
    let mut rig = open_with(&device, small(), accept).0.unwrap();
    rig.put("after");
    rig.journal.release_before(Position::new(3 * SEGMENT));
    assert_eq!(rig.drain(), Step::Idle);
    assert_eq!(
        rig.journal.first_position(),
        Position::new(3 * SEGMENT),
        "nothing is left to do"
    );
}

#[test]
fn a_newer_version_is_refused_and_nothing_is_touched() {
    let (device, _, _) = filled(3, false);
    device.create(FileName::Filling(99), 10).unwrap();
    device
        .edit(FileName::Segment(1), |bytes| {
            bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
            bytes[12..16].fill(0);
            let crc = crc32c::crc32c(&bytes[..SEGMENT_HEADER_LEN]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            Ok(())
        })
        .unwrap();
    let operations = device.operations();
    let accept = OpenOptions {
        accept_damage: true,
        ..OpenOptions::default()
    };
    let error = open_with(&device, small(), accept).0.err().unwrap();
    assert_eq!(
        error.to_string(),
        "journal test: segment 1 has format version 9, newer than 1, the newest that this version of holdfast knows"
    );
    assert_eq!(device.operations(), operations);
}

#[test]
fn a_file_of_another_log_is_not_taken_for_a_segment() {
    let (device, _, _) = filled(40, true);
    let other = SimDevice::new(8);
    let mut rig = open(&other);
    for _ in 0..40 {
        rig.put(vec![1; 7000]);
    }
    let mut alien = Vec::new();
    other
        .edit(FileName::Segment(2), |bytes| {
            alien.clone_from(bytes);
            Ok(())
        })
        .unwrap();
    device
        .edit(FileName::Segment(2), |bytes| {
            *bytes = alien;
            Ok(())
        })
        .unwrap();
    let (_, damage, found) = refused(&device, OpenOptions::default());
    assert_eq!(damage, Damage::WrongSegment(2));
    assert!(found.iter().all(|f| f.record.payload != vec![1; 7000]));
}

/// Headers with right checksums and wild fields, and any other bytes, in any file.
fn wild(device: &SimDevice, random: &mut Random) -> io::Result<()> {
    let sequence = 1 + random.below(3);
    let name = FileName::Segment(sequence);
    if device.list()?.iter().all(|(n, _)| *n != name) {
        device.create(name, SEGMENT)?;
    }
    let any = |random: &mut Random| match random.below(4) {
        0 => random.below(4),
        1 => random.below(8) * SEGMENT,
        2 => random.next(),
        _ => u64::MAX - random.below(3),
    };
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap();
    let chain = Chain {
        number: any(random),
        crc: low(any(random)),
        incarnation: low(any(random)),
    };
    match random.below(4) {
        0 => {
            let bytes: Vec<u8> = (0..600).map(|_| random.next().to_le_bytes()[3]).collect();
            let at = random.below(SEGMENT - 600);
            device.write_durable(name, at, &mut [IoSlice::new(&bytes)])
        }
        1 => {
            let header = SegmentHeader {
                log: 1,
                sequence: if random.below(3) == 0 {
                    any(random)
                } else {
                    sequence
                },
                segment_size: if random.below(3) == 0 {
                    any(random)
                } else {
                    SEGMENT
                },
                durable: any(random),
                first: any(random),
                accepted: any(random),
                chain,
            };
            device.write_durable(name, 0, &mut [IoSlice::new(&header.encode())])
        }
        _ => {
            let offset = BLOCK * (1 + random.below(15));
            let address = sequence * SEGMENT + offset;
            let mut bytes = Vec::new();
            let header = GroupHeader {
                address,
                durable: any(random).min(address),
                first: any(random),
                chain,
                len: low(any(random)),
                records: low(any(random)),
            };
            let before = header.encode(seed(1), &mut bytes);
            let record = RecordHeader {
                address: address + 64,
                before,
                header_len: low(any(random)),
                payload_len: low(any(random)),
                kind: 1,
                group: low(any(random)),
            };
            record.encode(seed(1), &[], &[], &mut bytes);
            device.write_durable(name, offset, &mut [IoSlice::new(&bytes)])
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_bytes_are_judged_and_never_panic(seed in any::<u64>(), count in 1..12_usize, known in any::<u64>()) {
        let mut random = Random(seed);
        let device = SimDevice::new(seed);
        for _ in 0..count {
            wild(&device, &mut random).unwrap();
        }
        let known_durable = (seed % 2 == 0).then(|| Position::new(known >> (seed % 64)));
        for accept_damage in [false, true] {
            let options = OpenOptions { known_durable, needed_from: None, accept_damage };
            if let Ok(mut rig) = open_with(&device, small(), options).0 {
                let appended = rig.journal.append(1, "a".into(), "b".into(), 0);
                rig.drain();
                if let Ok(position) = appended
                    && let Some(Completion::Durable { .. }) = rig.report.lock().unwrap().last()
                {
                    prop_assert_eq!(rig.journal.read(position).unwrap().payload, "b");
                }
                drop(rig.journal.read(Position::new(known)));
            }
        }
    }
}
