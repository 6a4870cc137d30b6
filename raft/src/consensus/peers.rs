//! Connections to peers. Each is dialled once and used for one purpose: heartbeats never wait behind entries, entries never behind a
//! snapshot. A connection on which nothing comes back is given up and dialled anew, instead of waiting for TCP's own long timers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use holdfast_injection::{HERE, Lost, Way};
use holdfast_proto::raft as proto;
use holdfast_proto::raft::raft_client::RaftClient;
use holdfast_trust::{Port, Trust};
use holdfast_types::{NodeId, utc};

use super::kind::PeerAddress;
use super::log::moving_average;
use super::wire::put_envelope;
use crate::model::{ClusterId, ClusterState};

/// Largest message that is taken, in bytes; requests are cut well below.
pub(crate) const MESSAGE_MAX: usize = 8 << 20;

/// Bytes of a message, as a slow link that a drill makes counts them: most are small.
pub(crate) const MESSAGE: usize = 256;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Entries.
    Append,
    /// Heartbeats and elections.
    Heartbeat,
    /// Snapshots.
    Snapshot,
    /// Proposals and read indexes for the leader.
    Relay,
    /// Measuring the way, and asking what a peer has found.
    Look,
}

struct Link {
    address: SocketAddr,
    client: RaftClient<Channel>,
    /// Since when no call got an answer in time.
    silent: Option<Instant>,
}

#[derive(Default)]
struct Links {
    links: HashMap<(NodeId, Purpose), Link>,
    /// What each peer refused last, to say it once.
    refused: HashMap<NodeId, String>,
    /// Nodes of earlier incarnations that were refused, to say it once.
    left_behind: BTreeSet<(ClusterId, NodeId)>,
    /// How long each peer takes to store entries, round trip included, lately.
    stores: HashMap<NodeId, Duration>,
}

/// How a call failed.
#[derive(Debug)]
pub(crate) enum CallError {
    /// No answer in time.
    Timeout(Duration),
    /// The peer refuses the message, or cannot be reached.
    Status(Status),
    /// Nobody knows where the peer is.
    Unknown,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::Status(status) => write!(f, "{}", status.message()),
            Self::Unknown => write!(f, "its address is not known"),
        }
    }
}

impl std::error::Error for CallError {}

/// All connections of this node to its peers.
pub(crate) struct Peers {
    pub(crate) me: NodeId,
    pub(crate) cluster: ClusterId,
    connect: Duration,
    pub(crate) trust: Arc<Trust>,
    state: watch::Receiver<Arc<ClusterState>>,
    links: Mutex<Links>,
    /// Why each peer could not be reached last, to say it once.
    told: Arc<Mutex<HashMap<NodeId, String>>>,
}

impl Peers {
    pub(crate) fn new(
        me: NodeId,
        cluster: ClusterId,
        connect: Duration,
        trust: Arc<Trust>,
        state: watch::Receiver<Arc<ClusterState>>,
    ) -> Self {
        Self {
            me,
            cluster,
            connect,
            trust,
            state,
            links: Mutex::default(),
            told: Arc::default(),
        }
    }

    pub(crate) fn envelope(&self, to: NodeId) -> proto::Envelope {
        put_envelope(self.cluster, self.me, to)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer stored entries within `took`.
    pub(crate) fn stored(&self, peer: NodeId, took: Duration) {
        let mut links = self.lock();
        let average = links.stores.entry(peer).or_default();
        *average = moving_average(*average, took);
    }

    /// How long each peer takes to store entries.
    pub(crate) fn stores(&self) -> BTreeMap<NodeId, Duration> {
        self.lock()
            .stores
            .iter()
            .map(|(node, took)| (*node, *took))
            .collect()
    }

    /// Where a peer listens: the applied cluster state says so; before a node is in it, the membership does.
    fn address(&self, peer: NodeId, fallback: Option<PeerAddress>) -> Option<SocketAddr> {
        let state = self.state.borrow();
        let known = state.node(peer).map(|node| node.addresses.raft);
        known.or_else(|| fallback.map(|address| address.raft))
    }

    fn client(
        &self,
        peer: NodeId,
        purpose: Purpose,
        fallback: Option<PeerAddress>,
    ) -> Result<RaftClient<Channel>, CallError> {
        let address = self.address(peer, fallback).ok_or(CallError::Unknown)?;
        let mut links = self.lock();
        if let Some(link) = links.links.get(&(peer, purpose))
            && link.address == address
        {
            return Ok(link.client.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| CallError::Status(Status::unavailable(error.to_string())))?;
        // Dials at the first call, and again after the connection broke.
        let client = RaftClient::new(self.channel(peer, address, &endpoint))
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        links.links.insert(
            (peer, purpose),
            Link {
                address,
                client: client.clone(),
                silent: None,
            },
        );
        Ok(client)
    }

    /// Why a peer is not reached is said once, not at every try.
    fn channel(&self, peer: NodeId, address: SocketAddr, endpoint: &Endpoint) -> Channel {
        let (trust, limit) = (Arc::clone(&self.trust), self.connect);
        let told = Arc::clone(&self.told);
        holdfast_trust::channel(endpoint, move || {
            let (trust, told) = (Arc::clone(&trust), Arc::clone(&told));
            async move {
                let dialled = trust.dial(Port::Raft, peer, address, limit).await;
                let line = dialled
                    .as_ref()
                    .err()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                let before = told.insert(peer, line.clone()).unwrap_or_default();
                match (before.is_empty(), line.is_empty()) {
                    (false, true) => tracing::info!(%peer, %address, "Raft connections come about again"),
                    (_, false) if before != line => {
                        tracing::warn!(%peer, %address, "no Raft connection: {line}")
                    }
                    _ => {}
                }
                drop(told);
                dialled
            }
        })
    }

    /// One call, bounded in time.
    pub(crate) async fn call<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        (peer, purpose): (NodeId, Purpose),
        fallback: Option<PeerAddress>,
        limit: Duration,
        call: impl FnOnce(RaftClient<Channel>) -> F,
    ) -> Result<T, CallError> {
        let client = self.client(peer, purpose, fallback)?;
        let call = async {
            let lost = |lost: Lost| Status::unavailable(lost.to_string());
            HERE.pass(peer, Way::Out, MESSAGE).await.map_err(lost)?;
            let answer = call(client).await;
            HERE.pass(peer, Way::In, MESSAGE).await.map_err(lost)?;
            answer
        };
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => {
                if let Some(link) = self.lock().links.get_mut(&(peer, purpose)) {
                    link.silent = None;
                }
                Ok(response.into_inner())
            }
            Ok(Err(status)) => {
                self.note(peer, &status);
                Err(CallError::Status(status))
            }
            Err(_) => {
                self.timed_out(peer, purpose, limit);
                Err(CallError::Timeout(limit))
            }
        }
    }

    /// Gives a connection up that was silent for longer than it takes to make a new one: to connect, and to prove who one is.
    fn timed_out(&self, peer: NodeId, purpose: Purpose, limit: Duration) {
        let mut links = self.lock();
        if let Some(link) = links.links.get_mut(&(peer, purpose)) {
            let asked = Instant::now().checked_sub(limit).unwrap_or_else(Instant::now);
            if link.silent.get_or_insert(asked).elapsed() > self.connect * 2 {
                links.links.remove(&(peer, purpose));
            }
        }
    }

    /// Says once what a peer refuses. That it cannot be reached is no refusal.
    fn note(&self, peer: NodeId, status: &Status) {
        if !matches!(
            status.code(),
            tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument
        ) {
            return;
        }
        let said = status.message().to_owned();
        if self.lock().refused.insert(peer, said.clone()).as_ref() != Some(&said) {
            tracing::warn!(%peer, "the peer refuses Raft messages: {said}");
        }
    }

    /// What each peer refused last: a peer of another incarnation does (T1).
    pub(crate) fn refusals(&self) -> BTreeMap<NodeId, String> {
        let links = self.lock();
        links
            .refused
            .iter()
            .map(|(node, said)| (*node, said.clone()))
            .collect()
    }

    /// T1: why node `from` of cluster `other` is refused, if that is this cluster before a takeover. Said once in this node's log, too.
    pub(crate) fn refuse_left_behind(&self, other: ClusterId, from: NodeId) -> Option<String> {
        let state = self.state.borrow().clone();
        let takeover = state.was_taken_over(other)?;
        let (by, at) = (&takeover.name, utc(takeover.order.at));
        let gone = takeover.gone.iter().find(|gone| gone.node == from);
        // Only nodes that there were: this set does not grow by what strangers send.
        if let Some(gone) = gone
            && self.lock().left_behind.insert((other, from))
        {
            tracing::warn!(
                "{} (node {from}) is up as a member of this cluster before {by} took over ({at}): it is refused; stop it, empty its \
                 directory, and let it join with a token",
                gone.name
            );
        }
        Some(format!(
            "{by} has taken over this cluster without this node ({at}), which is refused for ever: stop it, empty its directory, and let \
             it join with a token ('holdfast cluster token' at {by})"
        ))
    }

    /// Asks the leader to propose a command.
    pub(crate) async fn propose(
        &self,
        leader: NodeId,
        fallback: Option<PeerAddress>,
        command: Bytes,
        limit: Duration,
    ) -> Result<proto::ProposeResponse, CallError> {
        let request = proto::ProposeRequest {
            envelope: Some(self.envelope(leader)),
            command,
            timeout_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
        };
        self.call(
            (leader, Purpose::Relay),
            fallback,
            limit,
            |mut client| async move { client.propose(request).await },
        )
        .await
    }

    /// Asks the leader for a confirmed commit index.
    pub(crate) async fn read_index(
        &self,
        leader: NodeId,
        fallback: Option<PeerAddress>,
        limit: Duration,
    ) -> Result<proto::ReadIndexResponse, CallError> {
        let request = proto::ReadIndexRequest {
            envelope: Some(self.envelope(leader)),
            timeout_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
        };
        self.call(
            (leader, Purpose::Relay),
            fallback,
            limit,
            |mut client| async move { client.read_index(request).await },
        )
        .await
    }
}
