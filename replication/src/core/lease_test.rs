//! Reads and the lease, writes and the newcomer, step by step.

use super::*;

/// The trace A4 within one node: the lease follows the log at once, the view of an extent comes later, say because the disk holds it up.
/// A lease of a new generation says nothing for an epoch that was looked at before it began.
#[test]
fn w3_a_lease_newer_than_the_view_answers_no_read() {
    let mut rig = Rig::serving();
    rig.ctx.generation = LeaseGeneration(1);
    // On a connection of that generation.
    let out = rig.submit(1, BlockOp::Read { range: range(1, 1) });
    assert!(out.is_empty(), "{out:?}");
    // The view of that generation arrives: the node is still the primary, so the read goes on.
    let out = rig.set_view(|view| view.nodes[0].generation = LeaseGeneration(1));
    let [Command::Read { io, .. }] = out.as_slice() else {
        panic!("{out:?}")
    };
    // A newer generation meanwhile: what was read is not told before the view is as new.
    rig.ctx.generation = LeaseGeneration(2);
    let out = rig.on(Event::ReadDone {
        io: *io,
        data: data(0),
    });
    assert!(
        !out.iter().any(|command| matches!(
            command,
            Command::Complete {
                outcome: OpOutcome::Data(_),
                ..
            }
        )),
        "{out:?}"
    );
}

#[test]
fn w3_reads_need_the_lease_before_and_after() {
    let mut rig = Rig::serving();
    let lease = rig.ctx.lease_until.take();
    assert_eq!(rig.submit(1, BlockOp::Read { range: range(0, 1) }), []);
    rig.ctx.lease_until = lease;
    let out = rig.on(Event::Tick);
    let [Command::Read { io, .. }] = out[..] else {
        panic!("{out:?}")
    };
    rig.ctx.lease_until = Some(rig.ctx.now);
    let event = Event::ReadDone { io, data: data(0) };
    assert_eq!(rig.on(event), [], "read in vain");
    rig.ctx.lease_until = lease;
    let out = rig.on(Event::Tick);
    let [Command::Read { io, .. }] = out[..] else {
        panic!("{out:?}")
    };
    let event = Event::ReadDone { io, data: data(3) };
    assert_eq!(rig.on(event), [complete(1, OpOutcome::Data(data(3)))]);
}

#[test]
fn e3_nothing_is_acknowledged_without_the_newcomer_until_the_outcome_is_applied() {
    let mut rig = Rig::serving();
    rig.set_view(|view| {
        view.in_sync = vec![A];
        view.version = InSyncVersion(2);
    });
    let log = summary(
        EpochHistory::from_lasts(vec![pos(0, 0), pos(1, 1)]).unwrap(),
        pos(1, 1),
    );
    // Nothing was missed: straight to the barrier.
    rig.hear(B, Message::Summary { epoch: Epoch(1), log });
    let out = rig.hear(B, ack(1, 1));
    assert!(matches!(propose(&out), Some(Change::Grow { node: B, .. })));
    rig.submit(1, write(4, 1));
    assert_eq!(
        rig.on(Event::Appended { seq: JournalSeq(2) }),
        [],
        "the newcomer lacks it"
    );
    let out = rig.on(Event::PeerDown { node: B, link: LINK });
    assert_eq!(propose(&out), Some(Change::GrowVoid));
    assert!(!out.iter().any(|command| matches!(command, Command::Apply { .. })));
    let out = rig.set_view(|view| view.version = InSyncVersion(3));
    assert!(
        matches!(out[..], [Command::Apply { .. }, Command::Complete { .. }]),
        "{out:?}"
    );
}
