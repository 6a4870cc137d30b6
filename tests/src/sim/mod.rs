//! Whole clusters in one thread, under one seed and a virtual clock.
//!
//! What runs is the product's own sans-IO code: the cluster state and its commands, lease keepers, governors, and an [`ExtentCore`] for
//! every extent on every data node. Around it stand a model of Raft (`raft`, judged by `agreed`), a network, disks, and initiators
//! with several paths. A run has two phases: trouble, in which nothing acknowledged may be lost, no read be stale and no rule be seen
//! broken; then peace, in which everything must become in sync and serve.
//!
//! | file | what it holds |
//! |---|---|
//! | `plan` | what a seed makes of a run: topology, clocks, limits, which scenario |
//! | `raft`, `agreed`, `voters` | the model of Raft, what it must keep, and how its voters change |
//! | `host`, `control`, `glue` | a node: its process, its clock, the loops of its control plane, what lies between its planes |
//! | `disk`, `changes`, `storage` | what a node keeps, and what reads and writes it |
//! | `net` | datagrams, messages, links |
//! | `clients`, `front`, `units`, `history` | initiators, connections, reservations, and whether what they saw can be |
//! | `cache` | write-back: what may be lost when all memory is, and who switches it |
//! | `trouble`, `scenario`, `plays` | faults by chance, and known bad traces, varied by the seed |
//! | `takeover` | one node goes on alone, as a new incarnation of the cluster |
//! | `rules`, `hunt` | rules broken on purpose, and what notices each |
//! | `watch` | what must hold at every moment, and in the end |
//!
//! [`ExtentCore`]: holdfast_replication::core::ExtentCore

mod agreed;
mod cache;
mod changes;
mod clients;
mod control;
mod disk;
mod front;
mod glue;
mod history;
mod host;
#[cfg(feature = "faults")]
mod hunt;
mod net;
mod plan;
mod plays;
mod raft;
mod rng;
mod rules;
mod scenario;
mod storage;
mod takeover;
mod trace;
mod trouble;
mod units;
mod voters;
mod watch;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_raft::lease::Datagram;
use holdfast_raft::model::ClusterId;
use holdfast_replication::core::api::{Command as CoreCommand, Event, LinkId, Room};
use holdfast_types::NodeId;

use agreed::Agreed;
use clients::{Client, ClientEvent};
use front::FrontEvent;
use history::History;
use host::Host;
#[cfg(feature = "faults")]
pub use hunt::{Caught, hunt, look, run_broken};
use net::Net;
use plan::Plan;
pub use plan::{Broken, Options, Scenario};
use rng::Rng;
pub use rules::{Rule, Shown, rules};
use storage::DiskEvent;

/// A node by its place; its id is one more.
pub(crate) type Node = usize;
/// An error is a finding.
type Res = Result<(), String>;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// How long peace may take to bring everything back.
const PEACE: u64 = 60 * SECOND;

fn node_id(node: Node) -> NodeId {
    NodeId(node as u64 + 1)
}

fn place(node: NodeId) -> Node {
    rng::at(node.0 - 1)
}

/// Nanoseconds as milliseconds, for people.
fn ms(time: u64) -> String {
    format!("{}.{:03}", time / MS, time / 1000 % 1000)
}

#[derive(Debug)]
enum Ev {
    Datagram {
        to: Node,
        datagram: Datagram,
    },
    Rpc {
        to: Node,
        from: Node,
        /// The cluster that the sender belongs to.
        cluster: ClusterId,
        rpc: raft::Rpc,
    },
    Arrive {
        from: Node,
        to: Node,
        link: LinkId,
    },
    Dial(Node, Node),
    LinkCheck(Node, Node, LinkId),
    /// To one core of a run.
    Core {
        node: Node,
        run: u64,
        extent: usize,
        event: Event,
    },
    /// To all cores of a run.
    All {
        node: Node,
        run: u64,
        event: Event,
    },
    /// A part of a node's process has something to do.
    Part(Node, u64, Part),
    Disk(Node, u64, DiskEvent),
    Front(Node, u64, FrontEvent),
    Client(ClientEvent),
    Resume(Node),
    Start(Node),
    Crash(Node, bool),
    Trouble {
        again: bool,
    },
    /// The disk has room again.
    Roomy(Node),
    Script,
    /// The operator has something to change.
    Change,
    /// Write-back of an extent is switched off, or on again.
    SwitchCache(usize),
}

/// The loops and threads of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Keeper,
    RaftTick,
    RaftFlushed,
    Apply,
    Views,
    CatchUp,
    Govern,
    Look,
    /// The deadline of a core.
    Wake(usize, u64),
}

/// A run's end.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was found, if anything: the first line says which rule is broken.
    pub finding: Option<String>,
    /// With [`Options::trace`]: what happened, a line for each event.
    pub trace: Vec<String>,
    /// How often what happened.
    pub notes: BTreeMap<&'static str, u64>,
    /// Events carried out.
    pub events: u64,
    /// Folded over all events: the same for the same run.
    pub digest: u64,
    /// In one line: what the seed made of the run.
    pub plan: String,
    /// What was played.
    pub scenario: Scenario,
}

/// Runs one seed.
pub fn run(options: &Options) -> Outcome {
    let mut world = World::new(options);
    let (plan, scenario) = (world.plan.to_string(), world.plan.scenario);
    let done = catch_unwind(AssertUnwindSafe(|| world.run()));
    let finding = match done {
        Ok(Ok(())) => None,
        Ok(Err(what)) => Some(what),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("panic: {}", text.unwrap_or_default()))
        }
    };
    if let Some(what) = &finding {
        world.say(|| format!("FINDING: {what}"));
    }
    Outcome {
        finding,
        trace: world.trace.unwrap_or_default(),
        notes: world.notes,
        events: world.steps,
        digest: world.digest,
        plan,
        scenario,
    }
}

#[derive(Debug)]
struct World {
    rng: Rng,
    plan: Plan,
    now: u64,
    seq: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slab: Vec<Option<Ev>>,
    free: Vec<usize>,
    hosts: Vec<Host>,
    net: Net,
    agreed: Agreed,
    clients: Vec<Client>,
    histories: Vec<History>,
    /// What was put at each position of each extent's log.
    given: BTreeMap<(usize, holdfast_types::LogPos), u64>,
    script: scenario::Script,
    operator: voters::Operator,
    reserving: Vec<units::Reserving>,
    /// No more trouble.
    calm: bool,
    /// No more commands.
    quiet: bool,
    notes: BTreeMap<&'static str, u64>,
    steps: u64,
    digest: u64,
    trace: Option<Vec<String>>,
    scratch: Vec<CoreCommand>,
    next_value: u64,
    next_op: u64,
}

impl World {
    fn new(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let plan = Plan::draw(options, &mut rng);
        let log = plan.first_entries();
        let count = plan.nodes.len();
        let mut world = Self {
            now: MS,
            seq: 0,
            queue: BinaryHeap::new(),
            slab: Vec::new(),
            free: Vec::new(),
            hosts: Vec::new(),
            net: Net::new(count),
            agreed: Agreed::new(&log),
            clients: Vec::new(),
            histories: (0..plan.extents.len()).map(|_| History::new()).collect(),
            given: BTreeMap::new(),
            script: scenario::Script::new(plan.scenario, &mut rng),
            operator: voters::Operator::new(if plan.scenario.takes_over() {
                &[]
            } else {
                &plan.changes
            }),
            reserving: vec![units::Reserving::default(); plan.extents.len()],
            calm: false,
            quiet: false,
            notes: BTreeMap::new(),
            steps: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            trace: options.trace.then(Vec::new),
            scratch: Vec::new(),
            next_value: 1,
            next_op: 1,
            rng,
            plan,
        };
        world.say(|| "begins".to_owned());
        world.settle_in(&log);
        world
    }

    fn settle_in(&mut self, log: &[raft::Entry]) {
        for node in 0..self.plan.nodes.len() {
            let host = Host::new(&self.plan, node, log, &mut self.rng);
            self.hosts.push(host);
        }
        for node in 0..self.hosts.len() {
            if !self.plan.nodes[node].spare {
                self.start(node);
            }
        }
        let data: Vec<Node> = (0..self.hosts.len())
            .filter(|node| self.hosts[*node].data)
            .collect();
        for &a in &data {
            for &b in data.iter().filter(|b| a < **b) {
                self.after(MS, Ev::Dial(a, b));
            }
        }
        if self.plan.random_trouble && !self.plan.changes.is_empty() {
            let first = self.rng.between(1000, 4000) * MS;
            self.after(first, Ev::Change);
        }
        self.switch_caches();
        self.make_clients();
        let first = self.plan.first_trouble;
        if self.plan.random_trouble {
            self.after(first, Ev::Trouble { again: true });
        }
        self.after(1500 * MS, Ev::Script);
    }

    /// Those that are members.
    fn data_nodes(&self) -> Vec<Node> {
        (0..self.plan.nodes.len())
            .filter(|node| self.plan.nodes[*node].data && self.is_member(*node))
            .collect()
    }

    fn is_member(&self, node: Node) -> bool {
        self.agreed.head.nodes.contains_key(&node_id(node))
    }

    /// After so many nanoseconds.
    fn after(&mut self, delay: u64, ev: Ev) {
        self.seq += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slab[slot] = Some(ev);
                slot
            }
            None => {
                self.slab.push(Some(ev));
                self.slab.len() - 1
            }
        };
        self.queue.push(Reverse((self.now + delay, self.seq, slot)));
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10} {}", ms(self.now), text()));
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.notes.entry(what).or_default() += 1;
    }

    /// Trouble, then peace.
    fn run(&mut self) -> Res {
        let end = self.now + self.plan.trouble_for;
        self.run_until(end)?;
        self.make_peace();
        let limit = self.now + PEACE;
        let settle = self.now + 2 * SECOND;
        self.run_until(settle)?;
        while let Some(why) = self.unwell() {
            if self.now > limit {
                return Err(format!("it does not heal: {why}"));
            }
            self.run_until(self.now + 250 * MS)?;
        }
        // Initiators may wait for their path timers first.
        let from = self.now;
        let patience = self.plan.path_timer + 2 * SECOND;
        while self.served_since(from).is_err() && self.now < from + patience {
            self.run_until(self.now + 250 * MS)?;
        }
        self.served_since(from)?;
        self.quiet = true;
        let from = self.now;
        while self.open_commands() > 0 && self.now < from + patience {
            self.run_until(self.now + 250 * MS)?;
        }
        self.scrub()?;
        self.run_until(self.now + 1500 * MS)?;
        self.check_end()
    }

    fn run_until(&mut self, end: u64) -> Res {
        while let Some(Reverse((at, _, slot))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            self.free.push(slot);
            if let Some(ev) = self.slab[slot].take() {
                self.steps += 1;
                self.digest = (self.digest ^ at ^ ((slot as u64) << 48)).wrapping_mul(0x0100_0000_01b3);
                self.step(ev)?;
            }
        }
        self.now = end;
        Ok(())
    }

    /// Whose process an event is for.
    fn target(ev: &Ev) -> Option<Node> {
        match ev {
            Ev::Datagram { to, .. } | Ev::Rpc { to, .. } | Ev::Arrive { to, .. } => Some(*to),
            Ev::Core { node, .. } | Ev::All { node, .. } => Some(*node),
            Ev::Part(node, ..) | Ev::Disk(node, ..) | Ev::Front(node, ..) => Some(*node),
            _ => None,
        }
    }

    fn step(&mut self, ev: Ev) -> Res {
        if let Some(node) = Self::target(&ev)
            && self.hosts[node].is_paused(self.now)
        {
            // A stopped process does nothing; what comes for it waits.
            self.hosts[node].backlog.push(ev);
            return Ok(());
        }
        if let Ev::Core { node, .. } | Ev::All { node, .. } = &ev
            && self.hosts[*node].data_from > self.now
        {
            let wait = self.hosts[*node].data_from - self.now;
            self.after(wait, ev);
            return Ok(());
        }
        match ev {
            Ev::Datagram { to, datagram } => self.on_datagram(to, &datagram),
            Ev::Rpc { to, cluster, .. } if self.hosts[to].cluster != cluster => {
                self.count("refused after a takeover");
                Ok(())
            }
            Ev::Rpc { to, from, rpc, .. } => self.on_rpc(to, from, rpc),
            Ev::Arrive { from, to, link } => self.arrive(from, to, link),
            Ev::Dial(a, b) => {
                self.dial(a, b);
                Ok(())
            }
            Ev::LinkCheck(a, b, link) => {
                self.link_check(a, b, link);
                Ok(())
            }
            Ev::Core {
                node,
                run,
                extent,
                event,
            } if self.hosts[node].run == run => self.feed(node, extent, event),
            Ev::All { node, run, event } if self.hosts[node].run == run => self.feed_all(node, &event),
            Ev::Part(node, run, part) if self.hosts[node].run == run => self.on_part(node, part),
            Ev::Disk(node, run, event) if self.hosts[node].run == run => self.on_disk(node, event),
            Ev::Front(node, run, event) => self.on_front(node, run, event),
            Ev::Client(event) => self.on_client(event),
            Ev::Resume(node) => {
                self.resume(node);
                Ok(())
            }
            Ev::Start(node) => {
                let host = &self.hosts[node];
                if host.process.is_none() && !host.dead && (host.left || self.is_member(node)) {
                    self.start(node);
                }
                Ok(())
            }
            Ev::Crash(node, power) => {
                if !self.calm {
                    self.crash(node, power);
                }
                Ok(())
            }
            Ev::Trouble { again } => self.trouble(again),
            Ev::Roomy(node) => {
                self.set_room(node, Room::default());
                Ok(())
            }
            Ev::Script => self.script(),
            Ev::Change => self.change(),
            Ev::SwitchCache(extent) => self.switch_cache(extent),
            // For a run that has ended.
            _ => Ok(()),
        }
    }
}
