//! Letting a node in with a one-time token, over the Raft address.
//!
//! A token holds a secret of 128 bits and where members listen. The secret never travels: each side proves that it has it by a keyed hash
//! (BLAKE3) over what it says. So a token that is typed on the new machine is all that the two sides need to know of each other, and
//! whoever only listens can neither join nor pretend to be the cluster. The connection is TLS with certificates on both sides, of an
//! authority that both derive from the token: nobody else reads the answer, which brings the cluster key.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use holdfast_proto::raft as proto;
use holdfast_proto::raft::raft_client::RaftClient;
use holdfast_trust::{Generations, HandshakeError, Key};
use holdfast_types::{NodeId, unix_seconds};
use tonic::transport::{Channel, Endpoint};

use super::propose::{Committed, Core};
use crate::model::{AdminCommand, ClusterId, ClusterKey, ClusterState, Join, NewNode, Reply, Token};
use holdfast_types::{hex, unhex_exact};

const PREFIX: &str = "holdfast1";
const KEY_CONTEXT: &str = "holdfast 2026 one-time token to join a cluster";
/// Longest wait for one member's answer.
const ASK: Duration = Duration::from_secs(8);
/// Most bytes of a node's description.
const NODE_MAX: usize = 16 << 10;

/// What is typed on a machine that is to join.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: [u8; 16],
    /// Members' Raft addresses; any of them may be asked.
    pub members: Vec<SocketAddr>,
}

/// Never the secret: it would end up in a log.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, {:?})", self.id, self.members)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<String> = self.members.iter().map(ToString::to_string).collect();
        write!(
            f,
            "{PREFIX}/{}/{}/{}",
            self.id,
            hex(&self.secret),
            members.join(",")
        )
    }
}

impl FromStr for JoinToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "that is no token of 'holdfast cluster token': copy the whole line".to_owned();
        let parts: Vec<&str> = text.trim().split('/').collect();
        let [PREFIX, id, secret, members] = parts[..] else {
            return Err(wrong());
        };
        let secret = (secret.len() == 32)
            .then(|| u128::from_str_radix(secret, 16).ok())
            .flatten()
            .ok_or_else(wrong)?;
        let members: Result<Vec<SocketAddr>, _> = members.split(',').map(str::parse).collect();
        let id_fits = !id.is_empty() && id.len() <= 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        match members {
            Ok(members) if id_fits => Ok(Self {
                id: id.to_owned(),
                secret: secret.to_be_bytes(),
                members,
            }),
            _ => Err(wrong()),
        }
    }
}

impl JoinToken {
    /// A fresh one that lets one node into the cluster of `state`, and what the cluster is to keep of it, for `valid`.
    pub fn draw(state: &ClusterState, valid: Duration) -> (Self, Token) {
        let token = Self {
            id: format!("{:016x}", rand::random::<u64>()),
            secret: rand::random(),
            members: state.nodes.values().map(|node| node.addresses.raft).collect(),
        };
        let kept = Token {
            id: token.id.clone(),
            key: hex(&token.key()),
            expires: unix_seconds(SystemTime::now()) + valid.as_secs(),
            used: None,
        };
        (token, kept)
    }

    fn key(&self) -> [u8; 32] {
        blake3::derive_key(KEY_CONTEXT, &self.secret)
    }
}

/// Why a node was not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The cluster says no.
    #[error("the cluster does not let this node in: {0}")]
    Refused(String),
    /// Nobody answers.
    #[error(
        "no member of the cluster answers ({0}); is one of them up, and can this machine reach its Raft address?"
    )]
    Unreachable(String),
    /// The answer does not prove that it comes from a member.
    #[error("the answer from {0} is not the cluster's: it does not know the token")]
    NotTheCluster(SocketAddr),
}

/// A keyed hash over parts whose borders count.
fn prove(key: &[u8; 32], what: &str, parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in [what.as_bytes()].iter().chain(parts) {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

fn ask_proof(key: &[u8; 32], request: &proto::JoinRequest) -> blake3::Hash {
    let fields = [
        request.nonce.as_bytes(),
        &request.node[..],
        request.replaces.as_bytes(),
    ];
    prove(key, "join", &fields)
}

fn answer_proof(key: &[u8; 32], nonce: &str, joined: &proto::Joined) -> blake3::Hash {
    let fields = [
        nonce.as_bytes(),
        &joined.cluster[..],
        &joined.node.to_be_bytes(),
        &joined.key[..],
        &joined.generations[..],
    ];
    prove(key, "joined", &fields)
}

/// The key of a token, for the connection of who has it. A used one too: the same node may ask again.
pub(super) fn token_key(state: &ClusterState, id: &str) -> Option<Key> {
    let known = state.tokens.iter().find(|token| token.id == id)?;
    unhex_exact(&known.key).map(Key::new)
}

fn is_proof(hash: blake3::Hash, given: &[u8]) -> bool {
    // Compared in constant time.
    <[u8; 32]>::try_from(given).is_ok_and(|given| hash == given)
}

/// What a node gets that is let in.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node's id in it.
    pub node: NodeId,
    /// The cluster's key.
    pub key: ClusterKey,
    /// Which generations of certificates count.
    pub generations: Generations,
}

/// Asks the members that the token names, one after the other, to let `node` in. Asked again with the same nonce, the answer is the same.
///
/// # Errors
/// [`JoinError`]; after [`JoinError::Unreachable`] the cluster may have let it in all the same, so it is asked again.
pub async fn ask_to_join(
    token: &JoinToken,
    nonce: &str,
    node: &NewNode,
    replaces: &str,
) -> Result<Welcome, JoinError> {
    let json = serde_json::to_vec(node).map_err(|error| JoinError::Refused(error.to_string()))?;
    let key = token.key();
    let mut request = proto::JoinRequest {
        token: token.id.clone(),
        nonce: nonce.to_owned(),
        node: json.into(),
        replaces: replaces.to_owned(),
        proof: Bytes::new(),
    };
    request.proof = Bytes::copy_from_slice(ask_proof(&key, &request).as_bytes());
    let mut last = JoinError::Unreachable("the token names no member".into());
    for member in &token.members {
        match ask_one(token, *member, request.clone()).await {
            Ok(proto::join_response::Result::Joined(joined)) => {
                return welcome(&key, nonce, &joined).ok_or(JoinError::NotTheCluster(*member));
            }
            Ok(proto::join_response::Result::Refused(why)) => return Err(JoinError::Refused(why)),
            Err(why) => last = JoinError::Unreachable(format!("{member}: {why}")),
        }
    }
    Err(last)
}

fn welcome(key: &[u8; 32], nonce: &str, joined: &proto::Joined) -> Option<Welcome> {
    if !is_proof(answer_proof(key, nonce, joined), &joined.proof) || joined.node == 0 {
        return None;
    }
    Some(Welcome {
        cluster: ClusterId(u128::from_be_bytes(joined.cluster[..].try_into().ok()?)),
        node: NodeId(joined.node),
        key: ClusterKey::from_random(joined.key[..].try_into().ok()?),
        generations: serde_json::from_slice(&joined.generations).ok()?,
    })
}

/// Why the connection of a join did not come about.
fn no_connection(error: HandshakeError) -> String {
    match error {
        HandshakeError::Io(error) => error.to_string(),
        // It knows no such token, or this is not the machine that the token names.
        error => format!(
            "{error}; was the token made by this cluster, and not given out before a takeover? Make a new one with 'holdfast cluster token'"
        ),
    }
}

/// One connection to a member, opened with the token; it is not dialled again.
pub(super) async fn token_channel(token: &JoinToken, member: SocketAddr) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{member}")).map_err(|error| error.to_string())?;
    let stream = holdfast_trust::reach(member, Duration::from_secs(2))
        .await
        .map_err(no_connection)?;
    let stream = holdfast_trust::ask_with_token(&token.id, &Key::new(token.key()), stream)
        .await
        .map_err(no_connection)?;
    let stream = Mutex::new(Some(stream));
    Ok(holdfast_trust::channel(&endpoint, move || {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async { stream.ok_or(HandshakeError::Ended) }
    }))
}

async fn ask_one(
    token: &JoinToken,
    member: SocketAddr,
    request: proto::JoinRequest,
) -> Result<proto::join_response::Result, String> {
    let asked = async {
        let channel = token_channel(token, member).await?;
        let response = RaftClient::new(channel).join(request).await;
        let response = response.map_err(|status| status.message().to_owned())?;
        response
            .into_inner()
            .result
            .ok_or_else(|| "an empty answer".to_owned())
    };
    match tokio::time::timeout(ASK, asked).await {
        Ok(answer) => answer,
        Err(_) => Err("no answer in time".into()),
    }
}

/// A member's answer. Whoever has no token learns nothing but that.
pub(super) async fn answer(core: &Core, request: proto::JoinRequest) -> proto::JoinResponse {
    use proto::join_response::Result;
    let result = match let_in(core, &request).await {
        Ok((key, node)) => {
            let trust = &core.peers.trust;
            let mut joined = proto::Joined {
                cluster: Bytes::copy_from_slice(&core.peers.cluster.0.to_be_bytes()),
                node: node.0,
                key: Bytes::copy_from_slice(trust.key().expose()),
                // Plain words and numbers.
                generations: serde_json::to_vec(&trust.generations())
                    .unwrap_or_default()
                    .into(),
                proof: Bytes::new(),
            };
            let proof = answer_proof(&key, &request.nonce, &joined);
            joined.proof = Bytes::copy_from_slice(proof.as_bytes());
            Result::Joined(joined)
        }
        Err(why) => Result::Refused(why),
    };
    proto::JoinResponse { result: Some(result) }
}

async fn let_in(core: &Core, request: &proto::JoinRequest) -> Result<([u8; 32], NodeId), String> {
    let state = core.state.borrow().clone();
    let known = state.tokens.iter().find(|token| token.id == request.token);
    let key = known.and_then(|token| unhex_exact(&token.key));
    let (Some(known), Some(key)) = (known, key) else {
        return Err("the token is not known: make a new one with 'holdfast cluster token'".into());
    };
    if !is_proof(ask_proof(&key, request), &request.proof) {
        return Err("the token is not the one that was made: copy the whole line".into());
    }
    if known.used.is_none() && known.expires < unix_seconds(SystemTime::now()) {
        return Err("the token has expired: make a new one with 'holdfast cluster token'".into());
    }
    if request.node.len() > NODE_MAX {
        return Err("the node's description is too long".into());
    }
    let node: NewNode = serde_json::from_slice(&request.node).map_err(|error| {
        format!("the node's description cannot be read; do both run the same release? ({error})")
    })?;
    let replaces = match request.replaces.as_str() {
        "" => None,
        // The same request again finds the old node gone already, and gets its answer from the token.
        name => match state.node_named(name) {
            None if known.used.is_none() => return Err(format!("there is no node '{name}' to replace")),
            found => found,
        },
    };
    let join = Join {
        token: request.token.clone(),
        nonce: request.nonce.clone(),
        node,
        replaces,
    };
    match core.propose(AdminCommand::Join(Box::new(join)).into()).await {
        Ok(Committed {
            reply: Reply::Joined { node },
            ..
        }) => Ok((key, node)),
        Ok(Committed {
            reply: Reply::Refused { refusal },
            ..
        }) => Err(refusal.to_string()),
        Ok(_) => Err("the cluster gave an answer that does not belong to the request".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_prints_and_shows_no_secret_in_logs() {
        let mut state = crate::model::fixture::trio(0);
        let (token, kept) = JoinToken::draw(&state, Duration::from_secs(60));
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(token.members.len(), 3);
        let secret = hex(&token.secret);
        assert!(!format!("{token:?}").contains(&secret) && !kept.key.contains(&secret));
        assert_eq!(unhex_exact(&kept.key), Some(token.key()));
        crate::model::fixture::must(&AdminCommand::AddToken(kept).into(), &mut state);
        for wrong in [
            "",
            "holdfast1/aa/bb/127.0.0.1:1",
            "holdfast2/aa/00000000000000000000000000000000/127.0.0.1:1",
        ] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_proof_is_of_all_fields_and_of_the_key() {
        let request = |nonce: &str, node: &'static str| proto::JoinRequest {
            token: "t".into(),
            nonce: nonce.into(),
            node: Bytes::from_static(node.as_bytes()),
            replaces: String::new(),
            proof: Bytes::new(),
        };
        let key = [1; 32];
        let proof = ask_proof(&key, &request("ab", "c"));
        assert!(is_proof(proof, ask_proof(&key, &request("ab", "c")).as_bytes()));
        assert_ne!(proof, ask_proof(&key, &request("a", "bc")));
        assert_ne!(proof, ask_proof(&[2; 32], &request("ab", "c")));
        assert!(!is_proof(proof, b""));
    }
}
