//! The tasks of one session: where each of them is.

use std::collections::{HashMap, VecDeque};

use holdfast_iscsi::target::{Command, TaskId};
use holdfast_replication::core::api::OpId;
use holdfast_scsi::{Finish, Pending};
use holdfast_types::{CommandName, ExtentId, Lun, Mono};

/// Where a task is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its port group is transitioning, or too much is under way: its command is started (again) when that has changed.
    Held(Box<Command>),
    /// Its data is on the way.
    AwaitingData {
        lun: Lun,
        extent: ExtentId,
        pending: Pending,
        name: CommandName,
        received: Mono,
        /// Resets of the unit at its start.
        resets: u64,
    },
    /// Storage has it.
    Storage {
        op: OpId,
        extent: ExtentId,
        finish: Finish,
    },
}

/// The open tasks of a session.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    stages: HashMap<TaskId, Stage>,
    by_op: HashMap<OpId, TaskId>,
    held: VecDeque<TaskId>,
}

impl Tasks {
    /// Puts a task into a stage, in place of the one it was in.
    pub(super) fn put(&mut self, task: TaskId, stage: Stage) {
        match &stage {
            Stage::Storage { op, .. } => drop(self.by_op.insert(*op, task)),
            Stage::Held(_) => self.held.push_back(task),
            Stage::AwaitingData { .. } => {}
        }
        self.stages.insert(task, stage);
    }

    /// Takes a task out.
    pub(super) fn take(&mut self, task: TaskId) -> Option<Stage> {
        let stage = self.stages.remove(&task)?;
        match &stage {
            Stage::Storage { op, .. } => drop(self.by_op.remove(op)),
            Stage::Held(_) => self.held.retain(|other| *other != task),
            Stage::AwaitingData { .. } => {}
        }
        Some(stage)
    }

    /// Where a task is.
    pub(super) fn stage(&self, task: TaskId) -> Option<&Stage> {
        self.stages.get(&task)
    }

    /// Takes the task of an operation out.
    pub(super) fn take_op(&mut self, op: OpId) -> Option<(TaskId, ExtentId, Finish)> {
        let task = self.by_op.remove(&op)?;
        match self.stages.remove(&task) {
            Some(Stage::Storage { extent, finish, .. }) => Some((task, extent, finish)),
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

    /// Operations on an extent that storage has.
    pub(super) fn ops_on(&self, extent: ExtentId) -> impl Iterator<Item = OpId> + '_ {
        self.stages.values().filter_map(move |stage| match stage {
            Stage::Storage { op, extent: on, .. } if *on == extent => Some(*op),
            _ => None,
        })
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
