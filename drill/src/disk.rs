//! A logical unit as workloads see it, whatever brings the commands there.

use std::future::Future;

use bytes::Bytes;
use holdfast_types::{BlockSize, Lba};

use crate::error::Error;

/// Reads and writes whole blocks. Any number of commands may be on their way at once.
pub trait Disk: Send + Sync + 'static {
    /// Size of a block.
    fn block_size(&self) -> BlockSize;

    /// How many blocks.
    fn blocks(&self) -> u64;

    /// Reads `blocks` blocks from `lba` on.
    ///
    /// # Errors
    /// Whatever the command came to.
    fn read(&self, lba: Lba, blocks: u32) -> impl Future<Output = Result<Bytes, Error>> + Send;

    /// Writes whole blocks from `lba` on; `Ok` is GOOD.
    ///
    /// # Errors
    /// Whatever the command came to; see [`Error::is_unknown`].
    fn write(&self, lba: Lba, data: Bytes) -> impl Future<Output = Result<(), Error>> + Send;
}
