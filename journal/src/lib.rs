//! One durable append-only log: segments, checksums, group commit, recovery, and a simulated disk.
//!
//! A [`Journal`] hands out [`Position`]s at once and reports through a [`Sink`], in order, when groups of records are on stable storage.
//! One thread per log writes all that waits as one group with one `pwritev2(RWF_DSYNC)` into segments that were filled with zeros
//! before, and never waits to fill a group. An I/O error is final (J2). Opening a log streams its records and gives a
//! [`Verdict`] that tells a torn tail from damage (J1). Segments are recycled from the front once their owner releases them (J3).
//!
//! The bytes on disk are described at the headers in `format.rs`.

mod config;
mod device;
mod error;
mod file;
mod format;
mod journal;
mod position;
mod queue;
mod recover;
mod rot;
mod sim;
mod spares;
mod walk;
mod writer;

pub use config::{Config, OpenOptions};
pub use device::{FileName, LogDevice};
pub use error::{AppendError, Damage, Failure, OpenError, ReadError, Recovery, Verdict};
pub use file::FileDevice;
pub use format::Record;
pub use journal::{Journal, Usage};
pub use position::Position;
pub use queue::{Completion, Sink};
pub use recover::Recovered;
pub use sim::SimDevice;
pub use writer::{Step, Writer};

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod harness_test;
#[cfg(test)]
mod journal_test;
