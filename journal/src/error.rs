//! Verdicts and errors.

use std::io;
use std::sync::Arc;

use crate::Position;

/// What recovery thinks of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every byte is accounted for.
    Clean,
    /// The last group was being written when the power went; it was never acknowledged and is cut as a whole (J1).
    TornTail {
        /// Where the group began: the log's end.
        position: Position,
        /// Bytes of it that are given up, as far as known.
        bytes: u64,
    },
    /// Acknowledged bytes are missing (J1).
    Damaged {
        /// The first damaged place.
        position: Position,
        /// What is wrong there.
        reason: Damage,
    },
}

/// Why a log is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A group or record fails its checks although a later one was begun, or a later header says that it was durable.
    #[error("a record fails its checks, and later ones prove that it was durable")]
    BadRecord,
    /// A group is whole but does not follow the one before it.
    #[error("a group does not follow the one before it")]
    BrokenChain,
    /// A segment's header fails its checks.
    #[error("the header of segment {0} fails its checks")]
    BadHeader(u64),
    /// A segment belongs to another log or another place in it.
    #[error("segment {0} belongs to another log or another place")]
    WrongSegment(u64),
    /// A segment is not there.
    #[error("segment {0} is missing")]
    MissingSegment(u64),
    /// A segment's file is shorter than it was made.
    #[error("segment {0} is shorter than it was made")]
    ShortSegment(u64),
    /// The disk does not give the bytes back.
    #[error("segment {0} cannot be read: {1}")]
    Unreadable(u64, String),
    /// The log ends before what its owner knows to have been durable.
    #[error("the log ends before {0}, up to which it was durable")]
    BelowKnownDurable(Position),
    /// The log starts after what its owner still needs.
    #[error("the log starts after {0}, from which it is needed")]
    AboveNeeded(Position),
}

/// The result of recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// What recovery thinks of the log.
    pub verdict: Verdict,
    /// No record below this is kept.
    pub first: Position,
    /// Where the log ends: everything offered lies below, everything appended from now on at or above.
    pub end: Position,
    /// Records offered.
    pub records: u64,
    /// Damage below this position was accepted at an earlier opening and is not part of the verdict.
    pub accepted: Option<Position>,
}

/// Why a log could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A limit is out of its range.
    #[error("journal {name}: {what}")]
    Config {
        /// The log's name.
        name: String,
        /// The rule that is broken.
        what: &'static str,
    },
    /// Another process, or another part of this one, has the log open.
    #[error("journal {name}: already open elsewhere: {error}")]
    Busy {
        /// The log's name.
        name: String,
        /// What the system says.
        error: io::Error,
    },
    /// The log was written by a newer version.
    #[error(
        "journal {name}: segment {segment} has format version {found}, newer than {known}, the newest that this version of holdfast knows"
    )]
    NewerVersion {
        /// The log's name.
        name: String,
        /// The segment that says so.
        segment: u64,
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// The log is damaged and [`accept_damage`](crate::OpenOptions::accept_damage) was not given. The readable records were offered.
    #[error("journal {name}: damaged: {}", describe(.recovery))]
    Damaged {
        /// The log's name.
        name: String,
        /// What was found.
        recovery: Recovery,
    },
    /// The disk failed.
    #[error("journal {name}: cannot be opened: {error}")]
    Io {
        /// The log's name.
        name: String,
        /// What the system says.
        error: io::Error,
    },
}

fn describe(recovery: &Recovery) -> String {
    match &recovery.verdict {
        Verdict::Damaged { position, reason } => format!("at {position}: {reason}"),
        Verdict::Clean | Verdict::TornTail { .. } => format!("log ends at {}", recovery.end),
    }
}

/// The error that ended a log (J2). Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub(crate) Arc<str>);

/// Why a record was not taken. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Too many bytes wait for the writer; try again after a completion.
    #[error("the journal's queue is full")]
    Full,
    /// Every segment is in use; try again after [`release_before`](crate::Journal::release_before) (J3: slows down, fences nobody).
    #[error("the journal has no room left until segments are released")]
    NoRoom,
    /// The record can never fit.
    #[error("a record of {bytes} bytes is larger than {max}, the most a segment can hold")]
    TooLarge {
        /// Header and payload.
        bytes: usize,
        /// The most that is possible.
        max: usize,
    },
    /// The log failed; final (J2).
    #[error("the journal has failed: {0}")]
    Failed(Failure),
    /// The log was closed.
    #[error("the journal is closed")]
    Closed,
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was released.
    #[error("the record at {0} was released")]
    Released(Position),
    /// The position is at or behind the log's end, or no record starts there.
    #[error("no record starts at {0}")]
    NotARecord(Position),
    /// A record fails its checks.
    #[error("the record at {0} fails its checks")]
    Damaged(Position),
    /// The disk failed.
    #[error("the record at {position} cannot be read: {error}")]
    Io {
        /// Which record.
        position: Position,
        /// What the system says.
        error: io::Error,
    },
}
