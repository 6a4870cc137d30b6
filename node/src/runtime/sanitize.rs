//! SANITIZE at work: the primary of an extent goes through its blocks, as committed state orders it (SBC-4, 4.11). A failover goes on where
//! the last report was; a block that is done twice is the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_raft::model::Extent;
use holdfast_scsi::reservation::{Sanitizing, UnitChange, UnitOutcome};
use holdfast_types::{BlockOp, BlockRange, BlockSize, ExtentId, Lba, NodeId, OpOutcome, UnitVersion};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::units::{Inner, UnitService};

/// What one write of an OVERWRITE covers.
const WRITE_BYTES: u64 = 1 << 20;
/// What one step of a BLOCK ERASE covers: it moves no data.
const ERASE_BYTES: u64 = 128 << 20;
/// Between two reports of how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at what is ordered, where nothing changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two tries of something that another node has to do first.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Carries out what is ordered for extents that this node is primary of, one task for each.
pub(super) async fn sanitize(units: UnitService) {
    let inner = units.0;
    let mut watch = inner.parts.control.watch();
    let mut jobs: HashMap<(ExtentId, UnitVersion), Job> = HashMap::new();
    loop {
        let state = Arc::clone(&watch.borrow_and_update());
        jobs.retain(|_, job| !job.0.is_finished());
        for (id, extent) in &state.extents {
            let Some(running) = mine(extent, inner.parts.me) else {
                continue;
            };
            jobs.entry((*id, running.begun)).or_insert_with(|| {
                let work = Work {
                    inner: Arc::clone(&inner),
                    extent: *id,
                    begun: running.begun,
                };
                Job(tokio::spawn(work.run()))
            });
        }
        // Looked at again after a while: a task that ended for the sake of an older state may have stood in the way of its successor.
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, watch.changed()).await {
            return;
        }
    }
}

/// A task that ends with whoever started it.
struct Job(JoinHandle<()>);

impl Drop for Job {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is ordered for an extent, where this node is to carry it out.
fn mine(extent: &Extent, me: NodeId) -> Option<&Sanitizing> {
    let running = extent.unit.sanitize.running()?;
    (extent.primary == Some(me)).then_some(running)
}

/// One SANITIZE.
struct Work {
    inner: Arc<Inner>,
    extent: ExtentId,
    begun: UnitVersion,
}

/// Where it is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    pass: u8,
    done: u64,
}

/// What a pass writes; empty where it deallocates.
struct Pattern {
    pass: u8,
    bytes: Bytes,
}

impl Work {
    async fn run(self) {
        // From here on nothing that was admitted before takes effect any more (P2).
        self.inner.fence(self.extent, self.begun).await;
        let Some((running, _)) = self.still() else { return };
        tracing::info!(extent = %self.extent, by = %running.by.initiator, pass = running.pass, done = running.done,
            "SANITIZE: this node goes through the blocks");
        let mut place = Place {
            pass: running.pass,
            done: running.done,
        };
        let mut pattern = None;
        let mut reported = Instant::now();
        while let Some((running, (blocks, size))) = self.still() {
            if place.pass >= running.order.method.passes() {
                return self.over(&running, false).await;
            }
            let began = Instant::now();
            let (op, next) = piece(&running, place, (blocks, size), &mut pattern);
            match self.inner.on_storage(self.extent, op).await {
                OpOutcome::Done => place = next,
                OpOutcome::NoSpace => return self.over(&running, true).await,
                // Handed over, or nobody serves it at present: what is committed says who goes on.
                _ => tokio::time::sleep(AGAIN_AFTER).await,
            }
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                self.report(&running, place).await;
            }
            // Others' commands have the disks for as long as this had them.
            tokio::time::sleep(began.elapsed()).await;
        }
    }

    /// The order as committed, where this node is still to carry it out; number and size of the blocks.
    fn still(&self) -> Option<(Sanitizing, (u64, BlockSize))> {
        let state = self.inner.parts.control.state();
        let extent = state.extents.get(&self.extent)?;
        let running = mine(extent, self.inner.parts.me)?;
        let geometry = (extent.size_bytes >> extent.block_size.shift(), extent.block_size);
        (running.begun == self.begun).then(|| (running.clone(), geometry))
    }

    /// May get lost: the next one tells more.
    async fn report(&self, running: &Sanitizing, place: Place) {
        let change = UnitChange::SanitizeProgress {
            begun: self.begun,
            pass: place.pass,
            done: place.done,
        };
        let by = running.by.clone();
        self.inner.change(self.extent, by, change, false).await;
    }

    /// Commits the end, for as long as it is not.
    async fn over(&self, running: &Sanitizing, failed: bool) {
        if failed {
            tracing::warn!(extent = %self.extent, "SANITIZE failed: the disk is full");
        } else {
            tracing::info!(extent = %self.extent, "SANITIZE is done");
        }
        let begun = self.begun;
        let change = || UnitChange::SanitizeOver { begun, failed };
        while self.still().is_some() {
            let outcome = self
                .inner
                .change(self.extent, running.by.clone(), change(), false)
                .await;
            if outcome != Some(UnitOutcome::Good) {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

/// The next operation, and where it leads to. Between two passes everything becomes stable, also under write-back.
fn piece(
    running: &Sanitizing,
    place: Place,
    (blocks, size): (u64, BlockSize),
    pattern: &mut Option<Pattern>,
) -> (BlockOp, Place) {
    let left = blocks.saturating_sub(place.done);
    let flush = || {
        let pass = place.pass.saturating_add(1);
        (BlockOp::Flush, Place { pass, done: 0 })
    };
    let most = WRITE_BYTES >> size.shift();
    let kept = match pattern {
        Some(kept) if kept.pass == place.pass => kept,
        _ => pattern.insert(Pattern {
            pass: place.pass,
            bytes: running
                .order
                .method
                .contents(place.pass, most, size)
                .unwrap_or_default(),
        }),
    };
    let erases = kept.bytes.is_empty();
    let step = if erases { ERASE_BYTES >> size.shift() } else { most };
    let Ok(range) = BlockRange::new(Lba(place.done), left.min(step)) else {
        return flush();
    };
    if range.is_empty() {
        return flush();
    }
    let op = if erases {
        BlockOp::Zero { ranges: vec![range] }
    } else {
        let bytes = usize::try_from(range.byte_len(size)).unwrap_or(usize::MAX);
        BlockOp::Write {
            range,
            data: kept.bytes.slice(..bytes.min(kept.bytes.len())),
            fua: false,
        }
    };
    let done = place.done + range.blocks();
    (op, Place { done, ..place })
}

#[cfg(test)]
mod tests {
    use holdfast_scsi::reservation::{SanitizeMethod, SanitizeOrder};
    use holdfast_types::{Isid, Nexus, TpgId};

    use super::*;

    fn running(method: SanitizeMethod) -> Sanitizing {
        Sanitizing {
            order: SanitizeOrder {
                method,
                unrestricted_exit: false,
            },
            by: Nexus {
                initiator: "iqn.2026-11.example:host".parse().unwrap(),
                isid: Isid::default(),
                target: "iqn.2026-11.example:disk".parse().unwrap(),
                tpg: TpgId(1),
            },
            begun: UnitVersion(1),
            pass: 0,
            done: 0,
        }
    }

    /// Every operation up to the end, with the blocks that each covers.
    fn all(running: &Sanitizing, blocks: u64) -> Vec<BlockOp> {
        let (mut place, mut pattern) = (Place { pass: 0, done: 0 }, None);
        let mut ops = Vec::new();
        while place.pass < running.order.method.passes() {
            let (op, next) = piece(running, place, (blocks, BlockSize::B512), &mut pattern);
            assert!(next != place && op.check(blocks, BlockSize::B512), "{op:?}");
            ops.push(op);
            place = next;
        }
        ops
    }

    #[test]
    fn every_pass_covers_every_block_and_ends_with_a_flush() {
        let method = SanitizeMethod::Overwrite {
            pattern: vec![0xaa],
            count: 2,
            invert: true,
        };
        let ops = all(&running(method), 5000);
        let written = |ops: &[BlockOp]| -> Vec<(u64, u64, u8)> {
            ops.iter()
                .map(|op| match op {
                    BlockOp::Write { range, data, .. } => (range.lba().0, range.blocks(), data[0]),
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(ops.len(), 8);
        assert_eq!(
            written(&ops[..3]),
            [(0, 2048, 0x55), (2048, 2048, 0x55), (4096, 904, 0x55)]
        );
        assert_eq!(ops[3], BlockOp::Flush);
        assert_eq!(
            written(&ops[4..7]),
            [(0, 2048, 0xaa), (2048, 2048, 0xaa), (4096, 904, 0xaa)]
        );
        assert_eq!(ops[7], BlockOp::Flush);
    }

    #[test]
    fn an_erased_block_is_deallocated() {
        let ops = all(&running(SanitizeMethod::BlockErase), 300_000);
        let range = |lba, blocks| BlockRange::new(Lba(lba), blocks).unwrap();
        let zero = |range| BlockOp::Zero { ranges: vec![range] };
        let wanted = [
            zero(range(0, 262_144)),
            zero(range(262_144, 37_856)),
            BlockOp::Flush,
        ];
        assert_eq!(ops, wanted);
    }
}
