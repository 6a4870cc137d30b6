//! A logical unit as one command finds it.

use holdfast_alua::{AccessState, PortGroup, SecondaryAccess};
use holdfast_types::{BlockSize, ExtentId, IscsiName, Lun, Nexus, RelativePortId, TpgId, UnixMillis};

use crate::Counters;
use crate::reservation::UnitState;

/// Everything that answers depend on, all of it from the committed state that the node has applied: the same on every node but
/// for `port` and `calendar`.
#[derive(Debug, Clone, Copy)]
pub struct LuView<'a> {
    /// The extent behind the unit; NAA name and serial number come from it.
    pub extent: ExtentId,
    /// Capacity in blocks, at least 1.
    pub blocks: u64,
    /// Size of a block.
    pub block_size: BlockSize,
    /// The target's name.
    pub target: &'a IscsiName,
    /// The LUN that the command names.
    pub lun: Lun,
    /// All LUNs that this initiator sees, for REPORT LUNS.
    pub luns: &'a [Lun],
    /// The same units as what EXTENDED COPY may read and write.
    pub units: &'a [Unit],
    /// The unit's port groups.
    pub groups: &'a [PortGroup],
    /// What groups beside the primary's are, for the support bits of REPORT TARGET PORT GROUPS.
    pub secondary: SecondaryAccess,
    /// The portal group through which the command came (TPGT), which is also its relative target port id.
    pub port: TpgId,
    /// Thin provisioned; else every block has its space ("resource provisioned" in SBC-3).
    pub thin: bool,
    /// Writes are refused with 07/27/00.
    pub write_protected: bool,
    /// Write-back caching is on: WCE=1 in the caching mode page (I1).
    pub write_back: bool,
    /// The nexus that the command came over.
    pub nexus: &'a Nexus,
    /// Reservations, and the unit's state beside its blocks.
    pub unit: &'a UnitState,
    /// The node's calendar as the command comes: not of the committed state.
    pub calendar: UnixMillis,
    /// What unit attentions are raised from (P3).
    pub counters: Counters,
}

/// A unit as commands to other units see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// The extent behind it; its NAA name comes from it.
    pub extent: ExtentId,
    /// Capacity in blocks.
    pub blocks: u64,
    /// Size of a block.
    pub block_size: BlockSize,
    /// Writes are refused with 07/27/00.
    pub write_protected: bool,
}

impl LuView<'_> {
    /// The port group of the port through which the command came.
    pub fn group(&self) -> Option<&PortGroup> {
        self.groups
            .iter()
            .find(|group| group.ports.contains(&self.relative_port()))
    }

    /// The state of that group. A port that the applied state does not know yet counts as transitioning: the node is behind, and a
    /// command is held rather than refused (I8).
    pub fn state(&self) -> AccessState {
        self.group()
            .map_or(AccessState::Transitioning, |group| group.state)
    }

    /// The relative target port identifier of the port.
    pub const fn relative_port(&self) -> RelativePortId {
        RelativePortId(self.port.value())
    }

    /// The serial number of VPD page 80: the extent's id as 32 hexadecimal digits.
    pub fn serial(&self) -> String {
        format!("{:032x}", self.extent.as_u128())
    }
}
