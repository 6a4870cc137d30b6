//! Takeover without a quorum (T1, T2): one node goes on alone, those that it left behind come back with their old disks, and one comes in
//! anew. What the node begins from is the product's own code; what lies around it (its order, its files) has tests of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_raft::model::{AdminCommand, ClusterId, TakeoverOrder, follow_tail};
use holdfast_types::Revision;

use super::agreed::{self, Agreed};
use super::raft::{Durable, Entry};
use super::rng::at;
use super::voters::{Change, Membership};
use super::{Ev, MS, Node, Res, World, glue, node_id, plan};

/// Longer than any run.
const FOR_GOOD: u64 = 1_000_000 * MS;

impl World {
    /// The id of the newest incarnation of the cluster.
    pub(super) fn cluster_now(&self) -> ClusterId {
        let cluster = self.agreed.head.cluster.as_ref();
        cluster.map_or(plan::FIRST_CLUSTER, |cluster| cluster.id)
    }

    /// The node dies, and stays dead.
    pub(super) fn kill(&mut self, node: Node, power: bool) {
        self.crash(node, power);
        self.hosts[node].dead = true;
    }

    /// The node goes on alone. An operator who chooses one that lacks what others have committed loses that; here he does not.
    pub(super) fn take_over(&mut self, node: Node) -> Res {
        let Some(process) = &self.hosts[node].process else {
            return Ok(());
        };
        let (log, known) = (process.raft.kept.log.clone(), process.state.revision);
        if !self.agreed.is_within(&log) {
            self.count("takeover not made");
            self.hosts.iter_mut().for_each(|host| host.dead = false);
            for other in 0..self.hosts.len() {
                self.after(MS, Ev::Start(other));
            }
            self.net.heal();
            return Ok(());
        }
        let entry = self.first_of_incarnation(node, &log, known)?;
        self.say(|| format!("n{node} takes over, knowing {known} of {} entries", log.len()));
        self.count("taken over");
        let power = self.rng.chance(50);
        self.crash(node, power);
        self.all_memory_lost();
        let cluster = entry.snapshot.as_ref().and_then(|state| state.cluster.as_ref());
        let cluster = cluster.map_or(plan::FIRST_CLUSTER, |cluster| cluster.id);
        let term = entry.term;
        // What came before is in the snapshot.
        let mut log: Vec<Entry> = log.iter().map(|entry| Entry::new(entry.term, None)).collect();
        log.push(entry);
        self.agreed = Agreed::new(&log);
        for (other, host) in self.hosts.iter_mut().enumerate() {
            host.left = other != node && !self.plan.nodes[other].spare;
        }
        let host = &mut self.hosts[node];
        host.cluster = cluster;
        host.applied = log.len() as u64;
        host.apply_after = 0;
        host.disk.raft = Durable {
            term,
            vote: Some(node),
            log,
        };
        self.script_taken_over();
        Ok(())
    }

    fn first_of_incarnation(&self, node: Node, log: &[Entry], known: Revision) -> Result<Entry, String> {
        let mut state = agreed::replay(&log[..at(known.0)]);
        let tail = (known.0 + 1..).zip(&log[at(known.0)..]);
        follow_tail(&mut state, node_id(node), tail, |state, (index, entry)| {
            agreed::step(state, *index, entry);
        });
        let before = self.hosts[node].cluster;
        let order = TakeoverOrder {
            before,
            cluster: ClusterId(before.0 + 1),
            node: node_id(node),
            committed: known,
            at: 0,
            by: "simulated".into(),
        };
        state.take_over(Revision(log.len() as u64 + 1), &order)?;
        Ok(Entry {
            members: Some(Arc::new(Membership::of([node]))),
            snapshot: Some(Arc::new(state)),
            ..Entry::new(log.last().map_or(0, |entry| entry.term) + 1, None)
        })
    }

    /// One that was left behind is there again, with the disk that it had. It stays apart from `other`: the two of them would be a majority
    /// of the incarnation before, which nobody can tell.
    pub(super) fn return_as_it_was(&mut self, node: Node, other: Node) {
        if !self.hosts[node].left {
            return;
        }
        self.say(|| format!("n{node} is back as it was"));
        self.net.heal();
        self.cut_both(node, other, FOR_GOOD);
        self.hosts[node].dead = false;
        self.after(MS, Ev::Start(node));
    }

    /// Those that were left behind are switched off, and a node with an empty directory joins.
    pub(super) fn rejoin(&mut self) {
        let left: Vec<Node> = (0..self.hosts.len())
            .filter(|node| self.hosts[*node].left)
            .collect();
        if left.is_empty() {
            return;
        }
        for node in left {
            self.kill(node, false);
        }
        self.operator.want([Change::Data, Change::Replicas]);
        self.after(MS, Ev::Change);
    }

    /// Extents that are whole somewhere and are to get a second replica, on the node that has joined.
    pub(super) fn replicas_to_ask_for(&self) -> Vec<(usize, BTreeSet<holdfast_types::NodeId>)> {
        let members = self.agreed.head.nodes.keys().copied();
        let all: BTreeSet<_> = members
            .filter(|node| self.hosts[super::place(*node)].data)
            .collect();
        let extents = 0..self.plan.extents.len();
        extents
            .filter_map(|extent| {
                let found = self.agreed.head.extents.get(&glue::extent_id(extent))?;
                let wanted = !found.in_sync.is_empty() && found.replicas != all;
                wanted.then(|| (extent, all.clone()))
            })
            .collect()
    }

    pub(super) fn ask_for_replicas(&mut self) -> Res {
        for (extent, replicas) in self.replicas_to_ask_for() {
            let extent = glue::extent_id(extent);
            self.ask_any(AdminCommand::SetReplicas { extent, replicas })?;
        }
        Ok(())
    }

    /// No whole replica of it is left since a takeover: it must not be served (T2, T4).
    pub(super) fn is_out_of_reach(&self, extent: usize) -> bool {
        let found = self.agreed.head.extents.get(&glue::extent_id(extent));
        found.is_some_and(|found| found.in_sync.is_empty())
    }

    /// T2: since the takeover nobody has answered for an extent that has no whole replica.
    pub(super) fn unserved(&self, extent: usize) -> Res {
        match self.histories[extent].served_since(self.script.taken_over()) {
            0 => Ok(()),
            some => Err(format!(
                "T4: x{extent} has no whole replica since a takeover, and {some} commands were answered"
            )),
        }
    }
}
