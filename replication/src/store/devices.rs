//! The devices that were given to this node: which one an extent gets, and whether one is still what its label said.
//!
//! The label on the device identifies it, not its name: a device whose label is not the one that the node remembers is gone, and never
//! used. The cluster's id in the label is for people and for other clusters; a takeover changes it, and the next opening writes it anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_types::{DeviceId, ExtentId, NodeId};

use super::device::{self, Device, wipe_label};
use super::label::{DEVICE_DATA_AT, Label, State};
use super::settle::settle;
use super::{ExtentMeta, StoreError};

/// Whose devices they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The cluster, in its present incarnation.
    pub cluster: u128,
    /// The node.
    pub node: NodeId,
}

/// How a device stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// Its id.
    pub id: DeviceId,
    /// By which name the node knows it.
    pub path: PathBuf,
    /// Its label as it is now, with its present size; or why the device is not there any more, in one line.
    pub label: Result<Label, String>,
}

/// The devices of a node.
#[derive(Debug)]
pub struct Devices {
    pub(super) owner: Owner,
    /// Where descriptions of extents are.
    pub(super) extents: PathBuf,
    known: Mutex<BTreeMap<DeviceId, PathBuf>>,
    /// Held while a blank one is chosen, given or taken back.
    pub(super) choosing: Mutex<()>,
}

impl Devices {
    /// Those that a node remembers, whose extents are described in the directory `extents`.
    pub fn new(owner: Owner, extents: &Path, known: impl IntoIterator<Item = (DeviceId, PathBuf)>) -> Self {
        Self {
            owner,
            extents: extents.to_owned(),
            known: Mutex::new(known.into_iter().collect()),
            choosing: Mutex::new(()),
        }
    }

    /// Of a node that was given none.
    pub fn none() -> Self {
        let owner = Owner {
            cluster: 0,
            node: NodeId(0),
        };
        Self::new(owner, Path::new(""), [])
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<DeviceId, PathBuf>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn choose(&self) -> MutexGuard<'_, ()> {
        self.choosing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, by the names that the node knows.
    pub fn all(&self) -> BTreeMap<DeviceId, PathBuf> {
        self.known().clone()
    }

    /// From now on the node has this device, too.
    pub fn learn(&self, id: DeviceId, path: &Path) {
        self.known().insert(id, path.to_owned());
    }

    /// From now on the node does not have it any more.
    pub fn forget(&self, id: DeviceId) {
        self.known().remove(&id);
    }

    /// How each of them stands now.
    pub fn list(&self) -> Vec<DeviceReport> {
        let report = |(id, path): (DeviceId, PathBuf)| DeviceReport {
            id,
            label: self.look(id, &path).map_err(|error| error.to_string()),
            path,
        };
        self.all().into_iter().map(report).collect()
    }

    /// Its label, if that is the one that is remembered.
    fn look(&self, id: DeviceId, path: &Path) -> Result<Label, StoreError> {
        self.judge(id, path, &device::open(path, false)?)
    }

    fn judge(&self, id: DeviceId, path: &Path, file: &File) -> Result<Label, StoreError> {
        let not_ours = |why: String| StoreError::NotOurs {
            path: path.to_owned(),
            why,
        };
        let (label, bytes) = device::read_label(file, path)?;
        let label = label.ok_or_else(|| not_ours("it has no label of holdfast".into()))?;
        if label.id != id || label.node != self.owner.node {
            return Err(not_ours(format!(
                "it is device {} of node {}, not {id} of node {}",
                label.id, label.node, self.owner.node
            )));
        }
        Ok(Label { bytes, ..label })
    }

    /// Opens one for this process alone, with nothing of it in the page cache that the disk may not have (J2).
    pub(super) fn open_alone(&self, id: DeviceId, path: &Path) -> Result<Device, StoreError> {
        let file = device::open(path, true)?;
        // What stays in the cache, because others look at the device, is judged when its extent is opened.
        settle(&file, path)?;
        let label = self.judge(id, path, &file)?;
        Ok(Device::new(file, path, label))
    }

    /// Opens the device on which an extent of so many bytes lies by its description.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::NotOurs`], [`StoreError::Newer`]: the device is gone, or is another one. [`StoreError::Deleted`].
    pub fn open(&self, id: DeviceId, extent: ExtentId, bytes: u64) -> Result<Device, StoreError> {
        let path = self.known().get(&id).cloned();
        let path = path.ok_or_else(|| StoreError::NotOurs {
            path: ExtentMeta::path(&self.extents, extent),
            why: format!("it lies on device {id}, which this node does not have"),
        })?;
        let opened = self.open_alone(id, &path).map_err(|error| match error {
            // Of a description this would have the extent made anew; a label says nothing of what is behind it.
            StoreError::Damaged { path, why } => StoreError::NotOurs { path, why },
            other => other,
        })?;
        let label = opened.label();
        match label.state {
            State::Holds(of) | State::Taken(of) if of == extent => {}
            State::Used(of) if of == extent => return Err(StoreError::Deleted(extent)),
            other => {
                return Err(StoreError::NotOurs {
                    path,
                    why: format!("its label says '{other}', and not extent {extent}"),
                });
            }
        }
        if label.capacity() < bytes {
            return Err(StoreError::NoRoom {
                path,
                capacity: label.capacity(),
                bytes,
            });
        }
        // A creation that was cut short behind the description, another cluster id, or a device that has grown.
        let cluster = self.owner.cluster;
        let state = State::Holds(extent);
        opened.relabel(Label {
            cluster,
            state,
            ..label
        })?;
        Ok(opened)
    }

    /// Takes a device for an extent of so many bytes that has no description here: the one whose label names it, which holds something then
    /// (true), or the smallest blank one that is large enough. Its label names the extent when this returns.
    ///
    /// # Errors
    /// [`StoreError::NoDevice`], [`StoreError::NoRoom`], [`StoreError::Io`].
    pub fn take(&self, extent: ExtentId, bytes: u64) -> Result<(Device, bool), StoreError> {
        let _choosing = self.choose();
        let mut blank = Vec::new();
        for (id, path) in self.all() {
            let Ok(label) = self.look(id, &path) else { continue };
            match label.state {
                State::Holds(of) if of == extent => {
                    let device = self.open_alone(id, &path)?;
                    let capacity = device.label().capacity();
                    if capacity < bytes {
                        return Err(StoreError::NoRoom {
                            path,
                            capacity,
                            bytes,
                        });
                    }
                    return Ok((device, true));
                }
                State::Blank => blank.push((label.capacity(), path, id)),
                _ => {}
            }
        }
        blank.sort();
        for (_, path, id) in blank.iter().filter(|(capacity, ..)| *capacity >= bytes) {
            match self.open_alone(*id, path) {
                Ok(device) if is_blank(&device) => {
                    // A blank one may have the cluster's id from before a takeover.
                    device.relabel(Label {
                        cluster: self.owner.cluster,
                        state: State::Taken(extent),
                        ..device.label()
                    })?;
                    return Ok((device, false));
                }
                Ok(_) => {
                    tracing::warn!(path = %path.display(), "somebody else has written to a blank device")
                }
                Err(error) => tracing::warn!(%error, "a blank device cannot be used"),
            }
        }
        let sizes: Vec<String> = blank.iter().map(|(bytes, ..)| bytes.to_string()).collect();
        Err(StoreError::NoDevice {
            bytes,
            blank: match sizes.as_slice() {
                [] => "there is none".into(),
                some => format!("they have {}", some.join(", ")),
            },
        })
    }

    /// Devices that were taken for an extent that has no description: nothing was written to them, and they are blank again. Told in the
    /// log if that fails.
    pub fn give_back(&self) {
        let _choosing = self.choose();
        for (id, path) in self.all() {
            let Ok(label) = self.look(id, &path) else { continue };
            let State::Taken(extent) = label.state else {
                continue;
            };
            if ExtentMeta::path(&self.extents, extent).exists() {
                continue;
            }
            let given = self
                .open_alone(id, &path)
                .and_then(|device| device.set(State::Blank));
            match given {
                Ok(()) => tracing::info!(path = %path.display(), %extent, "device is blank again"),
                Err(error) => tracing::warn!(%extent, %error, "a device is not given back"),
            }
        }
    }

    /// Takes the label off a device that is of no use to any extent here, and forgets it. One that is gone is only forgotten.
    ///
    /// # Errors
    /// [`StoreError::Io`]: it is remembered still.
    pub fn remove(&self, id: DeviceId, path: &Path) -> Result<(), StoreError> {
        let _choosing = self.choose();
        if self.look(id, path).is_ok() {
            let device = self.open_alone(id, path)?;
            wipe_label(device.file(), path)?;
        }
        self.forget(id);
        Ok(())
    }

    /// The extents whose descriptions name this device.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn extents_on(&self, id: DeviceId) -> Result<Vec<ExtentId>, StoreError> {
        let all = super::ExtentFile::list(&self.extents)?;
        let named = |extent: &ExtentId| {
            ExtentMeta::load(&self.extents, *extent).is_ok_and(|meta| meta.device == Some(id))
        };
        Ok(all.into_iter().filter(named).collect())
    }
}

/// Whether its label says so, and nothing else was put at its end since; what lies behind the label was looked at with it.
fn is_blank(device: &Device) -> bool {
    let label = device.label();
    let from = label
        .bytes
        .saturating_sub(device::LOOK_BYTES as u64)
        .max(DEVICE_DATA_AT);
    label.state == State::Blank && matches!(device::first_byte(device.file(), from, label.bytes), Ok(None))
}
