//! `holdfast fault`: what a drill puts into one node for a while.

use std::time::Duration;

use clap::Subcommand;
use holdfast_proto::admin::{HealRequest, InjectRequest};

use super::drill::time;
use super::objects::print_done;
use super::{Out, block_on, who};
use crate::admin::{AdminAddress, AdminClient};
use crate::runtime::blow::hold_parent;

/// Faults of the node at `--admin`.
#[derive(Debug, Subcommand)]
pub(super) enum FaultCommand {
    /// Have the node suffer a fault for a while. It is written to its log, shown as an alarm, and heals by itself.
    Put {
        /// What is hurt: link:NODE (both ways), link:NODE:in, link:NODE:out, disk:journal, disk:extents, disk:raft or process.
        site: String,
        /// How: cut (a disk hangs), delay=50ms, slow=1048576 (bytes a second), lose=10 (percent; links only); a process: kill (it starts
        /// again after that time) or freeze.
        fault: String,
        /// For how long: 1ms to 60s.
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        lasts: Duration,
    },
    /// Heal what the node suffers.
    Heal {
        /// Only this; default: all.
        site: Option<String>,
    },
    /// Stops the process that started this one, and lets it go on.
    #[command(hide = true)]
    HoldParent {
        /// Its number.
        parent: i32,
        /// For how long.
        millis: u64,
    },
}

/// `holdfast fault …`
pub(super) fn run(command: FaultCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    if let FaultCommand::HoldParent { parent, millis } = command {
        return hold_parent(parent, Duration::from_millis(millis));
    }
    let by = who();
    let done = block_on(async {
        let mut client = AdminClient::connect(admin).await?;
        match command {
            FaultCommand::Put { site, fault, lasts } => {
                let millis = u32::try_from(lasts.as_millis()).unwrap_or(u32::MAX);
                client
                    .inject(InjectRequest {
                        site,
                        fault,
                        millis,
                        by,
                    })
                    .await
            }
            FaultCommand::Heal { site } => {
                let site = site.unwrap_or_default();
                client.heal(HealRequest { site, by }).await
            }
            FaultCommand::HoldParent { .. } => unreachable!("it was carried out above"),
        }
    })?;
    print_done(&done, out)
}
