//! The Basic Header Segment: 48 bytes, the same frame for every PDU.

use std::fmt;

use bytes::Bytes;

/// Length of the Basic Header Segment in bytes (RFC 7143, 11.2).
pub const BHS_LEN: usize = 48;
/// The tag that stands for "no task" in the Initiator and Target Transfer Tag fields.
pub const NO_TAG: u32 = 0xffff_ffff;
/// The F (final) bit of byte 1, which most PDUs have.
pub const FINAL: u8 = 0x80;

/// Declares a newtype over a number on the wire, with names for the values that are known. Other values are kept and print as numbers.
macro_rules! wire_number {
    ($(#[$doc:meta])* $name:ident($inner:ty) { $($(#[$vdoc:meta])* $value:ident = $number:expr, $text:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            $($(#[$vdoc])* pub const $value: Self = Self($number);)*

            /// What the number means, `None` where it is not known here.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$value => Some($text),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name}"),
                    None => write!(f, "0x{:02x}", self.0),
                }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{}(0x{:02x} {name})", stringify!($name), self.0),
                    None => write!(f, "{}(0x{:02x})", stringify!($name), self.0),
                }
            }
        }
    };
}
pub(crate) use wire_number;

wire_number! {
    /// What a PDU is (RFC 7143, 11.2.1.2). Six bits.
    Opcode(u8) {
        /// NOP-Out.
        NOP_OUT = 0x00, "NOP-Out";
        /// SCSI Command.
        SCSI_COMMAND = 0x01, "SCSI Command";
        /// SCSI Task Management Function Request.
        TASK_REQUEST = 0x02, "Task Management Request";
        /// Login Request.
        LOGIN_REQUEST = 0x03, "Login Request";
        /// Text Request.
        TEXT_REQUEST = 0x04, "Text Request";
        /// SCSI Data-Out.
        DATA_OUT = 0x05, "SCSI Data-Out";
        /// Logout Request.
        LOGOUT_REQUEST = 0x06, "Logout Request";
        /// SNACK Request.
        SNACK = 0x10, "SNACK Request";
        /// NOP-In.
        NOP_IN = 0x20, "NOP-In";
        /// SCSI Response.
        SCSI_RESPONSE = 0x21, "SCSI Response";
        /// SCSI Task Management Function Response.
        TASK_RESPONSE = 0x22, "Task Management Response";
        /// Login Response.
        LOGIN_RESPONSE = 0x23, "Login Response";
        /// Text Response.
        TEXT_RESPONSE = 0x24, "Text Response";
        /// SCSI Data-In.
        DATA_IN = 0x25, "SCSI Data-In";
        /// Logout Response.
        LOGOUT_RESPONSE = 0x26, "Logout Response";
        /// Ready To Transfer.
        R2T = 0x31, "Ready To Transfer";
        /// Asynchronous Message.
        ASYNC = 0x32, "Asynchronous Message";
        /// Reject.
        REJECT = 0x3f, "Reject";
    }
}

/// A Basic Header Segment as it is on the wire: a view with the fields that every PDU shares. Reading any 48 bytes never fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bhs(pub [u8; BHS_LEN]);

impl Bhs {
    /// An empty header of this kind; `flags` is byte 1.
    pub const fn new(opcode: Opcode, flags: u8) -> Self {
        let mut bytes = [0; BHS_LEN];
        bytes[0] = opcode.0 & 0x3f;
        bytes[1] = flags;
        Self(bytes)
    }

    /// The opcode (six bits; the rest of byte 0 is not part of it).
    pub const fn opcode(&self) -> Opcode {
        Opcode(self.0[0] & 0x3f)
    }

    /// The I bit: deliver at once, without taking a CmdSN (RFC 7143, 4.2.2.1).
    pub const fn immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }

    /// Sets the I bit.
    #[must_use]
    pub const fn with_immediate(mut self, immediate: bool) -> Self {
        self.0[0] = (self.0[0] & 0x3f) | if immediate { 0x40 } else { 0 };
        self
    }

    /// Byte 1: F bit and what is special to the opcode.
    pub const fn flags(&self) -> u8 {
        self.0[1]
    }

    /// Length of all Additional Header Segments in bytes, padding included: 0 to 1020 (RFC 7143, 11.2.1.5).
    pub const fn ahs_len(&self) -> usize {
        self.0[4] as usize * 4
    }

    /// Length of the data segment in bytes, padding not included: up to 2^24 - 1 (RFC 7143, 11.2.1.6).
    pub const fn data_len(&self) -> usize {
        (self.0[5] as usize) << 16 | (self.0[6] as usize) << 8 | self.0[7] as usize
    }

    /// Writes both lengths in bytes. The AHS length is rounded up to whole words.
    ///
    /// # Panics
    /// Where a length does not fit its field: both come from this crate's own bookkeeping, never from a peer.
    pub fn set_lengths(&mut self, ahs: usize, data: usize) {
        assert!(ahs <= 1020 && data < 1 << 24, "segment lengths fit their fields");
        self.0[4] = u8::try_from(ahs.div_ceil(4)).expect("at most 255 words");
        let data = u32::try_from(data).expect("below 2^24").to_be_bytes();
        self.0[5..8].copy_from_slice(&data[1..]);
    }

    /// The eight-byte LUN field, where the opcode has one.
    pub const fn lun(&self) -> u64 {
        (self.u32(8) as u64) << 32 | self.u32(12) as u64
    }

    /// The Initiator Task Tag.
    pub const fn itt(&self) -> u32 {
        self.u32(16)
    }

    /// The byte at `at`.
    ///
    /// # Panics
    /// As for every accessor by offset: where the offset, a constant of this crate, is outside of the header.
    pub const fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    /// The big-endian number at `at`.
    pub const fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    /// The big-endian number at `at`.
    pub const fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// Writes one byte.
    #[must_use]
    pub fn put_u8(mut self, at: usize, value: u8) -> Self {
        self.0[at] = value;
        self
    }

    /// Writes a big-endian number.
    #[must_use]
    pub fn put_u16(mut self, at: usize, value: u16) -> Self {
        self.0[at..at + 2].copy_from_slice(&value.to_be_bytes());
        self
    }

    /// Writes a big-endian number.
    #[must_use]
    pub fn put_u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    /// Writes the LUN field.
    #[must_use]
    pub fn put_lun(mut self, lun: u64) -> Self {
        self.0[8..16].copy_from_slice(&lun.to_be_bytes());
        self
    }
}

impl fmt::Debug for Bhs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.opcode())?;
        if self.immediate() {
            write!(f, " (immediate)")?;
        }
        write!(
            f,
            " flags {:02x} ahs {} data {} ",
            self.flags(),
            self.ahs_len(),
            self.data_len()
        )?;
        self.0[8..].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One whole PDU, checked against its digests and taken apart. The segments are slices of the receive buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The Basic Header Segment.
    pub bhs: Bhs,
    /// All Additional Header Segments, padding included.
    pub ahs: Bytes,
    /// The data segment without padding.
    pub data: Bytes,
}
