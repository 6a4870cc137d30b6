//! A node whose leaving the set is proposed, and one that has left: what becomes of the commands that it forwards (F4).

use super::*;
use crate::fault::{self, Fault};

const NEW_LINK: LinkId = LinkId(10);

fn lost(rig: &mut Rig) -> Vec<Command> {
    let (node, link) = (B, LINK);
    rig.on(Event::PeerDown { node, link })
}

fn back(rig: &mut Rig) -> Vec<Command> {
    let (peer, link) = (identity(B), NEW_LINK);
    rig.on(Event::PeerUp { peer, link })
}

fn forward_over(rig: &mut Rig, link: LinkId, op: u64, again: bool, request: BlockOp) -> Vec<Command> {
    let message = forward_of(op, 1, again, Origin::default(), request);
    let from = B;
    rig.on(Event::Message { from, link, message })
}

fn answers(out: &[Command]) -> Vec<(u64, ForwardAnswer)> {
    out.iter()
        .filter_map(|command| match command {
            Command::Send {
                message: Message::Forwarded { op, answer, .. },
                ..
            } => Some((op.0, answer.clone())),
            _ => None,
        })
        .collect()
}

fn appended(out: &[Command]) -> bool {
    out.iter().any(|one| matches!(one, Command::Append { .. }))
}

fn put_out(view: &mut View) {
    view.in_sync = vec![A];
    view.version = InSyncVersion(2);
}

/// The link breaks and is back before the leaving that was proposed meanwhile is committed. What b forwards in between it gives up as soon
/// as it learns that it is out; the initiator sends its data elsewhere.
fn forward_between_proposal_and_commit() -> bool {
    let mut rig = Rig::serving();
    rig.later(1000);
    assert_eq!(propose(&lost(&mut rig)), Some(Change::Shrink { node: B }));
    back(&mut rig);
    appended(&forward_over(&mut rig, NEW_LINK, 1, false, write(3, 3)))
}

#[test]
fn f4_a_forward_of_a_leaving_node_is_noticed() {
    assert!(!forward_between_proposal_and_commit());
    let ghost = fault::with(Some(Fault::ForwardOfLeaving), forward_between_proposal_and_commit);
    assert!(ghost, "a command that its node is about to give up takes effect");
}

#[test]
fn f4_what_has_no_position_goes_back_when_a_leaving_is_proposed() {
    let mut rig = Rig::serving();
    rig.later(1000);
    assert!(appended(&forward_over(&mut rig, LINK, 1, false, write(3, 3))));
    // Behind the first one, for the same block.
    let read = BlockOp::Read { range: range(3, 1) };
    let compare = BlockOp::CompareAndWrite {
        range: range(3, 1),
        expect: data(3),
        data: data(4),
    };
    assert_eq!(forward_over(&mut rig, LINK, 2, false, compare), []);
    let out = forward_over(&mut rig, LINK, 3, true, read.clone());
    let [Command::Read { io, .. }] = out[..] else {
        panic!("{out:?}")
    };
    // Its disk has failed; the link works.
    let log = LogSummary {
        fenced: true,
        ..summary(
            EpochHistory::from_lasts(vec![pos(0, 0), pos(1, 1)]).unwrap(),
            pos(1, 1),
        )
    };
    let out = rig.hear(B, Message::Summary { epoch: Epoch(1), log });
    assert_eq!(propose(&out), Some(Change::Shrink { node: B }));
    let not_taken = |op| (op, ForwardAnswer::NotTaken);
    assert_eq!(answers(&out), [not_taken(2), not_taken(3)]);
    let read_done = Event::ReadDone { io, data: data(3) };
    assert_eq!(rig.on(read_done), []);
    // Nor is anything else taken, but a fence. What may have been sent before is not called undone.
    let out = forward_over(&mut rig, LINK, 4, false, write(5, 5));
    assert_eq!(answers(&out), [not_taken(4)]);
    let out = forward_over(&mut rig, LINK, 5, true, write(5, 5));
    assert_eq!(answers(&out), [(5, ForwardAnswer::NotPrimary)]);
    assert_eq!(
        answers(&forward_over(&mut rig, LINK, 6, true, read)),
        [not_taken(6)]
    );
    let version = rig.view.unit.version;
    let out = forward_over(&mut rig, LINK, 7, false, BlockOp::Fence { version });
    assert!(!answers(&out).contains(&not_taken(7)));
    // The first one completes without b, and b is told.
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let out = rig.set_view(put_out);
    assert!(
        answers(&out).contains(&(1, ForwardAnswer::Outcome(OpOutcome::Done))),
        "{out:?}"
    );
    let out = forward_over(&mut rig, LINK, 8, false, write(5, 5));
    assert_eq!(answers(&out), [not_taken(8)], "b is out");
}

#[test]
fn f4_a_leaving_is_taken_back_by_commit_only() {
    let mut rig = Rig::serving();
    assert_eq!(propose(&lost(&mut rig)), Some(Change::Shrink { node: B }));
    assert_eq!(propose(&back(&mut rig)), Some(Change::GrowVoid));
    let (from, link, epoch) = (B, NEW_LINK, Epoch(1));
    let log = summary(
        EpochHistory::from_lasts(vec![pos(0, 0), pos(1, 1)]).unwrap(),
        pos(1, 1),
    );
    let message = Message::Summary { epoch, log };
    rig.on(Event::Message { from, link, message });
    let out = forward_over(&mut rig, NEW_LINK, 1, false, write(3, 3));
    assert_eq!(answers(&out), [(1, ForwardAnswer::NotTaken)]);
    rig.set_view(|view| view.version = InSyncVersion(2));
    assert!(appended(&forward_over(&mut rig, NEW_LINK, 1, false, write(3, 3))));
    assert_eq!(propose(&rig.later(1000)), None);
}

fn link_of_primary_lost(rig: &mut Rig) -> Vec<Command> {
    let (node, link) = (A, LINK);
    rig.on(Event::PeerDown { node, link })
}

#[test]
fn f4_who_was_put_out_ends_its_commands_at_once() {
    let mut rig = Rig::following();
    rig.later(1000);
    let read = BlockOp::Read { range: range(9, 1) };
    assert!(matches!(rig.submit(1, write(9, 1))[..], [Command::Send { .. }]));
    assert!(matches!(rig.submit(2, read.clone())[..], [Command::Send { .. }]));
    assert_eq!(link_of_primary_lost(&mut rig), []);
    assert_eq!(rig.submit(3, write(9, 3)), []);
    let mut out = rig.set_view(put_out);
    out.sort_by_key(|command| match command {
        Command::Complete { op, .. } => op.0,
        _ => 0,
    });
    let standby = |op| complete(op, OpOutcome::Standby);
    let ended = [complete(1, OpOutcome::Reset), standby(2), standby(3)];
    assert_eq!(out, ended, "the fate of the first one cannot be told");
    assert_eq!(rig.submit(4, write(9, 4)), [standby(4)]);
    let fence = BlockOp::Fence {
        version: rig.view.unit.version,
    };
    assert_eq!(rig.submit(5, fence), [], "held until there is a link");
    rig.on(Event::Abort {
        scope: AbortScope::All,
    });
}

/// Nobody proposed it to the primary: what was sent may still be on its way into the log, for as long as a command may wait.
#[test]
fn f4_who_was_taken_off_the_list_waits_for_what_it_has_sent() {
    let mut rig = Rig::following();
    rig.later(1000);
    rig.submit(1, write(9, 1));
    link_of_primary_lost(&mut rig);
    rig.submit(2, write(9, 2));
    let out = rig.set_view(|view| {
        put_out(view);
        view.replicas = vec![A];
    });
    assert_eq!(out, [complete(2, OpOutcome::Standby)]);
    assert_eq!(rig.later(2900), []);
    assert_eq!(rig.later(200), [complete(1, OpOutcome::Reset)]);
}

#[test]
fn f4_what_was_not_taken_is_sent_again_or_ends() {
    let mut rig = Rig::following();
    rig.later(1000);
    rig.submit(1, write(9, 1));
    let not_taken = |op| {
        let (op, epoch, answer) = (OpId(op), Epoch(1), ForwardAnswer::NotTaken);
        Message::Forwarded { op, epoch, answer }
    };
    assert_eq!(rig.hear(A, not_taken(1)), []);
    let out = rig.later(60);
    let [
        Command::Send {
            message: Message::Forward { again, .. },
            ..
        },
    ] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert!(!again, "it is as if it had not been sent");
    assert_eq!(rig.hear(A, not_taken(1)), []);
    assert_eq!(rig.set_view(put_out), [complete(1, OpOutcome::Standby)]);
}
