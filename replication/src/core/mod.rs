//! One extent's replication, as a state machine without I/O: [`ExtentCore`].
//!
//! | file | what it holds |
//! |---|---|
//! | [`api`] | events, commands, messages, records |
//! | `log`, `names`, `ranges` | the log's end in memory, which commands are in it, who may touch which blocks |
//! | `role` | the one function that moves a node between roles |
//! | `confirm` | reads that wait until the epoch is confirmed (W4) |
//! | `early` | writes that are answered before they are stable (W5) |
//! | `fetch` | reads that a replica answers for the local disk |
//! | `primary`, `followers` | giving positions, counting acknowledgements, committing; whom records are sent to |
//! | `membership` | settling, handing back, and the change of the committed state that is wanted |
//! | `stuck` | who makes no progress although work waits (I10) |
//! | `room` | nearly full journals and disks, here and on peers (J3) |
//! | `replica` | following a primary |
//! | `rejoin`, `resync` | how a replica comes back: the table of verdicts, comparing ranges, the barrier |
//! | `repair` | blocks that are bad here, out of an in-sync replica |
//! | `scrub` | comparing replicas that are in sync |
//! | `report` | notes and status |
//! | `replay` | COMPARE AND WRITEs that may be sent again (W6) |
//! | `front`, `forward`, `answer` | commands of initiators: carried out here, held, forwarded, aborted |
//! | `unit` | reservations and resets of the unit, judged where commands take effect |

mod answer;
pub mod api;
mod comparison;
mod config;
mod confirm;
mod early;
mod fetch;
mod followers;
mod forward;
mod front;
mod log;
mod membership;
mod names;
mod primary;
mod ranges;
mod rejoin;
mod repair;
mod replay;
mod replica;
mod report;
mod resync;
mod role;
mod room;
mod scrub;
mod stuck;
mod unit;

#[cfg(test)]
mod core_test;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tail_test;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_types::{BlockRange, Epoch, ExtentId, LogPos, Lsn, Mono, NodeId};

use api::{
    Base, Checks, Command, Config, Ctx, EpochHistory, Event, FenceReason, Identity, IoToken, JournalSeq,
    LinkId, Message, Note, Record, Recovered, ReplicaStatus, Room, Status, View,
};
use confirm::Confirming;
use fetch::Fetch;
use front::{Op, OpKey};
use log::Log;
use names::{FixedHash, Names};
use primary::FollowerState;
use ranges::{Blocks, RangeTable};
use replay::Replays;
use resync::Resync;
use role::Role;
use stuck::Watch;

use crate::fault::{self, Fault};

/// How often slow conditions are looked at while there are any.
const HOUSEKEEPING: Duration = Duration::from_millis(50);

/// Committed records of a log's tail in the range table at a time.
const APPLY_WINDOW: u64 = 128;

/// Whose a slot of the range table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A command without an lsn.
    Op(OpKey),
    /// A record.
    Record(Lsn),
    /// A range that this primary compares with a replica.
    Compare { node: NodeId, no: u64 },
    /// A range that this replica hashes, or reads, for its primary.
    HashFor {
        to: NodeId,
        link: LinkId,
        epoch: Epoch,
        id: u64,
        range: BlockRange,
        contents: bool,
    },
    /// Blocks that this primary repairs.
    Repair,
    /// Nobody's any more; stays until its I/O is done.
    Dead,
}

/// A link that is up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) peer: Identity,
    pub(crate) link: LinkId,
}

/// One extent on one node. See [`api`] for what its driver promises.
#[derive(Debug)]
pub struct ExtentCore {
    me: Identity,
    extent: ExtentId,
    config: Config,
    view: Option<Arc<View>>,
    role: Role,
    links: Vec<Link>,
    /// Nodes that had a link in this run.
    met: Vec<NodeId>,
    log: Log,
    names: Names,
    replays: Replays,
    table: RangeTable<Owner>,
    /// Journal commands under way, with the lsn that is stable when they are.
    journal: VecDeque<(u64, Lsn)>,
    next_seq: u64,
    /// For slots of the range table and I/O tokens.
    next_id: u64,
    /// Newest epoch seen anywhere (E4).
    seen: Epoch,
    base: Option<Base>,
    damaged: bool,
    fenced: Option<FenceReason>,
    ops: HashMap<OpKey, Op, FixedHash>,
    /// Commands that wait for something other than a range.
    held: VecDeque<OpKey>,
    /// Flushes, with the lsn whose commit they wait for.
    flushing: VecDeque<(Lsn, OpKey)>,
    /// Reads that replicas are asked for (I10).
    fetches: Vec<Fetch>,
    watch: Watch,
    /// What the disks of this node and of its peers can take in; those that are missing have room.
    rooms: Vec<(NodeId, Room)>,
    confirming: Confirming,
    /// Something changed that held commands may wait for.
    pump: bool,
    leased: bool,
    started: bool,
    next_sweep: Mono,
    housekeeping: Option<Mono>,
    last_wish: Option<(api::Proposal, Mono)>,
    checks: Checks,
    /// When a comparison that is slow on purpose goes on.
    pace: Option<Mono>,
    /// Until then initiators count as waiting, although none of their commands may be open at the moment.
    busy_until: Mono,
}

impl ExtentCore {
    /// A core for `extent` on `me`, from what its disk holds. Records of the tail that do not follow each other are damage (J1).
    pub fn new(me: Identity, extent: ExtentId, config: Config, recovered: Recovered) -> Self {
        let keep = config.hold_limit * 2 + Duration::from_secs(1);
        let names = Names::new(keep, config.names_max);
        let mut core = Self {
            me,
            extent,
            view: None,
            role: Role::Idle,
            links: Vec::new(),
            met: Vec::new(),
            log: Log::new(LogPos::EMPTY, EpochHistory::empty()),
            names,
            replays: Replays::default(),
            table: RangeTable::new(),
            journal: VecDeque::new(),
            next_seq: 0,
            next_id: 0,
            seen: recovered.seen,
            base: recovered.base,
            damaged: recovered.damaged,
            fenced: None,
            ops: HashMap::default(),
            held: VecDeque::new(),
            flushing: VecDeque::new(),
            fetches: Vec::new(),
            watch: Watch::default(),
            rooms: Vec::new(),
            confirming: Confirming::default(),
            pump: false,
            leased: false,
            started: false,
            next_sweep: Mono::ZERO,
            housekeeping: None,
            last_wish: None,
            checks: Checks::default(),
            pace: None,
            busy_until: Mono::ZERO,
            config,
        };
        core.load(recovered);
        core
    }

    /// Takes the recovered log in.
    fn load(&mut self, recovered: Recovered) {
        let Recovered {
            applied,
            tail,
            history,
            commit,
            ..
        } = recovered;
        let history = if history.holds(applied) {
            history.up_to(applied.lsn)
        } else {
            EpochHistory::from_lasts(vec![applied]).unwrap_or_default()
        };
        self.log = Log::new(applied, history);
        for record in tail {
            let end = self.log.end();
            if record.pos.lsn != end.lsn.next() || record.pos.epoch < end.epoch {
                self.damaged = true;
                break;
            }
            self.seen = self.seen.max(record.pos.epoch);
            self.take_record(record, Mono::ZERO);
        }
        self.seen = self.seen.max(applied.epoch);
        self.log.durable = self.log.end().lsn;
        self.log.committed = commit.max(applied.lsn).min(self.log.end().lsn);
    }

    /// Takes in one event; what is to be done comes out, in order.
    pub fn handle(&mut self, ctx: &Ctx, event: Event, out: &mut Vec<Command>) {
        let before = out.len();
        if !self.started {
            self.started = true;
            self.names.begin(ctx.now);
            self.hand_committed(out);
            if self.damaged {
                out.push(Command::Note(Note::Fenced { reason: None }));
            }
        }
        self.watch.ends(&event);
        if !self.ops.is_empty() {
            self.busy_until = ctx.now + resync::BUSY_FOR;
        }
        match event {
            Event::Tick => self.pump |= !self.held.is_empty(),
            Event::View(view) => self.on_view(ctx, view, out),
            Event::PeerUp { peer, link } => self.on_peer_up(ctx, peer, link, out),
            Event::PeerDown { node, link } => self.on_peer_down(ctx, node, link, out),
            Event::Message { from, link, message } => {
                if self.link_to((from, link)).is_some() {
                    self.on_message(ctx, from, link, message, out);
                }
            }
            Event::Appended { seq } => self.on_appended(ctx, seq, out),
            Event::Applied { io } => self.on_applied(io, out),
            Event::ReadDone { io, data } => self.on_read_done(ctx, io, data, out),
            Event::Allocated { io, whole } => self.on_allocated(ctx, io, whole, out),
            Event::Room { node, room } => self.on_room(ctx, node, room, out),
            Event::Confirmed { round } => self.on_cluster_confirmed(ctx, round, out),
            Event::ReadFailed { io, bad } => self.on_read_failed(ctx, io, bad, out),
            Event::Hashed { io, digests } => self.on_hashed(ctx, io, digests, out),
            Event::Changed { io, ranges } => self.on_changed(ctx, io, &ranges, out),
            Event::Mapped { io, runs } => self.on_mapped(ctx, io, runs, out),
            Event::Failed { reason } => self.on_failed(ctx, reason, out),
            Event::Submit { op, request } => self.on_submit(ctx, op, request, out),
            Event::Abort { scope } => self.on_abort(ctx, scope, out),
            Event::Statuses { news } => self.on_statuses(ctx, news, out),
            Event::Scrub => self.on_scrub(ctx, out),
            Event::Switchover { to } => self.on_switchover(ctx, to, out),
        }
        self.after(ctx, out);
        self.watch.begins(out.get(before..).unwrap_or_default());
    }

    /// What may follow from any event.
    fn after(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let leased = self.leased(ctx);
        if leased && !self.leased {
            self.pump |= !self.held.is_empty();
        }
        self.leased = leased;
        if self.log.handed < self.log.committed {
            self.hand_committed(out);
        }
        if self.pace.is_some_and(|pace| ctx.now >= pace) {
            self.drive_resyncs(ctx, out);
        }
        self.run_grants(ctx, out);
        self.drive_repairs(ctx, out);
        self.move_primary(ctx, out);
        if self.pump {
            self.tell_primary(out);
            self.pump = false;
            self.route_held(ctx, out);
        }
        if !self.ops.is_empty() && ctx.now >= self.next_sweep {
            self.next_sweep = ctx.now + HOUSEKEEPING;
            self.sweep(ctx, out);
        }
        self.tell_commit(ctx, out);
        self.watch(ctx, out);
        self.housekeep(ctx, out);
    }

    /// When [`Event::Tick`] is wanted next, if nothing happens before.
    pub fn deadline(&self) -> Option<Mono> {
        let commit = self.role.primary().and_then(|primary| primary.commit_due);
        let sweep = (!self.ops.is_empty()).then_some(self.next_sweep);
        [commit, sweep, self.housekeeping, self.pace, self.watch.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Everything behind this position is needed from the journal after a restart; everything up to it needs the extent file to be stable
    /// before the journal lets go of it. With it, a checkpoint keeps [`ExtentCore::history`], [`ExtentCore::committed`],
    /// [`ExtentCore::seen`] and [`ExtentCore::base`]. It goes through the journal, behind every command given before it was taken: it
    /// speaks of a log that those made.
    pub fn applied(&self) -> LogPos {
        self.log.applied_pos()
    }

    /// The end of the log.
    pub fn end(&self) -> LogPos {
        self.log.end()
    }

    /// Where epochs end in the log, up to the applied position.
    pub fn history(&self) -> EpochHistory {
        self.log.history().up_to(self.log.applied)
    }

    /// Commit position known here.
    pub fn committed(&self) -> Lsn {
        self.log.committed
    }

    /// Newest epoch seen.
    pub fn seen(&self) -> Epoch {
        self.seen
    }

    /// The mark of an unfinished resync (R1).
    pub fn base(&self) -> Option<Base> {
        self.base
    }

    /// Records that are not applied yet, in order: what a journal that recycles segments copies forward (J3).
    pub fn unapplied(&self) -> impl Iterator<Item = &Record> {
        self.log.behind(self.log.applied)
    }

    /// Whether this replica can serve: its disk has neither lost anything (J1) nor failed (J2).
    pub const fn is_fit(&self) -> bool {
        self.fenced.is_none() && !self.damaged
    }

    /// The core at a glance.
    pub fn status(&self) -> Status {
        let replicas = match (self.role.primary(), &self.view) {
            (Some(primary), Some(view)) => primary
                .followers
                .iter()
                .map(|follower| ReplicaStatus {
                    node: follower.node,
                    in_sync: view.in_sync.contains(&follower.node),
                    following: matches!(follower.state, FollowerState::Streaming { .. }),
                    fenced: matches!(follower.state, FollowerState::Unfit { .. }),
                    stuck: matches!(follower.state, FollowerState::Stuck { .. }),
                    durable: follower.durable,
                    applied: follower.applied,
                    resync: follower.resync().filter(|r| !r.scrubs()).map(Resync::status),
                    scrub: follower.resync().filter(|r| r.scrubs()).map(Resync::status),
                })
                .collect(),
            _ => Vec::new(),
        };
        Status {
            extent: self.extent,
            role: self.role.name(),
            epoch: self.view.as_ref().map_or(Epoch(0), |view| view.epoch),
            end: self.log.end(),
            durable: self.log.durable,
            committed: self.log.committed,
            applied: self.log.applied,
            open: self.ops.len(),
            base: self.base,
            fit: self.is_fit(),
            stuck: self.watch.stuck(),
            checks: self.checks,
            replicas,
        }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn next_seq(&mut self, stable: Lsn) -> JournalSeq {
        self.next_seq += 1;
        self.journal.push_back((self.next_seq, stable));
        JournalSeq(self.next_seq)
    }

    /// The link that is up to a node, if it is this one.
    fn link_to(&self, wanted: (NodeId, LinkId)) -> Option<Link> {
        self.links
            .iter()
            .copied()
            .find(|link| (link.peer.node, link.link) == wanted)
    }

    pub(crate) fn link_of(&self, node: NodeId) -> Option<Link> {
        self.links.iter().copied().find(|link| link.peer.node == node)
    }

    pub(crate) fn bad(out: &mut Vec<Command>, from: NodeId, what: &'static str) {
        out.push(Command::Note(Note::BadMessage { from, what }));
    }

    fn on_peer_up(&mut self, ctx: &Ctx, peer: Identity, link: LinkId, out: &mut Vec<Command>) {
        if let Some(old) = self.link_of(peer.node) {
            if old.link == link {
                return;
            }
            self.on_peer_down(ctx, peer.node, old.link, out);
        }
        self.links.push(Link { peer, link });
        self.rooms.retain(|(node, _)| *node != peer.node);
        if !self.met.contains(&peer.node) {
            self.met.push(peer.node);
        }
        self.follower_linked(ctx, peer.node, link, out);
        self.pump = true;
    }

    fn on_peer_down(&mut self, ctx: &Ctx, node: NodeId, link: LinkId, out: &mut Vec<Command>) {
        if self.link_to((node, link)).is_none() {
            return;
        }
        self.links.retain(|up| up.peer.node != node);
        self.rooms.retain(|(of, _)| *of != node);
        self.unfollow(node);
        self.follower_lost(ctx, node, out);
        self.fetches_lost(ctx, node, out);
        self.front_link_lost(node, link);
        self.pump = true;
    }

    fn on_message(
        &mut self,
        ctx: &Ctx,
        from: NodeId,
        link: LinkId,
        message: Message,
        out: &mut Vec<Command>,
    ) {
        match message {
            Message::Probe { epoch } => self.on_probe(ctx, from, link, epoch, out),
            Message::Adopt { epoch, after } => self.on_adopt(from, link, epoch, after, out),
            Message::Restart {
                epoch,
                version,
                from: at,
                history,
            } => {
                let base_version = version;
                self.on_restart(ctx, (from, link, epoch), base_version, at, history, out);
            }
            Message::Replicate { epoch, prev, record } => {
                self.on_replicate(ctx, (from, link, epoch), prev, record, out);
            }
            Message::Commit { epoch, commit } => self.on_commit((from, link, epoch), commit, out),
            Message::HashRequest { epoch, id, range, at } => {
                self.on_hash_request((from, link, epoch), id, range, at, out);
            }
            Message::Fetch { epoch, id, range, at } => self.on_fetch((from, link, epoch), id, range, at, out),
            Message::Fetched { epoch, id, data } => {
                self.on_fetched(ctx, (from, link, epoch), id, data, out);
            }
            Message::Confirm { epoch, round } => self.on_confirm((from, link, epoch), round, out),
            Message::Confirmed { epoch, round } => {
                self.on_confirmed(ctx, (from, link, epoch), round, out);
            }
            Message::Summary { epoch, log } => self.on_summary(ctx, from, link, epoch, &log, out),
            Message::Ack {
                epoch,
                durable,
                applied,
                received,
            } => self.on_ack(ctx, (from, link, epoch), [durable, applied, received], out),
            Message::Refused { newest } => self.on_refused(ctx, from, link, newest, out),
            Message::HashReply { epoch, id, digests } => {
                self.on_hash_reply(ctx, (from, epoch), id, digests, out)
            }
            Message::Forward { .. } => self.on_forward(ctx, from, link, message, out),
            Message::Forwarded { op, epoch, answer } => {
                self.on_forwarded((from, link, epoch), op, answer, out)
            }
            Message::Fate { op, epoch, name } => self.on_fate(ctx, (from, link, epoch), op, name, out),
            Message::FateIs { op, epoch, fate } => self.on_fate_is((from, link, epoch), op, fate, out),
            Message::Statuses { news } => self.on_statuses_from(ctx, (from, link), news, out),
        }
    }

    fn on_appended(&mut self, ctx: &Ctx, seq: JournalSeq, out: &mut Vec<Command>) {
        let mut moved = false;
        while let Some((next, lsn)) = self.journal.front().copied() {
            if next > seq.0 {
                break;
            }
            self.journal.pop_front();
            moved |= lsn > self.log.durable;
            self.log.durable = self.log.durable.max(lsn);
        }
        if moved {
            self.advance(ctx, out);
            self.ack_primary(out);
        }
    }

    fn on_applied(&mut self, io: IoToken, out: &mut Vec<Command>) {
        if let Some(Owner::Record(lsn)) = self.table.remove(io.0) {
            self.log.applied(lsn);
            self.trim();
        }
        self.tell_arrived(out);
        self.hash_waiting(out);
    }

    /// Gives newly committed records to the range table, and those that may be applied to the extent. From here on reads wait until that is
    /// done, so the command is done now: an answer need not wait for the extent. Records that came from elsewhere
    /// enter the table only now, and only so many at a time: a log's tail may be long, and the table is scanned. Nothing else
    /// looks for them there before: a primary serves only once its tail is applied (E5), and handing out is in lsn order.
    pub(crate) fn hand_committed(&mut self, out: &mut Vec<Command>) {
        while self.log.handed < self.log.committed {
            let lsn = self.log.handed.next();
            let Some(entry) = self.log.get(lsn) else {
                break;
            };
            let mut lock = entry.lock;
            if lock == 0 && !entry.record.body.ranges().is_empty() {
                if self.log.handed.0 - self.log.applied.0 >= APPLY_WINDOW {
                    break;
                }
                lock = self.enter_table(lsn);
            }
            self.log.handed = lsn;
            if lock == 0 {
                self.log.applied(lsn);
            } else if self.table.ready(lock) {
                self.emit_apply(lock, lsn, out);
            }
            if let Some(key) = self.log.get_mut(lsn).and_then(|entry| entry.op.take()) {
                self.finish(key, holdfast_types::OpOutcome::Done, out);
            }
        }
        self.finish_flushes(out);
    }

    /// A record's place in the range table.
    fn enter_table(&mut self, lsn: Lsn) -> u64 {
        let id = self.next_id();
        if let Some(entry) = self.log.get_mut(lsn) {
            let blocks = match &entry.record.body {
                api::RecordBody::Zero { ranges }
                | api::RecordBody::Resync {
                    ranges,
                    data: Some(_),
                } => Blocks::many(ranges),
                body => body
                    .ranges()
                    .first()
                    .map_or_else(Blocks::none, |range| Blocks::one(*range)),
            };
            entry.lock = id;
            self.table.add_ordered(id, lsn, blocks, Owner::Record(lsn));
        }
        id
    }

    fn emit_apply(&self, lock: u64, lsn: Lsn, out: &mut Vec<Command>) {
        if let Some(entry) = self.log.get(lsn) {
            let mut record = entry.record.clone();
            if fault::on(Fault::ResyncWithoutLsn) {
                self.overtake(&mut record);
            }
            let io = IoToken(lock);
            out.push(Command::Apply { io, record });
        }
    }

    /// A rule broken on purpose: blocks of a resync that came before this record land after it.
    fn overtake(&self, record: &mut Record) {
        let (lsn, block_bytes) = (
            record.pos.lsn,
            self.view.as_ref().map(|view| view.block_size.bytes()),
        );
        let (api::RecordBody::Write { range, data }, Some(bytes)) = (&mut record.body, block_bytes) else {
            return;
        };
        let bytes = u64::from(bytes);
        let mut new = data.to_vec();
        for older in self
            .log
            .behind(self.log.before().lsn)
            .filter(|older| older.pos.lsn < lsn)
        {
            let api::RecordBody::Resync {
                ranges,
                data: Some(old),
            } = &older.body
            else {
                continue;
            };
            let blocks = ranges.iter().flat_map(|range| range.lba().0..range.end().0);
            for (piece, lba) in old
                .chunks_exact(usize::try_from(bytes).unwrap_or(512))
                .zip(blocks)
            {
                if (range.lba().0..range.end().0).contains(&lba) {
                    let from = usize::try_from((lba - range.lba().0) * bytes).unwrap_or(0);
                    new[from..from + piece.len()].copy_from_slice(piece);
                }
            }
        }
        *data = new.into();
    }

    /// Puts a record that comes from elsewhere (the journal, a primary) at the end of the log.
    pub(crate) fn take_record(&mut self, record: Record, now: Mono) {
        let lsn = record.pos.lsn;
        self.replays.overwritten(record.pos, record.body.ranges());
        if let Some(name) = record.name {
            self.names.logged(name, lsn, now);
        }
        self.log.push(record, None, 0);
    }

    /// Starts what waited for a range and is free now.
    fn run_grants(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        while let Some((id, owner)) = self.table.grant() {
            match owner {
                Owner::Record(lsn) => self.emit_apply(id, lsn, out),
                Owner::Op(key) => self.op_granted(ctx, key, id, out),
                Owner::Compare { node, no } => self.compare_granted(node, no, id, out),
                Owner::HashFor { .. } => self.emit_hash(id, out),
                Owner::Repair => self.repair_granted(ctx, id, out),
                Owner::Dead => {
                    self.table.remove(id);
                }
            }
        }
    }

    /// Gives a slot up. It stays, owned by nobody, while I/O for it is under way.
    pub(crate) fn abandon(&mut self, id: u64, io: bool) {
        let io = self.end_fetch(id).unwrap_or(io || self.table.busy(id));
        if io {
            self.table.linger(id, Owner::Dead);
        } else {
            self.table.remove(id);
        }
    }

    pub(crate) fn on_failed(&mut self, ctx: &Ctx, reason: FenceReason, out: &mut Vec<Command>) {
        if self.fenced.is_none() {
            self.fenced = Some(reason);
            out.push(Command::Note(Note::Fenced { reason: Some(reason) }));
            self.tell_unfit(out);
            self.enter_role(ctx, out);
        }
    }
}
