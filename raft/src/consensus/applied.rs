//! The applied cluster state on disk: a convenience that saves replaying the log, and that may be lost at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::kind::{LogId, StoredMembership};
use super::snapshot::{SnapshotError, read_state};
use crate::model::ClusterState;

/// What was applied, and up to where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) state: Arc<ClusterState>,
}

/// Why an applied state cannot be used: it is rebuilt then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppliedError {
    #[error("{0}")]
    Store(String),
    #[error("the value of '{0}' fails its checksum")]
    Checksum(String),
    #[error("values are missing or left over")]
    Incomplete,
    #[error("a value cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    State(#[from] SnapshotError),
    #[error("it was written by a newer version (format {0})")]
    Newer(u32),
    #[error("it has stopped working (panicked)")]
    Panicked,
    #[error("it does not answer")]
    Stuck,
}

/// Where the applied state is kept. Calls block on the disk.
pub(crate) trait AppliedStore: Send + 'static {
    /// What was saved last, or an earlier one; `None` if nothing was.
    fn load(&mut self) -> Result<Option<Applied>, AppliedError>;

    /// Saves all changes since the last call as one, durably.
    fn save(&mut self, applied: &Applied) -> Result<(), AppliedError>;
}

/// Format of what a store holds.
const FORMAT: u32 = 1;
/// Key of the seal. Keys of the state never start with a tilde: they are names of its fields.
pub(crate) const SEAL: &str = "~seal";

/// What is stored beside the state, in the same batch: position, membership, and a seal over all values.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Seal {
    format: u32,
    last: Option<LogId>,
    membership: StoredMembership,
    /// How many values there are.
    count: usize,
    /// The checksums of all of them together (exclusive or), so that a missing one shows.
    sum: u32,
}

/// Values by key: `field` for a plain field of the state, `field/key` for each object of a map.
pub(crate) type Values = BTreeMap<String, Vec<u8>>;

/// A value's checksum, over its key too, so that swapped values show.
pub(crate) fn checksum(key: &str, value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key.as_bytes()), value)
}

/// Fields whose objects may be many: only those that have changed are made into text again.
const LARGE: [&str; 3] = ["extents", "targets", "audit"];

/// A state taken apart: one value per field, and one per object of a field that is a map. Follows the state from one commit to the next,
/// at the cost of what has changed in it.
#[derive(Debug, Default)]
pub(crate) struct Flat {
    /// The seal included.
    values: Values,
    /// The checksums of all values but the seal together.
    sum: u32,
    of: Arc<ClusterState>,
}

impl Flat {
    /// What a store has given, and the state that it is.
    pub(crate) fn new(values: Values, of: Option<&Applied>) -> Self {
        let but_the_seal = values.iter().filter(|(key, _)| *key != SEAL);
        Self {
            sum: sum(but_the_seal),
            of: of.map(|applied| Arc::clone(&applied.state)).unwrap_or_default(),
            values,
        }
    }

    /// All values.
    pub(crate) const fn values(&self) -> &Values {
        &self.values
    }

    /// Brings the values to another state; the keys of those that are new, other ones, or gone.
    pub(crate) fn follow(&mut self, applied: &Applied) -> Result<BTreeSet<String>, AppliedError> {
        let (now, before) = (&*applied.state, std::mem::take(&mut self.of));
        let mut changed = BTreeSet::new();
        self.objects("extents", (&before.extents, &now.extents), &mut changed)?;
        self.objects("targets", (&before.targets, &now.targets), &mut changed)?;
        self.objects("audit", (&before.audit, &now.audit), &mut changed)?;
        let mut small = BTreeSet::new();
        if let Value::Object(fields) = serde_json::to_value(without_large(now))? {
            for (field, value) in fields {
                // An empty map is told from a missing one.
                let (own, objects) = match value {
                    Value::Object(objects) => (b"{}".to_vec(), objects),
                    value => (serde_json::to_vec(&value)?, Map::new()),
                };
                for (key, object) in objects {
                    let key = format!("{field}/{key}");
                    self.set(&key, serde_json::to_vec(&object)?, &mut changed);
                    small.insert(key);
                }
                self.set(&field, own, &mut changed);
                small.insert(field);
            }
        }
        let is_large = |key: &str| {
            key.split_once('/')
                .is_some_and(|(field, _)| LARGE.contains(&field))
        };
        let others = self.values.keys().filter(|key| *key != SEAL && !is_large(key));
        let gone: Vec<String> = others.filter(|key| !small.contains(*key)).cloned().collect();
        for key in gone {
            self.unset(key, &mut changed);
        }
        let seal = Seal {
            format: FORMAT,
            last: applied.last,
            membership: applied.membership.clone(),
            count: self.values.len() - usize::from(self.values.contains_key(SEAL)),
            sum: self.sum,
        };
        self.values.insert(SEAL.into(), serde_json::to_vec(&seal)?);
        changed.insert(SEAL.into());
        self.of = Arc::clone(&applied.state);
        Ok(changed)
    }

    fn objects<K: Ord + Serialize, V: PartialEq + Serialize>(
        &mut self,
        field: &str,
        (before, now): (&BTreeMap<K, V>, &BTreeMap<K, V>),
        changed: &mut BTreeSet<String>,
    ) -> Result<(), AppliedError> {
        for (key, object) in now {
            if before.get(key) != Some(object) {
                self.set(&object_key(field, key)?, serde_json::to_vec(object)?, changed);
            }
        }
        for key in before.keys().filter(|key| !now.contains_key(key)) {
            self.unset(object_key(field, key)?, changed);
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: Vec<u8>, changed: &mut BTreeSet<String>) {
        let old = self.values.get(key);
        if old != Some(&value) {
            self.sum ^= old.map_or(0, |old| checksum(key, old)) ^ checksum(key, &value);
            changed.insert(key.to_owned());
            self.values.insert(key.to_owned(), value);
        }
    }

    fn unset(&mut self, key: String, changed: &mut BTreeSet<String>) {
        if let Some(old) = self.values.remove(&key) {
            self.sum ^= checksum(&key, &old);
            changed.insert(key);
        }
    }
}

/// As the key of an object is written in JSON.
fn object_key(field: &str, key: &impl Serialize) -> Result<String, AppliedError> {
    Ok(match serde_json::to_value(key)? {
        Value::String(key) => format!("{field}/{key}"),
        key => format!("{field}/{key}"),
    })
}

/// All of a state but the objects of its large fields.
fn without_large(state: &ClusterState) -> ClusterState {
    // Every field is named, so that none is forgotten.
    ClusterState {
        format: state.format,
        revision: state.revision,
        cluster: state.cluster.clone(),
        settings: state.settings.clone(),
        nodes: state.nodes.clone(),
        voters: state.voters.clone(),
        extents: BTreeMap::new(),
        targets: BTreeMap::new(),
        access: state.access.clone(),
        isns: state.isns.clone(),
        last_tpg: state.last_tpg,
        last_node: state.last_node,
        certificates: state.certificates.clone(),
        tokens: state.tokens.clone(),
        api_tokens: state.api_tokens.clone(),
        audit: BTreeMap::new(),
        takeovers: state.takeovers.clone(),
        losses: state.losses.clone(),
    }
}

/// Takes a state apart from nothing.
#[cfg(test)]
pub(crate) fn flatten(applied: &Applied) -> Result<Values, AppliedError> {
    let mut flat = Flat::default();
    flat.follow(applied)?;
    Ok(flat.values)
}

fn sum<'a>(values: impl Iterator<Item = (&'a String, &'a Vec<u8>)>) -> u32 {
    values.fold(0, |sum, (key, value)| sum ^ checksum(key, value))
}

/// Puts a state together again; every value was checked by its store.
pub(crate) fn unflatten(mut values: Values) -> Result<Option<Applied>, AppliedError> {
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    if values.is_empty() {
        return Ok(None);
    }
    let seal = values.remove(SEAL).ok_or(AppliedError::Incomplete)?;
    let only: FormatOnly = serde_json::from_slice(&seal)?;
    if only.format > FORMAT {
        return Err(AppliedError::Newer(only.format));
    }
    let seal: Seal = serde_json::from_slice(&seal)?;
    if seal.count != values.len() || seal.sum != sum(values.iter()) {
        return Err(AppliedError::Incomplete);
    }
    // In order of keys, a field comes before its objects.
    let mut fields = Map::new();
    for (key, value) in values {
        let value: Value = serde_json::from_slice(&value)?;
        match key.split_once('/') {
            None => drop(fields.insert(key, value)),
            Some((field, object)) => {
                let map = fields.get_mut(field).and_then(Value::as_object_mut);
                map.ok_or(AppliedError::Incomplete)?
                    .insert(object.to_owned(), value);
            }
        }
    }
    let state = read_state(&serde_json::to_vec(&fields)?)?;
    if state.revision.0 != seal.last.as_ref().map_or(0, |id| id.index) {
        return Err(AppliedError::Incomplete);
    }
    Ok(Some(Applied {
        last: seal.last,
        membership: seal.membership,
        state: Arc::new(state),
    }))
}
