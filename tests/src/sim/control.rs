//! The loops of a node's control plane: Raft, proposals, what is applied, views for the extents, the governor, announcements, placement.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_raft::governor::{GovernorInput, MemberStep, PlacementInput, Proposal, RaftView};
use holdfast_raft::model::Command;
use holdfast_replication::core::ExtentCore;
use holdfast_replication::core::api::{Event, Identity};

use super::host::Confirm;
use super::raft::{Outgoing, Raft, Rpc};
use super::rng::{Rng, at};
use super::{Ev, MS, Node, Part, Res, SECOND, World, agreed, glue, node_id, place, voters};

impl World {
    pub(super) fn raft(
        &mut self,
        node: Node,
        act: impl FnOnce(&mut Raft, u64, &mut Rng, &mut Vec<Outgoing>),
    ) -> Res {
        let now = self.local(node);
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let before = process.raft.commit;
        let led = process.raft.is_leader();
        let mut out = Vec::new();
        act(&mut process.raft, now.as_nanos(), &mut self.rng, &mut out);
        if process.raft.commit > before {
            process.raft.after_commit(now.as_nanos(), &mut out);
        }
        // L8: before anything of it is acknowledged.
        process.keeper.voters_in_log(process.raft.membership().0);
        let (leads, commit, term) = (
            process.raft.is_leader(),
            process.raft.commit,
            process.raft.kept.term,
        );
        if leads && !led {
            self.agreed.leads(node, term)?;
            self.say(|| format!("n{node} leads in term {term}"));
            self.count("leader elected");
        }
        if commit > before {
            let Some(process) = self.hosts[node].process.as_ref() else {
                return Ok(());
            };
            let fresh = self.agreed.commits(node, &process.raft.kept, before, commit)?;
            for (index, entry) in fresh {
                self.on_agreed(node, index, &entry)?;
            }
            let most = if self.plan.brisk { MS / 50 } else { MS / 2 };
            let wait = self.rng.between(MS / 50, most);
            self.part(node, wait, Part::Apply);
        }
        let mut send = Vec::new();
        if let Some(process) = self.hosts[node].process.as_mut() {
            for message in out {
                if message.when_stable {
                    process.raft_waiting.push((message.to, message.rpc));
                } else {
                    send.push((message.to, message.rpc));
                }
            }
        }
        for (to, rpc) in send {
            self.send_rpc(node, to, rpc);
        }
        self.raft_flush(node);
        Ok(())
    }

    fn raft_flush(&mut self, node: Node) {
        let Some(process) = self.hosts[node].process.as_mut() else {
            return;
        };
        let unstable = process.raft.kept.log.len() as u64 > process.raft_stable;
        if process.raft_flush.is_some() || (process.raft_waiting.is_empty() && !unstable) {
            return;
        }
        let waiting = std::mem::take(&mut process.raft_waiting);
        process.raft.flush_begins();
        process.raft_flush = Some((process.raft.kept.clone(), waiting));
        let time = if self.plan.brisk {
            MS / 100
        } else {
            self.rng.between(MS / 10, 3 * MS)
        };
        self.part(node, time, Part::RaftFlushed);
    }

    pub(super) fn raft_flushed(&mut self, node: Node) -> Res {
        if self.hosts[node].disk.hangs > self.now {
            let wait = self.hosts[node].disk.hangs - self.now;
            self.part(node, wait, Part::RaftFlushed);
            return Ok(());
        }
        let host = &mut self.hosts[node];
        let Some(process) = host.process.as_mut() else {
            return Ok(());
        };
        let Some((kept, waiting)) = process.raft_flush.take() else {
            return Ok(());
        };
        let len = kept.log.len() as u64;
        process.raft_stable = len;
        host.disk.raft = kept;
        for (to, rpc) in waiting {
            self.send_rpc(node, to, rpc);
        }
        self.raft(node, |raft, _, _, _| raft.flushed(len))
    }

    pub(super) fn raft_tick(&mut self, node: Node) -> Res {
        self.raft(node, Raft::tick)?;
        if let Some(process) = self.hosts[node].process.as_ref() {
            let due = self.hosts[node].clock.when(process.raft.due());
            let wait = due.saturating_sub(self.now).max(MS / 10);
            self.part(node, wait, Part::RaftTick);
        }
        Ok(())
    }

    pub(super) fn on_rpc(&mut self, node: Node, from: Node, rpc: Rpc) -> Res {
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        if let Rpc::ReadAt { id, index } = rpc {
            if id == process.catch_id && process.catch_up.is_none() {
                process.catch_up = Some(index);
                self.look_caught_up(node);
            }
            self.unit_confirmed(node, id, index)?;
            return self.confirmed_at(node, id, index);
        }
        if let Rpc::Propose(command) = &rpc {
            self.say(|| format!("n{node} is asked by n{from} to propose {command:?}"));
        }
        self.raft(node, |raft, now, rng, out| raft.receive(from, rpc, now, rng, out))
    }

    /// Asks for a command to be committed. It may get lost, come late or twice.
    pub(super) fn propose(&mut self, node: Node, command: Command) -> Res {
        let trouble = !self.calm && !self.plan.brisk;
        if trouble && self.rng.one_in(16) {
            return Ok(());
        }
        let Some(process) = self.hosts[node].process.as_ref() else {
            return Ok(());
        };
        let Some(leader) = process.raft.leader else {
            return Ok(());
        };
        self.say(|| format!("n{node} proposes {command:?}"));
        let command = Arc::new(command);
        let held = self.script_holds(&command);
        if matches!(*command, Command::Shrink { .. }) {
            self.hosts[node].shrinks_until = self.now + held + 2 * SECOND;
        }
        let twice = trouble && self.rng.one_in(24);
        for again in 0..=u64::from(twice) {
            let mut delay = self
                .rng
                .between(MS / 100, if self.plan.brisk { MS / 50 } else { MS })
                + again * self.rng.below(500 * MS);
            if trouble && self.rng.one_in(12) {
                delay += self.rng.below(900 * MS);
            }
            delay += held;
            let Some(from) = self.way_to(node, leader) else {
                return Ok(());
            };
            let rpc = Rpc::Propose(Arc::clone(&command));
            self.after(
                delay,
                Ev::Rpc {
                    to: leader,
                    from,
                    cluster: self.hosts[node].cluster,
                    rpc,
                },
            );
        }
        Ok(())
    }

    /// Directly, or relayed by a voter that reaches both.
    fn way_to(&self, node: Node, leader: Node) -> Option<Node> {
        let open = |a: Node, b: Node| {
            a == b || !(self.net.is_cut(a, b, self.now) || self.net.is_cut(b, a, self.now))
        };
        let up = |m: Node| self.hosts[m].process.is_some() && !self.hosts[m].is_paused(self.now);
        if open(node, leader) {
            return Some(node);
        }
        (0..self.hosts.len()).find(|m| up(*m) && open(node, *m) && open(*m, leader))
    }

    /// Applies what is committed: the lease hears of each entry at once, the extents later.
    pub(super) fn apply_entries(&mut self, node: Node) -> Res {
        let now = self.local(node);
        let host = &mut self.hosts[node];
        let Some(process) = host.process.as_mut() else {
            return Ok(());
        };
        if host.apply_after > self.now {
            let wait = host.apply_after - self.now;
            self.part(node, wait, Part::Apply);
            return Ok(());
        }
        let mut actions = Vec::new();
        let mut commit = process.raft.commit;
        let (most, until) = host.apply_only;
        let rest = commit > most && until > self.now;
        if rest {
            commit = most;
        }
        while process.state.revision.0 < commit {
            let index = process.state.revision.0 + 1;
            let Some(entry) = process.raft.kept.log.get(at(index - 1)) else {
                break;
            };
            agreed::step(&mut process.state, index, entry);
            actions.extend(process.keeper.applied(&process.state, now));
        }
        // The applied state is kept behind what the log holds.
        host.applied = process.state.revision.0.min(process.raft.stable());
        process.views_due = true;
        self.act(node, actions);
        self.look_caught_up(node);
        self.look_at_units(node)?;
        if rest {
            self.part(node, until - self.now, Part::Apply);
        }
        let slow = !self.calm && self.rng.one_in(30);
        let wait = self.rng.between(MS / 20, if slow { 400 * MS } else { 3 * MS });
        self.part(node, wait, Part::Views);
        self.watch_leases()
    }

    fn look_caught_up(&mut self, node: Node) {
        if let Some(process) = self.hosts[node].process.as_mut()
            && !process.caught_up
            && process
                .catch_up
                .is_some_and(|index| process.state.revision.0 >= index)
        {
            process.caught_up = true;
            process.keeper.caught_up();
            self.say(|| format!("n{node} has caught up"));
        }
    }

    /// L5: asks until a leader has confirmed what is committed.
    pub(super) fn catch_up(&mut self, node: Node) -> Res {
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        if process.catch_up.is_some() {
            return Ok(());
        }
        let id = process.next_read();
        process.catch_id = id;
        self.raft(node, |raft, _, _, out| {
            raft.read_index(id, out);
        })?;
        self.part(node, 60 * MS, Part::CatchUp);
        Ok(())
    }

    /// The newest applied state goes to the extents.
    pub(super) fn give_views(&mut self, node: Node) -> Res {
        let host = &mut self.hosts[node];
        if !host.data {
            return Ok(());
        }
        if host.views_after > self.now {
            let wait = host.views_after - self.now;
            self.part(node, wait, Part::Views);
            return Ok(());
        }
        let Some(process) = host.process.as_mut() else {
            return Ok(());
        };
        if !std::mem::take(&mut process.views_due) {
            return Ok(());
        }
        let policy = self.plan.policy;
        let views: Vec<_> = (0..process.cores.len())
            .filter_map(|extent| {
                let id = glue::extent_id(extent);
                let found = process.state.extents.get(&id)?;
                let view = holdfast_planes::view(&process.state, id, found, policy);
                Some((extent, Arc::new(view)))
            })
            .collect();
        let revision = process.state.revision.0;
        for (extent, view) in views {
            self.feed(node, extent, Event::View(view))?;
        }
        if let Some(process) = self.hosts[node].process.as_mut() {
            process.viewed = revision;
        }
        self.look_confirmed(node)
    }

    /// W4: a Raft read index for a primary that is alone in its set.
    pub(super) fn confirm(&mut self, node: Node, extent: usize, round: u64) -> Res {
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let id = process.next_read();
        process.confirms.retain(|confirm| confirm.extent != extent);
        let index = None;
        let confirm = Confirm {
            extent,
            round,
            id,
            index,
        };
        process.confirms.push(confirm);
        self.count("confirmed by the cluster");
        self.raft(node, |raft, _, _, out| {
            raft.read_index(id, out);
        })
    }

    fn confirmed_at(&mut self, node: Node, id: u64, index: u64) -> Res {
        if let Some(process) = self.hosts[node].process.as_mut()
            && let Some(confirm) = process.confirms.iter_mut().find(|confirm| confirm.id == id)
        {
            confirm.index.get_or_insert(index);
        }
        self.look_confirmed(node)
    }

    fn look_confirmed(&mut self, node: Node) -> Res {
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let viewed = process.viewed;
        let given = |confirm: &mut Confirm| confirm.index.is_some_and(|index| viewed >= index);
        let ready: Vec<Confirm> = process.confirms.extract_if(.., given).collect();
        for Confirm { extent, round, .. } in ready {
            self.feed(node, extent, Event::Confirmed { round })?;
        }
        Ok(())
    }

    pub(super) fn govern(&mut self, node: Node) -> Res {
        let now = self.local(node);
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let raft = RaftView {
            am_leader: process.raft.is_leader(),
            leader: process.raft.leader.map(node_id),
            committed: process.raft.commit,
            matched: process
                .raft
                .matched()
                .into_iter()
                .map(|(node, matched)| (node_id(node), matched))
                .collect::<BTreeMap<_, _>>(),
            voters: process
                .raft
                .membership()
                .1
                .voters
                .iter()
                .map(voters::ids)
                .collect(),
            learners: voters::ids(&process.raft.membership().1.learners),
            ..RaftView::default()
        };
        process.keeper.raft_hint(process.raft.kept.term, raft.leader);
        let view = process.keeper.view(now);
        let input = GovernorInput {
            state: &process.state,
            me: node_id(node),
            incarnation: process.incarnation,
            view: &view,
            raft: &raft,
        };
        let wanted = process.governor.tick(now, &input);
        if self.trace.is_some() && raft.am_leader && self.now % SECOND < 25 * MS {
            let text = format!("n{node} governs and sees {view:?}");
            self.say(|| text);
        }
        for proposal in wanted {
            match proposal {
                Proposal::Command(command) => self.propose(node, command)?,
                Proposal::TransferLeader(to) | Proposal::Members(MemberStep::HandOver(to)) => {
                    self.say(|| format!("n{node} hands leadership to {to}"));
                    self.raft(node, |raft, _, _, out| raft.transfer(place(to), out))?;
                }
                Proposal::Members(step) => self.change_members(node, &step)?,
            }
        }
        let again = if self.plan.brisk { MS / 10 } else { 25 * MS };
        self.part(node, again, Part::Govern);
        self.watch_leases()
    }

    /// Tells the cores when the lease came or went, announces the run, opens what nobody is primary of.
    pub(super) fn look(&mut self, node: Node) -> Res {
        let now = self.local(node);
        self.part(node, 20 * MS, Part::Look);
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let held = process.cell.holds(now);
        let changed = std::mem::replace(&mut process.leased, held) != held;
        let me = Identity {
            node: node_id(node),
            incarnation: process.incarnation,
        };
        let mut wanted = Vec::new();
        if process.caught_up && self.rng.one_in(3) {
            let cores = process.cores.iter().enumerate();
            let fit: BTreeMap<_, _> = cores
                .map(|(extent, core)| (glue::extent_id(extent), core.is_fit()))
                .collect();
            let unfit = holdfast_planes::unfit(&process.state, me.node, &fit, true);
            wanted.extend(process.announcer.propose(&process.state, &unfit));
        }
        if held
            && process
                .state
                .extents
                .values()
                .any(|extent| extent.primary.is_none())
        {
            let since = *process.unopened_since.get_or_insert(now);
            let late = now.since(since).as_secs() >= 2;
            let cores = &process.cores;
            let status = |id| {
                cores
                    .iter()
                    .map(ExtentCore::status)
                    .find(|status| status.extent == id)
            };
            wanted.extend(holdfast_planes::openings(&process.state, me, late, status));
        } else {
            process.unopened_since = None;
        }
        for command in wanted {
            self.propose(node, command)?;
        }
        self.place(node)?;
        if changed {
            self.feed_all(node, &Event::Tick)?;
        }
        Ok(())
    }

    /// Planned: hands over what is to be elsewhere.
    fn place(&mut self, node: Node) -> Res {
        let now = self.local(node);
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let view = process.keeper.view(now);
        let input = PlacementInput {
            state: &process.state,
            me: node_id(node),
            incarnation: process.incarnation,
            view: &view,
            stopping: false,
        };
        for (extent, to) in process.placement.tick(now, &input) {
            let found = (0..self.plan.extents.len()).find(|one| glue::extent_id(*one) == extent);
            let Some(found) = found else { continue };
            self.say(|| format!("x{found} is handed over to {to}"));
            self.feed(node, found, Event::Switchover { to })?;
        }
        Ok(())
    }
}
