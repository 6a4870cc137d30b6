//! The data node: all extents, their threads, their links.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_journal::Verdict;
use holdfast_types::{DeviceId, ExtentId, Mono, NodeId, Revision};
use tokio::net::TcpListener;

use super::checkpoint::Chore;
use super::extent::{Extent, Tag};
use super::fatal::EndsWithPanic;
use super::scrub::is_wanted;
use super::shared::{Ears, Shared, guard, spawn, spawn_io};
use super::status::{ExtentStatus, Scrubs, snapshot};
use super::{DriverConfig, Front, LeaseView, Proposer, Space, checkpoint, timer};
use crate::core::ExtentCore;
use crate::core::api::{
    AbortScope, Event, Identity, OpId, Recovered, Request, RoleName, Room, StatusNews, View,
};
use crate::net::{Links, Net, NetConfig, PeerAddress, PeerReport};
use crate::store::{
    Checkpoint, Damage, Devices, Entry, ExtentFile, ExtentMeta, NodeJournal, NodeStore, Owner, Place,
    StoreError,
};

/// How long the first journal entry of a new extent may take.
const FIRST_ENTRY_WAIT: Duration = Duration::from_secs(30);

/// What a data node is given.
pub struct Parts {
    /// Who it is.
    pub me: Identity,
    /// The cluster, in its present incarnation.
    pub cluster: u128,
    /// How it runs.
    pub config: DriverConfig,
    /// Times of links.
    pub net: NetConfig,
    /// The block devices that were given to it, and by which names it knows them.
    pub devices: Vec<(DeviceId, PathBuf)>,
    /// Where it listens for links: on each of its addresses for them.
    pub listeners: Vec<TcpListener>,
    /// Where links run.
    pub runtime: tokio::runtime::Handle,
    /// Who takes answers.
    pub front: Arc<dyn Front>,
    /// Who takes proposals.
    pub proposer: Arc<dyn Proposer>,
    /// Time and lease.
    pub lease: Arc<dyn LeaseView>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parts of node {}", self.me.node)
    }
}

/// A data node that runs. Dropping it stops everything at once, as a crash would: nothing is lost that was acknowledged.
pub struct DataNode {
    shared: Arc<Shared>,
    net: Option<Net>,
    threads: Vec<JoinHandle<()>>,
    verdict: Verdict,
}

impl std::fmt::Debug for DataNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataNode {}", self.shared.me.node)
    }
}

/// The node knows no such extent (yet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("extent {0} is not known here")]
pub struct UnknownExtent(pub ExtentId);

impl DataNode {
    /// Opens what is under `root`, recovers every extent that has files there, and starts. Blocks on the disk. Extents serve once
    /// [`DataNode::apply_state`] tells what the cluster decided; links come with [`DataNode::set_peers`].
    ///
    /// # Errors
    /// [`StoreError`], one line: the store cannot be used at all. A single extent that cannot be opened stays out and is told in
    /// the log.
    pub fn start(root: &Path, parts: Parts) -> Result<Self, StoreError> {
        let Parts {
            me,
            cluster,
            config,
            net,
            devices,
            listeners,
            runtime,
            front,
            proposer,
            lease,
        } = parts;
        let store = NodeStore::new(root)?;
        let node = me.node;
        let devices = Devices::new(Owner { cluster, node }, &store.extents(), devices);
        let Found { files, broken, out } = open_extents(&store, &devices)?;
        devices.give_back();
        let shared = Arc::new(Shared::new(me, config, store, devices, (front, proposer, lease)));
        *guard(&shared.troubles) = out;
        let sink = || {
            let shared: Weak<Shared> = Arc::downgrade(&shared);
            Box::new(move |completion| {
                let _ends = EndsWithPanic("the journal's report");
                if let Some(shared) = shared.upgrade() {
                    shared.journaled(completion);
                }
            }) as Box<dyn holdfast_journal::Sink<Tag>>
        };
        let (journal, mut opened) = NodeJournal::open(&shared.store, &shared.config.journal, &files, sink)?;
        *guard(&shared.lost) = broken.into_iter().chain(opened.without_files).collect();
        for (id, file) in files {
            if let Some((recovered, place)) = opened.extents.remove(&id) {
                let (applied, tail, damaged) = (recovered.applied, recovered.tail.len(), recovered.damaged);
                tracing::info!(extent = %id, %applied, tail, damaged, "recovered");
                let core = ExtentCore::new(me, id, shared.config.core.clone(), recovered);
                let extent = Arc::new(Extent::new(id, core, Some(file), place));
                shared.insert(extent);
            }
        }
        // Both are set once, here.
        let _ = shared.journal.set(journal);
        let links = Arc::new(Links::new(me, cluster, Box::new(Ears(Arc::downgrade(&shared)))));
        let _ = shared.links.set(Arc::clone(&links));
        let threads = spawn_all(&shared).map_err(|error| StoreError::io("start threads for", root, error))?;
        let net = Net::start(runtime, listeners, links, net);
        Ok(Self {
            shared,
            net: Some(net),
            threads,
            verdict: opened.recovery.verdict,
        })
    }

    /// Who this is.
    pub fn me(&self) -> Identity {
        self.shared.me
    }

    /// How the journal was found at start.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Says who the other data nodes are and where they listen.
    pub fn set_peers(&self, peers: &[PeerAddress]) {
        if let Some(net) = &self.net {
            net.set_peers(peers);
        }
    }

    /// How the links to other data nodes stand.
    pub fn links(&self) -> Vec<PeerReport> {
        self.shared
            .links
            .get()
            .map(|links| links.reports())
            .unwrap_or_default()
    }

    /// Takes in a committed state of the cluster: all its extents. New ones are created, sizes followed, and those gone from a
    /// state that is not older than their creation here are removed with their files. Revisions must not go down. May wait for
    /// the disk; must not be called from within a callback of this node.
    ///
    /// An extent whose files cannot be made stays out, and one whose file cannot grow keeps its size here; both are told in the log,
    /// and the next call tries again.
    pub fn apply_state(&self, revision: Revision, views: &[(ExtentId, Arc<View>)]) {
        let shared = &self.shared;
        for (id, view) in views {
            let followed = shared.follow(*id, view);
            if let Err(error) = &followed {
                tracing::error!(extent = %id, %error, "the extent's files are not what the cluster wants");
            }
            let mut troubles = guard(&shared.troubles);
            match followed {
                Ok(()) => drop(troubles.remove(id)),
                // It stays out since the start, which said why.
                Err(StoreError::Exists(_)) if troubles.contains_key(id) => {}
                Err(error) => drop(troubles.insert(*id, error.to_string())),
            }
        }
        let there: HashSet<ExtentId> = views.iter().map(|(id, _)| *id).collect();
        for extent in shared.all() {
            if !there.contains(&extent.id) {
                shared.forget(&extent, revision);
            }
        }
        guard(&shared.troubles).retain(|id, _| there.contains(id));
        shared.revision.fetch_max(revision.0, Ordering::AcqRel);
    }

    /// Why replicas of this node are not what the cluster wants, one line each.
    pub fn troubles(&self) -> BTreeMap<ExtentId, String> {
        guard(&self.shared.troubles).clone()
    }

    /// The block devices of this node.
    pub fn devices(&self) -> &Devices {
        &self.shared.devices
    }

    /// A device that is gone does not come back: what is left of the extents on it is set aside, and they are made anew by the next
    /// [`DataNode::apply_state`], as replicas that lost everything. False if one of them is in use: then nothing is changed.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn give_up_device(&self, id: DeviceId) -> Result<bool, StoreError> {
        let shared = &self.shared;
        let _lifecycle = shared.lifecycle.lock().unwrap_or_else(PoisonError::into_inner);
        let on = shared.devices.extents_on(id)?;
        let is_open = |id: &ExtentId| {
            shared
                .extent(*id)
                .is_some_and(|extent| extent.file.get().is_some())
        };
        if on.iter().any(is_open) {
            return Ok(false);
        }
        for extent in on {
            // Before its description goes: what is lost must not be taken for new.
            guard(&shared.lost).insert(extent);
            ExtentFile::set_aside(&shared.store.extents(), extent)?;
        }
        Ok(true)
    }

    /// The lease came or went: every core looks at once, not at its next deadline.
    pub fn lease_changed(&self) {
        for extent in self.shared.all() {
            self.shared.drive(&extent, [Event::Tick]);
        }
    }

    /// Takes a command in; its one answer comes through [`Front::complete`], perhaps before this returns. Never waits.
    ///
    /// # Errors
    /// [`UnknownExtent`]: then no answer comes.
    pub fn submit(&self, extent: ExtentId, op: OpId, request: Request) -> Result<(), UnknownExtent> {
        let known = self.shared.extent(extent).ok_or(UnknownExtent(extent))?;
        self.shared.submit(&known, op, request);
        Ok(())
    }

    /// From now until [`DataNode::release`], what this thread submits is only queued; then it leaves for peers and the journal at once. For
    /// who has several commands at hand. The thread must wait for nothing meanwhile.
    pub fn hold(&self) {
        self.shared.hold_together();
    }

    /// The end of [`DataNode::hold`].
    pub fn release(&self) {
        self.shared.release_together();
    }

    /// Aborts commands of this node; each still gets its one answer.
    ///
    /// # Errors
    /// [`UnknownExtent`].
    pub fn abort(&self, extent: ExtentId, scope: AbortScope) -> Result<(), UnknownExtent> {
        let known = self.shared.extent(extent).ok_or(UnknownExtent(extent))?;
        self.shared.flush_waiting(&known);
        self.shared.drive(&known, [Event::Abort { scope }]);
        Ok(())
    }

    /// Tells what this node knows of statuses of COMPARE AND WRITEs (W6). An extent that is gone needs none.
    pub fn tell_statuses(&self, extent: ExtentId, news: Vec<StatusNews>) {
        if let Some(known) = self.shared.extent(extent) {
            self.shared.drive(&known, [Event::Statuses { news }]);
        }
    }

    /// Asks the extent's primary, if it is here, to hand over (E6).
    ///
    /// # Errors
    /// [`UnknownExtent`].
    pub fn switchover(&self, extent: ExtentId, to: NodeId) -> Result<(), UnknownExtent> {
        let known = self.shared.extent(extent).ok_or(UnknownExtent(extent))?;
        self.shared.drive(&known, [Event::Switchover { to }]);
        Ok(())
    }

    /// What [`Proposer::confirm`] asked for is there (W4).
    pub fn confirmed(&self, extent: ExtentId, round: u64) {
        // One that is gone has no reads that wait.
        if let Some(extent) = self.shared.extent(extent) {
            self.shared.drive(&extent, [Event::Confirmed { round }]);
        }
    }

    /// Has an extent's replicas compared with this node, if it is the extent's primary: once no other scrub runs here, and again after
    /// whatever cuts it short, as long as this process runs. False if it is not.
    ///
    /// # Errors
    /// [`UnknownExtent`].
    pub fn scrub(&self, extent: ExtentId) -> Result<bool, UnknownExtent> {
        let known = self.shared.extent(extent).ok_or(UnknownExtent(extent))?;
        let serves = known.lock().core.status().role == RoleName::Primary;
        if serves {
            known.scrub_wanted.store(true, Ordering::Relaxed);
            self.shared.chores.push([Chore::Scrubs]);
        }
        Ok(serves)
    }

    /// The newest committed state that all extents were given.
    pub fn revision(&self) -> Revision {
        Revision(self.shared.revision.load(Ordering::Acquire))
    }

    /// How much space this node's disk has, and what it can take in.
    pub fn space(&self) -> (Space, Room) {
        let (room, space) = *guard(&self.shared.room);
        (space, room)
    }

    /// How an extent stands here.
    pub fn status(&self, extent: ExtentId) -> Option<ExtentStatus> {
        let extent = self.shared.extent(extent)?;
        Some(self.shared.status(&extent))
    }

    /// Raised whenever what [`DataNode::fit`] says may have changed, but for extents that come and go.
    pub fn fitness(&self) -> u64 {
        self.shared.fitness.load(Ordering::Acquire)
    }

    /// Which extents are known here, and whether the replica of each can serve (J1, J2).
    pub fn fit(&self) -> BTreeMap<ExtentId, bool> {
        let extents = self.shared.all();
        let fit = |extent: &Arc<Extent>| (extent.id, extent.lock().core.is_fit());
        extents.iter().map(fit).collect()
    }

    /// How all extents stand here.
    pub fn statuses(&self) -> Vec<ExtentStatus> {
        let extents = self.shared.all();
        extents.iter().map(|extent| self.shared.status(extent)).collect()
    }

    /// How full the journal is.
    pub fn journal_usage(&self) -> Option<holdfast_journal::Usage> {
        Some(self.shared.journal.get()?.usage())
    }

    /// Flushes extents and moves their checkpoints now, so that the next start has little to replay. For a planned stop.
    pub fn checkpoint(&self) {
        checkpoint::round(&self.shared, false);
    }
}

impl Drop for DataNode {
    fn drop(&mut self) {
        self.shared.stop();
        // Whoever is inside a core finishes that step; nobody begins another.
        for extent in self.shared.all() {
            drop(extent.lock());
        }
        self.net = None;
        for thread in self.threads.drain(..) {
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the data node panicked");
            }
        }
        if let Some(journal) = self.shared.journal.get() {
            journal.close();
        }
        // Extents, and the tags that name them, hold each other no longer.
        self.shared.clear();
    }
}

fn spawn_all(shared: &Arc<Shared>) -> std::io::Result<Vec<JoinHandle<()>>> {
    let mut threads = spawn_io(shared)?;
    threads.push(spawn("extent-timer", shared, timer::serve)?);
    threads.push(spawn("extent-chores", shared, checkpoint::serve_chores)?);
    threads.push(spawn("checkpoint", shared, checkpoint::serve)?);
    Ok(threads)
}

type Files = Vec<(ExtentId, Arc<ExtentFile>)>;

/// What a start found.
#[derive(Default)]
struct Found {
    /// What can be opened.
    files: Files,
    /// Whose files were set aside because they are broken.
    broken: Vec<ExtentId>,
    /// What stays out, and why.
    out: BTreeMap<ExtentId, String>,
}

fn open_extents(store: &NodeStore, devices: &Devices) -> Result<Found, StoreError> {
    let dir = store.extents();
    let mut found = Found::default();
    for id in ExtentFile::list(&dir)? {
        match ExtentFile::open(&dir, id, devices) {
            Ok(file) => found.files.push((id, Arc::new(file))),
            Err(StoreError::Deleted(_)) => {
                tracing::info!(extent = %id, "a removal that was cut short is ended");
                ExtentFile::remove(&dir, id)?;
            }
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(extent = %id, %error, "its files are set aside; it is resynced from its peer before it counts again");
                ExtentFile::set_aside(&dir, id)?;
                found.broken.push(id);
            }
            Err(error) => {
                tracing::error!(extent = %id, %error, "the extent stays out");
                found.out.insert(id, error.to_string());
            }
        }
    }
    Ok(found)
}

impl Shared {
    fn insert(&self, extent: Arc<Extent>) {
        let mut extents = self.extents.write().unwrap_or_else(PoisonError::into_inner);
        extents.insert(extent.id, extent);
    }

    fn clear(&self) {
        self.extents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn now(&self) -> Mono {
        self.lease.ctx().now
    }

    fn status(&self, extent: &Arc<Extent>) -> ExtentStatus {
        let damaged = extent.file.get().and_then(|file| file.meta().damaged);
        let scrubs = Scrubs {
            last: *guard(&extent.scrubbed),
            wanted: is_wanted(extent),
        };
        snapshot(&mut extent.lock(), damaged, scrubs, self.now())
    }

    /// Brings an extent to what the cluster decided.
    fn follow(self: &Arc<Self>, id: ExtentId, view: &Arc<View>) -> Result<(), StoreError> {
        let extent = match self.extent(id) {
            Some(extent) => extent,
            None => self.create(id, view)?,
        };
        let (mut view, mut grown) = (Arc::clone(view), Ok(()));
        if let Some(file) = extent.file.get() {
            // Whatever becomes of the file, its core hears who is primary, if not of blocks that it lacks. One that failed is not
            // touched again (J2).
            if !file.has_failed() {
                grown = file.grow(view.blocks << view.block_size.shift());
            }
            if grown.is_ok() && !view.policy.thin && !file.has_failed() && !file.is_full() {
                grown = file.allocate_all();
            }
            if grown.is_err() {
                Arc::make_mut(&mut view).blocks = file.blocks();
            }
        } else if view.replicas.contains(&self.me.node) {
            // It only forwarded so far; a replica that is new starts from nothing, as its core has.
            let file = self.create_files(id, &view, &extent.place)?;
            let _ = extent.file.set(Arc::new(file));
        }
        let news = {
            let mut slot = extent.lock();
            let same = slot
                .view
                .as_ref()
                .is_some_and(|old| same_but_revision(old, &view));
            if !same {
                slot.view = Some(Arc::clone(&view));
            }
            !same
        };
        if news {
            self.drive(&extent, [Event::View(view)]);
        }
        grown
    }

    fn create(self: &Arc<Self>, id: ExtentId, view: &Arc<View>) -> Result<Arc<Extent>, StoreError> {
        let place = Arc::new(Place::new(id));
        let mut recovered = Recovered::default();
        let mut file = None;
        let _lifecycle = self.lifecycle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(extent) = self.extent(id) {
            return Ok(extent);
        }
        if view.replicas.contains(&self.me.node) {
            let made = self.create_files(id, view, &place)?;
            recovered.damaged = made.meta().damaged.is_some();
            file = Some(Arc::new(made));
        } else {
            self.first_entry(&place)?;
        }
        let core = ExtentCore::new(self.me, id, self.config.core.clone(), recovered);
        let extent = Arc::new(Extent::new(id, core, file, place));
        let links = self.links.get().cloned();
        let begin = |up: &[_]| {
            self.insert(Arc::clone(&extent));
            self.catch_up(&extent, view, up);
        };
        match links {
            Some(links) => links.while_quiet(begin),
            None => begin(&[]),
        }
        tracing::info!(extent = %id, "extent is new here");
        Ok(extent)
    }

    fn create_files(&self, id: ExtentId, view: &View, place: &Arc<Place>) -> Result<ExtentFile, StoreError> {
        // An in-sync member may have acknowledged records, unless the extent is quite new: an empty file is not that member.
        let old = view.epoch.0 > 1 || guard(&self.lost).contains(&id);
        let missing = view.in_sync.contains(&self.me.node) && old;
        if missing {
            tracing::error!(extent = %id, "the files of the extent are gone: it is resynced from its peer before it counts again");
        }
        let meta = ExtentMeta {
            id,
            bytes: view.blocks << view.block_size.shift(),
            block_size: view.block_size,
            created: view.revision,
            damaged: missing.then_some(Damage::Missing),
            sums: true,
            device: None,
        };
        ExtentFile::check_new(&self.store.extents(), &meta)?;
        // The journal first: files that it does not know are not trusted at the next start (J1).
        self.first_entry(place)?;
        if view.policy.on_devices {
            return self.create_on_device(meta);
        }
        let file = ExtentFile::create(&self.store.extents(), meta)?;
        if !view.policy.thin
            && let Err(error) = file.allocate_all()
        {
            // It has no room here: nothing is left behind, and the next committed state finds it missing again.
            ExtentFile::remove(&self.store.extents(), id)?;
            return Err(error);
        }
        Ok(file)
    }

    fn create_on_device(&self, meta: ExtentMeta) -> Result<ExtentFile, StoreError> {
        let (device, again) = self.devices.take(meta.id, meta.bytes)?;
        if again {
            tracing::error!(
                extent = %meta.id,
                "its device is here, and its description is gone: it is resynced from its peer before it counts again"
            );
        }
        let damaged = meta.damaged.or(again.then_some(Damage::Missing));
        let dir = self.store.extents();
        let made = ExtentFile::create_on(&dir, ExtentMeta { damaged, ..meta }, device);
        if made.is_err() {
            // Nothing is left behind, and the next committed state finds it missing again.
            ExtentFile::remove(&dir, meta.id)?;
            self.devices.give_back();
        }
        made
    }

    fn first_entry(&self, place: &Arc<Place>) -> Result<(), StoreError> {
        let failed = || StoreError::damaged(&self.store.journal(), "it takes no entries");
        let journal = self.journal.get().ok_or_else(failed)?;
        let (tell, told) = mpsc::channel();
        journal.append(
            place,
            Entry::Checkpoint(Checkpoint::default()),
            false,
            Tag::Told(tell),
        );
        told.recv_timeout(FIRST_ENTRY_WAIT).map_err(|_| failed())
    }

    /// The extent is in no newer state of the cluster: its files go.
    fn forget(self: &Arc<Self>, extent: &Arc<Extent>, revision: Revision) {
        let created = extent.file.get().map_or(Revision(0), |file| file.meta().created);
        if revision < created {
            return;
        }
        let _lifecycle = self.lifecycle.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove(extent);
        // The device first: a description without one is what a start can end the removal of.
        if let Some(Err(error)) = extent.file.get().map(|file| file.release_device()) {
            tracing::error!(extent = %extent.id, %error, "the device of a removed extent keeps its label");
        }
        if let Err(error) = ExtentFile::remove(&self.store.extents(), extent.id) {
            tracing::error!(extent = %extent.id, %error, "the files of a removed extent are left over");
        }
        tracing::info!(extent = %extent.id, "extent removed");
    }

    fn remove(&self, extent: &Arc<Extent>) {
        let mut extents = self.extents.write().unwrap_or_else(PoisonError::into_inner);
        extents.remove(&extent.id);
    }
}

fn same_but_revision(old: &View, new: &View) -> bool {
    let new = View {
        revision: old.revision,
        ..new.clone()
    };
    *old == new
}
