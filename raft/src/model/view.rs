//! What other parts read out of the cluster state: port-group states, LUN maps, a node's share of the extents.

use std::collections::BTreeMap;

use holdfast_alua::{HomeGroup, LuInputs, PortGroup, derive};
use holdfast_types::{ExtentId, Incarnation, IscsiName, Lun, NodeId, RelativePortId};

use super::command::{Command, ExtentStamp};
use super::state::{ClusterState, Extent, Role};

/// A logical unit as all nodes show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LuView<'a> {
    /// The extent's id.
    pub id: ExtentId,
    /// The extent.
    pub extent: &'a Extent,
    /// The target port groups: every data node's home set, by node.
    pub groups: Vec<PortGroup>,
}

/// What a node is to an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Share {
    /// The committed primary, in the run that the epoch names. Serving needs the lease on top.
    Primary,
    /// The committed primary, but in an earlier run: it must reopen before it serves (E1).
    PrimaryBefore,
    /// Keeps a replica that is in sync.
    InSync,
    /// Keeps a replica that is not in sync.
    OutOfSync,
    /// Keeps none.
    None,
}

impl Extent {
    /// What proposals about it start from (E2).
    pub const fn stamp(&self, id: ExtentId) -> ExtentStamp {
        ExtentStamp {
            extent: id,
            epoch: self.epoch,
            version: self.version,
        }
    }

    /// What `node`, in run `incarnation`, is to it.
    pub fn share(&self, node: NodeId, incarnation: Incarnation) -> Share {
        if self.primary == Some(node) {
            if self.primary_incarnation == Some(incarnation) {
                Share::Primary
            } else {
                Share::PrimaryBefore
            }
        } else if self.in_sync.contains(&node) {
            Share::InSync
        } else if self.replicas.contains(&node) {
            Share::OutOfSync
        } else {
            Share::None
        }
    }
}

impl Command {
    /// Whether it can change a port group's state.
    pub(super) const fn moves_groups(&self) -> bool {
        matches!(
            self,
            Self::Suspect { .. }
                | Self::NewEpoch { .. }
                | Self::ClearSuspect { .. }
                | Self::Reopen { .. }
                | Self::Shrink { .. }
                | Self::Grow { .. }
                | Self::Switchover { .. }
                | Self::Admin(_)
        )
    }
}

impl ClusterState {
    /// The logical unit that shows `extent`.
    pub fn lu(&self, extent: ExtentId) -> Option<LuView<'_>> {
        let found = self.extents.get(&extent)?;
        Some(LuView {
            id: extent,
            extent: found,
            groups: self.groups(found),
        })
    }

    /// The logical unit behind `lun` of `target`.
    pub fn lun(&self, target: &IscsiName, lun: Lun) -> Option<LuView<'_>> {
        self.lu(*self.targets.get(target)?.luns.get(&lun)?)
    }

    /// P4. A suspicion alone shows nothing: a group is served by its home node until a commit has put that node out of the in-sync set
    /// while it is suspect. Portals are not taken over by peers yet. A member of the in-sync set has, by commit, a working link to the
    /// primary (it would be shrunk away otherwise), so it can forward; any other node is standby at most.
    fn groups(&self, extent: &Extent) -> Vec<PortGroup> {
        let data = self.nodes.iter().filter(|(_, node)| node.role == Role::Data);
        let groups: Vec<HomeGroup> = data
            .map(|(&node, member)| HomeGroup {
                id: member.tpg,
                ports: vec![RelativePortId(member.tpg.value())],
                node,
                served_by: Some(node).filter(|node| extent.in_sync.contains(node) || !self.is_suspect(*node)),
            })
            .collect();
        let linked: Vec<NodeId> = extent.in_sync.iter().copied().collect();
        derive(&LuInputs {
            primary: extent.primary,
            preferred: extent.preferred,
            secondary: extent.secondary,
            groups: &groups,
            linked: &linked,
        })
    }

    pub(super) fn all_groups(&self) -> BTreeMap<ExtentId, Vec<PortGroup>> {
        self.extents.iter().map(|(id, e)| (*id, self.groups(e))).collect()
    }

    pub(super) fn groups_of(&self, extent: ExtentId) -> Vec<PortGroup> {
        self.extents
            .get(&extent)
            .map(|e| self.groups(e))
            .unwrap_or_default()
    }

    /// Extents that `node` keeps a replica of, with what it is to them.
    pub fn shares(
        &self,
        node: NodeId,
        incarnation: Incarnation,
    ) -> impl Iterator<Item = (ExtentId, &Extent, Share)> {
        self.extents
            .iter()
            .map(move |(id, e)| (*id, e, e.share(node, incarnation)))
            .filter(|(_, _, share)| *share != Share::None)
    }

    /// What `node` should propose to reopen: extents whose epoch names an earlier run of it (E1), and extents without primary that it is
    /// the first to open: preferred, or first of the in-sync members that are not suspect, those that stay before those that go. `None`
    /// where there is nothing.
    ///
    /// Extents that the node itself has handed back (E6) are its own to add.
    pub fn reopening(&self, node: NodeId, incarnation: Incarnation) -> Option<Command> {
        self.reopening_where(node, incarnation, |id, extent| {
            self.opener(id, extent) == Some(node)
        })
    }

    /// As [`Self::reopening`], but with every extent without primary that `node` is in sync with, whoever should be first. For when nobody
    /// opened them for a while: the first one may be up and unable to serve (its replica is fenced).
    pub fn reopening_late(&self, node: NodeId, incarnation: Incarnation) -> Option<Command> {
        self.reopening_where(node, incarnation, |_, _| true)
    }

    fn reopening_where(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        unclaimed: impl Fn(ExtentId, &Extent) -> bool,
    ) -> Option<Command> {
        if self.is_suspect(node) {
            return None;
        }
        let items: Vec<ExtentStamp> = self
            .shares(node, incarnation)
            .filter(|(id, extent, share)| match share {
                Share::PrimaryBefore => self.may_reign(node, *id),
                Share::InSync => {
                    extent.primary.is_none() && self.may_reign(node, *id) && unclaimed(*id, extent)
                }
                _ => false,
            })
            .map(|(id, extent, _)| extent.stamp(id))
            .collect();
        (!items.is_empty()).then_some(Command::Reopen {
            items,
            node,
            incarnation,
        })
    }

    /// Whether `node` has announced that its replica of `extent` cannot serve (J1, J2).
    pub fn is_unfit(&self, node: NodeId, extent: ExtentId) -> bool {
        self.node(node)
            .is_some_and(|member| member.unfit.contains(&extent))
    }

    /// Whether `extent` may be given to `node`: it is in sync, not suspect, has not announced that its replica cannot serve, and has
    /// everything that was answered (W5). A hint for who proposes it; it is looked at again when that is applied.
    pub fn may_reign(&self, node: NodeId, extent: ExtentId) -> bool {
        let member = self
            .extents
            .get(&extent)
            .is_some_and(|extent| extent.in_sync.contains(&node));
        member && !self.is_suspect(node) && !self.is_unfit(node, extent) && self.has_all(node, extent)
    }

    fn opener(&self, id: ExtentId, extent: &Extent) -> Option<NodeId> {
        // Of those that are as good as each other, the first.
        let fit = extent.in_sync.iter().copied();
        fit.filter(|node| self.may_reign(*node, id))
            .min_by_key(|node| (Some(*node) != extent.preferred, extent.retiring.contains(node)))
    }
}
