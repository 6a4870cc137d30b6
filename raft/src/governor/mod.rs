//! Who is suspected, who takes over, who is cleared, who leads (L3, L4, L6).

mod policy;

pub use policy::{Governor, GovernorInput, Proposal, RaftView};

#[cfg(test)]
mod policy_test;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod sim_test;
