//! One link: what waits for a peer, and the connections, its *lanes*, that carry it there.
//!
//! A link with one lane ends with it. One with several keeps what it sent until the peer has told that it received it, and sends that again
//! over the lane that it moves to; whoever receives drops what it has already, by the numbers of the batches. So a move loses, doubles and
//! reorders nothing, and the cores hear nothing of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_proto::replication as pb;
use tokio::sync::Notify;

use super::frame;
use super::hello::Hello;
use super::outbox::Outbox;
use crate::core::api::{Identity, LinkId, Room};

/// More than this is not kept for the next batch.
const WIRE_KEEP_BYTES: usize = 2 << 20;

/// What a connection must be able to do besides carrying batches: the seam between [`Links`](super::Links) and a transport.
pub trait Carrier: Send + Sync + std::fmt::Debug {
    /// Sends as much of `bytes` as goes without waiting, and says how much that was.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::WouldBlock`]: nothing now, more once the connection has room. All others are the end of the connection.
    fn send(&self, bytes: &[u8]) -> std::io::Result<usize>;
    /// Ends the connection at once, so that nothing that was sent and has not arrived ever arrives.
    fn abort(&self);
}

/// A connection that carries a link, alone or as one of several.
#[derive(Debug)]
pub struct Lane {
    number: u64,
    path: usize,
    carrier: Box<dyn Carrier>,
    /// The connection had no room: its task sends on once it has.
    blocked: Notify,
    /// This end cut it off, since nothing was heard.
    is_given_up: AtomicBool,
}

impl Lane {
    /// Which of the pairs of addresses it runs over, from 0.
    pub fn path(&self) -> usize {
        self.path
    }

    /// When the connection has no room for what there is to send: then [`Link::room_on`], once it has.
    pub(crate) async fn blocked(&self) {
        self.blocked.notified().await;
    }

    /// Ends the connection at once.
    pub(crate) fn abort(&self) {
        self.carrier.abort();
    }

    /// The same, because nothing was heard over it.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
        self.abort();
    }

    /// Whether it was ended for that.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }
}

/// One link.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    peer: Identity,
    /// Whether it may have several lanes.
    keeps: bool,
    outbox: Outbox,
    wire: Mutex<Wire>,
    /// All connections, for their end. Taken after `wire` where both are.
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// What the peer said last of its disk.
    pub(super) room: Mutex<Room>,
    /// From where batches are taken.
    source: Mutex<Source>,
    /// Batches that came.
    received: AtomicU64,
    /// Batches that the peer told it has received.
    acked: AtomicU64,
    /// Bytes that are kept because the peer may want them again.
    kept_bytes: AtomicUsize,
    /// No batch is handed on any more.
    ended: AtomicBool,
    /// Its end was told to people.
    mourned: AtomicBool,
}

/// The lane whose batches count, since the peer said so on it.
#[derive(Debug)]
struct Source {
    lane: u64,
    turn: u64,
}

/// Frames on their way into sockets. The used lane's are only touched by who sends, and by who moves the link.
#[derive(Debug, Default)]
struct Wire {
    outs: Vec<Out>,
    /// Number of the lane that batches go over.
    used: Option<u64>,
    /// Moves so far.
    turn: u64,
    /// Whoever was sender could not go on: whoever finds room, or a lane, is sender.
    waits: bool,
    kept: Kept,
}

/// What goes into one lane: whole frames, but for the beginning of the first one that was sent already.
#[derive(Debug)]
struct Out {
    lane: Arc<Lane>,
    bytes: Vec<u8>,
    /// Bytes of it that were sent.
    sent: usize,
}

/// Frames that were sent and may be wanted again.
#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// Number and length of each.
    frames: VecDeque<(u64, usize)>,
}

/// What became of a batch that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It goes on.
    Fine,
    /// The link has ended, and takes nothing.
    Ended,
    /// The batch of this number is missing: nothing was taken.
    Missing(u64),
}

/// What sending into a socket came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// It has no room for the rest.
    Blocked,
    /// The connection is over.
    Broken,
}

impl Kept {
    fn put(&mut self, number: u64, frame: &[u8]) {
        self.bytes.extend(frame);
        self.frames.push_back((number, frame.len()));
    }

    /// Drops what has arrived.
    fn drop_until(&mut self, acked: u64) {
        let mut bytes = 0;
        while let Some((number, len)) = self.frames.front()
            && *number <= acked
        {
            bytes += len;
            self.frames.pop_front();
        }
        if bytes > 0 {
            self.bytes.drain(..bytes);
            if self.bytes.capacity() > 4 * WIRE_KEEP_BYTES && self.bytes.len() < WIRE_KEEP_BYTES {
                self.bytes.shrink_to(WIRE_KEEP_BYTES);
            }
        }
    }
}

impl Out {
    fn flush(&mut self) -> Sent {
        while self.sent < self.bytes.len() {
            match self.lane.carrier.send(&self.bytes[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.lane.blocked.notify_one();
                    return Sent::Blocked;
                }
                Err(error) => {
                    tracing::debug!(lane = self.lane.number, %error, "cannot send");
                    return Sent::Broken;
                }
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(WIRE_KEEP_BYTES);
        self.sent = 0;
        Sent::All
    }
}

impl Wire {
    fn out(&mut self, lane: u64) -> Option<&mut Out> {
        self.outs.iter_mut().find(|out| out.lane.number == lane)
    }

    fn used(&mut self) -> Option<&mut Out> {
        self.out(self.used?)
    }
}

fn new_lane(hello: &Hello, carrier: Box<dyn Carrier>) -> Arc<Lane> {
    Arc::new(Lane {
        number: hello.lane.lane,
        path: hello.lane.path,
        carrier,
        blocked: Notify::new(),
        is_given_up: AtomicBool::new(false),
    })
}

impl Link {
    /// A link that the hello begins, and its first lane.
    pub(super) fn begin(hello: &Hello, carrier: Box<dyn Carrier>, room: Room) -> (Arc<Self>, Arc<Lane>) {
        let lane = new_lane(hello, carrier);
        let link = Self {
            id: hello.link,
            peer: hello.from,
            keeps: hello.lane.paths > 1,
            outbox: Outbox::default(),
            wire: Mutex::default(),
            lanes: Mutex::default(),
            room: Mutex::default(),
            source: Mutex::new(Source {
                lane: lane.number,
                turn: 0,
            }),
            received: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            kept_bytes: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            mourned: AtomicBool::new(false),
        };
        link.outbox.say(room);
        link.wire().used = Some(lane.number);
        link.attach(Arc::clone(&lane));
        (Arc::new(link), lane)
    }

    /// Another lane, in place of any older one over the same path. `None`: the link has ended, or knows a newer one.
    pub(super) fn join(&self, hello: &Hello, carrier: Box<dyn Carrier>) -> Option<Arc<Lane>> {
        let lane = new_lane(hello, carrier);
        if self.ended() {
            return None;
        }
        if let Some(old) = self.lane_on(lane.path) {
            if old.number >= lane.number {
                return None;
            }
            old.abort();
        }
        self.attach(Arc::clone(&lane));
        if self.ended() {
            // Perhaps it came too late to be ended with the others.
            lane.abort();
        }
        Some(lane)
    }

    fn attach(&self, lane: Arc<Lane>) {
        self.wire().outs.push(Out {
            lane: Arc::clone(&lane),
            bytes: Vec::new(),
            sent: 0,
        });
        self.lanes().push(lane);
    }

    /// The lane's connection is over. How many lanes are left.
    pub(super) fn detach(&self, lane: &Lane) -> usize {
        let mut wire = self.wire();
        wire.outs.retain(|out| out.lane.number != lane.number);
        if wire.used == Some(lane.number) {
            wire.used = None;
        }
        drop(wire);
        let mut lanes = self.lanes();
        lanes.retain(|other| other.number != lane.number);
        lanes.len()
    }

    /// Its number.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// The other end.
    pub fn peer(&self) -> Identity {
        self.peer
    }

    /// Whether it may have several lanes.
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whether it was ended.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// True once, for who tells people of its end.
    pub(crate) fn mourn(&self) -> bool {
        !self.mourned.swap(true, Ordering::AcqRel)
    }

    /// The newest lane over a path.
    pub(super) fn lane_on(&self, path: usize) -> Option<Arc<Lane>> {
        let lanes = self.lanes();
        let on_path = lanes.iter().filter(|lane| lane.path == path);
        on_path.max_by_key(|lane| lane.number).cloned()
    }

    /// Bytes that are kept because the peer may want them again.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits, from the caller's thread, unless somebody does so already. Never waits.
    pub(crate) fn flush(&self) {
        if self.outbox.begin() {
            self.send_on(&mut self.wire());
        }
    }

    /// For whoever opens the link: sends `first` over its lane, then what waits, and is sender no more.
    pub(crate) fn open(&self, lane: &Lane, first: &pb::Frame) {
        let mut wire = self.wire();
        if let Some(out) = wire.out(lane.number) {
            frame::put(first, &mut out.bytes);
        }
        self.send_on(&mut wire);
    }

    /// The same where the first frame was sent already.
    pub(crate) fn start(&self) {
        self.send_on(&mut self.wire());
    }

    /// Sends a frame over a lane that is not in use (yet).
    pub(crate) fn greet(&self, lane: &Lane, first: &pb::Frame) {
        let mut wire = self.wire();
        if let Some(out) = wire.out(lane.number) {
            frame::put(first, &mut out.bytes);
            out.flush();
        }
    }

    /// Says that it lives, and how far it is, over a lane of several.
    pub(crate) fn beat(&self, lane: &Lane) {
        let mut wire = self.wire();
        let turn = if wire.used == Some(lane.number) {
            wire.turn
        } else {
            0
        };
        let received = self.received.load(Ordering::Acquire);
        self.prune(&mut wire);
        if let Some(out) = wire.out(lane.number) {
            // Where something waits for room, that says it as well.
            if out.bytes.is_empty() {
                frame::put(&frame::beat(turn, received), &mut out.bytes);
            }
            out.flush();
        }
    }

    /// For the task of a lane that had no room and has it now.
    pub(crate) fn room_on(&self, lane: &Lane) {
        let mut wire = self.wire();
        if wire.used == Some(lane.number) && std::mem::take(&mut wire.waits) {
            self.send_on(&mut wire);
        } else if let Some(out) = wire.out(lane.number) {
            out.flush();
        }
    }

    /// Sends over `lane` from now on, at first what the peer may have missed. With `turn` the peer has moved to it, without the peer is
    /// told to. False if it has moved on already, or the lane is gone.
    pub(super) fn move_to(&self, lane: &Lane, turn: Option<u64>) -> bool {
        let mut wire = self.wire();
        let turn = turn.unwrap_or(wire.turn + 1);
        if turn <= wire.turn || wire.out(lane.number).is_none() || self.ended() {
            return false;
        }
        (wire.turn, wire.used) = (turn, Some(lane.number));
        self.prune(&mut wire);
        let Wire { outs, kept, .. } = &mut *wire;
        if let Some(out) = outs.iter_mut().find(|out| out.lane.number == lane.number) {
            let received = self.received.load(Ordering::Acquire);
            frame::put(&frame::beat(turn, received), &mut out.bytes);
            let (first, second) = kept.bytes.as_slices();
            out.bytes.extend_from_slice(first);
            out.bytes.extend_from_slice(second);
        }
        // Unless somebody is about to send anyway.
        if std::mem::take(&mut wire.waits) || self.outbox.seize() {
            self.send_on(&mut wire);
        }
        true
    }

    fn prune(&self, wire: &mut Wire) {
        wire.kept.drop_until(self.acked.load(Ordering::Acquire));
        self.kept_bytes.store(wire.kept.bytes.len(), Ordering::Relaxed);
    }

    /// For the sender: goes on, and is sender no more when all is sent.
    fn send_on(&self, wire: &mut Wire) {
        loop {
            let sent = wire.used().map(Out::flush);
            match sent {
                Some(Sent::All) => {}
                Some(Sent::Broken) if !self.keeps => {
                    self.end();
                    return;
                }
                // What was kept goes over the next lane.
                Some(Sent::Broken) | None => {
                    if let Some(out) = wire.used() {
                        out.lane.abort();
                    }
                    (wire.used, wire.waits) = (None, true);
                    return;
                }
                Some(Sent::Blocked) => {
                    wire.waits = true;
                    return;
                }
            }
            let Some(batch) = self.outbox.next() else { return };
            let received = if self.keeps {
                self.prune(wire);
                self.received.load(Ordering::Acquire)
            } else {
                0
            };
            let number = batch.number;
            let framed = frame::batch(number, batch.room, batch.messages, received);
            let Wire { outs, kept, used, .. } = wire;
            if let Some(out) = outs.iter_mut().find(|out| Some(out.lane.number) == *used) {
                let start = out.bytes.len();
                frame::put(&framed, &mut out.bytes);
                if self.keeps {
                    kept.put(number, &out.bytes[start..]);
                    self.kept_bytes.store(kept.bytes.len(), Ordering::Relaxed);
                }
            }
        }
    }

    /// The peer has told over `lane` how far it is, and perhaps that it moved there. The turn, if that is news.
    pub(super) fn heard(&self, lane: &Lane, turn: u64, received: u64) -> Option<u64> {
        self.acked.fetch_max(received, Ordering::AcqRel);
        let mut source = self.source();
        let news = turn > source.turn;
        if news {
            *source = Source {
                lane: lane.number,
                turn,
            };
        }
        drop(source);
        news.then_some(turn)
    }

    /// So many batches from number `first` on have come over `lane`. How many of them, from the first on, are there already; with the
    /// peer's order held.
    pub(super) fn take(&self, lane: &Lane, first: u64, count: u64) -> Result<u64, Taken> {
        if self.source().lane != lane.number {
            return Ok(count);
        }
        let known = self.received.load(Ordering::Acquire);
        let next = known.saturating_add(1);
        // Without moves nothing comes twice.
        if first > next || (first < next && !self.keeps) {
            return Err(Taken::Missing(next));
        }
        let again = (next - first).min(count);
        self.received
            .store(known.saturating_add(count - again), Ordering::Release);
        Ok(again)
    }

    /// Ends it at once.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.outbox.close();
        for lane in &*self.lanes() {
            lane.abort();
        }
    }
}
