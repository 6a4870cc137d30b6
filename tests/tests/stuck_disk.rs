//! Data disks that hang without an error, and disks that fill up, under real processes.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use holdfast_drill::cdb;
use holdfast_drill::disk::Disk;
use holdfast_drill::error::SenseCode;
use holdfast_drill::ground::{Image, Tools};
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::{Demo, Place};
use holdfast_tests::{say, seed, tools};
use holdfast_types::Lba;
use tokio::time::Instant;

const SYNC_LIMIT: Duration = Duration::from_secs(90);
/// `stuck-after` is 5 s; this leaves room for a busy machine.
const STUCK_LIMIT: Duration = Duration::from_secs(25);
const MIB: usize = 1 << 20;
/// Blocks of a MiB.
const BLOCKS: u32 = 2048;

fn data_disk(tools: &Tools, place: &Place, node: &str, mib: u64) -> Result<Image> {
    let at = place.dir().join(node).join("data");
    let file = place.dir().join(format!("{node}.img"));
    Ok(Image::make(tools, &file, &at, mib)?)
}

/// Freezes the data disk of the primary, or of the other node, under load: within the limit writes go on without it, nothing
/// acknowledged is lost, and once the disk moves the replica is back by itself.
async fn hang(of_primary: bool) -> Result<()> {
    let Some(tools) = tools::or_left_out(Tools::find())? else {
        return Ok(());
    };
    let place = Place::new()?;
    let images = [
        data_disk(&tools, &place, "a", 512)?,
        data_disk(&tools, &place, "b", 512)?,
    ];
    let demo = place.start("64MiB").await?;
    demo.wait_in_sync(SYNC_LIMIT).await?;
    let primary = demo.primary().await?;
    let (hung, well, lane) = if (primary == "a") == of_primary {
        ("a", "b", 1)
    } else {
        ("b", "a", 0)
    };
    let disks = [
        demo.multipath(&["a", "b"]).await?,
        demo.multipath(&["b", "a"]).await?,
    ];
    let load = workload::start(Plan::small(seed::seed("hang")), &disks)?;
    load.served(lane, STUCK_LIMIT).await?;
    let image = &images[usize::from(hung == "b")];
    let frozen = image.freeze()?;
    let start = Instant::now();
    let alone = demo.wait_for("the other node alone in the set", STUCK_LIMIT, |status| {
        status.primary() == Some(well) && status.extents[0].in_sync == [well]
    });
    alone.await?;
    let moved = start.elapsed();
    load.served(lane, STUCK_LIMIT).await?;
    say(&format!(
        "{hung}'s disk hung; {well} alone after {moved:.2?}, writes went on after {:.2?}",
        start.elapsed()
    ));
    ensure!(
        moved >= Duration::from_secs(4),
        "slow is not dead: it moved after {moved:?}"
    );
    drop(frozen);
    demo.wait_in_sync(SYNC_LIMIT).await?;
    let (report, verifier) = load.stop().await;
    report.clean().map_err(anyhow::Error::msg)?;
    demo.verify(&verifier).await?;
    drop(demo);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_primary_whose_data_disk_hangs_is_replaced_and_comes_back() -> Result<()> {
    hang(true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_replica_whose_data_disk_hangs_leaves_and_comes_back() -> Result<()> {
    hang(false).await
}

async fn alarmed(demo: &Demo, node: &str) -> Result<bool> {
    let status = demo.status_by(node).await?;
    Ok(status
        .alarms
        .iter()
        .any(|alarm| alarm.to_string().contains("nearly full")))
}

/// Both data disks are smaller than the extent: the write that finds no space says so, and everything else goes on.
#[tokio::test(flavor = "multi_thread")]
async fn j3_a_full_disk_refuses_new_blocks_and_nothing_else() -> Result<()> {
    let Some(tools) = tools::or_left_out(Tools::find())? else {
        return Ok(());
    };
    let place = Place::new()?;
    let _images = [
        data_disk(&tools, &place, "a", 768)?,
        data_disk(&tools, &place, "b", 768)?,
    ];
    let demo = place.start("2GiB").await?;
    demo.wait_in_sync(SYNC_LIMIT).await?;
    let primary = demo.primary().await?;
    let session = demo.session(&primary).await?;
    let block = |fill: u8| Bytes::from(vec![fill; MIB]);
    let at = |index: u64| Lba(index * u64::from(BLOCKS));
    let mut written = 0;
    let refused = loop {
        ensure!(written < 2048, "the disks never filled");
        match session.write(at(written), block(7)).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    say(&format!("{written} MiB were written before: {refused}"));
    ensure!(
        refused.sense() == Some(SenseCode::SPACE_ALLOCATION_FAILED),
        "{refused}"
    );
    ensure!(written > 100, "only {written} MiB");
    ensure!(alarmed(&demo, &primary).await?, "no alarm on {primary}");
    // What has its space is written and read; the refused block was not changed.
    session.write(at(0), block(8)).await?;
    ensure!(session.read(at(0), 8).await? == block(8)[..4096], "block 0");
    ensure!(
        session.read(at(written - 1), 8).await? == block(7)[..4096],
        "the last one"
    );
    ensure!(
        session.read(at(written), 8).await?.iter().all(|byte| *byte == 0),
        "refused"
    );
    let status = demo.wait_in_sync(SYNC_LIMIT).await?;
    ensure!(status.primary() == Some(&*primary), "nothing moved");
    // Freed space is space again.
    let (unmap, list) = cdb::unmap(at(1), 100 * BLOCKS);
    session.command_out(unmap, Bytes::copy_from_slice(&list)).await?;
    let start = Instant::now();
    while let Err(error) = session.write(at(written), block(9)).await {
        ensure!(
            refused.sense() == Some(SenseCode::SPACE_ALLOCATION_FAILED),
            "{error}"
        );
        ensure!(start.elapsed() < STUCK_LIMIT, "freed space is not used");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(
        session.read(at(written), 8).await? == block(9)[..4096],
        "after the space came"
    );
    demo.wait_in_sync(SYNC_LIMIT).await?;
    drop(demo);
    Ok(())
}
