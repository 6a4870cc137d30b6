//! What a log needs from the disk below it.

use std::io::{self, IoSlice};
use std::sync::Arc;

/// The files of one log. A number is a segment's sequence, or just a name for the other kinds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FileName {
    /// A segment of the log; the number is its sequence.
    Segment(u64),
    /// A file of full size and written zeros (or old bytes), ready to become a segment. What it holds is never read.
    Spare(u64),
    /// A file that is still being filled with zeros; removed when the log is opened.
    Filling(u64),
}

/// The disk below one log. Methods take `&self`: the writer, the thread that prepares segments and readers use it at once.
///
/// An error from any method but [`read_at`](LogDevice::read_at) and a full disk in [`create`](LogDevice::create) is final for the log (J2).
pub trait LogDevice: Send + Sync + 'static {
    /// Takes the log for one user; a second one is refused with `ErrorKind::ResourceBusy` until [`unclaim`](LogDevice::unclaim).
    fn claim(&self) -> io::Result<()>;

    /// Gives the log back.
    fn unclaim(&self);

    /// The files that are there, with their lengths in bytes, in no particular order. Foreign files are not listed.
    fn list(&self) -> io::Result<Vec<(FileName, u64)>>;

    /// Creates a file, fills it with zeros that are really written, and makes its contents durable (its name:
    /// [`sync_dir`](LogDevice::sync_dir)).
    /// A full disk is `ErrorKind::StorageFull` or `QuotaExceeded`.
    fn create(&self, name: FileName, len: u64) -> io::Result<()>;

    /// Renames a file; durable after [`sync_dir`](LogDevice::sync_dir). Renames reach the medium in the order they were made.
    fn rename(&self, from: FileName, to: FileName) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: FileName) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Makes the medium and what [`read_at`](LogDevice::read_at) sees the same: a process that died may have left bytes in the
    /// page cache that never reached the disk, and those must not be offered as recovered.
    fn settle(&self, name: FileName) -> io::Result<()>;

    /// Reads until `buf` is full or the file ends; returns the bytes read.
    fn read_at(&self, name: FileName, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `parts`, one after the other, at `offset`, and returns when they are on stable storage. A failure may
    /// leave any part of them written. `parts` are used up.
    fn write_durable(&self, name: FileName, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// An identity for a new log, different from every other.
    fn fresh_id(&self) -> io::Result<u128>;
}

impl<D: LogDevice + ?Sized> LogDevice for Arc<D> {
    fn claim(&self) -> io::Result<()> {
        (**self).claim()
    }
    fn unclaim(&self) {
        (**self).unclaim();
    }
    fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        (**self).list()
    }
    fn create(&self, name: FileName, len: u64) -> io::Result<()> {
        (**self).create(name, len)
    }
    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        (**self).rename(from, to)
    }
    fn remove(&self, name: FileName) -> io::Result<()> {
        (**self).remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        (**self).sync_dir()
    }
    fn settle(&self, name: FileName) -> io::Result<()> {
        (**self).settle(name)
    }
    fn read_at(&self, name: FileName, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(name, offset, buf)
    }
    fn write_durable(&self, name: FileName, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        (**self).write_durable(name, offset, parts)
    }
    fn fresh_id(&self) -> io::Result<u128> {
        (**self).fresh_id()
    }
}
