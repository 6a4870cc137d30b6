//! A takeover without a quorum on this node's disk (T3): ordered while the node runs, carried out by its next start.
//!
//! The order is the one step that decides. From the moment that it stands in the directory, whatever start comes next carries the takeover
//! out, however often it is killed meanwhile; before that moment nothing has changed. Each step can be told from what is on disk, and
//! leaves the one before it whole.
//!
//! An order that no start has begun to carry out is good for a while only, and only while nobody else is there: a machine that loses power
//! right after it, and is repaired days later, must not take over from those that have served since.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use holdfast_raft::consensus::begin_incarnation;
use holdfast_raft::model::{ClusterState, TakeoverOrder};
use holdfast_types::{NodeId, utc};
use serde::{Deserialize, Serialize};

use super::{Identity, kept};

/// Version of the file.
const FORMAT: u32 = 1;
/// For how long an order is good, by this machine's clock.
const GOOD_FOR: Duration = Duration::from_secs(600);
/// How long a connection to another node may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// The file that holds an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ordered {
    format: u32,
    order: TakeoverOrder,
    /// The Raft addresses of the nodes that are to be left behind, by their names.
    others: BTreeMap<String, SocketAddr>,
}

impl Ordered {
    /// Why it is not carried out any more, if so.
    fn is_void(&self, now: SystemTime) -> Option<String> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(self.order.at);
        // A clock that was set back says no more than one that ran on.
        let apart = now.duration_since(at).unwrap_or_else(|early| early.duration());
        if apart > GOOD_FOR {
            return Some(format!(
                "it was asked for at {}, too long ago",
                utc(self.order.at)
            ));
        }
        let (name, address) = std::thread::scope(|scope| {
            let tries: Vec<_> = self
                .others
                .iter()
                .map(|other| {
                    let connects = || TcpStream::connect_timeout(other.1, CONNECT_WITHIN).is_ok();
                    (other, scope.spawn(connects))
                })
                .collect();
            let mut there = tries
                .into_iter()
                .filter_map(|(other, connects)| connects.join().unwrap_or(false).then_some(other));
            there.next()
        })?;
        Some(format!("{name} is there: {address} takes connections"))
    }
}

/// A node's other members, whose absence a takeover relies on.
pub(super) fn others(state: &ClusterState, me: NodeId) -> BTreeMap<String, SocketAddr> {
    let others = state.nodes.iter().filter(|(id, _)| **id != me);
    others
        .map(|(_, member)| (member.name.clone(), member.addresses.raft))
        .collect()
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
///
/// # Errors
/// Nothing is ordered.
pub(super) fn order(
    dir: &Path,
    order: &TakeoverOrder,
    others: BTreeMap<String, SocketAddr>,
) -> anyhow::Result<()> {
    ensure!(
        read(dir)?.is_none(),
        "a takeover is ordered already: it is carried out as soon as this node starts anew"
    );
    let ordered = Ordered {
        format: FORMAT,
        order: order.clone(),
        others,
    };
    let path = order_file(dir);
    let text = serde_json::to_string(&ordered)?;
    kept::replace(&path, kept::OPEN, summed(&text).as_bytes()).inspect_err(|_| {
        // It may stand there all the same, and whoever asked is told that nothing was ordered.
        if let Err(error) = remove(&path)
            && path.exists()
        {
            tracing::error!("remove it before this node is started anew: {error:#}");
        }
    })
}

fn remove(path: &Path) -> anyhow::Result<()> {
    std::fs::remove_file(path)
        .and_then(|()| File::open(path.parent().unwrap_or(path))?.sync_all())
        .with_context(|| format!("cannot remove {}", path.display()))
}

/// The file's text: the order, and a line with its CRC32C.
fn summed(text: &str) -> String {
    format!("{text}\n{:08x}\n", crc32c::crc32c(text.as_bytes()))
}

fn read(dir: &Path) -> anyhow::Result<Option<Ordered>> {
    let path = order_file(dir);
    let Some(bytes) = kept::read(&path)? else {
        return Ok(None);
    };
    // Written as a whole, so what cannot be read is no order that was broken off.
    let remedy = "remove it, and ask for the takeover again";
    let is_sound = |text: &&str| summed(text).as_bytes() == bytes;
    let text = std::str::from_utf8(&bytes).ok();
    let sound = text.and_then(|text| text.lines().next()).filter(is_sound);
    let sound = sound.with_context(|| format!("{} is damaged: {remedy}", path.display()))?;
    kept::parse(&path, sound.as_bytes(), FORMAT, remedy).map(Some)
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
        Step::Forget => remove(&places.order),
    }
}

/// Carries out what was ordered, if anything was, before anything of the node starts. Blocks on the disk. An order that is void is
/// withdrawn: then nothing has changed, and the node starts as it was.
///
/// # Errors
/// One line. Where the old log cannot be read nothing has changed, and removing the order brings the node back as it was.
pub(super) fn finish(dir: &Path, now: SystemTime) -> anyhow::Result<()> {
    let Some(ordered) = read(dir)? else { return Ok(()) };
    let order = &ordered.order;
    let places = Places::new(dir, order);
    let first = next_step(&places, order)?;
    if first == Step::Begin
        && let Some(why) = ordered.is_void(now)
    {
        tracing::error!("the takeover that was ordered is not carried out, and nothing was changed: {why}");
        return remove(&places.order);
    }
    loop {
        let step = next_step(&places, order)?;
        take(step, &places, order).with_context(|| match step {
            Step::Begin => format!(
                "the takeover that was ordered is not done, and nothing was changed; without {} this node starts as it was",
                places.order.display()
            ),
            _ => "the takeover that was ordered is not done yet: start this node again".to_owned(),
        })?;
        if step == Step::Forget {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[path = "takeover_test.rs"]
mod tests;
