//! What goes out: PDUs as lists of segments for vectored writes, so that payload is never copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::frame::Digests;
use crate::pdu::{BHS_LEN, Bhs};

/// Bytes in one or several pieces. Taking parts of it shares memory instead of copying.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    first: Bytes,
    rest: VecDeque<Bytes>,
    len: usize,
}

impl Payload {
    /// In bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.len += piece.len();
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = piece;
        } else {
            self.rest.push_back(piece);
        }
    }

    /// Takes the first `at` bytes, or all where there are fewer.
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> Self {
        let mut taken = Self::default();
        let mut left = at.min(self.len);
        while left > 0 {
            let piece = self.first.split_to(left.min(self.first.len()));
            left -= piece.len();
            self.len -= piece.len();
            taken.push(piece);
            if self.first.is_empty() {
                self.first = self.rest.pop_front().unwrap_or_default();
            }
        }
        taken
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            *self = self.split_to(len);
        }
    }

    /// The pieces, none of them empty.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first)
            .chain(&self.rest)
            .filter(|piece| !piece.is_empty())
    }

    /// All bytes in one piece: shared where there is one piece, else copied once.
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut all = Vec::with_capacity(self.len);
        self.pieces().for_each(|piece| all.extend_from_slice(piece));
        all.into()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        let mut payload = Self::default();
        payload.push(bytes);
        payload
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(pieces: Vec<Bytes>) -> Self {
        let mut payload = Self::default();
        pieces.into_iter().for_each(|piece| payload.push(piece));
        payload
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.len, "advance within the payload");
        drop(self.split_to(count));
    }
}

/// Most bytes that a PDU ends with: up to 3 of padding and 4 of data digest.
const TAIL_MAX: usize = 7;

/// One PDU on its way out: header (with AHS and header digest), payload, and padding with data digest. As a [`Buf`] it is written in any
/// number of steps; [`Buf::chunks_vectored`] hands out all segments for one vectored write.
#[derive(Debug, Clone)]
pub struct Outgoing {
    head: Head,
    data: Payload,
    tail: [u8; TAIL_MAX],
    tail_from: usize,
    unasked: bool,
}

/// The header segments. Kept inline unless there is an AHS, so that a PDU without payload costs no allocation.
#[derive(Debug, Clone)]
enum Head {
    Inline {
        bytes: [u8; BHS_LEN + 4],
        from: usize,
        to: usize,
    },
    Long(Bytes),
}

impl Head {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline { bytes, from, to } => &bytes[*from..*to],
            Self::Long(bytes) => bytes,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Inline { from, .. } => *from += count,
            Self::Long(bytes) => bytes.advance(count),
        }
    }
}

impl Outgoing {
    /// A whole PDU: sets the lengths in the header, and adds padding (RFC 7143, 11.1: to whole words) and digests (11.2.3, 11.2.4).
    ///
    /// `ahs` must be whole words of at most 1020 bytes and `data` shorter than 2^24 bytes: the callers' own bookkeeping.
    pub fn new(mut bhs: Bhs, ahs: &[u8], data: Payload, digests: Digests) -> Self {
        bhs.set_lengths(ahs.len(), data.len());
        let head = if ahs.is_empty() {
            let mut bytes = [0; BHS_LEN + 4];
            bytes[..BHS_LEN].copy_from_slice(&bhs.0);
            let mut to = BHS_LEN;
            if digests.header {
                bytes[BHS_LEN..].copy_from_slice(&crc32c::crc32c(&bhs.0).to_le_bytes());
                to += 4;
            }
            Head::Inline { bytes, from: 0, to }
        } else {
            let mut bytes = Vec::with_capacity(BHS_LEN + ahs.len() + 4);
            bytes.extend_from_slice(&bhs.0);
            bytes.extend_from_slice(ahs);
            if digests.header {
                bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            }
            Head::Long(bytes.into())
        };
        let (tail, tail_len) = tail_of(&data, digests.data);
        // The tail is kept at the end of its array, so that one index says what is left of it.
        let mut kept = [0; TAIL_MAX];
        kept[TAIL_MAX - tail_len..].copy_from_slice(&tail[..tail_len]);
        Self {
            head,
            data,
            tail: kept,
            tail_from: TAIL_MAX - tail_len,
            unasked: false,
        }
    }

    /// Bytes as they are, a PDU or not. For initiators that test a target.
    pub fn raw(bytes: Bytes) -> Self {
        Self {
            head: Head::Long(bytes),
            data: Payload::default(),
            tail: [0; TAIL_MAX],
            tail_from: TAIL_MAX,
            unasked: false,
        }
    }

    fn tail(&self) -> &[u8] {
        &self.tail[self.tail_from..]
    }
}

/// Padding and data digest of a data segment. Without data there is neither.
fn tail_of(data: &Payload, digest: bool) -> ([u8; TAIL_MAX], usize) {
    let mut tail = [0; TAIL_MAX];
    let padding = data.len().wrapping_neg() % 4;
    let mut len = padding;
    if digest && !data.is_empty() {
        let crc = data
            .pieces()
            .fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        let crc = crc32c::crc32c_append(crc, &tail[..padding]);
        tail[len..len + 4].copy_from_slice(&crc.to_le_bytes());
        len += 4;
    }
    (tail, len)
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.head.bytes().len() + self.data.len() + self.tail().len()
    }

    fn chunk(&self) -> &[u8] {
        if !self.head.bytes().is_empty() {
            self.head.bytes()
        } else if !self.data.is_empty() {
            self.data.chunk()
        } else {
            self.tail()
        }
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "advance within the PDU");
        let head = count.min(self.head.bytes().len());
        self.head.advance(head);
        let data = (count - head).min(self.data.len());
        self.data.advance(data);
        self.tail_from += count - head - data;
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let segments = std::iter::once(self.head.bytes())
            .chain(self.data.pieces().map(|piece| &piece[..]))
            .chain(std::iter::once(self.tail()))
            .filter(|segment| !segment.is_empty());
        let mut used = 0;
        for (slice, segment) in slices.iter_mut().zip(segments) {
            *slice = IoSlice::new(segment);
            used += 1;
        }
        used
    }
}

/// PDUs on their way out, oldest first. As a [`Buf`] the whole queue goes out in as few vectored writes as the socket takes.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Outgoing>,
    bytes: usize,
    unasked: usize,
}

impl Outbox {
    /// Adds a PDU at the end.
    pub fn push(&mut self, pdu: Outgoing) {
        self.bytes += pdu.remaining();
        self.queue.push_back(pdu);
    }

    /// Adds a PDU that the connection makes by itself (a pong, a text, a Reject): no owner's bound holds for these, so they are counted.
    pub(crate) fn push_unasked(&mut self, mut pdu: Outgoing) {
        pdu.unasked = true;
        self.unasked += 1;
        self.push(pdu);
    }

    /// Takes the oldest PDU, or what is left of it.
    pub fn pop(&mut self) -> Option<Outgoing> {
        let pdu = self.queue.pop_front()?;
        self.bytes -= pdu.remaining();
        self.unasked -= usize::from(pdu.unasked);
        Some(pdu)
    }

    /// How many PDUs wait that no owner has asked for.
    pub(crate) const fn unasked(&self) -> usize {
        self.unasked
    }

    /// How many PDUs wait.
    pub fn pdus(&self) -> usize {
        self.queue.len()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.queue.front().map_or(&[], Outgoing::chunk)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "advance within the outbox");
        self.bytes -= count;
        while let Some(front) = self.queue.front_mut() {
            let step = count.min(front.remaining());
            front.advance(step);
            count -= step;
            if front.has_remaining() {
                break;
            }
            self.unasked -= usize::from(front.unasked);
            self.queue.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for pdu in &self.queue {
            if used == slices.len() {
                break;
            }
            used += pdu.chunks_vectored(&mut slices[used..]);
        }
        used
    }
}

#[cfg(test)]
#[path = "out_test.rs"]
mod tests;
