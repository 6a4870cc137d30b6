//! The one journal of a data node, shared by all its extents.
//!
//! Appending never fails in the caller's face: what the journal cannot take yet (its queue or its segments are full) waits here
//! in order and goes in as room comes (J3). What has failed is told through the journal's sink (J2).

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use holdfast_injection::Disk;
use holdfast_journal::{
    AppendError, Config, FileDevice, Journal, OpenError, OpenOptions, Position, Recovery, Sink, Verdict,
};
use holdfast_types::{ExtentId, LogPos, Lsn};

use super::codec::DecodeError;
use super::entry::{Checkpoint, Entry};
use super::replay::{ExtentLog, Inconsistent};
use super::{Damage, ExtentFile, StoreError};
use crate::core::api::{Base, EpochHistory, Record, Recovered};

/// Kind of all entries in the journal's own header; entries have their own version.
const KIND: u16 = 1;

/// Where a node keeps what.
#[derive(Debug, Clone)]
pub struct NodeStore {
    root: PathBuf,
}

impl NodeStore {
    /// The store under `root`; its directories are made if they are missing.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn new(root: &Path) -> Result<Self, StoreError> {
        let store = Self {
            root: root.to_owned(),
        };
        for dir in [store.extents(), store.journal()] {
            std::fs::create_dir_all(&dir).map_err(|error| StoreError::io("create", &dir, error))?;
        }
        super::extent_meta::sync_dir(root)?;
        Ok(store)
    }

    /// The directory of extents.
    pub fn extents(&self) -> PathBuf {
        self.root.join("extents")
    }

    /// The directory of the journal.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }
}

/// One extent's place in the journal: what must be kept for it.
#[derive(Debug)]
pub struct Place {
    extent: ExtentId,
    log: Mutex<ExtentLog<()>>,
}

impl Place {
    /// Of an extent that the journal does not know.
    pub fn new(extent: ExtentId) -> Self {
        Self {
            extent,
            log: Mutex::new(ExtentLog::new()),
        }
    }

    fn log(&self) -> MutexGuard<'_, ExtentLog<()>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest place that recovery of this extent needs; `None` while its first entry is on its way.
    pub fn needed_from(&self) -> Option<Position> {
        self.log().needed_from()
    }

    /// Stable in the extent file up to here.
    pub fn applied(&self) -> LogPos {
        self.log().applied()
    }

    /// The position with this lsn, where it is behind the checkpoint.
    pub fn pos_at(&self, lsn: Lsn) -> Option<LogPos> {
        self.log().pos_at(lsn)
    }
}

/// What an entry does to its extent's place.
#[derive(Debug)]
enum Effect {
    Record(LogPos, Lsn),
    Truncate(LogPos),
    Restart(Base, LogPos, EpochHistory),
    ClearBase,
    Checkpoint(Box<Checkpoint>),
}

impl Effect {
    fn of(entry: Entry) -> Self {
        match entry {
            Entry::Record(record) => Self::Record(record.pos, record.commit),
            Entry::Truncate { after } => Self::Truncate(after),
            Entry::Restart { base, from, history } => Self::Restart(base, from, history),
            Entry::ClearBase => Self::ClearBase,
            Entry::Checkpoint(checkpoint) => Self::Checkpoint(Box::new(checkpoint)),
        }
    }

    /// Whether it makes older entries needless.
    fn replaces(&self) -> bool {
        !matches!(self, Self::Record(..) | Self::ClearBase)
    }

    fn apply(self, at: Position, log: &mut ExtentLog<()>) -> Result<(), Inconsistent> {
        match self {
            Self::Record(pos, commit) => return log.record(at, pos, commit, ()),
            Self::Truncate(after) => return log.truncate(after),
            Self::Restart(base, from, history) => log.restart(at, base, from, history),
            Self::ClearBase => log.clear_base(),
            Self::Checkpoint(checkpoint) => log.checkpointed(at, &checkpoint),
        }
        Ok(())
    }
}

struct Waiting<T> {
    place: Arc<Place>,
    effect: Effect,
    header: Bytes,
    payload: Bytes,
    reclaim: bool,
    tag: T,
}

/// The node's journal. `T` is the tag that comes back through the sink once an entry is stable.
pub struct NodeJournal<T> {
    journal: Journal<T>,
    /// Held while anything is appended, so that order is one and the same everywhere.
    queue: Mutex<Queue<T>>,
}

struct Queue<T> {
    /// What the journal could not take yet.
    waiting: VecDeque<Waiting<T>>,
    /// Bytes of that.
    bytes: usize,
    /// The newest entry that makes older ones needless. Nothing may be given back before it is stable.
    replaces: Position,
}

impl<T> Waiting<T> {
    fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }
}

impl<T> Queue<T> {
    /// Drops what waits and is made needless by a new entry of the same extent: it never was in the log. A cut, or a restart, that has
    /// nothing of its extent before it goes ahead of what waits for room, since it is what room comes from: behind records of
    /// other extents whose logs wait to be cut as well it would wait for ever (J3).
    fn supersede(&mut self, mut new: Waiting<T>) -> Waiting<T> {
        let needless = |waiting: &Waiting<T>| match (&new.effect, &waiting.effect) {
            (Effect::Restart(..), _) => true,
            (Effect::Truncate(after), Effect::Record(pos, _)) => pos.lsn > after.lsn,
            _ => false,
        };
        if !matches!(new.effect, Effect::Restart(..) | Effect::Truncate(_)) {
            return new;
        }
        let mine = |waiting: &Waiting<T>| Arc::ptr_eq(&waiting.place, &new.place);
        self.waiting
            .retain(|waiting| !(mine(waiting) && needless(waiting)));
        self.bytes = self.waiting.iter().map(Waiting::len).sum();
        new.reclaim |= !self.waiting.iter().any(mine);
        new
    }
}

impl<T> std::fmt::Debug for NodeJournal<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.journal.fmt(f)
    }
}

/// What a node found at start.
#[derive(Debug)]
pub struct Opened {
    /// What each extent's core starts from, and its place in the journal.
    pub extents: HashMap<ExtentId, (Recovered, Arc<Place>)>,
    /// Extents of which the journal has entries, but that have no files here: removed ones, or lost ones.
    pub without_files: HashSet<ExtentId>,
    /// How the journal was found.
    pub recovery: Recovery,
}

impl<T: Clone + Send + 'static> NodeJournal<T> {
    /// Opens the journal and replays it for the extents that have files here. Damage is noted beside each extent's data, stable,
    /// before anything is appended (J1), and told in one line.
    ///
    /// # Errors
    /// [`StoreError`]: the journal cannot be used at all, or was written by a later release. Nothing was changed then.
    pub fn open(
        store: &NodeStore,
        config: &Config,
        extents: &[(ExtentId, Arc<ExtentFile>)],
        sink: impl Fn() -> Box<dyn Sink<T>>,
    ) -> Result<(Self, Opened), StoreError> {
        let path = store.journal();
        let mut replay = Replay::new(extents);
        let mut options = OpenOptions::default();
        let opened = open_journal(&path, config, options, sink(), &mut replay);
        let (journal, recovery) = match opened {
            Err(OpenError::Damaged { recovery, .. }) => {
                replay.check_newer(&path)?;
                tracing::error!(
                    journal = %path.display(),
                    found = ?recovery.verdict,
                    "the journal is damaged: every extent of this node is resynced from its peer before it counts again"
                );
                mark_all(extents)?;
                options.accept_damage = true;
                replay = Replay::new(extents);
                open_journal(&path, config, options, sink(), &mut replay)
            }
            other => other,
        }
        .map_err(|error| not_opened(&path, error))?;
        replay.check_newer(&path)?;
        if let Verdict::TornTail { position, bytes } = &recovery.verdict {
            tracing::info!(journal = %path.display(), %position, bytes, "the last write was cut short by a power cut or a kill");
        }
        let without_files = std::mem::take(&mut replay.without_files);
        let extents = replay.finish(extents, &path)?;
        let journal = Self {
            journal,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                bytes: 0,
                replaces: Position::ZERO,
            }),
        };
        let opened = Opened {
            extents,
            without_files,
            recovery,
        };
        Ok((journal, opened))
    }

    /// Appends an entry, in the order of the calls. The tag comes back once it is stable, or with the journal's failure.
    pub fn append(&self, place: &Arc<Place>, entry: Entry, reclaim: bool, tag: T) {
        self.append_quietly(place, entry, reclaim, tag);
        self.wake();
    }

    /// Has what was appended quietly written.
    pub fn wake(&self) {
        self.journal.wake();
    }

    /// As [`NodeJournal::append`], but it may be written only once [`NodeJournal::wake`] is called: for several entries at once.
    pub fn append_quietly(&self, place: &Arc<Place>, entry: Entry, reclaim: bool, tag: T) {
        let waiting = Waiting {
            place: Arc::clone(place),
            header: Bytes::from(entry.header(place.extent)),
            payload: entry.payload(),
            effect: Effect::of(entry),
            reclaim,
            tag,
        };
        let mut queue = self.queue();
        let waiting = queue.supersede(waiting);
        // What makes room may not wait behind what needs it (see `must_wait`), only behind its like: a log's places in the journal
        // are in the order of its records.
        let ahead = match waiting.reclaim {
            true => queue.waiting.partition_point(|waiting| waiting.reclaim),
            false => queue.waiting.len(),
        };
        let len = waiting.len();
        if ahead > 0 {
            queue.waiting.insert(ahead, waiting);
            queue.bytes += len;
        } else if let Some(waiting) = self.put(&mut queue.replaces, waiting) {
            queue.waiting.push_front(waiting);
            queue.bytes += len;
        }
    }

    /// Whether an entry of this extent waits that a checkpoint written past it would contradict: a restart or another checkpoint, and, if
    /// copies of the log's tail follow it (`copy`), a cut. A checkpoint alone says nothing of what is behind its position, so a
    /// cut may come later.
    pub fn must_wait(&self, place: &Arc<Place>, copy: bool) -> bool {
        let queue = self.queue();
        let mut mine = queue
            .waiting
            .iter()
            .filter(|waiting| Arc::ptr_eq(&waiting.place, place));
        mine.any(|waiting| match waiting.effect {
            Effect::Restart(..) | Effect::Checkpoint(_) => true,
            Effect::Truncate(_) => copy,
            Effect::Record(..) | Effect::ClearBase => false,
        })
    }

    /// Bytes of what waits for room.
    pub fn waiting_bytes(&self) -> usize {
        self.queue().bytes
    }

    /// Tries what waits again: after completions and releases.
    pub fn pump(&self) {
        let mut queue = self.queue();
        if queue.waiting.is_empty() {
            return;
        }
        while let Some(waiting) = queue.waiting.pop_front() {
            let len = waiting.len();
            if let Some(waiting) = self.put(&mut queue.replaces, waiting) {
                queue.waiting.push_front(waiting);
                break;
            }
            queue.bytes -= len;
        }
        drop(queue);
        self.wake();
    }

    /// Gives it back if the journal has no room now.
    fn put(&self, replaces: &mut Position, waiting: Waiting<T>) -> Option<Waiting<T>> {
        let (header, payload) = (waiting.header.clone(), waiting.payload.clone());
        let tag = waiting.tag.clone();
        let appended = self
            .journal
            .append_quietly(KIND, header, payload, waiting.reclaim, tag);
        match appended {
            Ok(at) => {
                if waiting.reclaim || waiting.effect.replaces() {
                    *replaces = at;
                }
                if let Err(error) = waiting.effect.apply(at, &mut waiting.place.log()) {
                    tracing::error!(extent = %waiting.place.extent, %error, "the journal's index does not fit");
                }
                None
            }
            Err(AppendError::Full | AppendError::NoRoom) => Some(waiting),
            // The sink has told, or is telling, everybody.
            Err(error) => {
                tracing::debug!(%error, "an entry was not taken");
                None
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How full it is, in percent; more than 100 while entries wait for room.
    pub fn fill_percent(&self) -> u64 {
        let usage = self.journal.usage();
        let waiting = if self.queue().waiting.is_empty() { 0 } else { 100 };
        usage.used_bytes * 100 / usage.capacity_bytes.max(1) + waiting
    }

    /// Bytes in use and the most there may be.
    pub fn usage(&self) -> holdfast_journal::Usage {
        self.journal.usage()
    }

    /// Everything below is stable.
    pub fn durable_through(&self) -> Position {
        self.journal.durable_through()
    }

    /// Nothing below is kept.
    pub fn first(&self) -> Position {
        self.journal.first_position()
    }

    /// Gives back what lies below `position`, worked out from [`Place::needed_from`] of all extents, and lets what waits in. Does
    /// nothing while an entry that some place already counts on is not stable.
    pub fn release_before(&self, position: Position) {
        {
            let queue = self.queue();
            let unstable = queue.replaces >= self.journal.durable_through();
            // A tail of which only a part is copied is still needed where it was.
            let copies =
                |waiting: &Waiting<T>| waiting.reclaim && matches!(waiting.effect, Effect::Record(..));
            if unstable || queue.waiting.iter().any(copies) {
                return;
            }
            self.journal.release_before(position);
        }
        self.pump();
    }

    /// Writes what is queued and ends.
    pub fn close(&self) {
        self.journal.close();
    }
}

fn open_journal<T: Send + 'static>(
    path: &Path,
    config: &Config,
    options: OpenOptions,
    mut sink: Box<dyn Sink<T>>,
    replay: &mut Replay,
) -> Result<(Journal<T>, Recovery), OpenError> {
    let device = FileDevice::open(path)
        .map_err(|error| OpenError::Io {
            name: config.name.clone(),
            error,
        })?
        .with_gate(|bytes| holdfast_injection::HERE.reach(Disk::Journal, bytes));
    Journal::open(
        device,
        config.clone(),
        options,
        move |completion| sink.complete(completion),
        |found| replay.take(found.record),
    )
}

fn not_opened(path: &Path, error: OpenError) -> StoreError {
    match error {
        OpenError::NewerVersion { found, known, .. } => StoreError::Newer {
            path: path.to_owned(),
            found,
            known,
        },
        OpenError::Io { error, .. } | OpenError::Busy { error, .. } => StoreError::io("open", path, error),
        other => StoreError::damaged(path, other.to_string()),
    }
}

fn mark_all(extents: &[(ExtentId, Arc<ExtentFile>)]) -> Result<(), StoreError> {
    extents
        .iter()
        .filter(|(_, file)| file.meta().damaged.is_none())
        .try_for_each(|(_, file)| file.mark(Some(Damage::Journal)))
}

/// Entries on their way into extents' logs.
struct Replay {
    logs: HashMap<ExtentId, (ExtentLog<Record>, Option<Inconsistent>)>,
    without_files: HashSet<ExtentId>,
    /// An entry that could not be read: whose it is cannot be told.
    unreadable: Option<DecodeError>,
}

impl Replay {
    fn new(extents: &[(ExtentId, Arc<ExtentFile>)]) -> Self {
        let logs = extents.iter().map(|(id, _)| (*id, (ExtentLog::new(), None)));
        Self {
            logs: logs.collect(),
            without_files: HashSet::new(),
            unreadable: None,
        }
    }

    fn take(&mut self, record: holdfast_journal::Record) {
        match Entry::decode(&record.header, record.payload) {
            Ok((extent, entry)) => {
                let Some((log, trouble)) = self.logs.get_mut(&extent) else {
                    self.without_files.insert(extent);
                    return;
                };
                // A log that starts anew owes nothing to what was before it (R1).
                if matches!(entry, Entry::Restart { .. }) {
                    *trouble = None;
                }
                if let Err(error) = log.replay(record.position, entry) {
                    trouble.get_or_insert(error);
                }
            }
            Err(error @ (DecodeError::Newer(_) | DecodeError::Older(_))) => self.unreadable = Some(error),
            Err(error) => {
                self.unreadable.get_or_insert(error);
            }
        }
    }

    fn check_newer(&self, path: &Path) -> Result<(), StoreError> {
        match self.unreadable {
            Some(DecodeError::Newer(found)) => Err(StoreError::Newer {
                path: path.to_owned(),
                found: u32::from(found),
                known: u32::from(super::ENTRY_VERSION),
            }),
            Some(DecodeError::Older(found)) => Err(StoreError::Older {
                path: path.to_owned(),
                found: u32::from(found),
                known: u32::from(super::ENTRY_VERSION),
            }),
            _ => Ok(()),
        }
    }

    fn finish(
        mut self,
        extents: &[(ExtentId, Arc<ExtentFile>)],
        path: &Path,
    ) -> Result<HashMap<ExtentId, (Recovered, Arc<Place>)>, StoreError> {
        if let Some(error) = self.unreadable {
            tracing::error!(
                journal = %path.display(),
                %error,
                "the journal has an entry that cannot be read: every extent is resynced from its peer before it counts again"
            );
            mark_all(extents)?;
        }
        let mut found = HashMap::with_capacity(extents.len());
        for (id, file) in extents {
            let (log, trouble) = self.logs.remove(id).unwrap_or_else(|| (ExtentLog::new(), None));
            let (mut recovered, log, verdict) = log.finish();
            if let Some(error) = trouble.or(verdict.err()) {
                tracing::error!(
                    extent = %id,
                    %error,
                    "the journal lost records of the extent: it is resynced from its peer before it counts again"
                );
                if file.meta().damaged.is_none() {
                    file.mark(Some(Damage::Journal))?;
                }
            }
            recovered.damaged = file.meta().damaged.is_some();
            let ranges = |record: &Record| {
                let lsn = record.pos.lsn;
                let ranges: Vec<_> = record.body.ranges().iter().map(|range| (lsn, *range)).collect();
                ranges
            };
            file.doubt(recovered.tail.iter().flat_map(ranges));
            let place = Place {
                extent: *id,
                log: Mutex::new(log),
            };
            found.insert(*id, (recovered, Arc::new(place)));
        }
        Ok(found)
    }
}

#[cfg(test)]
#[path = "node_journal_test.rs"]
mod tests;
