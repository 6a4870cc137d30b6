//! Two data nodes from end to end, without a cluster around them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test prints its seed, and fails where it must"
)]

mod pair;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::OpOutcome;
use pair::{A, B, BLOCK, Node, Pair, config};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const BYTES: u64 = 16 << 20;
const BLOCKS: u64 = BYTES / BLOCK;

/// The seed, printed, or taken back from HOLDFAST_SEED.
fn rng() -> StdRng {
    let given = std::env::var("HOLDFAST_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("HOLDFAST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn content(tag: u64, blocks: u64) -> Bytes {
    let words = (0..blocks * BLOCK / 8).flat_map(|i| (tag << 20 | i).to_le_bytes());
    words.collect::<Vec<u8>>().into()
}

/// What must be read back: contents of acknowledged writes.
struct Model(Vec<u8>);

impl Model {
    fn new() -> Self {
        Self(vec![0; usize::try_from(BYTES).unwrap()])
    }

    /// `count` writes, `depth` at a time, that do not overlap within a batch.
    fn write(&mut self, node: &Arc<Node>, rng: &mut StdRng, count: usize, depth: usize) {
        for batch in 0..count.div_ceil(depth) {
            let lane = BLOCKS / depth as u64;
            // Every other batch leaves the node together.
            let together = batch % 2 == 1;
            if together {
                node.hold();
            }
            let open: Vec<_> = (0..depth as u64)
                .map(|i| {
                    let blocks = rng.random_range(1..=4);
                    let lba = i * lane + rng.random_range(0..=lane - blocks);
                    let data = content(rng.random::<u64>() >> 20 | batch as u64, blocks);
                    let op = node.submit(pair::write(lba, data.clone()));
                    (op, lba, data)
                })
                .collect();
            if together {
                node.release();
            }
            for (op, lba, data) in open {
                assert_eq!(node.wait(op), OpOutcome::Done);
                let at = usize::try_from(lba * BLOCK).unwrap();
                self.0[at..at + data.len()].copy_from_slice(&data);
            }
        }
    }

    /// Writes that nobody waits for: what becomes of them is open.
    fn gamble(node: &Arc<Node>, rng: &mut StdRng) -> Vec<(u64, Bytes)> {
        (0..16)
            .map(|i| {
                let (lba, data) = (
                    i * 64 + rng.random_range(0..60),
                    content(rng.random::<u64>() >> 20, 4),
                );
                node.submit(pair::write(lba, data.clone()));
                (lba, data)
            })
            .collect()
    }

    /// Each of their blocks is the old one or the new one; from now on it is what it is.
    fn settle(&mut self, node: &Arc<Node>, gambled: Vec<(u64, Bytes)>) {
        let mut found = 0;
        for (lba, data) in gambled {
            let OpOutcome::Data(read) = node.read(lba, 4) else {
                panic!("no data at {lba}")
            };
            let at = usize::try_from(lba * BLOCK).unwrap();
            let block = usize::try_from(BLOCK).unwrap();
            for i in (0..data.len()).step_by(block) {
                let (read, new) = (&read[i..i + block], &data[i..i + block]);
                let old = &mut self.0[at + i..at + i + block];
                assert!(read == new || read == old, "neither old nor new at block {lba}");
                found += usize::from(read == new);
                old.copy_from_slice(read);
            }
        }
        println!("{found} of 64 blocks under way were written");
    }

    fn check(&self, node: &Arc<Node>) {
        for chunk in 0..BLOCKS / 256 {
            let OpOutcome::Data(data) = node.read(chunk * 256, 256) else {
                panic!("no data of chunk {chunk}")
            };
            let at = usize::try_from(chunk * 256 * BLOCK).unwrap();
            assert!(data == self.0[at..at + data.len()], "chunk {chunk} differs");
        }
    }
}

/// W3 on real files: a read beside writes of the same blocks finds each block as one of them put it, through either node. A page cache
/// alone would not do: it gives half of the old and half of the new.
#[test]
fn w3_a_block_is_never_torn_for_a_read_beside_its_write() {
    const AT: u64 = 8;
    const LEN: u64 = 64;
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::new(dir.path(), BYTES, config());
    pair.wait_serving(A);
    let fill = |tag: u64| -> Bytes {
        let words = std::iter::repeat_n(tag.to_le_bytes(), usize::try_from(LEN * BLOCK / 8).unwrap());
        words.flatten().collect::<Vec<u8>>().into()
    };
    let node = pair.node(A);
    assert_eq!(node.write(AT, fill(0)), OpOutcome::Done);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = [A, A, B]
        .into_iter()
        .map(|id| {
            let (node, done) = (pair.node(id), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut reads = 0;
                let mut newest = 0;
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    let OpOutcome::Data(data) = node.read(AT, LEN) else {
                        continue;
                    };
                    for block in data.chunks(usize::try_from(BLOCK).unwrap()) {
                        let first = &block[..8];
                        assert!(block.chunks(8).all(|word| word == first), "a torn block");
                        newest = newest.max(u64::from_le_bytes(first.try_into().unwrap()));
                    }
                    reads += 1;
                }
                (reads, newest)
            })
        })
        .collect();
    for tag in 1..=300 {
        assert_eq!(node.write(AT, fill(tag)), OpOutcome::Done);
    }
    done.store(true, std::sync::atomic::Ordering::Release);
    for reader in readers {
        let (reads, newest) = reader.join().unwrap();
        println!("{reads} reads, up to write {newest}");
        assert!(reads > 0, "a reader that read nothing proves nothing");
    }
}

#[test]
fn writes_survive_losing_either_node_in_turn() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(dir.path(), BYTES, config());
    let mut model = Model::new();
    pair.wait_serving(A);
    model.write(&pair.node(A), &mut rng, 200, 8);
    // F1: through the other node, writes and reads alike.
    model.write(&pair.node(B), &mut rng, 100, 4);
    model.check(&pair.node(B));
    model.check(&pair.node(A));
    for (stays, goes) in [(A, B), (B, A), (A, B)] {
        pair.kill(goes);
        if pair.view().primary.is_some_and(|primary| primary.node == goes) {
            pair.promote(stays);
        }
        pair.wait_serving(stays);
        // Held until the in-sync set is smaller by commit, then done.
        model.write(&pair.node(stays), &mut rng, 100, 8);
        model.check(&pair.node(stays));
        pair.start(goes);
        model.write(&pair.node(stays), &mut rng, 100, 8);
        pair.wait_in_sync();
        model.write(&pair.node(stays), &mut rng, 50, 8);
        model.check(&pair.node(goes));
        // Whoever was away serves now, with everything.
    }
}

#[test]
fn both_nodes_killed_under_load_come_back_with_every_acknowledged_write() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(dir.path(), BYTES, config());
    let mut model = Model::new();
    pair.wait_serving(A);
    for round in 0..4 {
        model.write(&pair.node(A), &mut rng, 150, 16);
        // Checkpoints in some rounds, replay alone in others.
        if round % 2 == 1 {
            pair.node(A).node.checkpoint();
        }
        let first = if rng.random() { (A, B) } else { (B, A) };
        let gambled = Model::gamble(&pair.node(A), &mut rng);
        std::thread::sleep(Duration::from_micros(rng.random_range(0..2000)));
        pair.kill_both(first.0);
        assert_eq!(pair.view().in_sync.len(), 2, "nobody was left to ask");
        pair.start(first.1);
        pair.start(first.0);
        if pair.view().primary.is_some_and(|primary| primary.node == A) {
            pair.promote(A);
        }
        pair.wait_serving(A);
        model.settle(&pair.node(A), gambled);
        pair.wait_in_sync();
        model.check(&pair.node(A));
        model.check(&pair.node(B));
    }
}

#[test]
fn j3_a_small_journal_slows_writers_down_and_loses_nothing() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let mut small = config();
    small.journal.segment_size = 256 << 10;
    small.journal.max_segments = 8;
    small.checkpoint_every = Duration::from_millis(200);
    let mut pair = Pair::new(dir.path(), BYTES, small);
    let mut model = Model::new();
    pair.wait_serving(A);
    model.write(&pair.node(A), &mut rng, 1500, 32);
    assert_eq!(pair.view().in_sync.len(), 2, "a full journal fences nobody");
    model.check(&pair.node(B));
    pair.kill(A);
    pair.promote(B);
    pair.wait_serving(B);
    model.check(&pair.node(B));
    pair.start(A);
    pair.wait_in_sync();
    model.check(&pair.node(A));
}

#[test]
fn j1_a_replica_with_a_damaged_journal_is_resynced_before_it_counts() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(dir.path(), BYTES, config());
    let mut model = Model::new();
    pair.wait_serving(A);
    model.write(&pair.node(A), &mut rng, 200, 4);
    pair.kill_both(B);
    // A byte in the middle of what was acknowledged.
    let journal = dir.path().join("b/journal");
    let segments = std::fs::read_dir(journal)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let first = segments
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("segment"))
        .min()
        .unwrap();
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[200 << 10] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    pair.start(B);
    let damaged = |pair: &Pair| {
        pair.node(B)
            .node
            .status(pair::EXTENT)
            .and_then(|status| status.damaged)
    };
    assert!(damaged(&pair).is_some(), "{:?}", pair.node(B).node.verdict());
    pair.start(A);
    pair.promote(A);
    pair.wait_serving(A);
    pair.wait("healed", Duration::from_secs(30), |pair| {
        pair.view().in_sync.len() == 2 && damaged(pair).is_none()
    });
    model.write(&pair.node(A), &mut rng, 50, 4);
    pair.kill(A);
    pair.promote(B);
    pair.wait_serving(B);
    model.check(&pair.node(B));
}

#[test]
fn j1_a_replica_whose_files_are_gone_or_broken_is_resynced_before_it_counts() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(dir.path(), BYTES, config());
    let mut model = Model::new();
    pair.wait_serving(A);
    for remove in [true, false] {
        model.write(&pair.node(A), &mut rng, 100, 4);
        pair.kill_both(B);
        let meta = dir.path().join(format!("b/extents/{}.meta", pair::EXTENT));
        if remove {
            std::fs::remove_file(meta).unwrap();
        } else {
            std::fs::write(meta, "holdfast-extent 1\nnonsense").unwrap();
        }
        pair.start(B);
        pair.start(A);
        let damaged = |pair: &Pair| {
            pair.node(B)
                .node
                .status(pair::EXTENT)
                .is_none_or(|status| status.damaged.is_some())
        };
        assert!(damaged(&pair));
        pair.promote(A);
        pair.wait_serving(A);
        pair.wait("healed", Duration::from_secs(30), |pair| {
            pair.view().in_sync.len() == 2 && !damaged(pair)
        });
    }
    pair.kill(A);
    pair.promote(B);
    pair.wait_serving(B);
    model.check(&pair.node(B));
}

/// Puts a file in the place of an extent's data that can be read, and never be written.
fn unwritable(data: &std::path::Path) -> std::os::fd::OwnedFd {
    use rustix::fs::{MemfdFlags, SealFlags};
    let file = rustix::fs::memfd_create("unwritable", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&file, BYTES).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
    std::fs::remove_file(data).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    std::os::unix::fs::symlink(format!("/proc/self/fd/{fd}"), data).unwrap();
    file
}

#[test]
fn j2_f4_a_replica_whose_disk_failed_still_follows_the_cluster_and_takes_no_commands() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(dir.path(), BYTES, config());
    pair.wait_serving(A);
    pair.kill(B);
    let _disk = unwritable(&dir.path().join(format!("b/extents/{}.img", pair::EXTENT)));
    pair.start(B);
    pair.wait_in_sync();
    assert_eq!(pair.node(A).write(0, content(1, 1)), OpOutcome::Done);
    pair.wait("fenced", Duration::from_secs(20), |pair| {
        let status = pair.node(B).node.status(pair::EXTENT);
        status.is_some_and(|status| status.fenced.is_some()) && pair.view().in_sync == [A]
    });
    // Whatever is decided from now on reaches its core as before.
    pair.promote(A);
    pair.wait("the newest epoch on B", Duration::from_secs(10), |pair| {
        let status = pair.node(B).node.status(pair::EXTENT);
        status.is_some_and(|status| status.core.epoch == pair.view().epoch)
    });
    // It is out of the set, so its port group is standby; commands that come all the same end at once.
    assert_eq!(pair.node(B).write(1, content(2, 1)), OpOutcome::Standby);
    assert_eq!(pair.node(B).read(0, 1), OpOutcome::Standby);
    assert_eq!(pair.node(A).read(0, 1), OpOutcome::Data(content(1, 1)));
}
