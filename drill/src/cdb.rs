//! Commands as an initiator builds them (SPC-5, SBC-4). Written apart from the target's own parser, so that a mistake in one is
//! not repeated in the other.

use holdfast_types::{BlockSize, Lba};

/// A command descriptor block of 16 bytes; shorter ones are padded with zeros, as iSCSI carries them (RFC 7143, 11.3.5).
pub type Cdb = [u8; 16];

/// TEST UNIT READY (SPC-5, 6.50).
pub const fn test_unit_ready() -> Cdb {
    [0; 16]
}

/// INQUIRY for standard data (SPC-5, 6.7) or, with `page`, a vital product data page.
pub const fn inquiry(page: Option<u8>, allocation: u16) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = 0x12;
    if let Some(page) = page {
        cdb[1] = 1;
        cdb[2] = page;
    }
    let [high, low] = allocation.to_be_bytes();
    cdb[3] = high;
    cdb[4] = low;
    cdb
}

/// REPORT LUNS, all of them (SPC-5, 6.36).
pub const fn report_luns(allocation: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = 0xa0;
    put_u32(&mut cdb, 6, allocation);
    cdb
}

/// READ CAPACITY(16) (SBC-4, 5.17).
pub const fn read_capacity_16(allocation: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = 0x9e;
    cdb[1] = 0x10;
    put_u32(&mut cdb, 10, allocation);
    cdb
}

/// REPORT TARGET PORT GROUPS with the extended header (SPC-5, 6.39).
pub const fn report_target_port_groups(allocation: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = 0xa3;
    cdb[1] = 0x2a;
    put_u32(&mut cdb, 6, allocation);
    cdb
}

/// READ(16) (SBC-4, 5.13).
pub const fn read_16(lba: Lba, blocks: u32) -> Cdb {
    medium(0x88, lba, blocks)
}

/// WRITE(16) (SBC-4, 5.38).
pub const fn write_16(lba: Lba, blocks: u32) -> Cdb {
    medium(0x8a, lba, blocks)
}

/// SYNCHRONIZE CACHE(16) (SBC-4, 5.30); 0 blocks means up to the end.
pub const fn synchronize_cache_16(lba: Lba, blocks: u32) -> Cdb {
    medium(0x91, lba, blocks)
}

/// COMPARE AND WRITE (SBC-4, 5.3); its data are the blocks that must be there, then those to put.
pub const fn compare_and_write(lba: Lba, blocks: u8) -> Cdb {
    let mut cdb = medium(0x89, lba, 0);
    cdb[13] = blocks;
    cdb
}

/// WRITE SAME(16) (SBC-4, 5.46); its data are one block.
pub const fn write_same_16(lba: Lba, blocks: u32) -> Cdb {
    medium(0x93, lba, blocks)
}

/// UNMAP of one range (SBC-4, 5.35): the command, and the parameter list that is its data.
pub fn unmap(lba: Lba, blocks: u32) -> (Cdb, [u8; 24]) {
    let mut cdb = [0; 16];
    cdb[0] = 0x42;
    cdb[8] = 24;
    let mut list = [0; 24];
    list[1] = 22;
    list[3] = 16;
    list[8..16].copy_from_slice(&lba.0.to_be_bytes());
    list[16..20].copy_from_slice(&blocks.to_be_bytes());
    (cdb, list)
}

const fn medium(opcode: u8, lba: Lba, blocks: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    let address = lba.0.to_be_bytes();
    let mut at = 0;
    while at < 8 {
        cdb[2 + at] = address[at];
        at += 1;
    }
    put_u32(&mut cdb, 10, blocks);
    cdb
}

const fn put_u32(cdb: &mut Cdb, at: usize, value: u32) {
    let bytes = value.to_be_bytes();
    let mut index = 0;
    while index < 4 {
        cdb[at + index] = bytes[index];
        index += 1;
    }
}

/// Size of a logical unit, from READ CAPACITY(16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// How many blocks.
    pub blocks: u64,
    /// Size of each.
    pub block_size: BlockSize,
}

impl Capacity {
    /// In bytes.
    pub const fn bytes(&self) -> u64 {
        self.blocks << self.block_size.shift()
    }

    /// Reads the parameter data; `None` when it is too short or names a block size that is neither 512 nor 4096.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let last = u64::from_be_bytes(data.get(0..8)?.try_into().ok()?);
        let size = u32::from_be_bytes(data.get(8..12)?.try_into().ok()?);
        let block_size = BlockSize::try_from(size).ok()?;
        // More than 2^52 blocks would not fit the addresses of this project.
        let blocks = last.checked_add(1).filter(|blocks| *blocks <= 1 << 52)?;
        Some(Self { blocks, block_size })
    }
}

/// One group of REPORT TARGET PORT GROUPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortGroup {
    /// The group's identifier.
    pub id: u16,
    /// Asymmetric access state: 0 active/optimized, 1 active/non-optimized, 2 standby, 3 unavailable, 15 transitioning.
    pub state: u8,
    /// PREF bit.
    pub is_preferred: bool,
    /// Relative target port identifiers of its ports.
    pub ports: Vec<u16>,
}

/// Reads the parameter data of REPORT TARGET PORT GROUPS with the extended header; `None` when it is cut short.
pub fn parse_port_groups(data: &[u8]) -> Option<Vec<PortGroup>> {
    let length = u32::from_be_bytes(data.get(0..4)?.try_into().ok()?);
    let mut rest = data.get(4..4 + usize::try_from(length).ok()?)?;
    // Header type 001b in bits 4 to 6 of byte 4: four more bytes of header.
    if rest.first().is_some_and(|byte| byte >> 4 & 7 == 1) {
        rest = rest.get(4..)?;
    }
    let mut groups = Vec::new();
    while !rest.is_empty() {
        let head = rest.get(..8)?;
        let count = usize::from(head[7]);
        let ports = rest.get(8..8 + 4 * count)?;
        groups.push(PortGroup {
            id: u16::from_be_bytes([head[2], head[3]]),
            state: head[0] & 0xf,
            is_preferred: head[0] & 0x80 != 0,
            ports: ports
                .chunks(4)
                .map(|port| u16::from_be_bytes([port[2], port[3]]))
                .collect(),
        });
        rest = &rest[8 + 4 * count..];
    }
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_laid_out_as_the_standards_say() {
        let mut wanted = [0; 16];
        wanted[0] = 0x8a;
        wanted[2..10].copy_from_slice(&0x0102_0304_0506_0708_u64.to_be_bytes());
        wanted[13] = 8;
        assert_eq!(write_16(Lba(0x0102_0304_0506_0708), 8), wanted);
        assert_eq!(inquiry(Some(0x83), 0x1ff)[..6], [0x12, 1, 0x83, 1, 0xff, 0]);
        assert_eq!(read_capacity_16(32)[..2], [0x9e, 0x10]);
        assert_eq!(read_capacity_16(32)[13], 32);
        let compare = compare_and_write(Lba(0x0102), 3);
        assert_eq!(
            (compare[0], compare[8..14].to_vec()),
            (0x89, vec![1, 2, 0, 0, 0, 3])
        );
        assert_eq!(write_same_16(Lba(1), 0x0102_0304)[9..14], [1, 1, 2, 3, 4]);
        let (cdb, list) = unmap(Lba(5), 6);
        assert_eq!(cdb[..10], [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
        assert_eq!(
            list,
            [
                0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 0
            ]
        );
    }

    #[test]
    fn capacity_is_read_or_refused() {
        let mut data = [0; 32];
        data[4..8].copy_from_slice(&0x001f_ffff_u32.to_be_bytes());
        data[8..12].copy_from_slice(&512_u32.to_be_bytes());
        let capacity = Capacity::parse(&data).unwrap();
        assert_eq!(capacity.bytes(), 1 << 30);
        data[8..12].copy_from_slice(&513_u32.to_be_bytes());
        assert_eq!(Capacity::parse(&data), None);
        assert_eq!(Capacity::parse(&data[..11]), None);
        assert_eq!(Capacity::parse(&[0xff; 32]), None);
    }

    #[test]
    fn port_groups_are_read_with_either_header() {
        let one = [0x80, 0x8f, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
        let two = [0x01, 0x8f, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let short = [&[0, 0, 0, 24][..], &one, &two].concat();
        let extended = [&[0, 0, 0, 28, 0x10, 5, 0, 0][..], &one, &two].concat();
        let groups = parse_port_groups(&extended).unwrap();
        assert_eq!(parse_port_groups(&short).unwrap(), groups);
        let states: Vec<_> = groups
            .iter()
            .map(|g| (g.id, g.state, g.is_preferred, g.ports.clone()))
            .collect();
        assert_eq!(states, [(1, 0, true, vec![1]), (2, 1, false, vec![2])]);
        assert_eq!(parse_port_groups(&extended[..30]), None);
    }
}
