//! Fixed-width little-endian fields of journal entries, read without trust.

use std::sync::Arc;

use holdfast_types::{BlockRange, Epoch, Lba, LogPos, Lsn};

/// Why bytes are no journal entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("it ends in the middle of a field")]
    Short,
    /// Something follows the last field.
    #[error("it is longer than its fields")]
    Long,
    /// Written by a later release.
    #[error(
        "it was written by a newer version of holdfast ({0}, newer than {known}, the newest that this one knows); install that version",
        known = super::entry::ENTRY_VERSION
    )]
    Newer(u8),
    /// Written by an earlier release, in a form that is not read any more.
    #[error("it has version {0}, this release reads {known}: use the release that wrote it", known = super::entry::ENTRY_VERSION)]
    Older(u8),
    /// A kind of entry that does not exist.
    #[error("it is of unknown kind {0}")]
    Kind(u8),
    /// A field has a value that it cannot have.
    #[error("its {0} makes no sense")]
    Field(&'static str),
}

/// Puts fields one after the other.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn pos(&mut self, pos: LogPos) {
        self.u64(pos.epoch.0);
        self.u64(pos.lsn.0);
    }

    pub(super) fn range(&mut self, range: BlockRange) {
        self.u64(range.lba().0);
        self.u64(range.blocks());
    }

    pub(super) fn ranges(&mut self, ranges: &[BlockRange]) {
        self.u64(ranges.len() as u64);
        ranges.iter().for_each(|range| self.range(*range));
    }
}

/// Takes fields one after the other.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        let head = *head;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of items of at least `size` bytes each that still follow.
    pub(super) fn count(&mut self, size: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.u64()?).map_err(|_| DecodeError::Short)?;
        match count.checked_mul(size) {
            Some(bytes) if bytes <= self.0.len() => Ok(count),
            _ => Err(DecodeError::Short),
        }
    }

    pub(super) fn pos(&mut self) -> Result<LogPos, DecodeError> {
        Ok(LogPos::new(Epoch(self.u64()?), Lsn(self.u64()?)))
    }

    pub(super) fn range(&mut self) -> Result<BlockRange, DecodeError> {
        BlockRange::new(Lba(self.u64()?), self.u64()?).map_err(|_| DecodeError::Field("range"))
    }

    pub(super) fn ranges(&mut self) -> Result<Arc<[BlockRange]>, DecodeError> {
        let count = self.count(16)?;
        (0..count).map(|_| self.range()).collect()
    }

    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Long)
        }
    }
}
