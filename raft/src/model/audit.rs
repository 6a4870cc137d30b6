//! Who has asked for what, as the cluster keeps it: the newest ten thousand calls. Nodes keep more in files of their own.
//!
//! Every apply copies the state, and whoever keeps it on disk compares it with the last one. So the entries lie in chunks that are shared
//! between copies: an entry costs its own chunk, however many there are. A snapshot has all of them in it, about three megabytes at most.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::reply::{Refusal, Reply};
use super::state::ClusterState;

/// Entries that are kept at least, once there have been so many.
pub const AUDIT_MAX: usize = 10_000;
/// Entries of a command at most.
pub const AUDIT_BATCH_MAX: usize = 64;
/// Bytes of each text of an entry at most.
pub const AUDIT_TEXT_MAX: usize = 512;
/// Entries of a chunk.
const CHUNK: usize = 125;
/// The one that is being filled lies beside those that hold [`AUDIT_MAX`].
const CHUNKS_MAX: usize = AUDIT_MAX / CHUNK + 1;

/// One call that was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Drawn by the node that was asked, so that the same entry is not kept twice.
    pub id: u64,
    /// When it was answered: milliseconds since 1970, by that node's clock.
    pub at: u64,
    /// Name of that node.
    pub node: String,
    /// Who asked.
    pub who: String,
    /// From where: an address, or `socket`.
    pub from: String,
    /// The method, and behind a slash the kind of change.
    pub method: String,
    /// What was asked for, without secrets.
    pub request: String,
    /// `done`, or why not.
    pub outcome: String,
}

impl AuditEntry {
    fn fits(&self) -> bool {
        let texts = [
            &self.node,
            &self.who,
            &self.from,
            &self.method,
            &self.request,
            &self.outcome,
        ];
        texts.iter().all(|text| text.len() <= AUDIT_TEXT_MAX)
    }
}

/// Entries in their order, shared between copies of the state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditChunk(Arc<Vec<AuditEntry>>);

impl Serialize for AuditChunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AuditChunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|entries| Self(Arc::new(entries)))
    }
}

/// Chunks by their numbers, which go up and are never used again.
pub type Audit = BTreeMap<u64, AuditChunk>;

impl ClusterState {
    /// The newest entries, `last` at most, oldest first.
    pub fn audit_last(&self, last: usize) -> Vec<&AuditEntry> {
        let newest_first = self.audit.values().rev().flat_map(|chunk| chunk.0.iter().rev());
        let mut entries: Vec<&AuditEntry> = newest_first.take(last.min(AUDIT_MAX)).collect();
        entries.reverse();
        entries
    }

    /// Whether one of the newest entries has that id. Who proposes an entry again does so within moments.
    fn is_audited(&self, id: u64) -> bool {
        let newest = self.audit.values().rev().take(2);
        newest
            .flat_map(|chunk| chunk.0.iter())
            .any(|entry| entry.id == id)
    }

    pub(super) fn add_audit(&mut self, entries: &[AuditEntry]) -> Result<Reply, Refusal> {
        if entries.len() > AUDIT_BATCH_MAX || !entries.iter().all(AuditEntry::fits) {
            return Err(Refusal::Invalid(format!(
                "at most {AUDIT_BATCH_MAX} entries of an audit log come at a time, with texts of {AUDIT_TEXT_MAX} bytes"
            )));
        }
        for entry in entries {
            if !self.is_audited(entry.id) {
                self.push_audit(entry);
            }
        }
        Ok(Reply::DONE)
    }

    fn push_audit(&mut self, entry: &AuditEntry) {
        let next = match self.audit.last_key_value() {
            None => 0,
            Some((number, chunk)) if chunk.0.len() >= CHUNK => number + 1,
            Some((number, _)) => *number,
        };
        let chunk = self.audit.entry(next).or_default();
        Arc::make_mut(&mut chunk.0).push(entry.clone());
        while self.audit.len() > CHUNKS_MAX {
            self.audit.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{go, must, trio};
    use super::super::{AdminCommand, Command};
    use super::*;

    fn entry(id: u64) -> AuditEntry {
        AuditEntry {
            id,
            at: id,
            node: "a".into(),
            who: "admin 'jane'".into(),
            from: "192.0.2.1:5".into(),
            method: "change/drain".into(),
            request: format!("{id}"),
            outcome: "done".into(),
        }
    }

    fn add(ids: impl IntoIterator<Item = u64>) -> Command {
        AdminCommand::Audit(ids.into_iter().map(entry).collect()).into()
    }

    fn ids(state: &ClusterState, last: usize) -> Vec<u64> {
        state.audit_last(last).iter().map(|entry| entry.id).collect()
    }

    #[test]
    fn the_newest_are_kept_in_order_once_and_no_more() {
        let mut state = trio(0);
        must(&add(1..=3), &mut state);
        must(&add(2..=4), &mut state);
        assert_eq!(ids(&state, 10), [1, 2, 3, 4]);
        assert_eq!(ids(&state, 2), [3, 4]);
        let most = AUDIT_MAX as u64;
        for first in (5..most * 2).step_by(50) {
            must(&add(first..first + 50), &mut state);
        }
        let kept = ids(&state, usize::MAX);
        assert_eq!(kept.len(), AUDIT_MAX);
        assert!(kept.is_sorted() && *kept.last().unwrap() >= most * 2 - 1);
        let all: usize = state.audit.values().map(|chunk| chunk.0.len()).sum();
        assert!((AUDIT_MAX..=AUDIT_MAX + CHUNK).contains(&all), "{all}");
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<ClusterState>(&text).unwrap(), state);
    }

    /// What an entry costs does not grow with how many there are: all chunks but the last are the same memory in both states.
    #[test]
    fn a_copy_shares_what_is_full() {
        let mut state = trio(0);
        for first in (0..1000).step_by(50) {
            must(&add(first..first + 50), &mut state);
        }
        let before = state.clone();
        must(&add([5000]), &mut state);
        let shared = before.audit.iter().filter(|(number, chunk)| {
            let now = &state.audit[*number];
            Arc::ptr_eq(&now.0, &chunk.0)
        });
        assert_eq!(shared.count(), 1000 / CHUNK);
        assert_eq!(ids(&before, 1), [999], "the copy is as it was");
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let mut state = trio(0);
        let refused = go(&add(0..65), &mut state);
        assert!(refused.refusal().is_some());
        let mut long = entry(1);
        long.request = "x".repeat(AUDIT_TEXT_MAX + 1);
        let refused = go(&AdminCommand::Audit(vec![long]).into(), &mut state);
        assert!(refused.refusal().is_some() && state.audit.is_empty());
    }
}
