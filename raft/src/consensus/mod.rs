//! Raft: openraft closed over one configuration, its log and vote in a journal, the applied state in sled, snapshots in files of their
//! own, and its messages over gRPC. Nothing outside this module knows openraft; everybody else holds a [`Control`].

mod applied;
mod config;
mod control;
mod error;
mod join;
mod keeper;
mod kind;
mod log;
mod machine;
mod meet;
mod membership;
mod network;
mod peers;
mod propose;
mod record;
mod recover;
mod service;
mod sled_store;
mod snapshot;
mod takeover;
mod wire;

pub use config::{Config, Timers};
pub use control::{Control, Metrics, PeerMetrics};
pub use error::{InitializeError, MembershipError, ProposeError, ReadIndexError, StartError, TransferError};
pub use join::{JoinError, JoinToken, Welcome, ask_to_join};
pub use log::VotersHook;
pub use machine::AppliedHook;
pub use meet::{Inspected, MeetError, Met, MetMember, Newcomer, look_back_with_token, meet_with_token};
pub use membership::Membership;
pub use service::RaftService;
pub use takeover::begin_incarnation;

#[cfg(test)]
mod bytes_test;
#[cfg(test)]
mod cluster_test;
#[cfg(test)]
mod keeper_test;
#[cfg(test)]
mod log_test;
#[cfg(test)]
mod recovery_test;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod suite_test;
#[cfg(test)]
mod takeover_test;
