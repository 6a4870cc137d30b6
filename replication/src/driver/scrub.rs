//! When extents are compared with their replicas: from time to time, and when somebody asks.
//!
//! The time of the last scrub that this node ended as primary is beside the extent, in `UUID.scrub`. It is wall-clock time: all that can go
//! wrong with it is a scrub too early or too late.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::extent::Extent;
use super::shared::Shared;
use crate::core::api::{Event, RoleName};
use crate::store::{load_scrubbed, store_scrubbed};

/// How often it is looked at what is due.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs().max(1))
}

/// Starts what is due, and what was cut short.
pub(super) fn look(shared: &Arc<Shared>) {
    for extent in shared.all() {
        let serves = extent.lock().core.status().role == RoleName::Primary;
        if serves && extent.file.get().is_some() && due(shared, &extent) {
            shared.drive(&extent, [Event::Scrub]);
        }
    }
}

fn due(shared: &Shared, extent: &Extent) -> bool {
    let mut last = extent.scrubbed.load(Ordering::Relaxed);
    if last == 0 {
        // Not known, or never: a new extent has time.
        let dir = shared.store.extents();
        last = load_scrubbed(&dir, extent.id).unwrap_or_else(|| {
            let last = now();
            if let Err(error) = store_scrubbed(&dir, extent.id, last) {
                tracing::warn!(extent = %extent.id, %error, "the time of the last scrub cannot be noted");
            }
            last
        });
        extent.scrubbed.store(last, Ordering::Relaxed);
    }
    let late = now().saturating_sub(last) >= shared.config.scrub_every.as_secs();
    extent.scrub_wanted.load(Ordering::Relaxed) || late
}

/// Every replica in sync was compared.
pub(super) fn ended(shared: &Shared, extent: &Extent) {
    let last = now();
    extent.scrubbed.store(last, Ordering::Relaxed);
    extent.scrub_wanted.store(false, Ordering::Relaxed);
    if let Err(error) = store_scrubbed(&shared.store.extents(), extent.id, last) {
        tracing::warn!(extent = %extent.id, %error, "the time of the last scrub cannot be noted");
    }
}
