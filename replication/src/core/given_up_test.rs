//! Writes that have their position and are still under way when their initiator gives them up (I11): once a read has missed one, it must
//! not turn up any more.

use super::*;

fn read(lba: u64) -> BlockOp {
    BlockOp::Read { range: range(lba, 1) }
}

fn reads(out: &[Command]) -> bool {
    out.iter().any(|one| matches!(one, Command::Read { .. }))
}

/// The replica stores the write at last.
fn let_it_complete(rig: &mut Rig) -> Vec<Command> {
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let out = rig.hear(B, ack(1, 2));
    let io = out.iter().find_map(|one| match one {
        Command::Apply { io, .. } => Some(*io),
        _ => None,
    });
    let io = io.expect("it is applied once it is committed");
    rig.on(Event::Applied { io })
}

/// Found by the simulator: a replica was slow, and the initiator's path timer shorter than that.
#[test]
fn i11_reads_wait_for_a_write_whose_session_is_gone() {
    let mut rig = Rig::serving();
    rig.submit(1, write(4, 1));
    let session = name(A, 1).session;
    let scope = AbortScope::Session(session);
    assert_eq!(rig.on(Event::Abort { scope }), [], "it completes (W1)");
    assert_eq!(rig.submit(2, read(4)), [], "another initiator's");
    assert!(reads(&rig.submit(3, read(5))), "another block is free");
    assert!(reads(&let_it_complete(&mut rig)), "now it is seen");
}

#[test]
fn i11_reads_wait_for_a_write_that_is_older_than_the_hold_limit() {
    let mut rig = Rig::serving();
    rig.submit(1, write(4, 1));
    let out = rig.submit(2, read(4));
    let [Command::Read { io, .. }] = out[..] else {
        panic!("it may still be missed: {out:?}")
    };
    let missed = complete(2, OpOutcome::Data(data(0)));
    assert_eq!(rig.on(Event::ReadDone { io, data: data(0) }), [missed]);
    rig.later(3100);
    assert_eq!(rig.submit(3, read(4)), []);
    assert!(reads(&let_it_complete(&mut rig)));
}
