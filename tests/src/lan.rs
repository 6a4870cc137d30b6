//! A cluster of three processes, each on a machine of its own in a [`Network`], set up as an administrator does it.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::ground::Network;
use holdfast_drill::initiator::Dial;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep};

use crate::cluster::{ONE_AT_A_TIME, holdfast};
use crate::status::{self, Status};
use crate::tools;

/// The machines: data nodes and witness.
pub const MACHINES: [&str; 3] = ["a", "b", "w"];
/// The cluster's only target.
pub const TARGET: &str = "iqn.2026-11.io.holdfast.tests:lan";
const START_LIMIT: Duration = Duration::from_secs(60);

static NEXT_SESSION: AtomicU16 = AtomicU16::new(1);

/// A cluster at work. Dropping it ends its processes, then its network.
#[derive(Debug)]
pub struct Lan {
    nodes: Vec<Child>,
    dir: TempDir,
    network: Network,
    /// The end of each data node's configuration.
    more: String,
    _turn: MutexGuard<'static, ()>,
}

impl Lan {
    /// Starts data nodes a and b and witness w with one LUN; `None`, and a line that says why, where no network can be made.
    ///
    /// # Errors
    /// The cluster does not come up.
    pub async fn start(size: &str) -> Result<Option<Self>> {
        match tools::or_left_out(Network::make(&MACHINES))? {
            Some(network) => Self::start_in(network, size).await.map(Some),
            None => Ok(None),
        }
    }

    /// The same in a network that was made of [`MACHINES`] and may hold more.
    ///
    /// # Errors
    /// The cluster does not come up.
    pub async fn start_in(network: Network, size: &str) -> Result<Self> {
        Self::start_as(network, size, "").await
    }

    /// The same, with `more` at the end of each data node's configuration. Where the network has further ones, replication runs over those.
    ///
    /// # Errors
    /// The cluster does not come up.
    pub async fn start_as(network: Network, size: &str, more: &str) -> Result<Self> {
        let turn = ONE_AT_A_TIME.lock().await;
        let dir = tempfile::Builder::new().prefix("holdfast-lan-").tempdir()?;
        let mut lan = Self {
            nodes: Vec::new(),
            dir,
            network,
            more: more.to_owned(),
            _turn: turn,
        };
        for machine in MACHINES {
            let node = lan.node(machine)?;
            lan.nodes.push(node);
        }
        let (b, w) = (lan.admin("b"), lan.admin("w"));
        lan.until_done(&["cluster", "init", "--name", "lan", "--member", &b, "--member", &w])
            .await?;
        lan.until_done(&["extent", "create", "disk", "--size", size])
            .await?;
        lan.until_done(&["target", "create", TARGET]).await?;
        lan.until_done(&["lun", "create", TARGET, "disk"]).await?;
        lan.wait_for("every replica in sync", START_LIMIT, Status::is_whole)
            .await?;
        Ok(lan)
    }

    /// The network that its links can be cut in.
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// The directory with all state.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Errors
    /// There is no such machine.
    pub async fn kill(&mut self, machine: &str) -> Result<()> {
        let at = index(machine)?;
        Ok(self.nodes[at].kill().await?)
    }

    /// Sends a signal to a node's process.
    ///
    /// # Errors
    /// There is no such machine, or it does not run.
    pub fn signal(&self, machine: &str, signal: Signal) -> Result<()> {
        let id = self.nodes[index(machine)?].id().context("it has ended")?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("no process id")?, signal)?)
    }

    /// Starts a node that was killed.
    ///
    /// # Errors
    /// There is no such machine, or the program does not start.
    pub fn start_node(&mut self, machine: &str) -> Result<()> {
        let at = index(machine)?;
        self.nodes[at] = self.node(machine)?;
        Ok(())
    }

    /// Bytes that a machine received from all others until now, headers of every layer included.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn received(&self, machine: &str) -> Result<u64> {
        let (program, mut arguments) = self.network.on(machine);
        let file = "/sys/class/net/eth0/statistics/rx_bytes";
        arguments.extend(["cat", file].map(str::to_owned));
        let output = std::process::Command::new(program).args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim()
            .parse()
            .with_context(|| format!("{file} holds: {text}"))
    }

    /// The process of a node.
    ///
    /// # Errors
    /// There is no such machine, or it does not run.
    pub fn process(&self, machine: &str) -> Result<u32> {
        self.nodes[index(machine)?].id().context("it has ended")
    }

    fn node(&self, machine: &str) -> Result<Child> {
        let home = self.dir.path().join(machine);
        std::fs::create_dir_all(&home)?;
        let address = self.network.address(machine)?;
        let (role, data) = match machine {
            "w" => ("witness", String::new()),
            _ => {
                let links = (1..=self.network.further())
                    .map(|network| Ok(format!("\"{}:3263\"", self.network.address_on(network, machine)?)))
                    .collect::<Result<Vec<_>>>()?;
                let links = match &links[..] {
                    [] => format!("\"{address}:3263\""),
                    links => format!("[{}]", links.join(", ")),
                };
                let more = &self.more;
                (
                    "data",
                    format!("replication = {links}\nportals = [\"{address}:3260\"]\n{more}\n"),
                )
            }
        };
        let config = format!(
            "name = \"{machine}\"\nrole = \"{role}\"\ndir = \"{}\"\n[listen]\nraft = \"{address}:3262\"\n\
             heartbeat = \"{address}:3262\"\n{data}",
            home.display()
        );
        let file = self.dir.path().join(format!("{machine}.toml"));
        std::fs::write(&file, config)?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{machine}.log")))?;
        let (program, arguments) = self.network.on(machine);
        let mut command = Command::new(program);
        command.args(arguments).arg(tools::holdfast()?).arg("node");
        command.arg("--config").arg(&file).arg("--with-parent");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(command.kill_on_drop(true).spawn()?)
    }

    fn admin(&self, machine: &str) -> String {
        let socket = self.dir.path().join(machine).join("admin.sock");
        socket.to_string_lossy().into_owned()
    }

    /// Runs a command through a's admin socket until it is done: a cluster that forms refuses for a while.
    ///
    /// # Errors
    /// It is refused for a long time.
    pub async fn until_done(&self, arguments: &[&str]) -> Result<()> {
        let start = Instant::now();
        let admin = self.admin("a");
        let all = [arguments, &["--admin", &admin]].concat();
        loop {
            let done = holdfast(&all).await?;
            if done.code == Some(0) {
                return Ok(());
            }
            ensure!(
                start.elapsed() < START_LIMIT,
                "{}: {}\n{}",
                arguments.join(" "),
                done.err,
                self.logs()
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// How to log in through a data node's portal, each time as another session.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn dial(&self, machine: &str) -> Result<Dial> {
        let number = NEXT_SESSION.fetch_add(1, Ordering::Relaxed);
        let url = format!("iscsi://{}:3260/{TARGET}/0", self.network.address(machine)?);
        let initiator = format!("iqn.2026-11.io.holdfast.tests:{}", std::process::id());
        Ok(Dial::new(url.parse()?, initiator.parse()?, number))
    }

    /// Moves the extent, and waits until it is there.
    ///
    /// # Errors
    /// It does not come to be there.
    pub async fn switchover(&self, to: &str) -> Result<Status> {
        if self.status().await?.primary() != Some(to) {
            self.until_done(&["switchover", "disk", "--to", to]).await?;
        }
        let is_there = |status: &Status| status.is_whole() && status.primary() == Some(to);
        self.wait_for("the extent where it was sent", START_LIMIT, is_there)
            .await
    }

    /// The cluster as a node sees it.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn status_by(&self, machine: &str) -> Result<Status> {
        let text = holdfast(&["status", "--json", "--admin", &self.admin(machine)])
            .await?
            .success()?;
        serde_json::from_str(&text).with_context(|| format!("the status is: {text}"))
    }

    /// The newest state that a node with a quorum knows.
    ///
    /// # Errors
    /// None answers.
    pub async fn status(&self) -> Result<Status> {
        let mut newest: Option<Status> = None;
        for machine in MACHINES {
            if let Ok(status) = self.status_by(machine).await
                && status.quorum
                && newest
                    .as_ref()
                    .is_none_or(|other| other.revision < status.revision)
            {
                newest = Some(status);
            }
        }
        newest.context("no node has a quorum")
    }

    /// Waits until the status is as wanted.
    ///
    /// # Errors
    /// It is not within `limit`.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        is: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        status::wait_for(what, limit, async || self.status().await, is, || self.logs()).await
    }

    /// The last lines of what the nodes said.
    pub fn logs(&self) -> String {
        let logs = MACHINES.map(|machine| last_lines(&self.dir.path().join(format!("{machine}.log"))));
        logs.concat()
    }
}

fn index(machine: &str) -> Result<usize> {
    let mut machines = MACHINES.iter();
    machines
        .position(|name| *name == machine)
        .with_context(|| format!("no machine {machine}"))
}

fn last_lines(path: &Path) -> String {
    let last = tools::last_lines(path, 25);
    format!("--- {}\n{last}\n", path.display())
}
