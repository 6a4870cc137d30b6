//! A model of Raft without I/O: pre-vote, elections, one log, leader transfer, confirmed reads, joint changes of the membership. What it
//! must keep is checked by [`super::agreed`], whoever breaks it.
//!
//! It stands for the real one (openraft), whose own tests are elsewhere: here it brings the orders of events that a Raft may bring.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_raft::model::{ClusterState, Command};

use super::rng::{Rng, at};
use super::voters::Membership;
use super::{MS, Node};

const BEAT: u64 = 50 * MS;
const ELECTION_MIN: u64 = 150 * MS;
const ELECTION_MAX: u64 = 300 * MS;
/// Entries of a message at most.
const BATCH: usize = 32;

/// One entry; index 1 is the first.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) term: u64,
    /// `None`: the blank one that a leader begins with, or a membership.
    pub(super) command: Option<Arc<Command>>,
    /// Who votes from here on.
    pub(super) members: Option<Arc<Membership>>,
    /// All that there is up to here: the first of a new incarnation of the cluster.
    pub(super) snapshot: Option<Arc<ClusterState>>,
}

impl Entry {
    pub(super) fn new(term: u64, command: Option<Arc<Command>>) -> Self {
        Self {
            term,
            command,
            members: None,
            snapshot: None,
        }
    }
}

/// What a voter keeps over a restart.
#[derive(Debug, Clone, Default)]
pub(super) struct Durable {
    pub(super) term: u64,
    pub(super) vote: Option<Node>,
    pub(super) log: Vec<Entry>,
}

impl Durable {
    pub(super) fn last(&self) -> (u64, u64) {
        (
            self.log.last().map_or(0, |entry| entry.term),
            self.log.len() as u64,
        )
    }

    /// The newest membership, and its place; committed or not, it counts.
    fn members(&self) -> (u64, Arc<Membership>) {
        let numbered = self.log.iter().enumerate().rev();
        let mut found =
            numbered.filter_map(|(before, entry)| Some((before as u64 + 1, entry.members.clone()?)));
        found.next().unwrap_or_default()
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        if index == 0 {
            return Some(0);
        }
        self.log.get(at(index - 1)).map(|entry| entry.term)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Rpc {
    Vote {
        term: u64,
        pre: bool,
        last: (u64, u64),
        transfer: bool,
    },
    Voted {
        term: u64,
        pre: bool,
        granted: bool,
    },
    Append {
        term: u64,
        prev: (u64, u64),
        entries: Vec<Entry>,
        commit: u64,
        round: u64,
    },
    Appended {
        term: u64,
        ok: bool,
        matched: u64,
        round: u64,
    },
    /// Leadership is handed over.
    Elect {
        term: u64,
    },
    /// What is committed by now? Answered by a leader once a majority has confirmed it.
    ReadIndex {
        id: u64,
    },
    ReadAt {
        id: u64,
        index: u64,
    },
    Propose(Arc<Command>),
}

/// A message to be sent, at once or once everything before it is stable.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) to: Node,
    pub(super) rpc: Rpc,
    pub(super) when_stable: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    next: u64,
    matched: u64,
    round: u64,
}

#[derive(Debug)]
enum Role {
    Follower,
    /// Gathers votes; `pre`: only asks whether it would get them.
    Candidate {
        pre: bool,
        votes: BTreeSet<Node>,
        transfer: bool,
    },
    Leader {
        peers: Vec<Progress>,
        round: u64,
        reads: Vec<(Node, u64, u64, u64)>,
        start: u64,
        /// A change of voters is under way, which this leader brings to its end.
        finish: bool,
    },
}

/// One voter's Raft in one run. Times are its own clock's nanoseconds.
#[derive(Debug)]
pub(super) struct Raft {
    me: Node,
    /// Nodes that there may ever be.
    count: usize,
    pub(super) kept: Durable,
    /// The newest membership in the log, and its index.
    members: (u64, Arc<Membership>),
    /// How much of the log is stable.
    stable: u64,
    /// The log was cut to this since the flush under way began.
    cut: u64,
    pub(super) leader: Option<Node>,
    pub(super) commit: u64,
    role: Role,
    heard: u64,
    due: u64,
}

impl Raft {
    pub(super) fn new(me: Node, count: usize, kept: Durable, commit: u64, now: u64, rng: &mut Rng) -> Self {
        let stable = kept.log.len() as u64;
        Self {
            me,
            count,
            members: kept.members(),
            kept,
            stable,
            cut: u64::MAX,
            leader: None,
            commit,
            role: Role::Follower,
            heard: 0,
            due: now + rng.between(ELECTION_MIN, ELECTION_MAX),
        }
    }

    /// The newest membership in the log, and its index.
    pub(super) fn membership(&self) -> (u64, &Membership) {
        (self.members.0, &self.members.1)
    }

    pub(super) fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    pub(super) fn due(&self) -> u64 {
        self.due
    }

    /// On the leader: up to where each voter's log is known to match.
    pub(super) fn matched(&self) -> Vec<(Node, u64)> {
        match &self.role {
            Role::Leader { peers, .. } => peers
                .iter()
                .enumerate()
                .map(|(node, progress)| {
                    (
                        node,
                        if node == self.me {
                            self.kept.log.len() as u64
                        } else {
                            progress.matched
                        },
                    )
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn others(&self) -> impl Iterator<Item = Node> + use<> {
        let (me, members) = (self.me, Arc::clone(&self.members.1));
        (0..self.count).filter(move |node| *node != me && members.contains(*node))
    }

    pub(super) fn tick(&mut self, now: u64, rng: &mut Rng, out: &mut Vec<Outgoing>) {
        if now < self.due {
            return;
        }
        if self.is_leader() {
            self.due = now + BEAT;
            self.broadcast(out);
        } else if !self.members.1.votes(self.me) {
            // Nobody asks for it.
            self.due = now + rng.between(ELECTION_MIN, ELECTION_MAX);
        } else {
            self.campaign(true, false, now, rng, out);
        }
    }

    fn campaign(&mut self, pre: bool, transfer: bool, now: u64, rng: &mut Rng, out: &mut Vec<Outgoing>) {
        self.due = now + rng.between(ELECTION_MIN, ELECTION_MAX);
        self.leader = None;
        if !pre {
            self.kept.term += 1;
            self.kept.vote = Some(self.me);
        }
        self.role = Role::Candidate {
            pre,
            votes: BTreeSet::from([self.me]),
            transfer,
        };
        let rpc = Rpc::Vote {
            term: self.kept.term + u64::from(pre),
            pre,
            last: self.kept.last(),
            transfer,
        };
        for to in self.others() {
            out.push(Outgoing {
                to,
                rpc: rpc.clone(),
                when_stable: !pre,
            });
        }
        let me = self.me;
        if self.members.1.is_majority(|node| node == me) {
            // There is nobody else to ask.
            if pre {
                self.campaign(false, transfer, now, rng, out);
            } else {
                self.lead(now, out);
            }
        }
    }

    fn lead(&mut self, now: u64, out: &mut Vec<Outgoing>) {
        let next = self.kept.log.len() as u64 + 1;
        let fresh = Progress {
            next,
            ..Progress::default()
        };
        self.role = Role::Leader {
            peers: vec![fresh; self.count],
            round: 0,
            reads: Vec::new(),
            start: next,
            finish: false,
        };
        self.leader = Some(self.me);
        self.kept.log.push(Entry::new(self.kept.term, None));
        self.due = now + BEAT;
        self.broadcast(out);
    }

    fn broadcast(&mut self, out: &mut Vec<Outgoing>) {
        if let Role::Leader { round, .. } = &mut self.role {
            *round += 1;
        }
        for to in self.others() {
            self.append_to(to, out);
        }
    }

    fn append_to(&mut self, to: Node, out: &mut Vec<Outgoing>) {
        let Role::Leader { peers, round, .. } = &self.role else {
            return;
        };
        let prev = peers[to].next - 1;
        let Some(term) = self.kept.term_at(prev) else {
            return;
        };
        let rpc = Rpc::Append {
            term: self.kept.term,
            prev: (term, prev),
            entries: self.kept.log.iter().skip(at(prev)).take(BATCH).cloned().collect(),
            commit: self.commit,
            round: *round,
        };
        out.push(Outgoing {
            to,
            rpc,
            when_stable: false,
        });
    }

    /// Follows a newer term.
    fn adopt(&mut self, term: u64, now: u64, rng: &mut Rng) {
        if term > self.kept.term {
            self.kept.term = term;
            self.kept.vote = None;
            if !matches!(self.role, Role::Follower) {
                self.due = now + rng.between(ELECTION_MIN, ELECTION_MAX);
            }
            self.role = Role::Follower;
            self.leader = None;
        }
    }

    /// True if this node leads and has put the command into its log.
    pub(super) fn propose(&mut self, command: Arc<Command>, out: &mut Vec<Outgoing>) -> bool {
        if !self.is_leader() {
            return false;
        }
        self.kept.log.push(Entry::new(self.kept.term, Some(command)));
        self.broadcast(out);
        true
    }

    /// Puts a membership into the log of this node, which leads; from here on it counts. Only one is under way at a time.
    pub(super) fn change(&mut self, next: Membership, finish: bool, out: &mut Vec<Outgoing>) {
        let (index, commit, joint) = (self.members.0, self.commit, next.is_joint());
        let Role::Leader {
            start,
            finish: goes_on,
            ..
        } = &mut self.role
        else {
            return;
        };
        if commit < index || commit < *start || *self.members.1 == next {
            return;
        }
        *goes_on = finish && joint;
        let next = Arc::new(next);
        self.kept.log.push(Entry {
            members: Some(Arc::clone(&next)),
            ..Entry::new(self.kept.term, None)
        });
        self.members = (self.kept.log.len() as u64, next);
        self.broadcast(out);
    }

    /// A joint membership is committed: its leader ends it. One that has no vote any more leads no longer.
    fn go_on(&mut self, now: u64, out: &mut Vec<Outgoing>) {
        if !self.is_leader() || self.commit < self.members.0 {
            return;
        }
        if self.members.1.is_joint() {
            if matches!(self.role, Role::Leader { finish: true, .. }) {
                let next = self.members.1.ended();
                self.change(next, false, out);
            }
        } else if !self.members.1.votes(self.me) {
            self.broadcast(out);
            self.role = Role::Follower;
            self.leader = None;
            self.due = now + ELECTION_MAX;
        }
    }

    /// Hands leadership over, to whoever has all that this leader has.
    pub(super) fn transfer(&mut self, to: Node, out: &mut Vec<Outgoing>) {
        if self.is_leader() && to != self.me && self.members.1.votes(to) {
            let term = self.kept.term;
            out.push(Outgoing {
                to,
                rpc: Rpc::Elect { term },
                when_stable: false,
            });
        }
    }

    /// Asks the leader, this node or another one, for a confirmed position; `false` if none is known.
    pub(super) fn read_index(&mut self, id: u64, out: &mut Vec<Outgoing>) -> bool {
        if self.is_leader() {
            self.on_read_index(self.me, id, out);
            return true;
        }
        let Some(to) = self.leader else { return false };
        out.push(Outgoing {
            to,
            rpc: Rpc::ReadIndex { id },
            when_stable: false,
        });
        true
    }

    fn on_read_index(&mut self, from: Node, id: u64, out: &mut Vec<Outgoing>) {
        let commit = self.commit;
        if let Role::Leader {
            reads, round, start, ..
        } = &mut self.role
            && commit >= *start
        {
            reads.push((from, id, commit, *round + 1));
            self.broadcast(out);
            self.answer_reads(out);
        }
    }

    /// Positions that a majority has confirmed since they were asked for.
    fn answer_reads(&mut self, out: &mut Vec<Outgoing>) {
        let (me, members) = (self.me, Arc::clone(&self.members.1));
        let Role::Leader { peers, reads, .. } = &mut self.role else {
            return;
        };
        let confirmed = |wanted: u64| members.is_majority(|node| node == me || peers[node].round >= wanted);
        for (asker, id, index, _) in reads.extract_if(.., |read| confirmed(read.3)) {
            out.push(Outgoing {
                to: asker,
                rpc: Rpc::ReadAt { id, index },
                when_stable: false,
            });
        }
    }

    /// What was in memory when a flush began is stable now; `len` is how long the log was then.
    pub(super) fn flushed(&mut self, len: u64) {
        self.stable = len.min(self.cut).min(self.kept.log.len() as u64).max(
            // What was stable before and was not cut still is.
            self.stable.min(self.cut),
        );
        self.cut = u64::MAX;
        self.advance();
    }

    /// What a leader does once more is committed.
    pub(super) fn after_commit(&mut self, now: u64, out: &mut Vec<Outgoing>) {
        self.go_on(now, out);
    }

    /// How much of the log is stable, here.
    pub(super) fn stable(&self) -> u64 {
        self.stable
    }

    pub(super) fn flush_begins(&mut self) {
        self.cut = u64::MAX;
    }

    fn advance(&mut self) {
        let Role::Leader { peers, .. } = &self.role else {
            return;
        };
        let matched = |node: Node| {
            if node == self.me {
                self.stable
            } else {
                peers[node].matched
            }
        };
        let index = self.members.1.reached_by_majority(matched);
        if index > self.commit && self.kept.term_at(index) == Some(self.kept.term) {
            self.commit = index;
        }
    }

    pub(super) fn receive(&mut self, from: Node, rpc: Rpc, now: u64, rng: &mut Rng, out: &mut Vec<Outgoing>) {
        match rpc {
            Rpc::Vote {
                term,
                pre,
                last,
                transfer,
            } => self.on_vote(from, (term, pre, transfer), last, now, rng, out),
            Rpc::Voted { term, pre, granted } => self.on_voted(from, (term, pre, granted), now, rng, out),
            Rpc::Append {
                term,
                prev,
                entries,
                commit,
                round,
            } => self.on_append((from, term, round), (prev, commit), entries, now, rng, out),
            Rpc::Appended {
                term,
                ok,
                matched,
                round,
            } => self.on_appended(from, (term, ok, matched, round), now, rng, out),
            Rpc::Elect { term } => {
                if term == self.kept.term && !self.is_leader() {
                    self.campaign(false, true, now, rng, out);
                }
            }
            Rpc::ReadIndex { id } => self.on_read_index(from, id, out),
            Rpc::Propose(command) => {
                self.propose(command, out);
            }
            Rpc::ReadAt { .. } => {}
        }
    }

    fn on_vote(
        &mut self,
        from: Node,
        (term, pre, transfer): (u64, bool, bool),
        last: (u64, u64),
        now: u64,
        rng: &mut Rng,
        out: &mut Vec<Outgoing>,
    ) {
        // Who hears a leader stays with it.
        let loyal = !transfer
            && (self.is_leader() || self.leader.is_some() && now.saturating_sub(self.heard) < ELECTION_MAX);
        let mut granted = !loyal && last >= self.kept.last();
        if pre {
            granted &= term > self.kept.term;
        } else if !loyal {
            self.adopt(term, now, rng);
            granted &= term == self.kept.term && self.kept.vote.is_none_or(|vote| vote == from);
            if granted {
                self.kept.vote = Some(from);
                self.due = now + rng.between(ELECTION_MIN, ELECTION_MAX);
            }
        }
        let term = if granted { term } else { self.kept.term };
        out.push(Outgoing {
            to: from,
            rpc: Rpc::Voted { term, pre, granted },
            when_stable: !pre,
        });
    }

    fn on_voted(
        &mut self,
        from: Node,
        (term, pre, granted): (u64, bool, bool),
        now: u64,
        rng: &mut Rng,
        out: &mut Vec<Outgoing>,
    ) {
        if !granted {
            return self.adopt(term, now, rng);
        }
        let members = Arc::clone(&self.members.1);
        let own = self.kept.term + u64::from(pre);
        let Role::Candidate {
            pre: asking,
            votes,
            transfer,
        } = &mut self.role
        else {
            return;
        };
        if *asking != pre || term != own {
            return;
        }
        votes.insert(from);
        if !members.is_majority(|node| votes.contains(&node)) {
            return;
        }
        if pre {
            let transfer = *transfer;
            return self.campaign(false, transfer, now, rng, out);
        }
        self.lead(now, out);
    }

    fn on_append(
        &mut self,
        (from, term, round): (Node, u64, u64),
        (prev, commit): ((u64, u64), u64),
        entries: Vec<Entry>,
        now: u64,
        rng: &mut Rng,
        out: &mut Vec<Outgoing>,
    ) {
        let fresh = term > self.kept.term;
        self.adopt(term, now, rng);
        let mut answer = |term, ok, matched, when_stable| {
            out.push(Outgoing {
                to: from,
                rpc: Rpc::Appended {
                    term,
                    ok,
                    matched,
                    round,
                },
                when_stable,
            });
        };
        if term < self.kept.term {
            return answer(self.kept.term, false, 0, false);
        }
        self.leader = Some(from);
        self.role = Role::Follower;
        self.heard = now;
        self.due = now + rng.between(ELECTION_MIN, ELECTION_MAX);
        if self.kept.term_at(prev.1) != Some(prev.0) {
            let hint = self.commit.min(prev.1.saturating_sub(1));
            return answer(term, false, hint, fresh);
        }
        let mut index = prev.1;
        for entry in entries {
            index += 1;
            match self.kept.term_at(index) {
                Some(known) if known == entry.term => continue,
                Some(_) => {
                    self.kept.log.truncate(at(index - 1));
                    self.stable = self.stable.min(index - 1);
                    self.cut = self.cut.min(index - 1);
                    self.members = self.kept.members();
                }
                None => {}
            }
            if let Some(members) = &entry.members {
                self.members = (index, Arc::clone(members));
            }
            self.kept.log.push(entry);
        }
        answer(term, true, index, fresh || index > self.stable);
        self.commit = self.commit.max(commit.min(index));
    }

    fn on_appended(
        &mut self,
        from: Node,
        (term, ok, matched, round): (u64, bool, u64, u64),
        now: u64,
        rng: &mut Rng,
        out: &mut Vec<Outgoing>,
    ) {
        if term > self.kept.term {
            return self.adopt(term, now, rng);
        }
        if term < self.kept.term {
            return;
        }
        let (len, before) = (self.kept.log.len() as u64, self.commit);
        let Role::Leader { peers, .. } = &mut self.role else {
            return;
        };
        let peer = &mut peers[from];
        peer.round = peer.round.max(round);
        let behind = if ok {
            peer.matched = peer.matched.max(matched);
            let behind = peer.next <= matched && matched < len;
            peer.next = peer.next.max(peer.matched + 1);
            behind
        } else {
            peer.next = (matched + 1).max(peer.matched + 1);
            true
        };
        self.answer_reads(out);
        self.advance();
        if self.commit > before {
            self.broadcast(out);
        } else if behind {
            self.append_to(from, out);
        }
    }
}
