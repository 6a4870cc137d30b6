//! The lease keeper: promises given, promises received, suspicions, who is heard.
//!
//! Time is this node's CLOCK_BOOTTIME and comes in as an argument. A driver reads the clock *before* it sends what [`Keeper::tick`] made
//! and *after* it received what it hands to [`Keeper::receive`]; a promise then always lasts longer at its giver than it counts here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use holdfast_types::{
    CLOCK_RATE_BOUND_DIVISOR, HEARTBEAT_EVERY, Incarnation, LeaseGeneration, Mono, NodeId, RUN_GAP, Revision,
    SuspicionId,
};

use super::peer::Peer;
use super::view::{HEARS_WITHIN, KeeperView};
use super::wire::{Ack, Datagram, Hearing, Heartbeat, RunOut};
use crate::fault::{self, Fault};
use crate::model::{ClusterState, VoterSet};

/// A longer L than this in a peer's heartbeat is not believed.
const LEASE_MAX: Duration = Duration::from_secs(60);

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a datagram.
    Send {
        /// Where the peer listens, by committed state.
        to: SocketAddr,
        /// What.
        datagram: Datagram,
    },
    /// Reset the initiators' connections of the generations up to this one, without reading what is in their buffers (L7).
    ResetConnections {
        /// The newest generation whose connections go. Connections taken while the node is suspect belong to it too.
        generation: LeaseGeneration,
        /// Why.
        cause: ResetCause,
    },
}

/// Why connections are reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetCause {
    /// A suspicion of this node was applied: its lease generation is at its end.
    Suspected,
    /// A new lease generation began.
    NewGeneration,
    /// This process did not run for so long.
    Gap(Duration),
}

#[derive(Debug, Clone, Copy)]
struct Member {
    address: SocketAddr,
    generation: LeaseGeneration,
    suspicion: Option<SuspicionId>,
}

/// See the module. One per process; a restart makes a new one.
#[derive(Debug)]
pub struct Keeper {
    me: NodeId,
    incarnation: Incarnation,
    started: Mono,
    last_run: Mono,
    listening_since: Mono,
    caught_up: bool,
    // From applied state.
    cluster: Option<u64>,
    lease: Duration,
    revision: Revision,
    voters: VoterSet,
    voters_since: Mono,
    newest_voter_set: u64,
    members: BTreeMap<NodeId, Member>,
    // From peers and for them.
    given: BTreeMap<NodeId, Mono>,
    own: Option<Mono>,
    peers: BTreeMap<NodeId, Peer>,
    reports: BTreeMap<RunOut, BTreeSet<NodeId>>,
    said: BTreeSet<RunOut>,
    seq: u64,
    next_beat: Mono,
    raft: (u64, Option<NodeId>),
}

impl Keeper {
    /// A keeper that has just started at `now`. It is silent until it gets an initialized state.
    pub fn new(me: NodeId, incarnation: Incarnation, now: Mono) -> Self {
        Self {
            me,
            incarnation,
            started: now,
            last_run: now,
            listening_since: now,
            caught_up: false,
            cluster: None,
            lease: crate::model::Settings::default().lease_time(),
            revision: Revision(0),
            voters: VoterSet::default(),
            voters_since: now,
            newest_voter_set: 0,
            members: BTreeMap::new(),
            given: BTreeMap::new(),
            own: None,
            peers: BTreeMap::new(),
            reports: BTreeMap::new(),
            said: BTreeSet::new(),
            seq: 0,
            next_beat: now,
            raft: (0, None),
        }
    }

    /// The state machine has applied entries. Called inside its apply, before the result is reported to anybody: from here on no promise
    /// is given that this state forbids.
    #[must_use]
    pub fn applied(&mut self, state: &ClusterState, now: Mono) -> Vec<Action> {
        let Some(cluster) = &state.cluster else {
            return Vec::new();
        };
        let before = self.members.get(&self.me).copied();
        self.cluster = Some(cluster.id.short());
        self.lease = state.settings.lease_time();
        self.revision = state.revision;
        if self.voters != state.voters {
            self.voters = state.voters.clone();
            self.voters_since = now;
            self.newest_voter_set = self.newest_voter_set.max(self.voters.id);
        }
        let members = state.nodes.iter().map(|(id, node)| {
            let member = Member {
                address: node.addresses.heartbeat,
                generation: node.lease_generation,
                suspicion: node.suspicion,
            };
            (*id, member)
        });
        self.members = members.collect();
        for node in state.voters.members.iter().filter(|node| **node != self.me) {
            self.peers.entry(*node).or_insert_with(|| Peer::new(now));
        }
        self.peers.retain(|node, _| state.voters.members.contains(node));
        let stands = |report: &RunOut| state.suspicion(report.node) == Some(report.suspicion);
        if !fault::on(Fault::ReportWithoutId) {
            self.reports.retain(|report, _| stands(report));
        }
        self.said.retain(stands);
        self.own_change(before)
    }

    /// L4, L7: the end of this node's own generation.
    fn own_change(&mut self, before: Option<Member>) -> Vec<Action> {
        let (Some(before), Some(after)) = (before, self.members.get(&self.me).copied()) else {
            return Vec::new();
        };
        let reset = |cause| Action::ResetConnections {
            generation: before.generation,
            cause,
        };
        if after.generation != before.generation {
            if !fault::on(Fault::NoGeneration) {
                // Acknowledgements of an older generation do not count.
                self.own = None;
                self.peers.values_mut().for_each(|peer| peer.counted = None);
            }
            vec![reset(ResetCause::NewGeneration)]
        } else if after.suspicion.is_some() && before.suspicion.is_none() {
            vec![reset(ResetCause::Suspected)]
        } else {
            Vec::new()
        }
    }

    /// L5: everything that a leader confirmed as committed after this process started is applied here.
    pub fn caught_up(&mut self) {
        self.caught_up = true;
    }

    /// What Raft knows, to be told to the peers.
    pub fn raft_hint(&mut self, term: u64, leader: Option<NodeId>) {
        self.raft = (term, leader);
    }

    /// Time passes: sends what is due, and notices that this process did not run for a while (L7).
    #[must_use]
    pub fn tick(&mut self, now: Mono) -> Vec<Action> {
        let mut out = self.ran(now);
        let Some(cluster) = self.cluster.filter(|_| self.voters.members.contains(&self.me)) else {
            return out;
        };
        let fresh = self.fresh_reports(now);
        if now < self.next_beat && fresh.is_empty() {
            return out;
        }
        for report in fresh {
            self.said.insert(report);
            self.reports.entry(report).or_default().insert(self.me);
        }
        if now >= self.next_beat {
            // In step where it can be, at once after a pause; never in a burst.
            self.next_beat = (self.next_beat + HEARTBEAT_EVERY).max(now + HEARTBEAT_EVERY / 2);
        }
        if let Some(generation) = self.generation()
            && self.give(self.me, generation, Duration::ZERO, now)
        {
            self.own = Some(now + self.countable());
        }
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        out.extend(nodes.into_iter().filter_map(|to| self.beat(cluster, to, now)));
        out
    }

    fn beat(&mut self, cluster: u64, to: NodeId, now: Mono) -> Option<Action> {
        let generation = self.generation()?;
        let address = self.members.get(&to)?.address;
        self.seq += 1;
        let heartbeat = Heartbeat {
            cluster,
            from: self.me,
            to,
            incarnation: self.incarnation,
            seq: self.seq,
            generation,
            lease_ms: u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX),
            revision: self.revision,
            voter_set: self.voters.id,
            term: self.raft.0,
            leader: self.raft.1,
            hears: self.hears(now),
            run_out: self.said.iter().copied().collect(),
        };
        self.peers.get_mut(&to)?.sent(self.seq, now, generation);
        Some(Action::Send {
            to: address,
            datagram: Datagram::Heartbeat(heartbeat),
        })
    }

    fn hears(&self, now: Mono) -> Vec<Hearing> {
        let age = |at: Option<Mono>| {
            at.map_or(u16::MAX, |at| {
                u16::try_from(now.since(at).as_millis()).unwrap_or(u16::MAX)
            })
        };
        let hearing = |(node, peer): (&NodeId, &Peer)| Hearing {
            node: *node,
            heard_ms: age(peer.heard_at()),
            both_ms: age(peer.both_at()),
        };
        self.peers.iter().map(hearing).collect()
    }

    /// A datagram came in. What is not for this node, this cluster or from a voter is dropped.
    #[must_use]
    pub fn receive(&mut self, now: Mono, datagram: &Datagram) -> Vec<Action> {
        let mut out = self.ran(now);
        match datagram {
            Datagram::Heartbeat(h) if self.is_for_me(h.cluster, h.to) => out.extend(self.heartbeat(now, h)),
            Datagram::Ack(a) if self.is_for_me(a.cluster, a.to) => self.ack(now, a),
            _ => {}
        }
        out
    }

    fn is_for_me(&self, cluster: u64, to: NodeId) -> bool {
        self.cluster == Some(cluster) && to == self.me
    }

    fn heartbeat(&mut self, now: Mono, h: &Heartbeat) -> Option<Action> {
        let peer = self.peers.get_mut(&h.from)?;
        if !peer.heard(now, h.incarnation) {
            return None;
        }
        peer.tell(now, h);
        self.newest_voter_set = self.newest_voter_set.max(h.voter_set);
        for report in &h.run_out {
            let stands = self.members.get(&report.node).and_then(|m| m.suspicion) == Some(report.suspicion);
            if stands || fault::on(Fault::ReportWithoutId) {
                self.reports.entry(*report).or_default().insert(h.from);
            }
        }
        let member = *self.members.get(&h.from)?;
        let lease = Duration::from_millis(u64::from(h.lease_ms)).min(LEASE_MAX);
        let promise = self.give(h.from, h.generation, lease, now);
        Some(Action::Send {
            to: member.address,
            datagram: Datagram::Ack(Ack {
                cluster: h.cluster,
                from: self.me,
                to: h.from,
                incarnation: self.incarnation,
                of_incarnation: h.incarnation,
                of_seq: h.seq,
                promise,
                generation: member.generation,
                voter_set: self.voters.id,
            }),
        })
    }

    /// Whether `node`, which has applied `generation` of its own lease, gets a promise now (L1, L2, L3, L5); if so it is given. It lasts
    /// for the longer of the two lease times, should the two nodes not have applied the same one.
    fn give(&mut self, node: NodeId, generation: LeaseGeneration, lease: Duration, now: Mono) -> bool {
        let Some(member) = self.members.get(&node) else {
            return false;
        };
        let caught_up = self.caught_up || fault::on(Fault::PromiseBeforeCaughtUp);
        let trusted = member.suspicion.is_none() || fault::on(Fault::SuspectStillPromised);
        let current = generation >= member.generation || fault::on(Fault::NoGeneration);
        if !(caught_up && trusted && current && self.voters.members.contains(&self.me)) {
            return false;
        }
        let until = now + self.lease.max(lease);
        let given = self.given.entry(node).or_insert(until);
        *given = until.max(*given);
        true
    }

    fn ack(&mut self, now: Mono, a: &Ack) {
        let (generation, countable) = (self.generation(), self.countable());
        let Some(peer) = self.peers.get_mut(&a.from) else {
            return;
        };
        if a.of_incarnation != self.incarnation || !peer.heard(now, a.incarnation) {
            return;
        }
        let Some((sent_at, sent_under)) = peer.sent_at(a.of_seq) else {
            return;
        };
        peer.acknowledged(now);
        self.newest_voter_set = self.newest_voter_set.max(a.voter_set);
        let current = Some(sent_under) == generation || fault::on(Fault::NoGeneration);
        if a.promise && current {
            // L2: counted from when the heartbeat was sent; the acknowledgement may have been long on its way.
            let from = if fault::on(Fault::CountedFromAck) {
                now
            } else {
                sent_at
            };
            peer.counted = peer.counted.max(Some(from + countable));
        }
    }

    /// L2: how much of L counts here, given that the giver's clock may run faster.
    fn countable(&self) -> Duration {
        if fault::on(Fault::NoDriftMargin) {
            return self.lease;
        }
        self.lease
            .saturating_sub(self.lease * 2 / CLOCK_RATE_BOUND_DIVISOR)
    }

    /// Until when this node holds the quorum lease (L2); `None` if it does not. A voter set that others know and this node does not
    /// is one it cannot count a majority of (L8). Before it has caught up it holds none either: what it has applied may be older than what
    /// it had applied before its restart, and nothing should be answered from that with authority.
    pub fn lease_until(&self, now: Mono) -> Option<Mono> {
        let caught_up = self.caught_up || fault::on(Fault::PromiseBeforeCaughtUp);
        if !caught_up || self.newest_voter_set > self.voters.id {
            return None;
        }
        let until = |node: &NodeId| {
            if *node == self.me {
                if fault::on(Fault::SelfAlwaysCounts) {
                    Some(now + LEASE_MAX)
                } else {
                    self.own
                }
            } else {
                self.peers.get(node).and_then(|peer| peer.counted)
            }
        };
        let mut live: Vec<Mono> = self.voters.members.iter().filter_map(until).collect();
        live.sort_unstable_by(|a, b| b.cmp(a));
        live.get(self.voters.majority() - 1)
            .copied()
            .filter(|until| now < *until)
    }

    /// This node's own lease generation, once it is a member.
    pub fn generation(&self) -> Option<LeaseGeneration> {
        self.members.get(&self.me).map(|member| member.generation)
    }

    /// When this keeper ran last; the lease cell shows it.
    pub const fn last_run(&self) -> Mono {
        self.last_run
    }

    /// L3, L5, L8: when this voter's promises to the suspect will have run out, if one stands.
    fn runs_out_at(&self, node: NodeId, member: &Member) -> Option<(RunOut, Mono)> {
        let suspicion = member.suspicion?;
        let mut at = self.given.get(&node).copied().unwrap_or(Mono::ZERO);
        if !fault::on(Fault::NoWaitAfterStart) {
            at = at
                .max(self.started + self.lease)
                .max(self.voters_since + self.lease);
        }
        Some((RunOut { node, suspicion }, at))
    }

    fn unsaid(&self) -> impl Iterator<Item = (RunOut, Mono)> {
        self.members
            .iter()
            .filter_map(|(node, member)| self.runs_out_at(*node, member))
            .filter(|(report, _)| !self.said.contains(report))
    }

    fn fresh_reports(&self, now: Mono) -> Vec<RunOut> {
        self.unsaid()
            .filter(|(_, at)| *at <= now)
            .map(|(report, _)| report)
            .collect()
    }

    /// When [`Self::tick`] has something to do next.
    pub fn next_wake(&self) -> Mono {
        self.unsaid().map(|(_, at)| at).fold(self.next_beat, Mono::min)
    }

    /// Every entry point passes here first: a pause is seen before anything else is done (L7).
    fn ran(&mut self, now: Mono) -> Vec<Action> {
        let gap = now.since(self.last_run);
        self.last_run = self.last_run.max(now);
        if gap > HEARS_WITHIN {
            // Nobody was silent while nobody listened.
            self.listening_since = now;
        }
        if gap > RUN_GAP
            && let Some(generation) = self.generation()
        {
            return vec![Action::ResetConnections {
                generation,
                cause: ResetCause::Gap(gap),
            }];
        }
        Vec::new()
    }

    /// What this keeper knows of the others at `now`.
    pub fn view(&self, now: Mono) -> KeeperView {
        let peers = self.peers.iter();
        KeeperView {
            peers: peers
                .map(|(node, peer)| (*node, peer.view(now, self.listening_since)))
                .collect(),
            reports: self.reports.clone(),
            caught_up: self.caught_up,
            revision: self.revision,
        }
    }
}
