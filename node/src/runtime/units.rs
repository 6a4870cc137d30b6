//! Changes of units' state: proposed, applied here, fenced at the primary, and known to every node that lives, before they are answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use holdfast_raft::consensus::ProposeError;
use holdfast_raft::model::{Command, Reply, Role, UnitCall};
use holdfast_replication::core::api::{OpId, Request};
use holdfast_scsi::reservation::{UnitChange, UnitOutcome};
use holdfast_types::{
    BlockOp, CommandName, ExtentId, LeaseGeneration, Nexus, OpOutcome, Origin, Revision, SILENT_AFTER,
    SessionInstance, UnitVersion,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::control::Parts;
use crate::front::{
    Backend, ConnectionId, FrontState, Inbound, Registry, UnitAnswer, UnitJob, UnitWant, Units,
};

/// Between two tries of something that another node has to do first.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// No session of a node has this number (F1): the names of the cluster's own operations.
const OWN: u64 = u64::MAX;

/// See the module.
#[derive(Clone)]
pub(crate) struct UnitService(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) parts: Parts,
    backend: Arc<dyn Backend>,
    registry: Arc<Registry>,
    state: watch::Receiver<Arc<FrontState>>,
    runtime: tokio::runtime::Handle,
    serial: AtomicU64,
    /// One change of a unit at a time, in the order in which they are asked for: a proposal that is made again is told from a new one by
    /// that (see `UnitCall`), and the end of a nexus comes before what the next session of that nexus wants.
    turns: Mutex<HashMap<ExtentId, Arc<tokio::sync::Mutex<()>>>>,
    me: ConnectionId,
    /// Own operations that storage has.
    waiting: Mutex<BTreeMap<OpId, oneshot::Sender<OpOutcome>>>,
    op_serial: AtomicU64,
}

impl UnitService {
    pub(super) fn new(
        parts: Parts,
        backend: Arc<dyn Backend>,
        registry: Arc<Registry>,
        state: watch::Receiver<Arc<FrontState>>,
    ) -> Self {
        // Storage answers to connections; this is one without a socket.
        let (me, inbound) = registry.connect();
        let service = Self(Arc::new(Inner {
            parts,
            backend,
            registry,
            state,
            runtime: tokio::runtime::Handle::current(),
            serial: AtomicU64::new(1),
            turns: Mutex::default(),
            me,
            waiting: Mutex::default(),
            op_serial: AtomicU64::new(1),
        }));
        service.0.runtime.spawn(hear(Arc::downgrade(&service.0), inbound));
        service
    }

    /// A change that an administrator asks for.
    pub(crate) async fn change(
        &self,
        extent: ExtentId,
        by: Nexus,
        change: UnitChange,
    ) -> anyhow::Result<UnitOutcome> {
        let limit = Duration::from_secs(10);
        match tokio::time::timeout(limit, self.0.change(extent, by, change, true)).await {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) | Err(_) => {
                anyhow::bail!("the cluster did not answer in time; look whether it was done")
            }
        }
    }
}

/// Storage's answers to own operations.
async fn hear(service: std::sync::Weak<Inner>, mut inbound: mpsc::UnboundedReceiver<Inbound>) {
    while let Some(message) = inbound.recv().await {
        let Some(service) = service.upgrade() else { return };
        if let Inbound::Completed(op, outcome) = message
            && let Some(waiting) = service
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&op)
        {
            // Whoever asked may have given up.
            let _ = waiting.send(outcome);
        }
    }
}

impl Units for UnitService {
    fn ask(&self, job: UnitJob) {
        let inner = Arc::clone(&self.0);
        let limit = job.deadline.since((inner.parts.clock)());
        let turn = inner.turn(job.extent);
        self.0.runtime.spawn(async move {
            let UnitJob {
                op, extent, by, want, ..
            } = job;
            let Some(op) = op else {
                return inner.carry_out_for_sure(extent, by, want, turn).await;
            };
            let answer = tokio::time::timeout(limit, inner.answer(extent, by, want, turn)).await;
            let answer = answer.ok().flatten().unwrap_or(UnitAnswer::Unknown);
            inner.registry.unit_done(op, answer);
        });
    }
}

/// A place in the queue of a unit's changes; the guard when its turn has come.
type Turn = futures::future::BoxFuture<'static, tokio::sync::OwnedMutexGuard<()>>;

/// Why a proposal has no outcome.
enum NoOutcome {
    /// Asking again would not help.
    Refused,
    /// It may take effect yet.
    Unknown,
}

impl Inner {
    /// The place is taken here, not when the future is polled: whoever asks later waits behind it.
    fn turn(&self, extent: ExtentId) -> Turn {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let unit = Arc::clone(turns.entry(extent).or_default());
        // A lock queues when it is polled first, unless the task that polls it has used its budget up.
        let mut place = tokio::task::unconstrained(unit.lock_owned()).boxed();
        match (&mut place).now_or_never() {
            Some(guard) => futures::future::ready(guard).boxed(),
            None => place,
        }
    }

    async fn answer(&self, extent: ExtentId, by: Nexus, want: UnitWant, turn: Turn) -> Option<UnitAnswer> {
        let (change, everywhere) = match want {
            UnitWant::Confirmed => {
                let index = self.parts.control.read_index().await.ok()?;
                self.applied(|state| state.revision() >= index).await?;
                return Some(UnitAnswer::Confirmed);
            }
            UnitWant::KnownEverywhere => {
                let revision = self.state.borrow().revision();
                self.known_everywhere(revision).await;
                return Some(UnitAnswer::Confirmed);
            }
            UnitWant::Change(change) => (change, false),
            UnitWant::ChangeEverywhere(change) => (change, true),
        };
        let outcome = self.carry_out(extent, by, change, everywhere, turn).await?;
        Some(UnitAnswer::Outcome(outcome))
    }

    pub(super) async fn change(
        &self,
        extent: ExtentId,
        by: Nexus,
        change: UnitChange,
        everywhere: bool,
    ) -> Option<UnitOutcome> {
        let turn = self.turn(extent);
        self.carry_out(extent, by, change, everywhere, turn).await
    }

    /// `None` where it cannot be told what became of it.
    async fn carry_out(
        &self,
        extent: ExtentId,
        by: Nexus,
        change: UnitChange,
        everywhere: bool,
        turn: Turn,
    ) -> Option<UnitOutcome> {
        let (outcome, version) = {
            let _turn = turn.await;
            self.propose(extent, by, change).await.ok()?
        };
        if outcome != UnitOutcome::Good {
            return Some(outcome);
        }
        // P2: here, then at the primary.
        self.applied(|state| state.unit_version(extent).is_none_or(|now| now >= version))
            .await?;
        let revision = self.state.borrow().revision();
        self.fence(extent, version).await;
        if everywhere {
            self.known_everywhere(revision).await;
        }
        Some(outcome)
    }

    /// A change that nobody waits for, and that must not get lost: the end of a nexus. It keeps its turn until the cluster has decided.
    async fn carry_out_for_sure(&self, extent: ExtentId, by: Nexus, want: UnitWant, turn: Turn) {
        let (UnitWant::Change(change) | UnitWant::ChangeEverywhere(change)) = want else {
            return;
        };
        let _turn = turn.await;
        while let Err(NoOutcome::Unknown) = self.propose(extent, by.clone(), change.clone()).await {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn propose(
        &self,
        extent: ExtentId,
        by: Nexus,
        change: UnitChange,
    ) -> Result<(UnitOutcome, UnitVersion), NoOutcome> {
        let command = Command::Unit {
            call: UnitCall {
                node: self.parts.me,
                incarnation: self.parts.incarnation,
                serial: self.serial.fetch_add(1, Ordering::Relaxed),
            },
            extent,
            by,
            change,
        };
        match self.parts.control.propose(command).await {
            Ok(Reply::Unit { outcome, version }) => Ok((outcome, version)),
            Ok(reply) => {
                tracing::info!(?reply, "a change of a unit was refused");
                Err(NoOutcome::Refused)
            }
            Err(error) => {
                tracing::info!(%error, "it cannot be told what became of a change of a unit");
                Err(match error {
                    ProposeError::Timeout | ProposeError::NoLeader | ProposeError::NotApplied(_) => {
                        NoOutcome::Unknown
                    }
                    ProposeError::Refused(_) | ProposeError::Stopped(_) => NoOutcome::Refused,
                })
            }
        }
    }

    /// Waits until the front's state is so.
    async fn applied(&self, wanted: impl Fn(&FrontState) -> bool) -> Option<()> {
        let mut state = self.state.clone();
        state.wait_for(|state| wanted(state)).await.ok().map(drop)
    }

    /// The word of the unit's primary, whoever that is by now (P2): asked again until there is one.
    pub(super) async fn fence(&self, extent: ExtentId, version: UnitVersion) {
        loop {
            let done = self.on_storage(extent, BlockOp::Fence { version }).await == OpOutcome::Done;
            if done || self.state.borrow().unit_version(extent).is_none() {
                return;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Has an operation of the cluster's own carried out, here or on the extent's primary: no reservation stands in its way.
    pub(super) async fn on_storage(&self, extent: ExtentId, op: BlockOp) -> OpOutcome {
        let generation = self.parts.lease.cell().generation();
        self.on_storage_in(generation, extent, op).await
    }

    /// The same, refused where that lease generation is over.
    pub(super) async fn on_storage_in(
        &self,
        generation: LeaseGeneration,
        extent: ExtentId,
        op: BlockOp,
    ) -> OpOutcome {
        let serial = self.op_serial.fetch_add(1, Ordering::Relaxed);
        let id = self
            .me
            .op(u32::try_from(serial & u64::from(u32::MAX)).unwrap_or(0));
        let (told, outcome) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, told);
        let session = SessionInstance {
            node: self.parts.me,
            incarnation: self.parts.incarnation,
            serial: OWN,
        };
        let request = Request {
            name: CommandName {
                session,
                cmd_sn: serial,
            },
            received: (self.parts.clock)(),
            generation,
            origin: Origin::default(),
            op,
        };
        match self.backend.submit(extent, id, request) {
            Some(outcome) => {
                self.waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&id);
                outcome
            }
            // Storage answers everything once; without an answer the node stops.
            None => outcome.await.unwrap_or(OpOutcome::Reset),
        }
    }

    /// Waits until every data node that lives tells that it has applied that revision: heartbeats carry it (L1).
    async fn known_everywhere(&self, revision: Revision) {
        loop {
            let state = self.parts.control.state();
            let view = self.parts.lease.view();
            let behind = view.peers.iter().any(|(node, peer)| {
                let data = state.node(*node).is_some_and(|node| node.role == Role::Data);
                let lives = !state.is_suspect(*node) && peer.silent < SILENT_AFTER;
                let knows = peer.told.as_ref().is_some_and(|told| told.revision >= revision);
                data && lives && !knows
            });
            if !behind {
                return;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}
