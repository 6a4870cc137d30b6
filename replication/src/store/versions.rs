//! When each part of an extent changed last, so that a replica that was away is compared only where something changed (R2).
//!
//! `extents/<uuid>.map` has a position for every range of 1 MiB: an lsn that is not older than the newest record that changed the range.
//! It is an upper bound: what a checkpoint finds changed since the one before gets the log's end as it is then. In between, changes are
//! bits in memory; a crash loses them, but their records lie behind the checkpoint and are carried out again, or marked as doubtful.
//!
//! # Layout
//! Pages of 4096 bytes: CRC-32C over the rest of the page, the page's number (both 32 bits), the version 1 (64 bits), then 510 lsns of
//! 64 bits, all little-endian. A page of zeros says that nothing of it was ever written. One whose checksum does not fit counts as
//! changed just now, every range of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_types::{ExtentId, Lsn, RESYNC_RANGE_BYTES};

use super::StoreError;

const PAGE: usize = 4096;
const HEADER: usize = 16;
const VERSION: u64 = 1;
/// Ranges of a page.
const PER_PAGE: u64 = ((PAGE - HEADER) / 8) as u64;

/// The positions of one extent.
#[derive(Debug)]
pub(super) struct Versions {
    path: PathBuf,
    file: File,
    /// Ranges that changed since they were noted last, one bit each.
    touched: Mutex<Vec<u64>>,
    /// Held while changes are noted, or asked for: in between they are neither in memory nor in the file.
    noting: Mutex<()>,
}

struct Page([u8; PAGE]);

impl Page {
    /// The page, or `None` if it is not what was written.
    fn decode(bytes: [u8; PAGE], no: u64) -> Option<Self> {
        let page = Self(bytes);
        if bytes == [0; PAGE] {
            return Some(page);
        }
        let sound = page.u32(0) == crc32c::crc32c(&bytes[4..])
            && u64::from(page.u32(4)) == no
            && page.u64(8) == VERSION;
        sound.then_some(page)
    }

    fn u32(&self, at: usize) -> u32 {
        self.0[at..]
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&self, at: usize) -> u64 {
        self.0[at..]
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn lsn(&self, index: u64) -> u64 {
        self.u64(slot(index))
    }

    fn set(&mut self, index: u64, lsn: u64) {
        let at = slot(index);
        self.0[at..at + 8].copy_from_slice(&lsn.to_le_bytes());
    }

    fn seal(&mut self, no: u64) {
        // At most 16 Mi ranges, so at most 32 Ki pages.
        let no = u32::try_from(no).unwrap_or(u32::MAX);
        self.0[4..8].copy_from_slice(&no.to_le_bytes());
        self.0[8..16].copy_from_slice(&VERSION.to_le_bytes());
        let sum = crc32c::crc32c(&self.0[4..]);
        self.0[..4].copy_from_slice(&sum.to_le_bytes());
    }
}

fn slot(index: u64) -> usize {
    HEADER + usize::try_from(index % PER_PAGE).unwrap_or(0) * 8
}

fn words(ranges: u64) -> usize {
    usize::try_from(ranges.div_ceil(64)).unwrap_or(usize::MAX)
}

fn file_len(ranges: u64) -> u64 {
    ranges.div_ceil(PER_PAGE) * PAGE as u64
}

impl Versions {
    /// The file in `dir` with the positions of extent `id`.
    pub(super) fn path(dir: &Path, id: ExtentId) -> PathBuf {
        dir.join(format!("{id}.map"))
    }

    /// Of an extent of `bytes` bytes in which nothing was ever written, stable on return.
    pub(super) fn create(dir: &Path, id: ExtentId, bytes: u64) -> Result<Self, StoreError> {
        let path = Self::path(dir, id);
        let wrap = |error| StoreError::io("create", &path, error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(wrap)?;
        let ranges = bytes.div_ceil(RESYNC_RANGE_BYTES);
        file.set_len(file_len(ranges))
            .and_then(|()| file.sync_all())
            .map_err(wrap)?;
        Ok(Self::new(path, file, ranges))
    }

    /// Opens them. Where they are gone, in whole or in part, every range counts as changed.
    pub(super) fn open(dir: &Path, id: ExtentId, bytes: u64) -> Result<Self, StoreError> {
        let path = Self::path(dir, id);
        let wrap = |error| StoreError::io("open", &path, error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(wrap)?;
        let ranges = bytes.div_ceil(RESYNC_RANGE_BYTES);
        let found = file.metadata().map_err(wrap)?.len();
        let versions = Self::new(path, file, ranges);
        if found < file_len(ranges) {
            tracing::warn!(
                map = %versions.path.display(),
                "it is not known any more what changed when: every range counts as changed just now"
            );
            versions.touched().fill(u64::MAX);
        }
        Ok(versions)
    }

    fn new(path: PathBuf, file: File, ranges: u64) -> Self {
        Self {
            path,
            file,
            touched: Mutex::new(vec![0; words(ranges)]),
            noting: Mutex::default(),
        }
    }

    pub(super) fn file_path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    fn touched(&self) -> MutexGuard<'_, Vec<u64>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes are about to change.
    pub(super) fn touch(&self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        let mut touched = self.touched();
        for no in offset / RESYNC_RANGE_BYTES..=(offset + len - 1) / RESYNC_RANGE_BYTES {
            if let Some(word) = touched.get_mut(usize::try_from(no / 64).unwrap_or(usize::MAX)) {
                *word |= 1 << (no % 64);
            }
        }
    }

    /// Notes what changed since the last time, stable on return, as changed at `now`, which is asked for once it is known what changed:
    /// a position not older than any record carried out before.
    pub(super) fn note(&self, now: impl FnOnce() -> Lsn) -> io::Result<()> {
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = {
            let mut touched = self.touched();
            let empty = vec![0; touched.len()];
            std::mem::replace(&mut *touched, empty)
        };
        if taken.iter().all(|word| *word == 0) {
            return Ok(());
        }
        let result = self.write(&taken, now().0);
        if result.is_err() {
            let mut touched = self.touched();
            touched
                .iter_mut()
                .zip(&taken)
                .for_each(|(word, bits)| *word |= bits);
        }
        result
    }

    fn write(&self, taken: &[u64], now: u64) -> io::Result<()> {
        let is_set = |no: u64| {
            let word = usize::try_from(no / 64).ok().and_then(|index| taken.get(index));
            word.is_some_and(|word| word >> (no % 64) & 1 == 1)
        };
        let ranges = taken.len() as u64 * 64;
        for page_no in 0..ranges.div_ceil(PER_PAGE) {
            let numbers = page_no * PER_PAGE..((page_no + 1) * PER_PAGE).min(ranges);
            if !numbers.clone().any(is_set) {
                continue;
            }
            let (mut page, sound) = match self.read(page_no)? {
                Some(page) => (page, true),
                None => (Page([0; PAGE]), false),
            };
            for no in numbers {
                if is_set(no) || !sound {
                    page.set(no, now);
                }
            }
            page.seal(page_no);
            self.file.write_all_at(&page.0, page_no * PAGE as u64)?;
        }
        self.file.sync_data()
    }

    /// `None`: it is not what was written. Behind the file's end there is nothing that was ever written.
    fn read(&self, no: u64) -> io::Result<Option<Page>> {
        let mut bytes = [0; PAGE];
        match self.file.read_exact_at(&mut bytes, no * PAGE as u64) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
        let page = Page::decode(bytes, no);
        if page.is_none() {
            tracing::warn!(
                map = %self.path.display(),
                page = no,
                "a page of the map of changes is damaged: all of its ranges count as changed"
            );
        }
        Ok(page)
    }

    /// The ranges that may have changed behind `since`, one bit each. What cannot be read may have changed.
    pub(super) fn changed_since(&self, since: Lsn) -> Vec<u64> {
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = self.touched().clone();
        let ranges = changed.len() as u64 * 64;
        for page_no in 0..ranges.div_ceil(PER_PAGE) {
            let page = self.read(page_no).ok().flatten();
            for no in page_no * PER_PAGE..((page_no + 1) * PER_PAGE).min(ranges) {
                if page.as_ref().is_none_or(|page| page.lsn(no) > since.0)
                    && let Some(word) = changed.get_mut(usize::try_from(no / 64).unwrap_or(usize::MAX))
                {
                    *word |= 1 << (no % 64);
                }
            }
        }
        changed
    }

    /// Room for an extent of `bytes` bytes; what is new was never written. Stable on return.
    pub(super) fn grow(&self, bytes: u64) -> io::Result<()> {
        let ranges = bytes.div_ceil(RESYNC_RANGE_BYTES);
        let mut touched = self.touched();
        self.file.set_len(file_len(ranges))?;
        self.file.sync_all()?;
        let words = words(ranges).max(touched.len());
        touched.resize(words, 0);
        Ok(())
    }
}

#[cfg(test)]
#[path = "versions_test.rs"]
mod tests;
