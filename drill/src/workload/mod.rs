//! Checked workloads: writers that stamp what they write, readers beside them that notice a block that went back, and a last look
//! at everything.

mod ledger;
pub mod mixed;
mod stamp;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_types::Lba;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub use ledger::{Fault, Ledger, ReadStart};
pub use stamp::{Found, Stamp, UNIT_BYTES_MIN};

use crate::disk::{Disk, persistently};
use crate::error::Error;

/// Faults kept word for word; more are counted.
const FAULTS_KEPT: usize = 20;

/// What to do to a disk.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Decides which blocks are written and read, and in which order. Also the run's mark in every block.
    pub seed: u64,
    /// Writers; each has blocks of its own and one write on its way.
    pub writers: usize,
    /// Readers beside them.
    pub readers: usize,
    /// How many units are written, from the start of the disk on.
    pub units: usize,
    /// Size of a unit: a multiple of the disk's block size.
    pub unit_bytes: usize,
    /// Pause of each writer after a write.
    pub pause: Duration,
}

impl Plan {
    /// 4 KiB units on the first 16 MiB, 16 writers and 4 readers without pause.
    pub const fn small(seed: u64) -> Self {
        Self {
            seed,
            writers: 16,
            readers: 4,
            units: 4096,
            unit_bytes: 4096,
            pause: Duration::ZERO,
        }
    }
}

/// Counts and times of one of the disks that a workload uses. Times are nanoseconds since the workload's start.
#[derive(Debug, Default)]
struct Lane {
    acknowledged: AtomicU64,
    reads: AtomicU64,
    last_at: AtomicU64,
    newest_issue: AtomicU64,
    longest_gap: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    ledger: Ledger,
    began: Instant,
    lanes: Vec<Lane>,
    stop: AtomicBool,
    unanswered: AtomicU64,
    fault_count: AtomicU64,
    faults: Mutex<Vec<String>>,
    /// Every acknowledged write while [`Running::record`] is on.
    samples: Mutex<Option<Vec<Sample>>>,
}

/// One acknowledged write, in time since the workload's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Number of the disk it went through.
    pub lane: usize,
    /// When it was sent first.
    pub issued: Duration,
    /// When it was acknowledged.
    pub answered: Duration,
}

impl Shared {
    fn fault(&self, text: String) {
        self.fault_count.fetch_add(1, Ordering::Relaxed);
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < FAULTS_KEPT {
            faults.push(text);
        }
    }

    fn now(&self) -> u64 {
        nanos(self.began.elapsed())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What came of a workload.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// Writes answered with GOOD.
    pub acknowledged: u64,
    /// Writes whose fate stayed open.
    pub unanswered: u64,
    /// Reads that were judged.
    pub reads: u64,
    /// Longest time without an acknowledged write, per disk, in seconds.
    pub longest_gap_seconds: Vec<f64>,
    /// How many faults there were: a block that went back, is torn, or an error that an initiator must not see.
    pub fault_count: u64,
    /// The first of them.
    pub faults: Vec<String>,
}

impl Report {
    /// Whether nothing was wrong.
    ///
    /// # Errors
    /// The faults, in words.
    pub fn clean(&self) -> Result<(), String> {
        match self.fault_count {
            0 => Ok(()),
            some => Err(format!("{some} faults: {:#?}", self.faults)),
        }
    }

    /// As [`Self::clean`], and every write was answered.
    ///
    /// # Errors
    /// The faults, or how many writes were never answered, in words.
    pub fn complete(&self) -> Result<(), String> {
        self.clean()?;
        match self.unanswered {
            0 => Ok(()),
            some => Err(format!("{some} writes were never answered")),
        }
    }
}

/// A workload at work. Ends with [`Running::stop`]; dropping it aborts its tasks.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts the plan's writers and readers; they use `disks` in turn.
///
/// # Errors
/// A plan that the disks cannot carry.
pub fn start<D: Disk>(plan: Plan, disks: &[Arc<D>]) -> Result<Running, Error> {
    for disk in disks {
        check(&plan, &**disk)?;
    }
    if disks.is_empty() || plan.writers == 0 || plan.units < plan.writers {
        let text = "a workload needs a disk, a writer, and a unit for each writer";
        return Err(Error::Usage(text.to_owned()));
    }
    let shared = Arc::new(Shared {
        plan,
        ledger: Ledger::new(plan.seed, plan.units),
        began: Instant::now(),
        lanes: disks.iter().map(|_| Lane::default()).collect(),
        stop: AtomicBool::new(false),
        unanswered: AtomicU64::new(0),
        fault_count: AtomicU64::new(0),
        faults: Mutex::new(Vec::new()),
        samples: Mutex::new(None),
    });
    let mut tasks = Vec::new();
    for writer in 0..plan.writers {
        let lane = writer % disks.len();
        tasks.push(tokio::spawn(write(
            Arc::clone(&shared),
            Arc::clone(&disks[lane]),
            writer,
            lane,
        )));
    }
    for reader in 0..plan.readers {
        let lane = reader % disks.len();
        tasks.push(tokio::spawn(read(
            Arc::clone(&shared),
            Arc::clone(&disks[lane]),
            reader,
            lane,
        )));
    }
    Ok(Running { shared, tasks })
}

fn check(plan: &Plan, disk: &impl Disk) -> Result<(), Error> {
    let block = disk.block_size().bytes() as usize;
    let room = disk.blocks().saturating_mul(block as u64);
    if plan.unit_bytes < UNIT_BYTES_MIN || !plan.unit_bytes.is_multiple_of(block) {
        return Err(Error::Usage(format!(
            "units of {} bytes do not fit blocks of {block}",
            plan.unit_bytes
        )));
    }
    if plan.units.saturating_mul(plan.unit_bytes) as u64 > room {
        return Err(Error::Usage(format!(
            "{} units do not fit {room} bytes",
            plan.units
        )));
    }
    Ok(())
}

/// First block of a unit.
fn lba(plan: &Plan, disk: &impl Disk, unit: usize) -> Lba {
    Lba((unit * plan.unit_bytes) as u64 >> disk.block_size().shift())
}

fn blocks(plan: &Plan, disk: &impl Disk, units: usize) -> u32 {
    u32::try_from((units * plan.unit_bytes) >> disk.block_size().shift()).unwrap_or(u32::MAX)
}

async fn write<D: Disk>(shared: Arc<Shared>, disk: Arc<D>, writer: usize, lane: usize) {
    let plan = shared.plan;
    let mut random = StdRng::seed_from_u64(plan.seed.wrapping_mul(31).wrapping_add(writer as u64));
    // The units whose number leaves `writer` when divided by the number of writers are this one's.
    let own = (plan.units - writer).div_ceil(plan.writers);
    while !shared.stop.load(Ordering::Relaxed) {
        let unit = writer + plan.writers * random.random_range(0..own);
        let stamp = shared.ledger.issue(unit, writer as u64);
        let issued_at = shared.now();
        match disk
            .write(lba(&plan, &*disk, unit), stamp.fill(plan.unit_bytes))
            .await
        {
            Ok(()) => {
                shared.ledger.acknowledged(&stamp);
                count_write(&shared, lane, issued_at);
            }
            Err(error) if error.is_unknown() => {
                shared.unanswered.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) => {
                shared.fault(format!("a write of unit {unit} failed: {error}"));
                sleep(Duration::from_millis(20)).await;
            }
        }
        if !plan.pause.is_zero() {
            sleep(plan.pause).await;
        }
    }
}

fn count_write(shared: &Shared, number: usize, issued_at: u64) {
    let (lane, now) = (&shared.lanes[number], shared.now());
    let mut samples = shared.samples.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(samples) = samples.as_mut() {
        samples.push(Sample {
            lane: number,
            issued: Duration::from_nanos(issued_at),
            answered: Duration::from_nanos(now),
        });
    }
    drop(samples);
    lane.acknowledged.fetch_add(1, Ordering::Relaxed);
    let last = lane.last_at.fetch_max(now, Ordering::Relaxed);
    lane.longest_gap
        .fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    lane.newest_issue.fetch_max(issued_at, Ordering::Relaxed);
}

async fn read<D: Disk>(shared: Arc<Shared>, disk: Arc<D>, reader: usize, lane: usize) {
    let plan = shared.plan;
    let mut random =
        StdRng::seed_from_u64(plan.seed.wrapping_mul(37).wrapping_add(1_000_000 + reader as u64));
    let path = format!("reader {reader}, disk {lane}");
    while !shared.stop.load(Ordering::Relaxed) {
        let unit = random.random_range(0..plan.units);
        let start = shared.ledger.before_read(unit);
        match disk
            .read(lba(&plan, &*disk, unit), blocks(&plan, &*disk, 1))
            .await
        {
            Ok(block) => {
                shared.lanes[lane].reads.fetch_add(1, Ordering::Relaxed);
                if let Err(fault) = shared.ledger.after_read(start, &block, &path) {
                    shared.fault(fault.to_string());
                }
            }
            Err(error) => {
                if !error.is_unknown() {
                    shared.fault(format!("a read of unit {unit} failed: {error}"));
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

impl Running {
    /// Writes acknowledged until now, over all disks.
    pub fn acknowledged(&self) -> u64 {
        let lanes = self.shared.lanes.iter();
        lanes.map(|lane| lane.acknowledged.load(Ordering::Relaxed)).sum()
    }

    /// How many faults were found until now.
    pub fn fault_count(&self) -> u64 {
        self.shared.fault_count.load(Ordering::Relaxed)
    }

    /// Waits until a write that was issued through disk number `disk` after this call is acknowledged; tells how long that took.
    ///
    /// # Errors
    /// None within `limit`.
    ///
    /// # Panics
    /// There is no such disk.
    pub async fn served(&self, disk: usize, limit: Duration) -> Result<Duration, Error> {
        let since = self.shared.now();
        let start = Instant::now();
        while self.shared.lanes[disk].newest_issue.load(Ordering::Relaxed) <= since {
            if start.elapsed() >= limit {
                return Err(Error::Timeout(limit));
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(start.elapsed())
    }

    /// How many disks it uses.
    pub fn lanes(&self) -> usize {
        self.shared.lanes.len()
    }

    /// Time since the workload's start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.shared.now())
    }

    /// Keeps every acknowledged write from here on, until [`Running::recorded`]. Costs 40 bytes a write.
    pub fn record(&self) {
        let mut samples = self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner);
        *samples = Some(Vec::new());
    }

    /// The writes acknowledged since [`Running::record`], in the order of their answers; recording ends.
    pub fn recorded(&self) -> Vec<Sample> {
        let mut samples = self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let mut samples = samples.take().unwrap_or_default();
        samples.sort_by_key(|sample| sample.answered);
        samples
    }

    /// Takes what is acknowledged from here on, a part at a time, also while the workload goes on.
    pub fn recorder(&self) -> Recorder {
        self.record();
        Recorder {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Judges all units at any time, also while the workload goes on.
    pub fn verifier(&self) -> Verifier {
        Verifier {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Ends writers and readers, waits for what they have on its way, and tells what came of it.
    pub async fn stop(mut self) -> (Report, Verifier) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = task.await {
                self.shared.fault(format!("a task of the workload died: {error}"));
            }
        }
        (self.report(), self.verifier())
    }

    fn report(&self) -> Report {
        let shared = &self.shared;
        let lanes = || shared.lanes.iter();
        Report {
            acknowledged: self.acknowledged(),
            unanswered: shared.unanswered.load(Ordering::Relaxed),
            reads: lanes().map(|lane| lane.reads.load(Ordering::Relaxed)).sum(),
            longest_gap_seconds: lanes()
                .map(|lane| Duration::from_nanos(lane.longest_gap.load(Ordering::Relaxed)).as_secs_f64())
                .collect(),
            fault_count: self.fault_count(),
            faults: shared
                .faults
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Hears of acknowledged writes. Made by [`Running::recorder`].
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

impl Recorder {
    /// The writes acknowledged since the last call, in the order of their answers.
    pub fn take(&self) -> Vec<Sample> {
        let mut samples = self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let mut samples = samples.replace(Vec::new()).unwrap_or_default();
        samples.sort_by_key(|sample| sample.answered);
        samples
    }

    /// Time since the workload's start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.shared.now())
    }
}

/// Knows what a workload wrote.
#[derive(Debug)]
pub struct Verifier {
    shared: Arc<Shared>,
}

impl Verifier {
    /// Reads all units through `disk` and judges each; tells how many hold a value of this run.
    ///
    /// # Errors
    /// A read that fails, or the first [`Fault`] in words.
    pub async fn verify(&self, disk: &impl Disk, path: &str) -> Result<usize, String> {
        const AT_ONCE: usize = 64;
        let plan = self.shared.plan;
        for first in (0..plan.units).step_by(AT_ONCE) {
            let count = AT_ONCE.min(plan.units - first);
            let starts: Vec<ReadStart> = (first..first + count)
                .map(|unit| self.shared.ledger.before_read(unit))
                .collect();
            let (from, length) = (lba(&plan, disk, first), blocks(&plan, disk, count));
            let data = persistently(|| disk.read(from, length))
                .await
                .map_err(|error| format!("reading unit {first} through {path}: {error}"))?;
            if data.len() != count * plan.unit_bytes {
                return Err(format!(
                    "reading unit {first} through {path}: {} bytes came",
                    data.len()
                ));
            }
            for (start, block) in starts.into_iter().zip(data.chunks(plan.unit_bytes)) {
                let judged = self.shared.ledger.after_read(start, block, path);
                judged.map_err(|fault| fault.to_string())?;
            }
        }
        Ok(self.shared.ledger.settled())
    }
}

#[cfg(test)]
#[path = "workload_test.rs"]
mod tests;
