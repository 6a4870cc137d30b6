//! Persistent reservations: what initiators ask for, and how a node carries it out, as `node` does: proposed, applied here, fenced at the
//! primary, then answered (P2).
//!
//! An initiator's paths are one nexus here, as if it had registered with all target ports at once.

use std::collections::{BTreeMap, VecDeque};

use holdfast_drill::checker::{self, Access, Admits, Reserve};
use holdfast_raft::model::{Command, UnitCall};
use holdfast_replication::core::api::{Event, OpId, Request};
use holdfast_scsi::reservation::{
    Held, PersistentOut, ReservationType, ServiceAction, UnitChange, UnitOutcome,
};
use holdfast_types::{
    BlockOp, CommandName, Incarnation, Isid, Nexus, NexusTag, OpOutcome, Origin, SessionInstance, TpgId,
    UnitVersion,
};

use super::clients::ClientEvent;
use super::front::FrontEvent;
use super::rng::Rng;
use super::{Ev, MS, Node, Res, SECOND, World, glue, node_id};

/// How long a change may take; nobody is told what became of it then.
const LIMIT: u64 = 3 * SECOND;
/// No session of a node has this number (F1): the names of fences.
const FENCES: u64 = u64::MAX;
/// Changes of one extent's reservations in a run at most, and those of unknown fate: the checker looks at every order.
const CHANGES_MAX: u32 = 40;
const LOST_MAX: u32 = 3;

/// What an initiator wants to be done to, or to know of, reservations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) what: Reserve,
    /// PREEMPT AND ABORT.
    pub(super) aborts: bool,
}

/// What an initiator asks for.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Block(BlockOp),
    Reserve(Wish),
}

/// Who an initiator is to reservations.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) nexus: Nexus,
    pub(super) tag: NexusTag,
}

impl Identity {
    pub(super) fn of(client: usize) -> Self {
        let name = |text: String| text.parse().expect("a name");
        let nexus = Nexus {
            initiator: name(format!("iqn.2026-01.example:c{client}")),
            isid: Isid::default(),
            target: name("iqn.2026-01.example:sim".to_owned()),
            tpg: TpgId(1),
        };
        Self {
            tag: nexus.tag(),
            nexus,
        }
    }
}

/// How much is reserved in an extent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reserving {
    changes: u32,
    pub(super) lost: u32,
}

/// A wish under way on a node.
#[derive(Debug)]
struct Job {
    client: usize,
    attempt: u64,
    extent: usize,
    wish: Wish,
    until: u64,
}

/// A run's changes of units, one of each at a time (`UnitCall`), and what waits for a fence or a confirmed position.
#[derive(Debug, Default)]
pub(super) struct Units {
    serial: u64,
    waiting: BTreeMap<usize, VecDeque<Job>>,
    active: BTreeMap<usize, (u64, Job)>,
    /// By the number of the fence.
    fences: BTreeMap<u64, (UnitVersion, Job)>,
    /// By the number of the question.
    reads: BTreeMap<u64, (Option<u64>, Job)>,
}

fn kind(access: Access) -> ReservationType {
    match (access.excludes_readers, access.admits) {
        (false, Admits::Holder) => ReservationType::WriteExclusive,
        (true, Admits::Holder) => ReservationType::ExclusiveAccess,
        (false, Admits::Registrants) => ReservationType::WriteExclusiveRegistrants,
        (true, Admits::Registrants) => ReservationType::ExclusiveAccessRegistrants,
        (false, Admits::AllRegistrants) => ReservationType::WriteExclusiveAll,
        (true, Admits::AllRegistrants) => ReservationType::ExclusiveAccessAll,
    }
}

fn access(held: &Held) -> Access {
    let admits = match (held.kind.all_registrants(), held.kind.for_registrants()) {
        (true, _) => Admits::AllRegistrants,
        (false, true) => Admits::Registrants,
        (false, false) => Admits::Holder,
    };
    Access {
        excludes_readers: held.kind.excludes_reads(),
        admits,
    }
}

/// PERSISTENT RESERVE OUT; `None` for what only reads.
fn out(wish: &Wish) -> Option<PersistentOut> {
    use ServiceAction as A;
    let (action, key, new_key, kind) = match wish.what {
        Reserve::Register { key, new, ignores } => {
            let action = if ignores {
                A::RegisterAndIgnore
            } else {
                A::Register
            };
            (action, key, new, None)
        }
        Reserve::Take { key, access } => (A::Reserve, key, 0, Some(kind(access))),
        Reserve::Release { key, access } => (A::Release, key, 0, Some(kind(access))),
        Reserve::Clear { key } => (A::Clear, key, 0, None),
        Reserve::Preempt { key, victim, access } => {
            let action = if wish.aborts {
                A::PreemptAndAbort
            } else {
                A::Preempt
            };
            (action, key, victim, Some(kind(access)))
        }
        Reserve::ReadKeys | Reserve::ReadReservation => return None,
    };
    Some(PersistentOut {
        action,
        kind,
        key,
        new_key,
        all_target_ports: false,
        aptpl: false,
        ports: Vec::new(),
        move_to: None,
        unregister: false,
    })
}

impl World {
    /// What an initiator wants next of the reservations of its extent, sometimes.
    pub(super) fn draw_wish(&mut self, client: usize, extent: usize) -> Option<Wish> {
        let done = self.reserving[extent];
        let enough = done.changes >= CHANGES_MAX || done.lost >= LOST_MAX;
        if !self.plan.reservations || enough || !self.rng.chance(3) {
            return None;
        }
        self.reserving[extent].changes += 1;
        let clients = self.plan.clients;
        let count = self.plan.extents.len();
        let (key, rng) = (client as u64 + 1, &mut self.rng);
        let access = draw_access(rng);
        let others: Vec<u64> = (0..clients)
            .filter(|other| other % count == extent && *other != client)
            .map(|other| other as u64 + 1)
            .collect();
        let what = match rng.below(100) {
            0..40 => Reserve::Register {
                key: 0,
                new: key,
                ignores: true,
            },
            40..45 => Reserve::Register {
                key,
                new: 0,
                ignores: false,
            },
            45..62 => Reserve::Take { key, access },
            62..70 => Reserve::Release { key, access },
            70..90 if !others.is_empty() => Reserve::Preempt {
                key,
                victim: rng.pick(&others),
                access,
            },
            90..93 => Reserve::Clear { key },
            93..97 => Reserve::ReadReservation,
            _ => Reserve::ReadKeys,
        };
        let aborts = rng.chance(50);
        Some(Wish { what, aborts })
    }

    /// A wish arrives at a node, over a connection that is alive.
    pub(super) fn submit_wish(
        &mut self,
        node: Node,
        (client, attempt): (usize, u64),
        extent: usize,
        wish: Wish,
    ) -> Res {
        let job = Job {
            client,
            attempt,
            extent,
            until: self.now + LIMIT,
            wish,
        };
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        if out(&job.wish).is_none() {
            let id = process.next_read();
            process.units.reads.insert(id, (None, job));
            return self.raft(node, |raft, _, _, out| {
                raft.read_index(id, out);
            });
        }
        process.units.waiting.entry(extent).or_default().push_back(job);
        self.next_change(node, extent)
    }

    /// Its turn comes when the change before it is decided, or has taken too long.
    fn next_change(&mut self, node: Node, extent: usize) -> Res {
        let now = self.now;
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let units = &mut process.units;
        if units.active.get(&extent).is_some_and(|(_, job)| job.until <= now) {
            units.active.remove(&extent);
        }
        if units.active.contains_key(&extent) {
            return Ok(());
        }
        let waiting = units.waiting.entry(extent).or_default();
        waiting.retain(|job| job.until > now);
        let Some(job) = waiting.pop_front() else {
            return Ok(());
        };
        units.serial += 1;
        units.active.insert(extent, (units.serial, job));
        self.propose_change(node, extent)
    }

    /// Proposed, and again until it is known what became of it.
    pub(super) fn propose_change(&mut self, node: Node, extent: usize) -> Res {
        let now = self.now;
        let Some(process) = self.hosts[node].process.as_ref() else {
            return Ok(());
        };
        let Some((serial, job)) = process.units.active.get(&extent) else {
            return Ok(());
        };
        if job.until <= now {
            return self.next_change(node, extent);
        }
        let Some(out) = out(&job.wish) else { return Ok(()) };
        let command = Command::Unit {
            call: UnitCall {
                node: node_id(node),
                incarnation: process.incarnation,
                serial: *serial,
            },
            extent: glue::extent_id(extent),
            by: self.clients[job.client].identity().nexus.clone(),
            change: UnitChange::Persistent(out),
        };
        let again = FrontEvent::ChangeAgain { extent };
        let (run, wait) = (self.hosts[node].run, self.rng.between(100, 300) * MS);
        self.after(wait, Ev::Front(node, run, again));
        self.propose(node, command)
    }

    /// More is applied on a node: what was decided of its changes, and what its readers wait for.
    pub(super) fn look_at_units(&mut self, node: Node) -> Res {
        if !self.plan.reservations {
            return Ok(());
        }
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let (me, state, units) = (node_id(node), &process.state, &mut process.units);
        let mut decided = Vec::new();
        for (extent, (serial, _)) in &units.active {
            let found = state.extents.get(&glue::extent_id(*extent));
            let last = found.and_then(|found| found.answered.get(&me));
            if let Some(last) = last
                && last.incarnation == process.incarnation
                && last.serial == *serial
            {
                decided.push((*extent, last.outcome, last.version));
            }
        }
        let revision = state.revision.0;
        let known = |_: &u64, read: &mut (Option<u64>, Job)| read.0.is_some_and(|index| revision >= index);
        let reads: Vec<Job> = units
            .reads
            .extract_if(.., known)
            .map(|(_, (_, job))| job)
            .collect();
        let mut answers = Vec::new();
        for job in reads {
            let Some(found) = state.extents.get(&glue::extent_id(job.extent)) else {
                continue;
            };
            let table = &found.unit.reservations;
            let outcome = match job.wish.what {
                Reserve::ReadKeys => {
                    checker::Outcome::Keys(table.registrations().iter().map(|one| one.key).collect())
                }
                _ => checker::Outcome::Held(table.held_key().zip(table.held().map(access))),
            };
            answers.push((job, outcome));
        }
        for (job, outcome) in answers {
            self.answer_wish(&job, outcome);
        }
        for (extent, outcome, version) in decided {
            let Some(process) = self.hosts[node].process.as_mut() else {
                return Ok(());
            };
            let Some((_, job)) = process.units.active.remove(&extent) else {
                continue;
            };
            match outcome {
                UnitOutcome::Good => self.fence(node, version, job)?,
                UnitOutcome::Conflict => self.answer_wish(&job, checker::Outcome::Conflict),
                _ => self.answer_wish(&job, checker::Outcome::Refused),
            }
            self.next_change(node, extent)?;
        }
        Ok(())
    }

    /// The word of the unit's primary, whoever that is by now (P2).
    fn fence(&mut self, node: Node, version: UnitVersion, job: Job) -> Res {
        let (id, now) = (self.next_op, self.local(node));
        self.next_op += 1;
        let incarnation = Incarnation(self.hosts[node].run);
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let request = Request {
            name: CommandName {
                session: SessionInstance {
                    node: node_id(node),
                    incarnation,
                    serial: FENCES,
                },
                cmd_sn: id,
            },
            received: now,
            generation: process.cell.generation(),
            origin: Origin::default(),
            op: BlockOp::Fence { version },
        };
        let extent = job.extent;
        process.units.fences.insert(id, (version, job));
        let op = OpId(id);
        self.feed(node, extent, Event::Submit { op, request })
    }

    /// Whether the answer was one to a fence.
    pub(super) fn fenced(&mut self, node: Node, op: u64, outcome: &OpOutcome) -> bool {
        let Some(process) = self.hosts[node].process.as_mut() else {
            return false;
        };
        let Some((version, job)) = process.units.fences.remove(&op) else {
            return false;
        };
        if *outcome == OpOutcome::Done {
            self.answer_wish(&job, checker::Outcome::Done);
        } else if job.until > self.now {
            process.units.fences.insert(op, (version, job));
            let run = self.hosts[node].run;
            let again = FrontEvent::FenceAgain { op };
            self.after(10 * MS, Ev::Front(node, run, again));
        }
        true
    }

    pub(super) fn fence_again(&mut self, node: Node, op: u64) -> Res {
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        match process.units.fences.remove(&op) {
            Some((version, job)) => self.fence(node, version, job),
            None => Ok(()),
        }
    }

    /// A confirmed position for somebody who reads reservations.
    pub(super) fn unit_confirmed(&mut self, node: Node, id: u64, index: u64) -> Res {
        if let Some(process) = self.hosts[node].process.as_mut()
            && let Some((found, _)) = process.units.reads.get_mut(&id)
        {
            found.get_or_insert(index);
            return self.look_at_units(node);
        }
        Ok(())
    }

    fn answer_wish(&mut self, job: &Job, outcome: checker::Outcome) {
        let (client, attempt) = (job.client, job.attempt);
        let event = ClientEvent::Reserved {
            client,
            attempt,
            outcome,
        };
        let delay = self.rng.between(MS / 20, MS / 2);
        self.after(delay, Ev::Client(event));
    }
}

fn draw_access(rng: &mut Rng) -> Access {
    Access {
        excludes_readers: rng.chance(25),
        admits: rng.pick(&[
            Admits::Holder,
            Admits::Registrants,
            Admits::Registrants,
            Admits::AllRegistrants,
        ]),
    }
}
