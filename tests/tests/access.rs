//! Initiator groups and CHAP with other people's initiators: libiscsi's tools against a whole cluster.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_tests::cluster::Demo;
use holdfast_tests::tools::{self, Finished};

const LIMIT: Duration = Duration::from_secs(60);
const HOST: &str = "iqn.2026-11.example:host";
const STRANGER: &str = "iqn.2026-11.example:other";

async fn holdfast(demo: &Demo, arguments: &[&str]) -> Result<Finished> {
    let document = demo.document_now()?;
    let node = document.nodes.iter().find(|node| node.name == "a");
    let admin = &node.context("there is no node a")?.admin;
    let arguments = [arguments, &["--admin", admin]].concat();
    tools::run(&tools::holdfast()?, &arguments, LIMIT).await
}

async fn inquiry(tool: &Path, initiator: &str, url: &str) -> Result<Finished> {
    tools::run(tool, &["-i", initiator, url], LIMIT).await
}

/// The one host with its secret comes in and sees the target; nobody else does either.
async fn holds_on(demo: &Demo, node: &str, inq: &Path, ls: &Path) -> Result<()> {
    let portal = demo.portal(node)?;
    let target = demo.document_now()?.target;
    let url = |user: &str| format!("iscsi://{user}{portal}/{target}/0");
    inquiry(inq, HOST, &url("host%correct-horse@")).await?.success()?;
    for (initiator, user) in [
        (HOST, ""),
        (HOST, "host%wrong-horse-12@"),
        (HOST, "nobody%correct-horse@"),
        (STRANGER, "host%correct-horse@"),
    ] {
        let refused = inquiry(inq, initiator, &url(user)).await?;
        ensure!(refused.code != Some(0), "{node}: {initiator} {user} came in");
    }
    let list = async |initiator| {
        let url = format!("iscsi://{portal}");
        tools::run(ls, &["-i", initiator, &url], LIMIT).await?.success()
    };
    ensure!(list(HOST).await?.contains(&target), "{node} hides the target");
    ensure!(
        !list(STRANGER).await?.contains(&target),
        "{node} shows the target to a stranger"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_chap_hold_for_libiscsi_on_every_node() -> Result<()> {
    let (Some(inq), Some(ls)) = (
        tools::find("iscsi-inq", "libiscsi-bin"),
        tools::find("iscsi-ls", "libiscsi-bin"),
    ) else {
        return Ok(());
    };
    let demo = Demo::start_with("64MiB").await?;
    let target = demo.document_now()?.target;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("secret");
    std::fs::write(&file, "correct-horse\n")?;
    let secret = file.display().to_string();
    let url = |node: &str, user: &str| -> Result<String> {
        Ok(format!("iscsi://{user}{}/{target}/0", demo.portal(node)?))
    };
    inquiry(&inq, HOST, &url("a", "")?).await?.success()?;

    for arguments in [
        vec!["initiators", "create", "hosts", "--initiator", HOST],
        vec!["initiators", "change", "hosts", "--allow", &target],
        vec![
            "auth",
            "create",
            "host",
            "--group",
            "hosts",
            "--secret-file",
            &secret,
        ],
    ] {
        // Twice: nothing changes the second time, and nothing fails.
        holdfast(&demo, &arguments).await?.success()?;
        holdfast(&demo, &arguments).await?.success()?;
    }
    for node in ["a", "b"] {
        holds_on(&demo, node, &inq, &ls).await?;
    }
    let shown = holdfast(&demo, &["status", "--json"]).await?.success()?
        + &holdfast(&demo, &["auth", "list"]).await?.success()?
        + &holdfast(&demo, &["initiators", "show", "hosts", "--json"])
            .await?
            .success()?;
    ensure!(!shown.contains("correct-horse"), "a secret is shown: {shown}");
    ensure!(shown.contains("hosts") && shown.contains(HOST), "{shown}");
    let short = dir.path().join("short");
    std::fs::write(&short, "elevenbytes\n")?;
    let short = short.display().to_string();
    let refused = holdfast(
        &demo,
        &["auth", "create", "x", "--group", "hosts", "--secret-file", &short],
    )
    .await?;
    ensure!(
        refused.code == Some(1) && refused.err.contains("12 to 255"),
        "{refused:?}"
    );
    holdfast(&demo, &["initiators", "delete", "hosts"])
        .await?
        .success()?;
    let refused = inquiry(&inq, HOST, &url("a", "host%correct-horse@")?).await?;
    ensure!(refused.code != Some(0), "a target opens by itself");
    Ok(())
}
