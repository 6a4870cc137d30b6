//! Extents, targets, LUNs, and moving them.

use anyhow::ensure;
use clap::{ArgGroup, Args, Subcommand};
use holdfast_proto::admin::{
    CreateExtentRequest, CreateTargetRequest, Done, MapLunRequest, SwitchoverRequest,
};
use holdfast_types::{ByteSize, IscsiName};
use serde::Serialize;

use super::{Out, block_on};
use crate::admin::{AdminAddress, AdminClient};

/// `holdfast extent …`
#[derive(Debug, Subcommand)]
pub(super) enum ExtentCommand {
    /// Create an extent: the disk behind a LUN, replicated on data nodes.
    Create {
        /// Name: letters, digits, '-', '.' and '_'.
        name: String,
        /// Size, for example 20G; a whole number of MiB.
        #[arg(long)]
        size: ByteSize,
        /// Logical block size in bytes: 512 or 4096.
        #[arg(long, default_value_t = 512)]
        block_size: u32,
        /// Data nodes that hold it; default: all.
        #[arg(long, value_delimiter = ',', value_name = "NODE,…")]
        replicas: Vec<String>,
        /// Node that is its primary to start with; default: the first replica.
        #[arg(long, value_name = "NODE")]
        preferred: Option<String>,
    },
    /// List extents.
    List,
}

/// `holdfast target …`
#[derive(Debug, Subcommand)]
pub(super) enum TargetCommand {
    /// Create a target.
    Create {
        /// Its name: iqn.YYYY-MM.reversed.domain:anything.
        iqn: IscsiName,
    },
    /// List targets and their LUNs.
    List,
}

/// `holdfast lun …`
#[derive(Debug, Subcommand)]
pub(super) enum LunCommand {
    /// Map an extent as a LUN of a target.
    Create {
        /// The target.
        iqn: IscsiName,
        /// The extent's name.
        extent: String,
        /// The LUN.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..16384))]
        lun: u32,
    },
}

/// `holdfast switchover …`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true))]
pub(super) struct SwitchoverArgs {
    /// Extents to move.
    #[arg(group = "which", value_name = "EXTENT")]
    extents: Vec<String>,
    /// Move all extents.
    #[arg(long, group = "which")]
    all: bool,
    /// The node that becomes primary; it must be in sync.
    #[arg(long, value_name = "NODE")]
    to: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    done: bool,
    message: &'a str,
    warnings: &'a [String],
}

/// Prints what a changing command did.
pub(super) fn print_done(done: &Done, out: Out) -> anyhow::Result<()> {
    let mut text = done.message.clone();
    for warning in &done.warnings {
        text.push_str("\nWarning: ");
        text.push_str(warning);
    }
    out.answer(
        &Answer {
            done: true,
            message: &done.message,
            warnings: &done.warnings,
        },
        &text,
    )
}

/// `holdfast extent …`
pub(super) fn extent(command: ExtentCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    match command {
        ExtentCommand::Create {
            name,
            size,
            block_size,
            replicas,
            preferred,
        } => {
            ensure!(
                block_size == 512 || block_size == 4096,
                "--block-size {block_size}: a logical block has 512 or 4096 bytes"
            );
            let preferred = preferred.unwrap_or_default();
            let request = CreateExtentRequest {
                name,
                size_bytes: size.0,
                block_size,
                replicas,
                preferred,
            };
            let done = block_on(async { AdminClient::connect(admin).await?.create_extent(request).await })?;
            print_done(&done, out)
        }
        ExtentCommand::List => {
            let status = block_on(async { AdminClient::connect(admin).await?.status().await })?;
            let text = crate::status::extents_text(&status);
            out.answer(&status.extents, &text)
        }
    }
}

/// `holdfast target …`
pub(super) fn target(command: TargetCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    match command {
        TargetCommand::Create { iqn } => {
            let request = CreateTargetRequest { iqn: iqn.to_string() };
            let done = block_on(async { AdminClient::connect(admin).await?.create_target(request).await })?;
            print_done(&done, out)
        }
        TargetCommand::List => {
            let status = block_on(async { AdminClient::connect(admin).await?.status().await })?;
            let text = crate::status::targets_text(&status);
            out.answer(&status.targets, &text)
        }
    }
}

/// `holdfast lun …`
pub(super) fn lun(command: LunCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let LunCommand::Create { iqn, extent, lun } = command;
    let request = MapLunRequest {
        iqn: iqn.to_string(),
        lun,
        extent,
    };
    let done = block_on(async { AdminClient::connect(admin).await?.map_lun(request).await })?;
    print_done(&done, out)
}

/// `holdfast switchover …`
pub(super) fn switchover(args: SwitchoverArgs, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let extents = if args.all { Vec::new() } else { args.extents };
    let request = SwitchoverRequest { extents, to: args.to };
    let done = block_on(async { AdminClient::connect(admin).await?.switchover(request).await })?;
    print_done(&done, out)
}
