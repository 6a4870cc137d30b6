//! Task management: what is aborted, and when that may be said.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_iscsi::pdu::{TaskFunction, TaskResult};
use holdfast_iscsi::target::{ReferencedTask, TaskId, TaskManagement, TmfId};
use holdfast_replication::core::api::{AbortScope, OpId};
use holdfast_types::{ExtentId, HOLD_LIMIT, Mono};

use super::registry::{ResetToken, UnitFunction};
use super::session::Session;
use super::tasks::Stage;

/// A function, or the end of a session that is replaced, that is not confirmed after this long costs the connection (F2): initiators wait
/// longer for it, and then reset more.
pub(super) const CONFIRMED_WITHIN: Duration = HOLD_LIMIT.saturating_add(Duration::from_secs(2));

/// A function that waits until nothing it aborts is left in storage.
#[derive(Debug)]
struct Waiting {
    id: TmfId,
    ops: HashSet<OpId>,
    /// Other connections' part is outstanding, for functions on a whole unit.
    others: bool,
    /// What is answered in the end. An ABORT TASK that came too late says so: its task has been answered, so it does not exist (RFC 7143,
    /// 11.6.1).
    result: TaskResult,
    /// It is an ABORT TASK.
    one: bool,
    since: Mono,
}

impl Waiting {
    fn is_over(&self) -> bool {
        self.ops.is_empty() && !self.others
    }
}

/// The functions of one connection that are not answered yet, and what other connections wait for here.
#[derive(Debug, Default)]
pub(super) struct Tmfs {
    waiting: Vec<Waiting>,
    tokens: Vec<(HashSet<OpId>, Arc<ResetToken>)>,
}

impl Tmfs {
    /// Another connection's function waits for these operations.
    pub(super) fn hold_token(&mut self, ops: HashSet<OpId>, token: Arc<ResetToken>) {
        if !ops.is_empty() {
            self.tokens.push((ops, token));
        }
    }

    /// Whether an operation's task is to end: nothing more is to be done for it.
    pub(super) fn wait_for(&self, op: OpId) -> bool {
        self.waiting.iter().any(|one| one.ops.contains(&op))
            || self.tokens.iter().any(|(ops, _)| ops.contains(&op))
    }

    /// An operation has ended: the functions that are through with it.
    /// `answered`: its command was, so that nothing was aborted.
    pub(super) fn op_ended(&mut self, op: OpId, answered: bool) -> Vec<(TmfId, TaskResult)> {
        self.tokens.retain_mut(|(ops, _)| {
            ops.remove(&op);
            !ops.is_empty()
        });
        for waiting in &mut self.waiting {
            if waiting.ops.remove(&op) && answered && waiting.one {
                waiting.result = TaskResult::NO_SUCH_TASK;
            }
        }
        self.over()
    }

    /// Other connections have done their part of a function.
    pub(super) fn others_done(&mut self, id: TmfId) -> Vec<(TmfId, TaskResult)> {
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.id == id) {
            waiting.others = false;
        }
        self.over()
    }

    /// Takes out the functions that are through.
    fn over(&mut self) -> Vec<(TmfId, TaskResult)> {
        let mut over = Vec::new();
        self.waiting.retain(|waiting| {
            if waiting.is_over() {
                over.push((waiting.id, waiting.result));
            }
            !waiting.is_over()
        });
        over
    }

    /// When the oldest has waited for too long.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.waiting.iter().map(|one| one.since + CONFIRMED_WITHIN).min()
    }

    /// Whether one could not be confirmed in time.
    pub(super) fn overdue(&self, now: Mono) -> bool {
        self.waiting
            .iter()
            .any(|one| now.since(one.since) >= CONFIRMED_WITHIN)
    }
}

impl Session {
    /// A task management request (RFC 7143, 11.5).
    pub(super) fn task_management(&mut self, request: TaskManagement, now: Mono) {
        let TaskManagement {
            id,
            function,
            lun,
            referenced,
            ..
        } = request;
        let result = match function {
            TaskFunction::ABORT_TASK => match referenced {
                Some(ReferencedTask::Known(task)) => return self.abort_task(id, task, now),
                // Its command will never become a task.
                Some(ReferencedTask::NotYetReceived) => TaskResult::COMPLETE,
                Some(ReferencedTask::Gone) | None => TaskResult::NO_SUCH_TASK,
            },
            TaskFunction::ABORT_TASK_SET => match self.extent_of(lun) {
                Some(extent) => return self.abort_task_set(id, extent, now),
                None => TaskResult::NO_SUCH_LUN,
            },
            TaskFunction::CLEAR_TASK_SET => match self.extent_of(lun) {
                Some(extent) => return self.end_unit(id, extent, UnitFunction::ClearTaskSet, now),
                None => TaskResult::NO_SUCH_LUN,
            },
            TaskFunction::LOGICAL_UNIT_RESET => match self.extent_of(lun) {
                Some(extent) => return self.end_unit(id, extent, UnitFunction::Reset, now),
                None => TaskResult::NO_SUCH_LUN,
            },
            TaskFunction::TASK_REASSIGN => TaskResult::REASSIGN_NOT_SUPPORTED,
            _ => TaskResult::NOT_SUPPORTED,
        };
        self.iscsi.answer_task_management(id, result);
    }

    fn abort_task(&mut self, id: TmfId, task: TaskId, now: Mono) {
        if let Some(Stage::Storage { op, extent, .. }) = self.tasks.stage(task) {
            let (op, extent) = (*op, *extent);
            self.tmfs.waiting.push(Waiting {
                id,
                ops: HashSet::from([op]),
                others: false,
                result: TaskResult::COMPLETE,
                one: true,
                since: now,
            });
            self.front.backend.abort(extent, AbortScope::Op(op));
            return;
        }
        self.tasks.take(task);
        self.iscsi.abort(task);
        self.iscsi.answer_task_management(id, TaskResult::COMPLETE);
    }

    fn abort_task_set(&mut self, id: TmfId, extent: ExtentId, now: Mono) {
        self.abort_unit(extent);
        let ops: HashSet<OpId> = self.tasks.ops_on(extent).collect();
        self.tmfs.waiting.push(Waiting {
            id,
            ops: ops.clone(),
            others: false,
            result: TaskResult::COMPLETE,
            one: false,
            since: now,
        });
        for op in ops {
            self.front.backend.abort(extent, AbortScope::Op(op));
        }
        self.answer_those_over();
    }

    /// Everybody's tasks on the unit end, as far as this node took them.
    fn end_unit(&mut self, id: TmfId, extent: ExtentId, function: UnitFunction, now: Mono) {
        self.abort_unit(extent);
        let ops = self.tasks.ops_on(extent).collect();
        self.tmfs.waiting.push(Waiting {
            id,
            ops,
            others: true,
            result: TaskResult::COMPLETE,
            one: false,
            since: now,
        });
        self.front.registry.end_unit(self.id, extent, function, id);
        self.front.backend.abort(extent, AbortScope::All);
    }

    /// Answers every function that is through.
    fn answer_those_over(&mut self) {
        for (id, result) in self.tmfs.over() {
            self.iscsi.answer_task_management(id, result);
        }
    }
}
