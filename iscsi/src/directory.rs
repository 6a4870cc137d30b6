//! Which targets there are, where, and for whom: what discovery and login are answered from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use holdfast_types::{IscsiName, Network, Secret, TpgId};

/// One network portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Portal {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its portal group.
    pub tpg: TpgId,
}

/// The name of an initiator group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for GroupName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the target proves itself where an initiator wants that (mutual CHAP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutual {
    /// CHAP_N of the target.
    pub name: String,
    /// Its secret. Never that of a user (RFC 7143, 9.2.1).
    pub secret: Secret,
}

/// CHAP users, and the target's own part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chap {
    /// Who may come in: secrets by CHAP_N.
    pub users: BTreeMap<String, Secret>,
    /// `None`: an initiator that wants the target to prove itself is refused.
    pub mutual: Option<Mutual>,
}

/// What an initiator has to prove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authentication {
    /// Nothing: its name is enough.
    #[default]
    None,
    /// That it knows the secret of one of these users.
    Chap(Arc<Chap>),
    /// As with `Chap`, but this node cannot read the secrets: logins end with the connection, so that the initiator tries
    /// another node (I8).
    Unreadable,
}

impl Authentication {
    /// Whether a name is not enough.
    pub const fn wants_proof(&self) -> bool {
        !matches!(self, Self::None)
    }
}

/// Initiators that are treated alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitiatorGroup {
    /// Its name.
    pub name: GroupName,
    /// Whether any initiator belongs to it, whatever its name.
    pub any_initiator: bool,
    /// Those that belong to it by name.
    pub initiators: BTreeSet<IscsiName>,
    /// Where they have to come from; empty: from anywhere.
    pub networks: Vec<Network>,
    /// What they have to prove.
    pub authentication: Authentication,
}

impl InitiatorGroup {
    /// Whether an initiator that comes from `peer` may belong to it, before anything is proven.
    pub fn admits(&self, initiator: &IscsiName, peer: IpAddr) -> bool {
        let by_name = self.any_initiator || self.initiators.contains(initiator);
        let by_network =
            self.networks.is_empty() || self.networks.iter().any(|network| network.contains(peer));
        by_name && by_network
    }
}

/// Who may use a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Access {
    /// Every initiator.
    #[default]
    Everyone,
    /// The members of these groups only: others do not see the target in discovery, and a login gets 0202.
    Groups(Vec<Arc<InitiatorGroup>>),
}

/// How an initiator may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// As a member of this group; `None` where everyone may.
    pub group: Option<GroupName>,
    /// What it has to prove.
    pub authentication: Authentication,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetEntry {
    /// TargetAlias, for people.
    pub alias: Option<String>,
    /// The portals of all nodes.
    pub portals: Vec<Portal>,
    /// Who may use it.
    pub access: Access,
}

/// A snapshot of all targets. Owners make a new one for every change and hand it to their connections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// By name.
    pub targets: BTreeMap<IscsiName, TargetEntry>,
    /// What an initiator has to prove in a discovery session.
    pub discovery: Authentication,
    /// Whether a target that is not here does not exist for sure. If not (the node has not caught up with the cluster's state), a
    /// login to such a
    /// target ends with the connection instead of 0203 (I8).
    pub authoritative: bool,
}

/// What the directory says about a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let it in by one of these ways, best first. Never empty.
    Allowed(Vec<Way>),
    /// The target is there but not for this initiator.
    Forbidden,
    /// There is no such target, or not behind this portal group.
    Missing,
    /// Not known whether there is.
    Unknown,
}

impl TargetEntry {
    /// The ways of an initiator, best first: groups that name it before groups that take anybody, then by name.
    fn ways(&self, initiator: &IscsiName, peer: IpAddr) -> Vec<Way> {
        let groups = match &self.access {
            Access::Everyone => {
                return vec![Way {
                    group: None,
                    authentication: Authentication::None,
                }];
            }
            Access::Groups(groups) => groups,
        };
        let mut admitting: Vec<&InitiatorGroup> = groups
            .iter()
            .map(Arc::as_ref)
            .filter(|group| group.admits(initiator, peer))
            .collect();
        admitting.sort_by_key(|group| (!group.initiators.contains(initiator), group.name.clone()));
        admitting
            .into_iter()
            .map(|group| Way {
                group: Some(group.name.clone()),
                authentication: group.authentication.clone(),
            })
            .collect()
    }

    fn admits(&self, initiator: &IscsiName, peer: IpAddr) -> bool {
        match &self.access {
            Access::Everyone => true,
            Access::Groups(groups) => groups.iter().any(|group| group.admits(initiator, peer)),
        }
    }
}

impl Directory {
    /// May this initiator, which comes from `peer`, log in to this target through a portal of this group?
    pub fn judge(&self, initiator: &IscsiName, peer: IpAddr, target: &IscsiName, tpg: TpgId) -> Verdict {
        match self.targets.get(target) {
            Some(entry) if entry.portals.iter().any(|portal| portal.tpg == tpg) => {
                let ways = entry.ways(initiator, peer);
                if ways.is_empty() {
                    Verdict::Forbidden
                } else {
                    Verdict::Allowed(ways)
                }
            }
            _ if self.authoritative => Verdict::Missing,
            _ => Verdict::Unknown,
        }
    }

    /// The way into a discovery session.
    pub fn discovery_way(&self) -> Way {
        Way {
            group: None,
            authentication: self.discovery.clone(),
        }
    }

    /// The targets that this initiator may see.
    pub fn visible<'a>(
        &'a self,
        initiator: &'a IscsiName,
        peer: IpAddr,
    ) -> impl Iterator<Item = (&'a IscsiName, &'a TargetEntry)> {
        self.targets
            .iter()
            .filter(move |(_, entry)| entry.admits(initiator, peer))
    }
}
