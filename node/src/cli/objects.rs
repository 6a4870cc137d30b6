//! Extents, targets, LUNs, and moving them.

use anyhow::{Context, ensure};
use clap::{ArgGroup, Args, Subcommand};
use holdfast_proto::admin::change_request::Change;
use holdfast_proto::admin::{
    CreateExtentRequest, CreateTargetRequest, Done, MapLunRequest, ResizeExtent, ScrubExtentRequest,
    SetConfirmedReadsRequest, SetExtent, SetReplicas, SetWriteCacheRequest, SwitchoverRequest,
};
use holdfast_types::{ByteSize, IscsiName};
use serde::Serialize;

use super::access::change_one;
use super::usage::number;
use super::{Out, block_on};
use crate::admin::access::AccessRequest;
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
        /// Allocate all of its space now; otherwise space is taken as it is written.
        #[arg(long)]
        full: bool,
        /// Keep it on block devices that were given to its nodes ('holdfast device add'), one on each; it is always full.
        #[arg(long)]
        on_devices: bool,
        /// Answer reads only once the other replicas have confirmed that this is still the primary: for machines whose clocks may
        /// run wrong, such as virtual machines that are paused. Costs a round trip for each read.
        #[arg(long)]
        confirmed_reads: bool,
        /// Acknowledge writes once they are in the memory of every replica in sync (WCE=1), stable or not: what initiators did not flush
        /// is lost when all replicas lose power at once.
        #[arg(long, value_enum, default_value = "off")]
        write_cache: OnOff,
    },
    /// Make an extent out of a raw image of a disk, or make one equal to it. What is equal already is not written, so an import that was
    /// broken off goes on when it is run again, with --confirm.
    Import(super::image::ImportArgs),
    /// Acknowledge writes from memory (WCE=1), or only once they are stable. 'off' returns when all that was acknowledged is stable.
    WriteCache {
        /// The extent's name.
        name: String,
        /// What from now on.
        #[arg(value_enum)]
        to: OnOff,
        /// With 'off': a replica that may hold acknowledged writes in its memory does not come back. They are given up.
        #[arg(long)]
        lost: bool,
    },
    /// Switch confirmed reads of an extent on or off.
    ConfirmedReads {
        /// Its name.
        name: String,
        /// What from now on.
        #[arg(value_enum)]
        to: OnOff,
    },
    /// Compare the replicas of an extent in the background; what is bad or differs is repaired.
    Scrub {
        /// The extent's name.
        name: String,
    },
    /// List extents.
    List,
    /// Show one extent.
    Show {
        /// Its name.
        name: String,
    },
    /// Change an extent.
    Set {
        /// Its name.
        name: String,
        /// The replica that is primary when all is well, or 'none'.
        #[arg(long, value_name = "NODE")]
        preferred: Option<String>,
        /// How nodes other than the primary show it: they forward its commands, or stand by and carry no data.
        #[arg(long, value_name = "non-optimized|standby", conflicts_with = "preferred")]
        secondary: Option<String>,
        /// Another name.
        #[arg(long = "name", value_name = "NAME", conflicts_with_all = ["preferred", "secondary"])]
        new_name: Option<String>,
    },
    /// Make an extent larger, while it is in use.
    Resize {
        /// Its name.
        name: String,
        /// Its new size; it never gets smaller.
        #[arg(long)]
        size: ByteSize,
    },
    /// Move replicas: new ones are resynchronized first, and only then others go.
    Replicas {
        /// The extent's name.
        name: String,
        /// All data nodes that are to hold it.
        #[arg(value_delimiter = ',', value_name = "NODE,…", required = true)]
        nodes: Vec<String>,
    },
    /// Serve the replica on the node named by --admin although acknowledged writes may be missing in it: after a takeover, where nobody
    /// else has a whole one.
    AcceptDataLoss {
        /// Its name.
        name: String,
        /// Its name again.
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// Delete an extent that is no LUN, with its data, on all nodes.
    Delete {
        /// Its name.
        name: String,
        /// Its name again.
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
}

/// A switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OnOff {
    /// On.
    On,
    /// Off.
    Off,
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
    /// Change who may use a target. Takes effect at once.
    Change {
        /// Its name.
        iqn: IscsiName,
        /// Whether only initiator groups that are allowed may use it; false opens it to everyone.
        #[arg(long, value_name = "true|false", required_unless_present_any = ["max_sessions", "redirect"])]
        restricted: Option<bool>,
        /// Most sessions at a time, on each node; 0: no limit.
        #[arg(long, value_name = "N", value_parser = number::<u32>(0, u64::from(u32::MAX)))]
        max_sessions: Option<u32>,
        /// Whether a node that drains, leaves or stops sends logins to a node that serves: for initiators without multipath.
        #[arg(long, value_name = "true|false")]
        redirect: Option<bool>,
    },
    /// Remove a target without LUNs.
    Delete {
        /// Its name.
        iqn: IscsiName,
    },
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
        #[arg(long, default_value_t = 0, value_parser = number::<u32>(0, 16383))]
        lun: u32,
        /// In the own map of this initiator group, which sees that instead of the target's from then on.
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// It can only be read.
        #[arg(long)]
        read_only: bool,
    },
    /// Change whether a LUN can only be read. Takes effect at once.
    Change {
        /// The target.
        iqn: IscsiName,
        /// The LUN.
        #[arg(long, value_parser = number::<u32>(0, 16383))]
        lun: u32,
        /// In the own map of this initiator group.
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// Whether it can only be read.
        #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
        read_only: bool,
    },
    /// Take a LUN away. Its extent stays.
    Delete {
        /// The target.
        iqn: IscsiName,
        /// The LUN.
        #[arg(long, value_parser = number::<u32>(0, 16383))]
        lun: u32,
        /// Out of the own map of this initiator group.
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
    },
    /// Have an initiator group see the target's own map again, instead of a map of its own.
    Share {
        /// The target.
        iqn: IscsiName,
        /// The group.
        #[arg(long, value_name = "NAME")]
        group: String,
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
            full,
            on_devices,
            confirmed_reads,
            write_cache,
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
                confirmed_reads,
                full,
                write_cache: write_cache == OnOff::On,
                on_devices,
            };
            let done = block_on(async { AdminClient::connect(admin).await?.create_extent(request).await })?;
            print_done(&done, out)
        }
        ExtentCommand::Import(args) => super::image::run(args, admin, out),
        ExtentCommand::ConfirmedReads { name, to } => confirmed_reads(name, to, admin, out),
        ExtentCommand::WriteCache { name, to, lost } => write_cache(name, to, lost, admin, out),
        ExtentCommand::Scrub { name } => scrub(name, admin, out),
        ExtentCommand::List => list_extents(admin, out),
        ExtentCommand::Show { name } => show_extent(&name, admin, out),
        ExtentCommand::Set {
            name,
            preferred,
            secondary,
            new_name,
        } => {
            let set = SetExtent {
                name,
                new_name: new_name.unwrap_or_default(),
                preferred: preferred.unwrap_or_default(),
                secondary: secondary.unwrap_or_default(),
            };
            change(Change::SetExtent(set), admin, out)
        }
        ExtentCommand::Resize { name, size } => {
            let size_bytes = size.0;
            let resize = ResizeExtent { name, size_bytes };
            change(Change::ResizeExtent(resize), admin, out)
        }
        ExtentCommand::Replicas { name, nodes } => {
            change(Change::SetReplicas(SetReplicas { name, nodes }), admin, out)
        }
        ExtentCommand::AcceptDataLoss { name, confirm } => {
            super::takeover::accept_data_loss(&name, confirm.as_deref(), admin, out)
        }
        ExtentCommand::Delete { name, confirm } => {
            ensure!(
                confirm.as_deref() == Some(name.as_str()),
                "deleting extent '{name}' loses all that is stored in it: type its name again, with --confirm {name}"
            );
            change_one(admin, AccessRequest::DeleteExtent { extent: name }, out)
        }
    }
}

fn list_extents(admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let status = block_on(async { AdminClient::connect(admin).await?.status().await })?;
    let text = crate::status::extents_text(&status);
    out.answer(&status.extents, &text)
}

/// Asks for one change and prints what became of it.
pub(super) fn change(change: Change, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let done = block_on(async { AdminClient::connect(admin).await?.change(change).await })?;
    print_done(&done, out)
}

fn scrub(extent: String, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let relayed = false;
    let request = ScrubExtentRequest { extent, relayed };
    let done = block_on(async { AdminClient::connect(admin).await?.scrub_extent(request).await })?;
    print_done(&done, out)
}

fn confirmed_reads(extent: String, to: OnOff, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let on = to == OnOff::On;
    let request = SetConfirmedReadsRequest { extent, on };
    let done = block_on(async {
        AdminClient::connect(admin)
            .await?
            .set_confirmed_reads(request)
            .await
    })?;
    print_done(&done, out)
}

fn write_cache(extent: String, to: OnOff, lost: bool, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let on = to == OnOff::On;
    ensure!(!(on && lost), "--lost goes with 'off'");
    let request = SetWriteCacheRequest { extent, on, lost };
    let done = block_on(async { AdminClient::connect(admin).await?.set_write_cache(request).await })?;
    print_done(&done, out)
}

fn show_extent(name: &str, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let mut status = block_on(async { AdminClient::connect(admin).await?.status().await })?;
    status.extents.retain(|extent| extent.name == name);
    let extent = status.extents.first();
    let extent =
        extent.with_context(|| format!("there is no extent '{name}'; see 'holdfast extent list'"))?;
    out.answer(extent, &crate::status::extents_text(&status))
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
        TargetCommand::Change {
            iqn,
            restricted,
            max_sessions,
            redirect,
        } => {
            let request = AccessRequest::ChangeTarget {
                target: iqn.to_string(),
                restricted,
                sessions_max: max_sessions,
                redirect,
            };
            change_one(admin, request, out)
        }
        TargetCommand::Delete { iqn } => {
            let target = iqn.to_string();
            change_one(admin, AccessRequest::DeleteTarget { target }, out)
        }
    }
}

/// `holdfast lun …`
pub(super) fn lun(command: LunCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let request = match command {
        LunCommand::Create {
            iqn,
            extent,
            lun,
            group: Some(group),
            read_only,
        } => AccessRequest::MapGroupLun {
            target: iqn.to_string(),
            group,
            lun,
            extent,
            read_only,
        },
        LunCommand::Create {
            iqn,
            extent,
            lun,
            group: None,
            read_only,
        } => {
            let target = iqn.to_string();
            let map = MapLunRequest {
                iqn: target.clone(),
                lun,
                extent,
            };
            let done = block_on(async { AdminClient::connect(admin).await?.map_lun(map).await })?;
            if !read_only {
                return print_done(&done, out);
            }
            AccessRequest::SetLunReadOnly {
                target,
                group: None,
                lun,
                read_only,
            }
        }
        LunCommand::Change {
            iqn,
            lun,
            group,
            read_only,
        } => AccessRequest::SetLunReadOnly {
            target: iqn.to_string(),
            group,
            lun,
            read_only,
        },
        LunCommand::Delete { iqn, lun, group } => AccessRequest::UnmapLun {
            target: iqn.to_string(),
            group,
            lun,
        },
        LunCommand::Share { iqn, group } => AccessRequest::ShareLuns {
            target: iqn.to_string(),
            group,
        },
    };
    change_one(admin, request, out)
}

/// `holdfast switchover …`
pub(super) fn switchover(args: SwitchoverArgs, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let extents = if args.all { Vec::new() } else { args.extents };
    let request = SwitchoverRequest { extents, to: args.to };
    let done = block_on(async { AdminClient::connect(admin).await?.switchover(request).await })?;
    print_done(&done, out)
}
