//! What a keeper remembers of one other voter.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_types::{Incarnation, LeaseGeneration, Mono};

use super::view::{HEARS_WITHIN, PeerView, Told};
use super::wire::Heartbeat;

/// Heartbeats whose acknowledgement can still come in and count. At one each 50 ms that is several seconds, longer than any lease.
const SENT_KEPT: usize = 128;

/// A heartbeat that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    seq: u64,
    /// When.
    pub(super) at: Mono,
    /// Under which generation.
    pub(super) generation: LeaseGeneration,
    /// With which lease time.
    pub(super) lease: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Since when it is known; it cannot have been silent before.
    since: Mono,
    sent: VecDeque<Sent>,
    /// Its newest promise: when it was asked for, and for how long (L2).
    pub(super) promised: Option<(Mono, Duration)>,
    /// The newest voter set in its log, as it said last (L8).
    pub(super) voters: u64,
    heard: Option<Mono>,
    both: Option<Mono>,
    both_since: Mono,
    run: Option<Incarnation>,
    run_before: Option<Incarnation>,
    told: Option<(Mono, Heartbeat)>,
}

impl Peer {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            since: now,
            ..Self::default()
        }
    }

    pub(super) fn sent(&mut self, seq: u64, at: Mono, generation: LeaseGeneration, lease: Duration) {
        if self.sent.len() == SENT_KEPT {
            self.sent.pop_front();
        }
        let sent = Sent {
            seq,
            at,
            generation,
            lease,
        };
        self.sent.push_back(sent);
    }

    /// That heartbeat, if it was one of the newest.
    pub(super) fn sent_at(&self, seq: u64) -> Option<Sent> {
        self.sent.iter().rev().find(|sent| sent.seq == seq).copied()
    }

    /// Something came. False for what an earlier run sent and the network kept: it tells nothing of the present.
    ///
    /// Which of two runs is the newer one cannot be told from their numbers. If the one that was taken for it falls silent and the other
    /// goes on, it was the other: what the network had kept came after the new run's first words.
    pub(super) fn heard(&mut self, now: Mono, run: Incarnation) -> bool {
        let lately = self.heard.is_some_and(|at| now.since(at) <= HEARS_WITHIN);
        if self.run_before == Some(run) && lately {
            return false;
        }
        if self.run != Some(run) {
            self.run_before = self.run.replace(run);
            self.told = None;
            self.both = None;
        }
        self.heard = Some(now);
        true
    }

    pub(super) fn acknowledged(&mut self, now: Mono) {
        if self.both.is_none_or(|both| now.since(both) > HEARS_WITHIN) {
            self.both_since = now;
        }
        self.both = Some(now);
    }

    /// Keeps the newest heartbeat of the run; late ones are dropped.
    pub(super) fn tell(&mut self, now: Mono, heartbeat: &Heartbeat) {
        if self.told.as_ref().is_none_or(|(_, old)| old.seq < heartbeat.seq) {
            self.told = Some((now, heartbeat.clone()));
        }
    }

    pub(super) fn heard_at(&self) -> Option<Mono> {
        self.heard
    }

    pub(super) fn both_at(&self) -> Option<Mono> {
        self.both
    }

    pub(super) fn view(&self, now: Mono, listening_since: Mono) -> PeerView {
        let listening_since = listening_since.max(self.since);
        let silent = |at: Option<Mono>| now.since(at.map_or(listening_since, |at| at.max(listening_since)));
        let unbroken = self.both.is_some_and(|both| now.since(both) <= HEARS_WITHIN);
        PeerView {
            incarnation: self.run,
            silent: silent(self.heard),
            silent_both: silent(self.both),
            // One nanosecond for the first moment, so that zero means no.
            both_for: if unbroken {
                now.since(self.both_since).max(Duration::from_nanos(1))
            } else {
                Duration::ZERO
            },
            told: self
                .told
                .as_ref()
                .map(|(at, heartbeat)| told(now.since(*at), heartbeat)),
        }
    }
}

fn told(age: Duration, heartbeat: &Heartbeat) -> Told {
    let reached = heartbeat.hears.iter().filter(|h| h.both_ms < u16::MAX);
    Told {
        age,
        revision: heartbeat.revision,
        generation: heartbeat.generation,
        term: heartbeat.term,
        leader: heartbeat.leader,
        both: reached
            .map(|h| (h.node, age + Duration::from_millis(u64::from(h.both_ms))))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::from_nanos(ms * 1_000_000)
    }

    /// Found by simulation: the peer was then never heard again.
    #[test]
    fn l1_a_late_datagram_of_an_earlier_run_does_not_deafen() {
        let (old, new) = (Incarnation(9), Incarnation(5));
        let mut peer = Peer::new(at(0));
        assert!(peer.heard(at(10), new));
        assert!(peer.heard(at(20), old), "nobody knows which of the two is older");
        let again = (0..20).find(|beat| peer.heard(at(60 + beat * 50), new));
        assert!(again.is_some_and(|beat| beat < 6), "{again:?}");
        assert!(peer.heard(at(1100), new));
    }

    #[test]
    fn l1_what_an_earlier_run_sent_is_dropped_while_the_present_one_is_heard() {
        let (old, new) = (Incarnation(5), Incarnation(9));
        let mut peer = Peer::new(at(0));
        assert!(peer.heard(at(10), old));
        assert!(peer.heard(at(500), new));
        for beat in 0..10 {
            assert!(!peer.heard(at(510 + beat * 50), old));
            assert!(peer.heard(at(550 + beat * 50), new));
        }
    }
}
