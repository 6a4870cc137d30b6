//! Bad blocks: what a read that fails leads to.

use super::*;

#[path = "scrub_test.rs"]
mod scrub_test;

fn read(lba: u64, blocks: u64) -> BlockOp {
    BlockOp::Read {
        range: range(lba, blocks),
    }
}

/// The token of the read that is asked for.
fn reading(out: &[Command]) -> IoToken {
    let io = out.iter().find_map(|command| match command {
        Command::Read { io, .. } => Some(*io),
        _ => None,
    });
    io.unwrap_or_else(|| panic!("no read in {out:?}"))
}

/// Number, range and position of the read that `b` is asked for.
fn asked(out: &[Command]) -> (u64, BlockRange, Lsn) {
    let wanted = out.iter().find_map(|command| match command {
        Command::Send {
            to: B,
            message: Message::Fetch { id, range, at, .. },
            ..
        } => Some((*id, *range, *at)),
        _ => None,
    });
    wanted.unwrap_or_else(|| panic!("b is not asked: {out:?}"))
}

fn reply(id: u64, data: Option<Bytes>) -> Message {
    let epoch = Epoch(1);
    Message::Fetched { epoch, id, data }
}

fn repair_record(lba: u64, data: Option<Bytes>) -> Record {
    Record {
        pos: pos(1, 2),
        commit: Lsn(1),
        name: None,
        body: RecordBody::Resync {
            ranges: Arc::from([range(lba, 1)]),
            data,
        },
    }
}

/// `a` serves, and a read of blocks 4 and 5 has found block 5 bad.
fn found_bad() -> (Rig, Vec<Command>) {
    let mut rig = Rig::serving();
    let io = reading(&rig.submit(1, read(4, 2)));
    let bad = range(5, 1);
    let out = rig.on(Event::ReadFailed { io, bad });
    (rig, out)
}

fn apply_token(out: &[Command]) -> IoToken {
    let io = out.iter().find_map(|command| match command {
        Command::Apply { io, .. } => Some(*io),
        _ => None,
    });
    io.unwrap_or_else(|| panic!("nothing is applied in {out:?}"))
}

#[test]
fn i10_a_bad_block_is_answered_from_a_replica_and_repaired_by_a_record_of_its_own() {
    let (mut rig, out) = found_bad();
    let (id, wanted, at) = asked(&out);
    assert_eq!((wanted, at), (range(5, 1), Lsn(1)));
    let out = rig.hear(B, reply(id, Some(data(7))));
    let seq = JournalSeq(2);
    let own = repair_record(5, Some(data(7)));
    assert!(
        out.contains(&Command::Append {
            seq,
            record: own.clone()
        }),
        "the contents are logged here: {out:?}"
    );
    let marker = replicate(1, pos(1, 1), repair_record(5, None));
    assert!(out.contains(&send(B, marker)), "b has them: {out:?}");
    rig.on(Event::Appended { seq });
    let out = rig.hear(B, ack(1, 2));
    let io = apply_token(&out);
    assert!(out.contains(&Command::Apply { io, record: own }));
    // The read is tried again, and answered with what is here now.
    let io = reading(&rig.on(Event::Applied { io }));
    let both = Bytes::from([[3; 512], [7; 512]].concat());
    let out = rig.on(Event::ReadDone {
        io,
        data: both.clone(),
    });
    assert_eq!(out, [complete(1, OpOutcome::Data(both))]);
    let checks = rig.core.status().checks;
    assert_eq!((checks.found, checks.repaired, checks.lost), (1, 1, 0));
}

#[test]
fn i10_a_write_to_a_block_under_repair_comes_after_it() {
    let (mut rig, out) = found_bad();
    let (id, ..) = asked(&out);
    assert_eq!(rig.submit(2, write(5, 9)), [], "it waits for the range");
    let out = rig.submit(3, write(6, 9));
    assert!(matches!(out[0], Command::Append { .. }), "others do not: {out:?}");
    let out = rig.hear(B, reply(id, Some(data(7))));
    let order: Vec<u64> = out
        .iter()
        .filter_map(|command| match command {
            Command::Append { record, .. } => Some(record.pos.lsn.0),
            _ => None,
        })
        .collect();
    assert_eq!(order, [3, 4], "the repair, then the write");
}

#[test]
fn i10_what_no_replica_has_is_unreadable_and_says_which_block() {
    let mut rig = Rig::serving();
    let io = reading(&rig.submit(1, read(4, 4)));
    let bad = range(4, 4);
    let mut out = rig.on(Event::ReadFailed { io, bad });
    // Of four blocks, asked for together, one may be bad: halves are asked for.
    for want in [range(4, 4), range(4, 2), range(4, 1)] {
        let (id, wanted, _) = asked(&out);
        assert_eq!(wanted, want);
        out = rig.hear(B, reply(id, None));
    }
    let lba = Lba(4);
    assert_eq!(out, [complete(1, OpOutcome::Unreadable { lba })]);
    assert_eq!(rig.core.status().checks.lost, 1);
    // Nothing holds the range any more: whoever writes it makes it good.
    let out = rig.submit(2, write(4, 1));
    assert!(matches!(out[0], Command::Append { .. }), "{out:?}");
}

#[test]
fn i10_while_a_member_cannot_be_asked_the_read_waits_for_the_hold_limit_at_most() {
    let (mut rig, out) = found_bad();
    asked(&out);
    let down = Event::PeerDown { node: B, link: LINK };
    let out = rig.on(down);
    assert!(
        !out.iter()
            .any(|command| matches!(command, Command::Complete { .. }))
    );
    let mut out = Vec::new();
    for _ in 0..40 {
        out.extend(rig.later(100));
    }
    let answers: Vec<_> = out
        .into_iter()
        .filter(|command| matches!(command, Command::Complete { .. }))
        .collect();
    assert_eq!(answers, [complete(1, OpOutcome::Reset)]);
}

#[test]
fn i10_a_member_that_left_the_set_is_not_asked() {
    let (mut rig, _) = found_bad();
    rig.on(Event::PeerDown { node: B, link: LINK });
    let out = rig.set_view(|view| {
        view.version = InSyncVersion(2);
        view.in_sync = vec![A];
    });
    let lba = Lba(5);
    assert!(
        out.contains(&complete(1, OpOutcome::Unreadable { lba })),
        "{out:?}"
    );
}

#[test]
fn i10_an_answer_of_another_length_is_none() {
    let (mut rig, out) = found_bad();
    let (id, ..) = asked(&out);
    let out = rig.hear(B, reply(id, Some(Bytes::from_static(b"short"))));
    let lba = Lba(5);
    assert_eq!(out, [complete(1, OpOutcome::Unreadable { lba })]);
    assert_eq!(rig.hear(B, reply(id, Some(data(1)))), [], "too late");
}

#[test]
fn i10_a_deposed_primary_forgets_its_repairs() {
    let (mut rig, out) = found_bad();
    let (id, ..) = asked(&out);
    rig.set_view(|view| {
        view.epoch = Epoch(2);
        view.primary = Some(identity(B));
    });
    assert_eq!(rig.hear(B, reply(id, Some(data(1)))), []);
    assert_eq!(rig.core.table.len(), 0);
}

#[test]
fn i10_a_replica_gives_contents_once_it_has_applied_enough() {
    let mut rig = Rig::following();
    rig.on(Event::Appended { seq: JournalSeq(3) });
    let (epoch, id, at) = (Epoch(1), 77, Lsn(2));
    let wanted = Message::Fetch {
        epoch,
        id,
        range: range(2, 1),
        at,
    };
    let out = rig.hear(A, wanted);
    assert!(
        !out.iter().any(|command| matches!(command, Command::Read { .. })),
        "{out:?}"
    );
    let out = rig.hear(
        A,
        Message::Commit {
            epoch,
            commit: Lsn(2),
        },
    );
    // Records 1 and 2 are on their way into the extent.
    let mut read = None;
    for io in [IoToken(1), IoToken(2)] {
        let out = rig.on(Event::Applied { io });
        read = out.iter().find_map(|command| match command {
            Command::Read { io, range } => Some((*io, *range)),
            _ => None,
        });
    }
    let (io, wanted) = read.unwrap_or_else(|| panic!("{out:?}"));
    assert_eq!(wanted, range(2, 1));
    let out = rig.on(Event::ReadFailed { io, bad: wanted });
    assert_eq!(out, [send(A, reply(id, None))], "bad here, too");
}

#[test]
fn i10_a_piece_that_is_bad_on_a_replica_is_never_proven_equal() {
    let mut rig = Rig::serving();
    // b left and came back from nothing.
    rig.on(Event::PeerDown { node: B, link: LINK });
    rig.set_view(|view| {
        view.version = InSyncVersion(2);
        view.in_sync = vec![A];
    });
    rig.link(B);
    let log = LogSummary {
        damaged: true,
        ..summary(EpochHistory::empty(), LogPos::EMPTY)
    };
    let out = rig.hear(B, Message::Summary { epoch: Epoch(1), log });
    let (io, id) = out.iter().fold((None, None), |found, command| match command {
        Command::Hash { io, .. } => (Some(*io), found.1),
        Command::Send {
            message: Message::HashRequest { id, .. },
            ..
        } => (found.0, Some(*id)),
        _ => found,
    });
    let (io, id) = (io.unwrap(), id.unwrap());
    // 64 blocks of 512 bytes are 8 pieces.
    let digests = vec![Some([1; 16]); 8];
    rig.on(Event::Hashed {
        io,
        digests: digests.clone(),
    });
    let (epoch, mut theirs) = (Epoch(1), digests);
    theirs[3] = None;
    let digests = theirs;
    let out = rig.hear(B, Message::HashReply { epoch, id, digests });
    let io = reading(&out);
    assert!(
        out.contains(&Command::Read {
            io,
            range: range(24, 8)
        }),
        "{out:?}"
    );
    let data = Bytes::from(vec![4; 4096]);
    let out = rig.on(Event::ReadDone {
        io,
        data: data.clone(),
    });
    let sent = out.iter().any(|command| {
        matches!(command, Command::Send { message: Message::Replicate { record, .. }, .. }
            if matches!(&record.body, RecordBody::Resync { data: Some(sent), .. } if *sent == data))
    });
    assert!(sent, "{out:?}");
}

#[test]
fn i10_a_compare_and_write_compares_what_was_repaired() {
    let mut rig = Rig::serving();
    let compare = BlockOp::CompareAndWrite {
        range: range(3, 1),
        expect: data(9),
        data: data(1),
    };
    let io = reading(&rig.submit(1, compare));
    let bad = range(3, 1);
    let out = rig.on(Event::ReadFailed { io, bad });
    assert_eq!(rig.core.status().role, RoleName::Primary);
    let (id, ..) = asked(&out);
    rig.hear(B, reply(id, Some(data(9))));
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let io = apply_token(&rig.hear(B, ack(1, 2)));
    let io = reading(&rig.on(Event::Applied { io }));
    let out = rig.on(Event::ReadDone { io, data: data(9) });
    assert!(
        out.iter()
            .any(|command| matches!(command, Command::Append { .. })),
        "it compared equal: {out:?}"
    );
}

#[test]
fn i10_a_late_read_that_fails_after_all_is_still_answered_by_the_replica() {
    let mut rig = Rig::serving();
    let io = reading(&rig.submit(1, read(3, 1)));
    let mut out = Vec::new();
    for _ in 0..12 {
        out.extend(rig.later(100));
    }
    let (id, ..) = asked(&out);
    let bad = range(3, 1);
    assert_eq!(rig.on(Event::ReadFailed { io, bad }), [], "b has been asked");
    let out = rig.hear(B, reply(id, Some(data(9))));
    assert_eq!(out, [complete(1, OpOutcome::Data(data(9)))]);
}
