//! A primary that stands still for ten seconds and wakes up believing that it still is the primary.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use holdfast_drill::cdb;
use holdfast_drill::disk::Disk;
use holdfast_drill::initiator::{Pending, Session};
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::Demo;
use holdfast_tests::{say, seed};
use holdfast_types::Lba;
use rustix::process::Signal;
use tokio::time::sleep;

const FAILOVER_LIMIT: Duration = Duration::from_secs(3);
const SYNC_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(10);
/// Blocks that the workload does not touch: it keeps to the first 16 MiB.
const APART: u64 = 40 << 11;
const COMMANDS: u64 = 16;
const OLD: u8 = 1;
const NEW: u8 = 2;
const GHOST: u8 = 3;

fn block(fill: u8) -> Bytes {
    Bytes::from(vec![fill; 4096])
}

fn at(index: u64) -> Lba {
    Lba(APART + index * 8)
}

/// Commands that lie in the sleeper's socket while it sleeps.
struct Waiting {
    reads: Vec<Pending>,
    writes: Vec<Pending>,
}

impl Waiting {
    async fn send(sleeper: &Session) -> Result<Self> {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for index in 0..COMMANDS {
            reads.push(
                sleeper
                    .start(cdb::read_16(at(index), 8), Some(4096), Bytes::new())
                    .await?,
            );
            writes.push(
                sleeper
                    .start(cdb::write_16(at(index), 8), None, block(GHOST))
                    .await?,
            );
        }
        Ok(Self { reads, writes })
    }

    /// A read may be refused or fresh; no write may be acknowledged after such a wait.
    async fn judge(self, sleeper: &Session) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(10);
        for read in self.reads {
            if let Ok(data) = sleeper.wait(read, LIMIT).await {
                ensure!(data == block(NEW), "a stale read: {:?}", &data[..4]);
            }
        }
        for write in self.writes {
            let answer = sleeper.wait(write, LIMIT).await;
            ensure!(
                answer.is_err(),
                "a write that had waited for {PAUSE:?} was acknowledged"
            );
        }
        Ok(())
    }
}

/// I3, I4, I11 (L7, W1): what waits in the sleeper's socket is never carried out, and no read of it is stale.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_sleeps_ten_seconds_acknowledges_nothing_and_reads_nothing_stale() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(SYNC_LIMIT).await?;
    let primary = demo.primary().await?;
    let (other, lane) = if primary == "a" { ("b", 1) } else { ("a", 0) };
    let disks = [
        demo.multipath(&["a", "b"]).await?,
        demo.multipath(&["b", "a"]).await?,
    ];
    let load = workload::start(Plan::small(seed::seed("pause")), &disks)?;
    let (sleeper, witness) = (demo.session(&primary).await?, demo.session(other).await?);
    for index in 0..COMMANDS {
        witness.write(at(index), block(OLD)).await?;
    }

    demo.signal(&primary, Signal::STOP)?;
    let pause = load.served(lane, FAILOVER_LIMIT).await?;
    say(&format!("{primary} stopped, {other} served after {pause:.2?}"));
    let fresh = demo.multipath(&[other]).await?;
    for index in 0..COMMANDS {
        fresh.write(at(index), block(NEW)).await?;
    }
    let waiting = Waiting::send(&sleeper).await?;
    sleep(PAUSE - pause).await;
    demo.signal(&primary, Signal::CONT)?;
    waiting.judge(&sleeper).await?;
    demo.wait_in_sync(SYNC_LIMIT).await?;
    let (report, verifier) = load.stop().await;
    report.clean().map_err(anyhow::Error::msg)?;
    for name in ["a", "b"] {
        let session = demo.session(name).await?;
        for index in 0..COMMANDS {
            ensure!(
                session.read(at(index), 8).await? == block(NEW),
                "block {index} through {name}"
            );
        }
        verifier
            .verify(&session, name)
            .await
            .map_err(anyhow::Error::msg)?;
    }
    Ok(())
}
