//! What sessions have in storage, shared out so that a noisy initiator starves nobody and a node's memory has a bound.
//!
//! A session that is alone may have as much under way as its command window allows. As soon as others have something under way too, each
//! has its share in storage; what is beyond that waits in its own session, in order, and what is far beyond gets TASK SET FULL, on which
//! initiators lower their queue depth. So a quiet session never stands behind all that a noisy one would like to have done.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes that all sessions together have in storage where more than one has something there.
const CONTENDED_BYTES: u64 = 16 << 20;
/// What a session has in any case: room for its largest command.
const SHARE_MIN: u64 = 1 << 20;
/// Bytes of a session's commands that may wait here while others are busy, in storage or for it; more get TASK SET FULL.
const WAITING_BYTES: u64 = 32 << 20;
/// Bytes of all commands' data that the node holds; beyond that every session but an idle one gets TASK SET FULL.
const NODE_BYTES: u64 = 512 << 20;
/// What a command counts at least.
const COST_MIN: u64 = 4096;

/// All sessions of a node.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Sessions with something under way.
    busy: AtomicUsize,
    /// Bytes under way.
    bytes: AtomicU64,
    /// Bytes of commands that wait for their session's share.
    waiting: AtomicU64,
}

/// What is to be done with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Start it.
    Now,
    /// Keep it until some of the session's own are through.
    Wait,
    /// TASK SET FULL.
    Full,
}

/// What a command counts for that moves `bytes`.
pub(super) fn cost(bytes: u32) -> u64 {
    u64::from(bytes).max(COST_MIN)
}

impl Shares {
    /// Whether a session that has `open` bytes under way and `waiting` bytes queued may start a command of that cost.
    pub(super) fn turn(&self, open: u64, waiting: u64, cost: u64) -> Turn {
        let busy = self.busy.load(Ordering::Relaxed);
        let others = busy > usize::from(open > 0);
        let held = self.bytes.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed);
        let total = held.saturating_add(cost);
        if open > 0 && total > NODE_BYTES {
            return Turn::Full;
        }
        let sessions = u64::try_from(busy.max(1)).unwrap_or(u64::MAX);
        let share = (CONTENDED_BYTES / sessions).max(SHARE_MIN);
        if open == 0 || !others || (waiting == 0 && open + cost <= share) {
            // Nobody overtakes commands of its own session that wait.
            return if waiting > 0 && open > 0 {
                Turn::Wait
            } else {
                Turn::Now
            };
        }
        if open + waiting + cost > WAITING_BYTES {
            Turn::Full
        } else {
            Turn::Wait
        }
    }

    /// The first in a session's queue: whether it may start now.
    pub(super) fn may_go_on(&self, open: u64, cost: u64) -> bool {
        let busy = self.busy.load(Ordering::Relaxed);
        let sessions = u64::try_from(busy.max(1)).unwrap_or(u64::MAX);
        open == 0 || busy <= 1 || open + cost <= (CONTENDED_BYTES / sessions).max(SHARE_MIN)
    }

    /// A session's bytes under way have changed.
    pub(super) fn moved(&self, before: u64, after: u64) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
        match (before, after) {
            (0, 1..) => drop(self.busy.fetch_add(1, Ordering::Relaxed)),
            (1.., 0) => drop(self.busy.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// A session's bytes that wait have changed.
    pub(super) fn waits(&self, before: u64, after: u64) {
        if after >= before {
            self.waiting.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.waiting.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Sessions with something under way.
    #[cfg(test)]
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Bytes under way.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_session_that_is_alone_has_it_all() {
        let shares = Shares::default();
        assert_eq!(shares.turn(0, 0, MIB), Turn::Now);
        shares.moved(0, 100 * MIB);
        assert_eq!(shares.turn(100 * MIB, 0, MIB), Turn::Now);
        shares.moved(100 * MIB, 0);
        assert_eq!((shares.busy(), shares.bytes()), (0, 0));
    }

    #[test]
    fn with_others_each_has_its_share_and_then_waits_and_then_hears_of_it() {
        let shares = Shares::default();
        shares.moved(0, 8 * MIB);
        assert_eq!(
            shares.turn(0, 0, 4096),
            Turn::Now,
            "the quiet one goes straight in"
        );
        shares.moved(0, 4096);
        assert_eq!(shares.turn(8 * MIB, 0, MIB), Turn::Wait);
        assert_eq!(shares.turn(7 * MIB, 0, MIB), Turn::Now);
        assert_eq!(shares.turn(7 * MIB, MIB, MIB), Turn::Wait, "behind its own");
        assert_eq!(shares.turn(8 * MIB, 24 * MIB, MIB), Turn::Full);
        assert!(shares.may_go_on(7 * MIB, MIB) && !shares.may_go_on(8 * MIB, MIB));
    }

    #[test]
    fn a_session_always_has_one_command_under_way() {
        let shares = Shares::default();
        for _ in 0..100 {
            shares.moved(0, 8 * MIB);
        }
        assert_eq!(shares.turn(0, 0, MIB), Turn::Now);
        assert_eq!(
            shares.turn(MIB, 0, MIB),
            Turn::Full,
            "the node's memory has a bound"
        );
    }
}
