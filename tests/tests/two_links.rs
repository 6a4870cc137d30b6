//! Data nodes with two networks for replication: one of them falls silent, both ways or one way, while initiators write. Replication moves
//! to the other one before anybody is missed: no replica leaves the in-sync set, nothing is resynced, nothing is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::ground::Network;
use holdfast_drill::workload::mixed::Mixed;
use holdfast_tests::history::{judge_both, load_both, worst_while};
use holdfast_tests::lan::{Lan, MACHINES};
use holdfast_tests::status::{Health, Status};
use holdfast_tests::{say, seed, tools};
use tokio::time::{Instant, sleep};

/// The product's bound on an interruption (3 s), twice: tests share their machine.
const SERVED_LIMIT: Duration = Duration::from_secs(6);
/// Until a status shows what is so, or a link is used again once it has proved itself for 10 s.
const LIMIT: Duration = Duration::from_secs(60);
const DATA: [&str; 2] = ["a", "b"];

async fn judge(lan: &Lan, load: Mixed) -> Result<()> {
    let (_, summary) = judge_both(lan, load).await?;
    say(&format!("{summary:?}"));
    Ok(())
}

/// A cluster whose data nodes have two networks for replication; `None` where no network can be made.
async fn cluster(more: &str) -> Result<Option<Lan>> {
    let Some(mut network) = tools::or_left_out(Network::make(&MACHINES))? else {
        return Ok(None);
    };
    for _ in 0..2 {
        network.add_network(&DATA)?;
    }
    let lan = Lan::start_as(network, "64MiB", more).await?;
    until(&lan, "both links", |status| uses(status, 0) && all_up(status)).await?;
    Ok(Some(lan))
}

fn uses(status: &Status, link: usize) -> bool {
    let peer = status.replication.first();
    peer.is_some_and(|peer| peer.links.len() == 2 && peer.links[link].used)
}

fn all_up(status: &Status) -> bool {
    let peer = status.replication.first();
    peer.is_some_and(|peer| peer.links.iter().all(|link| link.up))
}

fn has_alarm(status: &Status, words: &str) -> bool {
    let mut alarms = status.alarms.iter().filter_map(|alarm| alarm.as_str());
    alarms.any(|alarm| alarm.contains(words))
}

/// Waits until both data nodes see it so.
async fn until(lan: &Lan, what: &str, is: impl Fn(&Status) -> bool) -> Result<()> {
    for node in DATA {
        let start = Instant::now();
        loop {
            let status = lan.status_by(node).await;
            if status.as_ref().is_ok_and(&is) {
                break;
            }
            ensure!(
                start.elapsed() < LIMIT,
                "{node} does not see {what}: {status:#?}\n{}",
                lan.logs()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// How long the slowest initiator waits until both nodes see what is wanted.
async fn worst_until(lan: &Lan, load: &Mixed, what: &str, is: impl Fn(&Status) -> bool) -> Result<Duration> {
    worst_while(load, SERVED_LIMIT, || lan.logs(), until(lan, what, is)).await
}

/// How often the logs of the data nodes say something.
fn said(lan: &Lan, words: &str) -> Result<usize> {
    let mut count = 0;
    for node in DATA {
        let log = std::fs::read_to_string(lan.dir().join(format!("{node}.log")))?;
        count += log.lines().filter(|line| line.contains(words)).count();
    }
    Ok(count)
}

/// Cuts one of the networks and waits until replication runs over the other one; tells how long the slowest initiator waited meanwhile.
async fn cut(lan: &Lan, load: &Mixed, network: usize, ways: &[(&str, &str)]) -> Result<Duration> {
    let (epoch, lost) = (epoch(lan).await?, said(lan, "lost the replication link to")?);
    let out = said(lan, "is not in sync any more")?;
    for (from, to) in ways {
        lan.network().cut_on(network, from, to)?;
    }
    let other = 2 - network;
    let what = format!("link {} in use", other + 1);
    let worst = worst_until(lan, load, &what, |status| uses(status, other)).await?;
    let whole = lan.status().await?;
    ensure!(
        whole.is_whole(),
        "a replica is missing: {whole:#?}\n{}",
        lan.logs()
    );
    ensure!(
        said(lan, "is not in sync any more")? == out && said(lan, "lost the replication link to")? == lost,
        "the cores noticed\n{}",
        lan.logs()
    );
    ensure!(
        self::epoch(lan).await? == epoch,
        "ownership moved\n{}",
        lan.logs()
    );
    say(&format!(
        "network {network} cut {ways:?}: the slowest waited {worst:.2?}"
    ));
    Ok(worst)
}

async fn epoch(lan: &Lan) -> Result<u64> {
    Ok(lan.status().await?.extents[0].epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_link_is_left_for_the_other_one_and_nothing_is_resynced() -> Result<()> {
    let seed = seed::seed("two_links");
    let Some(lan) = cluster("").await? else {
        return Ok(());
    };
    let load = load_both(&lan, seed)?;
    load.served(SERVED_LIMIT).await?;
    // The first link, both ways: told by both nodes, and returned to once it has worked for a while.
    cut(&lan, &load, 1, &[("a", "b"), ("b", "a")]).await?;
    until(&lan, "an alarm", |status| {
        has_alarm(status, "runs over its second link") && has_alarm(status, "does not answer")
    })
    .await?;
    lan.network().heal()?;
    let healed = Instant::now();
    let worst = worst_until(&lan, &load, "link 1 in use", |status| uses(status, 0)).await?;
    ensure!(
        healed.elapsed() >= Duration::from_secs(8),
        "back after {:?}",
        healed.elapsed()
    );
    say(&format!(
        "back after {:.2?}: the slowest waited {worst:.2?}",
        healed.elapsed()
    ));
    until(&lan, "no alarm", |status| !has_alarm(status, "link")).await?;
    // One way, and the other way over the other link.
    cut(&lan, &load, 1, &[("a", "b")]).await?;
    lan.network().heal()?;
    until(&lan, "both links", all_up).await?;
    cut(&lan, &load, 2, &[("b", "a")]).await?;
    lan.network().heal()?;
    until(&lan, "both links", all_up).await?;
    spare_dies(&lan, &load).await?;
    both_cut(&lan, &load).await?;
    judge(&lan, load).await
}

/// A dead spare link is told, and nothing else comes of it.
async fn spare_dies(lan: &Lan, load: &Mixed) -> Result<()> {
    let before = lan.status_by("a").await?.replication[0].moves;
    lan.network().cut_on(2, "a", "b")?;
    lan.network().cut_on(2, "b", "a")?;
    let worst = worst_until(lan, load, "an alarm", |status| {
        has_alarm(status, "could not move to its second link")
    })
    .await?;
    let status = lan.status_by("a").await?;
    ensure!(
        uses(&status, 0) && status.replication[0].moves == before,
        "{status:#?}"
    );
    say(&format!("the spare dies: the slowest waited {worst:.2?}"));
    lan.network().heal()?;
    until(lan, "no alarm", |status| !has_alarm(status, "link")).await
}

/// With both cut the replica is lost, as with one network, and comes back.
async fn both_cut(lan: &Lan, load: &Mixed) -> Result<()> {
    for network in [1, 2] {
        lan.network().cut_on(network, "a", "b")?;
        lan.network().cut_on(network, "b", "a")?;
    }
    let start = Instant::now();
    let mut worst = Duration::ZERO;
    while lan.status().await?.is_whole() {
        ensure!(start.elapsed() < LIMIT, "nobody misses a replica\n{}", lan.logs());
        worst = worst.max(load.served(SERVED_LIMIT).await.with_context(|| lan.logs())?);
    }
    worst = worst.max(load.served(SERVED_LIMIT).await?);
    lan.network().heal()?;
    say(&format!("both networks cut: the slowest waited {worst:.2?}"));
    lan.wait_for("every replica in sync", LIMIT, |status| {
        status.is_whole() && status.health == Health::Ok
    })
    .await?;
    until(lan, "both links", all_up).await
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_links_move_too() -> Result<()> {
    let seed = seed::seed("two_links plain");
    let Some(lan) = cluster("[replication]\ntls = false").await? else {
        return Ok(());
    };
    let load = load_both(&lan, seed)?;
    load.served(SERVED_LIMIT).await?;
    cut(&lan, &load, 1, &[("a", "b"), ("b", "a")]).await?;
    lan.network().heal()?;
    judge(&lan, load).await
}
