//! Chaos: storms of failures, several at a time, drawn from a seed, on a cluster under a workload whose whole history is judged.
//!
//! A run is a row of storms. A storm's strikes begin and end each at their own time; after the last one everything is healed, and the
//! cluster must become whole and serve everybody again by itself before the next storm begins. [`Storms`] draws them, [`run`] carries
//! them out on a [`Ground`], [`Report`] is what came of it.

mod fault;
mod page;
mod report;
mod run;
mod storm;

pub use fault::{Fault, Place, Way};
pub use page::Seen;
pub use report::{Event, Report, StormReport};
pub use run::{Ground, Limits, Load, Plan, run};
pub use storm::{Storm, Storms, Strike};
