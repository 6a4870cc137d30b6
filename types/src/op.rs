//! The one storage operation that a SCSI command becomes.

use bytes::Bytes;

use crate::{BlockRange, Lba, UnitVersion};

/// What `scsi` asks of an extent and `replication` carries out, here or on the primary. Ranges lie within the extent and lengths of data
/// match them: `scsi` has checked both; whoever takes one off a wire checks again ([`BlockOp::check`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockOp {
    /// Give the blocks.
    Read {
        /// Which.
        range: BlockRange,
    },
    /// Put the blocks.
    Write {
        /// Where.
        range: BlockRange,
        /// `range` times the block size bytes.
        data: Bytes,
        /// Stable before it is answered, also under write-back.
        fua: bool,
    },
    /// Put the same block everywhere in the range.
    WriteSame {
        /// Where.
        range: BlockRange,
        /// One block.
        block: Bytes,
    },
    /// Zeros in every block named, freed where the disk can (W7): UNMAP, WRITE SAME with UNMAP or NDOB.
    Zero {
        /// Where; may touch or overlap.
        ranges: Vec<BlockRange>,
    },
    /// COMPARE AND WRITE: put `data` if the blocks equal `expect`, in one step (SBC-4, 5.3).
    CompareAndWrite {
        /// Where.
        range: BlockRange,
        /// What must be there.
        expect: Bytes,
        /// What to put.
        data: Bytes,
    },
    /// ORWRITE: put what is there or'ed with `data`, in one step (SBC-4, 5.25).
    OrWrite {
        /// Where.
        range: BlockRange,
        /// `range` times the block size bytes.
        data: Bytes,
    },
    /// GET LBA STATUS: which blocks from `from` on have space of their own, as consecutive runs.
    Map {
        /// The first block; within the extent.
        from: Lba,
        /// At most so many runs; at least one is given.
        runs: u16,
    },
    /// VERIFY: read the blocks and, with `expect`, compare them.
    Verify {
        /// Which.
        range: BlockRange,
        /// With BYTCHK: what must be there, `range` times the block size bytes, or one block that every block must equal.
        expect: Option<Bytes>,
    },
    /// All that was answered before is stable (SYNCHRONIZE CACHE).
    Flush,
    /// The primary has applied this version of the unit's state, and every command that it admitted under an older one has taken effect
    /// or never will (P2). No initiator sends it; no reservation stands in its way.
    Fence {
        /// The version, as committed.
        version: UnitVersion,
    },
}

impl BlockOp {
    /// Whether the answer depends on contents, so that it needs a lease (W3).
    pub const fn reads(&self) -> bool {
        matches!(
            self,
            Self::Read { .. }
                | Self::Verify { .. }
                | Self::CompareAndWrite { .. }
                | Self::OrWrite { .. }
                | Self::Map { .. }
        )
    }

    /// Whether it may change contents.
    pub const fn writes(&self) -> bool {
        matches!(
            self,
            Self::Write { .. }
                | Self::WriteSame { .. }
                | Self::Zero { .. }
                | Self::CompareAndWrite { .. }
                | Self::OrWrite { .. }
        )
    }

    /// Bytes of data that came with it: what it holds in memory until it is done.
    pub fn payload_len(&self) -> usize {
        match self {
            Self::Write { data, .. } | Self::OrWrite { data, .. } => data.len(),
            Self::WriteSame { block, .. } => block.len(),
            Self::CompareAndWrite { expect, data, .. } => expect.len() + data.len(),
            Self::Verify { expect, .. } => expect.as_ref().map_or(0, Bytes::len),
            Self::Read { .. } | Self::Zero { .. } | Self::Map { .. } | Self::Flush | Self::Fence { .. } => 0,
        }
    }

    /// The ranges it touches.
    pub fn ranges(&self) -> &[BlockRange] {
        match self {
            Self::Read { range }
            | Self::Write { range, .. }
            | Self::WriteSame { range, .. }
            | Self::CompareAndWrite { range, .. }
            | Self::OrWrite { range, .. }
            | Self::Verify { range, .. } => std::slice::from_ref(range),
            Self::Zero { ranges } => ranges,
            // A map's answer is a snapshot of each block by itself: it keeps nobody waiting and waits for nobody.
            Self::Map { .. } | Self::Flush | Self::Fence { .. } => &[],
        }
    }

    /// Whether ranges lie within an extent of `blocks` blocks and data has the length they ask for.
    pub fn check(&self, blocks: u64, size: crate::BlockSize) -> bool {
        let fits = self.ranges().iter().all(|range| range.end().0 <= blocks);
        let exact = |data: &Bytes, range: &BlockRange| data.len() as u64 == range.byte_len(size);
        let one = |block: &Bytes| block.len() as u64 == u64::from(size.bytes());
        fits && match self {
            Self::Write { range, data, .. } | Self::OrWrite { range, data } => exact(data, range),
            Self::Map { from, runs } => from.0 < blocks && *runs > 0,
            Self::WriteSame { block, .. } => one(block),
            Self::CompareAndWrite { range, expect, data } => exact(expect, range) && exact(data, range),
            Self::Verify { range, expect } => expect
                .as_ref()
                .is_none_or(|expect| exact(expect, range) || one(expect)),
            Self::Read { .. } | Self::Zero { .. } | Self::Flush | Self::Fence { .. } => true,
        }
    }
}

/// Consecutive blocks that have space of their own, or have none and read as zeros (W7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MappedRun {
    /// Which blocks; not empty.
    pub range: BlockRange,
    /// Whether they have space.
    pub mapped: bool,
}

/// How a storage operation ended. Our own trouble is never among them: it is held, handed over or ends the connection (I8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpOutcome {
    /// Done; stable as the write cache policy says.
    Done,
    /// The blocks asked for.
    Data(Bytes),
    /// Runs of blocks with and without space, one behind the other from the block asked for on.
    Map(Vec<MappedRun>),
    /// COMPARE AND WRITE or VERIFY found something else; offset in bytes of the first difference, for the sense data's INFORMATION field.
    Miscompare {
        /// In bytes from the start of the range.
        offset: u32,
    },
    /// A block asked for is bad in every replica that counts, so that nobody can tell its contents: what a disk calls an unrecovered read
    /// error (03/11/00). Whoever writes the block makes it good again.
    Unreadable {
        /// The first such block, for the sense data's INFORMATION field.
        lba: Lba,
    },
    /// No room for a thin extent to grow (07/27/07 towards the initiator). Nothing was changed.
    NoSpace,
    /// A reservation stands in its way: RESERVATION CONFLICT (P1). Nothing was changed.
    ReservationConflict,
    /// Held as long as allowed while an epoch change is under way, with quorum: 02/04/0A. It has not taken effect and never will.
    Transitioning,
    /// This node was put out of the in-sync set before it could send the command on: 02/04/0B, as of a port group that is standby. It has
    /// not taken effect and never will.
    Standby,
    /// It will never take effect, or its fate cannot be told: reset the initiator's connection, answer nothing (I8, I11).
    Reset,
    /// Aborted by task management: it has not taken effect and never will, and nothing is answered.
    Aborted,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockSize;

    #[test]
    fn check_wants_exact_lengths_within_the_extent() {
        let range = BlockRange::new(Lba(6), 2).unwrap();
        let write = |len: usize| BlockOp::Write {
            range,
            data: Bytes::from(vec![0; len]),
            fua: false,
        };
        assert!(write(1024).check(8, BlockSize::B512));
        assert!(!write(1023).check(8, BlockSize::B512));
        assert!(!write(1024).check(7, BlockSize::B512));
        assert!(
            !BlockOp::WriteSame {
                range,
                block: Bytes::from_static(b"x")
            }
            .check(8, BlockSize::B512)
        );
        let caw = BlockOp::CompareAndWrite {
            range,
            expect: Bytes::from(vec![0; 1024]),
            data: Bytes::new(),
        };
        assert!(!caw.check(8, BlockSize::B512));
        let verify = |len: usize| BlockOp::Verify {
            range,
            expect: Some(Bytes::from(vec![0; len])),
        };
        assert!(verify(1024).check(8, BlockSize::B512));
        assert!(verify(512).check(8, BlockSize::B512), "one block for all of them");
        assert!(!verify(0).check(8, BlockSize::B512) && !verify(1536).check(8, BlockSize::B512));
        assert!(caw.reads() && caw.writes());
    }
}
