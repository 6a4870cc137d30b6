//! What nodes record of a failover, what `why` makes of it, and that a node that is down does not fill the others' logs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_tests::cluster::{self, Demo};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// For a failover, or for a way back, on a busy machine.
const LONG: Duration = Duration::from_secs(60);
/// Lines that a log may have for a node that is down: it is told once by each part that misses it.
const LINES_MAX: usize = 40;

async fn ask(demo: &Demo, node: &str, arguments: &[&str]) -> Result<Value> {
    let mut all = arguments.to_vec();
    all.extend(["--json", "--admin", demo.admin(node)?]);
    let done = cluster::holdfast(&all).await?;
    ensure!(done.code == Some(0), "{arguments:?}: {}", done.err);
    serde_json::from_str(&done.out).context("a JSON document")
}

/// What a node tells, oldest first: the kind, and the text.
async fn events(demo: &Demo, node: &str) -> Result<Vec<(String, String)>> {
    let document = ask(demo, node, &["events", "--last", "1000"]).await?;
    let events = document["events"].as_array().context("events")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(events
        .iter()
        .map(|event| (text(&event["what"]), text(&event["text"])))
        .collect())
}

async fn told(demo: &Demo, node: &str, what: &str, part: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        // One that starts does not answer yet.
        let events = events(demo, node).await;
        let is_it = |(kind, text): &(String, String)| kind == what && text.contains(part);
        if events.as_ref().is_ok_and(|events| events.iter().any(is_it)) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < LONG,
            "{node} does not tell '{part}' ({what}): {events:#?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_recorded_and_explained_and_survives_a_restart() -> Result<()> {
    let demo = Demo::start_with("16MiB").await?;
    demo.wait_in_sync(LONG).await?;
    let primary = demo.primary().await?;
    let other = if primary == "a" { "b" } else { "a" };
    let session = demo.session(other).await?;
    told(&demo, other, "session", "has logged in").await?;
    // A page that there is not: what the initiator was told is recorded, once.
    for _ in 0..3 {
        ensure!(session.inquiry(Some(0xfd)).await.is_err(), "there is no page FDh");
    }
    told(&demo, other, "sense", "was answered 05/24/00, session").await?;
    let answered = |(what, text): &&(String, String)| what == "sense" && text.contains("05/24/00");
    let times = events(&demo, other).await?.iter().filter(answered).count();
    ensure!(times == 1, "told {times} times");
    demo.kill(&primary)?;
    told(&demo, other, "serving", "is served by this node").await?;
    // The witness knows the committed story, too.
    for node in [other, "w"] {
        told(&demo, node, "node", &format!("{primary} is not heard any more")).await?;
        told(
            &demo,
            node,
            "primary",
            &format!("{other} is its primary instead of {primary}"),
        )
        .await?;
        told(
            &demo,
            node,
            "in_sync",
            &format!("{primary} is not in sync any more"),
        )
        .await?;
        let document = ask(&demo, node, &["why"]).await?;
        let story = document["extents"][0]["story"].as_array().context("a story")?;
        let lines: Vec<&str> = story.iter().filter_map(Value::as_str).collect();
        ensure!((3..=10).contains(&lines.len()), "{lines:#?}");
        ensure!(
            lines[0].contains(&format!("{other} is its primary instead of {primary}")),
            "{lines:#?}"
        );
        ensure!(
            lines.iter().any(|line| line.contains("is not heard any more")),
            "{lines:#?}"
        );
    }
    drop(session);
    demo.restart(&primary).await?;
    demo.wait_in_sync(LONG).await?;
    told(&demo, other, "in_sync", &format!("{primary} is in sync")).await?;
    // A new run knows what the last one recorded.
    demo.kill(other)?;
    demo.restart(other).await?;
    told(
        &demo,
        other,
        "primary",
        &format!("{other} is its primary instead of {primary}"),
    )
    .await?;
    let unknown = cluster::holdfast(&["why", "nothing", "--admin", demo.admin("w")?]).await?;
    ensure!(
        unknown.code == Some(1) && unknown.err.contains("no extent 'nothing'"),
        "{}",
        unknown.err
    );
    Ok(())
}

/// A node may be down for a week.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_down_does_not_fill_the_others_logs() -> Result<()> {
    let demo = Demo::start_with("16MiB").await?;
    demo.wait_in_sync(LONG).await?;
    let primary = demo.primary().await?;
    let other = if primary == "a" { "b" } else { "a" };
    let lines = |node: &str| -> Result<usize> {
        let log = std::fs::read_to_string(demo.dir().join(node).join("node.log"))?;
        Ok(log.lines().count())
    };
    let before = [lines(other)?, lines("w")?];
    demo.kill(&primary)?;
    told(&demo, other, "serving", "is served by this node").await?;
    sleep(Duration::from_secs(10)).await;
    for (node, before) in [other, "w"].into_iter().zip(before) {
        let more = lines(node)? - before;
        ensure!(more < LINES_MAX, "{node} wrote {more} lines\n{}", demo.logs());
    }
    Ok(())
}
