//! Task management: what is aborted, and when that may be said.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_iscsi::pdu::{TaskFunction, TaskResult};
use holdfast_iscsi::target::{ReferencedTask, TaskId, TaskManagement, TmfId};
use holdfast_replication::core::api::{AbortScope, OpId};
use holdfast_scsi::reservation::UnitChange;
use holdfast_types::{ExtentId, HOLD_LIMIT, Mono};

use super::registry::{ResetToken, UnitFunction};
use super::session::Session;
use super::tasks::Stage;
use super::units::{UnitJob, UnitWant};

/// A function, or the end of a session that is replaced, that is not confirmed after this long costs the connection (F2): initiators wait
/// longer for it, and then reset more.
pub(super) const CONFIRMED_WITHIN: Duration = HOLD_LIMIT.saturating_add(Duration::from_secs(2));

/// A function that waits until nothing it aborts is left in storage.
#[derive(Debug)]
struct Waiting {
    id: TmfId,
    ops: HashSet<OpId>,
    /// For functions on whole units: of how many of them other connections' part is outstanding.
    others: usize,
    /// Those units: a function that resets them holds new commands meanwhile.
    units: Vec<ExtentId>,
    /// TARGET COLD RESET: the connections end afterwards.
    cold: bool,
    /// What is answered in the end. An ABORT TASK that came too late says so: its task has been answered, so it does not exist (RFC 7143,
    /// 11.6.1).
    result: TaskResult,
    /// It is an ABORT TASK.
    one: bool,
    since: Mono,
}

impl Waiting {
    fn is_over(&self) -> bool {
        self.ops.is_empty() && self.others == 0
    }
}

/// The functions of one connection that are not answered yet, and what other connections wait for here.
#[derive(Debug, Default)]
pub(super) struct Tmfs {
    waiting: Vec<Waiting>,
    tokens: Vec<(HashSet<OpId>, Arc<ResetToken>)>,
    /// A TARGET COLD RESET is through.
    cold: bool,
}

impl Tmfs {
    /// Another connection's function waits for these operations.
    pub(super) fn hold_token(&mut self, ops: HashSet<OpId>, token: Arc<ResetToken>) {
        if !ops.is_empty() {
            self.tokens.push((ops, token));
        }
    }

    /// Whether an operation's task is to end: nothing more is to be done for it.
    pub(super) fn ends(&self, op: OpId) -> bool {
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
            waiting.others = waiting.others.saturating_sub(1);
        }
        self.over()
    }

    /// Takes out the functions that are through.
    fn over(&mut self) -> Vec<(TmfId, TaskResult)> {
        let mut over = Vec::new();
        let cold = &mut self.cold;
        self.waiting.retain(|waiting| {
            if waiting.is_over() {
                *cold |= waiting.cold;
                over.push((waiting.id, waiting.result));
            }
            !waiting.is_over()
        });
        over
    }

    /// Whether a unit is being reset by this session: commands that come now are carried out afterwards.
    pub(super) fn resets(&self, extent: ExtentId) -> bool {
        self.waiting.iter().any(|waiting| waiting.units.contains(&extent))
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
            TaskFunction::TARGET_WARM_RESET => return self.reset_target(id, false, now),
            TaskFunction::TARGET_COLD_RESET => return self.reset_target(id, true, now),
            TaskFunction::TASK_REASSIGN => TaskResult::REASSIGN_NOT_SUPPORTED,
            _ => TaskResult::NOT_SUPPORTED,
        };
        self.iscsi.answer_task_management(id, result);
    }

    fn abort_task(&mut self, id: TmfId, task: TaskId, now: Mono) {
        // The cluster may have decided already: what was asked of it is waited for, and answered first.
        if let Some(Stage::Storage { op, extent, .. } | Stage::Unit { op, extent, .. }) =
            self.tasks.stage(task)
        {
            let (op, extent) = (*op, *extent);
            self.wait_for(id, HashSet::from([op]), true, now);
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
        self.wait_for(id, ops.clone(), false, now);
        for op in ops {
            self.front.backend.abort(extent, AbortScope::Op(op));
        }
        self.answer_those_over();
    }

    fn wait_for(&mut self, id: TmfId, ops: HashSet<OpId>, one: bool, now: Mono) {
        self.tmfs.waiting.push(Waiting {
            id,
            ops,
            others: 0,
            units: Vec::new(),
            cold: false,
            result: TaskResult::COMPLETE,
            one,
            since: now,
        });
    }

    /// Everybody's tasks on the unit end, on every node (I13).
    fn end_unit(&mut self, id: TmfId, extent: ExtentId, function: UnitFunction, now: Mono) {
        self.end_units(id, vec![extent], function, now);
    }

    /// TARGET WARM RESET and TARGET COLD RESET: a reset of each of the target's units; a cold one ends this node's connections to the
    /// target as well, once it is answered.
    fn reset_target(&mut self, id: TmfId, cold: bool, now: Mono) {
        let extents = self.extents();
        self.end_units(id, extents, UnitFunction::Reset, now);
        if let Some(waiting) = self.tmfs.waiting.iter_mut().find(|waiting| waiting.id == id) {
            waiting.cold = cold;
        }
        self.answer_those_over();
    }

    /// The commit tells every node; storage answers for what it has.
    fn end_units(&mut self, id: TmfId, extents: Vec<ExtentId>, function: UnitFunction, now: Mono) {
        let Some(by) = self.nexus() else { return };
        let mut ops = HashSet::new();
        for extent in &extents {
            self.abort_unit(*extent);
            ops.extend(self.tasks.ops_on(*extent));
            let op = self.new_op();
            ops.insert(op);
            let change = match function {
                UnitFunction::Reset => UnitChange::Reset,
                UnitFunction::ClearTaskSet => UnitChange::ClearTasks,
            };
            self.front.units.ask(UnitJob {
                op: Some(op),
                extent: *extent,
                by: by.clone(),
                deadline: now + HOLD_LIMIT,
                want: UnitWant::ChangeEverywhere(change),
            });
        }
        self.tmfs.waiting.push(Waiting {
            id,
            ops,
            others: extents.len(),
            units: extents.clone(),
            cold: false,
            result: TaskResult::COMPLETE,
            one: false,
            since: now,
        });
        for extent in extents {
            self.front.registry.end_unit(self.id, extent, function, id);
            self.front.backend.abort(extent, AbortScope::All);
        }
    }

    /// Answers every function that is through.
    fn answer_those_over(&mut self) {
        let over = self.tmfs.over();
        self.answer_functions(over);
    }

    pub(super) fn answer_functions(&mut self, over: Vec<(TmfId, TaskResult)>) {
        for (id, result) in over {
            self.iscsi.answer_task_management(id, result);
        }
        if std::mem::take(&mut self.tmfs.cold)
            && let Some(by) = self.nexus()
        {
            self.front.registry.close_target(by.target.as_str());
        }
    }
}
