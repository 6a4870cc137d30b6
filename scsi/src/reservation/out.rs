//! PERSISTENT RESERVE OUT: CDB and parameter list (SPC-4, 6.16).

use holdfast_types::{IscsiName, Isid, TpgId};
use serde::{Deserialize, Serialize};

use super::table::{ReservationType, ServiceAction};
use super::transport;
use crate::Sense;
use crate::cdb::Cdb;

/// Bytes of the basic parameter list.
const BASIC: usize = 24;
/// TransportIDs in one parameter list, at most.
const PORTS_MAX: usize = 64;
/// Longest parameter list: that many of the longest TransportIDs.
const LONGEST: u64 = 24 + 4 + PORTS_MAX as u64 * 256;

/// A PERSISTENT RESERVE OUT command, read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistentOut {
    /// What to do.
    pub action: ServiceAction,
    /// TYPE, for RESERVE, RELEASE and PREEMPT; `None` for a reserved value, which is refused where it matters.
    pub kind: Option<ReservationType>,
    /// RESERVATION KEY: the one that the nexus is registered with.
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    pub new_key: u64,
    /// ALL_TG_PT.
    #[serde(default)]
    pub all_target_ports: bool,
    /// APTPL.
    #[serde(default)]
    pub aptpl: bool,
    /// Initiator ports: with SPEC_I_PT those to register as well, with REGISTER AND MOVE the one to move to.
    #[serde(default)]
    pub ports: Vec<(IscsiName, Isid)>,
    /// REGISTER AND MOVE: the target port to move to.
    #[serde(default)]
    pub move_to: Option<TpgId>,
    /// REGISTER AND MOVE: UNREG.
    #[serde(default)]
    pub unregister: bool,
}

impl ServiceAction {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Register,
            1 => Self::Reserve,
            2 => Self::Release,
            3 => Self::Clear,
            4 => Self::Preempt,
            5 => Self::PreemptAndAbort,
            6 => Self::RegisterAndIgnore,
            7 => Self::RegisterAndMove,
            _ => return None,
        })
    }
}

/// Bytes of the parameter list that the CDB announces.
pub(crate) fn data_length(cdb: Cdb<'_>) -> Result<u64, Sense> {
    let length = cdb.number(5, 4);
    if length < BASIC as u64 || length > LONGEST {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    Ok(length)
}

/// Reads service action and scope out of the CDB, so that nonsense is refused before any data.
pub(crate) fn read(action: u8, scope_and_type: u8, data: &[u8]) -> Result<PersistentOut, Sense> {
    let action = ServiceAction::from_code(action).ok_or(Sense::cdb_bit(1, 4))?;
    let uses_type = matches!(
        action,
        ServiceAction::Reserve
            | ServiceAction::Release
            | ServiceAction::Preempt
            | ServiceAction::PreemptAndAbort
    );
    // SCOPE: LU_SCOPE is the only one.
    if uses_type && scope_and_type >> 4 != 0 {
        return Err(Sense::cdb_bit(2, 7));
    }
    let list = Cdb(data);
    let mut out = PersistentOut {
        action,
        kind: ReservationType::from_code(scope_and_type & 0x0f).filter(|_| uses_type),
        key: list.number(0, 8),
        new_key: list.number(8, 8),
        all_target_ports: false,
        aptpl: false,
        ports: Vec::new(),
        move_to: None,
        unregister: false,
    };
    if action == ServiceAction::RegisterAndMove {
        read_move(&mut out, data)?;
        return Ok(out);
    }
    let spec_i_pt = list.bit(20, 3);
    if spec_i_pt && action != ServiceAction::Register {
        return Err(Sense::parameter_byte(20));
    }
    if !spec_i_pt && data.len() != BASIC {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    if matches!(action, ServiceAction::Register | ServiceAction::RegisterAndIgnore) {
        out.all_target_ports = list.bit(20, 2);
        out.aptpl = list.bit(20, 0);
    }
    if spec_i_pt {
        let length = list.length(BASIC, 4);
        let ids = data.get(BASIC + 4..).filter(|ids| ids.len() == length);
        let ids = ids.ok_or(Sense::PARAMETER_LIST_LENGTH)?;
        out.ports = read_ports(ids, BASIC + 4)?;
    }
    Ok(out)
}

fn read_move(out: &mut PersistentOut, data: &[u8]) -> Result<(), Sense> {
    let list = Cdb(data);
    out.unregister = list.bit(17, 1);
    out.aptpl = list.bit(17, 0);
    out.move_to = u16::try_from(list.number(18, 2)).ok().map(TpgId);
    let length = list.length(20, 4);
    let ids = data.get(BASIC..).filter(|ids| ids.len() == length);
    let ids = ids.ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    out.ports = read_ports(ids, BASIC)?;
    Ok(())
}

/// Reads TransportIDs, `at` being their offset in the parameter list.
fn read_ports(mut ids: &[u8], mut at: usize) -> Result<Vec<(IscsiName, Isid)>, Sense> {
    let mut ports = Vec::new();
    while !ids.is_empty() {
        let fault = |offset: usize| Sense::parameter_byte(u16::try_from(at + offset).unwrap_or(u16::MAX));
        if ports.len() >= PORTS_MAX {
            return Err(fault(0));
        }
        let (port, length) = transport::read(ids).map_err(fault)?;
        ports.push(port);
        ids = ids.get(length..).unwrap_or(&[]);
        at += length;
    }
    Ok(ports)
}
