//! `holdfast status`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Out, block_on};
use crate::admin::{AdminAddress, AdminClient};
use crate::status::{changes, summary, text};

/// Arguments of `holdfast status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// One line and an exit status for monitoring: 0 ok, 1 warning, 2 critical, 3 unknown.
    #[arg(long, conflicts_with = "watch")]
    check: bool,
    /// Go on, and tell every change.
    #[arg(long)]
    watch: bool,
}

/// `holdfast status`
pub(super) fn run(args: StatusArgs, admin: &AdminAddress, out: Out) -> ExitCode {
    let result = if args.watch {
        block_on(watch(admin, out)).map(|()| 0)
    } else {
        once(admin, args.check, out)
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            out.failed(&error);
            ExitCode::from(if args.check { 3 } else { 1 })
        }
    }
}

fn once(admin: &AdminAddress, check: bool, out: Out) -> anyhow::Result<u8> {
    let status = block_on(async { AdminClient::connect(admin).await?.status().await })?;
    let for_people = if check { summary(&status) } else { text(&status) };
    out.answer(&status, &for_people)?;
    Ok(if check { status.health.exit_status() } else { 0 })
}

/// Prints the status, then every change as a line (with JSON: a document each time that something changed).
async fn watch(admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let mut client = AdminClient::connect(admin).await?;
    let mut before = client.status().await?;
    out.answer(&before, &text(&before))?;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after = client.status().await?;
        let lines = changes(&before, &after);
        if !lines.is_empty() {
            out.answer(&after, &lines.join("\n"))?;
        }
        before = after;
    }
}
