//! Debian's iSNS server as the other side: what it knows of a cluster through changes, a lost node, and its own restart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_tests::cluster::{self, Demo};
use holdfast_tests::tools;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(60);
/// What the server keeps of somebody who is not heard of, in seconds. It grants nobody more.
const PERIOD: u64 = 6;

/// The server, and the tool that asks it. Dropping it ends the server.
struct Server {
    program: PathBuf,
    admin: PathBuf,
    address: String,
    dir: TempDir,
    process: Child,
}

impl Server {
    /// `None`, and a line that says why, where it is not installed.
    fn start() -> Result<Option<Self>> {
        let (Some(program), Some(admin)) = (
            tools::find("isnsd", "open-isns-server"),
            tools::find("isnsadm", "open-isns-utils"),
        ) else {
            return Ok(None);
        };
        let dir = tempfile::Builder::new().prefix("holdfast-isns-").tempdir()?;
        let address = format!("127.0.0.1:{}", cluster::free_ports()?);
        let path = |name: &str| dir.path().join(name).display().to_string();
        let common = "DefaultDiscoveryDomain = 1\nSecurity = 0\nSLPRegister = 0\nESIRetries = 0\n";
        let server = format!(
            "SourceName = iqn.2026-11.example:server\nBindAddress = {address}\nControlSocket = {}\nPIDFile = {}\n\
             RegistrationPeriod = {PERIOD}\n{common}",
            path("control"),
            path("pid")
        );
        std::fs::write(dir.path().join("isnsd.conf"), server)?;
        let asking = format!("SourceName = iqn.2026-11.example:asking\nServerAddress = {address}\n{common}");
        std::fs::write(dir.path().join("isnsadm.conf"), asking)?;
        Ok(Some(Self {
            process: run(&program, dir.path())?,
            program,
            admin,
            address,
            dir,
        }))
    }

    async fn kill(&mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Without anything that it knew.
    fn restart(&mut self) -> Result<()> {
        self.process = run(&self.program, self.dir.path())?;
        Ok(())
    }

    /// Values of an attribute of all objects of a type.
    async fn list(&self, kind: &str, attribute: &str) -> Result<BTreeSet<String>> {
        let config = self.dir.path().join("isnsadm.conf").display().to_string();
        let arguments = ["--config", &config, "--list", kind];
        let text = tools::run(&self.admin, &arguments, LIMIT).await?.success()?;
        let values = text.lines().filter(|line| line.contains(attribute));
        let values = values.filter_map(|line| line.split_once(" = "));
        Ok(values
            .map(|(_, value)| value.trim_matches('"').to_owned())
            .collect())
    }

    /// Waits until it knows exactly these ports of portals and these targets.
    async fn knows(&self, demo: &Demo, nodes: &[&str], targets: &[&str]) -> Result<()> {
        let port = |node: &&str| -> Result<String> {
            let portal = demo.portal(node)?;
            let port = portal.rsplit(':').next().context("a port")?;
            Ok(format!("{port}/tcp"))
        };
        let ports: BTreeSet<String> = nodes.iter().map(port).collect::<Result<_>>()?;
        let targets: BTreeSet<String> = targets.iter().map(|name| (*name).to_owned()).collect();
        let start = Instant::now();
        loop {
            // A server that has just been started does not answer yet.
            let portals = self.list("portals", "Portal TCP/UDP port").await;
            let names = self.list("nodes", "iSCSI name").await;
            if matches!((&portals, &names), (Ok(known), Ok(names)) if *known == ports && *names == targets) {
                return Ok(());
            }
            ensure!(
                start.elapsed() < LIMIT,
                "it knows {portals:?} and {names:?}, not {ports:?} and {targets:?}\n{}",
                demo.logs()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn run(program: &Path, dir: &Path) -> Result<Child> {
    let log = std::fs::File::create(dir.join("isnsd.log"))?;
    let mut command = Command::new(program);
    command
        .args(["-4", "--foreground", "--config"])
        .arg(dir.join("isnsd.conf"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command.kill_on_drop(true).spawn()?)
}

async fn ask(demo: &Demo, node: &str, arguments: &[&str]) -> Result<String> {
    let arguments = [arguments, &["--admin", demo.admin(node)?]].concat();
    cluster::holdfast(&arguments).await?.success()
}

/// Waits until what `holdfast isns list` says at a node has this in it.
async fn until_listed(demo: &Demo, node: &str, words: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let list = ask(demo, node, &["isns", "list"]).await?;
        if list.contains(words) {
            return Ok(());
        }
        ensure!(start.elapsed() < LIMIT, "no '{words}': {list}\n{}", demo.logs());
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_isns_server_knows_the_targets_and_the_portals_that_are_up() -> Result<()> {
    let Some(mut server) = Server::start()? else {
        return Ok(());
    };
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let (first, second) = (demo.document_now()?.target, "iqn.2026-11.example:second");
    ask(&demo, "w", &["isns", "create", &server.address]).await?;
    server.knows(&demo, &["a", "b"], &[&first]).await?;
    until_listed(&demo, "a", "registered").await?;
    until_listed(&demo, "b", "ask a").await?;
    ask(&demo, "w", &["target", "create", second]).await?;
    server.knows(&demo, &["a", "b"], &[&first, second]).await?;
    // Longer than the server keeps what it does not hear of again.
    sleep(Duration::from_secs(PERIOD * 2)).await;
    server.knows(&demo, &["a", "b"], &[&first, second]).await?;

    demo.kill("a")?;
    server.knows(&demo, &["b"], &[&first, second]).await?;
    until_listed(&demo, "b", "registered").await?;
    demo.restart("a").await?;
    server.knows(&demo, &["a", "b"], &[&first, second]).await?;

    server.kill().await?;
    until_listed(&demo, "a", "refused").await?;
    let alarms = demo.status_by("a").await?.alarms;
    ensure!(
        alarms
            .iter()
            .any(|alarm| alarm.to_string().contains("iSNS server")),
        "{alarms:?}"
    );
    server.restart()?;
    server.knows(&demo, &["a", "b"], &[&first, second]).await?;
    until_listed(&demo, "a", "registered").await?;

    ask(&demo, "w", &["target", "delete", second]).await?;
    server.knows(&demo, &["a", "b"], &[&first]).await?;
    ask(&demo, "w", &["isns", "delete", &server.address]).await?;
    server.knows(&demo, &[], &[]).await?;
    until_listed(&demo, "a", "No iSNS server").await
}
