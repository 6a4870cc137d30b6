//! A bit flipped in any file that a node keeps: it is noticed and said in one line, repaired where there is another copy, and never served.
//!
//! Every file below the nodes' directories has to be of a known [`Kind`]. `HOLDFAST_ROUNDS` times (1), each kind in turn has a bit flipped
//! while its node is down, and the extents' files while it runs.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_tests::cluster::{self, Demo, holdfast};
use holdfast_tests::kept::{files, snapshots_soon};
use holdfast_tests::nodes::DataNode;
use holdfast_tests::status::{NodeState, Status};
use holdfast_tests::{say, seed};
use holdfast_types::Lba;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

const LIMIT: Duration = Duration::from_secs(60);
/// For a start that may come to nothing.
const OUT_LIMIT: Duration = Duration::from_secs(4);
/// Blocks that the test writes and knows, from the first one on: 8 MiB.
const BLOCKS: u64 = 16_384;
/// Blocks of one command.
const PART: u64 = 512;

/// What a file of a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Data,
    Sums,
    Changes,
    Description,
    LastScrub,
    Journal,
    JournalSpare,
    Snapshot,
    Applied,
    RaftSpare,
    Key,
    Join,
    Member,
    Identity,
    /// There only where a node has devices. A name or an id that is another one leads to no device with that id in its label, so that the
    /// device is gone, which is said (`devices.rs`).
    Devices,
    RaftLog,
    /// Empty files that are locked.
    Lock,
    /// What people wrote, and what is for them: nothing that a node keeps.
    People,
    /// Broken files that were set aside, for people too.
    Aside,
    /// What is about to take a file's place. A node that is killed may leave it; it is never read, and the next one is written over it.
    Unfinished,
}

/// What may become of a node that has such a file with a flipped bit.
enum Fate {
    /// It comes back by itself; one of these is in the log of a node, or an alarm. None: nothing of it is ever read.
    Back(&'static [&'static str]),
    /// It comes back by itself, and says this where the place was in use.
    MaySay,
    /// It says one of these; it may stay out until somebody puts the file right.
    ToBeMended(&'static [&'static str]),
    /// It stays out for ever (L8).
    OutForEver(&'static [&'static str]),
}

impl Kind {
    const ALL: [Self; 17] = [
        Self::Data,
        Self::Sums,
        Self::Changes,
        Self::Description,
        Self::LastScrub,
        Self::Journal,
        Self::JournalSpare,
        Self::Snapshot,
        Self::Applied,
        Self::RaftSpare,
        Self::Key,
        Self::Join,
        Self::Member,
        Self::Lock,
        Self::People,
        Self::Identity,
        Self::RaftLog,
    ];

    /// What a witness keeps; last what puts it out for ever.
    const OF_WITNESSES: [Self; 7] = [
        Self::Snapshot,
        Self::Applied,
        Self::RaftSpare,
        Self::Key,
        Self::Member,
        Self::Identity,
        Self::RaftLog,
    ];

    /// Of a path below a node's directory.
    fn of(path: &str) -> Option<Self> {
        let (dir, file) = path.rsplit_once('/').unwrap_or(("", path));
        let is = |prefix| file.starts_with(prefix);
        Some(match (dir, file.rsplit_once('.').map_or("", |(_, end)| end)) {
            ("data/extents" | "raft/snapshots", "broken") => Self::Aside,
            ("data/extents" | "raft/snapshots", "tmp") => Self::Unfinished,
            ("data/extents", "img") => Self::Data,
            ("data/extents", "sum") => Self::Sums,
            ("data/extents", "map") => Self::Changes,
            ("data/extents", "meta") => Self::Description,
            ("data/extents", "scrub") => Self::LastScrub,
            ("data/journal", _) if is("segment-") => Self::Journal,
            ("data/journal", _) if is("spare-") || is("filling-") => Self::JournalSpare,
            ("raft/log", _) if is("segment-") => Self::RaftLog,
            ("raft/log", _) if is("spare-") || is("filling-") => Self::RaftSpare,
            ("raft/snapshots", "snapshot") => Self::Snapshot,
            ("raft/applied", _) if is("db") || is("conf") || is("snap.") => Self::Applied,
            ("" | "data/journal" | "raft/log", _) if file == "lock" => Self::Lock,
            ("", _) => match file {
                "cluster.key" => Self::Key,
                "identity.json" => Self::Identity,
                "devices.json" => Self::Devices,
                "join" => Self::Join,
                "member" => Self::Member,
                "node.toml" | "node.log" => Self::People,
                _ if is("events.") || is("audit.") => Self::People,
                _ => return None,
            },
            _ => return None,
        })
    }

    const fn fate(self) -> Fate {
        match self {
            Self::Data | Self::Sums => Fate::Back(&["BadBlocks", "bad blocks"]),
            Self::Changes => Fate::Back(&["map of changes is damaged"]),
            Self::Description => Fate::Back(&["description is damaged", "set aside", ".broken"]),
            Self::LastScrub => Fate::Back(&["note of the last scrub is damaged"]),
            Self::Journal => Fate::Back(&["journal is damaged", "torn tail cut"]),
            Self::Snapshot => Fate::Back(&["snapshot is broken"]),
            Self::Key => Fate::ToBeMended(&["cluster key", "cluster.key"]),
            Self::Applied => Fate::MaySay,
            Self::JournalSpare
            | Self::RaftSpare
            | Self::Join
            | Self::Member
            | Self::Lock
            | Self::People
            | Self::Aside
            | Self::Unfinished => Fate::Back(&[]),
            Self::Identity => Fate::ToBeMended(&["identity.json", "belongs to node"]),
            Self::Devices => Fate::ToBeMended(&["devices.json", "does not have"]),
            Self::RaftLog => Fate::OutForEver(&["damaged"]),
        }
    }
}

/// Flips a bit of a byte that is in use, if any is; says where.
fn flip(path: &Path, random: &mut StdRng) -> Result<String> {
    let contents = std::fs::read(path)?;
    let used: Vec<usize> = (0..contents.len()).filter(|at| contents[*at] != 0).collect();
    let at = match used.choose(random) {
        Some(at) => *at,
        None => random.random_range(0..contents.len()),
    };
    // Another case of a letter is the same where a file is text.
    let same = |bit: &u32| (contents[at] ^ (1 << bit)).eq_ignore_ascii_case(&contents[at]);
    let bits: Vec<u32> = (0..8).filter(|bit| !same(bit)).collect();
    let bit = *bits.choose(random).context("a bit")?;
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&[contents[at] ^ (1 << bit)], at as u64)?;
    Ok(format!("{}: bit {bit} of byte {at}", path.display()))
}

/// A cluster, and what its disk must hold.
struct Rig {
    demo: Demo,
    random: StdRng,
    data: Vec<u8>,
}

impl Rig {
    async fn start(seed: u64) -> Result<Self> {
        let demo = Demo::start_with("64MiB").await?;
        demo.wait_in_sync(LIMIT).await?;
        snapshots_soon(&demo).await?;
        let mut random = StdRng::seed_from_u64(seed);
        let mut data = vec![0; usize::try_from(BLOCKS * 512)?];
        random.fill_bytes(&mut data);
        let mut rig = Self { demo, random, data };
        let disk = rig.demo.multipath(&["a", "b"]).await?;
        for lba in (0..BLOCKS).step_by(usize::try_from(PART)?) {
            disk.write(Lba(lba), rig.part(lba, PART)?).await?;
        }
        rig.write_some(64).await?;
        Ok(rig)
    }

    fn part(&self, lba: u64, blocks: u64) -> Result<Bytes> {
        let (from, to) = (
            usize::try_from(lba * 512)?,
            usize::try_from((lba + blocks) * 512)?,
        );
        Ok(Bytes::copy_from_slice(&self.data[from..to]))
    }

    /// Writes so many times one to eight blocks.
    async fn write_some(&mut self, times: u32) -> Result<()> {
        let disk = self.demo.multipath(&["a", "b"]).await?;
        for _ in 0..times {
            let lba = self.random.random_range(0..BLOCKS - 8);
            let blocks = self.random.random_range(1..=8);
            let (from, to) = (
                usize::try_from(lba * 512)?,
                usize::try_from((lba + blocks) * 512)?,
            );
            self.random.fill_bytes(&mut self.data[from..to]);
            disk.write(Lba(lba), self.part(lba, blocks)?).await?;
        }
        Ok(())
    }

    /// Reads every block through these nodes.
    async fn verify(&self, nodes: &[&str]) -> Result<()> {
        for node in nodes {
            let disk = self.demo.multipath(&[node]).await?;
            for lba in (0..BLOCKS).step_by(usize::try_from(PART)?) {
                let found = disk.read(Lba(lba), u32::try_from(PART)?).await?;
                ensure!(
                    found == self.part(lba, PART)?,
                    "blocks from {lba} on through {node} are not what was written\n{}",
                    self.demo.logs()
                );
            }
        }
        Ok(())
    }

    fn dir(&self, node: &str) -> PathBuf {
        self.demo.dir().join(node)
    }

    /// What all nodes have said behind these lengths of their logs, with the alarms that they raise.
    async fn said(&self, before: [usize; 3]) -> Result<String> {
        let mut all = String::new();
        for (node, before) in ["a", "b", "w"].into_iter().zip(before) {
            let log = std::fs::read(self.dir(node).join("node.log"))?;
            all += &String::from_utf8_lossy(log.get(before..).unwrap_or_default());
            if let Ok(status) = self.demo.status_by(node).await {
                all += &status
                    .alarms
                    .iter()
                    .map(|alarm| format!("{alarm}\n"))
                    .collect::<String>();
            }
        }
        Ok(all)
    }

    fn log_lengths(&self) -> [usize; 3] {
        ["a", "b", "w"].map(|node| {
            let log = std::fs::metadata(self.dir(node).join("node.log"));
            log.map_or(0, |log| usize::try_from(log.len()).unwrap_or(0))
        })
    }

    /// Waits for a line with one of these words.
    async fn wait_said(&self, words: &[&str], before: [usize; 3], what: &str) -> Result<String> {
        let began = Instant::now();
        loop {
            let said = self.said(before).await?;
            let mut lines = said.lines();
            if let Some(line) = lines.find(|line| words.iter().any(|word| line.contains(word))) {
                return Ok(line.to_owned());
            }
            ensure!(
                began.elapsed() < LIMIT / 2,
                "{what}: nobody says any of {words:?}\n{said}"
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Has the replicas compared, and waits until both extents' files are the same.
    async fn scrub(&self) -> Result<()> {
        let primary = self.demo.primary().await?;
        let name = self.demo.status().await?.extents[0].name.clone();
        let scrub = ["extent", "scrub", &name, "--admin", self.demo.admin(&primary)?];
        holdfast(&scrub).await?.success()?;
        let began = Instant::now();
        loop {
            let status = holdfast(&["status", "--json", "--admin", self.demo.admin(&primary)?]).await?;
            let status: serde_json::Value = serde_json::from_str(&status.success()?)?;
            let ended = status["extents"][0]["scrub"]["asked_for"] == false;
            let [a, b] = ["a", "b"].map(|node| self.extent(node));
            if ended && a? == b? {
                return Ok(());
            }
            ensure!(
                began.elapsed() < LIMIT,
                "the replicas differ\n{}",
                self.demo.logs()
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn extent(&self, node: &str) -> Result<Vec<Vec<u8>>> {
        let dir = self.dir(node);
        let all = files(&dir, "data/extents")?;
        let kept = all
            .iter()
            .filter(|path| matches!(Kind::of(path), Some(Kind::Data | Kind::Sums)));
        kept.map(|path| Ok(std::fs::read(dir.join(path))?)).collect()
    }

    /// The files of a kind, on a node.
    fn of_kind(&self, node: &str, kind: Kind) -> Result<Vec<PathBuf>> {
        let dir = self.dir(node);
        let all = files(&dir, "")?;
        let chosen = all.iter().filter(|path| Kind::of(path) == Some(kind));
        Ok(chosen.map(|path| dir.join(path)).collect())
    }

    fn every_kind_is_known(&self) -> Result<()> {
        for node in ["a", "b", "w"] {
            for path in files(&self.dir(node), "")? {
                ensure!(
                    Kind::of(&path).is_some(),
                    "nobody knows what {path} of node {node} is"
                );
            }
        }
        Ok(())
    }

    /// One kind of file, of a node that is down.
    async fn round(&mut self, node: &str, other: &str, kind: Kind) -> Result<()> {
        self.demo.wait_in_sync(LIMIT).await?;
        self.write_some(8).await?;
        // Between two checkpoints as well as right behind one.
        sleep(Duration::from_millis(self.random.random_range(0..1500))).await;
        let before = self.log_lengths();
        let mut paths = self.of_kind(node, kind)?;
        paths.retain(|path| std::fs::metadata(path).is_ok_and(|it| it.len() > 0));
        let chosen = paths.choose(&mut self.random).cloned();
        let path = chosen.with_context(|| format!("{node} has no file of kind {kind:?}"))?;
        self.demo.kill(node)?;
        self.every_kind_is_known()?;
        let whole = std::fs::read(&path)?;
        let what = flip(&path, &mut self.random)?;
        self.verify(&[other]).await.context("while it is down")?;
        self.write_some(4).await?;
        // A node that ends at once makes the command wait, and fail; what it says counts.
        let back = match kind.fate() {
            Fate::Back(_) | Fate::MaySay => self.demo.restart(node).await,
            _ => match timeout(OUT_LIMIT, self.demo.restart(node)).await {
                Ok(back) => back,
                Err(late) => Err(late.into()),
            },
        };
        match kind.fate() {
            Fate::Back(words) => {
                back.with_context(|| format!("{what}\n{}", self.demo.logs()))?;
                self.whole_again(&what).await?;
                if !words.is_empty() {
                    let line = self.wait_said(words, before, &what).await?;
                    say(&format!("{kind:?}, {what}: {line}"));
                }
            }
            Fate::MaySay => {
                back.with_context(|| format!("{what}\n{}", self.demo.logs()))?;
                self.whole_again(&what).await?;
                say(&format!("{kind:?}, {what}: back"));
            }
            Fate::ToBeMended(words) => {
                let line = self.wait_said(words, before, &what).await?;
                say(&format!("{kind:?}, {what}: {line}"));
                self.verify(&[other]).await?;
                if let Ok(()) = self.demo.kill(node) {
                    sleep(Duration::from_millis(200)).await;
                }
                std::fs::write(&path, whole)?;
                self.demo.restart(node).await?;
                self.whole_again(&what).await?;
            }
            Fate::OutForEver(words) => {
                let line = self.wait_said(words, before, &what).await?;
                say(&format!("{kind:?}, {what}: {line}"));
                self.write_some(8).await?;
                self.verify(&[other]).await?;
                // Heard of a moment ago, it counts as up for that long.
                let is_out = |status: &Status| {
                    let found = status.nodes.iter().find(|found| found.name == node);
                    status.quorum && found.is_some_and(|found| found.state != NodeState::Up)
                };
                self.demo.wait_for("a node that is out", LIMIT, is_out).await?;
                sleep(Duration::from_secs(1)).await;
                let status = self.demo.status().await?;
                ensure!(
                    is_out(&status) && self.demo.pid(node).is_err(),
                    "{what}: it is back: {status:?}\n{}",
                    self.demo.logs()
                );
            }
        }
        Ok(())
    }

    /// In sync again by itself, equal, and right through both nodes.
    async fn whole_again(&mut self, what: &str) -> Result<()> {
        self.demo
            .wait_in_sync(LIMIT)
            .await
            .with_context(|| what.to_owned())?;
        self.write_some(8).await?;
        self.verify(&["a", "b"]).await.with_context(|| what.to_owned())?;
        self.scrub().await.with_context(|| what.to_owned())?;
        self.verify(&["a", "b"]).await.with_context(|| what.to_owned())
    }

    /// The extents' files of nodes that run, both at once, in blocks that are far from each other.
    async fn running(&mut self) -> Result<()> {
        self.demo.wait_in_sync(LIMIT).await?;
        let before = self.log_lengths();
        for (node, from) in [("a", 0), ("b", BLOCKS / 2)] {
            for (kind, unit) in [(Kind::Data, 512), (Kind::Sums, 4)] {
                let paths = self.of_kind(node, kind)?;
                let path = paths.first().context("an extent")?;
                let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
                let at = (from + self.random.random_range(0..BLOCKS / 2 - 64)) * unit;
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                byte[0] ^= 1 << self.random.random_range(0..8);
                file.write_all_at(&byte, at)?;
            }
        }
        self.whole_again("extents of running nodes").await?;
        let words = ["BadBlocks", "bad blocks"];
        let line = self.wait_said(&words, before, "extents of running nodes").await?;
        say(&format!("running: {line}"));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_j1_a_flipped_bit_in_any_file_is_noticed_and_never_served() -> Result<()> {
    let seed = seed::seed("bit flips");
    for round in 0..u64::from(seed::number("HOLDFAST_ROUNDS", 1)) {
        let mut rig = Rig::start(seed.wrapping_add(round)).await?;
        rig.scrub().await?;
        rig.every_kind_is_known()?;
        rig.running().await?;
        for (n, kind) in Kind::ALL.into_iter().enumerate() {
            // Members of a demo never asked to join.
            if matches!(kind, Kind::Lock | Kind::People | Kind::Join) {
                continue;
            }
            let nodes = if (n as u64 + round).is_multiple_of(2) {
                ["a", "b"]
            } else {
                ["b", "a"]
            };
            let [node, other] = nodes;
            rig.round(node, other, kind)
                .await
                .with_context(|| format!("round {round}, {kind:?} of {node}"))?;
        }
    }
    Ok(())
}

/// The witness keeps the control plane's files alone. Without it, the data nodes go on.
#[tokio::test(flavor = "multi_thread")]
async fn i10_j1_a_flipped_bit_in_any_file_of_a_witness_is_noticed() -> Result<()> {
    let seed = seed::seed("bit flips of the witness");
    for round in 0..u64::from(seed::number("HOLDFAST_ROUNDS", 1)) {
        let mut rig = Rig::start(seed.wrapping_add(round)).await?;
        for kind in Kind::OF_WITNESSES {
            rig.round("w", "a", kind)
                .await
                .with_context(|| format!("round {round}, {kind:?} of w"))?;
        }
        let found = files(&rig.dir("w"), "")?;
        let missed = found.iter().find(|path| {
            let kind = Kind::of(path);
            let flipped = kind.is_some_and(|kind| Kind::OF_WITNESSES.contains(&kind));
            !flipped && !matches!(kind, Some(Kind::Lock | Kind::People | Kind::Aside))
        });
        ensure!(missed.is_none(), "nothing was flipped in {missed:?}");
    }
    Ok(())
}

/// The number of a try to join means nothing once its node is a member.
#[tokio::test(flavor = "multi_thread")]
async fn i10_a_flipped_bit_in_the_number_of_a_try_to_join_harms_nobody() -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed::seed("bit flips of a try to join"));
    let dir = tempfile::tempdir()?;
    let base = cluster::free_ports()?;
    let a = DataNode::start("a", dir.path(), base, 0)?;
    let mut b = DataNode::start("b", dir.path(), base, 1)?;
    a.insist(&["cluster", "init", "--name", "flips"]).await?;
    let printed = a.insist(&["cluster", "token"]).await?.out;
    let token = printed.lines().next().context("a token")?;
    b.insist(&["cluster", "join", token]).await?;
    let is_up = |status: &Status| {
        let b = status.nodes.iter().find(|node| node.name == "b");
        status.quorum && b.is_some_and(|b| b.state == NodeState::Up)
    };
    a.wait_for("b a member", LIMIT, is_up).await?;
    b.kill().await?;
    let what = flip(&dir.path().join("b").join("join"), &mut random)?;
    b.restart()?;
    // As one that has caught up; only then it says that it has a quorum.
    b.wait_for(&what, LIMIT, is_up).await?;
    Ok(())
}
