//! Links between data nodes.
//!
//! One link per pair of nodes carries the messages of all extents, and nothing else: heartbeats and Raft have their own. Where nodes have
//! several addresses for it, the link has a connection, a *lane*, over each pair of them, sends over the preferred one that works
//! (`paths.rs`), and moves to another without the cores hearing of it (`link.rs`); where they have one, the connection is the link.
//! The node with the **lower id dials**, the other one listens, so two nodes never race for which of two connections counts. A
//! connection is a *link* from its handshake on; it has a number that is never used again between the same two runs, chosen by who dials. A
//! new link of a peer replaces its older one at once, also when the peer has been started anew.
//!
//! [`Links`] knows the links and keeps order: a link's messages reach the cores between its up and its down, never after. What carries
//! bytes is behind [`Carrier`] and calls [`Links`]: frames over TCP ([`Net`]). Whoever has something to send writes it into the socket
//! itself, and whoever reads a batch drives the cores with it: a message costs no wake-up but that of the peer.

mod dial;
mod frame;
mod hello;
mod lane;
mod link;
mod links;
#[cfg(test)]
mod moves_test;
mod outbox;
mod paths;
#[cfg(test)]
mod several_test;
mod socket;
mod tcp;
mod tls;
#[cfg(test)]
mod travel_test;
mod wire;
mod wire_statuses;

pub use hello::{Hello, LaneHello, PROTOCOL, Refusal};
pub use link::{Carrier, Lane, Link};
pub use links::{LinkEvents, Links, PeerReport};
pub use paths::{Limits, PathReport};
pub use tcp::{Net, NetConfig, PeerAddress};
pub use wire::WireError;
