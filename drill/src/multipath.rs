//! One logical unit over several paths, as dm-multipath uses it: a path that is lost is dialled again in the background, and its
//! commands are sent again on another one.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::{BlockSize, Lba};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::disk::Disk;
use crate::error::{Error, SenseCode};

/// Dials one path.
pub trait Connect: Send + Sync + 'static {
    /// What it leads to.
    type Path: Path;

    /// Logs in. Bounded in time by the implementation.
    ///
    /// # Errors
    /// No connection, or a login that was refused.
    fn connect(&self) -> impl Future<Output = Result<Self::Path, Error>> + Send;

    /// The path's name for reports.
    fn name(&self) -> String;
}

/// A disk behind one connection that can end.
pub trait Path: Disk {
    /// Completes when the connection has ended.
    fn ended(&self) -> impl Future<Output = ()> + Send;

    /// Ends it: every command on it is answered with [`Error::Lost`].
    fn close(&self);
}

/// How patient a [`MultiPath`] is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A command is sent again until this has passed since it was first sent.
    pub command: Duration,
    /// Pause before a lost path is dialled again.
    pub redial: Duration,
    /// Pause before a command that met a transition, BUSY or no path is sent again.
    pub again: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(60),
            redial: Duration::from_millis(200),
            again: Duration::from_millis(30),
        }
    }
}

/// How often commands had to be sent again, by reason.
#[derive(Debug, Default)]
pub struct Counts {
    /// The connection ended with the command on it.
    pub lost: AtomicU64,
    /// The path timer ran out; the path was given up.
    pub timeouts: AtomicU64,
    /// Unit attentions.
    pub attentions: AtomicU64,
    /// Transitions, BUSY, TASK SET FULL, TASK ABORTED.
    pub later: AtomicU64,
    /// The group was on standby or unavailable.
    pub elsewhere: AtomicU64,
    /// Logins that the target refused.
    pub refused_logins: AtomicU64,
    /// All of the above by [`Error::kind`], and what was told to the caller.
    kinds: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    fn met(&self, error: &Error) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        *kinds.entry(error.kind()).or_default() += 1;
    }

    /// What commands and logins have met besides success, by [`Error::kind`].
    pub fn kinds(&self) -> BTreeMap<String, u64> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Send it again on the same path, at once.
    Again,
    /// Send it again after a pause.
    Later,
    /// Send it on another path.
    Elsewhere,
    /// Give the path up and send it on another one.
    GiveUpPath,
    /// Tell the caller.
    Fail,
}

/// As the kernel's SCSI and multipath layers decide: only what says "not done, try again" or leaves the command's fate open is sent
/// again; a medium error, an aborted command or a missing logical unit reaches the application.
const fn verdict(error: &Error) -> Verdict {
    const BUSY: u8 = 0x08;
    const TASK_SET_FULL: u8 = 0x28;
    const TASK_ABORTED: u8 = 0x40;
    match error {
        Error::Connect { .. } | Error::Lost(_) => Verdict::Elsewhere,
        Error::Timeout(_) => Verdict::GiveUpPath,
        Error::Status(BUSY | TASK_SET_FULL | TASK_ABORTED) => Verdict::Later,
        Error::CheckCondition(sense) => match (sense.key, sense.asc, sense.ascq) {
            (0x06, _, _) => Verdict::Again,
            (0x02, 0x04, 0x0a) => Verdict::Later,
            (0x02, 0x04, 0x0b | 0x0c) => Verdict::Elsewhere,
            _ => Verdict::Fail,
        },
        _ => Verdict::Fail,
    }
}

/// One path: its dialler's task and the connection it has at the moment.
#[derive(Debug)]
struct Slot<P> {
    now: watch::Receiver<Option<Arc<P>>>,
    keeper: JoinHandle<()>,
}

/// One logical unit over several paths. Every command goes to the first path while that is up.
#[derive(Debug)]
pub struct MultiPath<P> {
    slots: Vec<Slot<P>>,
    patience: Patience,
    counts: Arc<Counts>,
    block_size: BlockSize,
    blocks: u64,
}

impl<P: Path> MultiPath<P> {
    /// Dials all paths and waits until the first one to answer is up. The order of `paths` is the order of preference.
    ///
    /// # Errors
    /// No path is given, or none comes up in `patience.command`.
    pub async fn connect<C: Connect<Path = P>>(paths: Vec<C>, patience: Patience) -> Result<Self, Error> {
        let counts = Arc::new(Counts::default());
        let slots: Vec<Slot<P>> = paths
            .into_iter()
            .map(|path| {
                let (sender, now) = watch::channel(None);
                let keeper = tokio::spawn(keep(path, sender, patience.redial, Arc::clone(&counts)));
                Slot { now, keeper }
            })
            .collect();
        let mut all = Self {
            slots,
            patience,
            counts,
            block_size: BlockSize::B512,
            blocks: 0,
        };
        let deadline = Instant::now() + patience.command;
        loop {
            if let Some((_, path)) = all.pick(0) {
                all.block_size = path.block_size();
                all.blocks = path.blocks();
                return Ok(all);
            }
            if all.slots.is_empty() || Instant::now() >= deadline {
                return Err(Error::Lost("no path came up".to_owned()));
            }
            sleep(patience.again).await;
        }
    }

    /// How often commands had to be sent again.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many paths are up.
    pub fn paths_up(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.now.borrow().is_some())
            .count()
    }

    /// The first path that is up, from number `from` on and round.
    fn pick(&self, from: usize) -> Option<(usize, Arc<P>)> {
        let count = self.slots.len();
        (0..count).map(|step| (from + step) % count).find_map(|at| {
            let path = self.slots[at].now.borrow().clone()?;
            Some((at, path))
        })
    }

    /// Sends a command until it is answered, fails for good, or patience ends.
    async fn run<T, F, A>(&self, send: F) -> Result<T, Error>
    where
        F: Fn(Arc<P>) -> A,
        A: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + self.patience.command;
        let mut from = 0;
        loop {
            let error = match self.pick(from) {
                None => Error::Lost("no path is up".to_owned()),
                Some((at, path)) => match send(Arc::clone(&path)).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        from = self.after(&error, at, &path)?;
                        error
                    }
                },
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            if verdict(&error) != Verdict::Again {
                sleep(self.patience.again).await;
            }
        }
    }

    /// Where to send a command next that came to `error` on path `at`; `Err` with a copy of the verdict "fail" for the caller.
    fn after(&self, error: &Error, at: usize, path: &Arc<P>) -> Result<usize, Error> {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        self.counts.met(error);
        let next = match verdict(error) {
            Verdict::Again => {
                count(&self.counts.attentions);
                at
            }
            Verdict::Later => {
                count(&self.counts.later);
                at
            }
            Verdict::Elsewhere => {
                count(if error.is_unknown() {
                    &self.counts.lost
                } else {
                    &self.counts.elsewhere
                });
                at + 1
            }
            Verdict::GiveUpPath => {
                count(&self.counts.timeouts);
                path.close();
                at + 1
            }
            Verdict::Fail => return Err(copy(error)),
        };
        Ok(next)
    }
}

/// Errors that end a command carry nothing that cannot be copied.
fn copy(error: &Error) -> Error {
    match error {
        Error::CheckCondition(sense) => Error::CheckCondition(*sense),
        Error::Status(status) => Error::Status(*status),
        Error::Response(response) => Error::Response(*response),
        Error::Rejected(reason) => Error::Rejected(*reason),
        Error::LoginRefused { class, detail } => Error::LoginRefused {
            class: *class,
            detail: *detail,
        },
        Error::Usage(text) => Error::Usage(text.clone()),
        other => Error::Protocol(other.to_string()),
    }
}

impl<P> Drop for MultiPath<P> {
    fn drop(&mut self) {
        self.slots.iter().for_each(|slot| slot.keeper.abort());
    }
}

impl<P: Path> Disk for MultiPath<P> {
    fn block_size(&self) -> BlockSize {
        self.block_size
    }

    fn blocks(&self) -> u64 {
        self.blocks
    }

    async fn read(&self, lba: Lba, blocks: u32) -> Result<Bytes, Error> {
        self.run(|path| async move { path.read(lba, blocks).await }).await
    }

    async fn write(&self, lba: Lba, data: Bytes) -> Result<(), Error> {
        self.run(|path| {
            let data = data.clone();
            async move { path.write(lba, data).await }
        })
        .await
    }
}

/// Keeps one path: dials, shows the connection, waits for its end, and again.
async fn keep<C: Connect>(
    connect: C,
    now: watch::Sender<Option<Arc<C::Path>>>,
    redial: Duration,
    counts: Arc<Counts>,
) {
    while !now.is_closed() {
        match connect.connect().await {
            Ok(path) => {
                let path = Arc::new(path);
                now.send_replace(Some(Arc::clone(&path)));
                path.ended().await;
                now.send_replace(None);
                tracing::debug!(path = connect.name(), "lost");
            }
            Err(error) => {
                if matches!(error, Error::LoginRefused { .. }) {
                    counts.refused_logins.fetch_add(1, Ordering::Relaxed);
                }
                counts.met(&error);
                tracing::debug!(path = connect.name(), %error, "not up");
            }
        }
        sleep(redial).await;
    }
}

/// Whether a sense code is one that a multipath layer handles without telling the application.
pub const fn is_hidden(sense: SenseCode) -> bool {
    !matches!(verdict(&Error::CheckCondition(sense)), Verdict::Fail)
}

#[cfg(test)]
#[path = "multipath_test.rs"]
mod tests;
