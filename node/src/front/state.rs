//! What initiators see: a pure function of one committed cluster state, the same on every node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use holdfast_alua::{PortGroup, SecondaryAccess};
use holdfast_iscsi::directory::{Access, Directory, Portal, TargetEntry};
use holdfast_raft::model::{ClusterState, Role};
use holdfast_scsi::{Counters, LuView};
use holdfast_types::{BlockSize, ExtentId, IscsiName, Lun, TpgId};

/// Targets and their units, ready for commands.
#[derive(Debug, Default)]
pub(crate) struct FrontState {
    directory: Arc<Directory>,
    directory_with_authority: Arc<Directory>,
    targets: HashMap<IscsiName, TargetFront>,
}

#[derive(Debug, Default)]
struct TargetFront {
    units: BTreeMap<Lun, UnitFront>,
    luns: Vec<Lun>,
    lun_changes: u64,
}

#[derive(Debug)]
struct UnitFront {
    extent: ExtentId,
    blocks: u64,
    block_size: BlockSize,
    groups: Vec<PortGroup>,
    secondary: SecondaryAccess,
    thin: bool,
    group_changes: u64,
    capacity_changes: u64,
}

impl FrontState {
    /// Out of committed state.
    pub(crate) fn derive(state: &ClusterState) -> Self {
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
        let entry = || TargetEntry {
            alias: None,
            portals: portals.clone(),
            access: Access::Everyone,
        };
        let known: BTreeMap<_, _> = state.targets.keys().map(|name| (name.clone(), entry())).collect();
        Self {
            directory: Arc::new(Directory {
                targets: known.clone(),
                authoritative: false,
            }),
            directory_with_authority: Arc::new(Directory {
                targets: known,
                authoritative: true,
            }),
            targets: state
                .targets
                .keys()
                .map(|name| (name.clone(), TargetFront::derive(state, name)))
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

    /// The LUNs of a target.
    pub(crate) fn luns(&self, target: &IscsiName) -> &[Lun] {
        self.targets.get(target).map_or(&[], |target| &target.luns)
    }

    /// A unit as a command through `port` finds it. `resets` counts LOGICAL UNIT RESETs by extent.
    pub(crate) fn view<'a>(
        &'a self,
        target: &'a IscsiName,
        lun: Lun,
        port: TpgId,
        resets: impl FnOnce(ExtentId) -> u64,
    ) -> Option<LuView<'a>> {
        let found = self.targets.get(target)?;
        let unit = found.units.get(&lun)?;
        Some(LuView {
            extent: unit.extent,
            blocks: unit.blocks,
            block_size: unit.block_size,
            target,
            lun,
            luns: &found.luns,
            groups: &unit.groups,
            secondary: unit.secondary,
            port,
            thin: unit.thin,
            write_protected: false,
            write_back: false,
            counters: Counters {
                groups: unit.group_changes,
                capacity: unit.capacity_changes,
                luns: found.lun_changes,
                mode: 0,
                resets: resets(unit.extent),
            },
        })
    }
}

impl TargetFront {
    fn derive(state: &ClusterState, name: &IscsiName) -> Self {
        let Some(target) = state.targets.get(name) else {
            return Self::default();
        };
        let units: BTreeMap<Lun, UnitFront> = target
            .luns
            .iter()
            .filter_map(|(lun, id)| {
                let unit = state.lu(*id)?;
                let extent = unit.extent;
                let front = UnitFront {
                    extent: *id,
                    blocks: extent.size_bytes >> extent.block_size.shift(),
                    block_size: extent.block_size,
                    groups: unit.groups,
                    secondary: extent.secondary,
                    thin: extent.thin,
                    group_changes: extent.alua_changes,
                    capacity_changes: extent.capacity_changes,
                };
                Some((*lun, front))
            })
            .collect();
        Self {
            luns: units.keys().copied().collect(),
            units,
            lun_changes: target.lun_changes,
        }
    }
}
