//! File systems in a file, mounted: for power cuts, disks that hang and disks that fill up. Need root and loop devices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DIR_MARK, GroundError, call, find, is_left_behind, needs_root};

type Result<T> = std::result::Result<T, GroundError>;

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| GroundError::failed(path.display().to_string(), "not a path in UTF-8"))
}

/// The programs that images need besides root.
#[derive(Debug, Clone)]
pub struct Tools {
    mount: PathBuf,
    umount: PathBuf,
    mkfs: PathBuf,
    freeze: PathBuf,
}

impl Tools {
    /// # Errors
    /// [`GroundError::Unavailable`] where images cannot be mounted.
    pub fn find() -> Result<Self> {
        needs_root("mounted images")?;
        let found = Self {
            mount: find("mount", "mount")?,
            umount: find("umount", "mount")?,
            mkfs: find("mkfs.ext4", "e2fsprogs")?,
            freeze: find("fsfreeze", "util-linux")?,
        };
        let unavailable =
            |error: String| GroundError::Unavailable(format!("loop devices are needed ({error})"));
        let dir = tempfile::tempdir().map_err(|error| unavailable(error.to_string()))?;
        let (file, at) = (dir.path().join("probe.img"), dir.path().join("probe"));
        Image::make(&found, &file, &at, 16).map_err(|error| unavailable(error.to_string()))?;
        Ok(found)
    }
}

/// A mounted image, unmounted when dropped.
#[derive(Debug)]
pub struct Image {
    tools: Tools,
    /// The image.
    pub file: PathBuf,
    /// Where it is mounted.
    pub at: PathBuf,
}

impl Image {
    /// A new, empty file system of so many MiB in `file`, mounted at `at`, which is made.
    ///
    /// # Errors
    /// It cannot be made or mounted.
    pub fn make(tools: &Tools, file: &Path, at: &Path, mib: u64) -> Result<Self> {
        std::fs::File::create(file)
            .and_then(|made| made.set_len(mib << 20))
            .map_err(|error| GroundError::failed(file.display().to_string(), error))?;
        let path = text(file)?;
        call(
            &tools.mkfs,
            &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", path],
        )?;
        Self::mount(tools, file, at)
    }

    /// Mounts an image.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount(tools: &Tools, file: &Path, at: &Path) -> Result<Self> {
        std::fs::create_dir_all(at).map_err(|error| GroundError::failed(at.display().to_string(), error))?;
        call(&tools.mount, &["-o", "loop", text(file)?, text(at)?])?;
        Ok(Self {
            tools: tools.clone(),
            file: file.to_owned(),
            at: at.to_owned(),
        })
    }

    /// Has every write to it hang, without an error, until the answer is dropped.
    ///
    /// # Errors
    /// The file system cannot be frozen.
    pub fn freeze(&self) -> Result<Frozen> {
        call(&self.tools.freeze, &["--freeze", &self.at.to_string_lossy()])?;
        Ok(Frozen {
            program: self.tools.freeze.clone(),
            at: self.at.clone(),
        })
    }
}

/// A file system that does nothing until this is dropped.
#[derive(Debug)]
pub struct Frozen {
    program: PathBuf,
    at: PathBuf,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = call(&self.program, &["--unfreeze", &self.at.to_string_lossy()]) {
            tracing::warn!(at = %self.at.display(), %error, "a file system is still frozen");
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let at = self.at.to_string_lossy().into_owned();
        // The file system may be busy for a moment after its last user has gone.
        for _ in 0..50 {
            match call(&self.tools.umount, &[&at]) {
                Ok(_) => return,
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        tracing::warn!(%at, "a file system is still mounted");
    }
}

/// Unmounts what is mounted below directories whose maker is gone, thawed first.
pub(super) fn sweep() {
    let (Ok(umount), Ok(freeze)) = (find("umount", "mount"), find("fsfreeze", "util-linux")) else {
        return;
    };
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let mut parts = at.split('/');
        let owner = parts.find_map(|part| part.strip_prefix(DIR_MARK));
        if owner.is_some_and(is_left_behind) {
            // Most are not frozen.
            let _ = call(&freeze, &["--unfreeze", at]);
            if let Err(error) = call(&umount, &["--lazy", at]) {
                tracing::warn!(%at, %error, "a file system is still mounted");
            }
        }
    }
}
