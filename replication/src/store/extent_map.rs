//! Which blocks of an extent have space of their own (GET LBA STATUS).

use holdfast_types::{BlockRange, Lba, MappedRun};

use super::ExtentFile;
use super::{Checked, StoreError};

/// Bytes of holes that one look at the map goes through, since their sums are read.
const MAP_HOLES: u64 = 1 << 30;

impl ExtentFile {
    /// Which blocks from `from` on have space, as at most `most` runs, one behind the other; a block that is partly there counts as
    /// there, and so does a hole where something else than zeros was written. Where the file system cannot tell, all of them count as
    /// there. Ends early behind `MAP_HOLES` of holes. Empty where `from` is behind the end.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn map(&self, from: Lba, most: u16) -> Result<Vec<MappedRun>, StoreError> {
        self.check_alive()?;
        let (shift, blocks) = (self.block_size.shift(), self.blocks());
        let mut runs = Vec::new();
        let (mut at, mut holes) = (from.0, MAP_HOLES >> shift);
        while at < blocks && holes > 0 && runs.len() < usize::from(most) {
            let data = match self.contents.next_data(at << shift) {
                Ok(Some(data)) => (data >> shift).min(blocks),
                Ok(None) => blocks,
                Err(_) => at,
            };
            let hole = data > at;
            let end = if hole {
                data.min(at.saturating_add(holes))
            } else {
                self.mapped_until(at, blocks)
            };
            if let Ok(range) = BlockRange::new(Lba(at), end - at) {
                if hole {
                    holes -= end - at;
                }
                let mapped = !hole || !self.zeros_here(range);
                runs.push(MappedRun { range, mapped });
            }
            at = end;
        }
        Ok(runs)
    }

    /// The first block behind `at` that has no space.
    fn mapped_until(&self, at: u64, blocks: u64) -> u64 {
        let shift = self.block_size.shift();
        match self.contents.next_hole(at << shift) {
            Ok(hole) => (hole >> shift)
                .saturating_add(u64::from(hole & u64::from(self.block_size.bytes() - 1) > 0))
                .clamp(at + 1, blocks),
            Err(_) => blocks,
        }
    }

    /// Whether zeros are what was written to all of a hole, as far as sums are kept.
    pub(super) fn zeros_here(&self, range: BlockRange) -> bool {
        self.sums
            .as_ref()
            .is_none_or(|sums| sums.check_zeros(range) == Checked::Good)
    }
}
