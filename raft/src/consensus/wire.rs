//! Raft's messages between what travels and what openraft takes. What a peer sent is checked here, before openraft sees it: openraft
//! relies on consecutive entries and on votes that fit, and would panic over others.

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use holdfast_proto::raft as proto;
use holdfast_types::NodeId;

use super::kind::{Entry, Kind, LeaderId, LogId, Membership, Vote, log_id};
use crate::model::ClusterId;

/// A peer's message that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad message from a peer: {0}")]
pub(crate) struct WireError(pub(crate) String);

fn missing(what: &str) -> WireError {
    WireError(format!("{what} is missing"))
}

type Result<T> = std::result::Result<T, WireError>;

pub(crate) fn put_envelope(cluster: ClusterId, from: NodeId, to: NodeId) -> proto::Envelope {
    proto::Envelope {
        cluster: Bytes::copy_from_slice(&cluster.0.to_be_bytes()),
        from: from.0,
        to: to.0,
    }
}

pub(crate) fn put_log_id(id: &LogId) -> proto::LogId {
    proto::LogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id.0,
        index: id.index,
    }
}

/// The largest index is out of bounds: its successor must be a number too.
fn take_log_id(id: &proto::LogId) -> Result<LogId> {
    if id.index == u64::MAX {
        return Err(WireError("a log index out of range".into()));
    }
    Ok(log_id(id.term, id.node, id.index))
}

fn take_some_log_id(id: Option<&proto::LogId>) -> Result<Option<LogId>> {
    id.map(take_log_id).transpose()
}

pub(crate) fn put_vote(vote: &Vote) -> proto::Vote {
    proto::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id.0,
        committed: vote.committed,
    }
}

pub(crate) fn take_vote(vote: Option<&proto::Vote>) -> Result<Vote> {
    let vote = vote.ok_or_else(|| missing("the vote"))?;
    // One that is about to be exceeded could never be outvoted.
    if vote.term == u64::MAX {
        return Err(WireError("a term out of range".into()));
    }
    Ok(Vote {
        leader_id: LeaderId {
            term: vote.term,
            node_id: NodeId(vote.node),
        },
        committed: vote.committed,
    })
}

pub(crate) fn put_vote_request(
    request: &VoteRequest<Kind>,
    envelope: proto::Envelope,
    pre_vote: bool,
) -> proto::VoteRequest {
    proto::VoteRequest {
        envelope: Some(envelope),
        vote: Some(put_vote(&request.vote)),
        last_log: request.last_log_id.as_ref().map(put_log_id),
        transfer: request.leadership_transfer,
        pre_vote,
    }
}

pub(crate) fn take_vote_request(request: &proto::VoteRequest) -> Result<VoteRequest<Kind>> {
    let vote = take_vote(request.vote.as_ref())?;
    let last = take_some_log_id(request.last_log.as_ref())?;
    let mut taken = VoteRequest::new(vote, last);
    taken.leadership_transfer = request.transfer;
    Ok(taken)
}

pub(crate) fn put_vote_response(response: &VoteResponse<Kind>) -> proto::VoteResponse {
    proto::VoteResponse {
        vote: Some(put_vote(&response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.as_ref().map(put_log_id),
    }
}

pub(crate) fn take_vote_response(response: &proto::VoteResponse) -> Result<VoteResponse<Kind>> {
    let vote = take_vote(response.vote.as_ref())?;
    let last = take_some_log_id(response.last_log.as_ref())?;
    Ok(VoteResponse::new(vote, last, response.granted))
}

fn put_json<T: serde::Serialize>(value: &T) -> Result<Bytes> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| WireError(error.to_string()))
}

fn take_json<T: for<'a> serde::Deserialize<'a>>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| WireError(error.to_string()))
}

pub(crate) fn put_entry(entry: &Entry) -> Result<proto::Entry> {
    use proto::entry::Payload;
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(proto::Blank {}),
        EntryPayload::Normal(proposal) => Payload::Command(put_json(proposal)?),
        EntryPayload::Membership(membership) => Payload::Membership(put_json(membership)?),
    };
    Ok(proto::Entry {
        id: Some(put_log_id(&entry.log_id)),
        payload: Some(payload),
    })
}

fn take_entry(entry: &proto::Entry) -> Result<Entry> {
    use proto::entry::Payload;
    let id = entry.id.as_ref().ok_or_else(|| missing("an entry's id"))?;
    let payload = match entry
        .payload
        .as_ref()
        .ok_or_else(|| missing("an entry's payload"))?
    {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Command(json) => EntryPayload::Normal(take_json(json)?),
        Payload::Membership(json) => EntryPayload::Membership(take_membership(json)?),
    };
    Ok(Entry {
        log_id: take_log_id(id)?,
        payload,
    })
}

/// A membership without voters, or with voters that are no nodes, cannot be led.
fn take_membership(json: &[u8]) -> Result<Membership> {
    let membership: Membership = take_json(json)?;
    let sets = membership.get_joint_config();
    let known = membership
        .voter_ids()
        .all(|voter| membership.get_node(&voter).is_some());
    if sets.is_empty() || sets.iter().any(std::collections::BTreeSet::is_empty) || !known {
        return Err(WireError("a membership that does not hold together".into()));
    }
    Ok(membership)
}

pub(crate) fn take_append(request: &proto::AppendRequest) -> Result<AppendEntriesRequest<Kind>> {
    let vote = take_vote(request.vote.as_ref())?;
    if !vote.committed {
        return Err(WireError("entries from a node that does not lead".into()));
    }
    let prev_log_id = take_some_log_id(request.previous.as_ref())?;
    let mut before = prev_log_id;
    let mut entries = Vec::with_capacity(request.entries.len().min(4096));
    for entry in &request.entries {
        let entry = take_entry(entry)?;
        let index = before.map_or(0, |id| id.index + 1);
        if entry.log_id.index != index
            || Some(entry.log_id) <= before
            || entry.log_id.leader_id > vote.leader_id
        {
            return Err(WireError(format!(
                "entry {} does not follow {before:?}",
                entry.log_id
            )));
        }
        before = Some(entry.log_id);
        entries.push(entry);
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit: take_some_log_id(request.committed.as_ref())?,
    })
}

pub(crate) fn put_append_response(response: &AppendEntriesResponse<Kind>) -> proto::AppendResponse {
    use proto::append_response::Result;
    let result = match response {
        AppendEntriesResponse::Success => Result::Stored(proto::Stored {}),
        // Never given by a receiver; to be safe it counts as not stored.
        AppendEntriesResponse::PartialSuccess(_) | AppendEntriesResponse::Conflict => {
            Result::Conflict(proto::Conflict {})
        }
        AppendEntriesResponse::HigherVote(vote) => Result::HigherVote(put_vote(vote)),
    };
    proto::AppendResponse { result: Some(result) }
}

/// `sent` is the last entry of a request that was cut short; `had_previous` whether there was anything to conflict with.
pub(crate) fn take_append_response(
    response: &proto::AppendResponse,
    cut_at: Option<LogId>,
    had_previous: bool,
    mine: &Vote,
) -> Result<AppendEntriesResponse<Kind>> {
    use proto::append_response::Result;
    match response.result.as_ref().ok_or_else(|| missing("the result"))? {
        Result::Stored(_) => Ok(match cut_at {
            None => AppendEntriesResponse::Success,
            Some(id) => AppendEntriesResponse::PartialSuccess(Some(id)),
        }),
        // Nothing conflicts with the very beginning; openraft relies on it.
        Result::Conflict(_) if !had_previous => Err(WireError("a conflict with nothing".into())),
        Result::Conflict(_) => Ok(AppendEntriesResponse::Conflict),
        Result::HigherVote(vote) => {
            let vote = take_vote(Some(vote))?;
            if vote <= *mine {
                return Err(WireError("a higher vote that is not higher".into()));
            }
            Ok(AppendEntriesResponse::HigherVote(vote))
        }
    }
}

pub(crate) fn put_transfer(
    request: &TransferLeaderRequest<Kind>,
    envelope: proto::Envelope,
) -> proto::TransferRequest {
    proto::TransferRequest {
        envelope: Some(envelope),
        vote: Some(put_vote(request.from_leader())),
        last_log: request.last_log_id().map(put_log_id),
        successor: request.to_node_id().0,
    }
}

pub(crate) fn take_transfer(request: &proto::TransferRequest) -> Result<TransferLeaderRequest<Kind>> {
    let vote = take_vote(request.vote.as_ref())?;
    if !vote.committed {
        return Err(WireError("leadership from a node that does not lead".into()));
    }
    let last = take_some_log_id(request.last_log.as_ref())?;
    Ok(TransferLeaderRequest::new(vote, NodeId(request.successor), last))
}
