//! COMPARE AND WRITE over failovers: a host whose lock it is never finds it taken by itself (W6).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use holdfast_drill::cdb;
use holdfast_drill::error::{Error, SenseCode};
use holdfast_drill::initiator::{Dial, Session};
use holdfast_tests::cluster::Demo;
use holdfast_tests::{say, seed};
use holdfast_types::Lba;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

/// For coming back and being in sync again, on a machine that does other things, too.
const LIMIT: Duration = Duration::from_secs(90);
const LOCK: Lba = Lba(4096);

fn block(value: u64) -> Bytes {
    let mut block = vec![0; 512];
    block[..8].copy_from_slice(&value.to_be_bytes());
    block.into()
}

/// What the chain has come to.
#[derive(Debug, Default)]
struct Progress {
    /// The last value put, as far as answered.
    value: AtomicU64,
    /// The path it uses.
    at: AtomicUsize,
    /// Commands that were sent again after their connection was lost.
    again: AtomicU64,
    stop: AtomicBool,
}

/// The only writer of a block counts it up, each time from what it put last. A command without an answer is sent again, on the other path.
struct Chain {
    paths: Vec<Dial>,
    session: Option<Session>,
    progress: Arc<Progress>,
}

impl Chain {
    async fn run(mut self) -> Result<()> {
        let mut value = 0;
        while !self.progress.stop.load(Ordering::Relaxed) {
            self.swap(value, value + 1).await?;
            value += 1;
            self.progress.value.store(value, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn swap(&mut self, old: u64, new: u64) -> Result<()> {
        let began = Instant::now();
        let data: Bytes = [block(old), block(new)].concat().into();
        let mut tries = 0;
        while began.elapsed() < LIMIT {
            let Some(session) = self.session().await else {
                continue;
            };
            let answer = session
                .command_out(cdb::compare_and_write(LOCK, 1), data.clone())
                .await;
            let error = match answer {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error {
                Error::CheckCondition(SenseCode::MISCOMPARE) => {
                    bail!("{old} -> {new} miscompares after {tries} connections lost under it");
                }
                Error::CheckCondition(sense) if sense.is_unit_attention() => {}
                Error::CheckCondition(SenseCode::TRANSITION) | Error::Status(0x08) => {
                    sleep(Duration::from_millis(20)).await;
                }
                Error::CheckCondition(SenseCode::STANDBY | SenseCode::UNAVAILABLE) => self.elsewhere().await,
                Error::Lost(_) | Error::Timeout(_) => {
                    tries += 1;
                    self.progress.again.fetch_add(1, Ordering::Relaxed);
                    self.elsewhere().await;
                }
                other => bail!("{old} -> {new}: {other}"),
            }
        }
        bail!("{old} -> {new} had no answer for {:?}", began.elapsed())
    }

    async fn session(&mut self) -> Option<&Session> {
        if self.session.is_none() {
            let at = self.progress.at.load(Ordering::Relaxed) % self.paths.len();
            match Session::connect(&self.paths[at]).await {
                Ok(session) => self.session = Some(session),
                Err(_) => self.elsewhere().await,
            }
        }
        self.session.as_ref()
    }

    async fn elsewhere(&mut self) {
        self.session = None;
        self.progress.at.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(5)).await;
    }
}

/// W6: one of the data nodes is killed again and again while one host counts a block up. None of its commands miscompares: one that had
/// taken effect when its connection went down is known when it is sent again. `HOLDFAST_ROUNDS` says how many kills (12).
#[tokio::test(flavor = "multi_thread")]
async fn w6_a_hosts_lock_is_never_taken_by_itself_while_nodes_are_killed() -> Result<()> {
    let rounds = seed::number("HOLDFAST_ROUNDS", 12);
    let seed = seed::seed("compare_and_write");
    let mut random = StdRng::seed_from_u64(seed);
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    // It begins on either portal.
    for at in 0..2 {
        clear(&demo).await?;
        let paths = ["a", "b"]
            .map(|name| demo.dial(name))
            .into_iter()
            .collect::<Result<_>>()?;
        let progress = Arc::new(Progress::default());
        progress.at.store(at, Ordering::Relaxed);
        let chain = Chain {
            paths,
            session: None,
            progress: Arc::clone(&progress),
        };
        let mut task = tokio::spawn(chain.run());
        for round in 0..rounds / 2 {
            let what = || format!("round {round}, HOLDFAST_SEED={seed}\n{}", demo.logs());
            tokio::select! {
                ended = &mut task => ended?.with_context(what)?,
                () = sleep(Duration::from_millis(random.random_range(200..1500))) => {}
            }
            // Mostly the node that it talks to: what took effect there may not have been answered.
            let other = usize::from(random.random_bool(0.2));
            let name = ["a", "b"][(progress.at.load(Ordering::Relaxed) + other) % 2];
            demo.kill(name)?;
            sleep(Duration::from_millis(random.random_range(0..1500))).await;
            demo.restart(name).await?;
            // Until it is served again, status may tell of the time before the kill; and what is remembered is in memory only: the next one
            // must not die before this one knows it, too.
            let mark = progress.value.load(Ordering::Relaxed);
            let served = async {
                while progress.value.load(Ordering::Relaxed) <= mark + 1 {
                    sleep(Duration::from_millis(20)).await;
                }
                demo.wait_in_sync(LIMIT).await
            };
            tokio::select! {
                ended = &mut task => ended?.with_context(what)?,
                whole = served => { whole.with_context(what)?; }
            }
        }
        progress.stop.store(true, Ordering::Relaxed);
        task.await?
            .with_context(|| format!("HOLDFAST_SEED={seed}\n{}", demo.logs()))?;
        let value = progress.value.load(Ordering::Relaxed);
        ensure!(
            found(&demo).await? == value,
            "the block does not hold what the host put last, {value}"
        );
        say(&format!(
            "counted to {value}, {} sent again, none miscompared",
            progress.again.load(Ordering::Relaxed)
        ));
        ensure!(value > 100, "it hardly moved: {value}");
    }
    Ok(())
}

async fn clear(demo: &Demo) -> Result<()> {
    let disk = demo.multipath(&["a", "b"]).await?;
    holdfast_drill::disk::Disk::write(&*disk, LOCK, block(0)).await?;
    Ok(())
}

async fn found(demo: &Demo) -> Result<u64> {
    let disk = demo.multipath(&["b", "a"]).await?;
    let data = holdfast_drill::disk::Disk::read(&*disk, LOCK, 1).await?;
    Ok(u64::from_be_bytes(data[..8].try_into()?))
}
