//! What goes into an initiator and what comes out.

use bytes::Bytes;

use super::redirect::Redirect;
use crate::frame::FrameError;
use crate::out::Payload;
use crate::pdu::{
    AsyncMessage, Cdb, Direction, LoginStatus, LogoutResult, Reject, Residual, ScsiStatus, ServiceResponse,
    TaskAttribute, TaskResult,
};

/// Names a request of this initiator: its Initiator Task Tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

/// A SCSI command to be sent.
#[derive(Debug, Clone)]
pub struct ScsiRequest {
    /// The LUN field.
    pub lun: u64,
    /// The command descriptor block.
    pub cdb: Cdb,
    /// How it is queued.
    pub attribute: TaskAttribute,
    /// Which way its data goes.
    pub direction: Direction,
    /// Expected Data Transfer Length in bytes.
    pub expected_length: u32,
    /// Data of a write: `expected_length` bytes, or fewer where the target is expected to ask for fewer.
    pub data: Payload,
    /// The I bit.
    pub immediate: bool,
}

impl ScsiRequest {
    /// A simple task without data.
    pub fn none(lun: u64, cdb: Cdb) -> Self {
        Self {
            lun,
            cdb,
            attribute: TaskAttribute::SIMPLE,
            direction: Direction::None,
            expected_length: 0,
            data: Payload::default(),
            immediate: false,
        }
    }

    /// A simple task that reads up to `length` bytes.
    pub fn read(lun: u64, cdb: Cdb, length: u32) -> Self {
        Self {
            direction: Direction::Read,
            expected_length: length,
            ..Self::none(lun, cdb)
        }
    }

    /// A simple task that writes. Data beyond 2^32 - 1 bytes cannot be said and is left out.
    pub fn write(lun: u64, cdb: Cdb, data: impl Into<Payload>) -> Self {
        let data = data.into();
        Self {
            direction: Direction::Write,
            expected_length: u32::try_from(data.len()).unwrap_or(u32::MAX),
            data,
            ..Self::none(lun, cdb)
        }
    }
}

/// How a SCSI command went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScsiResult {
    /// The service response; anything but completed means that the status is void.
    pub response: ServiceResponse,
    /// SCSI status.
    pub status: ScsiStatus,
    /// Sense data without its length field.
    pub sense: Bytes,
    /// Data of a read.
    pub data: Bytes,
    /// Residual of the transfer.
    pub residual: Residual,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The full feature phase begins.
    LoggedIn {
        /// TSIH of the session.
        tsih: u16,
        /// Keys that the target sent in the login, in order.
        keys: Vec<(String, String)>,
    },
    /// The login was refused.
    LoginRefused(LoginStatus),
    /// The login is to be made elsewhere.
    LoginRedirected(Redirect),
    /// A SCSI command ended.
    Command(Tag, ScsiResult),
    /// A task management function was answered.
    TaskManagement(Tag, TaskResult),
    /// A ping was answered.
    Pong(Tag, Bytes),
    /// A text request was answered: all keys.
    Text(Tag, Vec<(String, String)>),
    /// The logout was answered.
    LoggedOut(Tag, LogoutResult),
    /// An Asynchronous Message.
    Async(AsyncMessage),
    /// A PDU was rejected; the second part is its header.
    Rejected(Reject, Bytes),
}

/// What the target did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitiatorError {
    /// The bytes are no PDUs.
    #[error("framing: {0}")]
    Frame(#[from] FrameError),
    /// A PDU that the protocol does not allow here.
    #[error("protocol: {0}")]
    Protocol(&'static str),
}
