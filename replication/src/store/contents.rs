//! Where an extent's bytes lie: in a sparse file, or on a block device behind its label.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use holdfast_types::DeviceId;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::StoreError;
use super::device::{Device, zero_range};
use super::label::{DEVICE_DATA_AT, State};

/// Unit in which the file system frees space, and devices make zeros.
const PUNCH_ALIGN: u64 = 4096;
/// Most bytes that one call writes or reads when contents are made up or hashed here.
pub(super) const CHUNK: usize = 256 << 10;

pub(super) static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// An extent's bytes. Offsets are those within the extent.
#[derive(Debug)]
pub(super) enum Contents {
    /// In a file, whose holes are zeros.
    Sparse {
        /// It.
        file: File,
        /// Its name.
        path: PathBuf,
    },
    /// On a device, where every byte has its place.
    On(Device),
}

impl Contents {
    /// Makes the file of a new extent, all of it a hole, stable on return.
    pub(super) fn create(path: &Path, bytes: u64) -> Result<Self, StoreError> {
        // Without its description this is the leftover of a creation that a crash cut short: it holds nothing.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(|error| StoreError::io("create", path, error))?;
        file.set_len(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| StoreError::io("size", path, error))?;
        let path = path.to_owned();
        Ok(Self::Sparse { file, path })
    }

    /// Opens the file of an extent of so many bytes.
    pub(super) fn open(path: &Path, bytes: u64) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| StoreError::io("open", path, error))?;
        let len = file
            .metadata()
            .map_err(|error| StoreError::io("look at", path, error))?
            .len();
        // A crash while it grew may leave the file larger than the description says, never smaller.
        if len < bytes {
            return Err(StoreError::damaged(
                path,
                format!("it has {len} bytes instead of {bytes}"),
            ));
        }
        let path = path.to_owned();
        Ok(Self::Sparse { file, path })
    }

    pub(super) const fn file(&self) -> &File {
        match self {
            Self::Sparse { file, .. } => file,
            Self::On(device) => device.file(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Sparse { path, .. } => path,
            Self::On(device) => device.path(),
        }
    }

    /// The device that they lie on.
    pub(super) fn device(&self) -> Option<DeviceId> {
        match self {
            Self::Sparse { .. } => None,
            Self::On(device) => Some(device.id()),
        }
    }

    const fn base(&self) -> u64 {
        match self {
            Self::Sparse { .. } => 0,
            Self::On(_) => DEVICE_DATA_AT,
        }
    }

    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file().read_exact_at(into, self.base() + offset)
    }

    /// As far as no disk is waited for.
    pub(super) fn read_cached(&self, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut into = [IoSliceMut::new(into)];
        rustix::io::preadv2(
            self.file(),
            &mut into,
            self.base() + offset,
            ReadWriteFlags::NOWAIT,
        )
    }

    pub(super) fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file().write_all_at(data, self.base() + offset)
    }

    /// Makes bytes zeros: of a file whole blocks are freed, a device makes them.
    pub(super) fn clear(&self, offset: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Sparse { file, .. } => clear(file, offset, len),
            Self::On(device) => {
                let file = device.file();
                edged(file, self.base() + offset, len, |from, len| {
                    zero_range(file, from, len)
                })
            }
        }
    }

    /// Has room for so many bytes; what is new is zeros, and stable on return.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::NoRoom`] where the device ends before.
    pub(super) fn grow(&self, bytes: u64) -> Result<(), StoreError> {
        match self {
            Self::Sparse { file, path } => file
                .set_len(bytes)
                .and_then(|()| file.sync_all())
                .map_err(|error| StoreError::io("grow", path, error)),
            Self::On(device) => match device.label().capacity() {
                capacity if capacity < bytes => Err(StoreError::NoRoom {
                    path: device.path().to_owned(),
                    capacity,
                    bytes,
                }),
                _ => Ok(()),
            },
        }
    }

    /// Allocates so many bytes, stable on return.
    pub(super) fn allocate(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::Sparse { file, .. } => {
                rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes)?;
                file.sync_all()
            }
            Self::On(_) => Ok(()),
        }
    }

    /// Where from `offset` on the next byte is that has space of its own; `None`: there is none.
    pub(super) fn next_data(&self, offset: u64) -> Result<Option<u64>, Errno> {
        match self {
            // The file's own position is used by nobody: every other call names its offset.
            Self::Sparse { file, .. } => match rustix::fs::seek(file, SeekFrom::Data(offset)) {
                Ok(data) => Ok(Some(data)),
                Err(Errno::NXIO) => Ok(None),
                Err(error) => Err(error),
            },
            Self::On(_) => Ok(Some(offset)),
        }
    }

    /// Where from `offset` on the next byte is that has no space of its own.
    pub(super) fn next_hole(&self, offset: u64) -> Result<u64, Errno> {
        match self {
            Self::Sparse { file, .. } => rustix::fs::seek(file, SeekFrom::Hole(offset)),
            Self::On(_) => Ok(u64::MAX),
        }
    }

    /// Has a device's label say that an extent's description names it, or that its extent is deleted; stable on return. Of a file, nothing.
    pub(super) fn label(&self, state: State) -> Result<(), StoreError> {
        match self {
            Self::On(device) if device.label().state != state => device.set(state),
            _ => Ok(()),
        }
    }
}

/// Makes bytes of a file zeros: whole file system blocks are freed, the edges are written.
pub(super) fn clear(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    edged(file, offset, len, |from, len| {
        loop {
            match rustix::fs::fallocate(file, flags, from, len) {
                Ok(()) => return Ok(()),
                // A file system without holes.
                Err(Errno::NOTSUP | Errno::NOSYS) => return put_zeros(file, from, from + len),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    })
}

/// Writes zeros at the edges of a range, and has `whole` do the whole pages between them, from where on and how many bytes.
fn edged(
    file: &File,
    offset: u64,
    len: u64,
    whole: impl FnOnce(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let end = offset + len;
    let (from, to) = (
        offset.next_multiple_of(PUNCH_ALIGN),
        end / PUNCH_ALIGN * PUNCH_ALIGN,
    );
    if from >= to {
        return put_zeros(file, offset, end);
    }
    put_zeros(file, offset, from)?;
    put_zeros(file, to, end)?;
    whole(from, to - from)
}

/// Writes zeros.
pub(super) fn put_zeros(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    while from < to {
        let n = usize::try_from(to - from).map_or(CHUNK, |left| left.min(CHUNK));
        file.write_all_at(&ZEROS[..n], from)?;
        from += n as u64;
    }
    Ok(())
}
