//! The handle that the rest of the node holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError as RaftInitializeError, RaftError};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use holdfast_trust::Port;
use holdfast_types::{NodeId, Revision};

use super::config::{Config, Timers};
use super::error::{InitializeError, ProposeError, ReadIndexError, StartError, TransferError};
use super::kind::{PeerAddress, Raft};
use super::log::{LogStore, VotersHook};
use super::machine::{AppliedHook, StateMachine};
use super::network::NetworkFactory;
use super::peers::Peers;
use super::propose::{Committed, Core};
use super::recover::{Place, recover};
use super::service::{RaftService, serve};
use super::snapshot::Snapshots;
use crate::model::{ClusterId, ClusterState, Command, Move, NodeAddresses, Refusal, Reply, follow_tail};

/// Longest wait for somebody who may be this very node: for a connection, and then for its handshake.
const TWIN_WITHIN: Duration = Duration::from_secs(1);

/// What Raft is doing on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// This node.
    pub node: NodeId,
    /// Who leads, as far as this node knows. A leader that died is named until another one is elected: see `has_quorum`.
    pub leader: Option<NodeId>,
    /// Whether this node leads.
    pub am_leader: bool,
    /// Raft's term.
    pub term: u64,
    /// Index of the newest entry in the log.
    pub last_log: Option<u64>,
    /// Index of the newest entry that this node knows to be committed.
    pub committed: Option<u64>,
    /// Index of the newest entry that is applied here.
    pub last_applied: Option<u64>,
    /// Index up to which the newest snapshot reaches.
    pub snapshot: Option<u64>,
    /// Index up to which the log was purged.
    pub purged: Option<u64>,
    /// Bytes of the entries in the log.
    pub log_bytes: usize,
    /// Who votes, by the newest membership in this node's log.
    pub voters: BTreeSet<NodeId>,
    /// On the leader: the others.
    pub peers: BTreeMap<NodeId, PeerMetrics>,
    /// On the leader, how long ago a majority was last known to follow it; elsewhere, how long ago the leader was last heard.
    pub quorum_silence: Option<Duration>,
    /// Whether `quorum_silence` is below twice the longest election timeout. For people and for `status`; leases never rely on it (I4).
    pub has_quorum: bool,
    /// Why Raft has stopped on this node, if it has. Only a new start helps.
    pub stopped: Option<String>,
}

/// A peer, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerMetrics {
    /// Index up to which it has the leader's log.
    pub matched: Option<u64>,
    /// How long ago a message was sent that it acknowledged.
    pub acknowledged: Option<Duration>,
}

/// Raft on this node. Cheap to clone; the last clone that goes away stops it, as [`shutdown`](Control::shutdown) does.
#[derive(Clone)]
pub struct Control {
    core: Arc<Core>,
    guard: Arc<Guard>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Control({})", self.core.peers.me)
    }
}

/// Stops what runs beside the handle.
struct Guard {
    raft: Raft,
    log: LogStore,
    snapshots: Arc<Snapshots>,
    /// Dropping one ends a listener and its connections.
    listeners: Mutex<Vec<oneshot::Sender<()>>>,
    keeper: tokio::task::JoinHandle<()>,
}

impl Guard {
    fn stop_tasks(&self) {
        self.keeper.abort();
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop_tasks();
        let raft = self.raft.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { raft.shutdown().await });
        }
    }
}

/// Bytes of entries in the log above which a snapshot is taken early: commands may be large.
const LOG_BYTES: usize = 32 << 20;
/// Entries that a voter may miss and still be handed leadership.
const CLOSE: u64 = 64;
/// Longest wait for a hand-over.
const TRANSFER: Duration = Duration::from_secs(2);

impl Control {
    /// Opens the directory and starts Raft; peers reach it once it is [served](Control::serve). `hook` is told of the recovered state at
    /// once, and of every later one within apply; `on_voters` of the newest voter set in the log (L8).
    ///
    /// # Errors
    /// [`StartError`]: one line that says what is broken and what to do. What can be rebuilt is rebuilt, with a line in the log.
    pub async fn start(config: Config, hook: AppliedHook, on_voters: VotersHook) -> Result<Self, StartError> {
        let settings = config.openraft()?;
        let place = Place {
            dir: config.dir.clone(),
            cluster: config.cluster,
            node: config.node,
            expect_log: config.expect_log,
        };
        let mut recovered = tokio::task::spawn_blocking(move || recover(&place))
            .await
            .map_err(|error| StartError::Raft(error.to_string()))??;
        recovered.keeper.save(recovered.applied.clone()).await;
        let (log, snapshots) = (recovered.log.clone(), recovered.snapshots.clone());
        log.write_head()
            .await
            .map_err(|error| StartError::io("the Raft log cannot be written", error))?;
        log.watch_voters(on_voters);
        let machine = StateMachine::new(recovered, hook);
        let state = machine.watch();
        let peers = Arc::new(Peers::new(
            config.node,
            config.cluster,
            config.timers.connect,
            config.trust.clone(),
            state.clone(),
        ));
        let network = NetworkFactory {
            peers: peers.clone(),
            store_limit: config.timers.election_max,
        };
        let raft = Raft::new(config.node, Arc::new(settings), network, log.clone(), machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let core = Arc::new(Core {
            raft: raft.clone(),
            log: log.clone(),
            peers,
            state,
            timers: config.timers,
            heard: Mutex::new(None),
            inspected: OnceLock::new(),
        });
        let keeper = tokio::spawn(keep_log_small(raft.clone(), log.clone()));
        let guard = Arc::new(Guard {
            raft,
            log,
            snapshots,
            listeners: Mutex::default(),
            keeper,
        });
        Ok(Self { core, guard })
    }

    /// Serves peers on a listener of its own, until Raft is stopped.
    pub fn serve(&self, listener: TcpListener) {
        let (alive, stop) = oneshot::channel::<()>();
        let stop = async move { drop(stop.await) };
        tokio::spawn(serve(RaftService::new(self.core.clone()), listener, stop));
        self.guard
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(alive);
    }

    /// Makes a cluster of `members`, all of them voters; asked of one of them, once. The first command is for the caller to propose.
    ///
    /// # Errors
    /// [`InitializeError`].
    pub async fn initialize(&self, members: BTreeMap<NodeId, SocketAddr>) -> Result<(), InitializeError> {
        if !members.contains_key(&self.core.peers.me) {
            return Err(InitializeError::Invalid(
                "this node is not among the members".into(),
            ));
        }
        let members: BTreeMap<NodeId, PeerAddress> = members
            .into_iter()
            .map(|(node, raft)| (node, PeerAddress { raft }))
            .collect();
        match self.core.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(RaftInitializeError::NotAllowed(_))) => {
                Err(InitializeError::AlreadyInitialized)
            }
            Err(RaftError::APIError(error)) => Err(InitializeError::Invalid(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(InitializeError::Stopped(error.to_string())),
        }
    }

    /// Proposes a command, on this node or through the leader (L6: any voter relays), and gives what became of it when it was
    /// applied there. A command may be proposed more than once when answers are lost: it names what it starts from, so a doubled
    /// one changes nothing, but its reply may then be a refusal; whoever gets one looks at the state.
    ///
    /// # Errors
    /// [`ProposeError`]. A [`Reply::Refused`] is a reply.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        Ok(self.core.propose(command).await?.reply)
    }

    /// As [`Control::propose`], and returns once the command is applied here, too, so that whoever asks this node next finds what came of
    /// it. A node that does not lead is told of its own commands with the leader's next message only.
    ///
    /// # Errors
    /// [`ProposeError`]; [`ProposeError::NotApplied`] if it is committed but takes longer than `limit` here.
    pub async fn propose_applied(&self, command: Command, limit: Duration) -> Result<Reply, ProposeError> {
        let committed = self.core.propose(command).await?;
        self.applied(committed, limit).await
    }

    /// What came of it, once it is applied here.
    async fn applied(&self, committed: Committed, limit: Duration) -> Result<Reply, ProposeError> {
        let Committed { reply, index } = committed;
        if self.wait_applied(index, limit).await {
            Ok(reply)
        } else {
            Err(ProposeError::NotApplied(index))
        }
    }

    /// Has the cluster know that this node listens elsewhere from now on, also where nobody reaches it until it does. Returns once that is
    /// applied here, as [`Control::propose_applied`].
    ///
    /// # Errors
    /// As of [`Control::propose_applied`].
    pub async fn move_to(&self, addresses: NodeAddresses, limit: Duration) -> Result<Reply, ProposeError> {
        let (node, state) = (self.core.peers.me, self.state());
        let Some(before) = state.node(node).map(|member| member.addresses.clone()) else {
            return Ok(Refusal::NoSuchNode { node }.into());
        };
        let command = Command::SetNode(Box::new(Move {
            node,
            before,
            addresses,
        }));
        let committed = self.core.propose_around(command).await?;
        self.applied(committed, limit).await
    }

    /// Whether somebody at that address proves to be this very node: a second process out of a copy of its directory.
    pub async fn is_twin(&self, address: SocketAddr) -> bool {
        let (me, trust) = (self.core.peers.me, &self.core.peers.trust);
        trust.dial(Port::Raft, me, address, TWIN_WITHIN).await.is_ok()
    }

    /// The cluster that this node belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.core.peers.cluster
    }

    /// The state that is applied here.
    pub fn state(&self) -> Arc<ClusterState> {
        self.core.state.borrow().clone()
    }

    /// What a takeover by this node would begin from (T2): the state with everything that is in this node's log, known as committed or not.
    pub fn newest_state(&self) -> ClusterState {
        let mut state = ClusterState::clone(&self.state());
        let tail = self.guard.log.entries_after(state.revision.value());
        follow_tail(&mut state, self.core.peers.me, tail, super::takeover::apply);
        state
    }

    /// To watch the state that is applied here. It closes when Raft stops.
    pub fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.core.state.clone()
    }

    /// A commit index that a leader confirmed with a majority after the call (L5, W4): whoever has applied it has applied all that was
    /// committed before the call.
    ///
    /// # Errors
    /// [`ReadIndexError`].
    pub async fn read_index(&self) -> Result<Revision, ReadIndexError> {
        self.core.read_index().await
    }

    /// Waits until `index` is applied here, for `limit` at most; whether it is.
    pub async fn wait_applied(&self, index: Revision, limit: Duration) -> bool {
        let mut state = self.core.state.clone();
        let reached = state.wait_for(|state| state.revision >= index);
        matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// Hands leadership to `to`, a voter that has caught up, and waits until it leads.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), TransferError> {
        self.may_take_over(to)?;
        let deadline = Instant::now() + TRANSFER;
        let stopped = |error: openraft::errors::Fatal<_>| TransferError::Stopped(error.to_string());
        let mut metrics = self.core.raft.server_metrics();
        while Instant::now() < deadline {
            let (leader, me) = (metrics.borrow_watched().current_leader, self.core.peers.me);
            if leader == Some(to) {
                return Ok(());
            }
            if leader == Some(me) {
                // Refused while the last entries are on their way: asked again.
                self.core
                    .raft
                    .trigger()
                    .transfer_leader(to)
                    .await
                    .map_err(stopped)?;
            }
            let again = deadline.min(Instant::now() + Duration::from_millis(100));
            if matches!(
                tokio::time::timeout_at(again, metrics.changed()).await,
                Ok(Err(_))
            ) {
                return Err(TransferError::Stopped("its task has ended".into()));
            }
        }
        Err(TransferError::Timeout(to))
    }

    /// L6: leadership goes only to a voter that has caught up.
    fn may_take_over(&self, to: NodeId) -> Result<(), TransferError> {
        let metrics = self.metrics();
        if let Some(why) = metrics.stopped {
            return Err(TransferError::Stopped(why));
        }
        if !metrics.am_leader {
            return Err(TransferError::NotLeader);
        }
        if !metrics.voters.contains(&to) {
            return Err(TransferError::NotVoter(to));
        }
        let matched = metrics.peers.get(&to).and_then(|peer| peer.matched);
        let entries = |index: Option<u64>| index.map_or(0, |index| index + 1);
        let missing = entries(metrics.last_log).saturating_sub(entries(matched));
        if to != metrics.node && missing > CLOSE {
            return Err(TransferError::Behind { node: to, missing });
        }
        Ok(())
    }

    /// Peers that refuse this node's messages, and why: it is of another incarnation of the cluster (T1), or of another cluster.
    pub fn refusals(&self) -> BTreeMap<NodeId, String> {
        self.core.peers.refusals()
    }

    /// What Raft is doing.
    pub fn metrics(&self) -> Metrics {
        let raft = self.core.raft.metrics();
        let raft = raft.borrow_watched();
        let me = self.core.peers.me;
        let am_leader = raft.current_leader == Some(me) && raft.state.is_leader();
        let voters: BTreeSet<NodeId> = raft.membership_config.voter_ids().collect();
        let alone = voters.len() == 1 && voters.contains(&me);
        let quorum_silence = if am_leader && alone {
            Some(Duration::ZERO)
        } else if am_leader {
            raft.last_quorum_acked.as_ref().map(|at| at.elapsed())
        } else {
            self.leader_silence(raft.current_leader)
        };
        let index = |id: &Option<super::kind::LogId>| id.as_ref().map(|id| id.index);
        let peers = raft.replication.iter().flatten().filter(|(node, _)| **node != me);
        let acknowledged = |node: &NodeId| {
            let times = raft.heartbeat.as_ref()?;
            times.get(node)?.as_ref().map(|at| at.elapsed())
        };
        Metrics {
            node: me,
            leader: raft.current_leader,
            am_leader,
            term: raft.current_term,
            last_log: raft.last_log_index,
            committed: index(&raft.local_committed),
            last_applied: index(&raft.last_applied),
            snapshot: index(&raft.snapshot),
            purged: index(&raft.purged),
            log_bytes: self.core.log.bytes(),
            peers: peers
                .map(|(node, matched)| {
                    let matched = index(matched);
                    let acknowledged = acknowledged(node);
                    (
                        *node,
                        PeerMetrics {
                            matched,
                            acknowledged,
                        },
                    )
                })
                .collect(),
            voters,
            has_quorum: quorum_silence.is_some_and(|silence| silence < has_quorum_within(&self.core.timers)),
            quorum_silence,
            stopped: raft.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// How long ago the present leader was heard.
    fn leader_silence(&self, leader: Option<NodeId>) -> Option<Duration> {
        let heard = *self.core.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .filter(|(node, _)| Some(*node) == leader)
            .map(|(_, at)| at.elapsed())
    }

    /// How long each node takes to store an entry, as this node has measured it lately; peers with their round trip.
    pub fn store_times(&self) -> BTreeMap<NodeId, Duration> {
        let mut times = self.core.peers.stores();
        let mine = self.core.log.takes();
        if !mine.is_zero() {
            times.insert(self.core.peers.me, mine);
        }
        times
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// Stops Raft, its listeners and its journal. Nothing is lost by not calling it.
    pub async fn shutdown(&self) {
        self.guard.stop_tasks();
        if let Err(error) = self.guard.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop cleanly");
        }
        let (log, snapshots) = (self.guard.log.clone(), self.guard.snapshots.clone());
        let closed = tokio::task::spawn_blocking(move || {
            snapshots.close();
            // Waits for the journal's thread.
            log.close();
        });
        drop(closed.await);
    }
}

fn has_quorum_within(timers: &Timers) -> Duration {
    timers.election_max * 2
}

/// Takes a snapshot, and purges behind it, before large commands fill the journal; counting entries alone would not.
async fn keep_log_small(raft: Raft, log: LogStore) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        if log.bytes() < LOG_BYTES {
            continue;
        }
        let snapshot = raft.metrics().borrow_watched().snapshot;
        let asked = match snapshot {
            Some(id) if Some(id) > log.purged() => raft.trigger().purge_log(id.index).await,
            _ => raft.trigger().snapshot().await,
        };
        if asked.is_err() {
            return;
        }
    }
}
