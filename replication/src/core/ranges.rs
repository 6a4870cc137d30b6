//! Who may touch which blocks now.
//!
//! - a *read* (also a hash) never runs beside an apply that overlaps it, so no block is ever seen torn (W3);
//! - *writes* get their lsn in any number at a time, are applied in lsn order where they overlap (I7), and wait for reads under way;
//! - an *exclusive* holder (the compare of a COMPARE AND WRITE, a range under comparison with a replica) waits until every write with an
//!   lsn that overlaps is applied, and keeps later ones from getting theirs.
//!
//! Waiting is fair: nobody overtakes an earlier waiter that it conflicts with, except that a write whose blocks nobody holds need not
//! wait for one that does. Slots are few (what is in flight), so they are a sorted vector that is scanned.

use std::sync::Arc;

use holdfast_types::{BlockRange, Lba, Lsn};

/// Blocks of a slot.
#[derive(Debug, Clone)]
pub(crate) struct Blocks {
    /// Bounds of all of them, half open.
    lo: u64,
    hi: u64,
    /// More than one range.
    many: Option<Arc<[BlockRange]>>,
}

impl Blocks {
    pub(crate) fn one(range: BlockRange) -> Self {
        Self {
            lo: range.lba().0,
            hi: range.end().0,
            many: None,
        }
    }

    /// All from here on.
    pub(crate) const fn from(lba: Lba) -> Self {
        Self {
            lo: lba.0,
            hi: u64::MAX,
            many: None,
        }
    }

    pub(crate) const fn none() -> Self {
        Self {
            lo: 0,
            hi: 0,
            many: None,
        }
    }

    pub(crate) fn many(ranges: &Arc<[BlockRange]>) -> Self {
        let used = || ranges.iter().filter(|range| !range.is_empty());
        Self {
            lo: used().map(|range| range.lba().0).min().unwrap_or(0),
            hi: used().map(|range| range.end().0).max().unwrap_or(0),
            many: (ranges.len() > 1).then(|| Arc::clone(ranges)),
        }
    }

    fn hits(&self, lo: u64, hi: u64) -> bool {
        match &self.many {
            None => lo < hi,
            Some(ranges) => ranges
                .iter()
                .any(|range| !range.is_empty() && range.lba().0.max(lo) < range.end().0.min(hi)),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (lo, hi) = (self.lo.max(other.lo), self.hi.min(other.hi));
        if lo >= hi {
            return false;
        }
        match (&self.many, &other.many) {
            (None, None) => true,
            (Some(_), None) => self.hits(lo, hi),
            (_, Some(theirs)) => theirs.iter().any(|range| {
                let (lo, hi) = (range.lba().0.max(lo), range.end().0.min(hi));
                lo < hi && self.hits(lo, hi)
            }),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Read,
    Write,
    Exclusive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ReadWaits,
    Reading,
    /// Has no lsn yet.
    WriteWaits,
    /// May get its lsn now.
    Admitted,
    /// Has its lsn, is not committed.
    Ordered(Lsn),
    /// The same, and its sender was told that it may or may not take effect: whoever reads from now on must not miss it, if it does.
    Overdue(Lsn),
    /// Committed, waits to be applied.
    Ready(Lsn),
    Applying(Lsn),
    ExclusiveWaits,
    Exclusive,
}

impl Kind {
    fn waits(self) -> bool {
        matches!(
            self,
            Self::ReadWaits | Self::WriteWaits | Self::Ready(_) | Self::ExclusiveWaits
        )
    }

    fn granted(self) -> Self {
        match self {
            Self::ReadWaits => Self::Reading,
            Self::WriteWaits => Self::Admitted,
            Self::Ready(lsn) => Self::Applying(lsn),
            Self::ExclusiveWaits => Self::Exclusive,
            other => other,
        }
    }
}

#[derive(Debug)]
struct Slot<T> {
    id: u64,
    kind: Kind,
    blocks: Blocks,
    owner: T,
}

/// The table of one extent.
#[derive(Debug)]
pub(crate) struct RangeTable<T> {
    /// By id, which is the order of arrival.
    slots: Vec<Slot<T>>,
    waiting: usize,
}

impl<T: Copy> RangeTable<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            waiting: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    fn index(&self, id: u64) -> Option<usize> {
        self.slots.binary_search_by_key(&id, |slot| slot.id).ok()
    }

    fn blocked(&self, slot: &Slot<T>) -> bool {
        self.slots.iter().any(|other| {
            let conflict = match (slot.kind, other.kind) {
                (Kind::ReadWaits, Kind::Overdue(_) | Kind::Ready(_) | Kind::Applying(_))
                | (
                    Kind::ExclusiveWaits,
                    Kind::Admitted | Kind::Ordered(_) | Kind::Overdue(_) | Kind::Ready(_) | Kind::Applying(_),
                )
                | (Kind::Ready(_), Kind::Reading) => true,
                (Kind::WriteWaits, Kind::ExclusiveWaits | Kind::Exclusive)
                | (Kind::ExclusiveWaits, Kind::WriteWaits | Kind::ExclusiveWaits | Kind::Exclusive) => {
                    other.id < slot.id
                }
                (
                    Kind::Ready(mine),
                    Kind::Ordered(theirs)
                    | Kind::Overdue(theirs)
                    | Kind::Ready(theirs)
                    | Kind::Applying(theirs),
                ) => theirs < mine,
                _ => false,
            };
            conflict && slot.blocks.overlaps(&other.blocks)
        })
    }

    fn set(&mut self, index: usize, kind: Kind) {
        let slot = &mut self.slots[index];
        self.waiting -= usize::from(slot.kind.waits());
        self.waiting += usize::from(kind.waits());
        slot.kind = kind;
    }

    /// Puts in a new slot; `id` is larger than all before. Whether it is granted at once.
    pub(crate) fn add(&mut self, id: u64, want: Want, blocks: Blocks, owner: T) -> bool {
        debug_assert!(self.slots.last().is_none_or(|last| last.id < id));
        let kind = match want {
            Want::Read => Kind::ReadWaits,
            Want::Write => Kind::WriteWaits,
            Want::Exclusive => Kind::ExclusiveWaits,
        };
        let mut slot = Slot {
            id,
            kind,
            blocks,
            owner,
        };
        let granted = !self.blocked(&slot);
        if granted {
            slot.kind = kind.granted();
        }
        self.waiting += usize::from(!granted);
        self.slots.push(slot);
        granted
    }

    /// Puts in a write that has its lsn already: a record that came from the log or from the primary.
    pub(crate) fn add_ordered(&mut self, id: u64, lsn: Lsn, blocks: Blocks, owner: T) {
        debug_assert!(self.slots.last().is_none_or(|last| last.id < id));
        self.slots.push(Slot {
            id,
            kind: Kind::Ordered(lsn),
            blocks,
            owner,
        });
    }

    /// An admitted write, or an exclusive holder that decided to write, gets its lsn.
    pub(crate) fn order(&mut self, id: u64, lsn: Lsn, owner: T) {
        if let Some(index) = self.index(id) {
            self.set(index, Kind::Ordered(lsn));
            self.slots[index].owner = owner;
        }
    }

    /// The write is committed. Whether it may be applied at once.
    pub(crate) fn ready(&mut self, id: u64) -> bool {
        let Some(index) = self.index(id) else {
            return false;
        };
        let (Kind::Ordered(lsn) | Kind::Overdue(lsn)) = self.slots[index].kind else {
            return false;
        };
        self.set(index, Kind::Ready(lsn));
        let granted = !self.blocked(&self.slots[index]);
        if granted {
            self.set(index, Kind::Applying(lsn));
        }
        granted
    }

    /// From now on reads that overlap this write wait until it is applied, or dropped.
    pub(crate) fn overdue(&mut self, id: u64) {
        if let Some(index) = self.index(id)
            && let Kind::Ordered(lsn) = self.slots[index].kind
        {
            self.set(index, Kind::Overdue(lsn));
        }
    }

    pub(crate) fn owner(&self, id: u64) -> Option<T> {
        self.index(id).map(|index| self.slots[index].owner)
    }

    /// Keeps the slot until its I/O is done: an apply goes before every other one that overlaps it, all else is a mere reader.
    pub(crate) fn linger(&mut self, id: u64, owner: T) {
        if let Some(index) = self.index(id) {
            let kind = match self.slots[index].kind {
                Kind::Applying(_) => Kind::Applying(Lsn(0)),
                _ => Kind::Reading,
            };
            self.set(index, kind);
            self.slots[index].owner = owner;
        }
    }

    /// Whether I/O of this slot may be under way, so that it has to stay until that is done.
    pub(crate) fn busy(&self, id: u64) -> bool {
        self.index(id)
            .is_some_and(|index| matches!(self.slots[index].kind, Kind::Reading | Kind::Applying(_)))
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        let index = self.index(id)?;
        let slot = self.slots.remove(index);
        self.waiting -= usize::from(slot.kind.waits());
        Some(slot.owner)
    }

    /// Grants one waiter that is no longer blocked, oldest first.
    pub(crate) fn grant(&mut self) -> Option<(u64, T)> {
        if self.waiting == 0 {
            return None;
        }
        let free = |slot: &&Slot<T>| slot.kind.waits() && !self.blocked(slot);
        let id = self.slots.iter().find(free)?.id;
        let index = self.index(id)?;
        self.set(index, self.slots[index].kind.granted());
        Some((id, self.slots[index].owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::Lba;

    fn blocks(lba: u64, n: u64) -> Blocks {
        Blocks::one(BlockRange::new(Lba(lba), n).unwrap())
    }

    fn grants(table: &mut RangeTable<u64>) -> Vec<u64> {
        std::iter::from_fn(|| table.grant()).map(|(id, _)| id).collect()
    }

    #[test]
    fn w3_reads_and_overlapping_applies_exclude_each_other() {
        let mut t = RangeTable::new();
        assert!(t.add(1, Want::Write, blocks(0, 8), 1));
        t.order(1, Lsn(1), 1);
        assert!(
            t.add(2, Want::Read, blocks(4, 8), 2),
            "a write that is not applied yet hinders no read"
        );
        assert!(!t.ready(1), "waits for the read");
        assert!(
            !t.add(3, Want::Read, blocks(0, 1), 3),
            "a later read does not starve it"
        );
        assert!(t.add(4, Want::Read, blocks(8, 1), 4));
        t.remove(2);
        assert_eq!(grants(&mut t), [1]);
        t.remove(1);
        assert_eq!(grants(&mut t), [3]);
    }

    #[test]
    fn i7_overlapping_applies_run_in_lsn_order_others_at_once() {
        let mut t = RangeTable::new();
        for (id, lba) in [(1, 0), (2, 4), (3, 20)] {
            t.add_ordered(id, Lsn(id), blocks(lba, 8), id);
        }
        assert!(t.ready(1));
        assert!(!t.ready(2));
        assert!(t.ready(3));
        t.remove(1);
        assert_eq!(grants(&mut t), [2]);
    }

    #[test]
    fn exclusive_waits_for_writes_and_blocks_later_ones() {
        let mut t = RangeTable::new();
        assert!(t.add(1, Want::Write, blocks(0, 4), 1));
        t.order(1, Lsn(1), 1);
        assert!(!t.add(2, Want::Exclusive, blocks(0, 2), 2));
        assert!(!t.add(3, Want::Write, blocks(0, 1), 3));
        assert!(
            t.add(4, Want::Write, blocks(3, 1), 4),
            "not in the exclusive range"
        );
        assert!(t.add(5, Want::Read, blocks(0, 4), 5));
        assert!(!t.ready(1));
        t.remove(5);
        assert_eq!(grants(&mut t), [1]);
        t.remove(1);
        assert_eq!(grants(&mut t), [2]);
        t.order(2, Lsn(3), 2);
        assert_eq!(grants(&mut t), [3]);
        t.order(3, Lsn(4), 3);
        assert!(t.ready(2));
        assert!(!t.ready(3), "lsn order");
    }

    #[test]
    fn many_ranges_overlap_where_one_does() {
        let list: Arc<[BlockRange]> = [(0, 2), (10, 2), (5, 0)]
            .map(|(lba, n)| BlockRange::new(Lba(lba), n).unwrap())
            .into();
        let many = Blocks::many(&list);
        assert!(!many.overlaps(&blocks(2, 8)));
        assert!(many.overlaps(&blocks(2, 9)));
        assert!(blocks(1, 1).overlaps(&many));
        assert!(!blocks(4, 3).overlaps(&many));
    }
}
