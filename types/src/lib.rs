//! The words of Holdfast: identifiers, positions, sizes, names and limits that more than one crate speaks of.
//!
//! Nothing here does I/O, reads a clock or knows a protocol. Every number that crosses a crate border is one of these newtypes,
//! so that an epoch is never taken for a log sequence number, nor a block address for a byte offset.

mod block;
mod calendar;
mod fault;
mod hex;
mod ids;
mod limits;
mod lun;
mod naa;
mod name;
mod network;
mod op;
mod secret;
mod size;
mod time;
mod unit;

pub use block::{BlockRange, BlockSize, Lba, RangeError};
/// Target of tracing events that tell people what happened, in plain words. Their fields: `what` (the kind), and where they are about one
/// `extent` and `node`; see the node's flight recorder.
pub const EVENTS: &str = "holdfast::event";

pub use calendar::{utc, utc_to_the_millisecond};
pub use hex::{hex, unhex, unhex_exact};
pub use ids::{
    CommandName, DeviceId, Epoch, ExtentId, InSyncVersion, Incarnation, LeaseGeneration, LogPos, Lsn, NodeId,
    ParseIdError, RelativePortId, Revision, SessionInstance, SuspicionId, TpgId, UnitVersion,
};
pub use limits::*;
pub use lun::{Lun, LunError};
pub use naa::Naa;
pub use name::{InitiatorTag, IscsiName, Isid, NameError, Nexus, NexusTag};
pub use network::{Network, NetworkError};
pub use op::{BlockOp, MappedRun, OpOutcome};
pub use secret::{SECRET_BYTES_MAX, SECRET_BYTES_MIN, Secret, SecretError};
pub use size::{ByteSize, SizeError};
pub use time::{Mono, UnixMillis, unix_seconds};
pub use unit::{Origin, UnitRule, UnitVerdict};
