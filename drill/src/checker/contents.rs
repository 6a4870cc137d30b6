//! What blocks hold, told apart by fingerprints, so that a history of gigabytes fits into memory.

use std::hash::Hasher;

use holdfast_types::BlockSize;

/// Bytes of a sector: what a disk never tears.
const SECTOR: usize = 512;

/// What one logical block holds: a fingerprint of its bytes. Zeros are [`Value::ZERO`]. Two contents that differ have the same value
/// with a probability of 2^-64, which may hide a fault but hardly makes one up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

impl Value {
    /// All bytes zero.
    pub const ZERO: Self = Self(0);
}

/// What consecutive logical blocks hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    blocks: Vec<Value>,
    /// Fingerprints of the sectors of blocks that have more than one; else empty.
    sectors: Vec<u64>,
}

impl Contents {
    /// From bytes, whole blocks of this size; a rest that is no whole block counts as one more block.
    pub fn from_bytes(data: &[u8], size: BlockSize) -> Self {
        let bytes = size.bytes() as usize;
        let per_block = bytes / SECTOR;
        if per_block == 1 {
            let blocks = data
                .chunks(bytes)
                .map(|block| Value(fingerprint(block)))
                .collect();
            let sectors = Vec::new();
            return Self { blocks, sectors };
        }
        let sectors: Vec<u64> = data.chunks(SECTOR).map(fingerprint).collect();
        let blocks = sectors.chunks(per_block).map(join).collect();
        Self { blocks, sectors }
    }

    /// From values that say it all: blocks without sectors.
    pub fn from_values(values: impl IntoIterator<Item = u64>) -> Self {
        Self {
            blocks: values.into_iter().map(Value).collect(),
            sectors: Vec::new(),
        }
    }

    /// How many blocks.
    pub const fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn value(&self, block: usize) -> Option<Value> {
        self.blocks.get(block).copied()
    }

    /// The sectors of a block; empty when it has only one.
    pub(super) fn sectors(&self, block: usize) -> &[u64] {
        let per_block = self.sectors.len() / self.blocks.len().max(1);
        self.sectors
            .get(block * per_block..(block + 1) * per_block)
            .unwrap_or_default()
    }
}

fn fingerprint(bytes: &[u8]) -> u64 {
    if bytes.iter().all(|byte| *byte == 0) {
        return 0;
    }
    hash(|hasher| hasher.write(bytes))
}

fn join(sectors: &[u64]) -> Value {
    if sectors.iter().all(|sector| *sector == 0) {
        return Value::ZERO;
    }
    Value(hash(|hasher| {
        sectors.iter().for_each(|sector| hasher.write_u64(*sector));
    }))
}

/// The same in every process: histories can be replayed. Never zero.
fn hash(feed: impl FnOnce(&mut std::hash::DefaultHasher)) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    feed(&mut hasher);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zero_and_every_byte_counts() {
        for size in [BlockSize::B512, BlockSize::B4096] {
            let bytes = size.bytes() as usize;
            let mut data = vec![0; 3 * bytes];
            assert_eq!(Contents::from_bytes(&data, size).blocks, [Value::ZERO; 3]);
            let mut seen = std::collections::BTreeSet::from([Value::ZERO]);
            for at in 0..bytes {
                data[bytes + at] = 1;
                let contents = Contents::from_bytes(&data, size);
                assert_eq!(
                    (contents.blocks[0], contents.blocks[2]),
                    (Value::ZERO, Value::ZERO)
                );
                assert!(seen.insert(contents.blocks[1]), "byte {at}");
                data[bytes + at] = 0;
            }
        }
    }
}
