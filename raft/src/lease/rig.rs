//! Keepers and governors on one bench: real time in microseconds, a clock for each node, links that can be cut or slowed, and a linear log
//! that each node applies when told to. Raft itself is taken for granted: what is committed is in the log.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use holdfast_trust::{Key, MacKeys};
use holdfast_types::{Incarnation, LeaseGeneration, Mono, NodeId, Revision};

use super::*;
use crate::governor::{Governor, GovernorInput, Proposal, RaftView};
use crate::model::fixture::{self, A, B, W};
use crate::model::{ClusterState, Command, Reply, Share};

thread_local! {
    /// 0 for the bench as it is; any other number varies its timing.
    pub(crate) static VARIATION: Cell<u64> = const { Cell::new(0) };
}

/// SplitMix64: small, and the same in every release.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// One node. `local` time runs at `rate` millionths of real time, from `offset` on.
pub(crate) struct Bench {
    pub(crate) keeper: Keeper,
    pub(crate) governor: Governor,
    pub(crate) state: ClusterState,
    pub(crate) run: Incarnation,
    pub(crate) resets: Vec<(LeaseGeneration, ResetCause)>,
    pub(crate) paused: bool,
    pub(crate) down: bool,
    pub(crate) rate: u64,
    pub(crate) offset: u64,
}

/// An entry of the log.
#[derive(Clone)]
pub(crate) enum Entry {
    Command(Command),
    /// Raft's membership: members, and while it is joint those before.
    Voters(BTreeSet<NodeId>, BTreeSet<NodeId>),
}

pub(crate) struct Rig {
    pub(crate) now: u64,
    pub(crate) nodes: BTreeMap<NodeId, Bench>,
    pub(crate) log: Vec<Entry>,
    /// What all nodes began with.
    base: ClusterState,
    /// The state after all that is committed.
    pub(crate) head: ClusterState,
    /// One-way: from, to.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    /// One-way delay in microseconds; 0 otherwise.
    pub(crate) delay: BTreeMap<(NodeId, NodeId), u64>,
    pub(crate) flying: Vec<(u64, NodeId, NodeId, Datagram)>,
    /// Step of [`Rig::go`], in microseconds.
    pub(crate) step: u64,
    next_run: u64,
}

impl Bench {
    pub(crate) fn local(&self, now: u64) -> Mono {
        Mono::from_nanos((self.offset * 1000) + now * self.rate / 1000)
    }
}

impl Rig {
    /// a, b, w, one extent with a as primary; everybody has applied it, caught up and runs for two seconds.
    pub(crate) fn new() -> Self {
        Self::with_rates([1_000_000; 3])
    }

    pub(crate) fn with_rates(rates: [u64; 3]) -> Self {
        let mut rig = Self::fresh(&fixture::trio(1), rates);
        let mut dice = Dice(VARIATION.get());
        if dice.0 > 0 {
            // Nodes that do not beat in step, and links that are not equally fast.
            for (x, y) in [(A, B), (A, W), (B, A), (B, W), (W, A), (W, B)] {
                rig.delay.insert((x, y), dice.below(12_000));
            }
            for node in [A, B, W] {
                let bench = rig.nodes.get_mut(&node).unwrap();
                bench.paused = true;
                rig.go(dice.below(40));
                rig.nodes.get_mut(&node).unwrap().paused = false;
            }
        }
        for node in [A, B, W] {
            rig.announce(node);
        }
        let run = rig.nodes[&A].run;
        let open = rig.head.reopening(A, run).unwrap();
        rig.commit(&open);
        for node in [A, B, W] {
            rig.apply_all(node);
            rig.caught_up(node);
        }
        rig.go(2000);
        assert!(rig.serves(A), "it stands");
        rig
    }

    /// Nodes that have just started with `head` applied.
    pub(crate) fn fresh<const N: usize>(head: &ClusterState, rates: [u64; N]) -> Self {
        let mut rig = Self {
            now: 1_000_000,
            nodes: BTreeMap::new(),
            log: Vec::new(),
            base: head.clone(),
            head: head.clone(),
            cut: BTreeSet::new(),
            delay: BTreeMap::new(),
            flying: Vec::new(),
            step: 1000,
            next_run: 100,
        };
        for (node, rate) in head.nodes.keys().zip(rates) {
            rig.start(*node, head.clone(), rate, node.0 * 12_345_678);
        }
        rig
    }

    fn start(&mut self, node: NodeId, state: ClusterState, rate: u64, offset: u64) {
        self.next_run += 1;
        let run = Incarnation(self.next_run);
        let mut bench = Bench {
            keeper: Keeper::new(node, run, Mono::ZERO),
            governor: Governor::new(),
            state,
            run,
            resets: Vec::new(),
            paused: false,
            down: false,
            rate,
            offset,
        };
        let now = bench.local(self.now);
        bench.keeper = Keeper::new(node, run, now);
        let _ = bench.keeper.applied(&bench.state, now);
        self.nodes.insert(node, bench);
    }

    /// A new process, with the applied state of `back` entries ago; heartbeats under way to it get lost with the old one's socket.
    pub(crate) fn restart(&mut self, node: NodeId, back: u64) {
        let bench = &self.nodes[&node];
        let (rate, offset) = (bench.rate, bench.offset);
        let revision = bench.state.revision.0.saturating_sub(back);
        let state = self.replay(revision);
        self.flying.retain(|(_, _, to, _)| *to != node);
        self.start(node, state, rate, offset);
    }

    /// `node` tells of its run.
    pub(crate) fn announce(&mut self, node: NodeId) {
        let command = fixture::announce(node, self.nodes[&node].run.0, 0, &[]);
        self.commit(&command);
    }

    /// The state after entry `revision`.
    fn replay(&self, revision: u64) -> ClusterState {
        let mut state = self.base.clone();
        let base = state.revision.0;
        for (entry, index) in self.log.iter().zip(base + 1..=revision) {
            enter(entry, Revision(index), &mut state);
        }
        state
    }

    pub(crate) fn commit(&mut self, command: &Command) -> Reply {
        self.log.push(Entry::Command(command.clone()));
        fixture::go(command, &mut self.head)
    }

    /// Commits a membership that is in the logs of `stored`; others have not got it.
    pub(crate) fn commit_voters(&mut self, members: &[NodeId], outgoing: &[NodeId], stored: &[NodeId]) {
        let index = Revision(self.head.revision.0 + 1);
        for node in stored {
            self.nodes.get_mut(node).unwrap().keeper.voters_in_log(index.0);
        }
        let entry = Entry::Voters(fixture::set(members), fixture::set(outgoing));
        enter(&entry, index, &mut self.head);
        self.log.push(entry);
    }

    /// `node` applies the next `count` entries of the log.
    pub(crate) fn apply(&mut self, node: NodeId, count: usize) {
        let base = self.base.revision.0;
        let real = self.now;
        let bench = self.nodes.get_mut(&node).unwrap();
        for _ in 0..count {
            let next = bench.state.revision.0 + 1;
            let Some(entry) = self.log.get(usize::try_from(next - base - 1).unwrap()) else {
                return;
            };
            enter(entry, Revision(next), &mut bench.state);
            let now = bench.local(real);
            let actions = bench.keeper.applied(&bench.state, now);
            keep_resets(bench, &actions);
        }
    }

    pub(crate) fn apply_all(&mut self, node: NodeId) {
        self.apply(node, usize::MAX);
    }

    pub(crate) fn everybody_applies(&mut self) {
        for node in [A, B, W] {
            self.apply_all(node);
        }
    }

    pub(crate) fn caught_up(&mut self, node: NodeId) {
        self.nodes.get_mut(&node).unwrap().keeper.caught_up();
    }

    pub(crate) fn cut_both(&mut self, x: NodeId, y: NodeId) {
        self.cut.extend([(x, y), (y, x)]);
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.delay.clear();
    }

    /// Lets `ms` of real time pass.
    pub(crate) fn go(&mut self, ms: u64) {
        let end = self.now + ms * 1000;
        while self.now < end {
            self.now += self.step;
            self.once();
        }
    }

    /// Everything that is due now.
    pub(crate) fn once(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let bench = self.nodes.get_mut(&id).unwrap();
            if bench.paused || bench.down {
                continue;
            }
            let now = bench.local(self.now);
            let actions = bench.keeper.tick(now);
            keep_resets(bench, &actions);
            self.put(id, actions);
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        // An answer may fly at once, so again until nothing is due.
        loop {
            let due: Vec<_> = self.flying.extract_if(.., |(at, ..)| *at <= self.now).collect();
            let mut moved = false;
            for (at, from, to, datagram) in due {
                let Some(bench) = self.nodes.get_mut(&to).filter(|b| !b.down) else {
                    continue;
                };
                if bench.paused {
                    // It waits in the socket's buffer.
                    self.flying.push((at, from, to, datagram));
                    continue;
                }
                moved = true;
                let now = bench.local(self.now);
                let keys = MacKeys::single(Key::new([7; 32]));
                let wire =
                    Datagram::decode(&datagram.encode(&keys), &keys).expect("what is sent can be read");
                let actions = bench.keeper.receive(now, &wire);
                keep_resets(bench, &actions);
                self.put(to, actions);
            }
            if !moved {
                return;
            }
        }
    }

    fn put(&mut self, from: NodeId, actions: Vec<Action>) {
        for action in actions {
            let Action::Send { to, datagram } = action else {
                continue;
            };
            let to = NodeId(u64::from(to.port()) - 4000);
            if !self.cut.contains(&(from, to)) {
                let at = self.now + self.delay.get(&(from, to)).copied().unwrap_or(0);
                self.flying.push((at, from, to, datagram));
            }
        }
    }

    pub(crate) fn lease(&self, node: NodeId) -> bool {
        let bench = &self.nodes[&node];
        !bench.down && bench.keeper.lease_until(bench.local(self.now)).is_some()
    }

    /// It would answer a read now: the lease, and primary by its own applied state.
    pub(crate) fn serves(&self, node: NodeId) -> bool {
        let bench = &self.nodes[&node];
        let primary = |e: &crate::model::Extent| e.share(node, bench.run) == Share::Primary;
        self.lease(node) && bench.state.extents.values().any(primary)
    }

    /// Someone would answer reads under an epoch that a commit has ended: what the lease is there to prevent.
    pub(crate) fn stale(&self) -> Option<NodeId> {
        let stale = |node: &&NodeId| {
            let bench = &self.nodes[*node];
            let deposed = bench.state.extents.iter().any(|(id, e)| {
                let head = self.head.extents.get(id);
                e.share(**node, bench.run) == Share::Primary && head.is_none_or(|head| head.epoch > e.epoch)
            });
            deposed && self.lease(**node)
        };
        self.nodes.keys().find(stale).copied()
    }

    /// What `leader`'s governor wants.
    pub(crate) fn governs(&mut self, leader: NodeId) -> Vec<Proposal> {
        let committed = self.head.revision.0;
        let matched = self.nodes.keys().map(|node| (*node, committed)).collect();
        let raft = RaftView {
            am_leader: true,
            leader: Some(leader),
            committed,
            matched,
            ..RaftView::default()
        };
        let real = self.now;
        let bench = self.nodes.get_mut(&leader).unwrap();
        let now = bench.local(real);
        let view = bench.keeper.view(now);
        let input = GovernorInput {
            state: &bench.state,
            me: leader,
            incarnation: bench.run,
            view: &view,
            raft: &raft,
        };
        bench.governor.tick(now, &input)
    }

    /// The new epoch that `leader`'s governor wants, if it wants one.
    pub(crate) fn new_epoch(&mut self, leader: NodeId) -> Option<Command> {
        self.governs(leader)
            .into_iter()
            .find_map(|proposal| match proposal {
                Proposal::Command(command @ Command::NewEpoch { .. }) => Some(command),
                _ => None,
            })
    }

    pub(crate) fn suspect(&mut self, node: NodeId) {
        let generation = self.head.nodes[&node].lease_generation;
        self.commit(&Command::Suspect { node, generation });
    }
}

fn enter(entry: &Entry, index: Revision, state: &mut ClusterState) {
    match entry {
        Entry::Command(command) => drop(state.apply(index, command)),
        Entry::Voters(members, outgoing) => {
            state.set_voters(index, members.clone(), outgoing.clone());
            state.advance(index);
        }
    }
}

fn keep_resets(bench: &mut Bench, actions: &[Action]) {
    bench
        .resets
        .extend(actions.iter().filter_map(|action| match action {
            Action::ResetConnections { generation, cause } => Some((*generation, *cause)),
            Action::Send { .. } => None,
        }));
}
