//! Looks after the demo's processes, narrates what happens, and takes requests.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::layout::{Layout, NODES, TARGET};
use super::process::{NodeProcess, how};
use super::requests::{self, Request};
use super::setup;
use crate::admin::{AdminAddress, AdminClient};
use crate::cli::Out;
use crate::config::Role;
use crate::status::{StatusDocument, changes, summary, text};

/// Between two looks at the cluster for the narration.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A running demo.
pub(super) struct Supervisor {
    layout: Layout,
    /// This program, which is also the nodes'.
    binary: PathBuf,
    out: Out,
    processes: Vec<NodeProcess>,
    requests: mpsc::Receiver<Request>,
    seen: Option<StatusDocument>,
    ready: bool,
}

/// What woke the supervisor.
enum Woken {
    Ended(usize, std::process::ExitStatus),
    Asked(Request),
    Look,
    Stop,
}

impl Supervisor {
    /// Takes the directory and starts the three processes.
    pub(super) fn start(layout: Layout, out: Out) -> anyhow::Result<Self> {
        // Looked up now: a rebuild puts another file in its place, and the running one then has no name any more.
        let binary = std::env::current_exe().context("cannot find this program's own file")?;
        let listener = requests::listen(&layout.dir)?;
        layout.check_ports()?;
        layout.write_configs()?;
        let (sender, requests) = mpsc::channel(16);
        tokio::spawn(requests::serve(listener, sender.clone()));
        requests::read_typed(sender);
        let processes = NODES
            .iter()
            .map(|(name, _)| NodeProcess::start(name, &binary, &layout))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            layout,
            binary,
            out,
            processes,
            requests,
            seen: None,
            ready: false,
        })
    }

    /// Runs until SIGINT or SIGTERM, then ends every process.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let result = self.look_after().await;
        for process in &mut self.processes {
            process.end().await;
        }
        // The socket is of no use to the next run, which makes its own.
        let _ = std::fs::remove_file(self.layout.dir.join("demo.sock"));
        result
    }

    async fn look_after(&mut self) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let layout = self.layout.clone();
        let setup = setup::until_ready(&layout);
        tokio::pin!(setup);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.out.narrate(&format!(
            "Starting data nodes a and b and witness w in {} …",
            self.layout.dir.display()
        ));
        self.write_document()?;
        loop {
            let ended = ended(&mut self.processes);
            let woken = tokio::select! {
                (index, status) = ended => Woken::Ended(index, status),
                Some(request) = self.requests.recv() => Woken::Asked(request),
                _ = interrupt.recv() => Woken::Stop,
                _ = terminate.recv() => Woken::Stop,
                status = &mut setup, if !self.ready => {
                    self.announce(status?)?;
                    Woken::Look
                }
                _ = look.tick() => Woken::Look,
            };
            match woken {
                Woken::Stop => {
                    self.out.narrate("Ending all nodes …");
                    return Ok(());
                }
                Woken::Ended(index, status) => self.node_ended(index, status)?,
                Woken::Asked(request) => self.answer(request).await,
                Woken::Look => self.look().await,
            }
        }
    }

    /// A node's process is gone. Before the demo was ready that is its end: nobody could use it.
    fn node_ended(&mut self, index: usize, status: std::process::ExitStatus) -> anyhow::Result<()> {
        let name = self.processes[index].name();
        if !self.ready && status.code().is_some() {
            let log =
                std::fs::read_to_string(self.layout.node_dir(name).join("node.log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or("its log is empty");
            anyhow::bail!("node {name} did not start: {last}");
        }
        self.write_document()?;
        self.out.narrate(&format!(
            "Node {name} is gone: {}. Type 'restart {name}' to ask it back.",
            how(status)
        ));
        Ok(())
    }

    /// The ready line, and how to connect.
    fn announce(&mut self, status: StatusDocument) -> anyhow::Result<()> {
        self.ready = true;
        self.write_document()?;
        if self.out.json() {
            self.out.document(&self.document())?;
        } else {
            self.out.text(&self.how_to_connect(&status))?;
        }
        self.seen = Some(status);
        Ok(())
    }

    async fn answer(&mut self, request: Request) {
        let result = self
            .carry_out(&request.line)
            .await
            .map_err(|error| format!("{error:#}"));
        match request.answer {
            Some(answer) => drop(answer.send(result)),
            None => self.out.narrate(&result.unwrap_or_else(|error| error)),
        }
    }

    async fn carry_out(&mut self, line: &str) -> anyhow::Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["restart", name] => self.restart(name).await,
            ["status"] => Ok(self
                .status()
                .await
                .map_or_else(|| "no node answers".to_owned(), |status| text(&status))),
            _ => anyhow::bail!(
                "'{line}' is not a request; type 'restart a', 'restart b', 'restart w' or 'status'"
            ),
        }
    }

    async fn restart(&mut self, name: &str) -> anyhow::Result<String> {
        let index = NODES.iter().position(|(known, _)| *known == name);
        let index = index.with_context(|| format!("there is no node '{name}'; the nodes are a, b and w"))?;
        if self.processes[index].runs().await {
            let pid = self.processes[index].pid().unwrap_or(0);
            return Ok(format!("node {name} runs already (process {pid})"));
        }
        self.processes[index] = NodeProcess::start(NODES[index].0, &self.binary, &self.layout)?;
        self.write_document()?;
        let pid = self.processes[index].pid().unwrap_or(0);
        Ok(format!("node {name} is asked back (process {pid})"))
    }

    /// Status from whichever node answers.
    async fn status(&self) -> Option<StatusDocument> {
        for (index, process) in self.processes.iter().enumerate() {
            if process.pid().is_none() {
                continue;
            }
            let address = AdminAddress::Tcp(self.layout.admin(index));
            let look = async { AdminClient::connect(&address).await?.status().await };
            if let Ok(Ok(status)) = tokio::time::timeout(Duration::from_millis(500), look).await
                && (status.quorum || index + 1 == self.processes.len())
            {
                return Some(status);
            }
        }
        None
    }

    async fn look(&mut self) {
        if !self.ready {
            return;
        }
        let Some(now) = self.status().await else { return };
        if let Some(before) = &self.seen {
            for line in changes(before, &now) {
                self.out.narrate(&line);
            }
        }
        self.seen = Some(now);
    }

    fn document(&self) -> serde_json::Value {
        let nodes: Vec<serde_json::Value> = NODES
            .iter()
            .enumerate()
            .map(|(index, (name, role))| {
                let mut node = json!({
                    "name": name,
                    "role": role,
                    "pid": self.processes[index].pid(),
                    "admin": self.layout.admin(index).to_string(),
                });
                if *role == Role::Data {
                    node["portal"] = json!(self.layout.portal(index).to_string());
                }
                node
            })
            .collect();
        json!({ "ready": self.ready, "target": TARGET, "lun": 0, "size_bytes": self.layout.size.0, "nodes": nodes })
    }

    /// Replaces `demo.json` in one step, so that a reader never sees half of it.
    fn write_document(&self) -> anyhow::Result<()> {
        let path = self.layout.document_path();
        let fresh = path.with_extension("json.new");
        std::fs::write(&fresh, serde_json::to_vec(&self.document())?)?;
        std::fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn how_to_connect(&self, status: &StatusDocument) -> String {
        let (a, b) = (self.layout.portal(0), self.layout.portal(1));
        let pid = |index: usize| self.processes[index].pid().unwrap_or(0);
        format!(
            "\nReady. {}\n\n\
             Target {TARGET}, LUN 0 ({}), through two portals: {a} (node a) and {b} (node b).\n\
             Linux:     iscsiadm -m discovery -t sendtargets -p {a}; iscsiadm -m node -T {TARGET} -l\n\
             QEMU:      qemu-img convert -n -O raw disk.img iscsi://{a}/{TARGET}/0\n\
             libiscsi:  iscsi-ls -s iscsi://{a}; iscsi-inq iscsi://{b}/{TARGET}/0\n\n\
             Admin ports are open to every user of this machine: {} (a), {} (b), {} (w).\n\
             Try: kill -9 {} (node a), watch b take over, then type 'restart a'. Ctrl-C ends it.\n\
             holdfast status --admin {}\n",
            summary(status),
            self.layout.size,
            self.layout.admin(0),
            self.layout.admin(1),
            self.layout.admin(2),
            pid(0),
            self.layout.admin(1),
        )
    }
}

/// The first process that ends.
async fn ended(processes: &mut [NodeProcess]) -> (usize, std::process::ExitStatus) {
    let waits = processes.iter_mut().enumerate().map(|(index, process)| {
        Box::pin(async move {
            let status = process.ended().await;
            (index, status)
        })
    });
    futures::future::select_all(waits).await.0
}
