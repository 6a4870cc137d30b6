//! `holdfast node`: this machine's node, in the foreground.

mod alone;
pub(crate) mod blow;
mod certificates;
mod cluster_key;
mod control;
mod data;
pub(crate) mod devices;
mod identity;
mod kept;
mod node;
mod proposals;
mod relay;
mod running;
mod sanitize;
mod takeover;
mod units;
mod write_cache;

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) use identity::Identity;
pub(crate) use node::Node;
pub(crate) use running::Running;

use crate::cli::{NodeArgs, Out};
use crate::config::NodeConfig;
use crate::events::{Ear, Recorder};

/// `holdfast node`
pub(crate) fn run(args: &NodeArgs, _out: Out) -> anyhow::Result<()> {
    if args.with_parent {
        // Asked for by the demo, whose nodes must not outlive it, however it ends.
        end_with_parent()?;
    }
    let recorder = start_log();
    if args.after_ms > 0 {
        tracing::warn!("a drill has killed this node: it starts in {} ms", args.after_ms);
        std::thread::sleep(Duration::from_millis(args.after_ms));
    }
    raise_descriptors();
    let config = NodeConfig::load(&args.config)?;
    std::fs::create_dir_all(&config.dir)
        .with_context(|| format!("cannot create {}", config.dir.display()))?;
    let lock = lock(&config.dir)?;
    if let Err(error) = recorder.file_in(&config.dir) {
        tracing::warn!(%error, "events are in memory alone");
    }
    takeover::finish(&config.dir, std::time::SystemTime::now())?;
    // Blocking work has threads of its own, so two of these are enough to carry on while one is busy.
    let workers = std::thread::available_parallelism()
        .map_or(2, std::num::NonZero::get)
        .clamp(2, 8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    let result = runtime.block_on(Node::run(config, recorder));
    // Whatever still waits for a peer or a disk is of no use any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result? {
        End::Stop => Ok(()),
        End::Again => {
            drop(lock);
            Err(again(Duration::ZERO))
        }
    }
}

/// The argument of `holdfast node` that has it wait before it begins, in milliseconds.
const AFTER_MS: &str = "--after-ms=";

/// How a node's run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// For good.
    Stop,
    /// To begin anew at once, as the same process.
    Again,
}

/// This program anew in the place of this one, with the same arguments and the same process id, so that nobody who watches over it sees it
/// end; it waits so long before it begins. Threads, sockets and locks of this run end with it. Returns only where that is not possible.
fn again(after: Duration) -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    let waits = |argument: &OsString| argument.as_encoded_bytes().starts_with(AFTER_MS.as_bytes());
    let mut arguments = std::env::args_os().filter(|argument| !waits(argument));
    // By this name also where the file was replaced since by another release.
    let mut command = std::process::Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    if !after.is_zero() {
        command.arg(format!("{AFTER_MS}{}", after.as_millis()));
    }
    let error = command.exec();
    anyhow::Error::new(error).context("this node cannot start itself anew: start it")
}

/// From here on this process is killed when the thread that started it ends.
pub(crate) fn end_with_parent() -> anyhow::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(
        rustix::process::Signal::KILL,
    ))?)
}

/// As many descriptors as the system lets this process have: each connection of an initiator takes one, and the usual soft limit is 1024.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
}

/// Logs go to standard error; `HOLDFAST_LOG` says how much (as `RUST_LOG` elsewhere: `debug`, `info,holdfast_raft=debug`), and
/// `HOLDFAST_LOG_FORMAT=json` has each line be a JSON document. What is worth a line is recorded, too, however much the log says.
fn start_log() -> Arc<Recorder> {
    // The library warns at every try to reach a node that is down, 20 times a second; that it is down is told once, as an event.
    let filter =
        EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    let recorder = Arc::new(Recorder::default());
    let ours = Targets::new().with_target("holdfast", LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let lines = match std::env::var_os("HOLDFAST_LOG_FORMAT").is_some_and(|format| format == "json") {
        true => lines.json().flatten_event(true).with_filter(filter).boxed(),
        false => lines.with_filter(filter).boxed(),
    };
    // A second call, in tests, changes nothing.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(Ear(Arc::clone(&recorder)).with_filter(ours))
        .try_init();
    recorder
}

/// One process uses a node's directory at a time. The lock goes with the process.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!("a node runs in {} already", dir.display()),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}
