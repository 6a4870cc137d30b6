//! `holdfast bench failover` measures what it says, checks what it wrote, and leaves nothing behind.

use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_tests::cluster::free_ports;
use holdfast_tests::{say, tools};

#[tokio::test]
async fn a_rehearsal_reports_every_kind_of_failure_and_draws_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let picture = dir.path().join("failover.svg");
    let port = free_ports()?.to_string();
    let arguments = [
        "bench",
        "failover",
        "--json",
        "--rounds",
        "1",
        "--failures",
        "switchover,kill-primary",
        "--size",
        "64MiB",
        "--base-port",
        &port,
        "--svg",
        picture.to_str().context("a path in UTF-8")?,
    ];
    let text = tools::run(&tools::holdfast()?, &arguments, Duration::from_secs(400))
        .await?
        .success()?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    say(&format!("{report:#}"));
    let kinds: Vec<_> = report["rows"]
        .as_array()
        .context("rows")?
        .iter()
        .map(|row| &row["failure"])
        .collect();
    assert_eq!(kinds, ["switchover", "kill_primary"]);
    for row in report["rows"].as_array().into_iter().flatten() {
        let (stall, lane) = (&row["stall"]["max_ms"], &row["lane_stall"]["max_ms"]);
        let (stall, lane) = (stall.as_f64().context("stall")?, lane.as_f64().context("lane")?);
        // Within the look of three seconds: writes went on again.
        assert!(stall > 0.0 && stall <= lane && stall < 3000.0, "{row}");
    }
    assert_eq!(report["workload"]["fault_count"], 0);
    assert!(report["workload"]["acknowledged"].as_u64() > Some(100));
    let drawn = std::fs::read_to_string(&picture)?;
    assert!(drawn.contains("kill -9 of the primary") && drawn.contains("<circle"));
    Ok(())
}
