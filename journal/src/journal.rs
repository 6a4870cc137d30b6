//! The handle that everybody holds.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};

use crate::config::{Config, OpenOptions};
use crate::device::{FileName, LogDevice};
use crate::error::{AppendError, OpenError, ReadError, Recovery};
use crate::format::{BLOCK, BLOCK_LEN, RECORD_HEADER_LEN, RecordHeader, decode_record, seed};
use crate::queue::{Incoming, Queue, Shared, Sink};
use crate::recover::{Recovered, recover};
use crate::writer::Writer;
use crate::{Position, Record};

/// How full a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the segments in use, to their end.
    pub used_bytes: u64,
    /// Bytes of the most segments allowed.
    pub capacity_bytes: u64,
    /// Bytes that wait for the writer, or are being written.
    pub queued_bytes: usize,
}

/// A log that is open for appending. Cheap to clone; the last clone that goes away closes the log and waits for its thread.
///
/// ```no_run
/// # use holdfast_journal::*;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = FileDevice::open("/var/lib/holdfast/raft".as_ref())?;
/// let sink = |completion: Completion<u64>| println!("{completion:?}");
/// let (journal, recovery) =
///     Journal::open(device, Config::raft("raft"), OpenOptions::default(), sink, |found| println!("{found:?}"))?;
/// println!("{:?}", recovery.verdict);
/// journal.append(1, "header".into(), "payload".into(), 17)?;
/// # Ok(()) }
/// ```
pub struct Journal<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Journal<T> {
    fn clone(&self) -> Self {
        Journal {
            inner: self.inner.clone(),
        }
    }
}

impl<T> std::fmt::Debug for Journal<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({})", self.inner.shared.config.name)
    }
}

struct Inner<T> {
    shared: Arc<Shared<T>>,
    device: Arc<dyn LogDevice>,
    seed: u32,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<T: Send + 'static> Journal<T> {
    /// Opens a log: gives every record that is kept to `each`, in order, judges the log, and starts its thread.
    ///
    /// A torn tail is cut; damage refuses the opening unless [`OpenOptions::accept_damage`] is set (J1). Records behind damage are
    /// offered too, marked. Nothing on disk changes by a refused opening. Memory needed is one group's, at most a segment's.
    ///
    /// # Errors
    /// [`OpenError`]; the records offered before it stay valid for reading.
    pub fn open(
        device: impl LogDevice,
        config: Config,
        options: OpenOptions,
        sink: impl Sink<T>,
        each: impl FnMut(Recovered),
    ) -> Result<(Journal<T>, Recovery), OpenError> {
        let name = config.name.clone();
        let io = |error| OpenError::Io {
            name: name.clone(),
            error,
        };
        let (journal, mut writer, recovery) = Journal::open_manual(device, config, options, sink, each)?;
        let shared = journal.inner.shared.clone();
        writer
            .spares()
            .prepare_ahead(&name, journal.inner.device.clone(), move || shared.poke())
            .map_err(io)?;
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || writer.run())
            .map_err(io)?;
        *journal
            .inner
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok((journal, recovery))
    }

    /// As [`open`](Journal::open), but without any thread: the caller drives the [`Writer`] step by step, as a simulator does. Segments
    /// are prepared when they are needed.
    ///
    /// # Errors
    /// As [`open`](Journal::open).
    pub fn open_manual(
        device: impl LogDevice,
        config: Config,
        options: OpenOptions,
        sink: impl Sink<T>,
        mut each: impl FnMut(Recovered),
    ) -> Result<(Journal<T>, Writer<T>, Recovery), OpenError> {
        config.check()?;
        let device: Arc<dyn LogDevice> = Arc::new(device);
        let name = config.name.clone();
        device.claim().map_err(|error| OpenError::Busy { name, error })?;
        let found = match recover(&*device, &config, options, &mut each) {
            Ok(found) => found,
            Err(error) => {
                device.unclaim();
                return Err(error);
            }
        };
        let config = Config {
            segment_size: found.end.segment_size,
            ..config
        };
        let queue = Queue::new(found.next, found.end.tail, found.end.first);
        let shared = Arc::new(Shared::new(queue, config));
        let seed = seed(found.end.log);
        let writer = Writer::new(
            shared.clone(),
            device.clone(),
            Box::new(sink),
            found.end,
            found.spares,
        );
        let inner = Inner {
            shared,
            device,
            seed,
            thread: Mutex::new(None),
        };
        Ok((
            Journal {
                inner: Arc::new(inner),
            },
            writer,
            found.recovery,
        ))
    }
}

impl<T> Journal<T> {
    /// Queues a record and gives it its position. Never waits for the disk; the payload is not copied. The tag comes back
    /// through the sink when the record is durable.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was queued.
    pub fn append(&self, kind: u16, header: Bytes, payload: Bytes, tag: T) -> Result<Position, AppendError> {
        let appended = self.append_quietly(kind, header, payload, false, tag);
        self.wake();
        appended
    }

    /// As [`append`](Journal::append), for records that are copied forward so that their segment can be released (J3): may use the last
    /// segment, which other records must leave free.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was queued.
    pub fn append_reclaim(
        &self,
        kind: u16,
        header: Bytes,
        payload: Bytes,
        tag: T,
    ) -> Result<Position, AppendError> {
        let appended = self.append_quietly(kind, header, payload, true, tag);
        self.wake();
        appended
    }

    /// As [`append`](Journal::append), or as [`append_reclaim`](Journal::append_reclaim) with `reclaim`, but leaves a writer asleep that
    /// sleeps: [`wake`](Journal::wake) must follow. For who appends several records at once, which then are one group.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was queued.
    pub fn append_quietly(
        &self,
        kind: u16,
        header: Bytes,
        payload: Bytes,
        reclaim: bool,
        tag: T,
    ) -> Result<Position, AppendError> {
        let incoming = Incoming {
            kind,
            header,
            payload,
            reclaim,
        };
        self.inner.shared.append(incoming, tag)
    }

    /// Has the writer begin with what was appended quietly.
    pub fn wake(&self) {
        self.inner.shared.wake_for_work();
    }

    /// Reads the record at `position`, queued or on disk, and checks it. Blocks on the disk for the latter.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, position: Position) -> Result<Record, ReadError> {
        let (first, durable) = {
            let queue = self.inner.shared.lock();
            if let Some(record) = queue.find(position) {
                return Ok(record);
            }
            (queue.first, queue.durable)
        };
        if position.get() < first {
            return Err(ReadError::Released(position));
        }
        if position.get() >= durable {
            return Err(ReadError::NotARecord(position));
        }
        let result = self.read_disk(position);
        // A segment may have been recycled while it was read.
        if result.is_err() && position < self.first_position() {
            return Err(ReadError::Released(position));
        }
        result
    }

    fn read_disk(&self, position: Position) -> Result<Record, ReadError> {
        let size = self.inner.shared.config.segment_size;
        let (sequence, offset) = (position.get() / size, position.get() % size);
        let room = size - offset;
        if offset < BLOCK || room < RECORD_HEADER_LEN as u64 {
            return Err(ReadError::NotARecord(position));
        }
        let file = FileName::Segment(sequence);
        let io = |error| ReadError::Io { position, error };
        // Most records are at most a block of payload and a small header: one read.
        let guess = usize::try_from(room).unwrap_or(usize::MAX).min(BLOCK_LEN + 512);
        let mut bytes = BytesMut::zeroed(guess);
        let got = self.inner.device.read_at(file, offset, &mut bytes).map_err(io)?;
        bytes.truncate(got);
        let head = RecordHeader::decode(&bytes, position.get()).ok_or(ReadError::NotARecord(position))?;
        if head.len() > room {
            return Err(ReadError::Damaged(position));
        }
        let len = usize::try_from(head.len()).map_err(|_| ReadError::Damaged(position))?;
        if len > got {
            bytes.resize(len, 0);
            let rest = &mut bytes[got..];
            let more = self
                .inner
                .device
                .read_at(file, offset + got as u64, rest)
                .map_err(io)?;
            bytes.truncate(got + more);
        }
        let bytes = bytes.freeze();
        decode_record(&bytes, self.inner.seed, position.get())
            .map(|(record, _, _)| record)
            .ok_or(ReadError::Damaged(position))
    }

    /// Gives back everything below `position`: whole segments are recycled, soon and once that is durably noted.
    pub fn release_before(&self, position: Position) {
        self.inner.shared.release_before(position);
    }

    /// No record below this is kept; the same after a restart.
    pub fn first_position(&self) -> Position {
        Position::new(self.inner.shared.lock().first)
    }

    /// Everything below is durable.
    pub fn durable_through(&self) -> Position {
        Position::new(self.inner.shared.lock().durable)
    }

    /// How full the log is.
    pub fn usage(&self) -> Usage {
        let shared = &self.inner.shared;
        let size = shared.config.segment_size;
        let queue = shared.lock();
        Usage {
            used_bytes: queue.next.saturating_sub(queue.first),
            capacity_bytes: size * u64::from(shared.config.max_segments),
            queued_bytes: queue.queued_bytes,
        }
    }

    /// The largest header and payload together that a record may have, in bytes.
    pub fn max_record(&self) -> usize {
        self.inner.shared.max_record()
    }

    /// Writes all that is queued, reports it, and ends the thread. Later appends are refused with `Closed`.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl<T> Inner<T> {
    fn close(&self) {
        self.shared.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The last clone may go away inside the sink, on the writer's own thread.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!(journal = self.shared.config.name, "the journal's thread panicked");
            }
        }
    }
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        self.close();
    }
}
