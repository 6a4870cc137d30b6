//! The suite of libiscsi against a demo pair, and the page that says what it finds: `docs/conformance.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_scsi::{commands, vpd_pages};
use holdfast_tests::cluster::{self, Demo};
use holdfast_tests::{say, tools, tree};

/// The suite takes one to two minutes alone on a machine.
const LIMIT: Duration = Duration::from_secs(600);

fn page() -> Result<String> {
    let path = tree::root().join("docs/conformance.md");
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Rows of the table below a heading, as cells.
fn rows(page: &str, heading: &str) -> Result<Vec<Vec<String>>> {
    let start = page
        .lines()
        .position(|line| line == format!("## {heading}"))
        .with_context(|| format!("docs/conformance.md has no heading {heading:?}"))?;
    let section = page
        .lines()
        .skip(start + 1)
        .take_while(|line| !line.starts_with("## "));
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_matches('|');
        inner.split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    // Behind the head and its rule.
    Ok(section
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(cells)
        .collect())
}

/// The page names every command of the table that dispatches, and no other one as there.
#[test]
fn the_page_lists_the_commands_that_there_are() -> Result<()> {
    let page = page()?;
    let listed: BTreeSet<(String, String)> = rows(&page, "Commands")?
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let there: BTreeSet<(String, String)> = commands()
        .map(|command| {
            let action = command
                .action
                .map_or_else(String::new, |action| format!("/{action:02X}h"));
            (
                format!("{:02X}h{action}", command.opcode),
                command.name.to_owned(),
            )
        })
        .collect();
    for (code, name) in there.difference(&listed) {
        say(&format!("missing under Commands: | {code} | {name} | … |"));
    }
    for (code, name) in listed.difference(&there) {
        say(&format!("no such command: {code} {name}"));
    }
    ensure!(
        listed == there,
        "docs/conformance.md does not list the commands that there are"
    );
    let pages: BTreeSet<String> = rows(&page, "Vital product data")?
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let wanted: BTreeSet<String> = vpd_pages().map(|code| format!("{code:02X}h")).collect();
    ensure!(
        pages == wanted,
        "VPD pages on the page: {pages:?}; in the code: {wanted:?}"
    );
    Ok(())
}

/// What a run of the suite found.
#[derive(Debug, Default)]
struct Found {
    /// Tests that failed, as `Suite.Test`.
    failed: BTreeSet<String>,
    /// Reasons for leaving a test or a part of one out, with how often.
    skipped: BTreeMap<String, usize>,
    /// Tests that ran; 0 without a summary.
    ran: usize,
}

/// Reads the suite's report. A reason may share its line with what came before.
fn read(report: &str) -> Found {
    let mut found = Found::default();
    for line in report.lines() {
        if let Some((_, reason)) = line.split_once("[SKIPPED] ") {
            *found.skipped.entry(reason.trim().to_owned()).or_default() += 1;
        }
        if let Some((suite, rest)) = line
            .split_once("Suite ")
            .and_then(|(_, rest)| rest.split_once(", Test "))
            && let Some((test, _)) = rest.split_once(" had failures")
        {
            found.failed.insert(format!("{suite}.{test}"));
        }
        let mut words = line.split_whitespace();
        if words.next() == Some("tests") {
            found.ran = words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        }
    }
    found
}

#[test]
fn a_report_is_read() {
    let report = "Suite WriteSame10, Test UnmapUntilEnd had failures:\n 1. x.c:71 - CU_FAIL(\"y\")    [SKIPPED] SANITIZE is not \
                  implemented.\n    [SKIPPED] Media is not removable.\n    [SKIPPED] Media is not removable.\n\n\
                  Run Summary:    Type  Total    Ran Passed Failed Inactive\n               tests    282    281    280      1        0\n";
    let found = read(report);
    assert_eq!(
        found.failed,
        BTreeSet::from(["WriteSame10.UnmapUntilEnd".to_owned()])
    );
    assert_eq!(found.skipped["Media is not removable."], 2);
    assert_eq!(found.skipped["SANITIZE is not implemented."], 1);
    assert_eq!(found.ran, 281);
}

/// Runs every test of the suite once through the portals of both nodes: what fails or is left out must be on the page with its reason.
async fn conforms(demo: &Demo, first: &str, second: &str) -> Result<()> {
    let Some(suite) = tools::find("iscsi-test-cu", "libiscsi-bin") else {
        return Ok(());
    };
    let (first, second) = (demo.url(first)?.to_string(), demo.url(second)?.to_string());
    let arguments = ["-d", "-n", "--allow-sanitize", "-t", "ALL", &first, &second];
    let finished = tools::run(&suite, &arguments, LIMIT).await?;
    let found = read(&finished.out);
    ensure!(
        found.ran > 200,
        "the suite did not run to its end:\n{}{}",
        finished.out,
        finished.err
    );
    let page = page()?;
    let failures: BTreeSet<String> = rows(&page, "Tests that fail")?
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let skips: BTreeMap<String, usize> = rows(&page, "What the suite leaves out")?
        .into_iter()
        .map(|row| Ok((row[0].clone(), row[1].parse().context("a number of times")?)))
        .collect::<Result<_>>()?;
    for name in failures.difference(&found.failed) {
        say(&format!("{name} fails no more: take it off docs/conformance.md"));
    }
    let new: Vec<&String> = found.failed.difference(&failures).collect();
    ensure!(new.is_empty(), "failed: {new:?}\n{}", finished.out);
    for (reason, times) in &found.skipped {
        let allowed = skips.get(reason).copied().unwrap_or(0);
        ensure!(
            *times <= allowed,
            "left out {times} times, {allowed} are on docs/conformance.md: {reason}\n{}",
            finished.out
        );
    }
    let (ran, failed) = (found.ran, found.failed.len());
    let skipped: usize = found.skipped.values().sum();
    say(&format!(
        "libiscsi's suite: {ran} tests ran, {failed} failed, {skipped} lines of what is left out"
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_libiscsi_finds_what_the_page_says() -> Result<()> {
    let demo = Demo::start().await?;
    conforms(&demo, "a", "b").await
}

/// The same with forwarding (b is not the primary), and with a write cache.
#[tokio::test(flavor = "multi_thread")]
async fn the_suite_finds_the_same_with_a_write_cache_through_the_node_that_forwards() -> Result<()> {
    let demo = Demo::start().await?;
    let status = demo.wait_in_sync(LIMIT).await?;
    let extent = &status.extents.first().context("the demo's extent")?.name;
    let on = ["extent", "write-cache", extent, "on", "--admin", demo.admin("a")?];
    cluster::holdfast(&on).await?.success()?;
    conforms(&demo, "b", "a").await
}
