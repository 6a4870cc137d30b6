//! What an earlier run left of a file in the page cache.
//!
//! After a failed write-back Linux calls pages clean that the disk never got, and goes on answering reads from them. The error is told
//! once, to a process that is gone by the next start. So a start puts what it finds in the cache on disk and drops it: whatever is read,
//! compared with a peer or proven after that is what the disk holds (J2, I6). The journal does the same with its segments.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::StoreError;
use super::device::size;

/// How often dropping is tried: pages that somebody has in his hands at that moment stay.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);
/// Places that are looked at, spread over the file.
const PROBES: u64 = 256;
const PAGE: u64 = 4096;
/// File systems that have nothing but the page cache.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether a file is read from its disk from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing of it was found in the cache any more.
    Dropped,
    /// Pages stay in the cache however often they are dropped: somebody has mapped the file.
    Kept,
}

/// Puts what the cache holds of the file on disk, and drops it from the cache.
///
/// # Errors
/// [`StoreError::Io`]: the disk does not take it. What was written since the newest checkpoint may not be on it.
pub(super) fn settle(file: &File, path: &Path) -> Result<Settled, StoreError> {
    let wrap = |error| StoreError::io("flush", path, error);
    // Also what only the file's size tells, such as a crash while it grew.
    file.sync_all().map_err(wrap)?;
    for round in 0..TRIES {
        if round > 0 {
            std::thread::sleep(PAUSE);
            file.sync_data().map_err(wrap)?;
        }
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed).map_err(|error| wrap(error.into()))?;
        if !is_cached(path).map_err(wrap)? {
            return Ok(Settled::Dropped);
        }
    }
    Ok(Settled::Kept)
}

/// Whether one of some places in the file, as far as it has data, is in the page cache. Where the system cannot tell, nothing is.
pub(super) fn is_cached(path: &Path) -> io::Result<bool> {
    // A file of its own, so that what is told of it concerns nobody else: looking must not have more read than what is looked at.
    let file = File::open(path)?;
    let kind = rustix::fs::fstatfs(&file)?.f_type;
    // A device's name lies in a file system in memory; the device does not.
    let is_device = file.metadata()?.file_type().is_block_device();
    let in_memory = IN_MEMORY
        .iter()
        .any(|known| i128::from(kind) == i128::from(*known));
    if in_memory && !is_device {
        return Ok(false);
    }
    rustix::fs::fadvise(&file, 0, None, Advice::Random)?;
    let len = size(&file)?;
    let step = (len / PROBES).next_multiple_of(PAGE).max(PAGE);
    let mut at = len.saturating_sub(1) / step * step;
    loop {
        let data = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(data) => Some(data),
            Err(Errno::NXIO) => None,
            // A device has no holes.
            Err(Errno::INVAL) if is_device => Some(at),
            Err(error) => return Err(error.into()),
        };
        if let Some(data) = data.filter(|data| *data < at + step) {
            let mut byte = [0];
            let mut into = [IoSliceMut::new(&mut byte)];
            match rustix::io::preadv2(&file, &mut into, data, ReadWriteFlags::NOWAIT) {
                Ok(1..) => return Ok(true),
                Err(Errno::NOTSUP | Errno::INVAL | Errno::NOSYS) => return Ok(false),
                // Not in the cache, or not readable: the read that needs it will tell.
                Ok(0) | Err(_) => {}
            }
        }
        if at == 0 {
            return Ok(false);
        }
        at -= step;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn j2_what_is_settled_is_on_disk_and_not_in_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        file.set_len(64 << 20).unwrap();
        assert!(!is_cached(&path).unwrap(), "all of it is a hole");
        assert_eq!(settle(&file, &path).unwrap(), Settled::Dropped);
        for at in [0, 17 << 20, (64 << 20) - 512] {
            file.write_all_at(&[7; 512], at).unwrap();
        }
        let memory = rustix::fs::fstatfs(&file).unwrap().f_type;
        if IN_MEMORY
            .iter()
            .any(|known| i128::from(memory) == i128::from(*known))
        {
            return;
        }
        assert!(is_cached(&path).unwrap());
        assert_eq!(settle(&file, &path).unwrap(), Settled::Dropped);
        let mut byte = [0];
        file.read_exact_at(&mut byte, 17 << 20).unwrap();
        assert_eq!(byte, [7]);
    }
}
