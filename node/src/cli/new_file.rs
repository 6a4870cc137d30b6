//! Files that commands write: never in place of one that is there.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

/// Before anything is done for it.
///
/// # Errors
/// There is such a file.
pub(super) fn must_be_new(file: &Path) -> anyhow::Result<()> {
    ensure!(
        !file.exists(),
        "{} is there already: remove it first, or name another file",
        file.display()
    );
    Ok(())
}

/// Writes a new file for its owner alone: all of it or, when this is killed, nothing of that name.
///
/// # Errors
/// It cannot be written, or is there already.
pub(super) fn write(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    put(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

fn put(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = match file.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    // The mode of a temporary file is 0600 from the start.
    let mut written = tempfile::NamedTempFile::new_in(dir)?;
    written.write_all(bytes)?;
    written.as_file().sync_all()?;
    written
        .persist_noclobber(file)
        .map(drop)
        .map_err(|error| error.error)
}
