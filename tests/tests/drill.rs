//! `holdfast drill` rehearses on a pair of its own and judges what it saw.

use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_tests::cluster::free_ports;
use holdfast_tests::{say, tools};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(400);

async fn drill(more: &[&str]) -> Result<tools::Finished> {
    let port = free_ports()?.to_string();
    let common = ["drill", "--json", "--size", "64MiB", "--base-port", &port];
    tools::run(&tools::holdfast()?, &[&common, more].concat(), LIMIT).await
}

#[tokio::test]
async fn a_drill_plays_every_scenario_and_says_whether_it_held() -> Result<()> {
    // A wide budget: tests share their machine, and the figures are printed.
    let dir = tempfile::tempdir()?;
    let page = dir.path().join("drill.html");
    let file = page.to_str().context("a path in UTF-8")?;
    let drilled = drill(&["--demo", "all", "--budget", "15s", "--report", file]).await?;
    let text = drilled.success()?;
    let report: Value = serde_json::from_str(&text)?;
    let scenarios = report["scenarios"].as_array().into_iter().flatten();
    let names: Vec<_> = scenarios
        .clone()
        .filter_map(|one| one["scenario"].as_str())
        .collect();
    let all = [
        "switchover",
        "kill_witness",
        "slow_replication",
        "slow_primary",
        "kill_replica",
        "cut_replication",
        "kill_primary",
        "freeze_primary",
        "sever_primary",
        "hang_replica",
        "hang_primary",
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
    timelines(&report)?;
    report_page(&std::fs::read_to_string(&page)?)
}

/// Texts of the bands of a row.
fn row<'a>(timeline: &'a Value, row: &str) -> Vec<&'a str> {
    let bands = timeline["bands"].as_array().into_iter().flatten();
    bands
        .filter(|band| band["row"] == row)
        .filter_map(|band| band["text"].as_str())
        .collect()
}

/// The timelines as data: requests, and what the nodes said.
fn timelines(report: &Value) -> Result<()> {
    let timelines = report["timelines"].as_array().context("timelines")?;
    assert_eq!(timelines.len(), 11);
    for one in timelines {
        let samples = one["samples"].as_array().context("samples")?;
        assert!(samples.len() > 100, "{} samples", samples.len());
        for wanted in ["primary", "Raft leader", "node a", "node b", "node w"] {
            assert!(!row(one, wanted).is_empty(), "{wanted} in {}", one["title"]);
        }
    }
    let killed = timelines
        .iter()
        .find(|one| one["title"] == "kill -9 of the primary");
    let killed = killed.context("a primary that was killed")?;
    let epochs = row(killed, "primary");
    assert!(
        epochs.len() > 1 && epochs[0] != epochs[epochs.len() - 1],
        "{epochs:?}"
    );
    let nodes = ["node a", "node b"].map(|node| row(killed, node));
    // On a busy machine the other one, too, may be late with an answer.
    assert!(
        nodes.iter().any(|texts| texts.contains(&"no answer")),
        "{nodes:?}"
    );
    let (failed, healed) = (&killed["marks"][0]["at_ms"], &killed["marks"][0]["until_ms"]);
    assert_eq!(failed, &killed["zero_ms"]);
    assert!(
        healed.as_f64() > failed.as_f64().map(|at| at + 2500.0),
        "{healed}"
    );
    Ok(())
}

/// The page: whole, with all scenarios, and for itself.
fn report_page(text: &str) -> Result<()> {
    let document = tools::drawn(text)?;
    let of = |tag: &str| -> Vec<&str> {
        let nodes = document
            .descendants()
            .filter(|node| node.tag_name().name() == tag);
        nodes.filter_map(|node| node.text()).collect()
    };
    for scenario in [
        "planned switchover",
        "kill -9 of the witness",
        "kill -9 of a replica",
        "kill -9 of the primary",
        "freeze of the primary",
    ] {
        assert!(of("h2").contains(&scenario), "{scenario} in {:?}", of("h2"));
        assert!(
            of("td").iter().any(|cell| cell.starts_with(scenario)),
            "{scenario}"
        );
    }
    assert_eq!(of("svg").len(), 11);
    assert!(of("p").contains(&"Held"));
    for outside in ["<script", "src=", "href=", "url("] {
        assert!(!text.contains(outside), "{outside}");
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_budget_is_told_and_ends_with_1() -> Result<()> {
    let broken = drill(&["--demo", "kill-primary", "--budget", "1ms"]).await?;
    assert_eq!(broken.code, Some(1), "{}", broken.err);
    let report: Value = serde_json::from_str(&broken.out)?;
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

#[tokio::test]
async fn a_report_that_cannot_be_written_is_told_before_anything_is_done() -> Result<()> {
    let refused = drill(&["--demo", "all", "--report", "/nowhere/at/all.html"]).await?;
    assert_eq!(
        (refused.code, refused.out.as_str()),
        (Some(1), ""),
        "{}",
        refused.err
    );
    assert!(refused.err.contains("cannot write the report"), "{}", refused.err);
    assert!(!refused.err.contains("Starting"), "{}", refused.err);
    Ok(())
}
