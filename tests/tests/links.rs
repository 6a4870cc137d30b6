//! Any one link between nodes is cut, one way or both, while initiators reach all of them: the hardest partitions, since everybody is
//! alive and somebody always sees somebody.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::workload::mixed::Mixed;
use holdfast_tests::history::{judge_both, load_both};
use holdfast_tests::lan::Lan;
use holdfast_tests::{say, seed};
use tokio::time::sleep;

/// The product's bound on an interruption (3 s), twice: tests share their machine.
const FAILOVER_LIMIT: Duration = Duration::from_secs(6);
const SYNC_LIMIT: Duration = Duration::from_secs(60);
/// How long a cut lasts once all are served again: what would move back and forth shows itself in this time.
const STEADY: Duration = Duration::from_secs(4);
const LINKS: [(&str, &str); 3] = [("a", "b"), ("a", "w"), ("b", "w")];

/// Which way of a link is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Both,
    There,
    Back,
}

/// Cuts one link; tells how long the slowest initiator waited, and how often the extent moved.
async fn cut(lan: &Lan, load: &Mixed, link: (&str, &str), way: Way) -> Result<(Duration, u64)> {
    let epoch = |status: &holdfast_tests::status::Status| status.extents[0].epoch;
    let before = epoch(&lan.status().await?);
    load.served(FAILOVER_LIMIT).await?;
    let (x, y) = link;
    if way != Way::Back {
        lan.network().cut(x, y)?;
    }
    if way != Way::There {
        lan.network().cut(y, x)?;
    }
    // Heartbeats stop at once, but commands under way may still be answered: what began after a while meets the cut.
    sleep(Duration::from_millis(300)).await;
    let waited = load.served(FAILOVER_LIMIT).await.with_context(|| lan.logs())?;
    let end = tokio::time::Instant::now() + STEADY;
    let mut worst = waited;
    while tokio::time::Instant::now() < end {
        worst = worst.max(load.served(FAILOVER_LIMIT).await.with_context(|| lan.logs())?);
    }
    lan.network().heal()?;
    let after = lan
        .wait_for("every replica in sync after the cut", SYNC_LIMIT, |status| {
            status.is_whole()
        })
        .await?;
    load.served(FAILOVER_LIMIT).await?;
    Ok((worst, epoch(&after) - before))
}

/// L6, I8: with any one link cut, everybody is served again within the bound, and ownership moves once at most, the heal included.
#[tokio::test(flavor = "multi_thread")]
async fn l6_any_one_link_cut_is_survived_and_moves_ownership_once_at_most() -> Result<()> {
    let seed = seed::seed("links");
    let Some(lan) = Lan::start("64MiB").await? else {
        return Ok(());
    };
    let load = load_both(&lan, seed)?;
    let mut worst = Duration::ZERO;
    for link in LINKS {
        for way in [Way::Both, Way::There, Way::Back] {
            let status = lan.switchover("a").await?;
            let leader = status.leader.unwrap_or_default();
            let what = format!("{}-{} cut {way:?}, led by {leader}, primary a", link.0, link.1);
            let (waited, moves) = cut(&lan, &load, link, way).await.with_context(|| what.clone())?;
            say(&format!("{what}: the slowest waited {waited:.2?}, {moves} moves"));
            ensure!(
                moves <= 1,
                "{what}: ownership moved {moves} times\n{}",
                lan.logs()
            );
            worst = worst.max(waited);
        }
    }
    let (_, summary) = judge_both(&lan, load).await?;
    say(&format!("the slowest of all waited {worst:.2?}; {summary:?}"));
    Ok(())
}
