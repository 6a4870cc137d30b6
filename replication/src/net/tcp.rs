//! Links over TCP: one connection for each pair of nodes, with frames both ways.
//!
//! Per link there is one task that reads and drives the cores with what came, and one that wakes up only to see whether the peer still
//! speaks, to say something where nothing else is said, and to send on where the socket had no room.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use holdfast_injection::{HERE, Way};
use holdfast_proto::replication as pb;
use holdfast_trust::{HandshakeError, Peer, Port, Refusals, Trust};
use holdfast_types::{EVENTS, ExtentId, NodeId};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::frame;
use super::hello::{Hello, Refusal};
use super::links::{Link, Links, Sent};
use super::socket::{Reading, Socket};
use super::wire;
use crate::core::api::{LinkId, Message};

/// Read buffers grow by this much.
const READ_BYTES: usize = 256 << 10;
/// Connections whose hello has not come yet, at most; more are closed.
const STRANGERS_MAX: usize = 64;
/// After a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);
/// Reads in a row before other tasks get their turn.
const READS_MAX: usize = 64;

/// Times of links. The default is for a local network.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// With what both ends prove who they are; all that passes is then encrypted. `None`: plain TCP, for tests, measurements and wires that
    /// nobody else reaches. Both ends must have the same.
    pub trust: Option<Arc<Trust>>,
    /// How long a connection, and then its handshake, may take.
    pub connect_timeout: Duration,
    /// First wait before dialling again; doubles up to `backoff_max`.
    pub backoff_min: Duration,
    /// Longest wait before dialling again.
    pub backoff_max: Duration,
    /// After how long without a message one goes out that says nothing. Both ends count in thirds of it.
    pub keepalive_every: Duration,
    /// How long after that a silent peer's link is down.
    pub keepalive_timeout: Duration,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            trust: None,
            connect_timeout: Duration::from_secs(1),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_millis(250),
            keepalive_every: Duration::from_millis(300),
            keepalive_timeout: Duration::from_millis(700),
        }
    }
}

/// Where a peer listens for links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Who.
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
}

/// The links of a node over TCP: the listener and whoever dials. Ends with all its links when it goes away.
pub struct Net {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    server: Option<JoinHandle<()>>,
    dialers: Mutex<Vec<Dialer>>,
}

struct Shared {
    links: Arc<Links>,
    config: NetConfig,
    /// Numbers the links that this run dials.
    next_link: AtomicU64,
}

struct Dialer {
    peer: PeerAddress,
    task: AbortHandle,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Net of {:?}", self.shared.links)
    }
}

impl Net {
    /// Serves links on `listener`, on the runtime `runtime`. Peers come with [`Net::set_peers`].
    pub fn start(
        runtime: tokio::runtime::Handle,
        listener: Option<TcpListener>,
        links: Arc<Links>,
        config: NetConfig,
    ) -> Self {
        let shared = Arc::new(Shared {
            links,
            config,
            next_link: AtomicU64::new(1),
        });
        let server = listener.map(|listener| runtime.spawn(serve(Arc::clone(&shared), listener)));
        Self {
            shared,
            runtime,
            server,
            dialers: Mutex::new(Vec::new()),
        }
    }

    /// Says who the other data nodes are. Links with nodes that are missing end; a changed address is dialled at once.
    pub fn set_peers(&self, peers: &[PeerAddress]) {
        let me = self.shared.links.me().node;
        let nodes: Vec<NodeId> = peers.iter().map(|peer| peer.node).collect();
        self.shared.links.set_peers(&nodes);
        let mut dialers = self.dialers.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in dialers.extract_if(.., |dialer| !peers.contains(&dialer.peer)) {
            gone.task.abort();
            if let Some(link) = self.shared.links.current(gone.peer.node) {
                self.shared.links.down(&link);
            }
        }
        for peer in peers.iter().filter(|peer| peer.node > me) {
            if !dialers.iter().any(|dialer| dialer.peer == *peer) {
                let task = self.runtime.spawn(dial(Arc::clone(&self.shared), peer.clone()));
                dialers.push(Dialer {
                    peer: peer.clone(),
                    task: task.abort_handle(),
                });
            }
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for dialer in self
            .dialers
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            dialer.task.abort();
        }
        if let Some(server) = &self.server {
            server.abort();
        }
        self.shared.links.close();
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let strangers = Arc::new(tokio::sync::Semaphore::new(STRANGERS_MAX));
    let refusals = Arc::new(Refusals::default());
    let mut connections = JoinSet::new();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // One that died in the queue, or no descriptor left: no reason to stop listening.
                tracing::debug!(%error, "a connection for a link could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if let Ok(place) = Arc::clone(&strangers).try_acquire_owned() {
            let (shared, refusals) = (Arc::clone(&shared), Arc::clone(&refusals));
            connections.spawn(async move {
                if let Err(why) = accept(shared, stream, place).await {
                    refusals.tell(Port::Link, from, &why);
                }
            });
        }
    }
}

/// Who dialled is known from here on, if connections prove it.
async fn open(shared: &Shared, stream: TcpStream) -> Result<(Reading, Socket, Option<Peer>), HandshakeError> {
    let Some(trust) = &shared.config.trust else {
        let (reading, socket) = Socket::new(stream, None)?;
        return Ok((reading, socket, None));
    };
    stream.set_nodelay(true)?;
    let (stream, peer) = trust.accept(Port::Link, stream).await?;
    let (stream, session) = stream.into_inner();
    let (reading, socket) = Socket::new(stream, Some(session.into()))?;
    Ok((reading, socket, Some(peer)))
}

/// Serves a connection that a peer has dialled. An error: it was no peer.
async fn accept(
    shared: Arc<Shared>,
    stream: TcpStream,
    place: tokio::sync::OwnedSemaphorePermit,
) -> Result<(), String> {
    let wait = shared.config.connect_timeout;
    let opened = tokio::time::timeout(wait, open(&shared, stream)).await;
    let (mut reading, socket, proven) = opened
        .map_err(|_| "its handshake took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    let socket = Arc::new(socket);
    let mut buffer = BytesMut::new();
    let first = tokio::time::timeout(wait, first_frame(&socket, &mut reading, &mut buffer)).await;
    let first = first
        .map_err(|_| "it does not say hello".to_owned())?
        .map_err(|why| format!("it began with no hello: {why}"))?;
    let links = &shared.links;
    let hello = Hello::decode(Some(first), links.cluster(), links.me().node).and_then(|hello| {
        let node = hello.from.node;
        if proven
            .as_ref()
            .is_some_and(|peer| !peer.is_node(links.cluster(), node))
        {
            return Err(Refusal::Certificate(node));
        }
        // The lower id dials: nobody else does.
        if node < links.me().node {
            Ok(hello)
        } else {
            Err(Refusal::Stranger(hello.from.node))
        }
    });
    if let Ok(hello) = &hello {
        if !both_ways(hello.from.node, wait).await {
            return Ok(());
        }
        socket.is_of(hello.from.node);
    }
    let link = hello.and_then(|hello| {
        links
            .up(&hello, Box::new(Arc::clone(&socket)))
            .map(|link| (hello, link))
    });
    drop(place);
    match link {
        Ok((hello, link)) => {
            up(hello.from.node, hello.link);
            let answer = links.hello(hello.from.node, hello.link);
            link.open(&frame::of(pb::frame::Kind::Hello(answer.encode())));
            read_and_end(Arc::clone(&shared), reading, buffer, socket, link).await;
        }
        Err(refusal) => {
            tracing::warn!(%refusal, "a link was refused");
            let reason = refusal.to_string();
            let mut bytes = Vec::new();
            frame::put(
                &frame::of(pb::frame::Kind::Rejected(pb::Rejected { reason })),
                &mut bytes,
            );
            // Who does not take it is none the wiser.
            let _ = tokio::time::timeout(wait, socket.send_all(&bytes)).await;
        }
    }
    Ok(())
}

/// Whether a connection can be made, which takes messages both ways; soon, unless a drill is in the way.
async fn both_ways(peer: NodeId, wait: Duration) -> bool {
    let pass = async {
        HERE.pass(peer, Way::Out, 0).await?;
        HERE.pass(peer, Way::In, 0).await
    };
    matches!(tokio::time::timeout(wait, pass).await, Ok(Ok(())))
}

/// The first frame of a connection.
async fn first_frame(
    socket: &Socket,
    reading: &mut Reading,
    buffer: &mut BytesMut,
) -> Result<pb::Frame, String> {
    loop {
        match frame::take(buffer, true) {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
        buffer.reserve(frame::FIRST_MAX);
        match socket.read(reading, buffer).await {
            Ok(0) => return Err("the peer closed the connection".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Keeps a link to `peer`: dials again, soon, whenever there is none.
async fn dial(shared: Arc<Shared>, peer: PeerAddress) {
    let mut backoff = shared.config.backoff_min;
    let mut told = String::new();
    loop {
        match dial_once(&shared, &peer).await {
            Ok(Dialled {
                reading,
                buffer,
                socket,
                link,
            }) => {
                up(peer.node, link.id());
                backoff = shared.config.backoff_min;
                told.clear();
                read_and_end(Arc::clone(&shared), reading, buffer, socket, link).await;
            }
            Err(why) => {
                // Said once, not at every try.
                if why != told {
                    tracing::info!(peer = %peer.node, address = peer.address, why, "no link");
                    told = why;
                }
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(shared.config.backoff_max);
    }
}

/// A link that was dialled.
#[derive(Debug)]
struct Dialled {
    reading: Reading,
    /// What came behind the hello.
    buffer: BytesMut,
    socket: Arc<Socket>,
    link: Arc<Link>,
}

/// The other end of [`open`].
async fn prove(
    shared: &Shared,
    peer: NodeId,
    stream: TcpStream,
) -> Result<(Reading, Socket), HandshakeError> {
    let Some(trust) = &shared.config.trust else {
        return Ok(Socket::new(stream, None)?);
    };
    stream.set_nodelay(true)?;
    let (stream, session) = trust.connect(Port::Link, peer, stream).await?.into_inner();
    Ok(Socket::new(stream, Some(session.into()))?)
}

async fn dial_once(shared: &Shared, peer: &PeerAddress) -> Result<Dialled, String> {
    let wait = shared.config.connect_timeout;
    if !both_ways(peer.node, wait).await {
        return Err("connecting took too long".to_owned());
    }
    let connecting = tokio::time::timeout(wait, TcpStream::connect(&peer.address)).await;
    let stream = connecting
        .map_err(|_| "connecting took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    let proving = tokio::time::timeout(wait, prove(shared, peer.node, stream)).await;
    let (mut reading, socket) = proving
        .map_err(|_| "the TLS handshake took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    let number = LinkId(shared.next_link.fetch_add(1, Ordering::Relaxed));
    let hello = shared.links.hello(peer.node, number);
    let mut buffer = BytesMut::new();
    let mut bytes = Vec::new();
    frame::put(&frame::of(pb::frame::Kind::Hello(hello.encode())), &mut bytes);
    let handshake = async {
        socket.send_all(&bytes).await.map_err(|error| error.to_string())?;
        first_frame(&socket, &mut reading, &mut buffer).await
    };
    let shaken = tokio::time::timeout(wait, handshake).await;
    let first = shaken.map_err(|_| "the handshake took too long".to_owned())??;
    if let Some(pb::frame::Kind::Rejected(rejected)) = first.kind {
        return Err(rejected.reason);
    }
    socket.is_of(peer.node);
    let socket = Arc::new(socket);
    let link = Hello::decode(Some(first), shared.links.cluster(), shared.links.me().node)
        .and_then(|answer| {
            let fits = answer.from.node == peer.node && answer.link == number;
            fits.then_some(answer).ok_or(Refusal::Stranger(answer.from.node))
        })
        .and_then(|answer| shared.links.up(&answer, Box::new(Arc::clone(&socket))))
        .map_err(|refusal| refusal.to_string())?;
    link.start();
    Ok(Dialled {
        reading,
        buffer,
        socket,
        link,
    })
}

fn up(peer: NodeId, link: LinkId) {
    tracing::info!(target: EVENTS, what = "link", %peer, link = link.0, "has a replication link to node {peer}");
}

/// Hands batches on until the link ends, one way or the other.
async fn read_and_end(
    shared: Arc<Shared>,
    reading: Reading,
    buffer: BytesMut,
    socket: Arc<Socket>,
    link: Arc<Link>,
) {
    let heard = Arc::new(AtomicU64::new(0));
    let mut keeper = JoinSet::new();
    keeper.spawn(keep(
        Arc::clone(&link),
        Arc::clone(&socket),
        Arc::clone(&heard),
        shared.config.clone(),
    ));
    let why = read(&shared, reading, buffer, &link, &socket, &heard).await;
    let (peer, number) = (link.peer().node, link.id().0);
    tracing::warn!(target: EVENTS, what = "link", %peer, link = number, "lost the replication link to node {peer}: {why}");
    shared.links.down(&link);
}

/// Counts what was read in `heard`.
async fn read(
    shared: &Shared,
    mut reading: Reading,
    mut buffer: BytesMut,
    link: &Arc<Link>,
    socket: &Socket,
    heard: &AtomicU64,
) -> String {
    let (mut batches, mut reads) = (0, 0);
    loop {
        match take_batches(&mut buffer, &mut batches) {
            Ok(None) => {}
            Ok(Some((room, messages))) => {
                if !shared.links.receive(link, room, messages) {
                    return "it was replaced or reset".to_owned();
                }
            }
            Err(why) => return why,
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
                heard.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return error.to_string(),
        }
        reads += 1;
        if reads % READS_MAX == 0 {
            tokio::task::yield_now().await;
        }
    }
}

type Received = (crate::core::api::Room, Vec<(ExtentId, Message)>);

/// All messages of all whole batches that have come; of the disk, what the last one says.
fn take_batches(buffer: &mut BytesMut, batches: &mut u64) -> Result<Option<Received>, String> {
    let mut received: Option<Received> = None;
    while let Some(frame) = frame::take(buffer, false).map_err(|error| error.to_string())? {
        let Some(pb::frame::Kind::Batch(batch)) = frame.kind else {
            return Err("the peer sent something else than a batch".to_owned());
        };
        *batches += 1;
        if batch.number != *batches {
            return Err(format!("batch {batches} is missing"));
        }
        let (room, messages) = received.get_or_insert_default();
        *room = frame::room(&batch);
        messages.reserve(batch.messages.len());
        for envelope in batch.messages {
            messages.push(wire::decode(envelope).map_err(|error| error.to_string())?);
        }
    }
    Ok(received)
}

/// Sends on where the socket had no room, says something where nothing else is said, and ends the link of a silent peer. It counts
/// ticks, not time, so that a peer is not blamed for a pause of this process.
async fn keep(link: Arc<Link>, socket: Arc<Socket>, heard: Arc<AtomicU64>, config: NetConfig) {
    let every = (config.keepalive_every / 3).max(Duration::from_millis(1));
    let silent_max = (config.keepalive_every + config.keepalive_timeout)
        .as_nanos()
        .div_ceil(every.as_nanos());
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut silent, mut quiet) = (0, 0);
    let (mut known_heard, mut known_sent) = (0, 0);
    let mut blocked = false;
    loop {
        tokio::select! {
            () = link.blocked(), if !blocked => blocked = true,
            writable = socket.writable(), if blocked => {
                // An error is the reader's to tell.
                if writable.is_err() {
                    return;
                }
                blocked = link.send_on() == Sent::Blocked;
            }
            _ = ticks.tick() => {
                let now = heard.load(Ordering::Relaxed);
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

#[cfg(test)]
#[path = "tcp_test.rs"]
mod tests;
