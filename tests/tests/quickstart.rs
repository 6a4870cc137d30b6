//! docs/quickstart.md, run as it stands: the project's package in three bare Debian roots on a network of their own, nodes started by the
//! unit's own `ExecStart` line, and a real Linux host, the guest of the multipath tests.
//!
//! What is not as on a reader's machines: addresses are those of the test's network; systemd is stood for ([`holdfast_tests::roots`] says
//! how); the guest has open-iscsi and multipath-tools already, with the values of deploy/iscsid.conf, so that `apt install` there is a look
//! whether they are there, after which multipathd reads its configuration anew; and a reader's slowness is made up for by patience: a
//! command is tried again while the node does not answer yet, and a map may take a moment to appear.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::ground::Network;
use holdfast_tests::guest::Guest;
use holdfast_tests::roots::Roots;
use holdfast_tests::{say, tools, tree};
use tokio::time::{Instant, sleep};

const MACHINES: [&str; 3] = ["a", "b", "w"];
const HOST: &str = "host";
const PATIENCE: Duration = Duration::from_secs(60);
const HOST_LIMIT: Duration = Duration::from_secs(240);
/// What the issue of this page allows, and what the page promises.
const COMMANDS_MAX: usize = 20;

/// A command of the page.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    /// The machines that it is typed on.
    places: Vec<String>,
    text: String,
    /// Lines that must be in its output.
    shown: Vec<String>,
}

/// The machines that a line like `On **a** and **b**:` names.
fn places(line: &str) -> Option<Vec<String>> {
    let rest = line.strip_prefix("On ").filter(|_| line.ends_with(':'))?;
    Some(rest.split("**").skip(1).step_by(2).map(str::to_owned).collect())
}

/// The commands of a block: one a line, with its here-document.
fn commands(block: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut in_document = false;
    for line in block {
        match found.last_mut().filter(|_| in_document) {
            Some(last) => *last += &format!("\n{line}"),
            None => found.push((*line).to_owned()),
        }
        in_document = (in_document && *line != "END") || line.ends_with("<<'END'");
    }
    found
}

/// All commands of a page, in order.
fn read(page: &str) -> Result<Vec<Typed>> {
    let mut typed: Vec<Typed> = Vec::new();
    let mut here: Option<Vec<String>> = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            here = places(line).or_else(|| here.filter(|_| line.is_empty()));
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if kind == "text" {
            let last = typed.last_mut().context("output of no command")?;
            last.shown = block.into_iter().map(str::to_owned).collect();
            continue;
        }
        let places = here
            .take()
            .with_context(|| format!("nothing says where this is typed: {block:?}"))?;
        for text in commands(&block) {
            let (places, shown) = (places.clone(), Vec::new());
            typed.push(Typed { places, text, shown });
        }
    }
    Ok(typed)
}

fn page() -> Result<String> {
    Ok(std::fs::read_to_string(tree::root().join("docs/quickstart.md"))?)
}

/// How often something is typed until the disk is mounted.
fn until_mounted(page: &[Typed]) -> Result<usize> {
    let mount = page.iter().position(|typed| typed.text.starts_with("mount "));
    let mount = mount.context("nothing is mounted")?;
    Ok(page[..=mount].iter().map(|typed| typed.places.len()).sum())
}

#[test]
fn the_page_is_as_short_as_it_says() -> Result<()> {
    let text = page()?;
    let count = until_mounted(&read(&text)?)?;
    assert!(count < COMMANDS_MAX, "{count}");
    assert!(text.contains("nineteen until the disk is mounted"));
    assert_eq!(count, 19);
    let found = read("On **a** and **b**, both:\n\n```\nx <<'END'\n1\nEND\ny\n```\n\n```text\nz\n```\n")?;
    let typed = |text: &str, shown: &[&str]| Typed {
        places: vec!["a".into(), "b".into()],
        text: text.into(),
        shown: shown.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(found, [typed("x <<'END'\n1\nEND", &[]), typed("y", &["z"])]);
    assert!(read("Then:\n\n```\nx\n```\n").is_err());
    Ok(())
}

/// The settings that the page gives multipath are those that are shipped.
#[test]
fn the_pages_settings_of_multipath_are_the_shipped_ones() -> Result<()> {
    let shipped = std::fs::read_to_string(tree::root().join("deploy/multipath.conf"))?;
    let shipped: Vec<&str> = shipped
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let text = page()?;
    assert!(text.contains(&shipped.join("\n")), "{shipped:#?}");
    Ok(())
}

/// The page's machines at work.
struct World {
    roots: Roots,
    /// `None`: the host's commands are left out.
    host: Option<Guest>,
    /// What `cluster token` printed last.
    token: String,
    /// The first three bytes of all addresses, with dots.
    subnet: String,
}

impl World {
    async fn make() -> Result<Option<Self>> {
        let Some(mut network) = tools::or_left_out(Network::make(&MACHINES))? else {
            return Ok(None);
        };
        let host = Guest::boot(&mut network).await?;
        let address = network.address("a")?.to_string();
        let Some(roots) = Roots::make(network, &MACHINES).await? else {
            return Ok(None);
        };
        let subnet = address
            .strip_suffix('1')
            .context("an address that ends with 1")?
            .to_owned();
        // Nodes' network: the test's own addresses. iSCSI: the same plus 100.
        for (number, machine) in (1..).zip(["a", "b"]) {
            roots
                .add_address(machine, &format!("{subnet}10{number}/24"))
                .await?;
        }
        let token = String::new();
        Ok(Some(Self {
            roots,
            host,
            token,
            subnet,
        }))
    }

    /// A command with the addresses of this network, and with the token.
    fn with_own_names(&self, text: &str) -> String {
        let architecture = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        text.replace("192.0.2.", &self.subnet)
            .replace("198.51.100.", &format!("{}10", self.subnet))
            .replace("TOKEN", &self.token)
            .replace("_amd64.deb", &format!("_{architecture}.deb"))
    }

    /// What a command printed on one machine.
    async fn once(&mut self, place: &str, text: &str) -> Result<String> {
        let text = self.with_own_names(text);
        if place != HOST {
            let done = self.roots.run(place, &text).await?;
            return done.success();
        }
        let Some(host) = &self.host else {
            return Ok(String::new());
        };
        if let Some(packages) = text.strip_prefix("apt install --yes ") {
            return host
                .run(
                    &format!("dpkg -s {packages} >/dev/null && multipathd reconfigure"),
                    HOST_LIMIT,
                )
                .await;
        }
        if let Some(map) = text.split(' ').find(|word| word.starts_with("/dev/mapper/")) {
            let wait = format!(
                "for i in $(seq 300); do [ -e {map} ] && exit 0; sleep .1; done; multipath -ll; exit 1"
            );
            host.run(&wait, HOST_LIMIT).await?;
        }
        host.run(&text, HOST_LIMIT).await
    }

    /// The same with a reader's patience.
    async fn type_in(&mut self, place: &str, typed: &Typed) -> Result<()> {
        let start = Instant::now();
        loop {
            let done = self.once(place, &typed.text).await;
            let is_early = match &done {
                Ok(out) => !typed.shown.iter().all(|line| out.contains(line.as_str())),
                Err(error) => error.to_string().contains("no node answers"),
            };
            if place == HOST && self.host.is_none() {
                return Ok(());
            }
            if is_early && start.elapsed() < PATIENCE {
                sleep(Duration::from_millis(200)).await;
                continue;
            }
            let out = done.with_context(|| format!("on {place}: {}\n{}", typed.text, self.roots.logs()))?;
            ensure!(
                !is_early,
                "on {place}: {} never shows {:?}, but {out}",
                typed.text,
                typed.shown
            );
            if typed.text == "holdfast cluster token" {
                out.lines().next().context("a token")?.clone_into(&mut self.token);
            }
            return Ok(());
        }
    }
}

#[tokio::test]
async fn the_page_leads_from_bare_machines_to_a_mounted_disk() -> Result<()> {
    let page = read(&page()?)?;
    let Some(mut world) = World::make().await? else {
        return Ok(());
    };
    if world.host.is_none() {
        say("left out: the host's commands of the page");
    }
    let start = Instant::now();
    for typed in &page {
        for place in &typed.places {
            world.type_in(place, typed).await?;
        }
        if typed.text.starts_with("mount ") {
            say(&format!(
                "from the package to the mounted disk: {} commands, {:.0} s",
                until_mounted(&page)?,
                start.elapsed().as_secs_f64()
            ));
            if let Some(host) = &world.host {
                host.has_maps(1).await?;
            }
        }
    }
    for machine in MACHINES {
        ensure!(
            world.roots.is_running(machine)?,
            "{machine}: {}",
            world.roots.logs()
        );
    }
    Ok(())
}
