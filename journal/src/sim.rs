//! A simulated disk: in memory, with a seed, that loses power, tears writes, fails, fills up and forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::{FileName, LogDevice};

/// What a power cut tears at.
const SECTOR: usize = 512;

/// A simulated disk below one log. Clones are the same disk.
///
/// Every change (a write, a creation, a rename, a removal, a directory flush) counts as one operation. Power can be cut in the middle
/// of any: a write
/// then leaves any of its sectors, a creation any of its length, and of the names that were changed since the last directory
/// flush the oldest changes are kept, as many as the seed says. Until [`restart`](SimDevice::restart) every call fails.
#[derive(Clone, Debug)]
pub struct SimDevice {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug)]
enum NameChange {
    Create(FileName, u64),
    Rename(FileName, FileName),
    Remove(FileName),
}

#[derive(Debug)]
struct Disk {
    random: u64,
    /// Names as the running system sees them, and the contents they stand for.
    names: BTreeMap<FileName, u64>,
    /// Names on the medium.
    stable: BTreeMap<FileName, u64>,
    /// Changes since the last directory flush.
    changes: Vec<NameChange>,
    contents: BTreeMap<u64, Vec<u8>>,
    next_content: u64,
    operations: u64,
    cut_at: Option<u64>,
    fail_at: Option<u64>,
    off: bool,
    full: bool,
    claimed: bool,
    unreadable: BTreeSet<FileName>,
}

/// What becomes of an operation.
#[derive(PartialEq, Eq)]
enum Fate {
    Done,
    /// It happens in part, or not at all.
    Torn,
}

impl Disk {
    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random() % (limit.max(1) as u64)).unwrap_or(0)
    }

    fn powered(&self) -> io::Result<()> {
        if self.off {
            Err(io::Error::other("the simulated disk has no power"))
        } else {
            Ok(())
        }
    }

    /// Counts an operation and says what becomes of it.
    fn operate(&mut self) -> io::Result<Fate> {
        self.powered()?;
        let now = self.operations;
        self.operations += 1;
        if self.cut_at == Some(now) {
            self.off = true;
            return Ok(Fate::Torn);
        }
        Ok(if self.fail_at == Some(now) {
            Fate::Torn
        } else {
            Fate::Done
        })
    }

    fn error(&self) -> io::Error {
        io::Error::other(if self.off {
            "the simulated power was cut"
        } else {
            "simulated write error"
        })
    }

    fn content(&mut self, name: FileName) -> io::Result<&mut Vec<u8>> {
        let id = self.names.get(&name).ok_or(io::ErrorKind::NotFound)?;
        self.contents
            .get_mut(id)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Writes any of the sectors that `bytes` covers: none, all, the first ones, the last ones, or some.
    fn tear(&mut self, name: FileName, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let way = self.below(5);
        let count = bytes.len().div_ceil(SECTOR);
        let border = self.below(count + 1);
        let mut at = 0;
        for sector in 0..count {
            // Sectors are the medium's, whatever the write's offset.
            let end = (((offset + at) / SECTOR + 1) * SECTOR - offset).min(bytes.len());
            let written = match way {
                0 => border == count,
                1 => true,
                2 => sector < border,
                3 => sector >= border,
                _ => self.random().is_multiple_of(2),
            };
            if written && at < end {
                self.content(name)?[offset + at..offset + end].copy_from_slice(&bytes[at..end]);
            }
            at = end;
        }
        Ok(())
    }

    fn apply(names: &mut BTreeMap<FileName, u64>, change: &NameChange) {
        match *change {
            NameChange::Create(name, content) => {
                names.insert(name, content);
            }
            NameChange::Rename(from, to) => {
                if let Some(content) = names.remove(&from) {
                    names.insert(to, content);
                }
            }
            NameChange::Remove(name) => {
                names.remove(&name);
            }
        }
    }

    fn change(&mut self, change: NameChange) {
        Self::apply(&mut self.names, &change);
        self.changes.push(change);
    }

    /// Makes the oldest `count` changes of names stable.
    fn settle_names(&mut self, count: usize) {
        for change in self.changes.drain(..count) {
            Self::apply(&mut self.stable, &change);
        }
    }
}

impl SimDevice {
    /// An empty disk.
    pub fn new(seed: u64) -> SimDevice {
        SimDevice {
            disk: Arc::new(Mutex::new(Disk {
                random: seed,
                names: BTreeMap::new(),
                stable: BTreeMap::new(),
                changes: Vec::new(),
                contents: BTreeMap::new(),
                next_content: 0,
                operations: 0,
                cut_at: None,
                fail_at: None,
                off: false,
                full: false,
                claimed: false,
                unreadable: BTreeSet::new(),
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Cuts the power in the middle of the operation with this number (see [`operations`](SimDevice::operations)).
    pub fn cut_power_at(&self, operation: u64) {
        self.lock().cut_at = Some(operation);
    }

    /// Cuts the power now.
    pub fn cut_power(&self) {
        self.lock().off = true;
    }

    /// Fails the operation with this number, once; a write is then done in part.
    pub fn fail_at(&self, operation: u64) {
        self.lock().fail_at = Some(operation);
    }

    /// From now on there is room for new files, or none.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Reads of this file fail from now on.
    pub fn make_unreadable(&self, name: FileName) {
        self.lock().unreadable.insert(name);
    }

    /// Power comes back: what was not stable is gone, nobody holds the log, and faults that were ordered are forgotten.
    pub fn restart(&self) {
        let mut disk = self.lock();
        if disk.off {
            let kept = disk.changes.len() + 1;
            let kept = disk.below(kept);
            disk.settle_names(kept);
        } else {
            // Only the process died.
            let all = disk.changes.len();
            disk.settle_names(all);
        }
        disk.changes.clear();
        disk.names = disk.stable.clone();
        let alive: BTreeSet<u64> = disk.names.values().copied().collect();
        disk.contents.retain(|id, _| alive.contains(id));
        (disk.off, disk.claimed, disk.cut_at, disk.fail_at) = (false, false, None, None);
    }

    /// Turns one bit over, as a rotten medium does.
    ///
    /// # Errors
    /// There is no such file or byte.
    pub fn flip_bit(&self, name: FileName, byte: u64, bit: u32) -> io::Result<()> {
        self.edit(name, |bytes| {
            let at = usize::try_from(byte).unwrap_or(usize::MAX);
            let byte = bytes.get_mut(at).ok_or(io::ErrorKind::UnexpectedEof)?;
            *byte ^= 1 << (bit % 8);
            Ok(())
        })
    }

    /// Changes a file's bytes at will, past all rules.
    ///
    /// # Errors
    /// There is no such file, or `edit` fails.
    pub fn edit(&self, name: FileName, edit: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        edit(self.lock().content(name)?)
    }

    /// An independent copy of the disk as it is, with another seed.
    pub fn fork(&self, seed: u64) -> SimDevice {
        let fork = SimDevice::new(seed);
        {
            let (from, mut to) = (self.lock(), fork.lock());
            to.names = from.names.clone();
            to.stable = from.names.clone();
            to.contents = from.contents.clone();
            to.next_content = from.next_content;
            to.unreadable = from.unreadable.clone();
        }
        fork
    }
}

impl LogDevice for SimDevice {
    fn claim(&self) -> io::Result<()> {
        let mut disk = self.lock();
        if disk.claimed {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the simulated disk is in use",
            ));
        }
        disk.claimed = true;
        Ok(())
    }

    fn unclaim(&self) {
        self.lock().claimed = false;
    }

    fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        let disk = self.lock();
        disk.powered()?;
        Ok(disk
            .names
            .iter()
            .map(|(&name, id)| (name, disk.contents.get(id).map_or(0, Vec::len) as u64))
            .collect())
    }

    fn create(&self, name: FileName, len: u64) -> io::Result<()> {
        let mut disk = self.lock();
        let fate = disk.operate()?;
        if disk.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if disk.names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut len = usize::try_from(len).map_err(|_| io::ErrorKind::StorageFull)?;
        if fate == Fate::Torn {
            len = disk.below(len);
        }
        let id = disk.next_content;
        disk.next_content += 1;
        disk.contents.insert(id, vec![0; len]);
        disk.change(NameChange::Create(name, id));
        if fate == Fate::Done {
            Ok(())
        } else {
            Err(disk.error())
        }
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        let mut disk = self.lock();
        let fate = disk.operate()?;
        disk.content(from)?;
        if fate == Fate::Torn && !disk.off {
            return Err(disk.error());
        }
        disk.change(NameChange::Rename(from, to));
        if fate == Fate::Done {
            Ok(())
        } else {
            Err(disk.error())
        }
    }

    fn remove(&self, name: FileName) -> io::Result<()> {
        let mut disk = self.lock();
        let fate = disk.operate()?;
        disk.content(name)?;
        if fate == Fate::Torn && !disk.off {
            return Err(disk.error());
        }
        disk.change(NameChange::Remove(name));
        if fate == Fate::Done {
            Ok(())
        } else {
            Err(disk.error())
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.lock();
        if disk.operate()? == Fate::Torn {
            return Err(disk.error());
        }
        let all = disk.changes.len();
        disk.settle_names(all);
        Ok(())
    }

    fn settle(&self, _name: FileName) -> io::Result<()> {
        self.lock().powered()
    }

    fn read_at(&self, name: FileName, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.lock();
        disk.powered()?;
        if disk.unreadable.contains(&name) {
            return Err(io::Error::other("simulated read error"));
        }
        let content = disk.content(name)?;
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let len = buf.len().min(content.len() - at);
        buf[..len].copy_from_slice(&content[at..at + len]);
        Ok(len)
    }

    fn write_durable(&self, name: FileName, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut disk = self.lock();
        let fate = disk.operate()?;
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let content = disk.content(name)?;
        let end = at + bytes.len();
        if content.len() < end {
            // The journal never writes behind a file's end.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if fate == Fate::Done {
            content[at..end].copy_from_slice(&bytes);
            return Ok(());
        }
        disk.tear(name, at, &bytes)?;
        Err(disk.error())
    }

    fn fresh_id(&self) -> io::Result<u128> {
        let mut disk = self.lock();
        Ok(u128::from(disk.random()) << 64 | u128::from(disk.random()))
    }
}
