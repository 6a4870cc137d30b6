//! The block devices that were given to this node, which `devices.json` remembers: by which name, and with which id in the label.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use holdfast_replication::store::{DeviceReport, DeviceState, Has, How};
use holdfast_types::{DeviceId, ExtentId};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::data::Data;
use super::kept;

/// Version of the file, and the newest that is read.
const FORMAT: u32 = 1;

/// What lies in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    devices: Vec<One>,
}

#[derive(Debug, Serialize, Deserialize)]
struct One {
    id: DeviceId,
    path: PathBuf,
}

/// Which devices a node remembers, and by which names.
pub(super) type KnownDevices = Vec<(DeviceId, PathBuf)>;

fn path(dir: &Path) -> PathBuf {
    dir.join("devices.json")
}

/// The devices of the node whose directory this is; none where there is no file.
///
/// # Errors
/// It cannot be read, is damaged, or of a newer version.
pub(super) fn load(dir: &Path) -> anyhow::Result<KnownDevices> {
    let path = path(dir);
    let Some(bytes) = kept::read(&path)? else {
        return Ok(Vec::new());
    };
    let remedy = "remove it, start the node, give it each of its devices again with 'holdfast device add', and start it anew";
    let kept: Kept = kept::parse(&path, &bytes, FORMAT, remedy)?;
    Ok(kept.devices.into_iter().map(|one| (one.id, one.path)).collect())
}

fn store(dir: &Path, devices: impl IntoIterator<Item = (DeviceId, PathBuf)>) -> anyhow::Result<()> {
    let devices = devices.into_iter().map(|(id, path)| One { id, path }).collect();
    let kept = Kept {
        format: FORMAT,
        devices,
    };
    kept::replace(&path(dir), kept::OPEN, &serde_json::to_vec(&kept)?)
}

/// What changes when devices come and go.
pub(super) struct Gifts {
    dir: PathBuf,
    /// Held while the file and what it says change.
    changing: Mutex<()>,
    /// Told of every change: what found no device before may find one now.
    pub(super) changed: Arc<Notify>,
}

impl Gifts {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            changing: Mutex::default(),
            changed: Arc::default(),
        }
    }
}

impl Data {
    /// How the devices of this node stand. Reads from all of them.
    pub(crate) fn devices(&self) -> Vec<DeviceReport> {
        self.node.devices().list()
    }

    /// Gives this node a device, and remembers it; what was done, for people. Blocks for as long as it takes to write all of it. `has` says
    /// what the cluster has, `progress` hears how many of how many bytes are done, and says whether to go on.
    ///
    /// # Errors
    /// One line: why it is not taken. Nothing uses it then.
    pub(crate) fn add_device(
        &self,
        path: &Path,
        confirmed: bool,
        has: &dyn Has,
        progress: impl FnMut(u64, u64) -> bool,
    ) -> anyhow::Result<String> {
        let devices = self.node.devices();
        let id = DeviceId::from_u128(rand::random());
        let given = devices.add(path, (id, confirmed), has, progress)?;
        let (id, path) = (given.label.id, given.path);
        let _changing = self.gifts.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = devices.all();
        // Of one name, or of one device, the newest gift counts.
        all.retain(|known, place| *place != path && Some(*known) != given.before);
        all.insert(id, path.clone());
        store(&self.gifts.dir, all.clone())?;
        for known in devices.all().into_keys().filter(|known| !all.contains_key(known)) {
            devices.forget(known);
        }
        devices.learn(id, &path);
        self.gifts.changed.notify_one();
        let (name, room) = (path.display(), given.label.capacity() >> 20);
        let message = match (given.how, given.label.state) {
            (How::Known, DeviceState::Blank) => format!("{name} is a blank device of this node already."),
            (How::Known, _) => format!("{name} is a device of this node already, in use."),
            (How::Again, DeviceState::Blank) => format!("{name} is a blank device of this node again."),
            (How::Again, _) => format!(
                "{name} is a device of this node again; start the node anew, and it serves what is on it."
            ),
            (How::Zeroed, _) => {
                format!("{name} is a blank device of this node, with room for an extent of {room} MiB.")
            }
        };
        tracing::info!(%id, "{message}");
        Ok(message)
    }

    /// Takes a device from this node: blank, of an extent that is gone, or gone itself. What was done, for people. `there` says which
    /// extents the cluster has, by name; `confirm` is what was typed again. Blocks.
    ///
    /// # Errors
    /// One line: why it is not taken away.
    pub(crate) fn remove_device(
        &self,
        device: &str,
        confirm: &str,
        there: impl Fn(ExtentId) -> Option<String>,
    ) -> anyhow::Result<String> {
        let devices = self.node.devices();
        let _changing = self.gifts.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let found = find(devices.list(), device);
        let DeviceReport { id, path, label } = found
            .with_context(|| format!("this node has no device '{device}'; see 'holdfast device list'"))?;
        let name = path.display();
        let held = label.as_ref().ok().and_then(|label| match label.state {
            DeviceState::Holds(extent) | DeviceState::Taken(extent) => there(extent),
            DeviceState::Blank | DeviceState::Used(_) => None,
        });
        if let Some(extent) = held {
            bail!(
                "{name} holds extent {extent}: delete the extent first, or move it to another node and pull the disk out"
            );
        }
        let on = devices.extents_on(id)?;
        if let (Err(why), false) = (&label, on.is_empty()) {
            ensure!(
                confirm == device,
                "{name} is gone ({why}), and an extent lies on it: if it does not come back, type its name again, with --confirm {device}, \
                 and the replica is made anew on another device"
            );
        }
        ensure!(
            self.node.give_up_device(id)?,
            "{name} is in use by an extent of this node: start the node anew, and try again"
        );
        devices.remove(id, &path)?;
        store(&self.gifts.dir, devices.all())?;
        self.gifts.changed.notify_one();
        let message = format!("{name} is no device of this node any more.");
        tracing::info!(%id, "{message}");
        Ok(message)
    }
}

/// The device of this name or id.
fn find(all: Vec<DeviceReport>, device: &str) -> Option<DeviceReport> {
    let id: Option<DeviceId> = device.parse().ok();
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let asked = real(Path::new(device));
    let is_it = |one: &DeviceReport| Some(one.id) == id || one.path.as_os_str() == device;
    let same = |one: &DeviceReport| asked.is_some() && real(&one.path) == asked;
    let at = all.iter().position(is_it).or_else(|| all.iter().position(same));
    at.and_then(|at| all.into_iter().nth(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_loaded_and_a_newer_file_is_refused_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_empty());
        let devices = vec![(DeviceId::from_u128(7), PathBuf::from("/dev/disk/by-id/x"))];
        store(dir.path(), devices.clone()).unwrap();
        assert_eq!(load(dir.path()).unwrap(), devices);
        for (text, word) in [("{\"format\": 2}", "newer version"), ("{", "is damaged")] {
            std::fs::write(path(dir.path()), text).unwrap();
            let error = load(dir.path()).unwrap_err().to_string();
            assert!(error.contains(word) && error.lines().count() == 1, "{error}");
        }
    }
}
