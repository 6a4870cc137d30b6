//! Whoever dials: a task for each address of a peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use holdfast_proto::replication as pb;
use holdfast_trust::{HandshakeError, Port};
use holdfast_types::NodeId;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;

use super::frame;
use super::hello::{Hello, LaneHello, Refusal};
use super::lane::{Stream, serve_lane};
use super::link::{Lane, Link};
use super::socket::{Reading, Socket};
use super::tcp::{PeerAddress, Shared, both_ways, first_frame, up};
use crate::core::api::LinkId;

/// Keeps a connection to an address of `peer`: dials again, soon, whenever there is none. `turn` is of all addresses of that peer: the
/// first connection begins a link, the others join it.
pub(super) async fn dial(shared: Arc<Shared>, peer: PeerAddress, path: usize, turn: Arc<Mutex<()>>) {
    let mut backoff = shared.config.backoff_min;
    let mut told = String::new();
    loop {
        match dial_once(&shared, &peer, path, &turn).await {
            Ok(Dialled { stream, link, lane }) => {
                backoff = shared.config.backoff_min;
                told.clear();
                serve_lane(Arc::clone(&shared), stream, link, lane).await;
            }
            Err(why) => {
                // Said once, not at every try.
                if why != told {
                    tracing::info!(peer = %peer.node, address = %peer.addresses[path], why, "no link");
                    shared.links.lane_fails(peer.node, path, &why);
                    told = why;
                }
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(shared.config.backoff_max);
    }
}

/// A connection that was dialled.
#[derive(Debug)]
pub(super) struct Dialled {
    /// With what came behind the hello.
    stream: Stream,
    link: Arc<Link>,
    lane: Arc<Lane>,
}

/// Proves who this is, and who is there, if connections do.
pub(super) async fn prove(
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

/// From the address of this node that belongs to the peer's, if it has as many.
async fn connect(shared: &Shared, peer: &PeerAddress, path: usize) -> std::io::Result<TcpStream> {
    let to = peer.addresses[path];
    let own = &shared.config.from;
    match own.get(path) {
        Some(from)
            if own.len() > 1 && own.len() == peer.addresses.len() && from.is_ipv4() == to.is_ipv4() =>
        {
            let socket = if to.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            socket.bind(SocketAddr::new(*from, 0))?;
            socket.connect(to).await
        }
        _ => TcpStream::connect(to).await,
    }
}

pub(super) async fn dial_once(
    shared: &Shared,
    peer: &PeerAddress,
    path: usize,
    turn: &Mutex<()>,
) -> Result<Dialled, String> {
    let wait = shared.config.connect_timeout;
    if !both_ways(peer.node, wait).await {
        return Err("connecting took too long".to_owned());
    }
    let connecting = tokio::time::timeout(wait, connect(shared, peer, path)).await;
    let stream = connecting
        .map_err(|_| "connecting took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    let proving = tokio::time::timeout(wait, prove(shared, peer.node, stream)).await;
    let (reading, socket) = proving
        .map_err(|_| "the TLS handshake took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    let _turn = turn.lock().await;
    shake_hands(shared, peer, path, (reading, socket)).await
}

/// Says hello, and makes the connection a lane of the present link, or of a new one where there is none.
async fn shake_hands(
    shared: &Shared,
    peer: &PeerAddress,
    path: usize,
    (mut reading, socket): (Reading, Socket),
) -> Result<Dialled, String> {
    let wait = shared.config.connect_timeout;
    let present = shared.links.current(peer.node).filter(|link| !link.ended());
    if present.as_ref().is_some_and(|link| !link.keeps()) {
        return Err("the present link takes no second connection: another release runs there".to_owned());
    }
    let number = shared.next_link.fetch_add(1, Ordering::Relaxed);
    let link = present.as_ref().map_or(LinkId(number), |link| link.id());
    let lane = LaneHello {
        paths: peer.addresses.len(),
        path,
        lane: number,
        joins: present.is_some(),
    };
    let hello = shared.links.hello(peer.node, link, lane);
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
        if let Some(link) = present.filter(|_| rejected.gone) {
            // What is left of it here, perhaps one silent lane, leads nowhere.
            shared.links.down(&link);
        }
        return Err(rejected.reason);
    }
    socket.is_of(peer.node);
    let socket = Arc::new(socket);
    let answer = Hello::decode(Some(first), shared.links.cluster(), shared.links.me().node);
    let (link, lane) = answer
        .and_then(|answer| {
            let fits = answer.from.node == peer.node && answer.link == link;
            fits.then_some(answer).ok_or(Refusal::Stranger(answer.from.node))
        })
        .and_then(|answer| attach(shared, answer, lane, &socket))
        .map_err(|refusal| refusal.to_string())?;
    Ok(Dialled {
        stream: (reading, buffer, socket),
        link,
        lane,
    })
}

fn attach(
    shared: &Shared,
    answer: Hello,
    lane: LaneHello,
    socket: &Arc<Socket>,
) -> Result<(Arc<Link>, Arc<Lane>), Refusal> {
    let carrier = Box::new(Arc::clone(socket));
    // Who does not say so knows of one lane only.
    let paths = answer.lane.paths.min(lane.paths);
    let hello = Hello {
        lane: LaneHello { paths, ..lane },
        ..answer
    };
    if lane.joins {
        return shared.links.join(&hello, carrier);
    }
    let (link, lane) = shared.links.up(&hello, carrier)?;
    up(answer.from.node, link.id());
    link.start();
    Ok((link, lane))
}
