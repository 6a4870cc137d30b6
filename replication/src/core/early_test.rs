//! Write-back (W5), step by step: what is answered early, what waits, and who has to leave.

use holdfast_types::UnitVersion;

use super::*;
use crate::core::api::Cache;
use crate::fault::{self, Fault};

fn cache(on: bool) -> Cache {
    Cache {
        since: on.then_some(UnitVersion(0)),
        runs: vec![identity(A), identity(B)],
    }
}

/// `a`, serving with write-back, `b` following.
fn cached() -> Rig {
    let mut rig = Rig::serving();
    rig.set_view(|view| view.cache = cache(true));
    rig
}

fn received(durable: u64, received: u64) -> Message {
    Message::Ack {
        epoch: Epoch(1),
        durable: Lsn(durable),
        applied: Lsn(0),
        received: Lsn(received),
    }
}

fn answers(out: &[Command]) -> Vec<u64> {
    let of = |command: &Command| match command {
        Command::Complete {
            op,
            outcome: OpOutcome::Done,
        } => Some(op.0),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

fn applies(out: &[Command]) -> bool {
    out.iter().any(|command| matches!(command, Command::Apply { .. }))
}

#[test]
fn w5_a_write_is_answered_once_the_replica_has_received_it_and_applied_once_it_is_stable() {
    let mut rig = cached();
    assert_eq!(answers(&rig.submit(1, write(4, 1))), [] as [u64; 0]);
    let out = rig.hear(B, received(1, 2));
    assert_eq!(answers(&out), [1]);
    assert!(!applies(&out), "no journal has it yet");
    // A read does not miss it.
    let out = rig.submit(2, BlockOp::Read { range: range(4, 1) });
    assert!(out.is_empty(), "{out:?}");
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let out = rig.hear(B, received(2, 2));
    assert!(applies(&out));
    assert_eq!(answers(&out), [] as [u64; 0], "one answer for each command");
}

#[test]
fn w5_what_asks_to_be_stable_and_a_flush_wait_for_the_commit() {
    let mut rig = cached();
    let fua = BlockOp::Write {
        range: range(5, 1),
        data: data(2),
        fua: true,
    };
    rig.submit(1, write(4, 1));
    rig.submit(2, fua);
    assert_eq!(answers(&rig.hear(B, received(1, 3))), [1]);
    assert_eq!(answers(&rig.submit(3, BlockOp::Flush)), [] as [u64; 0]);
    rig.on(Event::Appended { seq: JournalSeq(3) });
    assert_eq!(answers(&rig.hear(B, received(2, 3))), [] as [u64; 0]);
    assert_eq!(answers(&rig.hear(B, received(3, 3))), [2, 3]);
}

#[test]
fn w5_a_flush_is_answered_under_the_lease_alone() {
    let mut rig = cached();
    let lease = rig.ctx.lease_until.take();
    assert_eq!(
        answers(&rig.submit(1, BlockOp::Flush)),
        [] as [u64; 0],
        "a successor may have answered what is not known here"
    );
    rig.ctx.lease_until = lease;
    assert_eq!(answers(&rig.on(Event::Tick)), [1]);
}

#[test]
fn w5_a_flush_that_does_not_wait_is_noticed() {
    let mut rig = cached();
    rig.submit(1, write(4, 1));
    rig.hear(B, received(1, 2));
    let out = fault::with(Some(Fault::FlushWithoutWaiting), || rig.submit(2, BlockOp::Flush));
    assert_eq!(answers(&out), [2], "nobody has stored what was answered");
}

#[test]
fn w5_a_command_that_was_admitted_before_the_switch_is_stable_when_it_is_answered() {
    let mut rig = Rig::serving();
    rig.set_view(|view| {
        view.cache = Cache {
            since: Some(UnitVersion(3)),
            ..cache(true)
        };
    });
    rig.submit(1, write(4, 1));
    assert_eq!(
        answers(&rig.hear(B, received(1, 2))),
        [] as [u64; 0],
        "its initiator was told WCE=0"
    );
    rig.origin.admitted = UnitVersion(3);
    rig.submit(2, write(5, 1));
    assert_eq!(answers(&rig.hear(B, received(1, 3))), [2]);
}

#[test]
fn w5_a_member_in_another_run_counts_by_its_disk_and_has_to_leave() {
    let mut rig = cached();
    let peer = Identity {
        incarnation: Incarnation(2),
        ..identity(B)
    };
    let out = rig.on(Event::PeerUp {
        peer,
        link: LinkId(2),
    });
    assert_eq!(propose(&out), Some(Change::Shrink { node: B }));
    rig.submit(1, write(4, 1));
    let log = summary(
        EpochHistory::from_lasts(vec![pos(0, 0), pos(1, 1)]).unwrap(),
        pos(1, 1),
    );
    let message = Message::Summary { epoch: Epoch(1), log };
    let (from, link) = (B, LinkId(2));
    let out = rig.on(Event::Message { from, link, message });
    assert_eq!(answers(&out), [] as [u64; 0]);
    // Alone in its set, what it has itself is all there is to wait for.
    let out = rig.set_view(|view| {
        view.in_sync = vec![A];
        view.version = InSyncVersion(2);
        view.cache.runs = vec![identity(A)];
    });
    assert_eq!(answers(&out), [1]);
}

#[test]
fn w5_with_a_member_that_was_not_noted_only_what_is_stable_everywhere_is_answered_and_it_leaves() {
    let mut rig = Rig::serving();
    // b had not announced this run of it when write-back was switched on.
    let out = rig.set_view(|view| {
        view.cache = cache(true);
        view.cache.runs.pop();
    });
    assert_eq!(propose(&out), Some(Change::Shrink { node: B }));
    rig.submit(1, write(4, 1));
    let out = rig.hear(B, received(2, 2));
    assert_eq!(answers(&out), [] as [u64; 0], "here it is in memory alone");
    rig.on(Event::Appended { seq: JournalSeq(2) });
}

#[test]
fn w5_once_it_is_off_nothing_is_answered_early_and_the_primary_says_when_all_is_stable() {
    let mut rig = cached();
    rig.submit(1, write(4, 1));
    assert_eq!(answers(&rig.hear(B, received(1, 2))), [1]);
    let out = rig.set_view(|view| view.cache = cache(false));
    assert_eq!(propose(&out), None, "what was answered is not stable yet");
    rig.submit(2, write(5, 1));
    assert_eq!(answers(&rig.hear(B, received(1, 3))), [] as [u64; 0]);
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let out = rig.hear(B, received(2, 3));
    assert_eq!(propose(&out), Some(Change::CacheSettled));
}

#[test]
fn w5_a_replica_tells_at_once_what_it_received() {
    let mut rig = Rig::following();
    rig.set_view(|view| view.cache = cache(true));
    let out = rig.hear(A, replicate(1, pos(1, 3), record(1, 4, 1, 7)));
    let told = out.iter().any(|command| {
        matches!(
            command,
            Command::Send {
                message: Message::Ack {
                    durable: Lsn(0),
                    received: Lsn(4),
                    ..
                },
                ..
            }
        )
    });
    assert!(told, "{out:?}");
}
