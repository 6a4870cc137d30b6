//! A node: its clock, its process, and what is fed to its parts. The loops of its control plane are in [`super::control`].

use holdfast_planes::Announcer;
use holdfast_raft::governor::{Governor, Placement};
use holdfast_raft::lease::{Action, Datagram, Keeper, LeaseCell};
use holdfast_raft::model::{ClusterId, ClusterState};
use holdfast_replication::core::ExtentCore;
use holdfast_replication::core::api::{Ctx, Event, Identity, Room};
use holdfast_types::{Incarnation, Mono};

use super::disk::{Disk, Replica};
use super::front::Front;
use super::plan::{self, BLOCKS, Plan};
use super::raft::{Durable, Entry, Raft, Rpc};
use super::rng::{Rng, at};
use super::units::Units;
use super::{Ev, MS, Node, Part, Res, SECOND, World, agreed, glue, node_id, trace};

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
    pub(super) fn when(self, local: u64) -> u64 {
        let span = local.saturating_sub(self.offset);
        span / self.rate * MS + span % self.rate * MS / self.rate + 1
    }
}

/// A round of confirmed reads: asked under that number, and up to where everything must be given to the extents (W4).
#[derive(Debug)]
pub(super) struct Confirm {
    pub(super) extent: usize,
    pub(super) round: u64,
    pub(super) id: u64,
    pub(super) index: Option<u64>,
}

/// One run of a node's process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) incarnation: Incarnation,
    pub(super) keeper: Keeper,
    pub(super) cell: LeaseCell,
    pub(super) governor: Governor,
    pub(super) placement: Placement,
    pub(super) state: ClusterState,
    pub(super) raft: Raft,
    raft_wake: bool,
    /// Messages that wait for the next flush of the Raft log.
    pub(super) raft_waiting: Vec<(Node, Rpc)>,
    /// What a flush under way writes, and what may be sent then.
    pub(super) raft_flush: Option<(Durable, Vec<(Node, Rpc)>)>,
    pub(super) raft_stable: u64,
    read_id: u64,
    /// The newest question about what is to be caught up with.
    pub(super) catch_id: u64,
    pub(super) catch_up: Option<u64>,
    /// Rounds of confirmed reads that the cluster is asked for.
    pub(super) confirms: Vec<Confirm>,
    /// Revision of the views that the extents were given last.
    pub(super) viewed: u64,
    pub(super) units: Units,
    pub(super) caught_up: bool,
    pub(super) cores: Vec<ExtentCore>,
    wakes: Vec<u64>,
    pub(super) views_due: bool,
    pub(super) leased: bool,
    pub(super) unopened_since: Option<Mono>,
    pub(super) announcer: Announcer,
    pub(super) front: Front,
}

impl Process {
    /// A number for a question about what is committed.
    pub(super) fn next_read(&mut self) -> u64 {
        self.read_id += 1;
        self.read_id
    }

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
    /// When a run of it ended last; 0: never.
    pub(super) died: u64,
    /// The process is stopped until then.
    pub(super) paused: u64,
    pub(super) backlog: Vec<Ev>,
    /// What comes for its extents meanwhile waits until then: the backlog comes first.
    pub(super) data_from: u64,
    /// Entries applied, as the disk has it.
    pub(super) applied: u64,
    /// Applies nothing before this.
    pub(super) apply_after: u64,
    /// Applies nothing behind that entry before that time.
    pub(super) apply_only: (u64, u64),
    /// Views reach the data plane no sooner.
    pub(super) views_after: u64,
    /// A shrink that it asked for as primary may come to be until then: with that it counts on itself.
    pub(super) shrinks_until: u64,
    /// How many entries the next start finds its applied state behind.
    pub(super) back: u64,
    /// The incarnation of the cluster that its directory belongs to.
    pub(super) cluster: ClusterId,
    /// A takeover has left it behind; its directory is as it was.
    pub(super) left: bool,
    /// It does not start any more.
    pub(super) dead: bool,
}

impl Host {
    pub(super) fn new(plan: &Plan, node: Node, log: &[Entry], rng: &mut Rng) -> Self {
        let planned = &plan.nodes[node];
        let extents = if planned.data { plan.extents.len() } else { 0 };
        // One that comes later begins with nothing.
        let log = if planned.spare { &[] } else { log };
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
            died: 0,
            paused: 0,
            backlog: Vec::new(),
            data_from: 0,
            applied: log.len() as u64,
            apply_after: 0,
            apply_only: (0, 0),
            views_after: 0,
            shrinks_until: 0,
            back: 0,
            cluster: plan::FIRST_CLUSTER,
            left: false,
            dead: false,
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

    pub(super) fn part(&mut self, node: Node, delay: u64, part: Part) {
        let run = self.hosts[node].run;
        self.after(delay, Ev::Part(node, run, part));
    }

    /// A new process on what the disk holds.
    pub(super) fn start(&mut self, node: Node) {
        let now = self.local(node);
        let count = self.plan.nodes.len();
        let host = &mut self.hosts[node];
        host.run = (host.run / 100 + 1) * 100 + node as u64 + 1;
        let incarnation = Incarnation(host.run);
        let back = std::mem::take(&mut host.back);
        let log = &host.disk.raft.log;
        let snapshot = log.iter().rposition(|entry| entry.snapshot.is_some());
        host.applied = host
            .applied
            .saturating_sub(back)
            .max(snapshot.map_or(0, |before| before as u64 + 1))
            .min(log.len() as u64);
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
        keeper.voters_in_log(raft.membership().0);
        let process = Process {
            incarnation,
            keeper,
            cell: LeaseCell::default(),
            governor: Governor::new(),
            placement: Placement::new(),
            state,
            raft,
            raft_wake: false,
            raft_waiting: Vec::new(),
            raft_flush: None,
            raft_stable,
            read_id: 0,
            catch_id: 0,
            catch_up: None,
            confirms: Vec::new(),
            viewed: 0,
            units: Units::default(),
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
        let room = self.hosts[node].disk.room;
        if room != Room::default() {
            let run = self.hosts[node].run;
            let event = Event::Room {
                node: node_id(node),
                room,
            };
            self.after(MS, Ev::All { node, run, event });
        }
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
        self.memory_lost(node);
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
        if self.plan.lying && time < 1200 * MS && self.rng.chance(50) {
            // A virtual machine that is stopped together with its clock; not for so long that commands come back to life (W1).
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

    pub(super) fn act(&mut self, node: Node, actions: Vec<Action>) {
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
