//! A thread of its own around the applied store: sled may panic or hang over corrupt files, and neither may take the node along.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::applied::{Applied, AppliedError, AppliedStore};
use super::sled_store::SledStore;

/// How long a store may take to open and give what it holds.
const OPEN_LIMIT: Duration = Duration::from_secs(20);

/// How long one save may take; Raft waits for it before it applies more.
const SAVE_LIMIT: Duration = Duration::from_secs(10);

struct Save {
    applied: Applied,
    done: oneshot::Sender<Result<(), AppliedError>>,
}

/// The store behind its thread. When it fails it is given up, until the node is started again: the log and the snapshots hold all of it.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    requests: mpsc::Sender<Save>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Opens a store on its thread and loads what it holds. Blocks.
    pub(crate) fn start<S: AppliedStore>(
        open: impl FnOnce() -> Result<S, AppliedError> + Send + 'static,
    ) -> Result<(Self, Option<Applied>), AppliedError> {
        let (requests, inbox) = mpsc::channel::<Save>();
        let (loaded, result) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("applied-store".into())
            .spawn(move || {
                let opened = open().and_then(|mut store| store.load().map(|applied| (store, applied)));
                match opened {
                    Ok((store, applied)) => {
                        if loaded.send(Ok(applied)).is_ok() {
                            run(store, &inbox);
                        }
                    }
                    // Nobody listens only when this took too long.
                    Err(error) => drop(loaded.send(Err(error))),
                }
            })
            .map_err(|error| AppliedError::Store(error.to_string()))?;
        let applied = match result.recv_timeout(OPEN_LIMIT) {
            Ok(result) => result,
            // The sender went away without a word: a panic.
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(AppliedError::Panicked),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(AppliedError::Stuck),
        };
        match applied {
            Ok(applied) => Ok((
                Self {
                    running: Some(Running { requests, thread }),
                },
                applied,
            )),
            Err(error) => {
                // So that the directory is free again; a stuck thread is left behind.
                if !matches!(error, AppliedError::Stuck) {
                    drop(thread.join());
                }
                Err(error)
            }
        }
    }

    /// sled in `dir`; a broken one is removed and made again, empty. The node starts without one when even that fails.
    pub(crate) fn start_sled(dir: &Path) -> (Self, Option<Applied>) {
        let open = |dir: PathBuf| Self::start(move || SledStore::open(&dir));
        let error = match open(dir.to_owned()) {
            Ok(started) => return started,
            Err(error) => error,
        };
        tracing::warn!(dir = %dir.display(), %error, "the applied state is broken; it is rebuilt from the newest snapshot and the log");
        let again = std::fs::remove_dir_all(dir)
            .map_err(|error| AppliedError::Store(error.to_string()))
            .and_then(|()| open(dir.to_owned()));
        again.unwrap_or_else(|error| {
            tracing::error!(dir = %dir.display(), %error, "the applied state cannot be kept on disk; it is rebuilt at every start");
            (Self::default(), None)
        })
    }

    /// Saves. A store that fails is given up, with one line.
    pub(crate) async fn save(&mut self, applied: Applied) {
        let Some(running) = &self.running else { return };
        let (done, result) = oneshot::channel();
        let sent = running.requests.send(Save { applied, done }).is_ok();
        let outcome = match tokio::time::timeout(SAVE_LIMIT, result).await {
            Ok(Ok(outcome)) if sent => outcome,
            Ok(_) => Err(AppliedError::Panicked),
            Err(_) => Err(AppliedError::Stuck),
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "the applied state can no longer be kept on disk; it is rebuilt at the next start");
            self.running = None;
        }
    }

    /// Ends the thread and waits for it, so that the directory is free. Blocks for as long as the disk takes.
    pub(crate) fn close(&mut self) {
        if let Some(Running { requests, thread }) = self.running.take() {
            drop(requests);
            drop(thread.join());
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(mut store: impl AppliedStore, inbox: &mpsc::Receiver<Save>) {
    while let Ok(Save { applied, done }) = inbox.recv() {
        let result = store.save(&applied);
        let failed = result.is_err();
        // Raft was stopped meanwhile if nobody listens.
        drop(done.send(result));
        if failed {
            return;
        }
    }
}
