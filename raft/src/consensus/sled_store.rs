//! The applied state in sled.
//!
//! `flush()` of sled 0.34 neither flushes the file's metadata nor the drive's cache, so a power cut may take everything that it
//! acknowledged: an `fdatasync` of its file follows each. What is lost or broken all the same is rebuilt from snapshot and log.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::applied::{Applied, AppliedError, AppliedStore, Flat, Values, checksum, unflatten};

/// sled in a directory.
pub(crate) struct SledStore {
    db: sled::Db,
    /// sled's own file, for `fdatasync`.
    file: File,
    /// What is stored, to find what changed.
    stored: Flat,
}

fn broken(error: impl std::fmt::Display) -> AppliedError {
    AppliedError::Store(error.to_string())
}

/// How often a directory that is still held by a store that is being closed is tried again, 50 ms apart.
const LOCK_TRIES: u32 = 100;

impl SledStore {
    /// Opens or makes the directory. sled may panic over a corrupt one: the caller contains that.
    pub(crate) fn open(dir: &Path) -> Result<Self, AppliedError> {
        let config = sled::Config::new()
            .path(dir)
            .flush_every_ms(None)
            .cache_capacity(8 << 20)
            .mode(sled::Mode::LowSpace);
        let mut tries = 0;
        let db = loop {
            match config.open() {
                Ok(db) => break db,
                Err(sled::Error::Io(error)) if tries < LOCK_TRIES && error.to_string().contains("lock") => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(broken(error)),
            }
        };
        let file = File::open(dir.join("db")).map_err(broken)?;
        for made in [Some(dir), dir.parent()].into_iter().flatten() {
            File::open(made).and_then(|dir| dir.sync_all()).map_err(broken)?;
        }
        Ok(Self {
            db,
            file,
            stored: Flat::default(),
        })
    }

    fn read(&self) -> Result<Values, AppliedError> {
        let mut values = Values::new();
        for pair in &*self.db {
            let (key, value) = pair.map_err(broken)?;
            let key = String::from_utf8(key.to_vec()).map_err(|_| AppliedError::Checksum("?".into()))?;
            let value = match value.split_last_chunk::<4>() {
                Some((value, crc)) if checksum(&key, value).to_le_bytes() == *crc => value.to_vec(),
                _ => return Err(AppliedError::Checksum(key)),
            };
            values.insert(key, value);
        }
        Ok(values)
    }
}

impl AppliedStore for SledStore {
    fn load(&mut self) -> Result<Option<Applied>, AppliedError> {
        let values = self.read()?;
        let applied = unflatten(values.clone())?;
        self.stored = Flat::new(values, applied.as_ref());
        Ok(applied)
    }

    fn save(&mut self, applied: &Applied) -> Result<(), AppliedError> {
        let mut batch = sled::Batch::default();
        // A store that fails is given up, so it does not matter that this is ahead of the disk then.
        for key in self.stored.follow(applied)? {
            if let Some(value) = self.stored.values().get(&key) {
                let mut sealed = value.clone();
                sealed.extend(checksum(&key, value).to_le_bytes());
                batch.insert(key.as_bytes(), sealed);
            } else {
                batch.remove(key.as_bytes());
            }
        }
        holdfast_injection::HERE.reach(holdfast_injection::Disk::Raft, 0);
        self.db.apply_batch(batch).map_err(broken)?;
        self.db.flush().map_err(broken)?;
        self.file.sync_data().map_err(broken)?;
        Ok(())
    }
}
