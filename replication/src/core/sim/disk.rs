//! Journals and extents of the simulated nodes.

use super::*;

/// What a block holds whose bits have flipped: the disk knows by its sum.
pub(super) const ROTTEN: u64 = u64::MAX - 7;

fn digest(piece: &[u64]) -> Digest {
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
    for value in piece {
        sum = (sum ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
    let mut digest = Digest::default();
    digest[..8].copy_from_slice(&sum.to_be_bytes());
    digest
}

fn changed_since(node: &Node, since: Lsn) -> Vec<BlockRange> {
    let changed =
        |no: &u64| node.touched.contains(no) || node.versions[usize::try_from(*no).unwrap()] > since.0;
    let range = |no: u64| BlockRange::new(Lba(no * RANGE), RANGE).unwrap();
    (0..BLOCKS / RANGE).filter(changed).map(range).collect()
}

impl World {
    pub(super) fn journal(&mut self, n: usize, seq: u64, entry: Entry) {
        self.nodes[n].pending.push_back((seq, Some(entry)));
        self.start_flush(n);
    }

    pub(super) fn start_flush(&mut self, n: usize) {
        if self.nodes[n].flushing.is_none() && !self.nodes[n].pending.is_empty() {
            let count = self.nodes[n].pending.len();
            self.nodes[n].flushing = Some(count);
            let time = self.rng.between(MS / 10, 3 * MS);
            let run = self.nodes[n].incarnation;
            self.at(time, Ev::Flushed(n, run));
        }
    }

    pub(super) fn flushed(&mut self, n: usize, run: u64) -> Result<(), String> {
        let node = &mut self.nodes[n];
        if node.incarnation != run {
            return Ok(());
        }
        if node.hung > self.now {
            let rest = node.hung - self.now;
            self.at(rest, Ev::Flushed(n, run));
            return Ok(());
        }
        let mut newest = 0;
        for _ in 0..node.flushing.take().unwrap_or(0) {
            if let Some((seq, entry)) = node.pending.pop_front() {
                newest = newest.max(seq);
                node.stable.extend(entry);
            }
        }
        self.start_flush(n);
        if newest > 0 && !self.nodes[n].failed {
            let seq = JournalSeq(newest);
            return self.feed(n, Event::Appended { seq });
        }
        Ok(())
    }

    /// Applies under way are finished and the extent made stable, before the journal lets go of their records.
    pub(super) fn flush_extent(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let mut extent = node.extent.clone();
        for io in node.io.values() {
            if let Io::Apply(record) = io {
                apply(&mut extent, record);
            }
        }
        node.extent_stable = extent;
        let under_way = node.io.values().flat_map(|io| match io {
            Io::Apply(record) => record.body.ranges().to_vec(),
            _ => vec![],
        });
        let under_way: Vec<BlockRange> = under_way.collect();
        self.touch(n, &under_way);
        self.note_changes(n);
    }

    /// What changed since the last time counts as changed now.
    fn note_changes(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(core) = node.core.as_ref() else { return };
        let now = core.end().lsn.0;
        for no in std::mem::take(&mut node.touched) {
            if !fault::on(Fault::ChangesForgotten) {
                node.versions[usize::try_from(no).unwrap()] = now;
            }
        }
    }

    pub(super) fn touch(&mut self, n: usize, ranges: &[BlockRange]) {
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            let numbers = range.lba().0 / RANGE..=(range.end().0 - 1) / RANGE;
            self.nodes[n].touched.extend(numbers);
        }
    }

    pub(super) fn checkpoint(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(core) = node.core.as_ref() else { return };
        let checkpoint = Checkpoint {
            applied: core.applied(),
            history: core.history(),
            commit: core.committed(),
            seen: core.seen(),
        };
        node.extent_stable = node.extent.clone();
        self.note_changes(n);
        let node = &mut self.nodes[n];
        // Through the journal, behind everything the core asked for before: its state includes that.
        node.pending.push_back((0, Some(Entry::Checkpoint(checkpoint))));
        self.start_flush(n);
        let rarely = matches!(self.plan.script, Script::PowerAfterGrowth | Script::Done);
        let again = self.rng.between(20, if rarely { 5000 } else { 400 });
        self.at(again * MS, Ev::Checkpoint(n));
    }

    pub(super) fn recovered(entries: &[Entry]) -> Recovered {
        let mut r = Recovered::default();
        for entry in entries {
            match entry {
                Entry::Record(record) => {
                    r.commit = r.commit.max(record.commit);
                    r.seen = r.seen.max(record.pos.epoch);
                    r.tail.push(record.clone());
                }
                Entry::Truncate(after) => r.tail.retain(|record| record.pos.lsn <= after.lsn),
                Entry::Restart(base, from, history) => {
                    r.tail.clear();
                    r.base = Some(*base);
                    r.applied = *from;
                    r.history = history.clone();
                    r.commit = from.lsn;
                    r.damaged = false;
                }
                Entry::Damage => r.damaged = true,
                Entry::ClearBase => r.base = None,
                Entry::Checkpoint(c) => {
                    r.applied = c.applied;
                    r.history = c.history.clone();
                    r.commit = r.commit.max(c.commit);
                    r.seen = r.seen.max(c.seen);
                    r.tail.retain(|record| record.pos.lsn > c.applied.lsn);
                }
            }
        }
        r
    }

    /// A disk that lies: only while another member of the set is whole.
    pub(super) fn damage(&mut self, n: usize) {
        let view = Arc::clone(self.views.last().unwrap());
        let whole = |m: usize| {
            let found = Self::recovered(&self.nodes[m].stable);
            view.in_sync.contains(&self.nodes[m].id) && found.base.is_none() && !found.damaged
        };
        let healed = self.damaged.is_none_or(whole);
        if healed && (0..self.nodes.len()).any(|m| m != n && whole(m)) {
            self.log(|| format!("damage {n}"));
            self.damaged = Some(n);
            let node = &mut self.nodes[n];
            node.stable.push(Entry::Damage);
            for block in &mut node.extent {
                if self.rng.chance(30) {
                    *block = u64::MAX - 1;
                }
            }
            node.extent_stable = node.extent.clone();
            *self.notes.entry("damaged").or_default() += 1;
        }
    }

    pub(super) fn start_io(&mut self, n: usize, io: u64, what: Io) -> Result<(), String> {
        let ranges = |io: &Io| -> Vec<BlockRange> {
            match io {
                Io::Apply(record) => record.body.ranges().to_vec(),
                Io::Read(range) | Io::Hash(range, _) => vec![*range],
                Io::Changed(_) | Io::Allocated(_) | Io::Map(..) => vec![],
            }
        };
        let mine = ranges(&what);
        for other in self.nodes[n].io.values() {
            let writes = matches!(what, Io::Apply(_)) || matches!(other, Io::Apply(_));
            if writes && ranges(other).iter().any(|a| mine.iter().any(|b| a.overlaps(*b))) {
                return Err(format!("I/O overlaps: {what:?} beside {other:?}"));
            }
        }
        let longest = if matches!(what, Io::Hash(..)) {
            self.plan.hash_ms * MS
        } else {
            2 * MS
        };
        self.nodes[n].io.insert(io, what);
        let time = self.rng.between(MS / 50, longest);
        let run = self.nodes[n].incarnation;
        self.at(time, Ev::IoDone(n, run, io));
        Ok(())
    }

    pub(super) fn io_done(&mut self, n: usize, run: u64, io: u64) -> Result<(), String> {
        let node = &mut self.nodes[n];
        if node.incarnation != run || node.failed {
            return Ok(());
        }
        if node.hung > self.now {
            let rest = node.hung - self.now;
            self.at(rest, Ev::IoDone(n, run, io));
            return Ok(());
        }
        if node.room.full && matches!(node.io.get(&io), Some(Io::Apply(_))) {
            self.at(20 * MS, Ev::IoDone(n, run, io));
            return Ok(());
        }
        // A disk that does not give a block today.
        if !self.calm && matches!(node.io.get(&io), Some(Io::Read(_))) && self.rng.chance(1) {
            let Some(Io::Read(bad)) = node.io.remove(&io) else {
                return Ok(());
            };
            *self.notes.entry("unreadable").or_default() += 1;
            let io = IoToken(io);
            return self.feed(n, Event::ReadFailed { io, bad });
        }
        let Some(what) = node.io.remove(&io) else {
            return Ok(());
        };
        let token = IoToken(io);
        match &what {
            Io::Apply(record) => self.touch(n, record.body.ranges()),
            Io::Hash(range, true) => self.touch(n, &[*range]),
            _ => {}
        }
        let node = &mut self.nodes[n];
        let event = match what {
            Io::Apply(record) => {
                apply(&mut node.extent, &record);
                Event::Applied { io: token }
            }
            Io::Read(range) if node.extent[span(range)].contains(&ROTTEN) => {
                let bad = |offset: usize| BlockRange::new(Lba(range.lba().0 + offset as u64), 1).unwrap();
                let first = node.extent[span(range)].iter().position(|value| *value == ROTTEN);
                let (io, bad) = (token, bad(first.unwrap()));
                Event::ReadFailed { io, bad }
            }
            Io::Read(range) => {
                let values = node.extent[span(range)].iter();
                let data: Vec<u8> = values.flat_map(|value| fill(*value, 1).to_vec()).collect();
                let (io, data) = (token, data.into());
                Event::ReadDone { io, data }
            }
            Io::Changed(since) => Event::Changed {
                io: token,
                ranges: changed_since(node, since),
            },
            Io::Allocated(range) => Event::Allocated {
                io: token,
                whole: node.extent[span(range)].iter().all(|value| *value != 0),
            },
            Io::Map(from, runs) => {
                let runs = mapped(&node.extent, from, runs);
                Event::Mapped { io: token, runs }
            }
            Io::Hash(range, _) => {
                // Pieces of two blocks.
                let pieces = node.extent[span(range)].chunks(2);
                let digests = pieces.map(|piece| (!piece.contains(&ROTTEN)).then(|| digest(piece)));
                Event::Hashed {
                    io: token,
                    digests: digests.collect(),
                }
            }
        };
        self.feed(n, event)
    }
}

/// Runs of one block each.
fn mapped(extent: &[u64], from: Lba, runs: u16) -> Vec<MappedRun> {
    let from = usize::try_from(from.0).unwrap();
    (from..extent.len())
        .take(usize::from(runs))
        .map(|block| MappedRun {
            range: BlockRange::new(Lba(block as u64), 1).unwrap(),
            mapped: extent[block] != 0,
        })
        .collect()
}
