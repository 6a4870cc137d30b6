//! Links over gRPC: one bidirectional stream on a TCP connection of its own.
//!
//! Per link there is one task that reads and, within hyper's task of the connection, one stream that drains the link's queue.
//! Nothing is spawned per message.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use holdfast_proto::replication as pb;
use holdfast_proto::replication::replication_client::ReplicationClient;
use holdfast_proto::replication::replication_server::{Replication, ReplicationServer};
use holdfast_types::{ExtentId, NodeId};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};

use super::hello::{Hello, Refusal};
use super::links::{Carrier, Link, Links};
use super::socket::{Aborter, Socket};
use super::wire;
use crate::core::api::{LinkId, Message, Room};

/// Largest message taken off a wire: one largest transfer and what goes with it.
const MESSAGE_BYTES_MAX: usize = 2 * holdfast_types::TRANSFER_BYTES_MAX as usize;

/// Times of links. The default is for a local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// How long a connection, and then its handshake, may take.
    pub connect_timeout: Duration,
    /// First wait before dialling again; doubles up to `backoff_max`.
    pub backoff_min: Duration,
    /// Longest wait before dialling again.
    pub backoff_max: Duration,
    /// Between two pings of an idle connection.
    pub keepalive_every: Duration,
    /// How long a ping may go unanswered before the link is down.
    pub keepalive_timeout: Duration,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
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

/// The links of a node over gRPC: the listener and whoever dials. Ends with all its links when it goes away.
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
    let config = shared.config.clone();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener)
        // A connection that died in the queue is no reason to stop listening.
        .filter_map(|stream| stream.and_then(Socket::new).ok().map(Ok::<_, std::io::Error>));
    let service = ReplicationServer::new(Service { shared })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .http2_keepalive_interval(Some(config.keepalive_every))
        .http2_keepalive_timeout(Some(config.keepalive_timeout))
        .add_service(service)
        .serve_with_incoming(incoming)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "links are not served any more");
    }
}

struct Service {
    shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Replication for Service {
    type LinkStream = Outgoing;

    async fn link(&self, request: Request<Streaming<pb::Frame>>) -> Result<Response<Outgoing>, Status> {
        let aborter = request.extensions().get::<Aborter>().cloned();
        let aborter = aborter.ok_or_else(|| Status::internal("the connection has no socket"))?;
        let links = &self.shared.links;
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(self.shared.config.connect_timeout, incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello came in time"))??;
        let hello = Hello::decode(first, links.cluster(), links.me().node).and_then(|hello| {
            // The lower id dials: nobody else does.
            if hello.from.node < links.me().node {
                Ok(hello)
            } else {
                Err(Refusal::Stranger(hello.from.node))
            }
        });
        let link = hello.and_then(|hello| links.up(&hello, Box::new(aborter)).map(|link| (hello, link)));
        let (hello, link) = link.map_err(|refusal| {
            tracing::warn!(%refusal, "a link was refused");
            Status::failed_precondition(refusal.to_string())
        })?;
        tracing::info!(peer = %hello.from.node, link = hello.link.0, "link up");
        let answer = links.hello(hello.from.node, hello.link);
        let outgoing = Outgoing::new(&answer, Some(Arc::clone(&link)));
        tokio::spawn(read_and_end(Arc::clone(&self.shared), incoming, link));
        Ok(Response::new(outgoing))
    }
}

/// What is sent over a link: the hello, then batches of what waits.
#[derive(Debug)]
pub(crate) struct Outgoing {
    hello: Option<pb::Hello>,
    link: Option<Arc<Link>>,
    /// Until the dialled peer has answered there is no link yet.
    ready: Option<tokio::sync::oneshot::Receiver<Arc<Link>>>,
    batches: u64,
}

impl Outgoing {
    fn new(hello: &Hello, link: Option<Arc<Link>>) -> Self {
        Self {
            hello: Some(hello.encode()),
            link,
            ready: None,
            batches: 0,
        }
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Link>>> {
        if let Some(ready) = &mut self.ready {
            let link = std::task::ready!(Pin::new(ready).poll(cx)).ok();
            self.link = link;
            self.ready = None;
        }
        Poll::Ready(self.link.clone())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<pb::Frame>> {
        let frame = |kind| Poll::Ready(Some(pb::Frame { kind: Some(kind) }));
        if let Some(hello) = self.hello.take() {
            return frame(pb::frame::Kind::Hello(hello));
        }
        let Some(link) = std::task::ready!(self.poll_link(cx)) else {
            return Poll::Ready(None);
        };
        let Some((room, batch)) = std::task::ready!(link.outbox().poll_batch(cx)) else {
            return Poll::Ready(None);
        };
        self.batches += 1;
        let messages = batch
            .into_iter()
            .map(|(extent, message)| wire::encode(extent, message))
            .collect();
        frame(pb::frame::Kind::Batch(pb::Batch {
            number: self.batches,
            messages,
            room: (room != Room::default()).then_some(room_out(room)),
        }))
    }
}

impl Stream for Outgoing {
    type Item = Result<pb::Frame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_frame(cx).map(|frame| frame.map(Ok))
    }
}

/// The same without errors, as the dialling side wants it.
struct Requests(Outgoing);

impl Stream for Requests {
    type Item = pb::Frame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<pb::Frame>> {
        self.0.poll_frame(cx)
    }
}

const fn room_out(room: Room) -> pb::Room {
    let Room { crowded, low, full } = room;
    pb::Room { crowded, low, full }
}

const fn room_in(room: pb::Room) -> Room {
    let pb::Room { crowded, low, full } = room;
    Room { crowded, low, full }
}

/// Keeps a link to `peer`: dials again, soon, whenever there is none.
async fn dial(shared: Arc<Shared>, peer: PeerAddress) {
    let mut backoff = shared.config.backoff_min;
    let mut told = String::new();
    loop {
        match dial_once(&shared, &peer).await {
            Ok((incoming, link)) => {
                tracing::info!(peer = %peer.node, link = link.id().0, "link up");
                backoff = shared.config.backoff_min;
                told.clear();
                read_and_end(Arc::clone(&shared), incoming, link).await;
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

type Dialled = (Streaming<pb::Frame>, Arc<Link>);

async fn dial_once(shared: &Shared, peer: &PeerAddress) -> Result<Dialled, String> {
    let (channel, aborter) = connect(shared, peer).await?;
    let number = LinkId(shared.next_link.fetch_add(1, Ordering::Relaxed));
    let hello = shared.links.hello(peer.node, number);
    let (tell, ready) = tokio::sync::oneshot::channel();
    let mut outgoing = Outgoing::new(&hello, None);
    outgoing.ready = Some(ready);
    let mut client = ReplicationClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let handshake = async {
        let response = client.link(Requests(outgoing)).await;
        let mut incoming = response
            .map_err(|status| status.message().to_owned())?
            .into_inner();
        let first = incoming
            .message()
            .await
            .map_err(|status| status.message().to_owned())?;
        Ok::<_, String>((incoming, first))
    };
    let shaken = tokio::time::timeout(shared.config.connect_timeout, handshake).await;
    let (incoming, first) = shaken.map_err(|_| "the handshake took too long".to_owned())??;
    let answer = Hello::decode(first, shared.links.cluster(), shared.links.me().node)
        .and_then(|answer| {
            let fits = answer.from.node == peer.node && answer.link == number;
            fits.then_some(answer).ok_or(Refusal::Stranger(answer.from.node))
        })
        .and_then(|answer| shared.links.up(&answer, Box::new(aborter.clone())))
        .map_err(|refusal| refusal.to_string());
    let link = answer.inspect_err(|_| aborter.abort())?;
    // The stream waits for it; should that be gone already, reading ends the link.
    let _ = tell.send(Arc::clone(&link));
    Ok((incoming, link))
}

async fn connect(shared: &Shared, peer: &PeerAddress) -> Result<(Channel, Aborter), String> {
    let config = &shared.config;
    let connecting = tokio::time::timeout(config.connect_timeout, TcpStream::connect(&peer.address)).await;
    let stream = connecting
        .map_err(|_| "connecting took too long".to_owned())?
        .and_then(Socket::new)
        .map_err(|error| error.to_string())?;
    let aborter = stream.aborter();
    // Handed to tonic once: a link is one connection, and a new one is dialled here, not there.
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream
            .take()
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    let channel = Endpoint::from_static("http://link")
        .connect_timeout(config.connect_timeout)
        .http2_keep_alive_interval(config.keepalive_every)
        .keep_alive_timeout(config.keepalive_timeout)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| error.to_string())?;
    Ok((channel, aborter))
}

/// Hands batches on until the link ends, one way or the other.
async fn read_and_end(shared: Arc<Shared>, incoming: Streaming<pb::Frame>, link: Arc<Link>) {
    let why = read(&shared, incoming, &link).await;
    let (peer, number) = (link.peer().node, link.id().0);
    tracing::info!(%peer, link = number, why, "link down");
    shared.links.down(&link);
}

async fn read(shared: &Shared, mut incoming: Streaming<pb::Frame>, link: &Arc<Link>) -> String {
    let mut batches = 0;
    loop {
        let batch = match incoming.message().await {
            Ok(Some(pb::Frame {
                kind: Some(pb::frame::Kind::Batch(batch)),
            })) => batch,
            Ok(Some(_)) => return "the peer sent something else than a batch".to_owned(),
            Ok(None) => return "the peer ended it".to_owned(),
            Err(status) => return status.message().to_owned(),
        };
        batches += 1;
        if batch.number != batches {
            return format!("batch {batches} is missing");
        }
        let messages: Result<Vec<(ExtentId, Message)>, _> =
            batch.messages.into_iter().map(wire::decode).collect();
        let messages = match messages {
            Ok(messages) => messages,
            Err(error) => return error.to_string(),
        };
        let room = batch.room.map(room_in).unwrap_or_default();
        if !shared.links.receive(link, room, messages) {
            return "it was replaced or reset".to_owned();
        }
    }
}

#[cfg(test)]
#[path = "grpc_test.rs"]
mod tests;
