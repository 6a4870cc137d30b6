//! The bytes of a log on disk. All numbers are little-endian.
//!
//! A log is a row of segment files of one size. A segment is one block (4096 bytes) of header, then groups. A group starts on a block
//! border and is what one `pwritev2` wrote: a group header, then records, back to back, then padding to the next border. So no
//! sector that holds acknowledged bytes is ever written again, whatever a later write tears.
//!
//! An address (a [`Position`](crate::Position)) is `segment sequence * segment size + offset`. Every header names its own address,
//! every checksum starts
//! from the log's identity, and every group and record names the checksum before it. So the old bytes of a recycled segment, or
//! of another log, are never taken for records: there is no need to clear them.
//!
//! A segment ends with one block that ordinary groups leave free: a full log can always note a release there.

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

/// Groups start at multiples of this: a page, and the sector of every common disk.
pub(crate) const BLOCK: u64 = 4096;
/// [`BLOCK`] as a length in memory.
pub(crate) const BLOCK_LEN: usize = 4096;
/// The newest format known, and the one that is written.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a segment header that its checksum covers: one sector, so a power cut leaves the old one or the new one.
pub(crate) const SEGMENT_HEADER_LEN: usize = 512;
/// Bytes of a group header.
pub(crate) const GROUP_HEADER_LEN: usize = 64;
/// Bytes of a record header.
pub(crate) const RECORD_HEADER_LEN: usize = 32;

const SEGMENT_MAGIC: [u8; 8] = *b"HFjrnSEG";
const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"HFgr");
const RECORD_MAGIC: u16 = u16::from_le_bytes(*b"Hr");

/// The next block border at or above `address`.
pub(crate) const fn align(address: u64) -> u64 {
    address.next_multiple_of(BLOCK)
}

/// The start of every checksum in a log: its identity.
pub(crate) fn seed(log: u128) -> u32 {
    crc32c(&log.to_le_bytes())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// `N` bytes at `at`; zeros where `bytes` is too short, which no caller lets happen.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..at + N)
        .and_then(|s| s.try_into().ok())
        .unwrap_or([0; N])
}

/// The header of a segment: its first 512 bytes; the rest of the block is padding.
///
/// | bytes | field | why |
/// |---|---|---|
/// | 0-7 | `HFjrnSEG` | |
/// | 8-11 | version | these three fields never move, so that an older program can refuse a newer log by its version |
/// | 12-15 | CRC-32C of bytes 0-511, this field as zero | |
/// | 16-31 | identity of the log | no file of another log is taken for a part of this one |
/// | 32-39 | sequence | which segment this is; a recycled file gets a new one |
/// | 40-47 | segment size | the log keeps the size it was made with |
/// | 48-55 | durable | where the log ended when this was begun: the one before must be whole up to there, the rest is cut |
/// | 56-63 | first | no record below this address is kept: lower segments may be gone |
/// | 64-71 | accepted | damage below this address was accepted by the owner |
/// | 72-79 | number of the last group before | the chain over the border |
/// | 80-83 | checksum of the last record (or empty group) before | the chain over the border |
/// | 84-87 | incarnation | how often the log had been opened for writing |
///
/// It is written, durably, before the file gets its name as a segment; so a segment without a good header is damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log: u128,
    pub(crate) sequence: u64,
    pub(crate) segment_size: u64,
    pub(crate) durable: u64,
    pub(crate) first: u64,
    pub(crate) accepted: u64,
    pub(crate) chain: Chain,
}

/// The end of the chain of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Chain {
    /// The last group's number; the next has the next one.
    pub(crate) number: u64,
    /// Checksum of the last record, or of the last group's header if that group is empty.
    pub(crate) crc: u32,
    /// How often the log has been opened for writing.
    pub(crate) incarnation: u32,
}

impl Chain {
    /// Whether a group that says `next` follows.
    pub(crate) fn leads_to(&self, next: &Chain) -> bool {
        next.number == self.number.wrapping_add(1) && next.crc == self.crc
    }

    /// Whether a segment that says `here` goes on where this chain ends.
    pub(crate) fn continues(&self, here: &Chain) -> bool {
        here.number == self.number && here.crc == self.crc
    }
}

/// Why bytes are no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Not a header, or a damaged one.
    Bad,
    /// A good header of a version that is not known.
    Newer(u32),
}

impl SegmentHeader {
    /// The header as one padded block.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_LEN);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.log.to_le_bytes());
        for field in [
            self.sequence,
            self.segment_size,
            self.durable,
            self.first,
            self.accepted,
            self.chain.number,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.chain.crc.to_le_bytes());
        out.extend_from_slice(&self.chain.incarnation.to_le_bytes());
        out.resize(BLOCK_LEN, 0);
        let crc = crc32c(&out[..SEGMENT_HEADER_LEN]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header; any bytes are allowed.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_LEN) else {
            return Err(HeaderError::Bad);
        };
        let crc = crc32c_append(crc32c_append(crc32c(&bytes[..12]), &[0; 4]), &bytes[16..]);
        if bytes[..8] != SEGMENT_MAGIC || crc != u32_at(bytes, 12) {
            return Err(HeaderError::Bad);
        }
        match u32_at(bytes, 8) {
            VERSION => {}
            newer if newer > VERSION => return Err(HeaderError::Newer(newer)),
            _ => return Err(HeaderError::Bad),
        }
        Ok(SegmentHeader {
            log: u128::from_le_bytes(array(bytes, 16)),
            sequence: u64_at(bytes, 32),
            segment_size: u64_at(bytes, 40),
            durable: u64_at(bytes, 48),
            first: u64_at(bytes, 56),
            accepted: u64_at(bytes, 64),
            chain: Chain {
                number: u64_at(bytes, 72),
                crc: u32_at(bytes, 80),
                incarnation: u32_at(bytes, 84),
            },
        })
    }
}

/// The header of a group: 64 bytes, inside one sector.
///
/// | bytes | field | why |
/// |---|---|---|
/// | 0-3 | `HFgr` | |
/// | 4-7 | CRC-32C of bytes 8-63, from the log's identity | |
/// | 8-15 | its own address | old bytes of a recycled segment name another one |
/// | 16-23 | number | grows by one from group to group |
/// | 24-31 | durable | where the group before ended: begun only when that one was stable, so this header proves it (J1) |
/// | 32-39 | first | no record below this address is kept; segments below are recycled only once this is durable |
/// | 40-43 | checksum of the last record (or empty group) before | the chain |
/// | 44-47 | incarnation | |
/// | 48-51 | length in bytes, header included, padding not | |
/// | 52-55 | records | |
/// | 56-63 | zero | |
///
/// The first group of an incarnation in a segment that was already begun is empty. Being one sector, it replaces the header of a torn
/// group at the same
/// place as a whole, before anything else is written: a torn group can never become whole later, not even by equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) address: u64,
    pub(crate) durable: u64,
    pub(crate) first: u64,
    /// Number and incarnation of this group, and the checksum before it.
    pub(crate) chain: Chain,
    pub(crate) len: u32,
    pub(crate) records: u32,
}

impl GroupHeader {
    /// Appends the header to `out`; returns its checksum.
    pub(crate) fn encode(&self, seed: u32, out: &mut Vec<u8>) -> u32 {
        let start = out.len();
        out.extend_from_slice(&GROUP_MAGIC.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for field in [self.address, self.chain.number, self.durable, self.first] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for field in [
            self.chain.crc,
            self.chain.incarnation,
            self.len,
            self.records,
            0,
            0,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let crc = crc32c_append(seed, &out[start + 8..start + GROUP_HEADER_LEN]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads the header of the group at `address`, and its checksum; any bytes are allowed.
    pub(crate) fn decode(bytes: &[u8], seed: u32, address: u64) -> Option<(GroupHeader, u32)> {
        let bytes = bytes.get(..GROUP_HEADER_LEN)?;
        let crc = u32_at(bytes, 4);
        if u32_at(bytes, 0) != GROUP_MAGIC
            || u64_at(bytes, 8) != address
            || crc32c_append(seed, &bytes[8..]) != crc
        {
            return None;
        }
        let header = GroupHeader {
            address,
            durable: u64_at(bytes, 24),
            first: u64_at(bytes, 32),
            chain: Chain {
                number: u64_at(bytes, 16),
                crc: u32_at(bytes, 40),
                incarnation: u32_at(bytes, 44),
            },
            len: u32_at(bytes, 48),
            records: u32_at(bytes, 52),
        };
        let sound =
            header.len as usize >= GROUP_HEADER_LEN && header.first <= address && header.durable <= address;
        sound.then_some((header, crc))
    }

    /// Whether a block that is no good group header at `address` was once meant to be one: its address is right, or wrong in one
    /// bit; but not if it is a good header elsewhere, left over in a recycled segment.
    pub(crate) fn resembles(bytes: &[u8], seed: u32, address: u64) -> bool {
        if bytes.len() < GROUP_HEADER_LEN {
            return false;
        }
        let found = u64_at(bytes, 8);
        if GroupHeader::decode(bytes, seed, found).is_some() {
            return false;
        }
        found == address || (u32_at(bytes, 0) == GROUP_MAGIC && (found ^ address).count_ones() == 1)
    }
}

/// A record as read from disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub position: crate::Position,
    /// The owner's kind.
    pub kind: u16,
    /// The owner's header.
    pub header: Bytes,
    /// The payload. Header and payload are slices of one read buffer, which lives as long as they do: copy what is kept for long.
    pub payload: Bytes,
}

/// The header of a record: 32 bytes, then the owner's header, then the payload.
///
/// | bytes | field | why |
/// |---|---|---|
/// | 0-3 | CRC-32C of bytes 4-31, header and payload, from the log's identity | |
/// | 4-7 | checksum before: of the record before, or of the group header | the chain |
/// | 8-15 | its own address | |
/// | 16-19 | length of the owner's header | |
/// | 20-23 | length of the payload | |
/// | 24-25 | kind | the owner's |
/// | 26-27 | `Hr` | |
/// | 28-31 | number of the group, low half | |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) address: u64,
    pub(crate) before: u32,
    pub(crate) header_len: u32,
    pub(crate) payload_len: u32,
    pub(crate) kind: u16,
    pub(crate) group: u32,
}

impl RecordHeader {
    /// Appends the record's header to `out`; returns the record's checksum.
    pub(crate) fn encode(&self, seed: u32, header: &[u8], payload: &[u8], out: &mut Vec<u8>) -> u32 {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.before.to_le_bytes());
        out.extend_from_slice(&self.address.to_le_bytes());
        out.extend_from_slice(&self.header_len.to_le_bytes());
        out.extend_from_slice(&self.payload_len.to_le_bytes());
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
        out.extend_from_slice(&self.group.to_le_bytes());
        let crc = crc32c_append(seed, &out[start + 4..start + RECORD_HEADER_LEN]);
        let crc = crc32c_append(crc32c_append(crc, header), payload);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads the fields of the record at `address`, without the checksum over what follows; any bytes are allowed.
    pub(crate) fn decode(bytes: &[u8], address: u64) -> Option<RecordHeader> {
        let bytes = bytes.get(..RECORD_HEADER_LEN)?;
        if u16_at(bytes, 26) != RECORD_MAGIC || u64_at(bytes, 8) != address {
            return None;
        }
        Some(RecordHeader {
            address,
            before: u32_at(bytes, 4),
            header_len: u32_at(bytes, 16),
            payload_len: u32_at(bytes, 20),
            kind: u16_at(bytes, 24),
            group: u32_at(bytes, 28),
        })
    }

    /// The record's length on disk, its own header included.
    pub(crate) fn len(&self) -> u64 {
        RECORD_HEADER_LEN as u64 + u64::from(self.header_len) + u64::from(self.payload_len)
    }
}

/// Reads the whole record at `address` from the start of `bytes`, which may go on behind it; any bytes are allowed. Returns it
/// with its header and its checksum.
pub(crate) fn decode_record(bytes: &Bytes, seed: u32, address: u64) -> Option<(Record, RecordHeader, u32)> {
    let head = RecordHeader::decode(bytes, address)?;
    let end = usize::try_from(head.len()).ok()?;
    let body = bytes.get(4..end)?;
    let crc = u32_at(bytes, 0);
    if crc32c_append(seed, body) != crc {
        return None;
    }
    let split = RECORD_HEADER_LEN + head.header_len as usize;
    let record = Record {
        position: crate::Position::new(address),
        kind: head.kind,
        header: bytes.slice(RECORD_HEADER_LEN..split),
        payload: bytes.slice(split..end),
    };
    Some((record, head, crc))
}

/// A whole group: every check passed.
#[derive(Debug)]
pub(crate) struct WholeGroup {
    pub(crate) header: GroupHeader,
    pub(crate) records: Vec<Record>,
    /// The chain after it.
    pub(crate) after: Chain,
}

/// Reads the group at `address` from `bytes`, which must hold all `header.len` bytes of it; `None` if any record fails its checks.
pub(crate) fn decode_group(bytes: &Bytes, seed: u32, address: u64) -> Option<WholeGroup> {
    let (header, mut crc) = GroupHeader::decode(bytes, seed, address)?;
    let end = header.len as usize;
    if bytes.len() < end {
        return None;
    }
    let mut at = GROUP_HEADER_LEN;
    let mut records = Vec::with_capacity((header.records as usize).min(end / RECORD_HEADER_LEN));
    while at < end {
        let (record, head, own) = decode_record(&bytes.slice(at..end), seed, address + at as u64)?;
        if head.before != crc || u64::from(head.group) != header.chain.number & u64::from(u32::MAX) {
            return None;
        }
        crc = own;
        at += usize::try_from(head.len()).ok()?;
        records.push(record);
    }
    if at != end || records.len() != header.records as usize {
        return None;
    }
    Some(WholeGroup {
        header,
        records,
        after: Chain { crc, ..header.chain },
    })
}

/// The records of a damaged group that are still good, for an owner who decides what to do about the damage. Also the address
/// of the first that is not.
pub(crate) fn salvage(bytes: &Bytes, seed: u32, address: u64) -> (Vec<Record>, u64) {
    let mut records = Vec::new();
    let mut bad = None;
    let mut at = GROUP_HEADER_LEN;
    let end = match GroupHeader::decode(bytes, seed, address) {
        Some((header, _)) => bytes.len().min(header.len as usize),
        None => {
            bad = Some(address);
            bytes.len()
        }
    };
    while at + RECORD_HEADER_LEN <= end {
        let here = address + at as u64;
        let rest = bytes.slice(at..end);
        let step = if let Some((record, head, _)) = decode_record(&rest, seed, here) {
            records.push(record);
            head.len()
        } else {
            bad.get_or_insert(here);
            // A record whose own header is broken too hides where the next one starts.
            let Some(head) = RecordHeader::decode(&rest, here) else {
                break;
            };
            head.len()
        };
        at = usize::try_from(step).map_or(end, |step| at.saturating_add(step));
    }
    (records, bad.unwrap_or(address))
}
