//! Telling iSNS servers (RFC 4171) which targets there are, and where: the client's side without I/O.
//!
//! A target's name belongs to one Network Entity on a server (RFC 4171, 2.2 and 5.6.5.1), so all nodes of a cluster are one entity, and one
//! of them at a time registers everything: the portals of the nodes that are up, the targets, and which portal group each portal is of.
//! What is registered is a pure function of the cluster's state, so it does not matter which node does it.
//!
//! [`Registration`] is the state machine for one server: what is wanted goes in, messages come out one at a time, answers and failures go
//! in. [`Answer::parse`] reads what a server says; whatever that is, it costs a try at most.

mod message;
mod registration;

pub use message::{Answer, AnswerError, HEADER_BYTES, body_length};
pub use registration::{Condition, Objects, Registration};

/// The port that IANA gave to iSNS servers (RFC 4171, 2.3).
pub const ISNS_PORT: u16 = 3205;

#[cfg(test)]
mod registration_test;
