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
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

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

/// A way back of replica b.
struct WayBack {
    /// What b received, headers of every layer included.
    bytes: u64,
    /// From the start of its process until it is in sync.
    time: Duration,
    /// Bytes a second, from the first hundredth of all that came to the last one; `None` where no two looks lie between.
    rate: Option<f64>,
    /// Processor time of both data nodes meanwhile.
    cpu: Duration,
}

/// Bytes that the machine of a process has received.
fn received(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/net/dev"))?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
    let first = line.and_then(|line| line.split_whitespace().next());
    Ok(first.context("a line of eth0")?.parse()?)
}

/// Processor time that a process has used.
fn used(process: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind the name, which may hold anything: 11 fields, then user and system time, in hundredths of a second.
    let (_, rest) = text.rsplit_once(')').context("a name")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(10 * ticks.sum::<Result<u64, _>>()?))
}

async fn come_back(lan: &mut Lan) -> Result<WayBack> {
    let before = lan.received("b")?;
    let (began, cpu) = (Instant::now(), used(lan.process("a")?)?);
    lan.start_node("b")?;
    let process = lan.process("b")?;
    let (stop, mut stopped) = oneshot::channel::<()>();
    let watch = tokio::spawn(async move {
        let mut seen = Vec::new();
        while stopped
            .try_recv()
            .is_err_and(|error| error == TryRecvError::Empty)
        {
            seen.push((began.elapsed(), received(process)?.saturating_sub(before)));
            sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(seen)
    });
    lan.wait_for("b in sync again", LIMIT, Status::is_whole).await?;
    let time = began.elapsed();
    drop(stop);
    let seen = watch.await??;
    let bytes = seen.last().context("it was looked at")?.1;
    let when = |part: u64| seen.iter().find(|(_, got)| *got >= bytes / 100 * part);
    let (first, last) = when(1).zip(when(99)).context("all of it came")?;
    Ok(WayBack {
        bytes,
        time,
        rate: (last.0 > first.0).then(|| (last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64()),
        cpu: used(lan.process("a")?)? - cpu + used(process)?,
    })
}

async fn lose(lan: &mut Lan) -> Result<()> {
    lan.kill("b").await?;
    let is_alone = |status: &Status| status.extents[0].in_sync == ["a"];
    lan.wait_for("a alone", LIMIT, is_alone).await?;
    Ok(())
}

const fn plan(seed: u64, duration: Duration) -> bench::Plan {
    bench::Plan {
        direction: Direction::Write,
        order: Order::Random,
        block_bytes: 4096,
        depth: 4,
        warm_up: Duration::from_millis(200),
        duration,
        span_bytes: None,
        seed,
    }
}

/// What travelled, in one line.
fn told(what: &str, size: u64, back: &WayBack) -> String {
    let mib = |bytes: f64| bytes / MIB as f64;
    let rate = back.rate.map_or_else(
        || "too quickly to measure".to_owned(),
        |rate| format!("{:.0} MiB/s while it did", mib(rate)),
    );
    format!(
        "{what}: {:.1} % of {:.0} MiB travelled, {rate}, in sync after {:.2?}, {:.1} ms of processor time a MiB",
        back.bytes as f64 * 100.0 / size as f64,
        mib(size as f64),
        back.time,
        back.cpu.as_secs_f64() * 1e3 / mib(back.bytes as f64)
    )
}

/// The size of extents, and a cluster with one, filled with random bytes, whose primary is a.
async fn filled(random: &mut StdRng) -> Result<Option<(u64, Lan, Arc<Path>)>> {
    let size = u64::from(seed::number("HOLDFAST_RESYNC_MIB", 128)) * MIB;
    let Some(lan) = Lan::start(&format!("{}MiB", size / MIB)).await? else {
        return Ok(None);
    };
    lan.switchover("a").await?;
    let disk = path(&lan).await?;
    write(&disk, random, MIB, (0..size).step_by(1 << 20).collect()).await?;
    Ok(Some((size, lan, disk)))
}

/// R2: of an extent a tenth of which changed while a replica was away, that tenth travels, and little more.
#[tokio::test(flavor = "multi_thread")]
async fn r2_a_replica_that_was_away_gets_what_changed() -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed::seed("resync"));
    let Some((size, mut lan, disk)) = filled(&mut random).await? else {
        return Ok(());
    };
    say(&format!(
        "the disk writes {:.0} MiB/s",
        disk_rate(&lan)? / MIB as f64
    ));

    lose(&mut lan).await?;
    write(&disk, &mut random, MIB, (0..size / 10).step_by(1 << 20).collect()).await?;
    let joined = come_back(&mut lan).await?;
    say(&told("a tenth changed, in one piece", size, &joined));

    lose(&mut lan).await?;
    let pages = size / 4096;
    let places = (0..pages / 10)
        .map(|_| random.random_range(0..pages) * 4096)
        .collect();
    write(&disk, &mut random, 4096, places).await?;
    let back = come_back(&mut lan).await?;
    say(&told("a tenth changed, in blocks of 4 KiB all over", size, &back));

    // What the link gives is the same everywhere, if it is the link that is slow.
    let link = u64::from(seed::number("HOLDFAST_LINK_MIB", 50)) * MIB;
    if lan.network().slow("b", link)? {
        lose(&mut lan).await?;
        write(&disk, &mut random, MIB, (0..size / 10).step_by(1 << 20).collect()).await?;
        let back = come_back(&mut lan).await?;
        let of_link = back
            .rate
            .map(|rate| format!(": {:.0} % of the link", rate * 100.0 / link as f64));
        let what = format!("the same in one piece, over a link of {} MiB/s", link / MIB);
        say(&format!(
            "{}{}",
            told(&what, size, &back),
            of_link.unwrap_or_default()
        ));
    }
    let percent = joined.bytes as f64 * 100.0 / size as f64;
    ensure!(
        percent < 12.0 + 100.0 * 2e6 / size as f64,
        "{percent:.1} % travelled"
    );
    Ok(())
}

/// What initiators notice of a resync. Asserts no figure: tests share their machine.
#[tokio::test(flavor = "multi_thread")]
async fn r2_initiators_are_served_while_a_replica_comes_back() -> Result<()> {
    let seed = seed::seed("resync under load");
    let mut random = StdRng::seed_from_u64(seed);
    let Some((size, mut lan, disk)) = filled(&mut random).await? else {
        return Ok(());
    };
    let calm = bench::run(&plan(seed, Duration::from_secs(5)), &[Arc::clone(&disk)]).await?;
    lose(&mut lan).await?;
    let alone = bench::run(&plan(seed + 1, Duration::from_secs(5)), &[Arc::clone(&disk)]).await?;
    write(&disk, &mut random, MIB, (0..size).step_by(1 << 20).collect()).await?;
    // Not longer than the way back takes, as far as that can be told before: what comes later is peace again.
    let disks = [Arc::clone(&disk)];
    let work = plan(seed + 2, Duration::from_millis(1500 + 6 * size / MIB));
    let load = tokio::spawn(async move { bench::run(&work, &disks).await });
    let back = come_back(&mut lan).await?;
    let busy = load.await??;
    for (what, run) in [
        ("both in sync", &calm),
        ("one replica", &alone),
        ("the other comes back", &busy),
    ] {
        say(&format!(
            "4 KiB random writes, depth 4, {what}: p99 {:.0} us, {:.0}/s over {:.1} s",
            run.latency.p99_us, run.iops, run.seconds
        ));
    }
    say(&format!(
        "{}; p99 {:.1} times that of both in sync",
        told("all of it changed", size, &back),
        busy.latency.p99_us / calm.latency.p99_us
    ));
    Ok(())
}
