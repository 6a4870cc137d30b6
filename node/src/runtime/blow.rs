//! What a drill does to this process as a whole: killed, or frozen, for a while.
//!
//! One that is killed takes its own place (`execve`): memory, threads, sockets and locks are gone at once and nobody was told, as after
//! `kill -9`, but whoever watches over the process sees no end of it, and need not start it again. One that is frozen is stopped by a child
//! of its own, which lets it go on: a stopped process does nothing for itself.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::again;

/// The site of these faults, where others have links and disks.
pub(crate) const PROCESS: &str = "process";
/// For the answer to reach whoever asked, on a busy machine, too.
const ANSWERED_WITHIN: Duration = Duration::from_millis(250);

/// How the process is hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// It is killed, and started again later.
    Kill,
    /// It is stopped: its sockets stay open and say nothing.
    Freeze,
}

impl FromStr for Blow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kill" => Ok(Self::Kill),
            "freeze" => Ok(Self::Freeze),
            other => Err(format!(
                "'{other}' is no fault of a process: it is kill or freeze"
            )),
        }
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
        })
    }
}

impl Blow {
    /// Strikes this process once its answer is out. It goes on by itself after `lasts`, and hears nothing until then.
    ///
    /// # Errors
    /// What would let it go on cannot be started: nothing is done then.
    pub(crate) fn strike(self, lasts: Duration) -> anyhow::Result<()> {
        match self {
            Self::Kill => {
                spawn(move || {
                    sleep(ANSWERED_WITHIN);
                    let error = again(lasts);
                    tracing::error!("a drill could not kill this node: {error:#}");
                });
                Ok(())
            }
            Self::Freeze => freeze(lasts),
        }
    }
}

fn freeze(lasts: Duration) -> anyhow::Result<()> {
    let mut child = Command::new("/proc/self/exe")
        .args(["fault", "hold-parent"])
        .arg(getpid().as_raw_nonzero().to_string())
        .arg(lasts.as_millis().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Out of reach of Ctrl-C.
        .process_group(0)
        .spawn()
        .context("cannot start what lets this node go on")?;
    spawn(move || match child.wait() {
        Ok(status) if status.success() => tracing::warn!("this node goes on: it was frozen by a drill"),
        other => tracing::error!("a drill could not freeze this node: {other:?}"),
    });
    Ok(())
}

/// `holdfast fault hold-parent`: stops the process that started this one, for a while.
pub(crate) fn hold_parent(parent: i32, lasts: Duration) -> anyhow::Result<()> {
    let parent = Pid::from_raw(parent).context("0 is no process")?;
    let is_there = || getppid() == Some(parent);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Whoever wants this one to end wants that one to go on first.
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::time::sleep(ANSWERED_WITHIN).await;
        ensure!(is_there(), "the process that started this one has ended");
        kill_process(parent, Signal::STOP)?;
        tokio::select! {
            () = tokio::time::sleep(lasts) => {}
            _ = terminate.recv() => {}
        }
        // Nobody else has its number as long as it is this one's parent.
        if is_there() {
            kill_process(parent, Signal::CONT)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blows_are_named_as_they_are_shown() {
        for blow in [Blow::Kill, Blow::Freeze] {
            assert_eq!(blow.to_string().parse(), Ok(blow));
        }
        assert!("cut".parse::<Blow>().unwrap_err().contains("kill or freeze"));
    }

    #[test]
    fn only_a_parent_is_held() {
        // Process 1 has not started this one; were it held, this machine would be.
        assert!(hold_parent(0, Duration::ZERO).is_err());
        if getppid() != Pid::from_raw(1) {
            assert!(hold_parent(1, Duration::from_millis(1)).is_err());
        }
    }
}
