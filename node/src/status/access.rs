//! Who may use what, for people and scripts. Secrets are not part of it, not even sealed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use holdfast_raft::model::{Chap, ClusterState, Grant, TargetAccess};
use holdfast_types::{IscsiName, Network};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// CHAP users of a group, or of discovery.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChapStatus {
    pub(crate) users: BTreeSet<String>,
    /// The name as which the target proves itself; `None` where it does not.
    pub(crate) mutual: Option<String>,
}

/// An initiator group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct GroupAccess {
    pub(crate) name: String,
    pub(crate) any_initiator: bool,
    pub(crate) initiators: Vec<String>,
    #[schema(value_type = Vec<String>)]
    pub(crate) networks: Vec<Network>,
    pub(crate) read_only: bool,
    pub(crate) chap: ChapStatus,
    #[schema(value_type = Vec<String>)]
    pub(crate) targets: Vec<IscsiName>,
}

/// Everything about access that is not about one target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct AccessStatus {
    pub(crate) groups: Vec<GroupAccess>,
    pub(crate) discovery: ChapStatus,
}

/// Who may use a target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TargetAccessStatus {
    /// Whether every initiator may.
    pub(crate) open: bool,
    pub(crate) sessions_max: Option<u32>,
    /// Whether a node that drains, leaves or stops sends logins to a node that serves.
    #[serde(default)]
    pub(crate) redirect: bool,
    /// LUNs of the target's own map that can only be read.
    pub(crate) read_only: Vec<u16>,
    pub(crate) groups: Vec<GrantStatus>,
}

/// A group that may use a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct GrantStatus {
    pub(crate) group: String,
    /// Its own LUN map; `None` where it sees that of the target.
    pub(crate) luns: Option<Vec<GroupLunStatus>>,
}

/// A LUN of a group's own map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct GroupLunStatus {
    pub(crate) lun: u16,
    pub(crate) extent: String,
    pub(crate) read_only: bool,
}

fn chap(chap: &Chap) -> ChapStatus {
    ChapStatus {
        users: chap.users.keys().cloned().collect(),
        mutual: chap.mutual.as_ref().map(|mutual| mutual.name.clone()),
    }
}

/// Out of committed state.
pub(super) fn access(state: &ClusterState) -> AccessStatus {
    let mut targets: BTreeMap<&str, Vec<IscsiName>> = BTreeMap::new();
    for (target, access) in &state.access.targets {
        for group in access.groups.keys() {
            targets.entry(group).or_default().push(target.clone());
        }
    }
    let groups = state.access.groups.iter().map(|(name, group)| GroupAccess {
        name: name.clone(),
        any_initiator: group.any_initiator,
        initiators: group.initiators.iter().map(IscsiName::to_string).collect(),
        networks: group.networks.iter().copied().collect(),
        read_only: group.read_only,
        chap: chap(&group.chap),
        targets: targets.remove(name.as_str()).unwrap_or_default(),
    });
    AccessStatus {
        groups: groups.collect(),
        discovery: chap(&state.access.discovery),
    }
}

/// Of one target, out of committed state.
pub(super) fn target_access(state: &ClusterState, target: &IscsiName) -> TargetAccessStatus {
    let unset = TargetAccess::default();
    let access = state.access.targets.get(target).unwrap_or(&unset);
    TargetAccessStatus {
        open: !access.restricted,
        sessions_max: access.sessions_max,
        redirect: access.redirect,
        read_only: access.read_only.iter().map(|lun| lun.value()).collect(),
        groups: access
            .groups
            .iter()
            .map(|(group, grant)| GrantStatus {
                group: group.clone(),
                luns: group_luns(state, grant),
            })
            .collect(),
    }
}

fn group_luns(state: &ClusterState, grant: &Grant) -> Option<Vec<GroupLunStatus>> {
    let luns = grant.luns.as_ref()?;
    let lun = luns.iter().map(|(lun, unit)| GroupLunStatus {
        lun: lun.value(),
        extent: state
            .extents
            .get(&unit.extent)
            .map_or_else(|| unit.extent.to_string(), |extent| extent.name.clone()),
        read_only: unit.read_only,
    });
    Some(lun.collect())
}

/// Initiator groups for people.
pub(crate) fn groups_text(groups: &[GroupAccess]) -> String {
    let mut text = String::new();
    for group in groups {
        let _ = writeln!(text, "GROUP {}", group.name);
        let who = match (group.any_initiator, group.initiators.is_empty()) {
            (true, _) => "any".to_owned(),
            (false, true) => "none: nobody belongs to it".to_owned(),
            (false, false) => group.initiators.join(", "),
        };
        let _ = writeln!(text, "  initiators: {who}");
        if !group.networks.is_empty() {
            let networks: Vec<String> = group.networks.iter().map(Network::to_string).collect();
            let _ = writeln!(text, "  from: {}", networks.join(", "));
        }
        let _ = writeln!(text, "  CHAP: {}", chap_text(&group.chap));
        if group.read_only {
            let _ = writeln!(text, "  may only read");
        }
        let targets: Vec<&str> = group.targets.iter().map(IscsiName::as_str).collect();
        let _ = writeln!(
            text,
            "  targets: {}",
            if targets.is_empty() {
                "none".to_owned()
            } else {
                targets.join(", ")
            }
        );
    }
    if groups.is_empty() {
        text.push_str("No initiator groups.\n");
    }
    text
}

/// CHAP users for people.
pub(crate) fn chap_text(chap: &ChapStatus) -> String {
    if chap.users.is_empty() {
        return "not asked for".to_owned();
    }
    let users: Vec<&str> = chap.users.iter().map(String::as_str).collect();
    let mutual = chap.mutual.as_ref().map_or_else(String::new, |name| {
        format!("; the target proves itself as {name}")
    });
    format!("users {}{mutual}", users.join(", "))
}

/// Who may use a target, for people.
pub(super) fn target_text(access: &TargetAccessStatus) -> String {
    let mut text = String::new();
    if access.open {
        text.push_str("  open to every initiator\n");
    } else if access.groups.is_empty() {
        text.push_str("  restricted, and no group may use it\n");
    }
    if let Some(most) = access.sessions_max {
        let _ = writeln!(text, "  at most {most} sessions on each node");
    }
    if access.redirect {
        text.push_str("  a node that drains sends its logins elsewhere\n");
    }
    for grant in &access.groups {
        let _ = match &grant.luns {
            None => writeln!(text, "  group {}: the LUNs below", grant.group),
            Some(luns) => {
                let luns: Vec<String> = luns
                    .iter()
                    .map(|lun| {
                        let how = if lun.read_only { " (read-only)" } else { "" };
                        format!("LUN {} is {}{how}", lun.lun, lun.extent)
                    })
                    .collect();
                writeln!(text, "  group {}: its own map: {}", grant.group, luns.join(", "))
            }
        };
    }
    text
}
