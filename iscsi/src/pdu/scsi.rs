//! SCSI Command and SCSI Response (RFC 7143, 11.3 and 11.4).

use super::header::wire_number;
use super::{Bhs, FINAL, Numbers, Opcode, Residual, TargetNumbers};

wire_number! {
    /// How the task is queued (RFC 7143, 11.3.1; SAM-5). Three bits.
    TaskAttribute(u8) {
        /// Untagged.
        UNTAGGED = 0, "untagged";
        /// Simple.
        SIMPLE = 1, "simple";
        /// Ordered.
        ORDERED = 2, "ordered";
        /// Head of queue.
        HEAD_OF_QUEUE = 3, "head of queue";
        /// Auto contingent allegiance.
        ACA = 4, "ACA";
    }
}

wire_number! {
    /// A SCSI status byte (SAM-5).
    ScsiStatus(u8) {
        /// GOOD.
        GOOD = 0x00, "GOOD";
        /// CHECK CONDITION.
        CHECK_CONDITION = 0x02, "CHECK CONDITION";
        /// CONDITION MET.
        CONDITION_MET = 0x04, "CONDITION MET";
        /// BUSY.
        BUSY = 0x08, "BUSY";
        /// RESERVATION CONFLICT.
        RESERVATION_CONFLICT = 0x18, "RESERVATION CONFLICT";
        /// TASK SET FULL.
        TASK_SET_FULL = 0x28, "TASK SET FULL";
        /// ACA ACTIVE.
        ACA_ACTIVE = 0x30, "ACA ACTIVE";
        /// TASK ABORTED.
        TASK_ABORTED = 0x40, "TASK ABORTED";
    }
}

wire_number! {
    /// The iSCSI service response (RFC 7143, 11.4.3).
    ServiceResponse(u8) {
        /// The command was completed at the target; the status says how.
        COMPLETED = 0x00, "command completed at target";
        /// Target failure.
        TARGET_FAILURE = 0x01, "target failure";
    }
}

/// Which way a command's data goes, from the R and W bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// No data.
    None,
    /// To the initiator.
    Read,
    /// To the target.
    Write,
    /// Both ways: a bidirectional command.
    Both,
}

impl Direction {
    /// Whether data goes to the initiator.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether data goes to the target.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }

    const fn from_flags(flags: u8) -> Self {
        match (flags & 0x40 != 0, flags & 0x20 != 0) {
            (false, false) => Self::None,
            (true, false) => Self::Read,
            (false, true) => Self::Write,
            (true, true) => Self::Both,
        }
    }

    const fn to_flags(self) -> u8 {
        (if self.reads() { 0x40 } else { 0 }) | (if self.writes() { 0x20 } else { 0 })
    }
}

/// SCSI Command (RFC 7143, 11.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScsiCommand {
    /// The I bit.
    pub immediate: bool,
    /// The F bit: no unsolicited Data-Out follows.
    pub last: bool,
    /// The R and W bits.
    pub direction: Direction,
    /// The task attribute.
    pub attribute: TaskAttribute,
    /// The LUN field.
    pub lun: u64,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Expected Data Transfer Length in bytes.
    pub expected_length: u32,
    /// CmdSN and ExpStatSN.
    pub numbers: Numbers,
    /// The first 16 bytes of the CDB.
    pub cdb: [u8; 16],
}

impl ScsiCommand {
    /// Reads a header of this opcode.
    pub fn parse(bhs: &Bhs) -> Self {
        let mut cdb = [0; 16];
        cdb.copy_from_slice(&bhs.0[32..]);
        Self {
            immediate: bhs.immediate(),
            last: bhs.flags() & FINAL != 0,
            direction: Direction::from_flags(bhs.flags()),
            attribute: TaskAttribute(bhs.flags() & 0x07),
            lun: bhs.lun(),
            itt: bhs.itt(),
            expected_length: bhs.u32(20),
            numbers: Numbers::parse(bhs),
            cdb,
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let flags = if self.last { FINAL } else { 0 } | self.direction.to_flags() | (self.attribute.0 & 0x07);
        let bhs = Bhs::new(Opcode::SCSI_COMMAND, flags)
            .with_immediate(self.immediate)
            .put_lun(self.lun)
            .put_u32(16, self.itt)
            .put_u32(20, self.expected_length);
        let mut bhs = self.numbers.emit(bhs);
        bhs.0[32..].copy_from_slice(&self.cdb);
        bhs
    }
}

/// SCSI Response (RFC 7143, 11.4). The data segment holds sense data behind its two-byte length (11.4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScsiResponse {
    /// The residual of a bidirectional command's read part.
    pub read_residual: Residual,
    /// The residual.
    pub residual: Residual,
    /// The service response.
    pub response: ServiceResponse,
    /// The SCSI status.
    pub status: ScsiStatus,
    /// Initiator Task Tag.
    pub itt: u32,
    /// SNACK Tag; 0 at ErrorRecoveryLevel 0.
    pub snack_tag: u32,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: TargetNumbers,
    /// ExpDataSN: how many Data-In and R2T PDUs the command got.
    pub exp_data_sn: u32,
}

impl ScsiResponse {
    /// Reads a header of this opcode.
    pub fn parse(bhs: &Bhs) -> Self {
        let flags = bhs.flags();
        Self {
            read_residual: Residual::from_flags(flags & 0x10 != 0, flags & 0x08 != 0, bhs.u32(40)),
            residual: Residual::from_flags(flags & 0x04 != 0, flags & 0x02 != 0, bhs.u32(44)),
            response: ServiceResponse(bhs.u8(2)),
            status: ScsiStatus(bhs.u8(3)),
            itt: bhs.itt(),
            snack_tag: bhs.u32(20),
            numbers: TargetNumbers::parse(bhs),
            exp_data_sn: bhs.u32(36),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let (read_over, read_under, read_count) = self.read_residual.to_flags();
        let (over, under, count) = self.residual.to_flags();
        let flags = FINAL
            | (u8::from(read_over) << 4)
            | (u8::from(read_under) << 3)
            | (u8::from(over) << 2)
            | (u8::from(under) << 1);
        let bhs = Bhs::new(Opcode::SCSI_RESPONSE, flags)
            .put_u8(2, self.response.0)
            .put_u8(3, self.status.0)
            .put_u32(16, self.itt)
            .put_u32(20, self.snack_tag);
        self.numbers
            .emit(bhs)
            .put_u32(36, self.exp_data_sn)
            .put_u32(40, read_count)
            .put_u32(44, count)
    }
}
