//! What the map of changes says after checkpoints, crashes and damage.
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use proptest::prelude::*;

use super::*;

const ID: ExtentId = ExtentId::from_u128(5);
const RANGES: u64 = 1200;

fn set(words: &[u64]) -> Vec<u64> {
    let bits = |(index, word): (usize, &u64)| {
        let word = *word;
        (0..64_u64)
            .filter(move |bit| word >> bit & 1 == 1)
            .map(move |bit| index as u64 * 64 + bit)
    };
    words
        .iter()
        .enumerate()
        .flat_map(bits)
        .filter(|no| *no < RANGES)
        .collect()
}

fn touch(versions: &Versions, no: u64) {
    versions.touch(no * RESYNC_RANGE_BYTES + 512, 1024);
}

fn reopen(dir: &Path, versions: Versions) -> Versions {
    drop(versions);
    Versions::open(dir, ID, RANGES * RESYNC_RANGE_BYTES).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// R2: whatever changed behind a position is named, whatever was noted when; and after a bit flipped, too.
    #[test]
    fn r2_no_change_is_ever_missed(
        rounds in proptest::collection::vec((proptest::collection::vec(0..RANGES, 0..8), any::<bool>()), 1..8),
        since in 0_u64..90, bit in proptest::option::of(any::<u64>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut versions = Versions::create(dir.path(), ID, RANGES * RESYNC_RANGE_BYTES).unwrap();
        let mut last = vec![0_u64; RANGES as usize];
        for (lsn, (touched, checkpoint)) in rounds.into_iter().enumerate() {
            let lsn = (lsn as u64 + 1) * 10;
            for no in touched {
                touch(&versions, no);
                last[no as usize] = lsn;
            }
            if checkpoint {
                versions.note(|| Lsn(lsn)).unwrap();
            }
        }
        let flipped = bit.is_some();
        if let Some(bit) = bit {
            versions.note(|| Lsn(1000)).unwrap();
            let bit = bit % (file_len(RANGES) * 8);
            let mut byte = [0];
            versions.file.read_exact_at(&mut byte, bit / 8).unwrap();
            versions.file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).unwrap();
            versions = reopen(dir.path(), versions);
        }
        let found = set(&versions.changed_since(Lsn(since)));
        for (no, lsn) in last.iter().enumerate() {
            if *lsn > since {
                prop_assert!(found.contains(&(no as u64)), "{no} changed at {lsn}, asked since {since}");
            } else if *lsn == 0 && !flipped {
                prop_assert!(!found.contains(&(no as u64)), "{no} never changed");
            }
        }
    }
}

#[test]
fn r2_only_what_changed_behind_a_position_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let versions = Versions::create(dir.path(), ID, RANGES * RESYNC_RANGE_BYTES).unwrap();
    touch(&versions, 3);
    versions.note(|| Lsn(10)).unwrap();
    versions.touch(8 * RESYNC_RANGE_BYTES - 1, 2);
    versions.note(|| Lsn(20)).unwrap();
    touch(&versions, 1199);
    assert_eq!(set(&versions.changed_since(Lsn(10))), [7, 8, 1199]);
    assert_eq!(set(&versions.changed_since(Lsn(20))), [1199]);
    let versions = reopen(dir.path(), versions);
    assert_eq!(
        set(&versions.changed_since(Lsn(0))),
        [3, 7, 8],
        "what was not noted is in the journal"
    );
}

#[test]
fn r2_a_map_that_is_gone_names_everything_until_the_next_position() {
    let dir = tempfile::tempdir().unwrap();
    let versions = Versions::create(dir.path(), ID, RANGES * RESYNC_RANGE_BYTES).unwrap();
    std::fs::remove_file(versions.file_path()).unwrap();
    let versions = reopen(dir.path(), versions);
    let all: Vec<u64> = (0..RANGES).collect();
    assert_eq!(set(&versions.changed_since(Lsn(1 << 40))), all);
    versions.note(|| Lsn(7)).unwrap();
    let versions = reopen(dir.path(), versions);
    assert_eq!(set(&versions.changed_since(Lsn(6))), all);
    assert!(set(&versions.changed_since(Lsn(7))).is_empty());
}

#[test]
fn r2_an_extent_that_grew_has_nothing_changed_there() {
    let dir = tempfile::tempdir().unwrap();
    let versions = Versions::create(dir.path(), ID, RESYNC_RANGE_BYTES).unwrap();
    touch(&versions, 0);
    versions.grow(RANGES * RESYNC_RANGE_BYTES).unwrap();
    touch(&versions, 600);
    versions.note(|| Lsn(5)).unwrap();
    let versions = reopen(dir.path(), versions);
    assert_eq!(set(&versions.changed_since(Lsn(0))), [0, 600]);
}
