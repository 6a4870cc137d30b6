//! What initiators see: a pure function of one committed cluster state, the same on every node.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use holdfast_alua::{PortGroup, SecondaryAccess};
use holdfast_iscsi::directory::{Directory, GroupName};
use holdfast_raft::model::{self, ClusterKey, ClusterState, Role, TargetAccess};
use holdfast_scsi::reservation::UnitState;
use holdfast_scsi::{Counters, LuView, Unit, WellKnown};
use holdfast_types::{
    BlockSize, ExtentId, IscsiName, Lun, Nexus, NodeId, Revision, TpgId, UnitVersion, UnixMillis,
};

use super::redirect::closest;

/// Targets and their units, ready for commands.
#[derive(Debug, Default)]
pub(crate) struct FrontState {
    directory: Arc<Directory>,
    directory_with_authority: Arc<Directory>,
    targets: HashMap<IscsiName, TargetFront>,
    nodes: BTreeMap<NodeId, NodeFront>,
    revision: Revision,
    versions: HashMap<ExtentId, UnitVersion>,
    /// Those that a SANITIZE has shut.
    shut: HashSet<ExtentId>,
}

/// A data node as another place to log in at.
#[derive(Debug)]
struct NodeFront {
    /// Its extents move away, and it is on its way out or about to be stopped.
    gives_away: bool,
    /// It may be sent logins: nothing stands against it.
    takes: bool,
    portals: Vec<SocketAddr>,
}

/// A target: its own LUN map, and what groups see instead of it.
#[derive(Debug, Default)]
struct TargetFront {
    own: MapFront,
    groups: HashMap<GroupName, MapFront>,
    sessions_max: Option<u32>,
    redirect: bool,
    /// How many of the target's units each node serves; empty where one of them has no primary.
    primaries: BTreeMap<NodeId, usize>,
}

/// A LUN map.
#[derive(Debug, Default, Clone)]
struct MapFront {
    units: BTreeMap<Lun, UnitFront>,
    luns: Vec<Lun>,
    shown: Vec<Unit>,
    lun_changes: u64,
    write_changes: u64,
}

#[derive(Debug, Clone)]
struct UnitFront {
    extent: Arc<ExtentFront>,
    read_only: bool,
}

/// An extent, however many maps show it.
#[derive(Debug)]
struct ExtentFront {
    id: ExtentId,
    blocks: u64,
    block_size: BlockSize,
    groups: Vec<PortGroup>,
    primary: Option<NodeId>,
    secondary: SecondaryAccess,
    thin: bool,
    write_back: bool,
    group_changes: u64,
    capacity_changes: u64,
    unit: UnitState,
}

/// Which LUN map: a target's, as an initiator group sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map<'a> {
    /// The target.
    pub(crate) target: &'a IscsiName,
    /// The group; `None` where everyone may use the target.
    pub(crate) group: Option<&'a GroupName>,
}

impl FrontState {
    /// Out of committed state; `key` opens the secrets in it.
    pub(crate) fn derive(state: &ClusterState, key: Option<&ClusterKey>) -> Self {
        let directory = super::access::directory(state, key, false);
        let extents: BTreeMap<ExtentId, Arc<ExtentFront>> = state
            .extents
            .keys()
            .filter_map(|id| Some((*id, Arc::new(ExtentFront::derive(state, *id)?))))
            .collect();
        let targets = state
            .targets
            .keys()
            .map(|name| (name.clone(), TargetFront::derive(state, name, &extents)))
            .collect();
        Self {
            directory_with_authority: Arc::new(Directory {
                authoritative: true,
                ..directory.clone()
            }),
            directory: Arc::new(directory),
            targets,
            nodes: NodeFront::of(state),
            revision: state.revision,
            versions: state
                .extents
                .iter()
                .map(|(id, extent)| (*id, extent.unit.version))
                .collect(),
            shut: state
                .extents
                .iter()
                .filter(|(_, extent)| !extent.unit.sanitize.is_idle())
                .map(|(id, _)| *id)
                .collect(),
        }
    }

    /// For discovery and logins. Only a node that holds its lease says with authority that a target does not exist: another one may be
    /// behind, and a wrong "not found" is final for initiators (I8).
    pub(crate) fn directory(&self, authority: bool) -> Arc<Directory> {
        Arc::clone(if authority {
            &self.directory_with_authority
        } else {
            &self.directory
        })
    }

    fn map(&self, map: Map<'_>) -> Option<&MapFront> {
        let target = self.targets.get(map.target)?;
        Some(
            map.group
                .and_then(|group| target.groups.get(group))
                .unwrap_or(&target.own),
        )
    }

    /// The LUNs of a map.
    pub(crate) fn luns(&self, map: Map<'_>) -> &[Lun] {
        self.map(map).map_or(&[], |map| &map.luns)
    }

    /// Most sessions of a target on this node.
    pub(crate) fn sessions_max(&self, target: &IscsiName) -> Option<u32> {
        self.targets.get(target)?.sessions_max
    }

    /// Where a login at the portal `local` of node `me` is to be made instead: nowhere, unless the target wants that, `me` gives its
    /// extents away (or is `stopping`) and has given away all of the target's. The portal is one of the node that serves most of them,
    /// the one whose address is most like `local`.
    pub(crate) fn elsewhere(
        &self,
        target: &IscsiName,
        me: NodeId,
        stopping: bool,
        local: IpAddr,
    ) -> Option<SocketAddr> {
        let target = self.targets.get(target).filter(|target| target.redirect)?;
        let leaves = stopping || self.nodes.get(&me).is_some_and(|node| node.gives_away);
        if !leaves || target.primaries.contains_key(&me) {
            return None;
        }
        let (_, to) = target
            .primaries
            .iter()
            .filter_map(|(node, count)| Some((count, self.nodes.get(node).filter(|node| node.takes)?)))
            .min_by_key(|(count, _)| std::cmp::Reverse(**count))?;
        closest(&to.portals, local)
    }

    /// The newest revision of the cluster's state that is in it.
    pub(crate) const fn revision(&self) -> Revision {
        self.revision
    }

    /// The version of a unit's state; `None` where there is no such extent.
    pub(crate) fn unit_version(&self, extent: ExtentId) -> Option<UnitVersion> {
        self.versions.get(&extent).copied()
    }

    /// The version of a unit's state under which an operation is admitted now; `None` where there is no such extent, or where a SANITIZE
    /// has shut it.
    pub(crate) fn admits(&self, extent: ExtentId) -> Option<UnitVersion> {
        self.unit_version(extent).filter(|_| !self.shut.contains(&extent))
    }

    /// The extents that the nexus has reserved in the way of SPC-2.
    pub(crate) fn reserved_by(&self, nexus: &Nexus) -> Vec<ExtentId> {
        let target = self.targets.get(&nexus.target).into_iter();
        let maps = target.flat_map(|target| std::iter::once(&target.own).chain(target.groups.values()));
        let mut extents: Vec<ExtentId> = maps
            .flat_map(|map| map.units.values())
            .filter(|unit| {
                let holder = unit.extent.unit.legacy.as_ref();
                holder.is_some_and(|holder| holder.nexus == *nexus)
            })
            .map(|unit| unit.extent.id)
            .collect();
        extents.sort_unstable();
        extents.dedup();
        extents
    }

    /// The REPORT LUNS well-known unit as a command through `port` finds it; `None` where there is no such target.
    pub(crate) fn well_known<'a>(&'a self, map: Map<'a>, port: TpgId) -> Option<WellKnown<'a>> {
        let found = self.map(map)?;
        Some(WellKnown {
            target: map.target,
            port,
            luns: &found.luns,
            changes: found.lun_changes,
        })
    }

    /// A unit as a command of `nexus`, a member of `group`, finds it. Who starts a command adds the calendar.
    pub(crate) fn view<'a>(
        &'a self,
        nexus: &'a Nexus,
        group: Option<&'a GroupName>,
        lun: Lun,
    ) -> Option<LuView<'a>> {
        let map = Map {
            target: &nexus.target,
            group,
        };
        let found = self.map(map)?;
        let unit = found.units.get(&lun)?;
        let extent = &unit.extent;
        Some(LuView {
            extent: extent.id,
            blocks: extent.blocks,
            block_size: extent.block_size,
            target: map.target,
            lun,
            luns: &found.luns,
            units: &found.shown,
            groups: &extent.groups,
            secondary: extent.secondary,
            port: nexus.tpg,
            thin: extent.thin,
            write_protected: unit.read_only || extent.unit.modes.software_write_protect,
            write_back: extent.write_back,
            nexus,
            unit: &extent.unit,
            calendar: UnixMillis::default(),
            counters: Counters {
                groups: extent.group_changes,
                capacity: extent.capacity_changes,
                luns: found.lun_changes,
                mode: found.write_changes,
                modes: extent.unit.modes_changed_for(nexus),
                identified: extent.unit.identified_for(nexus),
                clock: extent.unit.clock_set_for(nexus),
                notices: extent.unit.notices(nexus),
                resets: extent.unit.resets,
            },
        })
    }
}

impl NodeFront {
    /// The data nodes.
    fn of(state: &ClusterState) -> BTreeMap<NodeId, Self> {
        let data = state.nodes.iter().filter(|(_, node)| node.role == Role::Data);
        let front = |node: &model::Node| Self {
            gives_away: node.draining || node.leaving,
            takes: !node.draining && !node.leaving && !node.is_suspect(),
            portals: node.addresses.portals.clone(),
        };
        data.map(|(id, node)| (*id, front(node))).collect()
    }
}

impl ExtentFront {
    fn derive(state: &ClusterState, id: ExtentId) -> Option<Self> {
        let unit = state.lu(id)?;
        let extent = unit.extent;
        Some(Self {
            id,
            blocks: extent.size_bytes >> extent.block_size.shift(),
            block_size: extent.block_size,
            groups: unit.groups,
            primary: extent.primary,
            secondary: extent.secondary,
            thin: extent.thin,
            write_back: extent.cache.since.is_some(),
            group_changes: extent.alua_changes,
            capacity_changes: extent.capacity_changes,
            unit: extent.unit.clone(),
        })
    }
}

impl MapFront {
    /// `units` by LUN: the extent, and whether it can only be read.
    fn new(
        units: impl Iterator<Item = (Lun, ExtentId, bool)>,
        extents: &BTreeMap<ExtentId, Arc<ExtentFront>>,
        lun_changes: u64,
        write_changes: u64,
    ) -> Self {
        let units: BTreeMap<Lun, UnitFront> = units
            .filter_map(|(lun, id, read_only)| {
                let extent = Arc::clone(extents.get(&id)?);
                Some((lun, UnitFront { extent, read_only }))
            })
            .collect();
        Self {
            luns: units.keys().copied().collect(),
            shown: units
                .values()
                .map(|unit| Unit {
                    extent: unit.extent.id,
                    blocks: unit.extent.blocks,
                    block_size: unit.extent.block_size,
                    write_protected: unit.read_only,
                })
                .collect(),
            units,
            lun_changes,
            write_changes,
        }
    }
}

impl TargetFront {
    fn derive(
        state: &ClusterState,
        name: &IscsiName,
        extents: &BTreeMap<ExtentId, Arc<ExtentFront>>,
    ) -> Self {
        let Some(target) = state.targets.get(name) else {
            return Self::default();
        };
        let open = TargetAccess::default();
        let access = state.access.targets.get(name).unwrap_or(&open);
        let own = |all_read_only: bool, lun_changes: u64| {
            let units = target
                .luns
                .iter()
                .map(|(lun, id)| (*lun, *id, all_read_only || access.read_only.contains(lun)));
            MapFront::new(units, extents, lun_changes, access.write_changes)
        };
        let groups = access.groups.iter().filter_map(|(name, grant)| {
            let read_only = state.access.groups.get(name)?.read_only;
            // Differs whenever the group's map differs: its own does not follow that of the target.
            let shared = if grant.luns.is_none() {
                target.lun_changes
            } else {
                0
            };
            let changes = (grant.lun_changes << 32) + shared;
            let map = match &grant.luns {
                Some(luns) => MapFront::new(
                    luns.iter()
                        .map(|(lun, unit)| (*lun, unit.extent, read_only || unit.read_only)),
                    extents,
                    changes,
                    access.write_changes,
                ),
                None => own(read_only, changes),
            };
            Some((GroupName::from(name.as_str()), map))
        });
        let mut front = Self {
            groups: groups.collect(),
            own: own(false, target.lun_changes),
            sessions_max: access.sessions_max,
            redirect: access.redirect,
            primaries: BTreeMap::new(),
        };
        if front.redirect {
            front.primaries = front.count_primaries();
        }
        front
    }

    /// Who serves how many units, in whatever map they are.
    fn count_primaries(&self) -> BTreeMap<NodeId, usize> {
        let mut primaries = BTreeMap::new();
        for map in std::iter::once(&self.own).chain(self.groups.values()) {
            for unit in map.units.values() {
                let Some(primary) = unit.extent.primary else {
                    return BTreeMap::new();
                };
                *primaries.entry(primary).or_default() += 1;
            }
        }
        primaries
    }
}
