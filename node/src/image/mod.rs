//! Images of disks: which ones are taken, how they are read, and what of an extent differs from one.

mod difference;
mod format;
mod source;

pub(crate) use difference::differences;
pub(crate) use source::Source;
