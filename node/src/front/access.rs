//! Committed access rules as the login's directory and the LUN maps need them, with secrets opened by this node's key.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_iscsi::directory::{
    Access, Authentication, Chap, Directory, GroupName, InitiatorGroup, Mutual, Portal, TargetEntry, Way,
};
use holdfast_iscsi::session::{LoginRequested, SessionKind};
use holdfast_raft::model::{self, ChapScope, ClusterKey, ClusterState, Role};
use holdfast_types::{IscsiName, TpgId};

/// Every target with its portals, and who may use it.
pub(super) fn directory(state: &ClusterState, key: Option<&ClusterKey>, authoritative: bool) -> Directory {
    let portals: Vec<Portal> = state
        .nodes
        .values()
        .filter(|node| node.role == Role::Data)
        .flat_map(|node| {
            node.addresses.portals.iter().map(|address| Portal {
                address: *address,
                tpg: node.tpg,
            })
        })
        .collect();
    let groups: BTreeMap<&str, Arc<InitiatorGroup>> = state
        .access
        .groups
        .iter()
        .map(|(name, group)| (name.as_str(), Arc::new(initiator_group(name, group, key))))
        .collect();
    let entry = |name: &IscsiName| TargetEntry {
        alias: None,
        portals: portals.clone(),
        access: match state.access.targets.get(name) {
            Some(access) if access.restricted => Access::Groups(
                access
                    .groups
                    .keys()
                    .filter_map(|group| groups.get(group.as_str()).cloned())
                    .collect(),
            ),
            _ => Access::Everyone,
        },
    };
    Directory {
        targets: state
            .targets
            .keys()
            .map(|name| (name.clone(), entry(name)))
            .collect(),
        discovery: authentication(&ChapScope::Discovery, &state.access.discovery, key),
        authoritative,
    }
}

fn initiator_group(name: &str, group: &model::InitiatorGroup, key: Option<&ClusterKey>) -> InitiatorGroup {
    InitiatorGroup {
        name: GroupName::from(name),
        any_initiator: group.any_initiator,
        initiators: group.initiators.clone(),
        networks: group.networks.iter().copied().collect(),
        authentication: authentication(&ChapScope::Group(name.to_owned()), &group.chap, key),
    }
}

/// All secrets or none: with one that cannot be opened nobody is told that a secret is wrong (I8).
fn authentication(scope: &ChapScope, chap: &model::Chap, key: Option<&ClusterKey>) -> Authentication {
    if chap.users.is_empty() {
        return Authentication::None;
    }
    let open = |key: &ClusterKey| {
        let users = chap
            .users
            .iter()
            .map(|(user, sealed)| Some((user.clone(), key.open(sealed, &scope.user_place(user))?)))
            .collect::<Option<_>>()?;
        let mutual = match &chap.mutual {
            Some(mutual) => Some(Mutual {
                name: mutual.name.clone(),
                secret: key.open(&mutual.secret, &scope.mutual_place(&mutual.name))?,
            }),
            None => None,
        };
        Some(Chap { users, mutual })
    };
    key.and_then(open).map_or(Authentication::Unreadable, |chap| {
        Authentication::Chap(Arc::new(chap))
    })
}

/// Whether a session would still be let in as it was: its group admits it, and its user is there. A secret that changed meanwhile ends
/// nothing; it counts from the next login on.
pub(super) fn is_still_admitted(directory: &Directory, login: &LoginRequested, port: TpgId) -> bool {
    let SessionKind::Normal { target } = &login.kind else {
        return true;
    };
    match directory.judge(&login.initiator, login.peer, target, port) {
        holdfast_iscsi::directory::Verdict::Allowed(ways) => ways
            .iter()
            .any(|way| way.group == login.group && fits(way, login)),
        holdfast_iscsi::directory::Verdict::Unknown => true,
        holdfast_iscsi::directory::Verdict::Forbidden | holdfast_iscsi::directory::Verdict::Missing => false,
    }
}

fn fits(way: &Way, login: &LoginRequested) -> bool {
    match (&way.authentication, &login.user) {
        (Authentication::None | Authentication::Unreadable, _) => true,
        (Authentication::Chap(chap), Some(user)) => chap.users.contains_key(user),
        (Authentication::Chap(_), None) => false,
    }
}
