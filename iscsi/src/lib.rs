//! iSCSI (RFC 7143) without I/O: PDUs, digests, login, text, sessions and task management, for the target side and for a small initiator.
//!
//! [`target::Connection`] and [`initiator::Initiator`] are state machines. Bytes and the time go in
//! ([`target::Connection::receive`]), events come out, the owner's answers
//! go in, and PDUs come out as segments for vectored writes ([`out::Outbox`]). Nothing here opens a socket, reads a clock or spawns.
//!
//! What is supported is said in the negotiation: ErrorRecoveryLevel 0, one connection per session, data in order, both digests
//! (CRC32C). Payload is not
//! copied: it leaves the receive buffer as [`bytes::Bytes`], and goes out from the owner's. Only data that comes in several PDUs
//! is put together, in one
//! buffer allocated when the owner asks for it.
//!
//! Whatever a peer sends costs its own connection at most: lengths are judged before anything is buffered, every queue has a
//! bound, and errors end
//! in [`error::Fatal`].

pub mod chap;
pub mod directory;
pub mod error;
pub mod frame;
pub mod initiator;
pub mod isns;
pub mod negotiate;
pub mod out;
pub mod pdu;
pub mod serial;
pub mod session;
pub mod target;
pub mod text;

#[cfg(test)]
mod pair;
