//! What breaks when a history is impossible, for people.

use std::fmt;

use holdfast_types::Lba;

use super::block::put_by;
use super::{Call, End, Outcome, Record, Value};

/// Calls named in a report, at most.
const CALLS_MAX: usize = 16;

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An acknowledged or seen write is gone (I1).
    Lost,
    /// A read found an older value, and later ones did not (I4).
    Stale,
    /// A block holds parts of two writes (W3).
    Torn,
    /// A write took effect that was refused, or that took effect after the time in which it might (I11).
    Ghost,
    /// Two histories went on side by side: values alternate, or two compared the same value and wrote (I2, I3).
    Forked,
    /// Something got past a persistent reservation, or one was forgotten (I9).
    Reservation,
    /// A block holds what nobody wrote there, or an answer does not fit its call.
    Corrupt,
}

/// An impossible history: the block, what is wrong, and the calls that show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise is broken.
    pub kind: Kind,
    /// The logical block.
    pub block: Lba,
    /// What is wrong, in a sentence.
    pub reason: String,
    /// The calls that show it, a line each.
    pub calls: Vec<String>,
}

impl Violation {
    pub(super) fn new(kind: Kind, block: Lba, reason: String, mut calls: Vec<String>) -> Self {
        let more = calls.len().saturating_sub(CALLS_MAX);
        if more > 0 {
            calls.truncate(CALLS_MAX);
            calls.push(format!("and {more} more"));
        }
        Self {
            kind,
            block,
            reason,
            calls,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost (I1)",
            Self::Stale => "stale (I4)",
            Self::Torn => "torn (W3)",
            Self::Ghost => "ghost write (I11)",
            Self::Forked => "forked (I2, I3)",
            Self::Reservation => "reservation (I9)",
            Self::Corrupt => "corrupt",
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}: {}: {}", self.block, self.kind, self.reason)?;
        self.calls.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Violation {}

/// A call in words, as far as it concerns a block.
pub(super) fn line(index: usize, record: &Record, block: Lba) -> String {
    let ranges: Vec<String> = record.call.ranges().iter().map(ToString::to_string).collect();
    let (end, seen) = match &record.end {
        End::Open | End::Lost => ("no answer", None),
        End::Answered(Outcome::Done) => ("GOOD", None),
        End::Answered(Outcome::Data(data)) => ("GOOD", value_at(record, block, |at| data.value(at))),
        End::Answered(Outcome::Miscompare { .. }) => ("miscompare", None),
        End::Answered(Outcome::Refused) => ("refused", None),
        End::Answered(Outcome::Conflict) => ("RESERVATION CONFLICT", None),
        End::Answered(Outcome::Keys(_) | Outcome::Held(_)) => ("GOOD", None),
        End::Answered(Outcome::Unknown) => ("ended, fate open", None),
    };
    let until = if record.to == u64::MAX {
        "..".to_owned()
    } else {
        seconds(record.to)
    };
    let what = match &record.call {
        Call::Reserve(call) => format!("{call:?}"),
        call => format!("{} {}", call.name(), ranges.join(",")),
    };
    let mut text = format!(
        "call {index}, client {}: {what} [{}, {until}] {end}",
        client(record),
        seconds(record.from),
    );
    if let End::Answered(answer @ (Outcome::Keys(_) | Outcome::Held(_))) = &record.end {
        text += &format!(" {answer:?}");
    }
    if let Call::CompareAndWrite { expect, .. } | Call::Verify { expect, .. } = &record.call
        && let Some(value) = value_at(record, block, |at| expect.value(at))
    {
        text += &format!(" expects {}", name(value));
    }
    if let Some(value) = value_at(record, block, |at| put_by(&record.call, at)) {
        text += &format!(" puts {}", name(value));
    }
    if let Some(value) = seen {
        text += &format!(" sees {}", name(value));
    }
    text
}

/// A value's name in reports.
pub(super) fn name(value: Value) -> String {
    if value == Value::ZERO {
        "zeros".to_owned()
    } else {
        format!("{:x}", value.0)
    }
}

fn client(record: &Record) -> String {
    match record.client.0 {
        u64::MAX => "(final look)".to_owned(),
        number => number.to_string(),
    }
}

fn value_at(record: &Record, block: Lba, value: impl Fn(usize) -> Option<Value>) -> Option<Value> {
    let mut ranges = record.call.ranges().iter();
    let range = ranges.find(|range| (range.lba()..range.end()).contains(&block))?;
    value(usize::try_from(block.0 - range.lba().0).ok()?)
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:06}", nanos / 1_000_000_000, nanos / 1000 % 1_000_000)
}
