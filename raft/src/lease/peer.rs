//! What a keeper remembers of one other voter.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_types::{Incarnation, LeaseGeneration, Mono};

use super::view::{HEARS_WITHIN, PeerView, Told};
use super::wire::Heartbeat;

/// Heartbeats whose acknowledgement can still come in and count. At one each 50 ms that is several seconds, longer than any lease.
const SENT_KEPT: usize = 128;

#[derive(Debug, Clone, Copy)]
struct Sent {
    seq: u64,
    at: Mono,
    generation: LeaseGeneration,
}

#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Since when it is known; it cannot have been silent before.
    since: Mono,
    sent: VecDeque<Sent>,
    /// Until when its promise counts here (L2).
    pub(super) counted: Option<Mono>,
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

    pub(super) fn sent(&mut self, seq: u64, at: Mono, generation: LeaseGeneration) {
        if self.sent.len() == SENT_KEPT {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { seq, at, generation });
    }

    /// When that heartbeat was sent, and under which generation.
    pub(super) fn sent_at(&self, seq: u64) -> Option<(Mono, LeaseGeneration)> {
        self.sent
            .iter()
            .rev()
            .find(|s| s.seq == seq)
            .map(|s| (s.at, s.generation))
    }

    /// Something came. False for what an earlier run sent and the network kept: it tells nothing of the present.
    pub(super) fn heard(&mut self, now: Mono, run: Incarnation) -> bool {
        if self.run_before == Some(run) {
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
