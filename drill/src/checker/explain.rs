//! From "no order explains this" to what a person can act on.

use std::collections::HashSet;

use holdfast_types::Lba;

use super::block::{Block, Bounds, put_by};
use super::reservation::Timeline;
use super::sweep::{Kind as Does, Step, Verdict};
use super::violation::{Kind, Violation, name};
use super::{Call, End, History, Outcome, Value};

/// Says what is wrong with a block whose step number `at` cannot be explained.
pub(super) fn explain(history: &History, block: &Block, timeline: &Timeline, at: usize) -> Violation {
    let step = block.steps[at];
    let Some(value) = seen(&step).map(|number| block.values.value(number)) else {
        let reason = "it compared unequal while it held what was compared".to_owned();
        return violation(history, block, Kind::Stale, reason, &[step.call], &[]);
    };
    let putters: Vec<usize> = block
        .touches
        .iter()
        .filter(|touch| put_by(&history.records[touch.call].call, touch.index) == Some(value))
        .map(|touch| touch.call)
        .collect();
    let began = |call: &usize| history.records[*call].from;
    if putters.is_empty() && !could_be_first(block, &step) {
        return invented(history, block, &step, value);
    }
    if !putters.is_empty()
        && putters.iter().all(|call| began(call) > step.to)
        && !could_be_first(block, &step)
    {
        let reason = format!("{} was seen before it was written", name(value));
        return violation(history, block, Kind::Corrupt, reason, &[step.call], &putters);
    }
    if let Some(past) = past_reservation(history, block, timeline, &step, &putters) {
        let reason = format!(
            "{} took effect although a reservation kept it out by then",
            name(value)
        );
        return violation(history, block, Kind::Reservation, reason, &past, &[step.call]);
    }
    if let Some(ghost) = ghost(history, block, &step, &putters) {
        let reason = format!(
            "{} took effect although it was refused, or later than it might",
            name(value)
        );
        return violation(history, block, Kind::Ghost, reason, &[ghost, step.call], &putters);
    }
    aged(history, block, &step, value, &putters)
}

const fn seen(step: &Step) -> Option<u32> {
    match step.kind {
        Does::See(value) | Does::Swap(value, _) => Some(value),
        Does::SeeNot(_) | Does::Put(_) => None,
    }
}

const fn put(step: &Step) -> Option<u32> {
    match step.kind {
        Does::Put(value) | Does::Swap(_, value) => Some(value),
        Does::SeeNot(_) | Does::See(_) => None,
    }
}

fn could_be_first(block: &Block, step: &Step) -> bool {
    block.initial.contains(&seen(step))
}

fn violation(
    history: &History,
    block: &Block,
    kind: Kind,
    reason: String,
    first: &[usize],
    others: &[usize],
) -> Violation {
    let mut listed = HashSet::new();
    let mut calls: Vec<usize> = first
        .iter()
        .copied()
        .filter(|call| listed.insert(*call))
        .collect();
    calls.extend(others.iter().copied().filter(|call| listed.insert(*call)));
    let lines = calls.into_iter().map(|call| history.line(call, block.lba));
    Violation::new(kind, block.lba, reason, lines.collect())
}

/// Nobody put that value there: parts of several writes, another block's contents, or damage.
fn invented(history: &History, block: &Block, step: &Step, value: Value) -> Violation {
    if let Some(parts) = torn(history, block, step) {
        let reason = "it holds parts of several writes".to_owned();
        return violation(history, block, Kind::Torn, reason, &[step.call], &parts);
    }
    let mut places = history.records.iter().enumerate().filter_map(|(call, record)| {
        let mut ranges = record.call.ranges().iter();
        ranges.find_map(|range| {
            let index = (0..usize::try_from(range.blocks()).unwrap_or(0))
                .find(|index| put_by(&record.call, *index) == Some(value))?;
            Some((call, Lba(range.lba().0 + index as u64)))
        })
    });
    let (reason, others) = match places.next() {
        Some((call, lba)) => (format!("it holds what was written to block {lba}"), vec![call]),
        None => (format!("it holds {}, which nobody wrote", name(value)), vec![]),
    };
    violation(history, block, Kind::Corrupt, reason, &[step.call], &others)
}

/// The writes whose sectors make up what was read, if it is made of such.
fn torn(history: &History, block: &Block, step: &Step) -> Option<Vec<usize>> {
    let End::Answered(Outcome::Data(data)) = &history.records[step.call].end else {
        return None;
    };
    let index = block.touches.iter().find(|touch| touch.call == step.call)?.index;
    let sectors = data.sectors(index);
    let mut parts = Vec::new();
    for (at, sector) in sectors.iter().enumerate() {
        let writer = block.touches.iter().find(|touch| {
            let call = &history.records[touch.call].call;
            let written = super::block::sectors_put_by(call, touch.index);
            written.get(at) == Some(sector)
        });
        match writer {
            Some(touch) => parts.push(touch.call),
            None if *sector == 0 => {}
            None => return None,
        }
    }
    (!parts.is_empty()).then_some(parts)
}

/// If all would be well without reservations: the calls that one kept out by then, and the changes of reservations.
fn past_reservation(
    history: &History,
    block: &Block,
    timeline: &Timeline,
    step: &Step,
    putters: &[usize],
) -> Option<Vec<usize>> {
    let free = Block::with_bounds(history, block.lba, block.touches.clone(), Bounds::NoReservations);
    if free.judge_steps(&before(&free.steps, step.to)) != Verdict::Legal {
        return None;
    }
    let is_kept_out = |call: &usize| {
        let record = &history.records[*call];
        let (from, to) = (record.from, history.latest(record));
        timeline.admitted(record.client, record.call.writes(), from, to) != Some((from, to))
    };
    let mut calls: Vec<usize> = putters.iter().copied().filter(is_kept_out).collect();
    let reserves =
        (0..history.records.len()).filter(|at| matches!(history.records[*at].call, Call::Reserve(_)));
    calls.extend(reserves.filter(|at| history.records[*at].from <= step.to));
    Some(calls)
}

/// If all would be well could refused and late calls have taken effect at any time: the call that must have.
fn ghost(history: &History, block: &Block, step: &Step, putters: &[usize]) -> Option<usize> {
    let free = Block::with_bounds(history, block.lba, block.touches.clone(), Bounds::None);
    let until = before(&free.steps, step.to);
    if free.judge_steps(&until) != Verdict::Legal {
        return None;
    }
    let is_bound = |call: &&usize| {
        let record = &history.records[**call];
        !matches!(record.end, End::Answered(ref outcome) if !matches!(outcome, Outcome::Refused | Outcome::Conflict | Outcome::Unknown))
    };
    putters.iter().rfind(is_bound).copied().or(Some(step.call))
}

/// The steps as far as they were known at a moment.
fn before(steps: &[Step], moment: u64) -> Vec<Step> {
    let known = steps.iter().filter(|step| step.from <= moment).copied();
    known
        .filter_map(|mut step| {
            if step.required && step.to > moment {
                put(&step)?;
                step.required = false;
                step.to = u64::MAX;
            }
            Some(step)
        })
        .collect()
}

/// An older value was seen than should have been there.
fn aged(history: &History, block: &Block, step: &Step, value: Value, putters: &[usize]) -> Violation {
    let number = seen(step);
    let twins: Vec<usize> = block
        .steps
        .iter()
        .filter(|other| matches!((other.kind, step.kind), (Does::Swap(a, _), Does::Swap(b, _)) if a == b))
        .filter(|other| other.required)
        .map(|other| other.call)
        .collect();
    if twins.len() > 1 {
        let reason = format!("{} compared {} and wrote", twins.len(), name(value));
        return violation(history, block, Kind::Forked, reason, &twins, putters);
    }
    // The newest thing known before this one began that says otherwise.
    let newer = block
        .steps
        .iter()
        .filter(|other| other.required && other.to < step.from)
        .filter(|other| {
            put(other)
                .or_else(|| seen(other))
                .is_some_and(|other| Some(other) != number)
        })
        .max_by_key(|other| other.to);
    let Some(newer) = newer else {
        let reason = format!("{} cannot have been there", name(value));
        return violation(history, block, Kind::Stale, reason, &[step.call], putters);
    };
    let denied = put(newer).or_else(|| seen(newer));
    let was = block.values.value(denied.unwrap_or_default());
    let later: Vec<usize> = block
        .steps
        .iter()
        .filter(|other| other.required && other.from > step.to && seen(other) == denied)
        .map(|other| other.call)
        .collect();
    let others: Vec<Step> = block
        .steps
        .iter()
        .filter(|other| other.call != step.call)
        .copied()
        .collect();
    let (kind, text) = match (later.is_empty(), block.judge_steps(&others)) {
        (true, _) => (Kind::Lost, "and is gone"),
        (false, Verdict::Legal) => (Kind::Stale, "and was seen again later"),
        (false, _) => (Kind::Forked, "and both were seen later"),
    };
    let reason = format!(
        "call {} sees {}, but {} was there before it began (call {}) {text}",
        step.call,
        name(value),
        name(was),
        newer.call
    );
    let mut others = putters.to_vec();
    others.extend(&later);
    violation(history, block, kind, reason, &[step.call, newer.call], &others)
}
