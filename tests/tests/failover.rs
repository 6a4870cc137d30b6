//! The primary dies under load, again and again; nothing acknowledged is lost and the other portal serves on.

use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::Demo;
use holdfast_tests::{say, seed};

/// The bound on an interruption with default timers.
const FAILOVER_LIMIT: Duration = Duration::from_secs(3);
/// For regaining a replica of a small extent.
const SYNC_LIMIT: Duration = Duration::from_secs(60);

/// I1, I5, I8: rounds of `kill -9` of the primary. `HOLDFAST_ROUNDS` says how many (4).
#[tokio::test(flavor = "multi_thread")]
async fn killing_the_primary_loses_nothing_and_the_other_portal_serves_within_three_seconds() -> Result<()> {
    let rounds = seed::number("HOLDFAST_ROUNDS", 4);
    let demo = Demo::start_with("64MiB").await?;
    // The first disk prefers a's portal, the second b's: writers go through both.
    let disks = [
        demo.multipath(&["a", "b"]).await?,
        demo.multipath(&["b", "a"]).await?,
    ];
    let load = workload::start(Plan::small(seed::seed("failover")), &disks)?;
    let mut killed = Vec::new();
    for round in 1..=rounds {
        demo.wait_in_sync(SYNC_LIMIT).await?;
        for lane in 0..disks.len() {
            load.served(lane, FAILOVER_LIMIT).await?;
        }
        let primary = demo.primary().await?;
        let (other, lane) = if primary == "a" { ("b", 1) } else { ("a", 0) };
        demo.kill(&primary)?;
        let pause = load.served(lane, FAILOVER_LIMIT).await;
        let pause = pause
            .map_err(|error| anyhow::anyhow!("round {round}, {primary} killed: {error}\n{}", demo.logs()))?;
        let verdict = load.verifier().verify(&demo.session(other).await?, other).await;
        let units = verdict.map_err(|fault| anyhow::anyhow!("round {round}, {primary} killed: {fault}"))?;
        say(&format!(
            "round {round}: {primary} killed, {other} served after {pause:.2?}, {units} blocks verified"
        ));
        let status = demo.status_by(other).await?;
        assert_eq!(status.primary(), Some(other), "the surviving node is primary");
        demo.restart(&primary).await?;
        killed.push(primary);
    }
    demo.wait_in_sync(SYNC_LIMIT).await?;
    let (report, verifier) = load.stop().await;
    say(&format!(
        "{} writes, {} reads, longest gaps {:?} s",
        report.acknowledged, report.reads, report.longest_gap_seconds
    ));
    report.complete().map_err(anyhow::Error::msg)?;
    demo.verify(&verifier).await?;
    if rounds > 1 {
        assert!(
            ["a", "b"]
                .iter()
                .all(|name| killed.iter().any(|other| other == name)),
            "the roles were swapped: {killed:?}"
        );
    }
    Ok(())
}

/// I8: every nexus hears of the change as 06/2A/06 and sees the states flip, and hears it once.
#[tokio::test(flavor = "multi_thread")]
async fn a_nexus_hears_of_the_failover_once_and_sees_the_states_flip() -> Result<()> {
    use holdfast_drill::cdb;
    use holdfast_drill::error::SenseCode;

    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(SYNC_LIMIT).await?;
    let primary = demo.primary().await?;
    let other = if primary == "a" { "b" } else { "a" };
    let nexus = demo.session(other).await?;
    let before = nexus.port_groups().await?;
    while nexus.command(cdb::test_unit_ready(), None).await.is_err() {}
    demo.kill(&primary)?;
    let status = demo.wait_for("the other node as primary", FAILOVER_LIMIT * 2, |status| {
        status.primary() == Some(other)
    });
    status.await?;

    let mut heard = Vec::new();
    let start = tokio::time::Instant::now();
    // Told by the first command that may be told; one in transition comes back later.
    while start.elapsed() < Duration::from_secs(5) {
        match nexus.command(cdb::test_unit_ready(), None).await {
            Ok(_) if heard.contains(&SenseCode::GROUP_STATE_CHANGED) => break,
            Ok(_) | Err(holdfast_drill::error::Error::CheckCondition(SenseCode::TRANSITION)) => {}
            Err(holdfast_drill::error::Error::CheckCondition(sense)) => heard.push(sense),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A transition and its end are two changes at most.
    ensure!(
        heard.iter().all(|sense| *sense == SenseCode::GROUP_STATE_CHANGED),
        "{heard:?}"
    );
    ensure!((1..=2).contains(&heard.len()), "heard {heard:?}");
    let after = nexus.port_groups().await?;
    let optimized =
        |groups: &[cdb::PortGroup]| groups.iter().find(|group| group.state == 0).map(|group| group.id);
    assert!(optimized(&before).is_some() && optimized(&after).is_some());
    assert_ne!(optimized(&before), optimized(&after));
    Ok(())
}
