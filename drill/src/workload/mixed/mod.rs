//! Several initiators on the same blocks: READ, WRITE, WRITE SAME, UNMAP and COMPARE AND WRITE, every attempt of which is taken down
//! for the block checker; with persistent reservations among them, if that is wanted. Where [`super::start`] gives each unit one writer
//! and judges at once, here writers meet, and the whole history is judged at the end.

mod reserve;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_types::{BlockRange, BlockSize, Lba, Mono};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::cdb;
use crate::checker::{Call, CallId, Client, Contents, History, Outcome, Rules, Summary, Violation};
use crate::disk::Disk;
use crate::error::{Error, SenseCode};
use crate::initiator::{Dial, Session};
use crate::workload::Sample;
use reserve::Belief;

/// Faults kept word for word; more are counted.
const FAULTS_KEPT: usize = 20;
/// Samples kept at most, should nobody ask for them.
const SAMPLES_MAX: usize = 1 << 20;
/// Blocks of a call, at most.
const CALL_BLOCKS_MAX: u64 = 4;
/// Blocks of a READ of the last look.
const LOOK_BLOCKS: u32 = 512;
/// Between the beginnings of two groups, in bytes.
const APART: u64 = 1 << 20;
/// Of a hundred calls so many go to the first group.
const FIRST_PERCENT: u32 = 70;
/// Changes of reservations that an initiator has lost and that may still take effect, at most: each makes more orders possible.
const LOST_MAX: usize = 2;
/// Before a command is sent again that met a transition, BUSY or no path.
const AGAIN: Duration = Duration::from_millis(30);

/// What the initiators do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Decides all calls; also marks the blocks.
    pub seed: u64,
    /// The first block.
    pub first: Lba,
    /// How many blocks; few, so that the initiators meet.
    pub blocks: u64,
    /// Groups of so many blocks, 1 MiB apart. Seven of ten calls go to the first; what was put into the others stays long enough for a
    /// replica that lacks it to be found out. At least 1.
    pub groups: u64,
    /// So many of them, the last ones, only read: where a write waits for a replica that is cut off, whoever sent it reads nothing old.
    pub readers: usize,
    /// Pause of each initiator after a call.
    pub pause: Duration,
    /// How the history is judged.
    pub rules: Rules,
    /// Whether they also reserve the unit, and take it from each other. Each initiator must have one path then: paths register on their
    /// own.
    pub reserves: bool,
    /// Whether a disk may be full: a write that finds no space is no fault then.
    pub may_be_full: bool,
}

/// The same in blocks.
fn apart(size: BlockSize) -> u64 {
    APART / u64::from(size.bytes())
}

impl Plan {
    /// Where a group begins.
    fn begin(&self, group: u64, size: BlockSize) -> Lba {
        Lba(self.first.0 + group * apart(size))
    }

    /// Where all of them do.
    fn groups(self, size: BlockSize) -> impl Iterator<Item = Lba> {
        (0..self.groups).map(move |group| self.begin(group, size))
    }

    /// Number of a block among all of the plan's, if it is one of them.
    fn number(&self, lba: Lba, size: BlockSize) -> Option<usize> {
        let (at, apart) = (lba.0.checked_sub(self.first.0)?, apart(size));
        // A group that is the only one may be larger.
        let group = (at / apart).min(self.groups.checked_sub(1)?);
        let block = at - group * apart;
        let number = usize::try_from(group * self.blocks + block).ok();
        number.filter(|_| block < self.blocks)
    }

    /// Whether there are blocks, and groups of them that do not overlap.
    fn is_sound(&self, size: BlockSize) -> bool {
        let has_room = self.groups == 1 || self.blocks <= apart(size);
        self.blocks > 0 && self.groups > 0 && has_room
    }
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    began: Instant,
    size: BlockSize,
    history: Mutex<History>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    next_value: AtomicU64,
    /// Per initiator, when its newest answered call began; nanoseconds.
    newest: Vec<AtomicU64>,
    faults: Mutex<Vec<String>>,
    /// Calls that were answered, since somebody asked.
    samples: Mutex<Vec<Sample>>,
}

impl Shared {
    fn now(&self) -> Mono {
        Mono::ZERO + self.began.elapsed()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, text: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < FAULTS_KEPT {
            faults.push(text);
        }
    }

    fn contents(&self, data: &[u8]) -> Contents {
        Contents::from_bytes(data, self.size)
    }

    /// A block that nobody wrote before.
    fn fresh(&self) -> Bytes {
        let value = self.next_value.fetch_add(1, Ordering::Relaxed) + 1;
        let mut block = BytesMut::with_capacity(self.size.bytes() as usize);
        for word in 0..u64::from(self.size.bytes()) / 16 {
            block.extend_from_slice(&(self.plan.seed ^ word).to_be_bytes());
            block.extend_from_slice(&value.to_be_bytes());
        }
        block.freeze()
    }
}

/// Initiators at work. Ends with [`Mixed::stop`]; dropping it aborts its tasks.
#[derive(Debug)]
pub struct Mixed {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Calls answered with GOOD, or a miscompare.
    pub acknowledged: u64,
    /// Answers that an initiator must not get for our own trouble (I8).
    pub faults: Vec<String>,
    /// What the checker says.
    pub verdict: Result<Summary, Violation>,
}

/// Starts one initiator for each list of paths; the first path is preferred.
///
/// # Errors
/// No initiator, no blocks, or groups that overlap.
pub fn start(plan: Plan, size: BlockSize, initiators: Vec<Vec<Dial>>) -> Result<Mixed, Error> {
    if initiators.is_empty() || initiators.iter().any(Vec::is_empty) || !plan.is_sound(size) {
        let text = "a mixed workload needs initiators with paths, and blocks, in groups that are 1 MiB apart";
        return Err(Error::Usage(text.to_owned()));
    }
    let shared = Arc::new(Shared {
        plan,
        began: Instant::now(),
        size,
        history: Mutex::new(History::new(plan.rules)),
        stop: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
        next_value: AtomicU64::new(0),
        newest: initiators.iter().map(|_| AtomicU64::new(0)).collect(),
        faults: Mutex::new(Vec::new()),
        samples: Mutex::new(Vec::new()),
    });
    let tasks = initiators
        .into_iter()
        .enumerate()
        .map(|(number, paths)| {
            let random = StdRng::seed_from_u64(plan.seed.wrapping_mul(31).wrapping_add(number as u64));
            let initiator = Initiator {
                shared: Arc::clone(&shared),
                number,
                only_reads: number >= shared.newest.len().saturating_sub(plan.readers),
                random,
                paths,
                at: 0,
                session: None,
                belief: Belief::default(),
                lost: VecDeque::new(),
                known: vec![Bytes::new(); usize::try_from(plan.blocks * plan.groups).unwrap_or(0)],
            };
            tokio::spawn(initiator.work())
        })
        .collect();
    Ok(Mixed { shared, tasks })
}

impl Mixed {
    /// Calls answered until now.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Time since the start, which all times of this workload count from.
    pub fn now(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// Calls that were answered since the last time that somebody asked, each initiator being a lane. A call that was sent again counts
    /// from its first time.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *samples)
    }

    /// Waits until every initiator has an answer to a call that it began after now; tells how long that took.
    ///
    /// # Errors
    /// Some have none within `limit`.
    pub async fn served(&self, limit: Duration) -> Result<Duration, Error> {
        let since = self.shared.now().as_nanos();
        let start = Instant::now();
        let is_new = |newest: &AtomicU64| newest.load(Ordering::Relaxed) > since;
        while !self.shared.newest.iter().all(is_new) {
            if start.elapsed() >= limit {
                return Err(Error::Timeout(limit));
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(start.elapsed())
    }

    /// Ends the initiators and waits for what they have under way. The history stays open for last looks.
    pub async fn stop(mut self) -> Stopped {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = task.await {
                self.shared.fault(format!("an initiator died: {error}"));
            }
        }
        Stopped {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for Mixed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A mixed workload that is over.
#[derive(Debug)]
pub struct Stopped {
    shared: Arc<Shared>,
}

impl Stopped {
    /// Reads all blocks through `disk`, for the checker.
    ///
    /// # Errors
    /// Whatever the read came to.
    pub async fn look(&self, disk: &impl Disk) -> Result<(), Error> {
        let plan = self.shared.plan;
        for group in plan.groups(self.shared.size) {
            for first in (0..plan.blocks).step_by(LOOK_BLOCKS as usize) {
                let count = LOOK_BLOCKS.min(u32::try_from(plan.blocks - first).unwrap_or(u32::MAX));
                self.look_at(disk, Lba(group.0 + first), count).await?;
            }
        }
        Ok(())
    }

    async fn look_at(&self, disk: &impl Disk, lba: Lba, count: u32) -> Result<(), Error> {
        let from = self.shared.now();
        let data = disk.read(lba, count).await?;
        let contents = self.shared.contents(&data);
        let range = BlockRange::new(lba, u64::from(count));
        let range = range.map_err(|error| Error::Usage(error.to_string()))?;
        let mut history = self.shared.history();
        let id = history.invoke(Client(u64::MAX), Call::Read { range }, from);
        history.answered(id, Outcome::Data(contents), self.shared.now());
        Ok(())
    }

    /// Judges the history.
    pub fn judge(self) -> Report {
        let faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            acknowledged: self.shared.acknowledged.load(Ordering::Relaxed),
            faults: faults.clone(),
            verdict: self.shared.history().check(),
        }
    }
}

/// A command in bytes, and as the checker sees it.
#[derive(Debug, Clone)]
struct Command {
    call: Call,
    cdb: cdb::Cdb,
    wants: Wants,
    data: Bytes,
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    /// So many bytes of blocks.
    Blocks(u32),
    /// READ KEYS.
    Keys,
    /// READ RESERVATION.
    Reservation,
}

impl Wants {
    const fn length(self) -> Option<u32> {
        match self {
            Self::Nothing => None,
            Self::Blocks(length) => Some(length),
            Self::Keys | Self::Reservation => Some(reserve::REPORT_BYTES as u32),
        }
    }
}

/// What to do after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Done,
    Again,
    Later,
    Elsewhere,
}

struct Initiator {
    shared: Arc<Shared>,
    number: usize,
    only_reads: bool,
    random: StdRng,
    paths: Vec<Dial>,
    at: usize,
    session: Option<Session>,
    belief: Belief,
    /// When changes of reservations were lost that may still take effect.
    lost: VecDeque<Mono>,
    /// What this initiator saw or put last, per block; empty when it knows nothing.
    known: Vec<Bytes>,
}

impl Initiator {
    async fn work(mut self) {
        while !self.is_over() {
            let command = self.draw();
            let issued = self.shared.began.elapsed();
            let mut sent = None;
            while !self.is_over() {
                match self.attempt(&command, &mut sent).await {
                    Next::Done => {
                        self.note(issued);
                        break;
                    }
                    Next::Again => {}
                    Next::Later => sleep(AGAIN).await,
                    Next::Elsewhere => {
                        self.session = None;
                        self.at += 1;
                        sleep(AGAIN).await;
                        // A read that is lost is of no further use; a write is sent again, as multipath layers do.
                        if command.wants != Wants::Nothing {
                            break;
                        }
                        if Belief::changes(&command.call) {
                            self.lost.push_back(self.shared.now());
                            break;
                        }
                    }
                }
            }
            if !self.shared.plan.pause.is_zero() {
                sleep(self.shared.plan.pause).await;
            }
        }
    }

    fn note(&self, issued: Duration) {
        let sample = Sample {
            lane: self.number,
            issued,
            answered: self.shared.began.elapsed(),
        };
        let mut samples = self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() < SAMPLES_MAX {
            samples.push(sample);
        }
    }

    fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Sends a command once, `before` being the last time, and takes down what came of it.
    async fn attempt(&mut self, command: &Command, before: &mut Option<CallId>) -> Next {
        if self.session.is_none() {
            let dial = &self.paths[self.at % self.paths.len()];
            match Session::connect(dial).await {
                Ok(session) => self.session = Some(session),
                Err(error) => {
                    if let Error::LoginRefused { .. } = error {
                        self.shared.fault(format!("initiator {}: {error}", self.number));
                    }
                    return Next::Elsewhere;
                }
            }
        }
        let Some(session) = &self.session else {
            return Next::Later;
        };
        let from = self.shared.now();
        let client = Client(self.number as u64);
        let id = {
            let mut history = self.shared.history();
            match *before {
                Some(before) => history.invoke_again(before, from),
                None => history.invoke(client, command.call.clone(), from),
            }
        };
        *before = Some(id);
        let answer = match command.wants.length() {
            Some(length) => session.command(command.cdb, Some(length)).await,
            None => session
                .command_out(command.cdb, command.data.clone())
                .await
                .map(|()| Bytes::new()),
        };
        let now = self.shared.now();
        let (outcome, next) = self.judge(command, &answer);
        if let Some(outcome) = &outcome {
            self.belief.learn(&command.call, outcome);
        }
        match outcome {
            Some(outcome) => self.shared.history().answered(id, outcome, now),
            None => self.shared.history().lost(id, now),
        }
        if next == Next::Done {
            self.learn(command, &answer);
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.shared.newest[self.number].fetch_max(from.as_nanos(), Ordering::Relaxed);
        }
        next
    }

    /// What GOOD says of the call.
    fn good(&self, command: &Command, data: &Bytes) -> Outcome {
        let outcome = match command.wants {
            Wants::Nothing => Some(Outcome::Done),
            Wants::Blocks(length) if data.len() == length as usize => {
                Some(Outcome::Data(self.shared.contents(data)))
            }
            Wants::Blocks(_) => None,
            Wants::Keys => reserve::keys(data).map(Outcome::Keys),
            Wants::Reservation => reserve::held(data).map(Outcome::Held),
        };
        outcome.unwrap_or_else(|| {
            let text = format!("{:?} ended GOOD with {} bytes", command.call, data.len());
            self.shared.fault(text);
            Outcome::Unknown
        })
    }

    /// What an answer says of the call (`None`: nothing), and what to do next.
    fn judge(&self, command: &Command, answer: &Result<Bytes, Error>) -> (Option<Outcome>, Next) {
        const BUSY: u8 = 0x08;
        const CONFLICT: u8 = 0x18;
        const ILLEGAL_REQUEST: u8 = 0x05;
        const TASK_SET_FULL: u8 = 0x28;
        const TASK_ABORTED: u8 = 0x40;
        let error = match answer {
            Ok(data) => return (Some(self.good(command, data)), Next::Done),
            Err(error) => error,
        };
        match error {
            Error::CheckCondition(SenseCode::MISCOMPARE) => {
                (Some(Outcome::Miscompare { block: None }), Next::Done)
            }
            Error::CheckCondition(sense) if sense.is_unit_attention() => {
                (Some(Outcome::Refused), Next::Again)
            }
            Error::CheckCondition(SenseCode::TRANSITION) | Error::Status(BUSY | TASK_SET_FULL) => {
                (Some(Outcome::Refused), Next::Later)
            }
            Error::CheckCondition(SenseCode::STANDBY | SenseCode::UNAVAILABLE) => {
                (Some(Outcome::Refused), Next::Elsewhere)
            }
            // Part of it may have found space.
            Error::CheckCondition(SenseCode::SPACE_ALLOCATION_FAILED) if self.shared.plan.may_be_full => {
                (Some(Outcome::Unknown), Next::Later)
            }
            Error::Status(CONFLICT) if self.shared.plan.reserves => (Some(Outcome::Conflict), Next::Done),
            // For example a RELEASE of another type.
            Error::CheckCondition(sense)
                if sense.key == ILLEGAL_REQUEST && matches!(command.call, Call::Reserve(_)) =>
            {
                (Some(Outcome::Refused), Next::Done)
            }
            Error::Status(TASK_ABORTED) => (Some(Outcome::Unknown), Next::Later),
            Error::Connect { .. } | Error::Lost(_) | Error::Timeout(_) => (None, Next::Elsewhere),
            other => {
                self.shared.fault(format!("{:?} came to: {other}", command.call));
                (Some(Outcome::Unknown), Next::Later)
            }
        }
    }

    /// Keeps what a later COMPARE AND WRITE will expect.
    fn learn(&mut self, command: &Command, answer: &Result<Bytes, Error>) {
        let (Call::Read { range }, Ok(data)) = (&command.call, answer) else {
            return;
        };
        let size = self.shared.size;
        let Some(first) = self.shared.plan.number(range.lba(), size) else {
            return;
        };
        for (at, block) in data.chunks(size.bytes() as usize).enumerate() {
            if let Some(known) = self.known.get_mut(first + at) {
                *known = Bytes::copy_from_slice(block);
            }
        }
    }

    /// Whether so many changes of reservations may still take effect that it makes no more of them.
    fn only_looks(&mut self) -> bool {
        let (now, late) = (self.shared.now(), self.shared.plan.rules.late.unwrap_or_default());
        while self.lost.front().is_some_and(|lost| *lost + late <= now) {
            self.lost.pop_front();
        }
        self.lost.len() >= LOST_MAX
    }

    fn draw(&mut self) -> Command {
        let plan = self.shared.plan;
        if plan.reserves && self.random.random_range(0..2) == 0 {
            let looks = self.only_looks();
            return self.belief.draw(&mut self.random, self.number, looks);
        }
        let group = match self.random.random_range(0..100) {
            FIRST_PERCENT.. if plan.groups > 1 => self.random.random_range(1..plan.groups),
            _ => 0,
        };
        let at = self.random.random_range(0..plan.blocks);
        let blocks = self
            .random
            .random_range(1..=CALL_BLOCKS_MAX.min(plan.blocks - at));
        let lba = Lba(plan.begin(group, self.shared.size).0 + at);
        let known = plan
            .number(lba, self.shared.size)
            .and_then(|number| self.known.get(number));
        let known = known.cloned().unwrap_or_default();
        let kind = match self.random.random_range(0..100) {
            _ if self.only_reads => return self.command(0, lba, blocks, known),
            0..40 => return self.command(0, lba, blocks, known),
            kind => kind,
        };
        self.command(kind, lba, blocks, known)
    }

    fn command(&self, kind: u32, lba: Lba, blocks: u64, known: Bytes) -> Command {
        let shared = &self.shared;
        // Small numbers: both ranges are within the plan's blocks, which a READ takes at once.
        let range = |blocks| BlockRange::new(lba, blocks).unwrap_or_else(|_| unreachable!("a small range"));
        let count = u32::try_from(blocks).unwrap_or(1);
        match kind {
            0..40 => Command {
                call: Call::Read { range: range(blocks) },
                cdb: cdb::read_16(lba, count),
                wants: Wants::Blocks(count * shared.size.bytes()),
                data: Bytes::new(),
            },
            40..70 => {
                let mut data = BytesMut::new();
                (0..blocks).for_each(|_| data.extend_from_slice(&shared.fresh()));
                let data = data.freeze();
                Command {
                    call: Call::Write {
                        range: range(blocks),
                        data: shared.contents(&data),
                    },
                    cdb: cdb::write_16(lba, count),
                    wants: Wants::Nothing,
                    data,
                }
            }
            70..77 => {
                let block = shared.fresh();
                Command {
                    call: Call::WriteSame {
                        range: range(blocks),
                        block: shared.contents(&block),
                    },
                    cdb: cdb::write_same_16(lba, count),
                    wants: Wants::Nothing,
                    data: block,
                }
            }
            77..83 => {
                let (cdb, list) = cdb::unmap(lba, count);
                Command {
                    call: Call::Zero {
                        ranges: vec![range(blocks)],
                    },
                    cdb,
                    wants: Wants::Nothing,
                    data: Bytes::copy_from_slice(&list),
                }
            }
            _ => self.compare(lba, range(1), known),
        }
    }

    fn compare(&self, lba: Lba, range: BlockRange, known: Bytes) -> Command {
        let shared = &self.shared;
        let expect = if known.is_empty() {
            Bytes::from(vec![0; shared.size.bytes() as usize])
        } else {
            known
        };
        let new = shared.fresh();
        let call = Call::CompareAndWrite {
            range,
            expect: shared.contents(&expect),
            data: shared.contents(&new),
        };
        Command {
            call,
            cdb: cdb::compare_and_write(lba, 1),
            wants: Wants::Nothing,
            data: [expect, new].concat().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_groups_have_numbers_of_their_own_and_do_not_overlap() {
        let rules = Rules {
            initial: crate::checker::Initial::Zeros,
            late: None,
        };
        let plan = Plan {
            seed: 1,
            first: Lba(5),
            blocks: 3,
            groups: 2,
            readers: 0,
            pause: Duration::ZERO,
            rules,
            reserves: false,
            may_be_full: false,
        };
        let size = BlockSize::B512;
        let begins: Vec<Lba> = plan.groups(size).collect();
        assert_eq!(begins, [Lba(5), Lba(5 + 2048)]);
        let of = |first: Lba| (0..3).map(move |at| Lba(first.0 + at));
        let numbers = begins.into_iter().flat_map(of);
        let numbers: Vec<Option<usize>> = numbers.map(|lba| plan.number(lba, size)).collect();
        assert_eq!(numbers, (0..6).map(Some).collect::<Vec<_>>());
        for other in [4, 8, 5 + 2047, 5 + 2051, 5 + 2 * 2048] {
            assert_eq!(plan.number(Lba(other), size), None, "block {other}");
        }
        assert!(plan.is_sound(size));
        let large = Plan {
            blocks: 5000,
            groups: 1,
            ..plan
        };
        assert!(large.is_sound(size), "one group has all the room there is");
        assert_eq!(large.number(Lba(5 + 4999), size), Some(4999));
        assert_eq!(large.number(Lba(5 + 5000), size), None);
        for (blocks, groups) in [(2049, 2), (0, 1), (1, 0)] {
            let bad = Plan {
                blocks,
                groups,
                ..plan
            };
            assert!(!bad.is_sound(size), "{blocks} blocks in {groups} groups");
        }
    }
}
