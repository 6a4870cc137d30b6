//! Disks that fill up or fail under a node while initiators work: the cluster serves on from the other replica, nothing is lost, no
//! initiator sees an error for our own trouble (I8), and the node comes back once its disk does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::checker::{Initial, Rules};
use holdfast_drill::workload::mixed::{self, Mixed, Plan};
use holdfast_tests::cluster::{Demo, Place};
use holdfast_tests::history::judged;
use holdfast_tests::status::ReplicaState;
use holdfast_tests::tools::{self, call};
use holdfast_tests::{say, seed};
use holdfast_types::{BlockSize, Lba};
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(60);
/// How long initiators may wait when a replica is lost to its disk.
const SERVED_LIMIT: Duration = Duration::from_secs(15);
/// Hold limit, time in flight, and a slow machine.
const LATE: Duration = Duration::from_secs(15);

/// A mounted file system, unmounted when dropped.
struct Mount {
    umount: PathBuf,
    at: PathBuf,
}

impl Mount {
    fn make(at: &Path, arguments: &[&str]) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            say("left out: file systems of a test's own need root");
            return Ok(None);
        }
        let (Some(mount), Some(umount)) = (tools::find("mount", "mount"), tools::find("umount", "mount"))
        else {
            return Ok(None);
        };
        std::fs::create_dir_all(at)?;
        let place = at.to_str().context("a path in UTF-8")?;
        if let Err(error) = call(&mount, &[arguments, &[place]].concat()) {
            say(&format!(
                "left out: this file system cannot be mounted here ({error:#})"
            ));
            return Ok(None);
        }
        Ok(Some(Self {
            umount,
            at: at.to_owned(),
        }))
    }

    /// A file system in memory, of so many MiB.
    fn memory(at: &Path, mib: u64) -> Result<Option<Self>> {
        Self::make(at, &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
    }

    /// Takes all room there is.
    fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.at.join("filler"))?;
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        Ok(())
    }

    /// Gives the room back.
    fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.at.join("filler"))?)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let at = self.at.to_string_lossy().into_owned();
        // Lazily: its last user may not be gone yet.
        if let Err(error) = call(&self.umount, &["-l", &at]) {
            say(&format!("{at} is still mounted: {error:#}"));
        }
    }
}

/// Initiators all over the disk, so that it grows.
fn load(demo: &Demo, seed: u64) -> Result<Mixed> {
    let plan = Plan {
        seed,
        first: Lba(0),
        // 32 MiB: more than a file has room for without growing.
        blocks: 65_000,
        groups: 1,
        readers: 0,
        pause: Duration::from_millis(2),
        rules: Rules {
            initial: Initial::Zeros,
            late: Some(LATE),
        },
        reserves: false,
        may_be_full: false,
    };
    let orders = [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"]];
    let paths = |order: [&str; 2]| {
        order
            .iter()
            .map(|name| demo.dial(name))
            .collect::<Result<Vec<_>>>()
    };
    let initiators = orders.into_iter().map(paths).collect::<Result<_>>()?;
    Ok(mixed::start(plan, BlockSize::B512, initiators)?)
}

async fn judge(demo: &Demo, load: Mixed) -> Result<()> {
    let stopped = load.stop().await;
    for name in ["a", "b"] {
        stopped.look(&*demo.multipath(&[name]).await?).await?;
    }
    let (answered, summary) = judged(stopped).await?;
    say(&format!("{answered} calls answered, {summary:?}"));
    Ok(())
}

/// Waits until the cluster has given a replica up, and serves.
async fn until_lost(demo: &Demo, name: &str) -> Result<()> {
    let is_lost = |status: &holdfast_tests::status::Status| {
        let extent = &status.extents[0];
        let other = extent.primary.as_deref().is_some_and(|primary| primary != name);
        other && !extent.in_sync.iter().any(|node| node == name)
    };
    demo.wait_for("the other replica alone", LIMIT, is_lost).await?;
    Ok(())
}

/// Asks a node back with a sound disk, and waits until it is in sync.
async fn come_back(demo: &Demo, name: &str) -> Result<()> {
    if demo.pid(name).is_ok() {
        demo.kill(name)?;
    }
    demo.restart(name).await?;
    demo.wait_in_sync(LIMIT).await?;
    Ok(())
}

/// J2, I8: the disk of the replica, then that of the primary has no room left, for journal, extents and cluster state alike.
#[tokio::test(flavor = "multi_thread")]
async fn j2_a_full_disk_costs_its_replica_and_nothing_else() -> Result<()> {
    const MIB: u64 = 420;
    let place = Place::new()?;
    let (Some(a), Some(b)) = (
        Mount::memory(&place.dir().join("a"), MIB)?,
        Mount::memory(&place.dir().join("b"), MIB)?,
    ) else {
        return Ok(());
    };
    let demo = place.start("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let load = load(&demo, seed::seed("full disk"))?;
    load.served(SERVED_LIMIT).await?;
    for turn in ["replica", "primary"] {
        let primary = demo.primary().await?;
        let is_a = (primary == "a") == (turn == "primary");
        let (name, disk) = if is_a { ("a", &a) } else { ("b", &b) };
        disk.fill()?;
        until_lost(&demo, name).await?;
        let waited = load.served(SERVED_LIMIT).await.with_context(|| demo.logs())?;
        let status = demo.status().await?;
        let state = status.replica(name).map(|replica| replica.state);
        ensure!(
            state != Some(ReplicaState::InSync),
            "{name} is not in sync: {state:?}"
        );
        say(&format!(
            "the {turn}'s disk is full: {name} is {state:?}, all served after {waited:.2?}"
        ));
        sleep(Duration::from_secs(1)).await;
        disk.free()?;
        come_back(&demo, name).await?;
        load.served(SERVED_LIMIT).await?;
    }
    judge(&demo, load).await
}

/// J2, J1: the device below the primary's journal answers writes with I/O errors; the primary hands over, and comes back with a new
/// device: an empty journal, so all ranges are compared.
#[tokio::test(flavor = "multi_thread")]
async fn j2_an_error_of_the_journals_device_hands_the_extent_over() -> Result<()> {
    let place = Place::new()?;
    let Some(mkfs) = tools::find("mkfs.ext4", "e2fsprogs") else {
        return Ok(());
    };
    // An image without blocks in a file system without room: what is written to it fails below the file system, as on a bad disk.
    let Some(pool) = Mount::memory(&place.dir().join("pool"), 600)? else {
        return Ok(());
    };
    let image = pool.at.join("journal.img");
    std::fs::File::create(&image)?.set_len(1 << 30)?;
    let image_path = image.to_str().context("a path in UTF-8")?;
    call(
        &mkfs,
        &["-q", "-F", "-O", "^has_journal", "-E", "nodiscard", image_path],
    )?;
    let journal = place.dir().join("a/data/journal");
    let Some(disk) = Mount::make(&journal, &["-o", "loop", image_path])? else {
        return Ok(());
    };
    std::fs::remove_dir(journal.join("lost+found"))?;
    let demo = place.start("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let load = load(&demo, seed::seed("journal device"))?;
    load.served(SERVED_LIMIT).await?;
    ensure!(demo.primary().await? == "a", "a fresh demo's primary is a");
    pool.fill()?;
    let file = std::fs::OpenOptions::new().write(true).open(&image)?;
    let whole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, whole, 0, 1 << 30)?;
    // The hole gave room back.
    let mut more = std::fs::File::create(pool.at.join("more"))?;
    while more.write_all(&[1; 4096]).is_ok() {}
    until_lost(&demo, "a").await?;
    let waited = load.served(SERVED_LIMIT).await.with_context(|| demo.logs())?;
    say(&format!(
        "the journal's device fails: b serves alone, all served after {waited:.2?}"
    ));
    if demo.pid("a").is_ok() {
        demo.kill("a")?;
    }
    sleep(Duration::from_secs(1)).await;
    drop(disk);
    come_back(&demo, "a").await?;
    load.served(SERVED_LIMIT).await?;
    judge(&demo, load).await
}
