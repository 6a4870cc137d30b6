//! Links over TCP: a connection for each pair of nodes, or one for each of their pairs of addresses, with frames both ways. What dials is
//! in `dial`, what serves a connection from its handshake on in `lane`.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use holdfast_injection::{HERE, Way};
use holdfast_proto::replication as pb;
use holdfast_trust::{HandshakeError, Peer, Port, Refusals, Trust};
use holdfast_types::{EVENTS, NodeId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use super::dial::dial;
use super::frame;
use super::hello::{Hello, Refusal};
use super::lane::serve_lane;
use super::links::Links;
use super::socket::{Reading, Socket};
use crate::core::api::LinkId;

/// Connections whose hello has not come yet, at most; more are closed.
const STRANGERS_MAX: usize = 64;
/// After a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// Times of links. The default is for a local network.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// With what both ends prove who they are; all that passes is then encrypted. `None`: plain TCP, for tests, measurements and wires that
    /// nobody else reaches. Both ends must have the same.
    pub trust: Option<Arc<Trust>>,
    /// This node's own addresses for links, in order of preference: where a peer has as many, its k-th is dialled from the k-th of these.
    pub from: Vec<IpAddr>,
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
            from: Vec::new(),
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
    /// Where, in order of preference: a link for each, one of which is used.
    pub addresses: Vec<SocketAddr>,
}

/// The links of a node over TCP: the listener and whoever dials. Ends with all its links when it goes away.
pub struct Net {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    servers: Vec<JoinHandle<()>>,
    dialers: Mutex<Vec<Dialer>>,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) links: Arc<Links>,
    pub(super) config: NetConfig,
    /// Numbers the links, and their lanes, that this run dials.
    pub(super) next_link: AtomicU64,
}

struct Dialer {
    peer: PeerAddress,
    /// One for each address.
    tasks: Vec<AbortHandle>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Net of {:?}", self.shared.links)
    }
}

impl Net {
    /// Serves links on `listeners`, on the runtime `runtime`. Peers come with [`Net::set_peers`].
    pub fn start(
        runtime: tokio::runtime::Handle,
        listeners: Vec<TcpListener>,
        links: Arc<Links>,
        config: NetConfig,
    ) -> Self {
        let shared = Arc::new(Shared {
            links,
            config,
            next_link: AtomicU64::new(1),
        });
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        let serve = |listener| runtime.spawn(serve(Arc::clone(&shared), listener, Arc::clone(&strangers)));
        let servers = listeners.into_iter().map(serve).collect();
        Self {
            shared,
            runtime,
            servers,
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
            for task in gone.tasks {
                task.abort();
            }
            if let Some(link) = self.shared.links.current(gone.peer.node) {
                self.shared.links.down(&link);
            }
        }
        for peer in peers {
            self.shared.links.name_paths(peer.node, self.names(peer));
        }
        for peer in peers.iter().filter(|peer| peer.node > me) {
            if !dialers.iter().any(|dialer| dialer.peer == *peer) {
                let turn = Arc::new(tokio::sync::Mutex::new(()));
                let dial = |path| {
                    let (shared, turn) = (Arc::clone(&self.shared), Arc::clone(&turn));
                    self.runtime
                        .spawn(dial(shared, peer.clone(), path, turn))
                        .abort_handle()
                };
                dialers.push(Dialer {
                    peer: peer.clone(),
                    tasks: (0..peer.addresses.len()).map(dial).collect(),
                });
            }
        }
    }

    /// What people call the paths to a peer: its addresses. Who listens may have more of them than who dials.
    fn names(&self, peer: &PeerAddress) -> Vec<String> {
        let own = &self.shared.config.from;
        let listens = peer.node < self.shared.links.me().node;
        if listens && !own.is_empty() && own.len() != peer.addresses.len() {
            return own.iter().map(ToString::to_string).collect();
        }
        peer.addresses.iter().map(ToString::to_string).collect()
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
            for task in dialer.tasks {
                task.abort();
            }
        }
        for server in &self.servers {
            server.abort();
        }
        self.shared.links.close();
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, strangers: Arc<Semaphore>) {
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
                if only_looks(&stream, shared.config.connect_timeout).await {
                    return;
                }
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

/// Whoever closes without a word has looked whether somebody listens here.
async fn only_looks(stream: &TcpStream, wait: Duration) -> bool {
    let first = tokio::time::timeout(wait, stream.peek(&mut [0])).await;
    matches!(first, Ok(Ok(0)))
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
        let carrier = Box::new(Arc::clone(&socket));
        let attached = if hello.lane.joins {
            links.join(&hello, carrier)
        } else {
            links.up(&hello, carrier)
        };
        attached.map(|(link, lane)| (hello, link, lane))
    });
    drop(place);
    match link {
        Ok((hello, link, lane)) => {
            let answer = links.hello(hello.from.node, hello.link, hello.lane);
            let answer = frame::of(pb::frame::Kind::Hello(answer.encode()));
            if hello.lane.joins {
                link.greet(&lane, &answer);
            } else {
                up(hello.from.node, hello.link);
                link.open(&lane, &answer);
            }
            serve_lane(shared, (reading, buffer, socket), link, lane).await;
        }
        Err(refusal) => {
            tracing::warn!(%refusal, "a link was refused");
            let rejected = pb::Rejected {
                reason: refusal.to_string(),
                gone: matches!(refusal, Refusal::Gone(_)),
            };
            let mut bytes = Vec::new();
            frame::put(&frame::of(pb::frame::Kind::Rejected(rejected)), &mut bytes);
            // Who does not take it is none the wiser.
            let _ = tokio::time::timeout(wait, socket.send_all(&bytes)).await;
        }
    }
    Ok(())
}

/// Whether a connection can be made, which takes messages both ways; soon, unless a drill is in the way.
pub(super) async fn both_ways(peer: NodeId, wait: Duration) -> bool {
    let pass = async {
        HERE.pass(peer, Way::Out, 0).await?;
        HERE.pass(peer, Way::In, 0).await
    };
    matches!(tokio::time::timeout(wait, pass).await, Ok(Ok(())))
}

/// The first frame of a connection.
pub(super) async fn first_frame(
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

/// Tells people.
pub(super) fn up(peer: NodeId, link: LinkId) {
    tracing::info!(target: EVENTS, what = "link", %peer, link = link.0, "has a replication link to node {peer}");
}

#[cfg(test)]
#[path = "tcp_test.rs"]
mod tests;
