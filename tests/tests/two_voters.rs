//! Two nodes without a witness: allowed, and told plainly what that means.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_tests::cluster;
use holdfast_tests::tools;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// Configuration of a data node whose ports begin at `port`.
fn config(name: &str, dir: &Path, port: u16) -> String {
    let address = |offset: u16| format!("127.0.0.1:{}", port + offset);
    format!(
        "name = \"{name}\"\nrole = \"data\"\ndir = \"{}\"\n\n[listen]\nraft = \"{}\"\nheartbeat = \"{}\"\nreplication = \"{}\"\n\
         portals = [\"{}\"]\n\n[admin]\ntcp = \"{}\"\nopen_loopback = true\n",
        dir.display(),
        address(1),
        address(1),
        address(2),
        address(0),
        address(3)
    )
}

/// Starts a node; it ends with the handle.
fn node(name: &str, dir: &Path, port: u16) -> Result<Child> {
    std::fs::create_dir_all(dir.join(name))?;
    let file = dir.join(format!("{name}.toml"));
    std::fs::write(&file, config(name, &dir.join(name), port))?;
    let log = std::fs::File::create(dir.join(format!("{name}.log")))?;
    let mut command = Command::new(tools::holdfast()?);
    command.arg("node").arg("--config").arg(&file);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true);
    Ok(command.spawn()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_init_of_two_voters_says_that_nothing_fails_over_by_itself() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let base = cluster::free_ports()?;
    let _nodes = [node("a", dir.path(), base)?, node("b", dir.path(), base + 5)?];
    let [a, b] = [base + 3, base + 8].map(|port| format!("127.0.0.1:{port}"));
    let init = ["cluster", "init", "--name", "pair", "--admin", &a, "--member", &b];
    let start = Instant::now();
    let done = loop {
        let done = cluster::holdfast(&init).await?;
        if done.code == Some(0) {
            break done;
        }
        let log = std::fs::read_to_string(dir.path().join("a.log"))?;
        ensure!(
            start.elapsed() < Duration::from_secs(30),
            "init: {}\na: {log}",
            done.err
        );
        sleep(Duration::from_millis(200)).await;
    };
    let said = format!("{}{}", done.out, done.err);
    assert!(said.contains("nothing will fail over by itself"), "{said}");
    Ok(())
}
