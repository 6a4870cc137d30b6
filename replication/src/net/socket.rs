//! TCP sockets of links: written to from any thread, and ended at once from any thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use bytes::BytesMut;
use holdfast_injection::{HERE, Held, Lost, Passage, Site, Way};
use holdfast_types::NodeId;
use rustls::Connection;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::link::Carrier;
use super::tls::Tls;

/// Most bytes of a TLS connection that are read at once.
const READ_BYTES: usize = 128 << 10;

/// The writing end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    half: OwnedWriteHalf,
    /// What all bytes go through, but on a link that is plain by configuration.
    tls: Option<Tls>,
    /// The same connection, for its end.
    fd: OwnedFd,
    /// Who is at the other end, once that is known.
    peer: OnceLock<NodeId>,
    /// What a drill holds back.
    held: Mutex<Option<Held>>,
    /// Cut off: nobody waits for anything here any more.
    is_over: AtomicBool,
}

/// The reading end of a connection.
#[derive(Debug)]
pub(crate) struct Reading {
    half: OwnedReadHalf,
    /// Bytes of TLS that are not looked at yet.
    came: BytesMut,
}

impl Socket {
    /// Sets the connection up: no delay of small segments.
    pub(crate) fn new(stream: TcpStream, tls: Option<Connection>) -> io::Result<(Reading, Self)> {
        stream.set_nodelay(true)?;
        let fd = stream.as_fd().try_clone_to_owned()?;
        let (read, half) = stream.into_split();
        let reading = Reading {
            half: read,
            came: BytesMut::new(),
        };
        Ok((
            reading,
            Self {
                half,
                tls: tls.map(Tls::new),
                fd,
                peer: OnceLock::new(),
                held: Mutex::new(None),
                is_over: AtomicBool::new(false),
            },
        ))
    }

    /// Says who is at the other end, once.
    pub(crate) fn is_of(&self, peer: NodeId) {
        let _ = self.peer.set(peer);
    }

    /// Waits while a drill holds back what the peer sends, but not for what a connection said that is cut off meanwhile.
    pub(crate) async fn hears(&self, bytes: usize) -> Result<(), Lost> {
        let Some(peer) = self.peer.get() else {
            return Ok(());
        };
        let is_over = || self.is_over.load(Ordering::Acquire);
        HERE.pass_unless(*peer, Way::In, bytes, is_over).await
    }

    /// Whether a drill lets so many bytes out now.
    fn lets_out(&self, bytes: usize) -> io::Result<()> {
        let Some(peer) = self.peer.get() else {
            return Ok(());
        };
        let now = Instant::now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let passage = match held.take() {
            Some(waiting) if HERE.still(&waiting, now).is_some() => Passage::Held(waiting),
            Some(_) => Passage::Free,
            None => HERE.admit(Site::Link(*peer, Way::Out), bytes, now),
        };
        match passage {
            Passage::Free => Ok(()),
            Passage::Lost => Err(io::Error::new(io::ErrorKind::ConnectionReset, Lost)),
            Passage::Held(waiting) => {
                *held = Some(waiting);
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
    }

    /// Adds what comes to `buffer`; how much that is, and 0 at the end.
    pub(crate) async fn read(&self, reading: &mut Reading, buffer: &mut BytesMut) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return reading.half.read_buf(buffer).await;
        };
        loop {
            // Also before anything came: the handshake may have read on.
            let plain = tls.take(&self.half, &mut reading.came, buffer)?;
            if plain > 0 {
                return Ok(plain);
            }
            reading.came.reserve(READ_BYTES);
            if reading.half.read_buf(&mut reading.came).await? == 0 {
                return Ok(0);
            }
        }
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => tls.send(&self.half, bytes),
            None => self.half.try_write(bytes),
        }
    }

    /// Waits until it takes bytes.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.half.writable().await?;
        loop {
            let held = *self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(wait) = held.and_then(|held| HERE.still(&held, Instant::now())) else {
                return Ok(());
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends all of it, before there is a link.
    pub(crate) async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.writable().await?;
            match self.try_send(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Carrier for std::sync::Arc<Socket> {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.lets_out(bytes.len())?;
        self.try_send(bytes)
    }

    /// Sends a reset and drops what the system still has to send; whoever reads or writes the socket gets an error at once.
    fn abort(&self) {
        self.is_over.store(true, Ordering::Release);
        // Connecting to "nobody" is how Linux lets a connection be cut without closing its descriptor. It fails only where there
        // is nothing left to cut.
        let _ = rustix::net::connect_unspec(self.fd.as_fd());
    }
}
