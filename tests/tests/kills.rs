//! `kill -9` of one node, of both data nodes, of all three, or a pause of one, at random moments, while initiators read and write the
//! same blocks. The whole history is judged by the block checker.

use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_drill::checker::{Initial, Rules};
use holdfast_drill::workload::mixed::{self, Mixed, Plan};
use holdfast_tests::cluster::Demo;
use holdfast_tests::history::judged;
use holdfast_tests::{say, seed};
use holdfast_types::{BlockSize, Lba};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

/// For coming back and being in sync again, on a machine that does other things, too.
const LIMIT: Duration = Duration::from_secs(90);
/// Hold limit (3 s), time in flight, and a slow machine: a call without an answer takes effect within this time or never (I11).
const LATE: Duration = Duration::from_secs(15);
/// Rounds over which one history goes on.
const ROUNDS_AT_ONCE: u32 = 25;
const BLOCKS: u64 = 96;
const NODES: [&str; 3] = ["a", "b", "w"];

/// Starts six initiators, half of which prefer each portal.
fn load(demo: &Demo, seed: u64) -> Result<Mixed> {
    let plan = Plan {
        seed,
        first: Lba(2048),
        blocks: BLOCKS,
        groups: 1,
        readers: 0,
        pause: Duration::from_millis(2),
        rules: Rules {
            initial: Initial::Unknown,
            late: Some(LATE),
        },
        reserves: false,
        may_be_full: false,
    };
    let mut initiators = Vec::new();
    for number in 0..6 {
        let order = if number % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
        let paths = order.iter().map(|name| demo.dial(name)).collect::<Result<_>>()?;
        initiators.push(paths);
    }
    Ok(mixed::start(plan, BlockSize::B512, initiators)?)
}

/// Ends a load and has its history judged: through both portals, and by comparing the replicas' files.
async fn judge(demo: &Demo, load: Mixed) -> Result<()> {
    demo.wait_in_sync(LIMIT).await?;
    let stopped = load.stop().await;
    for name in ["a", "b"] {
        stopped.look(&*demo.multipath(&[name]).await?).await?;
    }
    let (answered, summary) = judged(stopped).await?;
    say(&format!("{answered} calls answered, {summary:?}"));
    Ok(())
}

/// Who dies in a round, in which order.
fn victims(random: &mut StdRng) -> Vec<&'static str> {
    let mut nodes = match random.random_range(0..10) {
        0..5 => vec![NODES[random.random_range(0..3)]],
        5..8 => vec!["a", "b"],
        _ => NODES.to_vec(),
    };
    nodes.shuffle(random);
    nodes
}

/// Stops a node for a while, as a host that hangs, and lets it go on.
async fn pause(demo: &Demo, random: &mut StdRng) -> Result<&'static str> {
    let name = NODES[random.random_range(0..3)];
    sleep(Duration::from_millis(random.random_range(100..1500))).await;
    demo.signal(name, Signal::STOP)?;
    sleep(Duration::from_millis(random.random_range(50..6000))).await;
    demo.signal(name, Signal::CONT)?;
    Ok(name)
}

/// Kills some nodes and asks them back, each at a random moment.
async fn strike(demo: &Demo, random: &mut StdRng) -> Result<Vec<&'static str>> {
    let mut nodes = victims(random);
    sleep(Duration::from_millis(random.random_range(100..2500))).await;
    for name in &nodes {
        demo.kill(name)?;
        if random.random_bool(0.5) {
            sleep(Duration::from_millis(random.random_range(0..700))).await;
        }
    }
    sleep(Duration::from_millis(random.random_range(0..2000))).await;
    let killed = nodes.clone();
    nodes.shuffle(random);
    for name in nodes {
        demo.restart(name).await?;
    }
    Ok(killed)
}

/// One round's trouble, and what it was.
async fn trouble(demo: &Demo, random: &mut StdRng) -> Result<String> {
    if random.random_bool(0.2) {
        return Ok(format!("{} stopped for a while", pause(demo, random).await?));
    }
    let killed = strike(demo, random).await?.join(", ");
    Ok(format!("{killed} killed and asked back"))
}

/// I1 to I5, I8, I11: no acknowledged write is lost, no answer is impossible, and the cluster comes back by itself each time.
/// `HOLDFAST_ROUNDS` says how many rounds (4).
#[tokio::test(flavor = "multi_thread")]
async fn nodes_killed_at_random_lose_nothing_and_come_back_by_themselves() -> Result<()> {
    let rounds = seed::number("HOLDFAST_ROUNDS", 4);
    let seed = seed::seed("kills");
    let mut random = StdRng::seed_from_u64(seed);
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let mut running = load(&demo, seed)?;
    let mut worst = Duration::ZERO;
    for round in 1..=rounds {
        let what = || format!("round {round}, HOLDFAST_SEED={seed}");
        running.served(LIMIT).await.with_context(what)?;
        let trouble = trouble(&demo, &mut random).await.with_context(what)?;
        let back = Instant::now();
        let served = running.served(LIMIT).await;
        let served = served.with_context(|| format!("{}, {trouble}\n{}", what(), demo.logs()))?;
        // Now and then the next blow comes while replicas are not in sync yet.
        let waits = round == rounds || random.random_bool(0.7);
        if waits {
            demo.wait_in_sync(LIMIT).await.with_context(what)?;
        }
        worst = worst.max(back.elapsed());
        let state = if waits { "in sync" } else { "not waited for" };
        say(&format!(
            "round {round}: {trouble}; all initiators served after {served:.2?}, {state} after {:.2?}",
            back.elapsed()
        ));
        if round % ROUNDS_AT_ONCE == 0 && round < rounds {
            judge(&demo, running).await.with_context(what)?;
            // What was under way in the old history must not show in the new one.
            sleep(LATE).await;
            running = load(&demo, seed.wrapping_add(u64::from(round)))?;
        }
    }
    judge(&demo, running)
        .await
        .with_context(|| format!("HOLDFAST_SEED={seed}"))?;
    say(&format!(
        "{rounds} rounds, the slowest was whole again after {worst:.2?}"
    ));
    Ok(())
}
