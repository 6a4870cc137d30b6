//! What initiators saw of one extent, for the block checker to judge. Blocks are known by their values.

use holdfast_drill::checker::{self, Call, CallId, Client, Contents, Outcome, Reserve, Rules};
use holdfast_types::{BlockOp, Lba, Mono, OpOutcome};

use super::disk::values;
use super::plan::{BLOCKS, RANGE};
use super::rng::at;

/// Blocks at the beginning of each range of comparison that initiators use.
pub(super) const USED: u64 = 8;

#[derive(Debug)]
pub(super) struct History {
    calls: checker::History,
    /// When calls began that came to a good end.
    served: Vec<u64>,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            calls: checker::History::new(Rules::default()),
            served: Vec::new(),
        }
    }

    /// `None` for a command that neither reads nor writes.
    pub(super) fn invoke(&mut self, client: usize, now: u64, op: &BlockOp) -> Option<CallId> {
        let contents = |data: &[u8]| Contents::from_values(values(data));
        let call = match op {
            BlockOp::Read { range } => Call::Read { range: *range },
            BlockOp::Write { range, data, .. } => Call::Write {
                range: *range,
                data: contents(data),
            },
            BlockOp::WriteSame { range, block } => Call::WriteSame {
                range: *range,
                block: contents(block),
            },
            BlockOp::Zero { ranges } => Call::Zero {
                ranges: ranges.clone(),
            },
            BlockOp::CompareAndWrite { range, expect, data } => Call::CompareAndWrite {
                range: *range,
                expect: contents(expect),
                data: contents(data),
            },
            _ => return None,
        };
        Some(
            self.calls
                .invoke(Client(client as u64), call, Mono::from_nanos(now)),
        )
    }

    /// The same command, sent again.
    pub(super) fn invoke_again(&mut self, first: CallId, now: u64) -> CallId {
        self.calls.invoke_again(first, Mono::from_nanos(now))
    }

    /// A wish about reservations.
    pub(super) fn reserve(&mut self, client: usize, now: u64, what: &Reserve) -> CallId {
        let call = Call::Reserve(what.clone());
        self.calls
            .invoke(Client(client as u64), call, Mono::from_nanos(now))
    }

    pub(super) fn reserved(&mut self, call: CallId, now: u64, outcome: Outcome) {
        self.calls.answered(call, outcome, Mono::from_nanos(now));
    }

    /// The call may take effect at any time, or never.
    pub(super) fn lost(&mut self, call: CallId, now: u64) {
        self.calls.lost(call, Mono::from_nanos(now));
    }

    pub(super) fn answered(&mut self, call: CallId, from: u64, now: u64, outcome: &OpOutcome) {
        let outcome = match outcome {
            // Where there is space says nothing of contents, and no call of this history asks for it.
            OpOutcome::Map(_) => Outcome::Unknown,
            OpOutcome::Done => Outcome::Done,
            OpOutcome::Data(data) => Outcome::Data(Contents::from_values(values(data))),
            OpOutcome::Miscompare { .. } => Outcome::Miscompare { block: None },
            OpOutcome::ReservationConflict => Outcome::Conflict,
            OpOutcome::NoSpace | OpOutcome::Transitioning | OpOutcome::Standby | OpOutcome::Aborted => {
                Outcome::Refused
            }
            OpOutcome::Reset | OpOutcome::Unreadable { .. } => Outcome::Unknown,
        };
        if matches!(outcome, Outcome::Done | Outcome::Data(_) | Outcome::Conflict) {
            self.served.push(from);
        }
        self.calls.answered(call, outcome, Mono::from_nanos(now));
    }

    /// The call may have taken effect before now, and will not later.
    pub(super) fn given_up(&mut self, call: CallId, now: u64) {
        self.calls.answered(call, Outcome::Unknown, Mono::from_nanos(now));
    }

    /// Calls that began at `time` or later and came to a good end.
    pub(super) fn served_since(&self, time: u64) -> usize {
        self.served.iter().filter(|from| **from >= time).count()
    }

    /// Judges all of it, with the contents in the end. How many blocks could not be decided comes out.
    pub(super) fn check(&mut self, blocks: &[u64], now: u64) -> Result<u64, String> {
        for range in 0..BLOCKS / RANGE {
            let first = range * RANGE;
            let found = blocks[at(first)..at(first + USED)].iter().copied();
            let now = Mono::from_nanos(now);
            self.calls
                .final_contents(Lba(first), Contents::from_values(found), now);
        }
        match self.calls.check() {
            Ok(summary) => Ok(summary.undecided),
            Err(violation) => Err(violation.to_string()),
        }
    }
}
