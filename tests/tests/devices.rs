//! Block devices that are given to nodes, and extents on them: what is refused, what is made anew, and whose data stays (I6, J1, J2).

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::disk::Disk;
use holdfast_drill::ground::{DIR_MARK, GroundError, Image, LoopDevice, Tools};
use holdfast_drill::initiator::Session;
use holdfast_drill::multipath::{MultiPath, Patience};
use holdfast_drill::workload::{self, Plan, Running, Verifier};
use holdfast_tests::cluster::{Demo, begin, holdfast};
use holdfast_tests::status::{ReplicaState, Status};
use holdfast_tests::tools::{self, Finished};
use holdfast_tests::{say, seed};
use holdfast_types::Lba;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(90);

/// Files under loop devices, which outlive nobody.
struct Ground {
    dir: TempDir,
    made: BTreeMap<&'static str, LoopDevice>,
}

impl Ground {
    /// Devices by name and size; `None` where there can be none, which is said.
    fn new(devices: &[(&'static str, u64)]) -> Result<Option<Self>> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("{DIR_MARK}{}-", std::process::id()))
            .tempdir()?;
        let made = devices
            .iter()
            .map(|(name, bytes)| Ok((*name, LoopDevice::make(&dir.path().join(name), *bytes)?)))
            .collect::<Result<_, GroundError>>();
        let made = tools::or_left_out(made)?;
        Ok(made.map(|made| Self { dir, made }))
    }

    fn path(&self, name: &str) -> &Path {
        self.made[name].path()
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, at: u64, data: &[u8]) -> Result<()> {
        let device = std::fs::File::options().write(true).open(self.path(name))?;
        device.write_all_at(data, at)?;
        Ok(device.sync_all()?)
    }
}

async fn run(demo: &Demo, node: &str, line: &str) -> Result<Finished> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.extend(["--admin", demo.admin(node)?]);
    holdfast(&words).await
}

async fn done(demo: &Demo, node: &str, line: &str) -> Result<String> {
    let ended = run(demo, node, line).await?;
    ensure!(
        ended.code == Some(0),
        "'{line}' at {node}: {ended:?}\n{}",
        demo.logs()
    );
    Ok(ended.out)
}

async fn refused(demo: &Demo, node: &str, line: &str, words: &[&str]) -> Result<()> {
    let ended = run(demo, node, line).await?;
    let says = words.iter().all(|word| ended.err.contains(word));
    ensure!(
        ended.code == Some(1) && ended.err.lines().count() == 1 && says,
        "'{line}' at {node}, wanted {words:?}: {ended:?}"
    );
    Ok(())
}

/// Path and state of each device of a node.
async fn devices(demo: &Demo, node: &str) -> Result<Vec<(String, String)>> {
    let text = done(demo, node, "device list --json").await?;
    let list: Value = serde_json::from_str(&text)?;
    let one = |device: &Value| {
        let text = |key: &str| device[key].as_str().unwrap_or_default().to_owned();
        (text("path"), text("state"))
    };
    Ok(list.as_array().context("a list")?.iter().map(one).collect())
}

/// A node that has just been started is waited for.
async fn until_listed(demo: &Demo, node: &str, wanted: &[(&str, &str)]) -> Result<()> {
    let wanted = wanted
        .iter()
        .map(|(path, state)| ((*path).to_owned(), (*state).to_owned()));
    let wanted: BTreeSet<(String, String)> = wanted.collect();
    let start = Instant::now();
    loop {
        let found = devices(demo, node).await;
        let is_it = found.as_ref().is_ok_and(|found| {
            found.len() == wanted.len() && found.iter().all(|device| wanted.contains(device))
        });
        if is_it {
            return Ok(());
        }
        ensure!(
            start.elapsed() < LIMIT,
            "{node} has {found:?}, wanted {wanted:?}\n{}",
            demo.logs()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// What is in use, carries data, is too small or none is refused in one line, and nothing is changed.
async fn refusals(demo: &Demo, ground: &Ground) -> Result<()> {
    let (data, small, labelled) = (ground.text("data"), ground.text("small"), ground.text("a"));
    let file = ground.dir.path().join("data").to_string_lossy().into_owned();
    ground.write("data", 7 * MIB + 12_345, &[1])?;
    let at = (7 * MIB + 12_345).to_string();
    let line = format!("device add {data}");
    refused(
        demo,
        "a",
        &line,
        &["carries data", &at, &format!("--confirm {data}")],
    )
    .await?;
    refused(
        demo,
        "a",
        &format!("{line} --confirm /dev/other"),
        &["path again"],
    )
    .await?;
    refused(demo, "a", &format!("device add {file}"), &["no block device"]).await?;
    refused(demo, "a", "device add loop0", &["whole path"]).await?;
    refused(demo, "a", &format!("device add {small}"), &["2097152 at least"]).await?;
    refused(demo, "w", &line, &["a witness holds no data"]).await?;
    refused(
        demo,
        "b",
        &format!("device add {labelled}"),
        &["blank device of node 1"],
    )
    .await?;
    refused(
        demo,
        "a",
        &format!("device remove {data}"),
        &["no device", "device list"],
    )
    .await?;
    Ok(())
}

/// The device of a file system that is mounted.
fn mounted(image: &Image) -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let at = image.at.to_string_lossy();
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines
        .find(|line| line.get(1) == Some(&&*at))
        .context("it is mounted")?;
    Ok(line[0].into())
}

/// Kills the command at several moments; what it did not do the next one does, or says that it is done.
async fn killed(demo: &Demo, line: &str, over: &str) -> Result<()> {
    for millis in [0, 5, 20, 60] {
        let admin = ["--admin", demo.admin("a")?];
        let mut child = begin(line.split_whitespace().chain(admin))?;
        sleep(Duration::from_millis(millis)).await;
        let _ = child.start_kill();
        child.wait().await?;
    }
    let start = Instant::now();
    loop {
        let ended = run(demo, "a", line).await?;
        if ended.code == Some(0) || ended.err.contains(over) {
            return Ok(());
        }
        ensure!(start.elapsed() < LIMIT, "'{line}'\n{}", demo.logs());
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_given_and_taken_back_and_what_is_not_free_is_refused() -> Result<()> {
    let sizes = [
        ("a", 33 * MIB),
        ("b", 20 * MIB),
        ("data", 8 * MIB),
        ("small", 2 * MIB - 512),
    ];
    let Some(ground) = Ground::new(&sizes)? else {
        return Ok(());
    };
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let (a, data) = (ground.text("a"), ground.text("data"));
    until_listed(&demo, "a", &[]).await?;
    let add = format!("device add {a}");
    killed(&demo, &add, "already").await?;
    let again = done(&demo, "a", &add).await?;
    ensure!(again.contains("already"), "{again}");
    until_listed(&demo, "a", &[(&a, "blank")]).await?;
    refusals(&demo, &ground).await?;
    if let Some(tools) = tools::or_left_out(Tools::find())? {
        let (file, at) = (ground.dir.path().join("fs"), ground.dir.path().join("mounted"));
        let image = Image::make(&tools, &file, &at, 16)?;
        let device = mounted(&image)?.to_string_lossy().into_owned();
        let line = format!("device add {device} --confirm {device}");
        refused(&demo, "a", &line, &["is in use"]).await?;
    }
    until_listed(&demo, "a", &[(&a, "blank")]).await?;
    let taken = done(&demo, "a", &format!("device add {data} --confirm {data}")).await?;
    ensure!(taken.contains("room for an extent of 7 MiB"), "{taken}");
    // Not without a device on every node, and not thin.
    let create = "extent create x --size 16MiB --on-devices";
    refused(&demo, "a", create, &["b has no blank device", "device add"]).await?;
    refused(&demo, "b", create, &["b has no blank device"]).await?;
    let larger = "extent create x --size 40MiB --on-devices --replicas a";
    refused(&demo, "b", larger, &["a has no blank device", "41943040"]).await?;
    let listed = done(&demo, "a", "extent list --json").await?;
    ensure!(!listed.contains("\"x\""), "{listed}");
    // Remembered by a node that starts anew, and taken back.
    demo.kill("a")?;
    demo.restart("a").await?;
    demo.wait_in_sync(LIMIT).await?;
    until_listed(&demo, "a", &[(&a, "blank"), (&data, "blank")]).await?;
    killed(&demo, &format!("device remove {data}"), "no device").await?;
    refused(&demo, "a", &format!("device remove {data}"), &["no device"]).await?;
    let left = std::fs::read(ground.path("data"))?;
    ensure!(left.iter().all(|byte| *byte == 0), "something is left on it");
    until_listed(&demo, "a", &[(&a, "blank")]).await?;
    late(&demo, &ground, create).await
}

/// A node that was down while an extent was made has no device for it: it says so, and makes its replica as soon as it is given one.
async fn late(demo: &Demo, ground: &Ground, create: &str) -> Result<()> {
    demo.kill("b")?;
    demo.wait_for("a alone", LIMIT, |status| status.extents[0].in_sync == ["a"])
        .await?;
    let warned = done(demo, "a", create).await?;
    ensure!(warned.contains("devices of b were not looked at"), "{warned}");
    demo.restart("b").await?;
    until_said(demo, "b", "no blank device here has room for 16777216 bytes").await?;
    until_listed(demo, "a", &[(&ground.text("a"), "extent")]).await?;
    let b = ground.text("b");
    done(demo, "b", &format!("device add {b}")).await?;
    demo.wait_in_sync(LIMIT).await?;
    until_listed(demo, "b", &[(&b, "extent")]).await
}

/// An alarm of a node that has these words.
async fn until_said(demo: &Demo, node: &str, words: &str) -> Result<()> {
    let said = |status: &Status| {
        let mut alarms = status.alarms.iter();
        alarms.any(|alarm| alarm.to_string().contains(words))
    };
    let start = Instant::now();
    while !demo.status_by(node).await.is_ok_and(|status| said(&status)) {
        ensure!(start.elapsed() < LIMIT, "nobody says '{words}'\n{}", demo.logs());
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The LUN on devices.
async fn paths(demo: &Demo, names: &[&str]) -> Result<Arc<MultiPath<Session>>> {
    let dials = names
        .iter()
        .map(|name| demo.dial_lun(name, 1))
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(MultiPath::connect(dials, Patience::default()).await?))
}

async fn make(demo: &Demo) -> Result<()> {
    let target = demo.document_now()?.target;
    done(
        demo,
        "a",
        "extent create db --size 48MiB --on-devices --preferred a",
    )
    .await?;
    done(demo, "a", &format!("lun create {target} db --lun 1")).await?;
    demo.wait_in_sync(LIMIT).await.map(drop)
}

fn in_sync(status: &Status) -> Option<Vec<&str>> {
    let extent = status.extents.iter().find(|extent| extent.name == "db")?;
    Some(extent.in_sync.iter().map(String::as_str).collect())
}

async fn verify(demo: &Demo, verifier: &Verifier) -> Result<()> {
    for name in ["a", "b"] {
        let disk = paths(demo, &[name]).await?;
        verifier.verify(&*disk, name).await.map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// The devices hold the same, from where the extent's bytes begin, once everything is written out.
async fn equal(demo: &Demo, ground: &Ground, names: [&str; 2]) -> Result<()> {
    let start = Instant::now();
    loop {
        let read = |name: &str| -> Result<Vec<u8>> {
            let device = std::fs::File::open(ground.path(name))?;
            let mut bytes = vec![0; 48 << 20];
            device.read_exact_at(&mut bytes, MIB)?;
            Ok(bytes)
        };
        let (left, right) = (read(names[0])?, read(names[1])?);
        if left == right {
            ensure!(left.iter().any(|byte| *byte != 0), "nothing was written");
            return Ok(());
        }
        ensure!(start.elapsed() < LIMIT, "the devices differ\n{}", demo.logs());
        sleep(Duration::from_millis(200)).await;
    }
}

/// The label of b's device is overwritten while b is down: its replica stays out and is not counted, and the other one serves. Given up, it
/// is made anew on the same device, under a new label.
async fn lose_a_label(demo: &Demo, ground: &Ground, load: &Running) -> Result<()> {
    let device = ground.text("b");
    demo.kill("b")?;
    let alone = |status: &Status| in_sync(status) == Some(vec!["a"]);
    demo.wait_for("a alone", LIMIT, alone).await?;
    ground.write("b", 0, &[0x5a; 4096])?;
    demo.restart("b").await?;
    until_listed(demo, "b", &[(&device, "gone")]).await?;
    until_said(demo, "b", "no label").await?;
    sleep(Duration::from_secs(2)).await;
    let status = demo.status().await?;
    ensure!(alone(&status), "it stays out: {status:?}");
    let db = status
        .extents
        .iter()
        .find(|extent| extent.name == "db")
        .context("db")?;
    ensure!(
        db.replicas
            .iter()
            .any(|one| one.node == "b" && one.state != ReplicaState::InSync)
    );
    load.served(0, LIMIT).await?;
    // Neither taken for the one that is gone, nor zeroed in its place.
    let add = format!("device add {device} --confirm {device}");
    refused(
        demo,
        "b",
        &add,
        &["not the device that this node remembers", "device remove"],
    )
    .await?;
    refused(demo, "b", &format!("device remove {device}"), &["--confirm"]).await?;
    done(demo, "b", &format!("device remove {device} --confirm {device}")).await?;
    refused(
        demo,
        "b",
        &format!("device add {device}"),
        &["carries data", "at byte 0"],
    )
    .await?;
    done(demo, "b", &add).await?;
    demo.wait_in_sync(LIMIT).await?;
    until_listed(demo, "b", &[(&device, "extent")]).await
}

/// Under load: the primary is killed, the replica is, and the replica's label is lost.
async fn under_load(demo: &Demo, ground: &Ground, seed: u64) -> Result<Verifier> {
    let disks = [paths(demo, &["a", "b"]).await?, paths(demo, &["b", "a"]).await?];
    let load = workload::start(Plan::small(seed), &disks)?;
    load.served(0, LIMIT).await?;
    demo.kill("a")?;
    load.served(1, LIMIT).await?;
    demo.restart("a").await?;
    demo.wait_in_sync(LIMIT).await?;
    demo.kill("b")?;
    load.served(0, LIMIT).await?;
    demo.restart("b").await?;
    demo.wait_in_sync(LIMIT).await?;
    lose_a_label(demo, ground, &load).await?;
    let (report, verifier) = load.stop().await;
    report.clean().map_err(anyhow::Error::msg)?;
    say(&format!("{report:?}").chars().take(200).collect::<String>());
    Ok(verifier)
}

#[tokio::test(flavor = "multi_thread")]
async fn j1_an_extent_on_devices_outlives_its_nodes_and_a_lost_label() -> Result<()> {
    let sizes = [("a", 65 * MIB), ("b", 57 * MIB)];
    let Some(ground) = Ground::new(&sizes)? else {
        return Ok(());
    };
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let (a, b) = (ground.text("a"), ground.text("b"));
    done(&demo, "a", &format!("device add {a}")).await?;
    done(&demo, "b", &format!("device add {b}")).await?;
    make(&demo).await?;
    until_listed(&demo, "a", &[(&a, "extent")]).await?;
    refused(&demo, "a", &format!("device remove {a}"), &["holds extent db"]).await?;
    let verifier = under_load(&demo, &ground, seed::seed("devices")).await?;
    verify(&demo, &verifier).await?;
    equal(&demo, &ground, ["a", "b"]).await?;
    for name in ["a", "b", "w"] {
        demo.kill(name)?;
    }
    for name in ["a", "b", "w"] {
        demo.restart(name).await?;
    }
    demo.wait_in_sync(LIMIT).await?;
    verify(&demo, &verifier).await?;
    // As large as the smaller device, and no larger.
    let words = ["b has room for 58720256 bytes", "not for 62914560"];
    refused(&demo, "a", "extent resize db --size 60MiB", &words).await?;
    done(&demo, "a", "extent resize db --size 56MiB").await?;
    let exported = done(&demo, "a", "export").await?;
    ensure!(exported.contains("thin = false\non_devices = true"), "{exported}");
    demo.wait_in_sync(LIMIT).await?;
    verify(&demo, &verifier).await?;
    let target = demo.document_now()?.target;
    done(&demo, "a", &format!("lun delete {target} --lun 1")).await?;
    done(&demo, "a", "extent delete db --confirm db").await?;
    for (node, device) in [("a", &a), ("b", &b)] {
        until_listed(&demo, node, &[(device, "used")]).await?;
        // Whoever still had it open lets go a moment later.
        insist(&demo, node, &format!("device add {device}")).await?;
        until_listed(&demo, node, &[(device, "blank")]).await?;
    }
    make(&demo).await?;
    let disk = paths(&demo, &["a", "b"]).await?;
    for mib in 0..48 {
        let data = disk.read(Lba(mib * 2048), 2048).await?;
        ensure!(data.iter().all(|byte| *byte == 0), "MiB {mib} is not zeros");
    }
    Ok(())
}

/// Until it is done.
async fn insist(demo: &Demo, node: &str, line: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let ended = run(demo, node, line).await?;
        if ended.code == Some(0) {
            return Ok(());
        }
        ensure!(
            ended.err.contains("in use") && start.elapsed() < LIMIT,
            "'{line}': {ended:?}"
        );
        sleep(Duration::from_millis(100)).await;
    }
}
