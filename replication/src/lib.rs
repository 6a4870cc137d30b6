//! Replication of extents: the protocol core without I/O, and what drives it.

pub mod core;
pub mod driver;
pub mod fault;
pub mod net;
pub mod store;
