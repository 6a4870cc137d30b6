//! Giving a device to a node: whatever it may hold is looked for first, then all of it is made zeros, and the label comes last. So a
//! device without label was not given, however far that had come, and one with a label that says blank is zeros behind it.

use std::fs::File;
use std::path::{Path, PathBuf};

use holdfast_types::{DeviceId, EXTENT_BYTES_MIN, ExtentId, NodeId};
use rustix::io::Errno;

use super::device::{self, LOOK_BYTES, ZERO_STEP, first_byte, write_label, zero_range};
use super::label::{DEVICE_DATA_AT, Label, State};
use super::settle::settle;
use super::{Devices, StoreError};

/// The smallest device.
const BYTES_MIN: u64 = DEVICE_DATA_AT + EXTENT_BYTES_MIN;
/// What became of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its label now.
    pub label: Label,
    /// By which name it is to be remembered.
    pub path: PathBuf,
    /// What was done, for people.
    pub how: How,
    /// The device that it was before.
    pub before: Option<DeviceId>,
}

/// What a gift came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The node had it already.
    Known,
    /// It had the label of this node, and the node had forgotten it.
    Again,
    /// All of it was made zeros.
    Zeroed,
}

/// What the cluster has, as far as this node knows.
pub trait Has {
    /// This member.
    fn member(&self, node: NodeId) -> bool;
    /// This extent.
    fn extent(&self, extent: ExtentId) -> bool;
}

/// Why a device is not taken. One line each.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// A name by which it would not be found again.
    #[error("{0}: name the device by its whole path, as /dev/disk/by-id/… has it")]
    Relative(PathBuf),
    /// Mounted, part of RAID or LVM, has mounted partitions, or another process has it.
    #[error("{0} is in use: mounted, part of a volume, or opened by another process; it is left as it is")]
    InUse(PathBuf),
    /// It cannot be written.
    #[error("{0} can only be read")]
    ReadOnly(PathBuf),
    /// A device that is gone had the same name.
    #[error(
        "{path} is not the device that this node remembers by this name ({id}), on which an extent lies: if that one does not come back, \
         give it up first, with 'holdfast device remove {path} --confirm {path}'"
    )]
    Remembered {
        /// The name.
        path: PathBuf,
        /// The one that is gone.
        id: DeviceId,
    },
    /// It cannot be opened by the user that the node runs as.
    #[error(
        "{0}: this node may not open it; docs/runbooks.md, \"Extents on disks of their own\", says how it may"
    )]
    Forbidden(PathBuf),
    /// Too small for the smallest extent.
    #[error("{path} has {bytes} bytes; a device has {BYTES_MIN} at least")]
    TooSmall {
        /// It.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not zeros where signatures are.
    #[error(
        "{path} carries data (at byte {at}{what}): to lose all that is on it, type its path again, with --confirm {path}"
    )]
    CarriesData {
        /// It.
        path: PathBuf,
        /// The first byte that is not zero, of those that were looked at.
        at: u64,
        /// What it is, as far as that is known; begins with a comma.
        what: String,
    },
    /// It belongs to this cluster.
    #[error("{path} {what}")]
    OfThisCluster {
        /// It.
        path: PathBuf,
        /// What it is, and what to do.
        what: String,
    },
    /// Whoever asked for it is gone.
    #[error("nobody waits for it any more: {0} is no device of this node; the same command begins anew")]
    BrokenOff(PathBuf),
    /// The device failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Devices {
    /// Gives the node a device, and remembers nothing: that is the caller's, once he has the answer. Blocks for as long as it takes to
    /// write all of the device. `has` says what the cluster has; `id` is for a new label; `progress` hears how many of how many bytes are
    /// zeros, and says whether to go on. With `confirmed` whatever it carries is lost.
    ///
    /// # Errors
    /// [`AddError`]; nothing uses the device then.
    pub fn add(
        &self,
        path: &Path,
        (id, confirmed): (DeviceId, bool),
        has: &dyn Has,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Given, AddError> {
        let path = name(path)?;
        let given = |label, path, how, before| Given {
            label,
            path,
            how,
            before,
        };
        if let Some(label) = self.found(&path, has)? {
            return Ok(given(label, path, How::Known, None));
        }
        self.must_not_replace(&path)?;
        let (file, bytes) = open_new(&path)?;
        settle(&file, &path)?;
        let label = match device::read_label(&file, &path) {
            Ok((label, _)) => label,
            // Broken labels are data as any other. What a newer release wrote is not for this one to destroy, whatever is typed.
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        match label
            .map(|label| self.judge_label(&path, &label, has))
            .transpose()?
        {
            Some(Labelled::Ours(label)) => return Ok(given(label, path, How::Again, None)),
            Some(Labelled::Foreign(what)) if !confirmed => {
                return Err(AddError::CarriesData { path, at: 0, what });
            }
            None if !confirmed => refuse_data(&file, &path, bytes)?,
            _ => {}
        }
        let before = label.map(|label| label.id);
        let label = self.make_blank(&file, &path, (id, bytes), &mut progress)?;
        Ok(given(label, path, How::Zeroed, before))
    }

    /// A name under which the node remembers a device that is gone, and needed, is not another one's before that one is given up.
    fn must_not_replace(&self, path: &Path) -> Result<(), AddError> {
        for known in self.list() {
            if known.path == path && known.label.is_err() && !self.extents_on(known.id)?.is_empty() {
                return Err(AddError::Remembered {
                    path: path.to_owned(),
                    id: known.id,
                });
            }
        }
        Ok(())
    }

    /// Makes all of it zeros, and writes a label.
    fn make_blank(
        &self,
        file: &File,
        path: &Path,
        (id, bytes): (DeviceId, u64),
        progress: &mut impl FnMut(u64, u64) -> bool,
    ) -> Result<Label, AddError> {
        let wrap = |error| StoreError::io("write", path, error);
        // From the beginning, so that an old label is the first to go.
        let mut at = 0;
        while at < bytes {
            let n = (bytes - at).min(ZERO_STEP);
            zero_all(file, at, n).map_err(wrap)?;
            if at == 0 {
                file.sync_all().map_err(wrap)?;
            }
            at += n;
            if !progress(at, bytes) {
                return Err(AddError::BrokenOff(path.to_owned()));
            }
        }
        file.sync_all().map_err(wrap)?;
        let label = Label {
            id,
            cluster: self.owner.cluster,
            node: self.owner.node,
            bytes,
            state: State::Blank,
        };
        write_label(file, path, &label)?;
        Ok(label)
    }

    /// The label of a device that the node has already, by any name, blank or in use.
    fn found(&self, path: &Path, has: &dyn Has) -> Result<Option<Label>, AddError> {
        let file = device::open(path, false).map_err(|error| match &error {
            StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                AddError::Forbidden(path.to_owned())
            }
            _ => error.into(),
        })?;
        // What cannot be read is looked at again where it counts.
        let Ok((Some(label), _)) = device::read_label(&file, path) else {
            return Ok(None);
        };
        let mine = self.all().contains_key(&label.id) && label.node == self.owner.node;
        let known = match label.state {
            State::Blank => true,
            State::Used(_) => false,
            State::Taken(extent) | State::Holds(extent) => {
                has.extent(extent) || self.extents_on(label.id)?.contains(&extent)
            }
        };
        Ok(Some(label).filter(|_| mine && known))
    }

    fn judge_label(&self, path: &Path, label: &Label, has: &dyn Has) -> Result<Labelled, AddError> {
        let refuse = |what: String| {
            Err(AddError::OfThisCluster {
                path: path.to_owned(),
                what,
            })
        };
        let (mine, state) = (label.node == self.owner.node, label.state);
        // A takeover changes the cluster's id, and not that of a device.
        let known = self.all().contains_key(&label.id);
        if label.cluster != self.owner.cluster && !known {
            return Ok(Labelled::Foreign(format!(
                ", the label of node {} of cluster {:032x}, '{state}'",
                label.node, label.cluster
            )));
        }
        if !has.member(label.node) {
            return Ok(Labelled::Foreign(format!(
                ", the label of node {} of this cluster, which is no member any more, '{state}'",
                label.node
            )));
        }
        match state {
            State::Used(_) if mine => Ok(Labelled::Free),
            State::Blank if mine => Ok(Labelled::Ours(*label)),
            State::Holds(extent) if mine && self.extents_on(label.id)?.contains(&extent) => {
                Ok(Labelled::Ours(*label))
            }
            State::Holds(extent) | State::Taken(extent) if has.extent(extent) => refuse(format!(
                "holds extent {extent} for node {} of this cluster: it is left as it is",
                label.node
            )),
            State::Blank => refuse(format!(
                "is a blank device of node {} of this cluster: take it from that node first, with 'holdfast device remove'",
                label.node
            )),
            other => Ok(Labelled::Foreign(format!(
                ", the label of node {} of this cluster, '{other}', an extent that is gone",
                label.node
            ))),
        }
    }
}

/// Whose label a device has.
enum Labelled {
    /// This node's, and nothing is to be done but to remember it.
    Ours(Label),
    /// This node's, of an extent that was deleted.
    Free,
    /// Data as any other; what it is.
    Foreign(String),
}

/// The name by which a device is remembered: names that follow the device are kept, others resolved.
fn name(path: &Path) -> Result<PathBuf, AddError> {
    if !path.is_absolute() {
        return Err(AddError::Relative(path.to_owned()));
    }
    let lasts = ["/dev/disk", "/dev/mapper"]
        .iter()
        .any(|below| path.starts_with(below));
    if lasts {
        return Ok(path.to_owned());
    }
    let found = std::fs::canonicalize(path).map_err(|error| StoreError::io("look at", path, error))?;
    Ok(found)
}

/// Opens a device that is to be given, for this process alone.
fn open_new(path: &Path) -> Result<(File, u64), AddError> {
    let file = device::open(path, true).map_err(|error| match &error {
        StoreError::Io { source, .. } => match Errno::from_io_error(source) {
            Some(Errno::BUSY) => AddError::InUse(path.to_owned()),
            Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => AddError::ReadOnly(path.to_owned()),
            _ => error.into(),
        },
        _ => error.into(),
    })?;
    let bytes = device::size(&file).map_err(|error| StoreError::io("look at", path, error))?;
    if bytes < BYTES_MIN {
        return Err(AddError::TooSmall {
            path: path.to_owned(),
            bytes,
        });
    }
    Ok((file, bytes))
}

/// Refuses a device that is not zeros in its first or last MiB.
fn refuse_data(file: &File, path: &Path, bytes: u64) -> Result<(), AddError> {
    for from in [0, bytes.saturating_sub(LOOK_BYTES as u64)] {
        let found = first_byte(file, from, bytes).map_err(|error| StoreError::io("read", path, error))?;
        if let Some(at) = found {
            return Err(AddError::CarriesData {
                path: path.to_owned(),
                at,
                what: String::new(),
            });
        }
    }
    Ok(())
}

/// As [`zero_range`], of a last step that is no multiple of a page, too.
fn zero_all(file: &File, at: u64, len: u64) -> std::io::Result<()> {
    let whole = len / 4096 * 4096;
    if whole > 0 {
        zero_range(file, at, whole)?;
    }
    super::contents::put_zeros(file, at + whole, at + len)
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
