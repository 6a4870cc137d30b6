//! A small cluster under a seed: keepers and governors on a bench, a Raft that is only a log and a leader, and trouble.

use std::collections::BTreeMap;

use holdfast_types::NodeId;

use super::Proposal;
use crate::lease::rig::{Dice, Rig};
use crate::model::fixture::{self, A, B, W};
use crate::model::{Command, ExtentStamp, Share};

const NODES: [NodeId; 3] = [A, B, W];

/// A proposal under way, through that leader.
struct Pending {
    at: u64,
    leader: NodeId,
    command: Command,
}

pub(crate) struct Sim {
    pub(crate) rig: Rig,
    dice: Dice,
    leader: Option<NodeId>,
    elect_at: u64,
    pending: Vec<Pending>,
    /// Who applies one entry in how many steps.
    slow: BTreeMap<NodeId, u64>,
    /// Who still has to apply how much before it has caught up (L5); 0 until a leader told it.
    behind: BTreeMap<NodeId, u64>,
    wake_at: BTreeMap<NodeId, u64>,
    lost: u64,
    pub(crate) trace: Vec<String>,
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let rates = [(); 3].map(|()| 999_501 + dice.below(999));
        let mut rig = Rig::fresh(&fixture::trio(1), rates);
        rig.step = 2000;
        Self {
            rig,
            dice,
            leader: None,
            elect_at: 0,
            pending: Vec::new(),
            slow: BTreeMap::new(),
            behind: NODES.iter().map(|node| (*node, 0)).collect(),
            wake_at: BTreeMap::new(),
            lost: 0,
            trace: Vec::new(),
        }
    }

    fn any_node(&mut self) -> NodeId {
        NODES[usize::try_from(self.dice.below(3)).unwrap()]
    }

    fn say(&mut self, what: String) {
        self.trace.push(format!("{:>7} ms {what}", self.rig.now / 1000));
    }

    fn runs(&self, node: NodeId) -> bool {
        let bench = &self.rig.nodes[&node];
        !bench.down && !bench.paused
    }

    fn linked(&self, x: NodeId, y: NodeId) -> bool {
        let cut = |x, y| self.rig.cut.contains(&(x, y));
        x == y || (self.runs(x) && self.runs(y) && !cut(x, y) && !cut(y, x))
    }

    fn has_quorum(&self, node: NodeId) -> bool {
        self.runs(node) && NODES.iter().filter(|other| self.linked(node, **other)).count() >= 2
    }

    fn active_leader(&self) -> Option<NodeId> {
        self.leader.filter(|leader| self.has_quorum(*leader))
    }

    /// Runs for `ms` with trouble of `kinds` kinds now and then. The first stale reader ends it.
    pub(crate) fn run(&mut self, ms: u64, trouble: bool) -> Result<(), NodeId> {
        let end = self.rig.now + ms * 1000;
        while self.rig.now < end {
            if trouble && self.dice.one_in(150) {
                self.trouble();
            }
            self.step();
            if let Some(node) = self.rig.stale() {
                self.say(format!("{node} would answer stale reads"));
                return Err(node);
            }
        }
        Ok(())
    }

    pub(crate) fn heal(&mut self) {
        self.rig.heal();
        self.lost = 0;
        self.slow.clear();
        for node in NODES {
            self.rig.nodes.get_mut(&node).unwrap().paused = false;
            if self.rig.nodes[&node].down {
                self.restart(node);
            }
        }
        self.say("healed".into());
    }

    fn step(&mut self) {
        self.rig.now += self.rig.step;
        let (lost, now) = (self.lost, self.rig.now);
        let dice = &mut self.dice;
        self.rig.flying.retain(|_| lost == 0 || dice.below(100) >= lost);
        self.rig.once();
        for node in NODES {
            if self.wake_at.get(&node).is_some_and(|at| *at <= now) {
                self.wake_at.remove(&node);
                self.wake(node);
            }
        }
        self.elect();
        self.commit();
        NODES.map(|node| self.follow(node)).into_iter().for_each(drop);
        if now % 20_000 == 0 {
            self.govern();
            NODES.map(|node| self.want(node)).into_iter().for_each(drop);
        }
    }

    fn elect(&mut self) {
        if self.active_leader().is_some() {
            self.elect_at = 0;
        } else if self.elect_at == 0 {
            self.elect_at = self.rig.now + 300_000 + self.dice.below(400_000);
        } else if self.rig.now >= self.elect_at {
            let node = self.any_node();
            if self.has_quorum(node) {
                self.leader = Some(node);
                self.say(format!("{node} leads"));
                // What the last leader had under way is in the new one's log, or is lost.
                let dice = &mut self.dice;
                self.pending.retain(|_| dice.one_in(2));
                self.pending.iter_mut().for_each(|p| p.leader = node);
            }
        }
    }

    fn commit(&mut self) {
        let Some(leader) = self.active_leader() else {
            return;
        };
        let now = self.rig.now;
        let due: Vec<Pending> = self
            .pending
            .extract_if(.., |p| p.leader == leader && p.at <= now)
            .collect();
        for pending in due {
            let reply = self.rig.commit(&pending.command);
            self.say(format!("{:?} -> {reply:?}", pending.command));
        }
    }

    fn propose(&mut self, by: NodeId, command: Command) {
        if let Some(leader) = self.leader
            && self.linked(by, leader)
        {
            // Most take a flush and a round trip; some come very late.
            let delay = if self.dice.one_in(8) {
                self.dice.below(900_000)
            } else {
                self.dice.below(20_000)
            };
            let at = self.rig.now + delay;
            self.pending.push(Pending { at, leader, command });
        }
    }

    /// Applies what is committed, sooner or later.
    fn follow(&mut self, node: NodeId) {
        let Some(leader) = self.active_leader() else {
            return;
        };
        if !self.runs(node) || !self.linked(node, leader) {
            return;
        }
        let one_in = self.slow.get(&node).copied().unwrap_or(2);
        if self.dice.one_in(one_in) {
            self.rig.apply(node, 1);
        }
        if let Some(target) = self.behind.get_mut(&node) {
            if *target == 0 {
                *target = self.rig.head.revision.0;
            }
            if self.rig.nodes[&node].state.revision.0 >= *target {
                self.behind.remove(&node);
                self.rig.caught_up(node);
            }
        }
    }

    fn govern(&mut self) {
        let Some(leader) = self.leader.filter(|leader| self.runs(*leader)) else {
            return;
        };
        for proposal in self.rig.governs(leader) {
            match proposal {
                Proposal::Command(command) => self.propose(leader, command),
                Proposal::TransferLeader(to) if self.has_quorum(to) && self.linked(leader, to) => {
                    self.say(format!("{leader} hands leadership to {to}"));
                    self.leader = Some(to);
                }
                Proposal::TransferLeader(_) | Proposal::Members(_) => {}
            }
        }
    }

    /// What a data node proposes for itself: opening, shrinking, growing.
    fn want(&mut self, node: NodeId) {
        if !self.runs(node) || !self.dice.one_in(5) {
            return;
        }
        let bench = &self.rig.nodes[&node];
        if bench.state.node(node).and_then(|member| member.incarnation) != Some(bench.run) {
            if !self.behind.contains_key(&node) {
                self.propose(node, fixture::announce(node, bench.run.0, 0, &[]));
            }
            return;
        }
        if let Some(command) = bench.state.reopening(node, bench.run) {
            if !self.behind.contains_key(&node) {
                self.propose(node, command);
            }
            return;
        }
        let mine = |(id, e): (&_, &crate::model::Extent)| {
            (e.share(node, bench.run) == Share::Primary).then(|| (e.stamp(*id), e.in_sync.clone()))
        };
        let Some((stamp, in_sync)) = bench.state.extents.iter().find_map(mine) else {
            return;
        };
        let other = if node == A { B } else { A };
        let items: Vec<ExtentStamp> = vec![stamp];
        match (in_sync.contains(&other), self.linked(node, other)) {
            (true, false) => self.propose(
                node,
                Command::Shrink {
                    items,
                    proposer: node,
                    remove: other,
                },
            ),
            (false, true) => self.propose(
                node,
                Command::Grow {
                    items,
                    proposer: node,
                    add: other,
                    run: None,
                },
            ),
            _ => {}
        }
    }

    fn trouble(&mut self) {
        let (x, y) = (self.any_node(), self.any_node());
        match self.dice.below(11) {
            0 if x != y => self.rig.cut_both(x, y),
            1 if x != y => drop(self.rig.cut.insert((x, y))),
            2 if x != y => drop(self.rig.delay.insert((x, y), self.dice.below(700_000))),
            3 => self.lost = self.dice.below(60),
            4 => drop(self.slow.insert(x, 1 + self.dice.below(400))),
            5 | 6 if self.runs(x) => {
                self.rig.nodes.get_mut(&x).unwrap().paused = true;
                self.sleep(x, 3_000_000);
            }
            7 if self.runs(x) => {
                self.rig.nodes.get_mut(&x).unwrap().down = true;
                self.sleep(x, 2_000_000);
            }
            8 if self.runs(x) => self.restart(x),
            _ => {
                self.rig.heal();
                self.slow.clear();
                self.lost = 0;
            }
        }
        self.say(format!(
            "trouble: cut {:?}, delay {:?}",
            self.rig.cut, self.rig.delay
        ));
    }

    fn sleep(&mut self, node: NodeId, most: u64) {
        self.say(format!("{node} stops"));
        let at = self.rig.now + self.dice.below(most);
        self.wake_at.insert(node, at);
    }

    fn wake(&mut self, node: NodeId) {
        if self.rig.nodes[&node].down {
            self.restart(node);
        } else {
            self.rig.nodes.get_mut(&node).unwrap().paused = false;
            self.say(format!("{node} goes on"));
        }
    }

    fn restart(&mut self, node: NodeId) {
        let back = self.dice.below(4);
        self.rig.restart(node, back);
        self.behind.insert(node, 0);
        self.say(format!("{node} starts, {back} entries back"));
    }
}
