//! When each range of a replica changed last (R2), as the product's map of changes keeps it (`replication::store`): positions in a file,
//! and in memory what changed since the last note.

use holdfast_replication::fault::{self, Fault};
use holdfast_types::{BlockRange, Lba, Lsn};

use super::plan::{BLOCKS, RANGE};
use super::rng::{Rng, at};

/// Ranges of an extent; one bit of a mask each.
const RANGES: u64 = BLOCKS / RANGE;
const ALL: u32 = (1 << RANGES) - 1;

/// The map of one replica. All of its positions lie in one page.
#[derive(Debug)]
pub(super) struct Changes {
    /// In the file: not older than the newest record that changed the range, if that was noted.
    versions: Vec<u64>,
    /// The page's checksum does not fit: all of its ranges count as changed.
    torn: bool,
    /// In memory: what changed since it was noted last.
    touched: u32,
    /// On its way into the file, and as changed when.
    noting: Option<(u32, Lsn)>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            versions: vec![0; at(RANGES)],
            torn: false,
            touched: 0,
            noting: None,
        }
    }
}

fn bits(mask: u32) -> impl Iterator<Item = u64> {
    (0..RANGES).filter(move |no| mask >> no & 1 == 1)
}

impl Changes {
    /// Blocks are about to change, or may be different from what is known of them.
    pub(super) fn touch(&mut self, ranges: &[BlockRange]) {
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            for no in range.lba().0 / RANGE..=(range.end().0 - 1) / RANGE {
                self.touched |= 1 << no;
            }
        }
    }

    /// What changed since the last time is written into the file as changed at `now`.
    pub(super) fn note_begins(&mut self, now: Lsn) {
        let unwritten = self.noting.take().map_or(0, |(mask, _)| mask);
        let mask = std::mem::take(&mut self.touched) | unwritten;
        self.noting = (mask != 0).then_some((mask, now));
    }

    /// That is stable.
    pub(super) fn noted(&mut self) {
        let Some((mask, now)) = self.noting.take() else {
            return;
        };
        if fault::on(Fault::ChangesForgotten) {
            return;
        }
        let mask = if std::mem::take(&mut self.torn) { ALL } else { mask };
        for no in bits(mask) {
            self.versions[at(no)] = now.0;
        }
    }

    /// What may have changed behind a position. Whoever asks waits for a note that is under way.
    pub(super) fn changed_since(&self, since: Lsn) -> Vec<BlockRange> {
        let (noting, now) = self.noting.unwrap_or_default();
        let changed = |no: &u64| {
            let noted = noting >> no & 1 == 1 && now > since;
            self.torn || noted || self.touched >> no & 1 == 1 || self.versions[at(*no)] > since.0
        };
        (0..RANGES)
            .filter(changed)
            .filter_map(|no| BlockRange::new(Lba(no * RANGE), RANGE).ok())
            .collect()
    }

    /// The process ends: what was in memory is forgotten, what was on its way is there or is not; without power the page may be torn.
    pub(super) fn crash(&mut self, power: bool, rng: &mut Rng) {
        self.touched = 0;
        if self.noting.is_some() {
            if rng.chance(50) {
                self.noted();
            } else if power && rng.chance(50) {
                self.torn = true;
            }
        }
        self.noting = None;
        // A bit of the file flips.
        self.torn |= power && rng.one_in(50);
    }
}
