//! SANITIZE through both portals: it shuts the unit for everybody, outlives the death of its primary, and leaves nothing on either replica.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use holdfast_drill::cdb::{self, Cdb};
use holdfast_drill::error::SenseCode;
use holdfast_tests::cluster::Demo;
use holdfast_tests::hosts::{End, Host};
use holdfast_tests::say;
use holdfast_types::Lba;
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(90);
const IN_PROGRESS: SenseCode = SenseCode::new(0x02, 0x04, 0x1b);
const BLOCK: usize = 512;
const BLOCK_BYTES: u32 = 512;
const MIB: u64 = (1 << 20) / BLOCK as u64;
const IMMED: u8 = 0x80;

/// SANITIZE with the second byte and the parameter list's length.
fn sanitize(byte1: u8, list: u16) -> Cdb {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x48, byte1);
    cdb[7..9].copy_from_slice(&list.to_be_bytes());
    cdb
}

/// One OVERWRITE with a pattern of that byte.
async fn overwrite(host: &mut Host, byte: u8) -> Result<End> {
    let list = [0x01, 0, 0, 2, byte, byte];
    let cdb = sanitize(0x01 | IMMED, u16::try_from(list.len())?);
    host.command(cdb, None, Some(Bytes::copy_from_slice(&list))).await
}

async fn ready(host: &mut Host) -> Result<End> {
    host.command([0; 16], None, None).await
}

/// PROGRESS INDICATION of REQUEST SENSE; `None` where nothing is under way.
async fn progress(host: &mut Host) -> Result<Option<u16>> {
    let mut request = [0; 16];
    (request[0], request[4]) = (0x03, 18);
    let End::Good(sense) = host.command(request, Some(18), None).await? else {
        bail!("REQUEST SENSE is refused");
    };
    let told = (sense[2] & 0x0f, sense[12], sense[13]) == (2, 0x04, 0x1b);
    Ok(told.then(|| u16::from_be_bytes([sense[16], sense[17]])))
}

/// Waits for the end; what was told of the way.
async fn over(host: &mut Host) -> Result<Vec<u16>> {
    let (until, mut told) = (Instant::now() + LIMIT, Vec::new());
    loop {
        match ready(host).await? {
            End::Good(_) => return Ok(told),
            End::Sense(IN_PROGRESS) if Instant::now() < until => told.extend(progress(host).await?),
            other => bail!("it came to {other:?}, after {told:?}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn write(host: &mut Host, at: u64) -> Result<()> {
    let data = Bytes::from(vec![0x11; BLOCK]);
    let end = host.command(cdb::write_16(Lba(at), 1), None, Some(data)).await?;
    ensure!(end.is_good(), "WRITE came to {end:?}");
    Ok(())
}

/// A demo with its primary and the other node, and a host at each of them.
async fn hosts(size: &str) -> Result<(Demo, [String; 2], [Host; 2])> {
    let demo = Demo::start_with(size).await?;
    demo.wait_in_sync(LIMIT).await?;
    let primary = demo.primary().await?;
    let other = if primary == "a" { "b" } else { "a" }.to_owned();
    let x = Host::new(demo.dial(&primary)?, 1).await?;
    let y = Host::new(demo.dial(&other)?, 2).await?;
    Ok((demo, [primary, other], [x, y]))
}

/// Every MiB's first and last block.
async fn holds(host: &mut Host, mib: u64, byte: u8) -> Result<()> {
    for at in (0..mib).flat_map(|at| [at * MIB, at * MIB + MIB - 1]) {
        let read = host
            .command(cdb::read_16(Lba(at), 1), Some(BLOCK_BYTES), None)
            .await?;
        let End::Good(data) = read else {
            bail!("READ of block {at} came to {read:?}");
        };
        ensure!(
            data.len() == BLOCK && data.iter().all(|found| *found == byte),
            "block {at} holds {:02x}",
            data[0]
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_outlives_the_death_of_its_primary_and_reaches_both_replicas() -> Result<()> {
    const SIZE_MIB: u64 = 1024;
    let (demo, [primary, other], [mut x, mut y]) = hosts("1GiB").await?;
    for at in [0, SIZE_MIB / 2 * MIB, SIZE_MIB * MIB - 1] {
        write(&mut x, at).await?;
    }
    // Asked for through the node that forwards.
    let end = overwrite(&mut y, 0xaa).await?;
    ensure!(end.is_good(), "SANITIZE came to {end:?}");
    for host in [&mut x, &mut y] {
        ensure!(ready(host).await? == End::Sense(IN_PROGRESS), "ready meanwhile");
        let read = host
            .command(cdb::read_16(Lba(0), 1), Some(BLOCK_BYTES), None)
            .await?;
        ensure!(read == End::Sense(IN_PROGRESS), "READ came to {read:?}");
        ensure!(progress(host).await?.is_some(), "no progress is told");
    }
    let before = loop {
        match progress(&mut y).await? {
            Some(0) => sleep(Duration::from_millis(50)).await,
            told => break told,
        }
    };
    demo.kill(&primary)?;
    let told = over(&mut y).await?;
    say(&format!("{before:?} before {primary} died, then {told:?}"));
    ensure!(
        before > Some(0) && !told.is_empty(),
        "it was over too early to tell anything"
    );
    ensure!(told.is_sorted(), "it goes forward only");
    holds(&mut y, SIZE_MIB, 0xaa).await?;
    demo.restart(&primary).await?;
    demo.wait_in_sync(LIMIT).await?;
    // What the replica that came back has.
    demo.kill(&other)?;
    holds(&mut x, SIZE_MIB, 0xaa).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_erase_is_answered_at_its_end_and_leaves_zeros_without_space() -> Result<()> {
    const SIZE_MIB: u64 = 64;
    let (_demo, _, [mut x, mut y]) = hosts("64MiB").await?;
    write(&mut x, 7).await?;
    write(&mut x, SIZE_MIB * MIB - 1).await?;
    let end = y.command(sanitize(0x02, 0), None, None).await?;
    ensure!(end.is_good(), "SANITIZE came to {end:?}");
    ensure!(ready(&mut x).await?.is_good(), "it is over when it is answered");
    holds(&mut x, SIZE_MIB, 0).await?;
    let mut status = [0; 16];
    (status[0], status[1], status[13]) = (0x9e, 0x12, 64);
    let End::Good(map) = x.command(status, Some(64), None).await? else {
        bail!("GET LBA STATUS is refused");
    };
    let blocks = u32::try_from(SIZE_MIB * MIB)?.to_be_bytes();
    ensure!(
        map.len() == 24 && map[16..20] == blocks && map[20] == 1,
        "not one run without space: {map:02x?}"
    );
    write(&mut y, 0).await?;
    // Neither way round does the node that was not asked still find the unit shut.
    for _ in 0..10 {
        let end = x.command(sanitize(0x02, 0), None, None).await?;
        ensure!(end.is_good(), "SANITIZE came to {end:?}");
        let end = ready(&mut y).await?;
        ensure!(end.is_good(), "it is over, and another node says {end:?}");
        std::mem::swap(&mut x, &mut y);
    }
    Ok(())
}
