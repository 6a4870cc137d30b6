//! Which cluster this node belongs to, and as whom: told once, kept in `identity.json` of the node's directory.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use holdfast_raft::model::ClusterId;
use holdfast_types::NodeId;
use serde::{Deserialize, Serialize};

use super::kept;

/// Version of the file.
const FORMAT: u32 = 1;
const REMEDY: &str = "restore it, or remove this node and add it as a new one";

/// A node's place in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    format: u32,
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// The node's id in it; never given to another.
    pub(crate) node: NodeId,
}

impl Identity {
    /// This node in that cluster.
    pub(crate) const fn new(cluster: ClusterId, node: NodeId) -> Self {
        Self {
            format: FORMAT,
            cluster,
            node,
        }
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("identity.json")
    }

    /// Whether the node was a member by commit before: then its Raft log must be there (L8).
    pub(crate) fn was_member(self, dir: &Path) -> bool {
        dir.join("member").exists()
    }

    /// Notes that it is a member by commit.
    pub(crate) fn note_member(self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join("member");
        if path.exists() {
            return Ok(());
        }
        self.renew_member(dir)
    }

    /// The same with what it says made anew.
    pub(super) fn renew_member(self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join("member");
        let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        file.write_all(format!("node {} of cluster {}\n", self.node, self.cluster).as_bytes())?;
        file.sync_all()?;
        Ok(File::open(dir)?.sync_all()?)
    }

    /// What is kept in `dir`; `None` for a node that belongs to no cluster yet.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = Self::path(dir);
        let Some(bytes) = kept::read(&path)? else {
            return Ok(None);
        };
        let identity: Self = kept::parse(&path, &bytes, FORMAT, REMEDY)?;
        ensure!(
            identity.node.value() > 0,
            "{} is damaged: {REMEDY}",
            path.display()
        );
        Ok(Some(identity))
    }

    /// Whether a node with this directory may take it: it has none yet, or this one.
    pub(crate) fn check(self, dir: &Path) -> anyhow::Result<()> {
        if let Some(kept) = Self::load(dir)? {
            ensure!(
                kept == self,
                "this node is node {} of cluster {} already; it changes clusters only with an empty directory",
                kept.node,
                kept.cluster
            );
        }
        Ok(())
    }

    /// Keeps it, stable when this returns. The same again is fine, another one is refused.
    pub(crate) fn store(self, dir: &Path) -> anyhow::Result<()> {
        self.check(dir)?;
        if Self::load(dir)?.is_some() {
            return Ok(());
        }
        self.replace(dir)
    }

    /// Keeps it in the place of another one: only a takeover changes which cluster a node belongs to (T3).
    pub(super) fn replace(self, dir: &Path) -> anyhow::Result<()> {
        kept::replace(&Self::path(dir), kept::OPEN, &serde_json::to_vec(&self)?)
    }
}

/// The random number that names this node's try to join: drawn once, and stable before it is used.
pub(super) fn join_nonce(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("join");
    match std::fs::read_to_string(&path) {
        Ok(nonce) if nonce.trim().len() == 32 => return Ok(nonce.trim().to_owned()),
        // Broken off while it was written: nobody was asked with it.
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    let nonce = format!("{:032x}", rand::random::<u128>());
    let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(nonce.as_bytes())?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_given_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), None);
        let one = Identity::new(ClusterId(5), NodeId(1));
        one.store(dir.path()).unwrap();
        one.store(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), Some(one));
        let error = Identity::new(ClusterId(6), NodeId(1))
            .store(dir.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("already"), "{error}");
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.json");
        for (bytes, word) in [
            ("{", "damaged"),
            ("{\"format\":2}", "newer"),
            ("{\"format\":1}", "damaged"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = format!("{:#}", Identity::load(dir.path()).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
