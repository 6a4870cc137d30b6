use holdfast_types::{
    BlockOp, BlockRange, Lba, MappedRun, OpOutcome, UNMAP_BLOCKS_MAX, WRITE_SAME_BYTES_MAX,
};

use crate::fixture::{BLOCKS, Fixture, sense, storage};
use crate::{Finish, Step};

fn range(lba: u64, blocks: u64) -> BlockRange {
    BlockRange::new(Lba(lba), blocks).unwrap()
}

fn list(descriptors: &[(u64, u32)]) -> Vec<u8> {
    let length = u16::try_from(descriptors.len() * 16).unwrap();
    let mut data = [(length + 6).to_be_bytes(), length.to_be_bytes(), [0; 2], [0; 2]].concat();
    for (lba, blocks) in descriptors {
        data.extend_from_slice(&lba.to_be_bytes());
        data.extend_from_slice(&blocks.to_be_bytes());
        data.extend_from_slice(&[0; 4]);
    }
    data
}

fn unmap_on(data: &[u8], blocks: u64) -> Step {
    let [high, low] = u16::try_from(data.len()).unwrap().to_be_bytes();
    let cdb = [0x42, 0, 0, 0, 0, 0, 0, high, low, 0];
    Fixture::new().run_on(&cdb, data, |view| view.blocks = blocks)
}

fn unmap(data: &[u8]) -> Step {
    unmap_on(data, BLOCKS)
}

#[test]
fn w7_unmap_is_zeros_in_every_block_named() {
    let found = storage(unmap(&list(&[(1, 7), (5, 0), (999, 1), (2, 3)])));
    let ranges = vec![range(1, 7), range(999, 1), range(2, 3)];
    assert_eq!(found.op, BlockOp::Zero { ranges });
}

#[test]
fn unmap_of_nothing_is_good() {
    assert_eq!(
        sense(Fixture::new().start(&[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        ""
    );
    assert_eq!(sense(unmap(&list(&[]))), "");
    assert_eq!(sense(unmap(&list(&[(BLOCKS, 0)]))), "");
    // An incomplete last descriptor is ignored.
    let mut data = list(&[]);
    data[3] = 15;
    data.resize(8 + 15, 0xff);
    assert_eq!(sense(unmap(&data)), "");
}

#[test]
fn i12_bad_unmap_lists_are_refused_whole() {
    assert_eq!(sense(unmap(&list(&[(0, 1), (BLOCKS, 1)]))), "05/21/00");
    assert_eq!(sense(unmap(&list(&[(u64::MAX, u32::MAX)]))), "05/21/00");
    for length in 1..8 {
        assert_eq!(sense(unmap(&vec![0; length])), "05/1A/00", "{length}");
    }
    // More descriptors said than there are bytes.
    let mut data = list(&[(0, 1)]);
    data[3] = 17;
    assert_eq!(sense(unmap(&data)), "05/1A/00");
    assert_eq!(sense(unmap(&list(&[(0, 1); 257]))), "05/26/00");
    assert_eq!(storage(unmap(&list(&[(0, 1); 256]))).op.ranges().len(), 256);
    // ANCHOR.
    assert_eq!(
        Fixture::new().sense(&[0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0]),
        "05/24/00"
    );
}

#[test]
fn unmap_counts_the_blocks_of_all_descriptors() {
    let most = UNMAP_BLOCKS_MAX;
    let on = |descriptors: &[(u64, u32)]| unmap_on(&list(descriptors), 1 << 30);
    assert!(matches!(on(&[(0, most)]), Step::Storage(_)));
    assert!(matches!(on(&[(0, most - 1), (0, 1)]), Step::Storage(_)));
    assert_eq!(sense(on(&[(0, most + 1)])), "05/26/00");
    assert_eq!(sense(on(&[(0, most), (0, 1)])), "05/26/00");
}

fn same_10(flags: u8, lba: u8, blocks: u8) -> [u8; 10] {
    [0x41, flags, 0, 0, 0, lba, 0, 0, blocks, 0]
}

fn same_16(flags: u8, lba: u64, blocks: u32) -> Vec<u8> {
    [
        &[0x93, flags][..],
        &lba.to_be_bytes(),
        &blocks.to_be_bytes(),
        &[0, 0],
    ]
    .concat()
}

#[test]
fn write_same_puts_a_block_everywhere() {
    let block = [7; 512];
    for cdb in [&same_10(0, 3, 4)[..], &same_16(0, 3, 4)] {
        let wanted = BlockOp::WriteSame {
            range: range(3, 4),
            block: block.to_vec().into(),
        };
        assert_eq!(storage(Fixture::new().run(cdb, &block)).op, wanted);
    }
}

#[test]
fn w7_write_same_of_zeros_or_without_data_zeroes() {
    let zero = |lba, blocks| BlockOp::Zero {
        ranges: vec![range(lba, blocks)],
    };
    for flags in [0, 0x08] {
        assert_eq!(
            storage(Fixture::new().run(&same_10(flags, 3, 4), &[0; 512])).op,
            zero(3, 4)
        );
        assert_eq!(
            storage(Fixture::new().run(&same_16(flags, 3, 4), &[0; 512])).op,
            zero(3, 4)
        );
        // NDOB.
        assert_eq!(
            storage(Fixture::new().start(&same_16(flags | 1, 3, 4))).op,
            zero(3, 4)
        );
        // A length of 0 goes to the end.
        assert_eq!(
            storage(Fixture::new().start(&same_16(flags | 1, 3, 0))).op,
            zero(3, 997)
        );
    }
    assert_eq!(sense(Fixture::new().start(&same_16(1, BLOCKS, 0))), "");
    assert_eq!(sense(Fixture::new().run(&same_16(0, BLOCKS, 0), &[1; 512])), "");
    // One byte that is not zero, at the very end: it is written, unless the initiator asks for deallocation in so many words.
    let mut block = [0; 512];
    block[511] = 1;
    let found = storage(Fixture::new().run(&same_16(0, 3, 4), &block));
    assert!(matches!(found.op, BlockOp::WriteSame { .. }));
    for cdb in [&same_10(0x08, 3, 4)[..], &same_16(0x08, 3, 4)] {
        assert_eq!(storage(Fixture::new().run(cdb, &block)).op, zero(3, 4));
    }
}

#[test]
fn write_same_refuses_what_is_not_offered() {
    // ANCHOR, PBDATA, LBDATA.
    for flags in [0x10, 0x18, 0x04, 0x02] {
        assert_eq!(Fixture::new().sense(&same_10(flags, 0, 1)), "05/24/00");
        assert_eq!(Fixture::new().sense(&same_16(flags, 0, 1)), "05/24/00");
    }
    // In the ten-byte CDB bit 0 is no NDOB: data is wanted.
    assert_eq!(Fixture::new().sense(&same_10(1, 0, 1)), "05/0E/03");
    for data in [&[][..], &[0; 256], &[0; 1024]] {
        assert_eq!(sense(Fixture::new().run(&same_10(0x08, 0, 1), data)), "05/0E/03");
        assert_eq!(sense(Fixture::new().run(&same_16(0x08, 0, 1), data)), "05/0E/03");
    }
    for (lba, blocks) in [
        (BLOCKS + 1, 0),
        (BLOCKS, 1),
        (999, 2),
        (u64::MAX, 0),
        (1 << 63, 1),
    ] {
        assert_eq!(Fixture::new().sense(&same_16(1, lba, blocks)), "05/21/00");
    }
}

#[test]
fn write_same_length_is_bounded_as_declared() {
    let most = WRITE_SAME_BYTES_MAX >> 9;
    let on = |lba, blocks| Fixture::new().start_on(&same_16(1, lba, blocks), 0, |view| view.blocks = 1 << 40);
    assert!(matches!(on(0, most), Step::Storage(_)));
    assert_eq!(sense(on(0, most + 1)), "05/24/00");
    assert_eq!(sense(on(0, 0)), "05/24/00");
    assert!(matches!(on((1 << 40) - u64::from(most), 0), Step::Storage(_)));
}

fn lba_status(lba: u64, allocation: u32) -> Vec<u8> {
    let mut cdb = vec![0x9e, 0x12];
    cdb.extend_from_slice(&lba.to_be_bytes());
    cdb.extend_from_slice(&allocation.to_be_bytes());
    cdb.extend_from_slice(&[0, 0]);
    cdb
}

/// The question that a GET LBA STATUS becomes.
fn asked(lba: u64, allocation: u32) -> (u64, u16) {
    let found = storage(Fixture::new().start(&lba_status(lba, allocation)));
    assert_eq!(found.finish, Finish::Map { allocation });
    match found.op {
        BlockOp::Map { from, runs } => (from.0, runs),
        other => panic!("{other:?}"),
    }
}

/// As many descriptors as fit, but at least one and not without bound; from the first whole physical block on.
#[test]
fn lba_status_asks_for_what_fits() {
    for (allocation, runs) in [
        (0, 1),
        (8, 1),
        (24, 1),
        (25, 2),
        (40, 2),
        (4096, 256),
        (u32::MAX, 256),
    ] {
        assert_eq!(asked(0, allocation), (0, runs), "{allocation}");
    }
    for (lba, from) in [(0, 0), (1, 8), (8, 8), (9, 16), (991, 992), (992, 992)] {
        assert_eq!(asked(lba, 24).0, from, "{lba}");
    }
    // The last physical block, from its middle.
    assert_eq!(asked(BLOCKS - 1, 24).0, BLOCKS - 1);
}

#[test]
fn golden_lba_status() {
    let run = |lba, blocks, mapped| MappedRun {
        range: range(lba, blocks),
        mapped,
    };
    let finished = crate::finish(
        Finish::Map { allocation: 255 },
        OpOutcome::Map(vec![run(8, 0x102, true), run(0x10a, 1, false)]),
    );
    let crate::Finished::Response(response) = finished else {
        panic!("no response");
    };
    let mut wanted = vec![0, 0, 0, 36, 0, 0, 0, 0];
    wanted.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 1, 2, 0, 0, 0, 0]);
    wanted.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 0x0a, 0, 0, 0, 1, 1, 0, 0, 0]);
    assert_eq!(response.data[..], wanted);
    for allocation in [0, 1, 8, 23, 24, 40] {
        let response =
            crate::unit::provision::lba_status(&[run(8, 0x102, true), run(0x10a, 1, false)], allocation);
        assert_eq!(response.data[..], wanted[..allocation as usize]);
    }
}

#[test]
fn lba_status_begins_within_the_unit() {
    for lba in [BLOCKS, BLOCKS + 1, 1 << 63, u64::MAX] {
        for allocation in [0, 24] {
            assert_eq!(Fixture::new().sense(&lba_status(lba, allocation)), "05/21/00");
        }
    }
}

/// A run of more blocks than a descriptor can count goes on in the next one.
#[test]
fn lba_status_of_a_run_beyond_32_bits_goes_on() {
    for total in [1_u64, (1 << 32) - 1, 1 << 32, (1 << 35) + 5] {
        let run = MappedRun {
            range: range(0, total),
            mapped: false,
        };
        let data = crate::unit::provision::lba_status(&[run], u32::MAX).data;
        let mut at = 0_u64;
        for descriptor in data[8..].chunks_exact(16) {
            assert_eq!(descriptor[..8], at.to_be_bytes());
            assert_eq!(descriptor[12], 1);
            at += u64::from(u32::from_be_bytes(descriptor[8..12].try_into().unwrap()));
        }
        assert_eq!(at, total);
    }
}
