//! What nodes keep in their directories, looked at from outside.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

use crate::cluster::{Demo, holdfast};

const LIMIT: Duration = Duration::from_secs(60);

/// Files below a node's directory, by path below it, in order. Sockets are none.
///
/// # Errors
/// A directory cannot be read.
pub fn files(dir: &Path, below: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir.join(below))? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name in UTF-8")?;
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(dir, &path)?);
        } else if kind.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Has every node take snapshots of the cluster state after a few entries, and waits until each has two.
///
/// # Errors
/// They do not come.
pub async fn snapshots_soon(demo: &Demo) -> Result<()> {
    for node in ["a", "b", "w"] {
        let file = demo.dir().join(node).join("node.toml");
        let text = std::fs::read_to_string(&file)?;
        demo.kill(node)?;
        std::fs::write(&file, text + "\n[raft]\nsnapshot_after = 16\n")?;
        demo.restart(node).await?;
        demo.wait_in_sync(LIMIT).await?;
    }
    let has_two = |node: &str| {
        let all = files(&demo.dir().join(node), "raft/snapshots")?;
        anyhow::Ok(all.iter().filter(|path| path.ends_with(".snapshot")).count() >= 2)
    };
    let name = demo.status().await?.extents[0].name.clone();
    let began = Instant::now();
    while !(has_two("a")? && has_two("b")? && has_two("w")?) {
        for confirmed in ["on", "off"] {
            let change = [
                "extent",
                "confirmed-reads",
                &name,
                confirmed,
                "--admin",
                demo.admin("a")?,
            ];
            holdfast(&change).await?.success()?;
        }
        ensure!(began.elapsed() < LIMIT, "no snapshots\n{}", demo.logs());
    }
    Ok(())
}
