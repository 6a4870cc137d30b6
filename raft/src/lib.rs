//! The control plane: the committed cluster state and its commands, leases and liveness, and Raft around them.

pub mod model;
