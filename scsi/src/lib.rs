//! What an initiator sees as a logical unit: command descriptor blocks in, status, sense and data out (SAM-5, SPC-4, SBC-3).
//!
//! Pure code: bytes and values in, bytes and values out. A command runs in stages, since iSCSI asks for data only once the CDB was
//! found good and since storage may be on another node:
//!
//! ```text
//! start(cdb, view, nexus) ──► Done(response)
//!                        ──► Hold: the group is transitioning; start again, or answer Response::transitioning()
//!                        ──► NeedData{bytes} ── with_data(view, data) ──► Done | Storage | Unit | Copy
//!                        ──► Unit(request): the cluster's state is changed or confirmed, then the answer is made
//!                        ──► Storage{op, finish} ── outcome ── finish() ──► Response | ResetConnection | NoResponse
//! ```
//!
//! One table (`table`) says which commands there are. Dispatch, admission by access state, write protection and REPORT SUPPORTED
//! OPERATION CODES all read it, so they cannot disagree. What is not in it gets 05/20/00.

mod absent;
mod cdb;
mod copy;
pub mod fault;
#[cfg(test)]
mod fixture;
mod nexus;
pub mod reservation;
#[cfg(test)]
mod scan_test;
#[cfg(test)]
mod seeded;
mod sense;
mod start;
mod step;
mod table;
mod unit;
mod view;
mod well_known;

pub use absent::start_absent;
pub use copy::{CopyId, CopyJob, CopyResult, CopySegment, CopyStep};
pub use nexus::{Counters, NexusLu, UnitAttention};
pub use sense::{AdditionalSense, FieldPointer, Sense, SenseKey, asc};
pub use start::start;
pub use step::{Finish, Finished, Pending, Response, Status, Step, Storage, UnitRequest, finish};
pub use table::{CommandInfo, command_of, commands};
pub use unit::block::verified_blocks;
pub use unit::vpd::vpd_pages;
pub use view::{LuView, Unit};
pub use well_known::{REPORT_LUNS_UNIT, WellKnown, start_well_known};
