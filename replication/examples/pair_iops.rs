//! Prints what an in-process pair does: 4 KiB random writes a second at queue depth 1 and 32, both copies durable, and the
//! processor time of each, both nodes together. A figure to start from and a place to point a profiler at; no network, no SCSI.
//!
//! `cargo run --release -p holdfast-replication --example pair_iops [DIRECTORY [SECONDS]]`
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

#[path = "../tests/pair/mod.rs"]
mod pair;

use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_replication::driver::DriverConfig;
use holdfast_types::OpOutcome;
use pair::{A, B, BLOCK, Node, Pair};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const BYTES: u64 = 1 << 30;

fn cpu() -> Duration {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        usage.tv_sec.try_into().unwrap(),
        usage.tv_nsec.try_into().unwrap(),
    )
}

fn measure(
    name: &str,
    node: &Node,
    depth: usize,
    seconds: u64,
    op: impl Fn(u64, Bytes) -> holdfast_types::BlockOp,
) {
    let mut rng = StdRng::seed_from_u64(1);
    let data = Bytes::from(vec![0x5a; 4096]);
    let mut times = Vec::new();
    let mut open = std::collections::HashMap::new();
    let mut submit = |open: &mut std::collections::HashMap<_, _>| {
        let begun = Instant::now();
        let lba = rng.random_range(0..BYTES / BLOCK);
        open.insert(node.submit(op(lba, data.clone())), begun);
    };
    let (start, cpu_start) = (Instant::now(), cpu());
    (0..depth).for_each(|_| submit(&mut open));
    let answers = node.answers.lock().unwrap();
    while !open.is_empty() {
        let (id, outcome) = answers.recv().unwrap();
        assert!(
            matches!(outcome, OpOutcome::Done | OpOutcome::Data(_)),
            "{outcome:?}"
        );
        times.push(open.remove(&id).unwrap().elapsed());
        if start.elapsed() < Duration::from_secs(seconds) {
            submit(&mut open);
        }
    }
    let (took, used) = (start.elapsed(), cpu() - cpu_start);
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{name:24} depth {depth:2}: {:8.0} /s   p50 {:6} us  p99 {:6} us  p99.9 {:6} us   cpu {:5.1} us each",
        times.len() as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        used.as_secs_f64() * 1e6 / times.len() as f64,
    );
}

fn main() {
    let mut args = std::env::args().skip(1);
    let root = args.next().unwrap_or_else(|| ".".to_owned());
    let seconds = args
        .next()
        .map_or(5, |text| text.parse().expect("a number of seconds"));
    let dir = tempfile::tempdir_in(root).unwrap();
    let pair = Pair::new(dir.path(), BYTES, DriverConfig::default());
    pair.wait_serving(A);
    let read = |lba, _| holdfast_types::BlockOp::Read {
        range: holdfast_types::BlockRange::new(holdfast_types::Lba(lba), 1).unwrap(),
    };
    // Segments of the journal are being prepared.
    std::thread::sleep(Duration::from_secs(1));
    for depth in [1, 32] {
        measure("4 KiB random write", &pair.node(A), depth, seconds, pair::write);
    }
    measure("the same, forwarded", &pair.node(B), 32, seconds, pair::write);
    measure("4 KiB random read", &pair.node(A), 32, seconds.min(2), read);
    measure("the same, forwarded", &pair.node(B), 32, seconds.min(2), read);
}
