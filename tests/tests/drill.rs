//! `holdfast drill` rehearses on a pair of its own and judges what it saw.

use std::time::Duration;

use anyhow::Result;
use holdfast_tests::cluster::free_ports;
use holdfast_tests::{say, tools};

const LIMIT: Duration = Duration::from_secs(240);

async fn drill(more: &[&str]) -> Result<tools::Finished> {
    let port = free_ports()?.to_string();
    let common = ["drill", "--json", "--size", "64MiB", "--base-port", &port];
    tools::run(&tools::holdfast()?, &[&common, more].concat(), LIMIT).await
}

#[tokio::test]
async fn a_drill_plays_every_scenario_and_says_whether_it_held() -> Result<()> {
    // A wide budget: tests share their machine, and the figures are printed.
    let text = drill(&["--demo", "all", "--budget", "10s"]).await?.success()?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let scenarios = report["scenarios"].as_array().into_iter().flatten();
    let names: Vec<_> = scenarios
        .clone()
        .filter_map(|one| one["scenario"].as_str())
        .collect();
    let all = [
        "switchover",
        "kill_witness",
        "kill_replica",
        "kill_primary",
        "freeze_primary",
    ];
    assert_eq!(names, all);
    for one in scenarios {
        let (stall, in_sync) = (&one["stall_ms"], &one["in_sync_ms"]);
        say(&format!(
            "{}: stall {stall} ms, in sync again after {in_sync} ms",
            one["scenario"]
        ));
        assert!(stall.as_f64() > Some(0.0) && one["held"] == true, "{one}");
    }
    assert_eq!(
        (&report["held"], &report["workload"]["fault_count"]),
        (&true.into(), &0.into())
    );
    Ok(())
}

#[tokio::test]
async fn a_broken_budget_is_told_and_ends_with_1() -> Result<()> {
    let broken = drill(&["--demo", "kill-primary", "--budget", "1ms"]).await?;
    assert_eq!(broken.code, Some(1), "{}", broken.err);
    let report: serde_json::Value = serde_json::from_str(&broken.out)?;
    assert_eq!(report["held"], false);
    assert!(broken.err.contains("broke its budget"), "{}", broken.err);
    Ok(())
}

#[tokio::test]
async fn a_drill_without_a_demo_is_refused() -> Result<()> {
    let refused = drill(&["all"]).await?;
    assert_eq!(
        (refused.code, refused.out.as_str()),
        (Some(1), ""),
        "{}",
        refused.err
    );
    assert!(refused.err.contains("--demo"), "{}", refused.err);
    Ok(())
}
