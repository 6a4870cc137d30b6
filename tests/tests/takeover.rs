//! T1 to T4: one data node goes on alone, with real processes. The others are dead, come back as they were, and come back as new nodes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_drill::initiator::Session;
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::{self, Demo, begin};
use holdfast_tests::hosts::Host;
use holdfast_tests::machines::{LONG, Machines, in_sync, voters};
use holdfast_tests::status::{Extent, Health, NodeState, Status};
use holdfast_tests::{say, seed};
use holdfast_types::Lba;
use tokio::time::{Instant, sleep};

const TARGET: &str = "iqn.2026-11.example:takeover";
const TAKEOVER: [&str; 2] = ["cluster", "takeover"];
const CONFIRMED: [&str; 3] = ["cluster", "takeover", "--confirm-peer-is-down"];

/// What a command at a node of the demo came to: its output, or the line that says why not.
async fn at(demo: &Demo, name: &str, arguments: &[&str]) -> Result<Result<String, String>> {
    let mut all = arguments.to_vec();
    all.extend(["--admin", demo.admin(name)?]);
    let done = cluster::holdfast(&all).await?;
    Ok(if done.code == Some(0) {
        Ok(done.out)
    } else {
        Err(done.err)
    })
}

async fn refused(demo: &Demo, name: &str, arguments: &[&str], word: &str) -> Result<()> {
    match at(demo, name, arguments).await? {
        Ok(done) => bail!("{arguments:?} at {name} should be refused, and says: {done}"),
        Err(line) => {
            let line = line.lines().last().unwrap_or_default().to_owned();
            ensure!(line.contains(word), "{arguments:?} at {name} says: {line}");
            Ok(())
        }
    }
}

async fn done(demo: &Demo, name: &str, arguments: &[&str]) -> Result<String> {
    at(demo, name, arguments).await?.map_err(anyhow::Error::msg)
}

/// Empties a node's directory but for its configuration, as an administrator does.
fn empty(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() == "node.toml" || entry.file_name() == "node.log" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

async fn wait(demo: &Demo, name: &str, what: &str, is: impl Fn(&Status) -> bool) -> Result<Status> {
    let start = Instant::now();
    loop {
        let status = demo.status_by(name).await;
        if let Ok(status) = &status
            && is(status)
        {
            return Ok(status.clone());
        }
        ensure!(
            start.elapsed() < LONG,
            "never: {what}; last: {status:?}\n{}",
            demo.logs()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// b with its old directory: refused, without a quorum, and said so once at a.
async fn comes_back_as_it_was(demo: &Demo) -> Result<()> {
    demo.restart("b").await?;
    let alone = wait(demo, "b", "b hears that it was left behind", |status| {
        status
            .alarms
            .iter()
            .any(|alarm| alarm.to_string().contains("has taken over"))
    });
    let alone = alone.await?;
    ensure!(!alone.quorum && alone.health == Health::Down, "{alone:?}");
    let refused = Session::connect(&demo.dial("b")?).await;
    ensure!(refused.is_err(), "its port refuses initiators");
    let log = std::fs::read_to_string(demo.dir().join("a/node.log"))?;
    let lines = log.lines().filter(|line| line.contains("before a took over"));
    ensure!(lines.count() == 1, "one line at a says who is refused");
    demo.kill("b")
}

/// b with an empty directory: a new node, and a second replica again.
async fn comes_back_anew(demo: &Demo, extent: &str) -> Result<()> {
    sleep(Duration::from_millis(300)).await;
    empty(&demo.dir().join("b"))?;
    demo.restart("b").await?;
    wait(demo, "b", "b is up", |_| true).await?;
    let token = done(demo, "a", &["cluster", "token"]).await?;
    let token = token.lines().next().context("a token")?.to_owned();
    done(demo, "b", &["cluster", "join", &token]).await?;
    done(demo, "a", &["extent", "replicas", extent, "a,b"]).await?;
    wait(demo, "a", "both in sync", |status| in_sync(status) == ["a", "b"]).await?;
    let members = done(demo, "b", &["cluster", "members"]).await?;
    ensure!(
        members.contains("Takeover on") && members.contains("without b and w"),
        "{members}"
    );
    Ok(())
}

/// T1, T2, I1: two of three are gone for good, under checked writes. What was acknowledged is there, new writes go on, and an old peer that
/// comes back is refused, serves nothing, and comes in as a new node.
#[tokio::test(flavor = "multi_thread")]
async fn t1_t2_one_of_three_goes_on_with_every_acknowledged_write() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    let before = demo.wait_in_sync(LONG).await?;
    let disks = [
        demo.multipath(&["a", "b"]).await?,
        demo.multipath(&["b", "a"]).await?,
    ];
    let load = workload::start(Plan::small(seed::seed("takeover")), &disks)?;
    load.served(0, LONG).await?;
    sleep(Duration::from_secs(1)).await;
    for name in ["b", "w"] {
        demo.kill(name)?;
    }
    // Without a leader there is no quorum either, and those who died may have been heard a moment ago: a takeover is refused for that long.
    wait(&demo, "a", "a is alone", |status| {
        let others = || status.nodes.iter().filter(|node| node.name != "a");
        !status.quorum && others().all(|node| node.state == NodeState::Down)
    })
    .await?;
    sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    let said = done(&demo, "a", &CONFIRMED).await?;
    ensure!(
        said.contains("served from the replica on a") && said.contains("The takeover is done"),
        "{said}"
    );
    let took = began.elapsed();
    load.served(0, LONG).await?;
    let status = wait(&demo, "a", "a serves", |status| {
        status.quorum && status.primary() == Some("a")
    })
    .await?;
    ensure!(
        status.health == Health::AtRisk && status.nodes.len() == 1,
        "{status:?}"
    );
    ensure!(status.extents[0].naa == before.extents[0].naa && status.targets[0].iqn == before.targets[0].iqn);
    ensure!(status.extents[0].epoch >= 1 << 20, "{status:?}");
    let written = load.acknowledged();
    let units = load.verifier().verify(&demo.session("a").await?, "a").await;
    let units = units.map_err(anyhow::Error::msg)?;
    refused(&demo, "a", &CONFIRMED, "quorum alone").await?;
    let name = &status.extents[0].name;
    comes_back_as_it_was(&demo).await?;
    ensure!(load.acknowledged() > written, "writes go on at a");
    comes_back_anew(&demo, name).await?;
    let (report, verifier) = load.stop().await;
    report.clean().map_err(anyhow::Error::msg)?;
    verifier
        .verify(&demo.session("a").await?, "a")
        .await
        .map_err(anyhow::Error::msg)?;
    done(&demo, "a", &["switchover", name, "--to", "b"]).await?;
    verifier
        .verify(&demo.session("b").await?, "b")
        .await
        .map_err(anyhow::Error::msg)?;
    say(&format!(
        "{written} writes acknowledged, {units} blocks verified; the command took {took:.1?}"
    ));
    Ok(())
}

/// T1, I9: who must not, cannot; and reservations with their generation are as they were.
#[tokio::test(flavor = "multi_thread")]
async fn t1_a_takeover_is_refused_while_anybody_is_left_and_keeps_reservations() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LONG).await?;
    let mut host = Host::new(demo.dial("a")?, 0xa1).await?;
    host.register().await?;
    ensure!(host.out(1, 5, 0xa1, 0).await?.is_good(), "RESERVE");
    let keys = host.keys().await?;
    refused(&demo, "a", &CONFIRMED, "is up").await?;
    demo.kill("b")?;
    // Heard a moment ago counts as heard.
    sleep(Duration::from_secs(1)).await;
    refused(&demo, "w", &CONFIRMED, "is a witness").await?;
    refused(&demo, "a", &CONFIRMED, "w is up").await?;
    demo.signal("w", rustix::process::Signal::STOP)?;
    sleep(Duration::from_secs(1)).await;
    refused(&demo, "a", &CONFIRMED, "w is there").await?;
    demo.kill("w")?;
    sleep(Duration::from_millis(300)).await;
    refused(&demo, "a", &TAKEOVER, "nothing was changed").await?;
    ensure!(!demo.status_by("a").await?.quorum);
    let plan = at(&demo, "a", &["cluster", "takeover", "--json"]).await?;
    ensure!(plan.is_err(), "without a confirmation it is no success");
    let text = done(
        &demo,
        "a",
        &["cluster", "takeover", "--confirm-peer-is-down", "--json"],
    )
    .await?;
    let answer: serde_json::Value = serde_json::from_str(&text)?;
    ensure!(
        answer["done"] == true && answer["plan"]["extents"][0]["fate"] == "served",
        "{text}"
    );
    ensure!(
        answer["status"]["takeovers"][0]["gone"][1]["name"] == "w",
        "{text}"
    );
    let mut again = Host::new(demo.dial("a")?, 0xa1).await?;
    ensure!(again.keys().await? == keys, "generation and keys are kept");
    ensure!(again.held().await? == host_holds(), "the reservation is kept");
    Ok(())
}

const fn host_holds() -> Option<(u64, u8)> {
    Some((0xa1, 5))
}

/// Two data nodes without a witness, b dead, and a's directory put aside: each round begins from there.
async fn half_a_pair() -> Result<Machines> {
    let mut m = Machines::new()?;
    m.start("a", "data", 0)?;
    m.start("b", "data", 1)?;
    m.ask("a", &["cluster", "init", "--name", "c"]).await?;
    m.join("a", "b", &[]).await?;
    m.until("a", "two voters", |status| voters(status) == ["a", "b"])
        .await?;
    m.ask("a", &["extent", "create", "d", "--size", "64MiB"]).await?;
    m.until("a", "both in sync", |status| {
        in_sync(status) == ["a", "b"] && status.primary().is_some()
    })
    .await?;
    m.kill("b").await?;
    Ok(m)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// T3: the node is killed at many moments after the takeover was ordered; its next start ends what was begun, once.
#[tokio::test(flavor = "multi_thread")]
async fn t3_a_node_that_is_killed_during_its_takeover_ends_it() -> Result<()> {
    let mut m = half_a_pair().await?;
    m.kill("a").await?;
    let (home, kept) = (m.path("a"), m.path("kept"));
    copy(&home, &kept)?;
    let (mut ordered, mut answered) = (0, 0);
    for round in 0..6_u64 {
        std::fs::remove_dir_all(&home)?;
        copy(&kept, &home)?;
        m.start("a", "data", 0)?;
        m.until("a", "a is up", |status| {
            !status.quorum && !status.extents.is_empty()
        })
        .await?;
        let socket = home.join("admin.sock");
        let admin = ["--admin", socket.to_str().context("a path in UTF-8")?];
        let arguments = [&CONFIRMED[..], &admin[..]].concat();
        let asked = cluster::holdfast(&arguments);
        let killed = async {
            let order = home.join("takeover.json");
            let start = Instant::now();
            while !order.exists() {
                ensure!(start.elapsed() < LONG, "never ordered\n{}", m.logs());
                sleep(Duration::from_micros(200)).await;
            }
            sleep(Duration::from_millis(round * round * 12)).await;
            Ok(())
        };
        tokio::select! {
            // A fast machine has carried it out, and answered, before the moment of a later round.
            done = asked => {
                done?.success()?;
                answered += 1;
            }
            killed = killed => killed?,
        }
        m.kill("a").await?;
        ordered += u32::from(home.join("takeover.json").exists());
        m.start("a", "data", 0)?;
        m.until("a", "a goes on alone", |status| {
            status.quorum && voters(status) == ["a"] && status.primary() == Some("a")
        })
        .await?;
        ensure!(!home.join("takeover.json").exists(), "round {round}");
        let members = m.ask("a", &["cluster", "members"]).await?;
        ensure!(
            members.matches("Takeover on").count() == 1,
            "round {round}: {members}"
        );
        m.kill("a").await?;
    }
    say(&format!(
        "6 rounds, {ordered} of them killed with the order still standing, {answered} after the command had answered"
    ));
    ensure!(answered < 6, "no kill came before the command's answer");
    Ok(())
}

/// A session to LUN 0 of the only target, through the portal of the `place`-th node; tried again while nobody serves.
async fn session(m: &Machines, place: u8) -> Result<Session> {
    let dial = m.dial(TARGET, place, u16::from(place) + 1)?;
    let start = Instant::now();
    loop {
        match Session::connect(&dial).await {
            Ok(session) => return Ok(session),
            Err(error) if start.elapsed() > LONG => bail!("{error}\n{}", m.logs()),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

fn contents(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 4096])
}

/// a, b and w with extent d on a and b, which holds ones on both and twos on b alone; only a is left, and knows it. And only-b, on b.
async fn stale() -> Result<Machines> {
    let mut m = Machines::trio().await?;
    for (name, nodes) in [("d", "a,b"), ("only-b", "b")] {
        m.ask(
            "a",
            &["extent", "create", name, "--size", "64MiB", "--replicas", nodes],
        )
        .await?;
    }
    m.ask("a", &["target", "create", TARGET]).await?;
    m.ask("a", &["lun", "create", TARGET, "d", "--lun", "0"]).await?;
    let set = |status: &Status, set: &[&str]| {
        let extent = status.extents.iter().find(|extent| extent.name == "d");
        extent.is_some_and(|extent| extent.in_sync == set && extent.primary.is_some())
    };
    m.until("w", "both in sync", |status| set(status, &["a", "b"]))
        .await?;
    session(&m, 0).await?.write(Lba(0), contents(1)).await?;
    m.kill("a").await?;
    m.until("b", "a is out of the set", |status| set(status, &["b"]))
        .await?;
    session(&m, 1).await?.write(Lba(0), contents(2)).await?;
    let revision = m.status("b").await?.revision;
    m.kill("b").await?;
    m.start("a", "data", 0)?;
    m.until("a", "a knows that it is out", |status| {
        status.revision >= revision && status.quorum
    })
    .await?;
    m.kill("w").await?;
    sleep(Duration::from_secs(1)).await;
    Ok(m)
}

/// Killed at any moment, it is accepted or not; once more, it is, and it is noted once.
async fn accepted_once(m: &Machines, accept: &[&str]) -> Result<()> {
    let socket = m.path("a").join("admin.sock");
    let admin = ["--admin", socket.to_str().context("a path in UTF-8")?];
    for millis in [0, 5, 15, 30] {
        let mut child = begin(accept.iter().chain(&admin))?;
        sleep(Duration::from_millis(millis)).await;
        child.kill().await?;
    }
    for _ in 0..2 {
        let accepted = m.ask("a", accept).await?;
        ensure!(accepted.contains("is lost"), "{accepted}");
    }
    let told = m.ask("a", &["status", "--json"]).await?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    ensure!(
        told["losses"].as_array().is_some_and(|losses| losses.len() == 1),
        "{told:#}"
    );
    Ok(())
}

/// T4: a's replica was out of the set when b died. Nobody serves it until that is accepted, and what is said of it stays.
#[tokio::test(flavor = "multi_thread")]
async fn t4_a_stale_replica_is_served_only_once_its_loss_is_accepted() -> Result<()> {
    let m = stale().await?;
    let said = m.ask("a", &CONFIRMED).await?;
    ensure!(
        said.contains("not served: the replica on a was not in sync") && said.contains("lost here"),
        "{said}"
    );
    let status = m.status("a").await?;
    ensure!(status.health == Health::Down && status.quorum, "{status:?}");
    let idle = |extent: &Extent| extent.primary.is_none() && extent.in_sync.is_empty();
    ensure!(status.extents.iter().all(idle), "{status:?}");
    let unnamed = m.refused("a", &["extent", "accept-data-loss", "d"]).await?;
    ensure!(unnamed.contains("--confirm d"), "{unnamed}");
    let accept = |name: &'static str| ["extent", "accept-data-loss", name, "--confirm", name];
    let nothing = m.refused("a", &accept("only-b")).await?;
    ensure!(nothing.contains("delete it"), "{nothing}");
    ensure!(
        m.status("a").await?.extents.iter().all(idle),
        "a refusal changes nothing"
    );
    accepted_once(&m, &accept("d")).await?;
    m.until("a", "d is served", |status| {
        status
            .extents
            .iter()
            .any(|e| e.name == "d" && e.primary.is_some())
    })
    .await?;
    let read = session(&m, 0).await?.read(Lba(0), 8).await?;
    ensure!(
        read == contents(1),
        "the replica is as it was when it left the set: {:?}",
        &read[..4]
    );
    m.ask("a", &["extent", "delete", "only-b", "--confirm", "only-b"])
        .await?;
    let members = m.ask("a", &["cluster", "members"]).await?;
    ensure!(members.contains("Loss of data accepted"), "{members}");
    Ok(())
}
