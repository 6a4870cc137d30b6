//! When an extent was scrubbed last: `extents/<uuid>.scrub`, one line of text, `holdfast-scrub 1 <seconds since 1970>`. Whatever cannot be
//! read counts as not known.

use std::path::{Path, PathBuf};

use holdfast_types::ExtentId;

use super::StoreError;
use super::extent_meta::replace_file;

const MAGIC: &str = "holdfast-scrub 1 ";

pub(super) fn scrub_path(dir: &Path, id: ExtentId) -> PathBuf {
    dir.join(format!("{id}.scrub"))
}

/// Seconds since 1970, if known.
pub(crate) fn load_scrubbed(dir: &Path, id: ExtentId) -> Option<u64> {
    let text = std::fs::read_to_string(scrub_path(dir, id)).ok()?;
    text.strip_prefix(MAGIC)?.trim_end().parse().ok()
}

/// Notes it, stable on return.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn store_scrubbed(dir: &Path, id: ExtentId, seconds: u64) -> Result<(), StoreError> {
    replace_file(
        dir,
        &scrub_path(dir, id),
        format!("{MAGIC}{seconds}\n").as_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_known_and_nonsense_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let id = ExtentId::from_u128(3);
        assert_eq!(load_scrubbed(dir.path(), id), None);
        store_scrubbed(dir.path(), id, 77).unwrap();
        assert_eq!(load_scrubbed(dir.path(), id), Some(77));
        std::fs::write(scrub_path(dir.path(), id), b"holdfast-scrub 1 soon\xff").unwrap();
        assert_eq!(load_scrubbed(dir.path(), id), None);
    }
}
