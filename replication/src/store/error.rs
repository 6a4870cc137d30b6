//! What can go wrong with a node's files.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_types::ExtentId;

/// Trouble with an extent's files or the node's journal. One line for the administrator each; never shown to an initiator (I8).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused a call.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Written by a later release.
    #[error(
        "{path} was written by a newer version of holdfast (format {found}, newer than {known}, the newest that this one knows); \
         install that version"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The version it names.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// Written by an earlier release, in a format that is not read any more.
    #[error(
        "{path} has format {found}, this release reads {known}: use the release that wrote it, or let a peer resync this node from nothing"
    )]
    Older {
        /// Which file.
        path: PathBuf,
        /// The version it names.
        found: u32,
        /// The version known here.
        known: u32,
    },
    /// Blocks that cannot be read, or are not what was written. A peer may have them (I10).
    #[error("extent {id}: {range} cannot be read, or is not what was written")]
    Rotten {
        /// The extent.
        id: ExtentId,
        /// The smallest range that holds all such blocks.
        range: holdfast_types::BlockRange,
    },
    /// The contents are not what was written.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What gave it away.
        why: String,
    },
    /// There is one already.
    #[error("extent {0} exists already")]
    Exists(ExtentId),
    /// The page cache keeps contents of a replica that is not to be trusted, which its disk may not have (J2).
    #[error(
        "{0} stays in the page cache, which may hold what the disk never got: end what has it mapped, then start the node again"
    )]
    Held(PathBuf),
    /// It is something else.
    #[error("{0} is no block device")]
    NotBlock(PathBuf),
    /// The device of an extent is not what the extent's description says. Nothing is written to it.
    #[error("{path}: {why}; it is left as it is")]
    NotOurs {
        /// The device, or what is known of it.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// The device says that its extent was deleted: only the rest of the files is still there.
    #[error("extent {0} was deleted")]
    Deleted(ExtentId),
    /// No device of the node is free and large enough.
    #[error(
        "no blank device here has room for {bytes} bytes ({blank}); 'holdfast device add' gives this node another one"
    )]
    NoDevice {
        /// What is needed.
        bytes: u64,
        /// What the blank ones have.
        blank: String,
    },
    /// An extent's device ends too early.
    #[error("{path} has room for {capacity} bytes of an extent, not for {bytes}")]
    NoRoom {
        /// The device.
        path: PathBuf,
        /// Bytes that it has for an extent.
        capacity: u64,
        /// What is needed.
        bytes: u64,
    },
    /// Not within the extent, or data of another length than the range.
    #[error("extent {id}: {range} is not within its {blocks} blocks, or its data has another length")]
    Range {
        /// The extent.
        id: ExtentId,
        /// What was asked for.
        range: holdfast_types::BlockRange,
        /// The extent's size in blocks.
        blocks: u64,
    },
    /// No size that an extent may have.
    #[error("extent {id}: {why}")]
    Geometry {
        /// The extent.
        id: ExtentId,
        /// What is wrong.
        why: &'static str,
    },
    /// An earlier write or flush failed; nothing is read from or written to it again (J2).
    #[error("extent {0} had a disk error and stays out until it is replaced")]
    Failed(ExtentId),
}

impl StoreError {
    /// Wraps what the system said about `what` on `path`.
    pub fn io(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// Contents that are not what was written.
    pub fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            why: why.into(),
        }
    }

    /// Whether the disk is full or a quota is reached: nothing was lost, but nothing can be added.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
