//! A log in a directory of files.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{Advice, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};

use crate::device::{FileName, LogDevice};

/// Zeros written at a time when a file is filled. Each write is durable, so that the log's own flushes never wait behind a large one.
const FILL: usize = 1 << 20;

/// A log in a directory of its own: `segment-…`, `spare-…` and `filling-…` files with a number of 16 hexadecimal digits, and
/// `lock`, which the user of the log holds with `flock(2)`. Other files are left alone.
#[derive(Debug)]
pub struct FileDevice {
    path: PathBuf,
    dir: File,
    lock: File,
    /// The lock is held by this very device: `flock` alone would grant it twice.
    claimed: AtomicBool,
    open: RwLock<HashMap<FileName, Arc<File>>>,
    /// Called before each durable write.
    gate: fn(usize),
}

impl FileDevice {
    /// Calls `gate` before each durable write, with its bytes; it may take its time, as a disk may.
    #[must_use]
    pub fn with_gate(self, gate: fn(usize)) -> Self {
        Self { gate, ..self }
    }

    /// The log in the directory `path`, which is created if needed. The log is locked when a journal is opened on it.
    ///
    /// # Errors
    /// The directory or its lock file cannot be opened or created.
    pub fn open(path: &Path) -> io::Result<FileDevice> {
        fs::create_dir_all(path)?;
        let dir = File::open(path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))?;
        dir.sync_all()?;
        if let Some(parent) = path.parent() {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            File::open(parent)?.sync_all()?;
        }
        Ok(FileDevice {
            path: path.to_owned(),
            dir,
            lock,
            claimed: AtomicBool::new(false),
            open: RwLock::default(),
            gate: |_| {},
        })
    }

    fn path(&self, name: FileName) -> PathBuf {
        let (word, number) = match name {
            FileName::Segment(n) => ("segment", n),
            FileName::Spare(n) => ("spare", n),
            FileName::Filling(n) => ("filling", n),
        };
        self.path.join(format!("{word}-{number:016x}"))
    }

    fn file(&self, name: FileName) -> io::Result<Arc<File>> {
        if let Some(file) = self
            .open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&name)
        {
            return Ok(file.clone());
        }
        // Under the lock, so that a rename in between cannot leave the old file under the new name.
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(self.path(name))?);
        open.insert(name, file.clone());
        Ok(file)
    }

    fn fill(file: &File, len: u64) -> io::Result<()> {
        let zeros = vec![0; FILL];
        let mut at = 0;
        while at < len {
            let part = usize::try_from(len - at).unwrap_or(FILL).min(FILL);
            write_all_durable(file, at, &mut [IoSlice::new(&zeros[..part])])?;
            at += part as u64;
        }
        file.sync_all()
    }
}

/// Reads a file's name.
fn parse(name: &str) -> Option<FileName> {
    let (word, digits) = name.split_once('-')?;
    let strict = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let number = u64::from_str_radix(digits, 16).ok().filter(|_| strict)?;
    match word {
        "segment" => Some(FileName::Segment(number)),
        "spare" => Some(FileName::Spare(number)),
        "filling" => Some(FileName::Filling(number)),
        _ => None,
    }
}

/// `pwritev2(RWF_DSYNC)` until all is written. A file system without the flag gets `fdatasync(2)` behind the writes.
fn write_all_durable(file: &File, mut offset: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    let mut flags = ReadWriteFlags::DSYNC;
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        // The kernel takes 1024 slices at most.
        let now = &parts[..parts.len().min(1024)];
        match rustix::io::pwritev2(file, now, offset, flags) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut parts, written);
            }
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) if flags == ReadWriteFlags::DSYNC => flags = ReadWriteFlags::empty(),
            Err(error) => return Err(error.into()),
        }
    }
    if flags.is_empty() {
        file.sync_data()
    } else {
        Ok(())
    }
}

impl LogDevice for FileDevice {
    fn claim(&self) -> io::Result<()> {
        let busy = || {
            let what = format!("{} is locked by another process or journal", self.path.display());
            io::Error::new(io::ErrorKind::ResourceBusy, what)
        };
        if self.claimed.swap(true, Ordering::AcqRel) {
            return Err(busy());
        }
        rustix::fs::flock(&self.lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            self.claimed.store(false, Ordering::Release);
            if error == Errno::WOULDBLOCK {
                busy()
            } else {
                error.into()
            }
        })
    }

    fn unclaim(&self) {
        if let Err(error) = rustix::fs::flock(&self.lock, FlockOperation::Unlock) {
            tracing::warn!(path = %self.path.display(), %error, "journal could not be unlocked");
        }
        self.claimed.store(false, Ordering::Release);
    }

    fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().and_then(parse) {
                files.push((name, entry.metadata()?.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: FileName, len: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(name))?;
        // Room in one piece where the file system can; what counts are the zeros.
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        Self::fill(&file, len)
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        fs::rename(self.path(from), self.path(to))?;
        open.remove(&to);
        if let Some(file) = open.remove(&from) {
            open.insert(to, file);
        }
        Ok(())
    }

    fn remove(&self, name: FileName) -> io::Result<()> {
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&name);
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn settle(&self, name: FileName) -> io::Result<()> {
        let file = self.file(name)?;
        file.sync_data()?;
        // After a failed flush the cache may call pages clean that the disk never got: read the disk.
        rustix::fs::fadvise(&*file, 0, None, Advice::DontNeed).map_err(io::Error::from)
    }

    fn read_at(&self, name: FileName, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = self.file(name)?;
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_durable(&self, name: FileName, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        (self.gate)(parts.iter().map(|part| part.len()).sum());
        write_all_durable(&*self.file(name)?, offset, parts)
    }

    fn fresh_id(&self) -> io::Result<u128> {
        let mut bytes = [0; 16];
        let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        if got < bytes.len() {
            return Err(io::Error::other("the system gave too few random bytes"));
        }
        Ok(u128::from_le_bytes(bytes))
    }
}
