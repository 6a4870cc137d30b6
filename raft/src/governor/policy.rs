//! The policy, sans-IO: what a node sees goes in, what it should propose comes out. It is called every few ten milliseconds.
//!
//! Nothing here is needed for safety: every proposal is checked when it is applied, and promises protect reads. It decides when things
//! move, and that they do not move back and forth.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_types::{ExtentId, Incarnation, Mono, NodeId, SILENT_AFTER, SuspicionId};

use super::chores::{Chore, chores};
use super::members::MemberStep;
use super::seat::{Seat, has_caught_up};
use crate::fault::{self, Fault};
use crate::lease::{KeeperView, PeerView, RunOut};
use crate::model::{Candidate, ClusterState, Command, Extent};

/// A suspect that is back is cleared after it was heard this long, the first time (L4).
const CLEAR_AFTER: Duration = Duration::from_secs(1);
/// That time doubles with each relapse, up to this many times.
const DOUBLINGS_MAX: u32 = 5;
/// Suspected again within this many times the time it had to wait is a relapse; later is a new story.
const RELAPSE_WITHIN: u32 = 10;
/// The same proposal is made again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// Leadership is handed on at most this often by one node.
const TRANSFER_AFTER: Duration = Duration::from_secs(1);
/// How long a new epoch is held back for an in-sync member that is neither heard nor suspect yet.
const HOLD_BACK_MAX: Duration = Duration::from_secs(1);

/// What Raft knows, on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RaftView {
    /// Whether this node leads.
    pub am_leader: bool,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Log index of the newest committed entry.
    pub committed: u64,
    /// On the leader: up to which log index each follower's log is known to match.
    pub matched: BTreeMap<NodeId, u64>,
    /// On the leader: how long each node takes to store an entry, as measured lately; followers with their round trip.
    pub store: BTreeMap<NodeId, Duration>,
    /// Who votes, by the newest membership in this node's log: two sets while it is joint.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// Who gets the log without a vote.
    pub learners: BTreeSet<NodeId>,
}

/// What a governor looks at.
#[derive(Debug, Clone, Copy)]
pub struct GovernorInput<'a> {
    /// The applied cluster state.
    pub state: &'a ClusterState,
    /// This node.
    pub me: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// What its keeper sees.
    pub view: &'a KeeperView,
    /// What Raft sees.
    pub raft: &'a RaftView,
}

/// What should be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// Propose this command.
    Command(Command),
    /// Hand leadership to that voter.
    TransferLeader(NodeId),
    /// Change Raft's membership by one step (L8).
    Members(MemberStep),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Matter {
    Suspect(NodeId),
    NewEpoch(SuspicionId),
    Clear(SuspicionId),
    Transfer,
    Chore(Chore),
}

/// How often a node has relapsed, as this governor watched it.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    suspicion: Option<SuspicionId>,
    cleared_at: Option<Mono>,
    cleared_run: Option<Incarnation>,
    relapses: u32,
}

impl Record {
    /// How long the node has to be heard in its run `run` before it is cleared. A process that was started anew is no link that comes and
    /// goes: it waits as for the first time.
    fn wait(&self, run: Option<Incarnation>) -> Duration {
        let doublings = if self.cleared_run == run {
            self.relapses.min(DOUBLINGS_MAX)
        } else {
            0
        };
        CLEAR_AFTER * (1 << doublings)
    }

    fn cleared(&mut self, now: Mono, run: Option<Incarnation>) {
        if self.cleared_run != run {
            self.relapses = 0;
        }
        self.cleared_run = run;
        self.cleared_at = Some(now);
    }

    fn suspected(&mut self, now: Mono) {
        let Some(at) = self.cleared_at else { return };
        let relapse = now.since(at) <= self.wait(self.cleared_run) * RELAPSE_WITHIN;
        self.relapses = if relapse { self.relapses + 1 } else { 0 };
    }
}

/// One per node. Every node watches, only the leader proposes.
#[derive(Debug, Default)]
pub struct Governor {
    records: BTreeMap<NodeId, Record>,
    proposed: BTreeMap<Matter, Mono>,
    ready_since: BTreeMap<SuspicionId, Mono>,
    turns: usize,
    seat: Seat,
}

impl Governor {
    /// A governor that has watched nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at everything once.
    pub fn tick(&mut self, now: Mono, input: &GovernorInput<'_>) -> Vec<Proposal> {
        self.watch(now, input);
        self.seat.watch(now, input.raft.am_leader);
        if !input.raft.am_leader || !input.state.voters.contains(input.me) {
            return Vec::new();
        }
        if !is_majority(input, PeerView::is_heard) {
            // Nothing could be committed now, and what lay in the log until the others are back would come too late to be true.
            return self.give_up(now, input);
        }
        let mut wanted = self.new_epochs(now, input);
        wanted.extend(self.clearings(input));
        let absent = absent(input);
        if fault::on(Fault::NoSuspectStep) {
            wanted.extend(absent.into_iter().map(|wish| taken_at_once(input, wish)));
        } else {
            wanted.extend(absent);
        }
        if wanted.is_empty() {
            wanted.extend(chores(input).map(|(chore, proposal)| (Matter::Chore(chore), proposal)));
            wanted.extend(self.settle(now, input));
        }
        let fresh = wanted.into_iter().filter(|(matter, _)| self.is_due(now, matter));
        fresh.map(|(_, proposal)| proposal).collect()
    }

    /// L6: leadership rests where it serves best.
    fn settle(&mut self, now: Mono, input: &GovernorInput<'_>) -> Option<(Matter, Proposal)> {
        let to = self.seat.move_to(now, input)?;
        self.seat.moved(now);
        Some((Matter::Transfer, Proposal::TransferLeader(to)))
    }

    /// A leader that hears no majority while Raft still has it lead (only heartbeats are lost) can decide nothing about anybody. Somebody
    /// else may see more; whoever is tried in vain now is tried again after the others.
    fn give_up(&mut self, now: Mono, input: &GovernorInput<'_>) -> Vec<Proposal> {
        if is_majority(input, |peer| peer.silent_both < SILENT_AFTER) {
            return Vec::new();
        }
        let fit = |node: &&NodeId| !input.state.is_suspect(**node) && has_caught_up(input, **node);
        let others: Vec<NodeId> = input.view.peers.keys().filter(fit).copied().collect();
        if others.is_empty() || !self.is_due(now, &Matter::Transfer) {
            return Vec::new();
        }
        self.turns += 1;
        vec![Proposal::TransferLeader(others[self.turns % others.len()])]
    }

    fn is_due(&mut self, now: Mono, matter: &Matter) -> bool {
        let again = if *matter == Matter::Transfer {
            TRANSFER_AFTER
        } else {
            AGAIN_AFTER
        };
        let due = self.proposed.get(matter).is_none_or(|at| now.since(*at) >= again);
        if due {
            self.proposed.insert(matter.clone(), now);
        }
        due
    }

    /// Keeps count of relapses (L4), on every node, so that the next leader knows too.
    fn watch(&mut self, now: Mono, input: &GovernorInput<'_>) {
        let state = input.state;
        for (id, node) in &state.nodes {
            let record = self.records.entry(*id).or_default();
            if node.suspicion == record.suspicion {
                continue;
            }
            if record.suspicion.is_some() {
                record.cleared(now, run_of(input, *id));
            }
            if node.suspicion.is_some() {
                record.suspected(now);
            }
            record.suspicion = node.suspicion;
        }
        self.records.retain(|id, _| state.nodes.contains_key(id));
        let stands = |id: &SuspicionId| state.nodes.values().any(|n| n.suspicion == Some(*id));
        self.ready_since.retain(|id, _| stands(id));
        self.proposed.retain(|_, at| now.since(*at) < TRANSFER_AFTER * 2);
    }

    /// L3, second commit: a majority has reported the promises to a suspect as run out, naming the suspicion.
    fn new_epochs(&mut self, now: Mono, input: &GovernorInput<'_>) -> Vec<(Matter, Proposal)> {
        let state = input.state;
        let mut out = Vec::new();
        for (suspect, node) in &state.nodes {
            let Some(suspicion) = node.suspicion else { continue };
            let lost: Vec<(ExtentId, &Extent)> = state
                .extents
                .iter()
                .filter(|(_, e)| e.primary == Some(*suspect))
                .map(|(id, e)| (*id, e))
                .collect();
            if lost.is_empty()
                || !is_reported(
                    input,
                    RunOut {
                        node: *suspect,
                        suspicion,
                    },
                )
            {
                continue;
            }
            let candidates = candidates(input, suspicion, &lost);
            let since = *self.ready_since.entry(suspicion).or_insert(now);
            if now.since(since) < HOLD_BACK_MAX && lost.iter().any(|e| is_undecided(input, *e, &candidates)) {
                continue;
            }
            let command = Command::NewEpoch {
                suspect: *suspect,
                suspicion,
                candidates,
                voters: state.voters.id,
            };
            out.push((Matter::NewEpoch(suspicion), Proposal::Command(command)));
        }
        out
    }

    /// L4: back, both ways, for a while, and it knows that it was suspect.
    fn clearings(&self, input: &GovernorInput<'_>) -> Vec<(Matter, Proposal)> {
        let mut out = Vec::new();
        for (id, node) in &input.state.nodes {
            let Some(suspicion) = node.suspicion else { continue };
            let record = self.records.get(id).copied().unwrap_or_default();
            let wait = record.wait(run_of(input, *id));
            let peers = &input.view.peers;
            let back = if *id == input.me {
                // A leader that was suspected by its predecessor clears itself on the word of a majority.
                is_majority(input, |peer| peer.both_for >= wait)
            } else {
                let knows = |revision: u64| revision >= suspicion.0;
                peers.get(id).is_some_and(|p| {
                    p.both_for >= wait && p.told.as_ref().is_some_and(|told| knows(told.revision.0))
                })
            };
            if back {
                let command = Command::ClearSuspect { node: *id, suspicion };
                out.push((Matter::Clear(suspicion), Proposal::Command(command)));
            }
        }
        out
    }
}

/// The run that a node is in, as far as it is known here.
fn run_of(input: &GovernorInput<'_>, node: NodeId) -> Option<Incarnation> {
    if node == input.me {
        return Some(input.incarnation);
    }
    input.view.peers.get(&node).and_then(|peer| peer.incarnation)
}

/// L3: a majority of the newest voter set says so.
fn is_reported(input: &GovernorInput<'_>, wanted: RunOut) -> bool {
    let named = input.view.reports.iter().filter(|(report, _)| {
        let same = report.suspicion == wanted.suspicion || fault::on(Fault::ReportWithoutId);
        report.node == wanted.node && same
    });
    let who: BTreeSet<NodeId> = named.flat_map(|(_, who)| who).copied().collect();
    let voters = &input.state.voters;
    if fault::on(Fault::OneReportIsEnough) {
        return who.iter().any(|node| voters.contains(*node));
    }
    voters.is_majority(|node| who.contains(&node))
}

/// Whether this node and the voters of whom `counts` holds are a majority.
fn is_majority(input: &GovernorInput<'_>, counts: impl Fn(&PeerView) -> bool) -> bool {
    let peers = &input.view.peers;
    let voters = &input.state.voters;
    voters.is_majority(|node| node == input.me || peers.get(&node).is_some_and(&counts))
}

/// Who may be promoted: heard both ways, in the run that it has announced, not suspect, in sync with something that was lost, and able to
/// serve it as far as it has said (J1, J2). First who has applied the suspicion (it will not have to catch up before it serves), then who
/// is in sync for most, then by id.
fn candidates(
    input: &GovernorInput<'_>,
    suspicion: SuspicionId,
    lost: &[(ExtentId, &Extent)],
) -> Vec<Candidate> {
    let mut ranked: Vec<_> = input
        .state
        .nodes
        .keys()
        .filter(|node| !input.state.is_suspect(**node))
        .filter_map(|node| {
            let (incarnation, revision) = if *node == input.me {
                (input.incarnation, input.view.revision.0)
            } else {
                let peer = input.view.peers.get(node).filter(|peer| peer.is_heard())?;
                (
                    peer.incarnation?,
                    peer.told.as_ref().map_or(0, |told| told.revision.0),
                )
            };
            let shares = lost
                .iter()
                .filter(|(id, _)| input.state.may_reign(*node, *id))
                .count();
            let announced = input.state.node(*node)?.incarnation == Some(incarnation);
            let rank = (revision < suspicion.0, std::cmp::Reverse(shares), *node);
            (announced && shares > 0).then_some((
                rank,
                Candidate {
                    node: *node,
                    incarnation,
                },
            ))
        })
        .collect();
    ranked.sort_unstable_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Nobody to promote yet, but a member of the in-sync set that could serve is not suspect, and not heard or not announced: that will be
/// told apart in a moment.
fn is_undecided(
    input: &GovernorInput<'_>,
    (id, extent): (ExtentId, &Extent),
    candidates: &[Candidate],
) -> bool {
    let fit = |node: NodeId| input.state.may_reign(node, id);
    let served = candidates.iter().any(|c| fit(c.node));
    !served && extent.in_sync.iter().any(|node| fit(*node))
}

/// L6: voters that the leader misses. One that a better-placed voter hears is that voter's to lead; nobody is suspected then.
fn absent(input: &GovernorInput<'_>) -> Vec<(Matter, Proposal)> {
    let missing = input
        .view
        .peers
        .iter()
        .filter(|(_, peer)| peer.silent_both >= SILENT_AFTER);
    let mut out = Vec::new();
    for (node, _) in missing {
        match better_placed(input, *node) {
            Some(to) if has_caught_up(input, to) => {
                return vec![(Matter::Transfer, Proposal::TransferLeader(to))];
            }
            // It will have, in a moment; nobody is suspected meanwhile.
            Some(_) => {}
            None if !input.state.is_suspect(*node) => {
                let generation = input
                    .state
                    .nodes
                    .get(node)
                    .map(|n| n.lease_generation)
                    .unwrap_or_default();
                let command = Command::Suspect {
                    node: *node,
                    generation,
                };
                out.push((Matter::Suspect(*node), Proposal::Command(command)));
            }
            None => {}
        }
    }
    out
}

/// What a leader without the suspicion step would want in its place.
fn taken_at_once(input: &GovernorInput<'_>, wish: (Matter, Proposal)) -> (Matter, Proposal) {
    let (Matter::Suspect(suspect), _) = wish else {
        return wish;
    };
    let suspicion = SuspicionId(0);
    let extents = input.state.extents.iter();
    let lost: Vec<_> = extents
        .filter(|(_, extent)| extent.primary == Some(suspect))
        .map(|(id, extent)| (*id, extent))
        .collect();
    let command = Command::NewEpoch {
        suspect,
        suspicion,
        candidates: candidates(input, suspicion, &lost),
        voters: input.state.voters.id,
    };
    (Matter::Suspect(suspect), Proposal::Command(command))
}

/// A voter that hears `missed` and everybody whom this node hears: it sees strictly more. Leadership that only ever moves to who sees
/// strictly more cannot go round in circles.
fn better_placed(input: &GovernorInput<'_>, missed: NodeId) -> Option<NodeId> {
    if fault::on(Fault::SuspectsWhomOthersHear) {
        return None;
    }
    let peers = &input.view.peers;
    let sees_more = |to: &NodeId| {
        peers[to].says_it_hears(missed)
            && peers[to].says_it_hears(input.me)
            && peers
                .iter()
                .all(|(other, p)| other == to || !p.is_heard() || peers[to].says_it_hears(*other))
    };
    peers
        .iter()
        .filter(|(node, peer)| peer.is_heard() && !input.state.is_suspect(**node))
        .map(|(node, _)| *node)
        .find(|node| sees_more(node))
}
