//! Reservations, for people and scripts.

use holdfast_scsi::reservation::{ReservationType, UnitState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is registered and reserved on an extent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ReservationStatus {
    /// The reservation in words; `None` where there are registrations alone.
    pub(crate) kind: Option<String>,
    pub(crate) generation: u32,
    pub(crate) aptpl: bool,
    pub(crate) registrations: Vec<RegistrationStatus>,
}

/// A registered nexus, or the one that has reserved in the way of SPC-2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RegistrationStatus {
    /// `IQN,i,0xISID`
    pub(crate) initiator: String,
    /// `IQN,t,0xTPGT`
    pub(crate) port: String,
    /// In hexadecimal digits.
    pub(crate) key: String,
    pub(crate) holder: bool,
}

const fn words(kind: ReservationType) -> &'static str {
    match kind {
        ReservationType::WriteExclusive => "write exclusive",
        ReservationType::ExclusiveAccess => "exclusive access",
        ReservationType::WriteExclusiveRegistrants => "write exclusive, registrants only",
        ReservationType::ExclusiveAccessRegistrants => "exclusive access, registrants only",
        ReservationType::WriteExclusiveAll => "write exclusive, all registrants",
        ReservationType::ExclusiveAccessAll => "exclusive access, all registrants",
    }
}

/// `None` where nothing is registered or reserved.
pub(super) fn reservation(unit: &UnitState) -> Option<ReservationStatus> {
    let table = &unit.reservations;
    let port = |nexus: &holdfast_types::Nexus| format!("{},t,0x{:04x}", nexus.target, nexus.tpg.value());
    let initiator = |nexus: &holdfast_types::Nexus| format!("{},i,0x{}", nexus.initiator, nexus.isid);
    let mut registrations: Vec<RegistrationStatus> = table
        .registrations()
        .iter()
        .map(|one| RegistrationStatus {
            initiator: initiator(&one.nexus),
            port: port(&one.nexus),
            key: format!("{:#018x}", one.key),
            holder: table.holds(&one.nexus),
        })
        .collect();
    let mut kind = table.held().map(|held| words(held.kind).to_owned());
    if let Some(holder) = &unit.legacy {
        kind = Some("RESERVE (SPC-2)".to_owned());
        registrations.push(RegistrationStatus {
            initiator: initiator(&holder.nexus),
            port: port(&holder.nexus),
            key: String::new(),
            holder: true,
        });
    }
    (kind.is_some() || !registrations.is_empty()).then(|| ReservationStatus {
        kind,
        generation: table.generation(),
        aptpl: table.aptpl(),
        registrations,
    })
}
