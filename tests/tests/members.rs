//! Nodes that come and go, settings and extents changed while they run: real processes that only have local admin sockets, as on machines
//! of their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_tests::cluster;
use holdfast_tests::status::{ReplicaState, Status};
use holdfast_tests::tools;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// For whatever takes Raft, a resync of a small extent and a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Processes and their directories.
struct Machines {
    dir: TempDir,
    base: u16,
    running: Vec<(String, Child)>,
}

impl Machines {
    fn new() -> Result<Self> {
        Ok(Self {
            dir: tempfile::tempdir()?,
            base: cluster::free_ports()?,
            running: Vec::new(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a node: the `place`-th one has loopback address 127.0.0.(place + 1).
    fn start(&mut self, name: &str, role: &str, place: u8) -> Result<()> {
        let dir = self.path(name);
        std::fs::create_dir_all(&dir)?;
        let address = |offset: u16| format!("127.0.0.{}:{}", place + 1, self.base + offset);
        let mut text = format!(
            "name = \"{name}\"\nrole = \"{role}\"\ndir = \"{}\"\n[listen]\nraft = \"{}\"\nheartbeat = \"{}\"\n",
            dir.display(),
            address(1),
            address(1)
        );
        if role == "data" {
            text += &format!(
                "replication = \"{}\"\nportals = [\"{}\"]\n",
                address(2),
                address(0)
            );
        }
        let file = self.path(&format!("{name}.toml"));
        std::fs::write(&file, text)?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))?;
        let mut command = Command::new(tools::holdfast()?);
        command.arg("node").arg("--config").arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        self.running.push((name.to_owned(), command.spawn()?));
        Ok(())
    }

    async fn kill(&mut self, name: &str) -> Result<()> {
        let place = self.running.iter().position(|(other, _)| other == name);
        let (_, mut child) = self.running.remove(place.context("it runs")?);
        Ok(child.kill().await?)
    }

    /// A command at a node, tried again while the node is not up.
    async fn ask(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let socket = self.path(name).join("admin.sock");
        let mut all = arguments.to_vec();
        all.extend(["--admin", socket.to_str().context("a path in UTF-8")?]);
        let start = Instant::now();
        loop {
            let done = cluster::holdfast(&all).await?;
            if done.code == Some(0) {
                return Ok(done.out);
            }
            if !done.err.contains("no node answers on") || start.elapsed() > LONG {
                bail!("{arguments:?} at {name}: {}", done.err);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// As [`Self::ask`], of what must be refused; the line.
    async fn refused(&self, name: &str, arguments: &[&str]) -> Result<String> {
        match self.ask(name, arguments).await {
            Ok(done) => bail!("{arguments:?} should be refused, and says: {done}"),
            Err(error) => Ok(error.to_string()),
        }
    }

    async fn status(&self, name: &str) -> Result<Status> {
        Ok(serde_json::from_str(
            &self.ask(name, &["status", "--json"]).await?,
        )?)
    }

    async fn until(&self, name: &str, what: &str, is: impl Fn(&Status) -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            let status = self.status(name).await;
            if status.as_ref().is_ok_and(&is) {
                return Ok(());
            }
            ensure!(
                start.elapsed() < LONG,
                "never: {what}; last: {status:?}\n{}",
                self.logs()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn join(&self, by: &str, name: &str, more: &[&str]) -> Result<String> {
        let token = self.ask(by, &["cluster", "token"]).await?;
        let token = token.lines().next().context("a token")?.to_owned();
        let mut join = vec!["cluster", "join", &token];
        join.extend(more);
        self.ask(name, &join).await?;
        Ok(token)
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        for (name, _) in &self.running {
            let log = std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            text += &format!(
                "--- {name}\n{}\n",
                lines[lines.len().saturating_sub(12)..].join("\n")
            );
        }
        text
    }

    /// a alone makes a cluster; b and w join it.
    async fn trio() -> Result<Self> {
        let mut machines = Self::new()?;
        for (place, (name, role)) in (0..).zip([("a", "data"), ("b", "data"), ("w", "witness")]) {
            machines.start(name, role, place)?;
        }
        machines.ask("a", &["cluster", "init", "--name", "c"]).await?;
        machines.join("a", "b", &[]).await?;
        machines.join("a", "w", &[]).await?;
        machines
            .until("b", "three voters", |status| voters(status) == ["a", "b", "w"])
            .await?;
        Ok(machines)
    }
}

fn voters(status: &Status) -> Vec<&str> {
    let voters = status.nodes.iter().filter(|node| node.voter);
    voters.map(|node| node.name.as_str()).collect()
}

fn in_sync(status: &Status) -> Vec<&str> {
    let replicas = status.extents.iter().flat_map(|extent| &extent.replicas);
    let in_sync = replicas.filter(|replica| replica.state == ReplicaState::InSync);
    in_sync.map(|replica| replica.node.as_str()).collect()
}

fn images(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("data/extents"));
    let files = files
        .map(|files| files.filter_map(Result::ok).collect())
        .unwrap_or_else(|_| Vec::new());
    files
        .iter()
        .filter(|file| file.path().extension().is_some_and(|end| end == "img"))
        .count()
}

/// From one node to a pair with a witness, by tokens alone; then the witness moves, dead, and a data node is replaced, alive.
#[tokio::test(flavor = "multi_thread")]
async fn l8_nodes_join_and_are_replaced() -> Result<()> {
    let mut m = Machines::trio().await?;
    let token = m.join("b", "w", &[]).await?;
    let again = m.refused("a", &["cluster", "join", "nonsense"]).await?;
    ensure!(again.contains("copy the whole line"), "{again}");
    m.ask(
        "b",
        &["extent", "create", "d", "--size", "64MiB", "--replicas", "a,b"],
    )
    .await?;
    m.until("w", "both in sync and served", |s| {
        in_sync(s) == ["a", "b"] && s.primary() == Some("a")
    })
    .await?;
    m.kill("w").await?;
    m.start("w2", "witness", 3)?;
    let used = ["cluster", "join", &token, "--replace", "w"];
    m.ask("w2", &used).await?;
    m.until("a", "the witness has moved", |s| {
        voters(s) == ["a", "b", "w2"] && !s.nodes.iter().any(|node| node.name == "w")
    })
    .await?;
    m.ask("w2", &used).await?;
    m.start("c", "data", 4)?;
    let spent = m.refused("c", &["cluster", "join", &token]).await?;
    ensure!(spent.contains("used before"), "{spent}");
    m.join("w2", "c", &["--replace", "a"]).await?;
    m.until("b", "c has taken a's place", |s| {
        voters(s) == ["b", "w2", "c"] && in_sync(s) == ["b", "c"] && s.primary().is_some_and(|p| p != "a")
    })
    .await
}

/// What an administrator changes while all runs, with a wrong word for each.
#[tokio::test(flavor = "multi_thread")]
async fn settings_drain_and_extents_are_changed_live() -> Result<()> {
    let m = Machines::trio().await?;
    let wrong = m.refused("w", &["cluster", "set", "lease", "1s"]).await?;
    ensure!(wrong.contains("lease-time, failback-after"), "{wrong}");
    let wrong = m.refused("w", &["cluster", "set", "lease-time", "1ms"]).await?;
    ensure!(wrong.contains("300ms to 5s"), "{wrong}");
    for value in ["1s", "1s", "400ms"] {
        m.ask("w", &["cluster", "set", "lease-time", value]).await?;
    }
    let shown = m.ask("b", &["cluster", "show"]).await?;
    ensure!(shown.contains("400ms"), "{shown}");
    m.ask("b", &["extent", "create", "d", "--size", "64MiB"]).await?;
    m.until("w", "a serves", |s| {
        in_sync(s) == ["a", "b"] && s.primary() == Some("a")
    })
    .await?;
    // From a node that is not the primary: the request goes through the cluster.
    m.ask("w", &["switchover", "d", "--to", "b"]).await?;
    m.ask("w", &["switchover", "d", "--to", "a"]).await?;
    m.ask("w", &["cluster", "drain", "a"]).await?;
    m.until("b", "a is drained", |s| s.primary() == Some("b")).await?;
    m.ask("w", &["cluster", "undrain", "a"]).await?;
    m.ask("w", &["extent", "set", "d", "--preferred", "b"]).await?;
    m.ask("w", &["extent", "resize", "d", "--size", "80MiB"]).await?;
    m.until("a", "larger", |s| s.extents[0].size_bytes == 80 << 20)
        .await?;
    let smaller = m
        .refused("w", &["extent", "resize", "d", "--size", "1MiB"])
        .await?;
    ensure!(smaller.contains("only grows"), "{smaller}");
    let target = "iqn.2026-11.example:t";
    m.ask("w", &["target", "create", target]).await?;
    m.ask("w", &["lun", "create", target, "d", "--lun", "3"]).await?;
    let unnamed = m.refused("w", &["extent", "delete", "d"]).await?;
    ensure!(unnamed.contains("--confirm d"), "{unnamed}");
    let mapped = m
        .refused("w", &["extent", "delete", "d", "--confirm", "d"])
        .await?;
    ensure!(mapped.contains("in use"), "{mapped}");
    ensure!(
        m.refused("w", &["target", "delete", target])
            .await?
            .contains("in use")
    );
    m.ask("w", &["lun", "delete", target, "--lun", "3"]).await?;
    m.ask("w", &["target", "delete", target]).await?;
    ensure!(images(&m.path("a")) == 1 && images(&m.path("b")) == 1);
    m.ask("w", &["extent", "delete", "d", "--confirm", "d"]).await?;
    let start = Instant::now();
    while images(&m.path("a")) + images(&m.path("b")) > 0 {
        ensure!(start.elapsed() < LONG, "the files are freed");
        sleep(Duration::from_millis(50)).await;
    }
    let left = m.ask("a", &["cluster", "leave", "w"]).await?;
    ensure!(left.contains("nothing will fail over by itself"), "{left}");
    m.until("a", "two voters", |s| {
        voters(s) == ["a", "b"] && s.nodes.len() == 2
    })
    .await
}
