//! What openraft sends to a peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};

use holdfast_proto::raft as proto;
use holdfast_types::NodeId;

use super::kind::{Kind, LogId, PeerAddress, Snapshot, Vote};
use super::peers::{CallError, Peers, Purpose};
use super::wire::{
    WireError, put_entry, put_log_id, put_transfer, put_vote, put_vote_request, take_append_response,
    take_vote, take_vote_response,
};

/// Payload bytes after which a request for entries is cut; the rest goes with the next one.
const APPEND_BYTES: usize = 2 << 20;
/// Bytes of a snapshot per message; few in tests, whose snapshots are small.
const CHUNK: usize = if cfg!(test) { 4 << 10 } else { 1 << 20 };

/// Makes [`Network`]s.
pub(crate) struct NetworkFactory {
    pub(crate) peers: Arc<Peers>,
    /// Least time for entries to be stored by a peer: its disk may take longer than a heartbeat.
    pub(crate) store_limit: Duration,
}

impl NetworkFactory {
    fn network(&self, target: NodeId, node: &PeerAddress, purpose: Purpose) -> Network {
        Network {
            peers: self.peers.clone(),
            target,
            address: *node,
            purpose,
            store_limit: self.store_limit,
        }
    }
}

impl RaftNetworkFactory<Kind> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &PeerAddress) -> Network {
        self.network(target, node, Purpose::Append)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &PeerAddress) -> Network {
        self.network(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &PeerAddress) -> Network {
        self.network(target, node, Purpose::Snapshot)
    }
}

/// One peer, for one purpose.
pub(crate) struct Network {
    peers: Arc<Peers>,
    target: NodeId,
    address: PeerAddress,
    purpose: Purpose,
    store_limit: Duration,
}

type RpcResult<T> = Result<T, RPCError<Kind>>;

impl Network {
    fn error(&self, action: RPCTypes, error: CallError) -> RPCError<Kind> {
        match error {
            CallError::Timeout(timeout) => RPCError::Timeout(Timeout {
                action,
                id: self.peers.me,
                target: self.target,
                timeout,
            }),
            // Also for a refusal: what was refused once is refused again, so there is no hurry.
            CallError::Status(_) | CallError::Unknown => RPCError::Unreachable(Unreachable::new(&error)),
        }
    }

    async fn ask_vote(
        &self,
        request: &VoteRequest<Kind>,
        limit: Duration,
        pre_vote: bool,
    ) -> RpcResult<VoteResponse<Kind>> {
        let request = put_vote_request(request, self.peers.envelope(self.target), pre_vote);
        let call = self.peers.call(
            (self.target, Purpose::Heartbeat),
            Some(self.address),
            limit,
            |mut client| async move { client.vote(request).await },
        );
        let response = call.await.map_err(|error| self.error(RPCTypes::Vote, error))?;
        take_vote_response(&response).map_err(|error| unreachable(&error))
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        bytes: Bytes,
        limit: Duration,
    ) -> Result<SnapshotResponse<Kind>, StreamingError<Kind>> {
        let head = proto::SnapshotHead {
            envelope: Some(self.peers.envelope(self.target)),
            vote: Some(put_vote(&vote)),
            length: bytes.len() as u64,
            crc: crc32c::crc32c(&bytes),
        };
        let head = proto::snapshot_part::Part::Head(head);
        let chunks = (0..bytes.len()).step_by(CHUNK).map(move |start| {
            let end = bytes.len().min(start + CHUNK);
            proto::snapshot_part::Part::Chunk(bytes.slice(start..end))
        });
        let parts = std::iter::once(head)
            .chain(chunks)
            .map(|part| proto::SnapshotPart { part: Some(part) });
        let parts = tokio_stream::iter(parts.collect::<Vec<_>>());
        let call = self.peers.call(
            (self.target, Purpose::Snapshot),
            Some(self.address),
            limit,
            |mut client| async move { client.snapshot(parts).await },
        );
        let response = call.await.map_err(|error| match error {
            CallError::Timeout(timeout) => StreamingError::Timeout(Timeout {
                action: RPCTypes::InstallSnapshot,
                id: self.peers.me,
                target: self.target,
                timeout,
            }),
            error => StreamingError::Unreachable(Unreachable::new(&error)),
        })?;
        let vote = take_vote(response.vote.as_ref())
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        Ok(SnapshotResponse::new(vote))
    }
}

fn unreachable(error: &WireError) -> RPCError<Kind> {
    RPCError::Unreachable(Unreachable::new(error))
}

/// As many entries as one message takes, and where they were cut.
fn put_entries(
    request: &AppendEntriesRequest<Kind>,
) -> Result<(Vec<proto::Entry>, Option<LogId>), WireError> {
    let mut entries = Vec::with_capacity(request.entries.len());
    let mut bytes = 0;
    for entry in &request.entries {
        let put = put_entry(entry)?;
        bytes += match &put.payload {
            Some(proto::entry::Payload::Command(json) | proto::entry::Payload::Membership(json)) => {
                json.len()
            }
            Some(proto::entry::Payload::Blank(_)) | None => 0,
        };
        if bytes > APPEND_BYTES && !entries.is_empty() {
            let cut_at = request.entries.get(entries.len() - 1).map(|entry| entry.log_id);
            return Ok((entries, cut_at));
        }
        entries.push(put);
    }
    Ok((entries, None))
}

impl RaftNetworkV2<Kind> for Network {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Kind>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<Kind>> {
        let (entries, cut_at) = put_entries(&request).map_err(|error| unreachable(&error))?;
        let limit = if entries.is_empty() {
            option.soft_ttl()
        } else {
            option.soft_ttl().max(self.store_limit)
        };
        let message = proto::AppendRequest {
            envelope: Some(self.peers.envelope(self.target)),
            vote: Some(put_vote(&request.vote)),
            previous: request.prev_log_id.as_ref().map(put_log_id),
            entries,
            committed: request.leader_commit.as_ref().map(put_log_id),
        };
        let (stores, at) = (!message.entries.is_empty(), Instant::now());
        let call = self.peers.call(
            (self.target, self.purpose),
            Some(self.address),
            limit,
            |mut client| async move { client.append(message).await },
        );
        let response = call
            .await
            .map_err(|error| self.error(RPCTypes::AppendEntries, error))?;
        if stores {
            self.peers.stored(self.target, at.elapsed());
        }
        take_append_response(&response, cut_at, request.prev_log_id.is_some(), &request.vote)
            .map_err(|error| unreachable(&error))
    }

    async fn vote(&mut self, request: VoteRequest<Kind>, option: RPCOption) -> RpcResult<VoteResponse<Kind>> {
        self.ask_vote(&request, option.soft_ttl(), false).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Kind>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<Kind>> {
        self.ask_vote(&request, option.soft_ttl(), true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Kind>, StreamingError<Kind>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot.snapshot, option.soft_ttl()) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Kind>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<Kind>> {
        let message = put_transfer(&request, self.peers.envelope(self.target));
        let call = self.peers.call(
            (self.target, Purpose::Heartbeat),
            Some(self.address),
            option.soft_ttl(),
            |mut client| async move { client.transfer_leader(message).await },
        );
        let response = call
            .await
            .map_err(|error| self.error(RPCTypes::TransferLeader, error))?;
        if response.refused.is_empty() {
            Ok(Ok(()))
        } else {
            Err(unreachable(&WireError(response.refused)))
        }
    }

    /// Short: a peer that comes back is to be found at once.
    fn backoff(&self) -> Option<Backoff> {
        let first = [20, 50, 100].into_iter();
        Some(Backoff::new(
            first.chain(std::iter::repeat(200)).map(Duration::from_millis),
        ))
    }
}
