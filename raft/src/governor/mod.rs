//! Who is suspected, who takes over, who is cleared, who leads (L3, L4, L6).

mod chores;
mod members;
mod placement;
mod policy;
mod seat;

pub use members::MemberStep;
pub use placement::{Placement, PlacementInput};
pub use policy::{Governor, GovernorInput, Proposal, RaftView};

#[cfg(test)]
mod policy_test;
#[cfg(test)]
mod seat_test;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod sim_test;
