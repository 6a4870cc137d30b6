//! Small files of a node's directory, each written as a whole, and the versions of those that are JSON documents.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

/// For its owner alone.
pub(super) const PRIVATE: u32 = 0o600;
/// For whoever the process's mask lets read it.
pub(super) const OPEN: u32 = 0o666;

/// A file's bytes; `None` where there is none.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other
            .map(Some)
            .with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A document with a field `format`, of which `newest` is the newest that is known here. Of one that cannot be read, `remedy` says what to
/// do about it.
pub(super) fn parse<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    newest: u32,
    remedy: &str,
) -> anyhow::Result<T> {
    let broken = || format!("{} is damaged: {remedy}", path.display());
    let value: serde_json::Value = serde_json::from_slice(bytes).with_context(broken)?;
    // Before anything else of it is looked at: a newer one may have other fields.
    if let Some(format) = value["format"].as_u64()
        && format > u64::from(newest)
    {
        bail!(
            "{} was written by a newer version of holdfast (format {format}, newer than {newest}, the newest that this one knows); \
             install that version",
            path.display()
        );
    }
    serde_json::from_value(value).with_context(broken)
}

/// Writes a file in the place of one that was there; stable when this returns. Whatever happens meanwhile, the one or the other is there.
pub(super) fn replace(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = Path::new(&fresh);
    let write = || -> std::io::Result<()> {
        // Made anew, so that it never has the mode of a file that lay there.
        match std::fs::remove_file(fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(fresh, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
