//! Reading a command descriptor block.

/// A CDB, at least as long as its command's. Reading beyond the end gives zeros, so nothing here can panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cdb<'a>(pub(crate) &'a [u8]);

impl Cdb<'_> {
    /// One byte.
    pub(crate) fn byte(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// Whether a bit is set.
    pub(crate) fn bit(self, at: usize, bit: u8) -> bool {
        self.byte(at) >> bit & 1 == 1
    }

    /// A big-endian number of at most eight bytes.
    pub(crate) fn number(self, at: usize, bytes: usize) -> u64 {
        (at..at + bytes).fold(0, |value, at| value << 8 | u64::from(self.byte(at)))
    }

    /// A big-endian number of at most four bytes as a length in memory.
    pub(crate) fn length(self, at: usize, bytes: usize) -> usize {
        usize::try_from(self.number(at, bytes)).unwrap_or(usize::MAX)
    }

    /// The operation code.
    pub(crate) fn opcode(self) -> u8 {
        self.byte(0)
    }

    /// The service action of the commands that have one: bits 4 to 0 of byte 1.
    pub(crate) fn action(self) -> u8 {
        self.byte(1) & 0x1f
    }

    /// RDPROTECT, WRPROTECT, VRPROTECT.
    pub(crate) fn protect(self) -> u8 {
        self.byte(1) >> 5
    }

    /// Address and number of blocks of READ, WRITE, VERIFY and their like, with the offset of the length field. The group code in
    /// the top three bits of the operation code says where they are. READ(6) and WRITE(6) say 256 as 0.
    pub(crate) fn lba_and_blocks(self) -> (u64, u64, u16) {
        match self.opcode() >> 5 {
            0 => {
                let blocks = match self.byte(4) {
                    0 => 256,
                    blocks => u64::from(blocks),
                };
                (self.number(1, 3) & 0x1f_ffff, blocks, 4)
            }
            4 => (self.number(2, 8), self.number(10, 4), 10),
            5 => (self.number(2, 4), self.number(6, 4), 6),
            _ => (self.number(2, 4), self.number(7, 2), 7),
        }
    }
}
