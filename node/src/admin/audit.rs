//! The audit log: every call that changes something, done or refused. All of them go into files of this node, the newest of all nodes into
//! the cluster state. Neither holds up an answer: what a disk or a missing quorum keeps waiting is written later, within bounds.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use holdfast_raft::model::{AUDIT_BATCH_MAX, AUDIT_TEXT_MAX, AdminCommand, AuditEntry, Reply};
use holdfast_types::UnixMillis;
use tokio::sync::mpsc;

use crate::line_files::LineFiles;
use crate::runtime::Node;

/// Entries that wait for the disk, or for the cluster, at most.
const WAITING_MAX: usize = 1024;
/// Files at most, the one that is written included.
const FILES: usize = 8;
/// Before a batch that the cluster did not take is proposed again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where entries go.
#[derive(Clone)]
pub(crate) struct Audit {
    node: Arc<str>,
    file: std::sync::mpsc::SyncSender<AuditEntry>,
    cluster: mpsc::Sender<AuditEntry>,
}

/// One call, as it was judged and answered.
pub(super) struct Call {
    pub(super) who: String,
    pub(super) from: String,
    pub(super) method: String,
    pub(super) request: String,
    pub(super) outcome: String,
}

impl Audit {
    /// Begins to write; entries of this node, into files in `dir`.
    pub(crate) fn start(node: &Arc<Node>, name: &str, dir: &Path) -> Self {
        let files = LineFiles::new(dir, "audit", FILES).stable();
        let (to_file, from_calls) = std::sync::mpsc::sync_channel(WAITING_MAX);
        let (to_cluster, for_cluster) = mpsc::channel(WAITING_MAX);
        let writer = std::thread::Builder::new().name("audit".into());
        if let Err(error) = writer.spawn(move || write(files, &from_calls)) {
            tracing::error!(%error, "the audit log is not written: no thread for it");
        }
        tokio::spawn(tell(Arc::downgrade(node), for_cluster));
        Self {
            node: name.into(),
            file: to_file,
            cluster: to_cluster,
        }
    }

    pub(super) fn note(&self, call: Call) {
        let entry = AuditEntry {
            id: rand::random(),
            at: UnixMillis::from(SystemTime::now()).0,
            node: self.node.to_string(),
            who: clip(call.who),
            from: clip(call.from),
            method: clip(call.method),
            request: clip(call.request),
            outcome: clip(call.outcome),
        };
        if self.file.try_send(entry.clone()).is_err() {
            tracing::error!(
                ?entry,
                "the audit log of this node lacks a call: its disk does not keep up"
            );
        }
        if self.cluster.try_send(entry).is_err() {
            tracing::warn!(
                "the cluster's audit log lacks a call: too many wait for a quorum; this node's files have it"
            );
        }
    }
}

/// As much of a text as an entry holds.
fn clip(mut text: String) -> String {
    if text.len() > AUDIT_TEXT_MAX {
        text.truncate(text.floor_char_boundary(AUDIT_TEXT_MAX - '…'.len_utf8()));
        text.push('…');
    }
    text
}

fn write(mut files: LineFiles, entries: &std::sync::mpsc::Receiver<AuditEntry>) {
    while let Ok(first) = entries.recv() {
        let batch: Vec<AuditEntry> = std::iter::once(first).chain(entries.try_iter()).collect();
        if let Err(error) = files.append(&batch) {
            let calls = batch.len();
            tracing::error!(calls, "the audit log of this node lacks calls: {error:#}");
        }
    }
}

/// Has the cluster keep what comes, in batches; each until it is kept.
async fn tell(node: Weak<Node>, mut entries: mpsc::Receiver<AuditEntry>) {
    let mut batch = Vec::new();
    while entries.recv_many(&mut batch, AUDIT_BATCH_MAX).await > 0 {
        loop {
            let Some(node) = node.upgrade() else { return };
            let running = node.running().await;
            drop(node);
            if let Some(running) = running.filter(|running| running.is_made()) {
                match running.propose(AdminCommand::Audit(batch.clone()).into()).await {
                    Ok(Reply::Refused { refusal }) => {
                        tracing::error!(%refusal, "the cluster's audit log lacks calls");
                        break;
                    }
                    Ok(_) => break,
                    Err(error) => tracing::debug!("calls wait for the cluster's audit log: {error:#}"),
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
        batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(clip("short".into()), "short");
        for text in ["x".repeat(600), "ä".repeat(300), "…".repeat(200)] {
            let cut = clip(text);
            assert!(
                cut.len() <= AUDIT_TEXT_MAX && cut.len() > AUDIT_TEXT_MAX - 8,
                "{}",
                cut.len()
            );
            assert!(cut.ends_with('…'));
        }
    }
}
