//! Faults that `holdfast fault` puts into running nodes: they do what they say, heal by themselves, and are seen while they last.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::{Disk, persistently};
use holdfast_drill::workload::{self, Plan, Running};
use holdfast_tests::cluster::{self, Demo};
use holdfast_tests::{say, seed, tools};
use holdfast_types::Lba;
use tokio::time::Instant;

const SYNC_LIMIT: Duration = Duration::from_secs(90);
const LIMIT: Duration = Duration::from_secs(40);

/// A whole pair, its primary's name and the other data node's.
async fn pair() -> Result<(Demo, String, &'static str)> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(SYNC_LIMIT).await?;
    let primary = demo.primary().await?;
    let other = if primary == "a" { "b" } else { "a" };
    Ok((demo, primary, other))
}

async fn load(demo: &Demo, name: &str) -> Result<Running> {
    let disks = [
        demo.multipath(&["a", "b"]).await?,
        demo.multipath(&["b", "a"]).await?,
    ];
    Ok(workload::start(Plan::small(seed::seed(name)), &disks)?)
}

/// `holdfast fault …` at a node.
async fn fault(demo: &Demo, at: &str, arguments: &[&str]) -> Result<tools::Finished> {
    let arguments = [&["fault"], arguments, &["--admin", demo.admin(at)?]].concat();
    cluster::holdfast(&arguments).await
}

async fn put(demo: &Demo, at: &str, site: &str, how: &str, lasts: &str) -> Result<()> {
    fault(demo, at, &["put", site, how, "--for", lasts])
        .await?
        .success()
        .map(drop)
}

async fn alarms(demo: &Demo, at: &str) -> Result<Vec<String>> {
    let alarms = demo.status_by(at).await?.alarms.into_iter();
    Ok(alarms
        .map(|alarm| alarm.to_string())
        .filter(|alarm| alarm.contains("a drill hurts"))
        .collect())
}

/// All is checked, and the cluster is whole by itself.
async fn ends_well(demo: &Demo, load: Running) -> Result<()> {
    demo.wait_in_sync(SYNC_LIMIT).await?;
    let (report, verifier) = load.stop().await;
    report.clean().map_err(anyhow::Error::msg)?;
    demo.verify(&verifier).await
}

/// The primary's links with both other nodes are cut within itself, both ways or one way: somebody else serves, and nobody has to heal.
async fn severed(way: &str) -> Result<()> {
    let (demo, primary, other) = pair().await?;
    let load = load(&demo, way).await?;
    let lane = usize::from(other == "b");
    load.served(lane, LIMIT).await?;
    for peer in [other, "w"] {
        put(&demo, &primary, &format!("link:{peer}{way}"), "cut", "8s").await?;
    }
    let start = Instant::now();
    let told = alarms(&demo, &primary).await?;
    ensure!(told.len() == if way.is_empty() { 4 } else { 2 }, "{told:?}");
    demo.wait_for("the other node as primary", LIMIT, |status| {
        status.primary() == Some(other)
    })
    .await?;
    load.served(lane, LIMIT).await?;
    // A link on which nothing is heard is given up, whatever is still held back on it.
    demo.wait_for("the primary out of the set", LIMIT, |status| {
        status.extents[0].in_sync == [other]
    })
    .await?;
    say(&format!(
        "{primary} severed{way}: {other} serves after {:.2?}",
        start.elapsed()
    ));
    ends_well(&demo, load).await?;
    ensure!(alarms(&demo, &primary).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_cut_off_within_itself_is_replaced_and_comes_back() -> Result<()> {
    severed("").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_heard_by_nobody_is_replaced_and_comes_back() -> Result<()> {
    severed(":out").await
}

/// The journal of the other replica hangs: it leaves the set, and is back once it is healed, long before the fault's own end.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_journal_hangs_leaves_until_it_is_healed() -> Result<()> {
    let (demo, primary, other) = pair().await?;
    let load = load(&demo, "hangs").await?;
    load.served(0, LIMIT).await?;
    put(&demo, other, "disk:journal", "cut", "60s").await?;
    let start = Instant::now();
    demo.wait_for("the primary alone", LIMIT, |status| {
        status.extents[0].in_sync == [primary.as_str()]
    })
    .await?;
    let healed = fault(&demo, other, &["heal"]).await?.success()?;
    ensure!(healed.contains("Healed: disk:journal cut."), "{healed}");
    ends_well(&demo, load).await?;
    ensure!(start.elapsed() < Duration::from_secs(55), "it healed by itself");
    Ok(())
}

/// Every message to the other replica comes later: so does every write. Links that lose messages break, and are made again.
#[tokio::test(flavor = "multi_thread")]
async fn slow_and_lossy_links_are_got_over() -> Result<()> {
    let (demo, primary, other) = pair().await?;
    let session = demo.session(&primary).await?;
    let (block, link) = (Bytes::from(vec![7; 512]), format!("link:{other}:out"));
    put(&demo, &primary, &link, "delay=100ms", "60s").await?;
    for lba in 0..3 {
        let start = Instant::now();
        persistently(|| session.write(Lba(lba), block.clone())).await?;
        ensure!(
            start.elapsed() >= Duration::from_millis(99),
            "{:?}",
            start.elapsed()
        );
    }
    let alarm = alarms(&demo, &primary).await?;
    ensure!(
        alarm.len() == 1 && alarm[0].contains(&format!("{link} delay=100ms")),
        "{alarm:?}"
    );
    // What is put there again takes its place.
    put(&demo, &primary, &link, "lose=20", "5s").await?;
    let load = load(&demo, "lossy").await?;
    for lane in [0, 1] {
        load.served(lane, LIMIT).await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    ends_well(&demo, load).await
}

/// The primary's process is struck: somebody else serves, and it is back by itself, as the same process.
async fn struck(how: &str) -> Result<String> {
    let (demo, primary, other) = pair().await?;
    let load = load(&demo, how).await?;
    let lane = usize::from(other == "b");
    load.served(lane, LIMIT).await?;
    let pid = demo.pid(&primary)?;
    put(&demo, &primary, "process", how, "3s").await?;
    demo.wait_for("the other node as primary", LIMIT, |status| {
        status.primary() == Some(other)
    })
    .await?;
    load.served(lane, LIMIT).await?;
    ends_well(&demo, load).await?;
    ensure!(demo.pid(&primary)? == pid, "it is another process");
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))?;
    Ok(String::from_utf8_lossy(&line).replace('\0', " "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_killed_by_a_drill_starts_again_by_itself() -> Result<()> {
    let line = struck("kill").await?;
    ensure!(line.trim_end().ends_with("--after-ms=3000"), "{line}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_frozen_by_a_drill_goes_on_by_itself() -> Result<()> {
    let line = struck("freeze").await?;
    ensure!(!line.contains("--after-ms"), "it was started anew: {line}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_and_changes_nothing() -> Result<()> {
    let (demo, primary, _) = pair().await?;
    for (site, how, lasts, why) in [
        (
            "link:x",
            "cut",
            "1s",
            "there is no node 'x'; the nodes are a, b, w",
        ),
        ("link:w:up", "cut", "1s", "'up' is no direction: it is in or out"),
        ("disk:sda", "cut", "1s", "the disks are journal, extents, raft"),
        ("disk:raft", "lose=5", "1s", "a disk loses nothing"),
        ("link:w", "explode", "1s", "'explode' is no fault"),
        ("link:w", "cut", "61s", "a fault lasts from 1 ms to 60 s"),
        (
            "process",
            "cut",
            "1s",
            "'cut' is no fault of a process: it is kill or freeze",
        ),
        ("process", "kill", "61s", "a fault lasts from 1 ms to 60 s"),
        ("link:w", "kill", "1s", "'kill' is no fault"),
    ] {
        let refused = fault(&demo, &primary, &["put", site, how, "--for", lasts]).await?;
        ensure!(refused.code == Some(1), "{site} {how}: {refused:?}");
        ensure!(
            refused.err.contains(why) && refused.err.lines().count() == 1,
            "{}",
            refused.err
        );
    }
    let own = format!("link:{primary}");
    let refused = fault(&demo, &primary, &["put", &own, "cut", "--for", "1s"]).await?;
    ensure!(refused.err.contains("is this very node"), "{}", refused.err);
    ensure!(alarms(&demo, &primary).await?.is_empty());
    let refused = fault(&demo, &primary, &["heal", "process"]).await?;
    ensure!(refused.err.contains("nothing heals a process"), "{}", refused.err);
    let healed = fault(&demo, &primary, &["heal"]).await?.success()?;
    ensure!(healed.contains("There was nothing to heal."), "{healed}");
    Ok(())
}
