//! Data of commands: sizes, bursts, digests, residuals.

use bytes::Bytes;
use holdfast_types::TpgId;

use crate::initiator::ScsiRequest;
use crate::initiator::Settings;
use crate::out::Payload;
use crate::pair::{Pair, cdb, read, settings, write};
use crate::pdu::{Cdb, DataIn, Direction, Opcode, R2t, Residual, ScsiStatus};
use crate::target::{Answer, Event, Offer, PortalConfig, TaskError};

fn keys(pairs: &[(&str, &str)]) -> Settings {
    pairs
        .iter()
        .fold(settings(), |settings, (key, value)| settings.with_key(key, value))
}

/// Writes and reads many sizes at depth, and compares with a copy.
fn exercise(mut pair: Pair) {
    let mut disk = vec![0u8; 1 << 20];
    let mut copy = disk.clone();
    for round in 0..12 {
        let depth = 1 + pair.random.below(6);
        let mut reads = Vec::new();
        for _ in 0..depth {
            let blocks = 1 + pair.random.below(if round % 3 == 0 { 700 } else { 40 });
            let lba = pair.random.below(2048 - blocks);
            let (at, len) = (lba * 512, blocks * 512);
            let lba = u32::try_from(lba).unwrap();
            let data = pair.random.bytes(len);
            copy[at..at + len].copy_from_slice(&data);
            pair.initiator.command(write(lba, data));
            // One at a time where they may overlap: the disk here has no order of its own.
            pair.serve(&mut disk);
            assert_eq!(pair.result().1.status, ScsiStatus::GOOD);
            reads.push((lba, at, len));
        }
        let tags: Vec<_> = reads
            .iter()
            .map(|(lba, _, len)| {
                pair.initiator
                    .command(read(*lba, u16::try_from(len / 512).unwrap()))
            })
            .collect();
        pair.serve(&mut disk);
        for (tag, (_, at, len)) in tags.into_iter().zip(reads) {
            let (got, result) = pair.result();
            assert_eq!(
                (got, result.status, result.residual),
                (tag, ScsiStatus::GOOD, Residual::None)
            );
            assert!(result.data == copy[at..at + len], "read of {len} at {at}");
        }
    }
    assert_eq!(disk, copy);
    assert_eq!((pair.fatal, pair.initiator_error), (None, None));
}

#[test]
fn data_arrives_whole_under_all_combinations() {
    let mut seed = 1;
    for initial_r2t in ["Yes", "No"] {
        for immediate in ["Yes", "No"] {
            for (first, max, segment, r2ts) in [
                ("512", "512", "512", "1"),
                ("4096", "8192", "2048", "3"),
                ("65536", "262144", "8192", "1"),
                ("262144", "1048576", "262144", "4"),
            ] {
                for digest in ["None", "CRC32C"] {
                    let settings = keys(&[
                        ("InitialR2T", initial_r2t),
                        ("ImmediateData", immediate),
                        ("FirstBurstLength", first),
                        ("MaxBurstLength", max),
                        ("MaxRecvDataSegmentLength", segment),
                        ("MaxOutstandingR2T", r2ts),
                        ("HeaderDigest", digest),
                        ("DataDigest", digest),
                    ]);
                    let mut config = PortalConfig::new(TpgId(1));
                    config.offer.max_recv_data_segment_length = segment.parse().unwrap();
                    seed += 1;
                    exercise(Pair::logged_in(config, settings, seed));
                }
            }
        }
    }
}

#[test]
fn data_arrives_whole_with_one_digest_and_odd_segments() {
    for (header, data) in [("CRC32C", "None"), ("None", "CRC32C")] {
        let settings = keys(&[
            ("HeaderDigest", header),
            ("DataDigest", data),
            ("MaxRecvDataSegmentLength", "1021"),
            ("MaxBurstLength", "5555"),
        ]);
        exercise(Pair::logged_in(PortalConfig::new(TpgId(1)), settings, 77));
    }
}

#[test]
fn immediate_data_that_is_all_needs_no_request_and_no_copy() {
    let mut pair = Pair::usual(3);
    let data = pair.random.bytes(4096);
    pair.initiator.command(write(0, data.clone()));
    pair.run();
    let command = pair.command();
    assert_eq!(command.data, data);
    assert_eq!(command.expected_length, 4096);
    // Asking all the same gives the very same memory.
    pair.target.request_data(command.task, 4096).unwrap();
    pair.run();
    let Some(Event::DataOut { data: again, .. }) = pair.owner.pop_front() else {
        panic!("no data");
    };
    assert_eq!(again.as_ptr(), command.data.as_ptr());
    pair.answer(command.task, Answer::good());
    assert_eq!(pair.result().1.residual, Residual::None);
    assert!(!pair.sent.iter().any(|bhs| bhs.opcode() == Opcode::R2T));
}

#[test]
fn r2ts_stay_within_their_number_and_length() {
    let settings = keys(&[
        ("InitialR2T", "Yes"),
        ("ImmediateData", "No"),
        ("MaxBurstLength", "4096"),
        ("MaxOutstandingR2T", "2"),
    ]);
    let mut pair = Pair::logged_in(PortalConfig::new(TpgId(1)), settings, 4);
    let data = pair.random.bytes(512 * 35);
    pair.initiator.command(write(0, data.clone()));
    pair.run();
    let command = pair.command();
    pair.target.request_data(command.task, 512 * 35).unwrap();
    let first: Vec<_> = std::iter::from_fn(|| pair.target.poll_transmit()).collect();
    assert_eq!(first.len(), 2, "MaxOutstandingR2T");
    for pdu in first {
        pair.target.outbox().push(pdu);
    }
    pair.run();
    let r2ts: Vec<R2t> = pair
        .sent
        .iter()
        .filter(|bhs| bhs.opcode() == Opcode::R2T)
        .map(R2t::parse)
        .collect();
    let wanted: Vec<(u32, u32, u32)> = vec![
        (0, 0, 4096),
        (1, 4096, 4096),
        (2, 8192, 4096),
        (3, 12288, 4096),
        (4, 16384, 1536),
    ];
    let got: Vec<_> = r2ts
        .iter()
        .map(|r2t| (r2t.r2t_sn, r2t.offset, r2t.length))
        .collect();
    assert_eq!(got, wanted);
    assert!(matches!(pair.owner.pop_front(), Some(Event::DataOut { data: got, .. }) if got == data));
}

#[test]
fn nothing_is_asked_for_before_the_owner_does() {
    let mut pair = Pair::logged_in(
        PortalConfig::new(TpgId(1)),
        keys(&[("FirstBurstLength", "8192")]),
        5,
    );
    let data = pair.random.bytes(1 << 16);
    pair.initiator.command(write(0, data.clone()));
    pair.run();
    let command = pair.command();
    assert_eq!(command.data.len(), 8192, "FirstBurstLength");
    assert!(pair.owner.is_empty());
    assert!(!pair.sent.iter().any(|bhs| bhs.opcode() == Opcode::R2T));
    // Part of the data only: the CDB may want less than the initiator expects.
    pair.target.request_data(command.task, 10_240).unwrap();
    pair.run();
    assert!(
        matches!(pair.owner.pop_front(), Some(Event::DataOut { data: got, .. }) if got == data[..10_240])
    );
    pair.answer(command.task, Answer::good());
    let (_, result) = pair.result();
    assert_eq!(result.residual, Residual::Under((1 << 16) - 10_240));
}

#[test]
fn data_can_be_asked_for_once_and_not_beyond_what_there_is() {
    let mut pair = Pair::usual(6);
    let data = pair.random.bytes(1 << 20);
    pair.initiator.command(write(0, data));
    pair.initiator.command(read(0, 1));
    pair.run();
    let (writing, reading) = (pair.command(), pair.command());
    assert_eq!(
        pair.target.request_data(writing.task, (1 << 20) + 1),
        Err(TaskError::TooMuch {
            wanted: (1 << 20) + 1,
            expected: 1 << 20
        })
    );
    assert_eq!(pair.target.request_data(writing.task, 1 << 20), Ok(()));
    assert_eq!(
        pair.target.request_data(writing.task, 1 << 20),
        Err(TaskError::NotNow)
    );
    assert_eq!(
        pair.target.request_data(reading.task, 512),
        Err(TaskError::NotNow)
    );
    pair.answer(reading.task, Answer::good());
    assert_eq!(pair.target.request_data(reading.task, 512), Err(TaskError::Gone));
    assert_eq!(
        pair.target.respond(reading.task, Answer::good()),
        Err(TaskError::Gone)
    );
}

#[test]
fn good_rides_on_the_last_data_in() {
    let settings = keys(&[("MaxRecvDataSegmentLength", "1024"), ("MaxBurstLength", "2048")]);
    let mut pair = Pair::logged_in(PortalConfig::new(TpgId(1)), settings, 7);
    pair.initiator.command(read(0, 10));
    pair.run();
    let command = pair.command();
    pair.sent.clear();
    pair.answer(command.task, Answer::data(Bytes::from(vec![1; 5120])));
    let pdus: Vec<DataIn> = pair.sent.iter().map(DataIn::parse).collect();
    assert!(pair.sent.iter().all(|bhs| bhs.opcode() == Opcode::DATA_IN));
    let got: Vec<_> = pdus
        .iter()
        .map(|pdu| (pdu.data_sn, pdu.offset, pdu.last, pdu.status.is_some()))
        .collect();
    let wanted = vec![
        (0, 0, false, false),
        (1, 1024, true, false),
        (2, 2048, false, false),
        (3, 3072, true, false),
        (4, 4096, true, true),
    ];
    assert_eq!(got, wanted);
}

#[test]
fn check_condition_carries_sense_and_the_residual() {
    let mut pair = Pair::usual(8);
    pair.initiator.command(read(0, 2));
    pair.run();
    let command = pair.command();
    let sense = Bytes::from_static(&[0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0]);
    pair.answer(command.task, Answer::check_condition(sense.clone()));
    let (_, result) = pair.result();
    assert_eq!(result.status, ScsiStatus::CHECK_CONDITION);
    assert_eq!((result.sense, result.residual), (sense, Residual::Under(1024)));
}

#[test]
fn residuals_of_reads_and_writes() {
    let mut pair = Pair::usual(9);
    let mut check = |request: ScsiRequest, moved: u64, len: usize, wanted: Residual| {
        pair.initiator.command(request);
        pair.run();
        let command = pair.command();
        let answer = Answer::data(Bytes::from(vec![9; len])).with_moved(moved);
        pair.answer(command.task, answer);
        let (_, result) = pair.result();
        assert_eq!((result.status, result.residual), (ScsiStatus::GOOD, wanted));
        result.data.len()
    };
    // A READ of one block into two, of two blocks into one, of one block into nothing.
    assert_eq!(
        check(
            ScsiRequest::read(0, cdb(0x28, 0, 1), 1024),
            512,
            512,
            Residual::Under(512)
        ),
        512
    );
    assert_eq!(
        check(
            ScsiRequest::read(0, cdb(0x28, 0, 2), 512),
            1024,
            1024,
            Residual::Over(512)
        ),
        512
    );
    assert_eq!(
        check(
            ScsiRequest::read(0, cdb(0x28, 0, 1), 0),
            512,
            512,
            Residual::Over(512)
        ),
        0
    );
    // A WRITE of one block with two, of two blocks with one.
    let data = |len| Bytes::from(vec![1; len]);
    assert_eq!(
        check(
            ScsiRequest::write(0, cdb(0x2a, 0, 1), data(1024)),
            512,
            0,
            Residual::Under(512)
        ),
        0
    );
    assert_eq!(
        check(
            ScsiRequest::write(0, cdb(0x2a, 0, 2), data(512)),
            1024,
            0,
            Residual::Over(512)
        ),
        0
    );
    // No data at all.
    let none = Cdb::new(&[0; 6]).unwrap();
    assert_eq!(check(ScsiRequest::none(0, none), 0, 0, Residual::None), 0);
}

#[test]
fn an_early_error_leaves_late_data_without_a_home() {
    // Unsolicited data is on its way when the command is refused; the connection must live on.
    let mut config = PortalConfig::new(TpgId(1));
    config.offer = Offer {
        max_recv_data_segment_length: 4096,
        ..Offer::default()
    };
    let mut pair = Pair::logged_in(config, settings(), 10);
    let data = pair.random.bytes(1 << 17);
    pair.initiator.command(write(0, data));
    let mut refused = false;
    while !refused {
        // Byte by byte nearly, so that the answer overtakes the data.
        pair.run_once();
        if let Some(Event::Command(command)) = pair.target.poll_event() {
            pair.target
                .respond(
                    command.task,
                    Answer::check_condition(Bytes::from_static(&[0x70; 18])),
                )
                .unwrap();
            refused = true;
        }
    }
    pair.run();
    assert_eq!(pair.result().1.status, ScsiStatus::CHECK_CONDITION);
    assert_eq!(pair.fatal, None);
    pair.initiator.command(read(0, 1));
    pair.run();
    pair.command();
}

#[test]
fn long_cdbs_travel_in_additional_headers() {
    let mut pair = Pair::logged_in(
        PortalConfig::new(TpgId(1)),
        keys(&[("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")]),
        11,
    );
    for len in [17, 32, 33, 260] {
        let bytes = pair.random.bytes(len);
        let request = ScsiRequest::write(0, Cdb::new(&bytes).unwrap(), Bytes::from(vec![1; 512]));
        pair.initiator.command(request);
        pair.run();
        let command = pair.command();
        assert_eq!(command.cdb.as_bytes(), &bytes[..]);
        assert_eq!(command.data.len(), 512);
        pair.answer(command.task, Answer::good());
        pair.result();
    }
}

#[test]
fn bidirectional_commands_reach_the_owner_as_such_and_move_nothing() {
    let mut pair = Pair::usual(12);
    let mut request = ScsiRequest::write(0, cdb(0x53, 0, 1), Payload::from(Bytes::from(vec![1; 512])));
    request.direction = Direction::Both;
    pair.initiator.command(request);
    pair.run();
    let command = pair.command();
    assert_eq!((command.direction, command.read_length), (Direction::Both, 0));
    pair.answer(
        command.task,
        Answer::check_condition(Bytes::from_static(&[0x70; 18])),
    );
    assert_eq!(pair.result().1.status, ScsiStatus::CHECK_CONDITION);
}
