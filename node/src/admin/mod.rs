//! How commands reach a node: a gRPC service on a Unix socket, and on a TCP port with certificates where the configuration names one.

pub(crate) mod access;
mod address;
pub(crate) mod change;
mod client;
pub(crate) mod injection;
pub(crate) mod server;
mod takeover;

pub(crate) use address::AdminAddress;
pub(crate) use client::{AdminClient, use_certificate};
pub(crate) use takeover::{GoneNode, PlannedExtent, TakeoverPlan};
