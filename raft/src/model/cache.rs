//! Write-back (W5): whether an extent's writes are answered before they are stable, and who may be promoted while some of them are not.
//!
//! Such a write is in the memory of every member of the in-sync set, in the run that is noted for the member. Whoever started anew since
//! may lack it, and is not promoted, unless all members did: then nobody has more than the disks hold.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::{ExtentId, Incarnation, NodeId, UnitVersion};
use serde::{Deserialize, Serialize};

use super::command::ExtentStamp;
use super::reply::{Refusal, Reply};
use super::state::{ClusterState, Extent};
use crate::fault::{self, Fault};

/// What each node announced last: its run, and which of its replicas cannot serve.
pub(super) struct Runs(BTreeMap<NodeId, (Incarnation, BTreeSet<ExtentId>)>);

impl Runs {
    fn of(&self, node: NodeId) -> Option<Incarnation> {
        self.0.get(&node).map(|(run, _)| *run)
    }

    fn fit(&self, node: NodeId, extent: ExtentId) -> Option<Incarnation> {
        let (run, unfit) = self.0.get(&node)?;
        (!unfit.contains(&extent)).then_some(*run)
    }
}

/// Write-back of an extent, as committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCache {
    /// Writes that were admitted under this version of the unit's state, or a later one, are answered before they are stable. `None`: none
    /// are (WCE=0).
    #[serde(default)]
    pub since: Option<UnitVersion>,
    /// The run in which each member of the in-sync set has whatever was answered so. Empty, with `since` being `None`: everything that was
    /// answered is stable on every member.
    #[serde(default)]
    pub runs: BTreeMap<NodeId, Incarnation>,
}

impl WriteCache {
    /// Whether there may be answered writes that are not stable.
    pub fn is_in_force(&self) -> bool {
        self.since.is_some() || !self.runs.is_empty()
    }
}

impl Extent {
    /// W5: whether `node` in run `run` has everything that was answered, or nobody has more than its disk does.
    pub(super) fn remembers(&self, node: NodeId, run: Incarnation, newest: &Runs) -> bool {
        !self.cache.is_in_force()
            || self.cache.runs.get(&node) == Some(&run)
            || self.all_forgot(newest)
            || fault::on(Fault::RestartedPromoted)
    }

    /// Whether every member of the set has told of a later run than the one that is noted for it.
    fn all_forgot(&self, newest: &Runs) -> bool {
        self.in_sync.iter().all(|node| self.forgot(*node, newest))
    }

    fn forgot(&self, node: NodeId, newest: &Runs) -> bool {
        newest
            .of(node)
            .is_some_and(|run| self.cache.runs.get(&node) != Some(&run))
    }

    /// To be called before a reign begins: where all memory is gone, what the disks hold is all there is, and members count in their
    /// present runs. A flush that comes after it says nothing of what is gone: every nexus hears of a reset before it can ask.
    pub(super) fn begin_anew(&mut self, id: ExtentId, (primary, run): (NodeId, Incarnation), newest: &Runs) {
        if self.cache.is_in_force() && self.all_forgot(newest) {
            self.note_runs(id, newest);
            self.cache.runs.insert(primary, run);
            self.unit.memory_lost();
        }
    }

    /// Notes the present run of every member that can serve: for one that cannot, nobody is to wait.
    pub(super) fn note_runs(&mut self, id: ExtentId, newest: &Runs) {
        let members = self.in_sync.iter();
        self.cache.runs = members
            .filter_map(|node| Some((*node, newest.fit(*node, id)?)))
            .collect();
    }

    /// Who left the set is owed by nobody.
    pub(super) fn forget_left(&mut self) {
        let in_sync = &self.in_sync;
        self.cache.runs.retain(|node, _| in_sync.contains(node));
    }
}

impl ClusterState {
    pub(super) fn runs(&self) -> Runs {
        let told = self
            .nodes
            .iter()
            .filter_map(|(node, member)| Some((*node, (member.incarnation?, member.unfit.clone()))));
        Runs(told.collect())
    }

    /// W5: whether `node`, in the run that it announced last, has everything of `extent` that was answered.
    pub fn has_all(&self, node: NodeId, extent: ExtentId) -> bool {
        let run = self.node(node).and_then(|member| member.incarnation);
        self.extents
            .get(&extent)
            .is_some_and(|found| match run.filter(|_| found.cache.is_in_force()) {
                Some(run) => found.remembers(node, run, &self.runs()),
                None => !found.cache.is_in_force(),
            })
    }

    /// W5: members of `extent`'s set that may have in memory what others of it had and lost. Without one of them nobody serves.
    pub fn remembering(&self, extent: ExtentId) -> Vec<NodeId> {
        let found = self.extents.get(&extent);
        found
            .filter(|found| found.cache.is_in_force())
            .map_or_else(Vec::new, |found| {
                let newest = self.runs();
                let members = found.in_sync.iter().copied();
                let (forgot, remember): (Vec<NodeId>, _) =
                    members.partition(|node| found.forgot(*node, &newest));
                if forgot.is_empty() { forgot } else { remember }
            })
    }

    /// Switches write-back on or off. On counts for members in the runs that are known now: what was answered before is stable. Off ends
    /// early answers; the runs stay until the primary says that everything is stable ([`Self::cache_settled`]), or go at once (`lost`):
    /// whoever asks for that gives up what is nowhere but in the memory of members that do not come back.
    pub(super) fn set_write_cache(&mut self, id: ExtentId, on: bool, lost: bool) -> Result<Reply, Refusal> {
        let newest = self.runs();
        let found = self.extents.get_mut(&id);
        let extent = found.ok_or(Refusal::NoSuchExtent { extent: id })?;
        let forgets = lost && !on && !extent.cache.runs.is_empty();
        if extent.cache.since.is_some() == on && !forgets {
            return Ok(Reply::DONE);
        }
        if extent.cache.since.is_some() != on {
            let version = extent.unit.mode_parameters_set();
            if on && extent.cache.runs.is_empty() {
                extent.note_runs(id, &newest);
                if let (Some(primary), Some(run)) = (extent.primary, extent.primary_incarnation) {
                    extent.cache.runs.insert(primary, run);
                }
            }
            extent.cache.since = on.then_some(version);
        }
        if forgets {
            extent.cache.runs.clear();
        }
        extent.version = extent.version.next();
        Ok(Reply::DONE)
    }

    /// The primary has nothing left that was answered and is not stable on every member, and answers nothing early any more.
    pub(super) fn cache_settled(
        &mut self,
        items: &[ExtentStamp],
        proposer: NodeId,
    ) -> Result<Reply, Refusal> {
        self.trusted(proposer)?;
        let newest = self.runs().of(proposer);
        let items = self.each(items, |_, extent| {
            super::apply_sets::led_by_newest_run(extent, proposer, newest)?;
            if extent.cache.since.is_some() {
                return Err(Refusal::Invalid("writes are answered early again".into()));
            }
            extent.cache.runs.clear();
            extent.version = extent.version.next();
            Ok(())
        });
        Ok(Reply::Items { items })
    }
}

#[cfg(test)]
#[path = "cache_test.rs"]
mod tests;
