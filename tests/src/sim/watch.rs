//! What must hold at every moment, and in the end.

use holdfast_raft::model::{Command, Share};
use holdfast_replication::core::api::{Event, RoleName, Room};
use holdfast_types::NodeId;

use super::plan::BLOCKS;
use super::raft::Entry;
use super::{MS, Node, Res, SECOND, World, glue, node_id, place};

/// How long scrubs may take to repair everything.
const SCRUB: u64 = 20 * SECOND;

impl World {
    /// An entry is committed: the first voter knows it.
    pub(super) fn on_agreed(&mut self, node: Node, index: u64, entry: &Entry) -> Res {
        self.say(|| format!("committed {index}: {:?} (n{node} knows first)", entry.command));
        if let Some(command) = entry.command.as_deref() {
            match command {
                Command::Suspect { .. } => self.count("suspected"),
                Command::ClearSuspect { .. } => self.count("cleared"),
                Command::NewEpoch { .. } => self.count("new epoch"),
                Command::Switchover { .. } => self.count("switchover"),
                Command::Reopen { .. } => self.count("reopened"),
                _ => {}
            }
            self.script_commit(index, command);
            self.members_changed();
            self.caches_changed();
            self.last_ones_are_whole();
        }
        if let Some(members) = &entry.members {
            self.script_members(members);
        }
        self.watch_leases()
    }

    /// I4: nobody holds a lease who takes itself for the primary of an epoch that a commit has ended.
    pub(super) fn watch_leases(&mut self) -> Res {
        if self.plan.lying {
            // What counts is what initiators see.
            return Ok(());
        }
        for node in 0..self.hosts.len() {
            let now = self.local(node);
            let host = &self.hosts[node];
            let Some(process) = host.process.as_ref().filter(|_| !host.is_paused(self.now)) else {
                continue;
            };
            if !process.cell.holds(now) {
                continue;
            }
            for (id, extent) in &process.state.extents {
                let deposed = self
                    .agreed
                    .head
                    .extents
                    .get(id)
                    .is_none_or(|head| head.epoch > extent.epoch);
                let mine = extent.share(node_id(node), process.incarnation) == Share::Primary;
                // One that handed back may still hold a lease: it answers nothing.
                let serves = || {
                    process
                        .cores
                        .iter()
                        .map(holdfast_replication::core::ExtentCore::status)
                        .any(|status| status.extent == *id && status.role == RoleName::Primary)
                };
                if deposed && mine && serves() {
                    let name = &extent.name;
                    return Err(format!(
                        "I4: n{node} holds a lease and is primary of {name} in epoch {}, which a commit has ended",
                        extent.epoch
                    ));
                }
            }
        }
        Ok(())
    }

    /// No more trouble: what is cut is joined, what is stopped goes on, what failed is started anew.
    pub(super) fn make_peace(&mut self) {
        self.say(|| "peace".to_owned());
        self.calm = true;
        self.net.heal();
        for node in 0..self.hosts.len() {
            let host = &mut self.hosts[node];
            host.dead |= host.left;
            host.apply_after = 0;
            host.apply_only = (0, 0);
            self.set_room(node, Room::default());
            let host = &mut self.hosts[node];
            host.views_after = 0;
            if host.is_paused(self.now) {
                host.paused = self.now;
                self.resume(node);
            }
            if self.hosts[node].disk.failed.contains(&true) || !self.is_member(node) {
                self.crash(node, false);
            }
        }
        for client in 0..self.clients.len() {
            self.unpin(client);
        }
    }

    /// What has rotted and was never wanted is found and repaired by a scrub.
    pub(super) fn scrub(&mut self) -> Res {
        let limit = self.now + SCRUB;
        while let Some((extent, node)) = self.rotten() {
            if self.now > limit {
                let text = self.statuses(extent);
                return Err(format!("I10: n{node} x{extent} is rotten after a scrub\n{text}"));
            }
            for node in 0..self.hosts.len() {
                self.feed_all(node, &Event::Scrub)?;
            }
            self.run_until(self.now + 500 * MS)?;
        }
        Ok(())
    }

    /// Blocks rot only while another member of the set is whole. One that nobody noticed, and that no member has whole now, would be two
    /// losses at once, which is more than is survived: it is whole again.
    fn last_ones_are_whole(&mut self) {
        for extent in 0..self.plan.extents.len() {
            let Some(found) = self.agreed.head.extents.get(&glue::extent_id(extent)) else {
                continue;
            };
            let members: Vec<Node> = found.in_sync.iter().map(|node| place(*node)).collect();
            let rotten = |node: Node| self.hosts[node].disk.replicas[extent].rotten();
            let Some((first, others)) = members.split_first() else {
                continue;
            };
            let everywhere = |block: &u64| {
                others
                    .iter()
                    .all(|node| rotten(*node).any(|other| other == *block))
            };
            let lost: Vec<u64> = rotten(*first).filter(everywhere).collect();
            for block in lost {
                self.say(|| format!("no member has block {block} of x{extent} any more: it is whole again"));
                for node in &members {
                    self.hosts[*node].disk.replicas[extent].unrot(block);
                }
            }
        }
    }

    /// A member of an in-sync set with blocks that are not what was written.
    fn rotten(&self) -> Option<(usize, Node)> {
        (0..self.plan.extents.len()).find_map(|extent| {
            let found = self.agreed.head.extents.get(&glue::extent_id(extent))?;
            let bad = |node: &Node| self.hosts[*node].disk.replicas[extent].is_rotten();
            let node = found.in_sync.iter().map(|node| place(*node)).find(bad)?;
            Some((extent, node))
        })
    }

    /// What is not as it should be in peace.
    pub(super) fn unwell(&self) -> Option<String> {
        let head = &self.agreed.head;
        if let Some((node, _)) = head.nodes.iter().find(|(_, member)| member.is_suspect()) {
            return Some(format!("node {node} is suspect"));
        }
        if let Some((node, _)) = head.nodes.iter().find(|(_, member)| member.leaving) {
            return Some(format!("node {node} is leaving still"));
        }
        let voters = head.nodes.keys().copied().collect();
        if head.voters.is_joint() || head.voters.members != voters {
            return Some(format!("of the nodes {voters:?} these vote: {:?}", head.voters));
        }
        if let Some(longer) = head.settings.longer_lease {
            return Some(format!("the lease time is not settled: {longer:?}"));
        }
        for (node, host) in self.hosts.iter().enumerate() {
            if !self.is_member(node) {
                continue;
            }
            let Some(process) = &host.process else {
                return Some(format!("n{node} is down"));
            };
            if host.disk.hangs > self.now {
                return Some(format!("the disk of n{node} hangs"));
            }
            if !process.cell.holds(self.local(node)) {
                return Some(format!("n{node} holds no lease"));
            }
        }
        (0..self.plan.extents.len()).find_map(|extent| self.extent_unwell(extent))
    }

    fn extent_unwell(&self, extent: usize) -> Option<String> {
        let found = self.agreed.head.extents.get(&glue::extent_id(extent))?;
        if self.is_out_of_reach(extent) {
            return None;
        }
        let (true, Some(primary)) = (found.in_sync == found.replicas, found.primary) else {
            return Some(format!(
                "x{extent}: primary {:?}, in sync {:?}\n{}",
                found.primary,
                found.in_sync,
                self.statuses(extent)
            ));
        };
        let status = |node: NodeId| {
            self.hosts[place(node)]
                .process
                .as_ref()
                .map(|process| process.cores[extent].status())
        };
        let end = status(primary)?.end;
        let behind = found.in_sync.iter().find(|node| {
            // Some records are always under way.
            status(**node).is_none_or(|status| status.applied.0 + 200 < end.lsn.0)
        })?;
        Some(format!(
            "x{extent}: node {behind} applies nothing\n{}",
            self.statuses(extent)
        ))
    }

    fn statuses(&self, extent: usize) -> String {
        let mut text = String::new();
        for (node, host) in self.hosts.iter().enumerate() {
            if let Some(core) = host
                .process
                .as_ref()
                .and_then(|process| process.cores.get(extent))
            {
                text += &format!("    n{node}: {:?}\n", core.status());
            }
        }
        text
    }

    pub(super) fn served_since(&self, from: u64) -> Res {
        for (extent, history) in self.histories.iter().enumerate() {
            if self.is_out_of_reach(extent) {
                self.unserved(extent)?;
            } else if history.served_since(from) == 0 {
                return Err(format!(
                    "x{extent}: in peace and in sync, but nothing is served\n{}",
                    self.statuses(extent)
                ));
            }
        }
        Ok(())
    }

    /// With nothing under way any more: every command is answered, every replica has applied all, all of them are equal, and what
    /// initiators saw can be.
    pub(super) fn check_end(&mut self) -> Res {
        if let Some(why) = self.unwell() {
            return Err(format!("it was well and is not any more: {why}"));
        }
        for (node, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else { continue };
            let same =
                process.state.revision != self.agreed.head.revision || process.state == self.agreed.head;
            if !same {
                return Err(format!(
                    "the cluster state of n{node} differs at the same revision"
                ));
            }
        }
        let open = self.open_commands();
        if open > 0 {
            return Err(format!("{open} commands are never answered"));
        }
        for extent in 0..self.plan.extents.len() {
            let found = &self.agreed.head.extents[&glue::extent_id(extent)];
            if self.is_out_of_reach(extent) {
                self.unserved(extent)?;
                continue;
            }
            let members: Vec<Node> = found.in_sync.iter().map(|node| place(*node)).collect();
            for &node in &members {
                let behind = self.hosts[node].process.as_ref().is_none_or(|process| {
                    let status = process.cores[extent].status();
                    status.applied < status.end.lsn
                });
                if behind {
                    return Err(format!(
                        "W2: x{extent} is idle, and n{node} has not applied all that is committed\n{}",
                        self.statuses(extent)
                    ));
                }
            }
            self.judge(extent, members[0])?;
            for pair in members.windows(2) {
                self.same_contents(extent, pair[0], pair[1])?;
            }
        }
        Ok(())
    }

    fn same_contents(&self, extent: usize, a: Node, b: Node) -> Res {
        let blocks = |node: Node| &self.hosts[node].disk.replicas[extent].blocks;
        for block in 0..super::rng::at(BLOCKS) {
            let (here, there) = (blocks(a)[block], blocks(b)[block]);
            if here != there {
                return Err(format!(
                    "replicas of x{extent} differ: block {block} is {here} on n{a} and {there} on n{b}"
                ));
            }
        }
        Ok(())
    }
}
