//! The stages of a command and how it ends.

use bytes::Bytes;
use holdfast_types::{BlockOp, OpOutcome};

use crate::reservation::{PersistentIn, SanitizeOrder, UnitChange};
use crate::unit::provision::lba_status;
use crate::unit::{DataUse, use_data};
use crate::{CopyJob, LuView, Sense};

/// Status codes (SAM-5, 5.3): those that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// 00h.
    Good,
    /// 02h; sense data comes with it.
    CheckCondition,
    /// 04h.
    ConditionMet,
    /// 08h.
    Busy,
    /// 18h.
    ReservationConflict,
    /// 28h.
    TaskSetFull,
}

impl Status {
    /// The byte of the response.
    pub const fn code(self) -> u8 {
        match self {
            Self::Good => 0x00,
            Self::CheckCondition => 0x02,
            Self::ConditionMet => 0x04,
            Self::Busy => 0x08,
            Self::ReservationConflict => 0x18,
            Self::TaskSetFull => 0x28,
        }
    }
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// With CHECK CONDITION: why.
    pub sense: Option<Sense>,
    /// Data for the initiator, cut to the allocation length of the CDB but not to what the transport expects: what is beyond that is the
    /// transport's residual (overflow).
    pub data: Bytes,
    /// Bytes of data that the CDB wanted from the initiator; set where fewer were announced, so that the transport can count the
    /// overflow. 0 otherwise: where data was taken, its length is the one that [`Step::NeedData`] named.
    pub data_out_wanted: u64,
}

impl Response {
    const fn of(status: Status) -> Self {
        Self {
            status,
            sense: None,
            data: Bytes::new(),
            data_out_wanted: 0,
        }
    }

    /// GOOD, no data.
    pub const fn good() -> Self {
        Self::of(Status::Good)
    }

    /// GOOD with data, cut to `allocation` bytes.
    pub fn data(data: impl Into<Bytes>, allocation: usize) -> Self {
        let mut data = data.into();
        data.truncate(allocation);
        Self { data, ..Self::good() }
    }

    /// CHECK CONDITION.
    pub const fn check(sense: Sense) -> Self {
        let mut response = Self::of(Status::CheckCondition);
        response.sense = Some(sense);
        response
    }

    /// 02/04/0A: for a command that was held as long as allowed ([`Step::Hold`]) while an epoch change is under way, with quorum (I8).
    pub const fn transitioning() -> Self {
        Self::check(Sense::TRANSITIONING)
    }

    /// BUSY.
    pub const fn busy() -> Self {
        Self::of(Status::Busy)
    }

    /// TASK SET FULL: too many commands at once.
    pub const fn task_set_full() -> Self {
        Self::of(Status::TaskSetFull)
    }

    /// RESERVATION CONFLICT.
    pub const fn reservation_conflict() -> Self {
        Self::of(Status::ReservationConflict)
    }
}

/// What to do next for a command.
#[derive(Debug)]
pub enum Step {
    /// Answer it.
    Done(Response),
    /// The port group is transitioning: keep the command, for the hold limit at most (I8, I11), and start it again when the view has
    /// changed. When the limit is over, [`Response::transitioning`] with quorum, else a reset. It has had no effect.
    Hold,
    /// Get this many bytes from the initiator (never 0, never more than it announced), then go on.
    NeedData {
        /// How many.
        bytes: u32,
        /// What goes on.
        then: Pending,
    },
    /// It is about the unit's committed state: have the cluster change or confirm that, then answer.
    Unit(UnitRequest),
    /// Have storage carry it out, then go on with [`finish`].
    Storage(Storage),
    /// Many operations, one after the other ([`CopyJob::begin`]).
    Copy(CopyJob),
}

impl Step {
    /// Answers with CHECK CONDITION.
    pub const fn check(sense: Sense) -> Self {
        Self::Done(Response::check(sense))
    }
}

/// A command that waits for its data. Its CDB was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub(crate) bytes: u32,
    pub(crate) purpose: DataUse,
}

impl Pending {
    /// Goes on with exactly the bytes that were asked for; with another number the command ends in 05/0E/03 and nothing is changed.
    pub fn with_data(self, view: &LuView<'_>, data: Bytes) -> Step {
        if data.len() != self.bytes as usize {
            return Step::check(Sense::INVALID_FIELD_IN_INFORMATION_UNIT);
        }
        use_data(self.purpose, view, data).unwrap_or_else(Step::check)
    }
}

/// What a command wants of the cluster's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitRequest {
    /// Change the unit's state by commit. Answered with [`crate::reservation::UnitOutcome::response`], GOOD only after the unit's primary
    /// has applied it (P2).
    Change(UnitChange),
    /// SANITIZE: a change as well, after which the medium is gone through. Answered at once (IMMED), or when that has ended.
    Sanitize {
        /// What to do.
        order: SanitizeOrder,
        /// IMMED.
        immediate: bool,
    },
    /// PERSISTENT RESERVE IN: answered by [`PersistentIn::answer`] from a state that holds all that was committed before (P2).
    Report {
        /// Which report.
        action: PersistentIn,
        /// The CDB's allocation length.
        allocation: usize,
    },
}

/// A storage operation and what its outcome means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// The operation; it lies within the extent ([`BlockOp::check`]).
    pub op: BlockOp,
    /// Hand it to [`finish`] with the outcome.
    pub finish: Finish,
}

impl Storage {
    pub(crate) const fn step(op: BlockOp, finish: Finish) -> Step {
        Step::Storage(Self { op, finish })
    }
}

/// What the outcome of an operation means to the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// Status alone.
    Status,
    /// The same for a write of which the transport announced fewer blocks than the CDB names: GOOD for those that came, and the rest is
    /// the transport's residual (overflow).
    StatusOf {
        /// Bytes that the CDB names.
        wanted: u64,
    },
    /// The blocks that were read.
    DataIn,
    /// LBA status descriptors.
    Map {
        /// How many bytes of data the CDB allows for.
        allocation: u32,
    },
    /// Status alone, or a miscompare.
    Compare,
}

/// How a command that went to storage ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// Answer it.
    Response(Response),
    /// Answer nothing and reset the initiator's connection: it tries again on another path (I8, I11).
    ResetConnection,
    /// Answer nothing: task management ended the command.
    NoResponse,
}

/// Turns an outcome into an answer. An outcome that does not belong to the operation is a fault of ours, so it resets the connection: an
/// initiator never sees an error for that (I8).
pub fn finish(finish: Finish, outcome: OpOutcome) -> Finished {
    let response = match (finish, outcome) {
        (Finish::Status | Finish::Compare, OpOutcome::Done) => Response::good(),
        (Finish::StatusOf { wanted }, OpOutcome::Done) => Response {
            data_out_wanted: wanted,
            ..Response::good()
        },
        (Finish::Map { allocation }, OpOutcome::Map(runs)) => lba_status(&runs, allocation),
        (Finish::DataIn, OpOutcome::Data(data)) => Response {
            data,
            ..Response::good()
        },
        (Finish::Compare, OpOutcome::Miscompare { offset }) => {
            Response::check(Sense::miscompare(u64::from(offset)))
        }
        (_, OpOutcome::Unreadable { lba }) => Response::check(Sense::unreadable(lba.0)),
        (_, OpOutcome::ReservationConflict) => Response::reservation_conflict(),
        (_, OpOutcome::NoSpace) => Response::check(Sense::SPACE_ALLOCATION_FAILED),
        (_, OpOutcome::Transitioning) => Response::transitioning(),
        (_, OpOutcome::Standby) => Response::check(Sense::STANDBY),
        (_, OpOutcome::Aborted) => return Finished::NoResponse,
        (
            _,
            OpOutcome::Reset
            | OpOutcome::Done
            | OpOutcome::Data(_)
            | OpOutcome::Map(_)
            | OpOutcome::Miscompare { .. },
        ) => return Finished::ResetConnection,
    };
    Finished::Response(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sense(finished: Finished) -> String {
        match finished {
            Finished::Response(response) => response
                .sense
                .map_or_else(|| "good".into(), |sense| sense.to_string()),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn i8_every_outcome_has_its_answer() {
        let data = || OpOutcome::Data(Bytes::from_static(b"x"));
        let differs = OpOutcome::Miscompare { offset: 3 };
        assert_eq!(sense(finish(Finish::Status, OpOutcome::Done)), "good");
        assert_eq!(sense(finish(Finish::Compare, differs.clone())), "0E/1D/00");
        assert_eq!(sense(finish(Finish::Status, OpOutcome::NoSpace)), "07/27/07");
        assert_eq!(
            sense(finish(Finish::DataIn, OpOutcome::Transitioning)),
            "02/04/0A"
        );
        assert_eq!(sense(finish(Finish::Status, OpOutcome::Standby)), "02/04/0B");
        assert_eq!(sense(finish(Finish::DataIn, OpOutcome::Reset)), "ResetConnection");
        assert_eq!(sense(finish(Finish::DataIn, OpOutcome::Aborted)), "NoResponse");
        // Outcomes that do not belong to the operation.
        assert_eq!(sense(finish(Finish::DataIn, OpOutcome::Done)), "ResetConnection");
        assert_eq!(sense(finish(Finish::Status, data())), "ResetConnection");
        assert_eq!(sense(finish(Finish::Status, differs)), "ResetConnection");
        let Finished::Response(read) = finish(Finish::DataIn, data()) else {
            panic!("no response");
        };
        assert_eq!(read.data, Bytes::from_static(b"x"));
    }
}
