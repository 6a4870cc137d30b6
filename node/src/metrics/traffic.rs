//! What initiators' commands cost: counted where they are answered, by extent and by initiator.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use holdfast_types::{BlockOp, ExtentId, OpOutcome};

/// Upper ends of the latency buckets, in microseconds; what took longer counts in the last one, which has no end.
pub(super) const BUCKETS_US: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000,
];

/// Initiators that are counted by name; whoever comes after counts under [`OTHERS`]. A name costs an initiator nothing, memory would.
const INITIATORS_MAX: usize = 1024;
/// The name of all initiators beyond [`INITIATORS_MAX`].
const OTHERS: &str = "(others)";

/// What a command does, as far as its cost goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// READ, and VERIFY, which reads as much.
    Read,
    /// WRITE, WRITE SAME, ORWRITE.
    Write,
    /// COMPARE AND WRITE.
    CompareAndWrite,
    /// UNMAP, and WRITE SAME that unmaps.
    Unmap,
    /// SYNCHRONIZE CACHE.
    Flush,
    /// GET LBA STATUS and what the target asks itself.
    Other,
}

impl Operation {
    pub(super) const ALL: [(Self, &'static str); 6] = [
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::CompareAndWrite, "compare_and_write"),
        (Self::Unmap, "unmap"),
        (Self::Flush, "flush"),
        (Self::Other, "other"),
    ];

    /// Of an operation that storage is given, and the bytes that come with it.
    pub(crate) fn of(op: &BlockOp) -> (Self, u64) {
        let bytes = |data: &bytes::Bytes| data.len() as u64;
        match op {
            BlockOp::Read { .. } | BlockOp::Verify { .. } => (Self::Read, 0),
            BlockOp::Write { data, .. } | BlockOp::OrWrite { data, .. } => (Self::Write, bytes(data)),
            BlockOp::WriteSame { block, .. } => (Self::Write, bytes(block)),
            BlockOp::CompareAndWrite { data, .. } => (Self::CompareAndWrite, bytes(data)),
            BlockOp::Zero { .. } => (Self::Unmap, 0),
            BlockOp::Flush => (Self::Flush, 0),
            BlockOp::Map { .. } | BlockOp::Fence { .. } => (Self::Other, 0),
        }
    }
}

/// Words for how an operation ended.
pub(super) const OUTCOMES: [&str; 9] = [
    "ok",
    "miscompare",
    "unreadable",
    "no_space",
    "reservation_conflict",
    "transitioning",
    "standby",
    "reset",
    "aborted",
];

const fn outcome_index(outcome: &OpOutcome) -> usize {
    match outcome {
        OpOutcome::Done | OpOutcome::Data(_) | OpOutcome::Map(_) => 0,
        OpOutcome::Miscompare { .. } => 1,
        OpOutcome::Unreadable { .. } => 2,
        OpOutcome::NoSpace => 3,
        OpOutcome::ReservationConflict => 4,
        OpOutcome::Transitioning => 5,
        OpOutcome::Standby => 6,
        OpOutcome::Reset => 7,
        OpOutcome::Aborted => 8,
    }
}

/// Latencies and bytes of one kind of operation.
#[derive(Debug, Default)]
struct Latencies {
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    nanos: AtomicU64,
    bytes: AtomicU64,
}

/// Counters of one extent or one initiator. Added to without a lock; a reader may see a command in one counter and not yet in another.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    latencies: [Latencies; Operation::ALL.len()],
    outcomes: [AtomicU64; OUTCOMES.len()],
}

impl Meter {
    /// An operation has ended, so long after its command was received.
    pub(crate) fn count(&self, operation: Operation, bytes: u64, took: Duration, outcome: &OpOutcome) {
        let bytes = match outcome {
            OpOutcome::Data(data) => data.len() as u64,
            OpOutcome::Done => bytes,
            _ => 0,
        };
        let found = &self.latencies[operation as usize];
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|end| *end < micros);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        found.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        found.nanos.fetch_add(nanos, Ordering::Relaxed);
        found.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.outcomes[outcome_index(outcome)].fetch_add(1, Ordering::Relaxed);
    }

    /// The counters of one kind of operation as they are now; `None` if there were none.
    pub(super) fn read(&self, operation: Operation) -> Option<Reading> {
        let found = &self.latencies[operation as usize];
        let buckets = found
            .buckets
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        let reading = Reading {
            buckets,
            seconds: Duration::from_nanos(found.nanos.load(Ordering::Relaxed)).as_secs_f64(),
            bytes: found.bytes.load(Ordering::Relaxed),
        };
        (reading.count() > 0).then_some(reading)
    }

    /// How many operations ended how, those that there were.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        OUTCOMES
            .into_iter()
            .zip(&self.outcomes)
            .map(|(word, count)| (word, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }
}

/// What a [`Meter`] has counted of one kind of operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// By bucket, not summed up; one more than [`BUCKETS_US`].
    pub(super) buckets: [u64; BUCKETS_US.len() + 1],
    /// Sum of all latencies.
    pub(super) seconds: f64,
    /// Read or written.
    pub(super) bytes: u64,
}

impl Reading {
    /// How many operations.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// A node's counters. Those of an extent or initiator stay while the process runs.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    extents: RwLock<HashMap<ExtentId, Arc<Meter>>>,
    initiators: RwLock<HashMap<String, Arc<Meter>>>,
    resets: AtomicU64,
}

fn meter<K: Hash + Eq>(of: &RwLock<HashMap<K, Arc<Meter>>>, key: K) -> Arc<Meter> {
    if let Some(found) = of.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Arc::clone(found);
    }
    let mut all = of.write().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(all.entry(key).or_default())
}

impl Traffic {
    /// The counters of an extent. Kept by who counts: looking them up takes a lock.
    pub(crate) fn extent(&self, extent: ExtentId) -> Arc<Meter> {
        meter(&self.extents, extent)
    }

    /// The counters of an initiator.
    pub(crate) fn initiator(&self, name: &str) -> Arc<Meter> {
        let known = self.initiators.read().unwrap_or_else(PoisonError::into_inner);
        let counted = known.len() < INITIATORS_MAX || known.contains_key(name);
        drop(known);
        meter(&self.initiators, if counted { name } else { OTHERS }.to_owned())
    }

    /// A connection was reset because something could not be carried out.
    pub(crate) fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections were reset.
    pub(super) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// All extents that had commands.
    pub(super) fn extents(&self) -> BTreeMap<ExtentId, Arc<Meter>> {
        let all = self.extents.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(id, meter)| (*id, Arc::clone(meter))).collect()
    }

    /// All initiators that had commands.
    pub(super) fn initiators(&self) -> BTreeMap<String, Arc<Meter>> {
        let all = self.initiators.read().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .map(|(name, meter)| (name.clone(), Arc::clone(meter)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_stand_where_their_counters_are() {
        for (at, (operation, _)) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, at);
        }
    }

    #[test]
    fn a_command_counts_in_its_bucket_with_the_bytes_that_moved() {
        let meter = Meter::default();
        let data = OpOutcome::Data(bytes::Bytes::from_static(&[0; 512]));
        meter.count(Operation::Read, 0, Duration::from_micros(100), &data);
        meter.count(Operation::Read, 0, Duration::from_micros(101), &data);
        meter.count(Operation::Read, 0, Duration::from_secs(9), &OpOutcome::Reset);
        meter.count(
            Operation::Write,
            4096,
            Duration::from_millis(1),
            &OpOutcome::NoSpace,
        );
        let read = meter.read(Operation::Read).expect("reads were counted");
        assert_eq!((read.count(), read.bytes), (3, 1024));
        assert_eq!((read.buckets[0], read.buckets[1]), (1, 1));
        assert_eq!(read.buckets.last(), Some(&1), "longer than all buckets");
        let write = meter.read(Operation::Write).expect("a write was counted");
        assert_eq!(write.bytes, 0, "nothing was written");
        assert_eq!(meter.read(Operation::Flush), None);
        let outcomes: Vec<_> = meter.outcomes().collect();
        assert_eq!(outcomes, [("ok", 2), ("no_space", 1), ("reset", 1)]);
    }

    #[test]
    fn names_beyond_the_limit_count_together() {
        let traffic = Traffic::default();
        for number in 0..INITIATORS_MAX + 10 {
            traffic.initiator(&format!("iqn.2026-01.none.test:{number}"));
        }
        assert_eq!(traffic.initiators().len(), INITIATORS_MAX + 1);
        assert!(Arc::ptr_eq(
            &traffic.initiator("iqn.2026-01.none.test:more"),
            &traffic.initiator(OTHERS)
        ));
    }
}
