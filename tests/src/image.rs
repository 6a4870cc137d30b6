//! File systems in a file, mounted: for power cuts, disks that hang and disks that fill up. Need root and loop devices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::say;
use crate::tools::{self, call};

/// The programs that images need besides root.
#[derive(Debug)]
pub struct Tools {
    mount: PathBuf,
    umount: PathBuf,
    mkfs: PathBuf,
    freeze: PathBuf,
}

impl Tools {
    /// `None`, and a line that says why `what` is left out, where images cannot be mounted.
    pub fn find(what: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            say(&format!("left out: {what} need root, to mount images"));
            return None;
        }
        let found = Self {
            mount: tools::find("mount", "mount")?,
            umount: tools::find("umount", "mount")?,
            mkfs: tools::find("mkfs.ext4", "e2fsprogs")?,
            freeze: tools::find("fsfreeze", "util-linux")?,
        };
        let dir = tempfile::tempdir().ok()?;
        let (file, at) = (dir.path().join("probe.img"), dir.path().join("probe"));
        let problem = Image::make(&found, &file, &at, 16).err();
        if let Some(error) = problem {
            say(&format!("left out: {what} need loop devices ({error:#})"));
            return None;
        }
        Some(found)
    }
}

/// A mounted image, unmounted when dropped.
#[derive(Debug)]
pub struct Image<'a> {
    tools: &'a Tools,
    /// The image.
    pub file: PathBuf,
    /// Where it is mounted.
    pub at: PathBuf,
}

impl<'a> Image<'a> {
    /// A new, empty file system of so many MiB in `file`, mounted at `at`, which is made.
    ///
    /// # Errors
    /// It cannot be made or mounted.
    pub fn make(tools: &'a Tools, file: &Path, at: &Path, mib: u64) -> Result<Self> {
        std::fs::File::create(file)?.set_len(mib << 20)?;
        let path = file.to_str().context("a path in UTF-8")?;
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
    pub fn mount(tools: &'a Tools, file: &Path, at: &Path) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path in UTF-8");
        call(&tools.mount, &["-o", "loop", &text(file)?, &text(at)?])?;
        Ok(Self {
            tools,
            file: file.to_owned(),
            at: at.to_owned(),
        })
    }

    /// Has every write to it hang, without an error, until the answer is dropped.
    ///
    /// # Errors
    /// The file system cannot be frozen.
    pub fn freeze(&self) -> Result<Frozen<'_>> {
        call(&self.tools.freeze, &["--freeze", &self.at.to_string_lossy()])?;
        Ok(Frozen(self))
    }
}

/// A file system that does nothing until this is dropped.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Image<'a>);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = call(
            &self.0.tools.freeze,
            &["--unfreeze", &self.0.at.to_string_lossy()],
        ) {
            say(&format!("{} is still frozen: {error:#}", self.0.at.display()));
        }
    }
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        let at = self.at.to_string_lossy().into_owned();
        // The file system may be busy for a moment after its last user has gone.
        for _ in 0..50 {
            match call(&self.tools.umount, &[&at]) {
                Ok(_) => return,
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        say(&format!("{at} is still mounted"));
    }
}
