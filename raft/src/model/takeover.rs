//! Takeover without a quorum (T1 to T4): one data node goes on alone, as a new incarnation of its cluster.
//!
//! No commit makes it, since there is no majority to commit anything: the surviving node's own state is changed once, outside Raft, and
//! becomes the first snapshot of a log of its own (`consensus::takeover`). What tells the incarnations apart is the cluster's id.

use std::collections::BTreeSet;

use holdfast_types::{Epoch, ExtentId, NodeId, Revision};
use serde::{Deserialize, Serialize};

use super::reply::{Refusal, Reply};
use super::state::{ClusterId, ClusterState, Extent, Role, VoterSet};
use crate::fault::{self, Fault};

type Applied = Result<Reply, Refusal>;

/// Epochs of a new incarnation begin at the next multiple of this: beyond all that the one before can have given meanwhile.
const EPOCHS_APART: u64 = 1 << 20;

/// What an operator has asked for; kept in the node's directory until it is done (T3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverOrder {
    /// The cluster that is taken over.
    pub before: ClusterId,
    /// The id of its new incarnation, drawn for this takeover.
    pub cluster: ClusterId,
    /// Who goes on alone.
    pub node: NodeId,
    /// Up to where that node knew its log as committed when it was asked.
    pub committed: Revision,
    /// When it was asked for: seconds since 1970, by that node's clock.
    pub at: u64,
    /// Who asked, by his own word.
    pub by: String,
}

/// A node that was left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// Its id; never given again.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it was for.
    pub role: Role,
}

/// An extent whose whole replicas were left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfReach {
    /// Which.
    pub extent: ExtentId,
    /// Its name at that time.
    pub name: String,
    /// Names of the nodes that were in its in-sync set.
    pub in_sync: Vec<String>,
}

/// A takeover that has happened. Kept for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// What was asked for.
    #[serde(flatten)]
    pub order: TakeoverOrder,
    /// Name of the node that went on.
    pub name: String,
    /// The newest entry of the incarnation before that it had; what came after is not part of the new one.
    pub revision: Revision,
    /// Whom it left behind.
    pub gone: Vec<LeftBehind>,
    /// Extents that nobody serves until an operator accepts what may be lost.
    pub out_of_reach: Vec<OutOfReach>,
}

/// Somebody has accepted what may be lost of an extent (T4). Kept for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedLoss {
    /// Which extent.
    pub extent: ExtentId,
    /// Its name at that time.
    pub name: String,
    /// Whose replica counts as whole since then.
    pub node: NodeId,
    /// The name of that node.
    pub node_name: String,
    /// Which entry it was.
    pub revision: Revision,
    /// When: seconds since 1970, by the clock of the node that was asked.
    pub at: u64,
    /// Who, by his own word.
    pub by: String,
}

/// What a takeover by a node means for an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The node's replica has every acknowledged write: it serves.
    Served,
    /// Its replica is in the in-sync set, and has announced that it cannot serve (J1, J2): it serves only if a new run finds it whole.
    Unfit,
    /// Its replica was not in the in-sync set: acknowledged writes are missing there. Nobody serves until that is accepted.
    Stale,
    /// It has no replica. Nobody serves.
    Absent,
}

/// Makes of what `me` knows as committed the state that a takeover begins from (T2), by way of its log's whole tail, each entry of which
/// may have been committed without this node having heard of it, or may not. `apply` applies one.
///
/// What others may have acted on counts: a reservation that was granted, or that this node's replica was put out of a set and writes went
/// on without it. What nobody committed only does what its proposer wanted, but for one thing: a replica that was put into a set by an
/// entry that came to nothing lacks what was written since. So this node's replica counts as in sync only where every state on the way has
/// it in the set.
pub fn follow_tail<E>(
    state: &mut ClusterState,
    me: NodeId,
    tail: impl IntoIterator<Item = E>,
    mut apply: impl FnMut(&mut ClusterState, &E),
) {
    let mut doubted = state.not_in_sync(me);
    for entry in tail {
        if fault::on(Fault::TailDropped) {
            break;
        }
        apply(state, &entry);
        doubted.extend(state.not_in_sync(me));
    }
    if fault::on(Fault::TailBelieved) {
        return;
    }
    for (_, extent) in state.extents.iter_mut().filter(|(id, _)| doubted.contains(id)) {
        extent.in_sync.remove(&me);
    }
}

impl ClusterState {
    /// Extents whose in-sync set `me` is not in.
    fn not_in_sync(&self, me: NodeId) -> BTreeSet<ExtentId> {
        let extents = self.extents.iter();
        let without = extents.filter(|(_, extent)| !extent.in_sync.contains(&me));
        without.map(|(id, _)| *id).collect()
    }

    /// What a takeover by `node` would mean for `extent`.
    pub fn fate(&self, node: NodeId, id: ExtentId, extent: &Extent) -> Fate {
        if !extent.replicas.contains(&node) {
            Fate::Absent
        } else if !extent.in_sync.contains(&node) {
            Fate::Stale
        } else if self.is_unfit(node, id) {
            Fate::Unfit
        } else {
            Fate::Served
        }
    }

    /// Whether `id` is that of an earlier incarnation of this cluster.
    pub fn was_taken_over(&self, id: ClusterId) -> Option<&Takeover> {
        self.takeovers.iter().find(|takeover| takeover.order.before == id)
    }

    /// Makes the new incarnation's first state of the last one of the incarnation before; its first entry has index `index`.
    ///
    /// Everything that initiators see stays: names, ids, port group of the node that goes on, reservations, the LUN map.
    ///
    /// # Errors
    /// One line, and nothing is changed: the order is not for this state.
    pub fn take_over(&mut self, index: Revision, order: &TakeoverOrder) -> Result<(), String> {
        let me = order.node;
        let ours = self
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.id == order.before);
        let name = match self.node(me) {
            Some(member) if ours && member.role == Role::Data => member.name.clone(),
            _ => return Err(format!("node {me} is no data node of cluster {}", order.before)),
        };
        if index <= self.revision {
            return Err(format!("entry {index} is not behind {}", self.revision));
        }
        let groups = self.all_groups();
        self.takeovers.push(self.takeover_of(order, name));
        if let Some(cluster) = self
            .cluster
            .as_mut()
            .filter(|_| !fault::on(Fault::IncarnationKept))
        {
            cluster.id = order.cluster;
        }
        self.leave_others(index, me);
        for extent in self.extents.values_mut() {
            extent.alone_on(me);
        }
        for (id, before) in groups {
            let moved = self.groups_of(id) != before;
            if let Some(extent) = self.extents.get_mut(&id).filter(|_| moved) {
                extent.alua_changes += 1;
            }
        }
        self.revision = index;
        Ok(())
    }

    fn takeover_of(&self, order: &TakeoverOrder, name: String) -> Takeover {
        let others = self.nodes.iter().filter(|(id, _)| **id != order.node);
        let lost = self
            .extents
            .iter()
            .filter(|(_, extent)| !extent.in_sync.contains(&order.node));
        let named = |node: &NodeId| {
            self.node(*node)
                .map_or_else(|| format!("node {node}"), |m| m.name.clone())
        };
        Takeover {
            order: order.clone(),
            name,
            revision: self.revision,
            gone: others
                .map(|(id, member)| LeftBehind {
                    node: *id,
                    name: member.name.clone(),
                    role: member.role,
                })
                .collect(),
            out_of_reach: lost
                .map(|(id, extent)| OutOfReach {
                    extent: *id,
                    name: extent.name.clone(),
                    in_sync: extent.in_sync.iter().map(named).collect(),
                })
                .collect(),
        }
    }

    /// `me` is the only member and the only voter, in no run that is known yet, under a new lease generation.
    fn leave_others(&mut self, index: Revision, me: NodeId) {
        self.last_node = self.last_node();
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        // Its own nexuses too: the process starts anew.
        all.iter().for_each(|node| self.nexuses_lost(*node));
        self.nodes.retain(|node, _| *node == me);
        if let Some(member) = self.nodes.get_mut(&me) {
            member.suspicion = None;
            member.incarnation = None;
            member.lease_generation = member.lease_generation.next();
            member.draining = false;
            member.leaving = false;
        }
        self.voters = VoterSet {
            id: index.0,
            members: BTreeSet::from([me]),
            outgoing: BTreeSet::new(),
        };
        self.advance_rotation();
        // A token that was given out could let a node into both incarnations.
        self.tokens.clear();
    }

    /// T4: the replica on `node` counts as whole from now on, although acknowledged writes may be missing there. Only where no replica
    /// that is whole is left, which only a takeover can bring about.
    pub(super) fn accept_data_loss(&mut self, index: Revision, loss: &LossAccepted) -> Applied {
        let (id, node) = (loss.extent, loss.node);
        let node_name = self.member_mut(node)?.name.clone();
        if self.is_suspect(node) {
            return Err(Refusal::Suspect { node });
        }
        if self.is_unfit(node, id) {
            return Err(Refusal::Unfit { node });
        }
        let before = self.losses.iter().any(|known| known.extent == id);
        let extent = self
            .extents
            .get_mut(&id)
            .ok_or(Refusal::NoSuchExtent { extent: id })?;
        if !extent.replicas.contains(&node) {
            return Err(Refusal::NotReplica { node });
        }
        if !extent.in_sync.is_empty() {
            // The same again is no error.
            return if before && extent.in_sync.contains(&node) {
                Ok(Reply::DONE)
            } else {
                Err(Refusal::Invalid(format!(
                    "extent {} has a replica that holds every acknowledged write: there is nothing to accept",
                    extent.name
                )))
            };
        }
        extent.only_whole_on(node);
        self.losses.push(AcceptedLoss {
            extent: id,
            name: extent.name.clone(),
            node,
            node_name,
            revision: index,
            at: loss.at,
            by: loss.by.clone(),
        });
        Ok(Reply::DONE)
    }
}

/// An operator accepts what may be lost of an extent (T4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossAccepted {
    /// Which extent.
    pub extent: ExtentId,
    /// Whose replica is to count as whole.
    pub node: NodeId,
    /// When: seconds since 1970.
    pub at: u64,
    /// Who, by his own word.
    pub by: String,
}

impl Extent {
    /// Only the replica on `me` is left of it, in sync or not. Nobody is primary until it is opened, in an epoch beyond all that the
    /// incarnation before can have given.
    fn alone_on(&mut self, me: NodeId) {
        self.replicas_wanted = self.replicas_wanted.max(self.replicas.len());
        self.replicas.retain(|node| *node == me);
        self.in_sync.retain(|node| *node == me);
        self.forget_left();
        if fault::on(Fault::StaleCounted) {
            self.in_sync.clone_from(&self.replicas);
        }
        self.retiring.clear();
        self.preferred = self.preferred.filter(|node| *node == me);
        self.handover = None;
        self.answered.clear();
        if !fault::on(Fault::EpochsKept) {
            self.epoch = Epoch((self.epoch.0 / EPOCHS_APART + 1) * EPOCHS_APART);
        }
        self.primary = None;
        self.primary_incarnation = None;
        self.version = self.version.next();
    }
}

#[cfg(test)]
#[path = "takeover_test.rs"]
mod tests;
