//! The log store over its journal: what a new run finds.

use std::path::Path;

use holdfast_types::{Incarnation, NodeId, SuspicionId};
use openraft::storage::RaftLogStorage;
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};

use super::kind::{Entry, IoFlushed, Kind, LeaderId, LogId, Proposal, Vote, log_id};
use super::log::LogStore;
use super::recover::recover;
use super::suite_test::place;
use crate::model::{Candidate, Command};

/// An entry of about 40 kB.
fn large(index: u64) -> Entry {
    let candidate = Candidate {
        node: NodeId(index),
        incarnation: Incarnation(u64::MAX - index),
    };
    Entry {
        log_id: log_id(3, 1, index),
        payload: EntryPayload::Normal(Proposal(
            Command::NewEpoch {
                suspect: NodeId(2),
                suspicion: SuspicionId(index),
                candidates: vec![candidate; 1000],
                voters: 1,
            }
            .into(),
        )),
    }
}

fn blank(term: u64, index: u64) -> Entry {
    Entry {
        log_id: log_id(term, 1, index),
        payload: EntryPayload::Blank,
    }
}

fn vote(term: u64) -> Vote {
    Vote {
        leader_id: LeaderId {
            term,
            node_id: NodeId(1),
        },
        committed: true,
    }
}

/// Appends and waits until it is durable.
async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry> + Send) {
    let (sender, receiver) = Kind::oneshot();
    let entries: Vec<Entry> = entries.into_iter().collect();
    log.append(entries, IoFlushed::signal(sender)).await.unwrap();
    receiver.await.unwrap().unwrap();
}

async fn open(dir: &Path) -> LogStore {
    let found = recover(&place(dir)).unwrap();
    found.log.write_head().await.unwrap();
    found.log
}

async fn all(log: &mut LogStore) -> Vec<LogId> {
    let entries = log.try_get_log_entries(..).await.unwrap();
    entries.into_iter().map(|entry| entry.log_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_is_copied_forward_before_segments_are_recycled() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).await;
    log.save_vote(&vote(3)).await.unwrap();
    // 36 MB through segments of 4 MiB, with one vote at the very beginning.
    for round in 0..60_u64 {
        append(&mut log, (round * 15..round * 15 + 15).map(large)).await;
        log.save_committed(Some(log_id(3, 1, round * 15 + 10)))
            .await
            .unwrap();
        if round % 4 == 3 {
            // No snapshot is asked for here: openraft sees to that.
            log.purge(log_id(3, 1, round * 15)).await.unwrap();
        }
    }
    let kept = all(&mut log).await;
    log.close();
    drop(log);
    let files = std::fs::read_dir(dir.path().join("log")).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 24 << 20, "{bytes} bytes are on disk");
    let mut log = open_log_only(dir.path());
    assert_eq!(log.read_vote().await.unwrap(), Some(vote(3)));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(3, 1, 59 * 15)));
    assert_eq!(state.last_log_id, Some(log_id(3, 1, 899)));
    assert_eq!(all(&mut log).await, kept);
    assert_eq!(kept.len(), 14);
    // The head that the last purge wrote has it.
    assert_eq!(
        log.read_committed().await.unwrap(),
        Some(log_id(3, 1, 59 * 15 + 10))
    );
    let some = log.limited_get_log_entries(890, 900).await.unwrap();
    assert_eq!(some.first(), Some(&large(890)));
}

/// Only the log: there is no state that covers what was purged.
fn open_log_only(dir: &Path) -> LogStore {
    super::recover::open_log(&place(dir)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_entries_stay_away_and_reads_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).await;
    append(&mut log, (0..10).map(|index| blank(1, index))).await;
    log.truncate_after(Some(log_id(1, 1, 5))).await.unwrap();
    append(&mut log, (6..8).map(|index| blank(2, index))).await;
    log.save_vote(&vote(2)).await.unwrap();
    log.close();
    drop(log);
    let mut log = open(dir.path()).await;
    let ids = all(&mut log).await;
    assert_eq!(ids.len(), 8);
    assert_eq!(ids[5..], [log_id(1, 1, 5), log_id(2, 1, 6), log_id(2, 1, 7)]);
    log.truncate_after(None).await.unwrap();
    append(&mut log, (0..40).map(large)).await;
    let some = log.limited_get_log_entries(0, 40).await.unwrap();
    assert!(
        (10..40).contains(&some.len()),
        "{} entries of 40 kB in one read",
        some.len()
    );
    assert_eq!(log.limited_get_log_entries(39, 90).await.unwrap().len(), 1);
    log.close();
    drop(log);
    assert_eq!(all(&mut open(dir.path()).await).await.len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_of_nothing_is_answered_after_what_was_written_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).await;
    append(&mut log, std::iter::empty()).await;
    append(&mut log, [blank(1, 0)]).await;
    assert_eq!(all(&mut log).await, [log_id(1, 1, 0)]);
}
