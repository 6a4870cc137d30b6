//! Messages arrive as they were sent; nothing that a peer sends makes trouble here.

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::core::api::{StatusNews, Unconfirmed};
use crate::store::arbitrary::{base, data, history, name, pos, range, record};

fn outcome() -> impl Strategy<Value = OpOutcome> {
    prop_oneof![
        Just(OpOutcome::Done),
        data().prop_map(OpOutcome::Data),
        any::<u32>().prop_map(|offset| OpOutcome::Miscompare { offset }),
        proptest::collection::vec((range(), any::<bool>()), 0..5).prop_map(|runs| {
            OpOutcome::Map(
                runs.into_iter()
                    .map(|(range, mapped)| MappedRun { range, mapped })
                    .collect(),
            )
        }),
        Just(OpOutcome::NoSpace),
        any::<u64>().prop_map(|lba| OpOutcome::Unreadable { lba: Lba(lba) }),
        Just(OpOutcome::Transitioning),
        Just(OpOutcome::Standby),
        Just(OpOutcome::Reset),
        Just(OpOutcome::Aborted),
    ]
}

fn op() -> impl Strategy<Value = BlockOp> {
    prop_oneof![
        range().prop_map(|range| BlockOp::Read { range }),
        (range(), data(), any::<bool>()).prop_map(|(range, data, fua)| BlockOp::Write { range, data, fua }),
        (range(), data()).prop_map(|(range, block)| BlockOp::WriteSame { range, block }),
        proptest::collection::vec(range(), 0..5).prop_map(|ranges| BlockOp::Zero { ranges }),
        (range(), data(), data()).prop_map(|(range, expect, data)| BlockOp::CompareAndWrite {
            range,
            expect,
            data
        }),
        (range(), proptest::option::of(data())).prop_map(|(range, expect)| BlockOp::Verify { range, expect }),
        (range(), data()).prop_map(|(range, data)| BlockOp::OrWrite { range, data }),
        (any::<u64>(), any::<u16>()).prop_map(|(from, runs)| BlockOp::Map {
            from: Lba(from),
            runs
        }),
        Just(BlockOp::Flush),
        any::<u64>().prop_map(|version| BlockOp::Fence {
            version: UnitVersion(version)
        }),
    ]
}

fn log_message() -> impl Strategy<Value = Message> {
    let epoch = || any::<u64>().prop_map(Epoch);
    let lsn = || any::<u64>().prop_map(Lsn);
    let log = (
        (history(), pos(), pos(), proptest::collection::vec(range(), 0..4)),
        proptest::option::of(base()),
        (any::<bool>(), any::<bool>(), any::<bool>()),
    );
    let log = log.prop_map(
        |((history, committed, applied, unapplied), base, (damaged, fenced, stuck))| LogSummary {
            history,
            committed,
            applied,
            unapplied,
            base,
            damaged,
            fenced,
            stuck,
        },
    );
    prop_oneof![
        epoch().prop_map(|epoch| Message::Probe { epoch }),
        (epoch(), log).prop_map(|(epoch, log)| Message::Summary { epoch, log }),
        (epoch(), pos()).prop_map(|(epoch, after)| Message::Adopt { epoch, after }),
        (epoch(), any::<u64>(), pos(), history()).prop_map(|(epoch, version, from, history)| {
            Message::Restart {
                epoch,
                version: InSyncVersion(version),
                from,
                history,
            }
        }),
        (epoch(), pos(), record()).prop_map(|(epoch, prev, record)| Message::Replicate {
            epoch,
            prev,
            record
        }),
        (epoch(), lsn(), lsn(), lsn()).prop_map(|(epoch, durable, applied, received)| Message::Ack {
            epoch,
            durable,
            applied,
            received
        }),
        (epoch(), lsn()).prop_map(|(epoch, commit)| Message::Commit { epoch, commit }),
        epoch().prop_map(|newest| Message::Refused { newest }),
        (epoch(), any::<u64>(), range(), lsn()).prop_map(|(epoch, id, range, at)| Message::HashRequest {
            epoch,
            id,
            range,
            at
        }),
        (
            epoch(),
            any::<u64>(),
            proptest::collection::vec(proptest::option::of(any::<[u8; 16]>()), 0..9)
        )
            .prop_map(|(epoch, id, digests)| Message::HashReply { epoch, id, digests }),
        (epoch(), any::<u64>()).prop_map(|(epoch, round)| Message::Confirm { epoch, round }),
        (epoch(), any::<u64>()).prop_map(|(epoch, round)| Message::Confirmed { epoch, round }),
        (epoch(), any::<u64>(), range(), lsn()).prop_map(|(epoch, id, range, at)| Message::Fetch {
            epoch,
            id,
            range,
            at
        }),
        (epoch(), any::<u64>(), proptest::option::of(data()))
            .prop_map(|(epoch, id, data)| { Message::Fetched { epoch, id, data } }),
    ]
}

fn forward_message() -> impl Strategy<Value = Message> {
    let epoch = || any::<u64>().prop_map(Epoch);
    let id = || any::<u64>().prop_map(OpId);
    let forward = (
        (id(), epoch(), name(), any::<u64>()),
        (any::<u64>(), any::<bool>(), op()),
        (any::<u128>(), any::<u64>()),
    );
    let answer = prop_oneof![
        outcome().prop_map(ForwardAnswer::Outcome),
        Just(ForwardAnswer::NotPrimary),
        Just(ForwardAnswer::NotTaken),
        Just(ForwardAnswer::Ended),
        Just(ForwardAnswer::Refused),
    ];
    let fate = prop_oneof![
        Just(Fate::Underway),
        outcome().prop_map(Fate::Ended),
        Just(Fate::Barred),
        Just(Fate::NotPrimary),
    ];
    prop_oneof![
        forward.prop_map(
            |((op, epoch, name, generation), (ns, again, request), (nexus, admitted))| Message::Forward {
                op,
                epoch,
                name,
                generation: LeaseGeneration(generation),
                waited: Duration::from_nanos(ns),
                origin: Origin {
                    nexus: NexusTag(nexus),
                    admitted: UnitVersion(admitted),
                    initiator: InitiatorTag(nexus.rotate_left(7)),
                },
                again,
                request
            }
        ),
        (id(), epoch(), answer).prop_map(|(op, epoch, answer)| Message::Forwarded { op, epoch, answer }),
        (id(), epoch(), name()).prop_map(|(op, epoch, name)| Message::Fate { op, epoch, name }),
        (id(), epoch(), fate).prop_map(|(op, epoch, fate)| Message::FateIs { op, epoch, fate }),
    ]
}

fn statuses() -> impl Strategy<Value = Message> {
    let unconfirmed = (pos(), name(), any::<u128>(), range(), any::<[u8; 16]>());
    let unconfirmed = unconfirmed.prop_map(|(pos, name, initiator, range, expected)| {
        StatusNews::Unconfirmed(Unconfirmed {
            pos,
            name,
            initiator: InitiatorTag(initiator),
            range,
            expected,
        })
    });
    let news = prop_oneof![
        unconfirmed,
        name().prop_map(StatusNews::Acknowledged),
        name().prop_map(|name| StatusNews::Ended(name.session)),
    ];
    proptest::collection::vec(news, 0..5).prop_map(|news| Message::Statuses { news })
}

proptest! {
    #[test]
    fn what_is_sent_arrives(message in prop_oneof![log_message(), forward_message(), statuses()], id in any::<u128>()) {
        let extent = ExtentId::from_u128(id);
        let bytes = encode(extent, message.clone()).encode_to_vec();
        let envelope = pb::Envelope::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(decode(envelope), Ok((extent, message)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        message in prop_oneof![log_message(), forward_message(), statuses()],
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        junk in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = encode(ExtentId::from_u128(1), message).encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for bytes in [bytes.as_slice(), junk.as_slice(), &bytes[..at]] {
            if let Ok(envelope) = pb::Envelope::decode(bytes) {
                let _ = decode(envelope);
            }
        }
    }
}

#[test]
fn missing_fields_are_refused_by_name() {
    let envelope = pb::Envelope {
        extent_high: 0,
        extent_low: 1,
        message: None,
    };
    assert_eq!(decode(envelope), Err(WireError("message")));
    let envelope = pb::Envelope {
        extent_high: 0,
        extent_low: 1,
        message: Some(Pb::Replicate(pb::Replicate::default())),
    };
    assert_eq!(decode(envelope), Err(WireError("position")));
    let range = Some(pb::BlockRange {
        lba: u64::MAX,
        blocks: 2,
    });
    assert_eq!(range_in(range), Err(WireError("range")));
}
