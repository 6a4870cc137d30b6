//! Logical blocks: sizes, addresses and ranges.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Size of a logical block in bytes: 512 or 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub enum BlockSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes.
    B4096,
}

impl BlockSize {
    /// In bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }

    /// log2 of the size: 9 or 12.
    pub const fn shift(self) -> u32 {
        match self {
            Self::B512 => 9,
            Self::B4096 => 12,
        }
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> Self {
        size.bytes()
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = RangeError;

    fn try_from(bytes: u32) -> Result<Self, Self::Error> {
        match bytes {
            512 => Ok(Self::B512),
            4096 => Ok(Self::B4096),
            _ => Err(RangeError::BlockSize(bytes)),
        }
    }
}

/// Logical block address: counts blocks from the start of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lba(pub u64);

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What is wrong with a size or a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither 512 nor 4096.
    #[error("block size {0} is not 512 or 4096")]
    BlockSize(u32),
    /// The range ends beyond 2^64 bytes.
    #[error("the range starting at block {0} runs over the end of addresses")]
    Overflow(u64),
}

/// Consecutive blocks of one extent. Cannot run over the end of addresses, in blocks or in bytes of 4096-byte blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct BlockRange {
    lba: Lba,
    blocks: u64,
}

impl BlockRange {
    /// `blocks` blocks from `lba` on. An empty range is allowed.
    ///
    /// # Errors
    /// [`RangeError::Overflow`] where the end is not below 2^52 blocks (2^64 bytes of 4096).
    pub const fn new(lba: Lba, blocks: u64) -> Result<Self, RangeError> {
        match lba.0.checked_add(blocks) {
            Some(end) if end <= 1 << 52 => Ok(Self { lba, blocks }),
            _ => Err(RangeError::Overflow(lba.0)),
        }
    }

    /// The first block.
    pub const fn lba(self) -> Lba {
        self.lba
    }

    /// How many blocks.
    pub const fn blocks(self) -> u64 {
        self.blocks
    }

    /// The block after the last.
    pub const fn end(self) -> Lba {
        Lba(self.lba.0 + self.blocks)
    }

    /// Whether there is no block in it.
    pub const fn is_empty(self) -> bool {
        self.blocks == 0
    }

    /// Whether the two have a block in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.blocks > 0
            && other.blocks > 0
            && self.lba.0 < other.lba.0 + other.blocks
            && other.lba.0 < self.lba.0 + self.blocks
    }

    /// Whether every block of `other` is in `self`. An empty range is in every range.
    pub const fn contains(self, other: Self) -> bool {
        other.blocks == 0 || (self.lba.0 <= other.lba.0 && other.end().0 <= self.end().0)
    }

    /// Offset of the first byte.
    pub const fn byte_offset(self, size: BlockSize) -> u64 {
        self.lba.0 << size.shift()
    }

    /// Length in bytes.
    pub const fn byte_len(self, size: BlockSize) -> u64 {
        self.blocks << size.shift()
    }
}

impl fmt::Debug for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.lba.0, self.blocks)
    }
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl TryFrom<(u64, u64)> for BlockRange {
    type Error = RangeError;

    fn try_from((lba, blocks): (u64, u64)) -> Result<Self, Self::Error> {
        Self::new(Lba(lba), blocks)
    }
}

impl From<BlockRange> for (u64, u64) {
    fn from(range: BlockRange) -> Self {
        (range.lba.0, range.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(lba: u64, blocks: u64) -> BlockRange {
        BlockRange::new(Lba(lba), blocks).unwrap()
    }

    #[test]
    fn overflow_is_refused() {
        assert!(BlockRange::new(Lba(u64::MAX), 2).is_err());
        assert!(BlockRange::new(Lba(1 << 52), 1).is_err());
        assert!(BlockRange::new(Lba((1 << 52) - 1), 1).is_ok());
    }

    proptest! {
        #[test]
        fn overlap_and_containment_agree_with_sets(a in 0u64..20, n in 0u64..6, b in 0u64..20, m in 0u64..6) {
            let (x, y) = (range(a, n), range(b, m));
            let common = (a..a + n).any(|i| (b..b + m).contains(&i));
            prop_assert_eq!(x.overlaps(y), common);
            prop_assert_eq!(x.contains(y), (b..b + m).all(|i| (a..a + n).contains(&i)));
        }
    }
}
