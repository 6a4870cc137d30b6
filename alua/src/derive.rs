//! From committed cluster state to port groups.

use holdfast_types::{NodeId, RelativePortId, TpgId};
use serde::{Deserialize, Serialize};

use crate::{AccessState, PortGroup};

/// What a group is that works but is not the primary's: configured per LUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondaryAccess {
    /// Active/non-optimized: its node forwards commands to the primary.
    #[default]
    NonOptimized,
    /// Standby: it answers questions and carries no data.
    Standby,
}

/// A data node's home set of portals, as committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeGroup {
    /// The group's identifier; it travels with the portals when a peer takes them over.
    pub id: TpgId,
    /// Its ports.
    pub ports: Vec<RelativePortId>,
    /// Whose home set it is.
    pub node: NodeId,
    /// Which node serves the portals now: the home node, a peer that took them over, or nobody.
    pub served_by: Option<NodeId>,
}

/// All that the port groups of one logical unit depend on. Every field is committed cluster state, none of it what a node believes.
#[derive(Debug, Clone, Copy)]
pub struct LuInputs<'a> {
    /// The extent's primary; `None` while the extent is committed as without one. A suspicion alone leaves it as it was (P4).
    pub primary: Option<NodeId>,
    /// Where the cluster would rather have the primary.
    pub preferred: Option<NodeId>,
    /// What groups beside the primary's are.
    pub secondary: SecondaryAccess,
    /// Every data node's home set. Identifiers are unique in the cluster.
    pub groups: &'a [HomeGroup],
    /// Nodes to which the primary has a committed working peer link.
    pub linked: &'a [NodeId],
}

/// The port groups of a logical unit, in the order of `inputs.groups`.
///
/// - Served by the primary: active/optimized. A primary is alive by commit, so its own home set counts as served by it
///   unless a peer serves it.
/// - Served by another node: what [`SecondaryAccess`] says while the primary has a committed link to that node, else standby (P4).
/// - Served by nobody: unavailable, but never all groups at once.
/// - Without a primary: transitioning, and only then.
/// - PREF: only on the preferred node's home group, and only while that is active/optimized.
pub fn derive(inputs: &LuInputs<'_>) -> Vec<PortGroup> {
    let mut groups: Vec<PortGroup> = inputs
        .groups
        .iter()
        .map(|home| {
            let state = state_of(inputs, home);
            PortGroup {
                id: home.id,
                state,
                preferred: state == AccessState::ActiveOptimized && inputs.preferred == Some(home.node),
                ports: home.ports.clone(),
                node: home.node,
            }
        })
        .collect();
    if groups.iter().all(|group| group.state == AccessState::Unavailable) {
        // All paths unavailable makes initiators give the unit up for good. Without a primary the truth is
        // that it is on its way; with one that has no portals of its own, paths exist but carry nothing now.
        let state = match inputs.primary {
            None => AccessState::Transitioning,
            Some(_) => AccessState::Standby,
        };
        groups.iter_mut().for_each(|group| group.state = state);
    }
    groups
}

fn state_of(inputs: &LuInputs<'_>, home: &HomeGroup) -> AccessState {
    let server = home
        .served_by
        .or_else(|| inputs.primary.filter(|primary| *primary == home.node));
    match (inputs.primary, server) {
        (_, None) => AccessState::Unavailable,
        (None, Some(_)) => AccessState::Transitioning,
        (Some(primary), Some(server)) if primary == server => AccessState::ActiveOptimized,
        (Some(_), Some(server)) => match inputs.secondary {
            SecondaryAccess::NonOptimized if inputs.linked.contains(&server) => {
                AccessState::ActiveNonOptimized
            }
            SecondaryAccess::NonOptimized | SecondaryAccess::Standby => AccessState::Standby,
        },
    }
}

/// The port groups of a logical unit with a count of their changes: part of cluster state. Since every node applies the same entries, every
/// node counts the same; a nexus that was told another number has missed a change and hears 06/2A/06 once (P3).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tracked {
    groups: Vec<PortGroup>,
    changes: u64,
}

impl Tracked {
    /// The groups as first derived; that is no change.
    pub fn new(inputs: &LuInputs<'_>) -> Self {
        Self {
            groups: derive(inputs),
            changes: 0,
        }
    }

    /// Takes in committed state; true if anything that REPORT TARGET PORT GROUPS shows has changed.
    pub fn update(&mut self, inputs: &LuInputs<'_>) -> bool {
        let groups = derive(inputs);
        let changed = groups != self.groups;
        if changed {
            self.groups = groups;
            self.changes += 1;
        }
        changed
    }

    /// The groups.
    pub fn groups(&self) -> &[PortGroup] {
        &self.groups
    }

    /// How often they changed.
    pub const fn changes(&self) -> u64 {
        self.changes
    }
}

#[cfg(test)]
#[path = "derive_test.rs"]
mod tests;
