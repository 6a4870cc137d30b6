//! What a logical unit is beyond its blocks: persistent reservations (SPC-4, 5.12), the reservation of SPC-2, mode parameters, resets.
//!
//! All of it is cluster state (I9, I13): [`UnitState`] lies in the replicated state machine, and [`UnitState::apply`] is a pure function,
//! so every node holds the same table. A refused change changes nothing (I12).
//!
//! | file | what it holds |
//! |---|---|
//! | `table` | registrations, the reservation, and every service action of PERSISTENT RESERVE OUT |
//! | `state` | the unit as a whole: versions, the reservation of SPC-2, resets, mode parameters |
//! | `identifying` | what hosts wrote onto the unit for their operators |
//! | `sanitize` | a SANITIZE that is under way, or failed |
//! | `notices` | which nexus is to be told what (P3) |
//! | `rule` | whether a reservation stands in a command's way |
//! | `out`, `report`, `transport` | parameter lists in, parameter data out, TransportIDs |

mod identifying;
mod notices;
mod out;
mod report;
mod rule;
mod sanitize;
mod state;
mod table;
mod transport;

#[cfg(test)]
mod state_test;
#[cfg(test)]
mod table_test;

pub use identifying::{Identifying, IdentifyingType};
pub use notices::NexusNotices;
pub use out::PersistentOut;
pub use report::PersistentIn;
pub use rule::Conflict;
pub use sanitize::{Sanitize, SanitizeMethod, SanitizeOrder, Sanitizing};
pub use state::{Holder, ModeValues, UnitChange, UnitOutcome, UnitState};
pub use table::{Held, Registration, ReservationType, Reservations, ServiceAction};

pub(crate) use out::{data_length, read};
pub(crate) use sanitize::PASSES_MAX;
