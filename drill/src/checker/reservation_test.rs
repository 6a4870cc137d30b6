//! Reservations: faults that people know by name, and random histories of a model whose primary applies late.

use holdfast_types::{BlockRange, Lba, Mono};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::{CallId, Contents};
use super::*;

const WRITE_EXCLUSIVE: Access = Access {
    excludes_readers: false,
    admits: Admits::Registrants,
};
const OLD_KEY: u64 = 0xa;
const NEW_KEY: u64 = 0xb;
const VICTIM: Client = Client(1);
const FENCER: Client = Client(2);

fn range() -> BlockRange {
    BlockRange::new(Lba(7), 1).unwrap()
}

fn put(value: u64) -> Call {
    Call::Write {
        range: range(),
        data: Contents::from_values([value]),
    }
}

fn ms(at: u64) -> Mono {
    Mono::from_nanos(at * 1_000_000)
}

#[derive(Default)]
struct Script {
    history: History,
    now: u64,
}

impl Script {
    fn begin(&mut self, client: Client, call: Call) -> CallId {
        self.now += 1;
        self.history.invoke(client, call, ms(self.now))
    }

    fn end(&mut self, id: CallId, outcome: Outcome) {
        self.now += 1;
        self.history.answered(id, outcome, ms(self.now));
    }

    fn call(&mut self, client: Client, call: Call, outcome: Outcome) {
        let id = self.begin(client, call);
        self.end(id, outcome);
    }

    fn reserve(&mut self, client: Client, call: Reserve, outcome: Outcome) {
        self.call(client, Call::Reserve(call), outcome);
    }

    fn read(&mut self, client: Client, value: u64) {
        let data = Contents::from_values([value]);
        self.call(client, Call::Read { range: range() }, Outcome::Data(data));
    }

    fn kind(&self) -> Option<Kind> {
        self.history.check().err().map(|violation| violation.kind)
    }

    /// Both are registered, the victim holds a "write exclusive, registrants only" reservation.
    fn reserved() -> Self {
        let mut script = Self::default();
        for (client, new) in [(VICTIM, OLD_KEY), (FENCER, NEW_KEY)] {
            let register = Reserve::Register {
                key: 0,
                new,
                ignores: false,
            };
            script.reserve(client, register, Outcome::Done);
        }
        let take = Reserve::Take {
            key: OLD_KEY,
            access: WRITE_EXCLUSIVE,
        };
        script.reserve(VICTIM, take, Outcome::Done);
        script
    }

    const fn preempt() -> Reserve {
        Reserve::Preempt {
            key: NEW_KEY,
            victim: OLD_KEY,
            access: WRITE_EXCLUSIVE,
        }
    }
}

#[test]
fn i9_a_fenced_write_must_not_take_effect_after_the_fencer_has_good() {
    let mut script = Script::reserved();
    let late = script.begin(VICTIM, put(1));
    script.reserve(FENCER, Script::preempt(), Outcome::Done);
    script.read(FENCER, 0);
    assert_eq!(script.kind(), None);
    let mut before = Script {
        history: script.history.clone(),
        now: script.now,
    };
    script.read(FENCER, 1);
    assert_eq!(script.kind(), Some(Kind::Reservation));
    // GOOD that comes late is fine only if the effect was before the fence.
    before.end(late, Outcome::Done);
    before.read(FENCER, 0);
    assert_eq!(before.kind(), Some(Kind::Reservation));
    before = Script::reserved();
    let late = before.begin(VICTIM, put(1));
    before.reserve(FENCER, Script::preempt(), Outcome::Done);
    before.end(late, Outcome::Done);
    before.read(FENCER, 1);
    assert_eq!(before.kind(), None);
}

#[test]
fn i9_what_begins_after_the_fence_is_refused_until_the_client_is_let_in_again() {
    let mut script = Script::reserved();
    script.reserve(FENCER, Script::preempt(), Outcome::Done);
    script.call(VICTIM, put(1), Outcome::Conflict);
    script.read(VICTIM, 0);
    assert_eq!(script.kind(), None);
    let mut bad = Script {
        history: script.history.clone(),
        now: script.now,
    };
    bad.call(VICTIM, put(2), Outcome::Done);
    assert_eq!(bad.kind(), Some(Kind::Reservation));
    let again = Reserve::Register {
        key: 0,
        new: OLD_KEY,
        ignores: true,
    };
    script.reserve(VICTIM, again, Outcome::Done);
    script.call(VICTIM, put(3), Outcome::Done);
    script.read(FENCER, 3);
    assert_eq!(script.kind(), None);
    // Registrants are let in: a refusal means that the registration was forgotten.
    script.call(VICTIM, put(4), Outcome::Conflict);
    assert_eq!(script.kind(), Some(Kind::Reservation));
}

#[test]
fn i9_a_reservation_that_is_forgotten_shows_in_what_is_read_of_it() {
    let mut script = Script::reserved();
    let held = Some((OLD_KEY, WRITE_EXCLUSIVE));
    script.reserve(FENCER, Reserve::ReadReservation, Outcome::Held(held));
    script.reserve(FENCER, Reserve::ReadKeys, Outcome::Keys(vec![NEW_KEY, OLD_KEY]));
    assert_eq!(script.kind(), None);
    script.reserve(FENCER, Reserve::ReadKeys, Outcome::Keys(vec![NEW_KEY]));
    assert_eq!(script.kind(), Some(Kind::Reservation));
    let mut script = Script::reserved();
    script.reserve(FENCER, Reserve::ReadReservation, Outcome::Held(None));
    assert_eq!(script.kind(), Some(Kind::Reservation));
}

#[test]
fn a_preempt_without_an_answer_fences_nobody_for_sure() {
    let mut script = Script::reserved();
    let lost = script.begin(FENCER, Call::Reserve(Script::preempt()));
    script.history.lost(lost, ms(script.now));
    for (outcome, value) in [(Outcome::Done, 1), (Outcome::Conflict, 2)] {
        script.call(VICTIM, put(value), outcome);
        script.read(FENCER, 1);
    }
    assert_eq!(script.kind(), None);
    // Once a later change of the fencer has GOOD, it is known whether the first one happened.
    let take = Reserve::Take {
        key: NEW_KEY,
        access: WRITE_EXCLUSIVE,
    };
    script.reserve(FENCER, take, Outcome::Done);
    script.call(VICTIM, put(3), Outcome::Done);
    assert_eq!(script.kind(), Some(Kind::Reservation));
}

#[test]
fn exclusive_access_keeps_readers_out_and_all_registrants_hold_together() {
    let access = Access {
        excludes_readers: true,
        admits: Admits::AllRegistrants,
    };
    let mut script = Script::default();
    let register = |new| Reserve::Register {
        key: 0,
        new,
        ignores: false,
    };
    script.reserve(VICTIM, register(OLD_KEY), Outcome::Done);
    script.reserve(FENCER, register(NEW_KEY), Outcome::Done);
    script.reserve(VICTIM, Reserve::Take { key: OLD_KEY, access }, Outcome::Done);
    script.reserve(FENCER, Reserve::ReadReservation, Outcome::Held(Some((0, access))));
    let leave = Reserve::Register {
        key: OLD_KEY,
        new: 0,
        ignores: false,
    };
    script.reserve(VICTIM, leave, Outcome::Done);
    script.call(VICTIM, Call::Read { range: range() }, Outcome::Conflict);
    script.read(FENCER, 0);
    script.reserve(FENCER, Reserve::Take { key: OLD_KEY, access }, Outcome::Conflict);
    assert_eq!(script.kind(), None);
    script.read(VICTIM, 0);
    assert_eq!(script.kind(), Some(Kind::Reservation));
}

/// An open call of the model.
#[derive(Clone)]
struct Open {
    id: CallId,
    client: Client,
    call: Call,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Fresh,
    /// A change, committed as the one of this number.
    Committed(usize),
    /// A read or write that was admitted, and what the block held after it.
    Done(u64),
    Conflict,
}

/// A model in which changes are committed first, applied by the primary later, and answered after that (P2).
struct Model {
    random: StdRng,
    history: History,
    committed: Vec<(Client, Reserve)>,
    applied: usize,
    disk: u64,
    open: Vec<Open>,
}

impl Model {
    fn access(&mut self) -> Access {
        let admits = [Admits::Holder, Admits::Registrants, Admits::AllRegistrants];
        Access {
            excludes_readers: self.random.random_bool(0.5),
            admits: admits[self.random.random_range(0..3)],
        }
    }

    fn draw(&mut self, step: u64) -> Call {
        let key = self.random.random_range(0..4);
        let access = self.access();
        Call::Reserve(match self.random.random_range(0..12) {
            0 | 1 => Reserve::Register {
                key: 0,
                new: key,
                ignores: true,
            },
            2 => Reserve::Take { key, access },
            3 => Reserve::Release { key, access },
            4 if step.is_multiple_of(3) => Reserve::Clear { key },
            5 => Reserve::Preempt {
                key,
                victim: self.random.random_range(0..4),
                access,
            },
            6..9 => return Call::Read { range: range() },
            _ => return put(step),
        })
    }

    fn table(&self, changes: usize) -> Table {
        let mut table = Table::default();
        for (client, change) in &self.committed[..changes] {
            table.apply(*client, change);
        }
        table
    }

    /// Carries an open call one step further.
    fn go_on(&mut self, at: usize, now: u64) {
        let Open {
            id,
            client,
            call,
            state,
        } = self.open[at].clone();
        let outcome = match (&call, state) {
            (Call::Reserve(change), State::Fresh) => {
                match self.table(self.committed.len()).apply(client, change) {
                    Answer::Good => {
                        self.committed.push((client, change.clone()));
                        self.open[at].state = State::Committed(self.committed.len());
                        return;
                    }
                    Answer::Conflict => Outcome::Conflict,
                    Answer::Invalid => Outcome::Refused,
                }
            }
            (_, State::Fresh) => {
                if !self.table(self.applied).admits(client, call.writes()) {
                    self.open[at].state = State::Conflict;
                    return;
                }
                if let Call::Write { data, .. } = &call {
                    self.disk = data.value(0).unwrap().0;
                }
                self.open[at].state = State::Done(self.disk);
                return;
            }
            (_, State::Committed(place)) if self.applied < place => return,
            (Call::Read { .. }, State::Done(value)) => Outcome::Data(Contents::from_values([value])),
            (_, State::Committed(_) | State::Done(_)) => Outcome::Done,
            (_, State::Conflict) => Outcome::Conflict,
        };
        self.open.swap_remove(at);
        match self.random.random_range(0..20) {
            0 => self.history.lost(id, ms(now)),
            _ => self.history.answered(id, outcome, ms(now)),
        }
    }
}

#[test]
fn i9_histories_of_a_primary_that_applies_late_are_legal() {
    let given = std::env::var("HOLDFAST_SEED")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let seed = given.unwrap_or_else(|| StdRng::from_rng(&mut rand::rng()).random());
    eprintln!("HOLDFAST_SEED={seed}");
    for round in 0..2000 {
        let mut model = Model {
            random: StdRng::seed_from_u64(seed.wrapping_add(round)),
            history: History::default(),
            committed: Vec::new(),
            applied: 0,
            disk: 0,
            open: Vec::new(),
        };
        for now in 1..60 {
            match model.random.random_range(0..6) {
                0 | 1 if model.open.len() < 4 => {
                    let client = Client(model.random.random_range(0..3));
                    let call = model.draw(now);
                    let id = model.history.invoke(client, call.clone(), ms(now));
                    let state = State::Fresh;
                    model.open.push(Open {
                        id,
                        client,
                        call,
                        state,
                    });
                }
                2 if model.applied < model.committed.len() => model.applied += 1,
                _ if !model.open.is_empty() => {
                    let at = model.random.random_range(0..model.open.len());
                    model.go_on(at, now);
                }
                _ => {}
            }
        }
        let verdict = model.history.check();
        let text = verdict
            .as_ref()
            .map_or_else(ToString::to_string, |_| String::new());
        assert!(
            verdict.is_ok(),
            "seed {seed}, round {round}: {text}\n{:#?}",
            model.committed
        );
    }
}

/// More orders than anybody can look at: nothing is known, and a refusal is as good as what was carried out.
#[test]
fn where_reservations_are_undecided_nobody_is_blamed() {
    let mut script = Script::reserved();
    for number in 10..26 {
        let register = Reserve::Register {
            key: 0,
            new: number,
            ignores: false,
        };
        script.begin(Client(number), Call::Reserve(register));
    }
    script.reserve(FENCER, Script::preempt(), Outcome::Done);
    script.call(VICTIM, put(1), Outcome::Conflict);
    script.call(VICTIM, put(2), Outcome::Done);
    let summary = script.history.check().unwrap();
    assert!(summary.undecided >= 1, "{summary:?}");
}
