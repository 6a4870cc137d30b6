//! Write-back (W5) in simulated clusters: which answered writes may be lost, and when; and an operator who switches it.
//!
//! A write that was answered from memory may be gone once a member dies and every other member of the in-sync set, as it is committed at
//! that moment, has died since the answer too. Nothing else of what the cores or the cluster state believe counts here, and no change of
//! the set: who is left by one has to have what was answered.

use holdfast_drill::checker::CallId;
use holdfast_raft::model::Command;
use holdfast_types::{BlockOp, OpOutcome};

use super::rng::Rng;
use super::{Ev, MS, Node, Res, World, glue, place};

impl World {
    /// A process dies, and with it what was only in its memory.
    pub(super) fn memory_lost(&mut self, node: Node) {
        self.hosts[node].died = self.now;
        for extent in 0..self.histories.len() {
            let Some(found) = self.agreed.head.extents.get(&glue::extent_id(extent)) else {
                continue;
            };
            let died = found.in_sync.iter().map(|node| self.hosts[place(*node)].died);
            self.histories[extent].lost_memory(died.min().unwrap_or(0));
            self.forget(extent);
        }
    }

    /// One node goes on alone, in a new run: what was only in the memory of whom it leaves behind is given up.
    pub(super) fn all_memory_lost(&mut self) {
        for extent in 0..self.histories.len() {
            self.histories[extent].lost_memory(self.now + 1);
            self.forget(extent);
        }
    }

    /// A commit may have made write-back a thing of the past.
    pub(super) fn caches_changed(&mut self) {
        for extent in 0..self.histories.len() {
            if !self.has_cache(extent) {
                self.histories[extent].all_stable();
            }
        }
    }

    fn has_cache(&self, extent: usize) -> bool {
        let found = self.agreed.head.extents.get(&glue::extent_id(extent));
        found.is_some_and(|found| found.cache.is_in_force())
    }

    fn forget(&mut self, extent: usize) {
        let lost = self.histories[extent].forgets();
        if lost > 0 {
            self.say(|| format!("x{extent}: {lost} answered writes were in memory alone, and may be gone"));
            self.count("cached writes at risk");
        }
    }

    /// A command over blocks was answered.
    pub(super) fn answered_cached(
        &mut self,
        extent: usize,
        call: Option<CallId>,
        from: u64,
        op: &BlockOp,
        outcome: &OpOutcome,
    ) {
        let carried_out = matches!(
            outcome,
            OpOutcome::Done | OpOutcome::Data(_) | OpOutcome::Miscompare { .. }
        );
        if carried_out && self.has_cache(extent) {
            self.histories[extent].answered_cached(call, (from, self.now), op, outcome);
            // Deaths between the answer and its arrival count as after it.
            self.forget(extent);
        }
    }

    /// An operator switches the write-back of some extents off, and on again.
    pub(super) fn switch_caches(&mut self) {
        let mut rng = Rng::new(self.plan.seed ^ 0x5735);
        for extent in 0..self.plan.extents.len() {
            if self.plan.write_back[extent] && rng.chance(40) {
                let wait = rng.between(1000, 6000) * MS;
                self.after(wait, Ev::SwitchCache(extent));
            }
        }
    }

    pub(super) fn switch_cache(&mut self, extent: usize) -> Res {
        let wait = self.rng.between(100, 2500) * MS;
        if !self.calm {
            self.after(wait, Ev::SwitchCache(extent));
        }
        let id = glue::extent_id(extent);
        let found = self.agreed.head.extents.get(&id);
        let on = found.is_none_or(|found| found.cache.since.is_none());
        self.count("write-back switched");
        self.ask(Command::SetWriteCache {
            extent: id,
            on,
            lost: false,
        })
    }
}
