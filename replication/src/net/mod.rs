//! Links between data nodes.
//!
//! One connection per pair of nodes carries the messages of all extents, and nothing else: heartbeats and Raft have their own.
//! The node with the **lower id dials**, the other one listens, so two nodes never race for which of two connections counts. A
//! connection is a *link* from its handshake on; it has a number that is never used again between the same two runs, chosen by who dials. A
//! new link of a peer replaces its older one at once, also when the peer has been started anew.
//!
//! [`Links`] knows the links and keeps order: a link's messages reach the cores between its up and its down, never after. What carries
//! bytes is behind [`Carrier`] and calls [`Links`]: frames over TCP ([`Net`]). Whoever has something to send writes it into the socket
//! itself, and whoever reads a batch drives the cores with it: a message costs no wake-up but that of the peer.

mod frame;
mod hello;
mod links;
mod outbox;
mod socket;
mod tcp;
mod tls;
#[cfg(test)]
mod travel_test;
mod wire;
mod wire_statuses;

pub use hello::{Hello, PROTOCOL, Refusal};
pub use links::{Carrier, Link, LinkEvents, Links};
pub use tcp::{Net, NetConfig, PeerAddress};
pub use wire::WireError;
