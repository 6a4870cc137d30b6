//! Logins that a drained or stopped node sends to the other one, for targets that want it: initiators that know one portal alone keep
//! their disk while its node is taken down.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::{self, Demo};
use holdfast_tests::status::Status;
use holdfast_tests::{say, seed, tools};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(60);
/// The bound on an interruption with default timers, and time for a login.
const SERVED_LIMIT: Duration = Duration::from_secs(6);

async fn ask(demo: &Demo, arguments: &[&str]) -> Result<String> {
    let admin = demo.admin("b")?;
    let arguments = [arguments, &["--admin", admin]].concat();
    cluster::holdfast(&arguments).await?.success()
}

/// A demo whose target sends logins elsewhere.
async fn demo() -> Result<Demo> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let target = demo.document_now()?.target;
    ask(&demo, &["target", "change", &target, "--redirect", "true"]).await?;
    let shown = ask(&demo, &["status"]).await?;
    ensure!(shown.contains("sends its logins elsewhere"), "{shown}");
    Ok(demo)
}

async fn until_primary(demo: &Demo, name: &str) -> Result<Status> {
    demo.wait_for("the extent has moved", LIMIT, |status| {
        status.quorum && status.primary() == Some(name)
    })
    .await
}

/// Until a node has as many sessions.
async fn until_sessions(demo: &Demo, node: &str, count: usize) -> Result<()> {
    let start = Instant::now();
    loop {
        let sessions = demo.status_by(node).await?.sessions;
        if sessions.len() == count {
            return Ok(());
        }
        ensure!(
            start.elapsed() < LIMIT,
            "sessions at {node}: {sessions:#?}\n{}",
            demo.logs()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// An initiator that knows a's portal alone, under checked load: a is drained, and then killed, and the load goes on. Other people's
/// initiators find the way, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_one_path_keeps_its_disk_while_its_node_is_drained_and_taken_down() -> Result<()> {
    let demo = demo().await?;
    let disk = demo.multipath(&["a"]).await?;
    let load = workload::start(Plan::small(seed::seed("redirect")), &[disk])?;
    load.served(0, SERVED_LIMIT).await?;
    until_sessions(&demo, "a", 1).await?;
    ask(&demo, &["cluster", "drain", "a"]).await?;
    until_primary(&demo, "b").await?;
    until_sessions(&demo, "a", 0).await?;
    until_sessions(&demo, "b", 1).await?;
    libiscsi_finds_b(&demo).await?;
    demo.kill("a")?;
    let pause = load.served(0, SERVED_LIMIT).await?;
    say(&format!("drained and killed: served after {pause:.2?}"));
    demo.restart("a").await?;
    demo.wait_in_sync(LIMIT).await?;
    ask(&demo, &["cluster", "undrain", "a"]).await?;
    let (report, verifier) = load.stop().await;
    report.complete().map_err(anyhow::Error::msg)?;
    demo.verify(&verifier).await?;
    let session = demo.session("a").await?;
    assert_eq!(session.portal(), demo.portal("a")?, "a takes logins again");
    Ok(())
}

/// VPD page 83h names the port that a command came through: through a's portal it is b's now.
async fn libiscsi_finds_b(demo: &Demo) -> Result<()> {
    let Some(inq) = tools::find("iscsi-inq", "libiscsi-bin") else {
        return Ok(());
    };
    let url = demo.url("a")?.to_string();
    let page = tools::run(&inq, &["-e", "1", "-c", "131", &url], LIMIT)
        .await?
        .success()?;
    let port = format!("{},t,0x0002", demo.document_now()?.target);
    ensure!(page.contains(&port), "{page}");
    Ok(())
}

/// The same without draining first: a node that is stopped in order says where to go before its portal closes.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_one_path_keeps_its_disk_when_its_node_is_stopped() -> Result<()> {
    let demo = demo().await?;
    let disk = demo.multipath(&["a"]).await?;
    let load = workload::start(Plan::small(seed::seed("redirect-stop")), &[disk])?;
    load.served(0, SERVED_LIMIT).await?;
    demo.signal("a", Signal::TERM)?;
    until_sessions(&demo, "b", 1).await?;
    let pause = load.served(0, SERVED_LIMIT).await?;
    say(&format!("stopped: served after {pause:.2?}"));
    let start = Instant::now();
    while demo.pid("a").is_ok() {
        ensure!(start.elapsed() < LIMIT, "a does not stop");
        sleep(Duration::from_millis(50)).await;
    }
    load.served(0, SERVED_LIMIT).await?;
    let (report, verifier) = load.stop().await;
    report.complete().map_err(anyhow::Error::msg)?;
    demo.restart("a").await?;
    demo.wait_in_sync(LIMIT).await?;
    demo.verify(&verifier).await
}

/// Without being told to, a drained node lets logins in: multipath wants a session with each node.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_several_paths_keeps_them_while_a_node_is_drained() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let before = demo.session("a").await?;
    ask(&demo, &["cluster", "drain", "a"]).await?;
    until_primary(&demo, "b").await?;
    let session = demo.session("a").await?;
    assert_eq!(session.portal(), demo.portal("a")?);
    let status = demo.status_by("a").await?;
    ensure!(status.sessions.len() == 2, "{:#?}", status.sessions);
    before
        .ping()
        .await
        .context("the session from before is served on")?;
    Ok(())
}
