//! Which commands a state lets through (SPC-4, target port asymmetric access states).

use crate::AccessState;

/// What a command needs from the way to the logical unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandClass {
    /// Answered in every state: INQUIRY, REPORT LUNS, REPORT TARGET PORT GROUPS, REQUEST SENSE, READ and WRITE BUFFER.
    Identify,
    /// SET TARGET PORT GROUPS: every state but transitioning.
    SetGroups,
    /// About the unit, not its blocks: LOG, MODE, diagnostics, READ CAPACITY, PERSISTENT RESERVE, the REPORT SUPPORTED commands.
    /// Active and standby.
    Manage,
    /// Everything else, TEST UNIT READY among it: active only.
    Medium,
}

impl CommandClass {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Identify, Self::SetGroups, Self::Manage, Self::Medium];
}

/// Why a state refuses a command; each has its sense data, NOT READY with ASC 04h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 02/04/0A. The command may be held instead, up to the hold limit (I8).
    Transition,
    /// 02/04/0B: target port in standby state.
    Standby,
    /// 02/04/0C: target port in unavailable state.
    Unavailable,
    /// 02/04/12: offline.
    Offline,
}

impl Refusal {
    /// The additional sense code and its qualifier.
    pub const fn asc_ascq(self) -> (u8, u8) {
        match self {
            Self::Transition => (0x04, 0x0a),
            Self::Standby => (0x04, 0x0b),
            Self::Unavailable => (0x04, 0x0c),
            Self::Offline => (0x04, 0x12),
        }
    }
}

/// The verdict on a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// Carry it out.
    Admit,
    /// Not through this port group in its state.
    Refuse(Refusal),
}

/// Whether a group in `state` takes a command of `class`.
pub const fn admit(class: CommandClass, state: AccessState) -> Admission {
    use AccessState as S;
    use CommandClass as C;
    match (state, class) {
        (S::ActiveOptimized | S::ActiveNonOptimized, _)
        | (_, C::Identify)
        | (S::Standby, C::SetGroups | C::Manage)
        | (S::Unavailable | S::Offline, C::SetGroups) => Admission::Admit,
        (S::Standby, C::Medium) => Admission::Refuse(Refusal::Standby),
        (S::Unavailable, C::Manage | C::Medium) => Admission::Refuse(Refusal::Unavailable),
        (S::Offline, C::Manage | C::Medium) => Admission::Refuse(Refusal::Offline),
        (S::Transitioning, C::SetGroups | C::Manage | C::Medium) => Admission::Refuse(Refusal::Transition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table, written out: rows are states, columns the classes in the order of [`CommandClass::ALL`].
    #[test]
    fn admission_table_over_all_states() {
        const OK: Option<(u8, u8)> = None;
        const NO_TRANSITION: Option<(u8, u8)> = Some((0x04, 0x0a));
        const NO_STANDBY: Option<(u8, u8)> = Some((0x04, 0x0b));
        const NO_UNAVAILABLE: Option<(u8, u8)> = Some((0x04, 0x0c));
        const NO_OFFLINE: Option<(u8, u8)> = Some((0x04, 0x12));
        let table = [
            (AccessState::ActiveOptimized, [OK, OK, OK, OK]),
            (AccessState::ActiveNonOptimized, [OK, OK, OK, OK]),
            (AccessState::Standby, [OK, OK, OK, NO_STANDBY]),
            (AccessState::Unavailable, [OK, OK, NO_UNAVAILABLE, NO_UNAVAILABLE]),
            (AccessState::Offline, [OK, OK, NO_OFFLINE, NO_OFFLINE]),
            (
                AccessState::Transitioning,
                [OK, NO_TRANSITION, NO_TRANSITION, NO_TRANSITION],
            ),
        ];
        assert_eq!(table.map(|row| row.0), AccessState::ALL);
        for (state, row) in table {
            for (class, wanted) in CommandClass::ALL.into_iter().zip(row) {
                let found = match admit(class, state) {
                    Admission::Admit => None,
                    Admission::Refuse(refusal) => Some(refusal.asc_ascq()),
                };
                assert_eq!(found, wanted, "{class:?} in {state}");
            }
        }
    }
}
