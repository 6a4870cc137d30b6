//! When extents are compared with their replicas: from time to time, and when somebody asks; one extent after the other.
//!
//! The last scrub that this node ended as primary is noted beside the extent, in `UUID.scrub`. Its time is wall-clock time: all that can go
//! wrong with it is a scrub too early or too late.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use holdfast_types::unix_seconds;

use super::extent::Extent;
use super::shared::{Shared, guard};
use crate::core::api::{Event, RoleName, ScrubOutcome, Status};
use crate::store::{LastScrub, load_scrubbed, store_scrubbed};

/// How often it is looked at what is due.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

fn under_way(status: &Status) -> bool {
    status.replicas.iter().any(|replica| replica.scrub.is_some())
}

/// Starts what is due, and what was cut short. One extent at a time is compared: so many of them load the disks no more than one.
pub(super) fn look(shared: &Arc<Shared>) {
    let mut due = Vec::new();
    for extent in shared.all() {
        if extent.file.get().is_none() {
            continue;
        }
        let last = last(shared, &extent);
        let status = extent.lock().core.status();
        if status.role != RoleName::Primary {
            continue;
        }
        if under_way(&status) {
            // With its other replicas, if it was cut short with one of them.
            shared.drive(&extent, [Event::Scrub]);
            return;
        }
        let others = status.replicas.iter().any(|it| it.in_sync && it.following);
        let wanted = is_wanted(&extent);
        if others
            && (wanted
                || unix_seconds(SystemTime::now()).saturating_sub(last)
                    >= shared.config.scrub_every.as_secs())
        {
            due.push((!wanted, last, extent));
        }
    }
    if let Some((_, _, extent)) = due.into_iter().min_by_key(|(asked, last, _)| (*asked, *last)) {
        if extent.scrub_wanted.swap(false, Ordering::Relaxed) {
            extent.scrub_owed.store(true, Ordering::Relaxed);
        }
        shared.drive(&extent, [Event::Scrub]);
    }
}

/// Whether somebody asked for a scrub that has not ended. One that is asked for while another runs begins after it.
pub(super) fn is_wanted(extent: &Extent) -> bool {
    extent.scrub_wanted.load(Ordering::Relaxed) || extent.scrub_owed.load(Ordering::Relaxed)
}

/// When it was scrubbed last, or first seen here: a new extent has time. Whoever asks for the status waits for that lock, so it is never
/// held while the disk, which may hang, is asked (I10). Only the thread that does the chores comes here.
fn last(shared: &Shared, extent: &Extent) -> u64 {
    let seen = *guard(&extent.scrubbed);
    if let Some(last) = seen {
        return last.at;
    }
    let known = load_scrubbed(&shared.store.extents(), extent.id);
    let last = known.unwrap_or_else(|| {
        let (at, outcome) = (unix_seconds(SystemTime::now()), None);
        note(shared, extent, LastScrub { at, outcome })
    });
    *guard(&extent.scrubbed) = Some(last);
    last.at
}

fn note(shared: &Shared, extent: &Extent, last: LastScrub) -> LastScrub {
    if let Err(error) = store_scrubbed(&shared.store.extents(), extent.id, &last) {
        tracing::warn!(extent = %extent.id, %error, "the time of the last scrub cannot be noted");
    }
    last
}

/// Every replica in sync was compared.
pub(super) fn ended(shared: &Shared, extent: &Extent, outcome: ScrubOutcome) {
    let (at, outcome) = (unix_seconds(SystemTime::now()), Some(outcome));
    let last = note(shared, extent, LastScrub { at, outcome });
    *guard(&extent.scrubbed) = Some(last);
}
