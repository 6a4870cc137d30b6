//! Nodes that come and go (L8): one-time tokens, new nodes, draining, leaving; and who votes, as Raft's membership says.
//!
//! Every node votes. Raft's membership follows the nodes of this state step by step (`governor::members`), so a command broken off by a
//! crash is finished by whoever leads next.

use std::collections::BTreeSet;

use holdfast_types::{ExtentId, LeaseGeneration, NODES_MAX, NodeId, Revision, TpgId};
use serde::{Deserialize, Serialize};

use super::command::{Move, NewNode};
use super::name::check_name;
use super::reply::{Refusal, Reply};
use super::state::{ClusterState, Node, NodeAddresses, Role, VoterSet};

type Applied = Result<Reply, Refusal>;

/// Tokens that may wait to be used.
const TOKENS_MAX: usize = 64;

/// What lets one new node in, once. The secret itself is never stored, nor sent: only the key that is derived from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Names it; not secret.
    pub id: String,
    /// Derived from the secret; both sides prove that they have it. 64 hexadecimal digits.
    pub key: String,
    /// Seconds since 1970 after which it lets nobody in, by the clock of the node that judges it.
    pub expires: u64,
    /// Whom it let in, and the random number that the node had drawn: the same node gets the same answer again.
    #[serde(default)]
    pub used: Option<Used>,
}

/// See [`Token::used`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Drawn by the node and kept in its directory.
    pub nonce: String,
    /// The id that it got.
    pub node: NodeId,
}

/// A node that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Which token.
    pub token: String,
    /// Drawn by the node.
    pub nonce: String,
    /// The node; its id is given when this is applied.
    pub node: NewNode,
    /// The node whose place it takes: that one leaves once this one votes and its replicas are in sync.
    #[serde(default)]
    pub replaces: Option<NodeId>,
}

impl VoterSet {
    /// Whether the set is being changed: majorities are needed of the old and of the new members (L8).
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Everybody whose word counts.
    pub fn all(&self) -> BTreeSet<NodeId> {
        self.members.union(&self.outgoing).copied().collect()
    }

    /// Whether `node` votes.
    pub fn contains(&self, node: NodeId) -> bool {
        self.members.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether those of whom `counts` is true are a majority; of both sets while joint. Nobody is never a majority.
    pub fn is_majority(&self, counts: impl Fn(NodeId) -> bool) -> bool {
        let of = |set: &BTreeSet<NodeId>| set.iter().filter(|node| counts(**node)).count() > set.len() / 2;
        of(&self.members) && (self.outgoing.is_empty() || of(&self.outgoing))
    }
}

impl ClusterState {
    /// Raft's membership was applied at `index`: `members` vote from here on, and `outgoing` too while it is joint. Before `cluster init`
    /// there is nothing to keep.
    pub fn set_voters(&mut self, index: Revision, members: BTreeSet<NodeId>, outgoing: BTreeSet<NodeId>) {
        if self.is_initialized() && !members.is_empty() {
            self.voters = VoterSet {
                id: index.0,
                members,
                outgoing,
            };
        }
    }

    pub(super) fn add_token(&mut self, token: &Token) -> Applied {
        if let Some(old) = self.tokens.iter().find(|old| old.id == token.id) {
            return if old.key == token.key {
                Ok(Reply::DONE)
            } else {
                Err(exists("the token"))
            };
        }
        if token.id.is_empty() || token.key.len() != 64 {
            return Err(Refusal::Invalid("that is no token".into()));
        }
        if self.tokens.len() >= TOKENS_MAX {
            // The oldest used one first: nobody waits for it.
            let oldest = self.tokens.iter().position(|old| old.used.is_some()).unwrap_or(0);
            self.tokens.remove(oldest);
        }
        self.tokens.push(token.clone());
        Ok(Reply::DONE)
    }

    /// A new node, under an id that nobody had before (L8), with every check of `cluster init`.
    pub(super) fn join(&mut self, join: &Join) -> Applied {
        let place = self.tokens.iter().position(|token| token.id == join.token);
        let place = place
            .ok_or_else(|| Refusal::Invalid("that token is not known (any more); make a new one".into()))?;
        if let Some(used) = &self.tokens[place].used {
            return if used.nonce == join.nonce {
                Ok(Reply::Joined { node: used.node })
            } else {
                Err(Refusal::Invalid(
                    "that token was used before; each one lets one node in, so make a new one".into(),
                ))
            };
        }
        check_name(&join.node.name)?;
        // A machine that was installed anew comes back with its old name and addresses, in the place of the member that is dead.
        let dead = join.replaces.filter(|old| self.is_suspect(*old));
        let others = || self.nodes.iter().filter(|(id, _)| Some(**id) != dead);
        if others().any(|(_, node)| node.name == join.node.name) {
            return Err(exists(&format!("node '{}'", join.node.name)));
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(Refusal::Invalid(format!(
                "a cluster has at most {NODES_MAX} nodes"
            )));
        }
        if let Some((_, other)) = others().find(|(_, node)| node.shares_address(&join.node.addresses)) {
            return Err(shared_with(other));
        }
        let node = NodeId(self.last_node().0 + 1);
        if let Some(old) = join.replaces {
            self.replace(old, node, join.node.role)?;
            if let Some(old) = self.nodes.get_mut(&old).filter(|old| old.name == join.node.name) {
                old.name = format!("{}.{node}-before", old.name.chars().take(40).collect::<String>());
            }
        }
        self.last_tpg = TpgId(self.last_tpg.value() + 1);
        self.nodes.insert(node, Node::new(&join.node, self.last_tpg));
        self.last_node = node;
        self.tokens[place].used = Some(Used {
            nonce: join.nonce.clone(),
            node,
        });
        Ok(Reply::Joined { node })
    }

    /// A member listens elsewhere from now on; who it is stays as it was. A late proposal, which starts from what is no longer so, is
    /// refused.
    pub(super) fn set_addresses(&mut self, moves: &Move) -> Applied {
        let Move {
            node,
            before,
            addresses,
        } = moves;
        let node = *node;
        let member = self.member_mut(node)?;
        if member.addresses == *addresses {
            return Ok(Reply::DONE);
        }
        if member.addresses != *before {
            return Err(Refusal::Invalid("its addresses have changed meanwhile".into()));
        }
        if member.role == Role::Data && addresses.replication.is_none() {
            return Err(Refusal::Invalid(
                "a data node needs an address for replication".into(),
            ));
        }
        let mut others = self.nodes.iter().filter(|(id, _)| **id != node);
        if let Some((_, other)) = others.find(|(_, other)| other.shares_address(addresses)) {
            return Err(shared_with(other));
        }
        self.member_mut(node)?.addresses = addresses.clone();
        Ok(Reply::DONE)
    }

    /// The id given last. Ids are never given twice, so that a lost member never comes back as itself (L8).
    pub(super) fn last_node(&self) -> NodeId {
        let newest = self.nodes.keys().next_back().copied().unwrap_or_default();
        self.last_node.max(newest)
    }

    /// `old` leaves, and `new` gets its replicas: they are resynchronized before the old ones go.
    fn replace(&mut self, old: NodeId, new: NodeId, role: Role) -> Result<(), Refusal> {
        let member = self.member_mut(old)?;
        if member.role != role {
            let name = member.name.clone();
            return Err(Refusal::Invalid(format!(
                "node '{name}' has another role than the one that is to replace it"
            )));
        }
        if member.leaving {
            let name = member.name.clone();
            return Err(Refusal::Invalid(format!("node '{name}' is leaving already")));
        }
        member.leaving = true;
        for extent in self.extents.values_mut().filter(|extent| extent.stays_on(old)) {
            extent.replicas.insert(new);
            extent.retiring.insert(old);
            if extent.preferred == Some(old) {
                extent.preferred = Some(new);
            }
        }
        Ok(())
    }

    pub(super) fn set_draining(&mut self, node: NodeId, draining: bool) -> Applied {
        self.member_mut(node)?.draining = draining;
        let mut warnings = Vec::new();
        let stuck = |extent: &&super::Extent| {
            let other = |other: &NodeId| *other != node && self.may_take(*other);
            extent.primary == Some(node) && !extent.in_sync.iter().any(other)
        };
        if draining {
            let stuck: Vec<&str> = self
                .extents
                .values()
                .filter(stuck)
                .map(|e| e.name.as_str())
                .collect();
            if !stuck.is_empty() {
                warnings.push(format!(
                    "no other node is in sync for {}: it stays until one is",
                    stuck.join(", ")
                ));
            }
        }
        Ok(Reply::Done { warnings })
    }

    /// Whether `node` may be given extents by plan.
    pub fn may_take(&self, node: NodeId) -> bool {
        self.node(node)
            .is_some_and(|member| !member.is_suspect() && !member.draining && !member.leaving)
    }

    /// Begins a node's leave. Its replicas must be gone from it, or, with `drop_replicas`, are given up wherever another copy is in sync.
    pub(super) fn leave(&mut self, node: NodeId, drop_replicas: bool) -> Applied {
        let name = self.member_mut(node)?.name.clone();
        if self.nodes.values().filter(|member| !member.leaving).count() < 2 {
            return Err(Refusal::Invalid(format!(
                "node '{name}' is the last one: nobody would be left"
            )));
        }
        let holds: Vec<_> = self.extents.iter().filter(|(_, e)| e.stays_on(node)).collect();
        if let Some((_, extent)) = holds.first()
            && !drop_replicas
        {
            return Err(Refusal::InUse {
                what: format!("node '{name}'"),
                by: format!(
                    "a replica of extent '{}'; move it with 'holdfast extent replicas', or give up its replicas with --drop-replicas",
                    extent.name
                ),
            });
        }
        let only = |id: ExtentId, extent: &super::Extent| {
            let other = |other: &NodeId| {
                let up = !self.is_suspect(*other) && !self.is_unfit(*other, id);
                *other != node && !extent.retiring.contains(other) && up
            };
            !extent.in_sync.iter().any(other)
        };
        if let Some((_, extent)) = holds.iter().find(|(id, extent)| only(**id, extent)) {
            return Err(Refusal::InUse {
                what: format!("node '{name}'"),
                by: format!(
                    "the only replica of extent '{}' that is in sync and up",
                    extent.name
                ),
            });
        }
        for extent in self.extents.values_mut().filter(|extent| extent.stays_on(node)) {
            extent.retiring.insert(node);
            extent.preferred = extent.preferred.filter(|preferred| *preferred != node);
        }
        self.member_mut(node)?.leaving = true;
        let left: Vec<&Node> = self.nodes.values().filter(|member| !member.leaving).collect();
        Ok(Reply::Done {
            warnings: super::apply::voter_warnings(
                left.len(),
                left.iter().filter(|n| n.role == Role::Data).count(),
            ),
        })
    }

    /// The last step of a leave: nothing refers to the node any more.
    pub(super) fn forget_node(&mut self, node: NodeId) -> Applied {
        let Some(member) = self.node(node) else {
            return Ok(Reply::DONE);
        };
        let used = self.voters.contains(node)
            || self
                .extents
                .values()
                .any(|extent| extent.replicas.contains(&node));
        if !member.leaving || used {
            return Err(Refusal::InUse {
                what: format!("node '{}'", member.name),
                by: "the cluster, still".into(),
            });
        }
        self.last_node = self.last_node();
        self.nexuses_lost(node);
        self.nodes.remove(&node);
        self.advance_rotation();
        Ok(Reply::DONE)
    }
}

impl Node {
    /// As it joins.
    pub(super) fn new(new: &NewNode, tpg: TpgId) -> Self {
        Self {
            name: new.name.clone(),
            role: new.role,
            addresses: new.addresses.clone(),
            tpg,
            lease_generation: LeaseGeneration(0),
            suspicion: None,
            incarnation: None,
            announced: 0,
            unfit: BTreeSet::new(),
            draining: false,
            leaving: false,
        }
    }

    /// Two nodes on one address would each get what is meant for the other.
    fn shares_address(&self, b: &NodeAddresses) -> bool {
        let a = &self.addresses;
        a.raft == b.raft
            || a.heartbeat == b.heartbeat
            || a.replication_links()
                .iter()
                .any(|address| b.replication_links().contains(address))
            || a.portals.iter().any(|portal| b.portals.contains(portal))
    }
}

fn shared_with(other: &Node) -> Refusal {
    Refusal::Invalid(format!("node '{}' has one of its addresses already", other.name))
}

fn exists(what: &str) -> Refusal {
    Refusal::Exists {
        what: what.to_owned(),
    }
}

#[cfg(test)]
#[path = "members_test.rs"]
mod tests;
