//! What threads of the data path read of the lease, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_types::{LeaseGeneration, Mono, RUN_GAP};

/// The lease as of now, for readers on any thread.
#[derive(Debug, Default)]
pub struct LeaseCell {
    until: AtomicU64,
    generation: AtomicU64,
    last_run: AtomicU64,
}

/// What a reader finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseReading {
    /// The quorum lease is held until then (L2).
    Held(Mono),
    /// It is not.
    Lost,
    /// The heartbeat thread has not run for so long that the process must have been stopped (L7): connections are about to be reset,
    /// and nothing that lay in a buffer meanwhile is to be carried out.
    Paused,
}

impl LeaseCell {
    /// Publishes. Only the keeper's owner calls this, under the keeper's lock.
    pub fn publish(&self, until: Option<Mono>, generation: LeaseGeneration, last_run: Mono) {
        // Generation first: who reads an `until` of the new generation also finds that generation.
        self.generation.store(generation.0, Ordering::SeqCst);
        self.until
            .store(until.map_or(0, Mono::as_nanos), Ordering::SeqCst);
        self.last_run.store(last_run.as_nanos(), Ordering::SeqCst);
    }

    /// How the lease stands at `now`.
    pub fn read(&self, now: Mono) -> LeaseReading {
        if now.since(Mono::from_nanos(self.last_run.load(Ordering::SeqCst))) > RUN_GAP {
            return LeaseReading::Paused;
        }
        let until = Mono::from_nanos(self.until.load(Ordering::SeqCst));
        if now < until {
            LeaseReading::Held(until)
        } else {
            LeaseReading::Lost
        }
    }

    /// Whether whatever depends on contents may be answered at `now` (I4).
    pub fn holds(&self, now: Mono) -> bool {
        matches!(self.read(now), LeaseReading::Held(_))
    }

    /// The node's own lease generation: initiator connections and forwards belong to one (L7, F1).
    pub fn generation(&self) -> LeaseGeneration {
        LeaseGeneration(self.generation.load(Ordering::SeqCst))
    }
}
