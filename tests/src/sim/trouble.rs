//! Faults by chance.

use holdfast_raft::model::Command;
use holdfast_replication::core::api::{Event, FenceReason, Room};

use super::plan::{BLOCKS, RANGE};
use super::storage::DiskEvent;
use super::voters::Change;
use super::{Broken, Ev, MS, Node, Res, SECOND, World, glue, node_id, place};

impl World {
    pub(super) fn trouble(&mut self, again: bool) -> Res {
        if self.calm {
            return Ok(());
        }
        if again {
            let next = self.rng.between(20 * MS, self.plan.trouble_every);
            self.after(next, Ev::Trouble { again: true });
        }
        let count = self.hosts.len();
        let (n, m) = (self.rng.index(count), self.rng.index(count));
        match self.rng.below(106) {
            0..13 => {
                self.hosts[n].back = self.rng.pick(&[0, 0, 1, 3, 8]);
                let power = self.rng.chance(50);
                self.crash(n, power);
            }
            13..16 => {
                for node in 0..count {
                    self.crash(node, true);
                }
            }
            16..29 => {
                let most = if self.rng.chance(50) { 3000 } else { 300 };
                let time = self.rng.between(20, most) * MS;
                self.pause(n, time);
            }
            29..42 => {
                let time = self.rng.between(50, 3000) * MS;
                self.cut_both(n, m, time);
            }
            42..51 => {
                let time = self.rng.between(50, 3000) * MS;
                self.cut(n, m, time);
            }
            51..58 => {
                let time = self.rng.between(100, 2500) * MS;
                self.isolate(n, time);
            }
            58..64 => self.net.loss[n][m] = self.rng.between(10, 70),
            64..70 => self.net.slow[n][m] = self.rng.pick(&[10, 60, 300, 700]) * MS,
            70..73 => self.net.heal(),
            73..81 => return self.switch(n),
            81..84 => self.disk_fails(n),
            84..86 if self.all_may_be_lost(n) => {
                self.hosts[n].disk.bad_reads = self.now + self.rng.between(20, 600) * MS;
            }
            84..88 => {
                let time = self.rng.between(100, 6000) * MS;
                self.say(|| format!("the disk of n{n} hangs for {} ms", time / MS));
                self.hosts[n].disk.hangs = self.now + time;
            }
            88..91 => self.hosts[n].apply_after = self.now + self.rng.between(50, 1500) * MS,
            91..93 => self.hosts[n].views_after = self.now + self.rng.between(50, 1000) * MS,
            93..95 => self.raft(n, |raft, _, _, out| raft.transfer(m, out))?,
            95..98 => self.damage(n),
            98 if n != m => {
                let time = self.rng.between(50, 3000) * MS;
                self.unlink(n, m, time);
            }
            100..103 => self.rot(n),
            103 => self.feed_all(n, &Event::Scrub)?,
            104..106 => self.fill(n),
            _ => self.break_link(n.min(m), n.max(m)),
        }
        Ok(())
    }

    pub(super) fn isolate(&mut self, node: Node, time: u64) {
        for other in 0..self.hosts.len() {
            self.cut_both(node, other, time);
        }
    }

    /// Planned: every extent that a node is primary of goes to another replica.
    pub(super) fn switch(&mut self, to: Node) -> Res {
        for extent in 0..self.plan.extents.len() {
            let id = glue::extent_id(extent);
            let Some(primary) = self.agreed.head.extents.get(&id).and_then(|found| found.primary) else {
                continue;
            };
            let from = place(primary);
            if from == to || !self.hosts[to].data || self.hosts[from].is_paused(self.now) {
                continue;
            }
            self.say(|| format!("x{extent} is to go from n{from} to n{to}"));
            self.feed(from, extent, Event::Switchover { to: node_id(to) })?;
        }
        Ok(())
    }

    /// Whether the extent survives the loss of the node's replica: every other member of the set is whole. Whether those are up, heard or
    /// suspect does not matter.
    fn may_lose(&self, extent: usize, node: Node) -> bool {
        let Some(found) = self.agreed.head.extents.get(&glue::extent_id(extent)) else {
            return false;
        };
        let whole = |other: Node| {
            let disk = &self.hosts[other].disk;
            let kept = &disk.replicas[extent].found;
            !kept.damaged && kept.base.is_none() && !disk.failed[extent] && !disk.replicas[extent].is_rotten()
        };
        let mut others = found
            .replicas
            .iter()
            .map(|other| place(*other))
            .filter(|other| *other != node);
        let alone = found.replicas.len() < 2;
        found.in_sync == found.replicas && !alone && others.all(whole)
    }

    /// Whether the node has a replica of the extent.
    fn holds(&self, node: Node, extent: usize) -> bool {
        let found = self.agreed.head.extents.get(&glue::extent_id(extent));
        found.is_some_and(|found| found.replicas.contains(&node_id(node)))
    }

    /// Whether a shrink that the node has asked for as primary may be committed yet: it waits in somebody's log.
    fn shrink_waits(&self, node: Node) -> bool {
        let head = super::rng::at(self.agreed.head.revision.0);
        let asked = |entry: &super::raft::Entry| {
            let command = entry.command.as_deref();
            matches!(command, Some(Command::Shrink { proposer, .. }) if *proposer == node_id(node))
        };
        self.hosts.iter().any(|host| {
            let live = host
                .process
                .as_ref()
                .map_or(&[][..], |process| &process.raft.kept.log);
            [live, &host.disk.raft.log]
                .into_iter()
                .any(|log| log.iter().skip(head).any(asked))
        })
    }

    /// Whether the node may come to count on itself alone: a shrink that it has asked for is on its way, or waits in a log.
    fn counts_on_itself(&self, node: Node) -> bool {
        self.hosts[node].shrinks_until > self.now || self.shrink_waits(node)
    }

    fn all_may_be_lost(&self, node: Node) -> bool {
        self.hosts[node].data
            && !self.counts_on_itself(node)
            && (0..self.plan.extents.len())
                .filter(|extent| self.holds(node, *extent))
                .all(|extent| self.may_lose(extent, node))
    }

    /// Bits of a block flip, while every other member of the set is whole.
    fn rot(&mut self, node: Node) {
        let extent = self.rng.index(self.plan.extents.len());
        let block = self.rng.below(BLOCKS / RANGE) * RANGE + self.rng.below(6);
        // Nobody knows of it when a node with the good copy leaves.
        let may_go = |change: &Change| matches!(change, Change::Leave(goer) if self.plan.nodes[*goer].data);
        let alone = self.plan.changes.iter().any(may_go);
        if alone || !self.holds(node, extent) || self.counts_on_itself(node) || !self.may_lose(extent, node) {
            return;
        }
        self.say(|| format!("block {block} of x{extent} rots on n{node}"));
        self.count("rotten");
        self.hosts[node].disk.replicas[extent].rot(block);
    }

    /// The disk or the journal is nearly full for a while, or full.
    fn fill(&mut self, node: Node) {
        let (low, crowded) = (self.rng.chance(70), self.rng.chance(40));
        let full = low && self.rng.chance(40);
        let all = self.rng.chance(50);
        for node in (0..self.hosts.len()).filter(|other| all || *other == node) {
            if self.hosts[node].data {
                self.count("disk fills");
                self.set_room(node, Room { crowded, low, full });
                let time = self.rng.between(20, 2500) * MS;
                self.after(time, Ev::Roomy(node));
            }
        }
    }

    /// A write or flush fails: final for the replica (J2). Not while the node is paused or its disk hangs: it would learn of that so late
    /// that the other replica, still taken for one of two, may be lost meanwhile, or after whoever starts failed nodes anew has been there.
    pub(super) fn disk_fails(&mut self, node: Node) {
        let host = &self.hosts[node];
        let late = host.is_paused(self.now) || host.disk.hangs > self.now;
        if late || host.process.is_none() || !self.all_may_be_lost(node) {
            return;
        }
        let whole_node = self.rng.chance(50);
        let reason = if whole_node {
            FenceReason::Journal
        } else {
            FenceReason::Extent
        };
        let extents = self.plan.extents.len();
        let one = self.rng.index(extents);
        let run = self.hosts[node].run;
        self.say(|| format!("the disk of n{node} fails: {reason:?}"));
        for extent in (0..extents).filter(|extent| whole_node || *extent == one) {
            if self.holds(node, extent) {
                self.after(1, Ev::Disk(node, run, DiskEvent::Fails { extent, reason }));
            }
        }
        // Somebody has the process started anew, later.
        let later = self.rng.between(1, 5) * SECOND;
        self.after(later, Ev::Crash(node, false));
    }

    /// The node dies, and its disk has lost something that was stable: the next start notices (J1), unless that is what is broken.
    pub(super) fn damage(&mut self, node: Node) {
        if self.hosts[node].process.is_none() || !self.all_may_be_lost(node) {
            return;
        }
        self.crash(node, true);
        self.say(|| format!("the disk of n{node} is damaged"));
        self.count("damaged");
        for extent in 0..self.plan.extents.len() {
            if !self.holds(node, extent) {
                continue;
            }
            let replica = &mut self.hosts[node].disk.replicas[extent];
            if self.plan.broken == Some(Broken::RecoveryOverDamage) {
                let lost = super::rng::at(self.rng.between(1, 5));
                replica.lose_records(lost);
            } else {
                replica.spoil(&mut self.rng);
            }
        }
    }
}
