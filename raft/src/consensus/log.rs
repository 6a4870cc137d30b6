//! The Raft log and vote, kept in a journal.
//!
//! Entries are in memory too: openraft reads them often, and the log is short, because it is purged behind each snapshot. All writes
//! go through one journal in the order in which openraft makes them, so a vote never overtakes an entry nor the other way round, and
//! the journal reports groups in order.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use holdfast_journal::{Completion, Journal, Position};
use openraft::storage::RaftLogStorage;
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use tokio::sync::{oneshot, watch};

use super::kind::{Entry, IoFlushed, Kind, LogId, Vote};
use super::record::{
    Encoded, Head, RecordError, encode_committed, encode_entry, encode_head, encode_truncate, encode_vote,
};

/// Most bytes of entries that one read gives, at least one entry in any case.
const READ_BYTES: usize = 1 << 20;

/// Above this many waiting bytes a write is held back; a record more is still well below the journal's own limit.
const QUEUE_HIGH: usize = 8 << 20;
const QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// Called with the index of the newest voter set in the log, before its entry is acknowledged to anybody, and again when the log is cut. It
/// must be quick and must not block.
pub type VotersHook = Arc<dyn Fn(u64) + Send + Sync>;

/// Who waits for a record.
#[derive(Default)]
pub(crate) enum Tag {
    /// Nobody.
    #[default]
    None,
    /// openraft, for the entries up to this record, written at that time.
    Entries(Box<IoFlushed>, Instant),
    /// A write that returns only when it is durable.
    Waiter(oneshot::Sender<io::Result<()>>),
}

/// Takes the journal's reports, on its thread: completions go out in the order of the log. `flushed` wakes whoever waits for durability.
/// Its value is how long an entry takes to become durable, as a moving average.
pub(crate) fn complete(completion: Completion<Tag>, flushed: &watch::Sender<Duration>) {
    match completion {
        Completion::Durable { tags, .. } => {
            let took = tags.iter().find_map(|tag| match tag {
                Tag::Entries(_, at) => Some(at.elapsed()),
                _ => None,
            });
            tags.into_iter().for_each(|tag| finish(tag, || Ok(())));
            flushed.send_modify(|average| {
                *average = took.map_or(*average, |took| moving_average(*average, took))
            });
        }
        Completion::Failed { error, tags } => {
            tracing::error!(%error, "the Raft journal has failed; this node takes no part in the cluster until it is started again");
            tags.into_iter()
                .for_each(|tag| finish(tag, || Err(io::Error::other(error.clone()))));
        }
    }
}

/// An average that follows within some ten values; the first one is taken as it is.
pub(crate) fn moving_average(average: Duration, value: Duration) -> Duration {
    if average.is_zero() {
        return value;
    }
    (average * 7 + value) / 8
}

fn finish(tag: Tag, result: impl FnOnce() -> io::Result<()>) {
    match tag {
        Tag::None => {}
        Tag::Entries(flushed, _) => flushed.io_completed(result()),
        // Nobody waits any more when Raft was stopped meanwhile.
        Tag::Waiter(waiter) => drop(waiter.send(result())),
    }
}

/// An entry and where its record is.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) position: Position,
    pub(crate) bytes: usize,
    pub(crate) entry: Entry,
}

/// What the log holds, as memory knows it.
#[derive(Debug)]
pub(crate) struct Contents {
    /// With the vote and the positions that stand now.
    pub(crate) head: Head,
    /// Consecutive, from the one after `head.purged`.
    pub(crate) entries: VecDeque<Kept>,
    /// Bytes of payload of all entries.
    pub(crate) bytes: usize,
    /// `head.committed` was not written since it changed.
    pub(crate) committed_unsaved: bool,
}

impl Contents {
    pub(crate) fn new(head: Head) -> Self {
        Self {
            head,
            entries: VecDeque::new(),
            bytes: 0,
            committed_unsaved: false,
        }
    }

    pub(crate) fn first_index(&self) -> u64 {
        match self.entries.front() {
            Some(kept) => kept.entry.log_id.index,
            None => self.head.purged.as_ref().map_or(0, |id| id.index + 1),
        }
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries
            .back()
            .map(|kept| kept.entry.log_id)
            .or(self.head.purged)
    }

    /// Index of the newest membership in the log; 0 where the snapshot has it, or there is none.
    fn newest_voters(&self) -> u64 {
        let is_membership = |kept: &&Kept| matches!(kept.entry.payload, EntryPayload::Membership(_));
        let newest = self.entries.iter().rev().find(is_membership);
        newest.map_or(0, |kept| kept.entry.log_id.index)
    }

    pub(crate) fn push(&mut self, kept: Kept) {
        self.bytes += kept.bytes;
        self.entries.push_back(kept);
    }

    /// Drops what lies behind `after`; everything for `None`.
    pub(crate) fn truncate_after(&mut self, after: Option<&LogId>) {
        while let Some(last) = self.entries.back()
            && after.is_none_or(|after| last.entry.log_id.index > after.index)
        {
            self.bytes -= last.bytes;
            self.entries.pop_back();
        }
    }

    /// Drops everything up to and with `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        while let Some(first) = self.entries.front()
            && first.entry.log_id.index <= upto.index
        {
            self.bytes -= first.bytes;
            self.entries.pop_front();
        }
        self.head.purged = self.head.purged.max(Some(upto));
    }

    /// The entries of `start..end` that are there, of at most `bytes`, at least one.
    fn read(&self, start: u64, end: u64, bytes: usize) -> Vec<Entry> {
        let first = self.first_index();
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut total = 0_usize;
        self.entries
            .iter()
            .skip(skip)
            .take_while(|kept| kept.entry.log_id.index < end)
            .take_while(|kept| {
                let fits = total == 0 || total.saturating_add(kept.bytes) <= bytes;
                total = total.saturating_add(kept.bytes.max(1));
                fits
            })
            .map(|kept| kept.entry.clone())
            .collect()
    }
}

struct Inner {
    journal: Journal<Tag>,
    /// Changes with every flush; closes with the journal's thread.
    flushed: watch::Receiver<Duration>,
    contents: Mutex<Contents>,
    /// Told of the newest voter set in the log (L8).
    on_voters: OnceLock<VotersHook>,
}

/// The log store. Clones share one log; they read, and only openraft's core writes.
#[derive(Clone)]
pub(crate) struct LogStore {
    inner: Arc<Inner>,
}

fn bad(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl LogStore {
    /// Over a journal whose records were replayed into `contents`.
    pub(crate) fn new(journal: Journal<Tag>, flushed: watch::Receiver<Duration>, contents: Contents) -> Self {
        Self {
            inner: Arc::new(Inner {
                journal,
                flushed,
                contents: Mutex::new(contents),
                on_voters: OnceLock::new(),
            }),
        }
    }

    /// Every change of the contents is a single step, so what a panic left behind is sound.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.inner.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an entry takes to become durable here, lately; zero before the first one.
    pub(crate) fn takes(&self) -> Duration {
        *self.inner.flushed.borrow()
    }

    /// From now on `hook` hears of the newest voter set in the log, the present one first.
    pub(crate) fn watch_voters(&self, hook: VotersHook) {
        // Set once, when Raft starts.
        let _ = self.inner.on_voters.set(hook);
        self.tell_voters();
    }

    fn tell_voters(&self) {
        let newest = self.contents().newest_voters();
        if let Some(hook) = self.inner.on_voters.get() {
            hook(newest);
        }
    }

    /// Every entry behind `index`, known as committed or not.
    pub(crate) fn entries_after(&self, index: u64) -> Vec<Entry> {
        let contents = self.contents();
        let entries = contents.entries.iter().map(|kept| &kept.entry);
        entries
            .filter(|entry| entry.log_id.index > index)
            .cloned()
            .collect()
    }

    /// Bytes of the entries that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.contents().bytes
    }

    /// The newest purged entry.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.contents().head.purged
    }

    /// Waits until entry `index` is durable here. openraft applies what a majority has stored before this node's own flush is done, but
    /// what is kept of it on disk must not be ahead of the log: that would look as if the log had lost its tail. False when the
    /// journal has failed or was closed. Entries that are not in the log (any more) are covered by a snapshot.
    pub(crate) async fn wait_durable(&self, index: u64) -> bool {
        let position = {
            let contents = self.contents();
            let at = index.checked_sub(contents.first_index());
            at.and_then(|at| contents.entries.get(usize::try_from(at).ok()?))
                .map(|kept| kept.position)
        };
        let Some(position) = position else { return true };
        let mut flushed = self.inner.flushed.clone();
        loop {
            flushed.mark_unchanged();
            if self.inner.journal.durable_through() > position {
                return true;
            }
            if flushed.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Ends the journal's thread after all that waits is written.
    pub(crate) fn close(&self) {
        self.inner.journal.close();
    }

    /// Queues a record. Waits only while the journal's queue is full, which its writer empties on its own.
    async fn put(&self, record: &Encoded, tag: Tag) -> io::Result<Position> {
        self.put_as(record, tag, false).await
    }

    async fn put_as(&self, record: &Encoded, tag: Tag, reclaim: bool) -> io::Result<Position> {
        let journal = &self.inner.journal;
        // One task writes, so below this mark the journal never refuses a record for lack of room in its queue.
        while journal.usage().queued_bytes > QUEUE_HIGH {
            tokio::time::sleep(QUEUE_PAUSE).await;
        }
        let (header, payload) = (record.header.clone(), record.payload.clone());
        if reclaim {
            journal.append_reclaim(record.kind, header, payload, tag)
        } else {
            journal.append(record.kind, header, payload, tag)
        }
        .map_err(io::Error::other)
    }

    /// Queues a record and waits until it is durable.
    async fn put_durably(&self, record: &Encoded, reclaim: bool) -> io::Result<Position> {
        let (sender, receiver) = oneshot::channel();
        let position = self.put_as(record, Tag::Waiter(sender), reclaim).await?;
        match receiver.await {
            Ok(result) => result.map(|()| position),
            Err(_) => Err(io::Error::other("the Raft journal was closed")),
        }
    }

    /// Writes the head again, with all that stands.
    pub(crate) async fn write_head(&self) -> io::Result<Position> {
        let head = self.contents().head.clone();
        self.put_durably(&encode_head(&head).map_err(bad)?, true).await
    }

    /// The committed position rides with the next write: a group of its own would double the flushes. A crash may lose it, which
    /// only means that the state machine catches up a little later.
    async fn put_committed(&self) -> io::Result<()> {
        let due = {
            let mut contents = self.contents();
            std::mem::take(&mut contents.committed_unsaved)
                .then_some(contents.head.committed)
                .flatten()
        };
        if let Some(id) = due {
            self.put(&encode_committed(&id), Tag::None).await?;
        }
        Ok(())
    }
}

impl RaftLogReader<Kind> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        Ok(self.contents().read(start, end, usize::MAX))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.contents().head.vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(self.contents().read(start, end, READ_BYTES))
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogStorage<Kind> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Kind>, io::Error> {
        let contents = self.contents();
        Ok(LogState {
            last_purged_log_id: contents.head.purged,
            last_log_id: contents.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.put_committed().await?;
        self.put_durably(&encode_vote(vote), false).await?;
        self.contents().head.vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut contents = self.contents();
        contents.committed_unsaved |= contents.head.committed != committed;
        contents.head.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.contents().head.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.put_committed().await?;
        let mut callback = Some(callback);
        let mut entries = entries.into_iter().peekable();
        while let Some(entry) = entries.next() {
            let record = encode_entry(&entry).map_err(bad)?;
            let tag = match entries.peek() {
                Some(_) => Tag::None,
                None => callback.take().map_or(Tag::None, |callback| {
                    Tag::Entries(Box::new(callback), Instant::now())
                }),
            };
            let bytes = record.payload.len();
            if let (EntryPayload::Membership(_), Some(hook)) = (&entry.payload, self.inner.on_voters.get()) {
                // L8: before it can be acknowledged to anybody.
                hook(entry.log_id.index);
            }
            let position = self.put(&record, tag).await?;
            self.contents().push(Kept {
                position,
                bytes,
                entry,
            });
        }
        // Nothing to write: what was written before is what it asks about, so it must not be reported earlier.
        if let Some(callback) = callback {
            let head = self.write_head().await;
            callback.io_completed(head.map(|_| ()));
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        // Not waited for: whatever is acknowledged later lies behind this record in the same journal.
        self.put(&encode_truncate(last_log_id.as_ref()), Tag::None)
            .await?;
        self.contents().truncate_after(last_log_id.as_ref());
        self.tell_voters();
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let kept = {
            let mut contents = self.contents();
            contents.purge(log_id);
            contents.committed_unsaved = false;
            contents.entries.front().map(|kept| kept.position)
        };
        // Vote, committed and purged positions are copied forward before the segments with the older records go.
        let head = self.write_head().await?;
        self.inner
            .journal
            .release_before(kept.map_or(head, |kept| kept.min(head)));
        Ok(())
    }
}
