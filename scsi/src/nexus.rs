//! Unit attentions of one I_T_L nexus (SAM-5, 5.14), raised by difference (P3).

use holdfast_types::UnitVersion;

use crate::fault::{self, Fault};
use crate::reservation::NexusNotices;
use crate::sense::{AdditionalSense, SenseKey, asc};
use crate::{CopyId, CopyResult, Sense};

/// A condition that an initiator must hear of once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum UnitAttention {
    /// 06/29/00: a new session, or the unit started anew.
    PowerOn,
    /// 06/29/03: LOGICAL UNIT RESET.
    Reset,
    /// 06/2F/00: another initiator cleared the task set.
    CommandsCleared,
    /// 06/2A/03.
    ReservationsPreempted,
    /// 06/2A/04.
    ReservationsReleased,
    /// 06/2A/05.
    RegistrationsPreempted,
    /// 06/2A/09.
    CapacityChanged,
    /// 06/2A/06.
    AccessStateChanged,
    /// 06/2A/01.
    ModeChanged,
    /// 06/2A/10.
    TimestampChanged,
    /// 06/3F/05.
    IdentifierChanged,
    /// 06/3F/0E.
    LunsChanged,
}

impl UnitAttention {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 12] = [
        Self::PowerOn,
        Self::Reset,
        Self::CommandsCleared,
        Self::ReservationsPreempted,
        Self::ReservationsReleased,
        Self::RegistrationsPreempted,
        Self::CapacityChanged,
        Self::AccessStateChanged,
        Self::ModeChanged,
        Self::TimestampChanged,
        Self::IdentifierChanged,
        Self::LunsChanged,
    ];

    const fn code(self) -> AdditionalSense {
        match self {
            Self::PowerOn => asc::POWER_ON_OR_RESET,
            Self::Reset => asc::RESET_FUNCTION_OCCURRED,
            Self::CommandsCleared => asc::COMMANDS_CLEARED,
            Self::ReservationsPreempted => asc::RESERVATIONS_PREEMPTED,
            Self::ReservationsReleased => asc::RESERVATIONS_RELEASED,
            Self::RegistrationsPreempted => asc::REGISTRATIONS_PREEMPTED,
            Self::CapacityChanged => asc::CAPACITY_CHANGED,
            Self::AccessStateChanged => asc::ACCESS_STATE_CHANGED,
            Self::ModeChanged => asc::MODE_PARAMETERS_CHANGED,
            Self::TimestampChanged => asc::TIMESTAMP_CHANGED,
            Self::IdentifierChanged => asc::DEVICE_IDENTIFIER_CHANGED,
            Self::LunsChanged => asc::REPORTED_LUNS_CHANGED,
        }
    }

    /// The sense data that tells it.
    pub const fn sense(self) -> Sense {
        Sense::new(SenseKey::UnitAttention, self.code())
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// How often each thing that a nexus must hear of has changed: in cluster state, so that every node counts the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Port groups and their states (`holdfast_alua::Tracked::changes`).
    pub groups: u64,
    /// The unit's capacity.
    pub capacity: u64,
    /// The LUNs that the initiator sees.
    pub luns: u64,
    /// Which units the initiator may write to.
    pub mode: u64,
    /// Mode parameters, as changed by anybody but the nexus itself.
    pub modes: UnitVersion,
    /// Identifying information, likewise.
    pub identified: UnitVersion,
    /// The unit's clock, likewise.
    pub clock: UnitVersion,
    /// What became of the reservations and registrations of the nexus, by the hand of another one.
    pub notices: NexusNotices,
    /// LOGICAL UNIT RESETs carried out (I13: they act on the unit through every node).
    pub resets: u64,
}

/// What one I_T nexus has been told of one logical unit, and what it still has to hear. At most one unit attention of a kind is
/// pending, however often the thing changed: initiators take many in a row for a dead path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NexusLu {
    told: Counters,
    pending: u16,
    /// What became of the newest copies that the initiator may ask for.
    copies: [Option<CopyResult>; COPIES],
}

/// Copies whose results are remembered.
const COPIES: usize = 4;

impl NexusLu {
    /// For a new session, or a unit that is new in one: starts from the present state with 06/29/00 alone (P3).
    pub const fn new(present: Counters) -> Self {
        Self {
            told: present,
            pending: UnitAttention::PowerOn.bit(),
            copies: [None; COPIES],
        }
    }

    /// Takes in the applied state: a difference to what the nexus was told last makes a unit attention pending. [`crate::start`]
    /// does this itself.
    pub fn observe(&mut self, present: Counters) {
        let told = self.told;
        if told.groups != present.groups || fault::on(Fault::AttentionPerEntry) {
            self.raise(UnitAttention::AccessStateChanged);
        }
        if told.capacity != present.capacity {
            self.raise(UnitAttention::CapacityChanged);
        }
        if told.luns != present.luns {
            self.raise(UnitAttention::LunsChanged);
        }
        if told.mode != present.mode {
            self.raise(UnitAttention::ModeChanged);
        }
        // These name when something happened last to this very nexus, so only what is newer is news.
        if present.modes.0 > told.modes.0 {
            self.raise(UnitAttention::ModeChanged);
        }
        if present.identified.0 > told.identified.0 {
            self.raise(UnitAttention::IdentifierChanged);
        }
        if present.clock.0 > told.clock.0 {
            self.raise(UnitAttention::TimestampChanged);
        }
        if present.notices.reservations_preempted.0 > told.notices.reservations_preempted.0 {
            self.raise(UnitAttention::ReservationsPreempted);
        }
        if present.notices.reservations_released.0 > told.notices.reservations_released.0 {
            self.raise(UnitAttention::ReservationsReleased);
        }
        if present.notices.registrations_preempted.0 > told.notices.registrations_preempted.0 {
            self.raise(UnitAttention::RegistrationsPreempted);
        }
        if told.resets != present.resets {
            self.raise(UnitAttention::Reset);
        }
        self.told = present;
    }

    /// Remembers how far a copy is, in place of an older one of that name or of the oldest of all.
    pub fn remember_copy(&mut self, result: CopyResult) {
        let same = |known: &Option<CopyResult>| known.is_some_and(|known| known.id == result.id);
        let place = self.copies.iter().position(same).unwrap_or(COPIES - 1);
        self.copies[..=place].rotate_right(1);
        self.copies[0] = Some(result);
    }

    /// What became of the copy of that name.
    pub fn copy(&self, id: CopyId) -> Option<CopyResult> {
        self.copies.iter().flatten().find(|known| known.id == id).copied()
    }

    /// Makes one pending. POWER ON covers every other one (SAM-5, 5.14), so nothing is added to it.
    pub const fn raise(&mut self, attention: UnitAttention) {
        if matches!(attention, UnitAttention::PowerOn) {
            self.pending = 0;
        } else if self.pending & UnitAttention::PowerOn.bit() != 0 {
            return;
        }
        self.pending |= attention.bit();
    }

    /// The next one to tell; it is not pending any more.
    pub fn take(&mut self) -> Option<UnitAttention> {
        let next = UnitAttention::ALL
            .into_iter()
            .find(|attention| self.is_pending(*attention))?;
        self.pending &= !next.bit();
        Some(next)
    }

    /// Whether one is pending.
    pub const fn is_pending(&self, attention: UnitAttention) -> bool {
        self.pending & attention.bit() != 0
    }

    /// The initiator has read the LUN list: 06/3F/0E is no news any more (SPC-4). REPORT LUNS does this for the unit it is sent
    /// to; the session does it for its other units.
    pub const fn luns_reported(&mut self, present: Counters) {
        self.told.luns = present.luns;
        self.pending &= !UnitAttention::LunsChanged.bit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> NexusLu {
        let mut nexus = NexusLu::new(Counters::default());
        assert_eq!(nexus.take(), Some(UnitAttention::PowerOn));
        nexus
    }

    #[test]
    fn p3_a_new_session_hears_power_on_alone() {
        let present = Counters {
            groups: 7,
            capacity: 2,
            luns: 3,
            modes: UnitVersion(1),
            resets: 4,
            ..Counters::default()
        };
        let mut nexus = NexusLu::new(present);
        nexus.observe(present);
        assert_eq!(nexus.take(), Some(UnitAttention::PowerOn));
        assert_eq!(nexus.take(), None);
    }

    #[test]
    fn p3_many_changes_are_one_unit_attention_of_a_kind() {
        let mut nexus = started();
        for groups in 1..=10 {
            nexus.observe(Counters {
                groups,
                capacity: groups / 5,
                ..Counters::default()
            });
        }
        assert_eq!(nexus.take(), Some(UnitAttention::CapacityChanged));
        assert_eq!(nexus.take(), Some(UnitAttention::AccessStateChanged));
        assert_eq!(nexus.take(), None);
    }

    /// A nexus that has heard everything, and a state in which nothing of that has changed since.
    fn heard_again() -> Option<UnitAttention> {
        let mut nexus = started();
        let present = Counters {
            groups: 3,
            ..Counters::default()
        };
        nexus.observe(present);
        assert_eq!(nexus.take(), Some(UnitAttention::AccessStateChanged));
        nexus.observe(present);
        nexus.take()
    }

    #[test]
    fn p3_a_unit_attention_per_entry_is_noticed() {
        assert_eq!(heard_again(), None);
        let again = fault::with(Some(Fault::AttentionPerEntry), heard_again);
        assert_eq!(
            again,
            Some(UnitAttention::AccessStateChanged),
            "initiators hear old news"
        );
    }

    #[test]
    fn copies_are_remembered_newest_first() {
        let mut nexus = started();
        let result = |id, bytes| CopyResult {
            id: CopyId(id),
            status: None,
            segments: 0,
            bytes,
        };
        for id in 0..6 {
            nexus.remember_copy(result(id, 1));
        }
        nexus.remember_copy(result(3, 2));
        nexus.remember_copy(result(9, 1));
        let known: Vec<u32> = (0..10).filter(|id| nexus.copy(CopyId(*id)).is_some()).collect();
        assert_eq!(known, [3, 4, 5, 9]);
        assert_eq!(nexus.copy(CopyId(3)).map(|copy| copy.bytes), Some(2));
    }

    #[test]
    fn power_on_swallows_the_others() {
        let mut nexus = started();
        nexus.raise(UnitAttention::Reset);
        nexus.raise(UnitAttention::PowerOn);
        nexus.raise(UnitAttention::LunsChanged);
        assert_eq!(nexus.take(), Some(UnitAttention::PowerOn));
        assert_eq!(nexus.take(), None);
    }

    #[test]
    fn every_kind_is_told_once_with_its_code() {
        let codes = [
            (0x29, 0x00),
            (0x29, 0x03),
            (0x2f, 0x00),
            (0x2a, 0x03),
            (0x2a, 0x04),
            (0x2a, 0x05),
            (0x2a, 0x09),
            (0x2a, 0x06),
            (0x2a, 0x01),
            (0x2a, 0x10),
            (0x3f, 0x05),
            (0x3f, 0x0e),
        ];
        for (attention, code) in UnitAttention::ALL.into_iter().zip(codes) {
            let mut nexus = started();
            nexus.raise(attention);
            nexus.raise(attention);
            let sense = nexus.take().unwrap().sense();
            assert_eq!(
                (sense.key, sense.code),
                (SenseKey::UnitAttention, AdditionalSense(code.0, code.1))
            );
            assert_eq!(nexus.take(), None);
        }
    }
}
