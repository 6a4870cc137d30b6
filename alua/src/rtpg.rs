//! Parameter data of REPORT TARGET PORT GROUPS (SPC-4), written and read.

use holdfast_types::{RelativePortId, TpgId};

use crate::{AccessState, IMPLICIT_TRANSITION_SECONDS, PortGroup, SecondaryAccess};

/// T_SUP: transitioning can occur.
pub const SUPPORTS_TRANSITIONING: u8 = 0x80;
/// U_SUP: unavailable can occur.
pub const SUPPORTS_UNAVAILABLE: u8 = 0x08;
/// S_SUP: standby can occur.
pub const SUPPORTS_STANDBY: u8 = 0x04;
/// AN_SUP: active/non-optimized can occur.
pub const SUPPORTS_NON_OPTIMIZED: u8 = 0x02;
/// AO_SUP: active/optimized can occur.
pub const SUPPORTS_OPTIMIZED: u8 = 0x01;

/// PARAMETER DATA FORMAT of the request: which header to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 000b: the length alone.
    LengthOnly,
    /// 001b: the extended header, with the implicit transition time.
    Extended,
}

impl Format {
    /// Of the three-bit field in byte 1 of the CDB; `None` for reserved values.
    pub const fn from_field(field: u8) -> Option<Self> {
        match field {
            0 => Some(Self::LengthOnly),
            1 => Some(Self::Extended),
            _ => None,
        }
    }
}

/// The support bits of a logical unit: exactly the states that [`crate::derive`] can give it. Standby can occur under either configuration
/// (a broken link between nodes, P4), active/non-optimized only where it is configured; offline and LBA dependent never.
pub const fn support(secondary: SecondaryAccess) -> u8 {
    let always = SUPPORTS_TRANSITIONING | SUPPORTS_UNAVAILABLE | SUPPORTS_STANDBY | SUPPORTS_OPTIMIZED;
    match secondary {
        SecondaryAccess::NonOptimized => always | SUPPORTS_NON_OPTIMIZED,
        SecondaryAccess::Standby => always,
    }
}

/// The whole parameter data, not yet cut to an allocation length. Groups come in the order given, with at most 255 ports each (the
/// count is one byte).
pub fn encode(groups: &[PortGroup], secondary: SecondaryAccess, format: Format) -> Vec<u8> {
    let mut data = vec![0; 4];
    if format == Format::Extended {
        // Bits 6-4 of the first byte: format type 001b.
        data.extend_from_slice(&[0x10, IMPLICIT_TRANSITION_SECONDS, 0, 0]);
    }
    for group in groups {
        let ports = &group.ports[..group.ports.len().min(255)];
        let preferred = if group.preferred { 0x80 } else { 0 };
        let id = group.id.value().to_be_bytes();
        // STATUS CODE 00h: no status available; what changed a state is not kept.
        let count = u8::try_from(ports.len()).unwrap_or(u8::MAX);
        data.extend_from_slice(&[
            preferred | group.state.code(),
            support(secondary),
            id[0],
            id[1],
            0,
            0,
            0,
            count,
        ]);
        for port in ports {
            let port = port.value().to_be_bytes();
            data.extend_from_slice(&[0, 0, port[0], port[1]]);
        }
    }
    let length = u32::try_from(data.len() - 4).unwrap_or(u32::MAX);
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

/// One group as an initiator reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its identifier.
    pub id: TpgId,
    /// Its state.
    pub state: AccessState,
    /// PREF.
    pub preferred: bool,
    /// The support bits.
    pub support: u8,
    /// Its ports.
    pub ports: Vec<RelativePortId>,
}

/// What an initiator reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Seconds, from the extended header.
    pub implicit_transition_seconds: Option<u8>,
    /// The groups.
    pub groups: Vec<Descriptor>,
}

/// Why parameter data could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It ends within a header or descriptor, or before its stated length.
    #[error("the report of target port groups is cut short")]
    Short,
    /// A state that is not known.
    #[error("access state {0:x}h is not known")]
    State(u8),
}

/// Reads complete parameter data of either format, as the request asked for it.
///
/// # Errors
/// [`ReadError`] where the data is cut short or names an unknown state.
pub fn decode(data: &[u8], format: Format) -> Result<Report, ReadError> {
    let head = data.first_chunk::<4>().ok_or(ReadError::Short)?;
    let length = usize::try_from(u32::from_be_bytes(*head)).map_err(|_| ReadError::Short)?;
    let mut rest = data[4..].get(..length).ok_or(ReadError::Short)?;
    let mut implicit_transition_seconds = None;
    if format == Format::Extended {
        let (header, tail) = rest.split_first_chunk::<4>().ok_or(ReadError::Short)?;
        implicit_transition_seconds = Some(header[1]);
        rest = tail;
    }
    let mut groups = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_first_chunk::<8>().ok_or(ReadError::Short)?;
        let count = usize::from(head[7]);
        let ports = tail.get(..count * 4).ok_or(ReadError::Short)?;
        groups.push(Descriptor {
            id: TpgId(u16::from_be_bytes([head[2], head[3]])),
            state: AccessState::from_code(head[0] & 0x0f).ok_or(ReadError::State(head[0] & 0x0f))?,
            preferred: head[0] & 0x80 != 0,
            support: head[1],
            ports: ports
                .chunks_exact(4)
                .map(|port| RelativePortId(u16::from_be_bytes([port[2], port[3]])))
                .collect(),
        });
        rest = &tail[count * 4..];
    }
    Ok(Report {
        implicit_transition_seconds,
        groups,
    })
}

#[cfg(test)]
#[path = "rtpg_test.rs"]
mod tests;
