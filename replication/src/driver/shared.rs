//! Events into cores, commands out of them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

use holdfast_journal::Completion;
use holdfast_types::{ExtentId, NodeId, OpOutcome};

use super::checkpoint::Chore;
use super::extent::{Extent, Scratch, Slot, Tag};
use super::fatal::EndsWithPanic;
use super::inbox::Inbox;
use super::io::{self, Job, What};
use super::space::Space;
use super::timer::Timer;
use super::{DriverConfig, Front, LeaseView, Proposer};
use crate::core::api::{
    Command, Event, FenceReason, Identity, IoToken, JournalSeq, LinkId, Message, Note, OpId, Request, Room,
    View,
};
use crate::net::{LinkEvents, Links};
use crate::store::{Damage, Devices, Entry, NodeJournal, NodeStore};

/// Messages kept for an extent that this node does not know yet.
const EARLY_MAX: usize = 256;

/// What all threads of a data node share.
pub(super) struct Shared {
    pub(super) me: Identity,
    pub(super) config: DriverConfig,
    pub(super) store: NodeStore,
    pub(super) extents: RwLock<HashMap<ExtentId, Arc<Extent>>>,
    pub(super) journal: OnceLock<NodeJournal<Tag>>,
    pub(super) links: OnceLock<Arc<Links>>,
    pub(super) timer: Timer,
    pub(super) applies: Inbox<Job>,
    pub(super) reads: Vec<Inbox<Job>>,
    pub(super) hashes: Inbox<Job>,
    pub(super) chores: Inbox<Chore>,
    pub(super) front: Arc<dyn Front>,
    pub(super) proposer: Arc<dyn Proposer>,
    pub(super) lease: Arc<dyn LeaseView>,
    /// Held while extents come and go, and while journal segments are given back.
    pub(super) lifecycle: Mutex<()>,
    /// Extents that were here in an earlier run and whose files are gone or broken.
    pub(super) lost: Mutex<HashSet<ExtentId>>,
    /// Why extents here are not what the cluster wants.
    pub(super) troubles: Mutex<BTreeMap<ExtentId, String>>,
    /// The block devices of this node.
    pub(super) devices: Devices,
    /// Messages that came before their extent did.
    early: Mutex<HashMap<ExtentId, Early>>,
    /// Writes that wait for room in the journal (J3).
    waiting: Mutex<VecDeque<(Arc<Extent>, OpId, Request)>>,
    /// The journal has too little room for new writes.
    pub(super) tight: AtomicBool,
    /// What this node's disk can take in, and how much space it has.
    pub(super) room: Mutex<(Room, Space)>,
    /// Records that wait for space on the disk, and what must not overtake them.
    pub(super) starved: Mutex<Vec<Job>>,
    /// Of the newest committed state that all extents were given.
    pub(super) revision: AtomicU64,
    /// Raised when a replica may have become fit or unfit to serve.
    pub(super) fitness: AtomicU64,
    stopped: AtomicBool,
    next_reader: AtomicUsize,
}

/// Messages with their sender and link.
type Early = Vec<(NodeId, LinkId, Message)>;

thread_local! {
    /// This thread is about to give events to cores again at once: what they cause leaves together (see [`Shared::together`]).
    static TOGETHER: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// While it lives, what cores have to send and to store is only queued by this thread; then it leaves, in one message for each peer and
/// one group for the journal. Must not be held while the thread waits for anything.
pub(super) struct Together<'a> {
    shared: &'a Shared,
    /// Another one on this thread outlives it.
    inner: bool,
}

impl Drop for Together<'_> {
    fn drop(&mut self) {
        if !self.inner {
            TOGETHER.set(false);
            self.shared.let_go();
        }
    }
}

/// What is done after the extent's lock is given back.
#[derive(Default)]
struct After {
    completes: Vec<(OpId, OpOutcome)>,
    reads: Vec<Job>,
    /// Messages wait to be sent, or entries to be written.
    leaves: bool,
}

pub(super) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        me: Identity,
        config: DriverConfig,
        store: NodeStore,
        devices: Devices,
        (front, proposer, lease): (Arc<dyn Front>, Arc<dyn Proposer>, Arc<dyn LeaseView>),
    ) -> Self {
        Self {
            me,
            store,
            extents: RwLock::default(),
            journal: OnceLock::new(),
            links: OnceLock::new(),
            timer: Timer::default(),
            applies: Inbox::new(),
            reads: (0..config.read_threads.max(1)).map(|_| Inbox::new()).collect(),
            hashes: Inbox::new(),
            chores: Inbox::new(),
            front,
            proposer,
            lease,
            lifecycle: Mutex::new(()),
            lost: Mutex::default(),
            troubles: Mutex::default(),
            devices,
            early: Mutex::default(),
            waiting: Mutex::default(),
            tight: AtomicBool::new(false),
            room: Mutex::default(),
            starved: Mutex::default(),
            revision: AtomicU64::new(0),
            fitness: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            next_reader: AtomicUsize::new(0),
            config,
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// From now on nothing is taken in and nothing is carried out.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.timer.close();
        self.applies.close(true);
        self.reads.iter().for_each(|inbox| inbox.close(true));
        self.hashes.close(true);
        self.chores.close(true);
    }

    pub(super) fn extent(&self, id: ExtentId) -> Option<Arc<Extent>> {
        let extents = self.extents.read().unwrap_or_else(PoisonError::into_inner);
        extents.get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Extent>> {
        let extents = self.extents.read().unwrap_or_else(PoisonError::into_inner);
        extents.values().cloned().collect()
    }

    fn links(&self) -> Option<&Arc<Links>> {
        self.links.get()
    }

    /// Gives events to an extent's core, in order, and carries out what follows. Every event of this node goes this way.
    pub(super) fn drive(self: &Arc<Self>, extent: &Arc<Extent>, events: impl IntoIterator<Item = Event>) {
        let mut after = After::default();
        self.step(extent, events, &mut after);
        loop {
            if std::mem::take(&mut after.leaves) && !TOGETHER.get() {
                self.let_go();
            }
            for (op, outcome) in after.completes.drain(..) {
                self.front.complete(extent.id, op, outcome);
            }
            if after.reads.is_empty() {
                return;
            }
            let events: Vec<Event> = after
                .reads
                .drain(..)
                .filter_map(|job| self.read_now(job))
                .collect();
            if events.is_empty() {
                return;
            }
            self.step(extent, events, &mut after);
        }
    }

    /// Sends and writes what is queued. First what goes to peers, whose part takes longer.
    fn let_go(&self) {
        if let Some(links) = self.links() {
            links.flush();
        }
        if let Some(journal) = self.journal.get() {
            journal.wake();
        }
    }

    /// For who gives several events to cores in a row, on this thread.
    pub(super) fn together(&self) -> Together<'_> {
        let inner = TOGETHER.replace(true);
        Together { shared: self, inner }
    }

    /// As [`Shared::together`] without a guard.
    pub(super) fn hold_together(&self) {
        TOGETHER.set(true);
    }

    /// The end of [`Shared::hold_together`].
    pub(super) fn release_together(&self) {
        TOGETHER.set(false);
        self.let_go();
    }

    fn step(
        self: &Arc<Self>,
        extent: &Arc<Extent>,
        events: impl IntoIterator<Item = Event>,
        after: &mut After,
    ) {
        let mut slot = extent.lock();
        // Looked at under the lock: who stops the node waits for it to come free, and nothing happens afterwards.
        if self.stopped() {
            return;
        }
        // Also under the lock, so that time never goes back for this core.
        let ctx = self.lease.ctx();
        for event in events {
            if let Event::Failed { reason } = event {
                self.failed(extent, &mut slot, reason);
            }
            let Slot { core, scratch, .. } = &mut *slot;
            core.handle(&ctx, event, &mut scratch.commands);
        }
        self.execute(extent, &mut slot, after);
        self.timer.arm(extent, slot.core.deadline());
    }

    /// J2: final for this replica, and known after a restart.
    fn failed(&self, extent: &Arc<Extent>, slot: &mut Slot, reason: FenceReason) {
        slot.fenced.get_or_insert(reason);
        if !extent.failed.swap(true, Ordering::AcqRel) {
            let damage = match reason {
                FenceReason::Journal => Damage::Journal,
                FenceReason::Extent => Damage::Extent,
            };
            self.chores.push([Chore::Mark(Arc::clone(extent), damage)]);
        }
    }

    fn execute(self: &Arc<Self>, extent: &Arc<Extent>, slot: &mut Slot, after: &mut After) {
        let Scratch {
            mut commands,
            mut sends,
            mut applies,
        } = std::mem::take(&mut slot.scratch);
        after.leaves |= !commands.is_empty();
        for command in commands.drain(..) {
            match command {
                Command::Append { seq, record } => self.append(extent, slot, seq, Entry::Record(record)),
                Command::Truncate { seq, after } => {
                    if let Some(file) = extent.file.get() {
                        file.dropped_behind(after.lsn);
                    }
                    self.append(extent, slot, seq, Entry::Truncate { after });
                }
                Command::Restart {
                    seq,
                    base,
                    from,
                    history,
                } => {
                    slot.restarts += 1;
                    // Behind everything that was to be applied before it.
                    if slot.gate.is_none() {
                        slot.gate = Some(VecDeque::new());
                        applies.push(job(extent, IoToken(0), What::Barrier));
                    }
                    self.append(extent, slot, seq, Entry::Restart { base, from, history });
                }
                Command::ClearBase { seq } => self.append(extent, slot, seq, Entry::ClearBase),
                Command::Apply { io, record } => applies.push(job(extent, io, What::Apply(record))),
                Command::Read { io, range } => after.reads.push(job(extent, io, What::Read(range))),
                Command::Allocated { io, range } => {
                    self.reads[0].push([job(extent, io, What::Allocated(range))]);
                }
                Command::Confirm { round } => self.proposer.confirm(extent.id, round),
                Command::Map { io, from, runs } => after.reads.push(job(extent, io, What::Map(from, runs))),
                Command::Hash { io, range, renew } => {
                    let piece = self.config.core.resync_piece_bytes;
                    self.hashes
                        .push([job(extent, io, What::Hash { range, piece, renew })]);
                }
                Command::Changed { io, since } => self.hashes.push([job(extent, io, What::Changed(since))]),
                Command::Send { to, link, message } => sends.push((to, link, message)),
                Command::ResetLink { node, link } => {
                    self.send(extent.id, &mut sends);
                    tracing::warn!(extent = %extent.id, peer = %node, link = link.0, "link reset");
                    if let Some(links) = self.links() {
                        links.reset(node, link);
                    }
                }
                Command::Propose(proposal) => self.timer.propose(extent.id, proposal, self.lease.ctx().now),
                Command::Complete { op, outcome } => after.completes.push((op, outcome)),
                Command::Note(note) => self.noted(extent, &note),
            }
        }
        self.send(extent.id, &mut sends);
        if !applies.is_empty() {
            self.applies.push(applies.drain(..));
        }
        slot.scratch = Scratch {
            commands,
            sends,
            applies,
        };
    }

    fn append(&self, extent: &Arc<Extent>, slot: &mut Slot, seq: JournalSeq, entry: Entry) {
        match &mut slot.gate {
            Some(gate) => gate.push_back((seq, entry)),
            None => self.journal(extent, seq, entry),
        }
    }

    fn journal(&self, extent: &Arc<Extent>, seq: JournalSeq, entry: Entry) {
        let Some(journal) = self.journal.get() else { return };
        let heals = matches!(entry, Entry::Restart { .. });
        let tag = Tag::Core {
            extent: Arc::clone(extent),
            seq,
            heals,
        };
        journal.append_quietly(&extent.place, entry, false, tag);
    }

    /// The extent was flushed: the restart of its log may be written, and what follows it up to the next one.
    pub(super) fn open_gate(&self, extent: &Arc<Extent>) {
        // Its end comes after that of the lock.
        let _together = self.together();
        let mut slot = extent.lock();
        let Some(mut gate) = slot.gate.take() else { return };
        if let Some((seq, entry)) = gate.pop_front() {
            self.journal(extent, seq, entry);
        }
        while let Some((seq, entry)) = gate.pop_front() {
            if matches!(entry, Entry::Restart { .. }) {
                gate.push_front((seq, entry));
                slot.gate = Some(gate);
                self.applies.push([job(extent, IoToken(0), What::Barrier)]);
                return;
            }
            self.journal(extent, seq, entry);
        }
    }

    /// Queues messages, all of one peer at a time: one lock.
    fn send(&self, extent: ExtentId, sends: &mut Vec<(NodeId, LinkId, Message)>) {
        let Some(links) = self.links() else {
            sends.clear();
            return;
        };
        while let Some((to, link)) = sends.first().map(|(to, link, _)| (*to, *link)) {
            let same = |other: &(NodeId, LinkId, Message)| other.0 == to && other.1 == link;
            if sends.iter().all(same) {
                links.send(to, link, sends.drain(..).map(|(_, _, message)| (extent, message)));
            } else {
                let some: Vec<_> = sends.extract_if(.., |other| same(other)).collect();
                links.send(
                    to,
                    link,
                    some.into_iter().map(|(_, _, message)| (extent, message)),
                );
            }
        }
    }

    /// Answers a read from the page cache if that needs no wait, else gives it to a thread that may wait.
    fn read_now(&self, job: Job) -> Option<Event> {
        if let (What::Read(range), Some(file)) = (&job.what, job.extent.file.get())
            && range.byte_len(file.block_size()) <= self.config.inline_read_bytes
            && let Ok(Some(data)) = file.try_read(*range)
        {
            return Some(Event::ReadDone { io: job.io, data });
        }
        let next = self.next_reader.fetch_add(1, Ordering::Relaxed) % self.reads.len();
        self.reads[next].push([job]);
        None
    }

    /// The journal reports, on its own thread.
    pub(super) fn journaled(self: &Arc<Self>, completion: Completion<Tag>) {
        match completion {
            Completion::Durable { tags, .. } => {
                let mut stable: Vec<(Arc<Extent>, JournalSeq)> = Vec::new();
                for tag in tags {
                    match tag {
                        Tag::Core { extent, seq, heals } => {
                            if heals {
                                self.chores.push([Chore::Heal(Arc::clone(&extent))]);
                            }
                            match stable.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &extent)) {
                                Some(known) => known.1 = seq,
                                None => stable.push((extent, seq)),
                            }
                        }
                        // Whoever waited may have given up.
                        Tag::Told(tell) => drop(tell.send(())),
                    }
                }
                let together = self.together();
                for (extent, seq) in stable {
                    self.drive(&extent, [Event::Appended { seq }]);
                }
                drop(together);
                if let Some(journal) = self.journal.get() {
                    journal.pump();
                }
            }
            Completion::Failed { error, .. } => {
                tracing::error!(%error, "the journal has failed: every replica of this node is fenced");
                let reason = FenceReason::Journal;
                for extent in self.all() {
                    self.drive(&extent, [Event::Failed { reason }]);
                }
            }
        }
    }

    /// New writes had better wait: the journal has too little room (J3), or a peer takes too little off its link.
    fn crowded(&self) -> bool {
        self.tight.load(Ordering::Relaxed) || self.links().is_some_and(|links| links.congested())
    }

    /// Takes a command in, or has it wait if it writes and the node is crowded.
    pub(super) fn submit(self: &Arc<Self>, extent: &Arc<Extent>, op: OpId, request: Request) {
        if request.op.writes() && self.crowded() {
            guard(&self.waiting).push_back((Arc::clone(extent), op, request));
            self.timer.watch_waiting();
            return;
        }
        self.drive(extent, [Event::Submit { op, request }]);
    }

    /// Lets waiting writes in while there is room; and those that have waited too long, so that the core ends them (W1).
    pub(super) fn admit_waiting(self: &Arc<Self>) {
        let now = self.lease.ctx().now;
        loop {
            let next = {
                let mut waiting = guard(&self.waiting);
                let overdue = |request: &Request| now.since(request.received) >= self.config.core.hold_limit;
                let ready =
                    !self.crowded() || waiting.front().is_some_and(|(_, _, request)| overdue(request));
                if !ready && !waiting.is_empty() {
                    self.timer.watch_waiting();
                }
                if ready { waiting.pop_front() } else { None }
            };
            let Some((extent, op, request)) = next else { return };
            self.drive(&extent, [Event::Submit { op, request }]);
        }
    }

    /// Takes waiting writes of an extent out that match, to be given to the core after all: an abort must find them there.
    pub(super) fn flush_waiting(self: &Arc<Self>, extent: &Arc<Extent>) {
        let mine: VecDeque<(Arc<Extent>, OpId, Request)> = {
            let mut waiting = guard(&self.waiting);
            let all = std::mem::take(&mut *waiting).into_iter();
            let (mine, others) = all.partition(|(other, _, _)| Arc::ptr_eq(other, extent));
            *waiting = others;
            mine
        };
        if mine.is_empty() {
            return;
        }
        let submits = mine
            .into_iter()
            .map(|(_, op, request)| Event::Submit { op, request });
        self.drive(extent, submits);
    }

    /// The links are up as given: what an extent that is new here has to hear first, and what came for it before.
    pub(super) fn catch_up(
        self: &Arc<Self>,
        extent: &Arc<Extent>,
        view: &Arc<View>,
        links: &[(Identity, LinkId)],
    ) {
        let ups = links.iter().map(|(peer, link)| Event::PeerUp {
            peer: *peer,
            link: *link,
        });
        self.drive(extent, ups);
        extent.lock().view = Some(Arc::clone(view));
        self.drive(extent, [Event::View(Arc::clone(view))]);
        let rooms: Vec<Event> = std::iter::once((self.me.node, guard(&self.room).0))
            .chain(links.iter().map(|(peer, _)| {
                let known = self.links().map(|own| own.room_of(peer.node));
                (peer.node, known.unwrap_or_default())
            }))
            .filter(|(_, room)| *room != Room::default())
            .map(|(node, room)| Event::Room { node, room })
            .collect();
        self.drive(extent, rooms);
        let early = guard(&self.early).remove(&extent.id).unwrap_or_default();
        if early.len() >= EARLY_MAX {
            // Some were dropped: a link that lost a message is down.
            if let Some(own) = self.links() {
                links.iter().for_each(|(peer, link)| own.reset(peer.node, *link));
            }
            return;
        }
        let messages = early
            .into_iter()
            .filter(|(from, link, _)| links.iter().any(|(peer, up)| peer.node == *from && up == link))
            .map(|(from, link, message)| Event::Message { from, link, message });
        self.drive(extent, messages);
    }

    fn keep_early(&self, extent: ExtentId, from: NodeId, link: LinkId, message: Message) {
        let mut early = guard(&self.early);
        let kept = early.entry(extent).or_default();
        if kept.len() < EARLY_MAX {
            kept.push((from, link, message));
        }
    }

    fn link_changed(self: &Arc<Self>, node: NodeId, event: &Event) {
        for kept in guard(&self.early).values_mut() {
            kept.retain(|(from, _, _)| *from != node);
        }
        for extent in self.all() {
            self.drive(&extent, [event.clone()]);
        }
    }
}

fn job(extent: &Arc<Extent>, io: IoToken, what: What) -> Job {
    Job {
        extent: Arc::clone(extent),
        io,
        what,
    }
}

impl Shared {
    /// Something happened that people hear of, and that other threads may have to act upon.
    fn noted(&self, extent: &Arc<Extent>, note: &Note) {
        match note {
            Note::Fenced { .. } | Note::Restarted { .. } => {
                self.fitness.fetch_add(1, Ordering::Release);
            }
            Note::Scrubbed { outcome } => {
                extent.scrub_owed.store(false, Ordering::Relaxed);
                self.chores.push([Chore::Scrubbed(Arc::clone(extent), *outcome)]);
            }
            _ => {}
        }
        super::told::tell(extent.id, note);
    }
}

/// The node's ears: links outlive no node.
pub(super) struct Ears(pub(super) Weak<Shared>);

/// Bytes of entries that wait outside the journal; a peer that sends on all the same is cut off.
const WAITING_MAX: usize = 512 << 20;

impl Shared {
    pub(super) fn journal_is_tight(&self) -> bool {
        let journal = self.journal.get();
        journal.is_some_and(|journal| journal.fill_percent() >= self.config.admit_below_percent)
    }

    /// Peers are told to slow down long before this.
    fn bound_waiting(&self, from: NodeId, link: LinkId) {
        let waiting = self.journal.get().map_or(0, |journal| journal.waiting_bytes());
        if waiting > WAITING_MAX
            && let Some(links) = self.links()
        {
            tracing::error!(peer = %from, waiting, "the peer sends more than it was told that there is room for: its link is reset");
            links.reset(from, link);
        }
    }

    /// Sees what this node's disk can take in, and tells all who must know if that has changed.
    pub(super) fn look_at_room(self: &Arc<Self>) {
        let space = Space::of(&self.store.extents());
        let news = {
            let mut known = guard(&self.room);
            let room = Room {
                crowded: self.journal_is_tight(),
                low: space.is_low(known.0.low),
                full: !guard(&self.starved).is_empty(),
            };
            let news = (room != known.0).then_some(room);
            *known = (room, space);
            news
        };
        let Some(room) = news else { return };
        tracing::info!(?room, ?space, "what this node's disk can take in");
        self.tight.store(room.crowded, Ordering::Relaxed);
        if let Some(links) = self.links() {
            links.say(room);
        }
        let node = self.me.node;
        for extent in self.all() {
            self.drive(&extent, [Event::Room { node, room }]);
        }
        if !room.crowded {
            self.admit_waiting();
        }
    }
}

impl LinkEvents for Ears {
    fn link_up(&self, peer: Identity, link: LinkId) {
        if let Some(shared) = self.0.upgrade() {
            shared.link_changed(peer.node, &Event::PeerUp { peer, link });
        }
    }

    fn link_down(&self, node: NodeId, link: LinkId) {
        if let Some(shared) = self.0.upgrade() {
            shared.link_changed(node, &Event::PeerDown { node, link });
        }
    }

    fn receive(&self, from: NodeId, link: LinkId, messages: Vec<(ExtentId, Message)>) {
        let Some(shared) = self.0.upgrade() else { return };
        let together = shared.together();
        let mut messages = messages.into_iter().peekable();
        while let Some((id, first)) = messages.next() {
            let Some(extent) = shared.extent(id) else {
                shared.keep_early(id, from, link, first);
                continue;
            };
            let mut events = vec![Event::Message {
                from,
                link,
                message: first,
            }];
            while let Some((_, message)) = messages.next_if(|(next, _)| *next == id) {
                events.push(Event::Message { from, link, message });
            }
            shared.drive(&extent, events);
        }
        drop(together);
        shared.bound_waiting(from, link);
        // Peers hear at once when they have to slow down (J3); that they need not any more, they hear from the checkpointer.
        if shared.journal_is_tight() && !guard(&shared.room).0.crowded {
            shared.look_at_room();
        }
    }

    fn room(&self, node: NodeId, room: Room) {
        if let Some(shared) = self.0.upgrade() {
            tracing::info!(peer = %node, ?room, "a peer's disk");
            for extent in shared.all() {
                shared.drive(&extent, [Event::Room { node, room }]);
            }
        }
    }
}

/// A thread that runs `body` with what the node shares.
pub(super) fn spawn(
    name: &'static str,
    shared: &Arc<Shared>,
    body: impl FnOnce(&Arc<Shared>) + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let ends = EndsWithPanic(name);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ends = ends;
        body(&shared);
    })
}

/// Events that are told together: one slow batch must not keep the first answers waiting.
const BATCH_EVENTS: usize = 64;
/// How much the hash thread stands back where processors are short.
const HASH_NICE: i32 = 5;

/// The threads that touch extents.
pub(super) fn spawn_io(shared: &Arc<Shared>) -> std::io::Result<Vec<std::thread::JoinHandle<()>>> {
    let mut threads = vec![
        spawn("extent-apply", shared, |shared| {
            io::serve(shared, &shared.applies, BATCH_EVENTS)
        })?,
        spawn("extent-hash", shared, |shared| {
            // Of this thread alone: initiators' commands come first. Where that is refused, nothing is lost.
            let _ = rustix::process::setpriority_process(None, HASH_NICE);
            // A range is held until its hash is told.
            io::serve(shared, &shared.hashes, 1);
        })?,
    ];
    for index in 0..shared.reads.len() {
        threads.push(spawn("extent-read", shared, move |shared| {
            io::serve(shared, &shared.reads[index], BATCH_EVENTS);
        })?);
    }
    Ok(threads)
}
