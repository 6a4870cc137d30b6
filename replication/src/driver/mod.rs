//! What carries out the replication core's commands on one data node.
//!
//! # Threads
//! | thread | what it does |
//! |---|---|
//! | whoever submits | gives the command to the core and queues what follows; reads that need no disk are answered here |
//! | journal | one group write after the other; reports stable groups to the cores |
//! | apply | writes committed records into extents, in batches, and reports them |
//! | read (a few) | reads that need the disk |
//! | hash | hashes for comparing replicas |
//! | timer | the cores' deadlines, all of them; hands proposals on in batches |
//! | checkpoint | flushes extents, moves checkpoints, gives journal segments back |
//! | tokio | one task per link |
//!
//! Each core is behind a mutex that is held while it takes events and its commands are put into queues, never across an await or a
//! disk access. Locks are taken in this order: a peer's order (links), the map of extents, an extent, the journal's queue, an
//! extent's place in the journal, a link's queue. Answers to the front are given without any of them but the first.

mod checkpoint;
mod extent;
mod fatal;
mod inbox;
mod io;
mod node;
mod scrub;
mod shared;
mod space;
mod status;
mod timer;
mod told;

use std::time::Duration;

use holdfast_types::{ExtentId, OpOutcome};

pub use node::{DataNode, Parts, UnknownExtent};
pub use space::Space;
pub use status::{ExtentStatus, ResyncRate, Scrubs};

use crate::core::api::{Config, Ctx, OpId, Proposal};

/// Takes answers to commands. Called from any thread; must not block. It may submit, abort and ask for status, but not apply a state or
/// set peers: the order of a peer's messages may be held.
pub trait Front: Send + Sync + 'static {
    /// The one answer to a submitted command.
    fn complete(&self, extent: ExtentId, op: OpId, outcome: OpOutcome);
}

/// Takes proposals to the control plane. They may get lost: the cores repeat them.
pub trait Proposer: Send + Sync + 'static {
    /// Proposes all of them, in one entry if possible. Called from a thread of its own; should not block for long.
    fn propose(&self, batch: Vec<(ExtentId, Proposal)>);

    /// Gets a commit position that a majority confirms from now on (a Raft read index) and, once [`DataNode::apply_state`] was given that
    /// state, calls [`DataNode::confirmed`] (W4). Called from any thread; must not block. Where this is not there, reads that need it
    /// wait until they have waited too long.
    fn confirm(&self, extent: ExtentId, round: u64) {
        let _ = (extent, round);
    }
}

/// Time and lease, as the cores are to see them. Called for every event: must be cheap.
pub trait LeaseView: Send + Sync + 'static {
    /// What holds now. Its time never goes back.
    fn ctx(&self) -> Ctx;
}

/// How a data node is run. The default is for production.
#[derive(Debug, Clone)]
pub struct DriverConfig {
    /// Of every core.
    pub core: Config,
    /// Of the journal.
    pub journal: holdfast_journal::Config,
    /// Threads that read from extents where the page cache has no answer. At least 1.
    pub read_threads: usize,
    /// Reads of at most this many bytes are tried at once by whoever asks.
    pub inline_read_bytes: u64,
    /// Between two checkpoints of an extent that is written to.
    pub checkpoint_every: Duration,
    /// Between two scrubs of an extent.
    pub scrub_every: Duration,
    /// Fill of the journal, in percent, from which on new writes wait (J3).
    pub admit_below_percent: u64,
    /// Fill of the journal, in percent, from which on checkpoints are taken without waiting and old entries are copied forward (J3).
    pub hurry_above_percent: u64,
    /// How long proposals wait for others, to share one entry.
    pub propose_after: Duration,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            core: Config::default(),
            journal: holdfast_journal::Config::replication("replication"),
            read_threads: 2,
            inline_read_bytes: 64 << 10,
            checkpoint_every: Duration::from_secs(1),
            scrub_every: Duration::from_secs(7 * 24 * 3600),
            admit_below_percent: 85,
            hurry_above_percent: 50,
            propose_after: Duration::from_millis(1),
        }
    }
}
