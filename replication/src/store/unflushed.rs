//! How much was written to a file since it was flushed.
//!
//! A second's large writes flushed at once fill the disk's queue, and the journal's, which commands wait for, stand behind them. So a file
//! is flushed little by little, long before its checkpoint. Small writes all over it are not worth that: each block of them is a request of
//! its own to the disk, whenever it is flushed, and the more of them are flushed at once, the fewer flushes wait for the journal's and are
//! waited for.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes from which on a flush is due.
const DUE: u64 = 16 << 20;
/// Writes of fewer bytes do not count.
const LARGE: usize = 32 << 10;
/// Far more than there can be: somebody was told that a flush is due.
const ASKED: u64 = 1 << 62;

/// Bytes written since a flush began last.
#[derive(Debug, Default)]
pub(super) struct Unflushed(AtomicU64);

impl Unflushed {
    /// So many bytes are written in one piece.
    pub(super) fn wrote(&self, bytes: usize) {
        if bytes >= LARGE {
            self.0.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// A flush begins, of all that was written before.
    pub(super) fn begins(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Whether a flush is due: true once, until the next one has begun.
    pub(super) fn is_due(&self) -> bool {
        (DUE..ASKED).contains(&self.0.load(Ordering::Relaxed))
            && self.0.fetch_or(ASKED, Ordering::Relaxed) < ASKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_asked_for_once_each_time_that_much_was_written() {
        let unflushed = Unflushed::default();
        for _ in 0..3 {
            unflushed.wrote(16 << 20);
            assert!(unflushed.is_due());
            unflushed.wrote(16 << 20);
            assert!(!unflushed.is_due(), "it is on its way");
            unflushed.begins();
            unflushed.wrote((16 << 20) - 1);
            assert!(!unflushed.is_due());
            unflushed.begins();
        }
    }

    #[test]
    fn small_writes_wait_for_the_checkpoint_however_many_they_are() {
        let unflushed = Unflushed::default();
        for _ in 0..100_000 {
            unflushed.wrote(4096);
        }
        assert!(!unflushed.is_due());
        for _ in 0..(16 << 20) / LARGE {
            assert!(!unflushed.is_due());
            unflushed.wrote(LARGE);
        }
        assert!(unflushed.is_due());
    }
}
