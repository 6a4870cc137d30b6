//! A world for the cores under test: nodes with journals and extents that crash, links that break, a committed cluster state that arrives
//! late, leases, initiators. Everything comes from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::{
    BlockOp, BlockRange, BlockSize, CommandName, Epoch, ExtentId, InSyncVersion, Incarnation, Lba,
    LeaseGeneration, LogPos, Lsn, Mono, NodeId, OpOutcome, Revision, SessionInstance,
};

use super::api::*;
use super::sim_check::{Call, History};
use super::{ExtentCore, Faults};

pub(super) const BLOCKS: u64 = 64;
/// Blocks from here on take zeroing too; their values are not unique, so only the final comparison looks at them.
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
    Hash(BlockRange),
}

struct Node {
    id: NodeId,
    incarnation: u64,
    core: Option<ExtentCore>,
    paused: Option<u64>,
    /// No control plane until then.
    isolated: u64,
    failed: bool,
    stable: Vec<Entry>,
    pending: VecDeque<(u64, Option<Entry>)>,
    flushing: Option<usize>,
    extent: Vec<u64>,
    extent_stable: Vec<u64>,
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
    known: [u64; BLOCKS as usize],
}

/// A known bad trace, to be varied by the seed (random walks miss these).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    None,
    /// Power cut right when a write was answered.
    CrashAtDone,
    /// A growth is proposed, the newcomer is cut off, the primary hears no outcome, and dies.
    CutAtGrowth,
    /// The replica dies in the middle of its resync.
    CrashInResync,
    /// Switchovers whose entries are late.
    Switchovers,
    /// The primary is cut off from the cluster state and from its successor, but not from the third.
    OldPrimaryReturns,
    /// The primary is cut off from everybody but its initiators.
    Isolated,
}

/// What a run may do.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    pub(super) faults: Faults,
    pub(super) keep_bytes: usize,
    pub(super) run_ms: u64,
    pub(super) disasters: bool,
    /// Trouble comes right when something delicate begins.
    pub(super) guided: bool,
    pub(super) script: Script,
    /// Hashing takes up to so long.
    pub(super) hash_ms: u64,
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
    pub(super) history: History,
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
        let state = |node: &NodeId| NodeState {
            node: *node,
            suspect: false,
            generation: LeaseGeneration(0),
        };
        let view = View {
            revision: Revision(1),
            epoch: Epoch(1),
            primary: Some(Identity {
                node: ids[0],
                incarnation: Incarnation(1),
            }),
            version: InSyncVersion(1),
            in_sync: ids.clone(),
            replicas: ids.clone(),
            blocks: BLOCKS,
            block_size: BlockSize::B512,
            nodes: ids.iter().map(state).collect(),
        };
        let node = |id: &NodeId| Node {
            id: *id,
            incarnation: 0,
            core: None,
            paused: None,
            isolated: 0,
            failed: false,
            stable: vec![],
            pending: VecDeque::new(),
            flushing: None,
            extent: vec![0; usize::try_from(BLOCKS).unwrap()],
            extent_stable: vec![0; usize::try_from(BLOCKS).unwrap()],
            io: BTreeMap::new(),
            applied_view: 0,
            view_at: 0,
            catch_up: 0,
            lease: 0,
            heard: 0,
            back_since: 0,
            wake: u64::MAX,
            sessions: 0,
        };
        let client = |index: usize| Client {
            node: index % count,
            incarnation: 0,
            session: 0,
            sn: 0,
            open: None,
            known: [0; BLOCKS as usize],
        };
        let mut world = Self {
            rng: Rng(seed),
            now: MS,
            seq: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            nodes: ids.iter().map(node).collect(),
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
        if view.in_sync.len() != self.nodes.len() {
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
        for node in &self.nodes[1..] {
            if node.extent != self.nodes[0].extent {
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
            Ev::Checkpoint(n) => Some(*n),
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

    fn ctx(&self, n: usize) -> Ctx {
        let node = &self.nodes[n];
        let generation = self.views[node.applied_view].nodes[n].generation;
        Ctx {
            now: Mono::from_nanos(self.now),
            lease_until: (node.lease > 0).then(|| Mono::from_nanos(node.lease)),
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
                if !self.plan.faults.restart_unflushed {
                    self.flush_extent(n);
                }
                self.journal(n, seq.0, Entry::Restart(base, from, history));
            }
            Command::ClearBase { seq } => self.journal(n, seq.0, Entry::ClearBase),
            Command::Apply { io, record } => return self.start_io(n, io.0, Io::Apply(record)),
            Command::Read { io, range } => return self.start_io(n, io.0, Io::Read(range)),
            Command::Hash { io, range } => return self.start_io(n, io.0, Io::Hash(range)),
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
                    let late = !self.calm && (handed || self.rng.0 % late == 0);
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
                Verdict::FullCompare => "full compare",
                Verdict::MustLeave => "must leave",
                Verdict::Unfit => "unfit",
            },
            Note::Settled { records, .. } if *records > 0 => "settled a tail",
            Note::Truncated { .. } => "truncated",
            Note::Shrunk { .. } => "shrunk",
            Note::Grown { .. } => "grown",
            Note::RefusedBy { .. } => "refused",
            Note::Role {
                role: RoleName::HandedBack,
                ..
            } => "handed back",
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

    // --- journal and extent ---

    fn journal(&mut self, n: usize, seq: u64, entry: Entry) {
        self.nodes[n].pending.push_back((seq, Some(entry)));
        self.start_flush(n);
    }

    fn start_flush(&mut self, n: usize) {
        if self.nodes[n].flushing.is_none() && !self.nodes[n].pending.is_empty() {
            let count = self.nodes[n].pending.len();
            self.nodes[n].flushing = Some(count);
            let time = self.rng.between(MS / 10, 3 * MS);
            let run = self.nodes[n].incarnation;
            self.at(time, Ev::Flushed(n, run));
        }
    }

    fn flushed(&mut self, n: usize, run: u64) -> Result<(), String> {
        let node = &mut self.nodes[n];
        if node.incarnation != run {
            return Ok(());
        }
        let mut newest = 0;
        for _ in 0..node.flushing.take().unwrap_or(0) {
            if let Some((seq, entry)) = node.pending.pop_front() {
                newest = newest.max(seq);
                node.stable.extend(entry);
            }
        }
        self.start_flush(n);
        if newest > 0 && !self.nodes[n].failed {
            let seq = JournalSeq(newest);
            return self.feed(n, Event::Appended { seq });
        }
        Ok(())
    }

    /// Applies under way are finished and the extent made stable, before the journal lets go of their records.
    fn flush_extent(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let mut extent = node.extent.clone();
        for io in node.io.values() {
            if let Io::Apply(record) = io {
                apply(&mut extent, record);
            }
        }
        node.extent_stable = extent;
    }

    fn checkpoint(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(core) = node.core.as_ref() else { return };
        let checkpoint = Checkpoint {
            applied: core.applied(),
            history: core.history(),
            commit: core.committed(),
            seen: core.seen(),
        };
        node.extent_stable = node.extent.clone();
        // Through the journal, behind everything the core asked for before: its state includes that.
        node.pending.push_back((0, Some(Entry::Checkpoint(checkpoint))));
        self.start_flush(n);
        let again = self.rng.between(20, 400) * MS;
        self.at(again, Ev::Checkpoint(n));
    }

    fn recovered(entries: &[Entry]) -> Recovered {
        let mut r = Recovered::default();
        for entry in entries {
            match entry {
                Entry::Record(record) => {
                    r.commit = r.commit.max(record.commit);
                    r.seen = r.seen.max(record.pos.epoch);
                    r.tail.push(record.clone());
                }
                Entry::Truncate(after) => r.tail.retain(|record| record.pos.lsn <= after.lsn),
                Entry::Restart(base, from, history) => {
                    r.tail.clear();
                    r.base = Some(*base);
                    r.applied = *from;
                    r.history = history.clone();
                    r.commit = from.lsn;
                    r.damaged = false;
                }
                Entry::Damage => r.damaged = true,
                Entry::ClearBase => r.base = None,
                Entry::Checkpoint(c) => {
                    r.applied = c.applied;
                    r.history = c.history.clone();
                    r.commit = r.commit.max(c.commit);
                    r.seen = r.seen.max(c.seen);
                    r.tail.retain(|record| record.pos.lsn > c.applied.lsn);
                }
            }
        }
        r
    }

    fn start_io(&mut self, n: usize, io: u64, what: Io) -> Result<(), String> {
        let ranges = |io: &Io| -> Vec<BlockRange> {
            match io {
                Io::Apply(record) => record.body.ranges().to_vec(),
                Io::Read(range) | Io::Hash(range) => vec![*range],
            }
        };
        let mine = ranges(&what);
        for other in self.nodes[n].io.values() {
            let writes = matches!(what, Io::Apply(_)) || matches!(other, Io::Apply(_));
            if writes && ranges(other).iter().any(|a| mine.iter().any(|b| a.overlaps(*b))) {
                return Err(format!("I/O overlaps: {what:?} beside {other:?}"));
            }
        }
        let longest = if matches!(what, Io::Hash(_)) {
            self.plan.hash_ms * MS
        } else {
            2 * MS
        };
        self.nodes[n].io.insert(io, what);
        let time = self.rng.between(MS / 50, longest);
        let run = self.nodes[n].incarnation;
        self.at(time, Ev::IoDone(n, run, io));
        Ok(())
    }

    fn io_done(&mut self, n: usize, run: u64, io: u64) -> Result<(), String> {
        let node = &mut self.nodes[n];
        if node.incarnation != run || node.failed {
            return Ok(());
        }
        let Some(what) = node.io.remove(&io) else {
            return Ok(());
        };
        let token = IoToken(io);
        let event = match what {
            Io::Apply(record) => {
                apply(&mut node.extent, &record);
                Event::Applied { io: token }
            }
            Io::Read(range) => {
                let mut data = Vec::new();
                for value in &node.extent[span(range)] {
                    data.extend_from_slice(&fill(*value, 1));
                }
                Event::ReadDone {
                    io: token,
                    data: data.into(),
                }
            }
            Io::Hash(range) => {
                let mut hash = [0; 32];
                let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
                for value in &node.extent[span(range)] {
                    sum = (sum ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
                }
                hash[..8].copy_from_slice(&sum.to_be_bytes());
                Event::Hashed { io: token, hash }
            }
        };
        self.feed(n, event)
    }

    // --- links ---

    fn send(&mut self, from: usize, to: NodeId, link: LinkId, message: Message) {
        let to = usize::try_from(to.0 - 1).unwrap();
        let delay = self
            .rng
            .between(MS / 20, if self.rng.0 % 64 == 0 { 40 * MS } else { MS });
        let now = self.now;
        let Some(state) = self
            .links
            .get_mut(&key(from, to))
            .filter(|state| state.id == link)
        else {
            return;
        };
        let dir = usize::from(from > to);
        let at = (now + delay).max(state.last[dir] + 1);
        state.last[dir] = at;
        let index = state.sent[dir];
        state.sent[dir] += 1;
        self.at(
            at - now,
            Ev::Msg {
                to,
                from,
                link,
                index,
                message,
            },
        );
    }

    fn connect(&mut self, a: usize, b: usize) {
        self.connecting.retain(|pair| *pair != key(a, b));
        let up = |node: &Node| node.core.is_some() && node.paused.is_none();
        let blocked = self
            .blocked
            .get(&key(a, b))
            .is_some_and(|until| *until > self.now);
        if blocked || self.links.contains_key(&key(a, b)) || !up(&self.nodes[a]) || !up(&self.nodes[b]) {
            return;
        }
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let (lo, hi) = key(a, b);
        let delays = [self.rng.between(1, 5 * MS), self.rng.between(1, 5 * MS)];
        // Index 0: towards the higher node.
        let last = [self.now + delays[1], self.now + delays[0]];
        let sent = [0, 0];
        self.links.insert((lo, hi), LinkState { id, last, sent });
        for (me, other, delay) in [(lo, hi, delays[0]), (hi, lo, delays[1])] {
            let peer = Identity {
                node: self.nodes[other].id,
                incarnation: Incarnation(self.nodes[other].incarnation),
            };
            let run = self.nodes[me].incarnation;
            self.at(delay, Ev::To(me, run, Event::PeerUp { peer, link: id }));
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        let Some(state) = self.links.remove(&key(a, b)) else {
            return;
        };
        let (lo, hi) = key(a, b);
        self.log(|| format!("link {lo}-{hi} is cut"));
        for (me, other, dir) in [(hi, lo, 0), (lo, hi, 1)] {
            // Some of what is under way still arrives.
            let back = self.rng.below(12);
            self.cuts
                .insert((state.id, me), state.sent[dir].saturating_sub(back));
            let run = self.nodes[me].incarnation;
            let node = self.nodes[other].id;
            let link = state.id;
            let delay = self
                .rng
                .between(0, 20 * MS)
                .max(state.last[dir].saturating_sub(self.now) * (back % 2));
            self.at(delay, Ev::To(me, run, Event::PeerDown { node, link }));
        }
    }

    // --- nodes ---

    /// A disk that lies: only while another member of the set is whole.
    fn damage(&mut self, n: usize) {
        let view = Arc::clone(self.views.last().unwrap());
        let whole = |m: usize| {
            let found = Self::recovered(&self.nodes[m].stable);
            view.in_sync.contains(&self.nodes[m].id) && found.base.is_none() && !found.damaged
        };
        let healed = self.damaged.is_none_or(whole);
        if healed && (0..self.nodes.len()).any(|m| m != n && whole(m)) {
            self.log(|| format!("damage {n}"));
            self.damaged = Some(n);
            let node = &mut self.nodes[n];
            node.stable.push(Entry::Damage);
            for block in &mut node.extent {
                if self.rng.chance(30) {
                    *block = u64::MAX - 1;
                }
            }
            node.extent_stable = node.extent.clone();
            *self.notes.entry("damaged").or_default() += 1;
        }
    }

    fn start(&mut self, n: usize) {
        if !self.calm && self.now > 500 * MS && self.rng.chance(8) {
            self.damage(n);
        }
        let commits = self.views.len() - 1;
        let calm = self.calm;
        let behind = if calm { 0 } else { self.rng.below(4) };
        let node = &mut self.nodes[n];
        node.incarnation += 1;
        let me = Identity {
            node: node.id,
            incarnation: Incarnation(node.incarnation),
        };
        let config = Config {
            hold_limit: Duration::from_millis(1000),
            keep_bytes: self.plan.keep_bytes,
            resync_range_bytes: 2048,
            resync_in_flight: 2,
            switchover_limit: Duration::from_millis(500),
            absent_after: Duration::from_millis(400),
            fate_limit: Duration::from_millis(200),
            ..Config::default()
        };
        let mut core = ExtentCore::new(me, extent_id(), config, Self::recovered(&node.stable));
        core.faults = self.plan.faults;
        node.core = Some(core);
        node.failed = false;
        node.lease = 0;
        node.heard = self.now;
        node.wake = u64::MAX;
        node.catch_up = commits;
        // The applied state may be older than before the restart.
        node.applied_view = node
            .applied_view
            .saturating_sub(usize::try_from(behind).unwrap_or(0));
        let run = node.incarnation;
        let view = Arc::clone(&self.views[self.nodes[n].applied_view]);
        self.log(|| format!("start {n} in run {run}"));
        self.at(1, Ev::To(n, run, Event::View(view)));
        self.at(2, Ev::View(n, run));
        self.at(50 * MS, Ev::Checkpoint(n));
    }

    fn crash(&mut self, n: usize, power: bool) {
        self.log(|| format!("crash {n}, power {power}"));
        let others: Vec<usize> = (0..self.nodes.len()).filter(|m| *m != n).collect();
        for m in others {
            self.cut(n, m);
        }
        let kept = self.rng.below(self.nodes[n].pending.len() as u64 + 1);
        let node = &mut self.nodes[n];
        let Some(core) = node.core.take() else { return };
        let marked = core.base().is_some();
        node.incarnation += 1;
        node.paused = None;
        node.lease = 0;
        node.flushing = None;
        node.io.clear();
        // Part of what was not flushed may be on the disk all the same.
        for _ in 0..kept {
            if let Some((_, entry)) = node.pending.pop_front() {
                node.stable.extend(entry);
            }
        }
        node.pending.clear();
        if power {
            node.extent = node.extent_stable.clone();
        }
        let id = node.id;
        for client in &mut self.clients {
            if self.nodes[client.node].id == id
                && let Some(op) = client.open.take()
            {
                self.history.lost(op);
            }
        }
        let resyncing = self.plan.script == Script::CrashInResync && marked;
        let most = if self.rng.0 % 3 == 0 { 3000 } else { 300 };
        let after = self.rng.between(5, if resyncing { 20 } else { most });
        self.at(after * MS, Ev::Restart(n));
    }

    // --- cluster state ---

    fn commit(&mut self, change: impl FnOnce(&mut View)) {
        let mut view = View::clone(self.views.last().unwrap());
        view.revision = view.revision.next();
        change(&mut view);
        self.log(|| format!("committed: {view:?}"));
        self.views.push(Arc::new(view));
        for n in 0..self.nodes.len() {
            let often = if self.plan.script == Script::Switchovers {
                30
            } else {
                3
            };
            let slow = !self.calm && self.rng.chance(often);
            let delay = self.rng.between(MS / 5, if slow { 500 * MS } else { 15 * MS });
            if slow {
                self.nodes[n].view_at = self.now + delay;
            }
            let run = self.nodes[n].incarnation;
            self.at(delay, Ev::View(n, run));
        }
    }

    fn apply_view(&mut self, n: usize, run: u64) -> Result<(), String> {
        let node = &self.nodes[n];
        if node.incarnation != run || node.core.is_none() || node.isolated.max(node.view_at) > self.now {
            return Ok(());
        }
        if node.applied_view + 1 < self.views.len() {
            let jump = if self.rng.chance(30) {
                self.views.len() - 1
            } else {
                node.applied_view + 1
            };
            self.nodes[n].applied_view = jump;
            if jump + 1 < self.views.len() {
                let delay = self.rng.between(MS / 10, 5 * MS);
                self.at(delay, Ev::View(n, run));
            }
            let view = Arc::clone(&self.views[jump]);
            return self.feed(n, Event::View(view));
        }
        Ok(())
    }

    fn commit_proposal(&mut self, proposal: Proposal) {
        let cur = View::clone(self.views.last().unwrap());
        let by = proposal.by;
        let named = cur.primary;
        let any_run = matches!(proposal.change, Change::Reopen | Change::HandOver);
        if cur.epoch != proposal.epoch
            || cur.version != proposal.version
            || named.is_none_or(|p| p.node != by.node || (!any_run && p != by))
        {
            return;
        }
        let suspect = cur.nodes.iter().any(|s| s.node == by.node && s.suspect);
        // A late shrink of a run that ended, whose disk was damaged since, would leave no whole member: two faults at once, outside of this world.
        let by_index = usize::try_from(by.node.0 - 1).unwrap();
        if self.damaged == Some(by_index) && Self::recovered(&self.nodes[by_index].stable).damaged {
            if matches!(proposal.change, Change::Shrink { .. }) {
                return;
            }
        }
        let member = |node: &NodeId| cur.in_sync.contains(node);
        match proposal.change {
            Change::Shrink { node } if member(&node) && node != by.node && !suspect => self.commit(|view| {
                view.in_sync.retain(|n| *n != node);
                view.version = view.version.next();
            }),
            Change::Grow { node } if !member(&node) && !suspect => self.commit(|view| {
                view.in_sync.push(node);
                view.version = view.version.next();
            }),
            Change::GrowVoid => self.commit(|view| view.version = view.version.next()),
            Change::Switchover { to } if member(&to.node) => self.new_epoch(to),
            Change::Reopen if member(&by.node) => self.new_epoch(by),
            Change::HandOver => {
                if let Some(to) = self.successor(by.node) {
                    self.new_epoch(to);
                }
            }
            _ => {}
        }
    }

    fn new_epoch(&mut self, to: Identity) {
        self.commit(|view| {
            view.epoch = view.epoch.next();
            view.version = view.version.next();
            view.primary = Some(to);
        });
    }

    fn successor(&self, not: NodeId) -> Option<Identity> {
        let cur = self.views.last().unwrap();
        self.nodes
            .iter()
            .filter(|node| node.id != not && cur.in_sync.contains(&node.id))
            .filter(|node| node.core.is_some() && node.paused.is_none() && node.isolated <= self.now)
            .map(|node| Identity {
                node: node.id,
                incarnation: Incarnation(node.incarnation),
            })
            .next()
    }

    /// Leases, suspicion, failover, reconnecting.
    fn keeper(&mut self) -> Result<(), String> {
        let now = self.now;
        for n in 0..self.nodes.len() {
            if self.nodes[n].paused.is_some_and(|until| until <= now) {
                self.nodes[n].paused = None;
            }
            let node = &mut self.nodes[n];
            let heard = node.core.is_some() && node.paused.is_none() && node.isolated <= now;
            if heard {
                if now - node.heard > 120 * MS {
                    node.back_since = now;
                }
                node.heard = now;
            }
            let applied = node.applied_view;
            let silent = now - node.heard > SILENT;
            let back = now - node.back_since > 100 * MS;
            let caught_up = applied >= node.catch_up;
            let cur = Arc::clone(self.views.last().unwrap());
            let suspect = cur.nodes[n].suspect;
            if heard && !suspect && caught_up && applied >= self.marks[n] {
                self.nodes[n].lease = now + LEASE;
                self.promises[n] = now + LEASE;
                let run = self.nodes[n].incarnation;
                self.at(1, Ev::To(n, run, Event::Tick));
            } else if silent && !suspect {
                self.commit(|view| view.nodes[n].suspect = true);
                self.marks[n] = self.views.len() - 1;
            } else if suspect && heard && back && applied >= self.marks[n] {
                self.commit(|view| {
                    view.nodes[n].suspect = false;
                    view.nodes[n].generation = view.nodes[n].generation.next();
                });
                self.marks[n] = self.views.len() - 1;
            } else if suspect
                && self.promises[n] <= now
                && cur.primary.is_some_and(|p| p.node == self.nodes[n].id)
                && let Some(to) = self.successor(self.nodes[n].id)
            {
                self.new_epoch(to);
            }
        }
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                let long = |node: &Node| node.paused.is_some_and(|_| now - node.heard > SILENT);
                if self.links.contains_key(&(a, b)) {
                    if long(&self.nodes[a]) || long(&self.nodes[b]) {
                        self.cut(a, b);
                    }
                } else if !self.connecting.contains(&(a, b)) {
                    self.connecting.push((a, b));
                    let delay = self.rng.between(MS, 60 * MS);
                    self.at(delay, Ev::Connect(a, b));
                }
            }
        }
        for n in 0..self.nodes.len() {
            let run = self.nodes[n].incarnation;
            if self.nodes[n].isolated <= now {
                self.at(1, Ev::View(n, run));
            }
        }
        self.at(20 * MS, Ev::Keeper);
        Ok(())
    }

    fn primary_now(&self) -> usize {
        let primary = self.views.last().unwrap().primary.unwrap();
        usize::try_from(primary.node.0 - 1).unwrap()
    }

    fn part(&mut self, a: usize, b: usize, time: u64) {
        if a != b {
            self.blocked.insert(key(a, b), self.now + time);
            self.cut(a, b);
        }
    }

    /// The steps of a script that time alone brings.
    fn script(&mut self, turn: u64) {
        if self.calm {
            return;
        }
        let all = 0..self.nodes.len();
        let p = self.primary_now();
        match self.plan.script {
            Script::Switchovers => {
                let m = (p + 1) % self.nodes.len();
                let to = self.nodes[m].id;
                let run = self.nodes[p].incarnation;
                self.at(1, Ev::To(p, run, Event::Switchover { to }));
                self.at(400 * MS, Ev::Script(turn + 1));
            }
            Script::Isolated => {
                let time = self.rng.between(1000, 2500) * MS;
                self.nodes[p].isolated = self.now + time;
                for m in all {
                    self.part(p, m, time);
                }
                self.at(3500 * MS, Ev::Script(0));
            }
            Script::OldPrimaryReturns if turn == 0 => {
                let time = 2500 * MS;
                self.nodes[p].isolated = self.now + time;
                if let Some(next) = self.successor(self.nodes[p].id) {
                    let q = usize::try_from(next.node.0 - 1).unwrap();
                    self.part(p, q, time);
                    let death = self.rng.between(1000, 2000) * MS;
                    self.at(death, Ev::Crash(q));
                }
                for turn in 1..40 {
                    self.at(turn * 60 * MS, Ev::Script(turn * 100 + p as u64));
                }
            }
            Script::OldPrimaryReturns => {
                let p = usize::try_from(turn % 100).unwrap();
                for m in all {
                    self.cut(p, m);
                }
            }
            _ => {}
        }
    }

    fn script_note(&mut self, n: usize, note: &Note) {
        if self.calm {
            return;
        }
        match (self.plan.script, note) {
            (Script::CutAtGrowth, Note::Growing { node }) => {
                let m = usize::try_from(node.0 - 1).unwrap();
                self.part(n, m, 2000 * MS);
                self.at(1, Ev::Isolate(n, 2000 * MS));
                let death = self.rng.between(10, 600) * MS;
                self.at(death, Ev::Crash(n));
            }
            (
                Script::Switchovers,
                Note::Role {
                    role: RoleName::HandedBack,
                    ..
                },
            ) => {
                // After the limit for the commit of a switchover, before the entry that is late.
                let time = self.rng.between(400, 650) * MS;
                self.at(time, Ev::Part(n, 1500 * MS));
                self.at(time, Ev::Isolate(n, 1500 * MS));
            }
            (Script::CrashInResync, Note::ResyncStarted { node, ranges }) if *ranges > 2 => {
                let m = usize::try_from(node.0 - 1).unwrap();
                let death = self.rng.between(1, 200) * MS;
                self.at(death, Ev::Crash(m));
            }
            _ => {}
        }
    }

    fn fault(&mut self, more: bool) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        if more {
            let again = self.rng.between(20, if self.plan.guided { 1500 } else { 500 }) * MS;
            self.at(again, Ev::Fault(true));
        }
        let n = usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap();
        let m = usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap();
        let up = self.nodes[n].core.is_some() && self.nodes[n].paused.is_none();
        match self.rng.below(100) {
            0..18 if up => {
                let power = self.rng.chance(50);
                self.crash(n, power);
            }
            18..22 => {
                for n in 0..self.nodes.len() {
                    self.crash(n, true);
                }
            }
            22..36 if up => {
                let time = self.rng.between(20, if self.rng.0 % 2 == 0 { 2000 } else { 200 });
                self.log(|| format!("pause {n} for {time} ms"));
                self.nodes[n].paused = Some(self.now + time * MS);
            }
            36..60 if n != m => {
                let time = self.rng.between(0, 700);
                self.blocked.insert(key(n, m), self.now + time * MS);
                self.cut(n, m);
            }
            60..70 => {
                let time = self.rng.between(20, 1500);
                self.log(|| format!("isolate {n} for {time} ms"));
                self.nodes[n].isolated = self.now + time * MS;
                if self.rng.chance(50) && n != m {
                    self.blocked.insert(key(n, m), self.now + time * MS);
                    self.cut(n, m);
                }
            }
            70..85 => {
                let to = self.nodes[m].id;
                for node in 0..self.nodes.len() {
                    self.at(
                        1,
                        Ev::To(node, self.nodes[node].incarnation, Event::Switchover { to }),
                    );
                }
            }
            85..88 if up => {
                self.nodes[n].failed = true;
                self.feed(
                    n,
                    Event::Failed {
                        reason: FenceReason::Extent,
                    },
                )?;
                let after = self.rng.between(100, 2000);
                let run = self.nodes[n].incarnation;
                let _ = (after, run);
            }
            88..94 => {
                let all: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].failed).collect();
                for n in all {
                    self.crash(n, false);
                }
            }
            _ if up => {
                self.feed(
                    n,
                    Event::Abort {
                        scope: AbortScope::All,
                    },
                )?;
            }
            _ => {}
        }
        Ok(())
    }

    // --- initiators ---

    fn client(&mut self, c: usize) -> Result<(), String> {
        let again = self.rng.between(1, 30) * MS;
        self.at(again, Ev::Client(c));
        if self.quiet_from > 0 || self.clients[c].open.is_some() {
            return Ok(());
        }
        if self.rng.chance(10) {
            let count = self.nodes.len() as u64;
            self.clients[c].node = usize::try_from(self.rng.below(count)).unwrap();
            self.clients[c].incarnation = 0;
        }
        let n = self.clients[c].node;
        let node = &mut self.nodes[n];
        if node.core.is_none() || node.paused.is_some() {
            return Ok(());
        }
        let client = &mut self.clients[c];
        if client.incarnation != node.incarnation {
            client.incarnation = node.incarnation;
            node.sessions += 1;
            client.session = node.sessions;
            client.sn = 0;
        }
        client.sn += 1;
        let name = CommandName {
            session: SessionInstance {
                node: node.id,
                incarnation: Incarnation(node.incarnation),
                serial: client.session,
            },
            cmd_sn: client.sn,
        };
        let (op, call) = self.draw(c);
        let id = self.next_op;
        self.next_op += 1;
        self.clients[c].open = Some(id);
        self.history.start(id, c, self.now, call);
        let request = Request {
            name,
            received: Mono::from_nanos(self.now),
            generation: self.ctx(n).generation,
            op,
        };
        self.feed(
            n,
            Event::Submit {
                op: OpId(id),
                request,
            },
        )
    }

    fn draw(&mut self, c: usize) -> (BlockOp, Call) {
        let lba = if self.rng.chance(70) {
            self.rng.below(12)
        } else {
            self.rng.below(BLOCKS)
        };
        let blocks = self.rng.between(1, 3).min(BLOCKS - lba);
        let range = BlockRange::new(Lba(lba), blocks).unwrap();
        let one = BlockRange::new(Lba(lba), 1).unwrap();
        let value = self.next_value;
        self.next_value += 1;
        match self.rng.below(100) {
            0..35 => {
                let data = fill(value, blocks);
                let fua = false;
                (BlockOp::Write { range, data, fua }, Call::Write { range, value })
            }
            35..45 => {
                let block = fill(value, 1);
                (BlockOp::WriteSame { range, block }, Call::Write { range, value })
            }
            45..52 => {
                let lba = PLAIN + lba % (BLOCKS - PLAIN);
                let one = BlockRange::new(Lba(lba), 1).unwrap();
                let ranges = vec![one, BlockRange::new(Lba(BLOCKS - 1), 1).unwrap()];
                (BlockOp::Zero { ranges }, Call::Other)
            }
            52..65 => {
                let old = self.clients[c].known[usize::try_from(lba).unwrap()];
                let (expect, data) = (fill(old, 1), fill(value, 1));
                let range = one;
                (
                    BlockOp::CompareAndWrite { range, expect, data },
                    Call::Swap { range, old, value },
                )
            }
            65..70 => (BlockOp::Flush, Call::Other),
            _ => (BlockOp::Read { range }, Call::Read { range }),
        }
    }

    fn completed(&mut self, n: usize, op: u64, outcome: OpOutcome) -> Result<(), String> {
        let Some(c) = self.clients.iter().position(|client| client.open == Some(op)) else {
            return Err(format!("op {op} on node {n} is answered twice: {outcome:?}"));
        };
        self.clients[c].open = None;
        let crash = self.plan.script == Script::CrashAtDone && outcome == OpOutcome::Done;
        if crash && !self.calm && self.rng.chance(1) {
            self.at(1, Ev::Crash(n));
        }
        let read = match &outcome {
            OpOutcome::Data(data) => values(data),
            _ => vec![],
        };
        if let Some(Call::Read { range }) = self.history.call(op)
            && !read.is_empty()
        {
            self.clients[c].known[span(range)].copy_from_slice(&read);
        }
        let kind = match &outcome {
            OpOutcome::Done => "done",
            OpOutcome::Data(_) => "read",
            OpOutcome::Miscompare { .. } => "miscompare",
            OpOutcome::Transitioning => "transitioning",
            OpOutcome::Reset => "reset",
            OpOutcome::Aborted => "aborted",
            OpOutcome::NoSpace => return Err("no space".into()),
        };
        *self.notes.entry(kind).or_default() += 1;
        self.history.end(op, self.now, &outcome, read);
        Ok(())
    }
}

fn apply(extent: &mut [u64], record: &Record) {
    match &record.body {
        RecordBody::Write { range, data }
        | RecordBody::Resync {
            range,
            data: Some(data),
        } => extent[span(*range)].copy_from_slice(&values(data)),
        RecordBody::WriteSame { range, block } => extent[span(*range)].fill(values(block)[0]),
        RecordBody::Zero { ranges } => {
            for range in ranges.iter() {
                extent[span(*range)].fill(0);
            }
        }
        RecordBody::EpochStart | RecordBody::Resync { data: None, .. } => {}
    }
}
