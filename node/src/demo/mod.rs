//! `holdfast demo`: a whole HA pair on this machine, in three processes of their own, looked after by this one.

mod layout;
mod process;
mod requests;
mod setup;
mod stage;
mod supervisor;

use anyhow::Context;

use crate::cli::{DemoArgs, DemoCommand, Out};
use layout::Layout;
pub(crate) use setup::{all_serve, connect_when_up, pair_extent, with_quorum};
pub(crate) use stage::DemoStage;
use supervisor::Supervisor;

/// `holdfast demo …`
pub(crate) fn run(args: DemoArgs, out: Out) -> anyhow::Result<()> {
    if args.with_parent {
        crate::runtime::end_with_parent()?;
    }
    // One thread: node processes are tied to the thread that started them (they end when it does).
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match args.command {
            Some(DemoCommand::Restart { node, dir }) => {
                let answer = requests::ask(&dir, &format!("restart {node}")).await?;
                out.answer(&serde_json::json!({ "done": true, "message": answer }), &answer)
            }
            None => start(args, out).await,
        }
    })
}

async fn start(args: DemoArgs, out: Out) -> anyhow::Result<()> {
    let fresh;
    let dir = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            std::path::absolute(dir)?
        }
        None => {
            fresh = tempfile::Builder::new()
                .prefix("holdfast-demo-")
                .tempdir()
                .context("cannot make a directory")?;
            fresh.path().to_owned()
        }
    };
    let layout = Layout::new(dir, args.base_port, args.size)?;
    Supervisor::start(layout, out)?.run().await
}
