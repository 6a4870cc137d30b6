//! The scrub of real nodes: cold blocks that rotted, and blocks that differ although every checksum is right, while nothing reads them.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_tests::cluster::{Demo, holdfast};
use holdfast_tests::{say, seed};
use holdfast_types::Lba;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::Value;
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(60);
const BLOCK: u64 = 512;
/// Blocks that the test writes, from the first one on.
const BLOCKS: u64 = 8192;

/// A node's only extent: its data, or its checksums.
fn file(demo: &Demo, node: &str, kind: &str) -> Result<PathBuf> {
    let dir = demo.dir().join(node).join("data/extents");
    let found = std::fs::read_dir(&dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|it| it == kind));
    found.with_context(|| format!("no .{kind} in {}", dir.display()))
}

/// Changes bytes of a file.
fn change(path: &Path, at: u64, len: usize, how: impl FnOnce(&mut [u8])) -> Result<()> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at)?;
    how(&mut bytes);
    Ok(file.write_all_at(&bytes, at)?)
}

/// Flips a bit of a block.
fn rot(demo: &Demo, node: &str, block: u64, bit: usize) -> Result<()> {
    let path = file(demo, node, "img")?;
    change(&path, block * BLOCK, 512, |data| data[bit / 8] ^= 1 << (bit % 8))
}

/// Makes a block another one, with the right checksum: as a lost write of both, or a fork of the replicas, would.
fn fork(demo: &Demo, node: &str, block: u64) -> Result<()> {
    let mut sum = 0;
    change(&file(demo, node, "img")?, block * BLOCK, 512, |data| {
        data.fill(0x5a);
        sum = crc32c::crc32c(data) ^ crc32c::crc32c(&[0; 512]);
    })?;
    change(&file(demo, node, "sum")?, block * 4, 4, |bytes| {
        bytes.copy_from_slice(&sum.to_le_bytes());
    })
}

/// The only extent, as its primary's node tells of it.
async fn extent(demo: &Demo, primary: &str) -> Result<Value> {
    let text = holdfast(&["status", "--json", "--admin", demo.admin(primary)?])
        .await?
        .success()?;
    let status: Value = serde_json::from_str(&text)?;
    Ok(status["extents"][0].clone())
}

/// Has the replicas compared, by the word of this node, and waits for the end of it.
async fn scrub(demo: &Demo, asked: &str, primary: &str) -> Result<Value> {
    let before = extent(demo, primary).await?["scrub"]["last"]["ended_unix_seconds"].clone();
    // The end is told in whole seconds.
    sleep(Duration::from_millis(1100)).await;
    let name = extent(demo, primary).await?["name"].clone();
    let name = name.as_str().context("the extent's name")?;
    holdfast(&["extent", "scrub", name, "--admin", demo.admin(asked)?])
        .await?
        .success()?;
    let began = Instant::now();
    loop {
        let extent = extent(demo, primary).await?;
        let last = extent["scrub"]["last"].clone();
        if last["ended_unix_seconds"].is_u64() && last["ended_unix_seconds"] != before {
            return Ok(last);
        }
        ensure!(
            began.elapsed() < LIMIT,
            "no scrub ended: {extent}\n{}",
            demo.logs()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

fn log_of(demo: &Demo, node: &str) -> Result<String> {
    let bytes = std::fs::read(demo.dir().join(node).join("node.log"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits until what is committed is in both extents' files, and these are the same.
async fn equal(demo: &Demo) -> Result<()> {
    let began = Instant::now();
    loop {
        let [a, b] =
            ["a", "b"].map(|node| std::fs::read(file(demo, node, "img")?).map_err(anyhow::Error::from));
        if a? == b? {
            return Ok(());
        }
        ensure!(began.elapsed() < LIMIT, "the replicas differ\n{}", demo.logs());
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_scrub_finds_and_repairs_what_nobody_reads() -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed::seed("scrub"));
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let disk = demo.multipath(&["a", "b"]).await?;
    let mut data = vec![0; usize::try_from(BLOCKS * BLOCK)?];
    random.fill_bytes(&mut data);
    let data = Bytes::from(data);
    for (n, part) in data.chunks(1 << 18).enumerate() {
        disk.write(Lba(n as u64 * 512), data.slice_ref(part)).await?;
    }
    equal(&demo).await?;
    let primary = demo.primary().await?;
    let replica = if primary == "a" { "b" } else { "a" };
    let calm = scrub(&demo, replica, &primary).await?;
    ensure!(calm["bad_blocks"] == 0 && calm["diverged_blocks"] == 0, "{calm}");

    // Blocks far from each other: one bad here, one bad there, one that only a comparison can tell.
    let mut place = |from: u64| from + random.random_range(0..1024);
    let (here, there, forked) = (place(0), place(2048), place(6144));
    rot(&demo, &primary, here, 4095)?;
    rot(&demo, replica, there, 0)?;
    fork(&demo, replica, forked)?;
    let found = scrub(&demo, "w", &primary).await?;
    say(&format!("blocks {here}, {there} and {forked}: {found}"));
    // They are counted in pieces of 4 KiB.
    ensure!(
        found["bad_blocks"] == 16 && found["repaired_blocks"] == 16,
        "{found}"
    );
    ensure!(
        found["diverged_blocks"] == 8 && found["lost_blocks"] == 0,
        "{found}"
    );
    let log = log_of(&demo, &primary)?;
    ensure!(log.contains("A REPLICA IN SYNC DIFFERS"), "{log}");
    ensure!(log.contains("a scrub compared every replica in sync"), "{log}");
    let alarms = holdfast(&["status", "--admin", demo.admin(&primary)?])
        .await?
        .success()?;
    ensure!(alarms.contains("REPLICAS IN SYNC DIFFERED"), "{alarms}");
    ensure!(alarms.contains("last scrub "), "{alarms}");

    equal(&demo).await?;
    for node in ["a", "b"] {
        let disk = demo.multipath(&[node]).await?;
        for block in [here, there, forked] {
            let at = usize::try_from(block * BLOCK)?;
            ensure!(
                disk.read(Lba(block), 1).await?[..] == data[at..at + 512],
                "block {block} through {node}"
            );
        }
    }
    let after = scrub(&demo, &primary, &primary).await?;
    ensure!(
        after["bad_blocks"] == 0 && after["diverged_blocks"] == 0,
        "{after}"
    );

    // Who asks in a cluster that has lost a replica hears of it, and the scrub waits for that replica.
    demo.kill(replica)?;
    demo.wait_for("one replica", LIMIT, |status| {
        status.extents[0].in_sync.len() == 1
    })
    .await?;
    let name = demo.status().await?.extents[0].name.clone();
    let done = holdfast(&["extent", "scrub", &name, "--admin", demo.admin(&primary)?])
        .await?
        .success()?;
    ensure!(done.contains("only one replica"), "{done}");
    let nonsense = holdfast(&["extent", "scrub", "nonsense", "--admin", demo.admin(&primary)?]).await?;
    ensure!(nonsense.code == Some(1), "an unknown extent");
    Ok(())
}
