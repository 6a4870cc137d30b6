//! P1, P2 and I13, step by step.

use holdfast_types::{NexusTag, UnitRule, UnitVersion};

use super::*;
use crate::fault::{self, Fault};

const HOLDER: NexusTag = NexusTag(1);
const OTHER: NexusTag = NexusTag(2);

fn by(nexus: NexusTag, admitted: u64) -> Origin {
    let admitted = UnitVersion(admitted);
    Origin {
        nexus,
        admitted,
        ..Origin::default()
    }
}

/// Write exclusive for the holder, as of `version`.
fn reserved(version: u64) -> UnitRule {
    UnitRule {
        version: UnitVersion(version),
        others_write: false,
        holders: vec![HOLDER],
        ..UnitRule::default()
    }
}

fn fence(version: u64) -> BlockOp {
    let version = UnitVersion(version);
    BlockOp::Fence { version }
}

impl Rig {
    fn set_rule(&mut self, rule: UnitRule) -> Vec<Command> {
        self.set_view(|view| view.unit = Arc::new(rule))
    }

    fn submit_by(&mut self, op: u64, origin: Origin, request: BlockOp) -> Vec<Command> {
        self.origin = origin;
        self.submit(op, request)
    }
}

fn forward(op: u64, origin: Origin, request: BlockOp) -> Message {
    forward_of(op, 1, false, origin, request)
}

fn answers(out: &[Command]) -> Vec<(OpId, ForwardAnswer)> {
    let answer = |command: &Command| match command {
        Command::Send {
            message: Message::Forwarded { op, answer, .. },
            ..
        } => Some((*op, answer.clone())),
        _ => None,
    };
    out.iter().filter_map(answer).collect()
}

const CONFLICT: OpOutcome = OpOutcome::ReservationConflict;

#[test]
fn p1_the_primary_judges_its_own_commands_and_forwarded_ones() {
    let mut rig = Rig::serving();
    rig.set_rule(reserved(1));
    assert_eq!(
        rig.submit_by(1, by(OTHER, 1), write(4, 1)),
        [complete(1, CONFLICT)]
    );
    assert_eq!(
        rig.submit_by(2, by(OTHER, 1), BlockOp::Flush),
        [complete(2, CONFLICT)]
    );
    let out = rig.submit_by(3, by(OTHER, 1), BlockOp::Read { range: range(9, 1) });
    assert!(
        matches!(out[..], [Command::Read { .. }]),
        "reading is free: {out:?}"
    );
    let out = rig.submit_by(4, by(HOLDER, 1), write(4, 1));
    assert!(matches!(out[..], [Command::Append { .. }, _]), "{out:?}");
    let out = rig.hear(B, forward(5, by(OTHER, 1), write(5, 1)));
    assert_eq!(answers(&out), [(OpId(5), ForwardAnswer::Outcome(CONFLICT))]);
}

/// A node that has not heard of the reservation forwards a fenced host's write.
fn late_forward() -> Vec<Command> {
    let mut rig = Rig::serving();
    rig.set_rule(reserved(1));
    rig.hear(B, forward(5, by(OTHER, 0), write(5, 1)))
}

#[test]
fn p1_judging_at_the_forwarder_is_noticed() {
    let appended = |out: &[Command]| out.iter().any(|one| matches!(one, Command::Append { .. }));
    assert!(!appended(&late_forward()));
    let out = fault::with(Some(Fault::JudgedAtForwarder), late_forward);
    assert!(appended(&out), "a fenced host's write takes effect: {out:?}");
}

#[test]
fn p1_a_forwarder_refuses_nothing_itself() {
    let mut rig = Rig::following();
    rig.set_rule(reserved(1));
    let out = rig.submit_by(1, by(OTHER, 1), write(4, 1));
    let [
        Command::Send {
            message: Message::Forward { origin, .. },
            ..
        },
    ] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!(*origin, by(OTHER, 1));
    let epoch = Epoch(1);
    let answer = ForwardAnswer::Outcome(CONFLICT);
    let op = OpId(1);
    let out = rig.hear(A, Message::Forwarded { op, epoch, answer });
    assert_eq!(out, [complete(1, CONFLICT)]);
}

#[test]
fn p1_a_command_that_waited_for_its_range_is_judged_again() {
    let mut rig = Rig::serving();
    rig.submit_by(1, by(HOLDER, 0), write(4, 1));
    let waits = BlockOp::CompareAndWrite {
        range: range(4, 1),
        expect: data(1),
        data: data(2),
    };
    assert_eq!(rig.submit_by(2, by(OTHER, 0), waits), []);
    rig.set_rule(reserved(1));
    rig.hear(B, ack(1, 2));
    let out = rig.on(Event::Appended { seq: JournalSeq(2) });
    let [Command::Apply { io, .. }, done] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(*done, complete(1, OpOutcome::Done));
    let io = *io;
    let out = rig.on(Event::Applied { io });
    let [Command::Read { io, .. }] = &out[..] else {
        panic!("{out:?}");
    };
    let (io, data) = (*io, data(1));
    assert_eq!(rig.on(Event::ReadDone { io, data }), [complete(2, CONFLICT)]);
}

#[test]
fn p1_an_orwrite_and_a_map_are_judged_when_their_blocks_were_looked_at() {
    let closed = || UnitRule {
        others_read: false,
        ..reserved(1)
    };
    let mut rig = Rig::serving();
    let or_write = BlockOp::OrWrite {
        range: range(4, 1),
        data: data(1),
    };
    let out = rig.submit_by(1, by(OTHER, 0), or_write);
    let [Command::Read { io, .. }] = out[..] else {
        panic!("{out:?}");
    };
    let map = BlockOp::Map {
        from: Lba(0),
        runs: 1,
    };
    let out = rig.submit_by(2, by(OTHER, 0), map);
    let [Command::Map { io: asked, .. }] = out[..] else {
        panic!("{out:?}");
    };
    rig.set_rule(closed());
    let data = data(0);
    assert_eq!(rig.on(Event::ReadDone { io, data }), [complete(1, CONFLICT)]);
    let runs = Vec::new();
    assert_eq!(rig.on(Event::Mapped { io: asked, runs }), [complete(2, CONFLICT)]);
}

/// A primary that was replaced and has not heard of it, nor of the reservation's end since.
fn deposed() -> (Rig, Option<Mono>, Vec<Command>) {
    let mut rig = Rig::serving();
    rig.set_rule(reserved(1));
    let lease = rig.ctx.lease_until.take();
    let out = rig.submit_by(1, by(OTHER, 1), write(4, 1));
    (rig, lease, out)
}

#[test]
fn p1_a_conflict_is_told_under_the_lease_alone() {
    let (mut rig, lease, out) = deposed();
    assert_eq!(out, [], "nobody knows whether there is a conflict");
    rig.ctx.lease_until = lease;
    assert_eq!(rig.on(Event::Tick), [complete(1, CONFLICT)]);
    let (mut rig, _, _) = deposed();
    let free = UnitRule {
        version: UnitVersion(2),
        ..UnitRule::default()
    };
    let out = rig.set_rule(free);
    assert!(
        matches!(out[..], [Command::Append { .. }, _]),
        "the reservation is over: {out:?}"
    );
}

#[test]
fn p1_a_conflict_told_without_the_lease_is_noticed() {
    let (_, _, out) = fault::with(Some(Fault::ConflictWithoutLease), deposed);
    assert_eq!(out, [complete(1, CONFLICT)]);
}

#[test]
fn p2_a_fence_waits_for_the_state_and_for_what_has_an_lsn() {
    let mut rig = Rig::serving();
    rig.submit_by(1, by(OTHER, 0), write(4, 1));
    assert_eq!(
        rig.submit_by(2, Origin::default(), fence(1)),
        [],
        "the state is not here"
    );
    assert_eq!(
        rig.set_rule(reserved(1)),
        [],
        "a write of the old state is under way"
    );
    rig.hear(B, ack(1, 2));
    let out = rig.on(Event::Appended { seq: JournalSeq(2) });
    assert!(out.contains(&complete(2, OpOutcome::Done)), "{out:?}");
    let out = rig.submit_by(3, by(OTHER, 0), write(5, 1));
    assert_eq!(out, [complete(3, CONFLICT)]);
}

#[test]
fn p2_a_fence_that_does_not_wait_for_the_state_is_noticed() {
    let early = || Rig::serving().submit_by(1, Origin::default(), fence(1));
    assert_eq!(early(), []);
    let done = [complete(1, OpOutcome::Done)];
    assert_eq!(fault::with(Some(Fault::FenceBeforeApplied), early), done);
}

#[test]
fn p2_a_fence_follows_the_primary() {
    let mut rig = Rig::following();
    let out = rig.submit_by(1, Origin::default(), fence(3));
    assert!(
        matches!(
            &out[..],
            [Command::Send {
                message: Message::Forward { .. },
                ..
            }]
        ),
        "{out:?}"
    );
    // That primary is lost, and this node takes over: the word is its own now.
    rig.set_view(|view| {
        view.epoch = Epoch(2);
        view.primary = Some(identity(B));
        view.in_sync = vec![B];
        view.unit = Arc::new(reserved(3));
    });
    // Record 1 was given to the extent before.
    let mut out = rig.on(Event::Applied { io: IoToken(1) });
    for seq in 1..=8 {
        out.extend(rig.on(Event::Appended { seq: JournalSeq(seq) }));
        let ios: Vec<IoToken> = out
            .iter()
            .filter_map(|one| match one {
                Command::Apply { io, .. } => Some(*io),
                _ => None,
            })
            .collect();
        for io in ios {
            out.extend(rig.on(Event::Applied { io }));
        }
    }
    assert!(out.contains(&complete(1, OpOutcome::Done)), "{out:?}");
}

#[test]
fn i13_a_reset_ends_what_was_admitted_before_it() {
    let mut rig = Rig::serving();
    let cleared = UnitRule {
        version: UnitVersion(4),
        cleared: UnitVersion(4),
        ..UnitRule::default()
    };
    rig.set_rule(cleared);
    assert_eq!(
        rig.submit_by(1, by(OTHER, 3), write(4, 1)),
        [complete(1, OpOutcome::Aborted)]
    );
    let out = rig.hear(B, forward(2, by(OTHER, 3), write(4, 1)));
    assert_eq!(answers(&out), [(OpId(2), ForwardAnswer::Ended)]);
    let out = rig.submit_by(3, by(OTHER, 4), write(4, 1));
    assert!(
        matches!(out[..], [Command::Append { .. }, _]),
        "a newer one: {out:?}"
    );
}

#[test]
fn i13_an_ended_command_is_not_answered() {
    let mut rig = Rig::following();
    rig.submit_by(1, by(OTHER, 3), write(4, 1));
    let (op, epoch, answer) = (OpId(1), Epoch(1), ForwardAnswer::Ended);
    let out = rig.hear(A, Message::Forwarded { op, epoch, answer });
    assert_eq!(out, [complete(1, OpOutcome::Aborted)]);
}
