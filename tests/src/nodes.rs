//! Nodes on loopback that are started one by one, as `holdfast node` is on machines of their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::cluster;
use crate::status::{self, Status};
use crate::tools::{self, Finished};

/// Ports of one node.
const PORTS: u16 = 5;
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A data node. Its process ends with it.
#[derive(Debug)]
pub struct DataNode {
    name: String,
    dir: PathBuf,
    port: u16,
    child: Child,
}

/// Configuration of a data node whose ports begin at `port`.
fn config(name: &str, dir: &Path, port: u16) -> String {
    let address = |offset: u16| format!("127.0.0.1:{}", port + offset);
    format!(
        "name = \"{name}\"\nrole = \"data\"\ndir = \"{}\"\n\n[listen]\nraft = \"{}\"\nheartbeat = \"{}\"\nreplication = \"{}\"\n\
         portals = [\"{}\"]\n\n[admin]\ntcp = \"{}\"\nopen_loopback = true\n\
         metrics = \"{}\"\n",
        dir.display(),
        address(1),
        address(1),
        address(2),
        address(0),
        address(3),
        address(4)
    )
}

impl DataNode {
    /// Starts the node `name` in a directory of its own under `dir`; `index` counts the nodes whose ports follow `base`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, dir: &Path, base: u16, index: u16) -> Result<Self> {
        let port = base + index * PORTS;
        std::fs::create_dir_all(dir.join(name))?;
        std::fs::write(
            dir.join(format!("{name}.toml")),
            config(name, &dir.join(name), port),
        )?;
        Ok(Self {
            child: run(name, dir)?,
            name: name.to_owned(),
            dir: dir.to_owned(),
            port,
        })
    }

    /// Kills it and, once it is gone, leaves it so.
    ///
    /// # Errors
    /// It has no process.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again after a kill.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.child = run(&self.name, &self.dir)?;
        Ok(())
    }

    /// Its admin service.
    pub fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.port + 3)
    }

    /// Where it tells its metrics, and nothing else.
    pub fn metrics(&self) -> String {
        format!("127.0.0.1:{}", self.port + 4)
    }

    /// Its iSCSI portal.
    pub fn portal(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has logged in its present run.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Runs a command against it.
    ///
    /// # Errors
    /// There is no binary, or it does not end.
    pub async fn ask(&self, arguments: &[&str]) -> Result<Finished> {
        let admin = self.admin();
        let mut all = arguments.to_vec();
        all.extend(["--admin", &admin]);
        cluster::holdfast(&all).await
    }

    /// The same again and again until it is done: nodes have just been started, or have no leader yet.
    ///
    /// # Errors
    /// It is not done for a long time.
    pub async fn insist(&self, arguments: &[&str]) -> Result<Finished> {
        let start = Instant::now();
        loop {
            let done = self.ask(arguments).await?;
            if done.code == Some(0) {
                return Ok(done);
            }
            if start.elapsed() >= COMMAND_LIMIT {
                bail!("{arguments:?}: {}\n{}: {}", done.err, self.name, self.log());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the cluster is, as this node sees it, as wanted.
    ///
    /// # Errors
    /// It is not within `limit`; the last status is in the text.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        is: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let look = async || {
            let done = self.ask(&["status", "--json"]).await?;
            serde_json::from_str(&done.out)
                .with_context(|| format!("the status is: {}{}", done.out, done.err))
        };
        let logs = || format!("{}: {}", self.name, self.log());
        status::wait_for(what, limit, look, is, logs).await
    }
}

fn run(name: &str, dir: &Path) -> Result<Child> {
    let log = std::fs::File::create(dir.join(format!("{name}.log")))?;
    let mut command = Command::new(tools::holdfast()?);
    command
        .arg("node")
        .arg("--config")
        .arg(dir.join(format!("{name}.toml")));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true);
    Ok(command.spawn()?)
}
