//! What is written at the beginning of a block device that was given to a node.
//!
//! The label is text in the device's first sector, so that a power cut leaves the old or the new one; zeros follow up to 1 MiB:
//! ```text
//! holdfast-device 1
//! id 89abcdef-0123-4567-89ab-cdef01234567
//! cluster 0123456789abcdef0123456789abcdef   (when it was written; a takeover changes the cluster's)
//! node 2
//! bytes 1099511627776
//! state extent 01234567-89ab-cdef-0011-223344556677   (see [`State`])
//! check 6d0c…      (first 16 hexadecimal digits of BLAKE3 over the lines above)
//! ```
//! An extent's bytes begin at 1 MiB. Where anything but zeros lies between, somebody else has written to the device, and it is not used.

use std::fmt;
use std::path::Path;

use holdfast_types::{DeviceId, ExtentId, NodeId};

use super::StoreError;
use super::text::{Sealed, seal};

/// Version of the label that this release writes, and the newest it reads.
pub const DEVICE_FORMAT: u32 = 1;
/// What is read and written of a device for its label, in bytes.
pub(super) const LABEL_BYTES: usize = 4096;
/// The text is within the first sector of any disk.
pub(super) const LABEL_TEXT_MAX: usize = 512;
/// Where an extent's bytes begin on a device.
pub const DEVICE_DATA_AT: u64 = 1 << 20;

const MAGIC: &str = "holdfast-device";

/// What a device is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// For nothing; all of it behind the label is zeros.
    Blank,
    /// An extent is being made on it, and has no description yet: all of it behind the label is still zeros.
    Taken(ExtentId),
    /// It holds the extent's data.
    Holds(ExtentId),
    /// It held the data of an extent that was deleted.
    Used(ExtentId),
}

impl State {
    /// The extent that it names.
    pub const fn extent(self) -> Option<ExtentId> {
        match self {
            Self::Blank => None,
            Self::Taken(extent) | Self::Holds(extent) | Self::Used(extent) => Some(extent),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let with = |word: &str| text.strip_prefix(word)?.strip_prefix(' ')?.parse().ok();
        match text {
            "blank" => Some(Self::Blank),
            _ => with("taken")
                .map(Self::Taken)
                .or_else(|| with("extent").map(Self::Holds))
                .or_else(|| with("used").map(Self::Used)),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("blank"),
            Self::Taken(extent) => write!(f, "taken {extent}"),
            Self::Holds(extent) => write!(f, "extent {extent}"),
            Self::Used(extent) => write!(f, "used {extent}"),
        }
    }
}

/// A device's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Drawn when the device was given.
    pub id: DeviceId,
    /// The cluster of the node, when it was written.
    pub cluster: u128,
    /// The node that it was given to.
    pub node: NodeId,
    /// Size of the device in bytes.
    pub bytes: u64,
    /// What it is used for.
    pub state: State,
}

impl Label {
    /// Bytes of an extent that have room on it.
    pub const fn capacity(&self) -> u64 {
        self.bytes.saturating_sub(DEVICE_DATA_AT)
    }

    pub(super) fn to_bytes(self) -> [u8; LABEL_BYTES] {
        let mut text = format!(
            "{MAGIC} {DEVICE_FORMAT}\nid {}\ncluster {:032x}\nnode {}\nbytes {}\nstate {}\n",
            self.id, self.cluster, self.node, self.bytes, self.state
        );
        seal(&mut text);
        let mut bytes = [0; LABEL_BYTES];
        // All numbers have a longest form: the text is shorter than a sector.
        for (into, from) in bytes.iter_mut().take(LABEL_TEXT_MAX).zip(text.bytes()) {
            *into = from;
        }
        bytes
    }

    /// Reads the beginning of a device; `None` where there is no label.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Damaged`].
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Option<Self>, StoreError> {
        let bytes = &bytes[..bytes.len().min(LABEL_TEXT_MAX)];
        if !bytes.starts_with(MAGIC.as_bytes()) {
            return Ok(None);
        }
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let text = Sealed::read(path, &bytes[..end], (MAGIC, DEVICE_FORMAT), "its label: ")?;
        let (field, damaged) = (|key| text.field(key), |why| text.damaged(why));
        let cluster = field("cluster")?;
        let node: u64 = field("node")?.parse().map_err(|_| damaged("no node id"))?;
        Ok(Some(Self {
            id: field("id")?.parse().map_err(|_| damaged("no device id"))?,
            cluster: u128::from_str_radix(cluster, 16).map_err(|_| damaged("no cluster id"))?,
            node: NodeId(node),
            bytes: field("bytes")?.parse().map_err(|_| damaged("no size"))?,
            state: State::parse(field("state")?).ok_or_else(|| damaged("an unknown state"))?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn label(state: State) -> Label {
        Label {
            id: DeviceId::from_u128(u128::MAX),
            cluster: u128::MAX,
            node: NodeId(u64::MAX),
            bytes: u64::MAX,
            state,
        }
    }

    #[test]
    fn what_is_written_is_read_and_fits_a_sector() {
        let extent = ExtentId::from_u128(u128::MAX);
        for state in [
            State::Blank,
            State::Taken(extent),
            State::Holds(extent),
            State::Used(extent),
        ] {
            let bytes = label(state).to_bytes();
            assert_eq!(Label::parse(Path::new("x"), &bytes).unwrap(), Some(label(state)));
            assert!(bytes[LABEL_TEXT_MAX..].iter().all(|byte| *byte == 0));
        }
        assert_eq!(Label::parse(Path::new("x"), &[0; LABEL_BYTES]).unwrap(), None);
    }

    #[test]
    fn a_newer_one_is_refused_in_one_line_and_a_changed_digit_is_seen() {
        let mut bytes = label(State::Blank).to_bytes();
        let at = MAGIC.len() + 1;
        bytes[at] = b'2';
        let error = Label::parse(Path::new("x"), &bytes).unwrap_err();
        assert!(matches!(
            error,
            StoreError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ));
        assert_eq!(error.to_string().lines().count(), 1);
        for at in [at + 10, at + 60, at + 100] {
            let mut bytes = label(State::Blank).to_bytes();
            bytes[at] ^= 1;
            let error = Label::parse(Path::new("x"), &bytes).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{at}: {error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..400) {
            let _ = Label::parse(Path::new("x"), &bytes);
            let mut text = label(State::Blank).to_bytes()[..cut].to_vec();
            text.extend(bytes);
            let _ = Label::parse(Path::new("x"), &text);
        }
    }
}
