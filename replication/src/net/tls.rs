//! TLS of a link: the session between the frames and the socket. Encrypting and decrypting need the same session, so a lock is around it;
//! nobody waits for the network inside.

use std::io::{self, BufRead as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, BytesMut};
use rustls::Connection;
use tokio::net::tcp::OwnedWriteHalf;

/// Bytes that are encrypted before the socket is asked again: records of 16 KiB, written with one call.
const SEND_BYTES: usize = 256 << 10;

/// The session of a link.
pub(super) struct Tls(Mutex<Session>);

struct Session {
    connection: Connection,
    /// Bytes that are encrypted, and not sent wholly; the caller was not told yet that they were taken.
    owed: usize,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// The socket as the session writes to it.
struct Out<'a>(&'a OwnedWriteHalf);

impl io::Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Tls {
    /// Of a session whose handshake is over.
    pub(super) fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(SEND_BYTES));
        Self(Mutex::new(Session { connection, owed: 0 }))
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends as much of `bytes` as goes without waiting, and says how much that was. What was begun with and is not told as sent must
    /// come again at the beginning of the next call, as with any stream that takes less than it was given.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`], or the end of the connection.
    pub(super) fn send(&self, half: &OwnedWriteHalf, bytes: &[u8]) -> io::Result<usize> {
        let mut session = self.session();
        session.write_out(half)?;
        // Those went out just now.
        let mut done = std::mem::take(&mut session.owed).min(bytes.len());
        while done < bytes.len() {
            let taken = session.connection.writer().write(&bytes[done..])?;
            match session.write_out(half) {
                Ok(()) => done += taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Told as sent once they are: so whoever sends comes back when the socket has room.
                    session.owed = taken;
                    return if done > 0 { Ok(done) } else { Err(error) };
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Takes what came from the socket, and adds what it says to `plain`; how much that is.
    ///
    /// # Errors
    /// It was not the peer who sent it, or it was changed.
    pub(super) fn take(
        &self,
        half: &OwnedWriteHalf,
        came: &mut BytesMut,
        plain: &mut BytesMut,
    ) -> io::Result<usize> {
        let mut session = self.session();
        let before = plain.len();
        session.give(plain)?;
        while !came.is_empty() {
            let mut rest = &came[..];
            let read = session.connection.read_tls(&mut rest)?;
            came.advance(read);
            session.connection.process_new_packets().map_err(broken)?;
            session.give(plain)?;
            if read == 0 {
                break;
            }
        }
        // New keys, which the session asks for by itself. Where there is no room now they go before the next bytes.
        match session.write_out(half) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(plain.len() - before),
        }
    }
}

impl Session {
    fn write_out(&mut self, half: &OwnedWriteHalf) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut Out(half))?;
        }
        Ok(())
    }

    fn give(&mut self, plain: &mut BytesMut) -> io::Result<()> {
        loop {
            let mut reader = self.connection.reader();
            let length = match reader.fill_buf() {
                Ok(chunk) => {
                    plain.extend_from_slice(chunk);
                    chunk.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            if length == 0 {
                return Ok(());
            }
            reader.consume(length);
        }
    }
}
