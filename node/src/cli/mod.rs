//! What a user types. Every command takes `--admin` and `--json`; exit status 0 done, 1 it failed, 2 wrong usage.

mod access;
mod advise;
mod api_token;
mod audit;
mod bench;
mod cluster;
mod configuration;
mod device;
mod drill;
mod events;
mod failover;
mod fault;
mod image;
mod isns;
mod new_file;
mod objects;
mod out;
mod page_file;
mod progress;
mod reservation;
mod status;
mod support;
mod takeover;
mod usage;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

pub(crate) use cluster::init as init_cluster;
pub(crate) use out::Out;
pub(crate) use page_file::{PageFile, foot};
pub(crate) use usage::number;

use crate::admin::AdminAddress;

/// A highly available iSCSI target out of two or more Linux machines.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about, propagate_version = true)]
pub(crate) struct Cli {
    /// Admin address of a node: host:port, or the path of its Unix socket.
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        default_value = "/run/holdfast/admin.sock"
    )]
    admin: AdminAddress,
    /// Administrator's certificate for a TCP admin port, made by 'holdfast cluster certificate'.
    #[arg(long, global = true, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// File with an API token, made by 'holdfast api-token create': its role counts, whatever the connection's is.
    #[arg(long, global = true, value_name = "FILE")]
    api_token: Option<PathBuf>,
    /// Print one JSON document on standard output, and nothing else there.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole HA pair on this machine: data nodes a and b, witness w, one target, one LUN.
    Demo(DemoArgs),
    /// Run this machine's node in the foreground.
    Node(NodeArgs),
    /// Make a cluster out of nodes; its members and settings.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Make, list and revoke tokens with which programs use the admin service.
    #[command(subcommand)]
    ApiToken(api_token::ApiTokenCommand),
    /// Show who has asked for what: the newest calls that changed something, or were refused.
    Audit(audit::AuditArgs),
    /// Show the cluster at a glance.
    Status(status::StatusArgs),
    /// Create, list, change and delete extents.
    #[command(subcommand)]
    Extent(objects::ExtentCommand),
    /// Give block devices to a node, for extents without a file system below; list them, and take them back.
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Create, list and delete targets.
    #[command(subcommand)]
    Target(objects::TargetCommand),
    /// Map extents as LUNs of a target, and unmap them.
    #[command(subcommand)]
    Lun(objects::LunCommand),
    /// Say who may use what: initiator groups.
    #[command(subcommand)]
    Initiators(access::InitiatorsCommand),
    /// Set CHAP users and secrets, of initiator groups and of discovery.
    #[command(subcommand)]
    Auth(access::AuthCommand),
    /// List and end initiators' sessions.
    #[command(subcommand)]
    Session(access::SessionCommand),
    /// List iSCSI portals.
    #[command(subcommand)]
    Portal(access::PortalCommand),
    /// Say which iSNS servers are told of targets and portals.
    #[command(subcommand)]
    Isns(isns::IsnsCommand),
    /// Write everything that is configured in the cluster as one TOML document: settings, extents, targets, LUNs, groups. No secrets.
    Export(configuration::ExportArgs),
    /// Make the cluster what a document of 'holdfast export' says: shows the difference, asks, does it. Done twice, nothing changes.
    Apply(configuration::ApplyArgs),
    /// Print a document for 'holdfast apply', made of another target's configuration, to look through and apply. Touches no cluster.
    #[command(subcommand)]
    Import(configuration::ImportCommand),
    /// Move an extent, or all of them, to another node: planned, without a pause for clients.
    Switchover(objects::SwitchoverArgs),
    /// List what a node has recorded: who led, who was not heard, which primaries changed, who logged in.
    Events(events::EventsArgs),
    /// Explain the last failover of an extent, in ten lines at most.
    Why(events::WhyArgs),
    /// Write an archive for whoever is to find out what happened: status, events, log, audit log, configuration, machine. No secrets.
    Support(support::SupportArgs),
    /// Say what to set on the hosts that use the cluster: multipath, timers, claim rules.
    Advise,
    /// Rehearse failures under checked load, and say whether they held their budget.
    Drill(drill::DrillArgs),
    /// Have one node suffer a fault for a while: links and disks that are cut, slow or lossy; its process killed or frozen.
    #[command(subcommand)]
    Fault(fault::FaultCommand),
    /// List, show and clear reservations.
    #[command(subcommand)]
    Reservation(reservation::ReservationCommand),
    /// Measure a target: latency and throughput, ours or anybody's.
    Bench(bench::BenchArgs),
}

/// Arguments of `holdfast demo`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArgs {
    /// Directory for all state; kept, and picked up again by the next run. Default: a fresh one, removed at the end.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// iSCSI port of node a; b listens on the next one, all other ports follow (up to this plus 9).
    #[arg(long, default_value_t = 3260, value_parser = number::<u16>(1024, 65526))]
    pub(crate) base_port: u16,
    /// Size of the LUN.
    #[arg(long, default_value = "1GiB")]
    pub(crate) size: holdfast_types::ByteSize,
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
    #[command(subcommand)]
    pub(crate) command: Option<DemoCommand>,
}

/// What a running demo can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Ask a node back that was killed.
    Restart {
        /// a, b or w.
        node: String,
        /// The running demo's directory.
        #[arg(long)]
        dir: PathBuf,
    },
}

/// Arguments of `holdfast node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node's configuration file.
    #[arg(long, default_value = "/etc/holdfast/node.toml")]
    pub(crate) config: PathBuf,
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
    /// Wait so many milliseconds first: a drill has killed it.
    #[arg(long, hide = true, default_value_t = 0, require_equals = true)]
    pub(crate) after_ms: u64,
}

fn read_certificate(file: &Path) -> anyhow::Result<()> {
    let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let credentials = holdfast_trust::Credentials::from_pem(&pem)
        .with_context(|| format!("{} cannot be used as --certificate", file.display()))?;
    crate::admin::use_certificate(credentials);
    Ok(())
}

fn read_api_token(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    crate::admin::use_api_token(text.trim())
        .with_context(|| format!("{} cannot be used as --api-token", file.display()))
}

/// Parses the command line and carries it out; the process's exit status.
pub(crate) fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and versions, asked for or not.
        Err(error)
            if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            error.exit()
        }
        Err(error) => {
            // Nobody to tell is no reason for another exit status.
            let _ = writeln!(std::io::stderr(), "{}", usage::one_line(&error));
            return std::process::ExitCode::from(2);
        }
    };
    let out = Out::new(cli.json);
    if let Some(file) = &cli.certificate
        && let Err(error) = read_certificate(file)
    {
        out.failed(&error);
        return std::process::ExitCode::from(1);
    }
    if let Some(file) = &cli.api_token
        && let Err(error) = read_api_token(file)
    {
        out.failed(&error);
        return std::process::ExitCode::from(1);
    }
    let result = match cli.command {
        Command::Demo(args) => crate::demo::run(args, out),
        Command::Node(args) => crate::runtime::run(&args, out),
        Command::Cluster(command) => cluster::run(command, &cli.admin, out),
        Command::ApiToken(command) => api_token::run(command, &cli.admin, out),
        Command::Audit(args) => audit::run(&args, &cli.admin, out),
        Command::Status(args) => return status::run(args, &cli.admin, out),
        Command::Extent(command) => objects::extent(command, &cli.admin, out),
        Command::Device(command) => device::run(command, &cli.admin, out),
        Command::Target(command) => objects::target(command, &cli.admin, out),
        Command::Lun(command) => objects::lun(command, &cli.admin, out),
        Command::Initiators(command) => access::initiators(command, &cli.admin, out),
        Command::Auth(command) => access::auth(command, &cli.admin, out),
        Command::Session(command) => access::session(command, &cli.admin, out),
        Command::Portal(command) => access::portal(&command, &cli.admin, out),
        Command::Isns(command) => isns::run(command, &cli.admin, out),
        Command::Export(args) => configuration::export(&args, &cli.admin, out),
        Command::Apply(args) => configuration::apply(&args, &cli.admin, out),
        Command::Import(command) => configuration::import(&command, out),
        Command::Switchover(args) => objects::switchover(args, &cli.admin, out),
        Command::Events(args) => events::list(args, &cli.admin, out),
        Command::Why(args) => events::explain(args, &cli.admin, out),
        Command::Support(args) => support::run(&args, &cli.admin, out),
        Command::Advise => advise::run(&cli.admin, out),
        Command::Drill(args) => drill::run(&args, &cli.admin, out),
        Command::Fault(command) => fault::run(command, &cli.admin, out),
        Command::Reservation(command) => reservation::run(command, &cli.admin, out),
        Command::Bench(args) => bench::run(args, out),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            out.failed(&error);
            std::process::ExitCode::from(1)
        }
    }
}

/// Who types this, for logs.
fn who() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    name.unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()))
}

/// Runs a future of a short command on a runtime of its own.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn admin_and_json_are_taken_after_the_command() {
        let cli = Cli::try_parse_from(["holdfast", "status", "--json", "--admin", "127.0.0.1:3262"]).unwrap();
        assert!(cli.json);
        assert_eq!(cli.admin.to_string(), "127.0.0.1:3262");
    }

    #[test]
    fn demo_restart_takes_a_directory() {
        let cli = Cli::try_parse_from(["holdfast", "demo", "restart", "a", "--dir", "/tmp/x"]).unwrap();
        let Command::Demo(DemoArgs {
            command: Some(DemoCommand::Restart { node, dir }),
            ..
        }) = cli.command
        else {
            panic!("another command");
        };
        assert_eq!((node.as_str(), dir), ("a", PathBuf::from("/tmp/x")));
    }
}
