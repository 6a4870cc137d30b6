//! Moving checkpoints and giving journal segments back, in the background (J3).
//!
//! Per extent: note how far it is applied, flush its file, then write a checkpoint that says so. Nothing of it is under the
//! extent's lock but two glances, so commands go on meanwhile. What must be kept although it is old (the checkpoint of an idle
//! extent, records that cannot be applied yet) is written again at the journal's end, oldest extent first.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use holdfast_journal::Position;
use holdfast_types::LogPos;

use super::extent::{Extent, Tag};
use super::shared::Shared;
use crate::core::ExtentCore;
use crate::core::api::{Event, FenceReason, ScrubOutcome};
use crate::store::{Checkpoint, Damage, Entry, ExtentFile, NodeJournal, StoreError};

/// How long the thread waits for a checkpoint to be stable before it goes on; the next round finds it.
const STABLE_WAIT: Duration = Duration::from_secs(10);
/// How often the journal's fill is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Between two tries to apply what waits for space.
const RETRY_FULL: Duration = Duration::from_millis(500);

/// What a record takes in the journal besides its payload, at most, but for long lists of ranges.
const RECORD_OVERHEAD: u64 = 512;

/// Small writes beside the journal that must not hold up who needs them.
#[derive(Debug)]
pub(super) enum Chore {
    /// The extent's contents cannot be trusted any more (J2).
    Mark(Arc<Extent>, Damage),
    /// A resync has begun, and its own mark says so (R1).
    Heal(Arc<Extent>),
    /// Every replica of it that is in sync was compared.
    Scrubbed(Arc<Extent>, ScrubOutcome),
    /// It is looked at what is to be compared.
    Scrubs,
    /// Much was written to it since it was flushed.
    Flush(Arc<Extent>),
}

/// The loop of the thread for chores.
pub(super) fn serve_chores(shared: &Arc<Shared>) {
    let mut chores = Vec::new();
    while shared.chores.take(&mut chores) {
        chores.drain(..).for_each(|chore| carry_out(shared, &chore));
    }
}

fn carry_out(shared: &Arc<Shared>, chore: &Chore) {
    let (extent, damage) = match chore {
        Chore::Scrubbed(extent, outcome) => {
            super::scrub::ended(shared, extent, *outcome);
            return super::scrub::look(shared);
        }
        Chore::Scrubs => return super::scrub::look(shared),
        Chore::Flush(extent) => {
            // A failure was told to the core.
            if let Some(file) = extent.file.get() {
                flush(shared, extent, file, ExtentFile::sync);
            }
            return;
        }
        Chore::Mark(extent, damage) => (extent, Some(*damage)),
        // A replica that has failed in this run stays marked, whatever was under way.
        Chore::Heal(extent) if extent.failed.load(Ordering::Acquire) => return,
        Chore::Heal(extent) => (extent, None),
    };
    if let Some(Err(error)) = extent.file.get().map(|file| file.mark(damage)) {
        tracing::error!(extent = %extent.id, %error, "the extent's description cannot be written");
    }
}

/// The checkpointer's loop.
pub(super) fn serve(shared: &Arc<Shared>) {
    let mut next = Instant::now() + shared.config.checkpoint_every;
    let mut retry = Instant::now();
    let mut next_scrub = Instant::now() + shared.config.checkpoint_every;
    while !shared.stopped() {
        std::thread::sleep(LOOK_EVERY.min(shared.config.checkpoint_every));
        let Some(journal) = shared.journal.get() else {
            continue;
        };
        journal.pump();
        if Instant::now() >= next_scrub {
            shared.chores.push([Chore::Scrubs]);
            next_scrub = Instant::now() + super::scrub::LOOK_EVERY;
        }
        let fill = journal.fill_percent();
        shared.look_at_room();
        if retry <= Instant::now() {
            shared.feed_starved();
            retry = Instant::now() + RETRY_FULL;
        }
        let hurry = fill >= shared.config.hurry_above_percent;
        if hurry || Instant::now() >= next {
            round(shared, hurry);
            next = Instant::now() + shared.config.checkpoint_every;
        }
    }
}

/// One pass over all extents, the one that needs the oldest part of the journal first.
pub(super) fn round(shared: &Arc<Shared>, hurry: bool) {
    let mut extents = shared.all();
    extents.sort_by_key(|extent| extent.place.needed_from());
    for extent in &extents {
        if shared.stopped() {
            return;
        }
        let applied = extent.lock().core.applied();
        if applied.lsn > extent.place.applied().lsn {
            checkpoint(shared, extent, hurry);
        }
    }
    release(shared);
    if hurry {
        copy_forward(shared, &extents);
        release(shared);
    }
}

/// What was seen of an extent before it was flushed.
struct Seen {
    applied: LogPos,
    restarts: u64,
}

fn look(extent: &Extent) -> Seen {
    let slot = extent.lock();
    Seen {
        applied: slot.core.applied(),
        restarts: slot.restarts,
    }
}

/// All of it, and what changed.
fn whole(extent: &Extent) -> impl FnOnce(&ExtentFile) -> Result<(), StoreError> + '_ {
    |file| {
        file.sync()?;
        file.note_changes(|| extent.lock().core.end().lsn)
    }
}

fn checkpoint(shared: &Arc<Shared>, extent: &Arc<Extent>, hurry: bool) {
    let seen = look(extent);
    if let Some(file) = extent.file.get()
        && !flush(shared, extent, file, whole(extent))
    {
        return;
    }
    let (tell, told) = mpsc::channel();
    let mode = Mode {
        reclaim: hurry,
        copy: false,
    };
    if write(shared, extent, &seen, mode, tell) {
        // An error means that the journal is gone, a timeout that it is slow: either way nothing is given back early.
        let _ = told.recv_timeout(STABLE_WAIT);
    }
}

/// J2: a failed flush is final; the checkpoint does not move.
fn flush(
    shared: &Arc<Shared>,
    extent: &Arc<Extent>,
    file: &ExtentFile,
    how: impl FnOnce(&ExtentFile) -> Result<(), StoreError>,
) -> bool {
    if extent.failed.load(Ordering::Acquire) {
        return false;
    }
    let Err(error) = how(file) else { return true };
    if error.is_no_space() {
        tracing::error!(extent = %extent.id, %error, "no room to note what changed: the journal keeps it until there is");
        return false;
    }
    tracing::error!(extent = %extent.id, %error, "the extent is fenced: its disk does not take what was written");
    let reason = FenceReason::Extent;
    shared.drive(extent, [Event::Failed { reason }]);
    false
}

#[derive(Clone, Copy)]
struct Mode {
    /// May use what the journal keeps free for this.
    reclaim: bool,
    /// Write the records behind the checkpoint again.
    copy: bool,
}

/// Writes the checkpoint. False if it cannot be now: the log has started anew since `seen`, or something waits that must come first.
fn write(shared: &Shared, extent: &Arc<Extent>, seen: &Seen, mode: Mode, tell: mpsc::Sender<()>) -> bool {
    let Some(journal) = shared.journal.get() else {
        return false;
    };
    let slot = extent.lock();
    if slot.restarts != seen.restarts || slot.gate.is_some() || journal.must_wait(&extent.place, mode.copy) {
        return false;
    }
    let core = &slot.core;
    if mode.copy && !has_room(journal, core) {
        return false;
    }
    let durable = core.status().durable;
    let checkpoint = Checkpoint {
        applied: seen.applied,
        end: extent
            .place
            .pos_at(durable)
            .unwrap_or(seen.applied)
            .max(seen.applied),
        commit: core.committed(),
        seen: core.seen(),
        base: core.base(),
        history: core.history().up_to(seen.applied.lsn),
    };
    let tag = || Tag::Told(tell.clone());
    journal.append(&extent.place, Entry::Checkpoint(checkpoint), mode.reclaim, tag());
    if mode.copy {
        // What was applied since `seen` stays where it is, and keeps its segment. All behind it goes along, stable or not: what is
        // needed is told by the oldest record alone, so none may lie before it.
        for record in core.unapplied() {
            journal.append(&extent.place, Entry::Record(record.clone()), true, tag());
        }
    }
    true
}

/// Whether what is not applied can be written again, with room left for checkpoints: those free what is applied later, but not
/// behind copies that wait for room themselves.
fn has_room(journal: &NodeJournal<Tag>, core: &ExtentCore) -> bool {
    let usage = journal.usage();
    let left = usage.capacity_bytes.saturating_sub(usage.used_bytes);
    let bytes: u64 = core
        .unapplied()
        .map(|record| record.body.payload_len() as u64 + RECORD_OVERHEAD)
        .sum();
    bytes <= left / 2
}

/// Copies forward what pins the older half of the journal (J3).
fn copy_forward(shared: &Arc<Shared>, extents: &[Arc<Extent>]) {
    let Some(journal) = shared.journal.get() else {
        return;
    };
    let (first, end) = (journal.first().get(), journal.durable_through().get());
    let middle = Position::new(first + end.saturating_sub(first) / 2);
    for extent in extents {
        let pins = extent.place.needed_from().is_some_and(|needed| needed < middle);
        if !pins || shared.stopped() {
            continue;
        }
        let seen = look(extent);
        if let Some(file) = extent.file.get()
            && !flush(shared, extent, file, whole(extent))
        {
            continue;
        }
        let (tell, told) = mpsc::channel();
        let mode = Mode {
            reclaim: true,
            copy: true,
        };
        if write(shared, extent, &seen, mode, tell) {
            // Ends when every tag has come back and is dropped, or after a while.
            while told.recv_timeout(STABLE_WAIT).is_ok() {}
        }
    }
}

/// Gives back what no extent needs.
fn release(shared: &Shared) {
    let Some(journal) = shared.journal.get() else {
        return;
    };
    let _lifecycle = shared.lifecycle.lock().unwrap_or_else(PoisonError::into_inner);
    let durable = journal.durable_through();
    let mut needed = durable;
    for extent in shared.all() {
        // What is marked as not to be trusted needs nothing of the journal: it is resynced (J2).
        if extent.failed.load(Ordering::Acquire)
            && extent
                .file
                .get()
                .is_some_and(|file| file.meta().damaged.is_some())
        {
            continue;
        }
        // One without any entry needs nothing: those that are new have had their first one before they were told here, and whose
        // journal was lost is marked, and begins anew behind what is there.
        if let Some(position) = extent.place.needed_from() {
            needed = needed.min(position);
        }
    }
    journal.release_before(needed);
}

#[cfg(test)]
#[path = "checkpoint_test.rs"]
mod tests;
