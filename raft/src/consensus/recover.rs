//! Starting from what is on disk: the journal has the last word, snapshots cover what was purged from it, and the applied state is a
//! convenience. Whatever can be rebuilt from the others is; what cannot keeps the node out, with one line that says why (L8).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_injection::Disk;
use holdfast_journal::{Config as JournalConfig, FileDevice, Journal, OpenError, OpenOptions, Position};

use tokio::sync::watch;

use holdfast_types::NodeId;

use super::applied::Applied;
use super::error::StartError;
use super::keeper::Keeper;
use super::kind::LogId;
use super::log::{Contents, Kept, LogStore, Tag, complete};
use super::machine::take_snapshot;
use super::record::{Head, LOG_FORMAT, LogRecord, RecordError, decode};
use super::snapshot::{Parsed, SnapshotError, Snapshots, make_dir};
use crate::model::ClusterId;

/// Where the parts are, and whose they must be.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    /// The node was a voter before, so there must be a log (L8).
    pub(crate) expect_log: bool,
}

impl Place {
    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    fn applied(&self) -> PathBuf {
        self.dir.join("applied")
    }
}

/// What a node starts from.
pub(crate) struct Recovered {
    pub(crate) log: LogStore,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) keeper: Keeper,
    pub(crate) applied: Applied,
}

/// Replays the journal's records, in order.
#[derive(Default)]
struct Replay {
    contents: Option<Contents>,
    /// The first thing that is wrong.
    error: Option<RecordProblem>,
}

enum RecordProblem {
    Newer(String),
    Bad(String),
}

impl Replay {
    fn take(&mut self, position: Position, kind: u16, header: &[u8], payload: &[u8]) {
        if self.error.is_some() {
            return;
        }
        let result = match decode(kind, header, payload) {
            Ok(record) => self.apply(position, payload.len(), record),
            Err(error @ RecordError::Format(_)) => Err(RecordProblem::Newer(error.to_string())),
            Err(error) => Err(RecordProblem::Bad(format!("{error}, at {position}"))),
        };
        self.error = result.err();
    }

    fn apply(&mut self, position: Position, bytes: usize, record: LogRecord) -> Result<(), RecordProblem> {
        if self.contents.is_none() {
            match &record {
                LogRecord::Head(head) => {
                    self.contents = Some(Contents::new(head.clone()));
                    return Ok(());
                }
                // The front of a log is released behind a newer head, which has what stands: these are stale.
                LogRecord::Vote(_) | LogRecord::Committed(_) => return Ok(()),
                LogRecord::Entry(_) | LogRecord::TruncateAfter(_) => {}
            }
        }
        let contents = self.contents.get_or_insert_with(|| Contents::new(unknown_head()));
        step(contents, position, bytes, record)
    }
}

/// Stands in until the first head is read; node 0 is nobody.
fn unknown_head() -> Head {
    Head {
        format: LOG_FORMAT,
        cluster: ClusterId(0),
        node: NodeId(0),
        vote: None,
        committed: None,
        purged: None,
    }
}

fn step(
    contents: &mut Contents,
    position: Position,
    bytes: usize,
    record: LogRecord,
) -> Result<(), RecordProblem> {
    match record {
        LogRecord::Head(head) => {
            if let Some(purged) = head.purged {
                contents.purge(purged);
            }
            contents.head = head;
        }
        LogRecord::Vote(vote) => contents.head.vote = Some(vote),
        LogRecord::Committed(id) => contents.head.committed = Some(id),
        LogRecord::TruncateAfter(after) => contents.truncate_after(after.as_ref()),
        LogRecord::Entry(entry) => {
            let index = entry.log_id.index;
            if let Some(last) = contents.entries.back()
                && index != last.entry.log_id.index + 1
            {
                let last = last.entry.log_id.index;
                return Err(RecordProblem::Bad(format!("entry {index} follows entry {last}")));
            }
            contents.push(Kept {
                position,
                bytes,
                entry,
            });
        }
    }
    Ok(())
}

/// A journal, and what tells of its flushes.
pub(super) struct Opened {
    pub(super) journal: Journal<Tag>,
    flushed: watch::Receiver<Duration>,
}

impl Opened {
    fn store(self, contents: Contents) -> LogStore {
        LogStore::new(self.journal, self.flushed, contents)
    }
}

/// A new journal in `dir`.
///
/// # Errors
/// [`StartError`]; also where there is one already.
pub(super) fn new_journal(dir: &Path) -> Result<Opened, StartError> {
    let (opened, replay) = open_journal(dir)?;
    if replay.contents.is_some() || replay.error.is_some() {
        let taken = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(StartError::io(format!("cannot make {}", dir.display()), taken));
    }
    Ok(opened)
}

fn open_journal(dir: &Path) -> Result<(Opened, Replay), StartError> {
    make_dir(dir).map_err(|error| StartError::io(format!("cannot make {}", dir.display()), error))?;
    let io = |error| {
        StartError::io(
            format!("the Raft log in {} cannot be opened", dir.display()),
            error,
        )
    };
    let device = FileDevice::open(dir)
        .map_err(io)?
        .with_gate(|bytes| holdfast_injection::HERE.reach(Disk::Raft, bytes));
    let mut replay = Replay::default();
    let (flush, flushed) = watch::channel(Duration::ZERO);
    let opened = Journal::open(
        device,
        JournalConfig::raft("raft"),
        OpenOptions::default(),
        move |completion| complete(completion, &flush),
        |found| {
            let record = found.record;
            replay.take(record.position, record.kind, &record.header, &record.payload);
        },
    );
    let dir = dir.to_owned();
    match opened {
        Ok((journal, _)) => Ok((Opened { journal, flushed }, replay)),
        Err(error @ OpenError::Damaged { .. }) => Err(StartError::LogDamaged {
            dir,
            why: error.to_string(),
        }),
        Err(error @ OpenError::NewerVersion { .. }) => Err(StartError::Newer {
            path: dir,
            what: error.to_string(),
        }),
        Err(error @ (OpenError::Config { .. } | OpenError::Busy { .. } | OpenError::Io { .. })) => {
            Err(io(std::io::Error::other(error)))
        }
    }
}

/// What the journal holds, checked; `None` for an empty one.
fn read_log(place: &Place) -> Result<(Opened, Option<Contents>), StartError> {
    let dir = place.log();
    let (journal, replay) = open_journal(&dir)?;
    match replay.error {
        Some(RecordProblem::Newer(what)) => return Err(StartError::Newer { path: dir, what }),
        Some(RecordProblem::Bad(why)) => return Err(StartError::LogDamaged { dir, why }),
        None => {}
    }
    let Some(contents) = replay.contents else {
        return Ok((journal, None));
    };
    let damaged = |why: &str| StartError::LogDamaged {
        dir: dir.clone(),
        why: why.into(),
    };
    let head = &contents.head;
    if head.node == NodeId(0) {
        return Err(damaged("it has no head record"));
    }
    if (head.node, head.cluster) != (place.node, place.cluster) {
        return Err(StartError::OtherOwner {
            found_node: head.node,
            found_cluster: head.cluster,
            node: place.node,
            cluster: place.cluster,
            dir,
        });
    }
    let wanted = head.purged.as_ref().map_or(0, |id| id.index + 1);
    if contents.first_index() != wanted {
        return Err(damaged(&format!(
            "it begins with entry {} instead of {wanted}",
            contents.first_index()
        )));
    }
    Ok((journal, Some(contents)))
}

/// The log alone, for tests of it.
#[cfg(test)]
pub(crate) fn open_log(place: &Place) -> Result<LogStore, StartError> {
    let (journal, contents) = read_log(place)?;
    let contents = contents.expect("the log was written before");
    Ok(journal.store(contents))
}

/// Opens all parts and makes them agree. Blocks on the disk.
pub(crate) fn recover(place: &Place) -> Result<Recovered, StartError> {
    let dir = place.snapshots();
    let (journal, contents) = read_log(place)?;
    let opened = Snapshots::open(&dir).map_err(|error| match error {
        SnapshotError::Io(error) => StartError::io(format!("cannot read {}", dir.display()), error),
        other => StartError::Newer {
            path: dir.clone(),
            what: other.to_string(),
        },
    })?;
    let (snapshots, whole, broken) = opened;
    for line in &broken {
        tracing::warn!("a snapshot is broken and was moved aside: {line}");
    }
    let (keeper, stored) = Keeper::start_sled(&place.applied());
    let Some(contents) = contents else {
        return fresh(place, journal, snapshots, (whole, broken), (keeper, stored));
    };
    let (keeper, stored) = usable(place, &contents, &whole, (keeper, stored))?;
    let applied = choose(place, &contents, whole, stored, &broken)?;
    cover_purged(place, &contents, &snapshots, &applied)?;
    Ok(Recovered {
        log: journal.store(contents),
        snapshots: Arc::new(snapshots),
        keeper,
        applied,
    })
}

type Stored = (Keeper, Option<Applied>);

/// An empty log is a new node's only if nothing else says that there was one.
fn fresh(
    place: &Place,
    journal: Opened,
    snapshots: Snapshots,
    (whole, broken): (Vec<Parsed>, Vec<String>),
    (keeper, stored): Stored,
) -> Result<Recovered, StartError> {
    let proof = if stored.as_ref().is_some_and(|stored| stored.last.is_some()) {
        "there is an applied state"
    } else if !whole.is_empty() || !broken.is_empty() {
        "there is a snapshot"
    } else if place.expect_log {
        "this node was a voter before"
    } else {
        let head = Head {
            cluster: place.cluster,
            node: place.node,
            ..unknown_head()
        };
        return Ok(Recovered {
            log: journal.store(Contents::new(head)),
            snapshots: Arc::new(snapshots),
            keeper,
            applied: Applied::default(),
        });
    };
    Err(StartError::LogGone {
        dir: place.log(),
        proof: proof.into(),
    })
}

/// Throws an applied state away that is not of this log, and refuses a log that ends before what was applied from it.
fn usable(
    place: &Place,
    contents: &Contents,
    whole: &[Parsed],
    (mut keeper, stored): Stored,
) -> Result<Stored, StartError> {
    let Some(Applied {
        last: Some(last),
        state,
        ..
    }) = &stored
    else {
        return Ok((keeper, stored));
    };
    let (last, end) = (*last, contents.last());
    let ours = state
        .cluster
        .as_ref()
        .is_none_or(|cluster| cluster.id == place.cluster);
    if ours && Some(last) > end {
        // Between the installation of a snapshot and its purge the log is behind; otherwise its tail is missing.
        return if whole.iter().any(|parsed| parsed.meta.last_log_id >= Some(last)) {
            Ok((keeper, stored))
        } else {
            Err(StartError::LogDamaged {
                dir: place.log(),
                why: format!("it ends before entry {}, which was applied", last.index),
            })
        };
    }
    let first = contents.first_index();
    let at = usize::try_from(last.index.saturating_sub(first)).ok();
    let entry = at.and_then(|at| contents.entries.get(at));
    let same = last.index < first || entry.is_some_and(|kept| kept.entry.log_id == last);
    if ours && same {
        return Ok((keeper, stored));
    }
    tracing::warn!(
        "the applied state is not of this log; it is rebuilt from the newest snapshot and the log"
    );
    keeper.close();
    let dir = place.applied();
    std::fs::remove_dir_all(&dir)
        .map_err(|error| StartError::io(format!("cannot remove {}", dir.display()), error))?;
    Ok(Keeper::start_sled(&dir))
}

/// The newest of applied state and snapshots that the log goes on from.
fn choose(
    place: &Place,
    contents: &Contents,
    whole: Vec<Parsed>,
    stored: Option<Applied>,
    broken: &[String],
) -> Result<Applied, StartError> {
    let newest = whole.into_iter().next().map(|parsed| Applied {
        last: parsed.meta.last_log_id,
        membership: parsed.meta.last_membership,
        state: parsed.state,
    });
    let best = match (stored, newest) {
        (Some(stored), Some(snapshot)) if stored.last < snapshot.last => snapshot,
        (Some(applied), _) | (None, Some(applied)) => applied,
        (None, None) => Applied::default(),
    };
    let index = |id: Option<LogId>| id.map(|id| id.index);
    if index(best.last) < index(contents.head.purged) {
        let purged = contents.head.purged.map_or(0, |id| id.index);
        let broken = broken.first().map_or("none is there", String::as_str);
        return Err(StartError::StateLost {
            dir: place.dir.clone(),
            why: format!("the log begins behind entry {purged}, and no whole snapshot reaches it: {broken}"),
        });
    }
    Ok(best)
}

/// A snapshot must cover what was purged, so that peers that lag can have it: a broken one is replaced from the applied state.
fn cover_purged(
    place: &Place,
    contents: &Contents,
    snapshots: &Snapshots,
    applied: &Applied,
) -> Result<(), StartError> {
    let covered = snapshots
        .current()
        .and_then(|(_, parsed)| parsed.meta.last_log_id);
    if covered < contents.head.purged {
        take_snapshot(snapshots, applied).map_err(|error| StartError::StateLost {
            dir: place.dir.clone(),
            why: format!("a new snapshot cannot be written: {error}"),
        })?;
    }
    Ok(())
}
