//! `holdfast device`: block devices of the node that is asked.

use anyhow::Context as _;
use clap::Subcommand;
use holdfast_proto::admin::{AddDeviceRequest, DeviceProgress, RemoveDeviceRequest};

use super::progress::{Progress, share};
use super::{Out, block_on};
use crate::admin::{AdminAddress, AdminClient, devices_text};

/// `holdfast device …`
#[derive(Debug, Subcommand)]
pub(super) enum DeviceCommand {
    /// Give the node named by --admin a disk, partition or logical volume, for extents that are made with --on-devices. All of it is made
    /// zeros; what carries data or is in use is refused.
    Add {
        /// Its path on that node, best below /dev/disk/by-id, which stays the same.
        path: String,
        /// Its path again: what is on it is lost.
        #[arg(long, value_name = "PATH")]
        confirm: Option<String>,
    },
    /// List the devices of the node named by --admin: how much room, and what for.
    List,
    /// Take a device from the node named by --admin: one that is blank, of an extent that is gone, or gone itself.
    Remove {
        /// Its path, or its id.
        device: String,
        /// The same again, of a device that is gone for good with an extent on it: the replica is made anew elsewhere.
        #[arg(long, value_name = "PATH")]
        confirm: Option<String>,
    },
}

/// `holdfast device …`
pub(super) fn run(command: DeviceCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    match command {
        DeviceCommand::Add { path, confirm } => {
            let confirm = confirm.unwrap_or_default();
            let message = block_on(add(AddDeviceRequest { path, confirm }, admin, out))?;
            out.answer(&serde_json::json!({"done": true, "message": message}), &message)
        }
        DeviceCommand::List => {
            let devices = block_on(async { AdminClient::connect(admin).await?.devices().await })?;
            out.answer(&devices, &devices_text(&devices))
        }
        DeviceCommand::Remove { device, confirm } => {
            let confirm = confirm.unwrap_or_default();
            let request = RemoveDeviceRequest { device, confirm };
            let done = block_on(async { AdminClient::connect(admin).await?.remove_device(request).await })?;
            super::objects::print_done(&done, out)
        }
    }
}

async fn add(request: AddDeviceRequest, admin: &AdminAddress, out: Out) -> anyhow::Result<String> {
    let mut client = AdminClient::connect(admin).await?;
    let mut told = client.add_device(request).await?;
    let progress = Progress::new(out);
    let mut last = DeviceProgress::default();
    while let Some(news) = told
        .message()
        .await
        .map_err(|status| anyhow::anyhow!("{}", status.message()))?
    {
        let (done, total) = (news.done_bytes, news.total_bytes);
        if total > 0 {
            let text = format!("{} of {} MiB are zeros", done >> 20, total >> 20);
            progress.set(Some(share(done, total)), text);
        }
        last = news;
    }
    drop(progress);
    let message = Some(last.message).filter(|message| !message.is_empty());
    message.context("the node broke it off: run it again")
}
