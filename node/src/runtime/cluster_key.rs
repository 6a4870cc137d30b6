//! The key that the cluster's secrets are sealed with, in a file of its own beside the node's state: `cluster.key`, for its owner alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use holdfast_raft::model::ClusterKey;

use super::kept;

fn path(dir: &Path) -> PathBuf {
    dir.join("cluster.key")
}

/// The key that is kept in `dir`; `None` where there is none.
pub(super) fn load(dir: &Path) -> anyhow::Result<Option<ClusterKey>> {
    let path = path(dir);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => zeroize::Zeroizing::new(other.with_context(|| format!("cannot read {}", path.display()))?),
    };
    ClusterKey::from_text(text.trim()).map(Some).ok_or_else(|| {
        anyhow!(
            "{} holds no key: copy that of another node, and start this one anew",
            path.display()
        )
    })
}

/// The key, which a member must have.
pub(super) fn must_load(dir: &Path) -> anyhow::Result<ClusterKey> {
    load(dir)?.ok_or_else(|| {
        anyhow!(
            "{} is missing, so this node cannot prove to the others who it is: copy that of another node, and start this one anew",
            path(dir).display()
        )
    })
}

/// Keeps a key, stable when this returns, in place of one that was there.
pub(super) fn store(dir: &Path, key: &ClusterKey) -> anyhow::Result<()> {
    let line = zeroize::Zeroizing::new(format!("{}\n", key.to_text().as_str()));
    kept::replace(&path(dir), kept::PRIVATE, line.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_kept_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        for byte in [1, 2] {
            let key = ClusterKey::from_random([byte; 32]);
            store(dir.path(), &key).unwrap();
            assert_eq!(load(dir.path()).unwrap().unwrap().id(), key.id());
            let mode = std::fs::metadata(path(dir.path())).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_no_key_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), "secret stuff").unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("cluster.key") && !error.contains("stuff"),
            "{error}"
        );
    }
}
