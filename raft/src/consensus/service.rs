//! What peers ask of this node. Every message must be of this cluster and meant for this node; anything else is refused by name.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use holdfast_injection::{HERE, Way};
use holdfast_proto::raft as proto;
use holdfast_proto::raft::raft_server::{Raft, RaftServer};
use holdfast_trust::{Door, Known, Peer, Port};
use holdfast_types::NodeId;

use super::kind::{Snapshot, Vote};
use super::peers::{MESSAGE, MESSAGE_MAX};
use super::propose::{Answer, Core};
use super::snapshot::{SNAPSHOT_MAX, decode};
use super::wire::{
    WireError, put_append_response, put_vote, put_vote_response, take_append, take_transfer, take_vote,
    take_vote_request,
};
use crate::model::ClusterId;

/// Connections that are let in and wait to be served.
const CALLERS_WAIT: usize = 16;
/// Longest silence within a snapshot.
const CHUNK_LIMIT: Duration = Duration::from_secs(5);

/// The Raft service of a node.
#[derive(Clone)]
pub struct RaftService {
    core: Arc<Core>,
}

impl std::fmt::Debug for RaftService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RaftService({})", self.core.peers.me)
    }
}

/// Who is at the other end of a request's connection.
struct Caller(Option<Arc<Peer>>);

impl Caller {
    fn of<T>(request: &Request<T>) -> Self {
        let known = request.extensions().get::<Known>();
        Self(known.map(|known| Arc::clone(&known.peer)))
    }
}

fn refuse(error: WireError) -> Status {
    Status::invalid_argument(error.0)
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl RaftService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// As a tonic service, with the limits on messages that peers keep to.
    pub(crate) fn server(self) -> RaftServer<Self> {
        RaftServer::new(self)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// Who sent it, if it is for this node of this cluster, and from the node that the connection's certificate names.
    fn sender(&self, caller: &Caller, envelope: Option<&proto::Envelope>) -> Result<NodeId, Status> {
        let peers = &self.core.peers;
        let envelope = envelope.ok_or_else(|| Status::invalid_argument("a message without an envelope"))?;
        if *envelope.cluster != peers.cluster.0.to_be_bytes() {
            let other = <[u8; 16]>::try_from(&*envelope.cluster);
            let other = other.map(|id| ClusterId(u128::from_be_bytes(id))).ok();
            let left = other.and_then(|other| peers.refuse_left_behind(other, NodeId(envelope.from)));
            if let Some(why) = left {
                return Err(Status::failed_precondition(why));
            }
            return Err(Status::failed_precondition(format!(
                "this is node {} of cluster {}, and the message is of another cluster",
                peers.me, peers.cluster
            )));
        }
        if envelope.to != peers.me.0 {
            return Err(Status::failed_precondition(format!(
                "this is node {} of cluster {}, and the message is for node {}",
                peers.me, peers.cluster, envelope.to
            )));
        }
        if envelope.from == peers.me.0 || envelope.from == 0 {
            return Err(Status::failed_precondition(format!(
                "node {} cannot have sent this to node {}",
                envelope.from, peers.me
            )));
        }
        let from = NodeId(envelope.from);
        if !caller
            .0
            .as_ref()
            .is_some_and(|peer| peer.is_node(peers.cluster.0, from))
        {
            let peer = caller
                .0
                .as_deref()
                .map_or_else(|| "nobody".to_owned(), ToString::to_string);
            let why = format!("the certificate names {peer}, and the message says that node {from} sends it");
            tracing::warn!("a Raft message is refused: {why}");
            return Err(Status::failed_precondition(why));
        }
        Ok(from)
    }

    /// The same, for what only the owner of a vote may send.
    fn owner(
        &self,
        caller: &Caller,
        envelope: Option<&proto::Envelope>,
        vote: &Vote,
    ) -> Result<NodeId, Status> {
        let sender = self.sender(caller, envelope)?;
        if vote.leader_id.node_id != sender {
            return Err(Status::invalid_argument(format!(
                "node {sender} sends the vote of another node"
            )));
        }
        Ok(sender)
    }

    /// Waits while a drill holds back what `peer` sends.
    async fn let_in(&self, peer: NodeId) -> Result<(), Status> {
        HERE.pass(peer, Way::In, MESSAGE).await.map_err(stopped)
    }

    /// An answer, once no drill holds it back.
    async fn let_out<T>(&self, peer: NodeId, answer: T) -> Result<Response<T>, Status> {
        HERE.pass(peer, Way::Out, MESSAGE).await.map_err(stopped)?;
        Ok(Response::new(answer))
    }

    /// How long a relayed question may take.
    fn deadline(&self, timeout_ms: u32) -> Instant {
        Instant::now() + Duration::from_millis(timeout_ms.into()).min(self.core.timers.propose)
    }
}

/// Collects a snapshot's chunks. Memory grows with what came, not with what was announced.
async fn collect(
    parts: &mut Streaming<proto::SnapshotPart>,
    head: &proto::SnapshotHead,
) -> Result<Bytes, Status> {
    if head.length > SNAPSHOT_MAX {
        return Err(Status::invalid_argument(format!(
            "a snapshot of {} bytes is too large",
            head.length
        )));
    }
    let mut bytes = BytesMut::new();
    while let Some(part) = next(parts).await? {
        let proto::snapshot_part::Part::Chunk(chunk) = part else {
            return Err(Status::invalid_argument("a second head within a snapshot"));
        };
        if (bytes.len() + chunk.len()) as u64 > head.length {
            return Err(Status::invalid_argument("a snapshot is longer than announced"));
        }
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() as u64 != head.length || crc32c::crc32c(&bytes) != head.crc {
        return Err(Status::data_loss("a snapshot did not arrive whole"));
    }
    Ok(bytes.freeze())
}

async fn next(
    parts: &mut Streaming<proto::SnapshotPart>,
) -> Result<Option<proto::snapshot_part::Part>, Status> {
    match timeout(CHUNK_LIMIT, parts.next()).await {
        Err(_) => Err(Status::deadline_exceeded("a snapshot stopped arriving")),
        Ok(None) => Ok(None),
        Ok(Some(part)) => part?
            .part
            .map(Some)
            .ok_or_else(|| Status::invalid_argument("an empty part of a snapshot")),
    }
}

#[tonic::async_trait]
impl Raft for RaftService {
    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let taken = take_vote_request(&request).map_err(refuse)?;
        let sender = self.owner(&caller, request.envelope.as_ref(), &taken.vote)?;
        self.let_in(sender).await?;
        let response = if request.pre_vote {
            self.core.raft.pre_vote(taken).await
        } else {
            self.core.raft.vote(taken).await
        };
        self.let_out(sender, put_vote_response(&response.map_err(stopped)?))
            .await
    }

    async fn append(
        &self,
        request: Request<proto::AppendRequest>,
    ) -> Result<Response<proto::AppendResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let taken = take_append(&request).map_err(refuse)?;
        let leader = self.owner(&caller, request.envelope.as_ref(), &taken.vote)?;
        self.let_in(leader).await?;
        let response = self.core.raft.append_entries(taken).await.map_err(stopped)?;
        if response.is_success() {
            self.core.heard(leader);
        }
        self.let_out(leader, put_append_response(&response)).await
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotPart>>,
    ) -> Result<Response<proto::SnapshotResponse>, Status> {
        let caller = Caller::of(&request);
        let mut parts = request.into_inner();
        let Some(proto::snapshot_part::Part::Head(head)) = next(&mut parts).await? else {
            return Err(Status::invalid_argument("a snapshot without a head"));
        };
        let vote = take_vote(head.vote.as_ref()).map_err(refuse)?;
        let sender = self.owner(&caller, head.envelope.as_ref(), &vote)?;
        self.let_in(sender).await?;
        if !vote.committed {
            return Err(Status::invalid_argument(
                "a snapshot from a node that does not lead",
            ));
        }
        let snapshot = collect(&mut parts, &head).await?;
        let parsed = decode(&snapshot)
            .map_err(|error| Status::invalid_argument(format!("a bad snapshot: {error}")))?;
        if parsed.meta.last_log_id.is_none() {
            return Err(Status::invalid_argument("an empty snapshot"));
        }
        let snapshot = Snapshot {
            meta: parsed.meta,
            snapshot,
        };
        let installed = self.core.raft.install_full_snapshot(vote, snapshot).await;
        let vote = Some(put_vote(&installed.map_err(stopped)?.vote));
        self.let_out(sender, proto::SnapshotResponse { vote }).await
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let taken = take_transfer(&request).map_err(refuse)?;
        let sender = self.owner(&caller, request.envelope.as_ref(), taken.from_leader())?;
        self.let_in(sender).await?;
        let response = self.core.raft.handle_transfer_leader(taken).await;
        let refused = match response.map_err(stopped)? {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        self.let_out(sender, proto::TransferResponse { refused }).await
    }

    async fn propose(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeResponse>, Status> {
        use proto::propose_response::Result;
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let sender = self.sender(&caller, request.envelope.as_ref())?;
        self.let_in(sender).await?;
        let command = serde_json::from_slice(&request.command)
            .map_err(|error| Status::invalid_argument(format!("a command that cannot be read: {error}")))?;
        let deadline = self.deadline(request.timeout_ms);
        let mut index = 0;
        let result = match self.core.propose_here(Arc::new(command), deadline).await {
            Answer::Done(committed) => {
                let json = serde_json::to_vec(&committed.reply);
                let json = json.map_err(|error| Status::internal(error.to_string()))?;
                index = committed.index.0;
                Result::Reply(json.into())
            }
            Answer::NotLeader(leader) => Result::NotLeader(not_leader(leader)),
            Answer::Unknown(why) => Result::Unknown(proto::Unknown { why }),
            Answer::Stopped(why) => return Err(Status::unavailable(why)),
        };
        let result = Some(result);
        self.let_out(sender, proto::ProposeResponse { result, index })
            .await
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexResponse>, Status> {
        use proto::read_index_response::Result;
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let sender = self.sender(&caller, request.envelope.as_ref())?;
        self.let_in(sender).await?;
        let deadline = self.deadline(request.timeout_ms);
        let result = match self.core.read_index_here(deadline).await {
            Answer::Done(index) => Result::Index(index),
            Answer::NotLeader(leader) => Result::NotLeader(not_leader(leader)),
            Answer::Unknown(_) => Result::NotLeader(not_leader(None)),
            Answer::Stopped(why) => return Err(Status::unavailable(why)),
        };
        let result = Some(result);
        self.let_out(sender, proto::ReadIndexResponse { result }).await
    }

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinResponse>, Status> {
        let peer = Caller::of(&request).0;
        let request = request.into_inner();
        // The connection was opened with the token that is used.
        if !matches!(peer.as_deref(), Some(Peer::Joiner(id)) if *id == request.token) {
            return Err(Status::permission_denied(
                "a node joins with the token of its connection",
            ));
        }
        Ok(Response::new(super::join::answer(&self.core, request).await))
    }

    async fn meet(
        &self,
        request: Request<proto::MeetRequest>,
    ) -> Result<Response<proto::MeetResponse>, Status> {
        let caller = Caller::of(&request);
        if let Some(Peer::Joiner(token)) = caller.0.as_deref() {
            if !super::meet::is_good(&self.core, token) {
                return Err(Status::permission_denied("the token is not good any more"));
            }
            return super::meet::answer(&self.core, true).map(Response::new);
        }
        let sender = self.sender(&caller, request.get_ref().envelope.as_ref())?;
        self.let_in(sender).await?;
        let answer = super::meet::answer(&self.core, false)?;
        self.let_out(sender, answer).await
    }

    async fn look_back(
        &self,
        request: Request<proto::LookBackRequest>,
    ) -> Result<Response<proto::LookResponse>, Status> {
        let caller = Caller::of(&request);
        let Some(Peer::Joiner(token)) = caller.0.as_deref() else {
            return Err(Status::permission_denied("only who is to join is looked back at"));
        };
        if !super::meet::is_good(&self.core, token) {
            return Err(Status::permission_denied("the token is not good any more"));
        }
        let look = super::meet::look_back(&self.core, &request.get_ref().newcomer).await?;
        Ok(Response::new(proto::LookResponse { look }))
    }

    async fn look(
        &self,
        request: Request<proto::LookRequest>,
    ) -> Result<Response<proto::LookResponse>, Status> {
        let caller = Caller::of(&request);
        let sender = self.sender(&caller, request.get_ref().envelope.as_ref())?;
        self.let_in(sender).await?;
        let look = super::meet::inspected(&self.core)?.look().await.into();
        self.let_out(sender, proto::LookResponse { look }).await
    }
}

fn not_leader(leader: Option<NodeId>) -> proto::NotLeader {
    proto::NotLeader {
        leader: leader.map_or(0, |node| node.0),
    }
}

/// Serves peers on `listener` until `stop` is done, their connections included.
pub(crate) async fn serve(service: RaftService, listener: TcpListener, stop: impl Future<Output = ()>) {
    let (trust, state) = (Arc::clone(&service.core.peers.trust), service.core.state.clone());
    let door = Door {
        port: Port::Raft,
        trust: Box::new(move || Some(Arc::clone(&trust))),
        token: Box::new(move |id| super::join::token_key(&state.borrow(), id)),
    };
    let (callers, incoming) = mpsc::channel(CALLERS_WAIT);
    tokio::spawn(door.watch(listener, callers));
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .add_service(service.server())
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop);
    if let Err(error) = server.await {
        tracing::error!(%error, "the Raft listener has stopped");
    }
}
