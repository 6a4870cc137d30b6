//! The messages of the wire protocols between nodes, and between `holdfast` commands and a node, generated from `proto/*.proto`. All
//! fields are what a peer sent, unchecked; whoever takes one checks it.

/// Everything generated, under its package name.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    clippy::unwrap_used
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

include!(concat!(env!("OUT_DIR"), "/admin_names.rs"));

pub use generated::holdfast::admin::v1 as admin;
pub use generated::holdfast::raft::v1 as raft;
pub use generated::holdfast::replication::v1 as replication;
