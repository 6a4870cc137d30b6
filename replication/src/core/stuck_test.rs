//! Disks that hang, and reads that they do not answer (I10).

use super::*;

/// Ticks, as the driver does, and what came of it.
fn pass(rig: &mut Rig, ms: u64) -> Vec<Command> {
    (0..ms / 50).flat_map(|_| rig.later(50)).collect()
}

fn read_io(out: &[Command]) -> IoToken {
    out.iter()
        .find_map(|command| match command {
            Command::Read { io, .. } => Some(*io),
            _ => None,
        })
        .expect("a read")
}

fn stuck_log(end: LogPos, stuck: bool) -> LogSummary {
    LogSummary {
        stuck,
        ..summary(EpochHistory::from_lasts(vec![pos(0, 0), end]).unwrap(), pos(1, 1))
    }
}

#[test]
fn i10_a_replica_that_stores_nothing_leaves_the_set_by_commit() {
    let mut rig = Rig::serving();
    rig.submit(1, write(4, 1));
    rig.on(Event::Appended { seq: JournalSeq(2) });
    assert_eq!(propose(&pass(&mut rig, 4500)), None);
    assert_eq!(propose(&pass(&mut rig, 1600)), Some(Change::Shrink { node: B }));
    rig.set_view(|view| {
        view.in_sync = vec![A];
        view.version = InSyncVersion(2);
    });
    assert_eq!(
        rig.core.status().committed,
        Lsn(2),
        "without it the write is done"
    );
    // It is asked for its log, and says that it is stuck: it is sent nothing, and asked again after a while.
    let epoch = Epoch(1);
    let log = stuck_log(pos(1, 1), true);
    rig.hear(B, Message::Summary { epoch, log });
    assert!(rig.core.status().replicas[0].stuck);
    assert_eq!(pass(&mut rig, 900), []);
    assert_eq!(pass(&mut rig, 200), [send(B, Message::Probe { epoch })]);
    // It moves again, and comes back by itself.
    let log = stuck_log(pos(1, 1), false);
    let out = rig.hear(B, Message::Summary { epoch, log });
    assert!(
        out.iter().any(|command| matches!(
            command,
            Command::Send {
                message: Message::Adopt { .. },
                ..
            }
        )),
        "{out:?}"
    );
}

#[test]
fn i10_slow_is_not_dead() {
    let mut rig = Rig::serving();
    for op in 1..20 {
        rig.submit(op, write(op, 1));
    }
    for lsn in 2..=20 {
        assert_eq!(propose(&pass(&mut rig, 3000)), None);
        rig.hear(B, ack(1, lsn));
        for command in rig.on(Event::Appended { seq: JournalSeq(lsn) }) {
            if let Command::Apply { io, .. } = command {
                rig.on(Event::Applied { io });
            }
        }
    }
    assert_eq!(rig.core.status().role, RoleName::Primary);
    assert_eq!(rig.core.status().stuck, None);
}

#[test]
fn i10_a_pause_of_this_process_is_nobody_elses_fault() {
    let mut rig = Rig::serving();
    rig.submit(1, write(4, 1));
    pass(&mut rig, 1000);
    assert_eq!(propose(&rig.later(60_000)), None);
    assert_eq!(rig.core.status().stuck, None);
    rig.on(Event::Appended { seq: JournalSeq(2) });
    rig.hear(B, ack(1, 2));
    assert_eq!(rig.core.status().committed, Lsn(2));
}

#[test]
fn i10_a_primary_whose_journal_is_stuck_closes_and_hands_over() {
    let mut rig = Rig::serving();
    rig.submit(1, write(4, 1));
    rig.hear(B, ack(1, 2));
    assert_eq!(propose(&pass(&mut rig, 4500)), None);
    let to = identity(B);
    assert_eq!(propose(&pass(&mut rig, 1600)), Some(Change::Switchover { to }));
    assert_eq!(rig.core.status().role, RoleName::HandedBack);
    // Closed: no read, no lsn.
    assert_eq!(rig.submit(2, BlockOp::Read { range: range(0, 1) }), []);
    assert_eq!(rig.submit(3, write(5, 1)), []);
    // The next primary asks: it hears that this replica is stuck.
    let epoch = Epoch(2);
    rig.set_view(|view| {
        view.epoch = epoch;
        view.version = InSyncVersion(2);
        view.primary = Some(to);
    });
    let out = rig.hear(B, Message::Probe { epoch });
    let told = out.iter().any(
        |command| matches!(command, Command::Send { message: Message::Summary { log, .. }, .. } if log.stuck),
    );
    assert!(told, "{out:?}");
    // What its journal takes at last commits nothing.
    let out = rig.on(Event::Appended { seq: JournalSeq(2) });
    assert!(
        !out.iter()
            .any(|c| matches!(c, Command::Complete { .. } | Command::Apply { .. })),
        "{out:?}"
    );
}

#[test]
fn i10_a_primary_whose_extent_is_stuck_hands_over() {
    let mut rig = Rig::serving();
    rig.submit(1, write(4, 1));
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let out = rig.hear(B, ack(1, 2));
    assert!(
        out.iter().any(|command| matches!(command, Command::Apply { .. })),
        "{out:?}"
    );
    let to = identity(B);
    assert_eq!(propose(&pass(&mut rig, 6000)), Some(Change::Switchover { to }));
}

#[test]
fn i10_a_stuck_primary_that_nobody_can_replace_waits() {
    let mut rig = Rig::serving();
    rig.set_view(|view| {
        view.in_sync = vec![A];
        view.version = InSyncVersion(2);
    });
    rig.submit(1, write(4, 1));
    assert_eq!(propose(&pass(&mut rig, 10_000)), None);
    assert_eq!(rig.core.status().stuck, Some(StuckPart::Journal));
    let out = rig.on(Event::Appended { seq: JournalSeq(2) });
    let [Command::Apply { io, .. }, done] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(*done, complete(1, OpOutcome::Done));
    let io = *io;
    assert_eq!(rig.on(Event::Applied { io }), []);
    pass(&mut rig, 1000);
    assert_eq!(rig.core.status().stuck, None);
    assert_eq!(rig.core.status().role, RoleName::Primary);
}

#[test]
fn i10_a_stuck_member_is_no_successor() {
    let mut rig = Rig::serving();
    rig.submit(1, write(4, 1));
    let out = pass(&mut rig, 12_000);
    assert!(
        !out.iter()
            .any(|c| matches!(c, Command::Propose(p) if matches!(p.change, Change::Switchover { .. }))),
        "{out:?}"
    );
}

#[test]
fn i10_a_stuck_replica_tells_its_primary() {
    let mut rig = Rig::following();
    let out = pass(&mut rig, 7000);
    let told = |command: &Command| matches!(command, Command::Send { to: A, message: Message::Summary { log, .. }, .. } if log.stuck);
    assert_eq!(out.iter().filter(|command| told(command)).count(), 1, "{out:?}");
    let mut rig = Rig::serving();
    let log = stuck_log(pos(1, 1), true);
    let out = rig.hear(B, Message::Summary { epoch: Epoch(1), log });
    assert_eq!(propose(&out), Some(Change::Shrink { node: B }));
}

#[test]
fn i10_a_read_that_hangs_is_answered_by_a_replica() {
    let mut rig = Rig::serving();
    let io = read_io(&rig.submit(1, BlockOp::Read { range: range(3, 1) }));
    let out = pass(&mut rig, 1100);
    let fetch = Message::Fetch {
        epoch: Epoch(1),
        id: io.0,
        range: range(3, 1),
        at: Lsn(1),
    };
    assert_eq!(out, [send(B, fetch)]);
    // Of another length than asked for: not taken.
    let fetched = |bytes: Bytes| Message::Fetched {
        epoch: Epoch(1),
        id: io.0,
        data: Some(bytes),
    };
    assert_eq!(rig.hear(B, fetched(Bytes::from_static(b"short"))), []);
    assert_eq!(pass(&mut rig, 1100).len(), 1, "asked once more");
    assert_eq!(
        rig.hear(B, fetched(data(9))),
        [complete(1, OpOutcome::Data(data(9)))]
    );
    // What is written there waits in the log until the disk has given the read up: its answer comes late, to nobody.
    rig.submit(2, write(3, 5));
    rig.on(Event::Appended { seq: JournalSeq(2) });
    assert_eq!(rig.hear(B, ack(1, 2)), [complete(2, OpOutcome::Done)]);
    let out = rig.on(Event::ReadDone { io, data: data(0) });
    assert!(matches!(&out[..], [Command::Apply { .. }]), "{out:?}");
}

#[test]
fn i10_w3_a_replicas_answer_is_judged_under_the_lease() {
    let mut rig = Rig::serving();
    let io = read_io(&rig.submit(1, BlockOp::Read { range: range(3, 1) }));
    pass(&mut rig, 1100);
    rig.ctx.lease_until = None;
    let data = Some(data(9));
    let fetched = Message::Fetched {
        epoch: Epoch(1),
        id: io.0,
        data,
    };
    assert_eq!(rig.hear(B, fetched), [], "held");
}

#[test]
fn i10_a_replica_gives_contents_only_once_enough_is_applied() {
    let mut rig = Rig::following();
    let fetch = Message::Fetch {
        epoch: Epoch(1),
        id: 5,
        range: range(2, 1),
        at: Lsn(2),
    };
    assert_eq!(rig.hear(A, fetch), []);
    let out = rig.hear(
        A,
        Message::Commit {
            epoch: Epoch(1),
            commit: Lsn(2),
        },
    );
    let applied: Vec<Command> = out
        .iter()
        .filter_map(|command| match command {
            Command::Apply { io, .. } => Some(*io),
            _ => None,
        })
        .flat_map(|io| rig.on(Event::Applied { io }))
        .collect();
    assert!(
        !applied.iter().any(|c| matches!(c, Command::Read { .. })),
        "(1,1) is not applied"
    );
    let first = IoToken(1);
    let out = rig.on(Event::Applied { io: first });
    let io = read_io(&out);
    let data = data(7);
    let fetched = Message::Fetched {
        epoch: Epoch(1),
        id: 5,
        data: Some(data.clone()),
    };
    assert_eq!(rig.on(Event::ReadDone { io, data }), [send(A, fetched)]);
}
