//! A node that belongs to a cluster: control plane, data plane and front, wired together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use holdfast_proto::admin::{ScrubExtentRequest, SwitchoverRequest};
use holdfast_raft::consensus::{Config as RaftConfig, Control, InitializeError};
use holdfast_raft::lease::LeaseReading;
use holdfast_raft::lease::driver::{HeartbeatThread, Lease, OnReset, boot_clock};
use holdfast_raft::model::{AccessCommand, ClusterKey, ClusterState, Command, Init, Reply};
use holdfast_types::{ExtentId, Incarnation, NodeId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Identity;
use super::cluster_key;
use super::control::{Parts, follow_state};
use super::data::Data;
use crate::admin::{AdminAddress, AdminClient};
use crate::config::{NodeConfig, Role};
use crate::front::{Front, FrontState, Portals, Registry};
use crate::status::{Seen, StatusDocument, derive};

/// How long a planned switchover may take before its caller is told that it did not happen.
const SWITCHOVER_WITHIN: Duration = Duration::from_secs(10);

/// The parts that run.
pub(crate) struct Running {
    me: NodeId,
    control: Control,
    lease: Lease,
    registry: Arc<Registry>,
    /// What the cluster's secrets are sealed with, where this node has it.
    key: watch::Sender<Option<ClusterKey>>,
    data: Option<Data>,
    heartbeat: Mutex<Option<HeartbeatThread>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Running {
    /// Starts everything. `fatal` hears of what must end the process later on.
    pub(super) async fn start(
        config: &NodeConfig,
        identity: Identity,
        fatal: mpsc::Sender<anyhow::Error>,
    ) -> anyhow::Result<Arc<Self>> {
        let me = identity.node;
        let incarnation = Incarnation(rand::random_range(1..u64::MAX));
        let clock = boot_clock();
        let registry = Arc::new(Registry::default());
        let on_reset = resets(Arc::clone(&registry));
        let lease = Lease::new(me, incarnation, Arc::clone(&clock), on_reset);
        let mut raft = RaftConfig::new(config.dir.join("raft"), identity.cluster, me);
        raft.expect_log = identity.was_member(&config.dir);
        let hook = {
            let lease = lease.clone();
            Arc::new(move |state: &Arc<ClusterState>| lease.applied(state))
        };
        let control = Control::start(raft, hook).await?;
        let listener = TcpListener::bind(config.listen.raft)
            .await
            .with_context(|| format!("cannot listen on {} (listen.raft)", config.listen.raft))?;
        control.serve(listener);
        let socket = std::net::UdpSocket::bind(config.listen.heartbeat)
            .with_context(|| format!("cannot listen on {} (listen.heartbeat)", config.listen.heartbeat))?;
        let heartbeat = lease.spawn(socket).context("cannot start the heartbeat thread")?;
        let key = watch::channel(cluster_key::load(&config.dir)?).0;
        let parts = Parts {
            me,
            incarnation,
            control: control.clone(),
            lease: lease.clone(),
            clock: Arc::clone(&clock),
        };
        let mut tasks = JoinSet::new();
        let essential = |what, work| essential(what, work, fatal.clone());
        tasks.spawn(essential("catching up", parts.clone().catch_up().boxed()));
        tasks.spawn(essential("the announcement", parts.clone().announce().boxed()));
        tasks.spawn(essential("the governor", parts.clone().govern().boxed()));
        tasks.spawn(remember_membership(control.clone(), identity, config.dir.clone()));
        tasks.spawn(watch_for_the_end(parts.clone(), fatal.clone()));
        let data = match config.role {
            Role::Witness => None,
            Role::Data => Some(
                Data::start(
                    config,
                    &identity,
                    &parts,
                    Arc::clone(&registry),
                    &mut tasks,
                    fatal.clone(),
                )
                .await?,
            ),
        };
        if let Some(data) = &data {
            start_front(config, &parts, data, &registry, &key, &mut tasks, &fatal);
        }
        tracing::info!(node = %me, %incarnation, "node is running");
        Ok(Arc::new(Self {
            me,
            control,
            lease,
            registry,
            key,
            data,
            heartbeat: Mutex::new(Some(heartbeat)),
            tasks: Mutex::new(tasks),
        }))
    }

    /// Ends everything in order. What was acknowledged is stable already; this only saves others the wait.
    pub(super) async fn stop(&self) {
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

    /// The committed state as applied here.
    pub(crate) fn state(&self) -> Arc<ClusterState> {
        self.control.state()
    }

    /// The key of the cluster's secrets, where this node has it.
    pub(crate) fn key(&self) -> Option<ClusterKey> {
        self.key.borrow().clone()
    }

    /// From now on this is the key.
    pub(super) fn set_key(&self, key: ClusterKey) {
        self.key.send_replace(Some(key));
    }

    /// Whether the cluster is made, as far as this node knows.
    pub(super) fn is_made(&self) -> bool {
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

    /// Proposes a command.
    pub(crate) async fn propose(&self, command: Command) -> anyhow::Result<Reply> {
        Ok(self.control.propose(command).await?)
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
        Ok(self.control.propose(Command::Init(init)).await?)
    }

    /// Moves extents to a node, planned; how many moved. Their primaries do it: those on other nodes are asked to.
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
        let mut elsewhere: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for id in &moving {
            let extent = &state.extents[id];
            if !extent.in_sync.contains(&to) {
                bail!(
                    "extent {} cannot move: its replica there is not in sync",
                    extent.name
                );
            }
            match extent.primary {
                Some(primary) if primary != self.me => {
                    elsewhere.entry(primary).or_default().push(extent.name.clone())
                }
                Some(_) => {}
                None => bail!("extent {} has no primary at present", extent.name),
            }
        }
        for (primary, extents) in elsewhere {
            ask_to_switch(&state, primary, extents, to).await?;
        }
        if let Some(data) = &self.data {
            let mine = moving
                .iter()
                .filter(|id| state.extents[id].primary == Some(self.me));
            mine.for_each(|id| data.switchover(*id, to));
        }
        let mut watch = self.control.watch();
        let arrived = watch.wait_for(|state| {
            moving.iter().all(|id| {
                state
                    .extents
                    .get(id)
                    .is_none_or(|extent| extent.primary == Some(to))
            })
        });
        match tokio::time::timeout(SWITCHOVER_WITHIN, arrived).await {
            Ok(Ok(_)) => Ok(moving.len()),
            Ok(Err(_)) => bail!("the node stops"),
            Err(_) => bail!(
                "no switchover within {} s; the extents stay where they are",
                SWITCHOVER_WITHIN.as_secs()
            ),
        }
    }

    /// Has an extent's replicas compared. Its primary does it: one on another node is asked to.
    pub(crate) async fn scrub(&self, extent: ExtentId, name: &str) -> anyhow::Result<()> {
        let state = self.control.state();
        let primary = state.extents.get(&extent).and_then(|extent| extent.primary);
        let Some(primary) = primary else {
            bail!("extent {name} has no primary at present: try again when it is served");
        };
        if primary != self.me {
            let member = state.node(primary).context("the primary is no member")?;
            let Some(address) = member.addresses.admin else {
                bail!(
                    "extent {name}: ask its primary, {}, whose admin service is not reached from here",
                    member.name
                );
            };
            let mut client = AdminClient::connect(&AdminAddress::Tcp(address)).await?;
            let extent = name.to_owned();
            return client.scrub_extent(ScrubExtentRequest { extent }).await.map(drop);
        }
        if !self.data.as_ref().is_some_and(|data| data.scrub(extent)) {
            bail!("extent {name} is not served yet: try again in a moment");
        }
        Ok(())
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
        let voters = seen
            .heard
            .iter()
            .filter(|node| state.voters.members.contains(node))
            .count();
        seen.quorum = state.is_initialized() && voters >= state.voters.majority() && metrics.leader.is_some();
        seen.lease = self.lease.cell().holds(boot_clock()());
        seen.sessions = self.registry.sessions();
        if let Some(reason) = &metrics.stopped {
            seen.alarms.push(format!(
                "the control plane of {} has stopped: {reason}",
                seen.my_name
            ));
        }
        let key = self.key.borrow().as_ref().map(ClusterKey::id);
        if state.access.has_secrets() && key != state.access.key {
            seen.alarms.push(format!(
                "{} has not the cluster's key, so nobody can log in there by CHAP: copy cluster.key from the directory of \
                 another node, and start it anew",
                seen.my_name
            ));
        }
        if let Some(data) = &self.data {
            data.describe(&mut seen);
        }
        derive(&state, seen)
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

async fn ask_to_switch(
    state: &ClusterState,
    primary: NodeId,
    extents: Vec<String>,
    to: NodeId,
) -> anyhow::Result<()> {
    let member = state.node(primary).context("the primary is no member")?;
    let Some(address) = member.addresses.admin else {
        bail!(
            "extent {}: ask its primary, {}, whose admin service is not reached from here",
            extents.join(", "),
            member.name
        );
    };
    let to = state
        .node(to)
        .map(|node| node.name.clone())
        .context("the node to move to is no member")?;
    let mut client = AdminClient::connect(&AdminAddress::Tcp(address)).await?;
    client
        .switchover(SwitchoverRequest { extents, to })
        .await
        .map(drop)
}

fn start_front(
    config: &NodeConfig,
    parts: &Parts,
    data: &Data,
    registry: &Arc<Registry>,
    key: &watch::Sender<Option<ClusterKey>>,
    tasks: &mut JoinSet<()>,
    fatal: &mpsc::Sender<anyhow::Error>,
) {
    let key = key.subscribe();
    let (state_to, state) = watch::channel(Arc::new(FrontState::default()));
    let (port_to, port) = watch::channel(None);
    let me = parts.me;
    let follow = follow_state(parts.control.clone(), move |state| {
        state_to.send_replace(Arc::new(FrontState::derive(state, key.borrow().as_ref())));
        port_to.send_replace(state.node(me).map(|node| node.tpg));
    });
    tasks.spawn(essential("the front's state", follow.boxed(), fatal.clone()));
    let front = Arc::new(Front {
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
