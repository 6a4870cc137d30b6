//! A block device under its label: opened for this process alone, and never written unless its label says what is expected.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use holdfast_types::DeviceId;
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::StoreError;
use super::contents::put_zeros;
use super::label::{DEVICE_DATA_AT, LABEL_BYTES, LABEL_TEXT_MAX, Label, State};

/// Where file systems, partition tables, RAID and volume managers have their signatures: so many bytes from the beginning and from the end.
pub(super) const LOOK_BYTES: usize = 1 << 20;
/// Most that is read at a time while that is looked at.
const CHUNK: usize = 64 << 10;
/// Most that one call makes zeros, so that whoever waits hears how far it is.
pub(super) const ZERO_STEP: u64 = 64 << 20;

/// A device that is open for this process alone, and has a label.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
    label: Mutex<Label>,
}

impl Device {
    pub(super) fn new(file: File, path: &Path, label: Label) -> Self {
        Self {
            file,
            path: path.to_owned(),
            label: Mutex::new(label),
        }
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn label(&self) -> Label {
        *self.label.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its id.
    pub(super) fn id(&self) -> DeviceId {
        self.label().id
    }

    /// Changes its label, stable on return.
    ///
    /// # Errors
    /// [`StoreError::Io`]: then the device may have the old or the new one.
    pub(super) fn set(&self, state: State) -> Result<(), StoreError> {
        self.relabel(Label {
            state,
            ..self.label()
        })
    }

    pub(super) fn relabel(&self, label: Label) -> Result<(), StoreError> {
        let mut known = self.label.lock().unwrap_or_else(PoisonError::into_inner);
        write_label(&self.file, &self.path, &label)?;
        *known = label;
        Ok(())
    }
}

/// Writes a label, stable on return.
pub(super) fn write_label(file: &File, path: &Path, label: &Label) -> Result<(), StoreError> {
    file.write_all_at(&label.to_bytes(), 0)
        .and_then(|()| file.sync_all())
        .map_err(|error| StoreError::io("label", path, error))
}

/// Takes a label away, stable on return.
pub(super) fn wipe_label(file: &File, path: &Path) -> Result<(), StoreError> {
    file.write_all_at(&[0; LABEL_BYTES], 0)
        .and_then(|()| file.sync_all())
        .map_err(|error| StoreError::io("take the label off", path, error))
}

/// Whether the path leads to a block device.
///
/// # Errors
/// [`StoreError::Io`]: it leads nowhere.
pub(super) fn is_block_device(path: &Path) -> Result<bool, StoreError> {
    let found = std::fs::metadata(path).map_err(|error| StoreError::io("look at", path, error))?;
    Ok(found.file_type().is_block_device())
}

/// Opens a block device. With `alone` for writing, and only if nobody else has it so: neither a file system nor RAID, LVM or another
/// process that asked for that.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::NotBlock`].
pub(super) fn open(path: &Path, alone: bool) -> Result<File, StoreError> {
    // Before it is opened: what is opened of other kinds may wait, or do something.
    if !is_block_device(path)? {
        return Err(StoreError::NotBlock(path.to_owned()));
    }
    let flags = match alone {
        true => OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC,
        false => OFlags::RDONLY | OFlags::CLOEXEC,
    };
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(opened.map_err(|error| StoreError::io("open", path, error))?);
    let kind = file
        .metadata()
        .map_err(|error| StoreError::io("look at", path, error))?;
    if !kind.file_type().is_block_device() {
        return Err(StoreError::NotBlock(path.to_owned()));
    }
    Ok(file)
}

/// Size of a device, or of a file, in bytes.
pub(super) fn size(file: &File) -> io::Result<u64> {
    // The position is used by nobody: every other call names its offset.
    Ok(rustix::fs::seek(file, SeekFrom::End(0))?)
}

/// Its label as it is now, and its size; `None` where there is no label.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Newer`], [`StoreError::Damaged`].
pub(super) fn read_label(file: &File, path: &Path) -> Result<(Option<Label>, u64), StoreError> {
    let wrap = |error| StoreError::io("read", path, error);
    let bytes = size(file).map_err(wrap)?;
    if bytes < DEVICE_DATA_AT {
        return Ok((None, bytes));
    }
    let mut head = vec![0; LOOK_BYTES];
    file.read_exact_at(&mut head, 0).map_err(wrap)?;
    let label = Label::parse(path, &head)?;
    // Many file systems and volume managers leave the first sector alone: who made one here since has the device now.
    let behind = head.iter().skip(LABEL_TEXT_MAX).position(|byte| *byte != 0);
    match behind {
        Some(at) if label.is_some() => Err(StoreError::damaged(
            path,
            format!(
                "byte {} behind its label is not zero: somebody else has written to it",
                at + LABEL_TEXT_MAX
            ),
        )),
        _ => Ok((label, bytes)),
    }
}

/// The first byte from `from` on that is not zero, of those where signatures are: `LOOK_BYTES` at most.
pub(super) fn first_byte(file: &File, from: u64, size: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; CHUNK];
    let end = (from + LOOK_BYTES as u64).min(size);
    let mut at = from;
    while at < end {
        let n = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
        file.read_exact_at(&mut buffer[..n], at)?;
        if let Some(found) = buffer[..n].iter().position(|byte| *byte != 0) {
            return Ok(Some(at + found as u64));
        }
        at += n as u64;
    }
    Ok(None)
}

/// Makes bytes of a device zeros: by the device itself, or written by the system in its place. Offset and length are multiples of 4096.
pub(super) fn zero_range(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let n = (end - at).min(ZERO_STEP);
        // What reads back as zeros is promised: no hint that a device may ignore, as discarding is.
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(file, flags, at, n) {
            Ok(()) => {}
            Err(Errno::INTR) => continue,
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => put_zeros(file, at, at + n)?,
            Err(error) => return Err(error.into()),
        }
        at += n;
    }
    Ok(())
}
