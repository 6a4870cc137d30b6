use bytes::Bytes;
use holdfast_types::{BlockOp, BlockRange, BlockSize, Lba, TRANSFER_BYTES_MAX};

use crate::fixture::{BLOCKS, Fixture, done, sense, storage};
use crate::{Finish, Status, Step};

fn range(lba: u64, blocks: u64) -> BlockRange {
    BlockRange::new(Lba(lba), blocks).unwrap()
}

/// The CDB of `opcode` for a range, by its group.
fn cdb(opcode: u8, flags: u8, lba: u64, blocks: u32) -> Vec<u8> {
    let low = u32::try_from(lba & 0xffff_ffff).unwrap().to_be_bytes();
    let count = blocks.to_be_bytes();
    match opcode >> 5 {
        0 => vec![opcode, low[1] | flags, low[2], low[3], count[3], 0],
        4 => [&[opcode, flags][..], &lba.to_be_bytes(), &count, &[0, 0]].concat(),
        5 => [&[opcode, flags][..], &low, &count, &[0, 0]].concat(),
        _ => [&[opcode, flags][..], &low, &[0], &count[2..], &[0]].concat(),
    }
}

const READS: [u8; 4] = [0x08, 0x28, 0xa8, 0x88];
const WRITES: [u8; 4] = [0x0a, 0x2a, 0xaa, 0x8a];
const WRITE_VERIFIES: [u8; 3] = [0x2e, 0xae, 0x8e];
const VERIFIES: [u8; 3] = [0x2f, 0xaf, 0x8f];

#[test]
fn reads_of_every_length() {
    for opcode in READS {
        let found = storage(Fixture::new().start(&cdb(opcode, 0, 7, 3)));
        assert_eq!(found.op, BlockOp::Read { range: range(7, 3) });
        assert_eq!(found.finish, Finish::DataIn);
    }
    // Zero blocks are 256 in the six-byte CDB and none in the others.
    let six = storage(Fixture::new().start(&cdb(0x08, 0, 7, 0)));
    assert_eq!(six.op, BlockOp::Read { range: range(7, 256) });
    // The top three bits of byte 1 are no part of the address.
    let six = storage(Fixture::new().start(&[0x08, 0xe0, 0, 7, 1, 0]));
    assert_eq!(six.op, BlockOp::Read { range: range(7, 1) });
}

#[test]
fn writes_of_every_length() {
    let data = vec![0x5a; 1024];
    for opcode in WRITES {
        let found = storage(Fixture::new().run(&cdb(opcode, 0, 998, 2), &data));
        let wanted = BlockOp::Write {
            range: range(998, 2),
            data: Bytes::from(data.clone()),
            fua: false,
        };
        assert_eq!((found.op, found.finish), (wanted, Finish::Status));
    }
    for (opcodes, flags) in [
        (&WRITES[1..], 0x08),
        (&WRITE_VERIFIES[..], 0x00),
        (&WRITE_VERIFIES[..], 0x02),
    ] {
        for opcode in opcodes {
            let found = storage(Fixture::new().run(&cdb(*opcode, flags, 0, 2), &data));
            assert!(
                matches!(found.op, BlockOp::Write { fua: true, .. }),
                "{opcode:02x}"
            );
        }
    }
}

#[test]
fn the_six_byte_write_has_no_fua() {
    // Bit 3 of byte 1 is part of the address there.
    let step = Fixture::new().start_on(&[0x0a, 0x08, 0, 7, 1, 0], 512, |view| view.blocks = 1 << 40);
    let Step::NeedData { then, .. } = step else {
        panic!("no data asked for");
    };
    let fixture = Fixture::new();
    let mut view = fixture.view();
    view.blocks = 1 << 40;
    let Step::Storage(found) = then.with_data(&view, Bytes::from(vec![1; 512])) else {
        panic!("not for storage");
    };
    let wanted = BlockOp::Write {
        range: range(0x08_0007, 1),
        data: Bytes::from(vec![1; 512]),
        fua: false,
    };
    assert_eq!(found.op, wanted);
}

#[test]
fn empty_transfers_are_good() {
    let opcodes = READS[1..]
        .iter()
        .chain(&WRITES[1..])
        .chain(&WRITE_VERIFIES)
        .chain(&VERIFIES);
    for opcode in opcodes.chain(&[0x89, 0x34, 0x90]) {
        for lba in [0, BLOCKS] {
            assert_eq!(
                sense(Fixture::new().start(&cdb(*opcode, 0, lba, 0))),
                "",
                "{opcode:02x}"
            );
        }
        assert_eq!(
            sense(Fixture::new().start(&cdb(*opcode, 0, BLOCKS + 1, 0))),
            "05/21/00",
            "{opcode:02x}"
        );
    }
}

#[test]
fn beyond_the_end_is_out_of_range() {
    let opcodes = READS
        .iter()
        .chain(&WRITES)
        .chain(&WRITE_VERIFIES)
        .chain(&VERIFIES);
    for opcode in opcodes.chain(&[0x34, 0x90, 0x35, 0x91]) {
        for (lba, blocks) in [(BLOCKS, 1), (BLOCKS - 1, 2), (0x1f_ffff, 1)] {
            assert_eq!(
                Fixture::new().sense(&cdb(*opcode, 0, lba, blocks)),
                "05/21/00",
                "{opcode:02x}"
            );
        }
    }
    for opcode in [0x88, 0x8a, 0x8e, 0x8f, 0x90, 0x91] {
        for lba in [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 52] {
            assert_eq!(
                Fixture::new().sense(&cdb(opcode, 0, lba, 2)),
                "05/21/00",
                "{opcode:02x} {lba:x}"
            );
        }
    }
}

#[test]
fn overlong_transfers_are_refused() {
    let most = TRANSFER_BYTES_MAX >> 9;
    let large = |opcode, blocks| {
        Fixture::new().start_on(&cdb(opcode, 0, 0, blocks), u32::MAX, |view| view.blocks = 1 << 40)
    };
    for opcode in READS[1..]
        .iter()
        .chain(&WRITES[1..])
        .chain(&WRITE_VERIFIES)
        .chain(&VERIFIES)
    {
        assert_eq!(sense(large(*opcode, most + 1)), "05/24/00", "{opcode:02x}");
        assert!(!matches!(large(*opcode, most), Step::Done(_)), "{opcode:02x}");
    }
    // The limit is in bytes.
    let step = Fixture::new().start_on(&cdb(0x88, 0, 0, (TRANSFER_BYTES_MAX >> 12) + 1), 0, |view| {
        view.block_size = BlockSize::B4096;
        view.blocks = 1 << 40;
    });
    assert_eq!(sense(step), "05/24/00");
}

#[test]
fn protection_information_is_refused() {
    let opcodes = READS[1..]
        .iter()
        .chain(&WRITES[1..])
        .chain(&WRITE_VERIFIES)
        .chain(&VERIFIES);
    for opcode in opcodes.chain(&[0x89, 0x41, 0x93]) {
        for protect in 1..8 {
            let step = Fixture::new().start_on(&cdb(*opcode, protect << 5, 0, 1), 512, |_| {});
            let field = done(step).sense.and_then(|sense| sense.field).unwrap();
            assert_eq!((field.byte, field.bit), (1, Some(7)), "{opcode:02x}");
        }
    }
}

/// Where the transport announces less than the CDB names: the whole blocks that it does announce are written and the rest is residual, as
/// libiscsi's residual tests want; part of a block is refused with nothing written.
#[test]
fn a_write_that_is_announced_short_writes_whole_blocks_and_counts_the_rest() {
    for opcode in WRITES.iter().chain(&WRITE_VERIFIES) {
        let on = |announced| Fixture::new().start_on(&cdb(*opcode, 0, 7, 2), announced, |_| {});
        for announced in [200, 511, 513, 1023] {
            let response = done(on(announced));
            assert_eq!(response.sense.unwrap().to_string(), "05/0E/03");
            assert_eq!(response.data_out_wanted, 1024);
        }
        let nothing = done(on(0));
        assert_eq!((nothing.sense, nothing.data_out_wanted), (None, 1024));
        let found = storage(Fixture::new().run(&cdb(*opcode, 0, 7, 2), &[9; 512]));
        let BlockOp::Write {
            range: written, data, ..
        } = found.op
        else {
            panic!("no write");
        };
        assert_eq!((written, data), (range(7, 1), Bytes::from(vec![9; 512])));
        assert_eq!(found.finish, Finish::StatusOf { wanted: 1024 });
        for announced in [1024, 10_000] {
            assert!(
                matches!(on(announced), Step::NeedData { bytes: 1024, .. }),
                "{opcode:02x}"
            );
        }
    }
}

#[test]
fn a_short_write_is_good_with_its_overflow() {
    let finished = crate::finish(Finish::StatusOf { wanted: 1024 }, holdfast_types::OpOutcome::Done);
    let crate::Finished::Response(response) = finished else {
        panic!("no response");
    };
    assert_eq!((response.status, response.data_out_wanted), (Status::Good, 1024));
}

/// WRITE ATOMIC(16); the length has two bytes behind two of an atomic boundary.
fn atomic(flags: u8, lba: u64, boundary: u8, blocks: u16) -> Vec<u8> {
    let [high, low] = blocks.to_be_bytes();
    [
        &[0x9c, flags][..],
        &lba.to_be_bytes(),
        &[0, boundary, high, low, 0, 0],
    ]
    .concat()
}

#[test]
fn atomic_writes_are_writes_of_a_bounded_length() {
    let found = storage(Fixture::new().run(&atomic(0x08, 3, 0, 2), &[4; 1024]));
    let wanted = BlockOp::Write {
        range: range(3, 2),
        data: Bytes::from(vec![4; 1024]),
        fua: true,
    };
    assert_eq!((found.op, found.finish), (wanted, Finish::Status));
    let large =
        |blocks| Fixture::new().start_on(&atomic(0, 0, 0, blocks), u32::MAX, |view| view.blocks = 1 << 40);
    let most = u16::try_from(holdfast_types::ATOMIC_BYTES_MAX >> 9).unwrap();
    assert!(matches!(large(most), Step::NeedData { .. }));
    assert_eq!(sense(large(most + 1)), "05/24/00");
    assert_eq!(Fixture::new().sense(&atomic(0, 0, 1, 1)), "05/24/00");
    assert_eq!(Fixture::new().sense(&atomic(0, BLOCKS, 0, 1)), "05/21/00");
    assert_eq!(Fixture::new().sense(&atomic(0, 0, 0, 0)), "");
    // All or nothing: no part of it is written where less is announced.
    for announced in [0, 512, 1023] {
        let step = Fixture::new().start_on(&atomic(0, 0, 0, 2), announced, |_| {});
        assert_eq!(sense(step), "05/0E/03");
    }
}

#[test]
fn or_write_hands_its_bits_to_storage() {
    let found = storage(Fixture::new().run(&cdb(0x8b, 0x18, 5, 2), &[0x0f; 1024]));
    let data = Bytes::from(vec![0x0f; 1024]);
    assert_eq!(
        found.op,
        BlockOp::OrWrite {
            range: range(5, 2),
            data
        }
    );
    assert_eq!(Fixture::new().sense(&cdb(0x8b, 0, BLOCKS, 1)), "05/21/00");
    assert_eq!(Fixture::new().sense(&cdb(0x8b, 0, BLOCKS, 0)), "");
    let step = Fixture::new().start_on(&cdb(0x8b, 0, 0, 2), 512, |_| {});
    assert_eq!(sense(step), "05/0E/03");
}

#[test]
fn i12_data_of_another_length_than_asked_for_changes_nothing() {
    let mut fixture = Fixture::new();
    for length in [0, 511, 513] {
        let Step::NeedData { then, .. } = fixture.start_on(&cdb(0x2a, 0, 0, 1), 512, |_| {}) else {
            panic!("no data asked for");
        };
        assert_eq!(
            sense(then.with_data(&fixture.view(), Bytes::from(vec![0; length]))),
            "05/0E/03"
        );
    }
}

#[test]
fn verify_with_and_without_data() {
    for opcode in VERIFIES {
        let found = storage(Fixture::new().start(&cdb(opcode, 0, 1, 4)));
        let read = BlockOp::Verify {
            range: range(1, 4),
            expect: None,
        };
        assert_eq!((found.op, found.finish), (read, Finish::Compare));
        let expect = |step| match storage(step).op {
            BlockOp::Verify { expect, .. } => expect.unwrap(),
            other => panic!("{other:?}"),
        };
        let bytes: Vec<u8> = (0..1024_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        assert_eq!(
            expect(Fixture::new().run(&cdb(opcode, 0x02, 1, 2), &bytes)),
            bytes
        );
        let same = expect(Fixture::new().run(&cdb(opcode, 0x06, 1, 3), &bytes[..512]));
        assert_eq!(same, bytes[..512], "one block, for each of the three");
        assert_eq!(Fixture::new().sense(&cdb(opcode, 0x04, 1, 3)), "05/24/00");
        // Data that is announced but not wanted is residual.
        storage(Fixture::new().start_on(&cdb(opcode, 0, 1, 1), 512, |_| {}));
    }
    for opcode in WRITE_VERIFIES {
        for flags in [0x04, 0x06] {
            assert_eq!(Fixture::new().sense(&cdb(opcode, flags, 1, 3)), "05/24/00");
        }
    }
}

#[test]
fn compare_and_write_takes_both_halves() {
    let command = |blocks: u8| [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, blocks, 0, 0];
    let data: Vec<u8> = [[1_u8; 1024], [2; 1024]].concat();
    let found = storage(Fixture::new().run(&command(2), &data));
    let wanted = BlockOp::CompareAndWrite {
        range: range(9, 2),
        expect: Bytes::from(vec![1; 1024]),
        data: Bytes::from(vec![2; 1024]),
    };
    assert_eq!((found.op, found.finish), (wanted, Finish::Compare));
    for announced in [0, 1024, 2047, 2049, 4096] {
        let step = Fixture::new().start_on(&command(2), announced, |_| {});
        assert_eq!(sense(step), "05/0E/03", "{announced}");
    }
    assert_eq!(sense(Fixture::new().start(&command(0))), "");
    // 256 blocks do not fit into the byte: with data behind it, a length of 0 is a mistake and not a wish.
    let wrapped = Fixture::new().start_on(&command(0), 256 * 1024, |_| {});
    assert_eq!(sense(wrapped), "05/24/00");
    let most = Fixture::new().start_on(&command(255), 255 * 1024, |_| {});
    assert!(matches!(most, Step::NeedData { bytes: 261_120, .. }));
}

#[test]
fn synchronize_cache_flushes_whatever_is_named() {
    for opcode in [0x35, 0x91] {
        for flags in [0, 2] {
            for (lba, blocks) in [(0, 0), (5, 1), (0, 1000), (BLOCKS, 0)] {
                let found = storage(Fixture::new().start(&cdb(opcode, flags, lba, blocks)));
                assert_eq!((found.op, found.finish), (BlockOp::Flush, Finish::Status));
            }
        }
    }
}

#[test]
fn pre_fetch_checks_its_range() {
    for opcode in [0x34, 0x90] {
        let response = done(Fixture::new().start(&cdb(opcode, 2, 990, 10)));
        assert_eq!((response.status, response.sense), (Status::Good, None));
    }
}

#[test]
fn a_unit_that_shrank_while_the_data_came_is_not_written_beyond_its_end() {
    let mut fixture = Fixture::new();
    let Step::NeedData { then, .. } = fixture.start_on(&cdb(0x2a, 0, 999, 1), 512, |_| {}) else {
        panic!("no data asked for");
    };
    let mut view = fixture.view();
    view.blocks = 999;
    assert_eq!(
        sense(then.with_data(&view, Bytes::from(vec![0; 512]))),
        "05/21/00"
    );
}
