//! SCSI Data-Out, Data-In and Ready To Transfer (RFC 7143, 11.7 and 11.8).

use super::{Bhs, FINAL, Opcode, ScsiStatus, TargetNumbers};
use crate::serial::Sn;

/// What was moved compared with the Expected Data Transfer Length (RFC 7143, 11.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Residual {
    /// Exactly what was expected.
    #[default]
    None,
    /// So many bytes of the expected length were not moved (U bit).
    Under(u32),
    /// So many bytes did not fit into the expected length (O bit).
    Over(u32),
}

impl Residual {
    /// From the two lengths in bytes; a difference that does not fit 32 bits is cut to the largest that does.
    pub fn of(expected: u32, moved: u64) -> Self {
        match moved.cmp(&u64::from(expected)) {
            std::cmp::Ordering::Equal => Self::None,
            std::cmp::Ordering::Less => {
                Self::Under(u32::try_from(u64::from(expected) - moved).unwrap_or(u32::MAX))
            }
            std::cmp::Ordering::Greater => {
                Self::Over(u32::try_from(moved - u64::from(expected)).unwrap_or(u32::MAX))
            }
        }
    }

    /// Both bits set is a protocol error (RFC 7143, 11.4.1); the underflow is read then, and a count without a bit means nothing.
    pub(super) const fn from_flags(over: bool, under: bool, count: u32) -> Self {
        if under {
            Self::Under(count)
        } else if over {
            Self::Over(count)
        } else {
            Self::None
        }
    }

    /// Overflow bit, underflow bit, count.
    pub(super) const fn to_flags(self) -> (bool, bool, u32) {
        match self {
            Self::None => (false, false, 0),
            Self::Under(count) => (false, true, count),
            Self::Over(count) => (true, false, count),
        }
    }
}

/// SCSI Data-Out (RFC 7143, 11.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataOut {
    /// The F bit: the last PDU of its sequence.
    pub last: bool,
    /// The LUN field; only meaningful with a Target Transfer Tag.
    pub lun: u64,
    /// Initiator Task Tag of the command.
    pub itt: u32,
    /// Target Transfer Tag of the R2T, [`super::NO_TAG`] for unsolicited data.
    pub ttt: u32,
    /// ExpStatSN.
    pub exp_stat_sn: Sn,
    /// The PDU's number within its sequence.
    pub data_sn: u32,
    /// Where the data belongs, in bytes from the start of the command's data.
    pub offset: u32,
}

impl DataOut {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            last: bhs.flags() & FINAL != 0,
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32(20),
            exp_stat_sn: Sn(bhs.u32(28)),
            data_sn: bhs.u32(36),
            offset: bhs.u32(40),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        Bhs::new(Opcode::DATA_OUT, if self.last { FINAL } else { 0 })
            .put_lun(self.lun)
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt)
            .put_u32(28, self.exp_stat_sn.0)
            .put_u32(36, self.data_sn)
            .put_u32(40, self.offset)
    }
}

/// SCSI Data-In (RFC 7143, 11.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataIn {
    /// The F bit: the last PDU of its sequence.
    pub last: bool,
    /// The A bit: wants a DataACK SNACK. Never set at ErrorRecoveryLevel 0.
    pub acknowledge: bool,
    /// The S bit with status and residual: the command is over, without a SCSI Response.
    pub status: Option<(ScsiStatus, Residual)>,
    /// The LUN field; only meaningful with a Target Transfer Tag.
    pub lun: u64,
    /// Initiator Task Tag of the command.
    pub itt: u32,
    /// Target Transfer Tag, [`super::NO_TAG`] unless the A bit is set.
    pub ttt: u32,
    /// StatSN (meaningful with status only), ExpCmdSN, MaxCmdSN.
    pub numbers: TargetNumbers,
    /// The PDU's number within the command's data.
    pub data_sn: u32,
    /// Where the data belongs, in bytes from the start of the command's data.
    pub offset: u32,
}

impl DataIn {
    /// Reads a header of this opcode.
    pub fn parse(bhs: &Bhs) -> Self {
        let flags = bhs.flags();
        let residual = Residual::from_flags(flags & 0x04 != 0, flags & 0x02 != 0, bhs.u32(44));
        Self {
            last: flags & FINAL != 0,
            acknowledge: flags & 0x40 != 0,
            status: (flags & 0x01 != 0).then(|| (ScsiStatus(bhs.u8(3)), residual)),
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32(20),
            numbers: TargetNumbers::parse(bhs),
            data_sn: bhs.u32(36),
            offset: bhs.u32(40),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let mut flags = if self.last { FINAL } else { 0 } | if self.acknowledge { 0x40 } else { 0 };
        let (mut status, mut count) = (0, 0);
        if let Some((scsi, residual)) = self.status {
            let (over, under, residual_count) = residual.to_flags();
            flags |= 0x01 | (u8::from(over) << 2) | (u8::from(under) << 1);
            status = scsi.0;
            count = residual_count;
        }
        let bhs = Bhs::new(Opcode::DATA_IN, flags)
            .put_u8(3, status)
            .put_lun(self.lun)
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt);
        self.numbers
            .emit(bhs)
            .put_u32(36, self.data_sn)
            .put_u32(40, self.offset)
            .put_u32(44, count)
    }
}

/// Ready To Transfer (RFC 7143, 11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct R2t {
    /// The LUN field.
    pub lun: u64,
    /// Initiator Task Tag of the command.
    pub itt: u32,
    /// Target Transfer Tag that the data must carry.
    pub ttt: u32,
    /// StatSN (the next one, not taken), ExpCmdSN, MaxCmdSN.
    pub numbers: TargetNumbers,
    /// The R2T's number within the command.
    pub r2t_sn: u32,
    /// Where the wanted data starts, in bytes from the start of the command's data.
    pub offset: u32,
    /// How much is wanted, in bytes; not 0 and at most MaxBurstLength.
    pub length: u32,
}

impl R2t {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32(20),
            numbers: TargetNumbers::parse(bhs),
            r2t_sn: bhs.u32(36),
            offset: bhs.u32(40),
            length: bhs.u32(44),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::R2T, FINAL)
            .put_lun(self.lun)
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt);
        self.numbers
            .emit(bhs)
            .put_u32(36, self.r2t_sn)
            .put_u32(40, self.offset)
            .put_u32(44, self.length)
    }
}
