//! A demo of one's own, to be hurt: started as a process, and asked as a user would.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use holdfast_drill::rehearsal::{Failure, Look, Roles, Stage};
use holdfast_types::ByteSize;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::layout::{EXTENT, Layout, NODES, TARGET};
use super::requests;
use crate::admin::{AdminAddress, AdminClient};
use crate::config::Role;
use crate::injected::Injected;
use crate::status::{Health, StatusDocument};
use crate::watchers::{Unit, Watchers};

/// For the demo to be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// For a killed or moved node to be back in sync.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// For the demo to see that a node is gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// For one look at the cluster.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// A running demo whose nodes may be hurt. It ends with the thread that started it, or when it is dropped.
pub(crate) struct DemoStage {
    layout: Layout,
    /// None until somebody wants to know.
    watchers: Watchers,
    injected: Injected,
    /// Killed when it is dropped; its nodes end with it.
    _demo: Child,
    _dir: TempDir,
}

impl DemoStage {
    /// Starts a demo in a fresh directory and waits until it is ready.
    pub(crate) async fn start(base_port: u16, size: ByteSize) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("holdfast-bench-").tempdir()?;
        let layout = Layout::new(dir.path().to_owned(), base_port, size)?;
        let log = std::fs::File::create(dir.path().join("demo.log"))?;
        let mut demo = Command::new(std::env::current_exe()?)
            .args(["demo", "--json", "--with-parent"])
            .args([
                "--size",
                &size.0.to_string(),
                "--base-port",
                &base_port.to_string(),
            ])
            .arg("--dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            // Ctrl-C reaches this process, with which the demo ends.
            .process_group(0)
            .spawn()
            .context("cannot start a demo")?;
        let output = demo.stdout.take().context("its standard output is piped")?;
        let mut lines = BufReader::new(output).lines();
        let ready = timeout(READY_WITHIN, lines.next_line()).await;
        if !matches!(ready, Ok(Ok(Some(_)))) {
            let log = std::fs::read_to_string(dir.path().join("demo.log")).unwrap_or_default();
            bail!(
                "a demo could not be started: {}",
                log.lines().last().unwrap_or("it says nothing")
            );
        }
        Ok(Self {
            layout,
            watchers: Watchers::default(),
            injected: Injected::default(),
            _demo: demo,
            _dir: dir,
        })
    }

    /// Asks every node for its status from now on, some times a second, for [`Stage::looks`].
    pub(crate) fn watch(&mut self) {
        let nodes = NODES.iter().enumerate();
        let nodes =
            nodes.map(|(index, (name, _))| ((*name).to_owned(), AdminAddress::Tcp(self.layout.admin(index))));
        self.watchers = Watchers::start(
            nodes,
            Unit {
                extent: EXTENT,
                target: TARGET,
            },
        );
    }

    /// The unit's URL through a data node's portal.
    pub(crate) fn url(&self, index: usize) -> String {
        format!("iscsi://{}/{TARGET}/0", self.layout.portal(index))
    }

    /// The cluster as the first node with a quorum that answers sees it.
    async fn status(&self) -> Option<StatusDocument> {
        for index in (0..NODES.len()).rev() {
            let address = AdminAddress::Tcp(self.layout.admin(index));
            let look = async { AdminClient::connect(&address).await?.status().await };
            if let Ok(Ok(status)) = timeout(LOOK_WITHIN, look).await
                && status.quorum
            {
                return Some(status);
            }
        }
        None
    }

    /// The node's process, as the demo's document has it. `None` while it has none.
    fn pid(&self, name: &str) -> anyhow::Result<Option<Pid>> {
        let path = self.layout.document_path();
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let document: serde_json::Value = serde_json::from_str(&text)?;
        let nodes = document["nodes"]
            .as_array()
            .context("the demo's document names no nodes")?;
        let node = nodes.iter().find(|node| node["name"] == name);
        let pid = node.and_then(|node| node["pid"].as_i64());
        let Some(pid) = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) else {
            return Ok(None);
        };
        Ok(self.is_ours(pid).then_some(pid))
    }

    /// A process id may have been given away since: only one whose command line names our directory is a node's.
    fn is_ours(&self, pid: Pid) -> bool {
        let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        names(&line, &self.layout.dir)
    }

    fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let pid = self
            .pid(name)?
            .with_context(|| format!("node {name} has no process"))?;
        kill_process(pid, signal).with_context(|| format!("node {name} could not be sent a signal"))
    }

    fn address(&self, name: &str) -> anyhow::Result<AdminAddress> {
        let index = NODES.iter().position(|(node, _)| *node == name);
        let index = index.with_context(|| format!("no node {name}"))?;
        Ok(AdminAddress::Tcp(self.layout.admin(index)))
    }

    async fn restart(&self, name: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.pid(name)?.is_some() {
            ensure!(began.elapsed() < GONE_WITHIN, "node {name} still runs");
            sleep(Duration::from_millis(20)).await;
        }
        requests::ask(&self.layout.dir, &format!("restart {name}"))
            .await
            .map(drop)
    }

    async fn switchover(&self, to: &str) -> anyhow::Result<()> {
        let address = AdminAddress::Tcp(self.layout.admin(NODES.len() - 1));
        let request = holdfast_proto::admin::SwitchoverRequest {
            extents: vec![EXTENT.to_owned()],
            to: to.to_owned(),
        };
        AdminClient::connect(&address).await?.switchover(request).await?;
        Ok(())
    }
}

fn names(command_line: &[u8], dir: &Path) -> bool {
    let dir = dir.as_os_str().as_encoded_bytes();
    command_line.windows(dir.len()).any(|part| part == dir)
}

/// Who is what, once all is well.
fn roles(status: &StatusDocument) -> Option<Roles> {
    let extent = status.extents.iter().find(|extent| extent.name == EXTENT)?;
    let primary = extent.primary.clone()?;
    let replica = extent.in_sync.iter().find(|name| **name != primary)?.clone();
    let is_witness = |(_, role): &&(&str, Role)| *role == Role::Witness;
    let (witness, _) = NODES.iter().find(is_witness)?;
    (status.health == Health::Ok && extent.served).then(|| Roles {
        primary,
        replica,
        witness: (*witness).to_owned(),
        leader: status.leader.clone(),
    })
}

impl Stage for DemoStage {
    type Error = anyhow::Error;

    async fn settle(&self) -> anyhow::Result<Roles> {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < SETTLED_WITHIN {
            last = self.status().await;
            if let Some(roles) = last.as_ref().and_then(roles) {
                return Ok(roles);
            }
            sleep(Duration::from_millis(50)).await;
        }
        let why = last.map_or_else(
            || "no node answers".to_owned(),
            |status| status.reasons.join("; "),
        );
        bail!("the pair was not whole again within {SETTLED_WITHIN:?}: {why}")
    }

    async fn inject(&self, failure: Failure, roles: &Roles) -> anyhow::Result<()> {
        match failure {
            Failure::Switchover => self.switchover(&roles.replica).await,
            Failure::FreezePrimary => self.signal(&roles.primary, Signal::STOP),
            Failure::KillPrimary | Failure::KillReplica | Failure::KillWitness => {
                self.signal(roles.victim(failure), Signal::KILL)
            }
            _ => {
                let address = self.address(roles.victim(failure))?;
                let peers = [roles.replica.clone(), roles.witness.clone()];
                self.injected.put(&address, failure, &roles.replica, &peers).await
            }
        }
    }

    async fn heal(&self, failure: Failure, roles: &Roles) -> anyhow::Result<()> {
        match failure {
            Failure::Switchover => Ok(()),
            Failure::FreezePrimary => self.signal(&roles.primary, Signal::CONT),
            Failure::KillPrimary | Failure::KillReplica | Failure::KillWitness => {
                self.restart(roles.victim(failure)).await
            }
            _ => {
                let address = self.address(roles.victim(failure))?;
                self.injected.heal(&address).await
            }
        }
    }

    fn nodes(&self) -> Vec<String> {
        NODES.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn looks(&self) -> Vec<Look<Instant>> {
        self.watchers.looks()
    }
}
