//! What waits to be sent over one link.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use holdfast_types::ExtentId;

use super::wire::payload_len;
use crate::core::api::{Message, Room};

/// Bytes of payload at which a batch is closed; one larger message goes alone.
const BATCH_BYTES: usize = 1 << 20;
/// Messages at which a batch is closed.
const BATCH_MESSAGES: usize = 4096;
/// What a message takes besides its payload, about.
const OVERHEAD: usize = 64;

/// A queue into the task that sends. Whoever adds wakes that task only if it waits, and it takes all that waits in one batch.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// As in the state; read without its lock.
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<(ExtentId, Message)>,
    bytes: usize,
    waker: Option<Waker>,
    closed: bool,
    /// What is said of this node's disk with each batch, and whether the peer has not heard it yet.
    room: Room,
    unsaid: bool,
}

/// What goes over the link at a time.
pub(crate) type Batch = (Room, Vec<(ExtentId, Message)>);

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
        let (bytes, waker) = (state.bytes, state.waker.take());
        self.bytes.store(bytes, Ordering::Relaxed);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        bytes
    }

    /// From now on says so of this node's disk, at once if it is news.
    pub(crate) fn say(&self, room: Room) {
        let mut state = self.lock();
        if state.room == room {
            return;
        }
        (state.room, state.unsaid) = (room, true);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
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
        let (dropped, waker) = (std::mem::take(&mut state.messages), state.waker.take());
        drop(state);
        drop(dropped);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// All that waits, as far as one batch goes. `None` once closed.
    pub(crate) fn poll_batch(&self, cx: &Context<'_>) -> Poll<Option<Batch>> {
        let mut state = self.lock();
        if state.closed {
            return Poll::Ready(None);
        }
        if state.messages.is_empty() && !state.unsaid {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut batch = Vec::with_capacity(state.messages.len().min(BATCH_MESSAGES));
        let mut size = 0;
        while let Some((_, message)) = state.messages.front() {
            let len = payload_len(message) + OVERHEAD;
            if batch.len() == BATCH_MESSAGES || (!batch.is_empty() && size + len > BATCH_BYTES) {
                break;
            }
            size += len;
            batch.extend(state.messages.pop_front());
        }
        state.bytes -= size;
        self.bytes.store(state.bytes, Ordering::Relaxed);
        state.unsaid = false;
        Poll::Ready(Some((state.room, batch)))
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

    fn poll(outbox: &Outbox) -> Poll<Option<usize>> {
        outbox
            .poll_batch(&Context::from_waker(Waker::noop()))
            .map(|batch| batch.map(|(_, batch)| batch.len()))
    }

    #[test]
    fn all_that_waits_goes_as_one_batch_up_to_its_limit() {
        let outbox = Outbox::default();
        assert_eq!(poll(&outbox), Poll::Pending);
        outbox.push((0..300).map(|_| message(4096)));
        assert_eq!(poll(&outbox), Poll::Ready(Some(252)));
        outbox.push([message(4 << 20), message(1)]);
        assert_eq!(poll(&outbox), Poll::Ready(Some(48)));
        assert_eq!(poll(&outbox), Poll::Ready(Some(1)));
        assert_eq!(poll(&outbox), Poll::Ready(Some(1)));
        assert_eq!(outbox.bytes(), 0);
        assert_eq!(poll(&outbox), Poll::Pending);
    }

    #[test]
    fn j3_news_of_the_disk_goes_alone_and_once() {
        let outbox = Outbox::default();
        let crowded = Room {
            crowded: true,
            ..Room::default()
        };
        outbox.say(crowded);
        outbox.say(crowded);
        let batch = outbox.poll_batch(&Context::from_waker(Waker::noop()));
        assert_eq!(batch, Poll::Ready(Some((crowded, vec![]))));
        assert_eq!(poll(&outbox), Poll::Pending);
    }

    #[test]
    fn a_closed_one_is_empty_for_ever() {
        let outbox = Outbox::default();
        outbox.push([message(1)]);
        outbox.close();
        outbox.push([message(1)]);
        assert_eq!(outbox.bytes(), 0);
        assert_eq!(poll(&outbox), Poll::Ready(None));
    }
}
