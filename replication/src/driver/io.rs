//! Threads that touch extent files.
//!
//! [`run`] is the one place where that happens: where a fault is to be injected, it belongs there.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_types::{BlockRange, Lba, Lsn};

use super::checkpoint::Chore;
use super::extent::Extent;
use super::inbox::Inbox;
use super::shared::{Shared, guard};
use crate::core::api::{Event, FenceReason, IoToken, Record, RecordBody};
use crate::store::{ExtentFile, StoreError};

/// One access to an extent file, for its core.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) extent: Arc<Extent>,
    pub(super) io: IoToken,
    pub(super) what: What,
}

/// What to do.
#[derive(Debug)]
pub(super) enum What {
    Apply(Record),
    Read(BlockRange),
    /// Piece by piece, of so many bytes.
    Hash {
        range: BlockRange,
        piece: u64,
        /// It counts as changed (R2).
        renew: bool,
    },
    /// What may have changed behind a position.
    Changed(Lsn),
    /// Whether all of it has its space.
    Allocated(BlockRange),
    /// Which blocks from the first on have space, as so many runs at most.
    Map(Lba, u16),
    /// Everything applied before is to be stable in the extent; then journal entries that wait for it may go (R1).
    Barrier,
}

/// There is no space for a job now: nothing is lost, it is tried again.
#[derive(Debug)]
pub(super) struct NoSpace;

/// Carries it out and says so in the core's terms; `None` where a barrier is reached, of which the core hears nothing.
pub(super) fn run(job: &Job) -> Result<Option<Event>, NoSpace> {
    let done = match job.extent.file.get() {
        Some(file) => run_on(file, job),
        None => Err(StoreError::Failed(job.extent.id)),
    };
    match done {
        Ok(event) => Ok(event),
        // The journal has the record, and nobody was told that it is in the extent; nor that a barrier is reached.
        Err(error) if error.is_no_space() && matches!(job.what, What::Apply(_) | What::Barrier) => {
            Err(NoSpace)
        }
        Err(error) => Ok(Some(failed(job, &error))),
    }
}

fn failed(job: &Job, error: &StoreError) -> Event {
    tracing::error!(extent = %job.extent.id, %error, "the extent is fenced: it answers nothing from this node's disk any more");
    Event::Failed {
        reason: FenceReason::Extent,
    }
}

fn run_on(file: &ExtentFile, job: &Job) -> Result<Option<Event>, StoreError> {
    let io = job.io;
    Ok(Some(match &job.what {
        What::Apply(record) => {
            apply(file, record)?;
            file.settled(record.pos.lsn);
            Event::Applied { io }
        }
        What::Read(range) => match file.read(*range) {
            Ok(data) => Event::ReadDone { io, data },
            // Not final: a peer may have them (I10).
            Err(error @ StoreError::Rotten { range: bad, .. }) => {
                tracing::warn!(extent = %job.extent.id, %error, "bad blocks");
                Event::ReadFailed { io, bad }
            }
            Err(error) => return Err(error),
        },
        What::Hash { range, piece, renew } => {
            if *renew {
                file.renew(*range);
            }
            let digests = file.digests(*range, *piece)?;
            Event::Hashed { io, digests }
        }
        What::Changed(since) => Event::Changed {
            io,
            ranges: file.changed_since(*since),
        },
        What::Allocated(range) => Event::Allocated {
            io,
            whole: file.is_allocated(*range)?,
        },
        What::Map(from, runs) => Event::Mapped {
            io,
            runs: file.map(*from, *runs)?,
        },
        What::Barrier => {
            file.accept_doubtful()?;
            file.sync()?;
            file.note_changes(|| job.extent.lock().core.end().lsn)?;
            return Ok(None);
        }
    }))
}

/// Puts a committed record into the extent (I7).
fn apply(file: &ExtentFile, record: &Record) -> Result<(), StoreError> {
    match &record.body {
        RecordBody::EpochStart | RecordBody::Resync { data: None, .. } => Ok(()),
        RecordBody::Write { range, data } => file.write(*range, data),
        RecordBody::Resync {
            ranges,
            data: Some(data),
        } => put_resynced(file, ranges, data),
        RecordBody::WriteSame { range, block } => file.write_same(*range, block),
        RecordBody::Zero { ranges } => ranges.iter().try_for_each(|range| file.zero(*range)),
    }
}

/// Zeros that a resync brings are freed, so that a sparse extent stays sparse on every replica.
fn put_resynced(file: &ExtentFile, ranges: &[BlockRange], data: &Bytes) -> Result<(), StoreError> {
    let mut rest = data.as_ref();
    for range in ranges {
        let len = usize::try_from(range.byte_len(file.block_size())).unwrap_or(usize::MAX);
        let Some((data, behind)) = rest.split_at_checked(len) else {
            // The core has checked the length of what a peer sent; a record out of the journal may be of an older, smaller extent.
            return Err(StoreError::Failed(file.meta().id));
        };
        rest = behind;
        if data.iter().all(|byte| *byte == 0) {
            file.zero(*range)?;
        } else {
            file.write(*range, data)?;
        }
    }
    Ok(())
}

impl Shared {
    /// Has what was applied flushed little by little.
    fn flush_in_time(&self, job: &Job) {
        let applied = matches!(job.what, What::Apply(_));
        if applied && job.extent.file.get().is_some_and(|file| file.wants_flush()) {
            self.chores.push([Chore::Flush(Arc::clone(&job.extent))]);
        }
    }

    fn is_starved(&self, extent: &Arc<Extent>) -> bool {
        guard(&self.starved)
            .iter()
            .any(|job| Arc::ptr_eq(&job.extent, extent))
    }

    /// Keeps a job until there is space for it.
    fn starve(self: &Arc<Self>, job: Job) {
        let first = {
            let mut starved = guard(&self.starved);
            starved.push(job);
            starved.len() == 1
        };
        if first {
            tracing::error!(
                "the disk is full: committed records wait in the journal until there is space; nothing is lost"
            );
        }
    }

    /// Tries again what waits for space.
    pub(super) fn feed_starved(&self) {
        let jobs = std::mem::take(&mut *guard(&self.starved));
        if !jobs.is_empty() {
            self.applies.push(jobs);
        }
    }
}

/// A thread's loop: all jobs that wait, then one event run per extent, of so many events at most.
pub(super) fn serve(shared: &Arc<Shared>, inbox: &Inbox<Job>, together: usize) {
    let mut jobs = Vec::new();
    let mut done: Vec<(Arc<Extent>, Vec<Event>)> = Vec::new();
    while inbox.take(&mut jobs) {
        for job in jobs.drain(..) {
            // Nothing of an extent overtakes what waits for space, as far as order matters: a barrier is behind all of it.
            let starved = matches!(job.what, What::Barrier) && shared.is_starved(&job.extent);
            let event = match if starved { Err(NoSpace) } else { run(&job) } {
                Ok(Some(event)) => {
                    shared.flush_in_time(&job);
                    event
                }
                Ok(None) => {
                    shared.open_gate(&job.extent);
                    continue;
                }
                Err(NoSpace) => {
                    shared.starve(job);
                    continue;
                }
            };
            match done
                .iter_mut()
                .find(|(extent, _)| Arc::ptr_eq(extent, &job.extent))
            {
                Some((_, events)) => events.push(event),
                None => done.push((job.extent, vec![event])),
            }
            if done.iter().map(|(_, events)| events.len()).sum::<usize>() >= together {
                report(shared, &mut done);
            }
        }
        report(shared, &mut done);
    }
}

fn report(shared: &Arc<Shared>, done: &mut Vec<(Arc<Extent>, Vec<Event>)>) {
    for (extent, events) in done.drain(..) {
        shared.drive(&extent, events);
    }
}
