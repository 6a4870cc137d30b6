//! Commands that another node forwards, and what becomes of them (F1, F2, I11).

use super::*;

#[test]
fn f1_a_command_asked_again_is_answered_never_carried_out_twice() {
    let mut rig = Rig::serving();
    rig.later(1000);
    let out = forward(&mut rig, 1, 1, false);
    assert!(matches!(out[0], Command::Append { .. }));
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let out = rig.hear(B, ack(1, 2));
    let done = forwarded(1, 1, ForwardAnswer::Outcome(OpOutcome::Done));
    let [Command::Apply { io, .. }, answer] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(*answer, done);
    let io = *io;
    assert_eq!(
        forward(&mut rig, 1, 1, true),
        std::slice::from_ref(&done),
        "applied or not"
    );
    assert_eq!(rig.on(Event::Applied { io }), []);
    assert_eq!(forward(&mut rig, 1, 1, true), [done]);
    // A command that says it may be older than what this run remembers is not carried out.
    let message = Message::Forward {
        op: OpId(2),
        epoch: Epoch(1),
        name: name(B, 2),
        generation: LeaseGeneration(0),
        waited: Duration::from_millis(2000),
        origin: Origin::default(),
        again: true,
        request: write(3, 3),
    };
    assert_eq!(rig.hear(B, message), [forwarded(2, 1, ForwardAnswer::Refused)]);
}

#[test]
fn f2_asking_for_the_fate_bars() {
    let mut rig = Rig::serving();
    rig.later(10_000);
    let fate = |op: u64| Message::Fate {
        op: OpId(op),
        epoch: Epoch(1),
        name: name(B, op),
    };
    let answer = |op: u64, fate| {
        let (op, epoch) = (OpId(op), Epoch(1));
        [send(B, Message::FateIs { op, epoch, fate })]
    };
    assert_eq!(rig.hear(B, fate(1)), answer(1, Fate::Barred));
    assert_eq!(
        forward(&mut rig, 1, 1, false),
        [forwarded(1, 1, ForwardAnswer::Refused)]
    );
    forward(&mut rig, 2, 1, false);
    assert_eq!(rig.hear(B, fate(2)), answer(2, Fate::Underway));
}

/// Found by the simulator: an answer to the forward of an earlier epoch, over the same link, was taken for one to the present try.
#[test]
fn f1_an_answer_to_an_earlier_try_does_not_end_a_later_one() {
    let mut rig = Rig::new(B, Recovered::default());
    rig.link(A);
    rig.set_view(|_| ());
    let out = rig.submit(1, write(0, 1));
    assert!(matches!(
        &out[..],
        [Command::Send {
            message: Message::Forward {
                epoch: Epoch(1),
                again: false,
                ..
            },
            ..
        }]
    ));
    let out = rig.set_view(|view| view.epoch = Epoch(2));
    assert!(matches!(
        &out[..],
        [Command::Send {
            message: Message::Forward {
                epoch: Epoch(2),
                again: true,
                ..
            },
            ..
        }]
    ));
    let late = |epoch: u64, answer| Message::Forwarded {
        op: OpId(1),
        epoch: Epoch(epoch),
        answer,
    };
    assert_eq!(rig.hear(A, late(1, ForwardAnswer::Refused)), []);
    let done = ForwardAnswer::Outcome(OpOutcome::Done);
    assert_eq!(rig.hear(A, late(2, done)), [complete(1, OpOutcome::Done)]);
}

#[test]
fn f2_aborts_drop_what_has_no_lsn_and_let_the_rest_complete() {
    let mut rig = Rig::serving();
    rig.submit(1, write(4, 1));
    let lease = rig.ctx.lease_until.take();
    rig.submit(2, BlockOp::Read { range: range(0, 1) });
    let scope = AbortScope::All;
    assert_eq!(rig.on(Event::Abort { scope }), [complete(2, OpOutcome::Aborted)]);
    rig.ctx.lease_until = lease;
    // Forwarded: barred at the primary first.
    let mut rig = Rig::new(B, Recovered::default());
    rig.link(A);
    rig.set_view(|_| ());
    rig.submit(5, write(0, 1));
    let out = rig.on(Event::Abort { scope });
    let (op, epoch) = (OpId(5), Epoch(1));
    let ask = Message::Fate {
        op,
        epoch,
        name: name(B, 5),
    };
    assert_eq!(out, [send(A, ask)]);
    let fate = Fate::Barred;
    assert_eq!(
        rig.hear(A, Message::FateIs { op, epoch, fate }),
        [complete(5, OpOutcome::Aborted)]
    );
}

#[test]
fn i11_a_forward_that_cannot_be_barred_dies_with_its_link() {
    let mut rig = Rig::new(B, Recovered::default());
    rig.link(A);
    rig.set_view(|_| ());
    rig.submit(5, write(0, 1));
    let out = rig.later(3001);
    assert!(
        matches!(
            &out[..],
            [Command::Send {
                message: Message::Fate { .. },
                ..
            }]
        ),
        "{out:?}"
    );
    let reset = Command::ResetLink { node: A, link: LINK };
    assert_eq!(rig.later(501), [complete(5, OpOutcome::Reset), reset]);
}

/// Found by the simulator (seed 2487): "not the primary" for an earlier try was late, and came after the question for the command's fate,
/// whose answer was that it is open. It was forwarded once more, and the primary took that for a fault of this node.
#[test]
fn f2_a_late_answer_to_the_forward_does_not_end_the_question_for_the_fate() {
    let mut rig = Rig::new(B, Recovered::default());
    rig.link(A);
    rig.set_view(|_| ());
    rig.submit(1, write(0, 1));
    rig.later(3001);
    let (op, epoch) = (OpId(1), Epoch(1));
    for answer in [ForwardAnswer::NotPrimary, ForwardAnswer::NotTaken] {
        assert_eq!(rig.hear(A, Message::Forwarded { op, epoch, answer }), []);
        assert_eq!(rig.later(50), [], "it is not forwarded again");
    }
    let fate = Fate::Underway;
    assert_eq!(rig.hear(A, Message::FateIs { op, epoch, fate }), []);
    let answer = ForwardAnswer::Outcome(OpOutcome::Done);
    assert_eq!(
        rig.hear(A, Message::Forwarded { op, epoch, answer }),
        [complete(1, OpOutcome::Done)]
    );
}
