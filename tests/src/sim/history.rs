//! What initiators saw of one extent, for the block checker to judge. Blocks are known by their values.

use holdfast_drill::checker::{self, Call, CallId, Client, Contents, Outcome, Reserve, Rules};
use holdfast_types::{BlockOp, BlockRange, Lba, Mono, OpOutcome};

use super::disk::values;
use super::plan::{BLOCKS, RANGE};
use super::rng::at;

/// Blocks at the beginning of each range of comparison that initiators use.
pub(super) const USED: u64 = 8;

/// An answer is on its way for so long at most: whoever dies meanwhile has died after it.
const ANSWER: u64 = 1_000_000;

/// A write that was answered from memory and is not known to be stable.
#[derive(Debug)]
struct Cached {
    call: CallId,
    answered: u64,
    ranges: Vec<BlockRange>,
}

#[derive(Debug)]
pub(super) struct History {
    calls: checker::History,
    /// When calls began that came to a good end.
    served: Vec<u64>,
    cached: Vec<Cached>,
    /// Nobody has in memory any more what was answered before.
    memory_from: u64,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            calls: checker::History::new(Rules::default()),
            served: Vec::new(),
            cached: Vec::new(),
            memory_from: 0,
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

    /// A command over blocks was answered in an extent with write-back. A read waits until what was answered for its blocks is stable. A
    /// flush and what is stable by itself tell that of all that was answered before: a log has no holes. What was sent before the other was
    /// answered says nothing of it.
    pub(super) fn answered_cached(
        &mut self,
        call: Option<CallId>,
        (from, now): (u64, u64),
        op: &BlockOp,
        outcome: &OpOutcome,
    ) {
        let early = match op {
            BlockOp::Write { fua, .. } => !fua,
            BlockOp::WriteSame { .. } | BlockOp::Zero { .. } => true,
            _ => false,
        };
        let touches = |cached: &Cached| {
            let overlaps = |range: &BlockRange| cached.ranges.iter().any(|other| other.overlaps(*range));
            !op.writes() && op.ranges().iter().any(overlaps)
        };
        let flushes = *op == BlockOp::Flush || (op.writes() && !early && *outcome == OpOutcome::Done);
        self.cached
            .retain(|cached| cached.answered > from || !(flushes || touches(cached)));
        if let Some(call) = call.filter(|_| early && *outcome == OpOutcome::Done) {
            self.cached.push(Cached {
                call,
                answered: now,
                ranges: op.ranges().to_vec(),
            });
        }
    }

    /// Everything that was answered is stable.
    pub(super) fn all_stable(&mut self) {
        self.cached.clear();
    }

    /// No member has in memory any more what was answered before `floor`.
    pub(super) fn lost_memory(&mut self, floor: u64) {
        self.memory_from = self.memory_from.max(floor);
    }

    /// Calls whose effect may be gone are not relied on any more. How many they are.
    pub(super) fn forgets(&mut self) -> usize {
        let floor = self.memory_from;
        let before = self.cached.len();
        for cached in self
            .cached
            .extract_if(.., |cached| cached.answered.saturating_sub(ANSWER) < floor)
        {
            self.calls.forgotten(cached.call);
        }
        before - self.cached.len()
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
