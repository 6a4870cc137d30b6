//! Which commands have a record in the log, by name (F1): so that one that is asked again is answered, never carried out twice.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use holdfast_types::{CommandName, Lsn, Mono};

/// Two clocks disagree about the age of a command by less than this (L2: rates differ by at most 1/1000, ages are a few seconds).
const AGE_MARGIN: Duration = Duration::from_millis(50);

/// A hasher with fixed keys: a run of the core depends on its events only, so that a simulation replays.
pub(crate) type FixedHash = BuildHasherDefault<DefaultHasher>;

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It has this lsn.
    Logged(Lsn),
    /// It has none and must never get one (F2).
    Barred,
    /// It has none.
    Never,
    /// It may have had one: it is older than what is remembered.
    Unknown,
}

/// Names of the records of the log's newer end, and of barred commands. Forgetting is bounded and told: a command that is older than what
/// is remembered is `Unknown`, and its connection is reset rather than the command repeated.
#[derive(Debug)]
pub(crate) struct Names {
    /// By lsn, with the time at which they came.
    order: VecDeque<(CommandName, Lsn, Mono)>,
    index: HashMap<CommandName, Lsn, FixedHash>,
    barred: VecDeque<(CommandName, Mono)>,
    /// Every name that got its record after this time, here or at a primary that this replica followed, is known.
    since: Mono,
    keep_for: Duration,
    max: usize,
}

impl Names {
    pub(crate) fn new(keep_for: Duration, max: usize) -> Self {
        Self {
            order: VecDeque::new(),
            index: HashMap::default(),
            barred: VecDeque::new(),
            since: Mono::ZERO,
            keep_for,
            max,
        }
    }

    /// The core starts: of what is older than now, only what was recovered is known.
    pub(crate) fn begin(&mut self, now: Mono) {
        self.since = now;
        for (_, _, at) in &mut self.order {
            *at = now;
        }
    }

    /// The log starts anew behind a gap: what is known of it goes.
    pub(crate) fn restart(&mut self, now: Mono) {
        self.order.clear();
        self.index.clear();
        self.since = now;
    }

    /// A record of that name is in the log.
    pub(crate) fn logged(&mut self, name: CommandName, lsn: Lsn, now: Mono) {
        while let Some((_, _, at)) = self.order.front() {
            if self.order.len() < self.max && now.since(*at) <= self.keep_for {
                break;
            }
            self.forget_oldest();
        }
        self.order.push_back((name, lsn, now));
        self.index.insert(name, lsn);
    }

    fn forget_oldest(&mut self) {
        if let Some((name, lsn, at)) = self.order.pop_front() {
            self.since = self.since.max(at);
            if self.index.get(&name) == Some(&lsn) {
                self.index.remove(&name);
            }
        }
    }

    /// Records behind `lsn` were dropped from the log.
    pub(crate) fn truncate(&mut self, after: Lsn) {
        while let Some((name, lsn, _)) = self.order.back().copied() {
            if lsn <= after {
                break;
            }
            self.order.pop_back();
            if self.index.get(&name) == Some(&lsn) {
                self.index.remove(&name);
            }
        }
    }

    /// The command never gets an lsn from now on (F2).
    pub(crate) fn bar(&mut self, name: CommandName, now: Mono) {
        while let Some((_, at)) = self.barred.front() {
            if self.barred.len() < self.max && now.since(*at) <= self.keep_for * 4 {
                break;
            }
            self.barred.pop_front();
        }
        self.barred.push_back((name, now));
    }

    pub(crate) fn is_barred(&self, name: &CommandName) -> bool {
        self.barred.iter().any(|(barred, _)| barred == name)
    }

    /// What became of a command that was received at `received` (by this node's clock) and may have been carried out.
    pub(crate) fn look_up(&self, name: &CommandName, received: Mono) -> Known {
        match self.index.get(name) {
            Some(lsn) => Known::Logged(*lsn),
            None if self.is_barred(name) => Known::Barred,
            None if received - AGE_MARGIN > self.since => Known::Never,
            None => Known::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{Incarnation, NodeId, SessionInstance};

    fn name(cmd_sn: u64) -> CommandName {
        CommandName {
            session: SessionInstance {
                node: NodeId(1),
                incarnation: Incarnation(1),
                serial: 1,
            },
            cmd_sn,
        }
    }

    fn at(ms: u64) -> Mono {
        Mono::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn f1_what_is_forgotten_is_unknown_never_unheard_of() {
        let mut names = Names::new(Duration::from_secs(10), 2);
        names.begin(at(1000));
        for sn in 1..=3 {
            names.logged(name(sn), Lsn(sn), at(1000 + sn * 100));
        }
        assert_eq!(
            names.look_up(&name(1), at(1090)),
            Known::Unknown,
            "it was pushed out"
        );
        assert_eq!(names.look_up(&name(2), at(1190)), Known::Logged(Lsn(2)));
        assert_eq!(
            names.look_up(&name(9), at(1140)),
            Known::Unknown,
            "as old as what was pushed out"
        );
        assert_eq!(names.look_up(&name(9), at(1500)), Known::Never);
        names.truncate(Lsn(2));
        assert_eq!(names.look_up(&name(3), at(1500)), Known::Never);
        names.logged(name(4), Lsn(3), at(60_000));
        assert_eq!(
            names.look_up(&name(2), at(1190)),
            Known::Unknown,
            "forgotten by age"
        );
    }

    #[test]
    fn f2_a_barred_name_stays_barred() {
        let mut names = Names::new(Duration::from_secs(10), 10);
        names.begin(at(0));
        names.bar(name(5), at(100));
        assert_eq!(names.look_up(&name(5), at(5000)), Known::Barred);
        assert!(names.is_barred(&name(5)));
    }
}
