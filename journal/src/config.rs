//! Sizes and limits of a log, and what its owner knows when opening it.

use crate::Position;
use crate::error::OpenError;
use crate::format::BLOCK;

/// Sizes and limits of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The log's name, in messages and thread names ("raft", "replication").
    pub name: String,
    /// Bytes per segment: a multiple of 4096, from 64 KiB to 1 GiB. A log that exists keeps the size it was made with.
    pub segment_size: u64,
    /// Segments the log may hold, at least 3. The last one is left to [`append_reclaim`](crate::Journal::append_reclaim).
    pub max_segments: u32,
    /// Spare segments kept for reuse, at least 1; more are removed.
    pub max_spares: u32,
    /// Bytes that may wait for the writer (headers, payloads and record headers); the next append is refused with `Full`.
    pub max_queued_bytes: usize,
    /// Bytes at which a group is closed; one larger record is a group of its own.
    pub max_group_bytes: usize,
    /// Records at which a group is closed, 1 to 256.
    pub max_group_records: usize,
}

impl Config {
    /// For a Raft log and vote: small records, 4 MiB segments.
    pub fn raft(name: impl Into<String>) -> Self {
        Config {
            name: name.into(),
            segment_size: 4 << 20,
            max_segments: 64,
            ..Config::replication("")
        }
    }

    /// For the replication log of a node: 64 MiB segments.
    pub fn replication(name: impl Into<String>) -> Self {
        Config {
            name: name.into(),
            segment_size: 64 << 20,
            max_segments: 32,
            max_spares: 2,
            max_queued_bytes: 32 << 20,
            max_group_bytes: 1 << 20,
            max_group_records: 256,
        }
    }

    /// Whether a segment may have this size.
    pub(crate) fn is_segment_size(size: u64) -> bool {
        size.is_multiple_of(BLOCK) && (64 << 10..=1 << 30).contains(&size)
    }

    /// Checks every range.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let bad = |what| {
            Err(OpenError::Config {
                name: self.name.clone(),
                what,
            })
        };
        if !Config::is_segment_size(self.segment_size) {
            return bad("segment_size must be a multiple of 4096 from 64 KiB to 1 GiB");
        }
        if self.max_segments < 3 {
            return bad("max_segments must be at least 3");
        }
        if self.max_spares < 1 {
            return bad("max_spares must be at least 1");
        }
        if !(1..=256).contains(&self.max_group_records) {
            return bad("max_group_records must be 1 to 256");
        }
        if self.max_group_bytes == 0 || self.max_queued_bytes == 0 {
            return bad("max_group_bytes and max_queued_bytes must not be zero");
        }
        Ok(())
    }
}

/// What the owner knows, and allows, when it opens a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Everything below this position was durable (a `through`, or a position noted in a checkpoint or by a peer). A log that
    /// ends before it is damaged (J1).
    pub known_durable: Option<Position>,
    /// The owner needs every record from here on (its checkpoint). A log that starts after it is damaged.
    pub needed_from: Option<Position>,
    /// Open for appending in spite of damage: the log goes on in a fresh segment behind everything readable, and the damage is
    /// not reported again once the first record is durable.
    pub accept_damage: bool,
}
