//! What a seed makes of a run.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_raft::fault::Fault as ControlFault;
use holdfast_raft::model::{
    AdminCommand, ClusterId, Command, Init, NewExtent, NewNode, NodeAddresses, Role, SecondaryAccess,
};
use holdfast_replication::core::api::{Config, Policy};
use holdfast_replication::fault::Fault as DataFault;
use holdfast_scsi::fault::Fault as UnitFault;
use holdfast_types::{BlockSize, IscsiName};

use super::glue::extent_id;
use super::raft::Entry;
use super::rng::Rng;
use super::voters::{self, Change, Membership};
use super::{MS, Node, SECOND, node_id};

pub use super::scenario::Scenario;

/// A rule that is broken on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// In the control plane.
    Control(ControlFault),
    /// In the data plane.
    Data(DataFault),
    /// In what an initiator sees of a unit.
    Unit(UnitFault),
    /// J1: recovery takes a damaged journal for one with a torn tail.
    RecoveryOverDamage,
    /// J2: a failed flush is tried again, and what it dropped is forgotten.
    FlushRetried,
    /// I10: checksums of blocks are not looked at.
    SumsIgnored,
    /// An assumption, not a rule: clocks run off by more than the bound, or stand still with their machine.
    ClockBeyondBound,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything comes from it.
    pub seed: u64,
    /// `None`: as the seed says.
    pub scenario: Option<Scenario>,
    /// Keep a line for each event.
    pub trace: bool,
    /// The driver's rules that are broken; those of the cores are switched on by the caller, in this thread.
    pub broken: Option<Broken>,
}

impl Options {
    /// A seed, with nothing special.
    pub fn seed(seed: u64) -> Self {
        Self {
            seed,
            scenario: None,
            trace: false,
            broken: None,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct PlannedNode {
    pub(super) data: bool,
    /// It is no member in the beginning.
    pub(super) spare: bool,
    /// Of its clock: local nanoseconds in a true millisecond.
    pub(super) rate: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: Vec<PlannedNode>,
    /// Replicas of each extent.
    pub(super) extents: Vec<Vec<Node>>,
    pub(super) config: Config,
    pub(super) policy: Policy,
    pub(super) scenario: Scenario,
    pub(super) random_trouble: bool,
    /// Trouble comes right when something delicate begins.
    pub(super) guided: bool,
    pub(super) first_trouble: u64,
    pub(super) trouble_for: u64,
    /// Between two faults at most.
    pub(super) trouble_every: u64,
    pub(super) clients: usize,
    pub(super) think: u64,
    /// An initiator gives a path up after so long.
    pub(super) path_timer: u64,
    /// Longest time for a hash.
    pub(super) hash_time: u64,
    pub(super) checkpoint_every: u64,
    /// Everything that the cluster decides is decided at once.
    pub(super) brisk: bool,
    /// Extents whose reads are confirmed (W4).
    pub(super) confirmed: Vec<bool>,
    /// Extents with write-back in the beginning (W5).
    pub(super) write_back: Vec<bool>,
    /// Clocks run off by more than the bound, or stand still with their machine: no lease proves anything.
    pub(super) lying: bool,
    /// Initiators reserve their extents.
    pub(super) reservations: bool,
    /// What the operator changes while the cluster runs, in this order.
    pub(super) changes: Vec<Change>,
    pub(super) broken: Option<Broken>,
}

/// The cluster's id, until a takeover.
pub(super) const FIRST_CLUSTER: ClusterId = ClusterId(0x51);
/// Blocks of an extent: the smallest there is.
pub(super) const BLOCKS: u64 = 2048;
/// The unit of comparison, in blocks.
pub(super) const RANGE: u64 = 128;

impl Plan {
    pub(super) fn draw(options: &Options, rng: &mut Rng) -> Self {
        let scenario = options
            .scenario
            .unwrap_or_else(|| Scenario::draw(options.seed, rng));
        let (data, witness, replicas) = match rng.below(10) {
            _ if scenario.wants_trio() => (2, 1, 2),
            _ if scenario.wants_three_replicas() => (3, 0, 3),
            0..5 => (2, 1, 2),
            5..7 => (3, 0, 3),
            7..9 => (3, 0, 2),
            _ => (4, 1, if rng.chance(50) { 2 } else { 3 }),
        };
        let extents = rng.between(1, if data > 2 { 3 } else { 2 });
        // With confirmed reads a lie makes nothing stale; without them it must be noticed.
        let beyond = options.broken == Some(Broken::ClockBeyondBound);
        let lying = beyond || scenario.is_of_lies() || (scenario.takes_lies() && rng.chance(8));
        let confirmed = (0..extents)
            .map(|_| !beyond && (lying || rng.chance(25)))
            .collect();
        let (nodes, changes) = draw_nodes(scenario, (data, witness), lying, rng);
        let write_back = draw_write_back(options, scenario, extents);
        let extents: Vec<Vec<Node>> = (0..extents)
            .map(|extent| {
                (0..replicas)
                    .map(|replica| (super::rng::at(extent) + replica) % data)
                    .collect()
            })
            .collect();
        let production = rng.chance(15);
        Self {
            seed: options.seed,
            config: config(production, rng),
            policy: policy(production),
            path_timer: match (production, lying) {
                (true, true) => 8 * SECOND,
                (true, false) => 6 * SECOND,
                (false, _) => 3200 * MS,
            },
            confirmed,
            write_back,
            lying,
            reservations: rng.chance(30),
            nodes,
            scenario,
            random_trouble: scenario.takes_trouble() && (scenario == Scenario::None || rng.chance(30)),
            guided: rng.chance(50),
            first_trouble: rng.between(1200, 3000) * MS,
            trouble_for: (rng.between(7, 12) + scenario.takes_longer()) * SECOND,
            trouble_every: rng.pick(&[300, 800, 2000]) * MS,
            clients: extents.len() * 3,
            think: rng.pick(&[6, 20, 60]) * MS / if scenario.is_cached() { 3 } else { 1 },
            extents,
            hash_time: rng.pick(&[2, 60]) * MS,
            checkpoint_every: rng.pick(&[200, 1000, 4000]) * MS,
            brisk: scenario.is_brisk(),
            changes,
            broken: options.broken,
        }
    }

    /// The cluster's first entries, which everybody has applied in the beginning.
    pub(super) fn first_entries(&self) -> Vec<Entry> {
        let nodes = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, planned)| !planned.spare)
            .map(|(node, planned)| new_node(node, planned.data))
            .collect();
        let init = Command::Init(Init {
            name: "simulated".into(),
            id: FIRST_CLUSTER,
            nodes,
        });
        let mut commands = vec![init];
        for (extent, replicas) in self.extents.iter().enumerate() {
            let replicas: BTreeSet<_> = replicas.iter().map(|node| node_id(*node)).collect();
            commands.push(Command::CreateExtent(NewExtent {
                id: extent_id(extent),
                name: format!("x{extent}"),
                size_bytes: BLOCKS * 512,
                block_size: BlockSize::B512,
                thin: true,
                on_devices: false,
                confirmed_reads: self.confirmed[extent],
                write_cache: self.write_back[extent],
                preferred: replicas.first().copied(),
                replicas,
                secondary: SecondaryAccess::NonOptimized,
            }));
        }
        if let Ok(name) = "iqn.2026-01.example:sim".parse::<IscsiName>() {
            commands.push(Command::CreateTarget { name });
        }
        let spares = (0..self.nodes.len()).filter(|node| self.nodes[*node].spare);
        commands.extend(spares.map(|node| AdminCommand::AddToken(voters::token(node)).into()));
        let mut entries: Vec<Entry> = commands
            .into_iter()
            .map(|command| Entry::new(1, Some(Arc::new(command))))
            .collect();
        let first = (0..self.nodes.len()).filter(|node| !self.nodes[*node].spare);
        entries.push(Entry {
            members: Some(Arc::new(Membership::of(first))),
            ..Entry::new(1, None)
        });
        entries
    }
}

/// Drawn beside everything else, so that a seed without write-back is what it was before there was any.
fn draw_write_back(options: &Options, scenario: Scenario, extents: u64) -> Vec<bool> {
    let mut rng = Rng::new(!options.seed);
    let on = |extent: u64| rng.chance(35) || (extent == 0 && scenario.is_cached());
    (0..extents).map(on).collect()
}

/// The nodes with their clocks, and what the operator changes, which spares are for.
fn draw_nodes(
    scenario: Scenario,
    (data, witness): (usize, usize),
    lying: bool,
    rng: &mut Rng,
) -> (Vec<PlannedNode>, Vec<Change>) {
    let rate = |rng: &mut Rng| {
        if lying {
            rng.pick(&[600_000, 1_000_000, 1_400_000])
        } else {
            rng.pick(&[1_000_000, 999_000, 1_001_000, 999_500, 1_000_400])
        }
    };
    let mut nodes: Vec<PlannedNode> = (0..data + witness)
        .map(|node| PlannedNode {
            data: node < data,
            spare: false,
            rate: rate(rng),
        })
        .collect();
    let changes = voters::draw(scenario, data, data + witness, rng);
    for change in &changes {
        if let Some(data) = change.brings() {
            let (spare, rate) = (true, rate(rng));
            nodes.push(PlannedNode { data, spare, rate });
        }
    }
    if scenario.is_brisk() {
        nodes.iter_mut().for_each(|node| node.rate = 1_001_000);
        nodes[0].rate = 999_000;
    }
    if scenario.is_of_lies() {
        nodes.iter_mut().for_each(|node| node.rate = 1_600_000);
        nodes[0].rate = 400_000;
    }
    (nodes, changes)
}

fn policy(production: bool) -> Policy {
    let usual = Policy::default();
    if production {
        return usual;
    }
    Policy {
        stuck_after: Duration::from_millis(1500),
        ..usual
    }
}

fn config(production: bool, rng: &mut Rng) -> Config {
    let usual = Config {
        keep_bytes: rng.pick(&[16 << 10, 256 << 10, 8 << 20]),
        resync_range_bytes: RANGE * 512,
        resync_piece_bytes: 16 * 512,
        resync_in_flight: 2,
        resync_busy_bytes: 32 * 512,
        ..Config::default()
    };
    if production {
        return usual;
    }
    Config {
        hold_limit: Duration::from_millis(1000),
        switchover_limit: Duration::from_millis(500),
        absent_after: Duration::from_millis(400),
        fate_limit: Duration::from_millis(200),
        fetch_after: Duration::from_millis(300),
        ..usual
    }
}

pub(super) fn new_node(node: Node, data: bool) -> NewNode {
    let port = |base: u16| {
        let node = u16::try_from(node + 1).unwrap_or(u16::MAX);
        SocketAddr::from(([127, 0, 0, 1], base + node))
    };
    NewNode {
        id: node_id(node),
        name: format!("n{node}"),
        role: if data { Role::Data } else { Role::Witness },
        addresses: NodeAddresses {
            raft: port(1000),
            replication: data.then(|| port(2000)),
            spare_replication: Vec::new(),
            admin: None,
            heartbeat: port(4000),
            portals: if data { vec![port(3260)] } else { Vec::new() },
        },
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.nodes.iter().filter(|node| node.data).count();
        write!(
            f,
            "seed {}: {data} data nodes, {} witness, {} extents of {} replicas, {:?}, random trouble {}, changes {:?}, \
             confirmed reads {:?}, write-back {:?}, lying clocks {}, reservations {}",
            self.seed,
            self.nodes.len() - data,
            self.extents.len(),
            self.extents[0].len(),
            self.scenario,
            self.random_trouble,
            self.changes,
            self.confirmed,
            self.write_back,
            self.lying,
            self.reservations,
        )
    }
}
