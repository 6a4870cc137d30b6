//! Nodes as on machines of their own: real processes that only have local admin sockets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_drill::initiator::Dial;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::cluster;
use crate::status::{ReplicaState, Status};
use crate::tools;

/// For whatever takes Raft, a resync of a small extent and a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// Processes and their directories.
#[derive(Debug)]
pub struct Machines {
    dir: TempDir,
    base: u16,
    more: String,
    links: u8,
    running: Vec<(String, Child)>,
}

impl Machines {
    /// None runs yet.
    ///
    /// # Errors
    /// No directory can be made, or no ports are free.
    pub fn new() -> Result<Self> {
        Ok(Self {
            dir: tempfile::tempdir()?,
            base: cluster::free_ports()?,
            more: String::new(),
            links: 1,
            running: Vec::new(),
        })
    }

    /// Nodes that are started from now on have this at the end of their configuration. `ADMIN` stands for an
    /// address and port of the node's own.
    pub fn configure(&mut self, text: &str) {
        text.clone_into(&mut self.more);
    }

    /// Data nodes that are started from now on have so many addresses for replication: 127.0.0.x, 127.0.1.x and so on.
    pub const fn links(&mut self, count: u8) {
        self.links = count;
    }

    /// The address of the `place`-th node for Raft (1), replication (2) and administration over TCP (3).
    pub fn address(&self, place: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, place + 1], self.base + port))
    }

    /// A path in their directory; a node keeps its own in `NAME`, and its log in `NAME.log`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The portal of the `place`-th node.
    pub fn portal(&self, place: u8) -> String {
        format!("127.0.0.{}:{}", place + 1, self.base)
    }

    /// A dial to LUN 0 of a target, by the `place`-th node's portal. `number` tells sessions of this process apart.
    ///
    /// # Errors
    /// That is no target's name.
    pub fn dial(&self, target: &str, place: u8, number: u16) -> Result<Dial> {
        let url = format!("iscsi://{}/{target}/0", self.portal(place));
        let initiator = format!("iqn.2026-11.io.holdfast.tests:{}", std::process::id());
        Ok(Dial::new(url.parse()?, initiator.parse()?, number))
    }

    /// Makes extent d and shows it as LUN 0 of a target, to everybody.
    ///
    /// # Errors
    /// It is refused.
    pub async fn show_extent(&self, target: &str, size: &str) -> Result<()> {
        self.ask("a", &["extent", "create", "d", "--size", size]).await?;
        self.ask("a", &["target", "create", target]).await?;
        self.ask("a", &["lun", "create", target, "d", "--lun", "0"])
            .await
            .map(drop)
    }

    /// Starts a node: the `place`-th one has loopback address 127.0.0.(place + 1).
    ///
    /// # Errors
    /// There is no binary.
    pub fn start(&mut self, name: &str, role: &str, place: u8) -> Result<()> {
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
            let port = self.base + 2;
            let links = (0..self.links).map(|link| format!("\"127.0.{link}.{}:{port}\"", place + 1));
            let links: Vec<String> = links.collect();
            text += &format!(
                "replication = [{}]\nportals = [\"{}\"]\n",
                links.join(", "),
                address(0)
            );
        }
        text += &self.more.replace("ADMIN", &address(3));
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

    /// `kill -9`.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self, name: &str) -> Result<()> {
        let place = self.running.iter().position(|(other, _)| other == name);
        let (_, mut child) = self.running.remove(place.context("it runs")?);
        Ok(child.kill().await?)
    }

    /// A command at a node, tried again while the node is not up.
    ///
    /// # Errors
    /// It is refused, or no node answers for a long time.
    pub async fn ask(&self, name: &str, arguments: &[&str]) -> Result<String> {
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

    /// Waits until a node's admin service answers, whether it belongs to a cluster or not.
    ///
    /// # Errors
    /// It does not for a long time.
    pub async fn until_answers(&self, name: &str) -> Result<()> {
        self.ask(name, &["status", "--json"]).await.map(drop)
    }

    /// As [`Self::ask`], of what must be refused; the line.
    ///
    /// # Errors
    /// It is not refused.
    pub async fn refused(&self, name: &str, arguments: &[&str]) -> Result<String> {
        match self.ask(name, arguments).await {
            Ok(done) => bail!("{arguments:?} should be refused, and says: {done}"),
            Err(error) => Ok(error.to_string()),
        }
    }

    /// The cluster as a node sees it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, name: &str) -> Result<Status> {
        Ok(serde_json::from_str(
            &self.ask(name, &["status", "--json"]).await?,
        )?)
    }

    /// Waits until the status of a node is as wanted.
    ///
    /// # Errors
    /// It is not for a long time; the last one, and the logs, are in the text.
    pub async fn until(&self, name: &str, what: &str, is: impl Fn(&Status) -> bool) -> Result<()> {
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

    /// Lets `name` join with a token of `by`; the token.
    ///
    /// # Errors
    /// It is not let in.
    pub async fn join(&self, by: &str, name: &str, more: &[&str]) -> Result<String> {
        let token = self.ask(by, &["cluster", "token"]).await?;
        let token = token.lines().next().context("a token")?.to_owned();
        let mut join = vec!["cluster", "join", &token];
        join.extend(more);
        self.ask(name, &join).await?;
        Ok(token)
    }

    /// The last lines of what each said.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for (name, _) in &self.running {
            let last = tools::last_lines(&self.path(&format!("{name}.log")), 12);
            text += &format!("--- {name}\n{last}\n");
        }
        text
    }

    /// a alone makes a cluster; b and w join it.
    ///
    /// # Errors
    /// It does not come about.
    pub async fn trio() -> Result<Self> {
        Self::trio_with("").await
    }

    /// The same with more in their configuration; see [`Self::configure`].
    ///
    /// # Errors
    /// It does not come about.
    pub async fn trio_with(more: &str) -> Result<Self> {
        let mut machines = Self::new()?;
        machines.configure(more);
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

/// Names of the nodes that vote.
pub fn voters(status: &Status) -> Vec<&str> {
    let voters = status.nodes.iter().filter(|node| node.voter);
    voters.map(|node| node.name.as_str()).collect()
}

/// Nodes of the replicas that are in sync.
pub fn in_sync(status: &Status) -> Vec<&str> {
    let replicas = status.extents.iter().flat_map(|extent| &extent.replicas);
    let in_sync = replicas.filter(|replica| replica.state == ReplicaState::InSync);
    in_sync.map(|replica| replica.node.as_str()).collect()
}

/// How many extents a node's directory holds.
pub fn images(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("data/extents"));
    let files = files
        .map(|files| files.filter_map(Result::ok).collect())
        .unwrap_or_else(|_| Vec::new());
    files
        .iter()
        .filter(|file| file.path().extension().is_some_and(|end| end == "img"))
        .count()
}
