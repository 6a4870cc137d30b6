//! A storage backend in memory for tests of the front: what an extent does with an operation, and what it may do to one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use holdfast_replication::core::api::{AbortScope, OpId, Request, StatusNews};
use holdfast_types::{BlockOp, BlockRange, BlockSize, ExtentId, MappedRun, OpOutcome};

use super::{Backend, Registry};

/// What is done with operations that come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mood {
    /// Carried out at once.
    Sound,
    /// Kept until [`Memory::release`] or an abort.
    Holding,
    /// Kept, and aborts come to nothing until [`Memory::release`].
    Deaf,
    /// Answered with this at once, and not carried out.
    Answering(OpOutcome),
    /// Carried out after a while, each on its own; aborted where that comes first.
    Slow(Duration),
}

struct Inner {
    disks: HashMap<ExtentId, Vec<u8>>,
    mood: Mood,
    kept: Vec<(ExtentId, OpId, Request)>,
    submitted: usize,
    aborts: usize,
    statuses: Vec<StatusNews>,
}

/// The extents, all of blocks of 512 bytes.
pub(super) struct Memory {
    registry: Arc<Registry>,
    inner: Mutex<Inner>,
}

impl Memory {
    pub(super) fn new(registry: Arc<Registry>, extent: ExtentId, bytes: usize) -> Arc<Self> {
        let inner = Inner {
            disks: HashMap::from([(extent, vec![0; bytes])]),
            mood: Mood::Sound,
            kept: Vec::new(),
            submitted: 0,
            aborts: 0,
            statuses: Vec::new(),
        };
        Arc::new(Self {
            registry,
            inner: Mutex::new(inner),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Whatever comes from now on is treated like this.
    pub(super) fn set_mood(&self, mood: Mood) {
        self.inner().mood = mood;
    }

    /// How many operations have come in.
    pub(super) fn submitted(&self) -> usize {
        self.inner().submitted
    }

    /// How many aborts have come in.
    pub(super) fn aborts(&self) -> usize {
        self.inner().aborts
    }

    /// What was told of statuses of COMPARE AND WRITEs.
    pub(super) fn statuses(&self) -> Vec<StatusNews> {
        self.inner().statuses.clone()
    }

    /// How many operations are kept.
    pub(super) fn kept(&self) -> usize {
        self.inner().kept.len()
    }

    /// Ends everything that is kept: with `outcome`, or as it would have ended.
    pub(super) fn release(&self, outcome: Option<&OpOutcome>) {
        let mut inner = self.inner();
        let kept = std::mem::take(&mut inner.kept);
        for (extent, op, request) in kept {
            let outcome = outcome
                .cloned()
                .unwrap_or_else(|| inner.carry_out(extent, &request.op));
            self.registry.complete(op, outcome);
        }
    }

    /// Carries one out, if it is still kept.
    fn release_one(&self, op: OpId) {
        let mut inner = self.inner();
        if let Some(at) = inner.kept.iter().position(|(_, kept, _)| *kept == op) {
            let (extent, op, request) = inner.kept.swap_remove(at);
            let outcome = inner.carry_out(extent, &request.op);
            self.registry.complete(op, outcome);
        }
    }

    /// Bytes of an extent.
    pub(super) fn bytes(&self, extent: ExtentId, from: usize, len: usize) -> Vec<u8> {
        self.inner().disks[&extent][from..from + len].to_vec()
    }
}

impl Inner {
    fn carry_out(&mut self, extent: ExtentId, op: &BlockOp) -> OpOutcome {
        let disk = self.disks.get_mut(&extent).expect("the extent is there");
        assert!(op.check(disk.len() as u64 / 512, BlockSize::B512), "{op:?}");
        match op {
            BlockOp::Read { range } => OpOutcome::Data(Bytes::copy_from_slice(part(disk, *range))),
            BlockOp::Write { range, data, .. } => {
                part(disk, *range).copy_from_slice(data);
                OpOutcome::Done
            }
            BlockOp::WriteSame { range, block } => {
                part(disk, *range)
                    .chunks_exact_mut(block.len())
                    .for_each(|chunk| chunk.copy_from_slice(block));
                OpOutcome::Done
            }
            BlockOp::Zero { ranges } => {
                ranges.iter().for_each(|range| part(disk, *range).fill(0));
                OpOutcome::Done
            }
            BlockOp::CompareAndWrite { range, expect, data } => {
                let there = part(disk, *range);
                let miss = differs(there, expect);
                if miss.is_none() {
                    there.copy_from_slice(data);
                }
                miss.unwrap_or(OpOutcome::Done)
            }
            BlockOp::Verify { range, expect } => expect
                .as_ref()
                .and_then(|expect| {
                    let there = part(disk, *range);
                    let expect: Vec<u8> = expect.iter().copied().cycle().take(there.len()).collect();
                    differs(there, &expect)
                })
                .unwrap_or(OpOutcome::Done),
            BlockOp::OrWrite { range, data } => {
                let there = part(disk, *range);
                there
                    .iter_mut()
                    .zip(data)
                    .for_each(|(there, bits)| *there |= bits);
                OpOutcome::Done
            }
            BlockOp::Map { from, .. } => {
                let blocks = disk.len() as u64 / 512 - from.0;
                let range = BlockRange::new(*from, blocks).unwrap();
                OpOutcome::Map(vec![MappedRun { range, mapped: true }])
            }
            BlockOp::Flush | BlockOp::Fence { .. } => OpOutcome::Done,
        }
    }
}

fn part(disk: &mut [u8], range: BlockRange) -> &mut [u8] {
    let from = usize::try_from(range.byte_offset(BlockSize::B512)).unwrap();
    let len = usize::try_from(range.byte_len(BlockSize::B512)).unwrap();
    &mut disk[from..from + len]
}

fn differs(there: &[u8], expect: &[u8]) -> Option<OpOutcome> {
    let offset = there.iter().zip(expect).position(|(a, b)| a != b)?;
    Some(OpOutcome::Miscompare {
        offset: u32::try_from(offset).unwrap(),
    })
}

/// The backend that connections get: [`Memory`] with a handle to itself for answers that come later.
pub(super) struct Handle(pub(super) Arc<Memory>);

impl Backend for Handle {
    fn submit(&self, extent: ExtentId, op: OpId, request: Request) -> Option<OpOutcome> {
        let memory = &self.0;
        let mut inner = memory.inner();
        inner.submitted += 1;
        let outcome = match inner.mood.clone() {
            Mood::Sound => inner.carry_out(extent, &request.op),
            Mood::Holding | Mood::Deaf => {
                inner.kept.push((extent, op, request));
                return None;
            }
            Mood::Answering(outcome) => return Some(outcome),
            Mood::Slow(delay) => {
                inner.kept.push((extent, op, request));
                let memory = Arc::clone(memory);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    memory.release_one(op);
                });
                return None;
            }
        };
        drop(inner);
        memory.registry.complete(op, outcome);
        None
    }

    fn statuses(&self, _extent: ExtentId, news: Vec<StatusNews>) {
        self.0.inner().statuses.extend(news);
    }

    fn abort(&self, extent: ExtentId, scope: AbortScope) {
        let memory = &self.0;
        let mut inner = memory.inner();
        inner.aborts += 1;
        if inner.mood == Mood::Deaf {
            return;
        }
        let (ended, kept) = std::mem::take(&mut inner.kept)
            .into_iter()
            .partition(|(on, op, request)| {
                *on == extent
                    && match scope {
                        AbortScope::Op(named) => *op == named,
                        AbortScope::Session(session) => request.name.session == session,
                        AbortScope::All => true,
                    }
            });
        inner.kept = kept;
        let ended: Vec<(ExtentId, OpId, Request)> = ended;
        for (_, op, _) in ended {
            memory.registry.complete(op, OpOutcome::Aborted);
        }
    }
}
