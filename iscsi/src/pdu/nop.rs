//! NOP-Out, NOP-In, Asynchronous Message, Reject and SNACK (RFC 7143, 11.9 and 11.16 to 11.19).

use super::header::wire_number;
use super::{Bhs, FINAL, NO_TAG, Numbers, Opcode, TargetNumbers};
use crate::serial::Sn;

/// NOP-Out (RFC 7143, 11.18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NopOut {
    /// The I bit.
    pub immediate: bool,
    /// The LUN field, copied from a NOP-In that is answered.
    pub lun: u64,
    /// Initiator Task Tag of a ping, [`NO_TAG`] for an answer or when none is wanted.
    pub itt: u32,
    /// Target Transfer Tag of the NOP-In that is answered, else [`NO_TAG`].
    pub ttt: u32,
    /// CmdSN and ExpStatSN.
    pub numbers: Numbers,
}

impl NopOut {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.immediate(),
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32(20),
            numbers: Numbers::parse(bhs),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::NOP_OUT, FINAL)
            .with_immediate(self.immediate)
            .put_lun(self.lun)
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt);
        self.numbers.emit(bhs)
    }
}

/// NOP-In (RFC 7143, 11.19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NopIn {
    /// The LUN field.
    pub lun: u64,
    /// Initiator Task Tag of the ping that is answered, [`NO_TAG`] where the target speaks first.
    pub itt: u32,
    /// Target Transfer Tag where an answer is wanted, else [`NO_TAG`].
    pub ttt: u32,
    /// StatSN (not taken where the target speaks first), ExpCmdSN, MaxCmdSN.
    pub numbers: TargetNumbers,
}

impl NopIn {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32(20),
            numbers: TargetNumbers::parse(bhs),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::NOP_IN, FINAL)
            .put_lun(self.lun)
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt);
        self.numbers.emit(bhs)
    }
}

wire_number! {
    /// What an Asynchronous Message is about (RFC 7143, 11.9.1).
    AsyncEvent(u8) {
        /// A SCSI asynchronous event, with sense data.
        SCSI = 0, "SCSI asynchronous event";
        /// The target asks for a logout within Parameter3 seconds.
        LOGOUT_REQUESTED = 1, "logout requested";
        /// The target will drop the connection of Parameter1.
        CONNECTION_DROP = 2, "connection will be dropped";
        /// The target will drop all connections of the session.
        SESSION_DROP = 3, "session will be dropped";
        /// The target asks for a negotiation within Parameter3 seconds.
        NEGOTIATION_REQUESTED = 4, "negotiation requested";
        /// Tasks of the LUN are being ended (multi-task abort).
        TASKS_ENDED = 5, "tasks of the LUN are being terminated";
    }
}

/// Asynchronous Message (RFC 7143, 11.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncMessage {
    /// The LUN field.
    pub lun: u64,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: TargetNumbers,
    /// What it is about.
    pub event: AsyncEvent,
    /// Vendor code.
    pub vendor: u8,
    /// Parameter1 to Parameter3.
    pub parameters: [u16; 3],
}

impl AsyncMessage {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            lun: bhs.lun(),
            numbers: TargetNumbers::parse(bhs),
            event: AsyncEvent(bhs.u8(36)),
            vendor: bhs.u8(37),
            parameters: [bhs.u16(38), bhs.u16(40), bhs.u16(42)],
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::ASYNC, FINAL)
            .put_lun(self.lun)
            .put_u32(16, NO_TAG);
        self.numbers
            .emit(bhs)
            .put_u8(36, self.event.0)
            .put_u8(37, self.vendor)
            .put_u16(38, self.parameters[0])
            .put_u16(40, self.parameters[1])
            .put_u16(42, self.parameters[2])
    }
}

wire_number! {
    /// Why a PDU was rejected (RFC 7143, 11.17.1).
    RejectReason(u8) {
        /// Data (payload) digest error.
        DATA_DIGEST = 0x02, "data digest error";
        /// SNACK reject.
        SNACK = 0x03, "SNACK reject";
        /// Protocol error.
        PROTOCOL_ERROR = 0x04, "protocol error";
        /// Command not supported.
        NOT_SUPPORTED = 0x05, "command not supported";
        /// Too many immediate commands.
        TOO_MANY_IMMEDIATE = 0x06, "too many immediate commands";
        /// Task in progress.
        TASK_IN_PROGRESS = 0x07, "task in progress";
        /// Invalid data acknowledgement.
        INVALID_DATA_ACK = 0x08, "invalid data acknowledgement";
        /// Invalid PDU field.
        INVALID_FIELD = 0x09, "invalid PDU field";
        /// Long operation reject: no Target Transfer Tag can be made.
        LONG_OPERATION = 0x0a, "out of resources for a long operation";
        /// Waiting for logout.
        WAITING_FOR_LOGOUT = 0x0c, "waiting for logout";
    }
}

/// Reject (RFC 7143, 11.17). The data segment is the header of the PDU that is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub reason: RejectReason,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: TargetNumbers,
    /// DataSN or R2TSN, where a SNACK is rejected.
    pub data_sn: u32,
}

impl Reject {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            reason: RejectReason(bhs.u8(2)),
            numbers: TargetNumbers::parse(bhs),
            data_sn: bhs.u32(36),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::REJECT, FINAL)
            .put_u8(2, self.reason.0)
            .put_u32(16, NO_TAG);
        self.numbers.emit(bhs).put_u32(36, self.data_sn)
    }
}

/// SNACK Request (RFC 7143, 11.16). Belongs to ErrorRecoveryLevel 1 and above; it is read so that it can be rejected by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snack {
    /// The kind of SNACK. Four bits.
    pub kind: u8,
    /// The LUN field.
    pub lun: u64,
    /// Initiator Task Tag, or [`NO_TAG`].
    pub itt: u32,
    /// Target Transfer Tag or SNACK Tag.
    pub tag: u32,
    /// ExpStatSN.
    pub exp_stat_sn: Sn,
    /// The first number that is missing.
    pub begin: u32,
    /// How many are missing; 0 means all from the first.
    pub length: u32,
}

impl Snack {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            kind: bhs.flags() & 0x0f,
            lun: bhs.lun(),
            itt: bhs.itt(),
            tag: bhs.u32(20),
            exp_stat_sn: Sn(bhs.u32(28)),
            begin: bhs.u32(40),
            length: bhs.u32(44),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        Bhs::new(Opcode::SNACK, FINAL | (self.kind & 0x0f))
            .put_lun(self.lun)
            .put_u32(16, self.itt)
            .put_u32(20, self.tag)
            .put_u32(28, self.exp_stat_sn.0)
            .put_u32(40, self.begin)
            .put_u32(44, self.length)
    }
}
