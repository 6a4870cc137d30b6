//! The data plane of a data node, tied to committed state, lease and front.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::FutureExt;
use holdfast_planes::{Announcer, ctx, openings, unfit, view};
use holdfast_raft::consensus::Control;
use holdfast_raft::lease::LeaseCell;
use holdfast_raft::lease::driver::Clock;
use holdfast_raft::model::{ClusterState, Extent, Role};
use holdfast_replication::core::api::{
    AbortScope, Ctx, OpId, Policy, Request, RoleName, Status as CoreStatus, StatusNews, View,
};
use holdfast_replication::driver::{DataNode, DriverConfig, Front as Answers, LeaseView, Parts as DataParts};
use holdfast_replication::net::{NetConfig, PeerAddress};
use holdfast_trust::Trust;
use holdfast_types::{ExtentId, NodeId, OpOutcome, Revision};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};

use super::Identity;
use super::control::{Parts, place};
use super::devices::{Gifts, KnownDevices};
use super::proposals::Proposals;
use super::running::essential;
use crate::config::NodeConfig;
use crate::front::{Backend, Registry};
use crate::metrics::Facts;
use crate::status::Seen;

/// Between two looks at whether the lease came or went, and at extents that nobody has opened.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a confirmed commit position may take to come.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);
/// Less free space than this raises an alarm.
const SPACE_ALARM_PERCENT: u64 = 10;
/// An extent without primary is opened by whoever can, if the one who should has not for this long.
const OPEN_LATE_AFTER: Duration = Duration::from_secs(2);

/// A running data plane.
pub(crate) struct Data {
    pub(super) node: Arc<DataNode>,
    /// What this node remembers of its devices.
    pub(super) gifts: Gifts,
    /// Taken when it stops.
    keep: Mutex<Option<Arc<DataNode>>>,
    /// This process is about to end.
    stopping: watch::Sender<bool>,
}

impl Data {
    /// Opens and recovers what is on disk, then follows the committed state.
    pub(super) async fn start(
        config: &NodeConfig,
        identity: &Identity,
        parts: &Parts,
        (registry, trust, devices): (Arc<Registry>, Arc<Trust>, KnownDevices),
        tasks: &mut JoinSet<()>,
        fatal: mpsc::Sender<anyhow::Error>,
    ) -> anyhow::Result<Self> {
        let mut listeners = Vec::new();
        for address in &config.listen.replication {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address} (listen.replication)"))?;
            listeners.push(listener);
        }
        let me = parts.run();
        let lease = Lease {
            cell: parts.lease.cell(),
            clock: Arc::clone(&parts.clock),
        };
        let (ask, asked) = mpsc::unbounded_channel();
        let data = DataParts {
            me,
            cluster: identity.cluster.0,
            config: DriverConfig::default(),
            net: NetConfig {
                trust: config.replication.tls.then_some(trust),
                from: config.listen.replication.iter().map(SocketAddr::ip).collect(),
                ..NetConfig::default()
            },
            devices,
            listeners,
            runtime: tokio::runtime::Handle::current(),
            front: Arc::new(Answerer(registry)),
            proposer: Arc::new(Proposals::new(parts.control.clone(), ask)),
            lease: Arc::new(lease),
        };
        let root = config.dir.join("data");
        let gifts = Gifts::new(&config.dir);
        let node = Arc::new(spawn_blocking(move || DataNode::start(&root, data)).await??);
        let again = Arc::clone(&gifts.changed);
        let follow = follow(
            (parts.control.clone(), parts.me),
            Arc::clone(&node),
            again,
            fatal.clone(),
        );
        tasks.spawn(essential("the extents' state", follow.boxed(), fatal.clone()));
        let confirm = confirm(parts.control.clone(), Arc::clone(&node), asked);
        tasks.spawn(essential("confirming reads", confirm.boxed(), fatal.clone()));
        let look = look(parts.clone(), Arc::clone(&node));
        tasks.spawn(essential("the look at the lease", look.boxed(), fatal.clone()));
        let announce = announce(parts.clone(), Arc::clone(&node));
        tasks.spawn(essential("the announcement", announce.boxed(), fatal.clone()));
        let (stopping, told) = watch::channel(false);
        let place = place(parts.clone(), Arc::clone(&node), told);
        tasks.spawn(essential("the placement", place.boxed(), fatal));
        Ok(Self {
            stopping,
            gifts,
            keep: Mutex::new(Some(Arc::clone(&node))),
            node,
        })
    }

    /// For the front.
    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(Storage(Arc::clone(&self.node)))
    }

    /// Moves all extents away, because the process is about to end: those that somebody else is in sync with. Tried for `within`, and while
    /// `can` is true. Whether all are gone.
    pub(super) async fn leave(
        &self,
        control: &Control,
        me: NodeId,
        within: Duration,
        can: impl Fn() -> bool,
    ) -> bool {
        self.stopping.send_replace(true);
        let gone = |state: &ClusterState| {
            let other = |extent: &Extent| {
                extent
                    .in_sync
                    .iter()
                    .any(|node| *node != me && !state.is_suspect(*node))
            };
            !state
                .extents
                .values()
                .any(|extent| extent.primary == Some(me) && other(extent))
        };
        let until = tokio::time::Instant::now() + within;
        while !gone(&control.state()) {
            if !can() || tokio::time::Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    /// What the core of an extent here says of itself.
    pub(super) fn core(&self, extent: ExtentId) -> Option<CoreStatus> {
        self.node.status(extent).map(|status| status.core)
    }

    /// Has an extent's replicas compared; false if this node does not serve it.
    pub(super) fn scrub(&self, extent: ExtentId) -> bool {
        self.node.scrub(extent).unwrap_or(false)
    }

    /// Adds what this node knows of its extents.
    pub(super) fn describe(&self, seen: &mut Seen) {
        seen.alarms.extend(space_alarm(&seen.my_name, &self.node));
        seen.links = self.node.links();
        for (extent, why) in self.node.troubles() {
            let name = &seen.my_name;
            seen.alarms.push(format!(
                "extent {extent}: the replica on {name} is not what it should be: {why}"
            ));
        }
        for status in self.node.statuses() {
            let extent = status.core.extent;
            for resync in &status.resyncs {
                seen.resync_rates.insert((extent, resync.node), resync.rate);
            }
            if let Some(damage) = status.damaged {
                seen.alarms.push(format!(
                    "extent {extent}: the replica on {} is not trusted ({damage:?}); it is resynced",
                    seen.my_name
                ));
            }
            if let Some(reason) = status.fenced {
                seen.alarms.push(format!(
                    "extent {extent}: the replica on {} is fenced: its {reason:?} failed",
                    seen.my_name
                ));
            }
            if let Some(part) = status.core.stuck {
                seen.alarms.push(format!(
                    "extent {extent}: the disk of {} makes no progress (its {part:?}); it serves again by itself once it does",
                    seen.my_name
                ));
            }
            for replica in status.core.replicas.iter().filter(|replica| replica.stuck) {
                seen.alarms.push(format!(
                    "extent {extent}: the disk of node {} makes no progress; it comes back by itself once it does",
                    replica.node
                ));
            }
            seen.alarms.extend(bad_blocks(&status.core, &seen.my_name));
            seen.alarms.extend(diverged(&status.core, &seen.my_name));
            if status.core.role == RoleName::Primary {
                seen.scrubs.insert(extent, status.scrubs);
            }
            seen.cores.insert(extent, status.core);
        }
    }

    /// Adds what the metrics show of this node's disk.
    pub(super) fn measure(&self, facts: &mut Facts) {
        let (space, _) = self.node.space();
        facts.disk = Some((space.total, space.free));
        facts.journal = self
            .node
            .journal_usage()
            .map(|usage| (usage.capacity_bytes, usage.used_bytes));
    }

    /// Ends it in order: checkpoints, so that the next start is short.
    pub(super) async fn stop(&self) {
        let kept = self.keep.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(node) = kept {
            // A panic there leaves nothing undone that recovery would not do.
            let _ = spawn_blocking(move || node.checkpoint()).await;
        }
    }
}

/// Time and lease for the cores.
struct Lease {
    cell: Arc<LeaseCell>,
    clock: Clock,
}

impl LeaseView for Lease {
    fn ctx(&self) -> Ctx {
        ctx(&self.cell, (self.clock)())
    }
}

/// Answers go to their connections.
struct Answerer(Arc<Registry>);

impl Answers for Answerer {
    fn complete(&self, _extent: ExtentId, op: OpId, outcome: OpOutcome) {
        self.0.complete(op, outcome);
    }
}

/// The front's way to the extents.
struct Storage(Arc<DataNode>);

impl Backend for Storage {
    fn submit(&self, extent: ExtentId, op: OpId, request: Request) -> Option<OpOutcome> {
        // Committed, but not made here yet: a moment later it is.
        self.0
            .submit(extent, op, request)
            .err()
            .map(|_| OpOutcome::Transitioning)
    }

    fn abort(&self, extent: ExtentId, scope: AbortScope) {
        // Nothing is open on an extent that is not known.
        let _ = self.0.abort(extent, scope);
    }

    fn statuses(&self, extent: ExtentId, news: Vec<StatusNews>) {
        self.0.tell_statuses(extent, news);
    }

    fn hold(&self) {
        self.0.hold();
    }

    fn release(&self) {
        self.0.release();
    }
}

/// Gives every newer committed state to the data plane, and the present one again when this node's devices have changed.
async fn follow(
    (control, me): (Control, NodeId),
    node: Arc<DataNode>,
    again: Arc<Notify>,
    fatal: mpsc::Sender<anyhow::Error>,
) {
    let mut watch = control.watch();
    loop {
        let state = Arc::clone(&watch.borrow_and_update());
        let peers: Vec<PeerAddress> = state
            .nodes
            .iter()
            .filter(|(id, member)| member.role == Role::Data && **id != me)
            .map(|(id, member)| PeerAddress {
                node: *id,
                addresses: member.addresses.replication_links(),
            })
            .filter(|peer| !peer.addresses.is_empty())
            .collect();
        node.set_peers(&peers);
        let data = Arc::clone(&node);
        let applied = spawn_blocking(move || {
            let views: Vec<(ExtentId, Arc<View>)> = state
                .extents
                .iter()
                .map(|(id, extent)| (*id, Arc::new(view(&state, *id, extent, Policy::default()))))
                .collect();
            data.apply_state(state.revision, &views);
        });
        if let Err(error) = applied.await {
            // If another part has ended the process already, this one need not.
            let _ = fatal.try_send(anyhow!("the data plane could not follow the cluster: {error}"));
            return;
        }
        tokio::select! {
            changed = watch.changed() => if changed.is_err() {
                return;
            },
            () = again.notified() => {}
        }
    }
}

/// Gets a read index for reads that wait for one (W4): one for all that came meanwhile.
async fn confirm(control: Control, node: Arc<DataNode>, mut asked: mpsc::UnboundedReceiver<(ExtentId, u64)>) {
    let mut batch = Vec::new();
    while asked.recv_many(&mut batch, 1024).await > 0 {
        // Asked again while it is wanted.
        if let Ok(Ok(index)) = tokio::time::timeout(CONFIRM_WITHIN, given(&control, &node)).await {
            tracing::trace!(%index, "the epochs are confirmed");
            for (extent, round) in batch.drain(..) {
                node.confirmed(extent, round);
            }
        }
        batch.clear();
    }
}

/// A confirmed commit position, once all extents were given the state up to there.
async fn given(control: &Control, node: &DataNode) -> anyhow::Result<Revision> {
    let index = control.read_index().await?;
    while node.revision() < index {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(index)
}

/// Tells the cluster of this run, and of replicas here that cannot serve (J1, J2): once all that was committed before the start has
/// reached the extents, and whenever it changes.
async fn announce(parts: Parts, node: Arc<DataNode>) {
    let caught_up = parts.catch_up().await;
    while node.revision() < caught_up {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let mut announcer = Announcer::new(parts.run());
    let mut looked = None;
    let mut cannot = BTreeSet::new();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (fitness, given, state) = (node.fitness(), node.revision(), parts.control.state());
        if looked != Some((fitness, given, state.revision)) {
            cannot = unfit(&state, parts.me, &node.fit(), given >= state.revision);
            looked = Some((fitness, given, state.revision));
        }
        parts.announce(&mut announcer, &state, &cannot).await;
    }
}

/// What people should know of this node's disk.
fn space_alarm(name: &str, node: &DataNode) -> Option<String> {
    let (space, room) = node.space();
    let (percent, free) = (space.free_percent(), space.free >> 20);
    if room.full {
        Some(format!(
            "the disk of {name} is full: what was written waits for space, and nothing is lost"
        ))
    } else if room.low {
        Some(format!(
            "the disk of {name} is nearly full ({free} MiB free): thin extents get no new space"
        ))
    } else if percent < SPACE_ALARM_PERCENT {
        Some(format!("the disk of {name} has {percent} % ({free} MiB) free"))
    } else {
        None
    }
}

/// Tells the cores at once when the lease comes or goes, and opens extents that nobody is primary of.
async fn look(parts: Parts, node: Arc<DataNode>) {
    let cell = parts.lease.cell();
    let mut held = false;
    let mut unopened_since = None;
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = (parts.clock)();
        if cell.holds(now) != held {
            held = !held;
            node.lease_changed();
        }
        let state = parts.control.state();
        if !held || state.extents.values().all(|extent| extent.primary.is_some()) {
            unopened_since = None;
            continue;
        }
        let since = *unopened_since.get_or_insert(now);
        let late = now.since(since) >= OPEN_LATE_AFTER;
        let status = |extent| node.status(extent).map(|status| status.core);
        if let Some(command) = openings(&state, parts.run(), late, status) {
            // Made again while it is wanted.
            let _ = parts.control.propose(command).await;
        }
    }
}

/// Replicas that were in sync and not equal: nothing may ever lead to that.
fn diverged(core: &holdfast_replication::core::api::Status, node: &str) -> Option<String> {
    let (extent, blocks) = (core.extent, core.checks.diverged);
    (blocks > 0).then(|| {
        format!(
            "extent {extent}: REPLICAS IN SYNC DIFFERED in up to {blocks} blocks whose checksums were right on both sides, since {node} \
             started; the primary's contents replaced the others', and the log of {node} says where: please report this"
        )
    })
}

/// What bad blocks came to in this run (I10).
fn bad_blocks(core: &holdfast_replication::core::api::Status, node: &str) -> Option<String> {
    let (extent, checks) = (core.extent, core.checks);
    (checks.found > 0).then(|| {
        let lost = match checks.lost {
            0 => String::new(),
            lost => format!("; {lost} times a block was wanted that no replica in sync has any more"),
        };
        format!(
            "extent {extent}: since {node} started, {} blocks were found bad and {} repaired{lost}",
            checks.found, checks.repaired
        )
    })
}
