//! Single steps, command by command.

use super::ExtentCore;
use super::api::*;
use bytes::Bytes;
use holdfast_types::{
    BlockOp, BlockRange, BlockSize, CommandName, Epoch, ExtentId, InSyncVersion, Incarnation, Lba,
    LeaseGeneration, LogPos, Lsn, Mono, NodeId, OpOutcome, Origin, Revision, SessionInstance,
};
use std::sync::Arc;
use std::time::Duration;

#[path = "broken_test.rs"]
mod broken_test;
#[path = "early_test.rs"]
mod early_test;
#[path = "forward_test.rs"]
mod forward_test;
#[path = "given_up_test.rs"]
mod given_up_test;
#[path = "lease_test.rs"]
mod lease_test;
#[path = "leave_test.rs"]
mod leave_test;
#[path = "promote_test.rs"]
mod promote_test;
#[path = "query_test.rs"]
mod query_test;
#[path = "repair_test.rs"]
mod repair_test;
#[path = "replay_test.rs"]
mod replay_test;
#[path = "room_test.rs"]
mod room_test;
#[path = "stuck_test.rs"]
mod stuck_test;
#[path = "unit_test.rs"]
mod unit_test;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const LINK: LinkId = LinkId(9);

fn identity(node: NodeId) -> Identity {
    let incarnation = Incarnation(1);
    Identity { node, incarnation }
}

fn pos(epoch: u64, lsn: u64) -> LogPos {
    LogPos::new(Epoch(epoch), Lsn(lsn))
}

/// A log that is whole, and applied as far as it is known to be committed.
fn summary(history: EpochHistory, committed: LogPos) -> LogSummary {
    LogSummary {
        history,
        committed,
        applied: committed,
        unapplied: vec![],
        base: None,
        damaged: false,
        fenced: false,
        stuck: false,
    }
}

fn range(lba: u64, blocks: u64) -> BlockRange {
    BlockRange::new(Lba(lba), blocks).unwrap()
}

fn data(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 512])
}

fn name(node: NodeId, cmd_sn: u64) -> CommandName {
    let session = SessionInstance {
        node,
        incarnation: Incarnation(1),
        serial: 1,
    };
    CommandName { session, cmd_sn }
}

fn write(lba: u64, byte: u8) -> BlockOp {
    BlockOp::Write {
        range: range(lba, 1),
        data: data(byte),
        fua: false,
    }
}

fn record(epoch: u64, lsn: u64, commit: u64, byte: u8) -> Record {
    Record {
        pos: pos(epoch, lsn),
        commit: Lsn(commit),
        name: Some(name(A, lsn)),
        body: RecordBody::Write {
            range: range(lsn, 1),
            data: data(byte),
        },
    }
}

/// A core, its clock, and what it asked for.
struct Rig {
    core: ExtentCore,
    ctx: Ctx,
    view: View,
    /// Of commands that are submitted.
    origin: Origin,
}

impl Rig {
    fn new(me: NodeId, recovered: Recovered) -> Self {
        let state = |node| NodeState {
            node,
            suspect: false,
            generation: LeaseGeneration(0),
        };
        let ctx = Ctx {
            now: Mono::ZERO + Duration::from_secs(100),
            lease_until: Some(Mono::ZERO + Duration::from_secs(1000)),
            generation: LeaseGeneration(0),
            quorum: true,
        };
        let view = View {
            revision: Revision(1),
            epoch: Epoch(1),
            primary: Some(identity(A)),
            version: InSyncVersion(1),
            in_sync: vec![A, B],
            replicas: vec![A, B],
            blocks: 64,
            block_size: BlockSize::B512,
            unit: Arc::default(),
            nodes: vec![state(A), state(B)],
            retiring: Default::default(),
            cache: Default::default(),
            policy: Policy::default(),
        };
        let core = ExtentCore::new(identity(me), ExtentId::from_u128(1), Config::default(), recovered);
        let origin = Origin::default();
        Self {
            core,
            ctx,
            view,
            origin,
        }
    }

    fn on(&mut self, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        self.core.handle(&self.ctx, event, &mut out);
        out.retain(|command| !matches!(command, Command::Note(_)));
        out
    }

    fn set_view(&mut self, change: impl FnOnce(&mut View)) -> Vec<Command> {
        self.view.revision = self.view.revision.next();
        change(&mut self.view);
        let view = Arc::new(self.view.clone());
        self.on(Event::View(view))
    }

    fn hear(&mut self, from: NodeId, message: Message) -> Vec<Command> {
        let link = LINK;
        self.on(Event::Message { from, link, message })
    }

    fn link(&mut self, node: NodeId) -> Vec<Command> {
        let peer = identity(node);
        self.on(Event::PeerUp { peer, link: LINK })
    }

    fn later(&mut self, ms: u64) -> Vec<Command> {
        self.ctx.now = self.ctx.now + Duration::from_millis(ms);
        self.on(Event::Tick)
    }

    fn submit(&mut self, op: u64, request: BlockOp) -> Vec<Command> {
        let request = Request {
            name: name(self.core.me.node, op),
            received: self.ctx.now,
            generation: self.ctx.generation,
            origin: self.origin,
            op: request,
        };
        self.on(Event::Submit {
            op: OpId(op),
            request,
        })
    }

    /// `a`, serving epoch 1 with `b` following: the first record, (1,1), is committed.
    fn serving() -> Self {
        let mut rig = Self::new(A, Recovered::default());
        rig.link(B);
        rig.set_view(|_| ());
        let log = summary(EpochHistory::empty(), LogPos::EMPTY);
        rig.hear(B, Message::Summary { epoch: Epoch(1), log });
        rig.on(Event::Appended { seq: JournalSeq(1) });
        rig.hear(B, ack(1, 1));
        rig.later(10);
        assert_eq!(rig.core.status().role, RoleName::Primary);
        rig
    }

    /// `b`, following `a` in epoch 1, with records 1 to 3 of which 1 is committed.
    fn following() -> Self {
        let mut rig = Self::new(B, Recovered::default());
        rig.link(A);
        rig.set_view(|_| ());
        rig.hear(A, Message::Probe { epoch: Epoch(1) });
        let after = LogPos::EMPTY;
        rig.hear(
            A,
            Message::Adopt {
                epoch: Epoch(1),
                after,
            },
        );
        for lsn in 1..=3 {
            rig.hear(
                A,
                replicate(
                    1,
                    if lsn == 1 { LogPos::EMPTY } else { pos(1, lsn - 1) },
                    record(1, lsn, 0, 7),
                ),
            );
        }
        rig.hear(
            A,
            Message::Commit {
                epoch: Epoch(1),
                commit: Lsn(1),
            },
        );
        rig
    }
}

fn ack(epoch: u64, durable: u64) -> Message {
    Message::Ack {
        epoch: Epoch(epoch),
        durable: Lsn(durable),
        applied: Lsn(0),
        received: Lsn(durable),
    }
}

fn replicate(epoch: u64, prev: LogPos, record: Record) -> Message {
    let epoch = Epoch(epoch);
    Message::Replicate { epoch, prev, record }
}

fn send(to: NodeId, message: Message) -> Command {
    let link = LINK;
    Command::Send { to, link, message }
}

fn complete(op: u64, outcome: OpOutcome) -> Command {
    let op = OpId(op);
    Command::Complete { op, outcome }
}

fn propose(out: &[Command]) -> Option<Change> {
    out.iter().find_map(|command| match command {
        Command::Propose(proposal) => Some(proposal.change),
        _ => None,
    })
}

#[test]
fn e5_a_new_primary_settles_its_tail_before_it_answers() {
    let tail: Vec<Record> = (1..=2).map(|lsn| record(1, lsn, 0, 5)).collect();
    let recovered = Recovered {
        tail,
        ..Recovered::default()
    };
    let mut rig = Rig::new(A, recovered);
    rig.link(B);
    let out = rig.set_view(|view| view.epoch = Epoch(2));
    let start = Record {
        pos: pos(2, 3),
        commit: Lsn(0),
        name: None,
        body: RecordBody::EpochStart,
    };
    let seq = JournalSeq(1);
    let record_start = start.clone();
    assert_eq!(
        out,
        [
            send(B, Message::Probe { epoch: Epoch(2) }),
            Command::Append { seq, record: start }
        ]
    );
    assert_eq!(rig.submit(1, BlockOp::Read { range: range(1, 1) }), [], "held");
    // b has a record of epoch 1 that a does not have, and lacks (1,2).
    let log = summary(
        EpochHistory::from_lasts(vec![pos(0, 0), pos(1, 1)]).unwrap(),
        pos(1, 1),
    );
    let out = rig.hear(B, Message::Summary { epoch: Epoch(2), log });
    let after = pos(1, 1);
    assert_eq!(
        out,
        [
            send(
                B,
                Message::Adopt {
                    epoch: Epoch(2),
                    after
                }
            ),
            send(B, replicate(2, pos(1, 1), record(1, 2, 0, 5))),
            send(B, replicate(2, pos(1, 2), record_start)),
            send(
                B,
                Message::Commit {
                    epoch: Epoch(2),
                    commit: Lsn(0)
                }
            ),
        ]
    );
    assert_eq!(rig.on(Event::Appended { seq }), []);
    let out = rig.hear(B, ack(2, 3));
    assert!(
        matches!(&out[..], [Command::Apply { .. }, Command::Apply { .. }]),
        "committed, to be applied: {out:?}"
    );
    let tokens = [1, 2].map(IoToken);
    assert_eq!(rig.on(Event::Applied { io: tokens[0] }), []);
    let out = rig.on(Event::Applied { io: tokens[1] });
    assert!(matches!(out[..], [Command::Read { .. }]), "now it reads: {out:?}");
}

#[test]
fn w2_a_write_is_done_once_both_have_it_stable_and_a_read_waits_until_it_is_applied() {
    let mut rig = Rig::serving();
    let out = rig.submit(1, write(4, 1));
    let mut made = record(1, 2, 1, 1);
    made.name = Some(name(A, 1));
    made.body = RecordBody::Write {
        range: range(4, 1),
        data: data(1),
    };
    let seq = JournalSeq(2);
    assert_eq!(
        out,
        [
            Command::Append {
                seq,
                record: made.clone()
            },
            send(B, replicate(1, pos(1, 1), made.clone()))
        ]
    );
    assert_eq!(rig.hear(B, ack(1, 2)), [], "not stable here");
    let out = rig.on(Event::Appended { seq });
    let [Command::Apply { io, record }, done] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!((record, done), (&made, &complete(1, OpOutcome::Done)));
    let io = *io;
    let read = BlockOp::Read { range: range(4, 1) };
    assert_eq!(rig.submit(2, read), [], "the extent has the old contents still");
    let out = rig.on(Event::Applied { io });
    assert!(matches!(out[..], [Command::Read { .. }]), "{out:?}");
    let commit = Message::Commit {
        epoch: Epoch(1),
        commit: Lsn(2),
    };
    assert_eq!(rig.later(6), [send(B, commit)], "the commit position goes alone");
}

#[test]
fn a_lost_replica_is_asked_out_at_once_and_writes_wait_for_the_commit() {
    let mut rig = Rig::serving();
    rig.submit(1, write(4, 1));
    let out = rig.on(Event::PeerDown { node: B, link: LINK });
    assert_eq!(propose(&out), Some(Change::Shrink { node: B }));
    assert_eq!(rig.on(Event::Appended { seq: JournalSeq(2) }), []);
    assert_eq!(
        propose(&rig.later(300)),
        Some(Change::Shrink { node: B }),
        "asked again"
    );
    let out = rig.set_view(|view| {
        view.in_sync = vec![A];
        view.version = InSyncVersion(2);
    });
    assert!(
        matches!(out[..], [Command::Apply { .. }, Command::Complete { .. }]),
        "{out:?}"
    );
}

#[test]
fn e4_a_replica_refuses_older_epochs_by_name() {
    let mut rig = Rig::following();
    rig.set_view(|view| {
        view.epoch = Epoch(3);
        view.primary = Some(Identity {
            node: A,
            incarnation: Incarnation(2),
        });
    });
    let refused = [send(A, Message::Refused { newest: Epoch(3) })];
    assert_eq!(rig.hear(A, replicate(1, pos(1, 3), record(1, 4, 1, 7))), refused);
    assert_eq!(rig.hear(A, Message::Probe { epoch: Epoch(2) }), refused);
    let commit = Message::Commit {
        epoch: Epoch(1),
        commit: Lsn(3),
    };
    assert_eq!(rig.hear(A, commit), refused);
}

#[test]
fn e5_a_replica_drops_what_the_new_primary_does_not_hold() {
    let mut rig = Rig::following();
    let mut out = rig.on(Event::Appended { seq: JournalSeq(3) });
    let ack3 = Message::Ack {
        epoch: Epoch(1),
        durable: Lsn(3),
        applied: Lsn(0),
        received: Lsn(3),
    };
    assert_eq!(out.pop(), Some(send(A, ack3)));
    rig.hear(A, Message::Probe { epoch: Epoch(2) });
    let after = pos(1, 2);
    let out = rig.hear(
        A,
        Message::Adopt {
            epoch: Epoch(2),
            after,
        },
    );
    let ack2 = Message::Ack {
        epoch: Epoch(2),
        durable: Lsn(2),
        applied: Lsn(0),
        received: Lsn(2),
    };
    let seq = JournalSeq(4);
    assert_eq!(out, [Command::Truncate { seq, after }, send(A, ack2.clone())]);
    // What is committed cannot be cut. A primary that goes by the first of two answers is asked to look again, and not blamed.
    rig.hear(A, Message::Probe { epoch: Epoch(2) });
    let refused = send(A, Message::Refused { newest: Epoch(2) });
    for (after, blamed) in [(LogPos::EMPTY, 0), (pos(7, 1), 1)] {
        let event = Event::Message {
            from: A,
            link: LINK,
            message: Message::Adopt {
                epoch: Epoch(2),
                after,
            },
        };
        let mut out = Vec::new();
        rig.core.handle(&rig.ctx, event, &mut out);
        let bad = |command: &&Command| matches!(command, Command::Note(Note::BadMessage { .. }));
        assert_eq!(out.iter().filter(bad).count(), blamed, "{after}");
        assert_eq!(out.last(), Some(&refused));
    }
}

#[test]
fn r1_the_base_is_told_until_the_barrier_is_committed() {
    let mut rig = Rig::following();
    let out = rig.set_view(|view| {
        view.in_sync = vec![A];
        view.version = InSyncVersion(2);
    });
    assert_eq!(out, []);
    rig.hear(A, Message::Probe { epoch: Epoch(1) });
    let history = EpochHistory::from_lasts(vec![pos(0, 0), pos(1, 50)]).unwrap();
    let version = InSyncVersion(2);
    let out = rig.hear(
        A,
        Message::Restart {
            epoch: Epoch(1),
            version,
            from: pos(1, 50),
            history: history.clone(),
        },
    );
    // Record 1 is committed but not applied yet: not counted as complete.
    let base = Base {
        pos: LogPos::EMPTY,
        version,
    };
    let restart = Command::Restart {
        seq: JournalSeq(4),
        base,
        from: pos(1, 50),
        history,
    };
    assert_eq!(out[0], restart);
    rig.hear(A, replicate(1, pos(1, 50), record(1, 51, 50, 7)));
    let out = rig.hear(A, Message::Probe { epoch: Epoch(1) });
    let [
        Command::Send {
            message: Message::Summary { log, .. },
            ..
        },
    ] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!((log.base, log.history.end()), (Some(base), pos(1, 51)));
    let out = rig.set_view(|view| {
        view.in_sync = vec![A, B];
        view.version = InSyncVersion(3);
    });
    assert_eq!(out, [Command::ClearBase { seq: JournalSeq(6) }]);
}

#[test]
fn e1_a_primary_that_restarted_serves_only_in_a_new_epoch() {
    let mut rig = Rig::new(A, Recovered::default());
    rig.core.me.incarnation = Incarnation(2);
    let out = rig.set_view(|_| ());
    assert_eq!(propose(&out), Some(Change::Reopen));
    assert_eq!(rig.submit(1, BlockOp::Read { range: range(0, 1) }), []);
    assert_eq!(
        rig.later(3100),
        [complete(1, OpOutcome::Transitioning), out[0].clone()]
    );
}

#[test]
fn compare_and_write_decides_under_its_range() {
    let mut rig = Rig::serving();
    let swap = BlockOp::CompareAndWrite {
        range: range(0, 1),
        expect: data(0),
        data: data(1),
    };
    let out = rig.submit(1, swap.clone());
    let [Command::Read { io, .. }] = out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(rig.submit(2, write(0, 9)), [], "waits for the decision");
    let out = rig.on(Event::ReadDone { io, data: data(0) });
    let lsns: Vec<Lsn> = out
        .iter()
        .filter_map(|command| match command {
            Command::Append { record, .. } => Some(record.pos.lsn),
            _ => None,
        })
        .collect();
    assert_eq!(lsns, [Lsn(2), Lsn(3)], "then the later write follows it");
    let other = BlockOp::CompareAndWrite {
        range: range(7, 1),
        expect: data(1),
        data: data(2),
    };
    let out = rig.submit(3, other);
    let [Command::Read { io, .. }] = out[..] else {
        panic!("{out:?}")
    };
    let event = Event::ReadDone { io, data: data(0) };
    assert_eq!(rig.on(event), [complete(3, OpOutcome::Miscompare { offset: 0 })]);
}

#[test]
fn w1_what_waited_too_long_gets_no_lsn() {
    let mut rig = Rig::new(A, Recovered::default());
    rig.set_view(|view| view.primary = None);
    assert_eq!(rig.submit(1, write(0, 1)), []);
    assert_eq!(rig.later(2999), []);
    assert_eq!(rig.later(60), [complete(1, OpOutcome::Transitioning)]);
    rig.ctx.quorum = false;
    assert_eq!(rig.submit(2, write(0, 1)), []);
    assert_eq!(rig.later(3100), [complete(2, OpOutcome::Reset)]);
}

/// A command that b forwards.
fn forward_of(op: u64, epoch: u64, again: bool, origin: Origin, request: BlockOp) -> Message {
    Message::Forward {
        op: OpId(op),
        epoch: Epoch(epoch),
        name: name(B, op),
        generation: LeaseGeneration(0),
        waited: Duration::ZERO,
        origin,
        again,
        request,
    }
}

fn forward(rig: &mut Rig, op: u64, epoch: u64, again: bool) -> Vec<Command> {
    let message = forward_of(op, epoch, again, Origin::default(), write(3, 3));
    rig.hear(B, message)
}

fn forwarded(op: u64, epoch: u64, answer: ForwardAnswer) -> Command {
    let (op, epoch) = (OpId(op), Epoch(epoch));
    send(B, Message::Forwarded { op, epoch, answer })
}

#[test]
fn f1_forwards_of_an_old_generation_or_epoch_are_refused() {
    let mut rig = Rig::serving();
    assert_eq!(
        forward(&mut rig, 1, 7, false),
        [forwarded(1, 7, ForwardAnswer::NotPrimary)]
    );
    rig.set_view(|view| view.nodes[1].generation = LeaseGeneration(1));
    assert_eq!(
        forward(&mut rig, 1, 1, false),
        [forwarded(1, 1, ForwardAnswer::Refused)]
    );
}

/// Found by the simulator: a write with an lsn was answered with a reset while its shrink was pending; a read missed it, the next one saw
/// it.
#[test]
fn i11_a_read_waits_for_a_write_whose_sender_was_told_that_its_fate_is_open() {
    let mut rig = Rig::serving();
    rig.submit(1, write(4, 1));
    rig.on(Event::PeerDown { node: B, link: LINK });
    let out = rig.submit(2, BlockOp::Read { range: range(4, 1) });
    let [Command::Read { io, .. }] = out[..] else {
        panic!("not answered yet, so it may be missed: {out:?}")
    };
    rig.on(Event::ReadDone { io, data: data(0) });
    let out = rig.later(3100);
    assert!(out.contains(&complete(1, OpOutcome::Reset)), "{out:?}");
    assert_eq!(rig.submit(3, BlockOp::Read { range: range(4, 1) }), []);
    let out = rig.submit(4, BlockOp::Read { range: range(5, 1) });
    assert!(matches!(out[..], [Command::Read { .. }]), "another block is free");
}

#[test]
fn e6_handed_back_is_undone_only_by_commit() {
    let mut rig = Rig::serving();
    let out = rig.on(Event::Switchover { to: B });
    let to = identity(B);
    assert_eq!(propose(&out), Some(Change::Switchover { to }));
    assert_eq!(rig.submit(1, BlockOp::Read { range: range(0, 1) }), []);
    assert_eq!(propose(&rig.later(2001)), Some(Change::Reopen));
    assert_eq!(rig.core.status().role, RoleName::HandedBack);
    rig.set_view(|view| view.epoch = Epoch(2));
    assert_eq!(rig.core.status().role, RoleName::Settling);
}

#[test]
fn j2_a_fenced_primary_hands_over_and_answers_nothing() {
    let mut rig = Rig::serving();
    let out = rig.submit(1, BlockOp::Read { range: range(0, 1) });
    let [Command::Read { io, .. }] = out[..] else {
        panic!("{out:?}")
    };
    let reason = FenceReason::Extent;
    let out = rig.on(Event::Failed { reason });
    assert_eq!(propose(&out), Some(Change::HandOver));
    assert_eq!(rig.on(Event::ReadDone { io, data: data(0) }), []);
    assert_eq!(rig.core.status().role, RoleName::Fenced);
}
