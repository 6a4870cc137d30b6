//! Devices under extents, on loop devices: left out, and said so, where there are none or where this is not root.
#![allow(clippy::cast_possible_truncation, reason = "sizes here are small")]

use std::os::unix::fs::FileExt as _;
use std::process::Command;

use holdfast_types::{BlockRange, BlockSize, Lba, NodeId, Revision};

use super::*;
use crate::store::{Damage, ExtentFile, ExtentMeta, Owner};

const EXTENT: ExtentId = ExtentId::from_u128(0x42);
const OTHER: ExtentId = ExtentId::from_u128(0x43);
const MIB: u64 = 1 << 20;

/// A loop device, detached when dropped.
struct Loop {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl Loop {
    /// `None` where there can be none, which is said.
    fn new(bytes: u64) -> Option<Self> {
        if !Path::new("/dev/loop-control").exists() || !rustix::process::geteuid().is_root() {
            eprintln!("left out: loop devices need /dev/loop-control and root");
            return None;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        let done = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        let path = String::from_utf8(done.stdout).unwrap().trim().into();
        Some(Self { path, file })
    }

    /// Writes past the device.
    fn scribble(&self, at: u64, data: &[u8]) {
        let device = File::options().write(true).open(&self.path).unwrap();
        device.write_all_at(data, at).unwrap();
        device.sync_all().unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
        let _ = &self.file;
    }
}

/// A cluster of nodes 1 and 2.
struct Nothing;

impl Has for Nothing {
    fn member(&self, node: NodeId) -> bool {
        node.0 <= 2
    }

    fn extent(&self, _: ExtentId) -> bool {
        false
    }
}

/// The same with the extent.
struct One;

impl Has for One {
    fn member(&self, node: NodeId) -> bool {
        node.0 <= 2
    }

    fn extent(&self, extent: ExtentId) -> bool {
        extent == EXTENT
    }
}

fn devices(node: u64, dir: &Path) -> Devices {
    let owner = Owner {
        cluster: 0xfeed,
        node: NodeId(node),
    };
    Devices::new(owner, dir, [])
}

fn add(devices: &Devices, device: &Loop, id: u128, confirmed: bool) -> Result<Given, AddError> {
    let id = DeviceId::from_u128(id);
    let given = devices.add(&device.path, (id, confirmed), &One, |_, _| true)?;
    if let Some(before) = given.before {
        devices.forget(before);
    }
    devices.learn(given.label.id, &given.path);
    Ok(given)
}

fn meta(bytes: u64) -> ExtentMeta {
    ExtentMeta {
        id: EXTENT,
        bytes,
        block_size: BlockSize::B512,
        created: Revision(1),
        damaged: None,
        sums: true,
        device: None,
    }
}

fn make(devices: &Devices, dir: &Path, bytes: u64) -> ExtentFile {
    let (device, again) = devices.take(EXTENT, bytes).unwrap();
    assert!(!again);
    ExtentFile::create_on(dir, meta(bytes), device).unwrap()
}

fn range(lba: u64, blocks: u64) -> BlockRange {
    BlockRange::new(Lba(lba), blocks).unwrap()
}

fn state(devices: &Devices, id: u128) -> State {
    let all = devices.list();
    let one = all.iter().find(|one| one.id == DeviceId::from_u128(id)).unwrap();
    one.label.clone().unwrap().state
}

#[test]
fn a_device_is_made_zeros_and_then_labelled_once() {
    let Some(device) = Loop::new(130 * MIB + 512) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mine = devices(1, dir.path());
    device.scribble(70 * MIB, &[7; 5000]);
    let mut told = Vec::new();
    let id = DeviceId::from_u128(1);
    // Nothing at the beginning or the end gives the middle away.
    let given = mine.add(&device.path, (id, false), &Nothing, |done, all| {
        told.push((done, all));
        true
    });
    let given = given.unwrap();
    assert_eq!(given.how, How::Zeroed);
    let whole = 130 * MIB + 512;
    assert_eq!(told, [(64 * MIB, whole), (128 * MIB, whole), (whole, whole)]);
    assert!(device.bytes()[LABEL..].iter().all(|byte| *byte == 0));
    // Told again before it was remembered, and after.
    assert_eq!(add(&mine, &device, 2, false).unwrap().how, How::Again);
    assert_eq!(add(&mine, &device, 3, false).unwrap().how, How::Known);
    assert_eq!(mine.list()[0].label.as_ref().unwrap().id, id);
    mine.remove(id, &device.path).unwrap();
    assert!(mine.list().is_empty());
    assert!(device.bytes().iter().all(|byte| *byte == 0));
}

const LABEL: usize = 4096;

#[test]
fn what_carries_data_or_is_no_device_is_refused_in_one_line() {
    let Some(device) = Loop::new(8 * MIB) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mine = devices(1, dir.path());
    let refused = |word: &str, confirmed| {
        let error = add(&mine, &device, 1, confirmed).unwrap_err().to_string();
        assert!(error.contains(word) && error.lines().count() == 1, "{error}");
    };
    for at in [510, MIB - 1, 7 * MIB + 3, 8 * MIB - 1] {
        device.scribble(at, &[1]);
        refused(&format!("at byte {at}"), false);
        device.scribble(at, &[0]);
    }
    device.scribble(510, &[1]);
    let held = device::open(&device.path, true).unwrap();
    refused("is in use", true);
    drop(held);
    let gone = mine.add(&device.path, (DeviceId::from_u128(1), true), &Nothing, |_, _| {
        false
    });
    assert!(matches!(gone, Err(AddError::BrokenOff(_))));
    add(&mine, &device, 1, true).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, vec![0; 4 << 20]).unwrap();
    for (path, word) in [
        (file.as_path(), "no block device"),
        (Path::new("loop0"), "whole path"),
        (Path::new("/dev/nothing"), "No such file"),
    ] {
        let error = mine.add(path, (DeviceId::from_u128(1), true), &Nothing, |_, _| true);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let Some(small) = Loop::new(2 * MIB - 512) else {
        return;
    };
    let error = add(&mine, &small, 1, true).unwrap_err().to_string();
    assert!(error.contains("2097152 at least"), "{error}");
}

#[test]
fn labels_of_others_are_refused_with_what_they_are() {
    let Some(device) = Loop::new(8 * MIB) else { return };
    let (dir, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mine, theirs) = (devices(1, dir.path()), devices(2, there.path()));
    add(&theirs, &device, 1, false).unwrap();
    let error = add(&mine, &device, 2, true).unwrap_err().to_string();
    assert!(error.contains("blank device of node 2"), "{error}");
    drop(make(&theirs, there.path(), 4 * MIB));
    let error = add(&mine, &device, 2, true).unwrap_err().to_string();
    assert!(
        error.contains(&format!("holds extent {EXTENT} for node 2")),
        "{error}"
    );
    // Of an extent that the cluster has not, and of another cluster: data, to be confirmed.
    let id = DeviceId::from_u128(2);
    let error = mine
        .add(&device.path, (id, false), &Nothing, |_, _| true)
        .unwrap_err();
    assert!(error.to_string().contains("--confirm"), "{error}");
    let other = Devices::new(
        Owner {
            cluster: 1,
            node: NodeId(1),
        },
        dir.path(),
        [],
    );
    let error = add(&other, &device, 2, false).unwrap_err().to_string();
    assert!(
        error.contains("of cluster 0000") && error.contains("--confirm"),
        "{error}"
    );
    add(&other, &device, 2, true).unwrap();
    let gone = devices(3, there.path());
    device.scribble(0, &[0; LABEL]);
    add(&gone, &device, 3, false).unwrap();
    let error = add(&mine, &device, 4, false).unwrap_err().to_string();
    assert!(error.contains("no member any more"), "{error}");
    // A newer label is left alone, whatever is typed.
    device.scribble(0, b"holdfast-device 2\n");
    let error = add(&mine, &device, 3, true).unwrap_err().to_string();
    assert!(error.contains("newer version"), "{error}");
}

/// W7, and what is written is where it belongs: behind the first MiB.
#[test]
fn w7_an_extent_on_a_device_holds_what_is_written_and_zeros_read_back() {
    let Some(device) = Loop::new(9 * MIB) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mine = devices(1, dir.path());
    add(&mine, &device, 1, false).unwrap();
    let file = make(&mine, dir.path(), 8 * MIB);
    assert_eq!(state(&mine, 1), State::Holds(EXTENT));
    let mut model = vec![0_u8; 8 << 20];
    let data: Vec<u8> = (0..3 << 20)
        .map(|at: u32| at.to_le_bytes()[at as usize % 3] | 1)
        .collect();
    file.write(range(1000, 6144), &data).unwrap();
    model[512_000..][..data.len()].copy_from_slice(&data);
    // Of every alignment, over what is still in the page cache.
    for (lba, blocks) in [(1001, 1), (1003, 13), (1100, 4097), (7000, 100), (7143, 1)] {
        file.zero(range(lba, blocks)).unwrap();
        model[lba as usize * 512..][..blocks as usize * 512].fill(0);
    }
    file.write_same(range(16_380, 4), &[9; 512]).unwrap();
    model[16_380 * 512..].fill(9);
    assert!(file.read(range(0, 16_384)).unwrap() == model);
    assert!(file.is_allocated(range(0, 16_384)).unwrap() && file.is_full());
    let map = file.map(Lba(3), 9).unwrap();
    assert_eq!(
        (map.len(), map[0].range, map[0].mapped),
        (1, range(3, 16_381), true)
    );
    let digests = file.digests(range(0, 16_384), 4096).unwrap();
    let wanted: Vec<_> = model
        .chunks(4096)
        .map(|piece| Some(crate::core::api::digest(piece)))
        .collect();
    assert_eq!(digests, wanted);
    file.sync().unwrap();
    // Nobody else has it meanwhile.
    assert!(device::open(&device.path, true).is_err());
    assert!(matches!(file.grow(8 * MIB + 512), Err(StoreError::NoRoom { .. })));
    assert_eq!(file.blocks(), 16_384);
    drop(file);
    assert!(device.bytes()[1 << 20..] == model);
    let file = ExtentFile::open(dir.path(), EXTENT, &mine).unwrap();
    assert!(file.read(range(0, 16_384)).unwrap() == model);
}

#[test]
fn j1_a_device_that_is_not_what_the_description_says_is_never_written() {
    let Some(device) = Loop::new(9 * MIB) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mine = devices(1, dir.path());
    let (label, _) = {
        add(&mine, &device, 1, false).unwrap();
        let file = make(&mine, dir.path(), 8 * MIB);
        file.write(range(0, 1), &[5; 512]).unwrap();
        file.sync().unwrap();
        device::read_label(&device::open(&device.path, false).unwrap(), &device.path).unwrap()
    };
    let label = label.unwrap();
    let wrong = [
        Label {
            id: DeviceId::from_u128(9),
            ..label
        },
        Label {
            node: NodeId(2),
            ..label
        },
        Label {
            state: State::Holds(OTHER),
            ..label
        },
        Label {
            state: State::Blank,
            ..label
        },
    ];
    let mut heads: Vec<Vec<u8>> = wrong.iter().map(|label| label.to_bytes().to_vec()).collect();
    heads.push(vec![0; LABEL]);
    heads.push(b"holdfast-device 1\nnonsense".to_vec());
    heads.push(b"holdfast-device 7\nlater".to_vec());
    for head in heads {
        device.scribble(0, &[0; LABEL]);
        device.scribble(0, &head);
        let before = device.bytes();
        let error = ExtentFile::open(dir.path(), EXTENT, &mine).unwrap_err();
        assert!(
            matches!(error, StoreError::NotOurs { .. } | StoreError::Newer { .. }),
            "it stays out: {error}"
        );
        assert_eq!(error.to_string().lines().count(), 1);
        assert!(device.bytes() == before, "{error}");
    }
    // A takeover changes the cluster's id; the device is told by its own.
    device.scribble(0, &Label { cluster: 1, ..label }.to_bytes());
    let file = ExtentFile::open(dir.path(), EXTENT, &mine).unwrap();
    assert_eq!(file.read(range(0, 1)).unwrap(), [5; 512].as_slice());
    drop(file);
    let found = mine.list()[0].label.clone().unwrap();
    assert_eq!((found.cluster, found.state), (0xfeed, State::Holds(EXTENT)));
    let forgetful = devices(1, dir.path());
    let error = ExtentFile::open(dir.path(), EXTENT, &forgetful)
        .unwrap_err()
        .to_string();
    assert!(error.contains("which this node does not have"), "{error}");
    assert_eq!(add(&forgetful, &device, 4, false).unwrap().how, How::Again);
    ExtentFile::open(dir.path(), EXTENT, &forgetful).unwrap();
}

#[test]
fn the_smallest_blank_one_that_is_large_enough_is_taken() {
    let sizes = [9, 5, 7];
    let loops: Vec<Loop> = sizes.iter().filter_map(|mib| Loop::new(mib * MIB)).collect();
    if loops.len() < sizes.len() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mine = devices(1, dir.path());
    for (number, device) in (1..).zip(&loops) {
        add(&mine, device, number, false).unwrap();
    }
    let (device, again) = mine.take(EXTENT, 5 * MIB).unwrap();
    assert_eq!((device.id(), again), (DeviceId::from_u128(3), false));
    assert_eq!(state(&mine, 3), State::Taken(EXTENT));
    let error = mine.take(OTHER, 9 * MIB).unwrap_err().to_string();
    assert!(error.contains("4194304, 8388608"), "{error}");
    drop(device);
    // The creation ended there: nothing was written, and it is blank again.
    mine.give_back();
    assert_eq!(state(&mine, 3), State::Blank);
    let file = make(&mine, dir.path(), 5 * MIB);
    file.write(range(0, 1), &[5; 512]).unwrap();
    mine.give_back();
    assert_eq!(state(&mine, 3), State::Holds(EXTENT));
    drop(file);
    // Its description is gone: the same device, and it is said that it may hold anything.
    ExtentFile::set_aside(dir.path(), EXTENT).unwrap();
    let (device, again) = mine.take(EXTENT, 5 * MIB).unwrap();
    assert_eq!((device.id(), again), (DeviceId::from_u128(3), true));
    let damaged = Some(Damage::Missing);
    let made = ExtentFile::create_on(
        dir.path(),
        ExtentMeta {
            damaged,
            ..meta(5 * MIB)
        },
        device,
    );
    assert_eq!(made.unwrap().meta().damaged, damaged);
    let opened = ExtentFile::open(dir.path(), EXTENT, &mine).unwrap();
    assert_eq!(opened.meta().device, Some(DeviceId::from_u128(3)));
}

#[test]
fn a_creation_or_a_removal_that_is_cut_short_is_ended() {
    let Some(device) = Loop::new(9 * MIB) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mine = devices(1, dir.path());
    add(&mine, &device, 1, false).unwrap();
    drop(make(&mine, dir.path(), 8 * MIB));
    // The description was there, and the label not yet.
    let path = &device.path;
    let opened = mine.open_alone(DeviceId::from_u128(1), path).unwrap();
    opened.set(State::Taken(EXTENT)).unwrap();
    drop(opened);
    mine.give_back();
    let file = ExtentFile::open(dir.path(), EXTENT, &mine).unwrap();
    assert_eq!(state(&mine, 1), State::Holds(EXTENT));
    file.write(range(0, 1), &[5; 512]).unwrap();
    file.release_device().unwrap();
    drop(file);
    let error = ExtentFile::open(dir.path(), EXTENT, &mine).unwrap_err();
    assert!(matches!(error, StoreError::Deleted(EXTENT)), "{error}");
    ExtentFile::remove(dir.path(), EXTENT).unwrap();
    assert_eq!(state(&mine, 1), State::Used(EXTENT));
    assert!(matches!(mine.take(OTHER, MIB), Err(StoreError::NoDevice { .. })));
    // Given again: it is ours, so that nothing needs to be typed twice.
    let given = add(&mine, &device, 2, false).unwrap();
    assert_eq!(
        (given.how, given.before),
        (How::Zeroed, Some(DeviceId::from_u128(1)))
    );
    assert_eq!((mine.list().len(), state(&mine, 2)), (1, State::Blank));
    assert!(device.bytes()[LABEL..].iter().all(|byte| *byte == 0));
}

/// Not every file system begins where a label is.
#[test]
fn a_blank_device_that_somebody_else_has_written_to_is_not_used() {
    let Some(device) = Loop::new(9 * MIB) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mine = devices(1, dir.path());
    add(&mine, &device, 1, false).unwrap();
    for at in [512, 1024, 4096, MIB - 1, 8 * MIB + 5, 9 * MIB - 1] {
        device.scribble(at, &[1]);
        assert!(
            matches!(mine.take(EXTENT, MIB), Err(StoreError::NoDevice { .. })),
            "{at}"
        );
        if at < MIB {
            let error = add(&mine, &device, 2, false).unwrap_err().to_string();
            assert!(error.contains("carries data"), "{error}");
            let why = mine.list()[0].label.clone().unwrap_err();
            assert!(why.contains(&format!("byte {at} behind its label")), "{why}");
        }
        device.scribble(at, &[0]);
    }
    drop(make(&mine, dir.path(), MIB));
    device.scribble(1024, &[1]);
    let error = ExtentFile::open(dir.path(), EXTENT, &mine).unwrap_err();
    assert!(matches!(error, StoreError::NotOurs { .. }), "{error}");
}
