//! A real Linux host with open-iscsi and dm-multipath on a cluster whose machines have a network of their own: what its applications
//! notice of each failure. `HOLDFAST_ROUNDS` repeats all of it, `HOLDFAST_FAILURES` (names, by comma) chooses.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::ground::Network;
use holdfast_tests::guest::Guest;
use holdfast_tests::lan::{Lan, MACHINES, TARGET};
use holdfast_tests::status::Status;
use holdfast_tests::{say, tools};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

const COMMAND_LIMIT: Duration = Duration::from_secs(120);
const LOAD_LIMIT: Duration = Duration::from_secs(600);
const WHOLE_LIMIT: Duration = Duration::from_secs(120);
/// How long the load runs before a failure, and after it was healed.
const CALM: Duration = Duration::from_secs(3);
/// The guest's `noop_out_interval` + `noop_out_timeout` + `fast_io_fail_tmo`: what it may take to give a silent path up.
const PATH_TIMERS: Duration = Duration::from_secs(2 + 3 + 5);
/// For an emulated guest on a machine that has other work.
const SLACK: Duration = Duration::from_secs(15);
/// Extents, which are mapped as LUNs from 0 on: one is used as a raw disk, the others hold a file system of their name.
const EXTENTS: [&str; 3] = ["disk", "ext4", "xfs"];
/// What no failure of ours may make Linux log. A lost path's own sdX lines are expected, those of a map (dm-N) are not.
const FORBIDDEN: [&str; 9] = [
    "I/O error, dev dm-",
    "Buffer I/O error on dev dm-",
    "EXT4-fs error",
    "Remounting filesystem read-only",
    "XFS (dm-",
    "Medium Error",
    "Hardware Error",
    "Aborted Command",
    "Logical unit not supported",
];

/// What is done to the cluster. The primary is a, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Switchover,
    KillPrimary,
    FreezePrimary,
    KillReplica,
    KillWitness,
    /// The host's link to the primary goes silent.
    CutHostFromPrimary,
    CutReplication,
    CutWitness,
    CutReplicationAndWitness,
    RestartEach,
    BothDown,
}

const ALL: [Failure; 11] = [
    Failure::Switchover,
    Failure::KillPrimary,
    Failure::FreezePrimary,
    Failure::KillReplica,
    Failure::KillWitness,
    Failure::CutHostFromPrimary,
    Failure::CutReplication,
    Failure::CutWitness,
    Failure::CutReplicationAndWitness,
    Failure::RestartEach,
    Failure::BothDown,
];

impl Failure {
    const fn name(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::KillPrimary => "kill-primary",
            Self::FreezePrimary => "freeze-primary",
            Self::KillReplica => "kill-replica",
            Self::KillWitness => "kill-witness",
            Self::CutHostFromPrimary => "cut-host-from-primary",
            Self::CutReplication => "cut-replication",
            Self::CutWitness => "cut-witness",
            Self::CutReplicationAndWitness => "cut-replication-and-witness",
            Self::RestartEach => "restart-each",
            Self::BothDown => "both-down-for-a-minute",
        }
    }

    /// Whether the host may mark a path as failed, and the longest that its applications may stand still.
    const fn expected(self) -> (bool, Duration) {
        match self {
            Self::Switchover | Self::KillWitness | Self::CutWitness => (false, SLACK),
            Self::BothDown => (true, Duration::from_secs(60 + 10 + 15)),
            // Linux waits for the path's own timers, then sends again on the other one.
            _ => (true, PATH_TIMERS.saturating_add(SLACK)),
        }
    }
}

/// What the host's applications noticed in one round.
#[derive(Debug, Default)]
struct Noticed {
    /// The longest time without a completed request, by disk or directory, in seconds.
    gaps: BTreeMap<String, f64>,
    requests: u64,
    files: usize,
    failed_paths: usize,
}

impl Noticed {
    fn worst(&self) -> f64 {
        self.gaps.values().copied().fold(0.0, f64::max)
    }
}

struct World {
    lan: Lan,
    guest: Guest,
}

/// The name of the map whose LUN is the `lun`-th, from the guest's own table.
async fn maps(guest: &Guest) -> Result<Vec<String>> {
    let mut maps = Vec::new();
    for lun in 0..EXTENTS.len() {
        let command = format!(
            "name=$(basename $(readlink -f /dev/disk/by-path/*-lun-{lun} | head -1)); multipathd show paths raw format '%d %m' | \
             awk -v d=$name '$1 == d {{ print $2 }}'"
        );
        maps.push(guest.run(&command, COMMAND_LIMIT).await?.trim().to_owned());
    }
    Ok(maps)
}

impl World {
    /// A cluster with three LUNs, and a host that has logged in as an administrator would: by discovery.
    async fn make() -> Result<Option<Self>> {
        let Some(mut network) = tools::or_left_out(Network::make(&MACHINES))? else {
            return Ok(None);
        };
        let Some(guest) = Guest::boot(&mut network).await? else {
            return Ok(None);
        };
        let lan = Lan::start_in(network, "256MiB").await?;
        for (lun, extent) in EXTENTS.iter().enumerate().skip(1) {
            let lun = lun.to_string();
            lan.until_done(&["extent", "create", extent, "--size", "512MiB"])
                .await?;
            lan.until_done(&["lun", "create", TARGET, extent, "--lun", &lun])
                .await?;
        }
        lan.wait_for("every replica in sync", WHOLE_LIMIT, |status| {
            status.is_whole() && status.extents.len() == EXTENTS.len()
        })
        .await?;
        let world = Self { lan, guest };
        world.move_to_a().await?;
        Ok(Some(world))
    }

    /// Every extent has its primary on a, and the host has all paths.
    async fn move_to_a(&self) -> Result<()> {
        let on_a = |status: &Status| {
            let mut extents = status.extents.iter();
            status.is_whole() && extents.all(|extent| extent.primary.as_deref() == Some("a"))
        };
        self.lan
            .wait_for("every replica in sync", WHOLE_LIMIT, Status::is_whole)
            .await?;
        if !on_a(&self.lan.status().await?) {
            self.lan.until_done(&["switchover", "--all", "--to", "a"]).await?;
        }
        self.lan.wait_for("a in charge", WHOLE_LIMIT, on_a).await?;
        Ok(())
    }

    async fn log_in(&self) -> Result<()> {
        let portal = self.lan.network().address("a")?;
        let command = format!("iscsiadm -m discovery -t sendtargets -p {portal} && iscsiadm -m node --login");
        let told = self.guest.run(&command, COMMAND_LIMIT).await?;
        for machine in ["a", "b"] {
            let address = self.lan.network().address(machine)?;
            ensure!(told.contains(&format!("{address}:3260")), "{told}");
        }
        self.all_paths().await
    }

    /// Waits until every path is in use again.
    async fn all_paths(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let shown = self.guest.run("multipath -ll", COMMAND_LIMIT).await?;
            if shown.matches("active ready running").count() == 2 * EXTENTS.len() {
                return Ok(());
            }
            ensure!(
                start.elapsed() < WHOLE_LIMIT,
                "paths are missing:\n{shown}\n{}",
                self.lan.logs()
            );
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn make_file_systems(&self, maps: &[String]) -> Result<()> {
        for (map, kind) in maps.iter().zip(EXTENTS).skip(1) {
            let command = format!(
                "mkfs.{kind} -q /dev/mapper/{map} && mkdir -p /mnt/{kind} && mount /dev/mapper/{map} /mnt/{kind}"
            );
            self.guest.run(&command, COMMAND_LIMIT).await?;
        }
        Ok(())
    }

    async fn inject(&mut self, failure: Failure) -> Result<()> {
        let pause = |seconds| sleep(Duration::from_secs(seconds));
        match failure {
            Failure::Switchover => {
                self.lan.until_done(&["switchover", "--all", "--to", "b"]).await?;
                pause(3).await;
            }
            Failure::KillPrimary => self.down(&["a"], 12).await?,
            Failure::KillReplica => self.down(&["b"], 12).await?,
            Failure::KillWitness => self.down(&["w"], 5).await?,
            Failure::BothDown => self.down(&["a", "b"], 60).await?,
            Failure::FreezePrimary => {
                self.lan.signal("a", Signal::STOP)?;
                pause(20).await;
                self.lan.signal("a", Signal::CONT)?;
            }
            Failure::CutHostFromPrimary => self.cut(&[("guest", "a")]).await?,
            Failure::CutReplication => self.cut(&[("a", "b")]).await?,
            Failure::CutWitness => self.cut(&[("a", "w"), ("b", "w")]).await?,
            Failure::CutReplicationAndWitness => self.cut(&[("a", "b"), ("a", "w")]).await?,
            Failure::RestartEach => {
                for machine in MACHINES {
                    self.down(&[machine], 1).await?;
                    self.lan
                        .wait_for("every replica in sync", WHOLE_LIMIT, Status::is_whole)
                        .await?;
                    self.all_paths().await?;
                }
            }
        }
        Ok(())
    }

    async fn down(&mut self, machines: &[&str], seconds: u64) -> Result<()> {
        for machine in machines {
            self.lan.kill(machine).await?;
        }
        sleep(Duration::from_secs(seconds)).await;
        machines
            .iter()
            .try_for_each(|machine| self.lan.start_node(machine))
    }

    /// Links are cut both ways for longer than the host's timers.
    async fn cut(&self, links: &[(&str, &str)]) -> Result<()> {
        for (x, y) in links {
            self.lan.network().cut(x, y)?;
            self.lan.network().cut(y, x)?;
        }
        sleep(PATH_TIMERS + Duration::from_secs(5)).await;
        Ok(self.lan.network().heal()?)
    }

    /// One failure under load: what was noticed, after everything was found as it was told.
    async fn round(&mut self, failure: Failure, maps: &[String]) -> Result<Noticed> {
        self.move_to_a().await?;
        self.all_paths().await?;
        self.guest.run("dmesg --clear", COMMAND_LIMIT).await?;
        let load = format!("/guest/load /dev/mapper/{} /tmp/stop /mnt/ext4 /mnt/xfs", maps[0]);
        let load = self.guest.spawn(&load, LOAD_LIMIT);
        self.busy().await?;
        sleep(CALM).await;
        self.inject(failure).await?;
        self.lan
            .wait_for("every replica in sync", WHOLE_LIMIT, Status::is_whole)
            .await?;
        self.all_paths().await?;
        sleep(CALM).await;
        self.guest.run("touch /tmp/stop", COMMAND_LIMIT).await?;
        let told = load.await??;
        let mut noticed = self.read_back(&told).await?;
        let kernel = self.guest.run("dmesg", COMMAND_LIMIT).await?;
        for line in kernel.lines() {
            let mount = line.contains("Mounting V5") || line.contains("Ending clean mount");
            let forbidden = FORBIDDEN.iter().any(|text| line.contains(text)) && !mount;
            ensure!(!forbidden, "the guest's kernel says: {line}\n{kernel}");
        }
        noticed.failed_paths = kernel.matches("Failing path").count();
        Ok(noticed)
    }

    /// Waits until the load writes to every disk: the emulated guest takes its time to start programs.
    async fn busy(&self) -> Result<()> {
        let written = "cat /sys/block/dm-*/stat | awk '{ print $5 }'";
        let counts = async || -> Result<Vec<u64>> {
            let told = self.guest.run(written, COMMAND_LIMIT).await?;
            let counts = told.split_whitespace().map(str::parse);
            Ok(counts.collect::<Result<_, _>>()?)
        };
        let before = counts().await?;
        let start = Instant::now();
        loop {
            let now = counts().await?;
            if before.iter().zip(&now).all(|(then, now)| now - then > 50) {
                return Ok(());
            }
            ensure!(
                start.elapsed() < COMMAND_LIMIT,
                "the load does not start: {before:?}, {now:?}"
            );
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Compares every file with what was told of it, past the guest's own cache.
    async fn read_back(&self, told: &str) -> Result<Noticed> {
        let mut noticed = Noticed::default();
        let mut files = BTreeMap::new();
        for line in told.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["made", path, digest] => drop(files.insert(path, digest)),
                ["gap", seconds, name] => drop(noticed.gaps.insert(name.to_owned(), seconds.parse()?)),
                ["count", count, _] => noticed.requests = count.parse()?,
                _ => say(&format!("from the guest's load: {line}")),
            }
        }
        // A writer that met an error says no gap.
        ensure!(
            noticed.gaps.len() == EXTENTS.len() && noticed.requests > 0,
            "the load broke off:\n{told}"
        );
        let mut list = String::new();
        for (path, digest) in &files {
            writeln!(list, "{path} {digest}")?;
        }
        let check = format!(
            "sync; echo 3 >/proc/sys/vm/drop_caches; python3 /guest/files.py --check <<'END'\n{list}END"
        );
        let differs = self.guest.run(&check, COMMAND_LIMIT).await?;
        ensure!(differs.trim().is_empty(), "{differs}");
        noticed.files = files.len();
        Ok(noticed)
    }
}

fn chosen() -> Result<Vec<Failure>> {
    let Ok(names) = std::env::var("HOLDFAST_FAILURES") else {
        return Ok(ALL.to_vec());
    };
    let find = |name: &str| {
        let mut all = ALL.into_iter();
        all.find(|failure| failure.name() == name)
            .with_context(|| format!("no failure {name}"))
    };
    names.split(',').map(find).collect()
}

fn rounds() -> Result<usize> {
    match std::env::var("HOLDFAST_ROUNDS") {
        Ok(text) => text.parse().context("HOLDFAST_ROUNDS"),
        Err(_) => Ok(1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linux_host_behind_multipath_loses_nothing_and_sees_no_error() -> Result<()> {
    let failures = chosen()?;
    let rounds = rounds()?;
    let Some(mut world) = World::make().await? else {
        return Ok(());
    };
    world.log_in().await?;
    world.guest.has_maps(EXTENTS.len()).await?;
    let maps = maps(&world.guest).await?;
    world.make_file_systems(&maps).await?;
    for failure in failures {
        let name = failure.name();
        let (may_fail_paths, limit) = failure.expected();
        let mut worst = Vec::new();
        for round in 1..=rounds {
            let noticed = world
                .round(failure, &maps)
                .await
                .with_context(|| format!("{name}, round {round}\n{}", world.lan.logs()))?;
            say(&format!(
                "{name}, round {round}: longest stall {:.2} s, {} failed paths, {} requests, {} files; {:?}",
                noticed.worst(),
                noticed.failed_paths,
                noticed.requests,
                noticed.files,
                noticed.gaps
            ));
            ensure!(
                may_fail_paths || noticed.failed_paths == 0,
                "{name}: a path failed"
            );
            ensure!(
                noticed.worst() < limit.as_secs_f64(),
                "{name}: stalled longer than {limit:?}"
            );
            worst.push(noticed.worst());
        }
        worst.sort_by(f64::total_cmp);
        say(&format!(
            "{name}: {rounds} rounds, median stall {:.2} s, longest {:.2} s",
            worst[worst.len() / 2],
            worst[worst.len() - 1]
        ));
    }
    Ok(())
}
