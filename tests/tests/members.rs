//! Nodes that come and go, settings and extents changed while they run: real processes that only have local admin sockets, as on machines
//! of their own.

use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_tests::machines::{LONG, Machines, images, in_sync, voters};
use tokio::time::{Instant, sleep};

/// From one node to a pair with a witness, by tokens alone; then the witness moves, dead, and a data node is replaced, alive.
#[tokio::test(flavor = "multi_thread")]
async fn l8_nodes_join_and_are_replaced() -> Result<()> {
    let mut m = Machines::trio().await?;
    let token = m.join("b", "w", &[]).await?;
    let again = m.refused("a", &["cluster", "join", "nonsense"]).await?;
    ensure!(again.contains("copy the whole line"), "{again}");
    m.ask(
        "b",
        &["extent", "create", "d", "--size", "64MiB", "--replicas", "a,b"],
    )
    .await?;
    m.until("w", "both in sync and served", |s| {
        in_sync(s) == ["a", "b"] && s.primary() == Some("a")
    })
    .await?;
    m.kill("w").await?;
    m.start("w2", "witness", 3)?;
    let used = ["cluster", "join", &token, "--replace", "w"];
    m.ask("w2", &used).await?;
    m.until("a", "the witness has moved", |s| {
        voters(s) == ["a", "b", "w2"] && !s.nodes.iter().any(|node| node.name == "w")
    })
    .await?;
    m.ask("w2", &used).await?;
    m.start("c", "data", 4)?;
    let spent = m.refused("c", &["cluster", "join", &token]).await?;
    ensure!(spent.contains("used before"), "{spent}");
    m.join("w2", "c", &["--replace", "a"]).await?;
    m.until("b", "c has taken a's place", |s| {
        voters(s) == ["b", "w2", "c"] && in_sync(s) == ["b", "c"] && s.primary().is_some_and(|p| p != "a")
    })
    .await
}

/// What an administrator changes while all runs, with a wrong word for each.
#[tokio::test(flavor = "multi_thread")]
async fn settings_drain_and_extents_are_changed_live() -> Result<()> {
    let m = Machines::trio().await?;
    let wrong = m.refused("w", &["cluster", "set", "lease", "1s"]).await?;
    ensure!(wrong.contains("lease-time, failback-after"), "{wrong}");
    let wrong = m.refused("w", &["cluster", "set", "lease-time", "1ms"]).await?;
    ensure!(wrong.contains("300ms to 5s"), "{wrong}");
    for value in ["1s", "1s", "400ms"] {
        m.ask("w", &["cluster", "set", "lease-time", value]).await?;
    }
    // The node that was asked knows at once; others hear of it.
    let start = Instant::now();
    while !m.ask("b", &["cluster", "show"]).await?.contains("400ms") {
        ensure!(start.elapsed() < LONG, "b does not hear of the setting");
        sleep(Duration::from_millis(50)).await;
    }
    m.ask("b", &["extent", "create", "d", "--size", "64MiB"]).await?;
    m.until("w", "a serves", |s| {
        in_sync(s) == ["a", "b"] && s.primary() == Some("a")
    })
    .await?;
    // From a node that is not the primary: the request goes through the cluster.
    m.ask("w", &["switchover", "d", "--to", "b"]).await?;
    m.ask("w", &["switchover", "d", "--to", "a"]).await?;
    m.ask("w", &["cluster", "drain", "a"]).await?;
    m.until("b", "a is drained", |s| s.primary() == Some("b")).await?;
    let drained = m.refused("w", &["switchover", "d", "--to", "a"]).await?;
    ensure!(drained.contains("cluster undrain a"), "{drained}");
    m.ask("w", &["cluster", "undrain", "a"]).await?;
    m.ask("w", &["extent", "set", "d", "--preferred", "b"]).await?;
    m.ask("w", &["extent", "resize", "d", "--size", "80MiB"]).await?;
    m.until("a", "larger", |s| s.extents[0].size_bytes == 80 << 20)
        .await?;
    let smaller = m
        .refused("w", &["extent", "resize", "d", "--size", "1MiB"])
        .await?;
    ensure!(smaller.contains("only grows"), "{smaller}");
    let target = "iqn.2026-11.example:t";
    m.ask("w", &["target", "create", target]).await?;
    m.ask("w", &["lun", "create", target, "d", "--lun", "3"]).await?;
    let unnamed = m.refused("w", &["extent", "delete", "d"]).await?;
    ensure!(unnamed.contains("--confirm d"), "{unnamed}");
    let mapped = m
        .refused("w", &["extent", "delete", "d", "--confirm", "d"])
        .await?;
    ensure!(mapped.contains("in use"), "{mapped}");
    ensure!(
        m.refused("w", &["target", "delete", target])
            .await?
            .contains("in use")
    );
    m.ask("w", &["lun", "delete", target, "--lun", "3"]).await?;
    m.ask("w", &["target", "delete", target]).await?;
    ensure!(images(&m.path("a")) == 1 && images(&m.path("b")) == 1);
    m.ask("w", &["extent", "delete", "d", "--confirm", "d"]).await?;
    let start = Instant::now();
    while images(&m.path("a")) + images(&m.path("b")) > 0 {
        ensure!(start.elapsed() < LONG, "the files are freed");
        sleep(Duration::from_millis(50)).await;
    }
    let left = m.ask("a", &["cluster", "leave", "w"]).await?;
    ensure!(left.contains("nothing will fail over by itself"), "{left}");
    m.until("a", "two voters", |s| {
        voters(s) == ["a", "b"] && s.nodes.len() == 2
    })
    .await
}
