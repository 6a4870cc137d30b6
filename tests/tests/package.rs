//! What is installed: the package's life in a bare Debian root, and the configuration of the containers, which are not run here.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::ground::Network;
use holdfast_tests::roots::Roots;
use holdfast_tests::{cluster, tools, tree};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);
const INSTALL: &str = "apt-get install --yes --allow-downgrades --reinstall ./holdfast_*.deb 2>&1";

/// What root types on the only machine.
async fn typed(roots: &mut Roots, text: &str) -> Result<String> {
    let done = roots.run("a", text).await?;
    done.success()
        .with_context(|| format!("{text}\n{}", roots.logs()))
}

/// The same until its output has these words.
async fn until(roots: &mut Roots, text: &str, words: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let done = roots.run("a", text).await?;
        if done.code == Some(0) && done.out.contains(words) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "{text}: never '{words}': {done:?}\n{}",
            roots.logs()
        );
        sleep(Duration::from_millis(200)).await;
    }
}

/// Installed without a configuration: enabled, not started, and it says why at every door.
async fn not_configured(roots: &mut Roots) -> Result<()> {
    let said = typed(roots, INSTALL).await?;
    ensure!(
        said.contains("not started: there is no /etc/holdfast/node.toml yet"),
        "{said}"
    );
    ensure!(!roots.is_running("a")?, "it was started");
    let enabled = typed(roots, "systemctl is-enabled holdfast.service").await?;
    ensure!(enabled.trim() == "enabled", "{enabled}");
    let refused = roots.run("a", "systemctl start holdfast").await?;
    ensure!(refused.code == Some(1) && !roots.is_running("a")?, "{refused:?}");
    let refused = roots.run("a", "holdfast node").await?;
    let says = "cannot read /etc/holdfast/node.toml";
    ensure!(
        refused.code == Some(1) && refused.err.contains(says),
        "{refused:?}"
    );
    let modes = typed(
        roots,
        "stat -c '%a %U' /usr/bin/holdfast && id -un holdfast && id -gn holdfast",
    )
    .await?;
    ensure!(modes == "755 root\nholdfast\nholdfast\n", "{modes}");
    Ok(())
}

/// The shipped example, with this machine's addresses, is a node that works: as the user holdfast, in directories that are its own.
async fn configured(roots: &mut Roots) -> Result<()> {
    let address = roots.network().address("a")?;
    let edit = format!(
        "sed -E 's/(192.0.2|198.51.100).1:/{address}:/' /usr/share/doc/holdfast/examples/node.toml >/etc/holdfast/node.toml"
    );
    typed(roots, &edit).await?;
    typed(roots, "systemctl start holdfast").await?;
    until(roots, "holdfast cluster init --name one", "").await?;
    until(roots, "holdfast status", "Cluster one").await?;
    typed(roots, "holdfast extent create disk --size 64MiB").await?;
    until(roots, "holdfast status", "every block is on a").await?;
    let owners = typed(roots, "stat -c '%a %U:%G' /var/lib/holdfast /run/holdfast").await?;
    ensure!(
        owners == "700 holdfast:holdfast\n750 holdfast:holdfast\n",
        "{owners}"
    );
    let refused = roots
        .run("a", "setpriv --reuid=nobody --clear-groups holdfast status")
        .await?;
    ensure!(refused.code == Some(1), "anybody administers it: {refused:?}");
    Ok(())
}

/// Installed anew while it runs: restarted where the cluster is well, left alone where it is not.
async fn upgraded(roots: &mut Roots) -> Result<()> {
    let id = typed(roots, "holdfast status --check; echo; cat /run/asked").await?;
    let healthy = id.starts_with("Healthy");
    let said = typed(roots, INSTALL).await?;
    let asked = typed(roots, "grep -c 'restart holdfast' /run/asked || true").await?;
    ensure!(healthy && asked.trim() == "1", "{id}\n{said}\n{asked}");
    until(roots, "holdfast status", "every block is on a").await?;
    // Nobody answers: that is not well.
    typed(roots, "mv /run/holdfast/admin.sock /run/holdfast/away").await?;
    let said = typed(roots, INSTALL).await?;
    ensure!(said.contains("the node was not restarted"), "{said}");
    ensure!(roots.is_running("a")?, "{}", roots.logs());
    typed(roots, "mv /run/holdfast/away /run/holdfast/admin.sock").await?;
    Ok(())
}

/// Removed and purged, and installed again: what the node stored is there, and so is the cluster.
async fn removed(roots: &mut Roots) -> Result<()> {
    typed(roots, "apt-get remove --yes holdfast 2>&1").await?;
    ensure!(!roots.is_running("a")?, "it still runs");
    let stored = "find /var/lib/holdfast -type f | sort";
    let before = typed(roots, stored).await?;
    ensure!(before.contains("extents/"), "{before}");
    let said = typed(roots, "apt-get purge --yes holdfast 2>&1").await?;
    ensure!(said.contains("holds what this node stored. It stays"), "{said}");
    ensure!(typed(roots, stored).await? == before, "files were deleted");
    typed(roots, "test -e /etc/holdfast/node.toml && id holdfast").await?;
    ensure!(
        !roots.path("a", "usr/bin/holdfast")?.exists(),
        "it is still there"
    );
    // Where it is configured, the package starts it.
    typed(roots, INSTALL).await?;
    until(roots, "holdfast status", "every block is on a").await?;
    // Without anything stored, a purge leaves nothing.
    typed(roots, "systemctl stop holdfast && rm -r /var/lib/holdfast").await?;
    typed(roots, "apt-get purge --yes holdfast 2>&1").await?;
    for place in [
        "etc/holdfast",
        "var/lib/holdfast",
        "etc/systemd/system/multi-user.target.wants/holdfast.service",
    ] {
        ensure!(
            roots.path("a", place)?.symlink_metadata().is_err(),
            "{place} is still there"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_package_is_installed_configured_upgraded_and_removed_and_never_takes_data_with_it() -> Result<()>
{
    let Some(network) = tools::or_left_out(Network::make(&["a"]))? else {
        return Ok(());
    };
    let Some(mut roots) = Roots::make(network, &["a"]).await? else {
        return Ok(());
    };
    not_configured(&mut roots).await?;
    configured(&mut roots).await?;
    upgraded(&mut roots).await?;
    removed(&mut roots).await
}

fn deploy(file: &str) -> Result<String> {
    let path = tree::root().join("deploy").join(file);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// What is listed in the package is there, and all of deploy/ is described on its page.
#[test]
fn every_file_of_deploy_is_described_and_every_file_of_the_package_is_there() -> Result<()> {
    let list = std::fs::read_to_string(tree::root().join("node/Cargo.toml"))?;
    let files = list.lines().filter_map(|line| line.trim().strip_prefix("[\"../"));
    let files: Vec<&str> = files.filter_map(|rest| rest.split('"').next()).collect();
    assert!(files.len() > 5, "{files:?}");
    for file in files.iter().filter(|file| !file.contains('*')) {
        assert!(tree::root().join(file).exists(), "{file} is not there");
    }
    let page = deploy("README.md")?;
    for file in std::fs::read_dir(tree::root().join("deploy"))? {
        let name = file?.file_name().to_string_lossy().into_owned();
        assert!(
            page.contains(&format!("]({name}")) || name == "README.md",
            "{name}"
        );
    }
    Ok(())
}

/// What a page has its readers type: lines of blocks, and what stands between backticks.
fn holdfast_commands(page: &str) -> Vec<&str> {
    let quoted = page.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let lines = page.lines().map(str::trim);
    let all = lines.chain(quoted).filter(|text| text.starts_with("holdfast "));
    all.filter(|text| !text.contains(['…', '|', '<', '`'])).collect()
}

/// The words of every command on the pages for operators are known to the binary: subcommands and options.
#[tokio::test]
async fn commands_on_the_pages_are_those_that_there_are() -> Result<()> {
    let mut count = 0;
    for path in [
        "docs/runbooks.md",
        "docs/quickstart.md",
        "docs/initiators.md",
        "deploy/README.md",
    ] {
        let page = std::fs::read_to_string(tree::root().join(path))?;
        for typed in holdfast_commands(&page) {
            let mut words: Vec<&str> = typed.split_whitespace().skip(1).collect();
            words.push("--help");
            let done = cluster::holdfast(&words).await?;
            let is_unknown = ["unrecognized subcommand", "unexpected argument"];
            ensure!(
                !is_unknown.iter().any(|words| done.err.contains(words)),
                "{path}: {typed}: {}",
                done.err
            );
            count += 1;
        }
    }
    ensure!(count > 30, "{count} commands");
    for wrong in ["cluster exit --help", "status --loud --help"] {
        let done = cluster::holdfast(&wrong.split(' ').collect::<Vec<_>>()).await?;
        ensure!(done.code == Some(2), "{wrong}: {done:?}");
    }
    Ok(())
}

/// A node of compose.yaml: its configuration with directory and socket of its own, on a machine that has the service's addresses.
async fn contained(network: &Network, dir: &Path, name: &str, service: &str) -> Result<Child> {
    let home = dir.join(name);
    std::fs::create_dir_all(&home)?;
    let text = deploy(&format!("compose/{name}.toml"))?
        .replace("/var/lib/holdfast", &home.display().to_string())
        .replace("/run/holdfast", &home.display().to_string());
    let config = dir.join(format!("{name}.toml"));
    std::fs::write(&config, text)?;
    for address in service.split("ipv4_address: ").skip(1) {
        let address = address.split([' ', '}']).next().context("an address")?;
        let (program, mut arguments) = network.on(name);
        arguments.extend(["ip", "addr", "add", &format!("{address}/24"), "dev", "eth0"].map(str::to_owned));
        tools::run(&program, &arguments, PATIENCE).await?.success()?;
    }
    let (program, arguments) = network.on(name);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(tools::holdfast()?)
        .args(["node", "--config"])
        .arg(&config);
    let log = std::fs::File::create(dir.join(format!("{name}.log")))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Ok(command.kill_on_drop(true).spawn()?)
}

/// The part of compose.yaml that describes a service.
fn service<'a>(compose: &'a str, name: &str) -> Result<&'a str> {
    let start = compose.find(&format!("\n  {name}:\n    <<: *node\n"));
    let rest = &compose[start.with_context(|| format!("no service {name}"))? + 3..];
    let end = rest
        .match_indices("\n  ")
        .find(|(at, _)| !rest[at + 3..].starts_with(' '));
    let end = end.map(|(at, _)| at).or_else(|| rest.find("\n\n"));
    Ok(&rest[..end.unwrap_or(rest.len())])
}

/// The three configurations of compose.yaml with the addresses that it gives them, and the commands at its top, as they stand there. The
/// containers themselves are not run.
#[tokio::test]
async fn the_containers_configuration_makes_a_cluster() -> Result<()> {
    let names = ["a", "b", "w"];
    let Some(network) = tools::or_left_out(Network::make(&names))? else {
        return Ok(());
    };
    let compose = deploy("compose.yaml")?;
    let dir = tempfile::tempdir()?;
    let mut nodes = Vec::new();
    for name in names {
        let service = service(&compose, name)?;
        ensure!(service.contains(&format!("\"{name}:/var/lib/holdfast\", \"./compose/{name}.toml:")));
        nodes.push(contained(&network, dir.path(), name, service).await?);
    }
    let lines = compose
        .lines()
        .filter_map(|line| line.split_once("compose exec "));
    let typed: Vec<&str> = lines.map(|(_, rest)| rest).collect();
    ensure!(typed.len() == 3, "{typed:?}");
    let (init, token, join) = (typed[0], typed[1], typed[2]);
    let mut last = String::new();
    for line in [init, token, join, token, &join.replacen('b', "w", 1)] {
        let line = line.replace("TOKEN", last.lines().next().unwrap_or_default());
        last = exec(dir.path(), &line).await?;
    }
    exec(dir.path(), "a holdfast extent create disk --size 64MiB").await?;
    let start = Instant::now();
    while !exec(dir.path(), "w holdfast status")
        .await?
        .contains("Healthy: every block is on a and b")
    {
        ensure!(start.elapsed() < PATIENCE, "never whole");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// `compose exec`, of the first word's service.
async fn exec(dir: &Path, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let [name, "holdfast", arguments @ ..] = words.as_slice() else {
        anyhow::bail!("no command of holdfast: {line}");
    };
    let socket = dir.join(name).join("admin.sock").display().to_string();
    let all = [arguments, &["--admin", &socket]].concat();
    let start = Instant::now();
    loop {
        let done = cluster::holdfast(&all).await?;
        if !done.err.contains("no node answers") || start.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
            return done.success().with_context(|| format!("{line}\n{log}"));
        }
        sleep(Duration::from_millis(200)).await;
    }
}
