//! The disk under a node's directory: what it says of itself, and how fast it makes small writes durable.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Durable writes that are timed, at most.
const WRITES: u32 = 64;
/// For how long, at most.
const WITHIN: Duration = Duration::from_millis(700);
/// Bytes of each.
const BLOCK: usize = 4096;
/// Places that they go to in turn, so that none is written before the last one there is stable.
const PLACES: u64 = 8;

/// File systems that are told apart, by the number that statfs gives them.
const FILE_SYSTEMS: [(i64, &str); 10] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlayfs"),
    (0x6969, "nfs"),
    (0x6573_5546, "fuse"),
    (0xf2f5_2010, "f2fs"),
];

/// What is known of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct DiskLook {
    /// The node's directory.
    pub(super) dir: String,
    /// As the kernel names it, or its number.
    pub(super) file_system: String,
    /// The block device under it; `None` where there is none to be found.
    pub(super) device: Option<String>,
    /// Whether the kernel takes it for one that turns.
    pub(super) turns: Option<bool>,
    /// `write back` or `write through`: whether the kernel takes it to have a volatile cache, which it has flushed.
    pub(super) cache: Option<String>,
    /// Durable writes of 4 KiB, one after the other, and how long all of them took.
    pub(super) writes: u32,
    pub(super) took_us: u64,
    /// Why there were none.
    pub(super) failed: Option<String>,
    pub(super) total_bytes: u64,
    pub(super) free_bytes: u64,
}

fn read(path: PathBuf) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

/// The whole device of a number: a partition's own one has no queue.
fn device_of(number: u64) -> Option<PathBuf> {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let device = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    if device.join("partition").exists() {
        return device.parent().map(Path::to_path_buf);
    }
    Some(device)
}

/// The writes go to a file without a name, which is gone with its descriptor.
fn flushes(dir: &Path) -> std::io::Result<(u32, Duration)> {
    let file: File = tempfile::tempfile_in(dir)?;
    let block = [0x5a; BLOCK];
    for place in 0..PLACES {
        file.write_all_at(&block, place * BLOCK as u64)?;
    }
    // From here on the file's size and places stay as they are.
    file.sync_all()?;
    let began = Instant::now();
    let mut writes = 0;
    while writes < WRITES && began.elapsed() < WITHIN {
        file.write_all_at(&block, u64::from(writes) % PLACES * BLOCK as u64)?;
        file.sync_data()?;
        writes += 1;
    }
    Ok((writes, began.elapsed()))
}

/// Looks at the disk under `dir`. Takes up to a second; blocks.
pub(super) fn look(dir: &Path) -> anyhow::Result<DiskLook> {
    let about = || format!("cannot look at {}", dir.display());
    let space = rustix::fs::statvfs(dir).with_context(about)?;
    let kind = rustix::fs::statfs(dir).with_context(about)?.f_type;
    let number = std::fs::metadata(dir).with_context(about)?.dev();
    let device = device_of(number);
    let queue = |file: &str| read(device.as_ref()?.join("queue").join(file));
    let known = FILE_SYSTEMS.iter().find(|(magic, _)| *magic == kind);
    let mut look = DiskLook {
        dir: dir.display().to_string(),
        file_system: known.map_or_else(|| format!("{kind:#x}"), |(_, name)| (*name).to_owned()),
        turns: queue("rotational").map(|text| text == "1"),
        cache: queue("write_cache"),
        device: device
            .as_ref()
            .and_then(|device| device.file_name())
            .map(|name| name.to_string_lossy().into_owned()),
        total_bytes: space.f_blocks * space.f_frsize,
        free_bytes: space.f_bavail * space.f_frsize,
        ..DiskLook::default()
    };
    match flushes(dir) {
        Ok((writes, took)) => {
            look.writes = writes;
            look.took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        }
        Err(error) => look.failed = Some(error.to_string()),
    }
    Ok(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_looked_at_and_nothing_is_left_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let seen = look(dir.path()).unwrap();
        assert!(
            seen.writes > 0 && seen.took_us > 0 && seen.failed.is_none(),
            "{seen:?}"
        );
        assert!(seen.free_bytes <= seen.total_bytes && seen.total_bytes > 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(look(&dir.path().join("none")).is_err());
    }
}
