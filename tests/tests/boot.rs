//! Machines that boot from the target: by iPXE, which is its own initiator, and by QEMU's, on a disk that both find there; what they notice
//! of switchovers and failovers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_tests::boot::{self, Machine};
use holdfast_tests::cluster::{self, Demo};
use holdfast_tests::{say, tools};

const LIMIT: Duration = Duration::from_secs(60);
/// The bound on an interruption with default timers, and time for an initiator that connects anew and an emulated guest.
const SERVED_LIMIT: Duration = Duration::from_secs(20);
/// iPXE's option ROM for the guest's network card, as Debian installs it where QEMU finds it.
const ROM: &str = "/usr/lib/ipxe/qemu/pxe-virtio.rom";

/// A demo whose disk is bootable.
async fn demo() -> Result<Demo> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    boot::install(&demo.session("a").await?).await?;
    Ok(demo)
}

async fn ask(demo: &Demo, arguments: &[&str]) -> Result<String> {
    let admin = demo.admin("w")?;
    let arguments = [arguments, &["--admin", admin]].concat();
    cluster::holdfast(&arguments).await?.success()
}

async fn until_primary(demo: &Demo, name: &str) -> Result<()> {
    let moved = demo.wait_for("the extent has moved", LIMIT, |status| {
        status.quorum && status.primary() == Some(name)
    });
    moved.await.map(drop)
}

/// Stops the machine, and looks at what it has left on the disk through the node `through`.
async fn ends_well(demo: &Demo, mut machine: Machine, through: &str) -> Result<()> {
    let session = demo.session(through).await?;
    boot::stop(&session).await?;
    machine.stopped().await?;
    let blocks = boot::verify(&session).await?;
    say(&format!("the guest wrote {blocks} blocks and found them right"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ipxe_boots_from_the_target_and_its_guest_goes_on_through_a_switchover() -> Result<()> {
    let Some(qemu) = boot::qemu() else {
        return Ok(());
    };
    if !std::path::Path::new(ROM).is_file() {
        say("left out: a boot by iPXE (Debian package ipxe-qemu)");
        return Ok(());
    }
    let demo = demo().await?;
    let port = demo.portal("a")?.rsplit(':').next().context("a port")?;
    let target = demo.document_now()?.target;
    let files = tempfile::tempdir()?;
    // QEMU's own network: the host's loopback is 10.0.2.2, and a server for TFTP is built in.
    let script = format!("#!ipxe\nsanboot iscsi:10.0.2.2::{port}:0:{target}\n");
    std::fs::write(files.path().join("boot.ipxe"), script)?;
    let net = format!("user,id=n0,tftp={},bootfile=boot.ipxe", files.path().display());
    let card = "virtio-net-pci,netdev=n0";
    let mut machine = Machine::start(&qemu, &["-netdev", &net, "-device", card, "-boot", "n"])?;
    let took = machine.works().await?;
    let sessions = demo.status_by("a").await?.sessions;
    ensure!(
        sessions
            .iter()
            .any(|session| session.to_string().contains("ipxe")),
        "{sessions:#?}"
    );
    say(&format!("iPXE has booted from the target within {took:.2?}"));
    ask(&demo, &["switchover", "--all", "--to", "b"]).await?;
    until_primary(&demo, "b").await?;
    machine.goes_on(SERVED_LIMIT).await?;
    ends_well(&demo, machine, "b").await
}

/// A guest whose disk is at one portal, by QEMU's block driver.
async fn guest(demo: &Demo, at: &str) -> Result<Option<Machine>> {
    let (Some(qemu), Some(tool)) = (boot::qemu(), tools::find("qemu-img", "qemu-utils")) else {
        return Ok(None);
    };
    let url = demo.url(at)?.to_string();
    let probe = tools::run(&tool, &["info", "-f", "raw", &url], LIMIT).await?;
    let words = probe.err.to_lowercase();
    if words.contains("unknown protocol") || words.contains("load module") {
        say("left out: QEMU does not know iSCSI (Debian package qemu-block-extra)");
        return Ok(None);
    }
    let drive = format!("file={url},format=raw,if=virtio,cache=none");
    let mut machine = Machine::start(&qemu, &["-drive", &drive])?;
    machine.works().await?;
    Ok(Some(machine))
}

#[tokio::test(flavor = "multi_thread")]
async fn qemus_block_driver_goes_on_through_switchovers_and_a_failover() -> Result<()> {
    let demo = demo().await?;
    let Some(mut machine) = guest(&demo, "a").await? else {
        return Ok(());
    };
    for to in ["b", "a", "b"] {
        ask(&demo, &["switchover", "--all", "--to", to]).await?;
        until_primary(&demo, to).await?;
        machine.goes_on(SERVED_LIMIT).await?;
    }
    demo.kill("b")?;
    until_primary(&demo, "a").await?;
    let pause = machine.goes_on(SERVED_LIMIT).await?;
    say(&format!(
        "b killed: the guest goes on {pause:.2?} after a is primary"
    ));
    demo.restart("b").await?;
    demo.wait_in_sync(LIMIT).await?;
    machine.goes_on(SERVED_LIMIT).await?;
    ends_well(&demo, machine, "b").await
}

/// The portal that QEMU knows is the one that goes: drained first, it sends QEMU to the other one.
#[tokio::test(flavor = "multi_thread")]
async fn qemus_block_driver_is_sent_elsewhere_by_a_drained_node() -> Result<()> {
    let demo = demo().await?;
    let target = demo.document_now()?.target;
    ask(&demo, &["target", "change", &target, "--redirect", "true"]).await?;
    let Some(mut machine) = guest(&demo, "a").await? else {
        return Ok(());
    };
    ask(&demo, &["cluster", "drain", "a"]).await?;
    until_primary(&demo, "b").await?;
    let start = tokio::time::Instant::now();
    while demo.status_by("b").await?.sessions.is_empty() {
        ensure!(
            start.elapsed() < LIMIT,
            "QEMU does not come to b:\n{}",
            demo.logs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    machine.goes_on(SERVED_LIMIT).await?;
    demo.kill("a")?;
    machine.goes_on(SERVED_LIMIT).await?;
    ends_well(&demo, machine, "b").await
}
