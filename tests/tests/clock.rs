//! The unit's clock (REPORT and SET TIMESTAMP): one for all nodes, and it goes on when a node dies and when all were stopped.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use holdfast_drill::error::SenseCode;
use holdfast_tests::cluster::Place;
use holdfast_tests::hosts::{End, Host};

const LIMIT: Duration = Duration::from_secs(60);
/// TIMESTAMP CHANGED.
const CHANGED: SenseCode = SenseCode::new(0x06, 0x2a, 0x10);
/// What a clock may be off by: calendar and clock of one machine hardly differ, but the machine may be slewing its calendar.
const SLACK: Duration = Duration::from_millis(500);
/// TIMESTAMP ORIGIN.
const BY_COMMAND: u8 = 0b010;
const BY_OTHER_MEANS: u8 = 0b011;

fn millis(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Origin and clock.
async fn report(host: &mut Host) -> Result<(u8, Duration)> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[9]) = (0xa3, 0x0f, 12);
    let End::Good(data) = host.command(cdb, Some(12), None).await? else {
        bail!("REPORT TIMESTAMP is refused");
    };
    ensure!(data.len() == 12 && data[..2] == [0, 10], "{data:02x?}");
    Ok((data[2] & 7, Duration::from_millis(millis(&data[4..10]))))
}

async fn set(host: &mut Host, to: Duration) -> Result<()> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[9]) = (0xa4, 0x0f, 12);
    let mut list = vec![0; 12];
    list[4..10].copy_from_slice(&u64::try_from(to.as_millis())?.to_be_bytes()[2..]);
    let end = host.command(cdb, None, Some(Bytes::from(list))).await?;
    ensure!(end.is_good(), "SET TIMESTAMP came to {end:?}");
    Ok(())
}

/// It was set to `to` between `after` and `before`.
async fn goes_on(host: &mut Host, to: Duration, after: Instant, before: Instant) -> Result<()> {
    let least = to + before.elapsed();
    let (origin, now) = report(host).await?;
    let most = to + after.elapsed();
    ensure!(
        origin == BY_COMMAND && now + SLACK >= least && now <= most + SLACK,
        "origin {origin}, {now:?} is not between {least:?} and {most:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_the_clock_of_a_unit_goes_on_through_failover_and_restart() -> Result<()> {
    let place = Place::new()?;
    let demo = place.start("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let primary = demo.primary().await?;
    let other = if primary == "a" { "b" } else { "a" };
    let mut x = Host::new(demo.dial(&primary)?, 1).await?;
    let mut y = Host::new(demo.dial(other)?, 2).await?;
    x.attentions().await?;
    for host in [&mut x, &mut y] {
        let (origin, now) = report(host).await?;
        let calendar = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        ensure!(
            origin == BY_OTHER_MEANS && now + SLACK > calendar && now < calendar + SLACK,
            "origin {origin}, {now:?}"
        );
    }
    y.attentions().await?;
    // In 1973, set through the node that forwards.
    let to = Duration::from_secs(100_000_000);
    let after = Instant::now();
    set(&mut y, to).await?;
    let before = Instant::now();
    for host in [&mut x, &mut y] {
        goes_on(host, to, after, before).await?;
    }
    ensure!(
        x.attentions().await? == [CHANGED],
        "the other one hears of it, once"
    );
    ensure!(y.attentions().await?.is_empty(), "who set it need not hear of it");
    demo.kill(&primary)?;
    goes_on(&mut y, to, after, before).await?;
    drop((x, y));
    demo.interrupt().await?;
    let demo = place.start("64MiB").await?;
    let mut z = Host::new(demo.dial(&primary)?, 3).await?;
    goes_on(&mut z, to, after, before).await
}
