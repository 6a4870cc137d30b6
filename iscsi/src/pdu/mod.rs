//! PDU layouts (RFC 7143, section 11): one struct per PDU, read from and written to the 48-byte header.
//!
//! A header that claims the right opcode can always be read: reading cannot fail or panic, and unknown numbers are kept as they
//! are. Whether the
//! fields make sense is judged by whoever acts on them. Lengths in the header are written by [`crate::out::Outgoing`], not here.

mod ahs;
mod data;
mod header;
mod login;
mod nop;
mod scsi;
mod task;
mod text;

pub use ahs::{AhsError, Cdb, Extra};
pub use data::{DataIn, DataOut, R2t, Residual};
pub use header::{BHS_LEN, Bhs, FINAL, Frame, NO_TAG, Opcode};
pub use login::{
    LoginRequest, LoginResponse, LoginStatus, LogoutReason, LogoutRequest, LogoutResponse, LogoutResult,
    Stage,
};
pub use nop::{AsyncEvent, AsyncMessage, NopIn, NopOut, Reject, RejectReason, Snack};
pub use scsi::{Direction, ScsiCommand, ScsiResponse, ScsiStatus, ServiceResponse, TaskAttribute};
pub use task::{TaskFunction, TaskRequest, TaskResponse, TaskResult};
pub use text::{TextRequest, TextResponse};

use crate::serial::Sn;

/// What every PDU from an initiator but Data-Out says about numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// CmdSN.
    pub cmd_sn: Sn,
    /// ExpStatSN.
    pub exp_stat_sn: Sn,
}

impl Numbers {
    const fn parse(bhs: &Bhs) -> Self {
        Self {
            cmd_sn: Sn(bhs.u32(24)),
            exp_stat_sn: Sn(bhs.u32(28)),
        }
    }

    fn emit(self, bhs: Bhs) -> Bhs {
        bhs.put_u32(24, self.cmd_sn.0).put_u32(28, self.exp_stat_sn.0)
    }
}

/// What every PDU from a target says about numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TargetNumbers {
    /// StatSN.
    pub stat_sn: Sn,
    /// ExpCmdSN.
    pub exp_cmd_sn: Sn,
    /// MaxCmdSN.
    pub max_cmd_sn: Sn,
}

impl TargetNumbers {
    const fn parse(bhs: &Bhs) -> Self {
        Self {
            stat_sn: Sn(bhs.u32(24)),
            exp_cmd_sn: Sn(bhs.u32(28)),
            max_cmd_sn: Sn(bhs.u32(32)),
        }
    }

    fn emit(self, bhs: Bhs) -> Bhs {
        bhs.put_u32(24, self.stat_sn.0)
            .put_u32(28, self.exp_cmd_sn.0)
            .put_u32(32, self.max_cmd_sn.0)
    }
}

macro_rules! pdus {
    ($(#[$doc:meta])* $name:ident { $($variant:ident($pdu:ident) = $opcode:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = concat!("A [`", stringify!($pdu), "`].")] $variant($pdu),)*
        }

        impl $name {
            /// Reads a header; `None` for an opcode that is not one of these.
            pub fn parse(bhs: &Bhs) -> Option<Self> {
                Some(match bhs.opcode() {
                    $(Opcode::$opcode => Self::$variant($pdu::parse(bhs)),)*
                    _ => return None,
                })
            }

            /// Writes the header, lengths left at zero.
            pub fn emit(&self) -> Bhs {
                match self {
                    $(Self::$variant(pdu) => pdu.emit(),)*
                }
            }
        }

        $(impl From<$pdu> for $name {
            fn from(pdu: $pdu) -> Self {
                Self::$variant(pdu)
            }
        })*
    };
}

pdus! {
    /// A PDU from an initiator.
    Request {
        NopOut(NopOut) = NOP_OUT,
        Command(ScsiCommand) = SCSI_COMMAND,
        Task(TaskRequest) = TASK_REQUEST,
        Login(LoginRequest) = LOGIN_REQUEST,
        Text(TextRequest) = TEXT_REQUEST,
        DataOut(DataOut) = DATA_OUT,
        Logout(LogoutRequest) = LOGOUT_REQUEST,
        Snack(Snack) = SNACK,
    }
}

pdus! {
    /// A PDU from a target.
    Response {
        NopIn(NopIn) = NOP_IN,
        Command(ScsiResponse) = SCSI_RESPONSE,
        Task(TaskResponse) = TASK_RESPONSE,
        Login(LoginResponse) = LOGIN_RESPONSE,
        Text(TextResponse) = TEXT_RESPONSE,
        DataIn(DataIn) = DATA_IN,
        Logout(LogoutResponse) = LOGOUT_RESPONSE,
        R2t(R2t) = R2T,
        Async(AsyncMessage) = ASYNC,
        Reject(Reject) = REJECT,
    }
}

#[cfg(test)]
#[path = "pdu_test.rs"]
mod tests;
