//! `holdfast drill watch` sees what happens to a target that somebody else hurts, and harms nothing itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_tests::cluster::{Demo, free_ports};
use holdfast_tests::{say, tools};
use holdfast_types::Lba;
use serde_json::Value;
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(120);

async fn watch(demo: &Demo, more: &[&str]) -> Result<tools::Finished> {
    let (a, b) = (demo.url("a")?.to_string(), demo.url("b")?.to_string());
    let common = ["drill", "watch", "--json", "--url", &a, "--url", &b];
    tools::run(&tools::holdfast()?, &[&common, more].concat(), LIMIT).await
}

fn stall(lane: &Value) -> Result<f64> {
    lane["longest_stall"]["ms"]
        .as_f64()
        .with_context(|| format!("no stall in {lane}"))
}

#[tokio::test]
async fn a_killed_node_is_a_stall_of_its_path_and_a_shorter_one_of_the_target() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    let dir = tempfile::tempdir()?;
    let page = dir.path().join("watch.html");
    let file = page.to_str().context("a path in UTF-8")?;
    let primary = demo.primary().await?;
    let hurt = async {
        sleep(Duration::from_secs(3)).await;
        demo.kill(&primary)?;
        sleep(Duration::from_secs(4)).await;
        demo.restart(&primary).await
    };
    let arguments = ["--seconds", "14", "--report", file];
    let (watched, hurt) = tokio::join!(watch(&demo, &arguments), hurt);
    hurt?;
    let report: Value = serde_json::from_str(&watched?.success()?)?;
    let paths = report["paths"].as_array().context("paths")?;
    let portal = demo.portal(&primary)?;
    let (lost, other): (Vec<&Value>, Vec<&Value>) = paths.iter().partition(|path| path["name"] == portal);
    let (lost, other) = (lost[0], other[0]);
    say(&format!(
        "stalls: the target {:.0} ms, the killed path {:.0} ms, the other {:.0} ms, both together {:.0} ms",
        stall(&report["target"])?,
        stall(lost)?,
        stall(other)?,
        stall(&report["together"][0])?
    ));
    // It was away for four seconds, and the other one took over long before it came back.
    ensure!((4000.0..14_000.0).contains(&stall(lost)?), "{lost}");
    ensure!(
        stall(&report["target"])? > 1.0 && stall(&report["target"])? < stall(lost)?,
        "{report}"
    );
    ensure!(lost["errors"]["no connection"].as_u64() > Some(0), "{lost}");
    ensure!(report["together"][0]["failed"] == 0, "{}", report["together"]);
    ensure!(report["held"] == true && report["workload"].is_null());
    let drawn = std::fs::read_to_string(&page)?;
    let document = tools::drawn(&drawn)?;
    let titles: Vec<&str> = document
        .descendants()
        .filter(|node| node.tag_name().name() == "title")
        .filter_map(|node| node.text())
        .collect();
    let gone = format!("{portal}: no connection, ");
    ensure!(titles.iter().any(|title| title.starts_with(&gone)), "{titles:?}");
    // It has changed nothing: the unit is as empty as it was.
    let session = demo.session("b").await?;
    let start = session.read(Lba(0), 2048).await?;
    ensure!(
        start.iter().all(|byte| *byte == 0),
        "a watch without --write has written"
    );
    Ok(())
}

#[tokio::test]
async fn writes_are_checked_and_refused_where_they_would_destroy_data() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    for _ in 0..2 {
        // The second time the unit holds what the first one wrote: nobody's data.
        let text = watch(&demo, &["--seconds", "3", "--write"]).await?.success()?;
        let report: Value = serde_json::from_str(&text)?;
        let load = &report["workload"];
        ensure!(
            load["fault_count"] == 0 && load["acknowledged"].as_u64() > Some(50),
            "{load}"
        );
        ensure!(report["together"].as_array().map(Vec::len) == Some(2), "{report}");
        ensure!(report["target"]["answered"].as_u64() > Some(50), "{report}");
        stall(&report["target"])?;
    }
    let broken = watch(&demo, &["--seconds", "2", "--write", "--budget", "1ms"]).await?;
    ensure!(
        broken.code == Some(1) && broken.err.contains("at most 1 were allowed"),
        "{}",
        broken.err
    );
    let session = demo.session("a").await?;
    let mine = Bytes::from(vec![0x5a; 4096]);
    session.write(Lba(80), mine.clone()).await?;
    let refused = watch(&demo, &["--seconds", "2", "--write"]).await?;
    ensure!(
        refused.code == Some(1) && refused.out.is_empty(),
        "{}",
        refused.out
    );
    ensure!(
        refused.err.contains("holds data (at block 80)"),
        "{}",
        refused.err
    );
    ensure!(
        session.read(Lba(80), 8).await? == mine,
        "a refused watch has written"
    );
    watch(&demo, &["--seconds", "2", "--write", "--overwrite"])
        .await?
        .success()?;
    Ok(())
}

#[tokio::test]
async fn a_target_that_is_not_there_ends_with_1() -> Result<()> {
    let url = format!(
        "iscsi://127.0.0.1:{}/iqn.2026-11.io.holdfast:demo/0",
        free_ports()?
    );
    let arguments = ["drill", "watch", "--json", "--url", &url, "--seconds", "2"];
    let gone = tools::run(&tools::holdfast()?, &arguments, LIMIT).await?;
    let report: Value = serde_json::from_str(&gone.out)?;
    ensure!(
        report["held"] == false && report["paths"][0]["answered"] == 0,
        "{report}"
    );
    ensure!(
        gone.code == Some(1) && gone.err.contains("no path ever answered"),
        "{}",
        gone.err
    );
    let writes = tools::run(
        &tools::holdfast()?,
        &[&arguments[..], &["--write"]].concat(),
        LIMIT,
    )
    .await?;
    ensure!(
        writes.code == Some(1) && writes.err.contains("cannot log in"),
        "{}",
        writes.err
    );
    Ok(())
}
