//! Asymmetric logical unit access (SPC-4): which port group is how good a way to a logical unit.
//!
//! Everything here is a pure function of committed cluster state, so that every node tells an initiator the same:
//! - [`derive()`] turns what is committed about a logical unit into its port groups and their states;
//! - [`Tracked`] counts the changes, so that a nexus hears of them once, by difference (P3);
//! - [`admit`] says which commands a state lets through, and with which sense data it refuses the others;
//! - [`rtpg`] and [`stpg`] read and write the parameter data of REPORT and SET TARGET PORT GROUPS.

mod admit;
mod derive;
pub mod rtpg;
#[cfg(test)]
mod seeded;
mod state;
pub mod stpg;

pub use admit::{Admission, CommandClass, Refusal, admit};
pub use derive::{HomeGroup, LuInputs, SecondaryAccess, Tracked, derive};
pub use state::{AccessState, ParseStateError, PortGroup};

/// How long a change of states may take, in seconds, as the extended header of REPORT TARGET PORT GROUPS says (SPC-4: IMPLICIT
/// TRANSITION TIME). Linux waits this long before it gives a transitioning group up; without a value it waits 60 s or 255 s. Failover is
/// far below it, so the value is a bound for broken days, not an estimate.
pub const IMPLICIT_TRANSITION_SECONDS: u8 = 20;
