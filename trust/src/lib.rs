//! Who belongs to a cluster, proven on the wire: the cluster's own certificate authority, each node's certificate, TLS on the ports between
//! nodes and on the admin port, and the authentication of heartbeats.
//!
//! Everything follows from the **cluster key**, which each member keeps (`cluster.key`), and from the [`Generation`] that the cluster state
//! names: the authority's key is derived from the two, so every member can issue its own certificate, in memory, when it starts, and no
//! certificate has to be stored or copied. A certificate [names](Name) the cluster and the node. It does not end with a date, because no
//! clock of a calendar is trusted here; what ends is a generation, by a rotation.
//!
//! A machine that joins has no cluster key yet. Its token stands in for it: both sides derive an authority out of it, for this one call.

mod authority;
mod config;
mod door;
mod error;
mod generation;
mod mac;
mod name;
mod role;
mod trust;

pub use authority::{Authority, IssueError, Leaf};
pub use config::{Credentials, Port};
pub use door::{Caller, Door, FindToken, FindTrust, Known, Refusals, channel, reach};
pub use error::HandshakeError;
pub use generation::{Generation, Generations, Key};
pub use mac::{MAC_LEN, MacKeys};
pub use name::Name;
pub use role::{ADMIN_NAME_MAX, AdminRole, check_admin_name};
pub use trust::{ClientStream, Peer, ServerStream, Trust, ask_with_token};
