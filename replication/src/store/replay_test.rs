//! Recovery from what is left of a journal equals recovery from all of it.

use holdfast_types::InSyncVersion;
use proptest::prelude::*;

use super::*;
use crate::core::api::RecordBody;

/// What a node's core would say, from the log alone.
impl ExtentLog<()> {
    fn base(&self) -> Option<Base> {
        self.base
    }

    fn seen(&self) -> Epoch {
        self.seen
    }

    /// Records behind the checkpoint, oldest first.
    fn tail(&self) -> impl ExactSizeIterator<Item = &Place<()>> {
        self.tail.iter()
    }

    /// What a checkpoint at `applied` says. `applied` is at or behind the present one.
    fn checkpoint(&self, applied: LogPos, commit: Lsn, seen: Epoch, end: LogPos) -> Checkpoint {
        Checkpoint {
            applied,
            end,
            commit: self.commit.max(commit),
            seen: self.seen.max(seen),
            base: self.base,
            history: self.history.up_to(applied.lsn),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append { new_epoch: bool },
    Truncate(u64),
    Checkpoint(u64),
    CopyForward,
    Restart(u64),
    ClearBase,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => any::<bool>().prop_map(|b| Step::Append { new_epoch: b }),
        1 => (0u64..5).prop_map(Step::Truncate),
        2 => (0u64..5).prop_map(Step::Checkpoint),
        1 => Just(Step::CopyForward),
        1 => (1u64..4).prop_map(Step::Restart),
        1 => Just(Step::ClearBase),
    ];
    proptest::collection::vec(step, 1..60)
}

fn record(pos: LogPos) -> Record {
    Record {
        pos,
        commit: Lsn(pos.lsn.0.saturating_sub(1)),
        name: None,
        body: RecordBody::EpochStart,
    }
}

/// A journal as it would be written, and the live index beside it.
struct Written {
    entries: Vec<Entry>,
    live: ExtentLog<()>,
    epoch: Epoch,
}

impl Written {
    fn new() -> Self {
        let mut written = Self {
            entries: Vec::new(),
            live: ExtentLog::new(),
            epoch: Epoch(1),
        };
        written.checkpoint(LogPos::EMPTY);
        written
    }

    fn put(&mut self, entry: Entry) -> Position {
        self.entries.push(entry);
        Position::new(self.entries.len() as u64)
    }

    fn append(&mut self, pos: LogPos) {
        let at = self.put(Entry::Record(record(pos)));
        self.live.record(at, pos, Lsn(pos.lsn.0 - 1), ()).unwrap();
    }

    fn checkpoint(&mut self, applied: LogPos) {
        let checkpoint = self
            .live
            .checkpoint(applied, applied.lsn, Epoch(0), self.live.end());
        let at = self.put(Entry::Checkpoint(checkpoint.clone()));
        self.live.checkpointed(at, &checkpoint);
    }

    fn step(&mut self, step: &Step) {
        let (applied, end) = (self.live.applied(), self.live.end());
        match *step {
            Step::Append { new_epoch } => {
                self.epoch = Epoch(self.epoch.0 + u64::from(new_epoch));
                self.append(LogPos::new(self.epoch, end.lsn.next()));
            }
            Step::Truncate(back) => {
                let lsn = Lsn(end.lsn.0.saturating_sub(back).max(applied.lsn.0));
                let after = self.live.pos_at(lsn).unwrap();
                self.put(Entry::Truncate { after });
                self.live.truncate(after).unwrap();
            }
            Step::Checkpoint(back) => {
                let lsn = Lsn(end.lsn.0.saturating_sub(back).max(applied.lsn.0));
                self.checkpoint(self.live.pos_at(lsn).unwrap());
            }
            Step::CopyForward => {
                self.checkpoint(applied);
                let tail: Vec<LogPos> = self.live.tail().map(|place| place.pos).collect();
                tail.into_iter().for_each(|pos| self.append(pos));
            }
            Step::Restart(skip) => {
                self.epoch = self.epoch.next();
                let from = LogPos::new(self.epoch, Lsn(end.lsn.0 + skip));
                let base = Base {
                    pos: applied,
                    version: InSyncVersion(skip),
                };
                let history = EpochHistory::from_lasts(vec![from]).unwrap();
                let at = self.put(Entry::Restart {
                    base,
                    from,
                    history: history.clone(),
                });
                self.live.restart(at, base, from, history);
            }
            Step::ClearBase => {
                self.put(Entry::ClearBase);
                self.live.clear_base();
            }
        }
    }

    fn recover(&self, from: usize) -> (Recovered, ExtentLog<()>, Result<(), Inconsistent>) {
        let mut log = ExtentLog::new();
        for (index, entry) in self.entries.iter().enumerate().skip(from) {
            log.replay(Position::new(index as u64 + 1), entry.clone())
                .unwrap();
        }
        log.finish()
    }
}

proptest! {
    /// J3: what lies before `needed_from` can go, and recovery is the same; and the live index knows what a replayed one knows.
    #[test]
    fn j3_what_was_released_is_not_missed(steps in steps(), released in any::<prop::sample::Index>()) {
        let mut written = Written::new();
        steps.iter().for_each(|step| written.step(step));
        let (all, index, verdict) = written.recover(0);
        prop_assert_eq!(verdict, Ok(()));
        prop_assert!(!all.damaged);
        let live = &written.live;
        prop_assert_eq!((index.end(), index.applied(), index.base(), index.seen()), (live.end(), live.applied(), live.base(), live.seen()));
        prop_assert_eq!(index.needed_from(), live.needed_from());
        prop_assert_eq!(&index.history, &live.history);
        prop_assert_eq!(all.tail.last().map_or(all.applied, |record| record.pos), live.end());
        prop_assert_eq!(all.history.end(), all.applied);

        let needed = usize::try_from(live.needed_from().unwrap().get()).unwrap() - 1;
        let (some, _, verdict) = written.recover(released.index(needed + 1));
        prop_assert_eq!(verdict, Ok(()));
        prop_assert_eq!(some.applied, all.applied);
        prop_assert_eq!(some.tail, all.tail);
        prop_assert_eq!(some.history, all.history);
        prop_assert_eq!(some.base, all.base);
        prop_assert_eq!(some.commit, all.commit);
    }

    /// J1: a journal that lost its end, or its beginning, is seen as damaged or holds every record that was noted as stable.
    #[test]
    fn j1_lost_entries_are_damage_or_harmless(steps in steps(), lost in any::<prop::sample::Index>()) {
        let mut written = Written::new();
        steps.iter().for_each(|step| written.step(step));
        let lost = lost.index(written.entries.len());
        let mut log = ExtentLog::new();
        let mut skipped = false;
        for (index, entry) in written.entries.iter().enumerate().filter(|(index, _)| *index != lost) {
            skipped |= log.replay(Position::new(index as u64 + 1), entry.clone()).is_err();
        }
        let (recovered, _, verdict) = log.finish();
        prop_assert_eq!(verdict.is_err(), recovered.damaged);
        if let Entry::Record(_) = &written.entries[lost] && !skipped && verdict.is_ok() {
            // The loss does not show: then the record was dropped, applied, copied, or the last before the end.
            let (all, _, _) = written.recover(0);
            let (have, want) = (recovered.tail.len(), all.tail.len());
            prop_assert!(have == want || have + 1 == want, "{} of {}", have, want);
        }
    }
}

fn at(address: u64) -> Position {
    Position::new(address)
}

fn pos(epoch: u64, lsn: u64) -> LogPos {
    LogPos::new(Epoch(epoch), Lsn(lsn))
}

#[test]
fn j1_a_log_that_ends_before_what_was_stable_is_damaged() {
    let mut log: ExtentLog<Record> = ExtentLog::new();
    let checkpoint = Checkpoint {
        applied: pos(1, 5),
        end: pos(1, 7),
        ..Checkpoint::default()
    };
    log.replay(at(1), Entry::Checkpoint(checkpoint)).unwrap();
    log.replay(at(2), Entry::Record(record(pos(1, 6)))).unwrap();
    let (recovered, _, verdict) = log.finish();
    let lost = Inconsistent::Lost {
        end: pos(1, 6),
        stable: pos(1, 7),
    };
    assert_eq!(verdict, Err(lost));
    assert!(recovered.damaged);
}

#[test]
fn j1_an_extent_without_any_entry_is_damaged() {
    let (recovered, _, verdict) = ExtentLog::new().finish();
    assert_eq!(verdict, Err(Inconsistent::NoCheckpoint));
    assert!(recovered.damaged);
}

#[test]
fn i7_a_cut_below_what_is_applied_is_refused() {
    let mut log: ExtentLog<Record> = ExtentLog::new();
    let checkpoint = Checkpoint {
        applied: pos(1, 5),
        end: pos(1, 5),
        ..Checkpoint::default()
    };
    log.replay(at(1), Entry::Checkpoint(checkpoint)).unwrap();
    assert!(log.replay(at(2), Entry::Truncate { after: pos(1, 4) }).is_err());
    assert!(log.replay(at(3), Entry::Record(record(pos(1, 7)))).is_err());
    assert!(log.replay(at(4), Entry::Record(record(pos(0, 6)))).is_err());
    assert_eq!(log.end(), pos(1, 5));
}
