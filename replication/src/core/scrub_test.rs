//! Comparing a replica that is in sync.

use super::*;

#[path = "resync_test.rs"]
mod resync_test;

const GOOD: Digest = [1; 16];

/// The token of the hash here, and the number of the one that `b` is asked for.
fn hashing(out: &[Command]) -> Option<(IoToken, u64)> {
    let here = out.iter().find_map(|command| match command {
        Command::Hash { io, .. } => Some(*io),
        _ => None,
    });
    let there = out.iter().find_map(|command| match command {
        Command::Send {
            message: Message::HashRequest { id, .. },
            ..
        } => Some(*id),
        _ => None,
    });
    here.zip(there)
}

/// Feeds both sides' digests of the range that is being compared.
fn compared(rig: &mut Rig, (io, id): (IoToken, u64), mine: Digests, theirs: Digests) -> Vec<Command> {
    let mut out = rig.on(Event::Hashed { io, digests: mine });
    let (epoch, digests) = (Epoch(1), theirs);
    out.extend(rig.hear(B, Message::HashReply { epoch, id, digests }));
    out
}

fn sent(out: &[Command]) -> Option<Bytes> {
    out.iter().find_map(|command| match command {
        Command::Send {
            message: Message::Replicate { record, .. },
            ..
        } => match &record.body {
            RecordBody::Resync { data, .. } => data.clone(),
            _ => None,
        },
        _ => None,
    })
}

#[test]
fn i10_a_scrub_ends_where_everything_is_equal() {
    let mut rig = Rig::serving();
    let hashes = hashing(&rig.on(Event::Scrub)).unwrap();
    assert_eq!(hashing(&rig.on(Event::Scrub)), None, "it is under way");
    let status = rig.core.status().replicas.remove(0);
    assert!(status.scrub.is_some() && status.resync.is_none());
    compared(&mut rig, hashes, vec![Some(GOOD); 8], vec![Some(GOOD); 8]);
    let status = rig.core.status();
    assert_eq!((status.checks.scrubs, status.checks.found), (1, 0));
    assert!(status.replicas[0].scrub.is_none());
    assert_eq!(rig.core.table.len(), 0);
}

#[test]
fn i10_a_scrub_replaces_what_differs_on_the_replica_and_says_so() {
    let mut rig = Rig::serving();
    let hashes = hashing(&rig.on(Event::Scrub)).unwrap();
    let mut theirs = vec![Some(GOOD); 8];
    // One piece is bad there, and known to be; another is another than here, and nobody knows why.
    theirs[1] = None;
    theirs[6] = Some([2; 16]);
    let out = compared(&mut rig, hashes, vec![Some(GOOD); 8], theirs);
    let (io, wanted) = out
        .iter()
        .find_map(|command| match command {
            Command::Read { io, range } => Some((*io, *range)),
            _ => None,
        })
        .unwrap();
    assert_eq!(wanted, range(8, 48), "all between the first and the last piece");
    let whole: Vec<u8> = (0..48_u8).flat_map(|block| vec![block; 512]).collect();
    let data = Bytes::from(whole.clone());
    let out = rig.on(Event::ReadDone { io, data });
    let both = [&whole[..4096], &whole[40 * 512..]].concat();
    assert_eq!(sent(&out).unwrap(), both, "the two pieces travel");
    let checks = rig.core.status().checks;
    assert_eq!((checks.found, checks.repaired, checks.diverged), (8, 8, 8));
    // Once that is committed, and applied there, the range is compared again, and only then is it over. Until then nobody waits for it.
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let out = rig.hear(B, ack(1, 2));
    assert_eq!(hashing(&out), None);
    assert_eq!(rig.core.table.len(), 0, "nothing is held");
    let (epoch, durable, applied) = (Epoch(1), Lsn(2), Lsn(2));
    let out = rig.hear(
        B,
        Message::Ack {
            epoch,
            durable,
            applied,
            received: durable,
        },
    );
    let hashes = hashing(&out).unwrap();
    assert_eq!(rig.core.status().checks.scrubs, 0);
    compared(&mut rig, hashes, vec![Some(GOOD); 8], vec![Some(GOOD); 8]);
    assert_eq!(rig.core.status().checks.scrubs, 1);
}

#[test]
fn i10_a_scrub_repairs_what_is_bad_here_from_the_replica() {
    let mut rig = Rig::serving();
    let hashes = hashing(&rig.on(Event::Scrub)).unwrap();
    let mut mine = vec![Some(GOOD); 8];
    mine[2] = None;
    let out = compared(&mut rig, hashes, mine, vec![Some(GOOD); 8]);
    let asked = out.iter().any(|command| {
        matches!(command, Command::Send { message: Message::Fetch { range: wanted, .. }, .. } if *wanted == range(16, 8))
    });
    assert!(asked, "{out:?}");
}

#[test]
fn i10_a_scrub_does_not_hurry_and_ends_with_a_switchover() {
    let mut rig = Rig::new(A, Recovered::default());
    rig.core.config.resync_range_bytes = 4096;
    rig.core.config.scrub_rate = 40960;
    rig.link(B);
    rig.set_view(|_| ());
    let log = summary(EpochHistory::empty(), LogPos::EMPTY);
    rig.hear(B, Message::Summary { epoch: Epoch(1), log });
    rig.on(Event::Appended { seq: JournalSeq(1) });
    rig.hear(B, ack(1, 1));
    rig.later(10);
    let hashes = hashing(&rig.on(Event::Scrub)).unwrap();
    let equal = vec![Some(GOOD)];
    let out = compared(&mut rig, hashes, equal.clone(), equal);
    assert_eq!(hashing(&out), None, "4 KiB a tenth of a second");
    assert_eq!(hashing(&rig.later(50)), None);
    assert!(rig.core.deadline().is_some());
    assert!(hashing(&rig.later(60)).is_some());
    rig.on(Event::Switchover { to: B });
    assert!(rig.core.status().replicas[0].scrub.is_none());
    assert_eq!(rig.core.status().checks.scrubs, 0, "it is not over, it is due");
}

/// The applies that a core asks for, by lsn.
fn applies(out: &[Command]) -> Vec<(u64, IoToken)> {
    let apply = |command: &Command| match command {
        Command::Apply { io, record } => Some((record.pos.lsn.0, *io)),
        _ => None,
    };
    out.iter().filter_map(apply).collect()
}

/// What a scrub sends is several pieces in one record, to a replica that may be answering reads.
#[test]
fn i7_what_travels_in_pieces_is_overtaken_in_none_of_them() {
    let mut rig = Rig::following();
    rig.on(Event::Appended { seq: JournalSeq(3) });
    let (epoch, commit) = (Epoch(1), Lsn(3));
    rig.hear(A, Message::Commit { epoch, commit });
    for io in [IoToken(1), IoToken(2), IoToken(3)] {
        rig.on(Event::Applied { io });
    }
    let (id, at) = (77, Lsn(3));
    let wanted = range(8, 8);
    let fetch = Message::Fetch {
        epoch,
        id,
        range: wanted,
        at,
    };
    let reads = rig.hear(A, fetch);
    let io = reads
        .iter()
        .find_map(|command| match command {
            Command::Read { io, .. } => Some(*io),
            _ => None,
        })
        .unwrap();
    // While those blocks are read here, the two pieces come, and behind them a write to the second one.
    let pieces = Record {
        pos: pos(1, 4),
        commit: Lsn(3),
        name: None,
        body: RecordBody::Resync {
            ranges: Arc::from([range(8, 8), range(24, 8)]),
            data: Some(Bytes::from(vec![1; 16 * 512])),
        },
    };
    let mut newer = record(1, 5, 3, 2);
    newer.body = RecordBody::Write {
        range: range(25, 1),
        data: data(2),
    };
    rig.hear(A, replicate(1, pos(1, 3), pieces));
    rig.hear(A, replicate(1, pos(1, 4), newer));
    rig.on(Event::Appended { seq: JournalSeq(5) });
    let commit = Lsn(5);
    let out = rig.hear(A, Message::Commit { epoch, commit });
    assert_eq!(
        applies(&out),
        [],
        "neither goes before the read has ended, nor the newer one before the older"
    );
    let data = Bytes::from(vec![0; 8 * 512]);
    let out = rig.on(Event::ReadDone { io, data });
    let older = applies(&out);
    assert_eq!(older.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), [4]);
    let out = rig.on(Event::Applied { io: older[0].1 });
    assert_eq!(applies(&out).iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), [5]);
}

/// The first range that a scrub compares, and a write to it that waits.
fn held() -> (Rig, (IoToken, u64)) {
    let mut rig = Rig::serving();
    let hashes = hashing(&rig.on(Event::Scrub)).unwrap();
    let out = rig.submit(1, write(3, 7));
    let appends = out
        .iter()
        .any(|command| matches!(command, Command::Append { .. }));
    assert!(!appends, "the range is being read: {out:?}");
    (rig, hashes)
}

fn is_appended(out: &[Command]) -> bool {
    out.iter()
        .any(|command| matches!(command, Command::Append { .. }))
}

#[test]
fn i10_a_replica_that_does_not_read_holds_no_write_up() {
    let (mut rig, (io, id)) = held();
    let digests = vec![Some(GOOD); 8];
    rig.on(Event::Hashed { io, digests });
    assert!(!is_appended(&rig.later(900)));
    assert!(is_appended(&rig.later(200)), "its range is let go");
    // Late, and of no use: the write may have changed what was read here.
    let (epoch, digests) = (Epoch(1), vec![Some([2; 16]); 8]);
    let out = rig.hear(B, Message::HashReply { epoch, id, digests });
    assert!(
        !out.iter().any(|command| matches!(command, Command::Read { .. })),
        "{out:?}"
    );
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let out = rig.hear(B, ack(1, 2));
    let (_, io) = applies(&out)[0];
    rig.on(Event::Applied { io });
    assert_eq!(hashing(&rig.later(4000)), None);
    let hashes = hashing(&rig.later(1100)).expect("it is compared later");
    compared(&mut rig, hashes, vec![Some(GOOD); 8], vec![Some(GOOD); 8]);
    let checks = rig.core.status().checks;
    assert_eq!((checks.scrubs, checks.diverged), (1, 0));
    assert_eq!(rig.core.table.len(), 0);
}

#[test]
fn i10_a_disk_here_that_does_not_read_holds_no_write_up() {
    let (mut rig, (io, id)) = held();
    let (epoch, digests) = (Epoch(1), vec![Some(GOOD); 8]);
    rig.hear(B, Message::HashReply { epoch, id, digests });
    assert!(is_appended(&rig.later(1100)), "its range is let go");
    let digests = vec![Some(GOOD); 8];
    rig.on(Event::Hashed { io, digests });
    assert!(rig.core.status().replicas[0].scrub.is_some());
    assert_eq!(rig.core.status().checks.scrubs, 0);
}

#[test]
fn i10_a_scrub_ends_with_its_link_and_goes_on_with_the_replica_that_comes_back() {
    let mut rig = Rig::serving();
    let hashes = hashing(&rig.on(Event::Scrub)).unwrap();
    rig.on(Event::PeerDown { node: B, link: LINK });
    assert!(rig.core.status().replicas[0].scrub.is_none());
    let io = hashes.0;
    let digests = vec![Some(GOOD); 8];
    rig.on(Event::Hashed { io, digests });
    assert_eq!(rig.core.table.len(), 0);
    assert_eq!(hashing(&rig.on(Event::Scrub)), None, "nobody can be compared");
    rig.link(B);
    let log = summary(rig.core.history(), pos(1, 1));
    rig.hear(B, Message::Summary { epoch: Epoch(1), log });
    let hashes = hashing(&rig.on(Event::Scrub)).expect("b again");
    compared(&mut rig, hashes, vec![Some(GOOD); 8], vec![Some(GOOD); 8]);
    assert_eq!(rig.core.status().checks.scrubs, 1);
}

#[test]
fn i10_a_scrub_alone_has_nobody_to_compare_with() {
    let mut rig = Rig::serving();
    hashing(&rig.on(Event::Scrub)).unwrap();
    rig.on(Event::PeerDown { node: B, link: LINK });
    rig.set_view(|view| {
        view.version = InSyncVersion(2);
        view.in_sync = vec![A];
    });
    assert_eq!(hashing(&rig.on(Event::Scrub)), None);
    let status = rig.core.status();
    assert_eq!((status.checks.scrubs, status.replicas[0].scrub), (0, None));
}
