//! What `holdfast bench` measures: throughput and latency of one pattern at one queue depth.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_types::Lba;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bench_guard::SIGNATURE;
use crate::disk::Disk;
use crate::error::Error;
use crate::histogram::Histogram;

/// Which commands are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// READ only.
    Read,
    /// WRITE only. Overwrites what is there.
    Write,
    /// Seven READs to three WRITEs, in random order.
    Mixed,
}

/// In which order blocks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// At random over the span.
    Random,
    /// One after the other, each of the queue's places in a part of the span of its own.
    Sequential,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Which commands.
    pub direction: Direction,
    /// In which order.
    pub order: Order,
    /// Bytes of each command: a multiple of the disk's block size.
    pub block_bytes: usize,
    /// Commands on their way at once, over all disks together.
    pub depth: usize,
    /// Not measured, before it counts.
    pub warm_up: Duration,
    /// Measured.
    pub duration: Duration,
    /// How much of the disk is used, from its start on; `None` is all of it.
    pub span_bytes: Option<u64>,
    /// Decides the order.
    pub seed: u64,
}

impl Default for Plan {
    /// 4 KiB random writes at queue depth 1, ten seconds after two of warming up.
    fn default() -> Self {
        Self {
            direction: Direction::Write,
            order: Order::Random,
            block_bytes: 4096,
            depth: 1,
            warm_up: Duration::from_secs(2),
            duration: Duration::from_secs(10),
            span_bytes: None,
            seed: 1,
        }
    }
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Mean.
    pub mean_us: f64,
    /// Half of all commands were at least as fast.
    pub p50_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1000.
    pub p99_9_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Which commands.
    pub direction: Direction,
    /// In which order.
    pub order: Order,
    /// Bytes of each command.
    pub block_bytes: usize,
    /// Commands on their way at once.
    pub depth: usize,
    /// iSCSI sessions they were spread over.
    pub sessions: usize,
    /// Seconds measured.
    pub seconds: f64,
    /// Commands that were answered in that time.
    pub operations: u64,
    /// Commands a second.
    pub iops: f64,
    /// Million bytes a second.
    pub megabytes_per_second: f64,
    /// From sending a command to its answer.
    pub latency: Latency,
}

/// Runs one measurement over `disks`, which are sessions of the same logical unit.
///
/// # Errors
/// A plan that does not fit the disk, or the first command that fails.
pub async fn run<D: Disk>(plan: &Plan, disks: &[Arc<D>]) -> Result<Report, Error> {
    let work = Work::new(plan, disks)?;
    let begin = Instant::now() + plan.warm_up;
    let end = begin + plan.duration;
    // One task per place in the queue for the whole run: nothing is spawned per command.
    let mut places = JoinSet::new();
    for place in 0..plan.depth {
        let disk = Arc::clone(&disks[place % disks.len()]);
        places.spawn(keep_busy(work.clone(), disk, place, begin, end));
    }
    let mut histogram = Histogram::new();
    while let Some(done) = places.join_next().await {
        let part = done.map_err(|error| Error::Usage(format!("a task of the measurement died: {error}")))?;
        histogram.merge(&part?);
    }
    Ok(report(plan, disks.len(), &histogram))
}

/// What all places of the queue share.
#[derive(Debug, Clone)]
struct Work {
    plan: Plan,
    /// Commands that fit the span.
    slots: u64,
    blocks_each: u32,
    payload: Bytes,
}

impl Work {
    fn new<D: Disk>(plan: &Plan, disks: &[Arc<D>]) -> Result<Self, Error> {
        let usage = |text: String| Err(Error::Usage(text));
        let Some(disk) = disks.first() else {
            return usage("a measurement needs a session".to_owned());
        };
        let block = disk.block_size().bytes() as usize;
        if plan.block_bytes == 0 || !plan.block_bytes.is_multiple_of(block) {
            return usage(format!(
                "{} bytes are not whole blocks of {block}",
                plan.block_bytes
            ));
        }
        if plan.depth == 0 || plan.depth > 4096 {
            return usage(format!(
                "a queue depth of {} is not between 1 and 4096",
                plan.depth
            ));
        }
        let whole = disk.blocks().saturating_mul(block as u64);
        let slots = plan.span_bytes.unwrap_or(whole).min(whole) / plan.block_bytes as u64;
        if slots < plan.depth as u64 {
            return usage(format!(
                "{slots} commands of {} bytes fit, too few for the queue",
                plan.block_bytes
            ));
        }
        // One buffer for all writes: it does not compress, and it is never copied here. Every block says where it comes from.
        let mut payload = BytesMut::zeroed(plan.block_bytes);
        StdRng::seed_from_u64(plan.seed).fill_bytes(&mut payload);
        for start in payload.chunks_mut(block) {
            start[..SIGNATURE.len()].copy_from_slice(SIGNATURE);
        }
        Ok(Self {
            plan: *plan,
            slots,
            blocks_each: u32::try_from(plan.block_bytes / block).unwrap_or(u32::MAX),
            payload: payload.freeze(),
        })
    }
}

/// One place of the queue: sends the next command when the last one was answered, and counts those sent in the measured time.
async fn keep_busy<D: Disk>(
    work: Work,
    disk: Arc<D>,
    place: usize,
    begin: Instant,
    end: Instant,
) -> Result<Histogram, Error> {
    let plan = &work.plan;
    let mut random = StdRng::seed_from_u64(plan.seed.wrapping_mul(1009).wrapping_add(place as u64));
    let part = work.slots / plan.depth as u64;
    let mut next = 0;
    let mut histogram = Histogram::new();
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(histogram);
        }
        let slot = match plan.order {
            Order::Random => random.random_range(0..work.slots),
            Order::Sequential => {
                next = (next + 1) % part;
                place as u64 * part + next
            }
        };
        let lba = Lba(slot * u64::from(work.blocks_each));
        let is_write = match plan.direction {
            Direction::Read => false,
            Direction::Write => true,
            Direction::Mixed => random.random_range(0..10) < 3,
        };
        if is_write {
            disk.write(lba, work.payload.clone()).await?;
        } else {
            disk.read(lba, work.blocks_each).await?;
        }
        let now = Instant::now();
        if sent >= begin && now <= end {
            histogram.add(now - sent);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(plan: &Plan, sessions: usize, histogram: &Histogram) -> Report {
    let seconds = plan.duration.as_secs_f64();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let iops = histogram.count() as f64 / seconds;
    Report {
        direction: plan.direction,
        order: plan.order,
        block_bytes: plan.block_bytes,
        depth: plan.depth,
        sessions,
        seconds,
        operations: histogram.count(),
        iops,
        megabytes_per_second: iops * plan.block_bytes as f64 / 1e6,
        latency: Latency {
            mean_us: us(histogram.mean()),
            p50_us: us(histogram.quantile(0.5)),
            p99_us: us(histogram.quantile(0.99)),
            p99_9_us: us(histogram.quantile(0.999)),
            max_us: us(histogram.max()),
        },
    }
}

impl Report {
    /// The line above the figures of [`Report`]'s own text.
    pub const HEADING: &'static str =
        "pattern            block  depth      IOPS      MB/s   p50 us   p99 us p99.9 us    max us";
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            Order::Random => "random",
            Order::Sequential => "sequential",
        };
        let direction = match self.direction {
            Direction::Read => "read",
            Direction::Write => "write",
            Direction::Mixed => "mixed",
        };
        write!(
            f,
            "{:<16} {:>7} {:>6} {:>9.0} {:>9.1} {:>8.0} {:>8.0} {:>8.0} {:>9.0}",
            format!("{order} {direction}"),
            self.block_bytes,
            self.depth,
            self.iops,
            self.megabytes_per_second,
            self.latency.p50_us,
            self.latency.p99_us,
            self.latency.p99_9_us,
            self.latency.max_us
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use holdfast_types::BlockSize;

    use super::*;

    /// Answers after one millisecond and counts.
    #[derive(Debug, Default)]
    struct Slow {
        reads: AtomicU64,
        writes: AtomicU64,
        highest: AtomicU64,
    }

    impl Slow {
        async fn serve(&self, lba: Lba, blocks: u64, counter: &AtomicU64) {
            self.highest.fetch_max(lba.0 + blocks, Ordering::Relaxed);
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    impl Disk for Slow {
        fn block_size(&self) -> BlockSize {
            BlockSize::B512
        }

        fn blocks(&self) -> u64 {
            8192
        }

        async fn read(&self, lba: Lba, blocks: u32) -> Result<Bytes, Error> {
            self.serve(lba, u64::from(blocks), &self.reads).await;
            Ok(Bytes::new())
        }

        async fn write(&self, lba: Lba, data: Bytes) -> Result<(), Error> {
            self.serve(lba, data.len() as u64 / 512, &self.writes).await;
            Ok(())
        }
    }

    fn plan() -> Plan {
        Plan {
            depth: 8,
            warm_up: Duration::from_millis(20),
            duration: Duration::from_millis(100),
            ..Plan::default()
        }
    }

    #[tokio::test]
    async fn every_pattern_stays_in_its_span_and_is_counted() {
        for direction in [Direction::Read, Direction::Write, Direction::Mixed] {
            for order in [Order::Random, Order::Sequential] {
                let disk = Arc::new(Slow::default());
                let span_bytes = Some(1 << 20);
                let plan = Plan {
                    direction,
                    order,
                    span_bytes,
                    ..plan()
                };
                let report = run(&plan, &[Arc::clone(&disk)]).await.unwrap();
                let (reads, writes) = (
                    disk.reads.load(Ordering::Relaxed),
                    disk.writes.load(Ordering::Relaxed),
                );
                assert!(disk.highest.load(Ordering::Relaxed) <= 2048);
                assert_eq!(reads > 0, direction != Direction::Write);
                assert_eq!(writes > 0, direction != Direction::Read);
                assert!(report.operations > 0 && report.operations <= reads + writes);
                assert!(report.latency.p50_us >= 1000.0 && report.latency.max_us >= report.latency.p99_us);
            }
        }
    }

    #[tokio::test]
    async fn the_report_reads_as_a_table_and_as_json() {
        let report = run(&plan(), &[Arc::new(Slow::default())]).await.unwrap();
        let line = report.to_string();
        assert!(line.starts_with("random write"), "{line}");
        assert_eq!(line.len(), Report::HEADING.len());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (json["depth"].as_u64(), json["direction"].as_str()),
            (Some(8), Some("write"))
        );
        assert!(json["latency"]["p99_9_us"].as_f64().unwrap() > 0.0);
    }

    #[tokio::test]
    async fn a_plan_that_does_not_fit_is_refused() {
        let disk = [Arc::new(Slow::default())];
        for plan in [
            Plan {
                block_bytes: 1000,
                ..plan()
            },
            Plan {
                block_bytes: 0,
                ..plan()
            },
            Plan { depth: 0, ..plan() },
            Plan {
                span_bytes: Some(4096),
                ..plan()
            },
        ] {
            assert!(
                matches!(run(&plan, &disk).await, Err(Error::Usage(_))),
                "{plan:?}"
            );
        }
    }
}
