//! Files of one node damaged by hand while it was down: it starts by rebuilding what can be rebuilt, or says in one line what is
//! broken and stays out. The cluster serves on in any case.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::Demo;
use holdfast_tests::{say, seed};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(60);

/// What a damaged node may do.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// In sync again: what was broken is rebuilt.
    Rebuilt,
    /// Out, with this line.
    StaysOut(String),
}

/// Directories of this name below a node's directory.
fn directories(node: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![node.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|it| it == name) {
                    found.push(path.clone());
                }
                left.push(path);
            }
        }
    }
    ensure!(
        !found.is_empty(),
        "no directory '{name}' below {}",
        node.display()
    );
    Ok(found)
}

fn files_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_of(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Overwrites a few bytes in each non-zero page of the front of the used part: records lie there, wherever they are exactly.
fn spoil(path: &Path) -> Result<usize> {
    const PAGE: usize = 4096;
    const PAGES_MAX: usize = 4;
    let contents = std::fs::read(path)?;
    let used: Vec<usize> = (0..contents.len() / PAGE)
        .filter(|page| {
            contents[page * PAGE..(page + 1) * PAGE]
                .iter()
                .any(|byte| *byte != 0)
        })
        .collect();
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    if used.len() < 2 {
        return spoil_middle(&file, &contents);
    }
    // Neither the first page (the header) nor the last ones: whole records of later groups stay behind the damage.
    let middle = used.len() / 2;
    let chosen = used
        .iter()
        .skip(1.max(middle.saturating_sub(PAGES_MAX / 2)))
        .take(PAGES_MAX);
    let mut spoiled = 0;
    for page in chosen {
        let at = page * PAGE + 100;
        let flipped: Vec<u8> = contents[at..at + 64].iter().map(|byte| byte ^ 0xa5).collect();
        file.write_all_at(&flipped, at as u64)?;
        spoiled += 1;
    }
    Ok(spoiled)
}

/// The same for a file that has one page at most: bytes in the middle of what is used of it.
fn spoil_middle(file: &std::fs::File, contents: &[u8]) -> Result<usize> {
    let is_used = |byte: &u8| *byte != 0;
    let (Some(first), Some(last)) = (
        contents.iter().position(is_used),
        contents.iter().rposition(is_used),
    ) else {
        return Ok(0);
    };
    let at = first + (last - first) / 2;
    let flipped: Vec<u8> = contents[at..=last]
        .iter()
        .take(64)
        .map(|byte| byte ^ 0xa5)
        .collect();
    file.write_all_at(&flipped, at as u64)?;
    Ok(1)
}

/// Spoils every file with contents in the directories of this name; there must be one.
fn spoil_all(node: &Path, name: &str) -> Result<()> {
    let mut spoiled = 0;
    for dir in directories(node, name)? {
        for file in files_of(&dir)? {
            spoiled += spoil(&file)?;
        }
    }
    ensure!(
        spoiled > 0,
        "nothing to spoil in '{name}' below {}",
        node.display()
    );
    Ok(())
}

/// Writes, kills a node, lets `damage` loose on its directory, asks it back, and tells what becomes of it.
async fn hurt(node: &str, damage: impl Fn(&Path) -> Result<()>) -> Result<Outcome> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let disks = [
        demo.multipath(&["a", "b"]).await?,
        demo.multipath(&["b", "a"]).await?,
    ];
    let plan = Plan {
        units: 1024,
        ..Plan::small(seed::seed("damage"))
    };
    let load = workload::start(plan, &disks)?;
    load.served(0, LIMIT).await?;
    sleep(Duration::from_secs(1)).await;
    demo.kill(node)?;
    load.served(0, LIMIT).await?;
    damage(&demo.dir().join(node)).with_context(|| demo.logs())?;
    let log = demo.dir().join(node).join("node.log");
    let before = std::fs::read(&log).unwrap_or_default().len();
    demo.restart(node).await?;

    let outcome = outcome(&demo, node, &log, before).await?;
    load.served(0, LIMIT).await?;
    load.served(1, LIMIT).await?;
    let (report, verifier) = load.stop().await;
    report.complete().map_err(anyhow::Error::msg)?;
    let disk = demo.multipath(&["a", "b"]).await?;
    verifier
        .verify(&*disk, "any path")
        .await
        .map_err(anyhow::Error::msg)?;
    say(&format!("{node}: {outcome:?}"));
    Ok(outcome)
}

async fn outcome(demo: &Demo, node: &str, log: &Path, before: usize) -> Result<Outcome> {
    let start = Instant::now();
    loop {
        if demo.status().await.is_ok_and(|status| status.is_whole()) {
            return Ok(Outcome::Rebuilt);
        }
        let text = std::fs::read(log).unwrap_or_default();
        let fresh = String::from_utf8_lossy(text.get(before..).unwrap_or_default()).into_owned();
        let words = ["damage", "broken", "corrupt", "checksum"];
        let line = fresh
            .lines()
            .find(|line| words.iter().any(|word| line.to_lowercase().contains(word)));
        // It said so and ended, or said so and has had its time to rebuild.
        if let Some(line) = line
            && (demo.pid(node).is_err() || start.elapsed() > LIMIT / 2)
        {
            return Ok(Outcome::StaysOut(line.to_owned()));
        }
        ensure!(
            start.elapsed() < LIMIT,
            "{node} is neither back nor says why\n{}",
            demo.logs()
        );
        sleep(Duration::from_millis(200)).await;
    }
}

/// J1: damage in the middle of the data journal is noticed; the replica is repaired from its peer or stays out.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_of_the_data_journal() -> Result<()> {
    hurt("b", |dir| spoil_all(dir, "journal")).await.map(drop)
}

/// L8: a voter without its log must not vote; it stays out and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_of_the_raft_log() -> Result<()> {
    let outcome = hurt("b", |dir| spoil_all(dir, "log")).await?;
    assert!(matches!(outcome, Outcome::StaysOut(_)), "{outcome:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_directory_of_the_applied_state_is_rebuilt() -> Result<()> {
    let outcome = hurt("b", |dir| spoil_all(dir, "applied")).await?;
    assert_eq!(outcome, Outcome::Rebuilt);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_directory_of_the_applied_state_is_rebuilt() -> Result<()> {
    let remove = |dir: &Path| {
        let dirs = directories(dir, "applied")?;
        dirs.iter()
            .try_for_each(std::fs::remove_dir_all)
            .map_err(anyhow::Error::from)
    };
    assert_eq!(hurt("b", remove).await?, Outcome::Rebuilt);
    Ok(())
}

/// A snapshot file that is no snapshot, beside whatever is there: it is set aside, and the log has the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_file_does_not_keep_a_node_out() -> Result<()> {
    let damage = |dir: &Path| {
        for snapshots in directories(dir, "snapshots")? {
            for file in files_of(&snapshots)? {
                spoil(&file)?;
            }
            std::fs::write(
                snapshots.join("00000000000000000007.snapshot"),
                b"HOLDSNAP, but not a whole one",
            )?;
        }
        Ok(())
    };
    assert_eq!(hurt("b", damage).await?, Outcome::Rebuilt);
    Ok(())
}
