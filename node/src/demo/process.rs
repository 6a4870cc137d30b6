//! One node's process.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::layout::Layout;

/// How long a node may take to end by itself.
const END_WITHIN: Duration = Duration::from_secs(8);

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_millis(500);

/// A node's process: running, or ended and not asked back.
#[derive(Debug)]
pub(super) struct NodeProcess {
    name: &'static str,
    child: Option<Child>,
}

impl NodeProcess {
    /// Starts the node out of this program's file, `binary`. Its log goes to `node.log` in its directory.
    pub(super) fn start(name: &'static str, binary: &Path, layout: &Layout) -> anyhow::Result<Self> {
        let log_path = layout.node_dir(name).join("node.log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let child = Command::new(binary)
            .arg("node")
            .arg("--with-parent")
            .arg("--config")
            .arg(layout.config_path(name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C reaches the demo, which ends the nodes in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start node {name}"))?;
        Ok(Self {
            name,
            child: Some(child),
        })
    }

    /// Its name.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Whether it runs. One that was killed a moment ago is given the time to be gone.
    pub(super) async fn runs(&mut self) -> bool {
        let Some(child) = &mut self.child else {
            return false;
        };
        if tokio::time::timeout(GONE_WITHIN, child.wait()).await.is_err() {
            return true;
        }
        self.child = None;
        false
    }

    /// Waits until it ends; never returns for one that has ended and was seen to.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        match &mut self.child {
            Some(child) => {
                let status = child.wait().await.unwrap_or_default();
                self.child = None;
                status
            }
            None => std::future::pending().await,
        }
    }

    /// Ends it: asks, and after a while insists.
    pub(super) async fn end(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            // A stopped process would not hear the request.
            let _ = kill_process(pid, Signal::TERM);
            let _ = kill_process(pid, Signal::CONT);
        }
        if tokio::time::timeout(END_WITHIN, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        self.child = None;
    }
}

/// How a process ended, for people.
pub(super) fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => "it ended by itself".to_owned(),
        (Some(code), _) => format!("it ended with status {code}; its node.log says why"),
        (None, Some(9)) => "it was killed".to_owned(),
        (None, signal) => format!("it was ended by signal {}", signal.unwrap_or(0)),
    }
}
