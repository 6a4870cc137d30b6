//! One connection.

use std::sync::Arc;

use bytes::BytesMut;
use holdfast_types::Mono;

use super::{Answer, Event, PortalConfig, TaskError, TaskId, TmfId};
use crate::directory::Directory;
use crate::error::Fatal;
use crate::negotiate::Parameters;
use crate::out::{Outbox, Outgoing};
use crate::pdu::{LoginStatus, TaskResult};
use crate::session::Tsih;

/// A target's side of one connection.
///
/// The driver's loop: `receive` what is in the read buffer; act on every event of `poll_event` and on what the rest of the node has answered; write the
/// `outbox`; stop after `is_finished` with an empty outbox. Then wait for bytes (only while `wanted` is not 0, with at least that much room in the buffer),
/// room in the socket, answers, or `poll_timeout`. `receive` must be called again after each of these, also without new bytes.
#[derive(Debug)]
pub struct Connection {
    outbox: Outbox,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(_config: Arc<PortalConfig>, _directory: Arc<Directory>, _now: Mono) -> Self {
        Self {
            outbox: Outbox::default(),
        }
    }

    /// Takes whole PDUs out of the read buffer and acts on them.
    ///
    /// # Errors
    /// [`Fatal`]: write what is in the outbox as far as that works at once, then close.
    pub fn receive(&mut self, _buffer: &mut BytesMut, _now: Mono) -> Result<(), Fatal> {
        Err(Fatal::Over)
    }

    /// How many bytes the read buffer must hold, those in it included, before `receive` can do anything. 0: do not read now.
    pub fn wanted(&self, _buffer: &BytesMut) -> usize {
        0
    }

    /// What has happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// What is to be written, as one [`bytes::Buf`] for vectored writes.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// The next PDU to be written, for owners that keep their own queue.
    pub fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.outbox.pop()
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<Mono> {
        None
    }

    /// Ends logins that take too long, pings silent initiators, and gives dead ones up.
    ///
    /// # Errors
    /// [`Fatal`], as for `receive`.
    pub fn handle_timeout(&mut self, _now: Mono) -> Result<(), Fatal> {
        Ok(())
    }

    /// Lets a login in (after a reinstated session's tasks are gone; RFC 7143, 6.3.5). Does nothing unless one waits.
    pub fn accept_login(&mut self, _tsih: Tsih) {}

    /// Refuses a login; the connection is finished. Does nothing unless one waits.
    pub fn refuse_login(&mut self, _status: LoginStatus) {}

    /// Asks for a write's data: `length` bytes from the start, which comes as [`Event::DataOut`]. Only now a buffer is allocated.
    ///
    /// # Errors
    /// [`TaskError`].
    pub fn request_data(&mut self, _task: TaskId, _length: u32) -> Result<(), TaskError> {
        Err(TaskError::Gone)
    }

    /// Ends a task.
    ///
    /// # Errors
    /// [`TaskError::Gone`] where it was aborted meanwhile.
    pub fn respond(&mut self, _task: TaskId, _answer: Answer) -> Result<(), TaskError> {
        Err(TaskError::Gone)
    }

    /// Drops a task without a response, and data that still comes for it. False where it is gone already.
    pub fn abort(&mut self, _task: TaskId) -> bool {
        false
    }

    /// Answers a task management request. False where it is gone.
    pub fn answer_task_management(&mut self, _id: TmfId, _result: TaskResult) -> bool {
        false
    }

    /// The tasks that wait for an answer, oldest first, with their LUN fields.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, u64)> {
        std::iter::empty()
    }

    /// How many commands may be outstanding from now on (flow control). MaxCmdSN never goes back, so a smaller window takes hold as commands end.
    pub fn set_window(&mut self, _commands: u32) {}

    /// From now on discovery and logins are answered from this one.
    pub fn set_directory(&mut self, _directory: Arc<Directory>) {}

    /// Asks the initiator to log out within `seconds` (Asynchronous Message, event 1). Does nothing before the full feature phase.
    pub fn request_logout(&mut self, _seconds: u16) {}

    /// What was negotiated, once in the full feature phase.
    pub fn parameters(&self) -> Option<&Parameters> {
        None
    }

    /// Whether the connection is to be closed once the outbox is empty.
    pub fn is_finished(&self) -> bool {
        true
    }
}
