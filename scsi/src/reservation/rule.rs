//! Whether a reservation stands in a command's way: the tables of SPC-4 (5.12.1) and SBC-3 (4.17), and that of SPC-2 for RESERVE.

use holdfast_types::{Nexus, UnitRule};

use super::state::UnitState;

/// A command's column in those tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// Never refused: INQUIRY, REPORT LUNS, REQUEST SENSE and what else is about the path.
    Never,
    /// Refused to others only under RESERVE of SPC-2.
    Legacy,
    /// Reads the medium: refused to others under exclusive access.
    Read,
    /// Writes the medium, or changes or probes the device: refused to others under every reservation.
    Write,
    /// Has rules of its own, judged where it is carried out: PERSISTENT RESERVE, RESERVE, RELEASE.
    Own,
}

impl UnitState {
    /// The rule for the data path.
    pub fn rule(&self) -> UnitRule {
        let (mut holders, others_read, others_write) = match (&self.legacy, self.reservations.held()) {
            (Some(legacy), _) => (vec![legacy.nexus.tag()], false, false),
            (None, Some(held)) => (
                self.reservations.holders().map(Nexus::tag).collect(),
                !held.kind.excludes_reads(),
                false,
            ),
            (None, None) => (Vec::new(), true, true),
        };
        holders.sort_unstable();
        let mut aborted: Vec<_> = self
            .notices
            .aborted()
            .map(|(nexus, at)| (nexus.tag(), at))
            .collect();
        aborted.sort_unstable();
        UnitRule {
            version: self.version,
            others_read,
            others_write,
            holders,
            cleared: self.cleared,
            aborted,
            closed: !self.sanitize.is_idle(),
        }
    }

    /// Whether a command of `nexus` that does not reach the medium is refused with RESERVATION CONFLICT. For those that do, the primary
    /// judges (P1).
    pub fn refuses(&self, conflict: Conflict, nexus: &Nexus) -> bool {
        if let Some(legacy) = &self.legacy {
            return !matches!(conflict, Conflict::Never | Conflict::Own) && legacy.nexus != *nexus;
        }
        let Some(held) = self.reservations.held() else {
            return false;
        };
        match conflict {
            Conflict::Never | Conflict::Own | Conflict::Legacy => false,
            Conflict::Read => held.kind.excludes_reads() && !self.reservations.may_access(nexus),
            Conflict::Write => !self.reservations.may_access(nexus),
        }
    }
}
