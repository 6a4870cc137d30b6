//! `holdfast`: a highly available iSCSI target out of two or more Linux machines. One binary: node, demo and command line.
//!
//! Here sockets, disks and clocks are wired to the crates that decide; what a rule says lives in them.

mod admin;
mod chaos;
mod check;
mod cli;
mod config;
mod configuration;
mod demo;
mod events;
mod front;
mod image;
mod injected;
mod isns;
mod line_files;
mod live;
mod metrics;
mod rest;
mod runtime;
mod socket;
mod status;
mod watchers;

/// In a build for tests of what notices: breaks the rule that is named.
#[cfg(feature = "faults")]
fn break_a_rule() {
    let Ok(name) = std::env::var("HOLDFAST_BROKEN") else {
        return;
    };
    let is_known = holdfast_raft::fault::everywhere(&name)
        || holdfast_replication::fault::everywhere(&name)
        || holdfast_scsi::fault::everywhere(&name);
    assert!(is_known, "HOLDFAST_BROKEN names no rule: {name}");
}

fn main() -> std::process::ExitCode {
    #[cfg(feature = "faults")]
    break_a_rule();
    cli::main()
}
