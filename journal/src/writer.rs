//! The one that writes: groups, segment headers, notes of releases. Everything here runs on one thread.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use crate::Position;
use crate::device::{FileName, LogDevice};
use crate::error::Failure;
use crate::format::{
    BLOCK, BLOCK_LEN, Chain, GROUP_HEADER_LEN, GroupHeader, RECORD_HEADER_LEN, RecordHeader, SegmentHeader,
    align, seed,
};
use crate::queue::{Completion, Group, Shared, Sink};
use crate::spares::Spares;

/// What padding is written from.
static ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

/// How long the writer sleeps before it looks again for a spare segment on a full disk.
const RETRY_SPARE: Duration = Duration::from_millis(100);

/// What recovery leaves to the writer: where and how the log goes on.
#[derive(Debug)]
pub(crate) struct LogEnd {
    pub(crate) log: u128,
    pub(crate) segment_size: u64,
    /// The segment that is written to; `None` if the next write begins a fresh one.
    pub(crate) active: Option<u64>,
    /// Where the log ends: the next group's address in the active segment.
    pub(crate) tail: u64,
    pub(crate) chain: Chain,
    /// This incarnation has written into the active segment, so nothing torn can be behind `tail`.
    pub(crate) marked: bool,
    pub(crate) accepted: u64,
    /// The first address that the next header notes.
    pub(crate) first: u64,
    /// Segment files that exist.
    pub(crate) segments: BTreeSet<u64>,
}

/// What one step of the writer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something was done.
    Progress,
    /// Nothing to do.
    Idle,
    /// A fresh segment is needed and there is none: being prepared, or the disk is full.
    Stalled,
    /// The log was closed or has failed; nothing will be done any more.
    Finished,
}

enum Work {
    Group,
    Note,
    Close,
    Nothing,
}

/// The writing end of a journal. [`Journal::open`](crate::Journal::open) gives it a thread of its own; a simulator takes it from
/// [`Journal::open_manual`](crate::Journal::open_manual) and calls [`step`](Writer::step).
pub struct Writer<T> {
    shared: Arc<Shared<T>>,
    device: Arc<dyn LogDevice>,
    sink: Box<dyn Sink<T>>,
    end: LogEnd,
    seed: u32,
    spares: Spares,
    /// The group that is being written.
    current: Option<(Arc<Group>, Vec<T>)>,
    /// Headers of the group that is being written.
    scratch: Vec<u8>,
    finished: bool,
}

impl<T: 'static> Writer<T> {
    pub(crate) fn new(
        shared: Arc<Shared<T>>,
        device: Arc<dyn LogDevice>,
        sink: Box<dyn Sink<T>>,
        end: LogEnd,
        spares: Spares,
    ) -> Self {
        let seed = seed(end.log);
        Writer {
            shared,
            device,
            sink,
            end,
            seed,
            spares,
            current: None,
            scratch: Vec::new(),
            finished: false,
        }
    }

    /// The spares, for who starts their thread.
    pub(crate) fn spares(&mut self) -> &mut Spares {
        &mut self.spares
    }

    /// Works until the log is closed or fails.
    pub(crate) fn run(mut self) {
        loop {
            match self.step() {
                Step::Progress => {}
                Step::Idle => self.shared.park(None),
                Step::Stalled => self.shared.park(Some(RETRY_SPARE)),
                Step::Finished => return,
            }
        }
    }

    /// Does one thing: writes one group, or notes a release, or begins a segment. Completions are reported from here.
    pub fn step(&mut self) -> Step {
        if self.finished {
            return Step::Finished;
        }
        match self.try_step() {
            Ok(step) => step,
            Err(error) => {
                tracing::error!(journal = self.shared.config.name, %error, "journal failed, for good");
                self.fail(&error);
                Step::Finished
            }
        }
    }

    fn try_step(&mut self) -> io::Result<Step> {
        match self.pick() {
            Work::Group => self.write_current(),
            Work::Note => self.note(),
            Work::Close => {
                self.closing_note()?;
                self.finished = true;
                Ok(Step::Finished)
            }
            Work::Nothing => Ok(Step::Idle),
        }
    }

    /// Chooses what to do and, for a group, takes it out of the queue.
    fn pick(&mut self) -> Work {
        if self.current.is_some() {
            return Work::Group;
        }
        let mut queue = self.shared.lock();
        if let Some((group, tags)) = queue.groups.pop_front() {
            let group = Arc::new(group);
            queue.writing = Some(group.clone());
            self.current = Some((group, tags));
            return Work::Group;
        }
        if queue.release > self.end.first {
            return Work::Note;
        }
        if queue.closing { Work::Close } else { Work::Nothing }
    }

    /// Writes the current group, after what must come before it.
    fn write_current(&mut self) -> io::Result<Step> {
        // Kept until it is durable: a failure reports its tags.
        let Some(group) = self.current.as_ref().map(|(group, _)| group.clone()) else {
            return Ok(Step::Idle);
        };
        let sequence = group.address / self.end.segment_size;
        if self.end.active != Some(sequence) && !self.begin_segment(sequence)? {
            return self.stalled();
        }
        if !self.end.marked {
            // The queue leaves one block free for this at opening.
            self.write_empty()?;
        }
        self.write_group(&group)?;
        let bytes: usize = group.entries.iter().map(|e| e.disk_len()).sum();
        let through = self.end.tail;
        let mut queue = self.shared.lock();
        queue.writing = None;
        queue.queued_bytes -= bytes;
        queue.durable = through;
        drop(queue);
        let tags = self.current.take().map_or_else(Vec::new, |(_, tags)| tags);
        self.sink.complete(Completion::Durable {
            tags,
            through: Position::new(through),
        });
        self.recycle()?;
        Ok(Step::Progress)
    }

    /// No segment for the next group. A release is the way out, and the end of the old segment has room to note it.
    fn stalled(&mut self) -> io::Result<Step> {
        let (wanted, closing) = {
            let queue = self.shared.lock();
            (queue.release, queue.closing)
        };
        if wanted > self.end.first && self.room() >= BLOCK {
            self.write_empty()?;
            self.recycle()?;
            return Ok(Step::Progress);
        }
        if closing {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "closed while the disk was full",
            ));
        }
        Ok(Step::Stalled)
    }

    /// Bytes left in the active segment.
    fn room(&self) -> u64 {
        self.end.active.map_or(0, |sequence| {
            (sequence + 1) * self.end.segment_size - self.end.tail
        })
    }

    /// Notes a release although no group comes along to carry it.
    fn note(&mut self) -> io::Result<Step> {
        let tail = self.end.tail;
        if self.room() >= BLOCK {
            if !self.take_tail() {
                // A group came meanwhile, and carries the note.
                return Ok(Step::Progress);
            }
            self.write_empty()?;
        } else {
            // The note is in the header of the next segment.
            let sequence = self
                .end
                .active
                .map_or(tail / self.end.segment_size, |active| active + 1);
            if !self.begin_segment(sequence)? {
                return self.stalled();
            }
            let mut queue = self.shared.lock();
            queue.next = queue.next.max(self.end.tail);
        }
        self.recycle()?;
        Ok(Step::Progress)
    }

    /// Takes the block at the tail from the queue, for an empty group; not if a group already has it.
    fn take_tail(&mut self) -> bool {
        let mut queue = self.shared.lock();
        if queue.next == self.end.tail {
            queue.next += BLOCK;
            return true;
        }
        // Not yet marked: the block was left free. Or the queue is already in a later segment.
        let next_segment = queue.next / self.end.segment_size != self.end.tail / self.end.segment_size;
        !self.end.marked || next_segment
    }

    /// At an orderly end: proves to recovery that the last group was durable.
    fn closing_note(&mut self) -> io::Result<()> {
        // Not into the reserved block, which a full log needs for releases.
        if self.end.marked && self.room() >= 2 * BLOCK && self.take_tail() {
            self.write_empty()?;
        }
        Ok(())
    }

    /// The lowest address that is wanted, for the next header.
    fn wanted_first(&self) -> u64 {
        self.shared.lock().release
    }

    /// Makes a spare the segment `sequence`; `false` if there is none.
    fn begin_segment(&mut self, sequence: u64) -> io::Result<bool> {
        let Some(spare) = self.spares.take(&*self.device)? else {
            return Ok(false);
        };
        let first = self.wanted_first();
        let header = SegmentHeader {
            log: self.end.log,
            sequence,
            segment_size: self.end.segment_size,
            durable: self.end.tail,
            first,
            accepted: self.end.accepted,
            chain: self.end.chain,
        };
        // First the header, then the name, then the name for good, then records: so a segment always has a header, and no
        // record is acknowledged in a file that a power cut may rename back.
        let spare = FileName::Spare(spare);
        self.device
            .write_durable(spare, 0, &mut [IoSlice::new(&header.encode())])?;
        self.device.rename(spare, FileName::Segment(sequence))?;
        self.device.sync_dir()?;
        self.end.segments.insert(sequence);
        self.end.active = Some(sequence);
        self.end.tail = sequence * self.end.segment_size + BLOCK;
        self.end.marked = true;
        self.end.first = first;
        Ok(true)
    }

    /// Writes a group without records: a note.
    fn write_empty(&mut self) -> io::Result<()> {
        let group = Group {
            address: self.end.tail,
            len: GROUP_HEADER_LEN as u64,
            entries: Vec::new(),
        };
        self.write_group(&group)?;
        let mut queue = self.shared.lock();
        queue.durable = self.end.tail;
        Ok(())
    }

    /// Writes a group at the tail, durably.
    fn write_group(&mut self, group: &Group) -> io::Result<()> {
        let Some(sequence) = self.end.active else {
            return Err(io::Error::other("no segment was begun"));
        };
        if group.address != self.end.tail {
            return Err(io::Error::other("a group does not start where the log ends"));
        }
        let first = self.wanted_first();
        let chain = self.encode(group, first);
        let (heads, records) = self.scratch.split_at(GROUP_HEADER_LEN);
        let mut parts = Vec::with_capacity(2 + 3 * group.entries.len());
        parts.push(IoSlice::new(heads));
        for (head, entry) in records.chunks_exact(RECORD_HEADER_LEN).zip(&group.entries) {
            parts.push(IoSlice::new(head));
            for part in [&entry.header, &entry.payload] {
                if !part.is_empty() {
                    parts.push(IoSlice::new(part));
                }
            }
        }
        let padding = usize::try_from(align(group.len) - group.len).unwrap_or(0);
        parts.push(IoSlice::new(&ZEROS[..padding]));
        let offset = group.address % self.end.segment_size;
        self.device
            .write_durable(FileName::Segment(sequence), offset, &mut parts)?;
        self.end.tail = group.address + align(group.len);
        self.end.chain = chain;
        self.end.marked = true;
        self.end.first = first;
        Ok(())
    }

    /// Puts the headers of `group` into the scratch buffer; returns the chain behind it.
    fn encode(&mut self, group: &Group, first: u64) -> Chain {
        let number = self.end.chain.number.wrapping_add(1);
        let header = GroupHeader {
            address: group.address,
            durable: self.end.tail,
            first,
            chain: Chain {
                number,
                ..self.end.chain
            },
            len: narrow(group.len),
            records: narrow(group.entries.len() as u64),
        };
        self.scratch.clear();
        let mut crc = header.encode(self.seed, &mut self.scratch);
        for entry in &group.entries {
            let head = RecordHeader {
                address: entry.address,
                before: crc,
                header_len: narrow(entry.header.len() as u64),
                payload_len: narrow(entry.payload.len() as u64),
                kind: entry.kind,
                group: narrow(number & u64::from(u32::MAX)),
            };
            crc = head.encode(self.seed, &entry.header, &entry.payload, &mut self.scratch);
        }
        Chain {
            number,
            crc,
            incarnation: self.end.chain.incarnation,
        }
    }

    /// Recycles the segments below the durably noted first address.
    fn recycle(&mut self) -> io::Result<()> {
        let keep = self.end.first / self.end.segment_size;
        self.shared.lock().first = self.end.first;
        while let Some(&lowest) = self.end.segments.first()
            && lowest < keep
        {
            self.spares.recycle(&*self.device, lowest)?;
            self.end.segments.remove(&lowest);
        }
        Ok(())
    }

    /// Ends the log (J2): everybody who waits is told, once.
    fn fail(&mut self, error: &io::Error) {
        self.finished = true;
        let error = Failure(error.to_string().into());
        let mut tags = self.current.take().map_or_else(Vec::new, |(_, tags)| tags);
        let mut queue = self.shared.lock();
        queue.failed = Some(error.clone());
        queue.writing = None;
        queue.queued_bytes = 0;
        tags.extend(queue.groups.drain(..).flat_map(|(_, tags)| tags));
        drop(queue);
        self.sink.complete(Completion::Failed { error, tags });
    }
}

/// Lengths are bounded by the segment size, which fits.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl<T> Drop for Writer<T> {
    /// A writer that goes away early (its sink panicked) leaves a log that takes nothing.
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        if !self.finished {
            queue
                .failed
                .get_or_insert(Failure("the journal's writer stopped".into()));
        }
        queue.closing = true;
        drop(queue);
        self.device.unclaim();
    }
}
