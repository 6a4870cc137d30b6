//! A checksum for every block of an extent, so that stored blocks prove themselves.
//!
//! `extents/<uuid>.sum` is an array: the sum of block n is the little-endian number at byte 4 n. A sum is CRC-32C over the block,
//! exclusive-or that of a block of zeros: what was never written, or was freed, needs no space here either, and a sidecar that lost
//! its contents claims zeros, which is noticed.
//!
//! # Why one per logical block
//! A record always covers whole logical blocks. So the sum of a block never depends on bytes that the record does not carry, and nothing
//! is read to write one. More: after a crash, data and sum of a block may be of different records, in any order, but only where
//! a record lies behind the checkpoint, and those are carried out again, data and sum, before anything is read (`ExtentFile::doubt`).
//! With one sum per 4 KiB and blocks of 512 bytes, the sectors beside the ones that a record covers could not be proven any more:
//! either a good block would look bad, or a bad one good. The price is 1/128 of the space with blocks of 512 bytes, 1/1024 with 4096.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use holdfast_types::{BlockRange, BlockSize, ExtentId, Lba};
use rustix::io::{Errno, ReadWriteFlags};

use super::StoreError;
use super::contents::clear;

/// Bytes of a sum.
const SUM: usize = 4;
/// Sums that are read or written at a time.
const BATCH: usize = 1024;

/// What checking blocks found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// Every block is what was written.
    Good,
    /// The smallest range that holds all the blocks that are not.
    Bad(BlockRange),
    /// It cannot be told without waiting for the disk.
    Later,
}

/// The sums of one extent.
#[derive(Debug)]
pub(super) struct Sums {
    path: PathBuf,
    file: File,
    block: usize,
    /// CRC-32C of a block of zeros.
    zero: u32,
}

impl Sums {
    /// The file in `dir` with the sums of extent `id`.
    pub(super) fn path(dir: &Path, id: ExtentId) -> PathBuf {
        dir.join(format!("{id}.sum"))
    }

    /// Sums of an extent that is all zeros, stable on return.
    pub(super) fn create(
        dir: &Path,
        id: ExtentId,
        block_size: BlockSize,
        blocks: u64,
    ) -> Result<Self, StoreError> {
        let path = Self::path(dir, id);
        let wrap = |error| StoreError::io("create", &path, error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(wrap)?;
        file.set_len(blocks * SUM as u64)
            .and_then(|()| file.sync_all())
            .map_err(wrap)?;
        Ok(Self::new(path, file, block_size))
    }

    /// Opens them. A file that is too short is made as long as it has to be: what it lacks claims zeros. The second value says so.
    pub(super) fn open(
        dir: &Path,
        id: ExtentId,
        block_size: BlockSize,
        blocks: u64,
    ) -> Result<(Self, bool), StoreError> {
        let path = Self::path(dir, id);
        let wrap = |error| StoreError::io("open", &path, error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(wrap)?;
        let short = file.metadata().map_err(wrap)?.len() < blocks * SUM as u64;
        let sums = Self::new(path.clone(), file, block_size);
        if short {
            sums.grow(blocks).map_err(wrap)?;
        }
        Ok((sums, short))
    }

    fn new(path: PathBuf, file: File, block_size: BlockSize) -> Self {
        let block = block_size.bytes() as usize;
        let zero = crc32c::crc32c(&[0; 4096][..block]);
        Self {
            path,
            file,
            block,
            zero,
        }
    }

    pub(super) fn file_path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    fn sum(&self, block: &[u8]) -> [u8; SUM] {
        (crc32c::crc32c(block) ^ self.zero).to_le_bytes()
    }

    /// Sums of the blocks that were written from block `first` on.
    pub(super) fn put(&self, first: u64, data: &[u8]) -> io::Result<()> {
        let mut sums = [0; BATCH * SUM];
        let mut at = first * SUM as u64;
        for some in data.chunks(BATCH * self.block) {
            let mut len = 0;
            for block in some.chunks_exact(self.block) {
                sums[len..len + SUM].copy_from_slice(&self.sum(block));
                len += SUM;
            }
            self.file.write_all_at(&sums[..len], at)?;
            at += len as u64;
        }
        Ok(())
    }

    /// The same block was written everywhere in the range.
    pub(super) fn put_same(&self, range: BlockRange, block: &[u8]) -> io::Result<()> {
        let sum = self.sum(block);
        if sum == [0; SUM] {
            return self.put_zeros(range);
        }
        let sums = [sum; BATCH];
        let sums = sums.as_flattened();
        let (mut at, end) = (range.lba().0 * SUM as u64, range.end().0 * SUM as u64);
        while at < end {
            let n = usize::try_from(end - at).map_or(sums.len(), |left| left.min(sums.len()));
            self.file.write_all_at(&sums[..n], at)?;
            at += n as u64;
        }
        Ok(())
    }

    /// The range is all zeros now.
    pub(super) fn put_zeros(&self, range: BlockRange) -> io::Result<()> {
        clear(
            &self.file,
            range.lba().0 * SUM as u64,
            range.blocks() * SUM as u64,
        )
    }

    /// Compares blocks, from block `first` on, with their sums. A sum that cannot be read proves nothing: its blocks are bad.
    pub(super) fn check(&self, first: u64, data: &[u8]) -> Checked {
        self.check_with(first, data, |sums, at| {
            Ok(self.file.read_exact_at(sums, at).is_ok())
        })
    }

    /// The same, without waiting for the disk.
    pub(super) fn try_check(&self, first: u64, data: &[u8]) -> Checked {
        self.check_with(first, data, |sums, at| {
            let want = sums.len();
            let mut into = [IoSliceMut::new(sums)];
            match rustix::io::preadv2(&self.file, &mut into, at, ReadWriteFlags::NOWAIT) {
                Ok(done) if done == want => Ok(true),
                Ok(_) => Err(Errno::AGAIN),
                Err(error) => Err(error),
            }
        })
    }

    fn check_with(
        &self,
        first: u64,
        data: &[u8],
        read: impl Fn(&mut [u8], u64) -> Result<bool, Errno>,
    ) -> Checked {
        let mut sums = [0; BATCH * SUM];
        let mut bad: Option<(u64, u64)> = None;
        let mut lba = first;
        for some in data.chunks(BATCH * self.block) {
            let blocks = some.len() / self.block;
            let sums = &mut sums[..blocks * SUM];
            let Ok(readable) = read(sums, lba * SUM as u64) else {
                return Checked::Later;
            };
            for (block, sum) in some.chunks_exact(self.block).zip(sums.chunks_exact(SUM)) {
                if !readable || self.sum(block) != sum {
                    bad = Some((bad.map_or(lba, |(from, _)| from), lba + 1));
                }
                lba += 1;
            }
        }
        bad.and_then(|(from, to)| BlockRange::new(Lba(from), to - from).ok())
            .map_or(Checked::Good, Checked::Bad)
    }

    /// Whether the range counts as zeros here: the data is a hole.
    pub(super) fn check_zeros(&self, range: BlockRange) -> Checked {
        let mut sums = [0; BATCH * SUM];
        let (mut lba, end) = (range.lba().0, range.end().0);
        let mut bad: Option<(u64, u64)> = None;
        while lba < end {
            let blocks = usize::try_from(end - lba).map_or(BATCH, |left| left.min(BATCH));
            let sums = &mut sums[..blocks * SUM];
            let readable = self.file.read_exact_at(sums, lba * SUM as u64).is_ok();
            for sum in sums.chunks_exact(SUM) {
                if !readable || sum != [0; SUM] {
                    bad = Some((bad.map_or(lba, |(from, _)| from), lba + 1));
                }
                lba += 1;
            }
        }
        bad.and_then(|(from, to)| BlockRange::new(Lba(from), to - from).ok())
            .map_or(Checked::Good, Checked::Bad)
    }

    /// Puts all that was written before on stable storage.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Room for so many blocks; new ones are zeros. Stable on return.
    pub(super) fn grow(&self, blocks: u64) -> io::Result<()> {
        self.file.set_len(blocks * SUM as u64)?;
        self.file.sync_all()
    }
}

#[cfg(test)]
#[path = "sums_test.rs"]
mod tests;
