//! Persistent reservations in a history: in which order they changed, and when they kept whom from reading and writing.
//!
//! The changes are judged like a block: some order must explain every answer. From that order follows when each client may have been
//! admitted. A write is judged by the table of the extent's primary, which may be behind the newest one until the change is answered
//! with GOOD, and not after (P2): so a fenced client's write may take effect while its fencer waits, and never once that has GOOD (I9).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::violation::{Kind, Violation};
use super::{Call, Client, End, History, Outcome};

/// States looked at per event, at most.
const STATES_MAX: usize = 5_000;

/// Whom a reservation keeps out (SPC-5, 5.14.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Access {
    /// Keeps readers out, too (the "exclusive access" types); otherwise writers only ("write exclusive").
    pub excludes_readers: bool,
    /// Who is let in.
    pub admits: Admits,
}

/// Who is let in by a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Admits {
    /// Its holder.
    Holder,
    /// Whoever is registered ("registrants only").
    Registrants,
    /// Whoever is registered, each of whom holds it ("all registrants").
    AllRegistrants,
}

/// A call about persistent reservations. A client is a nexus here: each path registers on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserve {
    /// REGISTER, or REGISTER AND IGNORE EXISTING KEY.
    Register {
        /// The key that it has; ignored when `ignores` says so.
        key: u64,
        /// The key that it gets; 0 takes the registration away.
        new: u64,
        /// Whether the present key does not matter.
        ignores: bool,
    },
    /// RESERVE.
    Take {
        /// The client's key.
        key: u64,
        /// The kind of reservation.
        access: Access,
    },
    /// RELEASE.
    Release {
        /// The client's key.
        key: u64,
        /// The kind of reservation.
        access: Access,
    },
    /// CLEAR.
    Clear {
        /// The client's key.
        key: u64,
    },
    /// PREEMPT, or PREEMPT AND ABORT.
    Preempt {
        /// The client's key.
        key: u64,
        /// Key of those that lose their registration.
        victim: u64,
        /// The kind of reservation, if one is taken over.
        access: Access,
    },
    /// READ KEYS; answered with [`Outcome::Keys`].
    ReadKeys,
    /// READ RESERVATION; answered with [`Outcome::Held`].
    ReadReservation,
}

impl Reserve {
    /// The service action's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Register { .. } => "REGISTER",
            Self::Take { .. } => "RESERVE",
            Self::Release { .. } => "RELEASE",
            Self::Clear { .. } => "CLEAR",
            Self::Preempt { .. } => "PREEMPT",
            Self::ReadKeys => "READ KEYS",
            Self::ReadReservation => "READ RESERVATION",
        }
    }

    pub(super) const fn can_come_to(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (_, Outcome::Refused | Outcome::Unknown | Outcome::Conflict)
            | (Self::ReadKeys, Outcome::Keys(_))
            | (Self::ReadReservation, Outcome::Held(_)) => true,
            (Self::ReadKeys | Self::ReadReservation, _) => false,
            (_, outcome) => matches!(outcome, Outcome::Done),
        }
    }
}

/// Registrations, and the reservation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Table {
    keys: BTreeMap<Client, u64>,
    held: Option<(Client, Access)>,
}

/// What a table makes of a call.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Good,
    Conflict,
    /// Any other refusal; nothing changes.
    Invalid,
}

impl Table {
    fn admits(&self, client: Client, writes: bool) -> bool {
        let Some((holder, access)) = self.held else {
            return true;
        };
        let is_shared = access.admits != Admits::Holder;
        (!writes && !access.excludes_readers)
            || holder == client
            || (is_shared && self.keys.contains_key(&client))
    }

    fn is_holder(&self, client: Client) -> bool {
        self.held.is_some_and(|(holder, access)| {
            holder == client || (access.admits == Admits::AllRegistrants && self.keys.contains_key(&client))
        })
    }

    /// Takes a registration away, and the reservation with its last holder.
    fn unregister(&mut self, client: Client) {
        self.keys.remove(&client);
        let Some((holder, access)) = self.held else { return };
        if access.admits == Admits::AllRegistrants {
            match self.keys.keys().next() {
                // Any of those that are left will do: they all hold it.
                Some(other) if holder == client => self.held = Some((*other, access)),
                Some(_) => {}
                None => self.held = None,
            }
        } else if holder == client {
            self.held = None;
        }
    }

    fn apply(&mut self, by: Client, call: &Reserve) -> Answer {
        let own = self.keys.get(&by).copied();
        match *call {
            Reserve::Register { key, new, ignores } => {
                if !ignores && key != own.unwrap_or(0) {
                    return Answer::Conflict;
                }
                match (own, new) {
                    (None, 0) => {}
                    (Some(_), 0) => self.unregister(by),
                    _ => drop(self.keys.insert(by, new)),
                }
            }
            Reserve::ReadKeys | Reserve::ReadReservation => {}
            Reserve::Take { key, .. }
            | Reserve::Release { key, .. }
            | Reserve::Clear { key }
            | Reserve::Preempt { key, .. }
                if own != Some(key) =>
            {
                return Answer::Conflict;
            }
            Reserve::Take { access, .. } => match self.held {
                None => self.held = Some((by, access)),
                Some((_, kept)) if self.is_holder(by) && kept == access => {}
                Some(_) => return Answer::Conflict,
            },
            Reserve::Release { access, .. } => match self.held {
                Some((_, kept)) if self.is_holder(by) && kept == access => self.held = None,
                Some(_) if self.is_holder(by) => return Answer::Invalid,
                _ => {}
            },
            Reserve::Clear { .. } => *self = Self::default(),
            Reserve::Preempt { victim, access, .. } => return self.preempt(by, victim, access),
        }
        Answer::Good
    }

    /// PREEMPT (SPC-5, 5.14.11.4).
    fn preempt(&mut self, by: Client, victim: u64, access: Access) -> Answer {
        let all_hold = self
            .held
            .is_some_and(|(_, kept)| kept.admits == Admits::AllRegistrants);
        if victim == 0 && !all_hold {
            return Answer::Invalid;
        }
        let holder_key = self.held.and_then(|(holder, _)| self.keys.get(&holder).copied());
        let takes_over = if all_hold {
            victim == 0
        } else {
            holder_key == Some(victim)
        };
        let is_victim = |key: &u64| victim == 0 || *key == victim;
        let victims: Vec<Client> = self
            .keys
            .iter()
            .filter(|(client, key)| is_victim(key) && (**client != by || !takes_over))
            .map(|(client, _)| *client)
            .collect();
        if victims.is_empty() && !takes_over {
            return Answer::Conflict;
        }
        victims.into_iter().for_each(|client| self.unregister(client));
        if takes_over {
            self.held = Some((by, access));
        }
        Answer::Good
    }

    /// Whether it gives this answer to a call; changed by it, if so.
    fn answers(&mut self, by: Client, call: &Reserve, end: &End) -> bool {
        let before = self.clone();
        let answer = self.apply(by, call);
        match end {
            End::Answered(Outcome::Done) => answer == Answer::Good,
            End::Answered(Outcome::Conflict) => answer == Answer::Conflict,
            End::Answered(Outcome::Keys(keys)) => {
                let mut own: Vec<u64> = before.keys.values().copied().collect();
                let mut keys = keys.clone();
                own.sort_unstable();
                keys.sort_unstable();
                own == keys
            }
            End::Answered(Outcome::Held(held)) => {
                // An "all registrants" reservation shows no key (SPC-5, 6.15.3).
                let key = |(holder, access): (Client, Access)| match access.admits {
                    Admits::AllRegistrants => 0,
                    _ => before.keys.get(&holder).copied().unwrap_or(0),
                };
                before.held.map(|held| (key(held), held.1)) == *held
            }
            _ => answer == Answer::Good,
        }
    }
}

/// What may be the case: the tables from the oldest one that the extent's primary may still judge by to the newest one, and which calls
/// under way have taken effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Config {
    trail: Vec<Table>,
    /// The calls between the tables of the trail.
    between: Vec<usize>,
    done: BTreeSet<usize>,
}

/// The tables that may have been judged by, from one event to the next.
#[derive(Debug)]
struct Span {
    from: u64,
    tables: Vec<Table>,
}

/// When whom reservations may have admitted.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    spans: Vec<Span>,
    /// Too many orders: nothing is known, and everybody is taken for admitted.
    pub(super) is_undecided: bool,
}

struct Sweep<'a> {
    history: &'a History,
    pending: Vec<usize>,
    configs: HashSet<Config>,
}

impl Timeline {
    /// The timeline of a history.
    ///
    /// # Errors
    /// No order explains the answers.
    pub(super) fn of(history: &History) -> Result<Self, Violation> {
        let mut events: Vec<(u64, u8, usize)> = Vec::new();
        for (at, record) in history.records.iter().enumerate() {
            if matches!(record.call, Call::Reserve(_)) && record.end != End::Answered(Outcome::Refused) {
                let is_required =
                    matches!(&record.end, End::Answered(outcome) if *outcome != Outcome::Unknown);
                let to = history.latest(record);
                events.push((record.from, 0, at));
                if to < u64::MAX {
                    events.push((to, if is_required { 1 } else { 2 }, at));
                }
            }
        }
        events.sort_unstable();
        let first = Config {
            trail: vec![Table::default()],
            between: Vec::new(),
            done: BTreeSet::new(),
        };
        let mut sweep = Sweep {
            history,
            pending: Vec::new(),
            configs: HashSet::from([first]),
        };
        let mut timeline = Self::default();
        for (time, class, call) in events {
            let is_fine = match class {
                0 => {
                    sweep.pending.push(call);
                    true
                }
                _ => sweep.end(call, class == 1),
            };
            if is_fine && sweep.configs.is_empty() {
                return Err(sweep.violation(call));
            }
            let Some(tables) = sweep.tables().filter(|_| is_fine) else {
                timeline.is_undecided = true;
                return Ok(timeline);
            };
            timeline.spans.push(Span { from: time, tables });
        }
        Ok(timeline)
    }

    /// The part of a time in which a client may have been admitted: its first and last moment; `None` when it never was.
    pub(super) fn admitted(&self, client: Client, writes: bool, from: u64, to: u64) -> Option<(u64, u64)> {
        let mut window: Option<(u64, u64)> = None;
        for (begin, end, span) in self.between(from, to) {
            if span.is_none_or(|span| span.tables.iter().any(|table| table.admits(client, writes))) {
                window = Some((window.map_or(begin, |(first, _)| first), end));
            }
        }
        window
    }

    /// Whether a client was admitted without doubt, all the time.
    pub(super) fn surely_admitted(&self, client: Client, writes: bool, from: u64, to: u64) -> bool {
        !self.is_undecided
            && self.between(from, to).all(|(_, _, span)| {
                span.is_none_or(|span| span.tables.iter().all(|table| table.admits(client, writes)))
            })
    }

    /// The spans of a time; `None` where nothing was reserved yet.
    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64, Option<&Span>)> {
        let spans = if self.is_undecided {
            &[][..]
        } else {
            &self.spans[..]
        };
        let first = spans.first().map_or(u64::MAX, |span| span.from);
        let empty = (from <= first).then_some((from, to.min(first), None));
        let ends = spans.iter().skip(1).map(|span| span.from).chain([u64::MAX]);
        let rest = spans.iter().zip(ends).filter_map(move |(span, end)| {
            (span.from <= to && from <= end).then_some((from.max(span.from), to.min(end), Some(span)))
        });
        empty.into_iter().chain(rest)
    }
}

impl Sweep<'_> {
    /// The states after one more call has taken effect.
    fn step(&self, config: &Config, call: usize) -> Option<Config> {
        let record = &self.history.records[call];
        let Call::Reserve(reserve) = &record.call else {
            return None;
        };
        let mut table = config.trail.last()?.clone();
        if !table.answers(record.client, reserve, &record.end) {
            return None;
        }
        // Whoever had no answer and changed nothing may as well have done nothing: that halves the states for each of them.
        if !matches!(&record.end, End::Answered(_)) && config.trail.last() == Some(&table) {
            return None;
        }
        let mut next = config.clone();
        next.done.insert(call);
        // A change that changed nothing counts, too: once it has GOOD, the primary judges by no older table.
        if next.trail.last() != Some(&table) || record.end == End::Answered(Outcome::Done) {
            next.trail.push(table);
            next.between.push(call);
        }
        Some(next)
    }

    /// Every state that calls under way may lead to; `None`: too many.
    fn closure(
        &self,
        from: impl IntoIterator<Item = Config>,
        until: Option<usize>,
    ) -> Option<HashSet<Config>> {
        let mut all: HashSet<Config> = HashSet::new();
        let mut open: Vec<Config> = from.into_iter().collect();
        while let Some(config) = open.pop() {
            if all.len() > STATES_MAX {
                return None;
            }
            if !all.insert(config.clone()) || until.is_some_and(|call| config.done.contains(&call)) {
                continue;
            }
            let waiting = self.pending.iter().filter(|call| !config.done.contains(call));
            open.extend(waiting.filter_map(|call| self.step(&config, *call)));
        }
        Some(all)
    }

    /// A call is answered, or its time is over. False: too many states.
    fn end(&mut self, call: usize, is_required: bool) -> bool {
        let configs = std::mem::take(&mut self.configs);
        let Some(all) = self.closure(configs, Some(call)) else {
            return false;
        };
        let is_good = self.history.records[call].end == End::Answered(Outcome::Done);
        for mut config in all {
            let is_done = config.done.remove(&call);
            if !is_done && is_required {
                continue;
            }
            // GOOD: the primary judges by this table or a newer one.
            if is_good && let Some(at) = config.between.iter().position(|other| *other == call) {
                config.trail.drain(..=at);
                config.between.drain(..=at);
            }
            self.configs.insert(config);
        }
        self.pending.retain(|other| *other != call);
        true
    }

    fn tables(&self) -> Option<Vec<Table>> {
        let all = self.closure(self.configs.iter().cloned(), None)?;
        let tables: HashSet<Table> = all.into_iter().flat_map(|config| config.trail).collect();
        Some(tables.into_iter().collect())
    }

    fn violation(&self, call: usize) -> Violation {
        let reason = "no order of the changes of reservations explains this answer".to_owned();
        let calls = (0..=call)
            .rev()
            .filter(|at| matches!(self.history.records[*at].call, Call::Reserve(_)));
        let block = holdfast_types::Lba(0);
        let lines = calls.map(|at| self.history.line(at, block)).collect();
        Violation::new(Kind::Reservation, block, reason, lines)
    }
}

#[cfg(test)]
#[path = "reservation_test.rs"]
mod tests;
