//! A logical unit's state beyond its blocks, and the changes of it.

use holdfast_types::{BlockSize, Nexus, NodeId, TpgId, UnitVersion};
use serde::{Deserialize, Serialize};

use super::identifying::{Identifying, IdentifyingType};
use super::notices::{NexusNotices, Notices};
use super::out::PersistentOut;
use super::sanitize::{Sanitize, SanitizeOrder, Sanitizing};
use super::table::{Reservations, Scene};
use crate::sense::{AdditionalSense, SenseKey, asc};
use crate::{Response, Sense};

/// Who holds the reservation of SPC-2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The nexus.
    pub nexus: Nexus,
    /// The node that it is logged in to: when that node is given up, the nexus is lost, and the reservation with it.
    pub node: NodeId,
}

/// Mode parameters that initiators can change. They act on the unit, through every node (I13).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeValues {
    /// SWP of the control mode page: the medium is write protected.
    #[serde(default)]
    pub software_write_protect: bool,
}

/// When something was changed, and by whom: who changed it need not hear of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Changes {
    last: UnitVersion,
    by: Option<Nexus>,
    /// The newest change by anybody but `by`.
    others: UnitVersion,
}

/// The state of a logical unit beyond its blocks, as committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// Raised by every change.
    pub version: UnitVersion,
    /// Persistent reservations.
    #[serde(default)]
    pub reservations: Reservations,
    /// The reservation of SPC-2 (RESERVE, RELEASE).
    #[serde(default)]
    pub legacy: Option<Holder>,
    /// Mode parameters.
    #[serde(default)]
    pub modes: ModeValues,
    /// Those that were saved: what a reset goes back to.
    #[serde(default)]
    pub saved_modes: ModeValues,
    /// The version that the last reset of the unit, or CLEAR TASK SET, made: tasks admitted under an older one are gone.
    #[serde(default)]
    pub cleared: UnitVersion,
    /// LOGICAL UNIT RESETs and target resets.
    #[serde(default)]
    pub resets: u64,
    #[serde(default)]
    mode_changes: Changes,
    /// What hosts wrote onto the unit.
    #[serde(default)]
    pub identifying: Identifying,
    #[serde(default)]
    identity_changes: Changes,
    /// How many milliseconds SET TIMESTAMP has put the unit's clock ahead of the calendar; `None` while nobody has.
    #[serde(default)]
    pub clock_ahead: Option<i64>,
    #[serde(default)]
    clock_changes: Changes,
    /// A SANITIZE that is under way, or failed.
    #[serde(default)]
    pub sanitize: Sanitize,
    #[serde(default)]
    pub(super) notices: Notices,
}

/// A change of a unit's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitChange {
    /// PERSISTENT RESERVE OUT.
    Persistent(PersistentOut),
    /// RESERVE(6), RESERVE(10).
    Reserve {
        /// Where the nexus is logged in.
        node: NodeId,
    },
    /// RELEASE(6), RELEASE(10).
    Release,
    /// The nexus is no more: its session has ended.
    NexusLost,
    /// LOGICAL UNIT RESET, and what a target reset does to each unit.
    Reset,
    /// CLEAR TASK SET.
    ClearTasks,
    /// MODE SELECT.
    Mode(ModeValues),
    /// MODE SELECT with SP=1.
    SaveMode(ModeValues),
    /// SET IDENTIFYING INFORMATION.
    Identify {
        /// Which.
        kind: IdentifyingType,
        /// What it is from now on ([`IdentifyingType::takes`]).
        info: Vec<u8>,
    },
    /// SET TIMESTAMP.
    SetClock {
        /// Milliseconds from the calendar to what the unit's clock is to be at the same moment.
        ahead: i64,
    },
    /// An administrator clears all reservations.
    ClearReservations,
    /// SANITIZE: OVERWRITE, BLOCK ERASE.
    Sanitize(SanitizeOrder),
    /// How far the primary is with the SANITIZE of that name.
    SanitizeProgress {
        /// [`Sanitizing::begun`].
        begun: UnitVersion,
        /// The pass under way.
        pass: u8,
        /// Blocks that it is through with.
        done: u64,
    },
    /// The SANITIZE of that name has ended.
    SanitizeOver {
        /// [`Sanitizing::begun`].
        begun: UnitVersion,
        /// It could not be carried out.
        failed: bool,
    },
    /// SANITIZE: EXIT FAILURE MODE.
    SanitizeExit,
}

impl UnitChange {
    /// Whether an initiator wants something new of the unit, which has to wait for the end of a SANITIZE. What only takes away does not.
    const fn is_wish(&self) -> bool {
        match self {
            Self::Persistent(_)
            | Self::Reserve { .. }
            | Self::Mode(_)
            | Self::SaveMode(_)
            | Self::Identify { .. }
            | Self::SetClock { .. }
            | Self::Sanitize(_)
            | Self::SanitizeExit => true,
            Self::Release
            | Self::NexusLost
            | Self::Reset
            | Self::ClearTasks
            | Self::ClearReservations
            | Self::SanitizeProgress { .. }
            | Self::SanitizeOver { .. } => false,
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitOutcome {
    /// GOOD.
    Good,
    /// RESERVATION CONFLICT.
    Conflict,
    /// 05/24/00 at a byte of the CDB.
    InvalidCdb {
        /// Which.
        byte: u16,
    },
    /// 05/26/00 at a byte of the parameter list.
    InvalidParameter {
        /// Which.
        byte: u16,
    },
    /// 05/26/04, INVALID RELEASE OF PERSISTENT RESERVATION.
    InvalidRelease,
    /// 05/55/04, INSUFFICIENT REGISTRATION RESOURCES.
    NoRegistrationResources,
    /// 02/04/1B: a SANITIZE is under way.
    Sanitizing,
}

impl UnitOutcome {
    /// The answer to the command that asked for the change.
    pub const fn response(self) -> Response {
        const fn illegal(code: AdditionalSense) -> Response {
            Response::check(Sense::new(SenseKey::IllegalRequest, code))
        }
        match self {
            Self::Good => Response::good(),
            Self::Conflict => Response::reservation_conflict(),
            Self::InvalidCdb { byte } => Response::check(Sense::cdb_byte(byte)),
            Self::InvalidParameter { byte } => Response::check(Sense::parameter_byte(byte)),
            Self::InvalidRelease => illegal(asc::INVALID_RELEASE),
            Self::NoRegistrationResources => illegal(asc::NO_REGISTRATION_RESOURCES),
            Self::Sanitizing => Response::check(Sense::sanitizing(0)),
        }
    }
}

impl UnitState {
    /// Carries a change out. `by` asks for it (not looked at where an administrator does), `ports` are all target ports of the unit.
    /// Anything but [`UnitOutcome::Good`] has changed nothing (I12).
    pub fn apply(&mut self, by: &Nexus, change: &UnitChange, ports: &[TpgId]) -> UnitOutcome {
        let mut next = self.clone();
        let outcome = next.change(by, change, ports);
        if outcome == UnitOutcome::Good && next != *self {
            next.version = next.version.next();
            *self = next;
        }
        outcome
    }

    fn change(&mut self, by: &Nexus, change: &UnitChange, ports: &[TpgId]) -> UnitOutcome {
        let version = self.version.next();
        match change {
            wish if wish.is_wish() && self.sanitize.running().is_some() => UnitOutcome::Sanitizing,
            UnitChange::Persistent(_) if self.legacy.is_some() => UnitOutcome::Conflict,
            UnitChange::Persistent(out) => {
                let mut scene = Scene {
                    by,
                    version,
                    ports,
                    notices: &mut self.notices,
                };
                self.reservations.apply(out, &mut scene)
            }
            UnitChange::Reserve { node } => self.reserve(by, *node),
            UnitChange::Release => self.release(by),
            UnitChange::NexusLost => {
                self.release_legacy(by);
                UnitOutcome::Good
            }
            UnitChange::Reset => {
                // Persistent reservations outlive a reset (SPC-4, 5.12.5), RESERVE does not (SPC-2, 5.5.1).
                self.cleared = version;
                self.start_anew();
                UnitOutcome::Good
            }
            UnitChange::ClearTasks => {
                self.cleared = version;
                UnitOutcome::Good
            }
            UnitChange::Mode(_) | UnitChange::SaveMode(_) if self.refuses(super::Conflict::Write, by) => {
                UnitOutcome::Conflict
            }
            UnitChange::Mode(values) | UnitChange::SaveMode(values) => {
                if matches!(change, UnitChange::SaveMode(_)) {
                    self.saved_modes = *values;
                }
                if *values != self.modes {
                    self.modes = *values;
                    self.mode_changes.note(by, version);
                }
                UnitOutcome::Good
            }
            UnitChange::Identify { kind, info } => self.identify(by, *kind, info),
            UnitChange::SetClock { .. } if self.refuses(super::Conflict::Write, by) => UnitOutcome::Conflict,
            UnitChange::SetClock { ahead } => {
                self.clock_ahead = Some(*ahead);
                self.clock_changes.note(by, version);
                UnitOutcome::Good
            }
            UnitChange::ClearReservations => {
                if !self.reservations.is_empty() {
                    self.reservations.clear_all(version, &mut self.notices);
                }
                self.legacy = None;
                UnitOutcome::Good
            }
            UnitChange::Sanitize(order) => self.sanitize(by, order),
            UnitChange::SanitizeProgress { begun, pass, done } => {
                self.sanitize.advance(*begun, *pass, *done);
                UnitOutcome::Good
            }
            UnitChange::SanitizeOver { begun, failed } => {
                self.sanitize.end(*begun, *failed);
                UnitOutcome::Good
            }
            UnitChange::SanitizeExit => self.exit_failure_mode(by),
        }
    }

    /// Everything that was admitted before has ended: it must not write behind what is wiped already.
    fn sanitize(&mut self, by: &Nexus, order: &SanitizeOrder) -> UnitOutcome {
        if self.refuses(super::Conflict::Write, by) {
            return UnitOutcome::Conflict;
        }
        if !order.method.is_valid(BlockSize::B4096) {
            return UnitOutcome::InvalidParameter { byte: 0 };
        }
        self.cleared = self.version.next();
        self.sanitize = Sanitize::Running(Sanitizing {
            order: order.clone(),
            by: by.clone(),
            begun: self.cleared,
            pass: 0,
            done: 0,
        });
        UnitOutcome::Good
    }

    fn exit_failure_mode(&mut self, by: &Nexus) -> UnitOutcome {
        if self.refuses(super::Conflict::Write, by) {
            return UnitOutcome::Conflict;
        }
        match self.sanitize {
            Sanitize::Failed {
                unrestricted_exit: false,
            } => UnitOutcome::InvalidCdb { byte: 1 },
            _ => {
                self.sanitize = Sanitize::Idle;
                UnitOutcome::Good
            }
        }
    }

    fn identify(&mut self, by: &Nexus, kind: IdentifyingType, info: &[u8]) -> UnitOutcome {
        if self.refuses(super::Conflict::Write, by) {
            return UnitOutcome::Conflict;
        }
        if !kind.takes(info) {
            return UnitOutcome::InvalidParameter { byte: 0 };
        }
        if self.identifying.set(kind, info) {
            self.identity_changes.note(by, self.version.next());
        }
        UnitOutcome::Good
    }

    /// SPC-2, with the compatibility of SPC-4 (CRH=1): where a persistent reservation gives the nexus access anyway, GOOD and nothing
    /// else.
    fn reserve(&mut self, by: &Nexus, node: NodeId) -> UnitOutcome {
        if !self.reservations.is_empty() {
            return self.beside_persistent(by);
        }
        match &self.legacy {
            Some(holder) if holder.nexus != *by => UnitOutcome::Conflict,
            _ => {
                let nexus = by.clone();
                self.legacy = Some(Holder { nexus, node });
                UnitOutcome::Good
            }
        }
    }

    /// RELEASE by another one than the holder is GOOD and does nothing.
    fn release(&mut self, by: &Nexus) -> UnitOutcome {
        if !self.reservations.is_empty() {
            return self.beside_persistent(by);
        }
        self.release_legacy(by);
        UnitOutcome::Good
    }

    fn beside_persistent(&self, by: &Nexus) -> UnitOutcome {
        if self.reservations.held().is_some() && self.reservations.may_access(by) {
            UnitOutcome::Good
        } else {
            UnitOutcome::Conflict
        }
    }

    fn release_legacy(&mut self, by: &Nexus) {
        if self.legacy.as_ref().is_some_and(|holder| holder.nexus == *by) {
            self.legacy = None;
        }
    }

    /// Mode parameters that are not kept here were set by an administrator, which is news to every nexus (P3). The version from here on.
    pub fn mode_parameters_set(&mut self) -> UnitVersion {
        self.version = self.version.next();
        self.mode_changes = Changes {
            last: self.version,
            by: None,
            others: self.version,
        };
        self.version
    }

    /// Writes that were answered may be gone with the memory that had them (W5): as after a loss of power, every nexus hears of a reset,
    /// and what was admitted before ends.
    pub fn memory_lost(&mut self) {
        self.version = self.version.next();
        self.cleared = self.version;
        self.start_anew();
    }

    /// What a reset, or a loss of power, does beside ending tasks: every nexus hears of it, RESERVE is over, and mode parameters are again
    /// what was saved.
    fn start_anew(&mut self) {
        self.resets += 1;
        self.legacy = None;
        self.modes = self.saved_modes;
    }

    /// The nexuses of a node are lost with it. Whether that changed anything.
    pub fn node_lost(&mut self, node: NodeId) -> bool {
        let lost = self.legacy.as_ref().is_some_and(|holder| holder.node == node);
        if lost {
            self.legacy = None;
            self.version = self.version.next();
        }
        lost
    }

    /// What `nexus` has to be told.
    pub fn notices(&self, nexus: &Nexus) -> NexusNotices {
        self.notices.of(nexus)
    }

    /// The newest change of mode parameters by anybody but `nexus`.
    pub fn modes_changed_for(&self, nexus: &Nexus) -> UnitVersion {
        self.mode_changes.news_for(nexus)
    }

    /// The newest change of identifying information by anybody but `nexus`.
    pub fn identified_for(&self, nexus: &Nexus) -> UnitVersion {
        self.identity_changes.news_for(nexus)
    }

    /// The newest time at which anybody but `nexus` set the unit's clock.
    pub fn clock_set_for(&self, nexus: &Nexus) -> UnitVersion {
        self.clock_changes.news_for(nexus)
    }
}

impl Changes {
    /// The newest one that is news to `nexus`.
    fn news_for(&self, nexus: &Nexus) -> UnitVersion {
        if self.by.as_ref() == Some(nexus) {
            self.others
        } else {
            self.last
        }
    }

    fn note(&mut self, by: &Nexus, version: UnitVersion) {
        if self.by.as_ref() != Some(by) {
            self.others = self.last;
            self.by = Some(by.clone());
        }
        self.last = version;
    }
}
