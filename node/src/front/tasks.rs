//! The tasks of one session: where each of them is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use holdfast_iscsi::target::{Command, TaskId};
use holdfast_replication::core::api::{OpId, Request};
use holdfast_scsi::{CopyJob, Finish, Pending};
use holdfast_types::{BlockOp, CommandName, ExtentId, Lun, Mono, Origin, UnitVersion};

use super::shares::{Has, Shares, Turn, Window, cost_of};
use super::units::Waiting;
use crate::metrics::Operation;

/// Where a task is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its port group is transitioning, or too much is under way: its command is started (again) when that has changed.
    Held(Box<Command>),
    /// The session has its share in storage: its command is started when some of that is through.
    Queued(Box<Command>),
    /// Its data is on the way.
    AwaitingData {
        lun: Lun,
        extent: ExtentId,
        pending: Pending,
        name: CommandName,
        received: Mono,
        /// The state of the unit that its command was admitted under.
        admitted: UnitVersion,
        /// What it counts for in the session's share.
        cost: u64,
    },
    /// The cluster is asked.
    Unit {
        op: OpId,
        extent: ExtentId,
        waiting: Waiting,
    },
    /// SANITIZE: its medium is gone through.
    Sanitizing { lun: Lun },
    /// Storage has it.
    Storage {
        op: OpId,
        extent: ExtentId,
        then: Then,
        /// What it counts for in the session's share.
        cost: u64,
        began: Began,
    },
}

/// An operation that storage was given, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    pub(super) operation: Operation,
    /// Bytes that it writes.
    pub(super) bytes: u64,
    /// What a COMPARE AND WRITE is called.
    pub(super) compares: Option<CommandName>,
    /// When its command was received; of a part of a copy, when the part began.
    pub(super) since: Mono,
}

impl Began {
    /// Of an operation that is about to be given to storage.
    pub(super) fn new(request: &Request, then: &Then, now: Mono) -> Self {
        let (operation, bytes) = Operation::of(&request.op);
        let since = match then {
            Then::Finish(_) => request.received,
            Then::Copy(_) => now,
        };
        let compares = matches!(request.op, BlockOp::CompareAndWrite { .. });
        Self {
            operation,
            bytes,
            compares: compares.then_some(request.name),
            since,
        }
    }
}

/// An operation that storage has answered.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) task: TaskId,
    pub(super) extent: ExtentId,
    pub(super) then: Then,
    pub(super) began: Began,
}

/// What comes after an operation.
#[derive(Debug)]
pub(super) enum Then {
    /// The answer.
    Finish(Finish),
    /// The next operation of a copy.
    Copy(Box<Copying>),
}

/// A copy, between two of its operations.
#[derive(Debug)]
pub(super) struct Copying {
    pub(super) job: CopyJob,
    /// The unit that took the command.
    pub(super) unit: ExtentId,
    pub(super) lun: Lun,
    /// Whose it is; admitted under the state of the unit that took it.
    pub(super) origin: Origin,
    pub(super) name: CommandName,
    pub(super) received: Mono,
    /// Operations so far.
    pub(super) parts: u16,
}

impl Stage {
    /// The operation that storage has for it, on that extent or for a copy that its unit took.
    fn op_in_storage(&self, wanted: ExtentId) -> Option<OpId> {
        let Self::Storage { op, extent, then, .. } = self else {
            return None;
        };
        let copies = matches!(then, Then::Copy(copying) if copying.unit == wanted);
        (copies || *extent == wanted).then_some(*op)
    }

    const fn cost(&self) -> u64 {
        match self {
            Self::Held(_) | Self::Queued(_) | Self::Unit { .. } | Self::Sanitizing { .. } => 0,
            Self::AwaitingData { cost, .. } | Self::Storage { cost, .. } => *cost,
        }
    }
}

/// The open tasks of a session.
#[derive(Debug)]
pub(super) struct Tasks {
    stages: HashMap<TaskId, Stage>,
    by_op: HashMap<OpId, TaskId>,
    held: VecDeque<TaskId>,
    /// Commands that wait for the session's share, in order, and their cost.
    queued: VecDeque<(TaskId, u64)>,
    queued_cost: u64,
    /// Cost of what is under way.
    open_cost: u64,
    /// Bytes of answers that wait to be sent.
    unsent: u64,
    /// When something was given to storage last.
    lately: Window,
    shares: Arc<Shares>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.shares.moved(self.open_cost, 0);
        self.shares.waits(self.queued_cost, 0);
        self.shares.sends(self.unsent, 0);
    }
}

impl Tasks {
    /// None yet.
    pub(super) fn new(shares: Arc<Shares>) -> Self {
        Self {
            stages: HashMap::new(),
            by_op: HashMap::new(),
            held: VecDeque::new(),
            queued: VecDeque::new(),
            queued_cost: 0,
            open_cost: 0,
            unsent: 0,
            lately: None,
            shares,
        }
    }

    /// Something is given to storage: other sessions are to know.
    pub(super) fn is_here(&mut self, now: Mono) {
        self.lately = self.shares.is_here(self.lately, now);
    }

    /// Whether a command may start now.
    pub(super) fn turn(&self, command: &Command, now: Mono) -> Turn {
        let has = Has {
            open: self.open_cost,
            waiting: self.queued_cost,
            unsent: self.unsent,
        };
        self.shares
            .turn(has, cost_of(command.cdb.as_bytes(), command.expected_length), now)
    }

    /// So many bytes of answers wait to be sent now.
    pub(super) fn unsent(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if bytes != self.unsent {
            self.shares.sends(self.unsent, bytes);
            self.unsent = bytes;
        }
    }

    fn count(&mut self, gone: u64, come: u64) {
        let after = self.open_cost - gone + come;
        self.shares.moved(self.open_cost, after);
        self.open_cost = after;
    }

    fn forget_queued(&mut self, task: TaskId) {
        if let Some(at) = self.queued.iter().position(|(other, _)| *other == task)
            && let Some((_, cost)) = self.queued.remove(at)
        {
            self.shares.waits(cost, 0);
            self.queued_cost -= cost;
        }
    }

    /// The command that has waited longest for the session's share, if its turn has come.
    pub(super) fn take_queued(&mut self, now: Mono) -> Option<Command> {
        let (task, cost) = *self.queued.front()?;
        if !self.shares.may_go_on(self.open_cost, cost, now) {
            return None;
        }
        match self.take(task) {
            Some(Stage::Queued(command)) => Some(*command),
            _ => None,
        }
    }

    /// Puts a task into a stage, in place of the one it was in.
    pub(super) fn put(&mut self, task: TaskId, stage: Stage) {
        match &stage {
            Stage::Storage { op, .. } | Stage::Unit { op, .. } => drop(self.by_op.insert(*op, task)),
            Stage::Held(_) => self.held.push_back(task),
            Stage::Queued(command) => {
                let cost = cost_of(command.cdb.as_bytes(), command.expected_length);
                self.queued.push_back((task, cost));
                self.queued_cost += cost;
                self.shares.waits(0, cost);
            }
            Stage::AwaitingData { .. } | Stage::Sanitizing { .. } => {}
        }
        let come = stage.cost();
        let gone = self.stages.insert(task, stage).map_or(0, |old| old.cost());
        self.count(gone, come);
    }

    /// Takes a task out.
    pub(super) fn take(&mut self, task: TaskId) -> Option<Stage> {
        let stage = self.stages.remove(&task)?;
        match &stage {
            Stage::Storage { op, .. } | Stage::Unit { op, .. } => drop(self.by_op.remove(op)),
            Stage::Held(_) => self.held.retain(|other| *other != task),
            Stage::Queued(_) => self.forget_queued(task),
            Stage::AwaitingData { .. } | Stage::Sanitizing { .. } => {}
        }
        self.count(stage.cost(), 0);
        Some(stage)
    }

    /// Where a task is.
    pub(super) fn stage(&self, task: TaskId) -> Option<&Stage> {
        self.stages.get(&task)
    }

    /// Takes the task that waits for the cluster's word out.
    pub(super) fn take_unit(&mut self, op: OpId) -> Option<(TaskId, Waiting)> {
        let task = self.by_op.remove(&op)?;
        match self.stages.remove(&task) {
            Some(Stage::Unit { waiting, .. }) => Some((task, waiting)),
            _ => None,
        }
    }

    /// SANITIZE commands that wait for their end.
    pub(super) fn sanitizing(&self) -> Vec<(TaskId, Lun)> {
        let waits = |(task, stage): (&TaskId, &Stage)| match stage {
            Stage::Sanitizing { lun } => Some((*task, *lun)),
            _ => None,
        };
        self.stages.iter().filter_map(waits).collect()
    }

    /// Takes the task of an operation out.
    pub(super) fn take_op(&mut self, op: OpId) -> Option<Ended> {
        let task = self.by_op.remove(&op)?;
        let stage = self.stages.remove(&task)?;
        self.count(stage.cost(), 0);
        match stage {
            Stage::Storage {
                extent, then, began, ..
            } => Some(Ended {
                task,
                extent,
                then,
                began,
            }),
            _ => None,
        }
    }

    /// Takes all held commands out, oldest first.
    pub(super) fn take_held(&mut self) -> Vec<Command> {
        let tasks = std::mem::take(&mut self.held);
        tasks
            .into_iter()
            .filter_map(|task| match self.stages.remove(&task) {
                Some(Stage::Held(command)) => Some(*command),
                _ => None,
            })
            .collect()
    }

    /// When the oldest held command was received.
    pub(super) fn oldest_held(&self) -> Option<Mono> {
        self.held
            .iter()
            .filter_map(|task| match self.stages.get(task) {
                Some(Stage::Held(command)) => Some(command.received),
                _ => None,
            })
            .min()
    }

    /// Operations on an extent that storage or the cluster has, and those of copies that its unit took.
    pub(super) fn ops_on(&self, extent: ExtentId) -> impl Iterator<Item = OpId> + '_ {
        self.stages.values().filter_map(move |stage| match stage {
            Stage::Unit { op, extent: on, .. } if *on == extent => Some(*op),
            stage => stage.op_in_storage(extent),
        })
    }

    /// Operations on an extent that storage has, and those of copies that its unit took.
    pub(super) fn storage_ops_on(&self, extent: ExtentId) -> impl Iterator<Item = OpId> + '_ {
        self.stages
            .values()
            .filter_map(move |stage| stage.op_in_storage(extent))
    }

    /// Extents with operations that storage has.
    pub(super) fn busy_extents(&self) -> Vec<ExtentId> {
        let mut extents: Vec<ExtentId> = self
            .stages
            .values()
            .filter_map(|stage| match stage {
                Stage::Storage { extent, .. } => Some(*extent),
                _ => None,
            })
            .collect();
        extents.sort_unstable();
        extents.dedup();
        extents
    }

    /// How many tasks storage has.
    pub(super) fn in_storage(&self) -> usize {
        self.by_op.len()
    }
}
