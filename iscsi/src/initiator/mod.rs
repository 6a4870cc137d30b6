//! A small initiator without I/O, for tests, drills and benchmarks. It can also send what no initiator should.

use bytes::{Bytes, BytesMut};
use holdfast_types::{IscsiName, Isid};

use crate::frame::FrameError;
use crate::negotiate::Parameters;
use crate::out::{Outbox, Payload};
use crate::pdu::{
    AsyncMessage, Cdb, Direction, LoginStatus, LogoutReason, LogoutResult, Reject, Residual, ScsiStatus,
    ServiceResponse, TaskAttribute, TaskFunction, TaskResult,
};
use crate::serial::Sn;

/// Who logs in, where, and with what keys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// InitiatorName.
    pub name: IscsiName,
    /// The initiator's part of the session id.
    pub isid: Isid,
    /// The target; `None` for a discovery session.
    pub target: Option<IscsiName>,
    /// The keys of the operational stage, in order.
    pub keys: Vec<(String, String)>,
    /// AuthMethod to offer in the security stage; `None` skips that stage.
    pub auth_method: Option<String>,
    /// CmdSN of the login.
    pub cmd_sn: Sn,
    /// TSIH of the login; 0 for a new session.
    pub tsih: u16,
    /// Connection id.
    pub cid: u16,
    /// Whether writes send unsolicited Data-Out where InitialR2T=No allows it.
    pub unsolicited: bool,
}

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
    /// Data of a write, `expected_length` bytes.
    pub data: Payload,
    /// The I bit.
    pub immediate: bool,
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

/// An initiator's side of one connection.
#[derive(Debug)]
pub struct Initiator {
    outbox: Outbox,
}

impl Initiator {
    /// Starts to log in: the first Login Request is in the outbox.
    pub fn new(_settings: Settings) -> Self {
        Self {
            outbox: Outbox::default(),
        }
    }

    /// Takes whole PDUs out of the read buffer and acts on them.
    ///
    /// # Errors
    /// [`InitiatorError`]: the connection is lost.
    pub fn receive(&mut self, _buffer: &mut BytesMut) -> Result<(), InitiatorError> {
        Err(InitiatorError::Protocol("not connected"))
    }

    /// How many bytes the read buffer must hold before `receive` can do anything.
    pub fn wanted(&self, _buffer: &BytesMut) -> usize {
        0
    }

    /// What has happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// What is to be written.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Sends a SCSI command, or queues it until the window opens.
    pub fn command(&mut self, _request: ScsiRequest) -> Tag {
        Tag(0)
    }

    /// Sends an immediate task management request.
    pub fn task_management(&mut self, _function: TaskFunction, _lun: u64, _referenced: Option<Tag>) -> Tag {
        Tag(0)
    }

    /// Sends a ping.
    pub fn ping(&mut self, _data: Bytes) -> Tag {
        Tag(0)
    }

    /// Sends a text request, e.g. `SendTargets=All`.
    pub fn text(&mut self, _keys: &[(&str, &str)]) -> Tag {
        Tag(0)
    }

    /// Logs out.
    pub fn logout(&mut self, _reason: LogoutReason) -> Tag {
        Tag(0)
    }

    /// Sends these bytes as they are.
    pub fn raw(&mut self, _bytes: Bytes) {}

    /// What was negotiated, once in the full feature phase.
    pub fn parameters(&self) -> Option<&Parameters> {
        None
    }
}
