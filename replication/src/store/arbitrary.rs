//! Random records and entries, for tests.

use bytes::Bytes;
use holdfast_types::{
    BlockRange, CommandName, Epoch, InSyncVersion, Incarnation, Lba, LogPos, Lsn, NodeId, SessionInstance,
};
use proptest::prelude::*;

use super::entry::{Checkpoint, Entry};
use crate::core::api::{Base, EpochHistory, Record, RecordBody};

pub(crate) fn pos() -> impl Strategy<Value = LogPos> {
    (any::<u64>(), any::<u64>()).prop_map(|(epoch, lsn)| LogPos::new(Epoch(epoch), Lsn(lsn)))
}

pub(crate) fn range() -> impl Strategy<Value = BlockRange> {
    (0u64..1 << 51, 0u64..1 << 51).prop_map(|(lba, blocks)| BlockRange::new(Lba(lba), blocks).unwrap())
}

pub(crate) fn data() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from)
}

pub(crate) fn name() -> impl Strategy<Value = CommandName> {
    (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(node, run, serial, cmd_sn)| {
        CommandName {
            session: SessionInstance {
                node: NodeId(node),
                incarnation: Incarnation(run),
                serial,
            },
            cmd_sn,
        }
    })
}

pub(crate) fn history() -> impl Strategy<Value = EpochHistory> {
    proptest::collection::vec((1u64..100, 1u64..100), 1..20).prop_map(|steps| {
        let mut at = (0, 0);
        let lasts = steps.into_iter().map(|(epoch, lsn)| {
            at = (at.0 + epoch, at.1 + lsn);
            LogPos::new(Epoch(at.0), Lsn(at.1))
        });
        EpochHistory::from_lasts(lasts.collect()).unwrap()
    })
}

pub(crate) fn base() -> impl Strategy<Value = Base> {
    (pos(), any::<u64>()).prop_map(|(pos, version)| Base {
        pos,
        version: InSyncVersion(version),
    })
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    let body = prop_oneof![
        Just(RecordBody::EpochStart),
        (range(), data()).prop_map(|(range, data)| RecordBody::Write { range, data }),
        (range(), data()).prop_map(|(range, block)| RecordBody::WriteSame { range, block }),
        proptest::collection::vec(range(), 0..9).prop_map(|ranges| RecordBody::Zero {
            ranges: ranges.into()
        }),
        (
            proptest::collection::vec(range(), 0..9),
            proptest::option::of(data())
        )
            .prop_map(|(ranges, data)| RecordBody::Resync {
                ranges: ranges.into(),
                data
            }),
    ];
    (pos(), any::<u64>(), proptest::option::of(name()), body).prop_map(|(pos, commit, name, body)| Record {
        pos,
        commit: Lsn(commit),
        name,
        body,
    })
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    let checkpoint = (
        pos(),
        pos(),
        any::<u64>(),
        any::<u64>(),
        proptest::option::of(base()),
        history(),
    )
        .prop_map(|(applied, end, commit, seen, base, history)| {
            Entry::Checkpoint(Checkpoint {
                applied,
                end,
                commit: Lsn(commit),
                seen: Epoch(seen),
                base,
                history,
            })
        });
    prop_oneof![
        record().prop_map(Entry::Record),
        pos().prop_map(|after| Entry::Truncate { after }),
        (base(), pos(), history()).prop_map(|(base, from, history)| Entry::Restart { base, from, history }),
        Just(Entry::ClearBase),
        checkpoint,
    ]
}
