//! What a connection tells its owner, and what the owner answers.

use bytes::Bytes;
use holdfast_types::Mono;

use crate::out::Payload;
use crate::pdu::{Cdb, Direction, LogoutReason, ScsiStatus, TaskAttribute, TaskFunction};
use crate::session::LoginRequested;

/// A SCSI task of one connection. Never used again, so a late answer can meet no other task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// A task management request of one connection. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TmfId(pub u64);

/// What happened on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A login is through its negotiation. Nothing goes on until the owner calls `accept_login` or `refuse_login`.
    Login(LoginRequested),
    /// A SCSI command may be carried out: its turn by CmdSN has come, or it is immediate.
    Command(Command),
    /// The data that `request_data` asked for is all there.
    DataOut {
        /// The task.
        task: TaskId,
        /// As many bytes as were asked for.
        data: Bytes,
    },
    /// A Data-Out of the task was lost on the way: the task has ended with CHECK CONDITION (0B/47/05; RFC 7143, 7.8 and 7.9), and
    /// nothing more is
    /// to be done for it.
    DataLost {
        /// The task.
        task: TaskId,
    },
    /// A task management function is to be carried out and answered with `answer_task_management`.
    TaskManagement(TaskManagement),
    /// The initiator has logged out and was answered; all tasks are gone. The connection is finished once its outbox is empty.
    LoggedOut(LogoutReason),
}

/// A SCSI command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Handle for answers.
    pub task: TaskId,
    /// The LUN field.
    pub lun: u64,
    /// The command descriptor block.
    pub cdb: Cdb,
    /// How it is queued.
    pub attribute: TaskAttribute,
    /// Which way its data goes.
    pub direction: Direction,
    /// Expected Data Transfer Length in bytes: of the write part where data goes both ways.
    pub expected_length: u32,
    /// Expected Bidirectional Read Data Length in bytes, where data goes both ways and it was given.
    pub read_length: u32,
    /// Data that came with the command: a slice of the receive buffer. All of it if it is `expected_length` long; then
    /// `request_data` is not needed.
    pub data: Bytes,
    /// The command's number in the session, never used again in it (F1): CmdSN widened by the wraps. Immediate commands take no
    /// CmdSN; theirs have
    /// the highest bit set and count on their own.
    pub cmd_sn: u64,
    /// The I bit.
    pub immediate: bool,
    /// When the PDU was taken out of the receive buffer (W1).
    pub received: Mono,
}

/// The task that a task management function names (RFC 7143, 11.5 and 11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferencedTask {
    /// It is waiting for its answer.
    Known(TaskId),
    /// Its command has not been received, or not had its turn. It will never become a task; answer "function complete".
    NotYetReceived,
    /// There is no such task, any more or at all; answer "task does not exist".
    Gone,
}

/// A task management request. Functions that are not known here keep their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskManagement {
    /// Handle for the answer.
    pub id: TmfId,
    /// What is asked for.
    pub function: TaskFunction,
    /// The LUN field; means something for functions on a task or a logical unit.
    pub lun: u64,
    /// The task that is meant: for ABORT TASK, QUERY TASK and TASK REASSIGN.
    pub referenced: Option<ReferencedTask>,
    /// The I bit.
    pub immediate: bool,
    /// When the PDU was taken out of the receive buffer.
    pub received: Mono,
}

/// How a SCSI command ends.
#[derive(Debug, Clone)]
pub struct Answer {
    /// SCSI status.
    pub status: ScsiStatus,
    /// Sense data, at most 252 bytes; empty for none.
    pub sense: Bytes,
    /// Data for the initiator. What exceeds the expected length is left out.
    pub data: Payload,
    /// How many bytes the command moved, or would have moved had the initiator expected as many: the residual follows from it.
    /// `None`: the length
    /// of `data` for a read, what was asked for (or came with the command) for a write.
    pub moved: Option<u64>,
}

impl Answer {
    /// Status without data.
    pub fn status(status: ScsiStatus) -> Self {
        Self {
            status,
            sense: Bytes::new(),
            data: Payload::default(),
            moved: None,
        }
    }

    /// GOOD without data.
    pub fn good() -> Self {
        Self::status(ScsiStatus::GOOD)
    }

    /// GOOD with data for the initiator.
    pub fn data(data: impl Into<Payload>) -> Self {
        Self {
            data: data.into(),
            ..Self::good()
        }
    }

    /// CHECK CONDITION with sense data; no data was moved.
    pub fn check_condition(sense: Bytes) -> Self {
        Self {
            sense,
            moved: Some(0),
            ..Self::status(ScsiStatus::CHECK_CONDITION)
        }
    }

    /// Says how many bytes were or would have been moved.
    #[must_use]
    pub fn with_moved(mut self, bytes: u64) -> Self {
        self.moved = Some(bytes);
        self
    }
}

/// Why the owner's answer came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The task is answered or aborted, or its session is over. Nothing to be done.
    #[error("the task is gone")]
    Gone,
    /// More data asked for than the initiator has.
    #[error("{wanted} bytes wanted, the initiator has {expected}")]
    TooMuch {
        /// As asked for.
        wanted: u32,
        /// Expected Data Transfer Length.
        expected: u32,
    },
    /// Data was asked for twice, or from a command that does not write.
    #[error("the task's data cannot be asked for")]
    NotNow,
}
