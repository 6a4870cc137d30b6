//! Where a record is in the log.

use std::fmt;

/// The place of a record in the log: an address that only grows.
///
/// It is `segment sequence * segment size + byte offset in that segment`, so it orders records, says which segment holds one, and
/// needs no index for a random read. Zero lies before everything. Positions of records that were reported durable, or found
/// by recovery, are never given again; one that was given but never became durable may be given again after a crash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// Before every record.
    pub const ZERO: Position = Position(0);

    /// A position from its number (for instance read back from a checkpoint).
    pub const fn new(address: u64) -> Self {
        Position(address)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({:#x})", self.0)
    }
}
