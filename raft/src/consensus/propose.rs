//! Proposals and confirmed reads: here if this node leads, else relayed to who does.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use holdfast_proto::raft as proto;
use holdfast_types::{NodeId, Revision};

use super::config::Timers;
use super::error::{ProposeError, ReadIndexError};
use super::kind::{Kind, PeerAddress, Proposal, Raft};
use super::log::LogStore;
use super::meet::Inspected;
use super::peers::Peers;
use crate::model::{ClusterState, Command, Reply};

/// Largest command, as JSON, in bytes.
pub(crate) const COMMAND_MAX: usize = 1 << 20;
/// Longest wait for one peer's answer, before the question who leads is asked again.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Pause after a peer that could not help.
const PAUSE: Duration = Duration::from_millis(20);

/// What control handle and service share.
pub(crate) struct Core {
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    pub(crate) peers: Arc<Peers>,
    pub(crate) state: watch::Receiver<Arc<ClusterState>>,
    pub(crate) timers: Timers,
    /// When this node last took a leader's message, and whose.
    pub(crate) heard: Mutex<Option<(NodeId, Instant)>>,
    /// What answers those who measure, once the node runs.
    pub(crate) inspected: OnceLock<Arc<dyn Inspected>>,
}

/// What became of a command that was committed.
#[derive(Debug)]
pub(crate) struct Committed {
    /// What the leader's apply said.
    pub(crate) reply: Reply,
    /// Of the entry: whoever has applied it finds what the reply is about.
    pub(crate) index: Revision,
}

/// What became of a question.
pub(crate) enum Answer<T> {
    Done(T),
    /// Not asked for here; somebody else may lead.
    NotLeader(Option<NodeId>),
    /// It may or may not take effect.
    Unknown(String),
    /// Raft has stopped.
    Stopped(String),
}

impl<T> Answer<T> {
    fn forward(forward: &ForwardToLeader<Kind>) -> Self {
        Self::NotLeader(forward.leader_id)
    }
}

/// Who leads, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leader {
    node: NodeId,
    address: Option<PeerAddress>,
}

/// A command as it is relayed.
fn encode(command: &Command) -> Result<Bytes, ProposeError> {
    let json = serde_json::to_vec(command).map_err(|error| ProposeError::Refused(error.to_string()))?;
    if json.len() > COMMAND_MAX {
        let line = format!("a command of {} bytes is larger than {COMMAND_MAX}", json.len());
        return Err(ProposeError::Refused(line));
    }
    Ok(json.into())
}

/// What is said when time is up: whether the command may have reached who leads.
const fn in_vain(proposed: bool) -> ProposeError {
    if proposed {
        ProposeError::Timeout
    } else {
        ProposeError::NoLeader
    }
}

impl Core {
    /// Notes that a leader was heard.
    pub(crate) fn heard(&self, leader: NodeId) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((leader, Instant::now()));
    }

    /// Why Raft has stopped, if it has.
    pub(crate) fn stopped(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    fn leader(&self) -> Option<Leader> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let node = metrics.current_leader?;
        Some(Leader {
            node,
            address: metrics.membership_config.get_node(&node).copied(),
        })
    }

    /// Returns when somebody other than `leader` leads, or Raft has stopped.
    async fn leader_changes(&self, leader: Option<NodeId>) {
        let mut metrics = self.raft.server_metrics();
        while metrics.borrow_watched().current_leader == leader {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Proposes on this node, if it leads.
    pub(crate) async fn propose_here(&self, command: Arc<Command>, deadline: Instant) -> Answer<Committed> {
        let written = timeout_at(deadline, self.raft.client_write(Proposal(command))).await;
        match written {
            Err(_) => Answer::Unknown("no majority has stored it in time".into()),
            Ok(Ok(response)) => Answer::Done(Committed {
                index: Revision(response.log_id.index),
                reply: response.data,
            }),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Answer::forward(&forward)
            }
            Ok(Err(RaftError::APIError(error))) => Answer::Unknown(error.to_string()),
            Ok(Err(RaftError::Fatal(error))) => Answer::Stopped(error.to_string()),
        }
    }

    /// Asks a majority whether this node still leads, if it does; gives the commit index that covers all that was committed before.
    pub(crate) async fn read_index_here(&self, deadline: Instant) -> Answer<u64> {
        let asked = timeout_at(deadline, self.raft.get_read_log_id(ReadPolicy::ReadIndex)).await;
        match asked {
            Err(_) => Answer::NotLeader(None),
            Ok(Ok((read, _))) => Answer::Done(read.log_id().index),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Answer::forward(&forward)
            }
            Ok(Err(RaftError::APIError(_))) => Answer::NotLeader(None),
            Ok(Err(RaftError::Fatal(error))) => Answer::Stopped(error.to_string()),
        }
    }

    async fn propose_at(&self, leader: Leader, command: Bytes, deadline: Instant) -> Answer<Committed> {
        use proto::propose_response::Result;
        let limit = deadline.saturating_duration_since(Instant::now());
        let response = match self
            .peers
            .propose(leader.node, leader.address, command, limit)
            .await
        {
            Ok(response) => response,
            Err(error) => return Answer::Unknown(error.to_string()),
        };
        let index = Revision(response.index);
        match response.result {
            Some(Result::Reply(json)) => match serde_json::from_slice(&json) {
                Ok(reply) => Answer::Done(Committed { reply, index }),
                Err(error) => Answer::Unknown(format!("a reply that cannot be read: {error}")),
            },
            Some(Result::NotLeader(_)) => Answer::NotLeader(None),
            Some(Result::Unknown(unknown)) => Answer::Unknown(unknown.why),
            None => Answer::Unknown("an empty reply".into()),
        }
    }

    async fn read_index_at(&self, leader: Leader, deadline: Instant) -> Answer<u64> {
        use proto::read_index_response::Result;
        let limit = deadline.saturating_duration_since(Instant::now());
        let asked = self.peers.read_index(leader.node, leader.address, limit).await;
        match asked.ok().and_then(|response| response.result) {
            Some(Result::Index(index)) => Answer::Done(index),
            Some(Result::NotLeader(_)) | None => Answer::NotLeader(None),
        }
    }

    /// One question to whoever leads, given up when that changes; `None` when nobody does.
    async fn ask<T, H, R>(
        &self,
        deadline: Instant,
        here: impl FnOnce(Instant) -> H,
        relayed: impl FnOnce(Leader, Instant) -> R,
    ) -> Option<Answer<T>>
    where
        H: Future<Output = Answer<T>>,
        R: Future<Output = Answer<T>>,
    {
        let leader = self.leader()?;
        let attempt = deadline.min(Instant::now() + ATTEMPT);
        let asked = async {
            if leader.node == self.peers.me {
                here(deadline).await
            } else {
                relayed(leader, attempt).await
            }
        };
        // A change of leader is looked at only after a question that was answered already.
        tokio::select! {
            biased;
            answer = asked => Some(answer),
            () = self.leader_changes(Some(leader.node)) => Some(Answer::Unknown("the leader has changed".into())),
        }
    }

    /// Waits a little before the next question: for a leader if there is none.
    async fn pause(&self, deadline: Instant) {
        let until = deadline.min(Instant::now() + PAUSE);
        match self.leader() {
            Some(_) => sleep_until(until).await,
            None => drop(timeout_at(deadline, self.leader_changes(None)).await),
        }
    }

    /// Proposes here or at the leader, until there is a reply or time is up. What may have taken effect is proposed again: commands
    /// name what they start from, so a second one changes nothing.
    pub(crate) async fn propose(&self, command: Command) -> Result<Committed, ProposeError> {
        let json = encode(&command)?;
        let command = Arc::new(command);
        let deadline = Instant::now() + self.timers.propose;
        let mut proposed = false;
        loop {
            let here = |deadline| self.propose_here(command.clone(), deadline);
            let relayed = |leader, attempt| self.propose_at(leader, json.clone(), attempt);
            match self.ask(deadline, here, relayed).await {
                Some(Answer::Done(committed)) => return Ok(committed),
                Some(Answer::Stopped(why)) => return Err(ProposeError::Stopped(why)),
                Some(Answer::Unknown(why)) => {
                    proposed = true;
                    tracing::debug!("a proposal is made again: {why}");
                }
                Some(Answer::NotLeader(_)) | None => {}
            }
            if let Some(why) = self.stopped() {
                return Err(ProposeError::Stopped(why));
            }
            self.pause(deadline).await;
            if Instant::now() >= deadline {
                return Err(in_vain(proposed));
            }
        }
    }

    /// Proposes at whichever member leads, asked one after the other: for a node that the leader's messages do not reach, since it
    /// listens elsewhere than the cluster knows.
    pub(crate) async fn propose_around(&self, command: Command) -> Result<Committed, ProposeError> {
        let json = encode(&command)?;
        let command = Arc::new(command);
        let deadline = Instant::now() + self.timers.propose;
        let mut proposed = false;
        while Instant::now() < deadline {
            if let Answer::Done(committed) = self.propose_here(Arc::clone(&command), deadline).await {
                return Ok(committed);
            }
            if let Some(why) = self.stopped() {
                return Err(ProposeError::Stopped(why));
            }
            let members: Vec<NodeId> = self.state.borrow().nodes.keys().copied().collect();
            for node in members.into_iter().filter(|node| *node != self.peers.me) {
                let attempt = deadline.min(Instant::now() + ATTEMPT);
                let member = Leader { node, address: None };
                match self.propose_at(member, json.clone(), attempt).await {
                    Answer::Done(committed) => return Ok(committed),
                    Answer::Unknown(_) => proposed = true,
                    Answer::NotLeader(_) | Answer::Stopped(_) => {}
                }
            }
            sleep_until(deadline.min(Instant::now() + PAUSE)).await;
        }
        Err(in_vain(proposed))
    }

    /// The commit index that a leader confirmed after the call.
    pub(crate) async fn read_index(&self) -> Result<Revision, ReadIndexError> {
        let deadline = Instant::now() + self.timers.propose;
        loop {
            let here = |deadline| self.read_index_here(deadline);
            let relayed = |leader, attempt| self.read_index_at(leader, attempt);
            match self.ask(deadline, here, relayed).await {
                Some(Answer::Done(index)) => return Ok(Revision(index)),
                Some(Answer::Stopped(why)) => return Err(ReadIndexError::Stopped(why)),
                Some(Answer::NotLeader(_) | Answer::Unknown(_)) | None => {}
            }
            if let Some(why) = self.stopped() {
                return Err(ReadIndexError::Stopped(why));
            }
            self.pause(deadline).await;
            if Instant::now() >= deadline {
                return Err(ReadIndexError::NoLeader);
            }
        }
    }
}
