//! What waits for the writer, and what everybody may know about the log: the state behind one mutex.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::config::Config;
use crate::error::{AppendError, Failure};
use crate::format::{BLOCK, GROUP_HEADER_LEN, RECORD_HEADER_LEN, align};
use crate::{Position, Record};

/// What the writer reports.
#[derive(Debug)]
pub enum Completion<T> {
    /// A group is on stable storage.
    Durable {
        /// The tags of its records, in order.
        tags: Vec<T>,
        /// Everything below is durable.
        through: Position,
    },
    /// The log has failed, for ever (J2). Reported once; nothing follows.
    Failed {
        /// What happened.
        error: Failure,
        /// The tags of all records that were not reported durable, in order. Whether such a record is on disk is not known.
        tags: Vec<T>,
    },
}

/// Takes completions, in order, on the writer's thread. It must not block for long, as nothing is written meanwhile.
pub trait Sink<T>: Send + 'static {
    /// One group is done, or the log has failed.
    fn complete(&mut self, completion: Completion<T>);
}

impl<T, F: FnMut(Completion<T>) + Send + 'static> Sink<T> for F {
    fn complete(&mut self, completion: Completion<T>) {
        self(completion);
    }
}

/// A record that waits for the writer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) address: u64,
    pub(crate) kind: u16,
    pub(crate) header: Bytes,
    pub(crate) payload: Bytes,
}

impl Entry {
    pub(crate) fn disk_len(&self) -> usize {
        RECORD_HEADER_LEN + self.header.len() + self.payload.len()
    }
}

/// Records that will be one write.
#[derive(Debug)]
pub(crate) struct Group {
    /// Where the group starts, on a block border.
    pub(crate) address: u64,
    /// Bytes on disk, the group's header included, padding not.
    pub(crate) len: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Group {
    fn record(&self, position: Position) -> Option<Record> {
        let at = self
            .entries
            .binary_search_by_key(&position.get(), |e| e.address)
            .ok()?;
        let entry = self.entries.get(at)?;
        let (header, payload) = (entry.header.clone(), entry.payload.clone());
        Some(Record {
            position,
            kind: entry.kind,
            header,
            payload,
        })
    }
}

/// A group and the tags of its records.
pub(crate) type Tagged<T> = (Group, Vec<T>);

/// The state behind the mutex.
pub(crate) struct Queue<T> {
    pub(crate) groups: VecDeque<Tagged<T>>,
    /// The group that is being written; still readable.
    pub(crate) writing: Option<Arc<Group>>,
    /// Where the next group starts, if it fits there.
    pub(crate) next: u64,
    pub(crate) queued_bytes: usize,
    /// Everything below is durable.
    pub(crate) durable: u64,
    /// No record below is kept, durably so.
    pub(crate) first: u64,
    /// No record below is wanted: `first` is to become this.
    pub(crate) release: u64,
    pub(crate) failed: Option<Failure>,
    pub(crate) closing: bool,
    /// The writer sleeps: whoever gives it work must wake it.
    parked: bool,
    /// Something other than the queue changed (a spare is ready).
    poked: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(next: u64, durable: u64, first: u64) -> Self {
        Queue {
            groups: VecDeque::new(),
            writing: None,
            next,
            queued_bytes: 0,
            durable,
            first,
            release: first,
            failed: None,
            closing: false,
            parked: false,
            poked: false,
        }
    }

    /// A record that is queued or being written.
    pub(crate) fn find(&self, position: Position) -> Option<Record> {
        self.writing.iter().find_map(|g| g.record(position)).or_else(|| {
            // Groups are in order: the one that could hold it is the last that starts at or below it.
            let at = self.groups.partition_point(|(g, _)| g.address <= position.get());
            self.groups
                .get(at.checked_sub(1)?)
                .and_then(|(g, _)| g.record(position))
        })
    }

    fn has_work(&self) -> bool {
        !self.groups.is_empty() || self.release > self.first || self.closing || self.poked
    }
}

/// A record on its way into the queue.
pub(crate) struct Incoming {
    pub(crate) kind: u16,
    pub(crate) header: Bytes,
    pub(crate) payload: Bytes,
    /// May use the last segment (J3).
    pub(crate) reclaim: bool,
}

/// The queue, its lock and the writer's bed.
pub(crate) struct Shared<T> {
    queue: Mutex<Queue<T>>,
    wake: Condvar,
    pub(crate) config: Config,
}

impl<T> Shared<T> {
    pub(crate) fn new(queue: Queue<T>, config: Config) -> Self {
        Shared {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            config,
        }
    }

    /// Locks the queue. No code panics between related changes, so a poisoned lock (a panicking clone or drop of a tag) holds a sound
    /// state.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the queue, and wakes the writer if it sleeps: a system call only then, and outside the lock, which the writer takes
    /// first.
    fn wake(&self, mut queue: MutexGuard<'_, Queue<T>>) {
        let parked = std::mem::take(&mut queue.parked);
        drop(queue);
        if parked {
            self.wake.notify_one();
        }
    }

    /// Makes the writer look again.
    pub(crate) fn poke(&self) {
        let mut queue = self.lock();
        queue.poked = true;
        self.wake(queue);
    }

    /// Sleeps until there is work, or for `limit`.
    pub(crate) fn park(&self, limit: Option<Duration>) {
        let mut queue = self.lock();
        if queue.poked || (limit.is_none() && queue.has_work()) {
            queue.poked = false;
            return;
        }
        queue.parked = true;
        queue = match limit {
            None => self
                .wake
                .wait_while(queue, |q| q.parked)
                .unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                self.wake
                    .wait_timeout(queue, limit)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        queue.parked = false;
        queue.poked = false;
    }

    /// The largest header and payload that fit a segment: its header and its reserved block stay free.
    pub(crate) fn max_record(&self) -> usize {
        let room = self.config.segment_size - 2 * BLOCK;
        usize::try_from(room).unwrap_or(usize::MAX) - GROUP_HEADER_LEN - RECORD_HEADER_LEN
    }

    /// Takes a record and gives it its position, without waking the writer.
    pub(crate) fn append(&self, record: Incoming, tag: T) -> Result<Position, AppendError> {
        let bytes = record.header.len().saturating_add(record.payload.len());
        let max = self.max_record();
        if bytes > max {
            return Err(AppendError::TooLarge { bytes, max });
        }
        let mut queue = self.lock();
        if let Some(failure) = &queue.failed {
            return Err(AppendError::Failed(failure.clone()));
        }
        if queue.closing {
            return Err(AppendError::Closed);
        }
        let len = bytes + RECORD_HEADER_LEN;
        if queue.queued_bytes > 0 && queue.queued_bytes + len > self.config.max_queued_bytes {
            return Err(AppendError::Full);
        }
        let address = self.place(&mut queue, record, len as u64, tag)?;
        queue.queued_bytes += len;
        Ok(Position::new(address))
    }

    /// Wakes the writer if it sleeps although there is work.
    pub(crate) fn wake_for_work(&self) {
        let queue = self.lock();
        if queue.has_work() {
            self.wake(queue);
        }
    }

    /// Puts a record into the last group that waits, or behind it into a new one.
    fn place(&self, queue: &mut Queue<T>, record: Incoming, len: u64, tag: T) -> Result<u64, AppendError> {
        let size = self.config.segment_size;
        let fits = |start: u64, len: u64| start % size + align(len) <= size - BLOCK;
        let Incoming {
            kind,
            header,
            payload,
            reclaim,
        } = record;
        if let Some((group, tags)) = queue.groups.back_mut() {
            let joined = group.len + len;
            if group.entries.len() < self.config.max_group_records
                && joined <= self.config.max_group_bytes as u64
                && fits(group.address, joined)
            {
                let address = group.address + group.len;
                group.entries.push(Entry {
                    address,
                    kind,
                    header,
                    payload,
                });
                group.len = joined;
                tags.push(tag);
                queue.next = group.address + align(joined);
                return Ok(address);
            }
        }
        let group_len = GROUP_HEADER_LEN as u64 + len;
        let mut start = queue.next;
        // A start on a segment border lies behind the last block of the segment before it.
        if start.is_multiple_of(size) {
            start += BLOCK;
        } else if !fits(start, group_len) {
            start = (start / size + 1) * size + BLOCK;
        }
        let used = start / size - queue.first / size + 1;
        if used > u64::from(self.config.max_segments) - u64::from(!reclaim) {
            return Err(AppendError::NoRoom);
        }
        let address = start + GROUP_HEADER_LEN as u64;
        let entries = vec![Entry {
            address,
            kind,
            header,
            payload,
        }];
        queue.groups.push_back((
            Group {
                address: start,
                len: group_len,
                entries,
            },
            vec![tag],
        ));
        queue.next = start + align(group_len);
        Ok(address)
    }

    /// Notes that nothing below `position` is wanted any more.
    pub(crate) fn release_before(&self, position: Position) {
        let size = self.config.segment_size;
        let mut queue = self.lock();
        // The segment that holds the log's end stays. Its end may be the very border to the next one.
        let last = queue.durable.saturating_sub(1) / size;
        let wanted = (position.get() / size).min(last) * size;
        if wanted > queue.release {
            queue.release = wanted;
            self.wake(queue);
        }
    }

    /// Asks the writer to finish.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closing = true;
        self.wake(queue);
    }
}
