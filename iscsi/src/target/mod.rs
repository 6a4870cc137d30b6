//! The target side of one connection, which is also its session's only one.

mod authenticate;
mod config;
mod connection;
mod event;
mod full_feature;
mod keepalive;
mod link;
mod login;
mod task;
mod text_exchange;
mod window;

pub use config::{DigestPolicy, Limits, Offer, PortalConfig};
pub use connection::{Connection, Origin};
pub use event::{Answer, Command, Event, ReferencedTask, TaskError, TaskId, TaskManagement, TmfId};

#[cfg(test)]
mod chap_test;
#[cfg(test)]
mod data_test;
#[cfg(test)]
mod login_client;
#[cfg(test)]
mod login_test;
#[cfg(test)]
mod order_test;
#[cfg(test)]
mod session_test;
