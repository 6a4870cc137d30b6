//! Bytes from disk and from peers: whole ones come back as they were, others are refused without a panic.

use std::sync::Arc;

use openraft::EntryPayload;
use proptest::prelude::*;

use holdfast_proto::raft as proto;
use holdfast_types::{NodeId, Revision};

use super::kind::{Entry, LeaderId, Proposal, SnapshotMeta, Vote, log_id};
use super::record::{LogRecord, decode as decode_record, encode_entry, encode_truncate, encode_vote};
use super::snapshot::{SnapshotError, decode, encode};
use super::wire::{put_entry, put_vote, take_append, take_append_response, take_vote};
use crate::model::{ClusterState, Command};

fn snapshot() -> Vec<u8> {
    let state = ClusterState {
        revision: Revision(9),
        ..ClusterState::default()
    };
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(2, 1, 9)),
        ..SnapshotMeta::default()
    };
    let bytes = encode(&meta, &state).unwrap();
    let parsed = decode(&bytes).unwrap();
    assert_eq!((parsed.meta, &*parsed.state), (meta, &state));
    bytes.to_vec()
}

#[test]
fn a_damaged_snapshot_is_not_taken_for_a_newer_one() {
    let mut other = snapshot();
    other[11] = 0x75;
    assert!(matches!(decode(&other), Err(SnapshotError::Checksum)));
    let end = other.len() - 4;
    let crc = crc32c::crc32c(&other[..end]).to_le_bytes();
    other[end..].copy_from_slice(&crc);
    assert!(matches!(
        decode(&other),
        Err(SnapshotError::Newer(0x7500_0001, 1))
    ));
}

#[test]
fn any_changed_or_missing_byte_of_a_snapshot_shows() {
    let whole = snapshot();
    for at in 0..whole.len() {
        assert!(decode(&whole[..at]).is_err(), "cut at {at}");
        let mut other = whole.clone();
        other[at] ^= 0x10;
        assert!(decode(&other).is_err(), "changed at {at}");
    }
}

fn command() -> Entry {
    let name = "iqn.2026-11.example:a".parse().unwrap();
    Entry {
        log_id: log_id(3, 2, 11),
        payload: EntryPayload::Normal(Proposal(Arc::new(Command::CreateTarget { name }))),
    }
}

fn vote(committed: bool) -> Vote {
    Vote {
        leader_id: LeaderId {
            term: 3,
            node_id: NodeId(2),
        },
        committed,
    }
}

#[test]
fn records_come_back_as_they_were() {
    let back =
        |record: super::record::Encoded| decode_record(record.kind, &record.header, &record.payload).unwrap();
    assert_eq!(
        back(encode_entry(&command()).unwrap()),
        LogRecord::Entry(command())
    );
    assert_eq!(back(encode_vote(&vote(true))), LogRecord::Vote(vote(true)));
    assert_eq!(back(encode_truncate(None)), LogRecord::TruncateAfter(None));
    let id = log_id(1, 2, 3);
    assert_eq!(
        back(encode_truncate(Some(&id))),
        LogRecord::TruncateAfter(Some(id))
    );
}

fn append(vote: &Vote, entries: Vec<proto::Entry>) -> proto::AppendRequest {
    proto::AppendRequest {
        vote: Some(put_vote(vote)),
        previous: Some(proto::LogId {
            term: 3,
            node: 2,
            index: 10,
        }),
        entries,
        ..proto::AppendRequest::default()
    }
}

#[test]
fn entries_of_peers_are_taken_only_when_they_fit_together() {
    let good = put_entry(&command()).unwrap();
    let taken = take_append(&append(&vote(true), vec![good.clone()])).unwrap();
    assert_eq!(taken.entries, [command()]);
    let id = |term, index| Some(proto::LogId { term, node: 2, index });
    let with = |id| proto::Entry { id, ..good.clone() };
    let bad = [
        vec![with(id(3, 12))],
        vec![with(id(2, 11))],
        vec![with(id(4, 11))],
        vec![with(None)],
        vec![with(id(3, u64::MAX))],
        vec![good.clone(), good.clone()],
        vec![proto::Entry {
            payload: None,
            ..good.clone()
        }],
        vec![proto::Entry {
            payload: Some(proto::entry::Payload::Membership(
                "{\"configs\":[],\"nodes\":{}}".into(),
            )),
            ..good.clone()
        }],
    ];
    for entries in bad {
        assert!(
            take_append(&append(&vote(true), entries.clone())).is_err(),
            "{entries:?}"
        );
    }
    assert!(take_append(&append(&vote(false), vec![good])).is_err());
}

#[test]
fn answers_of_peers_are_taken_only_when_they_fit_the_question() {
    use proto::append_response::Result;
    let take = |result, had_previous| {
        let response = proto::AppendResponse { result };
        take_append_response(&response, None, had_previous, &vote(true))
    };
    assert!(take(Some(Result::Conflict(proto::Conflict {})), true).is_ok());
    assert!(take(Some(Result::Conflict(proto::Conflict {})), false).is_err());
    assert!(take(Some(Result::HigherVote(put_vote(&vote(false)))), true).is_err());
    assert!(take(None, true).is_err());
    assert!(take_vote(None).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(
        kind in 0u16..9,
        header in prop::collection::vec(any::<u8>(), 0..40),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assert!(decode(&body).is_err());
        // Headers alone may be right by chance.
        drop(decode_record(kind, &header, &body));
    }
}
