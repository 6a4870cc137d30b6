//! What waits to be sent over one link.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_types::ExtentId;

use super::wire::payload_len;
use crate::core::api::{Message, Room};

/// Bytes of payload at which a batch is closed; one larger message goes alone.
const BATCH_BYTES: usize = 1 << 20;
/// Messages at which a batch is closed.
const BATCH_MESSAGES: usize = 4096;
/// What a message takes besides its payload, about.
const OVERHEAD: usize = 64;

/// A queue towards a peer's socket. One thread at a time *sends*: it takes all that waits in batches until nothing is left, and whoever
/// adds meanwhile need not do anything. At first the sender is whoever opens the link.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// As in the state; read without its lock.
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct State {
    messages: VecDeque<(ExtentId, Message)>,
    bytes: usize,
    /// Somebody sends.
    sending: bool,
    closed: bool,
    /// Batches that were taken.
    batches: u64,
    /// What is said of this node's disk with each batch.
    room: Room,
    /// A batch is to be sent even if no message waits: the peer has not heard of the room yet, or has heard nothing for a while.
    due: bool,
}

/// What goes over the link at a time.
#[derive(Debug, PartialEq)]
pub(crate) struct Batch {
    /// Counts from 1.
    pub(crate) number: u64,
    pub(crate) room: Room,
    pub(crate) messages: Vec<(ExtentId, Message)>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                messages: VecDeque::new(),
                bytes: 0,
                sending: true,
                closed: false,
                batches: 0,
                room: Room::default(),
                due: false,
            }),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one step: a panic elsewhere leaves the queue whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds messages in order and says how many bytes wait now. A closed one takes nothing.
    pub(crate) fn push(&self, messages: impl IntoIterator<Item = (ExtentId, Message)>) -> usize {
        let mut state = self.lock();
        if state.closed {
            return 0;
        }
        for (extent, message) in messages {
            state.bytes += payload_len(&message) + OVERHEAD;
            state.messages.push_back((extent, message));
        }
        self.bytes.store(state.bytes, Ordering::Relaxed);
        state.bytes
    }

    /// From now on says so of this node's disk, with a batch of its own if it is news and nothing else waits.
    pub(crate) fn say(&self, room: Room) {
        let mut state = self.lock();
        if state.room != room {
            (state.room, state.due) = (room, true);
        }
    }

    /// The next batch is sent even if it is empty.
    pub(crate) fn ping(&self) {
        self.lock().due = true;
    }

    /// Batches that were taken so far.
    pub(crate) fn batches(&self) -> u64 {
        self.lock().batches
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Drops what waits; nothing is taken or given any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.bytes = 0;
        self.bytes.store(0, Ordering::Relaxed);
        let dropped = std::mem::take(&mut state.messages);
        drop(state);
        drop(dropped);
    }

    /// Whether the caller is to send now: something waits, and nobody else sends. Then it calls [`Outbox::next`] until that gives nothing.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        let begins = !state.sending && !state.closed && (state.due || !state.messages.is_empty());
        state.sending |= begins;
        begins
    }

    /// Makes the caller sender if nobody is, whether something waits or not.
    pub(crate) fn seize(&self) -> bool {
        let mut state = self.lock();
        let seized = !state.sending && !state.closed;
        state.sending |= seized;
        seized
    }

    /// For the sender: all that waits, as far as one batch goes. With `None` the caller is sender no more.
    pub(crate) fn next(&self) -> Option<Batch> {
        let mut state = self.lock();
        if state.closed || (state.messages.is_empty() && !state.due) {
            state.sending = false;
            return None;
        }
        let mut messages = Vec::with_capacity(state.messages.len().min(BATCH_MESSAGES));
        let mut size = 0;
        while let Some((_, message)) = state.messages.front() {
            let len = payload_len(message) + OVERHEAD;
            if messages.len() == BATCH_MESSAGES || (!messages.is_empty() && size + len > BATCH_BYTES) {
                break;
            }
            size += len;
            messages.extend(state.messages.pop_front());
        }
        state.bytes -= size;
        self.bytes.store(state.bytes, Ordering::Relaxed);
        state.due = false;
        state.batches += 1;
        Some(Batch {
            number: state.batches,
            room: state.room,
            messages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::api::{Record, RecordBody};
    use bytes::Bytes;
    use holdfast_types::{BlockRange, Epoch, Lba, LogPos, Lsn};

    fn message(len: usize) -> (ExtentId, Message) {
        let body = RecordBody::Write {
            range: BlockRange::new(Lba(0), 1).unwrap(),
            data: Bytes::from(vec![0; len]),
        };
        let record = Record {
            pos: LogPos::EMPTY,
            commit: Lsn(0),
            name: None,
            body,
        };
        let message = Message::Replicate {
            epoch: Epoch(1),
            prev: LogPos::EMPTY,
            record,
        };
        (ExtentId::from_u128(1), message)
    }

    fn opened() -> Outbox {
        let outbox = Outbox::default();
        assert!(!outbox.begin(), "who opens the link sends");
        assert_eq!(outbox.next(), None);
        outbox
    }

    fn next(outbox: &Outbox) -> Option<usize> {
        outbox.next().map(|batch| batch.messages.len())
    }

    #[test]
    fn all_that_waits_goes_as_one_batch_up_to_its_limit() {
        let outbox = opened();
        assert!(!outbox.begin(), "nothing waits");
        outbox.push((0..300).map(|_| message(4096)));
        assert!(outbox.begin());
        assert_eq!(next(&outbox), Some(252));
        outbox.push([message(4 << 20), message(1)]);
        assert!(!outbox.begin(), "one at a time");
        assert_eq!(next(&outbox), Some(48));
        assert_eq!(next(&outbox), Some(1));
        assert_eq!(outbox.next().unwrap().number, 4);
        assert_eq!(outbox.bytes(), 0);
        assert_eq!(next(&outbox), None);
        outbox.push([message(1)]);
        assert!(outbox.begin());
    }

    #[test]
    fn j3_news_of_the_disk_goes_alone_and_once() {
        let outbox = opened();
        let crowded = Room {
            crowded: true,
            ..Room::default()
        };
        outbox.say(crowded);
        outbox.say(crowded);
        assert!(outbox.begin());
        let batch = outbox.next().unwrap();
        assert_eq!((batch.room, batch.messages.len()), (crowded, 0));
        assert_eq!(next(&outbox), None);
        outbox.say(crowded);
        assert!(!outbox.begin());
        outbox.ping();
        assert!(outbox.begin());
        assert_eq!(next(&outbox), Some(0));
    }

    #[test]
    fn a_closed_one_is_empty_for_ever() {
        let outbox = opened();
        outbox.push([message(1)]);
        outbox.close();
        outbox.push([message(1)]);
        assert_eq!(outbox.bytes(), 0);
        assert!(!outbox.begin());
        assert_eq!(next(&outbox), None);
    }
}
