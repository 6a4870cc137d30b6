//! Going on without the others: takeover of a cluster, and of an extent that is not whole.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::objects::print_done;
use super::{Out, block_on, who};
use crate::admin::{AdminAddress, AdminClient, TakeoverPlan};
use crate::status::{StatusDocument, summary};

/// How long the node may take to start anew and lead itself.
const DONE_WITHIN: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What `cluster takeover --json` prints.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    /// False: nothing was changed.
    done: bool,
    plan: &'a TakeoverPlan,
    /// The cluster afterwards.
    status: Option<StatusDocument>,
}

/// `holdfast cluster takeover`
pub(super) fn takeover(confirmed: bool, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let by = who();
    let plan = block_on(async { AdminClient::connect(admin).await?.takeover(false, &by).await })?;
    out.narrate(plan.text().trim_end());
    if !confirmed {
        let answer = Answer {
            done: false,
            plan: &plan,
            status: None,
        };
        if out.json() {
            out.document(&answer)?;
        }
        bail!(
            "nothing was changed: make sure that every other node is off and stays off, then add --confirm-peer-is-down"
        );
    }
    let status = block_on(async {
        AdminClient::connect(admin).await?.takeover(true, &by).await?;
        wait(admin, plan.takeovers_before + 1).await
    })?;
    let text = format!("\nThe takeover is done. {}", summary(&status));
    let answer = Answer {
        done: true,
        plan: &plan,
        status: Some(status),
    };
    out.answer(&answer, &text)
}

/// Waits until the node is back as the new incarnation and serves what it can.
async fn wait(admin: &AdminAddress, takeovers: usize) -> anyhow::Result<StatusDocument> {
    let began = tokio::time::Instant::now();
    let mut last = None;
    while began.elapsed() < DONE_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
        // It is starting anew for a moment.
        let Ok(mut client) = AdminClient::connect(admin).await else {
            continue;
        };
        let Ok(status) = client.status().await else {
            continue;
        };
        let settled = |status: &StatusDocument| {
            let whole = status.extents.iter().filter(|extent| !extent.in_sync.is_empty());
            whole.into_iter().all(|extent| extent.served)
        };
        if status.takeovers.len() >= takeovers && status.quorum {
            if settled(&status) {
                return Ok(status);
            }
            last = Some(status);
        }
    }
    last.with_context(|| {
        format!(
            "the takeover is ordered, and the node has not come back within {} s: it is carried out by its next start, and its log says \
             what holds it up",
            DONE_WITHIN.as_secs()
        )
    })
}

/// `holdfast extent accept-data-loss`
pub(super) fn accept_data_loss(
    name: &str,
    confirm: Option<&str>,
    admin: &AdminAddress,
    out: Out,
) -> anyhow::Result<()> {
    let confirmed = confirm == Some(name);
    ensure!(
        confirmed || confirm.is_none(),
        "--confirm names another extent than '{name}'"
    );
    let by = who();
    let done = block_on(async {
        AdminClient::connect(admin)
            .await?
            .accept_data_loss(name, confirmed, &by)
            .await
    })?;
    if !confirmed {
        out.narrate(&done.message);
        bail!(
            "nothing was changed: what is not in it is lost for good once it is served; if so be it, type its name again: --confirm {name}"
        );
    }
    print_done(&done, out)
}
