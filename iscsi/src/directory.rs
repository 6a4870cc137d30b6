//! Which targets there are and where: what discovery and login are answered from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use holdfast_types::{IscsiName, TpgId};

/// One network portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Portal {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its portal group.
    pub tpg: TpgId,
}

/// Who may use a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Access {
    /// Every initiator.
    #[default]
    Everyone,
    /// These only: others do not see the target in discovery, and a login gets 0202.
    Only(BTreeSet<IscsiName>),
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
    /// Whether a target that is not here does not exist for sure. If not (the node has not caught up with the cluster's state), a
    /// login to such a
    /// target ends with the connection instead of 0203 (I8).
    pub authoritative: bool,
}

/// What the directory says about a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Let it in.
    Allowed,
    /// The target is there but not for this initiator.
    Forbidden,
    /// There is no such target, or not behind this portal group.
    Missing,
    /// Not known whether there is.
    Unknown,
}

impl TargetEntry {
    fn admits(&self, initiator: &IscsiName) -> bool {
        match &self.access {
            Access::Everyone => true,
            Access::Only(names) => names.contains(initiator),
        }
    }
}

impl Directory {
    /// May this initiator log in to this target through a portal of this group?
    pub fn judge(&self, initiator: &IscsiName, target: &IscsiName, tpg: TpgId) -> Verdict {
        match self.targets.get(target) {
            Some(entry) if !entry.portals.iter().any(|portal| portal.tpg == tpg) => self.missing(),
            Some(entry) if entry.admits(initiator) => Verdict::Allowed,
            Some(_) => Verdict::Forbidden,
            None => self.missing(),
        }
    }

    const fn missing(&self) -> Verdict {
        if self.authoritative {
            Verdict::Missing
        } else {
            Verdict::Unknown
        }
    }

    /// The targets that this initiator may see.
    pub fn visible<'a>(
        &'a self,
        initiator: &'a IscsiName,
    ) -> impl Iterator<Item = (&'a IscsiName, &'a TargetEntry)> {
        self.targets.iter().filter(|(_, entry)| entry.admits(initiator))
    }
}
