//! A takeover without a quorum on this node's disk (T3): ordered while the node runs, carried out by its next start.
//!
//! The order is the one step that decides. From the moment that it stands in the directory, whatever start comes next carries the takeover
//! out, however often it is killed meanwhile; before that moment nothing has changed. Each step can be told from what is on disk, and
//! leaves the one before it whole.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use holdfast_raft::consensus::begin_incarnation;
use holdfast_raft::model::TakeoverOrder;
use serde::{Deserialize, Serialize};

use super::Identity;

/// Version of the file.
const FORMAT: u32 = 1;

/// The file that holds an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ordered {
    format: u32,
    order: TakeoverOrder,
}

/// Where the parts are.
#[derive(Debug)]
struct Places {
    dir: PathBuf,
    /// The order.
    order: PathBuf,
    /// The control plane's directory.
    raft: PathBuf,
    /// That of the new incarnation, while it is written.
    next: PathBuf,
    /// That of the incarnation before, kept.
    before: PathBuf,
}

impl Places {
    fn new(dir: &Path, order: &TakeoverOrder) -> Self {
        let id = order.cluster.to_string();
        Self {
            dir: dir.to_owned(),
            order: order_file(dir),
            raft: dir.join("raft"),
            next: dir.join("raft.next"),
            before: dir.join(format!("raft.before-takeover-{}", &id[..8])),
        }
    }

    fn sync(&self) -> anyhow::Result<()> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.with_context(|| format!("cannot write {}", self.dir.display()))
    }

    fn rename(&self, from: &Path, to: &Path) -> anyhow::Result<()> {
        std::fs::rename(from, to)
            .with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))?;
        self.sync()
    }
}

/// What is to be done next, as the directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Write the new log beside the old one, and put the old one aside.
    Begin,
    /// Put the new log in its place.
    PutInPlace,
    /// Have the node belong to the new incarnation.
    Identify,
    /// It does: forget the order.
    Forget,
}

fn order_file(dir: &Path) -> PathBuf {
    dir.join("takeover.json")
}

/// Orders the takeover: stable when this returns, and carried out by the next start.
pub(super) fn order(dir: &Path, order: &TakeoverOrder) -> anyhow::Result<()> {
    ensure!(
        read(dir)?.is_none(),
        "a takeover is ordered already: it is carried out as soon as this node starts anew"
    );
    let ordered = Ordered {
        format: FORMAT,
        order: order.clone(),
    };
    replace(&order_file(dir), &serde_json::to_vec(&ordered)?)
}

/// Writes a file as a whole; stable when this returns.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let written = File::create(&fresh).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written
        .and_then(|()| std::fs::rename(&fresh, path))
        .and_then(|()| File::open(path.parent().unwrap_or(path))?.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn read(dir: &Path) -> anyhow::Result<Option<TakeoverOrder>> {
    let path = order_file(dir);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    // Written as a whole, so what cannot be read is no order that was broken off.
    let ordered: Ordered = serde_json::from_slice(&bytes).with_context(|| {
        format!(
            "{} is damaged: remove it, and ask for the takeover again",
            path.display()
        )
    })?;
    if ordered.format > FORMAT {
        bail!("{} was written by a newer release", path.display());
    }
    Ok(Some(ordered.order))
}

fn next_step(places: &Places, order: &TakeoverOrder) -> anyhow::Result<Step> {
    let identity =
        Identity::load(&places.dir)?.context("a takeover is ordered, and identity.json is gone")?;
    ensure!(
        identity.node == order.node && [order.before, order.cluster].contains(&identity.cluster),
        "{} is not for this node (node {} of cluster {}): remove it",
        places.order.display(),
        identity.node,
        identity.cluster
    );
    Ok(if identity.cluster == order.cluster {
        Step::Forget
    } else if !places.before.exists() {
        Step::Begin
    } else if !places.raft.exists() {
        Step::PutInPlace
    } else {
        Step::Identify
    })
}

fn take(step: Step, places: &Places, order: &TakeoverOrder) -> anyhow::Result<()> {
    match step {
        Step::Begin => {
            // Left by a start that was killed while it wrote; whole or not is not known.
            match std::fs::remove_dir_all(&places.next) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", places.next.display()));
                }
                _ => {}
            }
            let state = begin_incarnation(&places.raft, &places.next, order)?;
            if let Some(takeover) = state.takeovers.last() {
                let gone: Vec<&str> = takeover.gone.iter().map(|gone| gone.name.as_str()).collect();
                tracing::warn!(
                    "takeover: {} goes on alone from revision {}, as cluster {}; {} are refused for ever",
                    takeover.name,
                    takeover.revision,
                    order.cluster,
                    gone.join(", ")
                );
            }
            places.sync()?;
            places.rename(&places.raft, &places.before)
        }
        Step::PutInPlace => {
            places.rename(&places.next, &places.raft)?;
            tracing::warn!(
                "takeover: the log of the incarnation before is kept in {}; it may be removed",
                places.before.display()
            );
            Ok(())
        }
        Step::Identify => {
            let identity = Identity::new(order.cluster, order.node);
            identity.renew_member(&places.dir)?;
            identity.replace(&places.dir)
        }
        Step::Forget => {
            std::fs::remove_file(&places.order)
                .with_context(|| format!("cannot remove {}", places.order.display()))?;
            places.sync()
        }
    }
}

/// Carries out what was ordered, if anything was, before anything of the node starts. Blocks on the disk.
///
/// Fails where the old log cannot be read: then nothing has changed, and removing the order brings the node back as it was.
pub(super) fn finish(dir: &Path) -> anyhow::Result<()> {
    let Some(order) = read(dir)? else { return Ok(()) };
    let places = Places::new(dir, &order);
    loop {
        let step = next_step(&places, &order)?;
        take(step, &places, &order).context("the takeover that was ordered is not done yet")?;
        if step == Step::Forget {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[path = "takeover_test.rs"]
mod tests;
