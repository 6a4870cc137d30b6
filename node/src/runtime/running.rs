//! A node that belongs to a cluster: control plane, data plane and front, wired together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use holdfast_raft::consensus::{Config as RaftConfig, Control, InitializeError, JoinToken};
use holdfast_raft::lease::LeaseReading;
use holdfast_raft::lease::driver::{HeartbeatThread, Lease, OnReset, boot_clock};
use holdfast_raft::model::{
    AccessCommand, AdminCommand, ClusterKey, ClusterState, Command, Importing, Init, NodeAddresses, Reply,
};
use holdfast_scsi::reservation::{UnitChange, UnitOutcome};
use holdfast_trust::Trust;
use holdfast_types::{
    BlockOp, ExtentId, Incarnation, IscsiName, Isid, LeaseGeneration, Nexus, NodeId, OpOutcome, TpgId,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Identity;
use super::certificates::{self, Keeper};
use super::cluster_key;
use super::control::{Parts, follow_state};
use super::data::Data;
use super::devices::{self, KnownDevices};
use super::sanitize::sanitize;
use super::units::UnitService;
use crate::check::{CheckDocument, Evidence, Looker, judge};
use crate::config::{NodeConfig, Role};
use crate::events::Recorder;
use crate::front::{Front, FrontState, Portals, Registry};
use crate::isns::{Isns, Parts as IsnsParts};
use crate::metrics::Facts;
use crate::status::{Seen, StatusDocument, derive};

/// How long initiators that were asked to log out are served on when the node stops.
const LOGOUT_WITHIN: Duration = Duration::from_millis(500);
/// How long portals stay open for initiators that are to hear where to go: they come back as late as DefaultTime2Wait (2 s) after their
/// logout, and what their session had in storage may take the hold limit (3 s) to end.
const MOVE_WITHIN: Duration = Duration::from_secs(5);
/// How long this node may take to apply what an administrator had it propose, before he is told that it is behind.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);
/// How long a planned switchover may take before its caller is told that it did not happen.
const SWITCHOVER_WITHIN: Duration = Duration::from_secs(10);

/// How long the end of the process waits for its extents to be handed over.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// The parts that run.
pub(crate) struct Running {
    pub(super) me: NodeId,
    incarnation: Incarnation,
    pub(super) control: Control,
    pub(super) lease: Lease,
    registry: Arc<Registry>,
    looker: Arc<Looker>,
    /// What the cluster's secrets are sealed with, where this node has it.
    key: watch::Sender<Option<ClusterKey>>,
    /// With what it proves who it is.
    pub(super) trust: Arc<Trust>,
    /// The replication links are plain, by the configuration.
    plain_links: bool,
    /// Admin ports are open to everybody on this machine, by the configuration.
    pub(super) open_admin: bool,
    pub(super) data: Option<Data>,
    units: Option<UnitService>,
    isns: Option<Isns>,
    heartbeat: Mutex<Option<HeartbeatThread>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Parts {
    /// What every node does all the time, whatever its role.
    fn spawn_loops(
        &self,
        tasks: &mut JoinSet<()>,
        recorder: &Arc<Recorder>,
        fatal: &mpsc::Sender<anyhow::Error>,
    ) {
        let governing = self.clone().govern().boxed();
        tasks.spawn(essential("the governor", governing, fatal.clone()));
        tasks.spawn(self.tell(Arc::clone(recorder)));
        tasks.spawn(watch_for_the_end(self.clone(), fatal.clone()));
    }

    /// What the node's role asks for.
    async fn start_data(
        &self,
        config: &NodeConfig,
        identity: &Identity,
        shared: (Arc<Registry>, Arc<Trust>, KnownDevices),
        tasks: &mut JoinSet<()>,
        fatal: &mpsc::Sender<anyhow::Error>,
    ) -> anyhow::Result<Option<Data>> {
        if config.role == Role::Witness {
            let announcing = self.clone().announce_alone().boxed();
            tasks.spawn(essential("the announcement", announcing, fatal.clone()));
            return Ok(None);
        }
        let data = Data::start(config, identity, self, shared, tasks, fatal.clone()).await?;
        Ok(Some(data))
    }
}

impl Running {
    /// Starts everything. `fatal` hears of what must end the process later on.
    pub(super) async fn start(
        config: &NodeConfig,
        identity: Identity,
        recorder: &Arc<Recorder>,
        fatal: mpsc::Sender<anyhow::Error>,
    ) -> anyhow::Result<Arc<Self>> {
        let me = identity.node;
        let incarnation = Incarnation(rand::random_range(1..u64::MAX));
        let clock = boot_clock();
        let registry = Arc::new(Registry::default());
        let on_reset = resets(Arc::clone(&registry));
        let lease = Lease::new(me, incarnation, Arc::clone(&clock), on_reset);
        let key = watch::channel(Some(cluster_key::must_load(&config.dir)?)).0;
        // Before anything is changed: a newer file keeps the node out.
        let devices = devices::load(&config.dir)?;
        let mut keeper = prove(config, identity, &key)?;
        let trust = Arc::clone(&keeper.trust);
        let control = start_control(config, &identity, &lease, &trust).await?;
        keeper.follow(&control.state()).await?;
        let listener = TcpListener::bind(config.listen.raft)
            .await
            .with_context(|| format!("cannot listen on {} (listen.raft)", config.listen.raft))?;
        control.serve(listener);
        let heartbeat = start_heartbeat(config, &lease, Arc::clone(&trust))?;
        let parts = Parts {
            me,
            incarnation,
            control: control.clone(),
            lease: lease.clone(),
            clock: Arc::clone(&clock),
        };
        let mut tasks = JoinSet::new();
        let certificates = keeper.run(control.clone()).boxed();
        tasks.spawn(essential("the certificates", certificates, fatal.clone()));
        parts.spawn_loops(&mut tasks, recorder, &fatal);
        tasks.spawn(remember_membership(control.clone(), identity, config.dir.clone()));
        let looker = Looker::start(config, me, &control, &lease, Arc::clone(&registry));
        let shared = (Arc::clone(&registry), Arc::clone(&trust), devices);
        let data = parts
            .start_data(config, &identity, shared, &mut tasks, &fatal)
            .await?;
        let units = data
            .as_ref()
            .map(|data| start_front(config, &parts, data, &registry, &key, &mut tasks, &fatal));
        // A witness may have no network in common with initiators.
        let isns = data.as_ref().map(|_| start_isns(&parts));
        tracing::info!(node = %me, %incarnation, "node is running");
        Ok(Arc::new(Self {
            me,
            incarnation,
            control,
            lease,
            registry,
            looker,
            key,
            trust,
            plain_links: config.role == Role::Data && !config.replication.tls,
            open_admin: config.admin.open_loopback,
            data,
            units,
            isns,
            heartbeat: Mutex::new(Some(heartbeat)),
            tasks: Mutex::new(tasks),
        }))
    }

    /// Ends everything in order. What was acknowledged is stable already; this only saves others the wait.
    pub(super) async fn stop(&self) {
        let cell = self.lease.cell();
        let holds = move || cell.holds(boot_clock()());
        if let Some(data) = &self.data
            && holds()
            && !data.leave(&self.control, self.me, DRAIN_WITHIN, holds).await
        {
            tracing::warn!("not all extents could be handed over before the end");
        }
        if let Some(isns) = &self.isns {
            isns.stop().await;
        }
        let moving = self.has_to_move();
        let (within, seconds) = if moving {
            (MOVE_WITHIN, 5)
        } else {
            (LOGOUT_WITHIN, 1)
        };
        self.registry.ask_logout(seconds);
        let asked = tokio::time::Instant::now();
        while (moving || !self.registry.sessions().is_empty()) && asked.elapsed() < within {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.registry.close_all();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        if let Some(data) = &self.data {
            data.stop().await;
        }
        self.control.shutdown().await;
        drop(
            self.heartbeat
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    /// Whether initiators have sessions here that are to come back, and hear where to go.
    fn has_to_move(&self) -> bool {
        let state = self.control.state();
        let moves = |target: &str| {
            let mut targets = state.access.targets.iter();
            targets.any(|(name, access)| name.as_str() == target && access.redirect)
        };
        let sessions = self.registry.sessions();
        sessions
            .iter()
            .filter_map(|session| session.target.as_deref())
            .any(moves)
    }

    /// Its own id.
    pub(crate) const fn me(&self) -> NodeId {
        self.me
    }

    /// The committed state as applied here.
    pub(crate) fn state(&self) -> Arc<ClusterState> {
        self.control.state()
    }

    /// The applied cluster state, as it changes.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.control.watch()
    }

    /// The key of the cluster's secrets, where this node has it.
    pub(crate) fn key(&self) -> Option<ClusterKey> {
        self.key.borrow().clone()
    }

    /// From now on this is the key; certificates follow at once.
    pub(super) fn set_key(&self, key: ClusterKey) -> anyhow::Result<()> {
        let ids = certificates::ids(self.control.cluster(), &self.control.state());
        self.trust
            .renew(&ids, &key.to_trust(), &self.trust.generations())?;
        self.key.send_replace(Some(key));
        Ok(())
    }

    /// With what this node proves who it is.
    pub(crate) const fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Whether the cluster is made, as far as this node knows.
    pub(crate) fn is_made(&self) -> bool {
        self.control.state().is_initialized()
    }

    /// Has the cluster say which key it seals with: that of the node by which it was made.
    pub(crate) async fn announce_key(&self) -> anyhow::Result<()> {
        let Some(key) = self.key() else { return Ok(()) };
        let said = self.control.state().access.key;
        match said {
            None => match self
                .propose(Command::Access(AccessCommand::SetKey { key: key.id() }))
                .await?
            {
                Reply::Refused { refusal } => Err(refusal.into()),
                _ => Ok(()),
            },
            Some(id) if id != key.id() => bail!(
                "this node's cluster.key is not that of the cluster ({} instead of {id}): copy \
                 that of another node, and start this one anew",
                key.id()
            ),
            Some(_) => Ok(()),
        }
    }

    /// Ends a session of this node in order. False where there is none of that number.
    pub(crate) fn close_session(&self, id: u64) -> bool {
        self.registry.close_session(id)
    }

    /// Proposes a command. What comes of it is applied here when this returns, so that whoever asked finds it with the next question.
    ///
    /// # Errors
    /// Nobody has decided, or this node has not applied it within 5 s.
    pub(crate) async fn propose(&self, command: Command) -> anyhow::Result<Reply> {
        Ok(self.control.propose_applied(command, APPLIED_WITHIN).await?)
    }

    /// Has the cluster know that this node listens there from now on.
    ///
    /// # Errors
    /// As of [`Running::propose`].
    pub(crate) async fn move_to(&self, addresses: NodeAddresses) -> anyhow::Result<Reply> {
        Ok(self.control.move_to(addresses, APPLIED_WITHIN).await?)
    }

    /// Whether another process out of a copy of this node's directory answers there.
    pub(crate) async fn is_twin(&self, address: SocketAddr) -> bool {
        self.control.is_twin(address).await
    }

    /// A new one-time token, as it is typed on the machine that joins.
    pub(crate) async fn token(&self, valid: Duration) -> anyhow::Result<String> {
        let (token, kept) = JoinToken::draw(&self.control.state(), valid);
        match self.propose(AdminCommand::AddToken(kept).into()).await? {
            Reply::Refused { refusal } => Err(refusal.into()),
            _ => Ok(token.to_string()),
        }
    }

    /// Waits until `node` votes, for `within` at most; whether it does.
    pub(crate) async fn wait_for_vote(&self, node: NodeId, within: Duration) -> bool {
        let mut watch = self.control.watch();
        let votes = watch.wait_for(|state| state.voters.contains(node));
        matches!(tokio::time::timeout(within, votes).await, Ok(Ok(_)))
    }

    /// Makes a cluster of the members; this node is one of them. Done again, it changes nothing.
    pub(crate) async fn initialize(&self, init: Init) -> anyhow::Result<Reply> {
        let members: BTreeMap<NodeId, SocketAddr> = init
            .nodes
            .iter()
            .map(|node| (node.id, node.addresses.raft))
            .collect();
        match self.control.initialize(members).await {
            Ok(()) => {}
            Err(InitializeError::AlreadyInitialized) => {
                // By an init that was broken off: its voters are Raft's, so they are the cluster's.
                let voters = self.control.metrics().voters;
                let asked = init.nodes.iter().map(|node| node.id).collect();
                if !voters.is_empty() && voters != asked {
                    bail!("an earlier init began with other members: repeat it with exactly those");
                }
            }
            Err(error) => return Err(error.into()),
        }
        let state = self.control.state();
        if state
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.id == init.id)
        {
            let known: Vec<NodeId> = state.nodes.keys().copied().collect();
            if !known.iter().copied().eq(init.nodes.iter().map(|node| node.id)) {
                bail!("the cluster is made already, of other nodes");
            }
            return Ok(Reply::DONE);
        }
        self.propose(Command::Init(init)).await
    }

    /// Moves extents to a node, planned; how many moved. Their primaries do it, whichever nodes those are: what is wanted is committed.
    pub(crate) async fn switchover(&self, extents: Vec<ExtentId>, to: NodeId) -> anyhow::Result<usize> {
        let state = self.control.state();
        let moving: Vec<ExtentId> = extents
            .into_iter()
            .filter(|id| {
                state
                    .extents
                    .get(id)
                    .is_some_and(|extent| extent.primary != Some(to))
            })
            .collect();
        if moving.is_empty() {
            return Ok(0);
        }
        let idle = moving.iter().find(|id| state.extents[*id].primary.is_none());
        if let Some(id) = idle {
            bail!("extent {} has no primary at present", state.extents[id].name);
        }
        let request = |to| AdminCommand::RequestSwitchover {
            extents: moving.clone(),
            to,
        };
        if let Reply::Refused { refusal } = self.propose(request(Some(to)).into()).await? {
            return Err(refusal.into());
        }
        let mut watch = self.control.watch();
        let arrived = watch.wait_for(|state| {
            let there = |id: &ExtentId| {
                state
                    .extents
                    .get(id)
                    .is_none_or(|extent| extent.primary == Some(to))
            };
            moving.iter().all(there)
        });
        let arrived = tokio::time::timeout(SWITCHOVER_WITHIN, arrived).await;
        let arrived = arrived.map(|state| state.is_ok());
        match arrived {
            Ok(true) => Ok(moving.len()),
            Ok(false) => bail!("the node stops"),
            Err(_) => {
                // Without a quorum the request stands until it is met, or withdrawn.
                let _ = self.propose(request(None).into()).await;
                bail!(
                    "no switchover within {} s; extents that have not moved stay where they are",
                    SWITCHOVER_WITHIN.as_secs()
                )
            }
        }
    }

    /// Takes every registration and reservation of an extent away, as an administrator.
    pub(crate) async fn clear_reservations(
        &self,
        extent: ExtentId,
        target: IscsiName,
    ) -> anyhow::Result<UnitOutcome> {
        let units = self
            .units
            .as_ref()
            .context("a witness has no reservations to clear: ask a data node")?;
        tracing::warn!(%extent, %target, "an administrator clears all reservations");
        // The change does not look at who asks.
        let nobody = Nexus {
            initiator: target.clone(),
            isid: Isid::default(),
            target,
            tpg: TpgId(0),
        };
        units.change(extent, nobody, UnitChange::ClearReservations).await
    }

    /// Whether it has a way to extents: a witness has none.
    pub(crate) const fn has_storage(&self) -> bool {
        self.units.is_some()
    }

    /// Has an operation of the cluster's own carried out, here or on the extent's primary: no reservation stands in its way.
    pub(crate) async fn on_storage(&self, extent: ExtentId, op: BlockOp) -> OpOutcome {
        self.on_storage_in(self.lease.cell().generation(), extent, op)
            .await
    }

    /// The same, refused where that lease generation is over.
    pub(crate) async fn on_storage_in(
        &self,
        generation: LeaseGeneration,
        extent: ExtentId,
        op: BlockOp,
    ) -> OpOutcome {
        match &self.units {
            Some(units) => units.0.on_storage_in(generation, extent, op).await,
            None => OpOutcome::Standby,
        }
    }

    /// An import by this node, in its present lease generation.
    pub(crate) fn import_mark(&self, number: u64) -> Importing {
        Importing {
            node: self.me,
            incarnation: self.incarnation,
            generation: self.lease.cell().generation(),
            number,
        }
    }

    /// The data plane; none at a witness.
    pub(crate) const fn data(&self) -> Option<&Data> {
        self.data.as_ref()
    }

    /// The cluster as this node sees it.
    pub(crate) fn status(&self, mut seen: Seen) -> StatusDocument {
        let state = self.control.state();
        let metrics = self.control.metrics();
        let view = self.lease.view();
        let heard = view
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_heard())
            .map(|(node, _)| *node);
        seen.me = self.me;
        seen.heard = heard.chain([self.me]).collect();
        seen.leader = metrics.leader;
        seen.majority = state.voters.is_majority(|node| seen.heard.contains(&node));
        seen.caught_up = view.caught_up;
        seen.lease = self.lease.cell().holds(boot_clock()());
        seen.sessions = self.registry.sessions();
        if let Some(reason) = &metrics.stopped {
            seen.alarms.push(format!(
                "the control plane of {} has stopped: {reason}",
                seen.my_name
            ));
        }
        let key = self.key.borrow().as_ref().map(ClusterKey::id);
        // A wrong key is said before there are secrets to open, a missing one only then.
        let wanted = state.access.has_secrets() || (key.is_some() && state.access.key.is_some());
        if wanted && key != state.access.key {
            seen.alarms.push(format!(
                "{} has not the cluster's key, so nobody can log in there by CHAP: copy cluster.key from the directory of \
                 another node, and start it anew",
                seen.my_name
            ));
        }
        if !seen.majority {
            // With a majority, whoever refuses is the odd one.
            let refusals = self.control.refusals().into_iter();
            let name = |node| {
                state
                    .node(node)
                    .map_or_else(|| format!("node {node}"), |member| member.name.clone())
            };
            seen.alarms.extend(
                refusals.map(|(peer, why)| format!("{} refuses {}: {why}", name(peer), seen.my_name)),
            );
        }
        seen.alarms
            .extend(crate::admin::injection::alarms(&seen.my_name, &state));
        if self.plain_links {
            seen.alarms.push(format!(
                "replication of {} is neither encrypted nor authenticated (replication.tls = false in its node.toml)",
                seen.my_name
            ));
        }
        let waits = state.certificates_wait_for();
        if !waits.is_empty() {
            let name = |node: &NodeId| {
                state
                    .node(*node)
                    .map_or_else(|| node.to_string(), |member| member.name.clone())
            };
            let names: Vec<String> = waits.iter().map(name).collect();
            seen.alarms.push(format!(
                "the certificates are being rotated, which waits for {}; those of before count until then",
                names.join(", ")
            ));
        }
        if let Some(data) = &self.data {
            data.describe(&mut seen);
        }
        if let Some(isns) = &self.isns {
            isns.describe(&mut seen);
        }
        derive(&state, seen)
    }

    /// Looks at the whole cluster, from every node.
    pub(crate) async fn check(&self, seen: Seen) -> CheckDocument {
        let looks = self.looker.everywhere().await;
        let status = self.status(seen);
        let lines = judge(&Evidence {
            status: &status,
            lease: self.control.state().settings.lease_time(),
            looks: &looks,
        });
        CheckDocument::new(status.cluster, status.answered_by, lines)
    }

    /// What the metrics show beside the status.
    pub(crate) fn facts(&self, facts: &mut Facts) {
        let raft = self.control.metrics();
        let now = boot_clock()();
        facts.lease_left = match self.lease.cell().read(now) {
            LeaseReading::Held(until) => until.since(now),
            LeaseReading::Lost | LeaseReading::Paused => Duration::ZERO,
        };
        facts.raft_term = raft.term;
        facts.raft_log_bytes = raft.log_bytes;
        facts.connections = self.registry.len();
        facts.traffic = self.registry.traffic();
        if let Some(data) = &self.data {
            data.measure(facts);
        }
    }
}

/// Resets connections, on the heartbeat thread. Connections check their own generation before anything else (L7); this wakes them up to do
/// so. The log may be on a disk that hangs, so its line is written elsewhere (L1).
fn resets(registry: Arc<Registry>) -> OnReset {
    let runtime = tokio::runtime::Handle::current();
    Arc::new(move |generation, cause| {
        registry.reset_all("its lease generation is over, or this node was stopped for a while");
        runtime.spawn(async move {
            tracing::warn!(%generation, ?cause, "initiators' connections are reset");
        });
    })
}

/// The certificates of this node, as its directory says.
fn prove(
    config: &NodeConfig,
    identity: Identity,
    key: &watch::Sender<Option<ClusterKey>>,
) -> anyhow::Result<Keeper> {
    let key = key.subscribe();
    let secret = key.borrow().as_ref().map(ClusterKey::to_trust);
    let secret = secret.context("the node has no cluster key")?;
    let (me, cluster) = (identity.node, identity.cluster);
    let kept = certificates::load(&config.dir)?;
    let trust = Trust::new(me, &[cluster.0], &secret, &kept)?;
    Ok(Keeper {
        me,
        cluster,
        dir: config.dir.clone(),
        trust,
        key,
        kept,
    })
}

fn start_heartbeat(config: &NodeConfig, lease: &Lease, trust: Arc<Trust>) -> anyhow::Result<HeartbeatThread> {
    let socket = std::net::UdpSocket::bind(config.listen.heartbeat)
        .with_context(|| format!("cannot listen on {} (listen.heartbeat)", config.listen.heartbeat))?;
    lease
        .spawn(socket, trust)
        .context("cannot start the heartbeat thread")
}

/// Opens the log of the cluster state; the lease hears of what it applies.
async fn start_control(
    config: &NodeConfig,
    identity: &Identity,
    lease: &Lease,
    trust: &Arc<Trust>,
) -> anyhow::Result<Control> {
    let mut raft = RaftConfig::new(
        config.dir.join("raft"),
        identity.cluster,
        identity.node,
        Arc::clone(trust),
    );
    raft.expect_log = identity.was_member(&config.dir);
    raft.snapshot_after = config.raft.snapshot_after.unwrap_or(raft.snapshot_after);
    let (applied, voters) = (lease.clone(), lease.clone());
    let hook = Arc::new(move |state: &Arc<ClusterState>| applied.applied(state));
    let on_voters = Arc::new(move |id| voters.voters_in_log(id));
    Ok(Control::start(raft, hook, on_voters).await?)
}

fn start_isns(parts: &Parts) -> Isns {
    Isns::start(IsnsParts {
        me: parts.me,
        control: parts.control.clone(),
        lease: parts.lease.cell(),
        clock: Arc::clone(&parts.clock),
    })
}

fn start_front(
    config: &NodeConfig,
    parts: &Parts,
    data: &Data,
    registry: &Arc<Registry>,
    key: &watch::Sender<Option<ClusterKey>>,
    tasks: &mut JoinSet<()>,
    fatal: &mpsc::Sender<anyhow::Error>,
) -> UnitService {
    let key = key.subscribe();
    let (state_to, state) = watch::channel(Arc::new(FrontState::default()));
    let (port_to, port) = watch::channel(None);
    let me = parts.me;
    let follow = follow_state(parts.control.clone(), move |state| {
        state_to.send_replace(Arc::new(FrontState::derive(state, key.borrow().as_ref())));
        port_to.send_replace(state.node(me).map(|node| node.tpg));
    });
    tasks.spawn(essential("the front's state", follow.boxed(), fatal.clone()));
    let units = UnitService::new(parts.clone(), data.backend(), Arc::clone(registry), state.clone());
    tasks.spawn(essential(
        "SANITIZE",
        sanitize(units.clone()).boxed(),
        fatal.clone(),
    ));
    let front = Arc::new(Front {
        units: Arc::new(units.clone()),
        node: me,
        incarnation: parts.incarnation,
        clock: Arc::clone(&parts.clock),
        lease: parts.lease.cell(),
        backend: data.backend(),
        registry: Arc::clone(registry),
        state,
    });
    let portals = Portals::new(front, config.listen.portals.clone(), port).run();
    tasks.spawn(essential("the portals", portals.boxed(), fatal.clone()));
    units
}

/// From the moment that this node is a member by commit it never starts with an empty Raft log again (L8).
async fn remember_membership(control: Control, identity: Identity, dir: std::path::PathBuf) {
    let mut state = control.watch();
    let joined = state
        .wait_for(|state| state.node(identity.node).is_some())
        .await
        .is_ok();
    if joined && let Err(error) = identity.note_member(&dir) {
        tracing::error!(%error, "cannot note in the node's directory that it is a member");
    }
}

/// Between two looks at what must not stop.
const END_EVERY: Duration = Duration::from_millis(500);
/// As many looks in a row that find the heartbeat thread not running mean that it never will. After a pause of the whole process it
/// runs before the second.
const END_AFTER: u32 = 6;

/// A control plane or a heartbeat thread that has stopped does not come back in this process.
async fn watch_for_the_end(parts: Parts, fatal: mpsc::Sender<anyhow::Error>) {
    let cell = parts.lease.cell();
    let mut paused = 0;
    loop {
        tokio::time::sleep(END_EVERY).await;
        paused = match cell.read((parts.clock)()) {
            LeaseReading::Paused => paused + 1,
            LeaseReading::Held(_) | LeaseReading::Lost => 0,
        };
        let error = if let Some(reason) = parts.control.metrics().stopped {
            anyhow::anyhow!("the control plane has stopped: {reason}")
        } else if paused >= END_AFTER {
            anyhow::anyhow!("the heartbeat thread does not run any more")
        } else {
            continue;
        };
        // If another part has ended the process already, this one need not.
        let _ = fatal.try_send(error);
        return;
    }
}

/// Work that the node cannot do without: should it panic, the process ends, and peers take over from it.
pub(super) async fn essential(
    what: &'static str,
    work: BoxFuture<'static, ()>,
    fatal: mpsc::Sender<anyhow::Error>,
) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        // If another part has ended the process already, this one need not.
        let _ = fatal.try_send(anyhow::anyhow!("{what} panicked"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_what_is_essential_ends_the_node() {
        let (fatal, mut failed) = mpsc::channel(1);
        essential("the test", async { panic!("on purpose") }.boxed(), fatal.clone()).await;
        assert_eq!(failed.recv().await.unwrap().to_string(), "the test panicked");
        essential("the test", async {}.boxed(), fatal).await;
        assert!(failed.recv().await.is_none());
    }
}
