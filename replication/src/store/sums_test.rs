//! Bits that flip, crashes between data and sums: what an extent file says of its blocks.
#![allow(clippy::cast_possible_truncation, reason = "sizes here are small")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use holdfast_types::{BlockRange, BlockSize, ExtentId, Lba, Lsn, Revision};
use proptest::prelude::*;

use super::*;
use crate::store::{Damage, Devices, ExtentFile, ExtentMeta};

const ID: ExtentId = ExtentId::from_u128(0x77);

fn meta(block_size: BlockSize, sums: bool) -> ExtentMeta {
    ExtentMeta {
        id: ID,
        bytes: 1 << 20,
        block_size,
        created: Revision(1),
        damaged: None,
        sums,
        device: None,
    }
}

fn range(lba: u64, blocks: u64) -> BlockRange {
    BlockRange::new(Lba(lba), blocks).unwrap()
}

struct Rig {
    dir: tempfile::TempDir,
    file: ExtentFile,
    size: BlockSize,
}

impl Rig {
    fn new(size: BlockSize, sums: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = ExtentFile::create(dir.path(), meta(size, sums)).unwrap();
        Self { dir, file, size }
    }

    fn path(&self, what: &str) -> PathBuf {
        self.dir.path().join(format!("{ID}.{what}"))
    }

    fn raw(&self, what: &str) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(self.path(what)).unwrap()
    }

    fn flip(&self, what: &str, bit: u64) {
        let file = self.raw(what);
        let mut byte = [0];
        file.read_exact_at(&mut byte, bit / 8).unwrap();
        byte[0] ^= 1 << (bit % 8);
        file.write_all_at(&byte, bit / 8).unwrap();
    }

    fn reopen(self) -> Self {
        let Self { dir, file, size } = self;
        drop(file);
        let file = ExtentFile::open(dir.path(), ID, &Devices::none()).unwrap();
        Self { dir, file, size }
    }

    fn block(&self, seed: u8) -> Vec<u8> {
        (0..self.size.bytes())
            .map(|i| (i as u8).wrapping_mul(31) ^ seed)
            .collect()
    }

    fn bad(&self, lba: u64, blocks: u64) -> Option<BlockRange> {
        match self.file.read(range(lba, blocks)) {
            Ok(_) => None,
            Err(StoreError::Rotten { range, .. }) => Some(range),
            Err(error) => panic!("{error}"),
        }
    }
}

fn sizes() -> impl Strategy<Value = BlockSize> {
    prop_oneof![Just(BlockSize::B512), Just(BlockSize::B4096)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// A bit that flips in the data or in the sums, written, freed or never written: that block and no other is bad, for every way that
    /// its contents could leave the node.
    #[test]
    fn i10_a_flipped_bit_is_never_read(
        size in sizes(), writes in proptest::collection::vec((0_u64..250, 1_u64..6, any::<u8>()), 0..8),
        freed in (0_u64..200, 0_u64..50), in_data in any::<bool>(), bit in any::<u64>(),
    ) {
        let rig = Rig::new(size, true);
        for (lba, blocks, seed) in writes {
            rig.file.write(range(lba, blocks), &rig.block(seed).repeat(blocks as usize)).unwrap();
        }
        rig.file.zero(range(freed.0, freed.1)).unwrap();
        let whole = rig.file.blocks();
        prop_assert_eq!(rig.bad(0, whole), None);
        let (what, bits) = if in_data { ("img", (1 << 20) * 8) } else { ("sum", whole * 32) };
        let bit = bit % bits;
        rig.flip(what, bit);
        let lba = bit / 8 / if in_data { u64::from(size.bytes()) } else { 4 };
        let rig = rig.reopen();
        prop_assert_eq!(rig.bad(0, whole), Some(range(lba, 1)));
        prop_assert_eq!(rig.bad(lba, 1), Some(range(lba, 1)));
        prop_assert!(rig.file.try_read(range(lba, 1)).unwrap().is_none());
        prop_assert_eq!(rig.file.digests(range(lba, 1), 4096).unwrap(), vec![None]);
        prop_assert_eq!(rig.bad(0, lba), None);
        prop_assert_eq!(rig.bad(lba + 1, whole - lba - 1), None);
        // Whoever writes the block makes it good.
        rig.file.write(range(lba, 1), &rig.block(9)).unwrap();
        prop_assert_eq!(rig.bad(0, whole), None);
    }
}

#[test]
fn i10_several_bad_blocks_are_told_as_one_range() {
    let rig = Rig::new(BlockSize::B4096, true);
    rig.file.write(range(0, 256), &rig.block(3).repeat(256)).unwrap();
    rig.flip("img", 8 * 4096 * 7);
    rig.flip("img", 8 * 4096 * 21);
    assert_eq!(rig.bad(0, 256), Some(range(7, 15)));
}

#[test]
fn i10_a_lost_write_is_noticed() {
    let rig = Rig::new(BlockSize::B4096, true);
    rig.file.write(range(5, 1), &rig.block(1)).unwrap();
    let old = rig.file.read(range(5, 1)).unwrap();
    rig.file.write(range(5, 1), &rig.block(2)).unwrap();
    // The disk said that it has it, and has the block of before.
    rig.raw("img").write_all_at(&old, 5 * 4096).unwrap();
    assert_eq!(rig.bad(0, 256), Some(range(5, 1)));
}

#[test]
fn sums_can_be_switched_off() {
    let rig = Rig::new(BlockSize::B4096, false);
    rig.file.write(range(0, 2), &rig.block(3).repeat(2)).unwrap();
    assert!(!rig.path("sum").exists());
    rig.flip("img", 77);
    let rig = rig.reopen();
    assert_eq!(
        rig.bad(0, 256),
        None,
        "nothing is noticed: that is what was asked for"
    );
    assert!(!rig.file.meta().sums);
}

#[test]
fn j1_sums_that_are_gone_cost_the_replica_its_place() {
    for keep in [None, Some(8)] {
        let rig = Rig::new(BlockSize::B4096, true);
        rig.file.write(range(0, 2), &rig.block(3).repeat(2)).unwrap();
        match keep {
            None => std::fs::remove_file(rig.path("sum")).unwrap(),
            Some(len) => rig.raw("sum").set_len(len).unwrap(),
        }
        let rig = rig.reopen();
        assert_eq!(rig.file.meta().damaged, Some(Damage::Sums));
        assert_eq!(rig.bad(2, 254), None);
        let rig = rig.reopen();
        assert_eq!(rig.file.meta().damaged, Some(Damage::Sums), "it is stable");
    }
}

#[test]
fn j1_after_a_crash_between_data_and_sums_the_record_is_carried_out_again() {
    for data_first in [true, false] {
        let rig = Rig::new(BlockSize::B512, true);
        rig.file.write(range(8, 8), &rig.block(1).repeat(8)).unwrap();
        let new = rig.block(2).repeat(2);
        // What a record of two blocks left when the power went: one of the two, half of it torn.
        if data_first {
            rig.raw("img").write_all_at(&new[..700], 9 * 512).unwrap();
        } else {
            let other = Rig::new(BlockSize::B512, true);
            other.file.write(range(9, 2), &new).unwrap();
            let mut sums = [0; 8];
            other.raw("sum").read_exact_at(&mut sums, 9 * 4).unwrap();
            rig.raw("sum").write_all_at(&sums, 9 * 4).unwrap();
        }
        let rig = rig.reopen();
        rig.file.doubt(std::iter::once((Lsn(7), range(9, 2))));
        rig.file.write(range(9, 2), &new).unwrap();
        rig.file.settled(Lsn(7));
        assert_eq!(rig.bad(0, 2048), None);
        rig.flip("img", 8 * 512 * 11);
        assert_eq!(
            rig.bad(0, 2048),
            Some(range(11, 1)),
            "its neighbours keep their proof"
        );
    }
}

#[test]
fn r1_what_a_dropped_log_may_have_written_counts_as_written() {
    let rig = Rig::new(BlockSize::B4096, true);
    rig.file.write(range(0, 8), &rig.block(1).repeat(8)).unwrap();
    // Three records of an earlier run got as far as the data.
    for lba in [1, 3, 5] {
        rig.raw("img").write_all_at(&rig.block(2), lba * 4096).unwrap();
    }
    let rig = rig.reopen();
    rig.file.doubt(
        [
            (Lsn(4), range(1, 1)),
            (Lsn(5), range(3, 1)),
            (Lsn(6), range(5, 1)),
        ]
        .into_iter(),
    );
    rig.file.write(range(1, 1), &rig.block(2)).unwrap();
    rig.file.settled(Lsn(4));
    rig.flip("img", 8 * 4096);
    rig.file.accept_doubtful().unwrap();
    // The one that was carried out again is judged as ever; the ranges of the others are compared with a peer.
    assert_eq!(rig.bad(0, 8), Some(range(1, 1)));
    // What was never committed was never carried out: nothing to accept.
    let rig = rig.reopen();
    rig.file.doubt(std::iter::once((Lsn(9), range(1, 1))));
    rig.file.dropped_behind(Lsn(8));
    rig.file.accept_doubtful().unwrap();
    assert_eq!(rig.bad(0, 8), Some(range(1, 1)));
}
