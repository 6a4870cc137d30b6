//! The small file beside an extent's data that says what it is.
//!
//! `extents/<uuid>.meta` is text, so that an administrator can read it:
//! ```text
//! holdfast-extent 3
//! id 01234567-89ab-cdef-0011-223344556677
//! bytes 1073741824
//! block 512
//! created 17       (revision of the cluster's state in which this node first saw it)
//! sums crc32c      (or `off`: what `UUID.sum` holds)
//! device 89ab…     (only where its data lies on a device: whose id that is; see `label.rs`)
//! damaged extent   (only while it is: what failed, see [`Damage`])
//! check 6d0c…      (first 16 hexadecimal digits of BLAKE3 over the lines above)
//! ```
//! It is replaced as a whole: written beside, flushed, renamed, and the directory flushed, so a power cut leaves the old or the
//! new one.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use holdfast_types::{BlockSize, DeviceId, EXTENT_BYTES_MAX, EXTENT_BYTES_MIN, ExtentId, Revision};

use super::StoreError;
use super::text::{Sealed, seal};

/// Version of the extent's on-disk format that this release writes, and the newest it reads.
pub const EXTENT_FORMAT: u32 = 3;
/// The oldest that it reads: the same without devices.
const EXTENT_FORMAT_OLDEST: u32 = 2;

const MAGIC: &str = "holdfast-extent";
const SUMS_ON: &str = "crc32c";
const SUMS_OFF: &str = "off";

/// Why an extent's contents here cannot be trusted until they are resynced from a peer (J1, J2). Kept beside the data, not in the
/// journal, which may be what failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The journal lost records that were stable, or may have.
    Journal,
    /// A read, write or flush of the data failed.
    Extent,
    /// The files were gone though the cluster counted on them.
    Missing,
    /// Its checksums were gone.
    Sums,
}

impl Damage {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Journal, "journal"),
        (Self::Extent, "extent"),
        (Self::Missing, "missing"),
        (Self::Sums, "sums"),
    ];

    /// In one word.
    pub fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(damage, _)| *damage == self)
            .map_or("", |(_, word)| word)
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == word)
            .map(|(damage, _)| *damage)
    }
}

/// What an extent's files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentMeta {
    /// Whose data it is.
    pub id: ExtentId,
    /// Size in bytes: a multiple of the block size, from 1 MiB to 16 TiB.
    pub bytes: u64,
    /// Size of a logical block; never changes.
    pub block_size: BlockSize,
    /// Revision of the cluster's state in which this node first saw it: an older state that lacks it is no reason to remove it.
    pub created: Revision,
    /// Its contents cannot be trusted.
    pub damaged: Option<Damage>,
    /// Every block has a checksum.
    pub sums: bool,
    /// On which device its data lies; `None`: in a file.
    pub device: Option<DeviceId>,
}

impl ExtentMeta {
    /// Size in blocks.
    pub const fn blocks(&self) -> u64 {
        self.bytes >> self.block_size.shift()
    }

    /// Whether an extent may have this size.
    ///
    /// # Errors
    /// [`StoreError::Geometry`] with the reason.
    pub fn check(&self) -> Result<(), StoreError> {
        let refuse = |why| Err(StoreError::Geometry { id: self.id, why });
        if !(EXTENT_BYTES_MIN..=EXTENT_BYTES_MAX).contains(&self.bytes) {
            return refuse("its size is not between 1 MiB and 16 TiB");
        }
        if !self.bytes.is_multiple_of(u64::from(self.block_size.bytes())) {
            return refuse("its size is no multiple of its block size");
        }
        Ok(())
    }

    /// The file in `dir` that says what extent `id` is.
    pub fn path(dir: &Path, id: ExtentId) -> PathBuf {
        dir.join(format!("{id}.meta"))
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`StoreError::Io`] (also where there is none), [`StoreError::Newer`], [`StoreError::Damaged`].
    pub fn load(dir: &Path, id: ExtentId) -> Result<Self, StoreError> {
        let path = Self::path(dir, id);
        let text = fs::read(&path).map_err(|error| StoreError::io("read", &path, error))?;
        let meta = Self::parse(&path, &text)?;
        if meta.id != id {
            return Err(StoreError::damaged(&path, format!("it is of extent {}", meta.id)));
        }
        Ok(meta)
    }

    /// Puts it on stable storage in place of an older one.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the older one is then still there.
    pub fn store(&self, dir: &Path) -> Result<(), StoreError> {
        let path = Self::path(dir, self.id);
        replace_file(dir, &path, self.to_text().as_bytes())
    }

    fn to_text(self) -> String {
        let mut text = format!(
            "{MAGIC} {EXTENT_FORMAT}\nid {}\nbytes {}\nblock {}\ncreated {}\nsums {}\n",
            self.id,
            self.bytes,
            self.block_size.bytes(),
            self.created,
            if self.sums { SUMS_ON } else { SUMS_OFF },
        );
        if let Some(device) = self.device {
            writeln!(text, "device {device}").expect("writing to a String does not fail");
        }
        if let Some(damage) = self.damaged {
            writeln!(text, "damaged {}", damage.word()).expect("writing to a String does not fail");
        }
        seal(&mut text);
        text
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
        let text = Sealed::read(path, bytes, (MAGIC, EXTENT_FORMAT), "")?;
        if text.version < EXTENT_FORMAT_OLDEST {
            return Err(StoreError::Older {
                path: path.to_owned(),
                found: text.version,
                known: EXTENT_FORMAT,
            });
        }
        let (field, damaged) = (|key| text.field(key), |why| text.damaged(why));
        let block: u32 = field("block")?.parse().map_err(|_| damaged("no block size"))?;
        let created: u64 = field("created")?.parse().map_err(|_| damaged("no revision"))?;
        let word = field("damaged").ok();
        let device = field("device").ok().map(str::parse).transpose();
        let sums = match field("sums")? {
            SUMS_ON => true,
            SUMS_OFF => false,
            _ => return Err(damaged("an unknown kind of checksum")),
        };
        let meta = Self {
            created: Revision(created),
            sums,
            device: device.map_err(|_| damaged("no device id"))?,
            damaged: word
                .map(|word| Damage::parse(word).ok_or_else(|| damaged("an unknown kind of damage")))
                .transpose()?,
            id: field("id")?.parse().map_err(|_| damaged("no extent id"))?,
            bytes: field("bytes")?.parse().map_err(|_| damaged("no size"))?,
            block_size: BlockSize::try_from(block).map_err(|_| damaged("no block size"))?,
        };
        meta.check()?;
        Ok(meta)
    }
}

/// Puts `contents` at `path` in `dir` so that a power cut leaves the old or the new contents, whole.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn replace_file(dir: &Path, path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    let tmp = path.with_extension("tmp");
    let mut file = File::create(&tmp).map_err(|error| StoreError::io("create", &tmp, error))?;
    file.write_all(contents)
        .and_then(|()| file.sync_all())
        .map_err(|error| StoreError::io("write", &tmp, error))?;
    fs::rename(&tmp, path).map_err(|error| StoreError::io("rename to", path, error))?;
    sync_dir(dir)
}

/// Puts the names in `dir` on stable storage.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(|error| StoreError::io("flush", dir, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta() -> ExtentMeta {
        ExtentMeta {
            id: ExtentId::from_u128(7),
            bytes: 8 << 20,
            block_size: BlockSize::B512,
            created: Revision(17),
            damaged: None,
            sums: true,
            device: None,
        }
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        meta().store(dir.path()).unwrap();
        assert_eq!(ExtentMeta::load(dir.path(), meta().id).unwrap(), meta());
        let bigger = ExtentMeta {
            bytes: 9 << 20,
            damaged: Some(Damage::Journal),
            device: Some(DeviceId::from_u128(9)),
            ..meta()
        };
        bigger.store(dir.path()).unwrap();
        assert_eq!(ExtentMeta::load(dir.path(), meta().id).unwrap(), bigger);
    }

    #[test]
    fn a_newer_format_is_refused_in_one_line() {
        let text = meta()
            .to_text()
            .replacen("holdfast-extent 3", "holdfast-extent 4", 1);
        let error = ExtentMeta::parse(Path::new("x.meta"), text.as_bytes()).unwrap_err();
        assert!(matches!(
            error,
            StoreError::Newer {
                found: 4,
                known: 3,
                ..
            }
        ));
        assert_eq!(error.to_string().lines().count(), 1);
    }

    #[test]
    fn what_the_release_before_wrote_is_read() {
        let text = "holdfast-extent 2\nid 00000000-0000-0000-0000-000000000007\nbytes 8388608\nblock 512\ncreated 17\nsums crc32c\n";
        let mut text = text.to_owned();
        seal(&mut text);
        assert_eq!(
            ExtentMeta::parse(Path::new("x"), text.as_bytes()).unwrap(),
            meta()
        );
    }

    #[test]
    fn a_changed_digit_is_seen() {
        let text = meta().to_text().replacen("bytes 8388608", "bytes 9388608", 1);
        assert!(matches!(
            ExtentMeta::parse(Path::new("x"), text.as_bytes()),
            Err(StoreError::Damaged { .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..200) {
            let _ = ExtentMeta::parse(Path::new("x"), &bytes);
            let mut text = meta().to_text().into_bytes();
            let cut = cut.min(text.len());
            text.truncate(cut);
            text.extend(bytes);
            let _ = ExtentMeta::parse(Path::new("x"), &text);
        }
    }
}
