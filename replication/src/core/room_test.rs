//! Nearly full journals and disks (J3), and confirmed reads (W4).

use super::*;

fn room(rig: &mut Rig, node: NodeId, crowded: bool, low: bool) -> Vec<Command> {
    let full = false;
    let room = Room { crowded, low, full };
    rig.on(Event::Room { node, room })
}

fn asked_for_space(out: &[Command]) -> IoToken {
    match out {
        [Command::Allocated { io, .. }] => *io,
        other => panic!("{other:?}"),
    }
}

#[test]
fn j3_writes_wait_while_a_journal_that_they_go_to_is_crowded() {
    for node in [A, B] {
        let mut rig = Rig::serving();
        room(&mut rig, node, true, false);
        assert_eq!(rig.submit(1, write(4, 1)), [], "held");
        let read = BlockOp::Read { range: range(3, 1) };
        assert_eq!(rig.submit(2, read).len(), 1, "reads go on");
        let out = room(&mut rig, node, false, false);
        assert!(
            matches!(&out[..], [Command::Append { .. }, Command::Send { .. }]),
            "{out:?}"
        );
        assert_eq!(propose(&rig.later(50)), None, "nobody is fenced");
    }
}

#[test]
fn j3_a_peer_without_a_link_holds_nobody_up() {
    let mut rig = Rig::serving();
    room(&mut rig, B, true, false);
    assert_eq!(rig.submit(1, write(4, 1)), []);
    let out = rig.on(Event::PeerDown { node: B, link: LINK });
    assert!(
        out.iter()
            .any(|command| matches!(command, Command::Append { .. })),
        "{out:?}"
    );
}

#[test]
fn j3_a_write_without_space_is_refused_and_changes_nothing() {
    for others in [vec![A], vec![A, B]] {
        let mut rig = Rig::serving();
        rig.set_view(|view| {
            view.in_sync = others.clone();
            view.version = InSyncVersion(2);
        });
        for node in others {
            room(&mut rig, node, false, true);
        }
        let io = asked_for_space(&rig.submit(1, write(4, 1)));
        let whole = false;
        assert_eq!(
            rig.on(Event::Allocated { io, whole }),
            [complete(1, OpOutcome::NoSpace)]
        );
        assert_eq!(rig.core.status().end, pos(1, 1), "it has no lsn");
        // Blocks that have their space are written, zeros are freed, and reads go on.
        let io = asked_for_space(&rig.submit(2, write(5, 1)));
        let out = rig.on(Event::Allocated { io, whole: true });
        assert!(matches!(out[0], Command::Append { .. }), "{out:?}");
        let ranges = vec![range(6, 2)];
        let out = rig.submit(3, BlockOp::Zero { ranges });
        assert!(matches!(out[0], Command::Append { .. }), "{out:?}");
        let out = rig.submit(4, BlockOp::Read { range: range(1, 1) });
        assert!(matches!(out[0], Command::Read { .. }), "{out:?}");
    }
}

/// It asks for space before it reads what it adds to, so what it found is still there when it gets its lsn.
#[test]
fn j3_an_orwrite_without_space_is_refused_before_it_reads() {
    let mut rig = Rig::serving();
    for node in [A, B] {
        room(&mut rig, node, false, true);
    }
    let or_write = || BlockOp::OrWrite {
        range: range(4, 1),
        data: data(0x0f),
    };
    let io = asked_for_space(&rig.submit(1, or_write()));
    let whole = false;
    assert_eq!(
        rig.on(Event::Allocated { io, whole }),
        [complete(1, OpOutcome::NoSpace)]
    );
    assert_eq!(rig.core.status().end, pos(1, 1), "it has no lsn");
    let io = asked_for_space(&rig.submit(2, or_write()));
    let out = rig.on(Event::Allocated { io, whole: true });
    let [Command::Read { io, .. }] = out[..] else {
        panic!("{out:?}")
    };
    let out = rig.on(Event::ReadDone { io, data: data(0x81) });
    assert!(matches!(out[0], Command::Append { .. }), "{out:?}");
}

#[test]
fn j3_as_long_as_one_member_has_space_writes_go_on() {
    for node in [A, B] {
        let mut rig = Rig::serving();
        room(&mut rig, node, false, true);
        let out = rig.submit(1, write(4, 1));
        assert!(matches!(out[0], Command::Append { .. }), "{out:?}");
    }
}

#[test]
fn j3_space_that_was_allocated_at_creation_is_not_asked_for() {
    let mut rig = Rig::serving();
    rig.set_view(|view| view.policy.thin = false);
    room(&mut rig, A, false, true);
    room(&mut rig, B, false, true);
    let out = rig.submit(1, write(4, 1));
    assert!(matches!(out[0], Command::Append { .. }), "{out:?}");
}

#[test]
fn j3_a_full_disk_costs_a_replica_its_place_only_while_the_primary_has_room() {
    let full = Room {
        full: true,
        low: true,
        crowded: false,
    };
    for both in [false, true] {
        let mut rig = Rig::serving();
        rig.on(Event::Room { node: B, room: full });
        if both {
            rig.on(Event::Room { node: A, room: full });
        }
        let out: Vec<Command> = (0..200).flat_map(|_| rig.later(50)).collect();
        let expected = (!both).then_some(Change::Shrink { node: B });
        assert_eq!(propose(&out), expected);
        assert_eq!(rig.core.status().role, RoleName::Primary);
    }
}

fn confirming() -> Rig {
    let mut rig = Rig::serving();
    rig.set_view(|view| view.policy.confirmed_reads = true);
    rig
}

fn confirm(round: u64) -> Message {
    let epoch = Epoch(1);
    Message::Confirm { epoch, round }
}

fn confirmed(round: u64) -> Message {
    let epoch = Epoch(1);
    Message::Confirmed { epoch, round }
}

#[test]
fn w4_a_read_waits_for_a_round_that_began_after_it_came() {
    let mut rig = confirming();
    let read = |lba| BlockOp::Read { range: range(lba, 1) };
    assert_eq!(rig.submit(1, read(1)), [send(B, confirm(2))]);
    // It came after the round began: the next one is for it.
    assert_eq!(rig.submit(2, read(2)), []);
    let out = rig.hear(B, confirmed(2));
    assert!(out.contains(&send(B, confirm(3))), "{out:?}");
    let reads = out.iter().filter(|c| matches!(c, Command::Read { .. })).count();
    assert_eq!(reads, 1, "{out:?}");
    let out = rig.hear(B, confirmed(3));
    assert!(matches!(&out[..], [Command::Read { .. }]), "{out:?}");
    // Writes confirm themselves.
    let out = rig.submit(3, write(4, 1));
    assert!(matches!(out[0], Command::Append { .. }), "{out:?}");
}

#[test]
fn w4_an_orwrite_and_a_map_are_reads() {
    for op in [
        BlockOp::OrWrite {
            range: range(1, 1),
            data: data(1),
        },
        BlockOp::Map {
            from: Lba(1),
            runs: 1,
        },
    ] {
        let mut rig = confirming();
        assert_eq!(rig.submit(1, op), [send(B, confirm(2))]);
        let out = rig.hear(B, confirmed(2));
        assert!(
            matches!(&out[..], [Command::Read { .. } | Command::Map { .. }]),
            "{out:?}"
        );
    }
}

#[test]
fn w4_a_lost_answer_is_asked_for_again() {
    let mut rig = confirming();
    rig.submit(1, BlockOp::Read { range: range(1, 1) });
    let out: Vec<Command> = (0..6).flat_map(|_| rig.later(50)).collect();
    assert_eq!(out, [send(B, confirm(3))]);
    assert_eq!(rig.hear(B, confirmed(2)), [], "of an older round");
    let out = rig.hear(B, confirmed(3));
    assert!(matches!(&out[..], [Command::Read { .. }]), "{out:?}");
}

#[test]
fn w4_alone_in_the_set_the_cluster_is_asked() {
    let mut rig = confirming();
    rig.set_view(|view| {
        view.in_sync = vec![A];
        view.version = InSyncVersion(2);
    });
    let out = rig.submit(1, BlockOp::Read { range: range(1, 1) });
    assert_eq!(out, [Command::Confirm { round: 2 }]);
    assert_eq!(rig.hear(B, confirmed(2)), [], "it was not asked");
    let out = rig.on(Event::Confirmed { round: 2 });
    assert!(matches!(&out[..], [Command::Read { .. }]), "{out:?}");
}

#[test]
fn w4_a_replica_confirms_only_what_it_follows() {
    let mut rig = Rig::following();
    assert_eq!(rig.hear(A, confirm(7)), [send(A, confirmed(7))]);
    rig.set_view(|view| {
        view.epoch = Epoch(2);
        view.primary = Some(identity(B));
    });
    let newest = Epoch(2);
    assert_eq!(rig.hear(A, confirm(8)), [send(A, Message::Refused { newest })]);
}
