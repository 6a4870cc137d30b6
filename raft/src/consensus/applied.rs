//! The applied cluster state on disk: a convenience that saves replaying the log, and that may be lost at any time.

use std::collections::BTreeMap;
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

/// Takes a state apart: one value per field, and one per object of a field that is a map, so that a change costs what it touches.
pub(crate) fn flatten(applied: &Applied) -> Result<Values, AppliedError> {
    let mut values = Values::new();
    if let Value::Object(fields) = serde_json::to_value(&*applied.state)? {
        for (field, value) in fields {
            if let Value::Object(objects) = value {
                for (key, object) in objects {
                    values.insert(format!("{field}/{key}"), serde_json::to_vec(&object)?);
                }
                // So that an empty map is told from a missing one.
                values.insert(field, b"{}".to_vec());
            } else {
                values.insert(field, serde_json::to_vec(&value)?);
            }
        }
    }
    let seal = Seal {
        format: FORMAT,
        last: applied.last,
        membership: applied.membership.clone(),
        count: values.len(),
        sum: sum(&values),
    };
    values.insert(SEAL.into(), serde_json::to_vec(&seal)?);
    Ok(values)
}

fn sum(values: &Values) -> u32 {
    values
        .iter()
        .fold(0, |sum, (key, value)| sum ^ checksum(key, value))
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
    if seal.count != values.len() || seal.sum != sum(&values) {
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
