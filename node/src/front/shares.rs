//! What sessions have in storage, shared out so that a noisy initiator starves nobody and a node's memory has a bound.
//!
//! A session that is alone may have as much under way as its command window allows. As soon as others have something in storage too, or
//! had a moment ago, each has its share there; what is beyond that waits in its own session, in order, and what is far beyond gets TASK
//! SET FULL, on which initiators lower their queue depth. Journals and links take all in the order it comes, so what is under way of
//! all together is how long a quiet session waits: it never stands behind all that a noisy one would like to have done.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_scsi::verified_blocks;
use holdfast_types::{BlockSize, Mono, TRANSFER_BYTES_MAX};

/// Bytes that all sessions together have in storage where more than one has something there. More makes disks little busier, and others
/// wait longer.
const CONTENDED_BYTES: u64 = 512 << 10;
/// What a session has in any case, and one command of any length.
const SHARE_MIN: u64 = 128 << 10;
/// What a session had in storage within this, or within twice as long, counts: a quiet one has nothing there between its commands.
const LATELY: Duration = Duration::from_millis(500);
/// A command of at most this is never refused for want of memory where it is its session's only one.
const USUAL_BYTES: u64 = 1 << 20;
/// Bytes of a session's commands that may wait here while others are busy, in storage or for it; more get TASK SET FULL.
const WAITING_BYTES: u64 = 32 << 20;
/// Bytes of all commands' data that the node holds, answers that wait to be sent included; beyond that every session but an idle one gets
/// TASK SET FULL.
const NODE_BYTES: u64 = 512 << 20;
/// The same with what idle sessions bring: one command each. Beyond that one of more than [`USUAL_BYTES`] gets BUSY. Less than what may
/// wait to be sent over a link, where all of it may be reads that the other node answers at once.
const IDLE_BYTES: u64 = 960 << 20;
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
    /// Bytes of answers that initiators have not taken yet.
    unsent: AtomicU64,
    /// Sessions that had something in storage lately.
    lately: Lately,
}

/// Counts who was there in the present window of [`LATELY`] and in the one before: the window's number, the count of the one before and
/// its own, in one word.
#[derive(Debug, Default)]
struct Lately(AtomicU64);

/// A window of [`LATELY`]; `None` before the first.
pub(super) type Window = Option<u64>;

impl Lately {
    /// Bits of a count, which stays at its largest value.
    const BITS: u32 = 16;
    const MAX: u64 = (1 << Self::BITS) - 1;

    const fn unpacked(word: u64) -> (u64, u64, u64) {
        (
            word >> (2 * Self::BITS),
            (word >> Self::BITS) & Self::MAX,
            word & Self::MAX,
        )
    }

    /// A session that was seen last in that window is there now: the window to remember.
    fn is_here(&self, last: Window, now: Mono) -> Window {
        let window = window_of(now);
        if last == Some(window) {
            return last;
        }
        let add = |word| {
            let (at, before, here) = Self::unpacked(word);
            let (before, here) = match window.checked_sub(at) {
                Some(0) | None => (before, here),
                Some(1) => (here, 0),
                Some(_) => (0, 0),
            };
            Some(window.max(at) << (2 * Self::BITS) | before << Self::BITS | (here + 1).min(Self::MAX))
        };
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        Some(window)
    }

    /// How many were there, about.
    fn count(&self, now: Mono) -> u64 {
        let (at, before, here) = Self::unpacked(self.0.load(Ordering::Relaxed));
        match window_of(now).checked_sub(at) {
            Some(0) | None => before.max(here),
            Some(1) => here,
            Some(_) => 0,
        }
    }
}

fn window_of(now: Mono) -> u64 {
    let windows = now.since(Mono::ZERO).as_millis() / LATELY.as_millis();
    u64::try_from(windows).unwrap_or(u64::MAX) & (u64::MAX >> (2 * Lately::BITS))
}

/// What a session has of the node's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Has {
    /// Under way.
    pub(super) open: u64,
    /// Of commands that wait for its share.
    pub(super) waiting: u64,
    /// Of answers that wait to be sent.
    pub(super) unsent: u64,
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
    /// BUSY: there is no room, and the session has nothing under way that would make some (SAM-5, 5.3).
    Busy,
}

/// What moving so many bytes counts for; no command moves more than [`TRANSFER_BYTES_MAX`], whatever is announced.
pub(super) fn cost(bytes: u32) -> u64 {
    u64::from(bytes).clamp(COST_MIN, u64::from(TRANSFER_BYTES_MAX))
}

/// What a command counts for: what it moves, or what a VERIFY reads without moving it (as if blocks were large: whose they are is not
/// known yet).
pub(super) fn cost_of(cdb: &[u8], expected_length: u32) -> u64 {
    let largest = u64::from(BlockSize::B4096.bytes());
    let verified = verified_blocks(cdb).map_or(0, |blocks| blocks.saturating_mul(largest));
    cost(expected_length).max(cost(u32::try_from(verified).unwrap_or(u32::MAX)))
}

impl Shares {
    /// A session gives something to storage; `last` is what this said before. Says what to remember.
    pub(super) fn is_here(&self, last: Window, now: Mono) -> Window {
        self.lately.is_here(last, now)
    }

    /// Sessions that share storage now, the asking one included.
    fn sessions(&self, open: u64, now: Mono) -> u64 {
        let busy = self.busy.load(Ordering::Relaxed) + usize::from(open == 0);
        u64::try_from(busy)
            .unwrap_or(u64::MAX)
            .max(self.lately.count(now))
    }

    /// Bytes that a session may have in storage where there are so many.
    fn share(sessions: u64) -> u64 {
        (CONTENDED_BYTES / sessions.max(1)).max(SHARE_MIN)
    }

    /// Whether a session that has so much may start a command of that cost.
    pub(super) fn turn(&self, has: Has, cost: u64, now: Mono) -> Turn {
        let Has {
            open,
            waiting,
            unsent,
        } = has;
        let total = self.held().saturating_add(cost);
        if (open > 0 || unsent > 0) && total > NODE_BYTES {
            return Turn::Full;
        }
        if total > IDLE_BYTES && cost > USUAL_BYTES {
            return Turn::Busy;
        }
        let sessions = self.sessions(open, now);
        if open == 0 || sessions <= 1 || (waiting == 0 && open + cost <= Self::share(sessions)) {
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
    pub(super) fn may_go_on(&self, open: u64, cost: u64, now: Mono) -> bool {
        let sessions = self.sessions(open, now);
        open == 0 || sessions <= 1 || open + cost <= Self::share(sessions)
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

    /// A session's bytes that wait to be sent have changed.
    pub(super) fn sends(&self, before: u64, after: u64) {
        if after >= before {
            self.unsent.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.unsent.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// All that the node holds for commands.
    fn held(&self) -> u64 {
        [&self.bytes, &self.waiting, &self.unsent]
            .into_iter()
            .fold(0, |sum, bytes| sum.saturating_add(bytes.load(Ordering::Relaxed)))
    }

    /// Bytes that wait to be sent.
    #[cfg(test)]
    pub(super) fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
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
    const NOW: Mono = Mono::from_nanos(1 << 40);
    const LARGEST: u64 = TRANSFER_BYTES_MAX as u64;

    const fn has(open: u64, waiting: u64) -> Has {
        Has {
            open,
            waiting,
            unsent: 0,
        }
    }

    #[test]
    fn a_session_that_is_alone_has_it_all() {
        let shares = Shares::default();
        assert_eq!(shares.turn(has(0, 0), MIB, NOW), Turn::Now);
        shares.moved(0, 100 * MIB);
        assert_eq!(shares.turn(has(100 * MIB, 0), MIB, NOW), Turn::Now);
        shares.moved(100 * MIB, 0);
        assert_eq!((shares.busy(), shares.bytes()), (0, 0));
    }

    #[test]
    fn with_others_each_has_its_share_and_then_waits_and_then_hears_of_it() {
        let shares = Shares::default();
        shares.moved(0, 8 * MIB);
        assert_eq!(
            shares.turn(has(0, 0), 4096, NOW),
            Turn::Now,
            "the quiet one goes straight in"
        );
        shares.moved(0, 4096);
        assert_eq!(shares.turn(has(MIB / 4, 0), 4096, NOW), Turn::Wait);
        assert_eq!(shares.turn(has(MIB / 4 - 4096, 0), 4096, NOW), Turn::Now);
        assert_eq!(
            shares.turn(has(MIB / 4 - 4096, MIB), 4096, NOW),
            Turn::Wait,
            "behind its own"
        );
        assert_eq!(shares.turn(has(MIB, 31 * MIB), MIB, NOW), Turn::Full);
        assert!(shares.may_go_on(MIB / 4 - 4096, 4096, NOW) && !shares.may_go_on(MIB / 4, 4096, NOW));
    }

    #[test]
    fn a_quiet_session_counts_between_its_commands_too() {
        let shares = Shares::default();
        let (noisy, quiet) = (shares.is_here(None, NOW), shares.is_here(None, NOW));
        assert_eq!(shares.is_here(quiet, NOW), noisy, "each is counted once");
        shares.moved(0, MIB);
        assert_eq!(shares.turn(has(MIB, 0), 4096, NOW), Turn::Wait);
        let later = NOW + LATELY;
        let noisy = shares.is_here(noisy, later);
        assert!(!shares.may_go_on(MIB, 4096, later));
        shares.is_here(noisy, later + LATELY);
        assert!(shares.may_go_on(MIB, 4096, later + LATELY), "it is alone by now");
        assert!(shares.may_go_on(MIB, 4096, later + 9 * LATELY));
    }

    #[test]
    fn more_sessions_have_smaller_shares_down_to_the_smallest() {
        let shares = Shares::default();
        let mut last = Vec::new();
        for count in 1..=1 << 17_u32 {
            last.push(shares.is_here(None, NOW));
            if count == 4 {
                assert!(shares.may_go_on(MIB / 8 - 4096, 4096, NOW) && !shares.may_go_on(MIB / 8, 4096, NOW));
            }
        }
        assert!(last.iter().all(|window| *window == last[0]));
        assert!(shares.may_go_on(SHARE_MIN - 4096, 4096, NOW) && !shares.may_go_on(SHARE_MIN, 4096, NOW));
    }

    #[test]
    fn a_session_always_has_one_command_under_way() {
        let shares = Shares::default();
        for _ in 0..100 {
            shares.moved(0, 8 * MIB);
        }
        assert_eq!(shares.turn(has(0, 0), MIB, NOW), Turn::Now);
        assert_eq!(
            shares.turn(has(MIB, 0), MIB, NOW),
            Turn::Full,
            "the node's memory has a bound"
        );
    }

    /// 64 sessions with commands of 8 MiB, as many as they can: they hold 512 MiB, and with one each of others that had nothing 960 MiB.
    #[test]
    fn the_largest_commands_of_many_sessions_are_bounded_by_the_node() {
        let shares = Shares::default();
        let fill = || -> u64 {
            let mut sessions = [0; 64];
            for _ in 0..128 {
                for open in &mut sessions {
                    if shares.turn(has(*open, 0), LARGEST, NOW) == Turn::Now {
                        shares.moved(*open, *open + LARGEST);
                        *open += LARGEST;
                    }
                }
            }
            sessions.iter().sum()
        };
        assert_eq!(fill(), 64 * LARGEST, "none is left out");
        assert_eq!(fill(), 448 * MIB, "of as many again");
        assert_eq!(shares.turn(has(0, 0), LARGEST, NOW), Turn::Busy);
        assert_eq!(
            shares.turn(has(0, 0), MIB, NOW),
            Turn::Now,
            "a usual one is never refused"
        );
    }

    #[test]
    fn answers_that_nobody_takes_count_for_the_node() {
        let shares = Shares::default();
        shares.sends(0, 512 * MIB);
        let reader = Has {
            unsent: 512 * MIB,
            ..Has::default()
        };
        assert_eq!(shares.turn(reader, 4096, NOW), Turn::Full);
        assert_eq!(shares.turn(has(4096, 0), 4096, NOW), Turn::Full);
        assert_eq!(shares.turn(has(0, 0), LARGEST, NOW), Turn::Now);
        shares.sends(512 * MIB, 0);
        assert_eq!(shares.unsent(), 0);
        assert_eq!(shares.turn(has(4096, 0), 4096, NOW), Turn::Now);
    }

    #[test]
    fn a_command_counts_what_it_makes_the_node_hold() {
        let verify = |blocks: u32| {
            let mut cdb = [0; 16];
            cdb[0] = 0x8f;
            cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
            cdb
        };
        assert_eq!(cost_of(&[0x88; 16], 0), COST_MIN);
        assert_eq!(cost_of(&[0x88; 16], 12 << 10), 12 << 10);
        assert_eq!(
            cost_of(&[0x88; 16], u32::MAX),
            LARGEST,
            "what is announced may be anything"
        );
        // One block is sent, or none, and all of them are read.
        assert_eq!(cost_of(&verify(3), 512), 3 * 4096);
        assert_eq!(cost_of(&verify(u32::MAX), 0), LARGEST);
    }
}
