//! Members that come to listen elsewhere, one after the other, while initiators write; and a copy of a member's directory that is started
//! on another machine.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_drill::initiator::{Dial, Session};
use holdfast_drill::workload::mixed::Mixed;
use holdfast_tests::history::{judged, load};
use holdfast_tests::machines::{Machines, in_sync};
use holdfast_tests::status::{Health, Status};
use holdfast_tests::{say, seed};

const TARGET: &str = "iqn.2026-11.example:t";
/// The product's bound on an interruption (3 s), twice: tests share their machine.
const SERVED_LIMIT: Duration = Duration::from_secs(6);

fn says_moved(status: &Status) -> bool {
    let mut alarms = status.alarms.iter().filter_map(|alarm| alarm.as_str());
    alarms.any(|alarm| alarm.contains("listens elsewhere than the cluster knows"))
}

fn is_whole(status: &Status) -> bool {
    status.health == Health::Ok && in_sync(status) == ["a", "b"] && !says_moved(status)
}

/// A cluster with a LUN on a and b.
async fn cluster() -> Result<Machines> {
    let m = Machines::trio().await?;
    m.show_extent(TARGET, "64MiB").await?;
    for name in ["a", "b", "w"] {
        m.until(name, "whole", |status| {
            is_whole(status) && status.primary() == Some("a")
        })
        .await?;
    }
    Ok(m)
}

/// The node stops, its `node.toml` is changed, it starts: it is alone until the cluster is told.
async fn moves(m: &mut Machines, load: &Mixed, (name, role): (&str, &str), to: u8) -> Result<()> {
    m.kill(name).await?;
    let mut worst = load.served(SERVED_LIMIT).await?;
    m.start(name, role, to)?;
    m.until(name, "an alarm", says_moved).await?;
    worst = worst.max(load.served(SERVED_LIMIT).await?);
    let told = m.ask(name, &["cluster", "readdress"]).await?;
    let raft = format!("raft {}", m.address(to, 1));
    ensure!(told.contains(&raft), "{told}");
    let again = m.ask(name, &["cluster", "readdress"]).await?;
    ensure!(again.contains("already"), "{again}");
    for by in ["a", "b", "w"] {
        m.until(by, "whole again", is_whole).await?;
    }
    worst = worst.max(load.served(SERVED_LIMIT).await?);
    say(&format!(
        "{name} moved to {}: the slowest waited {worst:.2?}",
        m.portal(to)
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn members_move_to_other_addresses_one_after_the_other_under_load() -> Result<()> {
    let seed = seed::seed("readdress");
    let mut m = cluster().await?;
    // a and b go from places 0 and 1 to 5 and 6; initiators know all four portals.
    let mut initiators = Vec::new();
    for (number, order) in (0..).zip([[0, 5, 1, 6], [1, 6, 0, 5], [0, 5, 1, 6], [1, 6, 0, 5]]) {
        let dials = (0..).zip(order);
        let dials = dials.map(|(at, place)| m.dial(TARGET, place, number * 8 + at));
        initiators.push(dials.collect::<Result<Vec<Dial>>>()?);
    }
    let load = load(seed, initiators)?;
    load.served(SERVED_LIMIT).await?;
    moves(&mut m, &load, ("b", "data"), 6).await?;
    moves(&mut m, &load, ("w", "witness"), 7).await?;
    moves(&mut m, &load, ("a", "data"), 5).await?;
    // What a new node is told, and what initiators discover, are the new addresses.
    let token = m.ask("w", &["cluster", "token"]).await?;
    ensure!(token.contains(&m.address(5, 1).to_string()), "{token}");
    let stopped = load.stop().await;
    for place in [5, 6] {
        stopped
            .look(&Session::connect(&m.dial(TARGET, place, 99)?).await?)
            .await?;
    }
    let (acknowledged, summary) = judged(stopped).await?;
    say(&format!("{acknowledged} calls, {summary:?}"));
    Ok(())
}

/// How many links to the other data node there are, all of which are up.
fn links(status: &Status) -> usize {
    let links = status.replication.first().map_or(&[][..], |peer| &peer.links);
    if links.iter().all(|link| link.up) {
        links.len()
    } else {
        0
    }
}

fn says_unequal(status: &Status) -> bool {
    let mut alarms = status.alarms.iter().filter_map(|alarm| alarm.as_str());
    alarms.any(|alarm| alarm.contains("give both as many"))
}

/// The second network comes to one node after the other, and goes again: in between they have not as many addresses.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_link_comes_and_goes_while_initiators_write() -> Result<()> {
    let seed = seed::seed("readdress links");
    let mut m = cluster().await?;
    let dials = |number| Ok(vec![m.dial(TARGET, 0, number)?, m.dial(TARGET, 1, number + 100)?]);
    let load = load(seed, (0..4).map(dials).collect::<Result<_>>()?)?;
    load.served(SERVED_LIMIT).await?;
    for (count, order) in [(2, ["b", "a"]), (1, ["a", "b"])] {
        m.links(count);
        for (at, name) in order.into_iter().enumerate() {
            m.kill(name).await?;
            m.start(name, "data", u8::from(name == "b"))?;
            m.until(name, "an alarm", says_moved).await?;
            m.ask(name, &["cluster", "readdress"]).await?;
            for by in ["a", "b"] {
                let (is_last, wanted) = (at == 1, usize::from(count));
                m.until(by, "in sync", |status| {
                    in_sync(status) == ["a", "b"] && !says_moved(status) && says_unequal(status) != is_last
                })
                .await?;
                if is_last {
                    m.until(by, "its links", |status| {
                        is_whole(status) && links(status) == wanted
                    })
                    .await?;
                }
            }
            let worst = load.served(SERVED_LIMIT).await?;
            say(&format!("{name} has {count}: the slowest waited {worst:.2?}"));
        }
    }
    let stopped = load.stop().await;
    stopped
        .look(&Session::connect(&m.dial(TARGET, 1, 999)?).await?)
        .await?;
    let (acknowledged, summary) = judged(stopped).await?;
    say(&format!("{acknowledged} calls, {summary:?}"));
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Two processes out of one directory are never the same node: the second one gets no address, and serves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_members_directory_does_not_take_its_place() -> Result<()> {
    let mut m = cluster().await?;
    m.kill("b").await?;
    copy(&m.path("b"), &m.path("b2"))?;
    m.start("b", "data", 1)?;
    m.until("a", "whole", is_whole).await?;
    m.start("b2", "data", 8)?;
    m.until("b2", "an alarm", says_moved).await?;
    let refused = m.refused("b2", &["cluster", "readdress"]).await?;
    ensure!(refused.contains("its directory is in use twice"), "{refused}");
    m.kill("b2").await?;
    let taken = m.ask("b", &["cluster", "readdress"]).await?;
    ensure!(taken.contains("already"), "{taken}");
    m.until("a", "whole", is_whole).await
}
