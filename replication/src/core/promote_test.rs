//! A new primary and the suspect that it follows upon, step by step (L3).

use super::*;

/// `b`, which the cluster gave the extent because `a` is suspect.
fn promoted(linked: bool) -> Rig {
    let mut rig = Rig::new(B, Recovered::default());
    if linked {
        rig.link(A);
    }
    rig.set_view(|_| ());
    let out = rig.set_view(|view| {
        view.nodes[0].suspect = true;
        view.epoch = Epoch(2);
        view.primary = Some(identity(B));
    });
    assert_eq!(propose(&out), None, "its journal has shown nothing yet: {out:?}");
    assert_eq!(propose(&rig.later(3000)), None, "however long that takes");
    rig
}

#[test]
fn l3_a_suspect_is_taken_out_once_the_journal_has_stored_the_epochs_first_record() {
    for linked in [false, true] {
        let mut rig = promoted(linked);
        assert_eq!(rig.core.status().role, RoleName::Settling);
        let out = rig.on(Event::Appended { seq: JournalSeq(1) });
        let out = [out, rig.later(10)].concat();
        assert_eq!(propose(&out), Some(Change::Shrink { node: A }), "{out:?}");
        rig.set_view(|view| {
            view.version = InSyncVersion(2);
            view.in_sync = vec![B];
        });
        rig.later(10);
        assert_eq!(rig.core.status().role, RoleName::Primary);
    }
}

#[test]
fn l3_a_suspect_that_answers_stays_a_member() {
    let mut rig = promoted(true);
    let log = summary(EpochHistory::empty(), LogPos::EMPTY);
    rig.hear(A, Message::Summary { epoch: Epoch(2), log });
    let out = rig.on(Event::Appended { seq: JournalSeq(1) });
    let out = [out, rig.later(10)].concat();
    assert_eq!(propose(&out), None, "{out:?}");
    rig.hear(A, ack(2, 1));
    rig.later(10);
    assert_eq!(rig.core.status().role, RoleName::Primary);
}

#[test]
fn l3_j2_a_promoted_replica_whose_disk_fails_takes_nobody_out() {
    let mut rig = promoted(false);
    let reason = FenceReason::Journal;
    let out = rig.on(Event::Failed { reason });
    assert_eq!(propose(&out), Some(Change::HandOver));
    assert!(!rig.core.is_fit());
    assert_eq!(propose(&rig.later(3000)), Some(Change::HandOver));
}

/// I5: that a set names this replica as whole says nothing of its disk. What was to go may be all that is left.
#[test]
fn i5_replicas_go_once_the_primary_has_shown_in_its_present_run_that_it_serves() {
    let mut rig = promoted(true);
    let out = rig.set_view(|view| {
        view.nodes[0].suspect = false;
        view.retiring.nodes = vec![A];
        view.retiring.may_go = true;
    });
    assert_eq!(propose(&out), None, "{out:?}");
    let log = summary(EpochHistory::empty(), LogPos::EMPTY);
    rig.hear(A, Message::Summary { epoch: Epoch(2), log });
    assert_eq!(
        propose(&rig.hear(A, ack(2, 1))),
        None,
        "its own journal is silent"
    );
    let out = rig.on(Event::Appended { seq: JournalSeq(1) });
    let out = [out, rig.later(10)].concat();
    assert_eq!(propose(&out), Some(Change::Retire), "{out:?}");
    assert_eq!(rig.core.status().role, RoleName::Primary);
    let out = rig.set_view(|view| view.retiring.may_go = false);
    assert_eq!(propose(&out), None);
    assert_eq!(propose(&rig.later(3000)), None);
}

#[test]
fn i5_j2_a_primary_whose_disk_fails_lets_nobody_go() {
    let mut rig = promoted(true);
    rig.set_view(|view| view.retiring.may_go = true);
    let reason = FenceReason::Journal;
    let out = rig.on(Event::Failed { reason });
    assert_eq!(propose(&out), Some(Change::HandOver));
    assert_eq!(propose(&rig.later(3000)), Some(Change::HandOver));
}
