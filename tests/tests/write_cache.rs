//! W5: an extent with write cache. What initiators are told of it, and what is left of acknowledged writes when processes die.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::cdb;
use holdfast_drill::error::SenseCode;
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::{Demo, holdfast};
use holdfast_tests::hosts::{End, Host};
use holdfast_tests::{say, seed};
use holdfast_types::Lba;
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(90);
const MODE_PARAMETERS_CHANGED: SenseCode = SenseCode::new(0x06, 0x2a, 0x01);
/// Blocks that are flushed, and those behind them that are not.
const FLUSHED: u64 = 64;
const BLOCK: usize = 512;

async fn switch(demo: &Demo, through: &str, to: &str) -> Result<()> {
    let name = demo.status().await?.extents[0].name.clone();
    let arguments = [
        "extent",
        "write-cache",
        &name,
        to,
        "--admin",
        demo.admin(through)?,
    ];
    holdfast(&arguments).await?.success().map(drop)
}

/// WCE of the caching mode page, and DPOFUA of the header.
async fn caching(host: &mut Host) -> Result<(bool, bool)> {
    let mut sense = [0; 16];
    // MODE SENSE(10) without block descriptors.
    sense[..3].copy_from_slice(&[0x5a, 0x08, 0x08]);
    sense[8] = 255;
    let End::Good(page) = host.command(sense, Some(255), None).await? else {
        anyhow::bail!("MODE SENSE is refused");
    };
    ensure!(page.len() == 28, "a caching page of {} bytes", page.len());
    Ok((page[10] & 0x04 != 0, page[3] & 0x10 != 0))
}

#[tokio::test(flavor = "multi_thread")]
async fn w5_the_switch_shows_through_both_portals_and_every_nexus_hears_of_it() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let mut hosts = [
        Host::new(demo.dial("a")?, 1).await?,
        Host::new(demo.dial("b")?, 2).await?,
    ];
    for (through, to, on) in [("a", "on", true), ("b", "off", false), ("w", "on", true)] {
        switch(&demo, through, to).await?;
        for host in &mut hosts {
            let told = host.hears(MODE_PARAMETERS_CHANGED).await?;
            let news = told.iter().filter(|sense| **sense == MODE_PARAMETERS_CHANGED);
            ensure!(news.count() == 1, "after write-cache {to}: {told:?}");
            ensure!(caching(host).await? == (on, true), "after write-cache {to}");
        }
        // Asking again changes nothing, and is no news.
        switch(&demo, through, to).await?;
        for host in &mut hosts {
            ensure!(host.attentions().await?.is_empty());
            let mut fua = cdb::write_16(Lba(0), 1);
            fua[1] |= 0x08;
            let flush = cdb::synchronize_cache_16(Lba(0), 0);
            let data = Bytes::from(vec![7; BLOCK]);
            ensure!(host.command(fua, None, Some(data)).await?.is_good());
            ensure!(host.command(flush, None, None).await?.is_good());
        }
    }
    Ok(())
}

/// The primary, which is back before anybody misses it or much later, and the replica: as long as one of them lives, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn w5_the_death_of_one_node_loses_nothing_that_was_acknowledged_from_memory() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    switch(&demo, "a", "on").await?;
    let disks = [
        demo.multipath(&["a", "b"]).await?,
        demo.multipath(&["b", "a"]).await?,
    ];
    let load = workload::start(Plan::small(seed::seed("write cache")), &disks)?;
    for (what, of_primary, away) in [
        ("the primary, back at once", true, Duration::ZERO),
        ("the primary", true, Duration::from_secs(3)),
        ("the replica", false, Duration::ZERO),
        ("the replica, for long", false, Duration::from_secs(3)),
    ] {
        load.served(0, LIMIT).await?;
        sleep(Duration::from_secs(1)).await;
        let primary = demo.primary().await?;
        let other = if primary == "a" { "b" } else { "a" };
        let victim = if of_primary { &primary } else { other };
        let before = load.acknowledged();
        demo.kill(victim)?;
        sleep(away).await;
        demo.restart(victim).await?;
        let pause = load.served(0, LIMIT).await?;
        demo.wait_in_sync(LIMIT).await?;
        demo.verify(&load.verifier()).await?;
        say(&format!(
            "{what} ({victim}): {before} writes before, served after {pause:.2?}"
        ));
    }
    let (report, verifier) = load.stop().await;
    report.clean().map_err(anyhow::Error::msg)?;
    demo.verify(&verifier).await?;
    Ok(())
}

async fn write(host: &mut Host, block: u64, round: u8) -> Result<()> {
    let data = Bytes::from(vec![round; BLOCK]);
    let end = host
        .command(cdb::write_16(Lba(block), 1), None, Some(data))
        .await?;
    ensure!(end.is_good(), "block {block}: {end:?}");
    Ok(())
}

async fn read(host: &mut Host, block: u64) -> Result<u8> {
    let End::Good(data) = host.command(cdb::read_16(Lba(block), 1), Some(512), None).await? else {
        anyhow::bail!("block {block} cannot be read");
    };
    let first = *data.first().context("no data")?;
    ensure!(data.iter().all(|byte| *byte == first), "block {block} is torn");
    Ok(first)
}

/// All die at once, with writes on their way that nobody flushed: what was flushed is there, and of the rest each block is old or new, and
/// stays what it was seen as.
#[tokio::test(flavor = "multi_thread")]
async fn w5_what_was_flushed_survives_the_death_of_all_processes() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    switch(&demo, "b", "on").await?;
    let mut host = Host::new(demo.dial("b")?, 1).await?;
    let mut found = vec![0; usize::try_from(FLUSHED)?];
    for round in 1..=3 {
        for block in 0..FLUSHED {
            write(&mut host, block, round).await?;
        }
        let flush = cdb::synchronize_cache_16(Lba(0), 0);
        ensure!(host.command(flush, None, None).await?.is_good());
        for block in 0..FLUSHED {
            write(&mut host, FLUSHED + block, round).await?;
        }
        for name in ["a", "b", "w"] {
            demo.kill(name)?;
        }
        for name in ["a", "b", "w"] {
            demo.restart(name).await?;
        }
        demo.wait_in_sync(LIMIT).await?;
        for block in 0..FLUSHED {
            let value = read(&mut host, block).await?;
            ensure!(
                value == round,
                "block {block} was flushed as {round} and is {value}"
            );
        }
        let mut lost = 0;
        for (block, before) in (FLUSHED..).zip(&mut found) {
            let value = read(&mut host, block).await?;
            ensure!(
                value == round || value == *before,
                "block {block}: {value} instead of {before} or {round}"
            );
            lost += u32::from(value != round);
            *before = value;
        }
        say(&format!(
            "round {round}: of {FLUSHED} writes that were not flushed {lost} are gone"
        ));
    }
    let mut other = Host::new(demo.dial("a")?, 2).await?;
    for (block, value) in (FLUSHED..).zip(&found) {
        ensure!(
            read(&mut other, block).await? == *value,
            "block {block} through the other portal"
        );
    }
    Ok(())
}
