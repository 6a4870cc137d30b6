//! Snapshots of the cluster state, each a file of its own.
//!
//! A file is: magic (8 bytes), format (u32), length of the meta (u32), length of the body (u64), meta and body as JSON, CRC-32C over all
//! before it (u32); numbers are little-endian. It is written beside its place, flushed, renamed, and its directory flushed, so a name
//! that is there stands for a whole file. The log is purged only behind such a file. The same bytes travel to a node that lags.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};

use super::kind::SnapshotMeta;
use crate::model::{ClusterState, STATE_FORMAT};

const MAGIC: &[u8; 8] = b"HOLDSNAP";
/// Format of the file. A reader refuses a newer one.
const FORMAT: u32 = 1;
const HEADER: usize = 24;
/// Files that are kept: the newest, and one more in case that one breaks.
const KEPT: usize = 2;
/// Largest snapshot that is taken from a peer, in bytes.
pub(crate) const SNAPSHOT_MAX: u64 = 256 << 20;

/// A snapshot's contents.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: Arc<ClusterState>,
}

/// Why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("not a snapshot")]
    Magic,
    #[error("format {0}, newer than {1}, the newest that this version of holdfast knows")]
    Newer(u32, u32),
    /// Of a file with this name.
    #[error("{0}: {1}")]
    In(String, Box<Self>),
    #[error("{0} bytes instead of {1}")]
    Length(u64, u64),
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its contents cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its state is at revision {0}, its meta at index {1}")]
    Position(u64, u64),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The bytes of a snapshot.
pub(crate) fn encode(meta: &SnapshotMeta, state: &ClusterState) -> Result<Bytes, SnapshotError> {
    let meta = serde_json::to_vec(meta)?;
    let body = serde_json::to_vec(state)?;
    let meta_len =
        u32::try_from(meta.len()).map_err(|_| SnapshotError::Length(meta.len() as u64, 1 << 32))?;
    let mut out = BytesMut::with_capacity(HEADER + meta.len() + body.len() + 4);
    out.put_slice(MAGIC);
    out.put_u32_le(FORMAT);
    out.put_u32_le(meta_len);
    out.put_u64_le(body.len() as u64);
    out.put_slice(&meta);
    out.put_slice(&body);
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    Ok(out.freeze())
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Reads the bytes of a snapshot, from disk or from a peer: everything is checked.
pub(crate) fn decode(bytes: &[u8]) -> Result<Parsed, SnapshotError> {
    let short = || SnapshotError::Length(bytes.len() as u64, (HEADER + 4) as u64);
    if number::<8>(bytes, 0).ok_or_else(short)? != *MAGIC {
        return Err(SnapshotError::Magic);
    }
    let format = u32::from_le_bytes(number(bytes, 8).ok_or_else(short)?);
    let meta_len = u64::from(u32::from_le_bytes(number(bytes, 12).ok_or_else(short)?));
    let body_len = u64::from_le_bytes(number(bytes, 16).ok_or_else(short)?);
    if format > FORMAT {
        // Every format ends in the checksum of all before it, so a damaged file is never taken for a newer one.
        let (checked, crc) = bytes.split_at(bytes.len() - 4);
        return Err(if crc32c::crc32c(checked).to_le_bytes() == crc {
            SnapshotError::Newer(format, FORMAT)
        } else {
            SnapshotError::Checksum
        });
    }
    let wanted = body_len.saturating_add(meta_len + HEADER as u64 + 4);
    if wanted != bytes.len() as u64 {
        return Err(SnapshotError::Length(bytes.len() as u64, wanted));
    }
    let (checked, crc) = bytes.split_at(bytes.len() - 4);
    if crc32c::crc32c(checked).to_le_bytes() != crc {
        return Err(SnapshotError::Checksum);
    }
    let meta_end = HEADER + usize::try_from(meta_len).map_err(|_| short())?;
    let meta: SnapshotMeta = serde_json::from_slice(&checked[HEADER..meta_end])?;
    let state = read_state(&checked[meta_end..])?;
    let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
    if state.revision.0 != index {
        return Err(SnapshotError::Position(state.revision.0, index));
    }
    Ok(Parsed {
        meta,
        state: Arc::new(state),
    })
}

/// A stored cluster state; one of a newer format is refused by name, not by the first field that does not fit.
pub(crate) fn read_state(json: &[u8]) -> Result<ClusterState, SnapshotError> {
    #[derive(serde::Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let only: FormatOnly = serde_json::from_slice(json)?;
    if only.format > STATE_FORMAT {
        return Err(SnapshotError::Newer(only.format, STATE_FORMAT));
    }
    Ok(serde_json::from_slice(json)?)
}

/// Makes a directory, durably: a power cut must not take it with what is put there.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    // It, and the two above it that this run may have made too.
    for made in dir
        .ancestors()
        .take(3)
        .filter(|path| !path.as_os_str().is_empty())
    {
        File::open(made)?.sync_all()?;
    }
    Ok(())
}

/// The directory of snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    /// The newest whole snapshot, as bytes and as what they mean.
    current: Option<(Bytes, Parsed)>,
    /// Nothing more is written: the node has stopped, and the directory may be another run's by now.
    closed: bool,
}

impl Snapshots {
    /// Opens the directory, made if needed, and gives the whole snapshots, newest first, and what is wrong with the others. Broken
    /// files are moved aside, so that they are never taken for good ones, and can be looked at.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Vec<Parsed>, Vec<String>), SnapshotError> {
        make_dir(dir)?;
        let mut files: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match index_of(&path) {
                Some(index) => files.push((index, path)),
                None if path.extension().is_some_and(|e| e == "tmp") => fs::remove_file(&path)?,
                None => {}
            }
        }
        files.sort_unstable_by(|a, b| b.cmp(a));
        let (mut whole, mut broken, mut current) = (Vec::new(), Vec::new(), None);
        for (_, path) in files {
            let bytes = fs::read(&path);
            match bytes
                .map_err(SnapshotError::from)
                .and_then(|bytes| decode(&bytes).map(|parsed| (bytes, parsed)))
            {
                Ok((bytes, parsed)) => {
                    current.get_or_insert_with(|| (Bytes::from(bytes), parsed.clone()));
                    whole.push(parsed);
                }
                Err(error @ SnapshotError::Newer(..)) => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    return Err(SnapshotError::In(name.into_owned(), Box::new(error)));
                }
                Err(error) => {
                    broken.push(format!("{}: {error}", path.display()));
                    fs::rename(&path, path.with_extension("broken"))?;
                }
            }
        }
        let snapshots = Self {
            dir: dir.to_owned(),
            held: Mutex::new(Held {
                current,
                closed: false,
            }),
        };
        Ok((snapshots, whole, broken))
    }

    /// The newest whole snapshot.
    pub(crate) fn current(&self) -> Option<(Bytes, Parsed)> {
        self.lock().current.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends writing, after what is being written. Blocks for as long as that takes.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Stores a snapshot; durable when it returns. Blocks on the disk. An older one than the newest changes nothing.
    pub(crate) fn store(&self, bytes: Bytes, parsed: Parsed) -> Result<(), SnapshotError> {
        // Held over the writes: builds and installs take turns.
        let mut held = self.lock();
        if held.closed {
            return Err(io::Error::other("the node has stopped").into());
        }
        let index = parsed.state.revision.0;
        if held
            .current
            .as_ref()
            .is_some_and(|(_, newest)| newest.meta.last_log_id > parsed.meta.last_log_id)
        {
            return Ok(());
        }
        let path = self.dir.join(format!("{index:020}.snapshot"));
        let tmp = path.with_extension("tmp");
        let mut file = File::create(&tmp)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&tmp, &path)?;
        File::open(&self.dir)?.sync_all()?;
        held.current = Some((bytes, parsed));
        self.prune();
        Ok(())
    }

    /// Removes old files. What cannot be removed is tried again next time.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        let mut files: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter_map(|path| index_of(&path).map(|index| (index, path)))
            .collect();
        files.sort_unstable_by(|a, b| b.cmp(a));
        for (_, path) in files.into_iter().skip(KEPT) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an old snapshot cannot be removed");
            }
        }
    }
}

fn index_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".snapshot")?.parse().ok()
}
