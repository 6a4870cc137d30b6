//! Judges what initiators saw: every block is a register with unique values, and its history must be linearizable.

use std::collections::BTreeMap;

use holdfast_types::{BlockRange, OpOutcome};

use super::PLAIN;

/// What a command does, as far as the check goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    Read { range: BlockRange },
    Write { range: BlockRange, value: u64 },
    Swap { range: BlockRange, old: u64, value: u64 },
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Done,
    /// May have taken effect before it ended, never later (I11).
    Unknown,
    /// Must not have taken effect.
    Never,
    /// The node died with it: it may take effect later, too.
    Lost,
}

#[derive(Debug)]
struct Op {
    call: Call,
    client: usize,
    from: u64,
    to: u64,
    end: End,
    read: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct History {
    ops: BTreeMap<u64, Op>,
}

/// All that is known of one value of one block.
#[derive(Debug, Clone)]
struct Zone {
    value: u64,
    /// Latest start and earliest end of the commands that saw or put it.
    start: u64,
    end: u64,
    seen: bool,
    acked: bool,
    never: bool,
    written_from: u64,
}

impl History {
    pub(super) fn start(&mut self, id: u64, client: usize, now: u64, call: Call) {
        let op = Op {
            call,
            client,
            from: now,
            to: u64::MAX,
            end: End::Open,
            read: vec![],
        };
        self.ops.insert(id, op);
    }

    pub(super) fn call(&self, id: u64) -> Option<Call> {
        self.ops.get(&id).map(|op| op.call)
    }

    pub(super) fn end(&mut self, id: u64, now: u64, outcome: &OpOutcome, read: Vec<u64>) {
        let op = self.ops.get_mut(&id).unwrap();
        op.to = now;
        op.read = read;
        op.end = match outcome {
            OpOutcome::Done | OpOutcome::Data(_) => End::Done,
            OpOutcome::Reset => End::Unknown,
            _ => End::Never,
        };
    }

    pub(super) fn lost(&mut self, id: u64) {
        self.ops.get_mut(&id).unwrap().end = End::Lost;
    }

    pub(super) fn done_after(&self, time: u64) -> usize {
        self.ops
            .values()
            .filter(|op| op.end == End::Done && op.from >= time)
            .count()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        (0..PLAIN).try_for_each(|block| self.check_block(block))
    }

    fn zones(&self, block: u64) -> Result<Vec<Zone>, String> {
        let mut zones: BTreeMap<u64, Zone> = BTreeMap::new();
        let fresh = |value| Zone {
            value,
            start: 0,
            end: u64::MAX,
            seen: false,
            acked: false,
            never: false,
            written_from: u64::MAX,
        };
        let first = Zone {
            start: 0,
            end: 0,
            seen: true,
            written_from: 0,
            ..fresh(0)
        };
        zones.insert(0, first);
        let mut swapped: BTreeMap<u64, u64> = BTreeMap::new();
        for (id, op) in &self.ops {
            let (range, put, saw) = match op.call {
                Call::Read { range } if op.end == End::Done => (range, None, true),
                Call::Write { range, value } => (range, Some(value), false),
                Call::Swap { range, old, value } => {
                    if op.end == End::Done && range.lba().0 == block && swapped.insert(old, *id).is_some() {
                        return Err(format!("block {block}: two swaps of {old} succeeded"));
                    }
                    (range, Some(value), false)
                }
                _ => continue,
            };
            if block < range.lba().0 || block >= range.end().0 {
                continue;
            }
            let index = usize::try_from(block - range.lba().0).unwrap();
            if let Some(value) = put {
                let zone = zones.entry(value).or_insert_with(|| fresh(value));
                zone.start = zone.start.max(op.from);
                zone.written_from = op.from;
                // An unanswered one ends, if it took effect, before it was given up.
                zone.end = zone.end.min(op.to);
                zone.acked = op.end == End::Done;
                zone.never = op.end == End::Never;
            }
            let old = match op.call {
                Call::Swap { old, .. } if op.end == End::Done => Some(old),
                _ if saw => Some(op.read[index]),
                _ => None,
            };
            if let Some(value) = old {
                let zone = zones.entry(value).or_insert_with(|| fresh(value));
                zone.start = zone.start.max(op.from);
                zone.end = zone.end.min(op.to);
                zone.seen = true;
            }
        }
        Ok(zones
            .into_values()
            .filter(|zone| zone.seen || zone.acked)
            .collect())
    }

    /// Gibbons and Korach: with unique values, a register's history is linearizable if no two forward zones overlap and no backward zone
    /// lies within a forward one.
    fn check_block(&self, block: u64) -> Result<(), String> {
        let zones = self.zones(block)?;
        for zone in &zones {
            if zone.never {
                return Err(format!("block {block}: {} was never to take effect", zone.value));
            }
            if zone.written_from == u64::MAX || zone.written_from > zone.end {
                return Err(format!(
                    "block {block}: {} was seen before it was written",
                    zone.value
                ));
            }
        }
        let mut forward: Vec<&Zone> = zones.iter().filter(|zone| zone.end < zone.start).collect();
        forward.sort_by_key(|zone| zone.end);
        for pair in forward.windows(2) {
            if pair[1].end < pair[0].start {
                return Err(self.explain(block, pair[0], pair[1]));
            }
        }
        for back in zones.iter().filter(|zone| zone.end >= zone.start) {
            if let Some(around) = forward.iter().find(|f| f.end < back.start && back.end < f.start) {
                return Err(self.explain(block, around, back));
            }
        }
        Ok(())
    }

    fn explain(&self, block: u64, a: &Zone, b: &Zone) -> String {
        let mut text = format!(
            "block {block} is not linearizable: values {} and {}\n",
            a.value, b.value
        );
        for (id, op) in &self.ops {
            let (range, put) = match op.call {
                Call::Read { range } => (range, None),
                Call::Write { range, value } | Call::Swap { range, value, .. } => (range, Some(value)),
                Call::Other => continue,
            };
            if block < range.lba().0 || block >= range.end().0 {
                continue;
            }
            let index = usize::try_from(block - range.lba().0).unwrap();
            let value = put.or_else(|| op.read.get(index).copied());
            let old = matches!(op.call, Call::Swap { old, .. } if [a.value, b.value].contains(&old));
            if old || value.is_some_and(|v| v == a.value || v == b.value) {
                let ms = |t: u64| {
                    if t == u64::MAX {
                        f64::INFINITY
                    } else {
                        t as f64 / 1e6
                    }
                };
                text += &format!(
                    "  op {id} client {} {:?} -> {:?} {value:?} [{:.3}, {:.3}]\n",
                    op.client,
                    op.call,
                    op.end,
                    ms(op.from),
                    ms(op.to)
                );
            }
        }
        text
    }
}
