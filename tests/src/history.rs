//! Histories of loads, judged.

use std::time::Duration;

use anyhow::{Context as _, Error, Result, ensure};
use holdfast_drill::checker::{Initial, Rules, Summary};
use holdfast_drill::initiator::Dial;
use holdfast_drill::workload::mixed::{Mixed, Plan, Stopped, start};
use holdfast_types::{BlockSize, Lba};

use crate::lan::Lan;

/// Hold limit, time in flight, and a slow machine: a call without an answer takes effect within this time or never (I11).
const LATE: Duration = Duration::from_secs(15);

/// Has a history judged: how many calls were answered, and what came of it.
///
/// # Errors
/// A call failed in a way that it must not, an answer is impossible, or the judge could not decide.
pub async fn judged(stopped: Stopped) -> Result<(u64, Summary)> {
    let report = tokio::task::spawn_blocking(|| stopped.judge()).await?;
    ensure!(report.faults.is_empty(), "{:#?}", report.faults);
    let summary = report
        .verdict
        .map_err(|violation| Error::msg(violation.to_string()))?;
    ensure!(summary.undecided == 0, "{summary:?}");
    Ok((report.acknowledged, summary))
}

/// Four initiators, half of which prefer each data node: what b takes in is forwarded to a, or the other way round.
///
/// # Errors
/// There are no such data nodes.
pub fn load_both(lan: &Lan, seed: u64) -> Result<Mixed> {
    let mut initiators = Vec::new();
    for order in [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"]] {
        initiators.push(order.iter().map(|name| lan.dial(name)).collect::<Result<_>>()?);
    }
    load(seed, initiators)
}

/// As many initiators, each with the portals that it may use, in order of preference: they write and read the same 64 blocks.
///
/// # Errors
/// There are no such initiators.
pub fn load(seed: u64, initiators: Vec<Vec<Dial>>) -> Result<Mixed> {
    let plan = Plan {
        seed,
        first: Lba(0),
        blocks: 64,
        groups: 1,
        readers: 0,
        pause: Duration::from_millis(3),
        rules: Rules {
            initial: Initial::Zeros,
            late: Some(LATE),
        },
        reserves: false,
        may_be_full: false,
    };
    Ok(start(plan, BlockSize::B512, initiators)?)
}

/// How long the slowest initiator waits while something is done, each time for `limit` at most.
///
/// # Errors
/// An initiator is not served in time, or what is done fails; `logs` are in the text.
pub async fn worst_while(
    load: &Mixed,
    limit: Duration,
    logs: impl Fn() -> String,
    done: impl Future<Output = Result<()>>,
) -> Result<Duration> {
    tokio::pin!(done);
    let mut worst = Duration::ZERO;
    loop {
        tokio::select! {
            done = &mut done => {
                done?;
                let last = load.served(limit).await.with_context(&logs)?;
                return Ok(worst.max(last));
            }
            waited = load.served(limit) => worst = worst.max(waited.with_context(&logs)?),
        }
    }
}

/// Has a load look at all blocks through both data nodes, and [`judged`].
///
/// # Errors
/// As there; or a login fails.
pub async fn judge_both(lan: &Lan, load: Mixed) -> Result<(u64, Summary)> {
    let stopped = load.stop().await;
    for name in ["a", "b"] {
        let session = holdfast_drill::initiator::Session::connect(&lan.dial(name)?).await?;
        stopped.look(&session).await?;
    }
    judged(stopped).await
}
