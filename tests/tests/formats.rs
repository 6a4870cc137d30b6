//! Files of a newer version: the node that finds one stays out of it with one clear line, and touches nothing. Put back, all goes on.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crc32c::crc32c;
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::{Demo, holdfast};
use holdfast_tests::kept::{files, snapshots_soon};
use holdfast_tests::{say, seed};
use tokio::time::{Instant, sleep, timeout};

const LIMIT: Duration = Duration::from_secs(60);
/// For a start that comes to nothing.
const OUT_LIMIT: Duration = Duration::from_secs(5);
/// The node whose files they are: one with data.
const NODE: &str = "b";

/// Makes a file's bytes those of a newer version, good in every other respect.
type Raise = fn(&[u8]) -> Result<Vec<u8>>;

/// The number at 8, and the checksum at 12 over the header of 512 bytes without it.
fn segment(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut made = bytes.to_vec();
    ensure!(made.len() > 512 && made[..8] == *b"HFjrnSEG", "no segment");
    made[8..12].copy_from_slice(&99_u32.to_le_bytes());
    made[12..16].fill(0);
    let sum = crc32c(&made[..512]);
    made[12..16].copy_from_slice(&sum.to_le_bytes());
    Ok(made)
}

/// With the checksum over all before it put right.
fn summed(mut body: Vec<u8>) -> Vec<u8> {
    let sum = crc32c(&body);
    body.extend_from_slice(&sum.to_le_bytes());
    body
}

/// The number at 8.
fn snapshot(bytes: &[u8]) -> Result<Vec<u8>> {
    let body = bytes.len().checked_sub(4).context("a snapshot")?;
    let mut made = bytes[..body].to_vec();
    ensure!(made.starts_with(b"HOLDSNAP"), "no snapshot");
    made[8..12].copy_from_slice(&99_u32.to_le_bytes());
    Ok(summed(made))
}

/// The field `format` of the cluster state within, as long as it was.
fn state_in_snapshot(bytes: &[u8]) -> Result<Vec<u8>> {
    let body = bytes.len().checked_sub(4).context("a snapshot")?;
    let mut made = bytes[..body].to_vec();
    let field = b"\"format\":";
    let at = made.windows(field.len()).rposition(|window| window == field);
    let at = at.context("a format in the state")? + field.len();
    ensure!(
        made[at].is_ascii_digit() && !made[at + 1].is_ascii_digit(),
        "a format of one digit"
    );
    made[at] = b'9';
    Ok(summed(made))
}

fn description(bytes: &[u8]) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(bytes)?;
    let (line, rest) = text.split_once('\n').context("a line")?;
    ensure!(line.starts_with("holdfast-extent "), "{text}");
    Ok(format!("holdfast-extent 99\n{rest}").into_bytes())
}

fn json(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut value: serde_json::Value = serde_json::from_slice(bytes)?;
    ensure!(value["format"].is_u64(), "{value}");
    value["format"] = 99.into();
    Ok(serde_json::to_vec(&value)?)
}

/// An order that is there only during a takeover: a line, and its checksum.
fn order(_: &[u8]) -> Result<Vec<u8>> {
    let line = "{\"format\":99,\"order\":\"later\"}";
    Ok(format!("{line}\n{:08x}\n", crc32c(line.as_bytes())).into_bytes())
}

/// The devices of a node that has none.
fn devices(_: &[u8]) -> Result<Vec<u8>> {
    Ok(b"{\"format\":99,\"devices\":[]}".to_vec())
}

/// What is raised: the newest file of a folder with this end, and whether the node stays out or its replica alone.
struct Case {
    folder: &'static str,
    file: &'static str,
    raise: Raise,
    node_is_out: bool,
}

const fn case(folder: &'static str, file: &'static str, raise: Raise, node_is_out: bool) -> Case {
    Case {
        folder,
        file,
        raise,
        node_is_out,
    }
}

const CASES: [Case; 9] = [
    case("", "identity.json", json, true),
    case("", "certificates.json", json, true),
    case("", "takeover.json", order, true),
    case("", "devices.json", devices, true),
    case("raft/log", "segment-", segment, true),
    case("raft/snapshots", ".snapshot", snapshot, true),
    case("raft/snapshots", ".snapshot", state_in_snapshot, true),
    case("data/journal", "segment-", segment, true),
    case("data/extents", ".meta", description, false),
];

struct Rig {
    demo: Demo,
    dir: PathBuf,
}

impl Rig {
    /// The newest file of a case.
    fn path(&self, case: &Case) -> Result<PathBuf> {
        let all = files(&self.dir, case.folder)?;
        let mut fit = all.into_iter().filter(|path| path.contains(case.file));
        Ok(self
            .dir
            .join(fit.next_back().unwrap_or_else(|| case.file.to_owned())))
    }

    /// Everything that the node keeps, but for what it writes for people.
    fn all(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let all = files(&self.dir, "")?;
        let for_people = |path: &&String| {
            ["node.log", "events.", "audit."]
                .iter()
                .any(|people| path.starts_with(people))
        };
        let kept = all.iter().filter(|path| !for_people(path));
        kept.map(|path| Ok((path.clone(), std::fs::read(self.dir.join(path))?)))
            .collect()
    }

    /// Lines of its log behind that length.
    fn lines(&self, from: usize) -> Result<Vec<String>> {
        let log = std::fs::read(self.dir.join("node.log"))?;
        let log = String::from_utf8_lossy(log.get(from..).unwrap_or_default()).into_owned();
        Ok(log.lines().map(str::to_owned).collect())
    }

    fn log_length(&self) -> Result<usize> {
        Ok(usize::try_from(
            std::fs::metadata(self.dir.join("node.log"))?.len(),
        )?)
    }

    /// Its process ends by itself, and the last thing that it says is one line that names the file's version as newer.
    async fn stays_out(&self, path: &Path, log: usize) -> Result<String> {
        let start = Instant::now();
        while self.demo.pid(NODE).is_ok() {
            ensure!(start.elapsed() < LIMIT, "it runs\n{}", self.demo.logs());
            sleep(Duration::from_millis(50)).await;
        }
        let lines = self.lines(log)?;
        let said: Vec<&String> = lines
            .iter()
            .filter(|line| line.starts_with("holdfast: "))
            .collect();
        let file = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a name")?;
        let [line] = said[..] else {
            anyhow::bail!("not one line: {lines:?}");
        };
        let segment = file.trim_start_matches("segment-").trim_start_matches('0');
        ensure!(
            line.contains("newer") && (line.contains(file) || line.contains(segment)),
            "{line}"
        );
        Ok(line.clone())
    }

    /// It runs, says of its replica that it was written by a newer version, and the extent is served without it.
    async fn replica_stays_out(&self, log: usize) -> Result<String> {
        let start = Instant::now();
        loop {
            let lines = self.lines(log)?;
            if let Some(line) = lines.iter().find(|line| line.contains("newer")) {
                let status = self.demo.status().await?;
                ensure!(!status.is_whole(), "its replica counts: {status:?}");
                return Ok(line.clone());
            }
            ensure!(start.elapsed() < LIMIT, "nobody says so: {lines:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn round(&self, case: &Case) -> Result<()> {
        self.demo.kill(NODE)?;
        while self.demo.pid(NODE).is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
        let path = self.path(case)?;
        let whole = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            bytes => Some(bytes?),
        };
        let raised = (case.raise)(whole.as_deref().unwrap_or_default())?;
        std::fs::write(&path, &raised)?;
        let (before, log) = (self.all()?, self.log_length()?);
        // A node that ends at once makes the command wait, and fail.
        let _ = timeout(OUT_LIMIT, self.demo.restart(NODE)).await;
        let line = if case.node_is_out {
            let line = self.stays_out(&path, log).await?;
            let after = self.all()?;
            // Where the data's files are newer, the cluster's have gone on until that was found.
            let root = case.folder.split('/').next().unwrap_or_default();
            let changed = before
                .iter()
                .filter(|(path, bytes)| path.starts_with(root) && after.get(*path) != Some(bytes));
            let changed: Vec<&String> = changed.map(|(path, _)| path).collect();
            let more = after
                .keys()
                .filter(|path| path.starts_with(root) && !before.contains_key(*path));
            let more: Vec<&String> = more.collect();
            ensure!(
                changed.is_empty() && more.is_empty(),
                "touched: {changed:?} {more:?}"
            );
            line
        } else {
            let line = self.replica_stays_out(log).await?;
            self.demo.kill(NODE)?;
            ensure!(std::fs::read(&path)? == raised, "the description was touched");
            line
        };
        say(&format!("{}/*{}*: {line}", case.folder, case.file));
        match &whole {
            Some(whole) => std::fs::write(&path, whole)?,
            None => std::fs::remove_file(&path)?,
        }
        self.demo.restart(NODE).await?;
        self.demo.wait_in_sync(LIMIT).await.map(drop)
    }
}

/// Every file whose version decides whether a node may go on, in turn, while initiators write through the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_newer_version_is_refused_in_one_line_and_nothing_is_touched() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    snapshots_soon(&demo).await?;
    let rotate = ["cluster", "rotate-certificates", "--admin", demo.admin("a")?];
    holdfast(&rotate).await?.success()?;
    let dir = demo.dir().join(NODE);
    let start = Instant::now();
    while !dir.join("certificates.json").exists() {
        ensure!(start.elapsed() < LIMIT, "no rotation\n{}", demo.logs());
        sleep(Duration::from_millis(50)).await;
    }
    let rig = Rig { demo, dir };
    let plan = Plan {
        pause: Duration::from_millis(10),
        writers: 2,
        readers: 1,
        ..Plan::small(seed::seed("formats"))
    };
    let load = workload::start(plan, &[rig.demo.multipath(&["a", "b"]).await?])?;
    for case in &CASES {
        rig.demo.wait_in_sync(LIMIT).await?;
        let what = || format!("{}/*{}*", case.folder, case.file);
        rig.round(case).await.with_context(what)?;
    }
    let (report, verifier) = load.stop().await;
    report.clean().map_err(anyhow::Error::msg)?;
    rig.demo.verify(&verifier).await
}
