//! What a replica's way back costs: how much travels, how fast, and what initiators notice of it. `HOLDFAST_RESYNC_MIB` is the
//! extent's size (128); figures that mean something need 1024 and a release build.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::bench::{self, Direction, Order};
use holdfast_drill::disk::Disk;
use holdfast_drill::initiator::Session;
use holdfast_drill::multipath::{MultiPath, Patience};
use holdfast_tests::lan::Lan;
use holdfast_tests::status::Status;
use holdfast_tests::{say, seed};
use holdfast_types::Lba;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;

type Path = MultiPath<Session>;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(300);

/// Writes random bytes: pieces of this size at these places (in bytes), eight at a time.
async fn write(disk: &Arc<Path>, random: &mut StdRng, piece: u64, places: Vec<u64>) -> Result<()> {
    let mut writes: JoinSet<Result<()>> = JoinSet::new();
    for place in places {
        let mut data = vec![0; usize::try_from(piece)?];
        random.fill_bytes(&mut data);
        let disk = Arc::clone(disk);
        writes.spawn(async move { Ok(disk.write(Lba(place / 512), Bytes::from(data)).await?) });
        if writes.len() >= 8 {
            writes.join_next().await.context("a write")???;
        }
    }
    while let Some(done) = writes.join_next().await {
        done??;
    }
    Ok(())
}

/// The LUN through a's portal alone, unit attentions handled as multipath layers do.
async fn path(lan: &Lan) -> Result<Arc<Path>> {
    let mut dial = lan.dial("a")?;
    dial.command_timeout = Duration::from_secs(30);
    Ok(Arc::new(
        MultiPath::connect(vec![dial], Patience::default()).await?,
    ))
}

/// What this machine's disk takes: bytes a second, written in one go and flushed.
fn disk_rate(lan: &Lan) -> Result<f64> {
    const BYTES: u64 = 128 * MIB;
    let path = lan.dir().join("rate");
    let began = std::time::Instant::now();
    let mut file = std::fs::File::create(&path)?;
    let piece = vec![0x5a; usize::try_from(MIB)?];
    for _ in 0..BYTES / MIB {
        std::io::Write::write_all(&mut file, &piece)?;
    }
    file.sync_data()?;
    let rate = BYTES as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// A way back of replica b: what it received meanwhile, and how long it took from the start of its process.
struct WayBack {
    bytes: u64,
    time: Duration,
}

async fn come_back(lan: &mut Lan) -> Result<WayBack> {
    let before = lan.received("b")?;
    let began = Instant::now();
    lan.start_node("b")?;
    lan.wait_for("b in sync again", LIMIT, Status::is_whole).await?;
    Ok(WayBack {
        bytes: lan.received("b")? - before,
        time: began.elapsed(),
    })
}

async fn lose(lan: &mut Lan) -> Result<()> {
    lan.kill("b").await?;
    let is_alone = |status: &Status| status.extents[0].in_sync == ["a"];
    lan.wait_for("a alone", LIMIT, is_alone).await?;
    Ok(())
}

const fn plan(seed: u64) -> bench::Plan {
    bench::Plan {
        direction: Direction::Write,
        order: Order::Random,
        block_bytes: 4096,
        depth: 4,
        warm_up: Duration::from_millis(200),
        duration: Duration::from_secs(5),
        span_bytes: None,
        seed,
    }
}

/// R2: of an extent a tenth of which changed while a replica was away, that tenth travels, and little more.
#[tokio::test(flavor = "multi_thread")]
async fn r2_a_replica_that_was_away_gets_what_changed() -> Result<()> {
    let size = u64::from(seed::number("HOLDFAST_RESYNC_MIB", 128)) * MIB;
    let seed = seed::seed("resync");
    let mut random = StdRng::seed_from_u64(seed);
    let Some(mut lan) = Lan::start(&format!("{}MiB", size / MIB)).await? else {
        return Ok(());
    };
    lan.switchover("a").await?;
    let rate = disk_rate(&lan)?;
    let disk = path(&lan).await?;
    write(&disk, &mut random, MIB, (0..size).step_by(1 << 20).collect()).await?;
    let percent = |bytes: u64| bytes as f64 * 100.0 / size as f64;
    let per_second = |bytes: u64, time: Duration| bytes as f64 / time.as_secs_f64() / MIB as f64;

    lose(&mut lan).await?;
    write(&disk, &mut random, MIB, (0..size / 10).step_by(1 << 20).collect()).await?;
    let back = come_back(&mut lan).await?;
    let joined = percent(back.bytes);
    say(&format!(
        "a tenth of {} MiB changed, in one piece: {joined:.1} % travelled in {:.2?} ({:.0} MiB/s; the disk writes {:.0} MiB/s)",
        size / MIB,
        back.time,
        per_second(back.bytes, back.time),
        rate / MIB as f64
    ));

    lose(&mut lan).await?;
    let pages = size / 4096;
    let places = (0..pages / 10)
        .map(|_| random.random_range(0..pages) * 4096)
        .collect();
    write(&disk, &mut random, 4096, places).await?;
    let back = come_back(&mut lan).await?;
    say(&format!(
        "a tenth of {} MiB changed, in blocks of 4 KiB all over: {:.1} % travelled in {:.2?} ({:.0} MiB/s)",
        size / MIB,
        percent(back.bytes),
        back.time,
        per_second(back.bytes, back.time)
    ));
    ensure!(
        joined < 12.0 + 100.0 * 2e6 / size as f64,
        "{joined:.1} % travelled"
    );
    Ok(())
}

/// What initiators notice of a resync. Asserts no figure: tests share their machine.
#[tokio::test(flavor = "multi_thread")]
async fn r2_initiators_are_served_while_a_replica_comes_back() -> Result<()> {
    let size = u64::from(seed::number("HOLDFAST_RESYNC_MIB", 128)) * MIB;
    let seed = seed::seed("resync under load");
    let mut random = StdRng::seed_from_u64(seed);
    let Some(mut lan) = Lan::start(&format!("{}MiB", size / MIB)).await? else {
        return Ok(());
    };
    lan.switchover("a").await?;
    let disk = path(&lan).await?;
    write(&disk, &mut random, MIB, (0..size).step_by(1 << 20).collect()).await?;
    let calm = bench::run(&plan(seed), &[Arc::clone(&disk)]).await?;
    lose(&mut lan).await?;
    write(&disk, &mut random, MIB, (0..size / 2).step_by(1 << 20).collect()).await?;
    let disks = [Arc::clone(&disk)];
    let work = plan(seed + 1);
    let load = tokio::spawn(async move { bench::run(&work, &disks).await });
    let back = come_back(&mut lan).await?;
    let busy = load.await??;
    say(&format!(
        "4 KiB random writes, depth 4: p99 {:.0} us in peace ({:.0}/s), {:.0} us ({:.0}/s) over {:.1} s in which half of {} MiB came back \
         within {:.2?}: {:.1} times",
        calm.latency.p99_us,
        calm.iops,
        busy.latency.p99_us,
        busy.iops,
        busy.seconds,
        size / MIB,
        back.time,
        busy.latency.p99_us / calm.latency.p99_us
    ));
    Ok(())
}
