//! Extent files against a plain vector of bytes.
#![allow(clippy::cast_possible_truncation, reason = "sizes here are small")]

use holdfast_types::Lba;
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use super::*;

const ID: ExtentId = ExtentId::from_u128(0x42);

fn meta(block_size: BlockSize) -> ExtentMeta {
    ExtentMeta {
        id: ID,
        bytes: 1 << 20,
        block_size,
        created: Revision(1),
        damaged: None,
        sums: true,
        device: None,
    }
}

fn range(lba: u64, blocks: u64) -> BlockRange {
    BlockRange::new(Lba(lba), blocks).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, u64, u8),
    Same(u64, u64, u8),
    Zero(u64, u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || (0u64..2048, 0u64..200);
    let step = prop_oneof![
        (at(), any::<u8>()).prop_map(|((lba, n), b)| Step::Write(lba, n.min(2048 - lba), b)),
        (at(), 0u8..3).prop_map(|((lba, n), b)| Step::Same(lba, n.min(2048 - lba), b)),
        at().prop_map(|(lba, n)| Step::Zero(lba, n.min(2048 - lba))),
        Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..12)
}

fn fill(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// W7: zeros in every block named, whatever their alignment; and the hash sees contents, not holes.
    #[test]
    fn contents_equal_a_plain_vector(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut file = ExtentFile::create(dir.path(), meta(BlockSize::B512)).unwrap();
        let mut model = vec![0_u8; 1 << 20];
        for step in steps {
            match step {
                Step::Write(lba, n, seed) => {
                    let data = fill(n as usize * 512, seed);
                    file.write(range(lba, n), &data).unwrap();
                    model[lba as usize * 512..][..data.len()].copy_from_slice(&data);
                }
                Step::Same(lba, n, byte) => {
                    file.write_same(range(lba, n), &[byte; 512]).unwrap();
                    model[lba as usize * 512..][..n as usize * 512].fill(byte);
                }
                Step::Zero(lba, n) => {
                    file.zero(range(lba, n)).unwrap();
                    model[lba as usize * 512..][..n as usize * 512].fill(0);
                }
                Step::Reopen => {
                    drop(file);
                    file = ExtentFile::open(dir.path(), ID, &Devices::none()).unwrap();
                }
            }
        }
        prop_assert!(file.read(range(0, 2048)).unwrap() == model);
        let digests = |data: &[u8]| -> Digests { data.chunks(4096).map(|piece| Some(digest(piece))).collect() };
        prop_assert_eq!(file.digests(range(0, 2048), 4096).unwrap(), digests(&model));
        prop_assert_eq!(file.digests(range(3, 99), 4096).unwrap(), digests(&model[3 * 512..102 * 512]));
        if let Some(data) = file.try_read(range(5, 7)).unwrap() {
            prop_assert!(data == model[5 * 512..12 * 512]);
        }
    }
}

#[test]
fn w7_zero_frees_whole_blocks_and_a_hole_hashes_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let file = ExtentFile::create(dir.path(), meta(BlockSize::B512)).unwrap();
    let empty = file.digests(range(0, 2048), 4096).unwrap();
    let of = |data: &[u8]| -> Digests { data.chunks(4096).map(|piece| Some(digest(piece))).collect() };
    assert_eq!(empty, of(&vec![0; 1 << 20]));
    file.write(range(0, 2048), &vec![7; 1 << 20]).unwrap();
    file.sync().unwrap();
    let full = fs::metadata(data_path(dir.path(), ID)).unwrap().blocks();
    file.zero(range(1, 2046)).unwrap();
    let mut want = vec![0; 1 << 20];
    want[..512].fill(7);
    want[(1 << 20) - 512..].fill(7);
    assert_eq!(file.digests(range(0, 2048), 4096).unwrap(), of(&want));
    assert!(fs::metadata(data_path(dir.path(), ID)).unwrap().blocks() < full);
    file.zero(range(0, 2048)).unwrap();
    assert_eq!(file.digests(range(0, 2048), 4096).unwrap(), empty);
}

#[test]
fn what_is_not_within_the_extent_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = ExtentFile::create(dir.path(), meta(BlockSize::B4096)).unwrap();
    assert!(matches!(file.read(range(250, 7)), Err(StoreError::Range { .. })));
    assert!(matches!(
        file.write(range(0, 2), &[1; 4096]),
        Err(StoreError::Range { .. })
    ));
    assert!(matches!(
        file.write_same(range(0, 2), &[1; 512]),
        Err(StoreError::Range { .. })
    ));
    assert!(file.zero(range(256, 1)).is_err());
    assert!(!file.has_failed());
    assert_eq!(file.read(range(0, 256)).unwrap(), vec![0; 1 << 20]);
}

/// Where the file system keeps holes, the map shows them; every block is in one run, and none that holds data counts as a hole.
#[test]
fn w7_the_map_names_every_block_once_and_no_data_as_a_hole() {
    for size in [BlockSize::B512, BlockSize::B4096] {
        let dir = tempfile::tempdir().unwrap();
        let file = ExtentFile::create(dir.path(), meta(size)).unwrap();
        let blocks = file.blocks();
        let unit = 4096 >> size.shift();
        let data = vec![1; 4096];
        for at in [0, 5, 6, 9] {
            file.write(range(at * unit, unit), &data).unwrap();
        }
        file.zero(range(6 * unit, unit)).unwrap();
        let all = file.map(Lba(0), u16::MAX).unwrap();
        let mut next = 0;
        for run in &all {
            assert_eq!(run.range.lba().0, next);
            next = run.range.end().0;
        }
        assert_eq!(next, blocks);
        for at in [0, 5, 9] {
            let run = all
                .iter()
                .find(|run| run.range.contains(range(at * unit, unit)))
                .unwrap();
            assert!(run.mapped, "{size:?} {all:?}");
        }
        if file.is_hole(4096, 8192) {
            let holes: Vec<(u64, u64)> = all
                .iter()
                .filter(|run| !run.mapped)
                .map(|run| (run.range.lba().0 / unit, run.range.end().0 / unit))
                .collect();
            assert_eq!(holes, [(1, 5), (6, 9), (10, blocks / unit)], "{size:?}");
        }
        assert_eq!(file.map(Lba(0), 2).unwrap(), all[..2]);
        let inside = file.map(Lba(5 * unit + unit / 2), 1).unwrap();
        assert_eq!(
            (inside[0].range.lba().0, inside[0].mapped),
            (5 * unit + unit / 2, true)
        );
        assert_eq!(file.map(Lba(blocks), 4).unwrap(), []);
    }
}

/// A hole in the place of data is not told as zeros: whoever copies by the map has to read there, and learns that it is bad (I10).
#[test]
fn w7_a_hole_where_data_was_written_counts_as_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = ExtentFile::create(dir.path(), meta(BlockSize::B4096)).unwrap();
    file.write(range(3, 1), &[1; 4096]).unwrap();
    file.contents.clear(3 * 4096, 4096).unwrap();
    let runs = file.map(Lba(0), u16::MAX).unwrap();
    let lost = runs.iter().find(|run| run.range.contains(range(3, 1))).unwrap();
    assert!(lost.mapped, "{runs:?}");
}

#[test]
fn it_grows_and_keeps_its_contents() {
    let dir = tempfile::tempdir().unwrap();
    let file = ExtentFile::create(dir.path(), meta(BlockSize::B512)).unwrap();
    file.write(range(2047, 1), &[9; 512]).unwrap();
    file.grow(2 << 20).unwrap();
    file.grow(1 << 20).unwrap();
    assert!(file.grow((2 << 20) + 1).is_err());
    assert_eq!(file.blocks(), 4096);
    file.write(range(4095, 1), &[3; 512]).unwrap();
    drop(file);
    let file = ExtentFile::open(dir.path(), ID, &Devices::none()).unwrap();
    assert_eq!(file.read(range(2047, 1)).unwrap(), vec![9; 512]);
    assert_eq!(file.read(range(4095, 1)).unwrap(), vec![3; 512]);
}

#[test]
fn j2_a_failed_write_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let file = ExtentFile::create(dir.path(), meta(BlockSize::B512)).unwrap();
    // A descriptor that can only read stands for a disk that refuses writes.
    let broken = ExtentFile {
        contents: Contents::Sparse {
            file: File::open(data_path(dir.path(), ID)).unwrap(),
            path: data_path(dir.path(), ID),
        },
        ..file
    };
    assert!(matches!(
        broken.write(range(0, 1), &[1; 512]),
        Err(StoreError::Io { .. })
    ));
    assert!(broken.has_failed());
    assert!(matches!(broken.read(range(0, 1)), Err(StoreError::Failed(_))));
    assert!(matches!(broken.try_read(range(0, 1)), Err(StoreError::Failed(_))));
    assert!(matches!(broken.sync(), Err(StoreError::Failed(_))));
}

#[test]
fn extents_are_listed_created_once_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    assert!(ExtentFile::list(dir.path()).unwrap().is_empty());
    drop(ExtentFile::create(dir.path(), meta(BlockSize::B512)).unwrap());
    assert!(matches!(
        ExtentFile::create(dir.path(), meta(BlockSize::B512)),
        Err(StoreError::Exists(_))
    ));
    assert_eq!(ExtentFile::list(dir.path()).unwrap(), [ID]);
    ExtentFile::remove(dir.path(), ID).unwrap();
    ExtentFile::remove(dir.path(), ID).unwrap();
    assert!(ExtentFile::open(dir.path(), ID, &Devices::none()).is_err());
    assert!(ExtentFile::list(dir.path()).unwrap().is_empty());
}

#[test]
fn a_data_file_that_is_too_short_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    drop(ExtentFile::create(dir.path(), meta(BlockSize::B512)).unwrap());
    File::options()
        .write(true)
        .open(data_path(dir.path(), ID))
        .unwrap()
        .set_len(1000)
        .unwrap();
    assert!(matches!(
        ExtentFile::open(dir.path(), ID, &Devices::none()),
        Err(StoreError::Damaged { .. })
    ));
}
