//! Changes of a logical unit's state: reservations, mode parameters, resets (I9, I13). What they do is decided by `scsi`'s pure tables.

use std::collections::BTreeMap;

use holdfast_scsi::reservation::{UnitChange, UnitOutcome};
use holdfast_types::{ExtentId, Incarnation, Nexus, NodeId, TpgId, UnitVersion};
use serde::{Deserialize, Serialize};

use super::reply::{Refusal, Reply};
use super::state::{ClusterState, Role};

/// Names a change of a unit's state, so that a proposal that is made again is answered, not carried out again. Each run of a node counts
/// its own from 1 and has one under way for each unit at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitCall {
    /// Who proposes.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// Which of its calls.
    pub serial: u64,
}

/// What became of a node's newest call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweredCall {
    /// Of which run.
    pub incarnation: Incarnation,
    /// Which.
    pub serial: u64,
    /// What became of it.
    pub outcome: UnitOutcome,
    /// The unit's version behind it.
    pub version: UnitVersion,
}

/// The newest call of each node.
pub type AnsweredCalls = BTreeMap<NodeId, AnsweredCall>;

impl ClusterState {
    /// A call that is older than the newest one of its node, or of an earlier run, is refused: whoever made it has gone on.
    pub(super) fn change_unit(
        &mut self,
        call: UnitCall,
        id: ExtentId,
        by: &Nexus,
        change: &UnitChange,
    ) -> Result<Reply, Refusal> {
        let member = self
            .node(call.node)
            .ok_or(Refusal::NoSuchNode { node: call.node })?;
        if member.incarnation != Some(call.incarnation) {
            return Err(Refusal::OtherIncarnation);
        }
        let ports = self.unit_ports();
        let extent = self
            .extents
            .get_mut(&id)
            .ok_or(Refusal::NoSuchExtent { extent: id })?;
        if let Some(last) = extent.answered.get(&call.node)
            && last.incarnation == call.incarnation
        {
            if last.serial == call.serial {
                let (outcome, version) = (last.outcome, last.version);
                return Ok(Reply::Unit { outcome, version });
            }
            if last.serial > call.serial {
                return Err(Refusal::Superseded);
            }
        }
        let outcome = extent.unit.apply(by, change, &ports);
        let version = extent.unit.version;
        let answered = AnsweredCall {
            incarnation: call.incarnation,
            serial: call.serial,
            outcome,
            version,
        };
        extent.answered.insert(call.node, answered);
        Ok(Reply::Unit { outcome, version })
    }

    /// Target ports of every unit: each data node's home set.
    fn unit_ports(&self) -> Vec<TpgId> {
        self.nodes
            .values()
            .filter(|node| node.role == Role::Data)
            .map(|node| node.tpg)
            .collect()
    }

    /// A node is given up, or has started anew: its nexuses are lost, and with them what SPC-2 lets them hold.
    pub(super) fn nexuses_lost(&mut self, node: NodeId) {
        for extent in self.extents.values_mut() {
            extent.unit.node_lost(node);
        }
    }
}

#[cfg(test)]
#[path = "unit_test.rs"]
mod tests;
