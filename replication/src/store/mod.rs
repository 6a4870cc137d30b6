//! What a data node keeps on disk: extents as sparse files or on devices, and the node's journal.

#[cfg(test)]
pub(crate) mod arbitrary;
mod codec;
mod contents;
mod device;
mod device_add;
mod devices;
mod entry;
mod error;
mod extent_file;
mod extent_meta;
mod label;
mod node_journal;
mod replay;
mod scrubbed;
mod settle;
mod sums;
mod text;
mod unflushed;
mod versions;

pub use codec::DecodeError;
pub use device::Device;
pub use device_add::{AddError, Given, Has, How};
pub use devices::{DeviceReport, Devices, Owner};
pub use entry::{Checkpoint, ENTRY_VERSION, Entry};
pub use error::StoreError;
pub use extent_file::ExtentFile;
pub use extent_meta::{Damage, EXTENT_FORMAT, ExtentMeta};
pub use label::{DEVICE_DATA_AT, DEVICE_FORMAT, Label, State as DeviceState};
pub use node_journal::{NodeJournal, NodeStore, Opened, Place};
pub use replay::Inconsistent;
pub use scrubbed::LastScrub;
pub(crate) use scrubbed::{load_scrubbed, store_scrubbed};
