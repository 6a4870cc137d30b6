//! A node: its clock, its process, and the loops that tie its planes together.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_planes::Announcer;
use holdfast_raft::governor::{Governor, GovernorInput, Proposal, RaftView};
use holdfast_raft::lease::{Action, Datagram, Keeper, LeaseCell};
use holdfast_raft::model::{ClusterState, Command};
use holdfast_replication::core::ExtentCore;
use holdfast_replication::core::api::{Ctx, Event, Identity};
use holdfast_types::{Incarnation, Mono};

use super::disk::{Disk, Replica};
use super::front::Front;
use super::plan::{BLOCKS, Plan};
use super::raft::{Durable, Entry, Outgoing, Raft, Rpc};
use super::rng::{Rng, at};
use super::{Ev, MS, Node, Part, Res, SECOND, World, agreed, glue, node_id, place, trace};

/// A clock of its own: `rate` local nanoseconds in each true millisecond, from `offset` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) rate: u64,
    pub(super) offset: u64,
}

impl Clock {
    fn local(self, now: u64) -> Mono {
        let whole = now / MS * self.rate;
        let rest = now % MS * self.rate / MS;
        Mono::from_nanos(self.offset + whole + rest)
    }

    /// The true time at which the clock shows at least `local`.
    fn when(self, local: u64) -> u64 {
        let span = local.saturating_sub(self.offset);
        span / self.rate * MS + span % self.rate * MS / self.rate + 1
    }
}

/// One run of a node's process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) incarnation: Incarnation,
    pub(super) keeper: Keeper,
    pub(super) cell: LeaseCell,
    governor: Governor,
    pub(super) state: ClusterState,
    pub(super) raft: Raft,
    raft_wake: bool,
    /// Messages that wait for the next flush of the Raft log.
    raft_waiting: Vec<(Node, Rpc)>,
    /// What a flush under way writes, and what may be sent then.
    raft_flush: Option<(Durable, Vec<(Node, Rpc)>)>,
    raft_stable: u64,
    read_id: u64,
    catch_up: Option<u64>,
    caught_up: bool,
    pub(super) cores: Vec<ExtentCore>,
    wakes: Vec<u64>,
    views_due: bool,
    leased: bool,
    unopened_since: Option<Mono>,
    announcer: Announcer,
    pub(super) front: Front,
}

impl Process {
    pub(super) fn ctx(&self, now: Mono) -> Ctx {
        holdfast_planes::ctx(&self.cell, now)
    }

    fn publish(&self, now: Mono) {
        let generation = self.keeper.generation().unwrap_or_default();
        self.cell
            .publish(self.keeper.lease_until(now), generation, self.keeper.last_run());
    }
}

/// A machine.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) data: bool,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) process: Option<Process>,
    /// The newest run's incarnation.
    pub(super) run: u64,
    /// The process is stopped until then.
    pub(super) paused: u64,
    pub(super) backlog: Vec<Ev>,
    /// What comes for its extents meanwhile waits until then: the backlog comes first.
    pub(super) data_from: u64,
    /// Entries applied, as the disk has it.
    pub(super) applied: u64,
    /// Applies nothing before this.
    pub(super) apply_after: u64,
    /// Views reach the data plane no sooner.
    pub(super) views_after: u64,
    /// A shrink that it asked for as primary may come to be until then: with that it counts on itself.
    pub(super) shrinks_until: u64,
    /// How many entries the next start finds its applied state behind.
    pub(super) back: u64,
}

impl Host {
    pub(super) fn new(plan: &Plan, node: Node, log: &[Entry], rng: &mut Rng) -> Self {
        let planned = &plan.nodes[node];
        let extents = if planned.data { plan.extents.len() } else { 0 };
        Self {
            data: planned.data,
            clock: Clock {
                rate: planned.rate,
                offset: rng.below(1000 * SECOND),
            },
            disk: Disk {
                raft: Durable {
                    term: 1,
                    vote: None,
                    log: log.to_vec(),
                },
                replicas: (0..extents).map(|_| Replica::new(BLOCKS)).collect(),
                failed: vec![false; extents],
                ..Disk::default()
            },
            process: None,
            run: 0,
            paused: 0,
            backlog: Vec::new(),
            data_from: 0,
            applied: log.len() as u64,
            apply_after: 0,
            views_after: 0,
            shrinks_until: 0,
            back: 0,
        }
    }

    pub(super) fn is_paused(&self, now: u64) -> bool {
        self.paused > now
    }
}

impl World {
    pub(super) fn local(&self, node: Node) -> Mono {
        self.hosts[node].clock.local(self.now)
    }

    fn part(&mut self, node: Node, delay: u64, part: Part) {
        let run = self.hosts[node].run;
        self.after(delay, Ev::Part(node, run, part));
    }

    /// A new process on what the disk holds.
    pub(super) fn start(&mut self, node: Node) {
        let now = self.local(node);
        let count = self.hosts.len().max(self.plan.nodes.len());
        let host = &mut self.hosts[node];
        host.run = (host.run / 100 + 1) * 100 + node as u64 + 1;
        let incarnation = Incarnation(host.run);
        let back = std::mem::take(&mut host.back);
        host.applied = host
            .applied
            .saturating_sub(back)
            .min(host.disk.raft.log.len() as u64);
        let state = agreed::replay(&host.disk.raft.log[..at(host.applied)]);
        let kept = host.disk.raft.clone();
        let raft_stable = kept.log.len() as u64;
        let raft = Raft::new(node, count, kept, host.applied, now.as_nanos(), &mut self.rng);
        let me = Identity {
            node: node_id(node),
            incarnation,
        };
        host.disk.replicas.iter_mut().for_each(Replica::doubt);
        let cores: Vec<ExtentCore> = host
            .disk
            .replicas
            .iter()
            .enumerate()
            .map(|(extent, replica)| {
                ExtentCore::new(
                    me,
                    glue::extent_id(extent),
                    self.plan.config.clone(),
                    replica.found.clone(),
                )
            })
            .collect();
        let mut keeper = Keeper::new(me.node, incarnation, now);
        let _ = keeper.applied(&state, now);
        let process = Process {
            incarnation,
            keeper,
            cell: LeaseCell::default(),
            governor: Governor::new(),
            state,
            raft,
            raft_wake: false,
            raft_waiting: Vec::new(),
            raft_flush: None,
            raft_stable,
            read_id: 0,
            catch_up: None,
            caught_up: false,
            wakes: vec![u64::MAX; cores.len()],
            cores,
            views_due: false,
            leased: false,
            unopened_since: None,
            announcer: Announcer::new(me),
            front: Front::default(),
        };
        process.publish(now);
        host.process = Some(process);
        self.say(|| format!("n{node} starts in run {incarnation}, {back} entries back"));
        self.begin_loops(node);
    }

    fn begin_loops(&mut self, node: Node) {
        let jitter = self.rng.below(20 * MS);
        self.part(node, 1, Part::Keeper);
        self.part(node, MS, Part::RaftTick);
        self.part(node, MS + jitter, Part::CatchUp);
        self.part(node, 2 * MS + jitter, Part::Govern);
        if let Some(process) = self.hosts[node].process.as_mut() {
            process.raft_wake = true;
            process.views_due = true;
        }
        self.part(node, MS, Part::Views);
        self.part(node, 3 * MS + jitter, Part::Look);
        self.begin_checkpoints(node);
    }

    /// The process dies; with `power` everything does that is not stable.
    pub(super) fn crash(&mut self, node: Node, power: bool) {
        if self.hosts[node].process.is_none() {
            return;
        }
        self.say(|| format!("n{node} dies, power {power}"));
        self.count("crash");
        for (a, b, _) in self.links_of(node) {
            self.break_link(a, b);
        }
        self.front_dies(node);
        let host = &mut self.hosts[node];
        if let Some(process) = host.process.take()
            && let Some((flush, _)) = process.raft_flush
            && self.rng.chance(50)
        {
            host.disk.raft = flush;
        }
        host.disk.crash(power, &mut self.rng);
        host.paused = 0;
        host.backlog.clear();
        host.run += 1;
        let after = if self.rng.chance(30) {
            self.rng.between(300, 4000)
        } else {
            self.rng.between(5, 300)
        };
        self.after(after * MS, Ev::Start(node));
    }

    /// The process is stopped for a while.
    pub(super) fn pause(&mut self, node: Node, time: u64) {
        if self.hosts[node].process.is_none() || self.hosts[node].is_paused(self.now) {
            return;
        }
        self.say(|| format!("n{node} is stopped for {} ms", time / MS));
        self.count("pause");
        self.hosts[node].paused = self.now + time;
        self.after(time, Ev::Resume(node));
        for (a, b, link) in self.links_of(node) {
            let patience = self.rng.between(1000, 1500) * MS;
            self.after(patience, Ev::LinkCheck(a, b, link));
        }
        if self.plan.broken == Some(super::Broken::ClockBeyondBound) && self.rng.chance(50) {
            // A virtual machine that is stopped together with its clock.
            let host = &mut self.hosts[node];
            let lost = host
                .clock
                .local(self.now + time)
                .since(host.clock.local(self.now));
            host.clock.offset = host
                .clock
                .offset
                .saturating_sub(u64::try_from(lost.as_nanos()).unwrap_or(0));
        }
    }

    /// It goes on: which thread runs first is chance; each finds what waits for it in order.
    pub(super) fn resume(&mut self, node: Node) {
        if self.hosts[node].is_paused(self.now) || self.hosts[node].process.is_none() {
            return;
        }
        self.say(|| format!("n{node} goes on"));
        let [heartbeats, control, data, front] = [(); 4].map(|()| self.rng.below(2 * MS));
        self.hosts[node].data_from = self.now + data;
        for ev in std::mem::take(&mut self.hosts[node].backlog) {
            let delay = match &ev {
                Ev::Datagram { .. } | Ev::Part(_, _, Part::Keeper) => heartbeats,
                Ev::Rpc { .. } | Ev::Part(..) => control,
                Ev::Front(..) => front,
                _ => data,
            };
            self.after(delay, ev);
        }
    }

    pub(super) fn on_part(&mut self, node: Node, part: Part) -> Res {
        match part {
            Part::Keeper => self.keep(node),
            Part::RaftTick => self.raft_tick(node)?,
            Part::RaftFlushed => self.raft_flushed(node)?,
            Part::Apply => self.apply_entries(node)?,
            Part::Views => self.give_views(node)?,
            Part::CatchUp => self.catch_up(node)?,
            Part::Govern => self.govern(node)?,
            Part::Look => self.look(node)?,
            Part::Wake(extent, when) => {
                if let Some(process) = self.hosts[node].process.as_mut()
                    && process.wakes[extent] == when
                {
                    process.wakes[extent] = u64::MAX;
                    self.feed(node, extent, Event::Tick)?;
                }
            }
        }
        Ok(())
    }

    /// The heartbeat thread.
    fn keep(&mut self, node: Node) {
        let now = self.local(node);
        let Some(process) = self.hosts[node].process.as_mut() else {
            return;
        };
        let actions = process.keeper.tick(now);
        let next = process.keeper.next_wake();
        self.act(node, actions);
        let wait = self.hosts[node]
            .clock
            .when(next.as_nanos())
            .saturating_sub(self.now);
        let least = if self.plan.brisk { MS / 50 } else { MS };
        self.part(node, wait.clamp(least, 10 * MS), Part::Keeper);
    }

    pub(super) fn on_datagram(&mut self, node: Node, datagram: &Datagram) -> Res {
        let now = self.local(node);
        if let Some(process) = self.hosts[node].process.as_mut() {
            let actions = process.keeper.receive(now, datagram);
            self.act(node, actions);
        }
        Ok(())
    }

    fn act(&mut self, node: Node, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to, datagram } => {
                    let to = usize::from(to.port()) - 4001;
                    self.send_datagram(node, to, datagram);
                }
                Action::ResetConnections { cause, .. } => {
                    self.say(|| format!("n{node} resets its connections: {cause:?}"));
                    self.count("connections reset");
                    self.reset_connections(node);
                }
            }
        }
        let now = self.local(node);
        if let Some(process) = self.hosts[node].process.as_ref() {
            process.publish(now);
        }
    }

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

    fn raft_flushed(&mut self, node: Node) -> Res {
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

    fn raft_tick(&mut self, node: Node) -> Res {
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
            if id == process.read_id && process.catch_up.is_none() {
                process.catch_up = Some(index);
                self.look_caught_up(node);
            }
            return Ok(());
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
    fn apply_entries(&mut self, node: Node) -> Res {
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
        let commit = process.raft.commit;
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
    fn catch_up(&mut self, node: Node) -> Res {
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        if process.catch_up.is_some() {
            return Ok(());
        }
        process.read_id += 1;
        let id = process.read_id;
        self.raft(node, |raft, _, _, out| {
            raft.read_index(id, out);
        })?;
        self.part(node, 60 * MS, Part::CatchUp);
        Ok(())
    }

    /// The newest applied state goes to the extents.
    fn give_views(&mut self, node: Node) -> Res {
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
                let found = process.state.extents.get(&glue::extent_id(extent))?;
                let view = holdfast_planes::view(&process.state, found, policy);
                Some((extent, Arc::new(view)))
            })
            .collect();
        for (extent, view) in views {
            self.feed(node, extent, Event::View(view))?;
        }
        Ok(())
    }

    fn govern(&mut self, node: Node) -> Res {
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
                Proposal::TransferLeader(to) => {
                    self.say(|| format!("n{node} hands leadership to {to}"));
                    self.raft(node, |raft, _, _, out| raft.transfer(place(to), out))?;
                }
                // The membership of the simulated Raft is not changed.
                Proposal::Members(_) => {}
            }
        }
        let again = if self.plan.brisk { MS / 10 } else { 25 * MS };
        self.part(node, again, Part::Govern);
        self.watch_leases()
    }

    /// Tells the cores when the lease came or went, announces the run, opens what nobody is primary of.
    fn look(&mut self, node: Node) -> Res {
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
        if changed {
            self.feed_all(node, &Event::Tick)?;
        }
        Ok(())
    }

    pub(super) fn feed_all(&mut self, node: Node, event: &Event) -> Res {
        let count = self.hosts[node].process.as_ref().map_or(0, |p| p.cores.len());
        for extent in 0..count {
            self.feed(node, extent, event.clone())?;
        }
        Ok(())
    }

    /// One event for a core; its commands are carried out.
    pub(super) fn feed(&mut self, node: Node, extent: usize, event: Event) -> Res {
        let now = self.local(node);
        if self.trace.is_some() && self.hosts[node].process.is_some() {
            let text = trace::event(&event);
            self.say(|| format!("n{node} x{extent} <- {text}"));
        }
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let ctx = process.ctx(now);
        let mut out = std::mem::take(&mut self.scratch);
        process.cores[extent].handle(&ctx, event, &mut out);
        let deadline = process.cores[extent].deadline();
        let mut done = Ok(());
        for command in out.drain(..) {
            if done.is_ok() {
                done = self.carry_out(node, extent, command);
            }
        }
        self.scratch = out;
        done?;
        let Some(at) = deadline.map(|at| self.hosts[node].clock.when(at.as_nanos()).max(self.now + 1)) else {
            return Ok(());
        };
        if let Some(process) = self.hosts[node].process.as_mut()
            && at < process.wakes[extent]
        {
            process.wakes[extent] = at;
            let wait = at - self.now;
            self.part(node, wait, Part::Wake(extent, at));
        }
        Ok(())
    }
}
