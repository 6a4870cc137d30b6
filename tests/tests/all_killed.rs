//! All processes die at once under load, as in a power failure of the whole rack.

use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::Demo;
use holdfast_tests::{say, seed};
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(60);

/// I1, E1: every acknowledged write is there after all three were killed; twice, so that the second time follows a recovery.
#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_write_survives_the_death_of_all_processes() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let disks = [
        demo.multipath(&["a", "b"]).await?,
        demo.multipath(&["b", "a"]).await?,
    ];
    let load = workload::start(Plan::small(seed::seed("all killed")), &disks)?;
    let mut epoch = 0;
    for round in 1..=2 {
        load.served(0, LIMIT).await?;
        load.served(1, LIMIT).await?;
        sleep(Duration::from_secs(2)).await;
        let before = load.acknowledged();
        for name in ["a", "b", "w"] {
            demo.kill(name)?;
        }
        for name in ["a", "b", "w"] {
            demo.restart(name).await?;
        }
        let pause = load.served(0, LIMIT).await?;
        let status = demo.wait_in_sync(LIMIT).await?;
        ensure!(status.extents[0].epoch > epoch, "a restart is a new epoch");
        epoch = status.extents[0].epoch;
        let verdict = load.verifier().verify(&demo.session("b").await?, "b").await;
        let units = verdict.map_err(anyhow::Error::msg)?;
        say(&format!(
            "round {round}: {before} writes before, served after {pause:.2?}, {units} blocks verified"
        ));
    }
    let (report, verifier) = load.stop().await;
    report.clean().map_err(anyhow::Error::msg)?;
    demo.verify(&verifier).await?;
    Ok(())
}
