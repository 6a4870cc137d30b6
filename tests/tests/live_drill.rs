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

const LIMIT: Duration = Duration::from_secs(400);
const SYNC_LIMIT: Duration = Duration::from_secs(90);
/// What a killed drill has left is healed by then.
const HEALED_LIMIT: Duration = Duration::from_secs(30);

/// What is played on a running cluster, in this order.
const PLAYED: [&str; 8] = [
    "switchover",
    "slow_replication",
    "slow_primary",
    "cut_replication",
    "kill_primary",
    "freeze_primary",
    "sever_primary",
    "hang_primary",
];

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

/// Whether a's process is stopped.
fn is_frozen(demo: &Demo) -> Result<bool> {
    let pid = demo.pid("a")?.as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(stat
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('T')))
}

fn has_scratch(status: &Status) -> bool {
    status.extents.iter().any(|extent| extent.name == "drill-scratch")
}

/// A drill on a's node, to its end.
async fn whole_drill(demo: &Demo, more: &[&str]) -> Result<tools::Finished> {
    let wide = ["drill", "--cluster", "--size", "64MiB", "--budget", "15s"];
    let arguments = [&wide[..], &["--admin", demo.admin("a")?], more].concat();
    tools::run(&tools::holdfast()?, &arguments, LIMIT).await
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
    loop {
        // One that is stopped while it is asked gives no answer.
        let status = timeout(Duration::from_secs(1), demo.status_by("a")).await;
        if is_frozen(demo)? || status.is_ok_and(|status| status.is_ok_and(|status| hurts(&status))) {
            break;
        }
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
    let text = whole_drill(&demo, &["--json"]).await?.success()?;
    let report: Value = serde_json::from_str(&text)?;
    let scenarios = report["scenarios"].as_array().context("scenarios")?;
    let names: Vec<_> = scenarios
        .iter()
        .filter_map(|one| one["scenario"].as_str())
        .collect();
    ensure!(names == PLAYED, "{names:?}");
    for one in scenarios {
        say(&format!("{}: stall {} ms", one["scenario"], one["stall_ms"]));
        ensure!(one["held"] == true, "{one}");
    }
    // A disk counts as stuck after 5 s, and not before.
    ensure!(
        scenarios[7]["stall_ms"].as_f64() > Some(3000.0),
        "{}",
        scenarios[7]
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
        let scenario = if name == "a" { "kill-replica" } else { "switchover" };
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
    let again = whole_drill(&demo, &["switchover"]).await?;
    ensure!(again.code == Some(0), "{again:?}\n{}", demo.logs());
    ensure!(!has_scratch(&demo.status().await?));
    Ok(())
}

/// A node that is frozen hears nobody, and is let go on by its own child: whoever asked for it may be gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_on_though_the_drill_that_froze_it_was_killed() -> Result<()> {
    let demo = pair().await?;
    let mut drill = start(&demo, &["freeze-primary"])?;
    strike(&demo, &mut drill, Signal::KILL).await?;
    let killed = Instant::now();
    while is_frozen(&demo)? {
        ensure!(killed.elapsed() < HEALED_LIMIT, "frozen still\n{}", demo.logs());
        sleep(Duration::from_millis(100)).await;
    }
    demo.wait_in_sync(SYNC_LIMIT).await.map(drop)
}
