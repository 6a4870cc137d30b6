//! Drills on a cluster that runs: what they hurt is healed, and what they made is gone, however they end.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_tests::cluster::Demo;
use holdfast_tests::status::Status;
use holdfast_tests::{say, tools};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const LIMIT: Duration = Duration::from_secs(240);
const SYNC_LIMIT: Duration = Duration::from_secs(90);
/// What a killed drill has left is healed by then.
const HEALED_LIMIT: Duration = Duration::from_secs(30);

async fn pair() -> Result<Demo> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(SYNC_LIMIT).await?;
    Ok(demo)
}

fn hurts(status: &Status) -> bool {
    let alarms = status.alarms.iter();
    alarms
        .map(ToString::to_string)
        .any(|alarm| alarm.contains("a drill hurts"))
}

fn has_scratch(status: &Status) -> bool {
    status.extents.iter().any(|extent| extent.name == "drill-scratch")
}

/// The drill as a process of its own.
fn start(demo: &Demo, arguments: &[&str]) -> Result<Child> {
    let admin = demo.admin("a")?;
    Ok(Command::new(tools::holdfast()?)
        .args(["drill", "--cluster", "--size", "64MiB", "--admin", admin])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?)
}

/// Waits until the node suffers something, and sends the drill a signal then.
async fn strike(demo: &Demo, drill: &mut Child, signal: Signal) -> Result<()> {
    let start = Instant::now();
    while !hurts(&demo.status_by("a").await?) {
        ensure!(start.elapsed() < LIMIT, "nothing was hurt\n{}", demo.logs());
        sleep(Duration::from_millis(100)).await;
    }
    let id = drill.id().context("it runs")?;
    let pid = Pid::from_raw(i32::try_from(id)?).context("a process id")?;
    kill_process(pid, signal)?;
    timeout(LIMIT, drill.wait()).await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_cluster_is_rehearsed_and_nothing_is_left_of_it() -> Result<()> {
    let demo = pair().await?;
    let admin = demo.admin("a")?;
    let arguments = [
        "drill",
        "--cluster",
        "--size",
        "64MiB",
        "--budget",
        "15s",
        "--json",
        "--admin",
        admin,
    ];
    let text = tools::run(&tools::holdfast()?, &arguments, LIMIT)
        .await?
        .success()?;
    let report: Value = serde_json::from_str(&text)?;
    let scenarios = report["scenarios"].as_array().context("scenarios")?;
    let names: Vec<_> = scenarios
        .iter()
        .filter_map(|one| one["scenario"].as_str())
        .collect();
    ensure!(
        names == ["switchover", "cut_replication", "sever_primary", "hang_primary"],
        "{names:?}"
    );
    for one in scenarios {
        say(&format!("{}: stall {} ms", one["scenario"], one["stall_ms"]));
        ensure!(one["held"] == true, "{one}");
    }
    // A disk counts as stuck after 5 s, and not before.
    ensure!(
        scenarios[3]["stall_ms"].as_f64() > Some(3000.0),
        "{}",
        scenarios[3]
    );
    ensure!(report["workload"]["fault_count"] == 0, "{report}");
    let status = demo.wait_in_sync(SYNC_LIMIT).await?;
    ensure!(
        !has_scratch(&status) && !hurts(&demo.status_by("a").await?),
        "{status:?}"
    );
    for (name, why) in [
        ("w", "holds no data: ask a data node"),
        ("a", "a running cluster can be rehearsed with"),
    ] {
        let scenario = if name == "a" { "kill-primary" } else { "switchover" };
        let arguments = ["drill", "--cluster", scenario, "--admin", demo.admin(name)?];
        let refused = tools::run(&tools::holdfast()?, &arguments, LIMIT).await?;
        ensure!(
            refused.code == Some(1) && refused.err.contains(why),
            "{refused:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_is_interrupted_heals_and_removes_what_it_made() -> Result<()> {
    let demo = pair().await?;
    let mut drill = start(&demo, &["sever-primary"])?;
    strike(&demo, &mut drill, Signal::INT).await?;
    ensure!(!hurts(&demo.status_by("a").await?));
    let status = demo.wait_in_sync(SYNC_LIMIT).await?;
    ensure!(!has_scratch(&status), "{status:?}");
    Ok(())
}

/// The node heals by itself; the scratch extent goes with the next drill.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_is_killed_is_healed_within_half_a_minute() -> Result<()> {
    let demo = pair().await?;
    let mut drill = start(&demo, &["hang-primary"])?;
    strike(&demo, &mut drill, Signal::KILL).await?;
    let start_of_healing = Instant::now();
    while hurts(&demo.status_by("a").await?) {
        ensure!(
            start_of_healing.elapsed() < HEALED_LIMIT,
            "still hurt\n{}",
            demo.logs()
        );
        sleep(Duration::from_millis(200)).await;
    }
    say(&format!(
        "healed {:.1?} after the drill was killed",
        start_of_healing.elapsed()
    ));
    ensure!(has_scratch(&demo.wait_in_sync(SYNC_LIMIT).await?));
    let status = start(&demo, &["switchover", "--budget", "15s"])?.wait().await?;
    ensure!(status.success(), "the next drill: {status}\n{}", demo.logs());
    ensure!(!has_scratch(&demo.status().await?));
    Ok(())
}
