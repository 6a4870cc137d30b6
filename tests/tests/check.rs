//! `holdfast cluster check`, and what a node looks at before it joins: on loopback, and in a network in which ways are cut, and large
//! packets get lost.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_drill::ground::Network;
use holdfast_drill::initiator::Session;
use holdfast_tests::cluster::holdfast;
use holdfast_tests::lan::{Lan, MACHINES};
use holdfast_tests::machines::{Machines, voters};
use holdfast_tests::{say, tools};
use serde_json::Value;
use tokio::process::{Child, Command};

const LIMIT: Duration = Duration::from_secs(60);
/// Heartbeats and Raft of every machine.
const PORT: &str = "3262";

/// A check by the node behind this socket: its document, and whether all of it is ok.
async fn check(socket: &str) -> Result<(Value, bool)> {
    let done = holdfast(&["cluster", "check", "--json", "--admin", socket]).await?;
    let document: Value = serde_json::from_str(&done.out).with_context(|| done.err.clone())?;
    let is_ok = document["verdict"] == "ok";
    ensure!(
        done.code == Some(i32::from(!is_ok)),
        "{:?}: {document:#}",
        done.code
    );
    ensure!(is_ok == done.err.is_empty(), "{}", done.err);
    Ok((document, is_ok))
}

/// The lines of a kind, as verdict, about, and what was found.
fn lines<'a>(document: &'a Value, check: &str) -> Vec<(&'a str, &'a str, &'a str)> {
    let all = document["lines"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let text = |line: &'a Value, field: &str| line[field].as_str().unwrap_or_default();
    all.iter()
        .filter(|line| line["check"] == check)
        .map(|line| (text(line, "verdict"), text(line, "about"), text(line, "found")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_looks_and_one_that_is_gone_is_a_line() -> Result<()> {
    let mut m = Machines::trio().await?;
    let socket = |name: &str| m.path(name).join("admin.sock").to_string_lossy().into_owned();
    let (a, w) = (socket("a"), socket("w"));
    m.ask("a", &["extent", "create", "d", "--size", "64MiB"]).await?;
    m.until("a", "both in sync", |s| {
        s.extents.iter().all(|extent| extent.in_sync.len() == 2)
    })
    .await?;
    let began = Instant::now();
    let (document, _) = check(&a).await?;
    say(&format!("a check of three nodes took {:.2?}", began.elapsed()));
    let text = format!("{document:#}");
    ensure!(document["answered_by"] == "a", "{text}");
    for (kind, about) in [
        ("quorum", "c"),
        ("version", "releases"),
        ("clock", "a, b, w"),
        ("reach", "a - b, raft"),
        ("reach", "b - w, raft"),
        ("round trip", "a - w, heartbeat"),
        ("packets", "a - b, heartbeat"),
        ("packets", "a - b, replication"),
        ("replicas", "d"),
    ] {
        let found = lines(&document, kind);
        ensure!(
            found
                .iter()
                .any(|(verdict, place, _)| *verdict == "ok" && *place == about),
            "{kind} {about}: {text}"
        );
    }
    // What the disk under a test's directory is, is the machine's matter: that each node measured it is not.
    for kind in ["flush", "room"] {
        let about: Vec<&str> = lines(&document, kind).iter().map(|line| line.1).collect();
        ensure!(about == ["a", "b", "w"], "{kind}: {text}");
    }
    ensure!(lines(&document, "reach").len() == 3 && lines(&document, "round trip").len() == 4);
    m.kill("b").await?;
    let (document, is_ok) = check(&w).await?;
    let text = format!("{document:#}");
    ensure!(!is_ok && document["verdict"] == "failed", "{text}");
    let nodes = lines(&document, "node");
    ensure!(matches!(nodes[..], [("failed", "b", _)]), "{text}");
    let reach = lines(&document, "reach");
    ensure!(matches!(reach[..], [("ok", "a - w, raft", _)]), "{text}");
    let people = holdfast(&["cluster", "check", "--admin", &w]).await?;
    ensure!(
        people.code == Some(1)
            && people
                .out
                .contains("failed   node        b: it does not answer w"),
        "{}",
        people.out
    );
    ensure!(
        people.err.contains("not everything is as it should be"),
        "{}",
        people.err
    );
    Ok(())
}

/// Runs a program that takes these arguments on a machine, or, with none, in the switch between them.
fn run(network: &Network, machine: Option<&str>, words: &str) -> Result<()> {
    let (program, arguments) = match machine {
        Some(machine) => network.on(machine),
        None => network.on_switch(),
    };
    let output = std::process::Command::new(program)
        .args(arguments)
        .args(words.split(' '))
        .output()?;
    ensure!(
        output.status.success(),
        "{words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Sets the largest packet of a machine's interface; the port at the other end of its cable has its own.
fn mtu(network: &Network, machine: &str, interface: u32, port: u32) -> Result<()> {
    run(
        network,
        Some(machine),
        &format!("ip link set eth0 mtu {interface}"),
    )?;
    run(network, None, &format!("ip link set p-{machine} mtu {port}"))
}

fn socket(lan: &Lan, machine: &str) -> String {
    lan.dir()
        .join(machine)
        .join("admin.sock")
        .to_string_lossy()
        .into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn jumbo_frames_that_get_lost_and_hosts_with_one_path_are_told() -> Result<()> {
    let Some(lan) = Lan::start("64MiB").await? else {
        return Ok(());
    };
    let (document, _) = check(&socket(&lan, "a")).await?;
    let packets = lines(&document, "packets");
    ensure!(
        packets.len() == 4
            && packets
                .iter()
                .all(|(verdict, _, found)| *verdict == "ok" && found.contains("1500 bytes")),
        "{document:#}"
    );
    let one = Session::connect(&lan.dial("a")?).await?;
    let (document, _) = check(&socket(&lan, "w")).await?;
    let hosts = lines(&document, "hosts");
    ensure!(
        matches!(hosts[..], [("warning", _, found)] if found.contains("through a only")),
        "{document:#}"
    );
    let other = Session::connect(&lan.dial("b")?).await?;
    let (document, _) = check(&socket(&lan, "w")).await?;
    ensure!(
        matches!(lines(&document, "hosts")[..], [("ok", ..)]),
        "{document:#}"
    );
    drop((one, other));
    // Both think that 9000 bytes pass; the switch's port towards b takes 1500, and tells nobody.
    mtu(lan.network(), "a", 9000, 9000)?;
    mtu(lan.network(), "b", 9000, 1500)?;
    let began = Instant::now();
    let (document, is_ok) = check(&socket(&lan, "a")).await?;
    say(&format!(
        "a check with lost jumbo frames took {:.2?}",
        began.elapsed()
    ));
    let packets = lines(&document, "packets");
    let cut = packets
        .iter()
        .find(|(_, about, _)| *about == "a -> b, replication");
    ensure!(
        !is_ok
            && cut.is_some_and(|(verdict, _, found)| {
                *verdict == "failed"
                    && found.contains("packets of 9000 bytes")
                    && found.contains("above 1500 get lost")
            }),
        "{document:#}"
    );
    // w has 1500 still, which is no cut.
    let to_w: Vec<_> = packets
        .iter()
        .filter(|(_, about, _)| about.contains('w'))
        .collect();
    ensure!(
        to_w.iter().all(|(verdict, ..)| *verdict != "failed"),
        "{document:#}"
    );
    Ok(())
}

/// Starts a data node that belongs to no cluster yet on a machine.
async fn stranger(lan: &Lan, machine: &str) -> Result<Child> {
    let (network, home) = (lan.network(), lan.dir().join(machine));
    std::fs::create_dir_all(&home)?;
    let address = network.address(machine)?;
    let config = format!(
        "name = \"{machine}\"\nrole = \"data\"\ndir = \"{}\"\n[listen]\nraft = \"{address}:{PORT}\"\nheartbeat = \"{address}:{PORT}\"\n\
         replication = \"{address}:3263\"\nportals = [\"{address}:3260\"]\n",
        home.display()
    );
    let file = lan.dir().join(format!("{machine}.toml"));
    std::fs::write(&file, config)?;
    let (program, arguments) = network.on(machine);
    let mut command = Command::new(program);
    command.args(arguments).arg(tools::holdfast()?).arg("node");
    command.arg("--config").arg(&file).arg("--with-parent");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let node = command.kill_on_drop(true).spawn()?;
    let began = Instant::now();
    while !home.join("admin.sock").exists() {
        ensure!(began.elapsed() < LIMIT, "{machine} does not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_reach_a_member_is_not_let_in_and_nothing_is_changed() -> Result<()> {
    let machines = [&MACHINES[..], &["c"]].concat();
    let Some(network) = tools::or_left_out(Network::make(&machines))? else {
        return Ok(());
    };
    let lan = Lan::start_in(network, "64MiB").await?;
    let _c = stranger(&lan, "c").await?;
    let (a, c) = (socket(&lan, "a"), socket(&lan, "c"));
    let token = holdfast(&["cluster", "token", "--admin", &a]).await?.success()?;
    let token = token.lines().next().context("a token")?;
    let join = async |more: &[&str]| {
        let words = [&["cluster", "join", token, "--admin", &c], more].concat();
        holdfast(&words).await
    };
    let ways = [("c", "b"), ("b", "c")];
    let ports = [
        ("udp", "3262", "heartbeat"),
        ("tcp", "3263", "replication"),
        ("tcp", "3262", "raft"),
    ];
    for ((from, to), (protocol, port, network)) in ways.iter().flat_map(|way| ports.map(|port| (way, port))) {
        run(
            lan.network(),
            None,
            &format!(
                "nft add rule bridge cuts links iifname p-{from} oifname p-{to} {protocol} dport {port} drop"
            ),
        )?;
        let address = lan.network().address(to)?;
        for more in [&[][..], &["--force"]] {
            let refused = join(more).await?;
            let wanted = format!("the {network} address {address}:{port} of {to} does not answer {from}");
            ensure!(
                refused.code == Some(1)
                    && refused.err.contains(&wanted)
                    && refused.err.contains("Nothing was changed"),
                "{wanted}: {refused:?}"
            );
        }
        lan.network().heal()?;
    }
    // Both ends send jumbo frames, and the switch's port towards b drops them. Those that go to a and w are no trouble: they take 1500.
    mtu(lan.network(), "c", 9000, 9000)?;
    mtu(lan.network(), "b", 9000, 1500)?;
    let refused = join(&[]).await?;
    ensure!(
        refused.code == Some(1)
            && refused.err.contains("c sends packets of 9000 bytes")
            && refused.err.contains("above 1500 get lost")
            && refused.err.contains("--force"),
        "{}",
        refused.err
    );
    let status = lan.status().await?;
    ensure!(
        voters(&status) == MACHINES && status.nodes.len() == 3,
        "{status:?}"
    );
    mtu(lan.network(), "c", 1500, 1500)?;
    mtu(lan.network(), "b", 1500, 1500)?;
    // The token is as good as before.
    let began = Instant::now();
    let joined = join(&[]).await?;
    ensure!(
        joined.code == Some(0) && !joined.out.contains("Warning"),
        "{joined:?}"
    );
    say(&format!("a join took {:.2?}, until it votes", began.elapsed()));
    lan.wait_for("four voters", LIMIT, |status| voters(status).len() == 4)
        .await?;
    Ok(())
}
