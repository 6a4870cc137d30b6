//! Reads one segment from front to end and tells a torn group from a damaged one (J1).

use std::io;

use bytes::{Bytes, BytesMut};

use crate::device::{FileName, LogDevice};
use crate::error::Damage;
use crate::format::{BLOCK, BLOCK_LEN, Chain, GroupHeader, Record, WholeGroup, align, decode_group, salvage};
use crate::rot;

/// Bytes read at once when looking for a later group.
const CHUNK: usize = 64 * BLOCK_LEN;

/// One segment of a log.
pub(crate) struct Segment<'a> {
    pub(crate) device: &'a dyn LogDevice,
    pub(crate) sequence: u64,
    pub(crate) size: u64,
    pub(crate) seed: u32,
}

/// What a segment came to.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// The address behind the last whole group.
    pub(crate) end: u64,
    /// The first address that the last whole group notes.
    pub(crate) first: Option<u64>,
    /// A group was being written at `end`: its bytes, as far as known.
    pub(crate) torn: Option<u64>,
    /// The first damage.
    pub(crate) damage: Option<(u64, Damage)>,
}

/// What is found at a place where a group might start.
enum Found {
    Whole(WholeGroup),
    /// Meant to be a group, or what is left of one; with the bytes that could be read of it.
    Broken(Bytes),
    /// Nothing of this log's present: zeros, or old bytes.
    Nothing(Bytes),
    Unreadable(io::Error),
}

impl Segment<'_> {
    fn base(&self) -> u64 {
        self.sequence * self.size
    }

    /// Reads `len` bytes at `offset`; a short file is an error.
    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(len);
        let got = self
            .device
            .read_at(FileName::Segment(self.sequence), offset, &mut bytes)?;
        if got < len {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is too short",
            ));
        }
        Ok(bytes.freeze())
    }

    fn find(&self, offset: u64) -> Found {
        let address = self.base() + offset;
        let block = match self.read(offset, BLOCK_LEN) {
            Ok(block) => block,
            Err(error) => return Found::Unreadable(error),
        };
        let Some((header, _)) = GroupHeader::decode(&block, self.seed, address) else {
            return if GroupHeader::resembles(&block, self.seed, address) {
                Found::Broken(block)
            } else {
                Found::Nothing(block)
            };
        };
        let len = header.len as usize;
        if offset + u64::from(header.len) > self.size {
            return Found::Broken(block);
        }
        let bytes = if len <= BLOCK_LEN {
            block
        } else {
            match self.read(offset, len) {
                Ok(bytes) => bytes,
                Err(error) => return Found::Unreadable(error),
            }
        };
        match decode_group(&bytes, self.seed, address) {
            Some(group) => Found::Whole(group),
            None => Found::Broken(bytes.slice(..len.min(bytes.len()))),
        }
    }

    /// The offset of the next good group header in `from..to`. Blocks that cannot be read are skipped.
    fn find_header(&self, from: u64, to: u64) -> Option<u64> {
        let mut at = from;
        while at + BLOCK <= to {
            let left = usize::try_from(to - at).unwrap_or(CHUNK);
            let len = left.min(CHUNK) / BLOCK_LEN * BLOCK_LEN;
            let chunk = match self.read(at, len) {
                Ok(chunk) => chunk,
                Err(_) => match self.read(at, BLOCK_LEN) {
                    Ok(block) => block,
                    Err(_) => {
                        at += BLOCK;
                        continue;
                    }
                },
            };
            for block in chunk.chunks(BLOCK_LEN) {
                if GroupHeader::decode(block, self.seed, self.base() + at).is_some() {
                    return Some(at);
                }
                at += BLOCK;
            }
        }
        None
    }

    /// Gives every record to `each`, with whether damage lies before it in this segment.
    ///
    /// `upto` is the address up to which a later header proves the segment to have been durable, and where it ended. `chain` is the
    /// end of the chain before, if known, and becomes the one behind.
    pub(crate) fn walk(
        &self,
        upto: Option<u64>,
        chain: &mut Option<Chain>,
        each: &mut dyn FnMut(Record, bool),
    ) -> Walked {
        let mut walked = Walked::default();
        let mut at = BLOCK;
        let limit = upto.map_or(self.size, |upto| upto.saturating_sub(self.base()).min(self.size));
        while at < limit {
            let found = self.find(at);
            if let Found::Whole(group) = found {
                if chain.is_some_and(|c| !c.leads_to(&group.header.chain)) {
                    walked
                        .damage
                        .get_or_insert((self.base() + at, Damage::BrokenChain));
                }
                let damaged = walked.damage.is_some();
                group.records.into_iter().for_each(|record| each(record, damaged));
                *chain = Some(group.after);
                walked.first = Some(group.header.first);
                at = align(at + u64::from(group.header.len));
                continue;
            }
            let next = self.find_header(at + BLOCK, limit);
            let proven = upto.is_some() || next.is_some() || self.has_rotted(&found, at);
            let Some(damage) = self.judge(&found, proven) else {
                walked.torn = torn_bytes(&found, self.base() + at, self.seed);
                break;
            };
            let bad = self.offer_rest(found, at, next.unwrap_or(limit), each);
            walked.damage.get_or_insert((bad, damage));
            *chain = None;
            let Some(next) = next else {
                at = limit;
                break;
            };
            at = next;
        }
        if at > limit {
            // A group reaches over the place where the segment is said to end.
            walked
                .damage
                .get_or_insert((self.base() + limit, Damage::BrokenChain));
        }
        walked.end = self.base() + at;
        walked
    }

    /// What a place without a whole group is: damage, or (`None`) the end of the log. Bytes that the disk does not give back are
    /// always damage: a torn write can be read.
    fn judge(&self, found: &Found, proven: bool) -> Option<Damage> {
        match found {
            Found::Unreadable(error) => Some(Damage::Unreadable(self.sequence, error.to_string())),
            _ if proven => Some(Damage::BadRecord),
            _ => None,
        }
    }

    /// Whether what is no whole group was one before a bit of it flipped: then no torn write is.
    fn has_rotted(&self, found: &Found, at: u64) -> bool {
        let Found::Broken(bytes) = found else {
            return false;
        };
        let address = self.base() + at;
        if let Some((header, _)) = GroupHeader::decode(bytes, self.seed, address) {
            let len = header.len as usize;
            return len <= bytes.len() && rot::is_one_bit_off(&bytes.slice(..len), self.seed, address);
        }
        let Some((header, bit)) = rot::repaired_header(bytes, self.seed, address) else {
            return false;
        };
        let len = header.len as usize;
        at + u64::from(header.len) <= self.size
            && self
                .read(at, len.max(BLOCK_LEN))
                .is_ok_and(|bytes| rot::is_whole_but_for(&bytes, bit, self.seed, address))
    }

    /// Offers what is still good of a damaged group, up to the offset `next`; returns the address of the first byte that is not.
    fn offer_rest(&self, found: Found, at: u64, next: u64, each: &mut dyn FnMut(Record, bool)) -> u64 {
        let address = self.base() + at;
        let room = usize::try_from(next - at).unwrap_or(usize::MAX);
        let bytes = match found {
            Found::Broken(bytes) if GroupHeader::decode(&bytes, self.seed, address).is_some() => bytes,
            // The header does not say how long the group is: up to the next one.
            Found::Broken(block) | Found::Nothing(block) => self.read(at, room).unwrap_or(block),
            Found::Whole(_) | Found::Unreadable(_) => return address,
        };
        let bytes = bytes.slice(..bytes.len().min(room));
        let (records, bad) = salvage(&bytes, self.seed, address);
        for record in records {
            let behind = record.position.get() > bad;
            each(record, behind);
        }
        bad
    }
}

/// The bytes of a torn group, if there is one.
fn torn_bytes(found: &Found, address: u64, seed: u32) -> Option<u64> {
    match found {
        Found::Broken(bytes) => {
            Some(GroupHeader::decode(bytes, seed, address).map_or(BLOCK, |(header, _)| u64::from(header.len)))
        }
        Found::Whole(_) | Found::Nothing(_) | Found::Unreadable(_) => None,
    }
}
