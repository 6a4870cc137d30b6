//! Task Management Function Request and Response (RFC 7143, 11.5 and 11.6).

use super::header::wire_number;
use super::{Bhs, FINAL, Numbers, Opcode, TargetNumbers};
use crate::serial::Sn;

wire_number! {
    /// What a task management request asks for (RFC 7143, 11.5.1; 9 to 12 come from RFC 7144).
    TaskFunction(u8) {
        /// ABORT TASK.
        ABORT_TASK = 1, "ABORT TASK";
        /// ABORT TASK SET.
        ABORT_TASK_SET = 2, "ABORT TASK SET";
        /// CLEAR ACA.
        CLEAR_ACA = 3, "CLEAR ACA";
        /// CLEAR TASK SET.
        CLEAR_TASK_SET = 4, "CLEAR TASK SET";
        /// LOGICAL UNIT RESET.
        LOGICAL_UNIT_RESET = 5, "LOGICAL UNIT RESET";
        /// TARGET WARM RESET.
        TARGET_WARM_RESET = 6, "TARGET WARM RESET";
        /// TARGET COLD RESET.
        TARGET_COLD_RESET = 7, "TARGET COLD RESET";
        /// TASK REASSIGN.
        TASK_REASSIGN = 8, "TASK REASSIGN";
        /// QUERY TASK.
        QUERY_TASK = 9, "QUERY TASK";
        /// QUERY TASK SET.
        QUERY_TASK_SET = 10, "QUERY TASK SET";
        /// I_T NEXUS RESET.
        I_T_NEXUS_RESET = 11, "I_T NEXUS RESET";
        /// QUERY ASYNCHRONOUS EVENT.
        QUERY_ASYNC_EVENT = 12, "QUERY ASYNCHRONOUS EVENT";
    }
}

wire_number! {
    /// How a task management function ended (RFC 7143, 11.6.1; 7 comes from RFC 7144).
    TaskResult(u8) {
        /// Function complete.
        COMPLETE = 0, "function complete";
        /// Task does not exist.
        NO_SUCH_TASK = 1, "task does not exist";
        /// LUN does not exist.
        NO_SUCH_LUN = 2, "LUN does not exist";
        /// Task still allegiant.
        STILL_ALLEGIANT = 3, "task still allegiant";
        /// Task allegiance reassignment not supported.
        REASSIGN_NOT_SUPPORTED = 4, "task allegiance reassignment not supported";
        /// Task management function not supported.
        NOT_SUPPORTED = 5, "task management function not supported";
        /// Function authorization failed.
        NOT_AUTHORIZED = 6, "function authorization failed";
        /// Function succeeded (the answer "yes" to a query).
        SUCCEEDED = 7, "function succeeded";
        /// Function rejected.
        REJECTED = 255, "function rejected";
    }
}

/// Task Management Function Request (RFC 7143, 11.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskRequest {
    /// The I bit.
    pub immediate: bool,
    /// The function. Seven bits.
    pub function: TaskFunction,
    /// The LUN field, where the function has one.
    pub lun: u64,
    /// Initiator Task Tag of the request itself.
    pub itt: u32,
    /// Initiator Task Tag of the task that is meant, [`super::NO_TAG`] otherwise.
    pub referenced: u32,
    /// CmdSN and ExpStatSN.
    pub numbers: Numbers,
    /// CmdSN of the task that is meant (ABORT TASK).
    pub ref_cmd_sn: Sn,
    /// ExpDataSN (TASK REASSIGN).
    pub exp_data_sn: u32,
}

impl TaskRequest {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.immediate(),
            function: TaskFunction(bhs.flags() & 0x7f),
            lun: bhs.lun(),
            itt: bhs.itt(),
            referenced: bhs.u32(20),
            numbers: Numbers::parse(bhs),
            ref_cmd_sn: Sn(bhs.u32(32)),
            exp_data_sn: bhs.u32(36),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::TASK_REQUEST, FINAL | (self.function.0 & 0x7f))
            .with_immediate(self.immediate)
            .put_lun(self.lun)
            .put_u32(16, self.itt)
            .put_u32(20, self.referenced);
        self.numbers
            .emit(bhs)
            .put_u32(32, self.ref_cmd_sn.0)
            .put_u32(36, self.exp_data_sn)
    }
}

/// Task Management Function Response (RFC 7143, 11.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskResponse {
    /// How it ended.
    pub result: TaskResult,
    /// Initiator Task Tag of the request.
    pub itt: u32,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: TargetNumbers,
}

impl TaskResponse {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            result: TaskResult(bhs.u8(2)),
            itt: bhs.itt(),
            numbers: TargetNumbers::parse(bhs),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::TASK_RESPONSE, FINAL)
            .put_u8(2, self.result.0)
            .put_u32(16, self.itt);
        self.numbers.emit(bhs)
    }
}
