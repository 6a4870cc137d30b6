//! Text Request and Text Response (RFC 7143, 11.10 and 11.11).

use super::{Bhs, FINAL, Numbers, Opcode, TargetNumbers};

/// The C (continue) bit: the text goes on in the next PDU.
pub(super) const CONTINUE: u8 = 0x40;

/// Text Request (RFC 7143, 11.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRequest {
    /// The I bit.
    pub immediate: bool,
    /// The F bit: the initiator has nothing more to say.
    pub last: bool,
    /// The C bit: the text goes on in the next PDU.
    pub more: bool,
    /// The LUN field, copied from the response with a Target Transfer Tag.
    pub lun: u64,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Target Transfer Tag of the response that this goes on from, else [`super::NO_TAG`].
    pub ttt: u32,
    /// CmdSN and ExpStatSN.
    pub numbers: Numbers,
}

impl TextRequest {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.immediate(),
            last: bhs.flags() & FINAL != 0,
            more: bhs.flags() & CONTINUE != 0,
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32(20),
            numbers: Numbers::parse(bhs),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let flags = if self.last { FINAL } else { 0 } | if self.more { CONTINUE } else { 0 };
        let bhs = Bhs::new(Opcode::TEXT_REQUEST, flags)
            .with_immediate(self.immediate)
            .put_lun(self.lun)
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt);
        self.numbers.emit(bhs)
    }
}

/// Text Response (RFC 7143, 11.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextResponse {
    /// The F bit: the negotiation is over.
    pub last: bool,
    /// The C bit: the text goes on in the next PDU.
    pub more: bool,
    /// The LUN field; 0 here.
    pub lun: u64,
    /// Initiator Task Tag of the request.
    pub itt: u32,
    /// Target Transfer Tag to go on with, [`super::NO_TAG`] in the last one.
    pub ttt: u32,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: TargetNumbers,
}

impl TextResponse {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            last: bhs.flags() & FINAL != 0,
            more: bhs.flags() & CONTINUE != 0,
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32(20),
            numbers: TargetNumbers::parse(bhs),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let flags = if self.last { FINAL } else { 0 } | if self.more { CONTINUE } else { 0 };
        let bhs = Bhs::new(Opcode::TEXT_RESPONSE, flags)
            .put_lun(self.lun)
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt);
        self.numbers.emit(bhs)
    }
}
