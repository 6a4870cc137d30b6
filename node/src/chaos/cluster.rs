//! A cluster on machines of its own: a process in a network namespace for each node, data disks that are mounted images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use holdfast_drill::chaos::Place;
use holdfast_drill::ground::{DIR_MARK, Frozen, GroundError, Image, Network, Tools};
use holdfast_drill::initiator::Dial;
use holdfast_proto::admin::{CreateTargetRequest, MapLunRequest, ScrubExtentRequest, SwitchoverRequest};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::admin::{AdminAddress, AdminClient};
use crate::demo;
use crate::status::{ExtentStatus, ScrubStatus, StatusDocument};
use crate::watchers::{Unit, Watchers};

const TARGET: &str = "iqn.2026-11.io.holdfast:chaos";
/// The units, by their LUNs, and their sizes in MiB.
const EXTENTS: [(&str, u64); 5] = [
    ("disk", 16),
    ("bulk", BULK_BYTES >> 20),
    ("shared1", 1),
    ("shared2", 1),
    ("shared3", 1),
];
/// The unit whose blocks everybody writes.
pub(super) const DISK: u8 = 0;
/// The one that is written all over, so that a replica that comes back has much to copy.
pub(super) const BULK: u8 = 1;
/// Those that are also reserved, with the names of their workloads.
pub(super) const SHARED: [(u8, &str); 3] = [
    (2, "reservations 1"),
    (3, "reservations 2"),
    (4, "reservations 3"),
];
/// For the cluster to come up.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// For one look at a node.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of each data disk. A full one leaves no room for what the extent does not hold yet.
const DISK_MIB: u64 = 512;
pub(super) const BULK_BYTES: u64 = 64 << 20;
/// Ports of a node on its machine.
const PORTAL: u16 = 3260;
const RAFT: u16 = 3262;
const REPLICATION: u16 = 3263;

/// Nodes a, b and w, and what can be done to them. Dropping it ends and removes all of it, but for a directory that was given.
pub(super) struct Cluster {
    nodes: BTreeMap<Place, Child>,
    frozen: BTreeMap<Place, Frozen>,
    /// Of the data nodes; none where images cannot be mounted.
    disks: BTreeMap<Place, Image>,
    network: Network,
    pub(super) dir: PathBuf,
    fresh: Option<TempDir>,
}

/// The machine's name in the network.
pub(super) const fn machine(place: Place) -> &'static str {
    match place {
        Place::Host => Network::SELF,
        node => node.name(),
    }
}

impl Cluster {
    /// Starts the nodes in `dir` (which must be empty or absent; default: a fresh one, removed at the end) and makes them a cluster with
    /// one LUN.
    pub(super) async fn start(dir: Option<&Path>) -> anyhow::Result<Self> {
        let fresh = match dir {
            Some(_) => None,
            None => {
                let name = format!("{DIR_MARK}{}-", std::process::id());
                Some(tempfile::Builder::new().prefix(&name).tempdir()?)
            }
        };
        let dir = match (dir, &fresh) {
            (Some(dir), _) => empty(dir)?,
            (None, fresh) => fresh
                .as_ref()
                .map(|dir| dir.path().to_owned())
                .unwrap_or_default(),
        };
        let network = Network::make(&Place::NODES.map(Place::name))?;
        let disks = disks(&dir)?;
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            frozen: BTreeMap::new(),
            disks,
            network,
            dir,
            fresh,
        };
        for place in Place::NODES {
            cluster.start_node(place)?;
        }
        match timeout(READY_WITHIN, cluster.set_up()).await {
            Ok(done) => done?,
            Err(_) => bail!(
                "the nodes are not ready after {} s: {}",
                READY_WITHIN.as_secs(),
                cluster.last_words()
            ),
        }
        Ok(cluster)
    }

    /// Whether the data disks can be made to hang and be filled.
    pub(super) fn has_disks(&self) -> bool {
        !self.disks.is_empty()
    }

    pub(super) const fn network(&self) -> &Network {
        &self.network
    }

    /// Keeps the directory for whoever wants to look into it; where it is.
    pub(super) fn keep(&mut self) -> PathBuf {
        if let Some(fresh) = self.fresh.take() {
            return fresh.keep();
        }
        self.dir.clone()
    }

    /// Starts a node that does not run.
    pub(super) fn start_node(&mut self, place: Place) -> anyhow::Result<()> {
        let name = place.name();
        let home = self.dir.join(name);
        std::fs::create_dir_all(&home)?;
        let file = self.dir.join(format!("{name}.toml"));
        std::fs::write(&file, self.config(place, &home)?)?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("{name}.log")))?;
        let (program, arguments) = self.network.on(name);
        let node = Command::new(program)
            .args(arguments)
            .arg(std::env::current_exe()?)
            .arg("node")
            .arg("--config")
            .arg(&file)
            .arg("--with-parent")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for this process, with which its nodes end.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a node")?;
        self.nodes.insert(place, node);
        Ok(())
    }

    fn config(&self, place: Place, home: &Path) -> anyhow::Result<String> {
        let (name, address) = (place.name(), self.network.address(place.name())?);
        let (role, data) = match place {
            Place::W => ("witness", String::new()),
            _ => (
                "data",
                format!("replication = \"{address}:{REPLICATION}\"\nportals = [\"{address}:{PORTAL}\"]\n"),
            ),
        };
        Ok(format!(
            "name = \"{name}\"\nrole = \"{role}\"\ndir = \"{}\"\n[listen]\nraft = \"{address}:{RAFT}\"\n\
             heartbeat = \"{address}:{RAFT}\"\n{data}",
            home.display()
        ))
    }

    fn admin(&self, place: Place) -> AdminAddress {
        AdminAddress::Unix(self.dir.join(place.name()).join("admin.sock"))
    }

    async fn set_up(&self) -> anyhow::Result<()> {
        let addresses = Place::NODES.map(|place| self.admin(place));
        for address in &addresses {
            demo::connect_when_up(address).await;
        }
        crate::cli::init_cluster("chaos", &addresses).await?;
        let mut client = AdminClient::connect(&addresses[0]).await?;
        demo::with_quorum(&mut client).await?;
        let iqn = TARGET.to_owned();
        client
            .create_target(CreateTargetRequest { iqn: iqn.clone() })
            .await?;
        for (lun, (name, mib)) in (0..).zip(EXTENTS) {
            client.create_extent(demo::pair_extent(name, mib << 20)).await?;
            let (iqn, extent) = (iqn.clone(), name.to_owned());
            client.map_lun(MapLunRequest { iqn, lun, extent }).await?;
        }
        self.until_whole(READY_WITHIN).await
    }

    /// How to log in through a data node's portal, as session `number`, which uses that LUN.
    pub(super) fn dial(&self, place: Place, lun: u8, number: u16) -> anyhow::Result<Dial> {
        let url = format!(
            "iscsi://{}:{PORTAL}/{TARGET}/{lun}",
            self.network.address(place.name())?
        );
        let initiator = format!("iqn.2026-11.io.holdfast:chaos.{}", number / 2);
        Ok(Dial::new(url.parse()?, initiator.parse()?, number))
    }

    /// The newest state that a node with a quorum knows.
    pub(super) async fn status(&self) -> Option<StatusDocument> {
        let mut newest: Option<StatusDocument> = None;
        for place in Place::NODES {
            if let Some(status) = self.look(place).await
                && status.quorum
                && newest
                    .as_ref()
                    .is_none_or(|other| other.revision < status.revision)
            {
                newest = Some(status);
            }
        }
        newest
    }

    /// Looks at all nodes from now on.
    pub(super) fn watch(&self) -> Watchers {
        let nodes = Place::NODES.map(|place| (place.name().to_owned(), self.admin(place)));
        let (extent, _) = EXTENTS[usize::from(DISK)];
        Watchers::start(
            nodes,
            Unit {
                extent,
                target: TARGET,
            },
        )
    }

    /// Waits until every node is up and every replica in sync.
    pub(super) async fn until_whole(&self, limit: Duration) -> anyhow::Result<()> {
        self.until(limit, is_whole).await
    }

    async fn until(&self, limit: Duration, is: impl Fn(&StatusDocument) -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < limit {
            let status = self.status().await;
            if status.as_ref().is_some_and(&is) {
                return Ok(());
            }
            last = status.or(last);
            sleep(LOOK_EVERY).await;
        }
        let why = last.map_or_else(
            || "no node with a quorum answers".to_owned(),
            |status| status.reasons.join("; "),
        );
        bail!("not whole again after {} s: {why}", limit.as_secs())
    }

    /// Has the replicas of every extent compared, block by block, while initiators go on.
    ///
    /// # Errors
    /// Some differ, or cannot be compared within `limit`.
    pub(super) async fn compare(&self, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut left: Vec<&str> = EXTENTS.map(|(name, _)| name).to_vec();
        let mut asked = BTreeSet::new();
        while began.elapsed() < limit {
            let mut open = left.clone();
            for place in [Place::A, Place::B] {
                let Some(status) = self.look(place).await else {
                    continue;
                };
                for name in &left {
                    // Only the primary's node knows of its scrubs.
                    let Some(scrub) = scrubbed(&status, name) else {
                        continue;
                    };
                    if !scrub.asked_for && asked.contains(&(place, *name)) {
                        same(name, &scrub)?;
                        open.retain(|other| other != name);
                    } else if !scrub.asked_for && self.ask_to_compare(place, name).await.is_ok() {
                        asked.insert((place, *name));
                    }
                }
            }
            if open.is_empty() {
                return Ok(());
            }
            left = open;
            sleep(LOOK_EVERY).await;
        }
        bail!(
            "the replicas of {} are not compared after {} s",
            left.join(", "),
            limit.as_secs()
        )
    }

    async fn ask_to_compare(&self, primary: Place, extent: &str) -> anyhow::Result<()> {
        let request = ScrubExtentRequest {
            extent: extent.to_owned(),
            relayed: false,
        };
        let address = self.admin(primary);
        let ask = async { AdminClient::connect(&address).await?.scrub_extent(request).await };
        timeout(LOOK_WITHIN, ask).await??;
        Ok(())
    }

    async fn look(&self, place: Place) -> Option<StatusDocument> {
        let address = self.admin(place);
        let look = async { AdminClient::connect(&address).await?.status().await };
        timeout(LOOK_WITHIN, look).await.ok()?.ok()
    }

    /// Asks for the extents to be moved: an answer may take long, so it is not waited for.
    pub(super) fn ask_to_move(&self, to: Place, through: Place) {
        let address = self.admin(through);
        tokio::spawn(async move {
            let asked = async {
                let request = SwitchoverRequest {
                    extents: EXTENTS.map(|(name, _)| name.to_owned()).to_vec(),
                    to: to.name().to_owned(),
                };
                AdminClient::connect(&address).await?.switchover(request).await
            };
            // Refused while it cannot be done, as any administrator is.
            if let Err(error) = asked.await {
                tracing::debug!(%error, "the switchover was refused");
            }
        });
    }

    /// Moves the extents and waits until they are there.
    pub(super) async fn move_to(&self, to: Place, limit: Duration) -> anyhow::Result<()> {
        let is_there = |status: &StatusDocument| {
            is_whole(status)
                && status
                    .extents
                    .iter()
                    .all(|extent| extent.primary.as_deref() == Some(to.name()))
        };
        let began = Instant::now();
        while began.elapsed() < limit {
            if self.status().await.as_ref().is_some_and(is_there) {
                return Ok(());
            }
            self.ask_to_move(to, Place::W);
            sleep(LOOK_EVERY * 10).await;
        }
        bail!("the extents cannot be moved to {to}")
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, place: Place) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(&place).context("no such node")?;
        Ok(node.start_kill()?)
    }

    /// Starts a killed node once its process is gone.
    pub(super) async fn restart(&mut self, place: Place) -> anyhow::Result<()> {
        if let Some(mut node) = self.nodes.remove(&place) {
            let ended = timeout(READY_WITHIN, node.wait()).await;
            ended.with_context(|| format!("node {place} does not end"))??;
        }
        self.start_node(place)
    }

    /// Ends that nobody asked for.
    pub(super) fn ended(&mut self) -> Vec<String> {
        let ended = self.nodes.iter_mut().filter_map(|(place, node)| {
            let status = node.try_wait().ok().flatten()?;
            Some(format!("node {place} ended by itself: {status}"))
        });
        ended.collect()
    }

    pub(super) fn signal(&self, place: Place, signal: Signal) -> anyhow::Result<()> {
        let id = self.nodes.get(&place).and_then(Child::id);
        let pid = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("node {place} has no process"))?;
        kill_process(pid, signal).with_context(|| format!("node {place} could not be sent a signal"))
    }

    pub(super) fn hang_disk(&mut self, place: Place) -> anyhow::Result<()> {
        let disk = self.disks.get(&place).context("no such disk")?;
        let frozen = disk.freeze()?;
        self.frozen.insert(place, frozen);
        Ok(())
    }

    pub(super) fn thaw_disk(&mut self, place: Place) {
        self.frozen.remove(&place);
    }

    /// Takes all room of a disk with a file; gives it back.
    pub(super) fn fill_disk(&self, place: Place, fill: bool) -> anyhow::Result<()> {
        let disk = self.disks.get(&place).context("no such disk")?;
        let path = disk.at.join("takes-all-room");
        if !fill {
            return Ok(std::fs::remove_file(path)?);
        }
        let file = std::fs::File::create(&path)?;
        let stat = rustix::fs::fstatvfs(&file)?;
        let free = stat.f_bavail * stat.f_frsize;
        // Metadata may take a little of it meanwhile: all but the last MiB is as full as it gets at once.
        let take = free.saturating_sub(1 << 20).max(1);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, take)?;
        Ok(())
    }

    fn last_words(&self) -> String {
        let words = Place::NODES.map(|place| {
            let log = std::fs::read_to_string(self.dir.join(format!("{place}.log"))).unwrap_or_default();
            format!("{place}: {}", log.lines().last().unwrap_or("says nothing"))
        });
        words.join("; ")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A process that waits for a frozen disk does not end.
        self.frozen.clear();
        for node in self.nodes.values_mut() {
            // Gone already is as good.
            let _ = node.start_kill();
        }
        self.nodes.clear();
        // Then the disks, which are busy until the processes are gone, the network, and the directory.
    }
}

/// What a node knows of an extent's scrubs, if it is the primary's.
fn scrubbed(status: &StatusDocument, name: &str) -> Option<ScrubStatus> {
    let mut extents = status.extents.iter();
    let extent = extents.find(|extent| extent.name == name)?;
    let mine = extent.primary.as_ref() == Some(&status.answered_by);
    extent.scrub.clone().filter(|_| mine)
}

/// Whether a scrub that is over has found the replicas to be the same.
fn same(name: &str, scrub: &ScrubStatus) -> anyhow::Result<()> {
    let Some(last) = &scrub.last else { return Ok(()) };
    ensure!(
        last.diverged_blocks == 0 && last.bad_blocks == 0,
        "the replicas of {name} differ (I2) or are damaged: {} blocks differ, {} are bad",
        last.diverged_blocks,
        last.bad_blocks
    );
    Ok(())
}

fn empty(dir: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let is_empty = std::fs::read_dir(dir)?.next().is_none();
    ensure!(is_empty, "{} is not empty: give one that is", dir.display());
    Ok(std::path::absolute(dir)?)
}

/// The data nodes' disks; none, and no error, where images cannot be mounted.
fn disks(dir: &Path) -> anyhow::Result<BTreeMap<Place, Image>> {
    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(GroundError::Unavailable(why)) => {
            tracing::warn!(%why, "no disk will hang or be full");
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(error.into()),
    };
    let mut disks = BTreeMap::new();
    for place in [Place::A, Place::B] {
        let (file, at) = (
            dir.join(format!("{place}.img")),
            dir.join(place.name()).join("data"),
        );
        disks.insert(place, Image::make(&tools, &file, &at, DISK_MIB)?);
    }
    Ok(disks)
}

fn is_whole(status: &StatusDocument) -> bool {
    let has_both = |extent: &ExtentStatus| extent.replicas.len() == 2;
    status.leader.is_some() && demo::all_serve(status) && status.extents.iter().all(has_both)
}
