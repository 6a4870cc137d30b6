//! What a checked writer puts into each block, so that a reader knows who wrote it, where, and in which order.

use bytes::{Bytes, BytesMut};

/// First bytes of every block written by a checked writer.
const MAGIC: u64 = u64::from_be_bytes(*b"HFDRILL1");
/// Magic, run, writer, sequence, unit, checksum.
const HEADER_BYTES: usize = 6 * 8;
/// Smallest unit that holds a stamp.
pub const UNIT_BYTES_MIN: usize = 512;

/// Who wrote a unit, and which of the values it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The run, so that what an earlier run left behind is not taken for ours.
    pub run: u64,
    /// The writer.
    pub writer: u64,
    /// Counts the values that this unit was given, from 1 on.
    pub sequence: u64,
    /// Where the unit lies, in units from the start of the disk.
    pub unit: u64,
}

/// What a unit read back holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No stamp: never written by a checked writer.
    Blank,
    /// A whole value.
    Whole(Stamp),
    /// A stamp whose rest belongs to something else: parts of two writes, or damage.
    Torn(Stamp),
}

impl Stamp {
    /// The unit's contents, `bytes` long (a multiple of 8, at least [`UNIT_BYTES_MIN`]).
    pub fn fill(&self, bytes: usize) -> Bytes {
        let mut block = BytesMut::with_capacity(bytes);
        for word in [
            MAGIC,
            self.run,
            self.writer,
            self.sequence,
            self.unit,
            self.checksum(),
        ] {
            block.extend_from_slice(&word.to_be_bytes());
        }
        let mut state = self.checksum();
        while block.len() < bytes {
            block.extend_from_slice(&next(&mut state).to_be_bytes());
        }
        block.truncate(bytes);
        block.freeze()
    }

    /// What `block` holds; every byte of it is checked.
    pub fn find(block: &[u8]) -> Found {
        let word = |index: usize| {
            block
                .get(index * 8..index * 8 + 8)
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, u64::from_be_bytes)
        };
        if block.len() < HEADER_BYTES || word(0) != MAGIC {
            return Found::Blank;
        }
        let stamp = Self {
            run: word(1),
            writer: word(2),
            sequence: word(3),
            unit: word(4),
        };
        let mut state = stamp.checksum();
        let is_whole = word(5) == state
            && block[HEADER_BYTES..]
                .chunks(8)
                .all(|chunk| next(&mut state).to_be_bytes().starts_with(chunk));
        if is_whole {
            Found::Whole(stamp)
        } else {
            Found::Torn(stamp)
        }
    }

    fn checksum(&self) -> u64 {
        [self.run, self.writer, self.sequence, self.unit]
            .into_iter()
            .fold(MAGIC, |sum, word| mix(sum ^ word))
    }
}

/// The next word of a stream that `state` starts (SplitMix64): all words of a unit depend on the whole stamp.
const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*state)
}

const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zeros_and_short_blocks_are_blank() {
        assert_eq!(Stamp::find(&[0; 4096]), Found::Blank);
        assert_eq!(Stamp::find(b"HFDRILL1"), Found::Blank);
    }

    proptest! {
        #[test]
        fn a_unit_is_found_whole_and_one_changed_byte_is_noticed(
            run: u64, writer: u64, sequence: u64, unit: u64, size in 64usize..512, at in 8usize..4096, flip in 1u8..,
        ) {
            let stamp = Stamp { run, writer, sequence, unit };
            let block = stamp.fill(size * 8);
            prop_assert_eq!(block.len(), size * 8);
            prop_assert_eq!(Stamp::find(&block), Found::Whole(stamp));
            let mut bad = block.to_vec();
            let at = 8 + (at - 8) % (bad.len() - 8);
            bad[at] ^= flip;
            prop_assert!(matches!(Stamp::find(&bad), Found::Torn(_)));
        }

        #[test]
        fn halves_of_two_writes_are_torn(run: u64, sequence in 0u64..u64::MAX, cut in 1usize..8) {
            let old = Stamp { run, writer: 1, sequence, unit: 5 };
            let new = Stamp { sequence: sequence + 1, ..old };
            let mut block = new.fill(4096).to_vec();
            block[cut * 512..].copy_from_slice(&old.fill(4096)[cut * 512..]);
            prop_assert_eq!(Stamp::find(&block), Found::Torn(new));
        }
    }
}
