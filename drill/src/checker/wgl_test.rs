//! The checker against a general search for a linearization (Wing and Gong), on thousands of small random histories: the search tries
//! every order, knows no short cut, and reads the calls for itself.

use std::collections::HashSet;
use std::time::Duration;

use holdfast_types::{BlockRange, Lba, Mono};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::block::{Block, blocks};
use super::reservation::Timeline;
use super::sweep::{Verdict, judge_once};
use super::{Call, Client, Contents, History, Initial, Outcome, Rules};

const BLOCKS: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Does {
    Read,
    Put(Vec<u64>),
    Swap(Vec<u64>, Vec<u64>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Came {
    Good,
    Saw(Vec<u64>),
    Differs(usize),
    Refused,
    Open,
    Lost,
}

/// A call in the test's own words.
#[derive(Debug, Clone)]
struct Op {
    first: usize,
    does: Does,
    from: u64,
    to: u64,
    came: Came,
}

impl Op {
    fn len(&self) -> usize {
        match (&self.does, &self.came) {
            (Does::Put(data) | Does::Swap(_, data), _) => data.len(),
            (Does::Read, Came::Saw(data)) => data.len(),
            (Does::Read, _) => 1,
        }
    }

    /// What the block at `index` holds after the call took effect on `value`; `None` if it cannot have, with this answer.
    fn after(&self, index: usize, value: u64) -> Option<u64> {
        match (&self.does, &self.came) {
            (_, Came::Refused) => None,
            (Does::Read, Came::Saw(data)) => (data[index] == value).then_some(value),
            (Does::Read, _) => Some(value),
            (Does::Put(data), _) => Some(data[index]),
            (Does::Swap(old, new), Came::Good) => (old[index] == value).then(|| new[index]),
            (Does::Swap(old, _), Came::Differs(at)) => match index.cmp(at) {
                std::cmp::Ordering::Less => (old[index] == value).then_some(value),
                std::cmp::Ordering::Equal => (old[index] != value).then_some(value),
                std::cmp::Ordering::Greater => Some(value),
            },
            (Does::Swap(old, new), _) => Some(if old[index] == value { new[index] } else { value }),
        }
    }

    const fn must(&self) -> bool {
        matches!(self.came, Came::Good | Came::Saw(_) | Came::Differs(_))
    }

    fn last(&self, late: Option<u64>) -> u64 {
        match self.came {
            Came::Lost => late.map_or(u64::MAX, |late| self.from + late),
            _ => self.to,
        }
    }
}

/// Whether some order of the calls on one block explains them.
fn search(
    ops: &[(&Op, usize)],
    late: Option<u64>,
    done: u32,
    value: u64,
    seen: &mut HashSet<(u32, u64)>,
) -> bool {
    let is_done = |at: usize| done & 1 << at != 0;
    if ops
        .iter()
        .enumerate()
        .all(|(at, (op, _))| is_done(at) || !op.must())
    {
        return true;
    }
    if !seen.insert((done, value)) {
        return false;
    }
    ops.iter().enumerate().any(|(at, (op, index))| {
        let waits = |(other, (before, _)): (usize, &(&Op, usize))| {
            let precedes = !is_done(other) && before.must() && before.last(late) < op.from;
            let came_later = is_done(other) && op.last(late) < before.from;
            other != at && (precedes || came_later)
        };
        !is_done(at)
            && !ops.iter().enumerate().any(waits)
            && op
                .after(*index, value)
                .is_some_and(|value| search(ops, late, done | 1 << at, value, seen))
    })
}

fn explains(ops: &[Op], late: Option<u64>, initial: Initial) -> bool {
    (0..BLOCKS).all(|block| {
        let touching: Vec<(&Op, usize)> = ops
            .iter()
            .filter(|op| (op.first..op.first + op.len()).contains(&block))
            .map(|op| (op, block - op.first))
            .collect();
        let mut firsts = vec![0];
        if initial == Initial::Unknown {
            firsts.extend([1, 2, 3, 4, 77]);
            firsts.extend(100..140);
        }
        let mut first = firsts.into_iter();
        first.any(|value| search(&touching, late, 0, value, &mut HashSet::new()))
    })
}

struct Maker {
    random: StdRng,
    next: u64,
    repeats: bool,
}

impl Maker {
    fn value(&mut self) -> u64 {
        if self.repeats {
            return self.random.random_range(0..4);
        }
        if self.random.random_range(0..4) == 0 {
            return 0;
        }
        self.next += 1;
        self.next
    }

    fn values(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.value()).collect()
    }

    /// Calls with moments at which they take effect, and the answers that follow from these: a history that is legal.
    fn legal(&mut self, late: Option<u64>, initial: [u64; BLOCKS]) -> Vec<Op> {
        let count = self.random.random_range(2..10);
        let mut ops: Vec<(u64, Op)> = Vec::new();
        for _ in 0..count {
            let first = self.random.random_range(0..BLOCKS);
            let blocks = self.random.random_range(1..=(BLOCKS - first).min(2));
            let from = self.random.random_range(0..30);
            let to = from + self.random.random_range(0..12);
            let does = match self.random.random_range(0..10) {
                0..4 => Does::Read,
                4..8 => Does::Put(self.values(blocks)),
                _ => Does::Swap(self.values(blocks), self.values(blocks)),
            };
            let effect = self.random.random_range(from..=to);
            // A read's length is kept in what it sees.
            let came = Came::Saw(vec![0; blocks]);
            ops.push((
                effect,
                Op {
                    first,
                    does,
                    from,
                    to,
                    came,
                },
            ));
        }
        ops.sort_by_key(|(effect, _)| *effect);
        let mut disk = initial;
        for (effect, op) in &mut ops {
            self.answer(*effect, op, &mut disk, late);
        }
        ops.into_iter().map(|(_, op)| op).collect()
    }

    fn answer(&mut self, effect: u64, op: &mut Op, disk: &mut [u64; BLOCKS], late: Option<u64>) {
        let Came::Saw(data) = &op.came else { return };
        let there = op.first..op.first + data.len();
        let now = disk[there.clone()].to_vec();
        if let Does::Swap(old, _) = &mut op.does
            && self.random.random_range(0..3) > 0
        {
            *old = now.clone();
        }
        let fate = self.random.random_range(0..10);
        if fate == 0 {
            op.came = Came::Refused;
            return;
        }
        let is_lost = fate < 3;
        let happens = !is_lost || self.random.random_bool(0.5);
        let mut came = Came::Good;
        match &op.does {
            Does::Read => came = Came::Saw(now),
            Does::Put(data) if happens => disk[there].copy_from_slice(data),
            Does::Swap(old, new) => match (0..old.len()).find(|at| old[*at] != now[*at]) {
                Some(at) => came = Came::Differs(at),
                None if happens => disk[there].copy_from_slice(new),
                None => {}
            },
            Does::Put(_) => {}
        }
        op.came = match (is_lost, fate) {
            (false, _) => came,
            (true, 1) => Came::Open,
            // Lost for a while only, when that is the rule: it may have happened after that, too, and then is a ghost.
            (true, _) => Came::Lost,
        };
        if op.came == Came::Lost && late.is_none() {
            op.to = effect;
        }
    }

    fn spoil(&mut self, ops: &mut [Op]) {
        let at = self.random.random_range(0..ops.len());
        let value = self.value();
        let shift = self.random.random_range(0..20);
        let op = &mut ops[at];
        match (&mut op.came, self.random.random_range(0..4)) {
            (Came::Saw(data), 0..3) => data[0] = value,
            (came @ Came::Differs(_), 0..2) => *came = Came::Good,
            (came @ (Came::Lost | Came::Open), 0..2) if op.does != Does::Read => *came = Came::Good,
            (came @ Came::Good, 0) => *came = Came::Refused,
            _ => {
                op.from += shift;
                op.to += shift;
            }
        }
    }
}

fn history(ops: &[Op], late: Option<u64>, initial: Initial) -> History {
    let late = late.map(Duration::from_nanos);
    let mut history = History::new(Rules { initial, late });
    for (client, op) in (0..).zip(ops) {
        let range = BlockRange::new(Lba(op.first as u64), op.len() as u64).unwrap();
        let contents = |data: &[u64]| Contents::from_values(data.iter().copied());
        let call = match &op.does {
            Does::Read => Call::Read { range },
            Does::Put(data) if data.iter().all(|value| *value == 0) => Call::Zero {
                ranges: vec![range, range],
            },
            Does::Put(data) if data.iter().all(|value| *value == data[0]) => Call::WriteSame {
                range,
                block: contents(&data[..1]),
            },
            Does::Put(data) => Call::Write {
                range,
                data: contents(data),
            },
            Does::Swap(old, new) => Call::CompareAndWrite {
                range,
                expect: contents(old),
                data: contents(new),
            },
        };
        let id = history.invoke(Client(client), call, Mono::from_nanos(op.from));
        let to = Mono::from_nanos(op.to);
        match &op.came {
            Came::Good => history.answered(id, Outcome::Done, to),
            Came::Saw(data) => history.answered(id, Outcome::Data(contents(data)), to),
            Came::Differs(at) => {
                let block = (op.len() > 1).then_some(*at as u64);
                history.answered(id, Outcome::Miscompare { block }, to);
            }
            Came::Refused => history.answered(id, Outcome::Refused, to),
            Came::Open => history.answered(id, Outcome::Unknown, to),
            Came::Lost => history.lost(id, to),
        }
    }
    history
}

/// Histories to try: `HOLDFAST_ROUNDS`, 30,000 unless told.
fn rounds() -> u64 {
    let rounds = std::env::var("HOLDFAST_ROUNDS").ok();
    rounds.and_then(|text| text.parse().ok()).unwrap_or(30_000)
}

fn seed() -> u64 {
    let given = std::env::var("HOLDFAST_SEED").ok();
    given
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| StdRng::from_rng(&mut rand::rng()).random())
}

#[test]
fn the_checker_and_a_general_search_agree_on_small_histories() {
    let seed = seed();
    eprintln!("HOLDFAST_SEED={seed}");
    let (mut legal, mut illegal) = (0, 0);
    for round in 0..rounds() {
        let mut maker = Maker {
            random: StdRng::seed_from_u64(seed.wrapping_add(round)),
            next: 100,
            repeats: round % 2 == 0,
        };
        let late = (round % 3 == 0).then_some(8);
        let initial = if round % 5 == 0 {
            Initial::Unknown
        } else {
            Initial::Zeros
        };
        let first = if initial == Initial::Unknown {
            [77, 2, 0]
        } else {
            [0; BLOCKS]
        };
        let mut ops = maker.legal(late, first);
        for _ in 0..round % 4 {
            maker.spoil(&mut ops);
        }
        let wanted = explains(&ops, late, initial);
        if round % 4 == 0 && late.is_none() {
            assert!(wanted, "round {round} is legal by its making: {ops:#?}");
        }
        let history = history(&ops, late, initial);
        let verdict = history.check();
        let text = verdict
            .as_ref()
            .map_or_else(ToString::to_string, |_| "no fault".to_owned());
        assert_eq!(
            verdict.is_ok(),
            wanted,
            "seed {seed}, round {round}: {text}\n{ops:#?}"
        );
        if let Ok(summary) = verdict {
            assert_eq!(summary.undecided, 0);
        }
        // Short cuts change nothing.
        for prunes in [true, false] {
            let is_legal = blocks(&history.records).iter().all(|(lba, touches)| {
                let block = Block::new(&history, lba, touches, &Timeline::default());
                judge_once(&block.steps, &block.initial, 100_000, prunes) == Verdict::Legal
            });
            assert_eq!(
                is_legal, wanted,
                "seed {seed}, round {round}, prunes {prunes}: {ops:#?}"
            );
        }
        *if wanted { &mut legal } else { &mut illegal } += 1;
    }
    eprintln!("{legal} legal, {illegal} not");
    assert!(
        legal * 10 > rounds() && illegal * 10 > rounds(),
        "both kinds are tried: {legal}, {illegal}"
    );
}
