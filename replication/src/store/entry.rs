//! What a data node writes into its journal.
//!
//! # Layout
//! An entry is a header of little-endian fields and, for records that carry data, the payload behind it, which is never copied. The
//! journal's own checksum covers both.
//! ```text
//! u8  version (2)      u8  kind      16 bytes extent id (big-endian, as printed)
//! kind  1 record       pos, u64 commit, u8 named, [name: u64 node, u64 incarnation, u64 serial, u64 CmdSN], u8 body:
//!                        0 epoch start
//!                        1 write          range, payload = the range's bytes
//!                        2 write same     range, payload = one block
//!                        3 zero           u64 count, ranges
//!                        4 resync         u64 count, ranges, payload = their bytes, one after the other
//!                        5 resync marker  u64 count, ranges
//!       2 truncate     pos that stays
//!       3 restart      base pos, u64 version, pos that the next record follows, history
//!       4 clear base   (nothing)
//!       5 checkpoint   applied pos, end pos, u64 commit, u64 seen epoch, u8 has base, [base pos, u64 version], history
//! pos = u64 epoch, u64 lsn      range = u64 lba, u64 blocks      history = u64 count, positions
//! ```
//! Entries of an extent are replayed in journal order (`super::replay`).

use bytes::Bytes;
use holdfast_types::{
    CommandName, Epoch, ExtentId, InSyncVersion, Incarnation, LogPos, Lsn, NodeId, SessionInstance,
};

use super::codec::{DecodeError, Reader, Writer};
use crate::core::api::{Base, EpochHistory, Record, RecordBody};

/// Version of the entries that this release writes, and the newest it reads.
pub const ENTRY_VERSION: u8 = 2;

/// Bytes of the header that every entry has: version, kind, extent.
const FIXED: usize = 18;

/// One entry of a node's journal, for one extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A record of the extent's replication log.
    Record(Record),
    /// What is behind this position is dropped (E5).
    Truncate {
        /// The last position that stays.
        after: LogPos,
    },
    /// The log starts anew behind a gap (R1).
    Restart {
        /// Complete only up to here.
        base: Base,
        /// The position that the next record follows.
        from: LogPos,
        /// Of the log that `from` is in.
        history: EpochHistory,
    },
    /// The resync is over by commit.
    ClearBase,
    /// Everything up to a position is stable in the extent file.
    Checkpoint(Checkpoint),
}

/// Where recovery of an extent starts: what older entries said, in one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Stable in the extent file up to here.
    pub applied: LogPos,
    /// The log was stable up to here: recovery that ends before it has lost records (J1).
    pub end: LogPos,
    /// Known as committed.
    pub commit: Lsn,
    /// The newest epoch of which there was any trace.
    pub seen: Epoch,
    /// An unfinished resync's mark.
    pub base: Option<Base>,
    /// Last position of every epoch up to `applied`.
    pub history: EpochHistory,
}

const RECORD: u8 = 1;
const TRUNCATE: u8 = 2;
const RESTART: u8 = 3;
const CLEAR_BASE: u8 = 4;
const CHECKPOINT: u8 = 5;

impl Entry {
    /// The header; the payload is [`Entry::payload`].
    pub fn header(&self, extent: ExtentId) -> Vec<u8> {
        match self {
            Self::Record(record) => record_header(extent, record),
            Self::Truncate { after } => {
                let mut out = start(extent, TRUNCATE);
                out.pos(*after);
                out.0
            }
            Self::Restart { base, from, history } => {
                let mut out = start(extent, RESTART);
                put_base(&mut out, base);
                out.pos(*from);
                put_history(&mut out, history);
                out.0
            }
            Self::ClearBase => start(extent, CLEAR_BASE).0,
            Self::Checkpoint(checkpoint) => {
                let mut out = start(extent, CHECKPOINT);
                out.pos(checkpoint.applied);
                out.pos(checkpoint.end);
                out.u64(checkpoint.commit.0);
                out.u64(checkpoint.seen.0);
                out.u8(u8::from(checkpoint.base.is_some()));
                if let Some(base) = &checkpoint.base {
                    put_base(&mut out, base);
                }
                put_history(&mut out, &checkpoint.history);
                out.0
            }
        }
    }

    /// The bytes behind the header.
    pub fn payload(&self) -> Bytes {
        match self {
            Self::Record(record) => record_payload(record),
            _ => Bytes::new(),
        }
    }

    /// Reads an entry. Only its own shape is checked here: whether it fits its extent is for whoever replays it.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Entry::header`] and [`Entry::payload`] do not make.
    pub fn decode(header: &[u8], payload: Bytes) -> Result<(ExtentId, Self), DecodeError> {
        let mut fields = Reader(header);
        let version = fields.u8()?;
        if version > ENTRY_VERSION {
            return Err(DecodeError::Newer(version));
        }
        if version < ENTRY_VERSION {
            return Err(DecodeError::Older(version));
        }
        let kind = fields.u8()?;
        let extent = ExtentId::from_bytes(fields.array()?);
        if kind == RECORD {
            return read_record(fields, payload).map(|record| (extent, Self::Record(record)));
        }
        let entry = match kind {
            TRUNCATE => Self::Truncate { after: fields.pos()? },
            RESTART => Self::Restart {
                base: read_base(&mut fields)?,
                from: fields.pos()?,
                history: read_history(&mut fields)?,
            },
            CLEAR_BASE => Self::ClearBase,
            CHECKPOINT => Self::Checkpoint(read_checkpoint(&mut fields)?),
            other => return Err(DecodeError::Kind(other)),
        };
        fields.end()?;
        if !payload.is_empty() {
            return Err(DecodeError::Long);
        }
        Ok((extent, entry))
    }
}

fn start(extent: ExtentId, kind: u8) -> Writer {
    // Room for a named record, by far the most frequent entry.
    let mut out = Writer(Vec::with_capacity(FIXED + 16 + 8 + 1 + 32 + 1 + 16));
    out.u8(ENTRY_VERSION);
    out.u8(kind);
    out.0.extend_from_slice(&extent.to_bytes());
    out
}

/// The journal header of a record, without taking the record.
pub(crate) fn record_header(extent: ExtentId, record: &Record) -> Vec<u8> {
    let mut out = start(extent, RECORD);
    out.pos(record.pos);
    out.u64(record.commit.0);
    out.u8(u8::from(record.name.is_some()));
    if let Some(name) = &record.name {
        out.u64(name.session.node.0);
        out.u64(name.session.incarnation.0);
        out.u64(name.session.serial);
        out.u64(name.cmd_sn);
    }
    match &record.body {
        RecordBody::EpochStart => out.u8(0),
        RecordBody::Write { range, .. } => {
            out.u8(1);
            out.range(*range);
        }
        RecordBody::WriteSame { range, .. } => {
            out.u8(2);
            out.range(*range);
        }
        RecordBody::Zero { ranges } => {
            out.u8(3);
            out.ranges(ranges);
        }
        RecordBody::Resync { ranges, data } => {
            out.u8(if data.is_some() { 4 } else { 5 });
            out.ranges(ranges);
        }
    }
    out.0
}

/// The journal payload of a record.
pub(crate) fn record_payload(record: &Record) -> Bytes {
    match &record.body {
        RecordBody::Write { data, .. } | RecordBody::Resync { data: Some(data), .. } => data.clone(),
        RecordBody::WriteSame { block, .. } => block.clone(),
        RecordBody::EpochStart | RecordBody::Zero { .. } | RecordBody::Resync { data: None, .. } => {
            Bytes::new()
        }
    }
}

fn read_record(mut fields: Reader<'_>, payload: Bytes) -> Result<Record, DecodeError> {
    let pos = fields.pos()?;
    let commit = Lsn(fields.u64()?);
    let name = match fields.u8()? {
        0 => None,
        1 => Some(CommandName {
            session: SessionInstance {
                node: NodeId(fields.u64()?),
                incarnation: Incarnation(fields.u64()?),
                serial: fields.u64()?,
            },
            cmd_sn: fields.u64()?,
        }),
        _ => return Err(DecodeError::Field("name")),
    };
    let body = read_body(&mut fields, payload)?;
    fields.end()?;
    Ok(Record {
        pos,
        commit,
        name,
        body,
    })
}

fn read_body(fields: &mut Reader<'_>, payload: Bytes) -> Result<RecordBody, DecodeError> {
    let kind = fields.u8()?;
    if matches!(kind, 0 | 3 | 5) && !payload.is_empty() {
        return Err(DecodeError::Long);
    }
    Ok(match kind {
        0 => RecordBody::EpochStart,
        1 => RecordBody::Write {
            range: fields.range()?,
            data: payload,
        },
        2 => RecordBody::WriteSame {
            range: fields.range()?,
            block: payload,
        },
        3 => RecordBody::Zero {
            ranges: fields.ranges()?,
        },
        4 => RecordBody::Resync {
            ranges: fields.ranges()?,
            data: Some(payload),
        },
        5 => RecordBody::Resync {
            ranges: fields.ranges()?,
            data: None,
        },
        _ => return Err(DecodeError::Field("body")),
    })
}

fn put_base(out: &mut Writer, base: &Base) {
    out.pos(base.pos);
    out.u64(base.version.0);
}

fn read_base(fields: &mut Reader<'_>) -> Result<Base, DecodeError> {
    Ok(Base {
        pos: fields.pos()?,
        version: InSyncVersion(fields.u64()?),
    })
}

fn read_checkpoint(fields: &mut Reader<'_>) -> Result<Checkpoint, DecodeError> {
    let applied = fields.pos()?;
    let end = fields.pos()?;
    let commit = Lsn(fields.u64()?);
    let seen = Epoch(fields.u64()?);
    let base = match fields.u8()? {
        0 => None,
        1 => Some(read_base(fields)?),
        _ => return Err(DecodeError::Field("base")),
    };
    Ok(Checkpoint {
        applied,
        end,
        commit,
        seen,
        base,
        history: read_history(fields)?,
    })
}

fn put_history(out: &mut Writer, history: &EpochHistory) {
    out.u64(history.lasts().len() as u64);
    history.lasts().iter().for_each(|last| out.pos(*last));
}

fn read_history(fields: &mut Reader<'_>) -> Result<EpochHistory, DecodeError> {
    let count = fields.count(16)?;
    let lasts: Result<Vec<_>, _> = (0..count).map(|_| fields.pos()).collect();
    EpochHistory::from_lasts(lasts?).ok_or(DecodeError::Field("history"))
}

#[cfg(test)]
#[path = "entry_test.rs"]
mod tests;
