//! The document, and how its text is read.

use std::collections::BTreeMap;
use std::fmt;

use holdfast_types::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::status::Secondary;

/// The version that this release writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;
/// What stands for no preferred node.
pub(super) const NOBODY: &str = "none";
/// Most faults of a document that are told at a time.
const FAULTS_MAX: usize = 20;

/// Everything that an administrator configured. What is `None` was left out, and is left as it is where the object is there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configuration {
    /// [`FORMAT`] of the writer.
    pub(super) format: u32,
    /// As `cluster set` takes them.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) isns: Vec<Isns>,
    /// CHAP users of discovery sessions.
    #[serde(default)]
    pub(super) discovery: Chap,
    #[serde(default, rename = "group")]
    pub(super) groups: Vec<Group>,
    #[serde(default, rename = "extent")]
    pub(super) extents: Vec<Extent>,
    #[serde(default, rename = "target")]
    pub(super) targets: Vec<Target>,
}

/// An iSNS server that is told of targets and portals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Isns {
    /// ADDRESS:PORT.
    pub(super) server: String,
}

/// CHAP users of a group or of discovery, without their secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chap {
    #[serde(default, rename = "user")]
    pub(super) users: Vec<ChapName>,
    /// As whom the target proves itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mutual: Option<ChapName>,
}

/// A CHAP name. Its secret never stands in the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChapName {
    pub(super) name: String,
    /// For a user that is not there yet: the file whose first line is its secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret_file: Option<String>,
}

/// An initiator group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) any_initiator: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) initiators: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) networks: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) read_only: Option<bool>,
    #[serde(default, rename = "user")]
    pub(super) users: Vec<ChapName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mutual: Option<ChapName>,
}

/// An extent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Extent {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<Size>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) block_size: Option<u32>,
    /// Node names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replicas: Option<Vec<String>>,
    /// Node name, or [`NOBODY`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) preferred: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secondary: Option<Secondary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) thin: Option<bool>,
    /// What is not said is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) on_devices: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) confirmed_reads: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) write_cache: Option<bool>,
}

/// A target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) iqn: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) restricted: Option<bool>,
    /// 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_sessions: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) redirect: Option<bool>,
    #[serde(default, rename = "lun")]
    pub(super) luns: Vec<LunOf>,
    /// Groups that may use it.
    #[serde(default, rename = "group")]
    pub(super) groups: Vec<Grant>,
}

/// A LUN of a target's map, or of a group's own one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LunOf {
    pub(super) lun: u32,
    /// Its name.
    pub(super) extent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) read_only: Option<bool>,
}

/// A group that may use a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub(super) name: String,
    /// Whether it sees a map of its own, instead of the target's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) own_luns: Option<bool>,
    #[serde(default, rename = "lun")]
    pub(super) luns: Vec<LunOf>,
}

/// A size in bytes, written so that it is read back exactly: in the largest unit of which it is a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let whole = |(_, shift): &&(&str, u32)| self.0 > 0 && self.0.trailing_zeros() >= *shift;
        match units.iter().find(whole) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size: ByteSize = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(size.0))
    }
}

impl Configuration {
    /// Nothing at all.
    pub(super) fn empty() -> Self {
        Self {
            format: FORMAT,
            settings: BTreeMap::new(),
            isns: Vec::new(),
            discovery: Chap::default(),
            groups: Vec::new(),
            extents: Vec::new(),
            targets: Vec::new(),
        }
    }
}

/// Reads and checks a document; what can be said without looking at a cluster.
///
/// # Errors
/// Everything that is wrong with it, one line each, which names the field and what is allowed.
pub(crate) fn read(text: &str) -> Result<Configuration, Vec<String>> {
    let table: toml::Table = text.parse().map_err(|error| vec![fault(text, &error)])?;
    check_format(&table).map_err(|fault| vec![fault])?;
    let mut document: Configuration = toml::from_str(text).map_err(|error| vec![fault(text, &error)])?;
    let mut faults = super::check::check(&mut document);
    if faults.len() > FAULTS_MAX {
        let more = faults.len() - FAULTS_MAX;
        faults.truncate(FAULTS_MAX);
        faults.push(format!("and {more} more"));
    }
    if faults.is_empty() {
        Ok(document)
    } else {
        Err(faults)
    }
}

/// Before anything else: a newer document may have keys that mean something here that they do not say.
fn check_format(table: &toml::Table) -> Result<(), String> {
    match table.get("format").map(toml::Value::as_integer) {
        Some(Some(format)) if format == i64::from(FORMAT) => Ok(()),
        Some(Some(format)) if format > i64::from(FORMAT) => Err(format!(
            "format = {format}: this release reads format {FORMAT} and no newer one; take the release that wrote it, or a newer one"
        )),
        Some(_) => Err(format!("format: it is {FORMAT}")),
        None => Err(format!(
            "format is missing: a document begins with 'format = {FORMAT}'"
        )),
    }
}

/// An error of the parser as one line. Of the line that it is about only the key is quoted: a value may be a secret that somebody
/// wrote where it does not belong.
fn fault(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    let Some(span) = error.span() else { return message };
    let before = text.get(..span.start).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    if key.is_empty() {
        format!("line {number}: {message}")
    } else {
        format!("line {number}, {key}: {message}")
    }
}

#[cfg(test)]
#[path = "document_test.rs"]
pub(super) mod tests;
