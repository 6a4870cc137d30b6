//! A LUN that can only be read: with the suite of libiscsi, and command by command.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::cdb::{self, Cdb};
use holdfast_drill::disk::Disk;
use holdfast_drill::error::{Error, SenseCode};
use holdfast_drill::initiator::Session;
use holdfast_scsi::{CommandInfo, commands};
use holdfast_tests::cluster::{self, Demo};
use holdfast_tests::say;
use holdfast_tests::suite::{self, Failure};
use holdfast_types::Lba;

const LIMIT: Duration = Duration::from_secs(60);
/// WRITE PROTECTED.
const PROTECTED: SenseCode = SenseCode::new(0x07, 0x27, 0x00);
/// MODE PARAMETERS CHANGED: what a session hears when its LUN can be written no more, or again.
const CHANGED: SenseCode = SenseCode::new(0x06, 0x2a, 0x01);

async fn set_read_only(demo: &Demo, to: &str) -> Result<()> {
    let target = &demo.document().target;
    let change = ["lun", "change", target, "--lun", "0", "--read-only", to];
    let arguments = [&change[..], &["--admin", demo.admin("a")?]].concat();
    cluster::holdfast(&arguments).await?.success().map(drop)
}

/// The tests for write protected units, and then all that change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_libiscsi_fails_nothing_on_a_lun_that_is_read_only() -> Result<()> {
    let demo = Demo::start().await?;
    demo.wait_in_sync(LIMIT).await?;
    set_read_only(&demo, "true").await?;
    let (first, second) = (demo.url("a")?.to_string(), demo.url("b")?.to_string());
    let protected = ["-n", "-d", "-t", "ALL.ReadOnly", &first, &second];
    let Some((found, report)) = suite::run(&protected).await? else {
        return Ok(());
    };
    ensure!(found.failed.is_empty() && found.left_out() == 0, "{report}");
    let unchanging = ["-v", "-t", "ALL", &first, &second];
    let Some((all, report)) = suite::run(&unchanging).await? else {
        return Ok(());
    };
    let (failures, _) = suite::failures(&report);
    let (held_back, others): (Vec<Failure>, Vec<Failure>) =
        failures.into_iter().partition(|failure| failure.held_back);
    say(&format!(
        "libiscsi's suite on a read-only LUN: {} and {} tests ran, {} failed for what the suite does not send without -d, {} otherwise",
        found.ran,
        all.ran,
        held_back.len(),
        others.len()
    ));
    ensure!(others.is_empty() && all.ran > 200, "{others:?}\n{report}");
    Ok(())
}

/// A CDB that would write one block, or two where it compares first, or unmap one, and its data.
fn one_block(command: CommandInfo) -> (Cdb, Bytes) {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (command.opcode, command.action.unwrap_or(0));
    let length = match command.opcode >> 5 {
        0 => 4,
        4 => 13,
        5 => 9,
        _ => 8,
    };
    cdb[length] = 1;
    match command.opcode {
        0x42 => {
            let (cdb, list) = cdb::unmap(Lba(0), 1);
            (cdb, Bytes::copy_from_slice(&list))
        }
        0x89 => (cdb, Bytes::from(vec![7; 1024])),
        _ => (cdb, Bytes::from(vec![7; 512])),
    }
}

/// What a command came to; unit attentions are heard and it is sent again.
async fn outcome(session: &Session, cdb: Cdb, data: &Bytes) -> Result<Option<SenseCode>> {
    loop {
        match session.command_out(cdb, data.clone()).await {
            Ok(()) => return Ok(None),
            Err(Error::CheckCondition(sense)) if sense == CHANGED => {}
            Err(Error::CheckCondition(sense)) => return Ok(Some(sense)),
            Err(error) => return Err(error).context(format!("{cdb:02x?}")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_writes_is_refused_on_a_lun_that_is_read_only() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let before: Bytes = (0..4096_u32).map(|at| (at % 251).to_le_bytes()[0]).collect();
    let (a, b) = (demo.session("a").await?, demo.session("b").await?);
    a.write(Lba(0), before.clone()).await?;
    set_read_only(&demo, "true").await?;
    let writing: Vec<CommandInfo> = commands().filter(|command| command.writes).collect();
    ensure!(writing.len() >= 13, "{writing:?}");
    let later = (demo.session("a").await?, demo.session("b").await?);
    for session in [&a, &b, &later.0, &later.1] {
        for command in &writing {
            let (cdb, data) = one_block(*command);
            let sense = outcome(session, cdb, &data).await?;
            ensure!(sense == Some(PROTECTED), "{}: {sense:?}", command.name);
        }
        // WP in the header of MODE SENSE(6).
        let mut modes = [0; 16];
        (modes[0], modes[2], modes[4]) = (0x1a, 0x3f, 252);
        let header = session.command(modes, Some(252)).await?;
        ensure!(
            header.get(2).is_some_and(|byte| byte & 0x80 != 0),
            "{header:02x?}"
        );
        let now = session.read(Lba(0), 8).await?;
        ensure!(now == before, "something was written");
    }
    set_read_only(&demo, "false").await?;
    for session in [&a, &b] {
        for command in &writing {
            let (cdb, data) = one_block(*command);
            let sense = outcome(session, cdb, &data).await?;
            ensure!(sense != Some(PROTECTED), "{}: {sense:?}", command.name);
        }
    }
    Ok(())
}
