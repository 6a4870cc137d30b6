//! What a replica in resync is asked for, and when it answers.

use super::*;

fn hash_request(id: u64, blocks: BlockRange, at: u64) -> Message {
    Message::HashRequest {
        epoch: Epoch(1),
        id,
        range: blocks,
        at: Lsn(at),
    }
}

fn hashed(out: &[Command]) -> Option<BlockRange> {
    out.iter().find_map(|command| match command {
        Command::Hash { range, .. } => Some(*range),
        _ => None,
    })
}

fn applied_told(out: &[Command]) -> Option<Lsn> {
    out.iter().find_map(|command| match command {
        Command::Send {
            message: Message::Ack { applied, .. },
            ..
        } => Some(*applied),
        _ => None,
    })
}

/// Has all three records of [`Rig::following`] committed; tells what is being applied.
fn commit_three(rig: &mut Rig) -> Vec<IoToken> {
    let out = rig.hear(A, commit(3));
    // The first one has been committed before.
    std::iter::once(IoToken(1)).chain(applies(&out)).collect()
}

fn commit(lsn: u64) -> Message {
    Message::Commit {
        epoch: Epoch(1),
        commit: Lsn(lsn),
    }
}

fn applies(out: &[Command]) -> Vec<IoToken> {
    let applies = out.iter().filter_map(|command| match command {
        Command::Apply { io, .. } => Some(*io),
        _ => None,
    });
    applies.collect()
}

/// Contents of one range may be on their way while another one is compared.
#[test]
fn r2_a_hash_waits_for_what_touches_its_blocks_and_for_no_other() {
    let mut rig = Rig::following();
    let tokens = commit_three(&mut rig);
    assert_eq!(tokens.len(), 3);
    assert_eq!(hashed(&rig.hear(A, hash_request(1, range(0, 8), 3))), None);
    let out = rig.hear(A, hash_request(2, range(32, 8), 0));
    assert_eq!(hashed(&out), Some(range(32, 8)));
    for io in &tokens[..2] {
        assert_eq!(hashed(&rig.on(Event::Applied { io: *io })), None);
    }
    assert_eq!(
        hashed(&rig.on(Event::Applied { io: tokens[2] })),
        Some(range(0, 8))
    );
}

/// The primary holds a range anew only once its contents have arrived, so it is told of that at once.
#[test]
fn r2_contents_that_a_resync_brings_are_acknowledged_when_they_are_applied() {
    let mut rig = Rig::following();
    for io in commit_three(&mut rig) {
        let out = rig.on(Event::Applied { io });
        assert_eq!(applied_told(&out), None, "nobody waits for these");
    }
    let record = Record {
        pos: pos(1, 4),
        commit: Lsn(3),
        name: None,
        body: RecordBody::Resync {
            ranges: vec![range(8, 8)].into(),
            data: Some(Bytes::from(vec![7; 8 * 512])),
        },
    };
    rig.hear(A, replicate(1, pos(1, 3), record));
    let io = applies(&rig.hear(A, commit(4)))[0];
    let out = rig.on(Event::Applied { io });
    assert_eq!(applied_told(&out), Some(Lsn(4)));
}

/// As old as can be told: what touches other blocks does not count.
#[test]
fn r2_the_newest_record_on_some_blocks_is_found() {
    let mut rig = Rig::following();
    commit_three(&mut rig);
    let log = &rig.core.log;
    assert_eq!(log.newest_on(range(2, 1)), Lsn(2));
    assert_eq!(log.newest_on(range(0, 8)), Lsn(3));
    assert_eq!(log.newest_on(range(40, 8)), Lsn(0));
}

/// Commands that come one after the other are as good as one that is always open.
#[test]
fn r2_initiators_wait_for_a_moment_longer_than_their_commands() {
    let mut rig = Rig::serving();
    assert!(!rig.core.initiators_wait(&rig.ctx));
    let out = rig.submit(1, BlockOp::Read { range: range(1, 1) });
    assert!(rig.core.initiators_wait(&rig.ctx));
    let Some(Command::Read { io, .. }) = out.first() else {
        panic!("{out:?}");
    };
    let data = Bytes::from(vec![0; 512]);
    let out = rig.on(Event::ReadDone { io: *io, data });
    assert!(matches!(out.first(), Some(Command::Complete { .. })), "{out:?}");
    assert!(rig.core.initiators_wait(&rig.ctx));
    rig.later(crate::core::resync::BUSY_FOR.as_millis().try_into().unwrap());
    assert!(!rig.core.initiators_wait(&rig.ctx));
}
