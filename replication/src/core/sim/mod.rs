//! A world for the cores under test: nodes with journals and extents that crash, links that break, a committed cluster state that arrives
//! late, leases, initiators. Everything comes from one seed.

mod check;
mod clients;
mod disk;
mod net;
mod state;
mod tests;
mod trouble;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::{
    BlockOp, BlockRange, BlockSize, CommandName, Epoch, ExtentId, InSyncVersion, Incarnation, Lba,
    LeaseGeneration, LogPos, Lsn, MappedRun, Mono, NodeId, OpOutcome, Revision, SessionInstance,
};

use super::ExtentCore;
use super::api::*;
use crate::fault::{self, Fault};
use check::{Call, History};

pub(super) const BLOCKS: u64 = 64;
/// Blocks of a range under comparison.
const RANGE: u64 = 4;
/// Blocks from here on take zeroing too; their values are not unique, so only the final comparison looks at them.
const KNOWN: usize = 64;
pub(super) const PLAIN: u64 = 60;
const MS: u64 = 1_000_000;
const LEASE: u64 = 600 * MS;
const SILENT: u64 = 300 * MS;

/// splitmix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// By the last number drawn.
    fn one_in(&self, n: u64) -> bool {
        self.0.is_multiple_of(n)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn between(&mut self, lo: u64, hi: u64) -> u64 {
        lo + self.below(hi - lo + 1)
    }
}

#[derive(Debug, Clone)]
enum Entry {
    Record(Record),
    Truncate(LogPos),
    Restart(Base, LogPos, EpochHistory),
    ClearBase,
    Checkpoint(Checkpoint),
    /// From here on nothing before it can be trusted (J1).
    Damage,
}

#[derive(Debug, Clone, Default)]
struct Checkpoint {
    applied: LogPos,
    history: EpochHistory,
    commit: Lsn,
    seen: Epoch,
}

#[derive(Debug)]
enum Io {
    Apply(Record),
    Read(BlockRange),
    Hash(BlockRange, bool),
    Changed(Lsn),
    Allocated(BlockRange),
    Map(Lba, u16),
}

struct Node {
    id: NodeId,
    incarnation: u64,
    core: Option<ExtentCore>,
    paused: Option<u64>,
    /// No control plane until then.
    isolated: u64,
    failed: bool,
    /// Its disk does nothing before this.
    hung: u64,
    room: Room,
    stable: Vec<Entry>,
    pending: VecDeque<(u64, Option<Entry>)>,
    flushing: Option<usize>,
    extent: Vec<u64>,
    extent_stable: Vec<u64>,
    /// When each range changed last, as the disk says; and which did since.
    versions: Vec<u64>,
    touched: BTreeSet<u64>,
    io: BTreeMap<u64, Io>,
    applied_view: usize,
    /// A slow node applies nothing before this.
    view_at: u64,
    /// Commit index when the run started: no lease before it is applied (L5).
    catch_up: usize,
    lease: u64,
    heard: u64,
    back_since: u64,
    wake: u64,
    sessions: u64,
}

#[derive(Debug, Clone)]
struct LinkState {
    id: LinkId,
    last: [u64; 2],
    sent: [u64; 2],
}

#[derive(Debug)]
enum Ev {
    To(usize, u64, Event),
    Msg {
        to: usize,
        from: usize,
        link: LinkId,
        index: u64,
        message: Message,
    },
    Flushed(usize, u64),
    IoDone(usize, u64, u64),
    Wake(usize, u64, u64),
    /// A round of confirmed reads, and the commit index that it waits for.
    Index(usize, u64, u64, usize),
    /// A disk has room again.
    Roomy(usize),
    View(usize, u64),
    Commit(Proposal),
    Keeper,
    Client(usize),
    /// Whether another one follows.
    Fault(bool),
    Crash(usize),
    Script(u64),
    Isolate(usize, u64),
    /// Every link of the node.
    Part(usize, u64),
    Restart(usize),
    Connect(usize, usize),
    Checkpoint(usize),
}

struct Client {
    node: usize,
    incarnation: u64,
    session: u64,
    sn: u64,
    open: Option<u64>,
    known: [u64; KNOWN],
}

/// A known bad trace, to be varied by the seed (random walks miss these).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    None,
    /// It has run.
    Done,
    /// Power cut right when a write was answered.
    CrashAtDone,
    /// A growth is proposed, the newcomer is cut off, the primary hears no outcome, and dies.
    CutAtGrowth,
    /// Power goes everywhere just after a replica came back in sync.
    PowerAfterGrowth,
    /// The replica dies in the middle of its resync.
    CrashInResync,
    /// Switchovers whose entries are late.
    Switchovers,
    /// The primary is cut off from the cluster state and from its successor, but not from the third.
    OldPrimaryReturns,
    /// The primary is cut off from everybody but its initiators.
    Isolated,
    /// The primary and the third are cut off together.
    Pair,
}

/// What a run may do.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    /// The first so many hold replicas; the others only forward.
    pub(super) replicas: usize,
    pub(super) keep_bytes: usize,
    pub(super) run_ms: u64,
    pub(super) disasters: bool,
    /// Trouble comes right when something delicate begins.
    pub(super) guided: bool,
    pub(super) script: Script,
    /// Hashing takes up to so long.
    pub(super) hash_ms: u64,
    /// Reads are confirmed (W4).
    pub(super) confirmed: bool,
    /// A lease that a node has never runs out by that node's own clock.
    pub(super) clock_lies: bool,
}

pub(super) struct World {
    pub(super) rng: Rng,
    plan: Plan,
    now: u64,
    seq: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Ev>>,
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), LinkState>,
    connecting: Vec<(usize, usize)>,
    /// Messages of a dead link with at least this index, by direction, never arrive.
    cuts: BTreeMap<(LinkId, usize), u64>,
    blocked: BTreeMap<(usize, usize), u64>,
    next_link: u64,
    views: Vec<Arc<View>>,
    /// Index of the entry that suspected or cleared a node last.
    marks: Vec<usize>,
    /// When the newest promise to a node runs out.
    promises: Vec<u64>,
    clients: Vec<Client>,
    /// The node whose disk was damaged last.
    damaged: Option<usize>,
    history: History,
    next_op: u64,
    next_value: u64,
    calm: bool,
    quiet_from: u64,
    pub(super) notes: BTreeMap<&'static str, u64>,
    trace: bool,
}

fn key(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn first_view(ids: &[NodeId], replicas: usize) -> View {
    let state = |node: &NodeId| NodeState {
        node: *node,
        suspect: false,
        generation: LeaseGeneration(0),
    };
    View {
        revision: Revision(1),
        epoch: Epoch(1),
        primary: Some(Identity {
            node: ids[0],
            incarnation: Incarnation(1),
        }),
        version: InSyncVersion(1),
        in_sync: ids[..replicas].to_vec(),
        replicas: ids[..replicas].to_vec(),
        blocks: BLOCKS,
        block_size: BlockSize::B512,
        unit: Default::default(),
        nodes: ids.iter().map(state).collect(),
        retiring: Default::default(),
        cache: Default::default(),
        policy: Policy {
            stuck_after: Duration::from_millis(800),
            ..Policy::default()
        },
    }
}

fn new_node(id: &NodeId) -> Node {
    Node {
        id: *id,
        incarnation: 0,
        core: None,
        paused: None,
        isolated: 0,
        failed: false,
        hung: 0,
        room: Room::default(),
        stable: vec![],
        pending: VecDeque::new(),
        flushing: None,
        extent: vec![0; usize::try_from(BLOCKS).unwrap()],
        extent_stable: vec![0; usize::try_from(BLOCKS).unwrap()],
        versions: vec![0; usize::try_from(BLOCKS / RANGE).unwrap()],
        touched: BTreeSet::new(),
        io: BTreeMap::new(),
        applied_view: 0,
        view_at: 0,
        catch_up: 0,
        lease: 0,
        heard: 0,
        back_since: 0,
        wake: u64::MAX,
        sessions: 0,
    }
}

fn extent_id() -> ExtentId {
    ExtentId::from_u128(7)
}

pub(super) fn fill(value: u64, blocks: u64) -> Bytes {
    let mut data = Vec::with_capacity(512 * usize::try_from(blocks).unwrap());
    for _ in 0..blocks {
        data.extend_from_slice(&value.to_be_bytes());
        data.resize(data.len() + 504, 0);
    }
    Bytes::from(data)
}

fn values(data: &[u8]) -> Vec<u64> {
    data.chunks(512)
        .map(|block| u64::from_be_bytes(block[..8].try_into().unwrap()))
        .collect()
}

fn span(range: BlockRange) -> std::ops::Range<usize> {
    usize::try_from(range.lba().0).unwrap()..usize::try_from(range.end().0).unwrap()
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let count = plan.nodes;
        let ids: Vec<NodeId> = (1..=count as u64).map(NodeId).collect();
        let mut view = first_view(&ids, plan.replicas);
        view.policy.confirmed_reads = plan.confirmed;
        let client = |index: usize| Client {
            node: index % count,
            incarnation: 0,
            session: 0,
            sn: 0,
            open: None,
            known: [0; KNOWN],
        };
        let mut world = Self {
            rng: Rng(seed),
            now: MS,
            seq: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            nodes: ids.iter().map(new_node).collect(),
            links: BTreeMap::new(),
            connecting: vec![],
            cuts: BTreeMap::new(),
            blocked: BTreeMap::new(),
            next_link: 1,
            views: vec![Arc::new(view)],
            marks: vec![0; count],
            promises: vec![0; count],
            clients: (0..count * 3).map(client).collect(),
            damaged: None,
            history: History::default(),
            next_op: 1,
            next_value: 1,
            calm: false,
            quiet_from: 0,
            notes: BTreeMap::new(),
            trace: std::env::var_os("HOLDFAST_TRACE").is_some(),
            plan,
        };
        for n in 0..count {
            world.start(n);
        }
        world.at(0, Ev::Keeper);
        for c in 0..world.clients.len() {
            world.at(50 * MS, Ev::Client(c));
        }
        if !matches!(world.plan.script, Script::None) {
            world.at(700 * MS, Ev::Script(0));
        }
        if world.plan.disasters {
            world.at(300 * MS, Ev::Fault(true));
        }
        world
    }

    fn at(&mut self, after: u64, ev: Ev) {
        self.seq += 1;
        self.events.push(Some(ev));
        self.queue
            .push(Reverse((self.now + after, self.seq, self.events.len() - 1)));
    }

    fn log(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:9.3} {}", self.now as f64 / 1e6, text());
        }
    }

    /// Runs with trouble, then without any until everything is well again.
    pub(super) fn run(&mut self) -> Result<(), String> {
        let end = self.now + self.plan.run_ms * MS;
        self.run_until(end)?;
        self.calm = true;
        self.blocked.clear();
        for n in 0..self.nodes.len() {
            self.set_room(n, Room::default());
        }
        for node in &mut self.nodes {
            node.isolated = 0;
        }
        for n in 0..self.nodes.len() {
            if self.nodes[n].failed {
                self.crash(n, false);
            }
        }
        self.run_until(end + 6000 * MS)?;
        self.quiet_from = self.now;
        // In peace a scrub comes to its end, and finds nothing that differs.
        for n in 0..self.nodes.len() {
            self.at(1, Ev::To(n, self.nodes[n].incarnation, Event::Scrub));
        }
        self.run_until(self.quiet_from + 4000 * MS)?;
        self.check_end()
    }

    fn run_until(&mut self, end: u64) -> Result<(), String> {
        while let Some(Reverse((at, _, index))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(ev) = self.events[index].take() {
                self.step(ev)?;
            }
        }
        self.now = end;
        Ok(())
    }

    fn check_end(&mut self) -> Result<(), String> {
        let view = self.views.last().unwrap().clone();
        if view.in_sync.len() != self.plan.replicas {
            return Err(format!(
                "not healed: {view:?}\n{:#?}",
                self.nodes
                    .iter()
                    .map(|n| n.core.as_ref().map(ExtentCore::status))
                    .collect::<Vec<_>>()
            ));
        }
        let open: Vec<_> = self
            .clients
            .iter()
            .filter(|c| c.open.is_some())
            .map(|c| c.open)
            .collect();
        if !open.is_empty() {
            return Err(format!("commands are never answered: {open:?}"));
        }
        let scrubbed = |node: &Node| {
            node.core
                .as_ref()
                .is_some_and(|core| core.status().checks.scrubs > 0)
        };
        if !self.nodes.iter().any(scrubbed) {
            return Err("a scrub never came to its end".to_owned());
        }
        for node in &self.nodes[1..self.plan.replicas] {
            // What rotted and was never wanted is for the scrub to find.
            let same = |(a, b): (&u64, &u64)| a == b || *a == disk::ROTTEN || *b == disk::ROTTEN;
            if !node.extent.iter().zip(&self.nodes[0].extent).all(same) {
                return Err(format!(
                    "replicas differ:\n{:?}\n{:?}",
                    self.nodes[0].extent, node.extent
                ));
            }
        }
        if self.history.done_after(self.quiet_from - 1000 * MS) == 0 {
            return Err("nothing is served in the end".into());
        }
        self.history.check()
    }

    fn step(&mut self, ev: Ev) -> Result<(), String> {
        // A stopped process does nothing; what comes for it waits.
        let target = match &ev {
            Ev::To(n, ..) | Ev::Flushed(n, _) | Ev::IoDone(n, ..) | Ev::Wake(n, ..) | Ev::View(n, _) => {
                Some(*n)
            }
            Ev::Msg { to, .. } => Some(*to),
            Ev::Checkpoint(n) | Ev::Index(n, ..) => Some(*n),
            _ => None,
        };
        if let Some(until) = target.and_then(|n| self.nodes[n].paused)
            && until > self.now
        {
            self.at(until - self.now, ev);
            return Ok(());
        }
        match ev {
            Ev::To(n, run, event) => {
                if self.nodes[n].incarnation == run {
                    return self.feed(n, event);
                }
            }
            Ev::Msg {
                to,
                from,
                link,
                index,
                message,
            } => {
                let cut = self.cuts.get(&(link, to)).is_some_and(|limit| index >= *limit);
                if !cut && self.nodes[to].core.is_some() {
                    let from = self.nodes[from].id;
                    return self.feed(to, Event::Message { from, link, message });
                }
            }
            Ev::Flushed(n, run) => return self.flushed(n, run),
            Ev::IoDone(n, run, io) => return self.io_done(n, run, io),
            Ev::Wake(n, run, at) => {
                if self.nodes[n].incarnation == run && self.nodes[n].wake == at {
                    self.nodes[n].wake = u64::MAX;
                    return self.feed(n, Event::Tick);
                }
            }
            Ev::View(n, run) => return self.apply_view(n, run),
            Ev::Index(n, run, round, upto) => return self.read_index(n, run, round, upto),
            Ev::Roomy(n) => self.set_room(n, Room::default()),
            Ev::Commit(proposal) => self.commit_proposal(proposal),
            Ev::Keeper => self.keeper()?,
            Ev::Client(c) => return self.client(c),
            Ev::Fault(more) => self.fault(more)?,
            Ev::Crash(n) => self.crash(n, true),
            Ev::Isolate(n, time) if !self.calm => self.nodes[n].isolated = self.now + time,
            Ev::Isolate(..) => {}
            Ev::Part(n, time) if !self.calm => {
                for m in 0..self.nodes.len() {
                    self.part(n, m, time);
                }
            }
            Ev::Part(..) => {}
            Ev::Script(turn) => self.script(turn),
            Ev::Restart(n) => {
                if self.nodes[n].core.is_none() {
                    self.start(n);
                }
            }
            Ev::Connect(a, b) => self.connect(a, b),
            Ev::Checkpoint(n) => self.checkpoint(n),
        }
        Ok(())
    }

    /// A read index came: the core hears of it once it was given all that is committed up to there.
    fn read_index(&mut self, n: usize, run: u64, round: u64, upto: usize) -> Result<(), String> {
        let node = &self.nodes[n];
        if node.incarnation != run || node.isolated > self.now {
            return Ok(());
        }
        if node.applied_view >= upto {
            return self.feed(n, Event::Confirmed { round });
        }
        self.at(5 * MS, Ev::Index(n, run, round, upto));
        Ok(())
    }

    fn ctx(&self, n: usize) -> Ctx {
        let node = &self.nodes[n];
        let generation = self.views[node.applied_view].nodes[n].generation;
        let lease = if self.plan.clock_lies {
            self.now + LEASE
        } else {
            node.lease
        };
        Ctx {
            now: Mono::from_nanos(self.now),
            lease_until: (node.lease > 0).then(|| Mono::from_nanos(lease)),
            generation,
            quorum: node.isolated <= self.now,
        }
    }

    fn feed(&mut self, n: usize, event: Event) -> Result<(), String> {
        let ctx = self.ctx(n);
        let id = self.nodes[n].id;
        self.log(|| format!("{id} <- {event:?}"));
        let Some(core) = self.nodes[n].core.as_mut() else {
            return Ok(());
        };
        let mut out = Vec::new();
        core.handle(&ctx, event, &mut out);
        let deadline = core.deadline();
        for command in out {
            self.carry_out(n, command)?;
        }
        if let Some(at) = deadline.map(|at| at.as_nanos().max(self.now + 1))
            && at < self.nodes[n].wake
        {
            self.nodes[n].wake = at;
            let run = self.nodes[n].incarnation;
            self.at(at - self.now, Ev::Wake(n, run, at));
        }
        Ok(())
    }

    fn carry_out(&mut self, n: usize, command: Command) -> Result<(), String> {
        let id = self.nodes[n].id;
        self.log(|| format!("{id} -> {command:?}"));
        match command {
            Command::Append { seq, record } => self.journal(n, seq.0, Entry::Record(record)),
            Command::Truncate { seq, after } => self.journal(n, seq.0, Entry::Truncate(after)),
            Command::Restart {
                seq,
                base,
                from,
                history,
            } => {
                if !fault::on(Fault::RestartUnflushed) {
                    self.flush_extent(n);
                }
                self.journal(n, seq.0, Entry::Restart(base, from, history));
            }
            Command::ClearBase { seq } => self.journal(n, seq.0, Entry::ClearBase),
            Command::Apply { io, record } => return self.start_io(n, io.0, Io::Apply(record)),
            Command::Read { io, range } => return self.start_io(n, io.0, Io::Read(range)),
            Command::Hash { io, range, renew } => return self.start_io(n, io.0, Io::Hash(range, renew)),
            Command::Changed { io, since } => return self.start_io(n, io.0, Io::Changed(since)),
            Command::Allocated { io, range } => return self.start_io(n, io.0, Io::Allocated(range)),
            Command::Confirm { round } => {
                let (run, upto) = (self.nodes[n].incarnation, self.views.len() - 1);
                if self.nodes[n].isolated <= self.now && (self.calm || !self.rng.chance(10)) {
                    let delay = self.rng.between(1, 20) * MS;
                    self.at(delay, Ev::Index(n, run, round, upto));
                }
            }
            Command::Map { io, from, runs } => return self.start_io(n, io.0, Io::Map(from, runs)),
            Command::Send { to, link, message } => self.send(n, to, link, message),
            Command::ResetLink { node, link } => {
                let m = usize::try_from(node.0 - 1).unwrap();
                if self.links.get(&key(n, m)).is_some_and(|l| l.id == link) {
                    self.cut(n, m);
                }
            }
            Command::Propose(proposal) => {
                let late = if self.plan.script == Script::Switchovers {
                    2
                } else {
                    16
                };
                if self.nodes[n].isolated <= self.now && (self.calm || !self.rng.chance(20)) {
                    let handed = self.plan.script == Script::Switchovers
                        && matches!(proposal.change, Change::Switchover { .. });
                    let late = !self.calm && (handed || self.rng.one_in(late));
                    let delay = match (handed && late, late) {
                        (true, _) => self.rng.between(550, 900),
                        (_, true) => self.rng.between(1, 800),
                        _ => self.rng.between(1, 20),
                    };
                    self.at(delay * MS, Ev::Commit(proposal));
                }
            }
            Command::Complete { op, outcome } => return self.completed(n, op.0, outcome),
            Command::Note(note) => self.note(n, &note)?,
        }
        Ok(())
    }

    fn note(&mut self, n: usize, note: &Note) -> Result<(), String> {
        self.script_note(n, note);
        if let Note::Fenced { reason: Some(_) } = note {
            self.nodes[n].failed = true;
        }
        let delicate = matches!(
            note,
            Note::ResyncStarted { .. }
                | Note::Growing { .. }
                | Note::Shrinking { .. }
                | Note::Truncated { .. }
        ) || matches!(
            note,
            Note::Role {
                role: RoleName::Settling | RoleName::HandedBack,
                ..
            }
        );
        if delicate && self.plan.guided && !self.calm && self.rng.chance(35) {
            let after = self.rng.below(40 * MS);
            self.at(after, Ev::Fault(false));
        }
        let name = match note {
            Note::Verdict { verdict, .. } => match verdict {
                Verdict::InSyncAlready { .. } => "in sync already",
                Verdict::LogTail { restart: false, .. } => "log tail",
                Verdict::LogTail { restart: true, .. } => "log tail from base",
                Verdict::ChangedSince { .. } => "changed since",
                Verdict::FullCompare => "full compare",
                Verdict::MustLeave => "must leave",
                Verdict::Unfit => "unfit",
                Verdict::Stuck => "stuck outside",
            },
            Note::Settled { records, .. } if *records > 0 => "settled a tail",
            Note::Truncated { .. } => "truncated",
            Note::Shrunk { .. } => "shrunk",
            Note::Grown { .. } => "grown",
            Note::RefusedBy { .. } => "refused",
            Note::Repaired { .. } => "repaired",
            Note::Scrubbed { .. } => "scrubbed",
            Note::Diverged { node, .. } => return Err(format!("{node} was in sync and differed")),
            Note::Unreadable { .. } => "lost",
            Note::Role {
                role: RoleName::HandedBack,
                ..
            } => "handed back",
            Note::Stuck { part } => match part {
                StuckPart::Journal => "stuck journal",
                StuckPart::Extent => "stuck extent",
            },
            Note::SwitchoverGivenUp { .. } => "switchover given up",
            Note::BadMessage { from, what } => {
                return Err(format!(
                    "{} got a bad message from {from}: {what}",
                    self.nodes[n].id
                ));
            }
            _ => return Ok(()),
        };
        *self.notes.entry(name).or_default() += 1;
        Ok(())
    }
}

fn apply(extent: &mut [u64], record: &Record) {
    match &record.body {
        RecordBody::Write { range, data } => extent[span(*range)].copy_from_slice(&values(data)),
        RecordBody::Resync {
            ranges,
            data: Some(data),
        } => {
            let mut rest = values(data).into_iter();
            for range in ranges.iter() {
                extent[span(*range)].fill_with(|| rest.next().unwrap());
            }
        }
        RecordBody::WriteSame { range, block } => extent[span(*range)].fill(values(block)[0]),
        RecordBody::Zero { ranges } => {
            for range in ranges.iter() {
                extent[span(*range)].fill(0);
            }
        }
        RecordBody::EpochStart | RecordBody::Resync { data: None, .. } => {}
    }
}
