//! ORWRITE and GET LBA STATUS.

use holdfast_types::MappedRun;

use super::*;

fn or_write(lba: u64, byte: u8) -> BlockOp {
    BlockOp::OrWrite {
        range: range(lba, 1),
        data: data(byte),
    }
}

/// Its record is what was there, or'ed with what came; a later write of the block follows it.
#[test]
fn or_write_reads_and_writes_in_one_step() {
    let mut rig = Rig::serving();
    let out = rig.submit(1, or_write(0, 0x0f));
    let [Command::Read { io, .. }] = out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(rig.submit(2, write(0, 9)), [], "waits for it");
    let out = rig.on(Event::ReadDone { io, data: data(0x81) });
    let bodies: Vec<RecordBody> = out
        .iter()
        .filter_map(|command| match command {
            Command::Append { record, .. } => Some(record.body.clone()),
            _ => None,
        })
        .collect();
    let wanted = |byte| RecordBody::Write {
        range: range(0, 1),
        data: data(byte),
    };
    assert_eq!(bodies, [wanted(0x8f), wanted(9)]);
}

fn map(from: u64) -> BlockOp {
    BlockOp::Map {
        from: Lba(from),
        runs: 4,
    }
}

fn runs() -> Vec<MappedRun> {
    vec![MappedRun {
        range: range(3, 2),
        mapped: true,
    }]
}

/// What was acknowledged before a map came is in it, though writes are acknowledged before they are applied.
#[test]
fn w3_a_map_waits_for_what_was_acknowledged() {
    let mut rig = Rig::serving();
    let zero = BlockOp::Zero {
        ranges: vec![range(5, 2)],
    };
    rig.submit(1, zero);
    rig.hear(B, ack(1, 2));
    let out = rig.on(Event::Appended { seq: JournalSeq(2) });
    let [Command::Apply { io, .. }, done] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(*done, complete(1, OpOutcome::Done));
    let io = *io;
    assert_eq!(rig.submit(2, map(3)), [], "the blocks are mapped still");
    let behind = rig.submit(3, map(7));
    assert!(
        matches!(behind[..], [Command::Map { from: Lba(7), .. }]),
        "{behind:?}"
    );
    let out = rig.on(Event::Applied { io });
    let [Command::Map { io, from, runs: 4 }] = out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(from, Lba(3));
    let answered = rig.on(Event::Mapped { io, runs: runs() });
    assert_eq!(answered, [complete(2, OpOutcome::Map(runs()))]);
}

/// A map that was taken before the lease ran out is not answered with (W3); it is asked again when the lease is back.
#[test]
fn w3_a_map_needs_the_lease_after_it_was_taken() {
    let mut rig = Rig::serving();
    let out = rig.submit(1, map(0));
    let [Command::Map { io, .. }] = out[..] else {
        panic!("{out:?}")
    };
    let until = rig.ctx.lease_until.take();
    let out = rig.on(Event::Mapped { io, runs: runs() });
    assert!(
        !out.iter()
            .any(|command| matches!(command, Command::Complete { .. })),
        "{out:?}"
    );
    rig.ctx.lease_until = until;
    let out = rig.on(Event::Tick);
    assert!(matches!(out[..], [Command::Map { .. }]), "{out:?}");
}
