//! Prints how long durable appends of 4 KiB take: `cargo run --release -p holdfast-journal --example latency -- DIRECTORY`.

use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_journal::{Completion, Config, FileDevice, Journal, OpenOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: latency DIRECTORY")?;
    let (tell, heard) = mpsc::channel();
    let sink = move |completion: Completion<Instant>| drop(tell.send((Instant::now(), completion)));
    let device = FileDevice::open(path.as_ref())?;
    let (journal, recovery) = Journal::open(
        device,
        Config::replication("latency"),
        OpenOptions::default(),
        sink,
        |_| {},
    )?;
    let mut out = std::io::stdout();
    writeln!(out, "{} records found, {:?}", recovery.records, recovery.verdict)?;
    std::thread::sleep(Duration::from_millis(500));
    let payload = Bytes::from(vec![0x5a; 4096]);
    for depth in [1, 32] {
        let mut times = Vec::new();
        let (start, mut waiting) = (Instant::now(), 0);
        while times.len() < 8000 {
            while waiting < depth {
                journal.append(1, Bytes::from_static(&[0; 48]), payload.clone(), Instant::now())?;
                waiting += 1;
            }
            let (now, completion) = heard.recv()?;
            match completion {
                Completion::Durable { tags, .. } => {
                    waiting -= tags.len();
                    times.extend(tags.iter().map(|sent| now - *sent));
                }
                Completion::Failed { error, .. } => return Err(error.into()),
            }
            journal.release_before(journal.durable_through());
        }
        let took = start.elapsed();
        let count = times.len();
        times.sort();
        let (p50, p99) = (times[count / 2], times[count * 99 / 100]);
        writeln!(
            out,
            "depth {depth}: p50 {p50:?}, p99 {p99:?}, {:.0} per second",
            count as f64 / took.as_secs_f64()
        )?;
    }
    Ok(())
}
