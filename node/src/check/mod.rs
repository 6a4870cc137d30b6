//! `holdfast cluster check`, and what a node looks at before it joins: clocks, ways between nodes, disks, hosts. Measuring is here, in
//! [`look`], [`way`] and [`disk`]; what a measurement means is said in [`mod@judge`], which measures nothing.

mod disk;
mod document;
mod doorstep;
mod echo;
mod join;
mod judge;
mod ladder;
mod look;
mod way;

pub(crate) use document::CheckDocument;
pub(crate) use join::before_joining;
pub(crate) use judge::{Evidence, judge};
pub(crate) use look::Looker;
