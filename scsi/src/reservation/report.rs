//! PERSISTENT RESERVE IN: parameter data (SPC-4, 6.15).

use super::state::UnitState;
use super::transport;
use crate::Response;

/// Service action of PERSISTENT RESERVE IN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PersistentIn {
    /// 00h.
    ReadKeys,
    /// 01h.
    ReadReservation,
    /// 02h.
    ReportCapabilities,
    /// 03h.
    ReadFullStatus,
}

impl PersistentIn {
    /// Of the code in the CDB.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::ReadKeys,
            1 => Self::ReadReservation,
            2 => Self::ReportCapabilities,
            3 => Self::ReadFullStatus,
            _ => return None,
        })
    }

    /// The answer, from a state that holds all that was committed before the command came (P2). Under RESERVE of SPC-2, whoever holds it,
    /// RESERVATION CONFLICT.
    pub fn answer(self, state: &UnitState, allocation: usize) -> Response {
        if state.legacy.is_some() {
            return Response::reservation_conflict();
        }
        let data = match self {
            Self::ReadKeys => keys(state),
            Self::ReadReservation => reservation(state),
            Self::ReportCapabilities => capabilities(state),
            Self::ReadFullStatus => full_status(state),
        };
        Response::data(data, allocation)
    }
}

/// PRGENERATION, ADDITIONAL LENGTH, and what it is the length of.
fn with_generation(state: &UnitState, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
    let mut data = state.reservations.generation().to_be_bytes().to_vec();
    data.extend_from_slice(&length.to_be_bytes());
    data.extend_from_slice(rest);
    data
}

fn keys(state: &UnitState) -> Vec<u8> {
    let keys: Vec<u8> = state
        .reservations
        .registrations()
        .iter()
        .flat_map(|registration| registration.key.to_be_bytes())
        .collect();
    with_generation(state, &keys)
}

fn reservation(state: &UnitState) -> Vec<u8> {
    let table = &state.reservations;
    let (Some(held), Some(key)) = (table.held(), table.held_key()) else {
        return with_generation(state, &[]);
    };
    let mut rest = key.to_be_bytes().to_vec();
    // Four obsolete bytes, one reserved, LU_SCOPE with the type, two obsolete.
    rest.extend_from_slice(&[0, 0, 0, 0, 0, held.kind.code(), 0, 0]);
    with_generation(state, &rest)
}

/// CRH, SIP_C, ATP_C and PTPL_C; TMV; every type. ALLOW COMMANDS is 000b: REPORT SUPPORTED OPERATION CODES and the standard's own table
/// say what is let through.
fn capabilities(state: &UnitState) -> Vec<u8> {
    let active = u8::from(state.reservations.aptpl());
    vec![0, 8, 0x10 | 0x08 | 0x04 | 0x01, 0x80 | active, 0xea, 0x01, 0, 0]
}

fn full_status(state: &UnitState) -> Vec<u8> {
    let table = &state.reservations;
    let mut rest = Vec::new();
    for registration in table.registrations() {
        let nexus = &registration.nexus;
        let id = transport::write(&nexus.initiator, nexus.isid);
        let held = table.held().filter(|_| table.holds(nexus));
        rest.extend_from_slice(&registration.key.to_be_bytes());
        rest.extend_from_slice(&[0; 4]);
        // ALL_TG_PT=0: each target port has a descriptor of its own.
        rest.push(u8::from(held.is_some()));
        rest.push(held.map_or(0, |held| held.kind.code()));
        rest.extend_from_slice(&[0; 4]);
        rest.extend_from_slice(&nexus.tpg.value().to_be_bytes());
        rest.extend_from_slice(&u32::try_from(id.len()).unwrap_or(u32::MAX).to_be_bytes());
        rest.extend_from_slice(&id);
    }
    with_generation(state, &rest)
}
