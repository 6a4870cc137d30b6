//! A connection that carries a link, from its handshake on.
//!
//! There is one task that reads and drives the cores with what came, and one that wakes up only to see whether the peer still speaks, to
//! say something where nothing else is said, and to send on where the socket had no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use holdfast_proto::replication as pb;
use holdfast_types::EVENTS;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::frame;
use super::link::{Lane, Link, Taken};
use super::links::{Links, Received};
use super::paths::TICK;
use super::socket::{Reading, Socket};
use super::tcp::{NetConfig, Shared};
use super::wire;

/// Read buffers grow by this much.
const READ_BYTES: usize = 256 << 10;
/// Reads in a row before other tasks get their turn.
const READS_MAX: usize = 64;

/// A connection, and what came over it that nobody has looked at.
pub(super) type Stream = (Reading, BytesMut, Arc<Socket>);

/// What the reading task shows the other one.
#[derive(Debug, Default)]
struct Heard {
    reads: AtomicU64,
    /// It is at work on what it read: whatever came meanwhile was not looked at.
    busy: AtomicBool,
}

/// Hands batches on until the connection ends, one way or the other.
pub(super) async fn serve_lane(shared: Arc<Shared>, stream: Stream, link: Arc<Link>, lane: Arc<Lane>) {
    let heard = Arc::new(Heard::default());
    let socket = Arc::clone(&stream.2);
    let mut keeper = JoinSet::new();
    let (kept, on, heard_by) = (Arc::clone(&link), Arc::clone(&lane), Arc::clone(&heard));
    if link.keeps() {
        keeper.spawn(keep_one(Arc::clone(&shared), kept, on, socket, heard_by));
    } else {
        keeper.spawn(keep(kept, on, socket, heard_by, shared.config.clone()));
    }
    let mut why = read(&shared, stream, &link, &lane, &heard).await;
    if lane.is_given_up() {
        "it does not answer".clone_into(&mut why);
    }
    let (peer, number) = (link.peer().node, link.id().0);
    lane.abort();
    if shared.links.lane_down(&link, &lane, &why) {
        if link.mourn() {
            tracing::warn!(target: EVENTS, what = "link", %peer, link = number, "lost the replication link to node {peer}: {why}");
        }
        shared.links.down(&link);
    } else {
        let path = lane.path() + 1;
        tracing::info!(target: EVENTS, what = "link", %peer, link = number, "lost link {path} of replication with node {peer}: {why}");
    }
}

/// Counts what was read in `heard`.
async fn read(
    shared: &Shared,
    (mut reading, mut buffer, socket): Stream,
    link: &Link,
    lane: &Lane,
    heard: &Heard,
) -> String {
    let mut frames = Frames::default();
    let mut reads = 0;
    loop {
        heard.busy.store(true, Ordering::Relaxed);
        let took = take_all(&shared.links, &mut frames, &mut buffer, link, lane);
        heard.busy.store(false, Ordering::Relaxed);
        if let Err(why) = took {
            return why;
        }
        let missing = frame::wanted(&buffer).saturating_sub(buffer.len());
        if buffer.capacity() - buffer.len() < missing.max(4096) {
            buffer.reserve(missing.max(READ_BYTES));
        }
        match socket.read(&mut reading, &mut buffer).await {
            Ok(0) => return "the peer ended it".to_owned(),
            Ok(bytes) => {
                if let Err(lost) = socket.hears(bytes).await {
                    link.end();
                    return lost.to_string();
                }
                heard.reads.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return error.to_string(),
        }
        reads += 1;
        if reads % READS_MAX == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Hands on all that has come wholly.
///
/// # Errors
/// Why nothing more can be taken from this connection.
pub(super) fn take_all(
    links: &Links,
    frames: &mut Frames,
    buffer: &mut BytesMut,
    link: &Link,
    lane: &Lane,
) -> Result<(), String> {
    loop {
        let received = frames.batches(buffer)?;
        if !received.ends.is_empty() {
            match links.receive(link, lane, received) {
                Taken::Fine => {}
                Taken::Ended => return Err("it was replaced or reset".to_owned()),
                Taken::Missing(number) => {
                    // Not only this connection: it would not come over another one either.
                    link.end();
                    return Err(format!("batch {number} is missing"));
                }
            }
        }
        match frames.other.take() {
            None => return Ok(()),
            Some(Other::Beat(beat)) => links.beat(link, lane, beat.turn, beat.received),
            Some(Other::Batch(batch)) => frames.first = Some(batch),
        }
    }
}

/// What stands behind a row of batches.
#[derive(Debug)]
enum Other {
    Beat(pb::Beat),
    /// One that begins another row.
    Batch(pb::Batch),
}

/// Frames of a connection, taken apart.
#[derive(Debug, Default)]
pub(super) struct Frames {
    first: Option<pb::Batch>,
    other: Option<Other>,
}

impl Frames {
    /// All whole batches that have come in a row; of the disk, what the last one says. Stops in front of anything else.
    fn batches(&mut self, buffer: &mut BytesMut) -> Result<Received, String> {
        let mut received = Received::default();
        let mut next = self.first.take();
        loop {
            let batch = match next.take() {
                Some(batch) => batch,
                None => match frame::take(buffer, false).map_err(|error| error.to_string())? {
                    None => return Ok(received),
                    Some(frame) => match frame.kind {
                        Some(pb::frame::Kind::Batch(batch)) => batch,
                        Some(pb::frame::Kind::Beat(beat)) => {
                            self.other = Some(Other::Beat(beat));
                            return Ok(received);
                        }
                        _ => return Err("the peer sent something else than a batch".to_owned()),
                    },
                },
            };
            let count = received.ends.len() as u64;
            if count == 0 {
                received.first = batch.number;
            } else if Some(batch.number) != received.first.checked_add(count) {
                self.other = Some(Other::Batch(batch));
                return Ok(received);
            }
            received.room = frame::room(&batch);
            received.received = batch.received;
            received.messages.reserve(batch.messages.len());
            for envelope in batch.messages {
                let message = wire::decode(envelope).map_err(|error| error.to_string())?;
                received.messages.push(message);
            }
            received.ends.push(received.messages.len());
        }
    }
}

/// Sends on whenever a socket that had no room has some; ends with the connection.
async fn send_on(link: &Link, lane: &Lane, socket: &Socket) {
    loop {
        lane.blocked().await;
        // An error is the reader's to tell.
        if socket.writable().await.is_err() {
            return;
        }
        link.room_on(lane);
    }
}

/// The only connection of a link: sends on where the socket had no room, says something where nothing else is said, and ends the link of a
/// silent peer. It counts ticks, not time, so that a peer is not blamed for a pause of this process.
async fn keep(link: Arc<Link>, lane: Arc<Lane>, socket: Arc<Socket>, heard: Arc<Heard>, config: NetConfig) {
    let every = (config.keepalive_every / 3).max(Duration::from_millis(1));
    let silent_max = (config.keepalive_every + config.keepalive_timeout)
        .as_nanos()
        .div_ceil(every.as_nanos());
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut silent, mut quiet) = (0, 0);
    let (mut known_heard, mut known_sent) = (0, 0);
    let sending = send_on(&link, &lane, &socket);
    tokio::pin!(sending);
    loop {
        tokio::select! {
            () = &mut sending => return,
            _ = ticks.tick() => {
                let now = heard.reads.load(Ordering::Relaxed);
                silent = if now == known_heard { silent + 1 } else { 0 };
                known_heard = now;
                if silent >= silent_max {
                    tracing::info!(peer = %link.peer().node, link = link.id().0, "the peer is silent");
                    link.end();
                    return;
                }
                let now = link.outbox().batches();
                quiet = if now == known_sent { quiet + 1 } else { 0 };
                known_sent = now;
                if quiet >= 3 {
                    quiet = 0;
                    link.outbox().ping();
                    link.flush();
                }
            }
        }
    }
}

/// One of several connections of a link: sends on where its socket had no room, and says that it lives at every tick.
async fn keep_one(
    shared: Arc<Shared>,
    link: Arc<Link>,
    lane: Arc<Lane>,
    socket: Arc<Socket>,
    heard: Arc<Heard>,
) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = 0;
    let sending = send_on(&link, &lane, &socket);
    tokio::pin!(sending);
    loop {
        tokio::select! {
            () = &mut sending => return,
            _ = ticks.tick() => {
                let now = heard.reads.load(Ordering::Relaxed);
                let speaks = now != known || heard.busy.load(Ordering::Relaxed);
                known = now;
                shared.links.tick(&link, &lane, speaks);
            }
        }
    }
}
