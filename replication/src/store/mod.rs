//! What a data node keeps on disk: extents as sparse files, and the node's journal.

mod error;
mod extent_file;
mod extent_meta;

pub use error::StoreError;
pub use extent_file::ExtentFile;
pub use extent_meta::{EXTENT_FORMAT, ExtentMeta};
