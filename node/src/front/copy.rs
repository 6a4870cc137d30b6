//! EXTENDED COPY: one operation after the other, each on its extent's primary wherever that is.

use holdfast_iscsi::target::TaskId;
use holdfast_replication::core::api::{OpId, Request};
use holdfast_scsi::{CopyStep, Finished, Status};
use holdfast_types::{COPY_PIECE_BYTES, Mono, OpOutcome, Origin};

use super::session::{MustReset, Session};
use super::shares::cost;
use super::tasks::{Copying, Then};

impl Session {
    /// Starts a copy.
    pub(super) fn begin_copy(
        &mut self,
        task: TaskId,
        mut copying: Box<Copying>,
        now: Mono,
    ) -> Result<(), MustReset> {
        let step = copying.job.begin();
        self.copy(task, copying, step, now)
    }

    /// An operation of a copy has ended. The copy ends with it where task management waits for that (F2).
    pub(super) fn go_on_copying(
        &mut self,
        task: TaskId,
        op: OpId,
        mut copying: Box<Copying>,
        outcome: OpOutcome,
        now: Mono,
    ) -> Result<(), MustReset> {
        // Storage ends what a reset through another node finds on this unit; a part on another unit it leaves alone.
        let step = if self.tmfs.ends(op) || self.is_ended(&copying) {
            CopyStep::Finished(Finished::NoResponse)
        } else {
            copying.job.advance(outcome)
        };
        self.copy(task, copying, step, now)
    }

    /// Whether the unit that took the copy was reset meanwhile, or the tasks of its nexus were aborted, through whatever node (I13).
    fn is_ended(&self, copying: &Copying) -> bool {
        let state = self.front.state.borrow();
        let Some(by) = self.nexus() else { return true };
        let group = self.group();
        let view = state.view(&by, group.as_ref(), copying.lun);
        view.filter(|view| view.extent == copying.unit)
            .is_some_and(|view| {
                let ended = view.unit.cleared.max(view.unit.notices(&by).tasks_aborted);
                ended > copying.origin.admitted
            })
    }

    fn copy(
        &mut self,
        task: TaskId,
        mut copying: Box<Copying>,
        step: CopyStep,
        now: Mono,
    ) -> Result<(), MustReset> {
        let status = match &step {
            CopyStep::Operation { .. } => None,
            CopyStep::Finished(Finished::Response(response)) => Some(response.status),
            CopyStep::Finished(_) => Some(Status::CheckCondition),
        };
        if let Some(result) = copying.job.result(status)
            && let Some(nexus) = self.unit_of_nexus(copying.lun)
        {
            nexus.remember_copy(result);
        }
        match step {
            CopyStep::Finished(finished) => self.end(task, finished),
            CopyStep::Operation { extent, op } => {
                copying.parts += 1;
                // A reset of the unit that took the command ends it, one of the other unit does not (SPC-4, 5.17.3).
                let admitted = if extent == copying.unit {
                    Some(copying.origin.admitted)
                } else {
                    self.front.state.borrow().admits(extent)
                };
                let Some(admitted) = admitted else {
                    let step = copying.job.advance(OpOutcome::Aborted);
                    return self.copy(task, copying, step, now);
                };
                let origin = Origin {
                    admitted,
                    ..copying.origin
                };
                // I11: every part counts as received when the command was.
                let request = Request {
                    name: copying.name.part(copying.parts),
                    received: copying.received,
                    generation: self.generation,
                    origin,
                    op,
                };
                self.submit(
                    task,
                    extent,
                    Then::Copy(copying),
                    cost(COPY_PIECE_BYTES),
                    request,
                    now,
                )
            }
        }
    }
}
