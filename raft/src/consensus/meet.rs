//! What nodes need of each other to measure the ways between them: a number that probes must carry ([`crate::lease::probe`]), the other
//! end's clock, and what a member found when it looked at itself. The rest of the node does the looking ([`Inspected`]).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use holdfast_proto::raft as proto;
use holdfast_proto::raft::raft_client::RaftClient;
use holdfast_types::{NodeId, REPLICATION_LINKS_MAX, unix_seconds};

use super::control::Control;
use super::join::{JoinToken, token_channel};
use super::peers::{CallError, Purpose};
use super::propose::Core;
use crate::lease::probe::Nonce;
use crate::model::{NodeAddresses, Role};

/// Longest wait for the answer to [`Control::meet`], or to who has a token.
const MEET: Duration = Duration::from_secs(3);
/// Longest wait for a member that looks around: some things it waits for itself.
const LOOK: Duration = Duration::from_secs(15);

/// What the node around does for those who measure.
pub trait Inspected: Send + Sync {
    /// From now on, for some seconds, probes with this number are answered.
    fn answer(&self, nonce: Nonce);
    /// The members as this node sees them, for one that is to join.
    fn members(&self) -> Vec<MetMember>;
    /// Looks at this node and its ways to the others; a JSON document.
    fn look(&self) -> BoxFuture<'static, Vec<u8>>;
    /// Looks at the ways to one that is to join; a JSON document.
    fn look_back(&self, newcomer: Newcomer) -> BoxFuture<'static, Vec<u8>>;
}

/// One that is to join, as it tells members of itself so that they look back at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newcomer {
    /// Its name.
    pub name: String,
    /// Where it is to listen, and answers already while it is looked at.
    pub addresses: NodeAddresses,
    /// What probes must carry.
    pub nonce: Nonce,
}

/// A member, as one that is to join is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetMember {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Where it listens.
    pub addresses: NodeAddresses,
    /// Whether the member that tells of it hears it, or is it.
    pub heard: bool,
}

/// What the other end said.
#[derive(Debug, Clone)]
pub struct Met {
    /// What probes must carry.
    pub nonce: Nonce,
    /// How far its calendar is ahead of this machine's, in microseconds, half the round trip taken out.
    pub ahead_us: i64,
    /// How long its answer took. The clocks' difference is that uncertain, one half to each side.
    pub took: Duration,
    /// To who has a token: the members.
    pub members: Vec<MetMember>,
}

/// Why the other end could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeetError {
    /// It runs a release that does not know the question.
    #[error("it runs an earlier release")]
    Earlier,
    /// It says no, or there was no answer.
    #[error("{0}")]
    Failed(String),
}

impl From<CallError> for MeetError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Status(status) => status.into(),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<tonic::Status> for MeetError {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            tonic::Code::Unimplemented => Self::Earlier,
            _ => Self::Failed(status.message().to_owned()),
        }
    }
}

/// The calendar in microseconds since 1970.
fn clock_us(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// How far a clock that said `told` is ahead of one that said `sent` before and, `took` later, got the answer.
fn ahead_us(told: u64, sent: u64, took: Duration) -> i64 {
    let half = i64::try_from(took.as_micros() / 2).unwrap_or(i64::MAX);
    let apart = i128::from(told) - i128::from(sent);
    let apart = i64::try_from(apart).unwrap_or(if apart < 0 { i64::MIN } else { i64::MAX });
    apart.saturating_sub(half)
}

fn met(response: &proto::MeetResponse, sent: SystemTime, took: Duration) -> Result<Met, MeetError> {
    let wrong = |what: &str| MeetError::Failed(format!("its answer cannot be read: {what}"));
    let nonce = Nonce::try_from(&response.nonce[..]).map_err(|_| wrong("the number has not 16 bytes"))?;
    let members = match &response.members[..] {
        [] => Vec::new(),
        json => serde_json::from_slice(json).map_err(|error| wrong(&error.to_string()))?,
    };
    Ok(Met {
        nonce,
        ahead_us: ahead_us(response.clock_us, clock_us(sent), took),
        took,
        members,
    })
}

impl Control {
    /// From now on those who measure get their answers.
    pub fn set_inspected(&self, inspected: Arc<dyn Inspected>) {
        // Set once, when the node starts.
        let _ = self.core().inspected.set(inspected);
    }

    /// Asks a member for what measuring the way to it takes.
    ///
    /// # Errors
    /// [`MeetError`].
    pub async fn meet(&self, peer: NodeId) -> Result<Met, MeetError> {
        let peers = &self.core().peers;
        let envelope = Some(peers.envelope(peer));
        let (sent, clock) = (Instant::now(), SystemTime::now());
        let response = peers
            .call((peer, Purpose::Look), None, MEET, |mut client| async move {
                client.meet(proto::MeetRequest { envelope }).await
            })
            .await?;
        met(&response, clock, sent.elapsed())
    }

    /// Has a member look at itself and its ways to the others; its document.
    ///
    /// # Errors
    /// [`MeetError`].
    pub async fn look(&self, peer: NodeId) -> Result<Bytes, MeetError> {
        let peers = &self.core().peers;
        let envelope = Some(peers.envelope(peer));
        let response = peers
            .call((peer, Purpose::Look), None, LOOK, |mut client| async move {
                client.look(proto::LookRequest { envelope }).await
            })
            .await?;
        Ok(response.look)
    }
}

/// As [`Control::meet`], by who has a token of the cluster and is no member yet; the members are in the answer.
///
/// # Errors
/// [`MeetError`].
pub async fn meet_with_token(token: &JoinToken, member: std::net::SocketAddr) -> Result<Met, MeetError> {
    let meeting = async {
        let channel = token_channel(token, member).await.map_err(MeetError::Failed)?;
        let mut client = RaftClient::new(channel);
        let request = || proto::MeetRequest { envelope: None };
        // The first call waits for the connection's settings, too.
        let members = client.meet(request()).await?.into_inner().members;
        let (sent, clock) = (Instant::now(), SystemTime::now());
        let mut response = client.meet(request()).await?.into_inner();
        let took = sent.elapsed();
        response.members = members;
        met(&response, clock, took)
    };
    match tokio::time::timeout(MEET, meeting).await {
        Ok(met) => met,
        Err(_) => Err(MeetError::Failed("no answer in time".into())),
    }
}

/// Has a member look at its ways to this machine, which has a token of the cluster and is no member yet; its document.
///
/// # Errors
/// [`MeetError`].
pub async fn look_back_with_token(
    token: &JoinToken,
    member: std::net::SocketAddr,
    newcomer: &Newcomer,
) -> Result<Bytes, MeetError> {
    let looking = async {
        let channel = token_channel(token, member).await.map_err(MeetError::Failed)?;
        let json = serde_json::to_vec(newcomer).map_err(|error| MeetError::Failed(error.to_string()))?;
        let request = proto::LookBackRequest {
            newcomer: json.into(),
        };
        let response = RaftClient::new(channel).look_back(request).await?;
        Ok(response.into_inner().look)
    };
    match tokio::time::timeout(LOOK, looking).await {
        Ok(look) => look,
        Err(_) => Err(MeetError::Failed("no answer in time".into())),
    }
}

/// The ways to who is to join.
pub(super) async fn look_back(core: &Core, newcomer: &[u8]) -> Result<Bytes, tonic::Status> {
    let unread = |error: serde_json::Error| tonic::Status::invalid_argument(error.to_string());
    let newcomer: Newcomer = serde_json::from_slice(newcomer).map_err(unread)?;
    if newcomer.addresses.replication_links().len() > REPLICATION_LINKS_MAX {
        return Err(tonic::Status::invalid_argument(
            "more addresses than a node may have",
        ));
    }
    Ok(inspected(core)?.look_back(newcomer).await.into())
}

/// The answer to who measures; `members` are told to who has a token.
pub(super) fn answer(core: &Core, members: bool) -> Result<proto::MeetResponse, tonic::Status> {
    let inspected = inspected(core)?;
    let nonce: Nonce = rand::random();
    inspected.answer(nonce);
    let members = match members {
        true => serde_json::to_vec(&inspected.members())
            .map_err(|error| tonic::Status::internal(error.to_string()))?,
        false => Vec::new(),
    };
    Ok(proto::MeetResponse {
        nonce: Bytes::copy_from_slice(&nonce),
        members: members.into(),
        clock_us: clock_us(SystemTime::now()),
    })
}

pub(super) fn inspected(core: &Core) -> Result<Arc<dyn Inspected>, tonic::Status> {
    let inspected = core.inspected.get().map(Arc::clone);
    inspected.ok_or_else(|| tonic::Status::unavailable("this node is still starting"))
}

/// Whether a token still opens anything: one that let a node in is good for that node for ever.
pub(super) fn is_good(core: &Core, token: &str) -> bool {
    let state = core.state.borrow();
    let now = unix_seconds(SystemTime::now());
    let mut tokens = state.tokens.iter();
    tokens.any(|known| known.id == token && known.used.is_none() && known.expires >= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_round_trip_is_taken_out_of_a_clocks_difference() {
        let ms = 1_000;
        let took = Duration::from_millis(10);
        // Asked at 100 ms; by the other clock it is 105 ms in the middle of 10 ms: the same time.
        assert_eq!(ahead_us(105 * ms, 100 * ms, took), 0);
        assert_eq!(ahead_us(2_105 * ms, 100 * ms, took), 2_000_000);
        assert_eq!(ahead_us(0, 100 * ms, took), -105_000);
        assert_eq!(ahead_us(u64::MAX, 0, took), i64::MAX - 5_000);
    }

    #[test]
    fn a_wrong_answer_is_refused() {
        let response = proto::MeetResponse {
            nonce: Bytes::from_static(b"short"),
            ..proto::MeetResponse::default()
        };
        let now = SystemTime::now();
        assert!(met(&response, now, Duration::ZERO).is_err());
        let response = proto::MeetResponse {
            nonce: Bytes::from_static(&[1; 16]),
            members: Bytes::from_static(b"{"),
            ..proto::MeetResponse::default()
        };
        assert!(met(&response, now, Duration::ZERO).is_err());
    }
}
