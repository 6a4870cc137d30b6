//! The records of the Raft journal.
//!
//! | kind | header | payload |
//! |---|---|---|
//! | 1 head | – | JSON: format, cluster, node, vote, committed, purged |
//! | 2 vote | term, node, committed (17 bytes) | – |
//! | 3 committed | log id (24 bytes) | – |
//! | 4 truncate after | log id, or nothing for "everything" | – |
//! | 5 blank entry | log id | – |
//! | 6 command | log id | JSON |
//! | 7 membership | log id | JSON |
//!
//! Numbers are little-endian; a log id is term, node, index. The head is the first record of a log, and is written again before the
//! segments that hold older ones are released, so a log always holds one.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use serde::{Deserialize, Serialize};

use holdfast_types::NodeId;

use super::kind::{Entry, LeaderId, LogId, Payload, Vote, log_id};
use crate::model::ClusterId;

const HEAD: u16 = 1;
const VOTE: u16 = 2;
const COMMITTED: u16 = 3;
const TRUNCATE: u16 = 4;
const BLANK: u16 = 5;
const COMMAND: u16 = 6;
const MEMBERSHIP: u16 = 7;

/// Format of the records. A reader refuses a newer one.
pub(crate) const LOG_FORMAT: u32 = 1;

/// Whose log it is, and what stands however far its front was released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) format: u32,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LogRecord {
    Head(Head),
    Vote(Vote),
    Committed(LogId),
    TruncateAfter(Option<LogId>),
    Entry(Entry),
}

/// A record as the journal takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) kind: u16,
    pub(crate) header: Bytes,
    pub(crate) payload: Bytes,
}

/// Why a record that passed the journal's checks cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("a record of kind {0}, which this version of holdfast does not know")]
    Kind(u16),
    #[error("a record of kind {0} with a header of {1} bytes")]
    Header(u16, usize),
    #[error("a record of kind {0} that cannot be read: {1}")]
    Json(u16, serde_json::Error),
    #[error("a log of format {0}, newer than {LOG_FORMAT}, the newest that this version of holdfast knows")]
    Format(u32),
}

fn put_log_id(out: &mut BytesMut, id: &LogId) {
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.leader_id.node_id.0);
    out.put_u64_le(id.index);
}

fn log_id_bytes(id: &LogId) -> Bytes {
    let mut out = BytesMut::with_capacity(24);
    put_log_id(&mut out, id);
    out.freeze()
}

fn take_log_id(kind: u16, header: &[u8]) -> Result<LogId, RecordError> {
    let bytes: &[u8; 24] = header
        .try_into()
        .map_err(|_| RecordError::Header(kind, header.len()))?;
    Ok(log_id(word(bytes, 0), word(bytes, 1), word(bytes, 2)))
}

/// The `at`-th 64-bit number of a header whose length was checked.
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    bytes[at * 8..at * 8 + 8]
        .iter()
        .rev()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn json<T: Serialize>(kind: u16, value: &T) -> Result<Bytes, RecordError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| RecordError::Json(kind, error))
}

fn from_json<T: for<'a> Deserialize<'a>>(kind: u16, bytes: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(bytes).map_err(|error| RecordError::Json(kind, error))
}

/// A vote's record.
pub(crate) fn encode_vote(vote: &Vote) -> Encoded {
    let mut header = BytesMut::with_capacity(17);
    header.put_u64_le(vote.leader_id.term);
    header.put_u64_le(vote.leader_id.node_id.0);
    header.put_u8(u8::from(vote.committed));
    plain(VOTE, header.freeze())
}

/// The record of the committed position.
pub(crate) fn encode_committed(id: &LogId) -> Encoded {
    plain(COMMITTED, log_id_bytes(id))
}

/// A truncation's record.
pub(crate) fn encode_truncate(after: Option<&LogId>) -> Encoded {
    plain(TRUNCATE, after.map(log_id_bytes).unwrap_or_default())
}

fn plain(kind: u16, header: Bytes) -> Encoded {
    Encoded {
        kind,
        header,
        payload: Bytes::new(),
    }
}

/// A head's record.
pub(crate) fn encode_head(head: &Head) -> Result<Encoded, RecordError> {
    Ok(Encoded {
        kind: HEAD,
        header: Bytes::new(),
        payload: json(HEAD, head)?,
    })
}

/// An entry's record.
pub(crate) fn encode_entry(entry: &Entry) -> Result<Encoded, RecordError> {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Normal(proposal) => (COMMAND, json(COMMAND, proposal)?),
        EntryPayload::Membership(membership) => (MEMBERSHIP, json(MEMBERSHIP, membership)?),
    };
    Ok(Encoded {
        kind,
        header: log_id_bytes(&entry.log_id),
        payload,
    })
}

/// Reads a record back.
pub(crate) fn decode(kind: u16, header: &[u8], payload: &[u8]) -> Result<LogRecord, RecordError> {
    let entry = |payload: Payload| -> Result<LogRecord, RecordError> {
        Ok(LogRecord::Entry(Entry {
            log_id: take_log_id(kind, header)?,
            payload,
        }))
    };
    match kind {
        HEAD => {
            let format: FormatOnly = from_json(kind, payload)?;
            if format.format > LOG_FORMAT {
                return Err(RecordError::Format(format.format));
            }
            from_json(kind, payload).map(LogRecord::Head)
        }
        VOTE => {
            let bytes: &[u8; 17] = header
                .try_into()
                .map_err(|_| RecordError::Header(kind, header.len()))?;
            Ok(LogRecord::Vote(Vote {
                leader_id: LeaderId {
                    term: word(bytes, 0),
                    node_id: NodeId(word(bytes, 1)),
                },
                committed: bytes[16] != 0,
            }))
        }
        COMMITTED => take_log_id(kind, header).map(LogRecord::Committed),
        TRUNCATE if header.is_empty() => Ok(LogRecord::TruncateAfter(None)),
        TRUNCATE => take_log_id(kind, header).map(|id| LogRecord::TruncateAfter(Some(id))),
        BLANK => entry(EntryPayload::Blank),
        COMMAND => entry(EntryPayload::Normal(from_json(kind, payload)?)),
        MEMBERSHIP => entry(EntryPayload::Membership(from_json(kind, payload)?)),
        other => Err(RecordError::Kind(other)),
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}
