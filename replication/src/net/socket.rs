//! TCP sockets of links: written to from any thread, and ended at once from any thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::links::Carrier;

/// The writing end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    half: OwnedWriteHalf,
    /// The same connection, for its end.
    fd: OwnedFd,
}

impl Socket {
    /// Sets the connection up: no delay of small segments.
    pub(crate) fn new(stream: TcpStream) -> io::Result<(OwnedReadHalf, Self)> {
        stream.set_nodelay(true)?;
        let fd = stream.as_fd().try_clone_to_owned()?;
        let (read, half) = stream.into_split();
        Ok((read, Self { half, fd }))
    }

    /// Waits until it takes bytes.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.half.writable().await
    }

    /// Sends all of it, before there is a link.
    pub(crate) async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.writable().await?;
            match self.half.try_write(bytes) {
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
        self.half.try_write(bytes)
    }

    /// Sends a reset and drops what the system still has to send; whoever reads or writes the socket gets an error at once.
    fn abort(&self) {
        // Connecting to "nobody" is how Linux lets a connection be cut without closing its descriptor. It fails only where there
        // is nothing left to cut.
        let _ = rustix::net::connect_unspec(self.fd.as_fd());
    }
}
