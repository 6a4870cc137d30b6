//! The suite of libiscsi while an extent moves from node to node and back, planned, every two seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_tests::cluster::{self, Demo};
use holdfast_tests::suite::{self, Failure};
use holdfast_tests::{say, seed};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(2);
/// A run takes a minute: some of its moves may find another one under way.
const MOVES_MIN: u32 = 10;

/// Moves every extent to the other node, every two seconds, until told to stop; counts how often that went.
async fn keep_moving(admins: Vec<String>, stop: Arc<AtomicBool>, moves: Arc<AtomicU32>) -> Result<()> {
    let nodes = ["b", "a"];
    for to in nodes.iter().cycle() {
        let began = Instant::now();
        let mut done = false;
        for admin in &admins {
            let arguments = ["switchover", "--all", "--to", to, "--admin", admin];
            done = cluster::holdfast(&arguments).await?.code == Some(0);
            if done {
                break;
            }
        }
        moves.fetch_add(u32::from(done), Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        sleep(EVERY.saturating_sub(began.elapsed())).await;
    }
    Ok(())
}

/// One line for each test that failed: why.
fn list(failures: &[Failure]) -> String {
    failures
        .iter()
        .map(|failure| {
            let first = failure.complaints.first().or(failure.findings.first());
            format!("{}: {}\n", failure.name, first.map_or("", String::as_str))
        })
        .collect()
}

/// The suite sends no command twice, so a unit attention is a failure for it. Nothing else may be one.
#[tokio::test(flavor = "multi_thread")]
async fn under_planned_moves_the_suite_fails_only_where_it_hears_of_them() -> Result<()> {
    let rounds = seed::number("HOLDFAST_ROUNDS", 1);
    for round in 1..=rounds {
        // A fresh one each time: keys that a cleanup has left registered stay.
        let demo = Demo::start().await?;
        demo.wait_in_sync(LIMIT).await?;
        let urls = (demo.url("a")?.to_string(), demo.url("b")?.to_string());
        let admins = vec![demo.admin("a")?.to_owned(), demo.admin("b")?.to_owned()];
        let (stop, moves) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let mover = tokio::spawn(keep_moving(admins, Arc::clone(&stop), Arc::clone(&moves)));
        let arguments = ["-d", "-v", "-t", "ALL", &urls.0, &urls.1];
        let found = suite::run_telling_senses(&arguments).await;
        stop.store(true, Ordering::Relaxed);
        mover.await.context("the moves")??;
        let Some((found, report)) = found? else {
            return Ok(());
        };
        let (failures, attentions) = suite::failures(&report);
        let moves = moves.load(Ordering::Relaxed);
        say(&format!(
            "round {round}: {moves} moves, {} tests ran, {} failed, {attentions} commands got 06/2A/06\n{}",
            found.ran,
            failures.len(),
            list(&failures)
        ));
        ensure!(found.ran > 200 && moves >= MOVES_MIN, "{report}");
        let others: Vec<Failure> = failures
            .into_iter()
            .filter(|failure| !failure.began_with_a_change_of_states() && !failure.met_keys_that_were_left())
            .collect();
        ensure!(others.is_empty(), "failed otherwise:\n{}{report}", list(&others));
    }
    Ok(())
}
