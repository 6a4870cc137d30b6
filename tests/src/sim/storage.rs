//! Carries out what cores ask for: journal, extents, links, proposals, answers.

use holdfast_replication::core::api::{
    Command, Digest, Digests, Event, FenceReason, IoToken, JournalSeq, Note, RecordBody, RoleName, Verdict,
};
use holdfast_replication::fault::{self, Fault};
use holdfast_types::{BlockRange, Lba, LogPos, MappedRun};

use super::disk::{Checkpoint, Io, Item, ROTTEN, bytes, values};
use super::plan::BLOCKS;
use super::rng::at;
use super::{Broken, Ev, MS, Node, Res, World, glue, place, trace};

/// Something that a disk has done.
#[derive(Debug, Clone)]
pub(super) enum DiskEvent {
    /// The journal's flush.
    Flushed,
    /// Reading or writing.
    Done { extent: usize, io: u64 },
    /// A checkpoint is due.
    Checkpoint { extent: usize },
    /// The extent's flush before a checkpoint.
    Synced {
        extent: usize,
        applied: LogPos,
        restarts: u64,
    },
    /// What changed since the last checkpoint is in the map of changes.
    Noted {
        extent: usize,
        applied: LogPos,
        restarts: u64,
    },
    /// Journal or extent fails.
    Fails { extent: usize, reason: FenceReason },
}

impl World {
    fn disk(&mut self, node: Node, delay: u64, event: DiskEvent) {
        let run = self.hosts[node].run;
        self.after(delay, Ev::Disk(node, run, event));
    }

    pub(super) fn begin_checkpoints(&mut self, node: Node) {
        for extent in 0..self.hosts[node].disk.replicas.len() {
            let wait = self.rng.below(self.plan.checkpoint_every);
            self.disk(node, wait, DiskEvent::Checkpoint { extent });
        }
    }

    pub(super) fn on_disk(&mut self, node: Node, event: DiskEvent) -> Res {
        let hangs = self.hosts[node].disk.hangs;
        if hangs > self.now {
            self.disk(node, hangs - self.now, event);
            return Ok(());
        }
        match event {
            DiskEvent::Flushed => self.journal_flushed(node),
            DiskEvent::Done { extent, io } => self.io_done(node, extent, io),
            DiskEvent::Checkpoint { extent } => {
                self.checkpoint(node, extent);
                Ok(())
            }
            DiskEvent::Synced {
                extent,
                applied,
                restarts,
            } => {
                self.synced(node, extent, applied, restarts);
                Ok(())
            }
            DiskEvent::Noted {
                extent,
                applied,
                restarts,
            } => {
                self.noted(node, extent, applied, restarts);
                Ok(())
            }
            DiskEvent::Fails { extent, reason } => self.fails(node, extent, reason),
        }
    }

    fn journal(&mut self, node: Node, extent: usize, seq: u64, item: Item) {
        self.hosts[node].disk.pending.push_back((extent, seq, item));
        self.start_flush(node);
    }

    fn start_flush(&mut self, node: Node) {
        let disk = &mut self.hosts[node].disk;
        if disk.flushing.is_none() && !disk.pending.is_empty() {
            disk.flushing = Some(disk.pending.len());
            let time = self.rng.between(MS / 10, 3 * MS);
            self.disk(node, time, DiskEvent::Flushed);
        }
    }

    fn journal_flushed(&mut self, node: Node) -> Res {
        let disk = &mut self.hosts[node].disk;
        let mut newest = vec![0; disk.replicas.len()];
        for _ in 0..disk.flushing.take().unwrap_or(0) {
            if let Some((extent, seq, item)) = disk.pending.pop_front() {
                newest[extent] = newest[extent].max(seq);
                disk.replicas[extent].journaled(item);
            }
        }
        let failed = disk.failed.clone();
        self.start_flush(node);
        for (extent, seq) in newest.into_iter().enumerate() {
            if seq > 0 && !failed[extent] {
                let seq = JournalSeq(seq);
                self.feed(node, extent, Event::Appended { seq })?;
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, node: Node, extent: usize) {
        let again = self.rng.between(20 * MS, self.plan.checkpoint_every);
        self.disk(node, again, DiskEvent::Checkpoint { extent });
        let host = &mut self.hosts[node];
        let Some(process) = host.process.as_ref() else {
            return;
        };
        if host.disk.failed[extent] {
            return;
        }
        let replica = &mut host.disk.replicas[extent];
        replica.sync_begins();
        let (applied, restarts) = (process.cores[extent].applied(), replica.restarts);
        let time = self.rng.between(MS / 10, 20 * MS);
        self.disk(
            node,
            time,
            DiskEvent::Synced {
                extent,
                applied,
                restarts,
            },
        );
    }

    fn synced(&mut self, node: Node, extent: usize, applied: LogPos, restarts: u64) {
        let host = &mut self.hosts[node];
        let Some(process) = host.process.as_ref() else {
            return;
        };
        let replica = &mut host.disk.replicas[extent];
        if host.disk.failed[extent] || replica.restarts != restarts {
            return;
        }
        replica.synced();
        replica.changes.note_begins(process.cores[extent].end().lsn);
        let time = self.rng.between(MS / 50, 3 * MS);
        let noted = DiskEvent::Noted {
            extent,
            applied,
            restarts,
        };
        self.disk(node, time, noted);
    }

    fn noted(&mut self, node: Node, extent: usize, applied: LogPos, restarts: u64) {
        let host = &mut self.hosts[node];
        let Some(process) = host.process.as_ref() else {
            return;
        };
        host.disk.replicas[extent].changes.noted();
        if host.disk.failed[extent] || host.disk.replicas[extent].restarts != restarts {
            return;
        }
        let core = &process.cores[extent];
        let checkpoint = Checkpoint {
            applied,
            history: core.history().up_to(applied.lsn),
            commit: core.committed(),
            seen: core.seen(),
            base: core.base(),
        };
        self.journal(node, extent, 0, Item::Checkpoint(checkpoint));
    }

    /// J2.
    fn fails(&mut self, node: Node, extent: usize, reason: FenceReason) -> Res {
        let disk = &mut self.hosts[node].disk;
        let Some(replica) = disk.replicas.get_mut(extent) else {
            return Ok(());
        };
        if disk.failed[extent] {
            return Ok(());
        }
        if reason == FenceReason::Extent {
            replica.sync_failed();
            if self.plan.broken == Some(Broken::FlushRetried) {
                return Ok(());
            }
        }
        disk.failed[extent] = true;
        self.count("disk failed");
        self.feed(node, extent, Event::Failed { reason })
    }

    fn start_io(&mut self, node: Node, extent: usize, io: u64, what: Io) -> Res {
        let replica = &mut self.hosts[node].disk.replicas[extent];
        for other in replica.io.values() {
            let writes = matches!(what, Io::Apply(_)) || matches!(other, Io::Apply(_));
            let meets = |range: &holdfast_types::BlockRange| {
                other.ranges().iter().any(|there| there.overlaps(*range))
            };
            if writes && what.ranges().iter().any(meets) {
                return Err(format!(
                    "reading or writing overlaps on n{node} x{extent}: {:?} beside {:?}",
                    what.ranges(),
                    other.ranges()
                ));
            }
        }
        let most = if matches!(what, Io::Hash(..)) {
            self.plan.hash_time
        } else {
            2 * MS
        };
        if let Io::Apply(record) = &what
            && self.rng.chance(50)
        {
            // Long before the bytes are there, or with them.
            replica.changes.touch(record.body.ranges());
        }
        replica.io.insert(io, what);
        let time = self.rng.between(MS / 50, most);
        self.disk(node, time, DiskEvent::Done { extent, io });
        Ok(())
    }

    fn io_done(&mut self, node: Node, extent: usize, io: u64) -> Res {
        let spoils = !self.calm && self.hosts[node].disk.bad_reads > self.now && self.rng.chance(50);
        let disk = &mut self.hosts[node].disk;
        let replica = &mut disk.replicas[extent];
        if disk.room.full && matches!(replica.io.get(&io), Some(Io::Apply(_))) {
            // Nothing is lost: the journal has it.
            self.disk(node, 20 * MS, DiskEvent::Done { extent, io });
            return Ok(());
        }
        let Some(what) = replica.io.remove(&io) else {
            return Ok(());
        };
        if disk.failed[extent] {
            return Ok(());
        }
        let blind = self.plan.broken == Some(Broken::SumsIgnored);
        let span = |range: holdfast_types::BlockRange| at(range.lba().0)..at(range.end().0);
        let token = IoToken(io);
        let event = match what {
            Io::Apply(record) => {
                replica.apply(&record);
                Event::Applied { io: token }
            }
            Io::Read(bad) if spoils => Event::ReadFailed { io: token, bad },
            Io::Read(range) if !blind && replica.bad_block(range).is_some() => Event::ReadFailed {
                io: token,
                bad: replica.bad_block(range).unwrap_or(range),
            },
            Io::Read(range) => {
                let data = bytes(replica.blocks[span(range)].iter().copied());
                Event::ReadDone { io: token, data }
            }
            Io::Allocated(range) => Event::Allocated {
                io: token,
                whole: replica.blocks[span(range)].iter().all(|value| *value != 0),
            },
            Io::Changed(since) => Event::Changed {
                io: token,
                ranges: replica.changes.changed_since(since),
            },
            Io::Map(from, runs) => Event::Mapped {
                io: token,
                runs: (from.0..BLOCKS)
                    .take(usize::from(runs))
                    .filter_map(|block| {
                        let range = BlockRange::new(Lba(block), 1).ok()?;
                        let mapped = replica.blocks[at(block)] != 0;
                        Some(MappedRun { range, mapped })
                    })
                    .collect(),
            },
            Io::Hash(range, renew) => {
                if renew {
                    replica.changes.touch(&[range]);
                }
                let piece = at(self.plan.config.resync_piece_bytes / 512);
                Event::Hashed {
                    io: token,
                    digests: digests(&replica.blocks[span(range)], piece, blind),
                }
            }
        };
        self.feed(node, extent, event)
    }

    pub(super) fn carry_out(&mut self, node: Node, extent: usize, command: Command) -> Res {
        if self.trace.is_some() {
            let text = trace::command(&command);
            self.say(|| format!("n{node} x{extent} -> {text}"));
        }
        match command {
            Command::Append { seq, record } => {
                self.position_given(node, extent, &record)?;
                self.journal(node, extent, seq.0, Item::Record(record));
            }
            Command::Truncate { seq, after } => {
                self.journal(node, extent, seq.0, Item::Truncate(after));
            }
            Command::Restart {
                seq,
                base,
                from,
                history,
            } => {
                let host = &mut self.hosts[node];
                let end = host.process.as_ref().map(|process| process.cores[extent].end());
                let replica = &mut host.disk.replicas[extent];
                replica.restarts += 1;
                if !fault::on(Fault::RestartUnflushed) {
                    replica.settle(end.unwrap_or_default().lsn);
                }
                self.journal(node, extent, seq.0, Item::Restart(base, from, history));
            }
            Command::ClearBase { seq } => self.journal(node, extent, seq.0, Item::ClearBase),
            Command::Apply { io, record } => return self.start_io(node, extent, io.0, Io::Apply(record)),
            Command::Read { io, range } => return self.start_io(node, extent, io.0, Io::Read(range)),
            Command::Hash { io, range, renew } => {
                return self.start_io(node, extent, io.0, Io::Hash(range, renew));
            }
            Command::Changed { io, since } => {
                return self.start_io(node, extent, io.0, Io::Changed(since));
            }
            Command::Confirm { round } => return self.confirm(node, extent, round),
            Command::Allocated { io, range } => {
                return self.start_io(node, extent, io.0, Io::Allocated(range));
            }
            Command::Map { io, from, runs } => {
                return self.start_io(node, extent, io.0, Io::Map(from, runs));
            }
            Command::Send { to, link, message } => self.send(node, place(to), link, extent, message),
            Command::ResetLink { node: to, link } => self.reset_link(node, place(to), link),
            Command::Propose(wish) => {
                let Some(process) = self.hosts[node].process.as_ref() else {
                    return Ok(());
                };
                let batch = [(glue::extent_id(extent), wish)];
                for command in holdfast_planes::commands(&process.state, batch) {
                    self.propose(node, command)?;
                }
            }
            Command::Complete { op, outcome } => return self.completed(node, op.0, outcome),
            Command::Note(note) => return self.note(node, extent, &note),
        }
        Ok(())
    }

    /// I2: a position is never given to two different records. What a resync sends in a record is for one replica alone.
    fn position_given(
        &mut self,
        node: Node,
        extent: usize,
        record: &holdfast_replication::core::api::Record,
    ) -> Res {
        let fold = |sum: u64, value: u64| (sum ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
        let mut sum = 7;
        match &record.body {
            RecordBody::EpochStart => sum = fold(sum, 1),
            RecordBody::Write { range, data } => {
                sum = values(data).fold(fold(fold(sum, 2), range.lba().0), fold);
            }
            RecordBody::WriteSame { range, block } => {
                sum = values(block).fold(fold(fold(fold(sum, 3), range.lba().0), range.blocks()), fold);
            }
            RecordBody::Zero { ranges } => {
                for range in ranges.iter() {
                    sum = fold(fold(fold(sum, 4), range.lba().0), range.blocks());
                }
            }
            RecordBody::Resync { ranges, .. } => {
                sum = ranges
                    .iter()
                    .fold(fold(sum, 5), |sum, range| fold(sum, range.lba().0));
            }
        }
        let first = *self.given.entry((extent, record.pos)).or_insert(sum);
        if first == sum {
            Ok(())
        } else {
            Err(format!(
                "I2: on x{extent} position {} is given twice; n{node} has another record there",
                record.pos
            ))
        }
    }

    fn note(&mut self, node: Node, extent: usize, note: &Note) -> Res {
        self.script_note(node, extent, note);
        if matches!(note, Note::Fenced { reason: Some(_) }) {
            self.hosts[node].disk.failed[extent] = true;
        }
        let delicate = matches!(
            note,
            Note::ResyncStarted { .. }
                | Note::Growing { .. }
                | Note::Shrinking { .. }
                | Note::Truncated { .. }
                | Note::Role {
                    role: RoleName::Settling | RoleName::HandedBack,
                    ..
                }
        );
        if delicate && self.plan.guided && self.plan.random_trouble && !self.calm && self.rng.chance(30) {
            let soon = self.rng.below(40 * MS);
            self.after(soon, Ev::Trouble { again: false });
        }
        self.count(match note {
            Note::Verdict { verdict, .. } => match verdict {
                Verdict::InSyncAlready { .. } => "in sync already",
                Verdict::LogTail { restart: false, .. } => "log tail",
                Verdict::LogTail { restart: true, .. } => "log tail from base",
                Verdict::FullCompare => "full compare",
                Verdict::ChangedSince { .. } => "changed since",
                Verdict::MustLeave => "must leave",
                Verdict::Unfit => "unfit",
                Verdict::Stuck => "stuck replica",
            },
            Note::Settled { records, .. } if *records > 0 => "settled a tail",
            Note::Truncated { .. } => "truncated",
            Note::Restarted { .. } => "log started anew",
            Note::Shrunk { .. } => "shrunk",
            Note::Grown { .. } => "grown",
            Note::RefusedBy { .. } => "refused an old epoch",
            Note::Fenced { .. } => "fenced",
            Note::Stuck { .. } => "stuck",
            Note::Moves => "moves again",
            Note::Scrubbed { .. } => "scrubbed",
            Note::Role {
                role: RoleName::HandedBack,
                ..
            } => "handed back",
            Note::SwitchoverGivenUp { .. } => "switchover given up",
            Note::BadMessage { from, what } => {
                return Err(format!("n{node} x{extent} got a bad message from {from}: {what}"));
            }
            _ => return Ok(()),
        });
        Ok(())
    }
}

/// Of each piece; none of one with a bad block, unless nobody looks at checksums.
fn digests(blocks: &[u64], piece: usize, blind: bool) -> Digests {
    let digest = |piece: &[u64]| {
        if !blind && piece.contains(&ROTTEN) {
            return None;
        }
        let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
        for value in piece {
            sum = (sum ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&sum.to_be_bytes());
        Some(digest)
    };
    blocks.chunks(piece).map(digest).collect()
}
