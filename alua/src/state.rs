//! Access states and port groups.

use std::fmt;
use std::str::FromStr;

use holdfast_types::{NodeId, RelativePortId, TpgId};
use serde::{Deserialize, Serialize};

/// Asymmetric access state of a target port group (SPC-4). Logical block dependent access is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum AccessState {
    /// The shortest way.
    ActiveOptimized,
    /// Works, at the price of a hop between nodes.
    ActiveNonOptimized,
    /// Answers questions about the unit but carries no data.
    Standby,
    /// Nobody serves the group.
    Unavailable,
    /// Taken out of service. Never derived here; admission knows it for completeness.
    Offline,
    /// The unit is committed as without primary (P4).
    Transitioning,
}

/// A text or code that is no access state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an access state")]
pub struct ParseStateError(String);

impl AccessState {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::ActiveOptimized,
        Self::ActiveNonOptimized,
        Self::Standby,
        Self::Unavailable,
        Self::Offline,
        Self::Transitioning,
    ];

    /// The four-bit code (SPC-4, ASYMMETRIC ACCESS STATE field).
    pub const fn code(self) -> u8 {
        match self {
            Self::ActiveOptimized => 0x0,
            Self::ActiveNonOptimized => 0x1,
            Self::Standby => 0x2,
            Self::Unavailable => 0x3,
            Self::Offline => 0xe,
            Self::Transitioning => 0xf,
        }
    }

    /// The state of a code; `None` for reserved codes and for logical block dependent access (4h).
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x0 => Some(Self::ActiveOptimized),
            0x1 => Some(Self::ActiveNonOptimized),
            0x2 => Some(Self::Standby),
            0x3 => Some(Self::Unavailable),
            0xe => Some(Self::Offline),
            0xf => Some(Self::Transitioning),
            _ => None,
        }
    }

    /// The name as it is printed everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ActiveOptimized => "active/optimized",
            Self::ActiveNonOptimized => "active/non-optimized",
            Self::Standby => "standby",
            Self::Unavailable => "unavailable",
            Self::Offline => "offline",
            Self::Transitioning => "transitioning",
        }
    }
}

impl fmt::Display for AccessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AccessState {
    type Err = ParseStateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == text)
            .ok_or_else(|| ParseStateError(text.chars().take(64).collect()))
    }
}

impl From<AccessState> for &'static str {
    fn from(state: AccessState) -> Self {
        state.name()
    }
}

impl TryFrom<String> for AccessState {
    type Error = ParseStateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A target port group of one logical unit: a node's home set of portals, whoever serves them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortGroup {
    /// Its identifier.
    pub id: TpgId,
    /// How good a way it is.
    pub state: AccessState,
    /// PREF: the cluster would rather have the unit here. Only ever set on a group that is active/optimized.
    pub preferred: bool,
    /// Its target ports.
    pub ports: Vec<RelativePortId>,
    /// The node whose home set it is.
    pub node: NodeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_read_back() {
        for state in AccessState::ALL {
            assert_eq!(AccessState::from_code(state.code()), Some(state));
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        assert_eq!((0..=255).filter_map(AccessState::from_code).count(), 6);
        assert!("active".parse::<AccessState>().is_err());
    }
}
