//! Tells a flipped bit in the last group of a log from a torn write (J1).
//!
//! A power cut leaves sectors of the last group unwritten. Rot flips bits of one that was whole, and may have been acknowledged: cutting it
//! would lose what is in it. Nothing behind the last group proves that it was stable. But where one flipped bit makes all checksums fit,
//! a torn write is as good as excluded: the bits of a torn record would have to fit a checksum of 32 bits by chance, about once in 100,000
//! torn records of 4 KiB, and all that follows is that a healthy replica is taken for a damaged one. A sector that was not written is
//! nearly empty, and a bit may be all that is missing in it: only a bit in a sector with more than that counts. So two bits that are
//! flipped in the last group, and one in a nearly empty sector, are still taken for a torn write.

use bytes::{Bytes, BytesMut};
use crc32c::crc32c_append;

use crate::format::{
    GROUP_HEADER_LEN, GroupHeader, RECORD_HEADER_LEN, RecordHeader, decode_group, decode_record,
};

/// The polynomial of CRC-32C, the lowest bit first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What one byte does to a checksum.
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}

static TABLE: [u32; 256] = table();

fn flipped(bytes: &[u8], bit: usize) -> Bytes {
    let mut bytes = BytesMut::from(bytes);
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes.freeze()
}

/// The header that a broken one becomes when a bit is flipped, and that bit. `bytes` begin where the group does.
pub(crate) fn repaired_header(bytes: &[u8], seed: u32, address: u64) -> Option<(GroupHeader, usize)> {
    let header = bytes.get(..GROUP_HEADER_LEN)?;
    (0..GROUP_HEADER_LEN * 8).find_map(|bit| {
        let (header, _) = GroupHeader::decode(&flipped(header, bit), seed, address)?;
        Some((header, bit))
    })
}

/// What a medium writes as a whole, at least.
const SECTOR: usize = 512;
/// Bytes other than zero that a sector has at least if it was written for sure.
const WRITTEN: usize = 16;

/// Whether the group at `address` is whole but for this bit, whose sector was written. Groups begin where sectors do.
pub(crate) fn is_whole_but_for(bytes: &[u8], bit: usize, seed: u32, address: u64) -> bool {
    let first = bit / 8 / SECTOR * SECTOR;
    let sector = &bytes[first..bytes.len().min(first + SECTOR)];
    sector.iter().filter(|byte| **byte != 0).count() >= WRITTEN
        && decode_group(&flipped(bytes, bit), seed, address).is_some()
}

/// Whether a group whose header is good, and whose bytes are all there, is whole but for one bit of a record.
pub(crate) fn is_one_bit_off(bytes: &Bytes, seed: u32, address: u64) -> bool {
    let mut at = GROUP_HEADER_LEN;
    while at < bytes.len() {
        let (rest, here) = (bytes.slice(at..), address + at as u64);
        let Some((_, head, _)) = decode_record(&rest, seed, here) else {
            return candidates(&rest, seed, here)
                .any(|bit| is_whole_but_for(bytes, at * 8 + bit, seed, address));
        };
        at = usize::try_from(head.len()).map_or(bytes.len(), |len| at.saturating_add(len));
    }
    false
}

/// Bits of the record at the start of these bytes, one of which is wrong if only one is.
fn candidates(bytes: &Bytes, seed: u32, address: u64) -> impl Iterator<Item = usize> {
    let header = bytes.slice(..bytes.len().min(RECORD_HEADER_LEN));
    let in_header = (0..header.len() * 8).filter(move |bit| {
        // Only then is it worth while to look at the whole record.
        RecordHeader::decode(&flipped(&header, *bit), address).is_some()
    });
    let body = RecordHeader::decode(bytes, address)
        .and_then(|head| usize::try_from(head.len()).ok())
        .and_then(|len| bytes.get(..len));
    let behind = body.and_then(|record| {
        let stored = u32::from_le_bytes(*record.first_chunk()?);
        let wrong = crc32c_append(seed, &record[4..]) ^ stored;
        wrong_bit(&record[4..], wrong).map(|bit| bit + 32)
    });
    in_header.chain(behind)
}

/// The bit that makes a checksum over these bytes differ by `wrong`. What a bit does depends on its distance from the end alone.
fn wrong_bit(bytes: &[u8], wrong: u32) -> Option<usize> {
    let mut of_bits: [u32; 8] = std::array::from_fn(|bit| TABLE[1 << bit]);
    for at in (0..bytes.len()).rev() {
        if let Some(bit) = of_bits.iter().position(|effect| *effect == wrong) {
            return Some(at * 8 + bit);
        }
        for effect in &mut of_bits {
            *effect = (*effect >> 8) ^ TABLE[(*effect & 0xff) as usize];
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_bit_is_found_by_its_checksum() {
        let bytes: Vec<u8> = (0..700_u32).map(|n| (n * 7 % 251) as u8).collect();
        let right = crc32c_append(99, &bytes);
        for bit in 0..bytes.len() * 8 {
            let wrong = crc32c_append(99, &flipped(&bytes, bit)) ^ right;
            assert_eq!(wrong_bit(&bytes, wrong), Some(bit));
        }
        assert_eq!(wrong_bit(&bytes, 0), None);
    }
}
