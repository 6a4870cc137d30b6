//! A log's tail may be long: it is applied in portions, in order where records overlap.

use bytes::Bytes;
use holdfast_types::{
    BlockRange, Epoch, ExtentId, Incarnation, Lba, LeaseGeneration, LogPos, Lsn, Mono, NodeId,
};

use super::api::{Command, Config, Ctx, Event, Identity, Record, RecordBody, Recovered};
use super::{APPLY_WINDOW, ExtentCore};

const BLOCKS: u64 = 50;

fn record(lsn: u64) -> Record {
    Record {
        pos: LogPos::new(Epoch(1), Lsn(lsn)),
        commit: Lsn(0),
        name: None,
        body: RecordBody::Write {
            range: BlockRange::new(Lba(lsn % BLOCKS), 2).unwrap(),
            data: Bytes::from(vec![0; 1024]),
        },
    }
}

#[test]
fn j3_a_long_tail_is_applied_in_portions_and_in_order() {
    const RECORDS: u64 = 20_000;
    let recovered = Recovered {
        tail: (1..=RECORDS).map(record).collect(),
        commit: Lsn(RECORDS),
        ..Recovered::default()
    };
    let me = Identity {
        node: NodeId(1),
        incarnation: Incarnation(1),
    };
    let mut core = ExtentCore::new(me, ExtentId::from_u128(1), Config::default(), recovered);
    let ctx = Ctx {
        now: Mono::ZERO,
        lease_until: None,
        generation: LeaseGeneration(0),
        quorum: false,
    };
    let mut out = Vec::new();
    core.handle(&ctx, Event::Tick, &mut out);
    let mut last = vec![Lsn(0); usize::try_from(BLOCKS).unwrap() + 1];
    let mut applied = 0;
    while let Some(command) = out.pop() {
        let Command::Apply { io, record } = command else {
            continue;
        };
        for lba in record
            .body
            .ranges()
            .iter()
            .flat_map(|range| range.lba().0..range.end().0)
        {
            let before = &mut last[usize::try_from(lba).unwrap()];
            assert!(*before < record.pos.lsn, "block {lba}");
            *before = record.pos.lsn;
        }
        assert!(core.table.len() <= usize::try_from(APPLY_WINDOW).unwrap());
        applied += 1;
        core.handle(&ctx, Event::Applied { io }, &mut out);
    }
    assert_eq!((applied, core.status().applied), (RECORDS, Lsn(RECORDS)));
}
