//! TCP sockets of links, which can be ended at once from any thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::Connected;

use super::links::Carrier;

/// The means to end a connection while hyper owns its socket.
#[derive(Debug, Clone)]
pub(crate) struct Aborter(Arc<OwnedFd>);

impl Carrier for Aborter {
    /// Sends a reset and drops what the system still has to send; whoever reads or writes the socket gets an error at once.
    fn abort(&self) {
        // Connecting to "nobody" is how Linux lets a connection be cut without closing its descriptor. It fails only where there
        // is nothing left to cut.
        let _ = rustix::net::connect_unspec(self.0.as_fd());
    }
}

/// A connection as hyper gets it.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    aborter: Aborter,
}

impl Socket {
    /// Sets the socket up: no delay of small segments.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let aborter = Aborter(Arc::new(stream.as_fd().try_clone_to_owned()?));
        Ok(Self { stream, aborter })
    }

    pub(crate) fn aborter(&self) -> Aborter {
        self.aborter.clone()
    }
}

impl Connected for Socket {
    type ConnectInfo = Aborter;

    fn connect_info(&self) -> Aborter {
        self.aborter()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
