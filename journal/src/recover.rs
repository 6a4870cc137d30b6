//! Opening a log: which segments are there, what they hold, and whether anything acknowledged is missing.
//!
//! Nothing is written before the verdict, and then only files below the noted first address are recycled and half-made ones removed; so a
//! crash at any point leads to the same verdict again. A torn tail is cut for good by the first write that follows: an empty group in
//! its place, or the header of the next segment, which notes where the log ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::config::{Config, OpenOptions};
use crate::device::{FileName, LogDevice};
use crate::error::{Damage, OpenError, Recovery, Verdict};
use crate::format::{BLOCK, Chain, HeaderError, SEGMENT_HEADER_LEN, SegmentHeader, VERSION, seed};
use crate::spares::Spares;
use crate::walk::Segment;
use crate::writer::LogEnd;
use crate::{Position, Record};

/// Segment numbers stay below this, so that addresses fit 63 bits with the largest segments.
const MAX_SEQUENCE: u64 = 1 << 33;

/// A record found at opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The record; it passed its checks.
    pub record: Record,
    /// Damage that was not accepted before lies between this record and those before: some may be missing.
    pub after_damage: bool,
}

/// A log that may be written to.
pub(crate) struct Found {
    pub(crate) end: LogEnd,
    /// Where the queue goes on.
    pub(crate) next: u64,
    pub(crate) spares: Spares,
    pub(crate) recovery: Recovery,
}

/// The files of a log, and what their headers say.
struct Files {
    segments: BTreeMap<u64, Result<SegmentHeader, Damage>>,
    /// Number and length.
    spares: Vec<(u64, u64)>,
    filling: Vec<u64>,
}

/// What all headers together say.
struct Shape {
    log: u128,
    size: u64,
    first: u64,
    accepted: u64,
    incarnation: u32,
}

/// The result of reading all records.
struct Scan {
    end: u64,
    chain: Option<Chain>,
    torn: Option<u64>,
    damage: Option<(u64, Damage)>,
    records: u64,
}

impl Scan {
    fn note(&mut self, accepted: u64, at: u64, damage: Damage) {
        if at >= accepted {
            self.damage.get_or_insert((at, damage));
        }
    }
}

/// Reads and judges the log, gives its records to `each`, and makes it ready for writing.
pub(crate) fn recover(
    device: &dyn LogDevice,
    config: &Config,
    options: OpenOptions,
    each: &mut dyn FnMut(Recovered),
) -> Result<Found, OpenError> {
    let io = |error| OpenError::Io {
        name: config.name.clone(),
        error,
    };
    let files = list(device, config)?;
    let shape = shape(device, config, &files).map_err(io)?;
    let mut scan = scan(device, &files, &shape, each);
    for (position, reason) in owner_knows(&scan, &shape, options) {
        scan.note(0, position, reason);
    }
    let last = files.segments.keys().next_back().copied().unwrap_or(0);
    let recovery = Recovery {
        verdict: verdict(&scan),
        first: Position::new(shape.first),
        end: Position::new(scan.end),
        records: scan.records,
        accepted: (shape.accepted > shape.first).then(|| Position::new(shape.accepted)),
    };
    report(config, &recovery);
    let damaged = scan.damage.is_some();
    if damaged && !options.accept_damage {
        return Err(OpenError::Damaged {
            name: config.name.clone(),
            recovery,
        });
    }
    // Positions that the owner has seen are never given again.
    let known = options
        .known_durable
        .filter(|_| damaged)
        .map_or(0, |known| known.get() / shape.size);
    let (end, next) = log_end(&files, &shape, &scan, last.max(known));
    let recovery = Recovery {
        end: Position::new(end.tail),
        ..recovery
    };
    prepare(device, config, files, end, next, recovery).map_err(io)
}

/// Lists the files and reads every header. Versions are judged before anything else.
fn list(device: &dyn LogDevice, config: &Config) -> Result<Files, OpenError> {
    let io = |error| OpenError::Io {
        name: config.name.clone(),
        error,
    };
    let mut files = Files {
        segments: BTreeMap::new(),
        spares: Vec::new(),
        filling: Vec::new(),
    };
    let mut lengths = BTreeMap::new();
    for (name, len) in device.list().map_err(io)? {
        match name {
            FileName::Segment(sequence) if (1..MAX_SEQUENCE).contains(&sequence) => {
                lengths.insert(sequence, len);
            }
            FileName::Segment(sequence) => {
                let what = format!("a file claims to be segment {sequence}, which is out of range");
                return Err(io(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
            FileName::Spare(number) => files.spares.push((number, len)),
            FileName::Filling(number) => files.filling.push(number),
        }
    }
    for (&segment, &len) in &lengths {
        // What a process that died left in the page cache goes to disk before it counts as recovered.
        device.settle(FileName::Segment(segment)).map_err(io)?;
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        let read = device.read_at(FileName::Segment(segment), 0, &mut bytes);
        let header = match read {
            Err(error) => Err(Damage::Unreadable(segment, error.to_string())),
            Ok(_) => match SegmentHeader::decode(&bytes) {
                Err(HeaderError::Newer(found)) => {
                    let name = config.name.clone();
                    return Err(OpenError::NewerVersion {
                        name,
                        segment,
                        found,
                        known: VERSION,
                    });
                }
                Err(HeaderError::Bad) => Err(Damage::BadHeader(segment)),
                Ok(header) => check_header(&header, segment, len).map(|()| header),
            },
        };
        files.segments.insert(segment, header);
    }
    // All headers of one log name the same log and size: those of the newest.
    if let Some(newest) = files
        .segments
        .values()
        .rev()
        .find_map(|h| h.as_ref().ok())
        .copied()
    {
        for (&segment, header) in &mut files.segments {
            if header
                .as_ref()
                .is_ok_and(|h| h.log != newest.log || h.segment_size != newest.segment_size)
            {
                *header = Err(Damage::WrongSegment(segment));
            }
        }
    }
    Ok(files)
}

fn check_header(header: &SegmentHeader, sequence: u64, len: u64) -> Result<(), Damage> {
    let size = header.segment_size;
    if !Config::is_segment_size(size) {
        return Err(Damage::BadHeader(sequence));
    }
    if header.sequence != sequence {
        return Err(Damage::WrongSegment(sequence));
    }
    let base = sequence * size;
    if header.durable > base
        || header.first > base
        || header.accepted > base
        || !header.first.is_multiple_of(size)
    {
        return Err(Damage::BadHeader(sequence));
    }
    if len < size {
        return Err(Damage::ShortSegment(sequence));
    }
    Ok(())
}

/// Puts the headers together. The first address may be noted in the newest segment's groups, so these are read once ahead.
fn shape(device: &dyn LogDevice, config: &Config, files: &Files) -> io::Result<Shape> {
    let good = files
        .segments
        .iter()
        .rev()
        .find_map(|(&sequence, h)| h.as_ref().ok().map(|h| (sequence, h)));
    let Some((sequence, header)) = good else {
        let size = config.segment_size;
        let first = files.segments.keys().next().map_or(size, |lowest| lowest * size);
        return Ok(Shape {
            log: device.fresh_id()?,
            size,
            first,
            accepted: 0,
            incarnation: 0,
        });
    };
    let size = header.segment_size;
    if size != config.segment_size {
        tracing::info!(
            journal = config.name,
            size,
            "the journal keeps the segment size it was made with"
        );
    }
    let segment = Segment {
        device,
        sequence,
        size,
        seed: seed(header.log),
    };
    let mut chain = Some(header.chain);
    let walked = segment.walk(None, &mut chain, &mut |_, _| {});
    let incarnation = chain.map_or(header.chain.incarnation, |c| c.incarnation);
    let first = walked.first.unwrap_or(header.first).max(header.first);
    Ok(Shape {
        log: header.log,
        size,
        first,
        accepted: header.accepted,
        incarnation,
    })
}

/// Reads every segment that is kept.
fn scan(device: &dyn LogDevice, files: &Files, shape: &Shape, each: &mut dyn FnMut(Recovered)) -> Scan {
    let first = shape.first / shape.size;
    let mut scan = Scan {
        end: shape.first,
        chain: None,
        torn: None,
        damage: None,
        records: 0,
    };
    let mut expected = first;
    for (&sequence, header) in files.segments.range(first..) {
        let base = sequence * shape.size;
        if sequence != expected {
            // A gap is accepted as a whole or not at all.
            if base > shape.accepted {
                scan.note(0, expected * shape.size, Damage::MissingSegment(expected));
            }
            scan.chain = None;
        }
        expected = sequence + 1;
        match header {
            Ok(header) => {
                let fresh = header.accepted == base;
                if !fresh && scan.chain.is_some_and(|c| !c.continues(&header.chain)) {
                    scan.note(shape.accepted, base, Damage::BrokenChain);
                }
                scan.chain = Some(header.chain);
            }
            Err(damage) => {
                scan.note(shape.accepted, base, damage.clone());
                scan.chain = None;
            }
        }
        let next = files.segments.get(&expected).and_then(|h| h.as_ref().ok());
        let upto = next.map(|h| h.durable.min(base + shape.size));
        let segment = Segment {
            device,
            sequence,
            size: shape.size,
            seed: seed(shape.log),
        };
        let before = scan.damage.is_some();
        let accepted = base < shape.accepted;
        let mut records = 0;
        let walked = segment.walk(upto, &mut scan.chain, &mut |record, behind| {
            records += 1;
            each(Recovered {
                record,
                after_damage: before || (behind && !accepted),
            });
        });
        scan.records += records;
        scan.end = walked.end;
        scan.torn = walked.torn;
        if let Some((at, damage)) = walked.damage {
            scan.note(shape.accepted, at, damage);
        }
    }
    scan
}

/// What is missing by the owner's knowledge.
fn owner_knows(scan: &Scan, shape: &Shape, options: OpenOptions) -> Vec<(u64, Damage)> {
    let mut found = Vec::new();
    if let Some(known) = options.known_durable
        && known.get() > scan.end
        && known.get() > shape.accepted
    {
        found.push((scan.end, Damage::BelowKnownDurable(known)));
    }
    if let Some(needed) = options.needed_from
        && needed.get() < shape.first
    {
        found.push((needed.get(), Damage::AboveNeeded(needed)));
    }
    found
}

fn verdict(scan: &Scan) -> Verdict {
    match (&scan.damage, scan.torn) {
        (Some((at, reason)), _) => Verdict::Damaged {
            position: Position::new(*at),
            reason: reason.clone(),
        },
        (None, Some(bytes)) => Verdict::TornTail {
            position: Position::new(scan.end),
            bytes,
        },
        (None, None) => Verdict::Clean,
    }
}

fn report(config: &Config, recovery: &Recovery) {
    let (journal, records, end) = (&config.name, recovery.records, recovery.end);
    match &recovery.verdict {
        Verdict::Clean => tracing::info!(journal, records, %end, "journal read"),
        Verdict::TornTail { bytes, .. } => {
            tracing::info!(journal, records, %end, bytes, "journal read, torn tail cut")
        }
        Verdict::Damaged { position, reason } => {
            tracing::error!(journal, %position, %reason, "journal is damaged")
        }
    }
}

/// Where the log goes on: behind its end, or, if it is damaged, in a fresh segment behind everything. `last` is the highest segment
/// that exists or that the owner knows of.
fn log_end(files: &Files, shape: &Shape, scan: &Scan, last: u64) -> (LogEnd, u64) {
    let size = shape.size;
    let segments: BTreeSet<u64> = files.segments.keys().copied().collect();
    let active = segments.last().copied().filter(|_| scan.damage.is_none());
    let chain = scan.chain.unwrap_or_default();
    let incarnation = shape.incarnation.max(chain.incarnation).wrapping_add(1);
    let mut end = LogEnd {
        log: shape.log,
        segment_size: size,
        active,
        tail: scan.end,
        chain: Chain { incarnation, ..chain },
        marked: false,
        accepted: shape.accepted,
        first: shape.first,
        segments,
    };
    let Some(active) = active else {
        end.tail = (last + 1) * size;
        end.accepted = if scan.damage.is_some() { end.tail } else { 0 };
        if end.segments.is_empty() {
            end.first = end.tail;
        }
        let next = end.tail;
        return (end, next);
    };
    // Room for the empty group that cuts what is torn, and at least one block behind it; else on to the next segment.
    let border = (active + 1) * size;
    let next = if end.tail + 3 * BLOCK <= border {
        end.tail + BLOCK
    } else {
        border
    };
    (end, next)
}

/// Tidies up and hands over.
fn prepare(
    device: &dyn LogDevice,
    config: &Config,
    files: Files,
    mut end: LogEnd,
    next: u64,
    recovery: Recovery,
) -> io::Result<Found> {
    for &number in &files.filling {
        device.remove(FileName::Filling(number))?;
    }
    let highest = files
        .spares
        .iter()
        .map(|&(n, _)| n)
        .chain(files.filling.iter().copied())
        .max();
    let mut ready = Vec::new();
    for &(number, len) in &files.spares {
        if len == end.segment_size && ready.len() < config.max_spares as usize {
            ready.push(number);
        } else {
            device.remove(FileName::Spare(number))?;
        }
    }
    let number = highest.map_or(1, |n| n.wrapping_add(1));
    let mut spares = Spares::new(ready, number, end.segment_size, config.max_spares);
    // Released before the crash, and durably noted.
    let keep = end.first / end.segment_size;
    let released: Vec<u64> = end.segments.range(..keep).copied().collect();
    for sequence in released {
        spares.recycle(device, sequence)?;
        end.segments.remove(&sequence);
    }
    // Names that a process which died did not make durable.
    device.sync_dir()?;
    let recovery = Recovery {
        first: Position::new(end.first),
        ..recovery
    };
    Ok(Found {
        end,
        next,
        spares,
        recovery,
    })
}
