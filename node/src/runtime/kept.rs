//! Small files of a node's directory, each written as a whole.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// For its owner alone.
pub(super) const PRIVATE: u32 = 0o600;
/// For whoever the process's mask lets read it.
pub(super) const OPEN: u32 = 0o666;

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
