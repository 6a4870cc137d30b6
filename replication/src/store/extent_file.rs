//! An extent's data: a sparse file or a device, written at committed positions only (I7), flushed by the checkpointer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use holdfast_injection::{Disk, HERE};
use holdfast_types::{BlockRange, BlockSize, ExtentId, Lba, Lsn, RESYNC_RANGE_BYTES, Revision};
use rustix::io::Errno;

use super::contents::{CHUNK, Contents, ZEROS};
use super::device::Device;
use super::devices::Devices;
use super::extent_meta::sync_dir;
use super::label::State;
use super::scrubbed::scrub_path;
use super::settle::{Settled, settle};
use super::sums::{Checked, Sums};
use super::unflushed::Unflushed;
use super::versions::Versions;
use super::{Damage, ExtentMeta, StoreError};
use crate::core::api::{Digests, digest};

/// Longest list of ranges that changed.
const CHANGED_MAX: usize = 1 << 16;

/// One extent's data on this node. Every call works on whole blocks; calls from several threads are safe, their order is the caller's
/// business. A failed write or flush is final (J2): from then on every call answers [`StoreError::Failed`].
#[derive(Debug)]
pub struct ExtentFile {
    id: ExtentId,
    block_size: BlockSize,
    /// In blocks; grows only.
    blocks: AtomicU64,
    dir: PathBuf,
    created: Revision,
    damaged: Mutex<Option<Damage>>,
    contents: Contents,
    /// Missing where they are switched off.
    sums: Option<Sums>,
    /// When what changed last (R2).
    versions: Versions,
    /// Ranges of records behind the checkpoint that are not carried out again yet: an earlier run may have written any part of them,
    /// so nothing is known of their data and sums until then.
    doubt: Mutex<Vec<(Lsn, BlockRange)>>,
    /// There are such ranges.
    doubts: AtomicBool,
    failed: AtomicBool,
    /// All its space is allocated, and stays so.
    full: AtomicBool,
    /// Held while flushing: Linux tells an error of writing back only once, so of two flushes at a time one would succeed and prove
    /// nothing (J2).
    flushing: Mutex<()>,
    unflushed: Unflushed,
    /// The file system cannot tell whether a read would wait: every read goes to an I/O thread.
    no_try: AtomicBool,
}

impl ExtentFile {
    /// Makes the files of a new extent in `dir`, empty (all zeros, no space taken), and stable on return.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::Geometry`], [`StoreError::Io`].
    pub fn create(dir: &Path, meta: ExtentMeta) -> Result<Self, StoreError> {
        Self::check_new(dir, &meta)?;
        let contents = Contents::create(&data_path(dir, meta.id), meta.bytes)?;
        let meta = ExtentMeta { device: None, ..meta };
        Self::describe(dir, meta, contents)
    }

    /// The same of one that lies on a device: of what [`Devices::take`] gave.
    ///
    /// # Errors
    /// As [`ExtentFile::create`]. The device's label may then name the extent still: [`Devices::give_back`].
    pub fn create_on(dir: &Path, meta: ExtentMeta, device: Device) -> Result<Self, StoreError> {
        Self::check_new(dir, &meta)?;
        let contents = Contents::On(device);
        let device = contents.device();
        let made = Self::describe(dir, ExtentMeta { device, ..meta }, contents)?;
        // Behind the description, and before the first byte: a label of this kind without a description says that there was one.
        made.contents.label(State::Holds(meta.id))?;
        Ok(made)
    }

    /// Whether an extent may be made here.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::Geometry`].
    pub fn check_new(dir: &Path, meta: &ExtentMeta) -> Result<(), StoreError> {
        meta.check()?;
        match ExtentMeta::path(dir, meta.id).exists() {
            true => Err(StoreError::Exists(meta.id)),
            false => Ok(()),
        }
    }

    fn describe(dir: &Path, meta: ExtentMeta, contents: Contents) -> Result<Self, StoreError> {
        let sums = match meta.sums {
            true => Some(Sums::create(dir, meta.id, meta.block_size, meta.blocks())?),
            false => None,
        };
        let versions = Versions::create(dir, meta.id, meta.bytes)?;
        // The description last: an extent exists once it is there.
        meta.store(dir)?;
        Ok(Self::new(dir, (contents, sums, versions), meta))
    }

    /// Opens the files of an extent, and its device where it has one. What an earlier run left of them in the page cache is put on disk and
    /// dropped, so that all that is read from now on is what the disk holds (J2).
    ///
    /// # Errors
    /// [`StoreError::Io`] (also where there are none, or where they cannot be put on disk: then the extent is marked as damaged),
    /// [`StoreError::Newer`], [`StoreError::Damaged`], [`StoreError::Held`], [`StoreError::NotOurs`]; [`StoreError::Deleted`] where only
    /// the end of a removal is missing.
    pub fn open(dir: &Path, id: ExtentId, devices: &Devices) -> Result<Self, StoreError> {
        let mut meta = ExtentMeta::load(dir, id)?;
        let contents = match meta.device {
            Some(device) => Contents::On(devices.open(device, id, meta.bytes)?),
            None => Contents::open(&data_path(dir, id), meta.bytes)?,
        };
        let mut sums = None;
        if meta.sums {
            let (found, short) = Sums::open(dir, id, meta.block_size, meta.blocks())?;
            if short && meta.damaged.is_none() {
                tracing::error!(
                    extent = %id,
                    sums = %found.file_path().display(),
                    "checksums of the extent are gone: it is resynced from its peer before it counts again"
                );
                meta.damaged = Some(Damage::Sums);
                meta.store(dir)?;
            }
            sums = Some(found);
        }
        let versions = Versions::open(dir, id, meta.bytes)?;
        let opened = Self::new(dir, (contents, sums, versions), meta);
        opened.settle()?;
        Ok(opened)
    }

    /// What is in the page cache may not be on disk: after a failed flush the system calls pages clean that the disk never got.
    fn settle(&self) -> Result<(), StoreError> {
        let sums = self.sums.as_ref().map(|sums| (sums.file(), sums.file_path()));
        let versions = (self.versions.file(), self.versions.file_path());
        for (file, path) in [
            Some((self.contents.file(), self.contents.path())),
            sums,
            Some(versions),
        ]
        .into_iter()
        .flatten()
        {
            let settled = settle(file, path).inspect_err(|_| {
                // The next start would find the pages clean.
                if let Err(error) = self.mark(Some(Damage::Extent)) {
                    tracing::error!(extent = %self.id, %error, "the extent's description cannot be written");
                }
            })?;
            match settled {
                Settled::Dropped => {}
                Settled::Kept if self.damaged().is_none() => tracing::warn!(
                    extent = %self.id,
                    path = %path.display(),
                    "the page cache does not let go of the file: another program reads it or has mapped it"
                ),
                Settled::Kept => return Err(StoreError::Held(path.to_owned())),
            }
        }
        Ok(())
    }

    /// The extents that have files in `dir`.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn list(dir: &Path) -> Result<Vec<ExtentId>, StoreError> {
        let wrap = |error| StoreError::io("list", dir, error);
        let mut ids = Vec::new();
        for entry in fs::read_dir(dir).map_err(wrap)? {
            let name = entry.map_err(wrap)?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".meta"));
            ids.extend(id.and_then(|id| id.parse::<ExtentId>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn new(
        dir: &Path,
        (contents, sums, versions): (Contents, Option<Sums>, Versions),
        meta: ExtentMeta,
    ) -> Self {
        Self {
            id: meta.id,
            block_size: meta.block_size,
            blocks: AtomicU64::new(meta.blocks()),
            dir: dir.to_owned(),
            created: meta.created,
            damaged: Mutex::new(meta.damaged),
            full: AtomicBool::new(contents.device().is_some()),
            contents,
            sums,
            versions,
            doubt: Mutex::default(),
            doubts: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            flushing: Mutex::new(()),
            unflushed: Unflushed::default(),
            no_try: AtomicBool::new(false),
        }
    }

    /// What it holds.
    pub fn meta(&self) -> ExtentMeta {
        ExtentMeta {
            id: self.id,
            bytes: self.blocks() << self.block_size.shift(),
            block_size: self.block_size,
            created: self.created,
            damaged: *self.damaged(),
            sums: self.sums.is_some(),
            device: self.contents.device(),
        }
    }

    fn damaged(&self) -> MutexGuard<'_, Option<Damage>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes, stable on return, that its contents cannot be trusted, or that a resync has begun whose own mark says so from now on.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was noted before still stands on disk.
    pub fn mark(&self, damage: Option<Damage>) -> Result<(), StoreError> {
        let mut damaged = self.damaged();
        if *damaged != damage {
            let meta = ExtentMeta {
                bytes: self.blocks() << self.block_size.shift(),
                id: self.id,
                block_size: self.block_size,
                created: self.created,
                damaged: damage,
                sums: self.sums.is_some(),
                device: self.contents.device(),
            };
            meta.store(&self.dir)?;
            *damaged = damage;
        }
        Ok(())
    }

    /// Size in blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Acquire)
    }

    /// Size of a block.
    pub const fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Whether an earlier write or flush failed (J2).
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Reads the blocks, waiting for the disk where needed, and checks them.
    ///
    /// # Errors
    /// [`StoreError::Range`], [`StoreError::Failed`]; [`StoreError::Rotten`] where blocks cannot be read or are not what was written
    /// (not final: they can be read from a peer, I10).
    pub fn read(&self, range: BlockRange) -> Result<Bytes, StoreError> {
        let (offset, len) = self.span(range)?;
        let mut buffer = vec![0; len];
        self.fill(&mut buffer, offset)
            .map_err(|error| self.unreadable(range, &error))?;
        match self.check(range.lba(), &buffer) {
            Checked::Good => Ok(Bytes::from(buffer)),
            Checked::Bad(bad) => Err(self.rotten(bad)),
            Checked::Later => Err(self.rotten(range)),
        }
    }

    fn check(&self, first: Lba, data: &[u8]) -> Checked {
        self.sums
            .as_ref()
            .map_or(Checked::Good, |sums| sums.check(first.0, data))
    }

    fn rotten(&self, range: BlockRange) -> StoreError {
        StoreError::Rotten { id: self.id, range }
    }

    fn unreadable(&self, range: BlockRange, error: &StoreError) -> StoreError {
        tracing::warn!(extent = %self.id, %error, "blocks cannot be read");
        self.rotten(range)
    }

    /// Reads the blocks if that needs no wait; `None` means: ask an I/O thread.
    ///
    /// # Errors
    /// As [`ExtentFile::read`].
    pub fn try_read(&self, range: BlockRange) -> Result<Option<Bytes>, StoreError> {
        let (offset, len) = self.span(range)?;
        if self.no_try.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut buffer = vec![0; len];
        match self.contents.read_cached(&mut buffer, offset) {
            Ok(done) if done == len => {
                let good = self
                    .sums
                    .as_ref()
                    .is_none_or(|sums| sums.try_check(range.lba().0, &buffer) == Checked::Good);
                // What is bad shows again in the I/O thread, which reports it.
                Ok(good.then(|| Bytes::from(buffer)))
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(Errno::NOTSUP | Errno::INVAL | Errno::NOSYS) => {
                self.no_try.store(true, Ordering::Relaxed);
                Ok(None)
            }
            // A real error shows again in the I/O thread, which reports it.
            Err(_) => Ok(None),
        }
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        HERE.reach(Disk::Extents, buffer.len());
        self.contents
            .read(buffer, offset)
            .map_err(|error| StoreError::io("read", self.contents.path(), error))
    }

    /// Writes the blocks to the page cache.
    ///
    /// # Errors
    /// [`StoreError::Range`], [`StoreError::Failed`], [`StoreError::Io`], which is final unless there is no space
    /// ([`StoreError::is_no_space`]): then some of the blocks may be written, and all of them can be written again.
    pub fn write(&self, range: BlockRange, data: &[u8]) -> Result<(), StoreError> {
        let (offset, len) = self.span(range)?;
        if data.len() != len {
            return Err(self.range_error(range));
        }
        self.versions.touch(offset, len as u64);
        self.put(data, offset)?;
        self.note(|sums| sums.put(range.lba().0, data))
    }

    /// Brings the sums to what was written. What a crash leaves between the two is in the journal.
    fn note(&self, put: impl FnOnce(&Sums) -> io::Result<()>) -> Result<(), StoreError> {
        let Some(sums) = &self.sums else { return Ok(()) };
        put(sums).map_err(|error| {
            self.failed.fetch_or(!is_full(&error), Ordering::AcqRel);
            StoreError::io("write", sums.file_path(), error)
        })
    }

    /// Writes the same block everywhere in the range.
    ///
    /// # Errors
    /// As [`ExtentFile::write`].
    pub fn write_same(&self, range: BlockRange, block: &[u8]) -> Result<(), StoreError> {
        let (offset, _) = self.bounds(range)?;
        if block.len() as u64 != u64::from(self.block_size.bytes()) {
            return Err(self.range_error(range));
        }
        self.versions.touch(offset, range.byte_len(self.block_size));
        if block.iter().all(|byte| *byte == 0) {
            // Not punched: WRITE SAME without UNMAP keeps its blocks mapped.
            self.put_zeros(offset, range.byte_len(self.block_size))?;
            return self.note(|sums| sums.put_zeros(range));
        }
        let copies = (CHUNK / block.len()).min(usize::try_from(range.blocks()).unwrap_or(usize::MAX));
        self.put_repeated(&block.repeat(copies), offset, range.byte_len(self.block_size))?;
        self.note(|sums| sums.put_same(range, block))
    }

    /// Zeros in every block of the range (W7): whole file system blocks are freed, the edges are written; a device makes them by itself.
    ///
    /// # Errors
    /// As [`ExtentFile::write`].
    pub fn zero(&self, range: BlockRange) -> Result<(), StoreError> {
        let (offset, len) = self.bounds(range)?;
        self.versions.touch(offset, len);
        if self.is_full() && self.contents.device().is_none() {
            // Its space stays allocated.
            self.put_zeros(offset, len)?;
        } else {
            self.contents
                .clear(offset, len)
                .map_err(|error| self.fail("free blocks of", error))?;
        }
        self.note(|sums| sums.put_zeros(range))
    }

    fn put_zeros(&self, offset: u64, len: u64) -> Result<(), StoreError> {
        self.put_repeated(&ZEROS, offset, len)
    }

    fn put_repeated(&self, pattern: &[u8], mut offset: u64, len: u64) -> Result<(), StoreError> {
        let end = offset + len;
        while offset < end {
            let n = usize::try_from(end - offset).map_or(pattern.len(), |left| left.min(pattern.len()));
            self.put(&pattern[..n], offset)?;
            offset += n as u64;
        }
        Ok(())
    }

    fn put(&self, data: &[u8], offset: u64) -> Result<(), StoreError> {
        HERE.reach(Disk::Extents, data.len());
        self.unflushed.wrote(data.len());
        self.contents.write(data, offset).map_err(|error| {
            // Where there is no space nothing was lost: the journal has it, and all of it is written again.
            if is_full(&error) {
                StoreError::io("write", self.contents.path(), error)
            } else {
                self.fail("write", error)
            }
        })
    }

    /// Whether so much was written that it should be flushed now; said once until that begins.
    pub fn wants_flush(&self) -> bool {
        self.unflushed.is_due()
    }

    /// Puts all that was written before on stable storage. A failure is final: the system marks the pages clean, so that a
    /// second try would succeed and prove nothing (J2).
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`StoreError::Io`].
    pub fn sync(&self) -> Result<(), StoreError> {
        let _flushing = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_alive()?;
        HERE.reach(Disk::Extents, 0);
        self.unflushed.begins();
        let file = self.contents.file();
        file.sync_data().map_err(|error| self.fail("flush", error))?;
        let Some(sums) = &self.sums else { return Ok(()) };
        // Final whatever it is, as above.
        sums.sync().map_err(|error| {
            self.failed.store(true, Ordering::Release);
            StoreError::io("flush", sums.file_path(), error)
        })
    }

    /// Allocates all of its space, stable on return, and keeps it so from now on: zeros are written, not freed. Done again, it changes
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::Io`], also where there is too little space ([`StoreError::is_no_space`]), or the file system cannot do it.
    pub fn allocate_all(&self) -> Result<(), StoreError> {
        self.check_alive()?;
        let bytes = self.blocks() << self.block_size.shift();
        self.contents
            .allocate(bytes)
            .map_err(|error| StoreError::io("allocate all of", self.contents.path(), error))?;
        self.full.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether [`ExtentFile::allocate_all`] was done in this run, or need not be.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Whether every block of the range has its space, so that writing it needs none.
    ///
    /// # Errors
    /// As [`ExtentFile::read`].
    pub fn is_allocated(&self, range: BlockRange) -> Result<bool, StoreError> {
        let (offset, len) = self.bounds(range)?;
        match self.contents.next_hole(offset) {
            Ok(hole) => Ok(hole >= offset + len),
            Err(error) => Err(StoreError::io("look into", self.contents.path(), error)),
        }
    }

    /// Says which records lie behind the checkpoint: what an earlier run left of them is not judged. For the start, before anything is
    /// read.
    pub(super) fn doubt(&self, records: impl Iterator<Item = (Lsn, BlockRange)>) {
        let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        *doubt = records.collect();
        for (_, range) in doubt.iter() {
            self.renew(*range);
        }
        self.doubts.store(!doubt.is_empty(), Ordering::Release);
    }

    /// The range counts as changed from now on, whatever becomes of its contents (R2).
    pub fn renew(&self, range: BlockRange) {
        self.versions.touch(
            range.byte_offset(self.block_size),
            range.byte_len(self.block_size),
        );
    }

    /// Notes, stable on return, which ranges changed since the last time, as changed at `now`: not older than any record that was carried
    /// out before it is asked for. Goes before every checkpoint.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`StoreError::Io`]; they count as changed later then.
    pub fn note_changes(&self, now: impl FnOnce() -> Lsn) -> Result<(), StoreError> {
        self.check_alive()?;
        self.versions
            .note(now)
            .map_err(|error| StoreError::io("write", self.versions.file_path(), error))
    }

    /// What may have changed behind `since`, in order (R2). Coarser than it was noted where that would make too long a list.
    pub fn changed_since(&self, since: Lsn) -> Vec<BlockRange> {
        let unit = RESYNC_RANGE_BYTES >> self.block_size.shift();
        let (words, blocks) = (self.versions.changed_since(since), self.blocks());
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for no in 0..words.len() as u64 * 64 {
            let word = usize::try_from(no / 64).ok().and_then(|index| words.get(index));
            let (from, to) = (no * unit, ((no + 1) * unit).min(blocks));
            if from >= to || word.is_none_or(|word| word >> (no % 64) & 1 == 0) {
                continue;
            }
            let full = runs.len() >= CHANGED_MAX;
            match runs.last_mut().filter(|(_, end)| *end == from || full) {
                Some((_, end)) => *end = to,
                None => runs.push((from, to)),
            }
        }
        let range = |(from, to): (u64, u64)| BlockRange::new(Lba(from), to - from).ok();
        runs.into_iter().filter_map(range).collect()
    }

    /// The record was carried out in this run: its blocks are as it says.
    pub fn settled(&self, lsn: Lsn) {
        if self.doubts.load(Ordering::Acquire) {
            self.keep_doubt(|doubted| doubted != lsn);
        }
    }

    /// Records behind this position were dropped; they were never committed, so no run has carried them out (I7).
    pub fn dropped_behind(&self, lsn: Lsn) {
        if self.doubts.load(Ordering::Acquire) {
            self.keep_doubt(|doubted| doubted <= lsn);
        }
    }

    fn keep_doubt(&self, keep: impl Fn(Lsn) -> bool) {
        let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        doubt.retain(|(doubted, _)| keep(*doubted));
        self.doubts.store(!doubt.is_empty(), Ordering::Release);
    }

    /// The log starts anew without the records that an earlier run may have carried out: what is on disk where they point counts as
    /// written. The resync that follows compares these ranges with a peer, since they lie behind its base (R1).
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`StoreError::Io`], which is final.
    pub fn accept_doubtful(&self) -> Result<(), StoreError> {
        let doubtful = {
            let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
            self.doubts.store(false, Ordering::Release);
            std::mem::take(&mut *doubt)
        };
        for (done, (_, range)) in doubtful.iter().enumerate() {
            if let Err(error) = self.rewrite_sums(*range) {
                // Where there is no space, it is tried again.
                let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
                doubt.extend_from_slice(&doubtful[done..]);
                self.doubts.store(true, Ordering::Release);
                return Err(error);
            }
        }
        Ok(())
    }

    fn rewrite_sums(&self, range: BlockRange) -> Result<(), StoreError> {
        let Some(sums) = &self.sums else { return Ok(()) };
        let (mut offset, len) = self.bounds(range)?;
        let end = offset + len;
        let mut buffer = vec![0; CHUNK.min(usize::try_from(len).unwrap_or(CHUNK))];
        while offset < end {
            let n = usize::try_from(end - offset).map_or(buffer.len(), |left| left.min(buffer.len()));
            // Blocks that cannot be read stay as they are: bad, or not.
            if self.fill(&mut buffer[..n], offset).is_ok() {
                self.note(|_| sums.put(offset >> self.block_size.shift(), &buffer[..n]))?;
            }
            offset += n as u64;
        }
        Ok(())
    }

    /// Digests of the range's contents, one for each `piece` bytes (at most 1 MiB; the last may be shorter); a hole counts as zeros (W7).
    /// `None` for a piece with blocks that cannot be read or are not what was written.
    ///
    /// # Errors
    /// [`StoreError::Range`], [`StoreError::Failed`].
    pub fn digests(&self, range: BlockRange, piece: u64) -> Result<Digests, StoreError> {
        let (mut offset, len) = self.bounds(range)?;
        let end = offset + len;
        let piece = piece.clamp(u64::from(self.block_size.bytes()), RESYNC_RANGE_BYTES);
        let mut digests = Vec::with_capacity(usize::try_from(len.div_ceil(piece)).unwrap_or(0));
        let hole = self.is_hole(offset, end) && self.zeros_here(range);
        let piece = usize::try_from(piece.min(len)).unwrap_or(CHUNK).max(1);
        let mut buffer = vec![0; piece * (CHUNK / piece).max(1)];
        let zeros = hole.then(|| digest(&buffer[..piece]));
        while offset < end {
            let n = usize::try_from(end - offset).map_or(buffer.len(), |left| left.min(buffer.len()));
            let some = &mut buffer[..n];
            // Many pieces with one call; one by one only to find those that are bad.
            let good = hole || self.fill_checked(some, offset);
            for one in some.chunks_mut(piece) {
                digests.push(match zeros {
                    Some(zeros) if one.len() == piece => Some(zeros),
                    _ if good || self.fill_checked(one, offset) => Some(digest(one)),
                    _ => None,
                });
                offset += one.len() as u64;
            }
        }
        Ok(digests)
    }

    /// Whether the bytes could be read and are what was written.
    fn fill_checked(&self, into: &mut [u8], offset: u64) -> bool {
        let first = Lba(offset >> self.block_size.shift());
        self.fill(into, offset).is_ok() && self.check(first, into) == Checked::Good
    }

    fn is_hole(&self, offset: u64, end: u64) -> bool {
        match self.contents.next_data(offset) {
            Ok(data) => data.is_none_or(|data| data >= end),
            Err(_) => false,
        }
    }

    /// Makes it larger; the new blocks are zeros and stable on return. A smaller or equal size changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Geometry`], [`StoreError::Failed`], [`StoreError::Io`]; [`StoreError::NoRoom`] where its device ends before.
    pub fn grow(&self, bytes: u64) -> Result<(), StoreError> {
        self.check_alive()?;
        let meta = ExtentMeta { bytes, ..self.meta() };
        meta.check()?;
        if meta.blocks() <= self.blocks() {
            return Ok(());
        }
        // The file first: its description never names blocks that it lacks.
        self.contents.grow(bytes)?;
        if let Some(sums) = &self.sums {
            sums.grow(meta.blocks())
                .map_err(|error| StoreError::io("grow", sums.file_path(), error))?;
        }
        self.versions
            .grow(bytes)
            .map_err(|error| StoreError::io("grow", self.versions.file_path(), error))?;
        meta.store(&self.dir)?;
        self.blocks.store(meta.blocks(), Ordering::Release);
        Ok(())
    }

    /// Its device, where it has one, is free from now on: the extent is deleted for good. Stable on return; before [`ExtentFile::remove`].
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn release_device(&self) -> Result<(), StoreError> {
        self.contents.label(State::Used(self.id))
    }

    /// Removes the files of extent `id`; none is no error. The space is given back once nobody has it open.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(dir: &Path, id: ExtentId) -> Result<(), StoreError> {
        // The description first: without it the rest is a leftover.
        for path in [
            ExtentMeta::path(dir, id),
            data_path(dir, id),
            Sums::path(dir, id),
            Versions::path(dir, id),
            scrub_path(dir, id),
        ] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", &path, error));
                }
                _ => {}
            }
        }
        sync_dir(dir)
    }

    /// Gives the files of extent `id` other names (`….broken`), for people to look at; older ones of that name are replaced.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn set_aside(dir: &Path, id: ExtentId) -> Result<(), StoreError> {
        // The data first: as long as the description is there, this is tried again.
        for path in [
            Versions::path(dir, id),
            Sums::path(dir, id),
            data_path(dir, id),
            ExtentMeta::path(dir, id),
        ] {
            let mut name = path.clone().into_os_string();
            name.push(".broken");
            match fs::rename(&path, &name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("rename", &path, error));
                }
                _ => {}
            }
        }
        sync_dir(dir)
    }

    fn check_alive(&self) -> Result<(), StoreError> {
        if self.has_failed() {
            return Err(StoreError::Failed(self.id));
        }
        Ok(())
    }

    fn fail(&self, what: &'static str, error: io::Error) -> StoreError {
        self.failed.store(true, Ordering::Release);
        StoreError::io(what, self.contents.path(), error)
    }

    fn range_error(&self, range: BlockRange) -> StoreError {
        StoreError::Range {
            id: self.id,
            range,
            blocks: self.blocks(),
        }
    }

    /// Offset and length in bytes of a range within the extent.
    fn bounds(&self, range: BlockRange) -> Result<(u64, u64), StoreError> {
        self.check_alive()?;
        if range.end().0 > self.blocks() {
            return Err(self.range_error(range));
        }
        Ok((
            range.byte_offset(self.block_size),
            range.byte_len(self.block_size),
        ))
    }

    /// As `bounds`, for a range that is held in memory as a whole.
    fn span(&self, range: BlockRange) -> Result<(u64, usize), StoreError> {
        let (offset, len) = self.bounds(range)?;
        let len = usize::try_from(len).map_err(|_| self.range_error(range))?;
        Ok((offset, len))
    }
}

/// Whether there was no space, which is no fault of the disk.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn data_path(dir: &Path, id: ExtentId) -> PathBuf {
    dir.join(format!("{id}.img"))
}

#[path = "extent_map.rs"]
mod map;

#[cfg(test)]
#[path = "extent_file_test.rs"]
mod tests;
