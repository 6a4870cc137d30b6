//! Who votes in the simulated Raft, and what the operator of a simulated cluster changes while it runs: its voters (L8) and its lease
//! time (L2).

use std::collections::{BTreeSet, VecDeque};

use holdfast_raft::governor::MemberStep;
use holdfast_raft::model::{AdminCommand, ClusterState, Command, Join, SettingKey, Token};
use holdfast_types::{NodeId, Revision};

use super::rng::Rng;
use super::{Ev, MS, Node, Res, Scenario, World, node_id, place, plan};

/// Something that the operator changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A spare witness joins.
    Witness,
    /// A spare joins in the place of that node.
    Replace { old: Node, data: bool },
    /// That node leaves, and gives up its replicas.
    Leave(Node),
    /// The lease time, in milliseconds.
    Lease(u64),
    /// A spare with data joins, with a new token.
    Data,
    /// Every extent that has a whole replica gets one on every node with data.
    Replicas,
}

impl Change {
    /// Whether it brings a node, and whether that one has data.
    pub(super) fn brings(self) -> Option<bool> {
        match self {
            Self::Witness => Some(false),
            Self::Data => Some(true),
            Self::Replace { data, .. } => Some(data),
            Self::Leave(_) | Self::Lease(_) | Self::Replicas => None,
        }
    }
}

/// What a seed has the operator do. The first `data` of `count` nodes have data.
pub(super) fn draw(scenario: Scenario, data: usize, count: usize, rng: &mut Rng) -> Vec<Change> {
    if scenario == Scenario::VoterReplaced {
        let old = count - 1;
        return vec![Change::Replace { old, data: false }];
    }
    if scenario.takes_over() {
        // The play says when.
        return vec![Change::Data];
    }
    if !scenario.takes_changes() || !rng.chance(30) {
        return Vec::new();
    }
    let mut changes: Vec<Change> = match rng.below(5) {
        0 => vec![Change::Witness],
        1 => vec![Change::Witness, Change::Leave(rng.index(count))],
        2 | 3 => {
            let old = rng.index(count);
            let data = old < data;
            vec![Change::Replace { old, data }]
        }
        _ => Vec::new(),
    };
    for _ in 0..rng.below(3) {
        let lease = rng.pick(&[300, 400, 600, 1000, 2000]);
        let at = rng.index(changes.len() + 1);
        changes.insert(at, Change::Lease(lease));
    }
    changes
}

/// Lets the spare at that place in.
pub(super) fn token(node: Node) -> Token {
    Token {
        id: format!("t{node}"),
        key: "0".repeat(64),
        expires: 0,
        used: None,
    }
}

/// What is still to be changed.
#[derive(Debug)]
pub(super) struct Operator {
    wanted: VecDeque<Change>,
    /// Asked for so often.
    tries: u32,
}

impl Operator {
    pub(super) fn new(changes: &[Change]) -> Self {
        Self {
            wanted: changes.iter().copied().collect(),
            tries: 0,
        }
    }

    /// These are wanted too.
    pub(super) fn want(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.wanted.extend(changes);
    }
}

/// A membership: as an entry of the log it counts from when it is written there, committed or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Membership {
    /// One set, or two while it is joint, the newer one last.
    pub(super) voters: Vec<BTreeSet<Node>>,
    /// Get the log, have no vote.
    pub(super) learners: BTreeSet<Node>,
}

impl Membership {
    pub(super) fn of(voters: impl IntoIterator<Item = Node>) -> Self {
        Self {
            voters: vec![voters.into_iter().collect()],
            learners: BTreeSet::new(),
        }
    }

    pub(super) fn is_joint(&self) -> bool {
        self.voters.len() > 1
    }

    pub(super) fn votes(&self, node: Node) -> bool {
        self.voters.iter().any(|set| set.contains(&node))
    }

    /// Whether it gets the log.
    pub(super) fn contains(&self, node: Node) -> bool {
        self.votes(node) || self.learners.contains(&node)
    }

    /// A majority of each set. Of nobody there is none.
    pub(super) fn is_majority(&self, counts: impl Fn(Node) -> bool) -> bool {
        let of = |set: &BTreeSet<Node>| set.iter().filter(|node| counts(**node)).count() > set.len() / 2;
        !self.voters.is_empty() && self.voters.iter().all(of)
    }

    /// The largest number that a majority has reached.
    pub(super) fn reached_by_majority(&self, reached: impl Fn(Node) -> u64) -> u64 {
        let of = |set: &BTreeSet<Node>| {
            let mut all: Vec<u64> = set.iter().map(|node| reached(*node)).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.get(set.len() / 2).copied().unwrap_or(0)
        };
        self.voters.iter().map(of).min().unwrap_or(0)
    }

    /// Joint no more: whom only the older set has gets nothing any longer.
    pub(super) fn ended(&self) -> Self {
        Self {
            voters: self.voters.last().cloned().into_iter().collect(),
            learners: self.learners.clone(),
        }
    }

    /// After a step that a governor wants, as openraft takes it. `None`: there is nothing to do.
    pub(super) fn after(&self, step: &MemberStep) -> Option<Self> {
        let mut next = self.clone();
        match step {
            MemberStep::AddLearner(node) if !self.contains(place(*node)) => {
                next.learners.insert(place(*node));
            }
            MemberStep::RemoveLearner(node) => {
                next.learners.remove(&place(*node));
            }
            MemberStep::SetVoters(_) if self.is_joint() => return Some(self.ended()),
            MemberStep::SetVoters(voters) => {
                let voters: BTreeSet<Node> = voters.iter().map(|node| place(*node)).collect();
                next.learners.retain(|node| !voters.contains(node));
                next.voters.push(voters);
            }
            MemberStep::AddLearner(_) | MemberStep::HandOver(_) => return None,
        }
        Some(next)
    }

    /// As a state machine applies it.
    pub(super) fn enter(&self, index: Revision, state: &mut ClusterState) {
        let mut sets = self.voters.iter().rev().map(ids);
        let members = sets.next().unwrap_or_default();
        state.set_voters(index, members, sets.next().unwrap_or_default());
    }
}

/// As the cluster state names them.
pub(super) fn ids(nodes: &BTreeSet<Node>) -> BTreeSet<NodeId> {
    nodes.iter().map(|node| node_id(*node)).collect()
}

impl World {
    /// The first spare that has not come yet.
    fn spare(&self) -> Option<Node> {
        (0..self.plan.nodes.len()).find(|node| {
            let came = self.agreed.head.nodes.keys().next_back() >= Some(&node_id(*node));
            self.plan.nodes[*node].spare && !came
        })
    }

    /// The operator asks for the next change until it can be seen, and gives up one that is refused.
    pub(super) fn change(&mut self) -> Res {
        if self.calm {
            return Ok(());
        }
        let Some(change) = self.operator.wanted.front().copied() else {
            return Ok(());
        };
        let wait = self.rng.between(100, 400) * MS;
        if self.operator.tries > 15 || (self.operator.tries > 0 && self.is_made(change)) {
            self.operator.tries = 0;
            self.operator.wanted.pop_front();
            let wait = wait + self.rng.below(2000 * MS);
            self.after(wait, Ev::Change);
            return Ok(());
        }
        self.operator.tries += 1;
        self.after(wait, Ev::Change);
        self.ask_for(change)
    }

    /// The operator asks for it.
    pub(super) fn ask_for(&mut self, change: Change) -> Res {
        let leave = |node: Node| AdminCommand::Leave {
            node: node_id(node),
            drop_replicas: true,
        };
        let command = match change {
            Change::Replicas => return self.ask_for_replicas(),
            Change::Witness | Change::Replace { .. } | Change::Data => {
                let Some(spare) = self.spare() else { return Ok(()) };
                if change == Change::Data {
                    self.ask_any(AdminCommand::AddToken(token(spare)))?;
                }
                let mut node = plan::new_node(spare, self.plan.nodes[spare].data);
                node.id = NodeId(0);
                AdminCommand::Join(Box::new(Join {
                    token: token(spare).id,
                    nonce: format!("n{spare}"),
                    node,
                    replaces: match change {
                        Change::Replace { old, .. } => Some(node_id(old)),
                        _ => None,
                    },
                }))
            }
            Change::Leave(node) => leave(node),
            Change::Lease(value) => AdminCommand::SetSetting {
                key: SettingKey::LeaseTime,
                value,
            },
        };
        self.ask_any(command)
    }

    /// By way of any member.
    pub(super) fn ask_any(&mut self, command: AdminCommand) -> Res {
        self.ask(command.into())
    }

    /// Has some member propose it.
    pub(super) fn ask(&mut self, command: Command) -> Res {
        let leader = |host: &super::host::Host| {
            let process = host.process.as_ref();
            process.is_some_and(|process| process.raft.leader.is_some())
        };
        let ways: Vec<Node> = (0..self.hosts.len())
            .filter(|node| self.is_member(*node) && leader(&self.hosts[*node]))
            .collect();
        if ways.is_empty() {
            return Ok(());
        }
        let way = self.rng.pick(&ways);
        self.propose(way, command)
    }

    fn is_made(&self, change: Change) -> bool {
        let head = &self.agreed.head;
        match change {
            Change::Witness | Change::Replace { .. } | Change::Data => self.spare().is_none(),
            Change::Replicas => self.replicas_to_ask_for().is_empty(),
            Change::Leave(node) => head.nodes.get(&node_id(node)).is_none_or(|node| node.leaving),
            Change::Lease(value) => head.settings.get(SettingKey::LeaseTime) == value,
        }
    }

    /// Who has become a member starts.
    pub(super) fn members_changed(&mut self) {
        for node in 0..self.hosts.len() {
            let fresh = self.plan.nodes[node].spare && self.hosts[node].run == 0;
            if fresh && self.is_member(node) {
                self.hosts[node].run = 1;
                self.hosts[node].cluster = self.cluster_now();
                self.count("joined");
                let wait = self.rng.between(1, 100) * MS;
                self.after(wait, Ev::Start(node));
            }
        }
    }

    /// A step that the governor of `node`, which leads, wants.
    pub(super) fn change_members(&mut self, node: Node, step: &MemberStep) -> Res {
        self.say(|| format!("n{node} changes the membership: {step:?}"));
        // A change of voters is two entries; a leader that is broken off in between leaves the second one to the next look.
        let finish = !self.rng.chance(20);
        self.raft(node, |raft, _, _, out| {
            if let Some(next) = raft.membership().1.after(step) {
                raft.change(next, finish, out);
            }
        })
    }
}
