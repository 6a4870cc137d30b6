//! How commands reach a node: a gRPC service on a Unix socket, and on a TCP port with certificates where the configuration names one.

pub(crate) mod access;
mod address;
mod api_tokens;
mod audit;
mod caller;
pub(crate) mod change;
mod client;
mod devices;
mod guard;
mod import;
pub(crate) mod injection;
pub(crate) mod readdress;
pub(crate) mod rules;
pub(crate) mod server;
mod takeover;
mod told;

pub(crate) use address::AdminAddress;
pub(crate) use api_tokens::ApiTokenStatus;
pub(crate) use audit::Audit;
pub(crate) use client::{AdminClient, use_api_token, use_certificate};
pub(crate) use devices::{DeviceStatus, devices_text};
pub(crate) use guard::Guard;
pub(crate) use takeover::{GoneNode, PlannedExtent, TakeoverPlan};
