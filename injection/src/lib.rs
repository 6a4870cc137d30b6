//! Faults that a drill puts into a running process: links and disks that are cut, slow or lossy, each for a bounded time.
//!
//! Drivers ask before a message passes a link or an operation reaches a disk, with one load of an atomic while nothing is injected. An
//! injection ends by itself, so that whoever put it there may be killed. What was held back passes when it ends, as what waits in a
//! socket's buffer does when a cable is put back.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_types::NodeId;

/// The injections of this process: a node's drivers ask these.
pub static HERE: Injections = Injections::new();

/// An injection lasts no longer than this, unless it is put there again.
pub const LASTS_MAX: Duration = Duration::from_secs(60);
/// Whatever is held back looks this often whether it still is.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The longest delay, and the slowest link or disk, in bytes a second.
const DELAY_MAX: Duration = Duration::from_secs(10);
const SPEED_MIN: u64 = 1024;

/// A direction, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// From the peer to this node.
    In,
    /// From this node to the peer.
    Out,
}

/// What a node has on its disk, by purpose; often one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disk {
    /// The journal of all extents.
    Journal,
    /// The extents.
    Extents,
    /// The Raft log and the applied state.
    Raft,
}

impl Disk {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Journal, Self::Extents, Self::Raft];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Extents => "extents",
            Self::Raft => "raft",
        }
    }
}

/// What can be hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// All that passes between this node and another one, in one direction: Raft, heartbeats, replication.
    Link(NodeId, Way),
    /// Reads, writes and flushes.
    Disk(Disk),
}

/// How it is hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Nothing passes; a disk hangs.
    Cut,
    /// Each message or operation comes later by this much, 10 s at most.
    Delay(Duration),
    /// Bytes a second, 1 KiB at least.
    Slow(u64),
    /// Of a hundred messages so many are lost, 1 to 100; what TCP carries breaks its connection off. Links only.
    Lose(u8),
}

impl FromStr for Harm {
    type Err = String;

    /// `cut`, `delay=50ms`, `slow=1048576` (bytes a second) or `lose=10` (percent).
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "'{text}' is no fault: it is cut, delay=50ms (at most {} s), slow=1048576 (bytes a second, at least {SPEED_MIN}) or \
                 lose=10 (percent)",
                DELAY_MAX.as_secs()
            )
        };
        let harm = match text.split_once('=') {
            None if text == "cut" => Self::Cut,
            Some(("delay", time)) => {
                let millis = time.strip_suffix("ms").and_then(|millis| millis.parse().ok());
                Self::Delay(Duration::from_millis(millis.ok_or_else(bad)?))
            }
            Some(("slow", speed)) => Self::Slow(speed.parse().map_err(|_| bad())?),
            Some(("lose", percent)) => Self::Lose(percent.parse().map_err(|_| bad())?),
            _ => return Err(bad()),
        };
        let fits = match harm {
            Self::Cut => true,
            Self::Delay(delay) => delay > Duration::ZERO && delay <= DELAY_MAX,
            Self::Slow(speed) => speed >= SPEED_MIN,
            Self::Lose(percent) => (1..=100).contains(&percent),
        };
        fits.then_some(harm).ok_or_else(bad)
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("cut"),
            Self::Delay(delay) => write!(f, "delay={}ms", delay.as_millis()),
            Self::Slow(speed) => write!(f, "slow={speed}"),
            Self::Lose(percent) => write!(f, "lose={percent}"),
        }
    }
}

/// A message was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a drill loses messages of this link")
    }
}

impl std::error::Error for Lost {}

/// Something that is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    site: Site,
    number: u64,
    until: Instant,
    /// Nothing passes at all: a datagram is lost then, where a stream waits.
    pub is_cut: bool,
}

/// What becomes of a message or an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// It passes.
    Free,
    /// Not yet.
    Held(Held),
    /// It never does.
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Injection {
    harm: Harm,
    until: Instant,
    number: u64,
    /// When a slow site has passed on all that it took.
    busy_until: Instant,
    /// Percent that are owed to [`Harm::Lose`].
    owed: u32,
}

#[derive(Debug)]
struct Table {
    injections: BTreeMap<Site, Injection>,
    last: u64,
}

/// A process's injections.
#[derive(Debug)]
pub struct Injections {
    /// Whether there are any.
    any: AtomicBool,
    table: Mutex<Table>,
}

impl Default for Injections {
    fn default() -> Self {
        Self::new()
    }
}

impl Injections {
    /// None.
    pub const fn new() -> Self {
        let injections = BTreeMap::new();
        Self {
            any: AtomicBool::new(false),
            table: Mutex::new(Table { injections, last: 0 }),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hurts a site for a while, [`LASTS_MAX`] at most; what else it suffered before is over. False: it suffers that already, and goes on.
    pub fn put(&self, site: Site, harm: Harm, lasts: Duration, now: Instant) -> bool {
        let mut table = self.table();
        let until = now + lasts.min(LASTS_MAX);
        if let Some(same) = table.injections.get_mut(&site)
            && same.harm == harm
            && same.until > now
        {
            // Renewed: what it holds back it goes on holding back.
            same.until = same.until.max(until);
            return false;
        }
        table.last += 1;
        let injection = Injection {
            harm,
            until,
            number: table.last,
            busy_until: now,
            owed: 0,
        };
        table.injections.insert(site, injection);
        self.any.store(true, Ordering::Release);
        true
    }

    /// Heals a site, or with `None` all. What was there.
    pub fn heal(&self, site: Option<Site>) -> Vec<(Site, Harm)> {
        let mut table = self.table();
        let mut healed = Vec::new();
        table.injections.retain(|at, injection| {
            let stays = site.is_some_and(|site| site != *at);
            if !stays {
                healed.push((*at, injection.harm));
            }
            stays
        });
        self.any.store(!table.injections.is_empty(), Ordering::Release);
        healed
    }

    /// What there is, and how much longer. Forgets what is over.
    pub fn list(&self, now: Instant) -> Vec<(Site, Harm, Duration)> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut table = self.table();
        table.injections.retain(|_, injection| injection.until > now);
        self.any.store(!table.injections.is_empty(), Ordering::Release);
        let left = |injection: &Injection| injection.until.saturating_duration_since(now);
        table
            .injections
            .iter()
            .map(|(site, injection)| (*site, injection.harm, left(injection)))
            .collect()
    }

    /// What becomes of a message or an operation of so many bytes.
    pub fn admit(&self, site: Site, bytes: usize, now: Instant) -> Passage {
        if !self.any.load(Ordering::Acquire) {
            return Passage::Free;
        }
        let mut table = self.table();
        let Some(injection) = table.injections.get_mut(&site).filter(|there| there.until > now) else {
            return Passage::Free;
        };
        let until = match injection.harm {
            Harm::Cut => injection.until,
            Harm::Delay(delay) => now + delay,
            Harm::Slow(speed) => {
                let takes = Duration::from_secs_f64(bytes as f64 / speed as f64);
                injection.busy_until = injection.busy_until.max(now) + takes;
                injection.busy_until
            }
            Harm::Lose(percent) => {
                injection.owed += u32::from(percent);
                if injection.owed < 100 {
                    return Passage::Free;
                }
                injection.owed -= 100;
                return Passage::Lost;
            }
        };
        Passage::Held(Held {
            site,
            number: injection.number,
            until: until.min(injection.until),
            is_cut: injection.harm == Harm::Cut,
        })
    }

    /// How long to wait before the next look; `None`: it passes now.
    pub fn still(&self, held: &Held, now: Instant) -> Option<Duration> {
        let table = self.table();
        let there = table.injections.get(&held.site);
        let there = there.filter(|there| there.number == held.number)?;
        let until = if held.is_cut { there.until } else { held.until };
        let left = until.min(there.until).saturating_duration_since(now);
        (!left.is_zero()).then(|| left.min(LOOK_EVERY))
    }

    /// Waits until a message of so many bytes passes the link with a peer.
    ///
    /// # Errors
    /// It never does.
    pub async fn pass(&self, peer: NodeId, way: Way, bytes: usize) -> Result<(), Lost> {
        self.pass_unless(peer, way, bytes, || false).await
    }

    /// The same for a message that is lost once `is_over` says that nobody waits for it any more.
    ///
    /// # Errors
    /// It never passes.
    pub async fn pass_unless(
        &self,
        peer: NodeId,
        way: Way,
        bytes: usize,
        is_over: impl Fn() -> bool,
    ) -> Result<(), Lost> {
        match self.admit(Site::Link(peer, way), bytes, Instant::now()) {
            Passage::Free => Ok(()),
            Passage::Lost => Err(Lost),
            Passage::Held(held) => {
                while let Some(wait) = self.still(&held, Instant::now()) {
                    if is_over() {
                        return Err(Lost);
                    }
                    tokio::time::sleep(wait).await;
                }
                Ok(())
            }
        }
    }

    /// Waits in this thread until an operation of so many bytes reaches a disk.
    pub fn reach(&self, disk: Disk, bytes: usize) {
        if let Passage::Held(held) = self.admit(Site::Disk(disk), bytes, Instant::now()) {
            while let Some(wait) = self.still(&held, Instant::now()) {
                std::thread::sleep(wait);
            }
        }
    }
}

#[cfg(test)]
#[path = "injection_test.rs"]
mod tests;
