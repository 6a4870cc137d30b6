//! The block checker: was what initiators saw of a disk possible?
//!
//! A [`History`] takes down every call that an initiator made and what it came to. [`History::check`] then judges each logical block
//! on its own: there must be one order of the calls, each taking effect at one moment between its invocation and its answer, that
//! explains every answer (linearizability). A request over several blocks is not atomic as a whole, but no block is ever torn. A call
//! without an answer may have taken effect or not, at any moment from its invocation on, or only until a given time has passed (I11).
//!
//! Send every attempt as a call of its own: an initiator that gives a path up and sends a command again on another one has made two
//! calls, and both may take effect.
//!
//! The verdict is exact for any mix of values; it is fast when most values are written once, as stamps in the blocks see to.

mod block;
mod contents;
mod explain;
mod reservation;
mod sweep;
mod violation;

use std::time::Duration;

use holdfast_types::{BlockOp, BlockRange, BlockSize, Lba, Mono, OpOutcome};

pub use contents::{Contents, Value};
pub use reservation::{Access, Admits, Reserve};
pub use violation::{Kind, Violation};

/// Who calls: an initiator (where there are reservations, a nexus: one of its paths), or a reader of final contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(pub u64);

/// A call in a [`History`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(usize);

/// What an initiator asks for. Contents are as long as their ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// READ.
    Read {
        /// Which blocks.
        range: BlockRange,
    },
    /// VERIFY with the bytes that must be there (BYTCHK).
    Verify {
        /// Which blocks.
        range: BlockRange,
        /// What must be there.
        expect: Contents,
    },
    /// WRITE.
    Write {
        /// Where.
        range: BlockRange,
        /// What.
        data: Contents,
    },
    /// WRITE SAME.
    WriteSame {
        /// Where.
        range: BlockRange,
        /// One block.
        block: Contents,
    },
    /// UNMAP, and WRITE SAME with UNMAP or NDOB: zeros (W7).
    Zero {
        /// Where.
        ranges: Vec<BlockRange>,
    },
    /// COMPARE AND WRITE.
    CompareAndWrite {
        /// Where.
        range: BlockRange,
        /// What must be there.
        expect: Contents,
        /// What to put.
        data: Contents,
    },
    /// PERSISTENT RESERVE OUT or IN. Who reserves at all takes down all such calls.
    Reserve(Reserve),
}

/// What a call came to, when it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// GOOD.
    Done,
    /// GOOD, with what a READ found.
    Data(Contents),
    /// COMPARE AND WRITE or VERIFY found something else: in this block first, counted from the start of the range, when that is known.
    Miscompare {
        /// The first block that differs.
        block: Option<u64>,
    },
    /// An answer that says that the call has not taken effect and never will.
    Refused,
    /// RESERVATION CONFLICT: not carried out, since a reservation keeps the client out, or its key is not the right one.
    Conflict,
    /// READ KEYS, in any order.
    Keys(Vec<u64>),
    /// READ RESERVATION: key and kind.
    Held(Option<(u64, Access)>),
    /// An answer, or an end of the connection, after which the call cannot take effect; it may have done so before.
    Unknown,
}

/// What a disk held before the first call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Initial {
    /// Zeros.
    #[default]
    Zeros,
    /// Whatever it was, it was one thing per block.
    Unknown,
}

/// How a history is judged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// What the disk held before.
    pub initial: Initial,
    /// How long after its invocation a call without an answer may still take effect; `None`: for ever. The hold limit (W1) with what
    /// time in flight and in socket buffers adds to it. A later effect is a ghost write (I11).
    pub late: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Open,
    Lost,
    Answered(Outcome),
}

#[derive(Debug, Clone)]
struct Record {
    client: Client,
    call: Call,
    from: u64,
    to: u64,
    end: End,
    /// When it was first sent, if it is one sent again.
    first: Option<u64>,
}

/// What a check that found nothing looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Summary {
    /// Calls in the history.
    pub calls: u64,
    /// Those without an answer.
    pub unanswered: u64,
    /// Blocks that any call touched.
    pub blocks: u64,
    /// Blocks whose calls could be ordered in too many ways to look at all of them: nothing is known about these. A check whose
    /// verdict counts asks for 0.
    pub undecided: u64,
}

/// What initiators did, and what they saw.
#[derive(Debug, Clone, Default)]
pub struct History {
    rules: Rules,
    records: Vec<Record>,
    broken: Option<Violation>,
}

impl History {
    /// Nothing happened yet.
    pub const fn new(rules: Rules) -> Self {
        Self {
            rules,
            records: Vec::new(),
            broken: None,
        }
    }

    /// How many calls were made.
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether none was.
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// A client sends a call. Times need not ascend from call to call, but must be of one clock.
    ///
    /// # Panics
    /// Contents are not as long as their range.
    pub fn invoke(&mut self, client: Client, call: Call, at: Mono) -> CallId {
        assert!(call.is_whole(), "contents as long as their range: {call:?}");
        let (from, end) = (at.as_nanos(), End::Open);
        self.records.push(Record {
            client,
            call,
            from,
            to: u64::MAX,
            end,
            first: None,
        });
        CallId(self.records.len() - 1)
    }

    /// A client sends a call again that had no answer. A COMPARE AND WRITE may then be answered with GOOD because it took effect the first
    /// time (W6), so that it may have done so at any moment since.
    ///
    /// # Panics
    /// Contents are not as long as their range, or the first call is of another history.
    pub fn invoke_again(&mut self, first: CallId, at: Mono) -> CallId {
        let record = &self.records[first.0];
        let (client, call) = (record.client, record.call.clone());
        let since = record.first.unwrap_or(record.from);
        let id = self.invoke(client, call, at);
        self.records[id.0].first = Some(since);
        id
    }

    /// A call is answered. An answer to a call that was taken for lost changes nothing.
    ///
    /// # Panics
    /// The call is of another history.
    pub fn answered(&mut self, id: CallId, outcome: Outcome, at: Mono) {
        let record = &mut self.records[id.0];
        let complaint = match (&record.end, &outcome) {
            (End::Lost, _) => return,
            (End::Answered(_), _) => Some("is answered twice"),
            (End::Open, outcome) if !record.call.can_come_to(outcome) => {
                Some("has an answer that does not fit")
            }
            (End::Open, _) => None,
        };
        if let Some(text) = complaint {
            let reason = format!("{} {text}: {outcome:?}", record.call.name());
            let block = record.call.ranges().first().map_or(Lba(0), |range| range.lba());
            let violation = Violation::new(Kind::Corrupt, block, reason, vec![self.line(id.0, block)]);
            self.broken.get_or_insert(violation);
            return;
        }
        record.to = at.as_nanos().max(record.from);
        if let (Call::CompareAndWrite { .. }, Outcome::Done, Some(first)) =
            (&record.call, &outcome, record.first)
        {
            record.from = first;
        }
        record.end = End::Answered(outcome);
    }

    /// The client gives a call up without an answer: its path is gone, or its timer ran out.
    ///
    /// # Panics
    /// The call is of another history.
    pub fn lost(&mut self, id: CallId, _at: Mono) {
        let record = &mut self.records[id.0];
        if record.end == End::Open {
            record.end = End::Lost;
        }
    }

    /// What a write cache held when power went: a call that was answered with GOOD may not have taken effect. If it has, then before its
    /// answer.
    ///
    /// # Panics
    /// The call is of another history.
    pub fn forgotten(&mut self, id: CallId) {
        let record = &mut self.records[id.0];
        if record.end == End::Answered(Outcome::Done) {
            record.end = End::Answered(Outcome::Unknown);
        }
    }

    /// What was found from `first` on when all was over: a read by nobody.
    pub fn final_contents(&mut self, first: Lba, contents: Contents, at: Mono) {
        let Ok(range) = BlockRange::new(first, contents.len() as u64) else {
            return;
        };
        let id = self.invoke(Client(u64::MAX), Call::Read { range }, at);
        self.answered(id, Outcome::Data(contents), at);
    }

    /// Judges all of it.
    ///
    /// # Errors
    /// The first [`Violation`], by block.
    pub fn check(&self) -> Result<Summary, Violation> {
        if let Some(violation) = &self.broken {
            return Err(violation.clone());
        }
        let mut summary = Summary {
            calls: self.records.len() as u64,
            unanswered: self
                .records
                .iter()
                .filter(|record| !matches!(record.end, End::Answered(_)))
                .count() as u64,
            ..Summary::default()
        };
        let timeline = reservation::Timeline::of(self)?;
        self.check_admissions(&timeline)?;
        summary.undecided += u64::from(timeline.is_undecided);
        for (lba, touches) in block::blocks(&self.records).iter() {
            summary.blocks += 1;
            let steps = block::Block::new(self, lba, touches, &timeline);
            match steps.judge() {
                sweep::Verdict::Legal => {}
                sweep::Verdict::Undecided => summary.undecided += 1,
                sweep::Verdict::Impossible(at) => return Err(explain::explain(self, &steps, &timeline, at)),
            }
        }
        Ok(summary)
    }

    /// I9: what was carried out was admitted at some time, and what was refused for a reservation was kept out at some time.
    fn check_admissions(&self, timeline: &reservation::Timeline) -> Result<(), Violation> {
        if !self
            .records
            .iter()
            .any(|record| matches!(record.call, Call::Reserve(_)))
        {
            return Ok(());
        }
        for (index, record) in self.records.iter().enumerate() {
            let End::Answered(outcome) = &record.end else {
                continue;
            };
            if matches!(record.call, Call::Reserve(_)) || record.client == Client(u64::MAX) {
                continue;
            }
            let (client, writes) = (record.client, record.call.writes());
            let reason = match outcome {
                Outcome::Conflict if timeline.surely_admitted(client, writes, record.from, record.to) => {
                    "it was refused although no reservation kept it out"
                }
                Outcome::Done | Outcome::Data(_) | Outcome::Miscompare { .. }
                    if timeline
                        .admitted(client, writes, record.from, record.to)
                        .is_none() =>
                {
                    "it was carried out although a reservation kept it out"
                }
                _ => continue,
            };
            let block = record.call.ranges().first().map_or(Lba(0), |range| range.lba());
            let is_reserve =
                |other: &Record| matches!(other.call, Call::Reserve(_)) && other.from <= record.to;
            let reserves = (0..self.records.len())
                .rev()
                .filter(|at| is_reserve(&self.records[*at]));
            let lines = std::iter::once(index).chain(reserves);
            let lines = lines.map(|at| self.line(at, block)).collect();
            return Err(Violation::new(Kind::Reservation, block, reason.to_owned(), lines));
        }
        Ok(())
    }

    /// The last moment at which a call may have taken effect, in nanoseconds.
    fn latest(&self, record: &Record) -> u64 {
        match (&record.end, self.rules.late) {
            (End::Answered(_), _) => record.to,
            (_, None) => u64::MAX,
            (_, Some(late)) => {
                let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
                record.from.saturating_add(late)
            }
        }
    }

    /// A call in words, as far as it concerns a block.
    fn line(&self, index: usize, block: Lba) -> String {
        violation::line(index, &self.records[index], block)
    }
}

impl Call {
    /// The call that carries out a storage operation; `None` for one that neither reads nor writes a block, and for ORWRITE.
    pub fn of(op: &BlockOp, size: BlockSize) -> Option<Self> {
        let contents = |data: &[u8]| Contents::from_bytes(data, size);
        Some(match op {
            BlockOp::Read { range } => Self::Read { range: *range },
            BlockOp::Write { range, data, .. } => Self::Write {
                range: *range,
                data: contents(data),
            },
            BlockOp::WriteSame { range, block } => Self::WriteSame {
                range: *range,
                block: contents(block),
            },
            BlockOp::Zero { ranges } => Self::Zero {
                ranges: ranges.clone(),
            },
            BlockOp::CompareAndWrite { range, expect, data } => Self::CompareAndWrite {
                range: *range,
                expect: contents(expect),
                data: contents(data),
            },
            BlockOp::Verify {
                range,
                expect: Some(expect),
            } if expect.len() as u64 == range.byte_len(size) => Self::Verify {
                range: *range,
                expect: contents(expect),
            },
            // What an ORWRITE leaves depends on what was there bit by bit, which contents as kept here do not tell; and one block may stand
            // for all that are verified. No load sends either.
            BlockOp::OrWrite { .. } => return None,
            BlockOp::Verify { .. } | BlockOp::Map { .. } | BlockOp::Flush | BlockOp::Fence { .. } => {
                return None;
            }
        })
    }

    /// Where it reads or writes.
    pub fn ranges(&self) -> &[BlockRange] {
        match self {
            Self::Read { range }
            | Self::Verify { range, .. }
            | Self::Write { range, .. }
            | Self::WriteSame { range, .. }
            | Self::CompareAndWrite { range, .. } => std::slice::from_ref(range),
            Self::Zero { ranges } => ranges,
            Self::Reserve(_) => &[],
        }
    }

    /// Whether a reservation that keeps writers out concerns it.
    const fn writes(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::Verify { .. } | Self::Reserve(_))
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "READ",
            Self::Verify { .. } => "VERIFY",
            Self::Write { .. } => "WRITE",
            Self::WriteSame { .. } => "WRITE SAME",
            Self::Zero { .. } => "UNMAP",
            Self::CompareAndWrite { .. } => "COMPARE AND WRITE",
            Self::Reserve(call) => call.name(),
        }
    }

    fn is_whole(&self) -> bool {
        let fits = |contents: &Contents, range: &BlockRange| contents.len() as u64 == range.blocks();
        match self {
            Self::Read { .. } | Self::Zero { .. } | Self::Reserve(_) => true,
            Self::WriteSame { block, .. } => block.len() == 1,
            Self::Verify { range, expect } => fits(expect, range),
            Self::Write { range, data } => fits(data, range),
            Self::CompareAndWrite { range, expect, data } => fits(expect, range) && fits(data, range),
        }
    }

    fn can_come_to(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Reserve(call), outcome) => call.can_come_to(outcome),
            (_, Outcome::Refused | Outcome::Unknown | Outcome::Conflict) => true,
            (_, Outcome::Keys(_) | Outcome::Held(_)) => false,
            (Self::Read { range }, Outcome::Data(data)) => data.len() as u64 == range.blocks(),
            (Self::Read { .. }, _) | (_, Outcome::Data(_)) => false,
            (_, Outcome::Done) => true,
            (
                Self::Verify { range, .. } | Self::CompareAndWrite { range, .. },
                Outcome::Miscompare { block },
            ) => block.is_none_or(|block| block < range.blocks()),
            (_, Outcome::Miscompare { .. }) => false,
        }
    }
}

impl Outcome {
    /// What the end of a storage operation means to whoever sent it. A reset leaves open whether the operation took effect, but it will
    /// not do so later (I8, I11).
    pub fn of(outcome: &OpOutcome, size: BlockSize) -> Self {
        match outcome {
            OpOutcome::Done | OpOutcome::Map(_) => Self::Done,
            OpOutcome::Data(data) => Self::Data(Contents::from_bytes(data, size)),
            OpOutcome::Miscompare { offset } => Self::Miscompare {
                block: Some(u64::from(offset >> size.shift())),
            },
            OpOutcome::NoSpace
            | OpOutcome::ReservationConflict
            | OpOutcome::Transitioning
            | OpOutcome::Standby
            | OpOutcome::Aborted
            | OpOutcome::Unreadable { .. } => Self::Refused,
            OpOutcome::Reset => Self::Unknown,
        }
    }
}

#[cfg(test)]
#[path = "checker_test.rs"]
mod tests;
#[cfg(test)]
mod wgl_test;
