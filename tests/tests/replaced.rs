//! Members that are replaced, added and taken out while initiators write; and the commands that do it, killed at any moment, with nodes or
//! without. The history of every block is judged.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::initiator::{Dial, Session};
use holdfast_drill::workload::mixed::Mixed;
use holdfast_tests::cluster::begin;
use holdfast_tests::history::{judged, load, worst_while};
use holdfast_tests::machines::{LONG, Machines, in_sync, voters};
use holdfast_tests::status::{Health, Status};
use holdfast_tests::{say, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

const TARGET: &str = "iqn.2026-11.example:t";
/// The product's bound on an interruption (3 s), twice: tests share their machine.
const SERVED_LIMIT: Duration = Duration::from_secs(6);
/// Portals that initiators know: those of all nodes that ever are.
const PLACES: [u8; 6] = [0, 1, 4, 5, 6, 7];

/// a, b and w, with a LUN on a and b, and four initiators that write to it through whichever portal answers.
async fn pair(seed: u64) -> Result<(Machines, Mixed)> {
    let m = Machines::trio().await?;
    m.show_extent(TARGET, "64MiB").await?;
    m.until("w", "whole", |status| is_whole(status, &["a", "b"]))
        .await?;
    let mut initiators = Vec::new();
    for number in 0..4 {
        let mut places = PLACES;
        places.rotate_left(usize::from(number % 2));
        let dials = (0..).zip(places);
        let dials = dials.map(|(at, place)| m.dial(TARGET, place, number * 16 + at));
        initiators.push(dials.collect::<Result<Vec<Dial>>>()?);
    }
    let load = load(seed, initiators)?;
    load.served(SERVED_LIMIT).await?;
    Ok((m, load))
}

fn is_whole(status: &Status, replicas: &[&str]) -> bool {
    let mut there = in_sync(status);
    there.sort_unstable();
    status.health == Health::Ok && there == replicas && status.primary().is_some()
}

/// Has the load look at all blocks through this node, and judged.
async fn judge(m: &Machines, load: Mixed, place: u8) -> Result<()> {
    let stopped = load.stop().await;
    stopped
        .look(&Session::connect(&m.dial(TARGET, place, 999)?).await?)
        .await?;
    let (acknowledged, summary) = judged(stopped).await?;
    say(&format!("{acknowledged} calls, {summary:?}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn l8_members_are_replaced_and_replicas_added_under_load() -> Result<()> {
    let seed = seed::seed("replaced");
    let (mut m, load) = pair(seed).await?;
    m.start("w2", "witness", 3)?;
    let moved = async {
        m.join("a", "w2", &["--replace", "w"]).await?;
        m.until("b", "the witness has moved", |status| {
            voters(status) == ["a", "b", "w2"] && status.nodes.len() == 3 && is_whole(status, &["a", "b"])
        })
        .await
    };
    let worst = worst_while(&load, SERVED_LIMIT, || m.logs(), moved).await?;
    say(&format!("the witness moved: the slowest waited {worst:.2?}"));
    m.kill("w").await?;
    m.start("c", "data", 4)?;
    let added = async {
        m.join("w2", "c", &[]).await?;
        m.ask("a", &["extent", "replicas", "d", "a,b,c"]).await?;
        m.until("b", "three replicas", |status| is_whole(status, &["a", "b", "c"]))
            .await
    };
    let worst = worst_while(&load, SERVED_LIMIT, || m.logs(), added).await?;
    say(&format!("a third replica came: the slowest waited {worst:.2?}"));
    // The primary, alive.
    m.start("e", "data", 5)?;
    let replaced = async {
        m.join("b", "e", &["--replace", "a"]).await?;
        m.until("c", "e has taken a's place", |status| {
            voters(status) == ["b", "w2", "c", "e"] && is_whole(status, &["b", "c", "e"])
        })
        .await
    };
    let worst = worst_while(&load, SERVED_LIMIT, || m.logs(), replaced).await?;
    say(&format!(
        "the primary was replaced, alive: the slowest waited {worst:.2?}"
    ));
    m.kill("a").await?;
    // The next one, dead.
    let status = m.status("c").await?;
    let primary = status.primary().context("a primary")?.to_owned();
    let rest: Vec<&str> = ["b", "c", "e"]
        .into_iter()
        .filter(|name| *name != primary)
        .collect();
    m.kill(&primary).await?;
    m.start("f", "data", 6)?;
    let replicas = [rest[0], rest[1], "f"];
    let replaced = async {
        // Whoever is dead is not in the way of a vote once he is missed.
        m.until(rest[0], "the dead one is missed", |status| {
            status.primary().is_some_and(|now| now != primary)
        })
        .await?;
        m.join(rest[0], "f", &["--replace", &primary]).await?;
        m.until(rest[1], "f has taken its place", |status| {
            is_whole(status, &replicas) && !voters(status).contains(&primary.as_str())
        })
        .await
    };
    let worst = worst_while(&load, SERVED_LIMIT, || m.logs(), replaced).await?;
    say(&format!(
        "{primary}, the primary, died and was replaced: the slowest waited {worst:.2?}"
    ));
    judge(&m, load, 6).await
}

/// Runs a command at a node and kills it after a while, and with it the process of a node, which is started again.
async fn blow(
    m: &mut Machines,
    at: &str,
    words: &[&str],
    millis: u64,
    victim: Option<(&str, &str, u8)>,
) -> Result<()> {
    let socket = m.path(at).join("admin.sock");
    let admin = ["--admin", socket.to_str().context("a path in UTF-8")?];
    let mut child = begin(words.iter().chain(&admin))?;
    sleep(Duration::from_millis(millis)).await;
    if let Some((name, role, place)) = victim {
        m.kill(name).await?;
        child.kill().await?;
        m.start(name, role, place)
    } else {
        Ok(child.kill().await?)
    }
}

/// The command again until it is done, or says that there is nothing left to do.
async fn repeat(m: &Machines, at: &str, words: &[&str], over: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        match m.ask(at, words).await {
            Ok(_) => return Ok(()),
            Err(error) if error.to_string().contains(over) => return Ok(()),
            Err(error) => ensure!(start.elapsed() < LONG, "{words:?} at {at}: {error}\n{}", m.logs()),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l8_joins_and_leaves_that_are_killed_are_ended_by_the_same_command() -> Result<()> {
    let seed = seed::seed("replaced killed");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut m, load) = pair(seed).await?;
    let members = [("a", "data", 0), ("b", "data", 1), ("w", "witness", 2)];
    let rounds = 5;
    for round in 0..rounds {
        // A new one each time: nobody comes back as himself.
        let (name, place) = (format!("n{round}"), 7);
        let me = (name.as_str(), "data", place);
        m.start(&name, "data", place)?;
        let token = m.ask("w", &["cluster", "token"]).await?;
        let token = token.lines().next().context("a token")?.to_owned();
        let join = ["cluster", "join", &token];
        let victims = [Some(me), Some(members[round % 3]), None];
        let victim = victims[rng.random_range(0..3)];
        let millis = rng.random_range(20..250);
        // The node answers before it is killed.
        m.until_answers(&name).await?;
        blow(&mut m, &name, &join, millis, victim).await?;
        repeat(&m, &name, &join, "is a member").await?;
        m.until("w", "it votes", |status| {
            voters(status).contains(&name.as_str()) && is_whole(status, &["a", "b"])
        })
        .await?;
        let leave = ["cluster", "leave", name.as_str()];
        let other = members[(round + 1) % 3];
        let by = if victim == Some(members[0]) { "b" } else { "a" };
        let victim = [Some(me), Some(other), None][rng.random_range(0..3)];
        let late = rng.random_range(5..150);
        blow(&mut m, by, &leave, late, victim).await?;
        repeat(&m, by, &leave, "there is no node").await?;
        m.until("w", "it is gone", |status| {
            voters(status) == ["a", "b", "w"] && status.nodes.len() == 3 && is_whole(status, &["a", "b"])
        })
        .await?;
        m.kill(&name).await?;
        let worst = load.served(SERVED_LIMIT).await.with_context(|| m.logs())?;
        say(&format!(
            "{name}: join killed after {millis} ms, leave after {late} ms with {victim:?}; waited {worst:.2?}"
        ));
    }
    judge(&m, load, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_is_killed_is_ended_by_the_same_command() -> Result<()> {
    let seed = seed::seed("init killed");
    let mut rng = StdRng::seed_from_u64(seed);
    let nodes = [("a", "data", 0), ("b", "data", 1), ("w", "witness", 2)];
    for round in 0..5 {
        let mut m = Machines::new()?;
        for (name, role, place) in nodes {
            m.start(name, role, place)?;
            m.until_answers(name).await?;
        }
        let sockets = ["b", "w"].map(|name| m.path(name).join("admin.sock").display().to_string());
        let init = [
            "cluster",
            "init",
            "--name",
            "c",
            "--member",
            &sockets[0],
            "--member",
            &sockets[1],
        ];
        let victim = [Some(nodes[round % 3]), None][rng.random_range(0..2)];
        let millis = rng.random_range(5..200);
        blow(&mut m, "a", &init, millis, victim).await?;
        repeat(&m, "a", &init, "there is no such end").await?;
        let again = m.ask("a", &init).await?;
        ensure!(again.contains("The cluster is made"), "{again}");
        for (name, ..) in nodes {
            m.until(name, "three voters", |status| voters(status) == ["a", "b", "w"])
                .await?;
        }
        m.ask("b", &["extent", "create", "d", "--size", "16MiB"]).await?;
        m.until("w", "whole", |status| is_whole(status, &["a", "b"]))
            .await?;
        say(&format!("init killed after {millis} ms with {victim:?}"));
    }
    Ok(())
}
