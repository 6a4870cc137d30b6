//! As many logical units as a target has: 1,024. Most of them have ids that only flat addressing can say (SAM-5, 4.7.7.3).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use holdfast_drill::cdb;
use holdfast_drill::error::{Error, SenseCode};
use holdfast_drill::initiator::{Dial, Session};
use holdfast_tests::cluster::{self, Demo};
use holdfast_tests::{say, seed};
use holdfast_types::{LUNS_MAX, Lba, Lun};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Units under I/O, and the sessions that do it, each to its share of them.
const BUSY: usize = 64;
const SESSIONS: usize = 8;
const LIMIT: Duration = Duration::from_secs(240);
/// What REPORT LUNS, a login and a failover may take on a machine that does other things, too. The aim is a second each.
const BOUND: Duration = Duration::from_secs(20);
/// Commands that make units, at a time.
const MAKERS: usize = 8;

fn lun(number: usize) -> Result<Lun> {
    Ok(Lun::try_from(u16::try_from(number)?)?)
}

/// Makes units up to [`LUNS_MAX`] beside the demo's own; not in order, as administrators do.
async fn fill(demo: &Demo) -> Result<()> {
    let mut makers = JoinSet::new();
    for maker in 0..MAKERS {
        // Half of them at a node that does not lead: what it was told to make is there for the next command.
        let node = if maker % 2 == 0 { "a" } else { "b" };
        let (target, admin) = (demo.document().target.clone(), demo.admin(node)?.to_owned());
        makers.spawn(async move {
            for number in (1..LUNS_MAX).filter(|number| number % MAKERS == maker) {
                let (name, number) = (format!("disk{number}"), number.to_string());
                let make = ["extent", "create", &name, "--size", "1MiB", "--admin", &admin];
                cluster::holdfast(&make).await?.success()?;
                let map = [
                    "lun", "create", &target, &name, "--lun", &number, "--admin", &admin,
                ];
                cluster::holdfast(&map).await?.success()?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(made) = makers.join_next().await {
        made??;
    }
    Ok(())
}

/// REPORT LUNS, and how long it took.
async fn report_luns(session: &Session) -> Result<(BTreeSet<u16>, Duration)> {
    let began = Instant::now();
    let allocation = 8 + 8 * u32::try_from(LUNS_MAX)?;
    let data = session
        .command(cdb::report_luns(allocation), Some(allocation))
        .await?;
    let took = began.elapsed();
    let said = data.get(..4).context("no header")?;
    ensure!(
        u32::from_be_bytes(said.try_into()?) == allocation - 8,
        "a list of another length"
    );
    let luns = data[8..]
        .chunks_exact(8)
        .map(|entry| {
            let number = u16::from_be_bytes([entry[0], entry[1]]);
            ensure!(entry[2..] == [0; 6], "{entry:02x?}");
            // Flat space addressing where a byte is not enough, else peripheral device addressing.
            Ok(match number >> 14 {
                0 if number < 256 => number,
                1 => number & 0x3fff,
                _ => bail!("LUN {number:#06x}"),
            })
        })
        .collect::<Result<_>>()?;
    Ok((luns, took))
}

/// One command, until it is through: attentions and transitions are retried.
async fn through(
    session: &Session,
    lun: Lun,
    cdb: cdb::Cdb,
    read: Option<u32>,
    data: &Bytes,
) -> Result<Bytes, Error> {
    loop {
        match session.command_on(lun, cdb, read, data.clone()).await {
            Err(Error::CheckCondition(sense)) if sense.is_unit_attention() => {}
            Err(Error::CheckCondition(SenseCode::TRANSITION | SenseCode::STANDBY)) => {
                sleep(Duration::from_millis(5)).await;
            }
            end => return end,
        }
    }
}

/// What became of a unit's writer.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    writes: u64,
    /// The longest between two writes that were through.
    stall: Duration,
}

/// Writes a counter, reads it back, and goes on until told to stop. A lost connection is made anew.
async fn keep_busy(mut session: Arc<Session>, dial: Dial, lun: Lun, stop: Arc<AtomicBool>) -> Result<Seen> {
    let (mut seen, mut last) = (Seen::default(), Instant::now());
    let at = Lba(u64::from(lun.value()) % 2048);
    while !stop.load(Ordering::Relaxed) {
        let mut block = vec![0; 512];
        block[..2].copy_from_slice(&lun.value().to_be_bytes());
        block[2..10].copy_from_slice(&(seen.writes + 1).to_be_bytes());
        let block = Bytes::from(block);
        let work = async {
            through(&session, lun, cdb::write_16(at, 1), None, &block).await?;
            through(&session, lun, cdb::read_16(at, 1), Some(512), &Bytes::new()).await
        };
        match work.await {
            Ok(found) => ensure!(found == block, "LUN {lun}: block {at:?} is not what was written"),
            Err(error) if error.is_unknown() => {
                session = Arc::new(again(&dial).await);
                continue;
            }
            Err(error) => return Err(error).context(format!("LUN {lun}")),
        }
        seen.writes += 1;
        seen.stall = seen.stall.max(last.elapsed());
        last = Instant::now();
    }
    Ok(seen)
}

async fn again(dial: &Dial) -> Session {
    loop {
        match Session::connect(dial).await {
            Ok(session) => return session,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Sessions through a node, and a writer for each of the busy units.
async fn busy(demo: &Demo, node: &str, stop: &Arc<AtomicBool>) -> Result<JoinSet<Result<Seen>>> {
    let mut writers = JoinSet::new();
    for number in 0..SESSIONS {
        let first = Arc::new(Session::connect(&demo.dial(node)?).await?);
        for unit in 0..BUSY / SESSIONS {
            // All over the numbers, the last one among them.
            let at = (number * (BUSY / SESSIONS) + unit + 1) * (LUNS_MAX / BUSY) - 1;
            let work = keep_busy(Arc::clone(&first), demo.dial(node)?, lun(at)?, Arc::clone(stop));
            writers.spawn(work);
        }
    }
    Ok(writers)
}

async fn ended(mut writers: JoinSet<Result<Seen>>, stop: &AtomicBool) -> Result<Seen> {
    stop.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    while let Some(one) = writers.join_next().await {
        let one = one??;
        all.writes += one.writes;
        all.stall = all.stall.max(one.stall);
    }
    Ok(all)
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// REPORT LUNS, login and failover with as many units as there can be, 64 of them busy. `HOLDFAST_ROUNDS` says how many failovers (1).
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_units_answer_as_one_does() -> Result<()> {
    let demo = Demo::start_with("1MiB").await?;
    let began = Instant::now();
    fill(&demo).await?;
    say(&format!(
        "{LUNS_MAX} units are made after {:.0?}",
        began.elapsed()
    ));
    let whole =
        |status: &holdfast_tests::status::Status| status.is_whole() && status.extents.len() == LUNS_MAX;
    let admin = demo.admin("a")?.to_owned();
    for round in 1..=seed::number("HOLDFAST_ROUNDS", 1) {
        let status = demo.wait_for("every unit in sync", LIMIT, whole).await?;
        let leader = status.leader.as_deref().unwrap_or_default();
        let (victim, other) = if leader == "a" { ("b", "a") } else { ("a", "b") };
        let moved = cluster::holdfast(&["switchover", "--all", "--to", victim, "--admin", &admin]).await?;
        moved.success()?;
        let stop = Arc::new(AtomicBool::new(false));
        let writers = busy(&demo, other, &stop).await?;
        let (mut logins, mut lists) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let began = Instant::now();
            let session = Session::connect(&demo.dial(other)?).await?;
            logins.push(began.elapsed());
            let (luns, took) = report_luns(&session).await?;
            ensure!(luns == (0..1024).collect(), "other LUNs: {luns:?}");
            lists.push(took);
            session.log_out().await?;
        }
        demo.kill(victim)?;
        sleep(Duration::from_secs(3)).await;
        let seen = ended(writers, &stop).await?;
        say(&format!(
            "round {round}, {LUNS_MAX} units, {BUSY} busy in {SESSIONS} sessions: login {:.1?}, slowest {:.1?}; \
             REPORT LUNS {:.1?}, slowest {:.1?}; failover of all: {:.0?} between two writes, {} writes",
            middle(logins.clone()),
            logins.iter().max().context("there were some")?,
            middle(lists.clone()),
            lists.iter().max().context("there were some")?,
            seen.stall,
            seen.writes
        ));
        let slowest = logins.iter().chain(&lists).chain([&seen.stall]).max();
        ensure!(
            slowest.is_some_and(|slowest| *slowest < BOUND),
            "{slowest:?}\n{}",
            demo.logs()
        );
        ensure!(seen.writes >= BUSY as u64, "some unit was not written");
        demo.restart(victim).await?;
    }
    Ok(())
}
