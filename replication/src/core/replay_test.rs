//! COMPARE AND WRITEs that are sent again because their status was lost (W6).

use holdfast_types::InitiatorTag;

use super::*;

const HOST: InitiatorTag = InitiatorTag(7);
const OTHER: InitiatorTag = InitiatorTag(8);

/// The lock is free (0), the host takes it (1).
fn swap() -> BlockOp {
    BlockOp::CompareAndWrite {
        range: range(5, 1),
        expect: data(0),
        data: data(1),
    }
}

fn of(initiator: InitiatorTag) -> Origin {
    Origin {
        initiator,
        ..Origin::default()
    }
}

fn session(node: NodeId) -> SessionInstance {
    name(node, 0).session
}

fn statuses(out: &[Command]) -> Vec<StatusNews> {
    let news = out.iter().filter_map(|command| match command {
        Command::Send {
            message: Message::Statuses { news },
            ..
        } => Some(news.clone()),
        _ => None,
    });
    news.flatten().collect()
}

/// What a command that reads block 5 is answered, if the block is full of `byte`.
fn answered(rig: &mut Rig, out: &[Command], byte: u8) -> Vec<Command> {
    let [Command::Read { io, .. }] = out[..] else {
        panic!("{out:?}")
    };
    rig.on(Event::ReadDone { io, data: data(byte) })
}

/// The host's own node is a; it takes the lock there. What b is told of it.
fn taken() -> (Rig, Vec<StatusNews>) {
    let mut rig = Rig::serving();
    rig.origin = of(HOST);
    let out = rig.submit(1, swap());
    let out = answered(&mut rig, &out, 0);
    let news = statuses(&out);
    let told = |command: &Command| {
        matches!(
            command,
            Command::Send {
                message: Message::Statuses { .. },
                ..
            }
        )
    };
    let sent = |command: &Command| {
        matches!(
            command,
            Command::Send {
                message: Message::Replicate { .. },
                ..
            }
        )
    };
    assert!(
        out.iter().position(told) < out.iter().position(sent),
        "b hears of it before it has the record: {out:?}"
    );
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let out = rig.hear(B, ack(1, 2));
    let [Command::Apply { io, .. }, done] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(*done, complete(1, OpOutcome::Done));
    rig.on(Event::Applied { io: *io });
    (rig, news)
}

/// The same again, through b's portal; the block is read. What comes of it.
fn sent_again(rig: &mut Rig, op: u64, origin: Origin, request: BlockOp) -> Vec<Command> {
    let message = forward_of(op, 1, false, origin, request);
    let out = rig.hear(B, message);
    answered(rig, &out, 1)
}

fn answer(out: &[Command]) -> Option<ForwardAnswer> {
    out.iter().find_map(|command| match command {
        Command::Send {
            message: Message::Forwarded { answer, .. },
            ..
        } => Some(answer.clone()),
        _ => None,
    })
}

fn again(rig: &mut Rig, op: u64, origin: Origin, request: BlockOp) -> ForwardAnswer {
    let out = sent_again(rig, op, origin, request);
    answer(&out).unwrap_or_else(|| panic!("{out:?}"))
}

const DONE: ForwardAnswer = ForwardAnswer::Outcome(OpOutcome::Done);
const MISCOMPARE: ForwardAnswer = ForwardAnswer::Outcome(OpOutcome::Miscompare { offset: 0 });

fn ended(node: NodeId) -> Event {
    let news = vec![StatusNews::Ended(session(node))];
    Event::Statuses { news }
}

#[test]
fn w6_the_same_again_is_done_once_the_first_ones_session_has_ended() {
    let (mut rig, _) = taken();
    let out = sent_again(&mut rig, 1, of(HOST), swap());
    assert_eq!(answer(&out), None, "the first one's status may arrive");
    let out = rig.on(ended(A));
    assert_eq!(statuses(&out), [StatusNews::Ended(session(A))]);
    let read: Vec<Command> = out
        .into_iter()
        .filter(|command| matches!(command, Command::Read { .. }))
        .collect();
    assert_eq!(answer(&answered(&mut rig, &read, 1)), Some(DONE));
    assert_eq!(again(&mut rig, 2, of(HOST), swap()), DONE);
    assert_eq!(again(&mut rig, 3, of(OTHER), swap()), MISCOMPARE, "another host");
    let other = BlockOp::CompareAndWrite {
        range: range(5, 1),
        expect: data(2),
        data: data(1),
    };
    assert_eq!(
        again(&mut rig, 4, of(HOST), other),
        MISCOMPARE,
        "it expected something else"
    );
    assert_eq!(again(&mut rig, 5, Origin::default(), swap()), MISCOMPARE);
}

#[test]
fn w6_what_was_acknowledged_is_a_new_command() {
    let (mut rig, _) = taken();
    let out = sent_again(&mut rig, 7, of(HOST), swap());
    assert_eq!(answer(&out), None);
    let news = vec![StatusNews::Acknowledged(name(A, 1))];
    let out = rig.on(Event::Statuses { news: news.clone() });
    assert_eq!(statuses(&out), news);
    let read: Vec<Command> = out
        .into_iter()
        .filter(|command| matches!(command, Command::Read { .. }))
        .collect();
    assert_eq!(answer(&answered(&mut rig, &read, 1)), Some(MISCOMPARE));
    rig.on(ended(A));
    assert_eq!(again(&mut rig, 1, of(HOST), swap()), MISCOMPARE);
}

#[test]
fn w6_what_lies_under_newer_contents_is_a_new_command() {
    let (mut rig, _) = taken();
    rig.on(ended(A));
    // Somebody gives the lock back and takes it anew: the same contents, by a newer record.
    rig.origin = of(OTHER);
    rig.submit(2, write(5, 1));
    rig.on(Event::Appended { seq: JournalSeq(3) });
    let out = rig.hear(B, ack(1, 3));
    let Some(Command::Apply { io, .. }) = out.first() else {
        panic!("{out:?}")
    };
    rig.on(Event::Applied { io: *io });
    assert_eq!(again(&mut rig, 1, of(HOST), swap()), MISCOMPARE);
}

#[test]
fn w6_nobody_may_speak_of_anothers_sessions() {
    let (mut rig, _) = taken();
    let news = vec![StatusNews::Ended(session(A))];
    rig.hear(B, Message::Statuses { news });
    let out = sent_again(&mut rig, 1, of(HOST), swap());
    assert_eq!(answer(&out), None, "it waits for a to speak");
    let out = rig.later(3_000);
    assert_eq!(answer(&out), Some(ForwardAnswer::Refused), "not for ever (W1)");
}

/// What a primary does not hear while its link is down it is told when there is one again, and a new primary is told, too.
#[test]
fn w6_what_a_node_knows_of_its_sessions_is_told_again() {
    let mut rig = Rig::following();
    rig.on(Event::PeerDown { node: A, link: LINK });
    let news = vec![
        StatusNews::Acknowledged(name(B, 1)),
        StatusNews::Ended(session(B)),
    ];
    let out = rig.on(Event::Statuses { news: news.clone() });
    assert_eq!(statuses(&out), []);
    let out = rig.link(A);
    assert_eq!(statuses(&out), news);
    assert_eq!(statuses(&rig.later(1_000)), [], "once");
}

/// The record of the host's command, as b has it.
fn swapped() -> Record {
    Record {
        name: Some(name(A, 1)),
        body: RecordBody::Write {
            range: range(5, 1),
            data: data(1),
        },
        ..record(1, 4, 1, 1)
    }
}

/// b follows a, and takes over. Whether the host's command is done there, sent again through b.
fn after_a_failover(mut news: Vec<StatusNews>) -> OpOutcome {
    let mut rig = Rig::following();
    let later = news.split_off(news.len().min(1));
    rig.hear(A, Message::Statuses { news });
    rig.hear(A, replicate(1, pos(1, 3), swapped()));
    rig.hear(A, Message::Statuses { news: later });
    // Everything that it was sent is stable, and the first record, committed long ago, applied.
    let seq = JournalSeq(rig.core.next_seq);
    let mut out = rig.on(Event::Appended { seq });
    let io = IoToken(1);
    out.extend(rig.on(Event::Applied { io }));
    rig.on(Event::PeerDown { node: A, link: LINK });
    out.extend(rig.set_view(|view| {
        view.epoch = Epoch(2);
        view.primary = Some(identity(B));
        view.in_sync = vec![B];
        view.version = InSyncVersion(2);
        view.nodes[0].suspect = true;
    }));
    rig.origin = of(HOST);
    out.extend(rig.submit(9, swap()));
    let mut applied = false;
    let mut queue: std::collections::VecDeque<Command> = out.into();
    while let Some(command) = queue.pop_front() {
        let event = match command {
            Command::Append { seq, .. } => Event::Appended { seq },
            Command::Apply { io, record } => {
                applied |= record.pos == pos(1, 4);
                Event::Applied { io }
            }
            Command::Read { io, .. } => {
                assert!(applied, "it reads what is not applied");
                Event::ReadDone { io, data: data(1) }
            }
            Command::Complete { outcome, .. } => return outcome,
            _ => continue,
        };
        queue.extend(rig.on(event));
    }
    panic!("it is not answered")
}

#[test]
fn w6_a_new_primary_knows_what_the_old_one_has_told() {
    let (_, news) = taken();
    let [StatusNews::Unconfirmed(what)] = news[..] else {
        panic!("{news:?}")
    };
    let told = |lsn| {
        StatusNews::Unconfirmed(Unconfirmed {
            pos: pos(1, lsn),
            ..what
        })
    };
    assert_eq!(after_a_failover(vec![told(4)]), OpOutcome::Done);
    let miscompare = OpOutcome::Miscompare { offset: 0 };
    assert_eq!(after_a_failover(vec![]), miscompare, "it is not known");
    assert_eq!(
        after_a_failover(vec![told(4), StatusNews::Acknowledged(what.name)]),
        miscompare
    );
    assert_eq!(
        after_a_failover(vec![told(3)]),
        miscompare,
        "a position under a newer one"
    );
}

/// Found with real processes: the primary died and was back before anyone suspected it, so that its new run was primary again, which
/// remembered nothing.
#[test]
fn w6_a_primary_that_begins_is_told_by_members_what_they_remember() {
    let (mut first, news) = taken();
    let out = first.hear(B, Message::Probe { epoch: Epoch(2) });
    assert_eq!(statuses(&out), news, "before its summary: {out:?}");
    let summary_at = |command: &Command| {
        matches!(
            command,
            Command::Send {
                message: Message::Summary { .. },
                ..
            }
        )
    };
    assert!(matches!(out.iter().position(summary_at), Some(1..)));
    // b is followed by a in epoch 2, and a's session was the first one's.
    let mut rig = Rig::following();
    rig.hear(A, replicate(1, pos(1, 3), swapped()));
    rig.on(Event::PeerDown { node: A, link: LINK });
    rig.set_view(|view| {
        view.epoch = Epoch(2);
        view.primary = Some(identity(B));
        view.version = InSyncVersion(2);
    });
    rig.link(A);
    let [StatusNews::Unconfirmed(what)] = news[..] else {
        panic!("{news:?}")
    };
    let told = Unconfirmed {
        pos: pos(1, 4),
        ..what
    };
    let news = vec![StatusNews::Unconfirmed(told)];
    rig.hear(A, Message::Statuses { news: news.clone() });
    assert_eq!(rig.core.replays.news(), Some(news));
}
