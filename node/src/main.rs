//! `holdfast`: a highly available iSCSI target out of two or more Linux machines. One binary: node, demo and command line.
//!
//! Here sockets, disks and clocks are wired to the crates that decide; what a rule says lives in them.

mod admin;
mod cli;
mod config;
mod demo;
mod front;
mod isns;
mod metrics;
mod runtime;
mod socket;
mod status;

fn main() -> std::process::ExitCode {
    cli::main()
}
