//! The tables, over every combination.

use std::collections::BTreeSet;

use super::*;
use crate::core::api::Base;
use holdfast_types::{Epoch, Lsn};

fn pos(epoch: u64, lsn: u64) -> LogPos {
    LogPos::new(Epoch(epoch), Lsn(lsn))
}

fn history(lasts: &[(u64, u64)]) -> EpochHistory {
    EpochHistory::from_lasts(lasts.iter().map(|(e, l)| pos(*e, *l)).collect()).unwrap()
}

fn verdict(in_sync: bool, log: &LogSummary) -> Verdict {
    let history = history(&[(0, 0), (1, 100), (2, 200)]);
    let judge = Judge {
        in_sync,
        version: InSyncVersion(7),
        history: &history,
        before: pos(1, 90),
    };
    decide_rejoin(judge, log).0
}

fn log(lasts: &[(u64, u64)], committed: LogPos) -> LogSummary {
    LogSummary {
        history: history(lasts),
        committed,
        applied: committed,
        unapplied: vec![],
        base: None,
        damaged: false,
        fenced: false,
        stuck: false,
    }
}

#[test]
fn r1_an_unfinished_resync_counts_from_its_base_never_from_the_end_of_its_log() {
    let mut half = log(&[(2, 200)], pos(2, 200));
    let base = |pos, version| {
        Some(Base {
            pos,
            version: InSyncVersion(version),
        })
    };
    half.base = base(pos(1, 50), 6);
    let after = pos(1, 50);
    assert_eq!(verdict(false, &half), Verdict::ChangedSince { after });
    half.base = base(LogPos::EMPTY, 6);
    assert_eq!(verdict(false, &half), Verdict::FullCompare);
    half.base = base(pos(1, 95), 6);
    let tail = Verdict::LogTail {
        after: pos(1, 95),
        restart: true,
    };
    assert_eq!(verdict(false, &half), tail);
    // Taken in by a later version than the mark's: the mark is over.
    assert_eq!(
        verdict(true, &half),
        Verdict::InSyncAlready { after: pos(2, 200) }
    );
    // A mark of the same version contradicts the set: out first.
    half.base = base(pos(1, 95), 7);
    assert_eq!(verdict(true, &half), Verdict::MustLeave);
}

/// Found by simulation: the log reaches back to the first record, and the link breaks while a damaged replica is compared. The ranges
/// that the log touched are not all that may differ then.
#[test]
fn j1_r1_a_damaged_replica_whose_resync_was_broken_off_is_compared_whole_again() {
    let mut half = log(&[(0, 0)], LogPos::EMPTY);
    half.base = Some(Base {
        pos: LogPos::EMPTY,
        version: InSyncVersion(6),
    });
    let history = history(&[(0, 0), (1, 100), (2, 200)]);
    let judge = Judge {
        in_sync: false,
        version: InSyncVersion(7),
        history: &history,
        before: LogPos::EMPTY,
    };
    assert_eq!(decide_rejoin(judge, &half).0, Verdict::FullCompare);
}

#[test]
fn r2_cheapest_way_first() {
    let near = log(&[(1, 105)], pos(1, 95));
    assert_eq!(
        verdict(true, &near),
        Verdict::InSyncAlready { after: pos(1, 100) }
    );
    let tail = Verdict::LogTail {
        after: pos(1, 100),
        restart: false,
    };
    assert_eq!(verdict(false, &near), tail);
    let far = log(&[(1, 80)], pos(1, 80));
    assert_eq!(verdict(true, &far), Verdict::MustLeave);
    let after = pos(1, 80);
    assert_eq!(verdict(false, &far), Verdict::ChangedSince { after });
    // It counts from what its extent holds, not from the end of its log.
    let applied = LogSummary {
        applied: pos(1, 70),
        ..far.clone()
    };
    let after = pos(1, 70);
    assert_eq!(verdict(false, &applied), Verdict::ChangedSince { after });
    let empty = LogSummary {
        applied: LogPos::EMPTY,
        ..far
    };
    assert_eq!(verdict(false, &empty), Verdict::FullCompare);
}

#[test]
fn i7_a_replica_that_knows_committed_what_the_primary_does_not_hold_is_never_trusted() {
    let ahead = log(&[(1, 105)], pos(1, 103));
    assert_eq!(verdict(true, &ahead), Verdict::MustLeave);
    assert_eq!(verdict(false, &ahead), Verdict::FullCompare);
}

#[test]
fn j1_damage_and_j2_fences_leave_the_set() {
    let mut bad = log(&[(2, 200)], pos(2, 200));
    bad.damaged = true;
    assert_eq!(verdict(true, &bad), Verdict::MustLeave);
    assert_eq!(verdict(false, &bad), Verdict::FullCompare);
    bad.fenced = true;
    assert_eq!(verdict(true, &bad), Verdict::MustLeave);
    assert_eq!(verdict(false, &bad), Verdict::Unfit);
}

#[test]
fn r2_every_combination_has_a_verdict_and_every_row_is_used() {
    let disks = [Disk::Fenced, Disk::Stuck, Disk::Damaged, Disk::Sound];
    let reaches = [
        Reach::Log,
        Reach::Base,
        Reach::OldBase,
        Reach::NoBase,
        Reach::OldLog,
        Reach::NoLog,
        Reach::Ahead,
    ];
    let mut used = BTreeSet::new();
    for in_sync in [true, false] {
        for disk in disks {
            for reach in reaches {
                let (name, _, _, _, what) = rejoin_row(in_sync, disk, reach).expect("a row");
                used.insert(*name);
                // What must hold of any verdict, whatever the rows say.
                let counts = *what == What::InSyncAlready;
                assert_eq!(
                    counts,
                    in_sync && disk == Disk::Sound && reach == Reach::Log,
                    "{name}"
                );
                assert_eq!(*what == What::MustLeave, in_sync && !counts, "{name}");
                let since = *what == What::ChangedSince;
                let log = since || matches!(what, What::LogTail | What::LogTailFromBase);
                assert!(
                    !log || disk == Disk::Sound,
                    "{name}: the log of a disk that lost something"
                );
                let base = *what == What::LogTailFromBase;
                assert_eq!(base, log && reach == Reach::Base, "{name}");
                let old = matches!(reach, Reach::OldLog | Reach::OldBase);
                assert_eq!(since, log && old, "{name}");
                let whole = matches!(reach, Reach::NoBase | Reach::NoLog | Reach::Ahead);
                assert!(!log || !whole, "{name}: no position that counts");
            }
        }
    }
    assert_eq!(used.len(), REJOINS.len(), "a row that nothing comes to: {used:?}");
}

#[test]
fn r2_every_summary_comes_to_the_row_that_it_means() {
    let mut seen = BTreeSet::new();
    let ends: [&[(u64, u64)]; 4] = [&[(2, 200)], &[(1, 105)], &[(1, 80)], &[(7, 9)]];
    for (bits, lasts) in (0..16).flat_map(|bits| ends.map(|ends| (bits, ends))) {
        let bases = [pos(1, 95), pos(1, 50), pos(3, 95), LogPos::EMPTY];
        for base in [None].into_iter().chain(bases.map(Some)) {
            for (committed, applied) in [
                (pos(1, 80), pos(1, 80)),
                (pos(1, 103), pos(1, 80)),
                (LogPos::EMPTY, LogPos::EMPTY),
            ] {
                let mut told = log(lasts, committed);
                told.applied = applied;
                (told.fenced, told.stuck, told.damaged) = (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
                told.base = base.map(|pos| Base {
                    pos,
                    version: InSyncVersion(7),
                });
                let history = history(&[(0, 0), (1, 100), (2, 200)]);
                let judge = Judge {
                    in_sync: bits & 8 > 0,
                    version: InSyncVersion(7),
                    history: &history,
                    before: pos(1, 90),
                };
                seen.insert(decide_rejoin(judge, &told).1);
            }
        }
    }
    assert_eq!(seen.len(), REJOINS.len(), "{seen:?}");
}

#[test]
fn e1_every_standing_has_a_row_and_every_row_is_used() {
    let owns = [Own::Failed, Own::Damaged, Own::Unfinished, Own::Whole];
    let names = [
        Named::NotThis,
        Named::EarlierRun,
        Named::Serving,
        Named::Left,
        Named::ThisRun,
    ];
    let mut used = BTreeSet::new();
    for (own, named) in owns.into_iter().flat_map(|own| names.map(|named| (own, named))) {
        for (replica, behind) in [(true, true), (true, false), (false, true), (false, false)] {
            let standing = Standing {
                own,
                replica,
                behind,
                named,
            };
            let row = standing_row(standing).expect("a row");
            used.insert(row.0);
            assert_eq!(row.5 == Stands::Fenced, own == Own::Failed, "{}", row.0);
            if row.5 == Stands::Primary {
                assert!(replica && !behind, "{}", row.0);
                let anew = named == Named::ThisRun && own == Own::Whole;
                assert!(anew || named == Named::Serving, "{}", row.0);
            }
        }
    }
    assert_eq!(
        used.len(),
        STANDINGS.len(),
        "a row that nothing comes to: {used:?}"
    );
}
