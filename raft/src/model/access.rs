//! Who may use what: initiator groups, CHAP users, LUN masking, limits of targets.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::{ExtentId, IscsiName, Lun, Network};
use serde::{Deserialize, Deserializer, Serialize};

use super::sealed::{KeyId, SealedSecret};

/// Longest CHAP name in bytes. What initiators in use take.
pub const CHAP_NAME_MAX: usize = 255;

/// Everything about access.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Which key secrets are sealed with; set once.
    #[serde(default)]
    pub key: Option<KeyId>,
    /// Initiator groups by name.
    #[serde(default)]
    pub groups: BTreeMap<String, InitiatorGroup>,
    /// Users of discovery sessions; without any, discovery asks for nothing.
    #[serde(default)]
    pub discovery: Chap,
    /// What is set for targets. A target that is not here is open to everyone.
    #[serde(default)]
    pub targets: BTreeMap<IscsiName, TargetAccess>,
}

impl Access {
    /// The users of a scope; `None` where there is no such group.
    pub fn chap(&self, scope: &ChapScope) -> Option<&Chap> {
        match scope {
            ChapScope::Discovery => Some(&self.discovery),
            ChapScope::Group(name) => self.groups.get(name).map(|group| &group.chap),
        }
    }

    /// Whether there is any secret that has to be opened.
    pub fn has_secrets(&self) -> bool {
        let chaps = self.groups.values().map(|group| &group.chap);
        chaps
            .chain([&self.discovery])
            .any(|chap| !chap.users.is_empty() || chap.mutual.is_some())
    }
}

/// CHAP users, and how the target proves itself to them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chap {
    /// Sealed secrets by CHAP name.
    #[serde(default)]
    pub users: BTreeMap<String, SealedSecret>,
    /// The target's own name and secret, where initiators want to know whom they talk to.
    #[serde(default)]
    pub mutual: Option<ChapMutual>,
}

/// The target's part of mutual CHAP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChapMutual {
    /// Its CHAP name.
    pub name: String,
    /// Its sealed secret.
    pub secret: SealedSecret,
}

/// Initiators that are treated alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitiatorGroup {
    /// Whether any initiator belongs to it, whatever its name.
    #[serde(default)]
    pub any_initiator: bool,
    /// Those that belong to it by name. None, and not any: nobody does.
    #[serde(default, deserialize_with = "initiator_names")]
    pub initiators: BTreeSet<IscsiName>,
    /// Where they have to come from; empty: from anywhere.
    #[serde(default)]
    pub networks: BTreeSet<Network>,
    /// Who they have to prove to be; without users, their name is enough.
    #[serde(default)]
    pub chap: Chap,
    /// Whether they may only read.
    #[serde(default)]
    pub read_only: bool,
}

/// Reads back names as initiators give them, which is more than a target may be called.
fn initiator_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<IscsiName>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|name| IscsiName::of_initiator(name).map_err(serde::de::Error::custom))
        .collect()
}

/// What is set for a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetAccess {
    /// Whether only groups that are allowed may use it. Set by the first group that is, and never cleared by itself: a target does not open
    /// because its last group went.
    #[serde(default)]
    pub restricted: bool,
    /// The groups that may use it.
    #[serde(default)]
    pub groups: BTreeMap<String, Grant>,
    /// LUNs of the target's own map that can only be read.
    #[serde(default)]
    pub read_only: BTreeSet<Lun>,
    /// Most sessions at a time, on each node; `None` for no limit of its own.
    #[serde(default)]
    pub sessions_max: Option<u32>,
    /// Whether a node that drains, leaves or stops sends logins to a node that serves. Off by default: an initiator that has a path to each
    /// node anyway would have two to the same one.
    #[serde(default)]
    pub redirect: bool,
    /// Raised by what changes whether a unit may be written (P3).
    #[serde(default)]
    pub write_changes: u64,
}

/// How a group uses a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The group's own LUN map; `None`: it sees that of the target.
    #[serde(default)]
    pub luns: Option<BTreeMap<Lun, GroupLun>>,
    /// Raised whenever what the group sees changes by this (P3).
    #[serde(default)]
    pub lun_changes: u64,
}

/// A LUN of a group's own map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLun {
    /// What it stands for.
    pub extent: ExtentId,
    /// Whether it can only be read.
    #[serde(default)]
    pub read_only: bool,
}

/// Whose CHAP users are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChapScope {
    /// Those of discovery sessions.
    Discovery,
    /// Those of an initiator group.
    Group(String),
}

impl ChapScope {
    /// What a user's secret is sealed for.
    pub fn user_place(&self, user: &str) -> String {
        self.place("user", user)
    }

    /// What the target's own secret is sealed for.
    pub fn mutual_place(&self, name: &str) -> String {
        self.place("mutual", name)
    }

    /// Group names have no spaces and come first, so that no two places are written alike.
    fn place(&self, kind: &str, name: &str) -> String {
        match self {
            Self::Discovery => format!("discovery {kind} {name}"),
            Self::Group(group) => format!("group {group} {kind} {name}"),
        }
    }
}

/// Who belongs to a new group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewGroup {
    /// See [`InitiatorGroup::any_initiator`].
    #[serde(default)]
    pub any_initiator: bool,
    /// See [`InitiatorGroup::initiators`].
    #[serde(default, deserialize_with = "initiator_names")]
    pub initiators: BTreeSet<IscsiName>,
    /// See [`InitiatorGroup::networks`].
    #[serde(default)]
    pub networks: BTreeSet<Network>,
    /// See [`InitiatorGroup::read_only`].
    #[serde(default)]
    pub read_only: bool,
}

/// What is to be different about a group; what is empty or `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupChange {
    /// Whether any initiator belongs to it.
    #[serde(default)]
    pub any_initiator: Option<bool>,
    /// Initiators that come.
    #[serde(default, deserialize_with = "initiator_names")]
    pub add_initiators: BTreeSet<IscsiName>,
    /// Initiators that go.
    #[serde(default, deserialize_with = "initiator_names")]
    pub remove_initiators: BTreeSet<IscsiName>,
    /// Networks that come.
    #[serde(default)]
    pub add_networks: BTreeSet<Network>,
    /// Networks that go.
    #[serde(default)]
    pub remove_networks: BTreeSet<Network>,
    /// Whether they may only read.
    #[serde(default)]
    pub read_only: Option<bool>,
}

/// What is to be different about a target; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetChange {
    /// See [`TargetAccess::restricted`].
    #[serde(default)]
    pub restricted: Option<bool>,
    /// See [`TargetAccess::sessions_max`]; 0 for no limit.
    #[serde(default)]
    pub sessions_max: Option<u32>,
    /// See [`TargetAccess::redirect`].
    #[serde(default)]
    pub redirect: Option<bool>,
}

/// A command about access. Each is harmless when it comes twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessCommand {
    /// Says which key secrets are sealed with.
    SetKey {
        /// The key's id.
        key: KeyId,
    },
    /// Makes a group.
    CreateGroup {
        /// Its name, see [`super::check_name`].
        name: String,
        /// Who belongs to it.
        group: NewGroup,
    },
    /// Changes a group.
    ChangeGroup {
        /// Which.
        name: String,
        /// How.
        change: GroupChange,
    },
    /// Removes a group. Targets that it was allowed to use stay restricted.
    DeleteGroup {
        /// Which.
        name: String,
    },
    /// Sets or removes a CHAP user.
    SetUser {
        /// Whose.
        scope: ChapScope,
        /// CHAP name.
        user: String,
        /// Its secret, sealed for [`ChapScope::user_place`]; `None` removes the user.
        secret: Option<SealedSecret>,
    },
    /// Sets or removes the target's part of mutual CHAP.
    SetMutual {
        /// Whose.
        scope: ChapScope,
        /// Name, and secret sealed for [`ChapScope::mutual_place`]; `None` removes it.
        mutual: Option<ChapMutual>,
    },
    /// Lets a group use a target, which is restricted from here on.
    Allow {
        /// The target.
        target: IscsiName,
        /// The group.
        group: String,
    },
    /// Takes that back.
    Deny {
        /// The target.
        target: IscsiName,
        /// The group.
        group: String,
    },
    /// Changes what is set for a target.
    ChangeTarget {
        /// The target.
        target: IscsiName,
        /// How.
        change: TargetChange,
    },
    /// Shows an extent to a group under a number of its own. From the first one on the group does not see the target's own map.
    MapGroupLun {
        /// The target.
        target: IscsiName,
        /// The group, which may use the target.
        group: String,
        /// Under which number.
        lun: Lun,
        /// What it stands for, and whether it can only be read.
        unit: GroupLun,
    },
    /// Takes a LUN of a group's own map away. Without any the group sees nothing, until [`Self::ShareLuns`].
    UnmapGroupLun {
        /// The target.
        target: IscsiName,
        /// The group.
        group: String,
        /// Which.
        lun: Lun,
    },
    /// The group sees the target's own map again.
    ShareLuns {
        /// The target.
        target: IscsiName,
        /// The group.
        group: String,
    },
    /// Whether a LUN of the target's own map can only be read.
    SetLunReadOnly {
        /// The target.
        target: IscsiName,
        /// Which.
        lun: Lun,
        /// Whether.
        read_only: bool,
    },
}
