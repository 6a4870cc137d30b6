//! A demo cluster of real processes: started, hurt, asked back and looked at through the interface that users have.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_drill::error::Error;
use holdfast_drill::ground::claim;
use holdfast_drill::initiator::{Dial, Session};
use holdfast_drill::multipath::{MultiPath, Patience};
use holdfast_drill::url::IscsiUrl;
use holdfast_drill::workload::Verifier;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};

use crate::status::{self, Status};
use crate::tools::{self, Finished};

/// Ports that one demo takes, from its base port on.
const PORTS: u16 = 10;
/// For starting, with room for a slow machine; the acceptance check has its own, shorter one.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// For one short command.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// Clusters of one test binary run one after the other: failover times mean nothing on a machine with more clusters than processors.
pub(crate) static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
static NEXT: AtomicU16 = AtomicU16::new(0);
static NEXT_SESSION: AtomicU16 = AtomicU16::new(1);

/// The ready line, and `demo.json`.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct Document {
    pub ready: bool,
    pub target: String,
    pub lun: u16,
    pub size_bytes: u64,
    pub nodes: Vec<DocumentNode>,
}

/// A node in the ready line.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named and described by the interface itself")]
pub struct DocumentNode {
    pub name: String,
    pub role: String,
    pub pid: Option<i32>,
    pub portal: Option<String>,
    pub admin: String,
}

/// A demo at work. Dropping it ends its processes, by their ids.
#[derive(Debug)]
pub struct Demo {
    child: Child,
    dir: PathBuf,
    base_port: u16,
    document: Document,
    ready_after: Duration,
    _temporary: Option<TempDir>,
    _turn: MutexGuard<'static, ()>,
}

/// A demo's directory and ports that outlive it, so that it can be started again.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
    base_port: u16,
}

impl Place {
    /// A fresh directory and free ports.
    ///
    /// # Errors
    /// No directory can be made, or no ports are free.
    pub fn new() -> Result<Self> {
        Ok(Self {
            dir: tempfile::Builder::new().prefix("holdfast-").tempdir()?,
            base_port: free_ports()?,
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the demo there.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start(&self, size: &str) -> Result<Demo> {
        let turn = ONE_AT_A_TIME.lock().await;
        Demo::spawn(self.dir.path().to_owned(), self.base_port, size, None, turn).await
    }
}

impl Demo {
    /// Starts a demo with a LUN of 1 GiB in a directory of its own.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start() -> Result<Self> {
        Self::start_with("1GiB").await
    }

    /// Starts a demo with a LUN of this size in a directory of its own.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start_with(size: &str) -> Result<Self> {
        let Place { dir, base_port } = Place::new()?;
        let turn = ONE_AT_A_TIME.lock().await;
        Self::spawn(dir.path().to_owned(), base_port, size, Some(dir), turn).await
    }

    async fn spawn(
        dir: PathBuf,
        base_port: u16,
        size: &str,
        temporary: Option<TempDir>,
        turn: MutexGuard<'static, ()>,
    ) -> Result<Self> {
        let binary = tools::holdfast()?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("narration.log"))?;
        let began = Instant::now();
        let port = base_port.to_string();
        let mut child = Command::new(&binary)
            .args(["demo", "--json", "--size", size, "--base-port", &port, "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let out = child.stdout.take().context("standard output is piped")?;
        let mut lines = BufReader::new(out).lines();
        let first = timeout(READY_LIMIT, lines.next_line()).await;
        let mut demo = Self {
            child,
            dir,
            base_port,
            document: Document {
                ready: false,
                target: String::new(),
                lun: 0,
                size_bytes: 0,
                nodes: Vec::new(),
            },
            ready_after: began.elapsed(),
            _temporary: temporary,
            _turn: turn,
        };
        let line = match first {
            Ok(line) => line?,
            Err(_) => bail!("the demo was not ready within {READY_LIMIT:?}\n{}", demo.logs()),
        };
        let line = line.with_context(|| format!("the demo ended before it was ready\n{}", demo.logs()))?;
        demo.document = serde_json::from_str(&line).with_context(|| format!("the ready line is: {line}"))?;
        ensure!(demo.document.ready, "the ready line says: {line}");
        // What else it prints must not fill the pipe; there should be nothing.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(demo)
    }

    /// How long it took from the start of the binary to the ready line.
    pub const fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// The ready line.
    pub const fn document(&self) -> &Document {
        &self.document
    }

    /// The directory with all state.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `demo.json` as it is now.
    ///
    /// # Errors
    /// It is missing or not what the interface says.
    pub fn document_now(&self) -> Result<Document> {
        let text = std::fs::read_to_string(self.dir.join("demo.json")).context("demo.json")?;
        serde_json::from_str(&text).with_context(|| format!("demo.json is: {text}"))
    }

    fn node(&self, name: &str) -> Result<&DocumentNode> {
        let mut nodes = self.document.nodes.iter();
        nodes
            .find(|node| node.name == name)
            .with_context(|| format!("no node {name} in the ready line"))
    }

    /// Address of a data node's portal.
    ///
    /// # Errors
    /// There is no such data node.
    pub fn portal(&self, name: &str) -> Result<&str> {
        self.node(name)?
            .portal
            .as_deref()
            .with_context(|| format!("{name} has no portal"))
    }

    /// Address of a node's admin service.
    ///
    /// # Errors
    /// There is no such node.
    pub fn admin(&self, name: &str) -> Result<&str> {
        Ok(&self.node(name)?.admin)
    }

    /// The demo's LUN through a data node's portal.
    ///
    /// # Errors
    /// There is no such data node.
    pub fn url(&self, name: &str) -> Result<IscsiUrl> {
        self.url_of(name, self.document.lun)
    }

    fn url_of(&self, name: &str, lun: u16) -> Result<IscsiUrl> {
        let text = format!("iscsi://{}/{}/{lun}", self.portal(name)?, self.document.target);
        Ok(text.parse()?)
    }

    /// How to log in through a data node's portal, each time as another session.
    ///
    /// # Errors
    /// There is no such data node.
    pub fn dial(&self, name: &str) -> Result<Dial> {
        self.dial_lun(name, self.document.lun)
    }

    /// The same for another LUN of the demo's target.
    ///
    /// # Errors
    /// There is no such data node.
    pub fn dial_lun(&self, name: &str, lun: u16) -> Result<Dial> {
        let number = NEXT_SESSION.fetch_add(1, Ordering::Relaxed);
        let initiator = format!("iqn.2026-11.io.holdfast.tests:{}", std::process::id()).parse()?;
        Ok(Dial::new(self.url_of(name, lun)?, initiator, number))
    }

    /// A session through a data node's portal. A node that has just been started is waited for: the others count its replica as in sync
    /// from the moment that they have a quorum, and its portal listens a little later.
    ///
    /// # Errors
    /// The login fails, or nobody listens for long.
    pub async fn session(&self, name: &str) -> Result<Session> {
        let dial = self.dial(name)?;
        let start = Instant::now();
        loop {
            match Session::connect(&dial).await {
                Err(Error::Connect { source, .. })
                    if source.kind() == ErrorKind::ConnectionRefused && start.elapsed() < COMMAND_LIMIT =>
                {
                    sleep(Duration::from_millis(50)).await;
                }
                done => return Ok(done?),
            }
        }
    }

    /// The LUN over several paths, the first one preferred.
    ///
    /// # Errors
    /// No path comes up.
    pub async fn multipath(&self, names: &[&str]) -> Result<Arc<MultiPath<Session>>> {
        let dials = names
            .iter()
            .map(|name| self.dial(name))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(MultiPath::connect(dials, Patience::default()).await?))
    }

    /// Reads all that a workload wrote, through both data nodes, and judges it.
    ///
    /// # Errors
    /// A login or a read fails, or a block does not hold what it must.
    pub async fn verify(&self, verifier: &Verifier) -> Result<()> {
        for name in ["a", "b"] {
            let verdict = verifier.verify(&self.session(name).await?, name).await;
            verdict.map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }

    /// A node's process.
    ///
    /// # Errors
    /// It has none now.
    pub fn pid(&self, name: &str) -> Result<Pid> {
        let document = self.document_now()?;
        let node = document.nodes.iter().find(|node| node.name == name);
        let pid = node.and_then(|node| node.pid).and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("node {name} has no process"))?;
        ensure!(
            self.is_ours(pid),
            "process {pid:?} is not node {name} of this demo"
        );
        Ok(pid)
    }

    /// A process id may have been given away since: only one that names our directory is ours.
    fn is_ours(&self, pid: Pid) -> bool {
        let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let dir = self.dir.as_os_str().as_encoded_bytes();
        line.windows(dir.len()).any(|part| part == dir)
    }

    /// Sends a signal to a node's process.
    ///
    /// # Errors
    /// It has none.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        kill_process(self.pid(name)?, signal).with_context(|| format!("{signal:?} to {name}"))
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// The node has no process.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.signal(name, Signal::KILL)
    }

    /// Asks a killed node back, as a user does.
    ///
    /// # Errors
    /// The command fails.
    pub async fn restart(&self, name: &str) -> Result<()> {
        let dir = self.dir.to_str().context("a directory in UTF-8")?;
        self.wait_gone(name).await?;
        let done = holdfast(&["demo", "restart", name, "--dir", dir]).await?;
        done.success().map(drop)
    }

    /// Waits until the demo has seen that a node's process is gone.
    async fn wait_gone(&self, name: &str) -> Result<()> {
        let start = Instant::now();
        while self.pid(name).is_ok() {
            ensure!(start.elapsed() < COMMAND_LIMIT, "node {name} still runs");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The cluster as a node sees it.
    ///
    /// # Errors
    /// The node does not answer, or not as the interface says.
    pub async fn status_by(&self, name: &str) -> Result<Status> {
        let admin = self.admin(name)?;
        let text = holdfast(&["status", "--json", "--admin", admin])
            .await?
            .success()?;
        serde_json::from_str(&text).with_context(|| format!("the status is: {text}"))
    }

    /// The cluster as a node sees it that has a quorum.
    ///
    /// # Errors
    /// None answers.
    pub async fn status(&self) -> Result<Status> {
        let mut last = None;
        for name in ["w", "a", "b"] {
            match self.status_by(name).await {
                Ok(status) if status.quorum => return Ok(status),
                other => last = Some(other),
            }
        }
        last.context("there are nodes")?
    }

    /// The extent's primary, once there is one.
    ///
    /// # Errors
    /// There is none for a long time.
    pub async fn primary(&self) -> Result<String> {
        let status = self.wait_for("a primary", COMMAND_LIMIT, |status| {
            status.quorum && status.primary().is_some()
        });
        Ok(status.await?.primary().unwrap_or_default().to_owned())
    }

    /// Waits until every replica is in sync.
    ///
    /// # Errors
    /// They are not within `limit`.
    pub async fn wait_in_sync(&self, limit: Duration) -> Result<Status> {
        self.wait_for("every replica in sync", limit, Status::is_whole)
            .await
    }

    /// Waits until the status is as wanted.
    ///
    /// # Errors
    /// It is not within `limit`; the last status is in the text.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        is: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        status::wait_for(what, limit, async || self.status().await, is, || self.logs()).await
    }

    /// Ends the demo as Ctrl-C does; its exit status.
    ///
    /// # Errors
    /// It does not end.
    pub async fn interrupt(mut self) -> Result<std::process::ExitStatus> {
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.context("the demo runs")?, Signal::INT)?;
        let ended = timeout(COMMAND_LIMIT, self.child.wait()).await;
        Ok(ended.context("the demo does not end")??)
    }

    /// The last lines of what the demo and its nodes said.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for path in ["narration.log", "a/node.log", "b/node.log", "w/node.log"] {
            let last = tools::last_lines(&self.dir.join(path), 15);
            text += &format!("--- {path}\n{last}\n");
        }
        text
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            crate::say(&format!("ports from {}\n{}", self.base_port, self.logs()));
        }
        let nodes: Vec<Pid> = ["a", "b", "w"]
            .iter()
            .filter_map(|name| self.pid(name).ok())
            .collect();
        // The demo first, or it would tell of every node that goes. Whoever is gone already does not matter.
        let _ = self.child.start_kill();
        for pid in nodes {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Runs `holdfast` with arguments.
///
/// # Errors
/// There is no binary, or it does not end.
pub async fn holdfast(arguments: &[&str]) -> Result<Finished> {
    tools::run(&tools::holdfast()?, arguments, COMMAND_LIMIT).await
}

/// Begins `holdfast` with arguments, to be killed; nobody hears what it says.
///
/// # Errors
/// There is no binary.
pub fn begin<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Child> {
    let mut command = Command::new(tools::holdfast()?);
    command.args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(command.kill_on_drop(true).spawn()?)
}

/// A base port with ten free ports, below those that the system gives to outgoing connections. They are this process's until it ends: no
/// other test is given them, also while nothing listens there.
///
/// # Errors
/// There is none.
pub fn free_ports() -> Result<u16> {
    const FIRST: u32 = 11_000;
    const PLACES: u32 = 1300;
    static CLAIMS: std::sync::Mutex<Vec<UnixListener>> = std::sync::Mutex::new(Vec::new());
    let begin = std::process::id().wrapping_mul(37) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
    let (base, claim) = (0..PLACES)
        .filter_map(|step| u16::try_from(FIRST + (begin.wrapping_add(step) % PLACES) * 16).ok())
        .filter(|base| (*base..base + PORTS).all(is_free))
        .find_map(|base| Some((base, claim(&format!("ports {base}")).ok()?)))
        .context("no free ports")?;
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
    Ok(base)
}

fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}
