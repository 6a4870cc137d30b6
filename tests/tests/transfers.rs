//! The largest commands, through both nodes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::cdb::{self, Cdb};
use holdfast_drill::disk::Disk;
use holdfast_drill::error::SenseCode;
use holdfast_drill::initiator::Session;
use holdfast_tests::cluster::Demo;
use holdfast_tests::status::Status;
use holdfast_types::{Lba, TRANSFER_BYTES_MAX};

const LIMIT: Duration = Duration::from_secs(60);
const BLOCKS: u32 = TRANSFER_BYTES_MAX / 512;
const TOO_LONG: SenseCode = SenseCode::new(0x05, 0x24, 0x00);
const AT: Lba = Lba(5);

/// No block is like the one before.
fn contents(salt: u8) -> Bytes {
    (0..TRANSFER_BYTES_MAX)
        .map(|at| (at >> 9 ^ at).to_le_bytes()[0] ^ salt)
        .collect()
}

/// A command of 16 bytes other than the ones that `cdb` knows; `flags` is its byte 1.
fn medium(opcode: u8, flags: u8, blocks: u32) -> Cdb {
    let mut cdb = cdb::read_16(AT, blocks);
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb
}

const VERIFY: u8 = 0x8f;
const ORWRITE: u8 = 0x8b;
/// Compare all that is sent; one block with all of them.
const COMPARE: u8 = 0x02;
const COMPARE_ONE: u8 = 0x06;

async fn goes(session: &Session, other: &Session, salt: u8) -> Result<()> {
    let data = contents(salt);
    session.write(AT, data.clone()).await.context("WRITE")?;
    ensure!(
        other.read(AT, BLOCKS).await.context("READ")? == data,
        "other contents"
    );
    session
        .command_out(medium(VERIFY, COMPARE, BLOCKS), data.clone())
        .await
        .context("VERIFY")?;
    let one = data.slice(..512);
    let differs = session
        .command_out(medium(VERIFY, COMPARE_ONE, BLOCKS), one.clone())
        .await;
    let differs = differs.err().and_then(|error| error.sense());
    ensure!(differs == Some(SenseCode::MISCOMPARE), "{differs:?}");
    let zeros = Bytes::from(vec![0; data.len()]);
    session
        .command_out(medium(ORWRITE, 0, BLOCKS), zeros)
        .await
        .context("ORWRITE")?;
    ensure!(other.read(AT, BLOCKS).await? == data, "ORWRITE changed something");
    session
        .command_out(cdb::write_same_16(AT, BLOCKS), one.clone())
        .await
        .context("WRITE SAME")?;
    other
        .command_out(medium(VERIFY, COMPARE_ONE, BLOCKS), one)
        .await
        .context("VERIFY of what is all the same")?;
    Ok(())
}

/// One block more than the most is refused before anything moves, and the session goes on.
async fn one_more_is_refused(session: &Session) -> Result<()> {
    let data = [contents(9), Bytes::from(vec![9; 512])].concat();
    let data = Bytes::from(data);
    let commands = [
        session.write(AT, data.clone()).await,
        session.read(AT, BLOCKS + 1).await.map(drop),
        session
            .command_out(medium(VERIFY, COMPARE, BLOCKS + 1), data.clone())
            .await,
        session
            .command_out(medium(VERIFY, COMPARE_ONE, BLOCKS + 1), data.slice(..512))
            .await,
        session
            .command(medium(VERIFY, 0, BLOCKS + 1), None)
            .await
            .map(drop),
        session.command_out(medium(ORWRITE, 0, BLOCKS + 1), data).await,
    ];
    for (number, answer) in commands.into_iter().enumerate() {
        let sense = answer.err().and_then(|error| error.sense());
        ensure!(sense == Some(TOO_LONG), "command {number}: {sense:?}");
    }
    Ok(())
}

/// No link breaks under it, and all are answered.
async fn many_at_once(session: &Session) -> Result<()> {
    let length = TRANSFER_BYTES_MAX;
    let mut sent = Vec::new();
    for number in 0..16 {
        let cdb = cdb::read_16(AT, BLOCKS);
        sent.push(session.start(cdb, Some(length), Bytes::new()).await?);
        let cdb = cdb::write_16(Lba(AT.0 + u64::from(BLOCKS)), BLOCKS);
        sent.push(session.start(cdb, None, contents(number)).await?);
    }
    for pending in sent {
        session.wait(pending, LIMIT).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_commands_go_through_both_nodes_and_no_larger_ones() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    let before = demo.wait_in_sync(LIMIT).await?;
    let (a, b) = (demo.session("a").await?, demo.session("b").await?);
    let page = b.command(cdb::inquiry(Some(0xb0), 64), Some(64)).await?;
    let said = page.get(8..12).map(<[u8]>::to_vec);
    ensure!(
        said == Some(BLOCKS.to_be_bytes().to_vec()),
        "MAXIMUM TRANSFER LENGTH: {said:?}"
    );
    for (salt, (session, other)) in (0..).zip([(&b, &a), (&a, &b)]) {
        goes(session, other, salt)
            .await
            .with_context(|| format!("round {salt}"))?;
        one_more_is_refused(session).await?;
        many_at_once(session).await?;
    }
    let after = demo.status().await?;
    ensure!(after.is_whole(), "a replica was lost");
    let epochs = |status: &Status| -> Vec<u64> { status.extents.iter().map(|extent| extent.epoch).collect() };
    ensure!(epochs(&before) == epochs(&after), "the primary was lost");
    Ok(())
}
