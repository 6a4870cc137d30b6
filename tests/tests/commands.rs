//! Every command that changes something: killed at any moment, run again, run once more, and given what makes no sense.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::{Demo, begin};
use holdfast_tests::tools::{self, Finished};
use holdfast_tests::{say, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(90);
/// About as long as a command takes, from its start to its end.
const COMMAND_MS: u64 = 60;

/// What a command says that is run once more after it was done.
#[derive(Debug, Clone, Copy)]
enum Again {
    /// That it is done.
    Done,
    /// That it cannot be done twice, with these words.
    Refused(&'static str),
}
use Again::{Done, Refused};

/// Commands in an order that makes sense, with what they say the second time.
const STEPS: &[(&str, Again)] = &[
    ("cluster set failback-after 30s", Done),
    ("cluster unset failback-after", Done),
    ("cluster token", Done),
    (
        "cluster certificate {dir}/viewer.pem --role viewer",
        Refused("is there already"),
    ),
    ("cluster rotate-certificates", Done),
    ("cluster readdress", Done),
    ("api-token create ci --role viewer", Refused("exists already")),
    ("api-token revoke ci", Done),
    ("extent create x --size 8MiB", Refused("exists already")),
    ("extent write-cache x on", Done),
    ("extent confirmed-reads x on", Done),
    ("extent set x --preferred b", Done),
    ("extent set x --secondary standby", Done),
    ("extent resize x --size 16MiB", Done),
    ("extent write-cache x off", Done),
    ("extent replicas x a", Done),
    ("extent replicas x a,b", Done),
    ("extent scrub x", Done),
    ("target create {other}", Done),
    ("target change {other} --restricted true --max-sessions 9", Done),
    ("initiators create g --initiator iqn.2026-11.example:h", Done),
    (
        "initiators change g --allow {other} --add-network 127.0.0.0/8",
        Done,
    ),
    ("auth create u --group g --secret-file {dir}/secret", Done),
    ("lun create {other} x --lun 3", Done),
    ("lun change {other} --lun 3 --read-only true", Done),
    ("lun create {other} x --lun 5 --group g", Done),
    ("lun share {other} --group g", Done),
    ("lun delete {other} --lun 3", Refused("has no LUN 3")),
    ("auth delete u --group g", Done),
    ("initiators delete g", Done),
    ("target delete {other}", Refused("there is no target")),
    ("extent set x --name y", Refused("there is no extent 'x'")),
    ("extent delete y --confirm y", Refused("there is no extent 'y'")),
    ("isns create 127.0.0.1:9", Done),
    ("isns delete 127.0.0.1:9", Done),
    ("cluster drain b", Done),
    ("cluster undrain b", Done),
    ("switchover --all --to b", Done),
    ("switchover disk --to a", Done),
    ("reservation clear {target} --lun 0", Done),
    ("session close {session}", Done),
    ("fault put link:b delay=1ms --for 500ms", Done),
    ("fault heal", Done),
];

/// Commands that change nothing in a cluster.
const LOOKING: &[&str] = &[
    "advise",
    "api-token list",
    "audit",
    "auth list",
    "cluster check",
    "cluster members",
    "cluster show",
    "device list",
    "events",
    "export",
    "extent list",
    "extent show",
    "import lio",
    "import scst",
    "initiators list",
    "initiators show",
    "isns list",
    "portal list",
    "reservation list",
    "reservation show",
    "session list",
    "status",
    "target list",
    "why",
];

/// Commands whose deaths other tests are about, and which.
const ELSEWHERE: &[(&str, &str)] = &[
    ("apply", "apply"),
    (
        "bench",
        "conformance and the benchmarks; it writes as an initiator does",
    ),
    ("bench failover", "bench_failover"),
    ("cluster init", "replaced; quickstart and members"),
    ("cluster join", "replaced and members"),
    ("cluster leave", "replaced and members"),
    ("cluster takeover", "takeover"),
    ("demo", "demo"),
    ("device add", "devices"),
    ("device remove", "devices"),
    ("demo restart", "demo"),
    ("drill", "drill and live_drill"),
    ("drill chaos", "chaos"),
    ("drill watch", "watch"),
    ("extent accept-data-loss", "takeover"),
    ("extent import", "import"),
    ("node", "kills"),
    ("support", "support; it writes an archive, and changes nothing"),
];

/// What makes no sense, and what the line about it names: the field and what is allowed.
const WRONG: &[(&str, &[&str])] = &[
    (
        "cluster set failback 30s",
        &["failback", "lease-time, failback-after"],
    ),
    (
        "cluster set failback-after soon",
        &["failback-after", "5s to 86400s"],
    ),
    (
        "cluster unset failback",
        &["failback", "lease-time, failback-after"],
    ),
    ("cluster token --valid 0", &["--valid", "60 to 604800"]),
    ("cluster certificate {dir}/missing/c.pem", &["missing/c.pem"]),
    (
        "cluster certificate {dir}/c.pem --role boss",
        &["--role", "viewer, operator or admin"],
    ),
    (
        "cluster certificate {dir}/c.pem --name A",
        &["name", "a-z, 0-9 and -"],
    ),
    ("cluster rotate-certificates now", &["'now'"]),
    ("cluster readdress b", &["'b'"]),
    ("api-token create CI --role viewer", &["name", "a-z, 0-9 and -"]),
    (
        "api-token create ci --role boss",
        &["--role", "viewer, operator or admin"],
    ),
    (
        "api-token create ci --role viewer --days 0",
        &["--days", "1 to 3650"],
    ),
    ("api-token revoke", &["<NAME>"]),
    ("extent create X --size 8MiB", &["name", "lower-case letter"]),
    (
        "extent create x --size 8000",
        &["8000", "1048576 to 17592186044416 bytes"],
    ),
    (
        "extent create x --size 8MiB --block-size 1024",
        &["--block-size", "512 or 4096"],
    ),
    ("extent create x --size 8MiB --replicas a,z", &["'z'", "a, b, w"]),
    (
        "extent create x --size 8MiB --preferred w",
        &["preferred", "are a, b"],
    ),
    ("extent create x", &["--size"]),
    (
        "extent create x --size 8MiB --on-devices",
        &["a has no blank device", "device add"],
    ),
    ("device add {dir}/secret", &["no block device"]),
    ("device add secret", &["whole path", "/dev/disk/by-id"]),
    ("device remove {dir}/secret", &["no device", "device list"]),
    ("extent write-cache nobody on", &["'nobody'", "extent list"]),
    ("extent write-cache disk maybe", &["maybe", "on, off"]),
    ("extent confirmed-reads nobody on", &["'nobody'", "extent list"]),
    ("extent set disk --preferred z", &["'z'", "a, b, w"]),
    ("extent set disk --preferred w", &["preferred", "are a, b"]),
    (
        "extent set disk --secondary maybe",
        &["secondary", "non-optimized or standby"],
    ),
    ("extent set disk --name A", &["name", "lower-case letter"]),
    ("extent set disk", &["--preferred, --secondary or --name"]),
    ("extent resize disk --size 1MiB", &["only grows", "67108864"]),
    ("extent resize disk --size big", &["--size", "20G"]),
    ("extent replicas disk z", &["'z'", "a, b, w"]),
    ("extent replicas disk w", &["'w'", "witness"]),
    ("extent scrub nobody", &["'nobody'", "extent list"]),
    ("extent delete disk", &["--confirm disk"]),
    ("target create store", &["<IQN>", "iqn., eui. or naa."]),
    (
        "target change {target} --max-sessions many",
        &["--max-sessions", "0 to 4294967295"],
    ),
    ("target change {other} --restricted true", &["there is no target"]),
    ("target delete {target}", &["in use: 1 LUNs"]),
    ("lun create {target} disk --lun 99999", &["--lun", "0 to 16383"]),
    ("lun create {target} nobody --lun 3", &["'nobody'", "extent list"]),
    (
        "lun change {target} --lun 77 --read-only true",
        &["has no LUN 77"],
    ),
    ("lun delete {target} --lun 77", &["has no LUN 77"]),
    ("lun share {target} --group no", &["'no'"]),
    (
        "initiators create g --initiator host",
        &["initiator 'host'", "iqn., eui. or naa."],
    ),
    (
        "initiators create g --any-initiator --network 1.2.3.4/99",
        &["1.2.3.4/99", "10.1.0.0/16"],
    ),
    ("initiators change no --read-only true", &["'no'"]),
    ("initiators delete", &["<NAME>"]),
    (
        "auth create u --discovery --secret-file {dir}/short",
        &["12 to 255 bytes"],
    ),
    ("auth create u", &["--group", "--discovery"]),
    ("auth delete u --group no", &["'no'", "initiators list"]),
    ("isns create here", &["'here'", "192.0.2.5:3205"]),
    ("isns delete here", &["'here'", "192.0.2.5:3205"]),
    ("cluster drain z", &["'z'", "a, b, w"]),
    ("cluster drain w", &["'w'", "witness"]),
    ("cluster undrain z", &["'z'", "a, b, w"]),
    ("switchover disk --to z", &["'z'", "a, b, w"]),
    ("switchover disk --to w", &["'w'", "witness"]),
    ("switchover --to a", &["EXTENT", "--all"]),
    (
        "reservation clear {target} --lun 77",
        &["no LUN 77", "target list"],
    ),
    ("session close x", &["<IDS>", "number from 1"]),
    (
        "fault put disk cut --for 1s",
        &["'disk'", "link:NODE", "disk:NAME"],
    ),
    ("fault put link:b cut --for 10m", &["--for", "2s"]),
    ("fault heal x", &["'x'", "link:NODE"]),
];

/// The demo, and what stands for `{…}` in a line.
struct Stage<'a> {
    demo: &'a Demo,
    dir: String,
    target: String,
    session: String,
}

impl<'a> Stage<'a> {
    fn new(demo: &'a Demo, dir: &std::path::Path) -> Result<Self> {
        std::fs::write(dir.join("secret"), "correct-horse-1\n")?;
        std::fs::write(dir.join("short"), "short\n")?;
        Ok(Self {
            demo,
            dir: dir.to_str().context("a path in UTF-8")?.to_owned(),
            target: demo.document_now()?.target,
            session: "1".into(),
        })
    }

    /// A line's words, and which node is asked.
    fn words(&self, line: &str) -> Result<Vec<String>> {
        let place = |word: &str| {
            word.replace("{dir}", &self.dir)
                .replace("{target}", &self.target)
                .replace("{other}", "iqn.2026-11.example:other")
                .replace("{session}", &self.session)
        };
        let mut words: Vec<String> = line.split_whitespace().map(place).collect();
        words.extend(["--admin".into(), self.demo.admin("a")?.to_owned()]);
        Ok(words)
    }

    async fn run(&self, line: &str) -> Result<Finished> {
        tools::run(&tools::holdfast()?, &self.words(line)?, LIMIT).await
    }

    /// Starts it and kills it that much later; whether it had ended before.
    async fn killed(&self, line: &str, after: Duration) -> Result<bool> {
        let mut child = begin(self.words(line)?)?;
        sleep(after).await;
        child.start_kill()?;
        Ok(child.wait().await?.code().is_some())
    }

    /// A node dies while it runs, and is asked back.
    async fn node_dies(&self, line: &str, node: &str, after: Duration) -> Result<()> {
        let dies = async {
            sleep(after).await;
            self.demo.kill(node)
        };
        let (ended, died) = tokio::join!(self.run(line), dies);
        let ended = ended?;
        died?;
        ensure!(
            ended.code == Some(0) || ended.err.lines().count() == 1,
            "'{line}', {node} killed: {ended:?}"
        );
        self.demo.restart(node).await
    }

    /// Runs it until it is done. With `patience` the cluster may be without a quorum for a while.
    async fn done(&self, line: &str, again: Again, patience: bool) -> Result<()> {
        let start = Instant::now();
        loop {
            let ended = self.run(line).await?;
            if ended.code == Some(0) || is_as_told(&ended, again) {
                return Ok(());
            }
            ensure!(patience && start.elapsed() < LIMIT, "'{line}': {ended:?}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// What is configured, as all nodes have it once they are as far as each other.
    async fn all(&self) -> Result<String> {
        let start = Instant::now();
        loop {
            let mut seen = BTreeSet::new();
            for node in ["a", "b", "w"] {
                let admin = self.demo.admin(node)?;
                let binary = tools::holdfast()?;
                let mut text = String::new();
                for what in [&["export"][..], &["api-token", "list"]] {
                    let words = [what, &["--admin", admin]].concat();
                    text += &tools::run(&binary, &words, LIMIT).await?.out;
                }
                seen.insert(text);
            }
            match seen.pop_first() {
                Some(text) if seen.is_empty() && text.contains("format = 1") => return Ok(text),
                other => ensure!(start.elapsed() < LIMIT, "the nodes differ: {other:?} {seen:?}"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A session of the load at a.
    async fn some_session(&mut self) -> Result<()> {
        let listed = self.run("session list --json").await?.success()?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let id = &listed[0]["id"];
        ensure!(id.is_u64(), "no session of the load at a: {listed}");
        self.session = id.to_string();
        Ok(())
    }
}

fn is_as_told(ended: &Finished, again: Again) -> bool {
    match again {
        Done => ended.code == Some(0),
        Refused(words) => {
            ended.code == Some(1) && ended.err.contains(words) && ended.err.lines().count() == 1
        }
    }
}

/// One command: killed a few times, and now and then a node with it; then done, and done once more.
async fn step(stage: &mut Stage<'_>, random: &mut StdRng, rounds: u32, number: usize) -> Result<u32> {
    let (line, again) = STEPS[number];
    if line.contains("{session}") {
        stage.some_session().await?;
    }
    let mut moment = || Duration::from_millis(random.random_range(0..COMMAND_MS));
    let mut died = 0;
    for _ in 0..rounds * 2 {
        died += u32::from(!stage.killed(line, moment()).await?);
    }
    // Every command meets a node's death within seven seeds.
    let node = (u32::try_from(number)? + seed::number("HOLDFAST_NODES", 0)).is_multiple_of(7);
    if node {
        let name = ["a", "b", "w"][number % 3];
        let after = moment();
        stage.node_dies(line, name, after).await?;
        say(&format!("'{line}': {name} killed after {after:?}"));
    }
    stage.done(line, again, node).await?;
    let before = stage.all().await?;
    let ended = stage.run(line).await?;
    ensure!(is_as_told(&ended, again), "'{line}', once more: {ended:?}");
    let after = stage.all().await?;
    ensure!(
        before == after,
        "'{line}', once more, changes something: {before}\n---\n{after}"
    );
    Ok(died)
}

/// Each is killed at random moments, and some while a node dies, under checked load: then it can be repeated, is done, and done once more
/// it changes nothing; in the end the cluster is whole, and no block is lost. `HOLDFAST_ROUNDS` (1) says how often, `HOLDFAST_NODES` (0
/// to 6) during which commands nodes die.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_are_killed_can_be_repeated_and_change_nothing_the_next_time() -> Result<()> {
    let rounds = seed::number("HOLDFAST_ROUNDS", 1);
    let seed = seed::seed("commands");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir()?;
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let plan = Plan {
        pause: Duration::from_millis(10),
        writers: 2,
        readers: 1,
        ..Plan::small(seed)
    };
    let load = workload::start(plan, &[demo.multipath(&["a", "b"]).await?])?;
    let mut stage = Stage::new(&demo, dir.path())?;
    let mut died = 0;
    for (number, (line, _)) in STEPS.iter().enumerate() {
        let done = step(&mut stage, &mut random, rounds, number).await;
        died += done.with_context(|| format!("{line}, HOLDFAST_SEED={seed}\n{}", demo.logs()))?;
    }
    demo.wait_in_sync(LIMIT).await?;
    let (report, verifier) = load.stop().await;
    report.clean().map_err(anyhow::Error::msg)?;
    demo.verify(&verifier).await?;
    say(&format!(
        "{} commands, {died} of them died in the middle",
        STEPS.len()
    ));
    ensure!(died > 0, "none was killed in time");
    Ok(())
}

/// One line says which field is wrong and what is allowed; nothing is changed.
#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_told_in_one_line_and_changes_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let demo = Demo::start_with("64MiB").await?;
    let stage = Stage::new(&demo, dir.path())?;
    let before = stage.all().await?;
    let mut bad = Vec::new();
    for (line, wanted) in WRONG {
        let ended = stage.run(line).await?;
        let names = wanted.iter().all(|word| ended.err.contains(word));
        if !matches!(ended.code, Some(1 | 2)) || ended.err.lines().count() != 1 || !names {
            bad.push(format!("'{line}': wanted {wanted:?}, got {ended:?}"));
        }
    }
    ensure!(bad.is_empty(), "{}", bad.join("\n"));
    ensure!(stage.all().await? == before, "something was changed");
    let about = |line: &str| WRONG.iter().any(|(wrong, _)| wrong.starts_with(line));
    let leaves = leaves(&[]).await?;
    let stepped = leaves.iter().filter(|leaf| is_step(leaf) && !about(leaf));
    let without: Vec<&String> = stepped.collect();
    ensure!(without.is_empty(), "no wrong input for {without:?}");
    Ok(())
}

fn is_step(leaf: &str) -> bool {
    STEPS
        .iter()
        .any(|(line, _)| format!("{line} ").starts_with(&format!("{leaf} ")))
}

/// All commands that do something, out of the help on every level.
async fn leaves(above: &[String]) -> Result<BTreeSet<String>> {
    let words = [above, &["--help".to_owned()]].concat();
    let help = tools::run(&tools::holdfast()?, &words, LIMIT).await?.success()?;
    let mut listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut all = BTreeSet::new();
    let does = help
        .lines()
        .any(|line| line.starts_with("Usage:") && !line.contains("<COMMAND>"));
    if does && !above.is_empty() {
        all.insert(above.join(" "));
    }
    for line in listed.by_ref().take_while(|line| !line.is_empty()) {
        match line.split_whitespace().next() {
            Some("help") | None => {}
            Some(name) if line.starts_with("  ") && !line.starts_with("   ") => {
                let below = [above, &[name.to_owned()]].concat();
                all.append(&mut Box::pin(leaves(&below)).await?);
            }
            Some(other) => bail!("help lists: {other}"),
        }
    }
    Ok(all)
}

/// A new command is in one of the lists above, and none of them names one that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_known_here() -> Result<()> {
    let there = leaves(&[]).await?;
    ensure!(there.len() > 50, "{there:?}");
    let known: BTreeSet<&str> = LOOKING
        .iter()
        .copied()
        .chain(ELSEWHERE.iter().map(|(name, _)| *name))
        .collect();
    let unknown: Vec<&String> = there
        .iter()
        .filter(|leaf| !known.contains(leaf.as_str()) && !is_step(leaf))
        .collect();
    ensure!(unknown.is_empty(), "in no list: {unknown:?}");
    let gone: Vec<&&str> = known.iter().filter(|name| !there.contains(**name)).collect();
    ensure!(gone.is_empty(), "in a list, but no command: {gone:?}");
    for (line, _) in STEPS {
        ensure!(
            there
                .iter()
                .any(|leaf| format!("{line} ").starts_with(&format!("{leaf} "))),
            "'{line}' is no command"
        );
    }
    Ok(())
}
