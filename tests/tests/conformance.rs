//! The suite of libiscsi against a demo pair, and the page that says what it finds: `docs/conformance.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::initiator::Session;
use holdfast_drill::url::IscsiUrl;
use holdfast_scsi::{commands, vpd_pages};
use holdfast_tests::cluster::{self, Demo};
use holdfast_tests::suite::{self, Found};
use holdfast_tests::{say, tree};
use holdfast_types::BlockSize;

/// Headings of the page.
const FAILING: &str = "Tests that fail";
const FAILING_ON_LARGE_BLOCKS: &str = "Tests that fail on blocks of 4096 bytes";
/// For being in sync.
const LIMIT: Duration = Duration::from_secs(60);

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

/// Runs every test of the suite once through the portals of both nodes: what fails must be on the page below the heading `failing`, and
/// what is left out must be there, too, with the reasons.
async fn conforms(first: &IscsiUrl, second: &IscsiUrl, failing: &str) -> Result<()> {
    let (first, second) = (first.to_string(), second.to_string());
    let arguments = ["-d", "-n", "--allow-sanitize", "-t", "ALL", &first, &second];
    let Some((found, report)) = suite::run(&arguments).await? else {
        return Ok(());
    };
    ensure!(found.ran > 200, "only {} tests ran:\n{report}", found.ran);
    let page = page()?;
    let failures: BTreeSet<String> = rows(&page, failing)?
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    for name in failures.difference(&found.failed) {
        say(&format!("{name} fails no more: take it off docs/conformance.md"));
    }
    let new: Vec<&String> = found.failed.difference(&failures).collect();
    ensure!(new.is_empty(), "failed: {new:?}\n{report}");
    leaves_out_what_the_page_says(&page, &found, &report)?;
    told(&found);
    Ok(())
}

fn leaves_out_what_the_page_says(page: &str, found: &Found, report: &str) -> Result<()> {
    let skips: BTreeMap<String, usize> = rows(page, "What the suite leaves out")?
        .into_iter()
        .map(|row| Ok((row[0].clone(), row[1].parse().context("a number of times")?)))
        .collect::<Result<_>>()?;
    for (reason, times) in &found.skipped {
        let allowed = skips.get(reason).copied().unwrap_or(0);
        ensure!(
            *times <= allowed,
            "left out {times} times, {allowed} are on docs/conformance.md: {reason}\n{report}",
        );
    }
    Ok(())
}

fn told(found: &Found) {
    let (ran, failed, left_out) = (found.ran, found.failed.len(), found.left_out());
    say(&format!(
        "libiscsi's suite: {ran} tests ran, {failed} failed, {left_out} lines of what is left out"
    ));
}

async fn admin(demo: &Demo, arguments: &[&str]) -> Result<()> {
    let arguments = [arguments, &["--admin", demo.admin("a")?]].concat();
    cluster::holdfast(&arguments).await?.success().map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_libiscsi_finds_what_the_page_says() -> Result<()> {
    let demo = Demo::start().await?;
    conforms(&demo.url("a")?, &demo.url("b")?, FAILING).await
}

/// The same with forwarding (b is not the primary), and with a write cache.
#[tokio::test(flavor = "multi_thread")]
async fn the_suite_finds_the_same_with_a_write_cache_through_the_node_that_forwards() -> Result<()> {
    let demo = Demo::start().await?;
    let status = demo.wait_in_sync(LIMIT).await?;
    let extent = &status.extents.first().context("the demo's extent")?.name;
    admin(&demo, &["extent", "write-cache", extent, "on"]).await?;
    conforms(&demo.url("b")?, &demo.url("a")?, FAILING).await
}

/// SANITIZE goes on through every kind of reset, and through the end of the session that asked for it. With one path: see the page.
#[tokio::test(flavor = "multi_thread")]
async fn the_suite_resets_a_unit_that_is_sanitized() -> Result<()> {
    // So much that it is not over while the suite looks on, five seconds, and is after the minute for which it sleeps then.
    let demo = Demo::start_with("3GiB").await?;
    let url = demo.url("b")?.to_string();
    let arguments = ["-d", "-n", "--allow-sanitize", "-t", "ALL.Sanitize.Reset", &url];
    let Some((found, report)) = suite::run(&arguments).await? else {
        return Ok(());
    };
    ensure!(
        found.ran == 1 && found.failed.is_empty() && found.left_out() == 0,
        "{report}"
    );
    told(&found);
    Ok(())
}

/// A LUN of 4096-byte blocks beside the demo's own, through both nodes.
async fn large_blocks(demo: &Demo) -> Result<(IscsiUrl, IscsiUrl)> {
    const LUN: u16 = 1;
    let target = &demo.document().target;
    let create = [
        "extent",
        "create",
        "large",
        "--size",
        "1GiB",
        "--block-size",
        "4096",
    ];
    admin(demo, &create).await?;
    admin(demo, &["lun", "create", target, "large", "--lun", "1"]).await?;
    demo.wait_in_sync(LIMIT).await?;
    let (first, second) = (demo.dial_lun("a", LUN)?, demo.dial_lun("b", LUN)?);
    let size = Session::connect(&first).await?.capacity().block_size;
    ensure!(size == BlockSize::B4096, "blocks of {size:?}");
    Ok((first.url, second.url))
}

/// The same on blocks of 4096 bytes.
#[tokio::test(flavor = "multi_thread")]
async fn the_suite_finds_the_same_on_large_blocks() -> Result<()> {
    let demo = Demo::start().await?;
    let (first, second) = large_blocks(&demo).await?;
    conforms(&first, &second, FAILING_ON_LARGE_BLOCKS).await
}

/// Where the suite's own faults are mended (see the page), nothing fails on blocks of either size.
#[tokio::test(flavor = "multi_thread")]
async fn the_suite_without_its_own_faults_fails_nothing() -> Result<()> {
    let demo = Demo::start().await?;
    let large = large_blocks(&demo).await?;
    let page = page()?;
    for (first, second) in [(demo.url("b")?, demo.url("a")?), large] {
        let (first, second) = (first.to_string(), second.to_string());
        let arguments = ["-d", "-n", "--allow-sanitize", "-t", "ALL", &first, &second];
        let Some((found, report)) = suite::run_mended(&arguments).await? else {
            return Ok(());
        };
        ensure!(found.ran > 200 && found.failed.is_empty(), "{report}");
        leaves_out_what_the_page_says(&page, &found, &report)?;
        told(&found);
    }
    Ok(())
}
