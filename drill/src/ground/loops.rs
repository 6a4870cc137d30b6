//! Block devices out of files: loop devices, for what wants a disk without a file system. Need root.

use std::path::{Path, PathBuf};

use super::{DIR_MARK, GroundError, call, find, is_left_behind, needs_root};

type Result<T> = std::result::Result<T, GroundError>;

/// A loop device, detached when dropped.
#[derive(Debug)]
pub struct LoopDevice {
    losetup: PathBuf,
    path: PathBuf,
}

impl LoopDevice {
    /// A device of so many bytes, all of them zeros, in a new file.
    ///
    /// # Errors
    /// [`GroundError::Unavailable`] where there are none on this machine.
    pub fn make(file: &Path, bytes: u64) -> Result<Self> {
        needs_root("loop devices")?;
        let losetup = find("losetup", "mount")?;
        if !Path::new("/dev/loop-control").exists() {
            return Err(GroundError::Unavailable(
                "loop devices need /dev/loop-control".into(),
            ));
        }
        std::fs::File::create(file)
            .and_then(|made| made.set_len(bytes))
            .map_err(|error| GroundError::failed(file.display().to_string(), error))?;
        let name = file.to_string_lossy();
        let path = call(&losetup, &["--find", "--show", &name])?;
        let path = path.trim().into();
        Ok(Self { losetup, path })
    }

    /// Its name, as `/dev/loop7`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // One that is in use goes when its last user closes it.
        if let Err(error) = call(&self.losetup, &["--detach", &self.path.to_string_lossy()]) {
            tracing::warn!(%error, "a loop device is left behind");
        }
    }
}

/// Detaches what lies in directories whose maker is gone.
pub(super) fn sweep() {
    let Ok(losetup) = find("losetup", "mount") else {
        return;
    };
    let listed = call(
        &losetup,
        &["--list", "--noheadings", "--output", "NAME,BACK-FILE"],
    )
    .unwrap_or_default();
    for line in listed.lines() {
        let Some((name, file)) = line.trim().split_once(' ') else {
            continue;
        };
        let mut parts = file.split('/');
        let owner = parts.find_map(|part| part.strip_prefix(DIR_MARK));
        if owner.is_some_and(is_left_behind) {
            // Mounted ones are detached already, and go with their mount.
            let _ = call(&losetup, &["--detach", name]);
        }
    }
}
