//! The state machine: the applied cluster state in memory, published to whoever watches, and kept on disk by the [`Keeper`].

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use holdfast_types::Revision;

use super::applied::Applied;
use super::keeper::Keeper;
use super::kind::{Entry, Kind, LogId, Snapshot, SnapshotMeta, StoredMembership};
use super::log::LogStore;
use super::recover::Recovered;
use super::snapshot::{Parsed, SnapshotError, Snapshots, decode, encode};
use crate::model::{ClusterState, Reply};

/// Called within apply, before anybody hears that an entry was applied: what it does about the new state is done when a proposal is
/// answered. It must be quick and must not block.
pub type AppliedHook = Arc<dyn Fn(&Arc<ClusterState>) + Send + Sync>;

/// openraft's state machine.
pub(crate) struct StateMachine {
    applied: Applied,
    keeper: Keeper,
    log: LogStore,
    snapshots: Arc<Snapshots>,
    publish: watch::Sender<Arc<ClusterState>>,
    hook: AppliedHook,
}

fn bad(error: SnapshotError) -> io::Error {
    match error {
        SnapshotError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// Runs what blocks on the disk where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> io::Result<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(io::Error::other)?.map_err(bad)
}

impl StateMachine {
    /// From what was recovered; tells the hook of it at once.
    pub(crate) fn new(recovered: Recovered, hook: AppliedHook) -> Self {
        let Recovered {
            log,
            snapshots,
            keeper,
            applied,
        } = recovered;
        hook(&applied.state);
        let publish = watch::Sender::new(applied.state.clone());
        Self {
            applied,
            keeper,
            log,
            snapshots,
            publish,
            hook,
        }
    }

    /// To watch the applied state.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.publish.subscribe()
    }

    fn announce(&self) {
        (self.hook)(&self.applied.state);
        self.publish.send_replace(self.applied.state.clone());
    }
}

/// Applies one entry.
pub(super) fn apply_entry(applied: &mut Applied, state: &mut ClusterState, entry: &Entry) -> Reply {
    let index = Revision(entry.log_id.index);
    let reply = match &entry.payload {
        EntryPayload::Normal(proposal) => state.apply(index, &proposal.0),
        EntryPayload::Blank => Reply::DONE,
        EntryPayload::Membership(membership) => {
            applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            let mut sets = membership.get_joint_config().iter().rev().cloned();
            let members = sets.next().unwrap_or_default();
            // L8. While it is joint, the set before is the other one; openraft makes no joint ones of more than two.
            state.set_voters(index, members, sets.next().unwrap_or_default());
            Reply::DONE
        }
    };
    state.advance(index);
    applied.last = Some(entry.log_id);
    reply
}

impl RaftStateMachine<Kind> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Kind>, io::Error>> + Unpin + OptionalSend,
    {
        let mut applied = self.applied.clone();
        let mut state = ClusterState::clone(&applied.state);
        let mut answers = Vec::new();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let reply = apply_entry(&mut applied, &mut state, &entry);
            answers.extend(responder.map(|responder| (responder, reply)));
        }
        applied.state = Arc::new(state);
        self.applied = applied;
        self.announce();
        for (responder, reply) in answers {
            responder.send(reply);
        }
        // After the answers: the entries are durable in the log of a majority, and the next start applies again what is missing here.
        let index = self.applied.last.map_or(0, |id| id.index);
        if self.log.wait_durable(index).await {
            self.keeper.save(self.applied.clone()).await;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            applied: self.applied.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let (snapshots, wanted) = (self.snapshots.clone(), meta.clone());
        let parsed = blocking(move || {
            let parsed = decode(&snapshot)?;
            if parsed.meta != wanted {
                return Err(io::Error::other("the snapshot is not the one that it was said to be").into());
            }
            snapshots.store(snapshot, parsed.clone())?;
            Ok(parsed)
        })
        .await?;
        self.applied = Applied {
            last: parsed.meta.last_log_id,
            membership: parsed.meta.last_membership,
            state: parsed.state,
        };
        self.announce();
        self.keeper.save(self.applied.clone()).await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.snapshots.current().map(|(snapshot, parsed)| Snapshot {
            meta: parsed.meta,
            snapshot,
        }))
    }
}

/// Writes a snapshot of one moment, while the state machine goes on.
pub(crate) struct Builder {
    applied: Applied,
    snapshots: Arc<Snapshots>,
}

/// Stores a snapshot of `applied`. Blocks on the disk.
pub(crate) fn take_snapshot(snapshots: &Snapshots, applied: &Applied) -> Result<Snapshot, SnapshotError> {
    let meta = SnapshotMeta {
        last_log_id: applied.last,
        last_membership: applied.membership.clone(),
    };
    let bytes = encode(&meta, &applied.state)?;
    let parsed = Parsed {
        meta: meta.clone(),
        state: applied.state.clone(),
    };
    snapshots.store(bytes.clone(), parsed)?;
    Ok(Snapshot {
        meta,
        snapshot: bytes,
    })
}

impl RaftSnapshotBuilder<Kind> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (snapshots, applied) = (self.snapshots.clone(), self.applied.clone());
        blocking(move || take_snapshot(&snapshots, &applied)).await
    }
}
