//! A measurement of writes overwrites what is there. Before the first one it is made sure that nothing of value is.

use std::sync::Arc;

use holdfast_types::Lba;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::disk::Disk;
use crate::error::Error;
use crate::workload::{Found, Stamp};

/// Every block that a measurement writes begins with this. What a checked workload has written is no loss either.
pub const SIGNATURE: &[u8; 16] = b"HOLDFAST BENCH\r\n";

/// Places looked at. Partition tables and file systems have theirs at the start; other data is likely to show in a random place.
const PLACES: u64 = 256;
/// Bytes read in each place.
const PLACE_BYTES: u64 = 4096;

/// The first place with data that neither a measurement nor a checked workload has written, out of the start of the disk and random places.
///
/// # Errors
/// The first command that fails.
pub async fn find_foreign_data<D: Disk>(disk: &Arc<D>, seed: u64) -> Result<Option<Lba>, Error> {
    let block = disk.block_size().bytes() as usize;
    let blocks_each = u32::try_from((PLACE_BYTES / block as u64).max(1)).unwrap_or(1);
    let last = disk.blocks().saturating_sub(u64::from(blocks_each));
    let mut random = StdRng::seed_from_u64(seed);
    for place in 0..PLACES {
        let lba = if place < PLACES / 4 {
            place * u64::from(blocks_each)
        } else {
            // Where a file system puts its blocks, and a checked workload its units.
            random.random_range(0..=last / u64::from(blocks_each)) * u64::from(blocks_each)
        };
        let lba = lba.min(last);
        let data = disk.read(Lba(lba), blocks_each).await?;
        let foreign = data
            .chunks(block)
            .position(|one| !one.starts_with(SIGNATURE) && one.iter().any(|byte| *byte != 0));
        // A checked unit is longer than a block, and only its start says what it is.
        let foreign = foreign.filter(|_| !matches!(Stamp::find(&data), Found::Whole(_)));
        if let Some(index) = foreign {
            return Ok(Some(Lba(lba + index as u64)));
        }
    }
    Ok(None)
}
