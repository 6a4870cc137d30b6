//! Our connections under gRPC: a listener whose every connection has shown who it is, and a channel that dials so.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use holdfast_types::NodeId;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{ClientStream, HandshakeError, Key, Peer, Port, ServerStream, Trust};

/// Connections whose handshake is not over, at most; more are closed.
const STRANGERS_MAX: usize = 64;
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// After a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);
/// After how long without a word the system asks whether the other end is there.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// A refusal that is the same as the last one is logged again after that long.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// A connection whose other end is known, as a gRPC server takes it.
#[derive(Debug)]
pub struct Caller {
    stream: ServerStream,
    known: Known,
}

/// Who is at the other end, and where that is. Requests have it among their extensions.
#[derive(Debug, Clone)]
pub struct Known {
    /// Who, proven.
    pub peer: Arc<Peer>,
    /// From where.
    pub from: SocketAddr,
}

impl Connected for Caller {
    type ConnectInfo = Known;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.known.clone()
    }
}

impl AsyncRead for Caller {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Says by whose certificates a door goes.
pub type FindTrust = Box<dyn Fn() -> Option<Arc<Trust>> + Send + Sync>;
/// Knows the keys of tokens by their ids.
pub type FindToken = Box<dyn Fn(&str) -> Option<Key> + Send + Sync>;

/// What a listener lets in.
pub struct Door {
    /// Which port it is.
    pub port: Port,
    /// By whose certificates it goes; `None` while there are none: then nobody comes in.
    pub trust: FindTrust,
    /// The key of a token, if that opens this port.
    pub token: FindToken,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Door({:?})", self.port)
    }
}

impl Door {
    /// Hands on whoever comes in at `listener`, until nobody takes them any more.
    pub async fn watch(self, listener: TcpListener, callers: mpsc::Sender<io::Result<Caller>>) {
        let door = Arc::new(self);
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        let refusals = Arc::new(Refusals::default());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = callers.closed() => return,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // One that died in the queue, or no descriptor left: no reason to stop listening.
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&strangers).try_acquire_owned() else {
                continue;
            };
            let (door, callers, refusals) = (Arc::clone(&door), callers.clone(), Arc::clone(&refusals));
            tokio::spawn(async move {
                match timeout(HANDSHAKE, door.open(stream, from)).await {
                    Ok(Ok(caller)) => {
                        drop(place);
                        // Nobody there any more: the connection ends.
                        let _ = callers.send(Ok(caller)).await;
                    }
                    Ok(Err(error)) => refusals.tell(door.port, from, &error.to_string()),
                    Err(_) => refusals.tell(door.port, from, "its handshake took too long"),
                }
            });
        }
    }

    async fn open(&self, stream: TcpStream, from: SocketAddr) -> Result<Caller, HandshakeError> {
        set_up(&stream);
        let Some(trust) = (self.trust)() else {
            return Err(HandshakeError::NoCluster);
        };
        let (stream, peer) = trust.accept_with(self.port, stream, &*self.token).await?;
        let peer = Arc::new(peer);
        let known = Known { peer, from };
        Ok(Caller { stream, known })
    }
}

/// Says once who was refused and why, not at every try.
#[derive(Debug, Default)]
pub struct Refusals {
    last: std::sync::Mutex<Option<(String, std::time::Instant)>>,
}

impl Refusals {
    /// One line in the log for a connection from there.
    pub fn tell(&self, port: Port, from: SocketAddr, why: &str) {
        let line = format!("{port:?} {} {why}", from.ip());
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if last
            .as_ref()
            .is_some_and(|(told, at)| *told == line && at.elapsed() < TELL_AGAIN)
        {
            return;
        }
        *last = Some((line, std::time::Instant::now()));
        tracing::warn!(%from, "a connection to the {} port was refused: {why}", port.title());
    }
}

/// No delay of small segments; a dead peer is noticed. What fails here fails again at the first byte.
fn set_up(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = set_socket_keepalive(stream, true);
    let _ = set_tcp_keepidle(stream, KEEPALIVE);
}

impl Trust {
    /// Dials node `to` there and has it prove who it is; connecting and the handshake may take `limit` each.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn dial(
        &self,
        port: Port,
        to: NodeId,
        address: SocketAddr,
        limit: Duration,
    ) -> Result<ClientStream, HandshakeError> {
        let stream = reach(address, limit).await?;
        timeout(limit, self.connect(port, to, stream))
            .await
            .map_err(|_| HandshakeError::Io(io::ErrorKind::TimedOut.into()))?
    }
}

/// A TCP connection within `limit`.
///
/// # Errors
/// [`HandshakeError::Io`].
pub async fn reach(address: SocketAddr, limit: Duration) -> Result<TcpStream, HandshakeError> {
    let stream = timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| HandshakeError::Io(io::ErrorKind::TimedOut.into()))?
        .map_err(HandshakeError::Io)?;
    set_up(&stream);
    Ok(stream)
}

/// A gRPC channel over connections that `dial` makes: at the first call, and again whenever one broke.
pub fn channel<F>(endpoint: &Endpoint, dial: impl Fn() -> F + Send + Sync + 'static) -> Channel
where
    F: Future<Output = Result<ClientStream, HandshakeError>> + Send + 'static,
{
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let dialled = dial();
        async move { dialled.await.map(TokioIo::new) }
    }))
}
