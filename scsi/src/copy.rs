//! EXTENDED COPY at work: which block operation comes next. Pure code, like the rest: outcomes in, operations out.
//!
//! A copy is done in pieces, each a read and a write of its own, so that no range is held longer than for one piece and other commands
//! get their turn between. All of them count as received when the command was: a piece that would take effect after the hold limit
//! is not carried out any more, and the connection is reset (I11). That is why the amount of one command is limited.

use bytes::Bytes;
use holdfast_types::{BlockOp, BlockRange, BlockSize, COPY_PIECE_BYTES, ExtentId, Lba, OpOutcome};

use crate::sense::{SenseKey, asc};
use crate::{Finished, Response, Sense, Status};

/// Blocks to copy from one place to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopySegment {
    pub(crate) source: ExtentId,
    pub(crate) from: BlockRange,
    pub(crate) destination: ExtentId,
    pub(crate) to: Lba,
    /// Of both extents.
    pub(crate) block_size: BlockSize,
}

impl CopySegment {
    /// The end first: the destination begins within the source, and the other way round would copy what was just put there.
    fn backwards(&self) -> bool {
        self.source == self.destination && self.to > self.from.lba() && self.to < self.from.end()
    }
}

/// Under which name an initiator can ask what became of a copy (RECEIVE COPY RESULTS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyId(pub(crate) u32);

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyResult {
    /// Its name.
    pub id: CopyId,
    /// How it ended; `None` while it is under way.
    pub status: Option<Status>,
    /// Segments that are done.
    pub segments: u16,
    /// Bytes that were written.
    pub bytes: u64,
}

/// A copy under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyJob {
    /// Where to keep the result, if it is to be kept.
    id: Option<CopyId>,
    segments: Vec<CopySegment>,
    /// The segment under way, and how many of its blocks are done.
    at: usize,
    done: u64,
    bytes: u64,
}

/// What to do next for a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyStep {
    /// Carry this out and come back with the outcome.
    Operation {
        /// On which extent.
        extent: ExtentId,
        /// What.
        op: BlockOp,
    },
    /// The command ends so.
    Finished(Finished),
}

impl CopyJob {
    pub(crate) const fn new(id: Option<CopyId>, segments: Vec<CopySegment>) -> Self {
        Self {
            id,
            segments,
            at: 0,
            done: 0,
            bytes: 0,
        }
    }

    /// How far it is, to be remembered under its name; `None` where the initiator will not ask.
    pub fn result(&self, status: Option<Status>) -> Option<CopyResult> {
        Some(CopyResult {
            id: self.id?,
            status,
            segments: u16::try_from(self.at).unwrap_or(u16::MAX),
            bytes: self.bytes,
        })
    }

    /// The first operation.
    pub fn begin(&mut self) -> CopyStep {
        self.read()
    }

    /// The operation after one that ended.
    pub fn advance(&mut self, outcome: OpOutcome) -> CopyStep {
        match outcome {
            OpOutcome::Data(data) => self.write(data),
            OpOutcome::Done => {
                self.written();
                self.read()
            }
            OpOutcome::NoSpace => end(Response::check(Sense::SPACE_ALLOCATION_FAILED)),
            // Of the source or of the destination (SPC-4, 5.17.7.4): another host's.
            OpOutcome::ReservationConflict => end(Response::reservation_conflict()),
            OpOutcome::Transitioning => end(Response::transitioning()),
            OpOutcome::Standby => end(Response::check(Sense::STANDBY)),
            // Not the copy itself was aborted, or nobody would ask on: the unit at the other end was reset.
            OpOutcome::Aborted => end(Response::check(COPY_ABORTED)),
            // The source cannot be read, on any replica.
            OpOutcome::Unreadable { .. } => end(Response::check(COPY_ABORTED)),
            OpOutcome::Reset | OpOutcome::Map(_) | OpOutcome::Miscompare { .. } => {
                CopyStep::Finished(Finished::ResetConnection)
            }
        }
    }

    /// Offset in blocks within the segment, and length, of the piece under way.
    fn piece(&self, segment: &CopySegment) -> (u64, u64) {
        let most = u64::from(COPY_PIECE_BYTES >> segment.block_size.shift());
        let blocks = (segment.from.blocks() - self.done).min(most);
        let offset = if segment.backwards() {
            segment.from.blocks() - self.done - blocks
        } else {
            self.done
        };
        (offset, blocks)
    }

    fn read(&mut self) -> CopyStep {
        while let Some(segment) = self.segments.get(self.at) {
            let (offset, blocks) = self.piece(segment);
            if blocks == 0 {
                (self.at, self.done) = (self.at + 1, 0);
                continue;
            }
            let Ok(range) = BlockRange::new(Lba(segment.from.lba().0 + offset), blocks) else {
                return end(Response::check(COPY_ABORTED));
            };
            let extent = segment.source;
            return CopyStep::Operation {
                extent,
                op: BlockOp::Read { range },
            };
        }
        end(Response::good())
    }

    fn write(&self, data: Bytes) -> CopyStep {
        let Some(segment) = self.segments.get(self.at) else {
            return CopyStep::Finished(Finished::ResetConnection);
        };
        let (offset, blocks) = self.piece(segment);
        let Ok(range) = BlockRange::new(Lba(segment.to.0 + offset), blocks) else {
            return end(Response::check(COPY_ABORTED));
        };
        // A clone of a thin extent stays thin.
        let op = if data.iter().all(|byte| *byte == 0) {
            BlockOp::Zero { ranges: vec![range] }
        } else {
            let fua = false;
            BlockOp::Write { range, data, fua }
        };
        let extent = segment.destination;
        CopyStep::Operation { extent, op }
    }

    fn written(&mut self) {
        if let Some(segment) = self.segments.get(self.at) {
            let (_, blocks) = self.piece(segment);
            self.done += blocks;
            self.bytes += blocks << segment.block_size.shift();
        }
    }
}

/// 0A/00/00: what the parameter list names cannot be copied. Nothing was.
pub(crate) const COPY_ABORTED: Sense = Sense::new(SenseKey::CopyAborted, asc::NONE);

const fn end(response: Response) -> CopyStep {
    CopyStep::Finished(Finished::Response(response))
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod tests;
