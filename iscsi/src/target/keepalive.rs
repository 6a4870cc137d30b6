//! Finding dead initiators with NOP-In (RFC 7143, 11.19).

use holdfast_types::Mono;

use super::Limits;
use super::task::next_ttt;

/// Since when nothing was heard, and whether a ping is out.
#[derive(Debug)]
pub(super) struct Keepalive {
    heard: Mono,
    pinged: Option<Mono>,
    ttt: u32,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Send a ping with this Target Transfer Tag.
    Ping(u32),
    /// Give up.
    Dead,
}

impl Keepalive {
    pub(super) const fn new(now: Mono) -> Self {
        Self {
            heard: now,
            pinged: None,
            ttt: 0,
        }
    }

    /// Bytes have come, whatever they are.
    pub(super) const fn hear(&mut self, now: Mono) {
        self.heard = now;
        self.pinged = None;
    }

    /// When something is due.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Mono> {
        match self.pinged {
            Some(at) => Some(at + limits.ping_timeout),
            None if limits.ping_after.is_zero() => None,
            None => Some(self.heard + limits.ping_after),
        }
    }

    pub(super) fn check(&mut self, now: Mono, limits: &Limits) -> Due {
        if self.deadline(limits).is_none_or(|deadline| now < deadline) {
            return Due::Nothing;
        }
        if self.pinged.is_some() {
            return Due::Dead;
        }
        self.pinged = Some(now);
        self.ttt = next_ttt(self.ttt);
        Due::Ping(self.ttt)
    }
}
