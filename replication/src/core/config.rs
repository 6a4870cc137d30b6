//! Times, limits and an administrator's choices that a core follows.

use std::time::Duration;

use holdfast_types::UnitVersion;

use super::api::Identity;

/// Times and limits. The default is what production uses; tests shrink some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long a command may wait before it takes effect (W1, I11), counted from when it was received.
    pub hold_limit: Duration,
    /// How long a commit position waits for a message to ride on.
    pub commit_idle: Duration,
    /// Between two proposals of the same wish (they may get lost; the wish is level-triggered).
    pub repropose: Duration,
    /// A planned switchover that has not drained after this long is given up; one that is not committed after as long again is made void
    /// by commit (E6).
    pub switchover_limit: Duration,
    /// A member of the in-sync set that never had a link in this run, or has one and does not answer, is asked out after this long. One
    /// whose link went down is asked out at once.
    pub absent_after: Duration,
    /// How long a forwarded command that waited too long may take to be barred at the primary, before the link is reset (F2).
    pub fate_limit: Duration,
    /// Bytes of applied records kept in memory, so that a replica that was away for a moment gets the log (R2).
    pub keep_bytes: usize,
    /// Bytes of records that are not applied here and stored on every streaming replica; above it new writes wait for their lsn.
    pub window_bytes: usize,
    /// The unit in which replicas are compared under one lock. A multiple of the block size.
    pub resync_range_bytes: u64,
    /// The unit in which a range that differs travels. A multiple of the block size; divides `resync_range_bytes`.
    pub resync_piece_bytes: u64,
    /// Ranges of one replica compared at a time; one while commands of initiators are open.
    pub resync_in_flight: usize,
    /// Bytes of contents on their way to one replica at which no further range is started.
    pub resync_window_bytes: usize,
    /// Bytes of a range that are held and sent at a time, and on their way to one replica, while commands of initiators are open: what
    /// those send waits behind no more than this.
    pub resync_busy_bytes: usize,
    /// How long nothing is compared after such a part, in times of what the part took.
    pub resync_pause_times: u32,
    /// A read that has waited this long for the local disk is asked of an in-sync replica too, whose answer counts as well (I10).
    pub fetch_after: Duration,
    /// Bytes a second that a scrub compares at most.
    pub scrub_rate: u64,
    /// Between two tries of ranges with blocks that no member of the in-sync set has.
    pub unreadable_retry: Duration,
    /// Command names remembered at most, besides the time they are remembered for (F1).
    pub names_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hold_limit: holdfast_types::HOLD_LIMIT,
            commit_idle: Duration::from_millis(5),
            repropose: Duration::from_millis(250),
            switchover_limit: Duration::from_secs(2),
            absent_after: Duration::from_secs(1),
            fate_limit: Duration::from_millis(500),
            keep_bytes: 8 << 20,
            window_bytes: 64 << 20,
            resync_range_bytes: holdfast_types::RESYNC_RANGE_BYTES,
            resync_piece_bytes: 4096,
            resync_in_flight: 4,
            resync_window_bytes: 3 << 20,
            resync_busy_bytes: 128 << 10,
            resync_pause_times: 1,
            fetch_after: Duration::from_secs(1),
            scrub_rate: 64 << 20,
            unreadable_retry: Duration::from_secs(5),
            names_max: 1 << 17,
        }
    }
}

/// Write-back of an extent (W5), committed state. The default is none: what is answered is stable on every member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cache {
    /// Writes admitted under this version of the unit's state, or a later one, are answered once every member has received them.
    pub since: Option<UnitVersion>,
    /// Members, in the runs in which they have whatever was answered so. A member in another run has lost its memory.
    pub runs: Vec<Identity>,
}

impl Cache {
    /// Whether there may be answered writes that are not stable.
    pub fn is_in_force(&self) -> bool {
        self.since.is_some() || !self.runs.is_empty()
    }

    /// Whether `who` has everything that was answered.
    pub fn remembers(&self, who: Identity) -> bool {
        !self.is_in_force() || self.runs.contains(&who)
    }
}

/// Choices of an administrator that the core follows: committed state, as everything in a [`View`](super::api::View).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A replica without progress for this long, with work waiting, is stuck (I10).
    pub stuck_after: Duration,
    /// Space is allocated as blocks are written, so that it may run out. Otherwise all of it was allocated at creation.
    pub thin: bool,
    /// It lies on block devices that were given to the nodes.
    pub on_devices: bool,
    /// Reads are answered only once every other member of the in-sync set has confirmed the epoch since they came in (W4).
    pub confirmed_reads: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            stuck_after: holdfast_types::STUCK_AFTER,
            thin: true,
            on_devices: false,
            confirmed_reads: false,
        }
    }
}
