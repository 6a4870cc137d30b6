//! The part of a history that concerns one block.

use std::collections::HashMap;

use holdfast_types::Lba;

use super::reservation::Timeline;
use super::sweep::{self, Kind, Step, Verdict};
use super::{Call, End, History, Initial, Outcome, Record, Value};

/// States looked at per event and block, at most.
const STATES_MAX: usize = 20_000;

/// A call that touches a block: its index, and which of its blocks this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Touch {
    pub(super) call: usize,
    pub(super) index: usize,
}

/// Which calls touch which block.
#[derive(Debug)]
pub(super) struct Touches(Vec<(u64, Touch)>);

/// Sorts the calls of a history by block.
pub(super) fn blocks(records: &[Record]) -> Touches {
    let mut touches = Vec::new();
    for (call, record) in records.iter().enumerate() {
        for range in record.call.ranges() {
            for (index, lba) in (range.lba().0..range.end().0).enumerate() {
                touches.push((lba, Touch { call, index }));
            }
        }
    }
    touches.sort_unstable();
    // An UNMAP may name a block twice.
    touches.dedup_by_key(|(lba, touch)| (*lba, touch.call));
    Touches(touches)
}

impl Touches {
    pub(super) fn iter(&self) -> impl Iterator<Item = (Lba, &[(u64, Touch)])> {
        self.0
            .chunk_by(|a, b| a.0 == b.0)
            .map(|chunk| (Lba(chunk[0].0), chunk))
    }
}

/// What a call puts into a block, whether it took effect or not.
pub(super) fn put_by(call: &Call, index: usize) -> Option<Value> {
    match call {
        Call::Write { data, .. } | Call::CompareAndWrite { data, .. } => data.value(index),
        Call::WriteSame { block, .. } => block.value(0),
        Call::Zero { .. } => Some(Value::ZERO),
        Call::Read { .. } | Call::Verify { .. } | Call::Reserve(_) => None,
    }
}

/// The sectors of what a call puts into a block that has several.
pub(super) fn sectors_put_by(call: &Call, index: usize) -> &[u64] {
    match call {
        Call::Write { data, .. } | Call::CompareAndWrite { data, .. } => data.sectors(index),
        Call::WriteSame { block, .. } => block.sectors(0),
        Call::Zero { .. } | Call::Read { .. } | Call::Verify { .. } | Call::Reserve(_) => &[],
    }
}

/// Small numbers for the values of one block.
#[derive(Debug, Default)]
pub(super) struct Values {
    numbers: HashMap<Value, u32>,
    values: Vec<Value>,
}

impl Values {
    pub(super) fn number(&mut self, value: Value) -> u32 {
        let values = &mut self.values;
        *self.numbers.entry(value).or_insert_with(|| {
            values.push(value);
            u32::try_from(values.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(super) fn value(&self, number: u32) -> Value {
        self.values.get(number as usize).copied().unwrap_or(Value::ZERO)
    }
}

/// What bounds the time in which a call may have taken effect.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bounds<'a> {
    /// Its answer, the rules, and reservations.
    All(&'a Timeline),
    /// Not reservations: to tell what got past one.
    NoReservations,
    /// Nothing, for a call that was not answered with GOOD: to tell a ghost from a loss.
    None,
}

/// A block's steps, ready to be judged.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) lba: Lba,
    pub(super) touches: Vec<Touch>,
    pub(super) steps: Vec<Step>,
    pub(super) values: Values,
    pub(super) initial: Vec<Option<u32>>,
}

impl Block {
    pub(super) fn new(history: &History, lba: Lba, touches: &[(u64, Touch)], timeline: &Timeline) -> Self {
        let touches: Vec<Touch> = touches.iter().map(|(_, touch)| *touch).collect();
        Self::with_bounds(history, lba, touches, Bounds::All(timeline))
    }

    pub(super) fn with_bounds(history: &History, lba: Lba, touches: Vec<Touch>, bounds: Bounds<'_>) -> Self {
        let mut values = Values::default();
        let mut steps = Vec::with_capacity(touches.len());
        for touch in &touches {
            let record = &history.records[touch.call];
            if let Some(kind) = kind(record, touch.index, bounds, &mut values) {
                steps.extend(step(history, touch.call, kind, bounds));
            }
        }
        let initial = match history.rules.initial {
            Initial::Zeros => vec![Some(values.number(Value::ZERO))],
            Initial::Unknown => first_values(&steps),
        };
        drop_what_nobody_sees(&mut steps);
        Self {
            lba,
            touches,
            steps,
            values,
            initial,
        }
    }

    pub(super) fn judge(&self) -> Verdict {
        self.judge_steps(&self.steps)
    }

    pub(super) fn judge_steps(&self, steps: &[Step]) -> Verdict {
        sweep::judge(steps, &self.initial, STATES_MAX)
    }
}

/// What a call does to the block, if it can have done anything.
fn kind(record: &Record, index: usize, bounds: Bounds<'_>, values: &mut Values) -> Option<Kind> {
    let is_answered_by = |outcome: &Outcome| record.end == End::Answered(outcome.clone());
    let done = is_answered_by(&Outcome::Done);
    let refused = is_answered_by(&Outcome::Refused) || is_answered_by(&Outcome::Conflict);
    match (&record.call, &record.end) {
        (Call::Read { .. }, End::Answered(Outcome::Data(data))) => {
            data.value(index).map(|value| Kind::See(values.number(value)))
        }
        (Call::Verify { expect, .. }, _) if done => {
            expect.value(index).map(|value| Kind::See(values.number(value)))
        }
        (
            Call::Verify { expect, .. } | Call::CompareAndWrite { expect, .. },
            End::Answered(Outcome::Miscompare { block }),
        ) => {
            let value = values.number(expect.value(index)?);
            match block.map(|block| (index as u64).cmp(&block)) {
                Some(std::cmp::Ordering::Less) => Some(Kind::See(value)),
                Some(std::cmp::Ordering::Equal) => Some(Kind::SeeNot(value)),
                None if expect.len() == 1 => Some(Kind::SeeNot(value)),
                _ => None,
            }
        }
        (Call::Read { .. } | Call::Verify { .. }, _) => None,
        _ if refused && !matches!(bounds, Bounds::None) => None,
        (Call::CompareAndWrite { expect, data, .. }, _) => {
            let old = values.number(expect.value(index)?);
            let new = values.number(data.value(index)?);
            match (old == new, done) {
                (false, _) => Some(Kind::Swap(old, new)),
                (true, true) => Some(Kind::See(old)),
                (true, false) => None,
            }
        }
        (call, _) => put_by(call, index).map(|value| Kind::Put(values.number(value))),
    }
}

/// The step of a call; `None` when a reservation kept it out all the time.
fn step(history: &History, call: usize, kind: Kind, bounds: Bounds<'_>) -> Option<Step> {
    let record = &history.records[call];
    let required = match &record.end {
        End::Open | End::Lost => false,
        End::Answered(outcome) => !matches!(outcome, Outcome::Unknown | Outcome::Refused | Outcome::Conflict),
    };
    let (from, to) = match bounds {
        Bounds::None if !required => (record.from, u64::MAX),
        Bounds::None | Bounds::NoReservations => (record.from, history.latest(record)),
        Bounds::All(timeline) => {
            let latest = history.latest(record);
            timeline.admitted(record.client, record.call.writes(), record.from, latest)?
        }
    };
    Some(Step {
        call,
        kind,
        from,
        to,
        required,
    })
}

/// A write that may have happened and whose value nobody saw explains nothing, unless somebody saw "something else".
fn drop_what_nobody_sees(steps: &mut Vec<Step>) {
    if steps.iter().any(|step| matches!(step.kind, Kind::SeeNot(_))) {
        return;
    }
    let mut seen = std::collections::HashSet::new();
    for step in steps.iter() {
        if let Kind::See(value) | Kind::Swap(value, _) = step.kind {
            seen.insert(value);
        }
    }
    steps.retain(|step| step.required || !matches!(step.kind, Kind::Put(value) if !seen.contains(&value)));
}

/// What a block of unknown contents may have held first: what somebody saw whose answer came before that of any other one who saw
/// something of the block, or what nobody saw.
fn first_values(steps: &[Step]) -> Vec<Option<u32>> {
    let seen = |step: &Step| match step.kind {
        Kind::See(value) | Kind::Swap(value, _) => Some(value),
        _ => None,
    };
    let first_end = steps
        .iter()
        .filter(|step| step.required && seen(step).is_some())
        .map(|step| step.to)
        .min()
        .unwrap_or(u64::MAX);
    let mut values: Vec<Option<u32>> = steps
        .iter()
        .filter(|step| step.from <= first_end)
        .filter_map(|step| seen(step).map(Some))
        .collect();
    values.push(None);
    values.sort_unstable();
    values.dedup();
    values
}
