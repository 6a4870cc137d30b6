//! What the tests that look at Holdfast from outside share: the source tree as text, clusters of real processes, and the initiators
//! of other projects.

pub mod boot;
pub mod cluster;
pub mod fuzz;
pub mod guest;
pub mod history;
pub mod hosts;
pub mod identity;
pub mod kept;
pub mod lan;
pub mod machines;
pub mod nodes;
pub mod roots;
pub mod seed;
pub mod sim;
pub mod status;
pub mod suite;
pub mod tools;
pub mod tree;

use std::io::Write;

/// Writes a line to standard error past the test harness, which would hide it in a test that passes.
///
/// For what somebody reading the output must see: a part that is left out, or how far a long test has come.
pub fn say(line: &str) {
    // Nobody to tell when standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "    {line}");
}
