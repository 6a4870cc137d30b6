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
    /// The longest lease time that a promise of an earlier run may have had (L2, L5).
    lease_wait: Duration,
    revision: Revision,
    voters: VoterSet,
    /// When other voters were applied than at the start.
    voters_since: Option<Mono>,
    /// The newest voter set in this node's Raft log, committed or not (L8).
    voters_in_log: u64,
    members: BTreeMap<NodeId, Member>,
    // From peers and for them.
    given: BTreeMap<NodeId, Mono>,
    own: Option<(Mono, Duration)>,
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
            lease_wait: crate::model::Settings::default().lease_wait(),
            revision: Revision(0),
            voters: VoterSet::default(),
            voters_since: None,
            voters_in_log: 0,
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
        self.lease_wait = state.settings.lease_wait();
        self.revision = state.revision;
        if self.voters != state.voters {
            let same =
                self.voters.members == state.voters.members && self.voters.outgoing == state.voters.outgoing;
            if !same && self.voters.id > 0 {
                self.voters_since = Some(now);
            }
            self.voters = state.voters.clone();
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
        for node in state.voters.all().into_iter().filter(|node| *node != self.me) {
            self.peers.entry(node).or_insert_with(|| Peer::new(now));
        }
        self.peers.retain(|node, _| state.voters.contains(*node));
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
                self.peers.values_mut().for_each(|peer| peer.promised = None);
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

    /// L8: the newest voter set in this node's Raft log is `id`. To be called before an entry that holds one is acknowledged to anybody:
    /// from here on promises name it, and one who does not know it yet counts none of them.
    pub fn voters_in_log(&mut self, id: u64) {
        self.voters_in_log = id;
    }

    /// The newest voter set that this node's promises name.
    fn named_voters(&self) -> u64 {
        self.voters_in_log.max(self.voters.id)
    }

    /// What Raft knows, to be told to the peers.
    pub fn raft_hint(&mut self, term: u64, leader: Option<NodeId>) {
        self.raft = (term, leader);
    }

    /// Time passes: sends what is due, and notices that this process did not run for a while (L7).
    #[must_use]
    pub fn tick(&mut self, now: Mono) -> Vec<Action> {
        let mut out = self.ran(now);
        let Some(cluster) = self.cluster.filter(|_| self.voters.contains(self.me)) else {
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
            && self.give(self.me, generation, self.lease, now)
            && self.knows(self.named_voters())
        {
            self.own = Some((now, self.lease));
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
            voter_set: self.named_voters(),
            term: self.raft.0,
            leader: self.raft.1,
            hears: self.hears(now),
            run_out: self.said.iter().copied().collect(),
        };
        let lease = self.lease;
        self.peers.get_mut(&to)?.sent(self.seq, now, generation, lease);
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
        peer.voters = h.voter_set;
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
                voter_set: self.named_voters(),
            }),
        })
    }

    /// Whether `node`, which has applied `generation` of its own lease and counts with `lease`, gets a promise now (L1, L2, L3, L5); if so
    /// it is given. It lasts for the longer of the two lease times, should the two nodes not have applied the same one.
    fn give(&mut self, node: NodeId, generation: LeaseGeneration, lease: Duration, now: Mono) -> bool {
        let Some(member) = self.members.get(&node) else {
            return false;
        };
        let caught_up = self.caught_up || fault::on(Fault::PromiseBeforeCaughtUp);
        let trusted = member.suspicion.is_none() || fault::on(Fault::SuspectStillPromised);
        let current = generation >= member.generation || fault::on(Fault::NoGeneration);
        if !(caught_up && trusted && current && self.voters.contains(self.me)) {
            return false;
        }
        let until = now + self.lease.max(lease);
        let given = self.given.entry(node).or_insert(until);
        *given = until.max(*given);
        true
    }

    fn ack(&mut self, now: Mono, a: &Ack) {
        let (generation, knows) = (self.generation(), self.knows(a.voter_set));
        let Some(peer) = self.peers.get_mut(&a.from) else {
            return;
        };
        if a.of_incarnation != self.incarnation || !peer.heard(now, a.incarnation) {
            return;
        }
        let Some(sent) = peer.sent_at(a.of_seq) else {
            return;
        };
        peer.acknowledged(now);
        peer.voters = a.voter_set;
        let current = Some(sent.generation) == generation || fault::on(Fault::NoGeneration);
        if a.promise && current && knows {
            // L2: counted from when the heartbeat was sent; the acknowledgement may have been long on its way.
            let from = if fault::on(Fault::CountedFromAck) {
                now
            } else {
                sent.at
            };
            peer.promised = peer.promised.max(Some((from, sent.lease)));
        }
    }

    /// L8: a voter set that this node has not applied is one that it cannot count a majority of.
    fn knows(&self, voters: u64) -> bool {
        voters <= self.voters.id || fault::on(Fault::VotersUnnamed)
    }

    /// L2: until when a promise counts that was asked for at `from` with `lease`: never for longer than was asked for, nor than the lease
    /// time in force, and for a little less, since the giver's clock may run faster.
    fn counts_until(&self, (from, lease): (Mono, Duration)) -> Mono {
        let lease = if fault::on(Fault::OlderLeaseCounted) {
            lease
        } else {
            lease.min(self.lease)
        };
        if fault::on(Fault::NoDriftMargin) {
            return from + lease;
        }
        from + lease.saturating_sub(lease * 2 / CLOCK_RATE_BOUND_DIVISOR)
    }

    /// Until when this node holds the quorum lease (L2); `None` if it does not. A voter set that others know and this node does not
    /// is one it cannot count a majority of (L8). Before it has caught up it holds none either: what it has applied may be older than what
    /// it had applied before its restart, and nothing should be answered from that with authority.
    pub fn lease_until(&self, now: Mono) -> Option<Mono> {
        let caught_up = self.caught_up || fault::on(Fault::PromiseBeforeCaughtUp);
        let newer = self.peers.values().any(|peer| !self.knows(peer.voters));
        if !caught_up || newer || !self.voters.contains(self.me) {
            return None;
        }
        let until = |node: &NodeId| {
            if *node != self.me {
                return self
                    .peers
                    .get(node)?
                    .promised
                    .map(|promise| self.counts_until(promise));
            }
            if fault::on(Fault::SelfAlwaysCounts) {
                return Some(now + LEASE_MAX);
            }
            self.own.map(|promise| self.counts_until(promise))
        };
        let of = |set: &BTreeSet<NodeId>| {
            let mut live: Vec<Mono> = set.iter().filter_map(until).collect();
            live.sort_unstable_by(|a, b| b.cmp(a));
            live.get(set.len() / 2).copied()
        };
        let mut until = of(&self.voters.members)?;
        if self.voters.is_joint() {
            until = until.min(of(&self.voters.outgoing)?);
        }
        Some(until).filter(|until| now < *until)
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
            at = at.max(self.started + self.lease_wait);
        }
        if let Some(changed) = self.voters_since
            && !fault::on(Fault::NoWaitAfterVoters)
        {
            at = at.max(changed + self.lease_wait);
        }
        Some((RunOut { node, suspicion }, at))
    }

    /// L5: nothing is reported before this run has caught up. What the run before had promised, it had promised under what it had applied;
    /// only then are the lease time and the voters known here that were known there.
    fn unsaid(&self) -> impl Iterator<Item = (RunOut, Mono)> {
        let caught_up = self.caught_up || fault::on(Fault::ReportBeforeCaughtUp);
        self.members
            .iter()
            .filter(move |_| caught_up)
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
