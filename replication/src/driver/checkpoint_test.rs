//! What the checkpointer keeps of a journal with small segments.
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::collections::HashMap;

use bytes::Bytes;
use holdfast_types::{
    BlockRange, BlockSize, Epoch, ExtentId, InSyncVersion, Incarnation, Lba, LeaseGeneration, Lsn, Mono,
    NodeId, OpOutcome, Revision,
};

use super::*;
use crate::core::api::{
    Config, Ctx, Identity, LinkId, Message, OpId, Policy, Proposal, Record, RecordBody, Recovered, View,
};
use crate::driver::inbox::Inbox;
use crate::driver::io;
use crate::driver::{DriverConfig, Front, LeaseView, Proposer};
use crate::store::{Devices, ExtentMeta, NodeStore, Opened, Place};

const ID: ExtentId = ExtentId::from_u128(9);
const OTHER: ExtentId = ExtentId::from_u128(10);

struct Nobody;

impl Front for Nobody {
    fn complete(&self, _: ExtentId, _: OpId, _: OpOutcome) {}
}

impl Proposer for Nobody {
    fn propose(&self, _: Vec<(ExtentId, Proposal)>) {}
}

impl LeaseView for Nobody {
    fn ctx(&self) -> Ctx {
        Ctx {
            now: Mono::from_nanos(1),
            lease_until: None,
            generation: LeaseGeneration(0),
            quorum: true,
        }
    }
}

fn run(node: u64) -> Identity {
    Identity {
        node: NodeId(node),
        incarnation: Incarnation(1),
    }
}

/// A node without threads: nothing is reported to the cores but what a test reports.
struct Rig {
    dir: tempfile::TempDir,
    shared: Arc<Shared>,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = NodeStore::new(dir.path()).unwrap();
        let journal = open(&store, &[]).0;
        let nobody = || Arc::new(Nobody);
        let shared = Shared::new(
            run(1),
            DriverConfig::default(),
            store,
            Devices::none(),
            (nobody(), nobody(), nobody()),
        );
        assert!(shared.journal.set(journal).is_ok());
        Self {
            dir,
            shared: Arc::new(shared),
        }
    }

    fn extent(&self, id: ExtentId) -> Arc<Extent> {
        let meta = ExtentMeta {
            id,
            bytes: 1 << 20,
            block_size: BlockSize::B4096,
            created: Revision(1),
            damaged: None,
            sums: true,
            device: None,
        };
        let file = ExtentFile::create(&self.shared.store.extents(), meta).unwrap();
        let core = ExtentCore::new(run(1), id, Config::default(), Recovered::default());
        let extent = Arc::new(Extent::new(
            id,
            core,
            Some(Arc::new(file)),
            Arc::new(Place::new(id)),
        ));
        self.shared
            .extents
            .write()
            .unwrap()
            .insert(id, Arc::clone(&extent));
        extent
    }

    fn journal(&self) -> &NodeJournal<Tag> {
        self.shared.journal.get().unwrap()
    }

    fn begin(&self, extent: &Arc<Extent>) {
        self.put(&extent.place, Entry::Checkpoint(Checkpoint::default()));
    }

    /// Appends, and waits until it is stable.
    fn put(&self, place: &Arc<Place>, entry: Entry) {
        let (tell, told) = mpsc::channel();
        self.journal().append(place, entry, false, Tag::Told(tell));
        // The journal drops the tag once the entry is stable.
        let _ = told.recv();
    }

    /// More than one segment of records that nobody needs.
    fn fill(&self) {
        let place = Arc::new(Place::new(ExtentId::from_u128(11)));
        self.put(&place, Entry::Checkpoint(Checkpoint::default()));
        (1..=16).for_each(|lsn| self.put(&place, Entry::Record(record(lsn))));
    }
}

fn open(store: &NodeStore, files: &[(ExtentId, Arc<ExtentFile>)]) -> (NodeJournal<Tag>, Opened) {
    let config = holdfast_journal::Config {
        segment_size: 64 << 10,
        max_segments: 16,
        ..holdfast_journal::Config::replication("test")
    };
    NodeJournal::open(store, &config, files, || Box::new(drop)).unwrap()
}

fn record(lsn: u64) -> Record {
    let data = Bytes::from(vec![lsn as u8; 4096]);
    let range = BlockRange::new(Lba(lsn), 1).unwrap();
    Record {
        pos: LogPos::new(Epoch(1), Lsn(lsn)),
        commit: Lsn(0),
        name: None,
        body: RecordBody::Write { range, data },
    }
}

/// The extent follows node 2, and has so many records of it, none of them committed.
fn follow(shared: &Arc<Shared>, extent: &Arc<Extent>, count: u64) {
    let (from, link, epoch) = (NodeId(2), LinkId(1), Epoch(1));
    let view = View {
        revision: Revision(1),
        epoch,
        primary: Some(run(2)),
        version: InSyncVersion(1),
        in_sync: vec![NodeId(1), NodeId(2)],
        replicas: vec![NodeId(1), NodeId(2)],
        blocks: 256,
        block_size: BlockSize::B4096,
        unit: Arc::default(),
        nodes: vec![],
        retiring: Default::default(),
        cache: Default::default(),
        policy: Policy::default(),
    };
    let message = |message| Event::Message { from, link, message };
    let after = LogPos::EMPTY;
    let (peer, view) = (run(2), Arc::new(view));
    let first = [
        Event::PeerUp { peer, link },
        Event::View(view),
        message(Message::Probe { epoch }),
        message(Message::Adopt { epoch, after }),
    ];
    let records = (1..=count).map(|lsn| {
        let prev = if lsn == 1 { after } else { record(lsn - 1).pos };
        let record = record(lsn);
        message(Message::Replicate { epoch, prev, record })
    });
    shared.drive(extent, first.into_iter().chain(records));
}

/// What the apply thread does with so many writes of 32 KiB.
fn apply_large(rig: &Rig, extent: &Arc<Extent>, writes: u64) {
    let shared = &rig.shared;
    let jobs = (0..writes).map(|n| {
        let data = Bytes::from(vec![n as u8; 32 << 10]);
        let range = BlockRange::new(Lba(n % 32 * 8), 8).unwrap();
        let body = RecordBody::Write { range, data };
        io::Job {
            extent: Arc::clone(extent),
            io: crate::core::api::IoToken(1 << 40),
            what: io::What::Apply(Record { body, ..record(n) }),
        }
    });
    let inbox = Inbox::new();
    inbox.push(jobs);
    inbox.close(false);
    io::serve(shared, &inbox, 64);
}

/// Long before its checkpoint, so that the journal's writes never stand behind a second's worth of an extent's.
#[test]
fn an_extent_is_flushed_whenever_much_was_written_to_it() {
    let rig = Rig::new();
    let extent = rig.extent(ID);
    for _ in 0..2 {
        apply_large(&rig, &extent, 511);
        let mut chores = Vec::new();
        rig.shared.chores.push([Chore::Scrubs]);
        assert!(rig.shared.chores.take(&mut chores));
        assert!(matches!(chores[..], [Chore::Scrubs]), "{chores:?}");
        chores.clear();
        apply_large(&rig, &extent, 128);
        assert!(rig.shared.chores.take(&mut chores));
        assert!(matches!(chores[..], [Chore::Flush(_)]), "once: {chores:?}");
        chores
            .into_iter()
            .for_each(|chore| carry_out(&rig.shared, &chore));
    }
}

#[test]
fn j3_what_is_copied_forward_leaves_no_record_behind_that_was_under_way() {
    let rig = Rig::new();
    let extent = rig.extent(ID);
    rig.begin(&extent);
    follow(&rig.shared, &extent, 4);
    // The other two are stable a moment later.
    let seq = crate::core::api::JournalSeq(2);
    rig.shared.drive(&extent, [Event::Appended { seq }]);
    assert_eq!(extent.lock().core.status().durable, Lsn(2));
    rig.fill();
    copy_forward(&rig.shared, &[Arc::clone(&extent)]);
    rig.fill();
    release(&rig.shared);
    rig.fill();
    assert!(
        rig.journal().first() > Position::new(64 << 10),
        "nothing was given back"
    );
    let file = Arc::clone(extent.file.get().unwrap());
    let Rig { dir, shared } = rig;
    shared.journal.get().unwrap().close();
    drop((shared, extent));
    let (_journal, mut opened) = open(&NodeStore::new(dir.path()).unwrap(), &[(ID, file)]);
    let (recovered, _) = opened.extents.remove(&ID).unwrap();
    assert!(!recovered.damaged);
    let lsns: Vec<u64> = recovered.tail.iter().map(|record| record.pos.lsn.0).collect();
    assert_eq!(lsns, [1, 2, 3, 4]);
}

#[test]
fn j3_an_extent_of_which_the_journal_lost_everything_holds_up_nobody() {
    let rig = Rig::new();
    let extent = rig.extent(ID);
    // As after a start with a damaged journal: marked, and waiting for a peer.
    let lost = rig.extent(OTHER);
    lost.file.get().unwrap().mark(Some(Damage::Journal)).unwrap();
    rig.fill();
    rig.begin(&extent);
    rig.fill();
    release(&rig.shared);
    rig.fill();
    assert!(
        rig.journal().first() > Position::new(64 << 10),
        "nothing was given back"
    );
    let places: HashMap<ExtentId, Option<Position>> = [&extent, &lost]
        .map(|extent| (extent.id, extent.place.needed_from()))
        .into();
    assert_eq!(places[&OTHER], None);
    assert!(places[&ID].is_some_and(|needed| needed >= rig.journal().first()));
}

#[test]
fn j3_a_tail_too_long_to_be_copied_leaves_room_for_the_checkpoint_that_frees_it() {
    let rig = Rig::new();
    let extent = rig.extent(ID);
    rig.begin(&extent);
    // More than the last segment holds.
    follow(&rig.shared, &extent, 40);
    let place = Arc::new(Place::new(ExtentId::from_u128(11)));
    rig.put(&place, Entry::Checkpoint(Checkpoint::default()));
    let mut lsn = 0;
    while rig.journal().fill_percent() <= 100 {
        lsn += 1;
        rig.journal().append(
            &place,
            Entry::Record(record(lsn)),
            false,
            Tag::Told(mpsc::channel().0),
        );
        std::thread::sleep(Duration::from_micros(200));
    }
    copy_forward(&rig.shared, &[Arc::clone(&extent)]);
    // Then the other replicas have them, too.
    let (from, link, epoch, commit) = (NodeId(2), LinkId(1), Epoch(1), Lsn(40));
    let message = Message::Commit { epoch, commit };
    rig.shared
        .drive(&extent, [Event::Message { from, link, message }]);
    let mut jobs = Vec::new();
    assert!(rig.shared.applies.take(&mut jobs));
    let said = |job| crate::driver::io::run(job).unwrap();
    let done: Vec<Event> = jobs.iter().filter_map(said).collect();
    rig.shared.drive(&extent, done);
    assert_eq!(extent.lock().core.applied().lsn, commit);
    checkpoint(&rig.shared, &extent, true);
    release(&rig.shared);
    let start = Instant::now();
    while rig.journal().fill_percent() > 100 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "what waited has no room still"
        );
        rig.journal().pump();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A disk that hangs is played by a pipe that nobody writes to. Whoever asks for the status, on a thread that answers initiators too, must
/// not wait for it.
#[test]
fn i10_the_status_does_not_wait_for_a_disk_that_hangs_at_the_note_of_a_scrub() {
    let rig = Rig::new();
    let extent = rig.extent(ID);
    let note = rig.shared.store.extents().join(format!("{ID}.scrub"));
    let made = std::process::Command::new("mkfifo").arg(&note).status().unwrap();
    assert!(made.success());
    let shared = Arc::clone(&rig.shared);
    let chores = std::thread::spawn(move || super::super::scrub::look(&shared));
    // Opens once the other side does, which then reads, and gets nothing.
    let silent = std::fs::OpenOptions::new().write(true).open(&note).unwrap();
    assert!(extent.scrubbed.try_lock().is_ok());
    drop(silent);
    chores.join().unwrap();
}
