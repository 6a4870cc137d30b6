//! Where an extent's replicas are and which of them serves, as people ask for it: preferred node, planned switchover, replica sets.

use std::collections::BTreeSet;

use holdfast_types::{ExtentId, NodeId};
use serde::{Deserialize, Serialize};

use super::SecondaryAccess;
use super::apply_sets::led_by_newest_run;
use super::command::ExtentStamp;
use super::name::check_name;
use super::reply::{Refusal, Reply};
use super::state::{ClusterState, Extent, Role};

type Applied = Result<Reply, Refusal>;

/// A change of an extent that moves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtentChange {
    /// Another name.
    Name(String),
    /// Which replica is primary when all is well; `None` for whichever.
    Preferred(Option<NodeId>),
    /// How nodes other than the primary show the unit.
    Secondary(SecondaryAccess),
}

impl Extent {
    /// Whether `node` has a replica that is to stay.
    pub fn stays_on(&self, node: NodeId) -> bool {
        self.replicas.contains(&node) && !self.retiring.contains(&node)
    }

    /// Whether the retiring replicas may go now: nobody needs them any more. Either every replica that stays is in sync, or the retiring
    /// ones are not. The primary is never one of them; it hands over first, and without one nobody says that what stays is whole.
    pub(super) fn may_retire(&self) -> bool {
        let mut stay = self.replicas.difference(&self.retiring);
        let full = stay.all(|node| self.in_sync.contains(node));
        let idle = self.in_sync.is_disjoint(&self.retiring);
        !self.retiring.is_empty()
            && (full || idle)
            && !self.in_sync.is_subset(&self.retiring)
            && self
                .primary
                .is_some_and(|primary| !self.retiring.contains(&primary))
    }
}

impl ClusterState {
    /// Whether the retiring replicas of an extent may go now: nobody needs them any more, and none that goes is in sync while one that
    /// stays is suspect or has announced that it cannot serve (J1, J2): what goes may be all that is whole. The state alone does not say
    /// more of a disk; so the primary proposes it, which has shown in its present run that its own replica serves (I5).
    pub fn may_retire(&self, id: ExtentId, extent: &Extent) -> bool {
        let idle = extent.in_sync.is_disjoint(&extent.retiring);
        let mut stay = extent.replicas.difference(&extent.retiring);
        let able = |node: &NodeId| !self.is_suspect(*node) && !self.is_unfit(*node, id);
        let mut whole = extent.in_sync.difference(&extent.retiring);
        extent.may_retire()
            && extent.primary.as_ref().is_some_and(able)
            && (idle || stay.all(able))
            // W5: nor while all who stay may lack what was acknowledged.
            && whole.any(|node| self.has_all(*node, id))
    }

    fn extent_mut(&mut self, extent: ExtentId) -> Result<&mut Extent, Refusal> {
        self.extents
            .get_mut(&extent)
            .ok_or(Refusal::NoSuchExtent { extent })
    }

    pub(super) fn set_extent(&mut self, id: ExtentId, change: &ExtentChange) -> Applied {
        match change {
            ExtentChange::Name(name) => {
                check_name(name)?;
                if self.extent_named(name).is_some_and(|other| other != id) {
                    return Err(Refusal::Exists {
                        what: format!("extent '{name}'"),
                    });
                }
                self.extent_mut(id)?.name.clone_from(name);
            }
            ExtentChange::Preferred(preferred) => {
                let extent = self.extent_mut(id)?;
                if let Some(node) = *preferred
                    && !extent.stays_on(node)
                {
                    return Err(Refusal::NotReplica { node });
                }
                extent.preferred = *preferred;
            }
            ExtentChange::Secondary(secondary) => self.extent_mut(id)?.secondary = *secondary,
        }
        Ok(Reply::DONE)
    }

    /// Asks the primary to hand the extent to `to`, or with `None` not to any more. It is carried out by the primary's node, whichever
    /// node was asked, and over with the next reign.
    pub(super) fn request_switchover(&mut self, extents: &[ExtentId], to: Option<NodeId>) -> Applied {
        if let Some(node) = to {
            let member = self.node(node).ok_or(Refusal::NoSuchNode { node })?;
            if member.is_suspect() {
                return Err(Refusal::Suspect { node });
            }
            if member.leaving {
                return Err(Refusal::Invalid(format!("{} leaves the cluster", member.name)));
            }
            if member.draining {
                // It would give them away again at once.
                return Err(Refusal::Invalid(format!(
                    "{0} is drained: it takes no extents until 'holdfast cluster undrain {0}'",
                    member.name
                )));
            }
            for id in extents {
                let extent = self
                    .extents
                    .get(id)
                    .ok_or(Refusal::NoSuchExtent { extent: *id })?;
                if !extent.in_sync.contains(&node) {
                    return Err(Refusal::Invalid(format!(
                        "extent {} cannot move: its replica there is not in sync",
                        extent.name
                    )));
                }
                if extent.retiring.contains(&node) {
                    return Err(Refusal::Invalid(format!(
                        "extent {} cannot move: its replica there is to go",
                        extent.name
                    )));
                }
                if self.is_unfit(node, *id) {
                    return Err(Refusal::Invalid(format!(
                        "extent {} cannot move: the disk of its replica there has failed, or lost something",
                        extent.name
                    )));
                }
            }
        }
        for id in extents {
            if let Ok(extent) = self.extent_mut(*id) {
                extent.handover = to.filter(|to| extent.primary != Some(*to));
            }
        }
        Ok(Reply::DONE)
    }

    /// The replicas that are to be: new ones are resynchronized first, and only then others go.
    pub(super) fn set_replicas(&mut self, id: ExtentId, wanted: &BTreeSet<NodeId>) -> Applied {
        for &node in wanted {
            let member = self.node(node).ok_or(Refusal::NoSuchNode { node })?;
            if member.role != Role::Data {
                return Err(Refusal::Invalid(format!(
                    "node '{}' is a witness: it holds no data",
                    member.name
                )));
            }
            if member.leaving {
                return Err(super::apply::leaving(&member.name));
            }
        }
        if wanted.is_empty() {
            return Err(Refusal::Invalid("an extent needs at least one replica".into()));
        }
        let extent = self.extent_mut(id)?;
        if extent.in_sync.is_empty() {
            return Err(Refusal::Invalid(format!(
                "extent {} has no replica that is whole, so a new one would wait for ever: first accept what may be lost \
                 ('holdfast extent accept-data-loss'), or delete it",
                extent.name
            )));
        }
        let retiring: BTreeSet<NodeId> = extent.replicas.difference(wanted).copied().collect();
        extent.replicas.extend(wanted);
        extent.preferred = extent.preferred.filter(|node| wanted.contains(node));
        extent.retiring = retiring;
        extent.replicas_wanted = 0;
        let extent = &self.extents[&id];
        let out_of_reach = extent.in_sync.iter().all(|node| self.is_suspect(*node));
        let warnings = if out_of_reach {
            vec![format!(
                "no replica of extent {} is up: the new ones wait for one",
                extent.name
            )]
        } else {
            Vec::new()
        };
        Ok(Reply::Done { warnings })
    }

    /// Replicas that were to go, go: each item for itself, if nobody needs them when this is applied. Who proposes it is the primary, in
    /// the newest run that it told of: what an earlier one had shown says nothing of the disk now (E1, J1).
    pub(super) fn retire(&mut self, items: &[ExtentStamp], proposer: NodeId) -> Applied {
        self.trusted(proposer)?;
        let newest = self.node(proposer).and_then(|member| member.incarnation);
        let waits: BTreeSet<ExtentId> = self
            .extents
            .iter()
            .filter(|(id, extent)| !self.may_retire(**id, extent))
            .map(|(id, _)| *id)
            .collect();
        let items = self.each(items, |id, extent| {
            led_by_newest_run(extent, proposer, newest)?;
            if waits.contains(&id) {
                return Err(Refusal::Invalid("its other replicas are not in sync yet".into()));
            }
            extent.drop_retiring();
            Ok(())
        });
        Ok(Reply::Items { items })
    }
}

#[cfg(test)]
#[path = "placement_test.rs"]
mod tests;
