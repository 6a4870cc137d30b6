//! What the checker says about faults that people know by name.

use super::*;

const RANGE: BlockRange = match BlockRange::new(Lba(7), 1) {
    Ok(range) => range,
    Err(_) => panic!("a range"),
};

/// A history of block 7 in which calls take effect one after the other.
#[derive(Default)]
struct Script {
    history: History,
    now: u64,
}

impl Script {
    fn with(rules: Rules) -> Self {
        let history = History::new(rules);
        Self { history, now: 0 }
    }

    fn tick(&mut self) -> Mono {
        self.now += 1;
        Mono::from_nanos(self.now * 1_000_000)
    }

    fn one(value: u64) -> Contents {
        Contents::from_values([value])
    }

    fn put(value: u64) -> Call {
        Call::Write {
            range: RANGE,
            data: Self::one(value),
        }
    }

    fn swap(old: u64, new: u64) -> Call {
        Call::CompareAndWrite {
            range: RANGE,
            expect: Self::one(old),
            data: Self::one(new),
        }
    }

    fn begin(&mut self, call: Call) -> CallId {
        let at = self.tick();
        self.history.invoke(Client(1), call, at)
    }

    fn end(&mut self, id: CallId, outcome: Outcome) {
        let at = self.tick();
        self.history.answered(id, outcome, at);
    }

    fn call(&mut self, call: Call, outcome: Outcome) {
        let id = self.begin(call);
        self.end(id, outcome);
    }

    fn write(&mut self, value: u64) {
        self.call(Self::put(value), Outcome::Done);
    }

    fn read(&mut self, value: u64) {
        self.call(Call::Read { range: RANGE }, Outcome::Data(Self::one(value)));
    }

    fn lose(&mut self, call: Call) {
        let id = self.begin(call);
        let at = self.tick();
        self.history.lost(id, at);
    }

    fn kind(&self) -> Option<Kind> {
        let verdict = self.history.check();
        if let Err(violation) = &verdict {
            assert!(violation.to_string().contains("block 7"), "{violation}");
        }
        verdict.err().map(|violation| violation.kind)
    }
}

#[test]
fn an_acknowledged_write_that_is_gone_is_lost() {
    let mut script = Script::default();
    script.write(1);
    script.read(1);
    script.write(2);
    assert_eq!(script.kind(), None);
    script.read(1);
    script.read(1);
    assert_eq!(script.kind(), Some(Kind::Lost));
}

#[test]
fn an_old_value_read_once_is_stale_and_values_that_alternate_are_forked() {
    let mut script = Script::default();
    script.write(1);
    script.write(2);
    script.read(1);
    script.read(2);
    assert_eq!(script.kind(), Some(Kind::Stale));
    script.read(1);
    script.read(2);
    assert_eq!(script.kind(), Some(Kind::Forked));
}

#[test]
fn two_that_compared_the_same_value_and_wrote_are_forked() {
    let mut script = Script::default();
    script.write(1);
    script.call(Script::swap(1, 2), Outcome::Done);
    assert_eq!(script.kind(), None);
    script.call(Script::swap(1, 3), Outcome::Done);
    assert_eq!(script.kind(), Some(Kind::Forked));
}

#[test]
fn a_call_without_an_answer_may_have_happened_or_not_and_late() {
    let mut script = Script::default();
    script.write(1);
    script.lose(Script::put(2));
    script.read(1);
    script.write(3);
    script.read(3);
    assert_eq!(script.kind(), None);
    script.read(2);
    script.read(2);
    assert_eq!(script.kind(), None);
    // But only once.
    script.write(4);
    script.read(2);
    assert_eq!(script.kind(), Some(Kind::Lost));
}

#[test]
fn i11_a_late_effect_is_a_ghost_when_the_time_for_it_is_bounded() {
    let late = Some(Duration::from_millis(5));
    let initial = Initial::Zeros;
    let mut script = Script::with(Rules { initial, late });
    script.lose(Script::put(2));
    script.read(0);
    script.read(2);
    assert_eq!(script.kind(), None);
    script.lose(Script::put(3));
    script.write(4);
    for _ in 0..5 {
        script.read(4);
    }
    script.read(3);
    assert_eq!(script.kind(), Some(Kind::Ghost));
}

#[test]
fn what_was_refused_or_ended_has_no_later_effect() {
    let mut script = Script::default();
    script.call(Script::put(1), Outcome::Refused);
    script.read(0);
    assert_eq!(script.kind(), None);
    script.read(1);
    assert_eq!(script.kind(), Some(Kind::Ghost));

    let mut script = Script::default();
    script.call(Script::put(1), Outcome::Unknown);
    script.read(0);
    assert_eq!(script.kind(), None);
    script.read(1);
    assert_eq!(script.kind(), Some(Kind::Ghost));
}

#[test]
fn zeros_may_come_from_anywhere_but_not_from_nowhere() {
    let zero = || Call::Zero { ranges: vec![RANGE] };
    let mut script = Script::default();
    script.read(0);
    script.write(1);
    script.lose(zero());
    script.lose(zero());
    for value in [0, 0] {
        script.read(value);
    }
    script.write(2);
    script.read(0);
    assert_eq!(script.kind(), None);
    script.write(3);
    script.read(0);
    assert_eq!(script.kind(), Some(Kind::Lost));
}

#[test]
fn a_miscompare_says_that_something_else_was_there() {
    let mut script = Script::default();
    script.write(1);
    script.call(Script::swap(2, 3), Outcome::Miscompare { block: None });
    assert_eq!(script.kind(), None);
    script.call(Script::swap(1, 3), Outcome::Miscompare { block: Some(0) });
    assert_eq!(script.kind(), Some(Kind::Stale));
}

#[test]
fn a_large_block_is_never_torn_and_contents_stay_where_they_were_put() {
    let size = BlockSize::B4096;
    let bytes = |value: u8| vec![value; 4096];
    let contents = |data: &[u8]| Contents::from_bytes(data, size);
    let mut mixed = bytes(1);
    mixed[512..].fill(2);
    let mut script = Script::default();
    let write = |value| Call::Write {
        range: RANGE,
        data: contents(&bytes(value)),
    };
    script.call(write(1), Outcome::Done);
    script.lose(write(2));
    let read = |data: &[u8]| (Call::Read { range: RANGE }, Outcome::Data(contents(data)));
    let (call, outcome) = read(&bytes(1));
    script.call(call, outcome);
    assert_eq!(script.kind(), None);
    let (call, outcome) = read(&mixed);
    script.call(call, outcome);
    assert_eq!(script.kind(), Some(Kind::Torn));

    let mut script = Script::default();
    let elsewhere = BlockRange::new(Lba(9), 2).unwrap();
    let data = Contents::from_values([5, 6]);
    script.call(
        Call::Write {
            range: elsewhere,
            data,
        },
        Outcome::Done,
    );
    script.read(6);
    let violation = script.history.check().unwrap_err();
    assert_eq!(violation.kind, Kind::Corrupt);
    assert!(
        violation.to_string().contains("written to block 10"),
        "{violation}"
    );
}

#[test]
fn unknown_contents_are_one_thing() {
    let initial = Initial::Unknown;
    let mut script = Script::with(Rules { initial, late: None });
    script.read(9);
    script.read(9);
    assert_eq!(script.kind(), None);
    script.read(8);
    assert!(script.kind().is_some());
}

#[test]
fn the_last_look_counts_and_an_answer_comes_once() {
    let mut script = Script::default();
    script.write(1);
    let at = script.tick();
    script
        .history
        .final_contents(Lba(6), Contents::from_values([0, 1, 0]), at);
    assert_eq!(script.kind(), None);
    let at = script.tick();
    script
        .history
        .final_contents(Lba(7), Contents::from_values([0]), at);
    assert_eq!(script.kind(), Some(Kind::Lost));

    let mut script = Script::default();
    let id = script.begin(Script::put(1));
    script.end(id, Outcome::Done);
    script.end(id, Outcome::Done);
    assert_eq!(script.kind(), Some(Kind::Corrupt));
}

#[test]
fn a_violation_names_block_calls_and_times() {
    let mut script = Script::default();
    script.write(0xabc);
    script.write(0xdef);
    script.read(0xabc);
    let text = script.history.check().unwrap_err().to_string();
    let wanted = "block 7: lost (I1): call 2 sees abc, but def was there before it began (call 1) and is gone\n  \
        call 2, client 1: READ 7+1 [0.005000, 0.006000] GOOD sees abc\n  \
        call 1, client 1: WRITE 7+1 [0.003000, 0.004000] GOOD puts def\n  \
        call 0, client 1: WRITE 7+1 [0.001000, 0.002000] GOOD puts abc";
    assert_eq!(text, wanted);
}

/// A disk that many clients use at once, one write in twenty without an answer: time grows with the history, not faster.
#[test]
fn long_histories_take_little_time() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    const CLIENTS: usize = 16;
    let mut random = StdRng::seed_from_u64(4);
    let mut history = History::default();
    let mut disk = [0_u64; 8];
    let mut open: Vec<(Option<CallId>, usize, Option<u64>)> = vec![(None, 0, None); CLIENTS];
    for step in 1..60_000_u64 {
        let now = Mono::from_nanos(step * 1000);
        let client = random.random_range(0..CLIENTS);
        let (id, at, value) = open[client];
        let range = |at: usize| BlockRange::new(Lba(at as u64), 1).unwrap();
        if let Some(id) = id {
            let is_lost = value.is_some() && random.random_range(0..20) == 0;
            if let Some(value) = value
                && (!is_lost || random.random_bool(0.5))
            {
                disk[at] = value;
            }
            let outcome = match value {
                Some(_) => Outcome::Done,
                None => Outcome::Data(Contents::from_values([disk[at]])),
            };
            if is_lost {
                history.lost(id, now);
            } else {
                history.answered(id, outcome, now);
            }
            open[client].0 = None;
            continue;
        }
        let at = random.random_range(0..disk.len());
        let (call, value) = match random.random_range(0..10) {
            0..5 => (Call::Read { range: range(at) }, None),
            5..7 => (
                Call::Zero {
                    ranges: vec![range(at)],
                },
                Some(0),
            ),
            _ => {
                let data = Contents::from_values([step]);
                (
                    Call::Write {
                        range: range(at),
                        data,
                    },
                    Some(step),
                )
            }
        };
        let id = history.invoke(Client(client as u64), call, now);
        open[client] = (Some(id), at, value);
    }
    let began = std::time::Instant::now();
    let summary = history.check().unwrap();
    eprintln!("{} calls in {:?}", history.len(), began.elapsed());
    assert_eq!((summary.blocks, summary.undecided), (8, 0));
}

/// W6: GOOD for one that is sent again may speak of the first time; it happened once all the same.
#[test]
fn w6_a_swap_sent_again_may_have_taken_effect_the_first_time() {
    let lost_then = |seen: &[u64], last: Outcome| {
        let mut script = Script::default();
        let first = script.begin(Script::swap(0, 1));
        let at = script.tick();
        script.history.answered(first, Outcome::Unknown, at);
        for value in seen {
            script.read(*value);
        }
        let at = script.tick();
        let again = script.history.invoke_again(first, at);
        script.end(again, last);
        script
    };
    let fine = |script: &Script| script.history.check().is_ok();
    assert!(fine(&lost_then(&[1], Outcome::Done)));
    assert!(
        fine(&lost_then(&[0], Outcome::Done)),
        "it happened the second time"
    );
    assert!(fine(&lost_then(&[1], Outcome::Miscompare { block: None })));
    assert!(!fine(&lost_then(&[0], Outcome::Miscompare { block: None })));
    assert!(!fine(&lost_then(&[1, 0], Outcome::Done)), "nobody took it back");
    let mut script = lost_then(&[], Outcome::Done);
    script.read(0);
    assert!(!fine(&script), "it did happen");
}
