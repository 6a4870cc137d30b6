//! iSCSI names and nexuses.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// An iSCSI name (RFC 7143, 4.2.7): `iqn.`, `eui.` or `naa.`, at most 223 bytes, stored in lower case as the RFC compares them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct IscsiName(Arc<str>);

/// Why a text is no iSCSI name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty or longer than 223 bytes.
    #[error("an iSCSI name has 1 to 223 bytes, this one {0}")]
    Length(usize),
    /// Does not start with a known type.
    #[error("an iSCSI name starts with iqn., eui. or naa.")]
    Type,
    /// A character that is not allowed.
    #[error("an iSCSI name has letters, digits, '-', '.' and ':' only, not '{0}'")]
    Character(char),
    /// A character that not even an initiator may have in its name.
    #[error("an initiator's name has no spaces, quotes, commas or unprintable characters, but here is {0:?}")]
    InitiatorCharacter(char),
    /// A type and nothing behind it.
    #[error("an iSCSI name goes on after its type")]
    Empty,
    /// iqn. without `yyyy-mm.` and a reversed domain.
    #[error("an iqn name reads iqn.YYYY-MM.reversed.domain[:anything]")]
    Iqn,
    /// eui. without 16, or naa. without 16 or 32 hexadecimal digits.
    #[error("an eui name has 16 hexadecimal digits, a naa name 16 or 32")]
    Digits,
}

impl IscsiName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that an initiator gives itself. Strictness here would only lock hosts out: names with `_`, a virtual machine's name in free
    /// form at the end, and `iqn.` without a date are in use. So every name that [`FromStr`] takes passes, and so does printable
    /// ASCII behind a known type, but for spaces, quotes (`"`, `'`, `` ` ``) and commas, which separate and enclose names elsewhere.
    ///
    /// # Errors
    /// [`NameError`]: what is wrong. Names of targets are read with [`FromStr`], which is strict.
    pub fn of_initiator(text: &str) -> Result<Self, NameError> {
        let lower = lower_case(text)?;
        let allowed =
            |c: char| c.is_alphanumeric() || (c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '`' | ','));
        if let Some(bad) = lower.chars().find(|c| !allowed(*c)) {
            return Err(NameError::InitiatorCharacter(bad));
        }
        match lower.get(..4) {
            Some("iqn." | "eui." | "naa.") if lower.len() > 4 => Ok(Self(lower.into())),
            Some("iqn." | "eui." | "naa.") => Err(NameError::Empty),
            _ => Err(NameError::Type),
        }
    }
}

/// The name in lower case, 1 to 223 bytes. There are letters that take more bytes in lower case, so the length is that of the result.
fn lower_case(text: &str) -> Result<String, NameError> {
    if text.is_empty() || text.len() > 223 {
        return Err(NameError::Length(text.len()));
    }
    let lower = text.to_lowercase();
    if lower.len() > 223 {
        return Err(NameError::Length(lower.len()));
    }
    Ok(lower)
}

impl FromStr for IscsiName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = lower_case(text)?;
        // Beyond ASCII the RFC wants stringprep; letters and digits of any script pass, everything else is refused.
        if let Some(bad) = lower
            .chars()
            .find(|c| !(c.is_alphanumeric() || matches!(c, '-' | '.' | ':')))
        {
            return Err(NameError::Character(bad));
        }
        match lower.get(..4) {
            Some("iqn.") => check_iqn(&lower[4..])?,
            Some("eui.") => check_digits(&lower[4..], &[16])?,
            Some("naa.") => check_digits(&lower[4..], &[16, 32])?,
            _ => return Err(NameError::Type),
        }
        Ok(Self(lower.into()))
    }
}

/// `YYYY-MM.` and at least one label of the naming authority (RFC 7143, 4.2.7.4).
fn check_iqn(rest: &str) -> Result<(), NameError> {
    let bytes = rest.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        bytes
            .get(range)
            .is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let date = digits(0..4) && bytes.get(4) == Some(&b'-') && digits(5..7) && bytes.get(7) == Some(&b'.');
    let month = date
        && matches!(
            &rest[5..7],
            "01" | "02" | "03" | "04" | "05" | "06" | "07" | "08" | "09" | "10" | "11" | "12"
        );
    let authority = if month {
        rest[8..].split(':').next().unwrap_or("")
    } else {
        ""
    };
    if authority.is_empty() || authority.split('.').any(str::is_empty) {
        return Err(NameError::Iqn);
    }
    Ok(())
}

fn check_digits(rest: &str, lengths: &[usize]) -> Result<(), NameError> {
    if lengths.contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err(NameError::Digits)
    }
}

impl fmt::Display for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<IscsiName> for String {
    fn from(name: IscsiName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl TryFrom<String> for IscsiName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The initiator's part of a session id (RFC 7143, 11.12.5): six bytes that the initiator chooses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Isid(pub [u8; 6]);

impl fmt::Display for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An I_T nexus (RFC 7143, 3.4.1.2): initiator name and ISID, target name and target portal group tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nexus {
    /// The initiator.
    #[serde(deserialize_with = "initiator_name")]
    pub initiator: IscsiName,
    /// The session's initiator part.
    pub isid: Isid,
    /// The target.
    pub target: IscsiName,
    /// The portal group it is logged in to.
    pub tpg: crate::TpgId,
}

/// An I_T nexus in 128 bits: the same on every node, and as good as the nexus itself where only equality matters. The start of BLAKE3
/// over its parts, so nobody can choose a name that is taken for another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NexusTag(pub u128);

impl NexusTag {
    /// No nexus: what the cluster does by itself. No reservation is held for it and none stands in its way.
    pub const NOBODY: Self = Self(0);
}

/// An initiator's name in 128 bits, made and as good as a [`NexusTag`]: the same for all its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct InitiatorTag(pub u128);

impl InitiatorTag {
    /// No initiator: what the cluster does by itself.
    pub const NOBODY: Self = Self(0);

    /// Of this initiator.
    pub fn of(initiator: &IscsiName) -> Self {
        Self(first_half(&blake3::hash(initiator.as_str().as_bytes())))
    }
}

fn first_half(hash: &blake3::Hash) -> u128 {
    let start = hash.as_bytes().iter().take(16);
    start.fold(0, |bits, byte| bits << 8 | u128::from(*byte))
}

impl Nexus {
    /// Its short form.
    pub fn tag(&self) -> NexusTag {
        let mut hash = blake3::Hasher::new();
        hash.update(self.initiator.as_str().as_bytes());
        // No name holds a zero byte, so the parts cannot run into each other.
        hash.update(&[0]);
        hash.update(&self.isid.0);
        hash.update(self.target.as_str().as_bytes());
        hash.update(&[0]);
        hash.update(&self.tpg.value().to_be_bytes());
        NexusTag(first_half(&hash.finalize()))
    }
}

/// Reads back what [`IscsiName::of_initiator`] let in.
fn initiator_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IscsiName, D::Error> {
    let text = String::deserialize(deserializer)?;
    IscsiName::of_initiator(&text).map_err(D::Error::custom)
}

impl fmt::Display for Nexus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{},i,0x{} -> {},t,0x{:04x}",
            self.initiator,
            self.isid,
            self.target,
            self.tpg.value()
        )
    }
}

#[cfg(test)]
#[path = "name_test.rs"]
mod tests;
