//! The first log of a new incarnation (T1 to T3), written beside the one before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use holdfast_types::{NodeId, Revision};

use super::applied::Applied;
use super::error::StartError;
use super::kind::{Entry, LeaderId, LogId, Membership, PeerAddress, StoredMembership, Vote, log_id};
use super::log::Tag;
use super::machine::{apply_entry, take_snapshot};
use super::record::{Head, LOG_FORMAT, encode_head};
use super::recover::{Place, new_journal, recover};
use super::snapshot::Snapshots;
use crate::model::{ClusterState, TakeoverOrder, follow_tail};

/// How long the disk may take to store the first record.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// Applies an entry, committed or not. Membership entries change who votes; a takeover replaces that anyway.
pub(super) fn apply(state: &mut ClusterState, entry: &Entry) {
    let mut applied = Applied::default();
    apply_entry(&mut applied, state, entry);
}

/// Writes log and snapshot of the new incarnation into `next`, a directory that is not there yet, from what the one before left in `raft`,
/// which stays as it is. Durable when it returns; `next` takes the place of `raft` by a rename. Blocks on the disk.
///
/// # Errors
/// [`StartError`]: what is in `raft` cannot be read, or the order is not for it.
pub fn begin_incarnation(
    raft: &Path,
    next: &Path,
    order: &TakeoverOrder,
) -> Result<ClusterState, StartError> {
    let place = Place {
        dir: raft.to_owned(),
        cluster: order.before,
        node: order.node,
        expect_log: true,
    };
    let (mut state, last) = last_state(&place, order.committed)?;
    let term = last.as_ref().map_or(0, |id| id.leader_id.term) + 1;
    let index = last.as_ref().map_or(0, |id| id.index) + 1;
    state
        .take_over(Revision(index), order)
        .map_err(|why| StartError::Config(format!("the takeover that was ordered cannot be made: {why}")))?;
    let first = log_id(term, order.node.0, index);
    write(next, &state, first, order)?;
    Ok(state)
}

/// The state with all that is in the log, and the newest position. Up to `committed` the log was known as committed when the node ran.
fn last_state(place: &Place, committed: Revision) -> Result<(ClusterState, Option<LogId>), StartError> {
    let mut recovered = recover(place)?;
    let mut state = ClusterState::clone(&recovered.applied.state);
    let mut tail = recovered.log.entries_after(state.revision.value());
    let last = tail.last().map(|entry| entry.log_id).or(recovered.applied.last);
    let known = tail.partition_point(|entry| entry.log_id.index <= committed.value());
    for entry in tail.drain(..known) {
        apply(&mut state, &entry);
    }
    follow_tail(&mut state, place.node, tail, apply);
    recovered.keeper.close();
    recovered.log.close();
    Ok((state, last))
}

fn write(next: &Path, state: &ClusterState, first: LogId, order: &TakeoverOrder) -> Result<(), StartError> {
    let failed = |error: std::io::Error| StartError::io(format!("cannot write {}", next.display()), error);
    let (snapshots, ..) =
        Snapshots::open(&next.join("snapshots")).map_err(|error| failed(std::io::Error::other(error)))?;
    let applied = Applied {
        last: Some(first),
        membership: alone(state, first, order.node)?,
        state: Arc::new(state.clone()),
    };
    take_snapshot(&snapshots, &applied).map_err(|error| failed(std::io::Error::other(error)))?;
    let head = Head {
        format: LOG_FORMAT,
        cluster: order.cluster,
        node: order.node,
        // The one voter has voted for itself in the term of the first entry.
        vote: Some(Vote {
            leader_id: LeaderId {
                term: first.leader_id.term,
                node_id: order.node,
            },
            committed: true,
        }),
        committed: Some(first),
        purged: Some(first),
    };
    let record = encode_head(&head).map_err(|error| failed(std::io::Error::other(error)))?;
    let opened = new_journal(&next.join("log"))?;
    let (sender, receiver) = oneshot::channel();
    let (journal, tag) = (&opened.journal, Tag::Waiter(sender));
    journal
        .append(record.kind, record.header, record.payload, tag)
        .map_err(|error| failed(std::io::Error::other(error)))?;
    let written = durable(receiver);
    journal.close();
    written.map_err(failed)?;
    File::open(next).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Waits for the journal. A full disk holds it up, and is an error here: the node starts again once there is room.
fn durable(mut receiver: oneshot::Receiver<std::io::Result<()>>) -> std::io::Result<()> {
    let began = Instant::now();
    loop {
        match receiver.try_recv() {
            Ok(result) => return result,
            Err(TryRecvError::Closed) => return Err(std::io::Error::other("the journal has stopped")),
            Err(TryRecvError::Empty) if began.elapsed() > WRITE_LIMIT => {
                return Err(std::io::Error::other("the disk takes no writes: is it full?"));
            }
            Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn alone(state: &ClusterState, first: LogId, me: NodeId) -> Result<StoredMembership, StartError> {
    let address = state.node(me).map(|member| PeerAddress {
        raft: member.addresses.raft,
    });
    let nodes: BTreeMap<NodeId, PeerAddress> = BTreeMap::from([(me, address.unwrap_or_default())]);
    let membership = Membership::new(vec![BTreeSet::from([me])], nodes)
        .map_err(|error| StartError::Raft(error.to_string()))?;
    Ok(StoredMembership::new(Some(first), membership))
}
