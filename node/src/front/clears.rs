//! Tasks that go because a unit was reset or cleared (I13).

use std::sync::Arc;

use holdfast_iscsi::target::TaskId;
use holdfast_replication::core::api::{AbortScope, OpId};
use holdfast_scsi::UnitAttention;
use holdfast_types::{ExtentId, Lun};

use super::session::Session;
use super::state::FrontState;
use super::tasks::Stage;

impl Session {
    /// Drops this connection's tasks on a unit that storage does not have; what it has, ends there. Whether there were any.
    pub(super) fn abort_unit(&mut self, extent: ExtentId) -> bool {
        let state = Arc::clone(&self.front.state.borrow());
        let group = self.group();
        let Some(by) = self.nexus() else {
            return false;
        };
        let mut ended = false;
        let all: Vec<(TaskId, u64)> = self.iscsi.tasks().map(|(task, lun, _)| (task, lun)).collect();
        for (task, lun) in all {
            let on_unit = Lun::from_field(lun)
                .ok()
                .and_then(|lun| state.view(&by, group.as_ref(), lun))
                .is_some_and(|view| view.extent == extent);
            let elsewhere = matches!(
                self.tasks.stage(task),
                Some(Stage::Storage { .. } | Stage::Unit { .. })
            );
            if on_unit && !elsewhere {
                self.tasks.take(task);
                ended |= self.iscsi.abort(task);
            }
        }
        ended
    }

    /// I13: tasks that were admitted before a reset of the unit, or CLEAR TASK SET, through whatever node, go with it. Storage answers for
    /// those that it has, as ended or, where they have an lsn, as done.
    pub(super) fn notice_clears(&mut self, state: &FrontState) {
        let group = self.group();
        let Some(by) = self.nexus() else { return };
        let luns: Vec<Lun> = self
            .logged_in
            .iter()
            .flat_map(|session| session.units.keys().copied())
            .collect();
        for lun in luns {
            let Some(view) = state.view(&by, group.as_ref(), lun) else {
                continue;
            };
            let (extent, now) = (view.extent, (view.unit.cleared, view.unit.resets));
            let Some(session) = &mut self.logged_in else {
                return;
            };
            let before = session.cleared.insert(extent, now);
            let Some(before) = before.filter(|before| *before != now) else {
                continue;
            };
            if self.tmfs.resets(extent) {
                // Asked for here: what was there is aborted already, and what came since is held until it is done.
                continue;
            }
            let ended = self.abort_unit(extent);
            let ops: Vec<OpId> = self.tasks.storage_ops_on(extent).collect();
            if before.1 == now.1 && (ended || !ops.is_empty()) {
                self.raise(extent, UnitAttention::CommandsCleared);
            }
            for op in ops {
                self.front.backend.abort(extent, AbortScope::Op(op));
            }
        }
    }
}
