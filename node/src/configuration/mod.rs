//! The configuration of a cluster as one TOML document: what `holdfast export` writes and `holdfast apply` carries out.
//!
//! Everything here is pure. [`Present`] is what a node answered; [`read`] makes a [`Configuration`] of a text; [`plan()`] says which
//! requests lead from the one to the other. Files, terminals and nodes are the matter of `cli/configuration.rs`.

mod call;
mod check;
mod document;
mod import;
mod plan;
mod plan_access;
mod plan_extents;
mod plan_luns;
mod present;
mod write;

#[cfg(test)]
mod plan_test;
#[cfg(test)]
mod prop_test;
#[cfg(test)]
pub(crate) mod rig;

pub(crate) use call::{Call, SecretPlace};
pub(crate) use document::{Configuration, read};
pub(crate) use import::{lio, scst};
pub(crate) use plan::{Difference, Plan, plan};
pub(crate) use present::Present;
