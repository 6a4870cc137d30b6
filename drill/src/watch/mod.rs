//! The initiator side of a drill, against any target: every path is read all the time, by itself and as one of several, and what came
//! of it is told in figures. Whatever goes wrong meanwhile is the user's doing.
//!
//! There is one session per path. The unit as a host with multipath sees it ([`Watching::disk`]) uses the same sessions.

mod held;
mod report;
mod seen;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use holdfast_types::Lba;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use held::Follow;
pub use held::Held;
pub use report::{LaneReport, Latency, Report, Stall};
use seen::Seen;

use crate::disk::Disk;
use crate::error::Error;
use crate::multipath::{Connect, MultiPath, Path, Patience};
use crate::workload;

/// Bytes of a READ; a block, where that is larger.
const READ_BYTES: u32 = 4096;
/// How many places are read, from the start of the unit on: few, so that it is the path that is measured and not the disks.
const PLACES: u64 = 256;
/// Before a lost path is dialled again.
const REDIAL: Duration = Duration::from_millis(200);
/// Before a command is sent again that met an error.
const AGAIN: Duration = Duration::from_millis(30);
/// Between two takes of what a workload wrote.
const TAKE_EVERY: Duration = Duration::from_millis(100);

/// How to watch.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// READs on their way at once, on each path.
    pub depth: usize,
    /// Pause after each of them.
    pub pause: Duration,
    /// Decides what is read.
    pub seed: u64,
}

/// A watch that goes on. It ends when it is dropped, and what is on its way is given up.
#[derive(Debug)]
pub struct Watching<P> {
    plan: Plan,
    seen: Arc<Seen>,
    follow: Vec<Follow<P>>,
    tasks: JoinSet<()>,
    met: Met<P>,
    feed: Option<Arc<Feed>>,
}

/// The units over all paths, for what they have met.
type Met<P> = Arc<Mutex<Vec<Arc<MultiPath<Held<P>>>>>>;

fn remember<P: Path>(met: &Met<P>, disk: &Arc<MultiPath<Held<P>>>) {
    let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
    met.push(Arc::clone(disk));
}

/// Brings a workload's writes here.
#[derive(Debug)]
struct Feed {
    seen: Arc<Seen>,
    recorder: workload::Recorder,
    /// Of each of its disks.
    lanes: Vec<usize>,
    /// What the watch's time is ahead of the workload's.
    offset: Duration,
}

impl Feed {
    fn take(&self) {
        for sample in self.recorder.take() {
            if let Some(lane) = self.lanes.get(sample.lane) {
                self.seen
                    .good(*lane, sample.issued + self.offset, sample.answered + self.offset);
            }
        }
    }
}

impl<P: Path> Watching<P> {
    /// Begins to dial and to read every path.
    pub fn start<C: Connect<Path = P>>(plan: Plan, paths: Vec<C>) -> Self {
        let names = paths.iter().map(Connect::name).collect();
        let seen = Arc::new(Seen::new(names));
        let mut tasks = JoinSet::new();
        let mut follow = Vec::new();
        for (lane, connect) in paths.into_iter().enumerate() {
            let (sender, now) = watch::channel(None);
            follow.push(Follow::new(connect.name(), now));
            tasks.spawn(keep(plan, Arc::clone(&seen), lane, connect, sender));
        }
        Self {
            plan,
            seen,
            follow,
            tasks,
            met: Met::default(),
            feed: None,
        }
    }

    /// The unit over all paths, of which number `first` is preferred, then the ones after it.
    ///
    /// # Errors
    /// No path comes up while `patience` lasts.
    pub async fn disk(&mut self, first: usize, patience: Patience) -> Result<Arc<MultiPath<Held<P>>>, Error> {
        let mut follow = self.follow.clone();
        let count = follow.len().max(1);
        follow.rotate_left(first % count);
        let disk = Arc::new(MultiPath::connect(follow, patience).await?);
        remember(&self.met, &disk);
        Ok(disk)
    }

    /// Reads through all paths as one, too, as soon as one is up, on a lane of its own; the first path is preferred.
    pub fn read_all(&mut self) {
        let lane = self.seen.add("all paths".to_owned(), false);
        let (plan, seen) = (self.plan, Arc::clone(&self.seen));
        let (follow, met) = (self.follow.clone(), Arc::clone(&self.met));
        self.tasks.spawn(async move {
            // A path may come up at any time: nobody has to be in time with his watch.
            let disk = loop {
                if let Ok(disk) = MultiPath::connect(follow.clone(), Patience::default()).await {
                    break Arc::new(disk);
                }
            };
            remember(&met, &disk);
            let mut reads = JoinSet::new();
            for place in 0..plan.depth {
                reads.spawn(read(plan, Arc::clone(&seen), lane, Arc::clone(&disk), place));
            }
            // They end with the watch alone.
            while reads.join_next().await.is_some() {}
        });
    }

    /// Counts what a workload writes, on a lane for each of its disks. From now on the writes decide whether the target answers, and no
    /// longer the reads.
    pub fn writes(&mut self, recorder: workload::Recorder, names: Vec<String>) {
        let lanes = names.into_iter().map(|name| self.seen.add(name, true)).collect();
        let feed = Arc::new(Feed {
            seen: Arc::clone(&self.seen),
            lanes,
            offset: self.seen.now().saturating_sub(recorder.now()),
            recorder,
        });
        self.feed = Some(Arc::clone(&feed));
        self.tasks.spawn(async move {
            loop {
                sleep(TAKE_EVERY).await;
                feed.take();
            }
        });
    }

    /// How it looks right now, in a few words.
    pub fn glance(&self) -> String {
        self.seen.glance()
    }

    /// Whether any path has answered yet.
    pub fn has_answered(&self) -> bool {
        self.seen.has_answered()
    }

    /// What it has seen until now.
    pub fn report(&self) -> Report {
        if let Some(feed) = &self.feed {
            feed.take();
        }
        let mut hidden = crate::rehearsal::Errors::new();
        let disks = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, count) in disks.iter().flat_map(|disk| disk.counts().kinds()) {
            *hidden.entry(kind).or_default() += count;
        }
        self.seen.report(hidden)
    }
}

/// Keeps one path: dials it, reads through it until it ends, and again.
async fn keep<C: Connect>(
    plan: Plan,
    seen: Arc<Seen>,
    lane: usize,
    connect: C,
    now: watch::Sender<Option<Arc<C::Path>>>,
) {
    loop {
        let began = seen.now();
        match connect.connect().await {
            Ok(path) => {
                let path = Arc::new(path);
                now.send_replace(Some(Arc::clone(&path)));
                let mut reads = JoinSet::new();
                for place in 0..plan.depth {
                    let disk = Arc::clone(&path);
                    reads.spawn(read_path(plan, Arc::clone(&seen), lane, disk, place));
                }
                // The first that finds the path lost speaks for all.
                let _ = reads.join_next().await;
                now.send_replace(None);
                path.close();
            }
            Err(error) => seen.failed(lane, began, &error),
        }
        sleep(REDIAL).await;
    }
}

/// Reads through one path until it is lost.
async fn read_path<P: Path>(plan: Plan, seen: Arc<Seen>, lane: usize, path: Arc<P>, place: usize) {
    let mut places = Places::new(plan, lane, place, &*path);
    loop {
        let (issued, lba, blocks) = (seen.now(), places.next(), places.blocks);
        match path.read(lba, blocks).await {
            Ok(_) => {
                seen.good(lane, issued, seen.now());
                sleep(plan.pause).await;
            }
            Err(error) => {
                seen.failed(lane, issued, &error);
                if error.is_unknown() || matches!(error, Error::Rejected(_)) {
                    return;
                }
                // A unit attention is only told: the next command may go at once.
                if !error
                    .sense()
                    .is_some_and(crate::error::SenseCode::is_unit_attention)
                {
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Reads through all paths.
async fn read<D: Disk>(plan: Plan, seen: Arc<Seen>, lane: usize, disk: Arc<D>, place: usize) {
    let mut places = Places::new(plan, lane, place, &*disk);
    loop {
        let (issued, lba, blocks) = (seen.now(), places.next(), places.blocks);
        match disk.read(lba, blocks).await {
            Ok(_) => seen.good(lane, issued, seen.now()),
            Err(error) => {
                seen.failed(lane, issued, &error);
                sleep(AGAIN).await;
            }
        }
        sleep(plan.pause).await;
    }
}

/// What is read next.
struct Places {
    random: StdRng,
    count: u64,
    blocks: u32,
}

impl Places {
    fn new(plan: Plan, lane: usize, place: usize, disk: &impl Disk) -> Self {
        let number = (lane as u64) << 32 | place as u64;
        let blocks = (READ_BYTES / disk.block_size().bytes()).max(1);
        Self {
            random: StdRng::seed_from_u64(plan.seed.wrapping_mul(41).wrapping_add(number)),
            count: (disk.blocks() / u64::from(blocks)).clamp(1, PLACES),
            blocks,
        }
    }

    fn next(&mut self) -> Lba {
        Lba(self.random.random_range(0..self.count) * u64::from(self.blocks))
    }
}

/// When a watch began, by the clock on the wall and by the one that only goes on.
#[derive(Debug, Clone, Copy)]
struct Began {
    wall: SystemTime,
    clock: Instant,
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
