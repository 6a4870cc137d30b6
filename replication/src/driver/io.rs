//! Threads that touch extent files.
//!
//! [`run`] is the one place where that happens: where a fault is to be injected, it belongs there.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_types::BlockRange;

use super::extent::Extent;
use super::inbox::Inbox;
use super::shared::Shared;
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
    Hash(BlockRange),
    /// Everything applied before is to be stable in the extent; then journal entries that wait for it may go (R1).
    Barrier,
}

/// Carries it out and says so in the core's terms. `None`: a barrier is reached.
pub(super) fn run(job: &Job) -> Option<Event> {
    let done = match job.extent.file.get() {
        Some(file) => run_on(file, job),
        None => Err(StoreError::Failed(job.extent.id)),
    };
    done.unwrap_or_else(|error| {
        // What cannot be read here may be read from a replica (I10); only what is lost on its way to the disk is final (J2).
        if let (What::Read(range), StoreError::Io { .. }) = (&job.what, &error) {
            tracing::error!(extent = %job.extent.id, %error, %range, "blocks cannot be read here: they are asked of a replica");
            return Some(Event::ReadFailed { io: job.io });
        }
        tracing::error!(extent = %job.extent.id, %error, "the extent is fenced: it answers nothing from this node's disk any more");
        Some(Event::Failed {
            reason: FenceReason::Extent,
        })
    })
}

fn run_on(file: &ExtentFile, job: &Job) -> Result<Option<Event>, StoreError> {
    let io = job.io;
    Ok(Some(match &job.what {
        What::Apply(record) => {
            apply(file, record)?;
            file.settled(record.pos.lsn);
            Event::Applied { io }
        }
        What::Read(range) => Event::ReadDone {
            io,
            data: file.read(*range)?,
        },
        What::Hash(range) => Event::Hashed {
            io,
            hash: file.hash(*range)?,
        },
        What::Barrier => {
            file.accept_doubtful()?;
            file.sync()?;
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
            range,
            data: Some(data),
        } => put_resynced(file, *range, data),
        RecordBody::WriteSame { range, block } => file.write_same(*range, block),
        RecordBody::Zero { ranges } => ranges.iter().try_for_each(|range| file.zero(*range)),
    }
}

/// Zeros that a resync brings are freed, so that a sparse extent stays sparse on every replica.
fn put_resynced(file: &ExtentFile, range: BlockRange, data: &Bytes) -> Result<(), StoreError> {
    if data.iter().all(|byte| *byte == 0) {
        return file.zero(range);
    }
    file.write(range, data)
}

/// A thread's loop: all jobs that wait, then one event run per extent.
pub(super) fn serve(shared: &Arc<Shared>, inbox: &Inbox<Job>) {
    let mut jobs = Vec::new();
    let mut done: Vec<(Arc<Extent>, Vec<Event>)> = Vec::new();
    while inbox.take(&mut jobs) {
        for job in jobs.drain(..) {
            let Some(event) = run(&job) else {
                shared.open_gate(&job.extent);
                continue;
            };
            match done
                .iter_mut()
                .find(|(extent, _)| Arc::ptr_eq(extent, &job.extent))
            {
                Some((_, events)) => events.push(event),
                None => done.push((job.extent, vec![event])),
            }
            // One slow batch must not keep the first answers waiting.
            if done.iter().map(|(_, events)| events.len()).sum::<usize>() >= 64 {
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
