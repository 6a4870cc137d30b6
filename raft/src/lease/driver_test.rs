//! What other threads find between two steps of the driver.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_types::{Incarnation, Mono, NodeId, RUN_GAP};

use super::super::{LeaseCell, LeaseReading, ResetCause};
use super::{Clock, Lease};
use crate::model::fixture;

/// A connection that looks at the cell and then at its queue sees one of the two, whenever it looks: the pause is shown until every
/// connection has been told to reset.
#[test]
fn l7_a_pause_shows_until_connections_are_told_to_reset() {
    let time = Arc::new(AtomicU64::new(10_000_000_000));
    let clock: Clock = {
        let time = Arc::clone(&time);
        Arc::new(move || Mono::from_nanos(time.load(Ordering::SeqCst)))
    };
    let cell: Arc<Mutex<Option<Arc<LeaseCell>>>> = Arc::default();
    let found = Arc::new(Mutex::new(Vec::new()));
    let on_reset = {
        let (cell, found, clock) = (Arc::clone(&cell), Arc::clone(&found), Arc::clone(&clock));
        Arc::new(move |_, cause| {
            let reading = cell.lock().unwrap().as_ref().unwrap().read(clock());
            found.lock().unwrap().push((cause, reading));
        })
    };
    let lease = Lease::new(NodeId(1), Incarnation(1), Arc::clone(&clock), on_reset);
    *cell.lock().unwrap() = Some(lease.cell());
    lease.applied(&fixture::led_by_a(1));
    lease.caught_up();
    lease.tick();
    let gap = RUN_GAP + Duration::from_millis(1);
    time.store((clock() + gap).as_nanos(), Ordering::SeqCst);
    lease.tick();
    assert_eq!(
        found.lock().unwrap()[..],
        [(ResetCause::Gap(gap), LeaseReading::Paused)]
    );
    assert_ne!(lease.cell().read(clock()), LeaseReading::Paused, "it runs again");
}
