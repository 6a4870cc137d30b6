//! Leases and liveness: heartbeats, promises, run-out reports (L1 to L5, L7).
//!
//! [`Keeper`] is sans-IO; [`driver`] puts a thread, a UDP socket and a clock around it. Threads of the data path read [`LeaseCell`]
//! and never take a lock.

mod cell;
pub mod driver;
mod keeper;
mod peer;
pub mod probe;
mod view;
mod wire;

pub use cell::{LeaseCell, LeaseReading};
pub use keeper::{Action, Keeper, ResetCause};
pub use view::{HEARS_WITHIN, KeeperView, PeerView, Told};
pub use wire::{Ack, DATAGRAM_MAX, Datagram, Hearing, Heartbeat, RunOut, WireError};

#[cfg(test)]
mod change_test;
#[cfg(test)]
mod keeper_test;
#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod trace_test;
#[cfg(test)]
mod wire_test;
