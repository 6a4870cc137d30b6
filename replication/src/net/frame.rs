//! How messages lie in a byte stream: length, checksum, body. TCP's own checksum misses too much to let records into a journal on its word.

use bytes::{Buf, Bytes, BytesMut};
use holdfast_proto::replication as pb;
use holdfast_types::ExtentId;
use prost::Message as _;

use super::wire;
use crate::core::api::{Message, Room};

/// Length and CRC-32C of the body, 4 bytes each, little-endian.
const HEADER_LEN: usize = 8;
/// Longest body: one largest transfer, which goes alone, and what is said about it; a batch of smaller messages is far below that.
const BODY_MAX: usize = holdfast_types::TRANSFER_BYTES_MAX as usize + (4 << 20);
/// Longest body of the first frame of a connection, whose sender is not known yet.
pub(crate) const FIRST_MAX: usize = 4 << 10;

/// What came is not of this protocol, or was changed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes is longer than any: another release, or no Holdfast node at all")]
    TooLong(usize),
    #[error("a frame's checksum does not fit: it was changed on its way")]
    Checksum,
    #[error("a frame cannot be read: another release, or no Holdfast node at all")]
    Malformed,
}

fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .rev()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// Body length of the frame that `buffer` begins with; `None` while that is not known.
fn body_len(buffer: &[u8]) -> Option<usize> {
    (buffer.len() >= HEADER_LEN).then(|| usize::try_from(word(buffer)).unwrap_or(usize::MAX))
}

/// Bytes that a buffer must have before [`take`] finds a whole frame in it.
pub(crate) fn wanted(buffer: &[u8]) -> usize {
    HEADER_LEN + body_len(buffer).unwrap_or(0)
}

/// Takes the frame that `buffer` begins with, if it is whole. Payloads share the buffer's memory.
///
/// # Errors
/// [`FrameError`]: nothing more can be taken from this stream.
pub(crate) fn take(buffer: &mut BytesMut, first: bool) -> Result<Option<pb::Frame>, FrameError> {
    let Some(len) = body_len(buffer) else {
        return Ok(None);
    };
    if len > if first { FIRST_MAX } else { BODY_MAX } {
        return Err(FrameError::TooLong(len));
    }
    if buffer.len() < HEADER_LEN + len {
        return Ok(None);
    }
    let crc = word(&buffer[4..HEADER_LEN]);
    buffer.advance(HEADER_LEN);
    let body: Bytes = buffer.split_to(len).freeze();
    if crc32c::crc32c(&body) != crc {
        return Err(FrameError::Checksum);
    }
    let frame = pb::Frame::decode(body).map_err(|_| FrameError::Malformed)?;
    Ok(Some(frame))
}

/// Adds a frame at the end of `out`.
pub(crate) fn put(frame: &pb::Frame, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + HEADER_LEN, 0);
    out.reserve(frame.encoded_len());
    // A vector takes all that is put into it.
    let _ = frame.encode(out);
    let body = &out[start + HEADER_LEN..];
    // Batches are far below 4 GiB.
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let crc = crc32c::crc32c(body);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
}

/// A frame of one kind.
pub(crate) const fn of(kind: pb::frame::Kind) -> pb::Frame {
    pb::Frame { kind: Some(kind) }
}

/// What goes over each lane of several: see [`pb::Beat`].
pub(crate) const fn beat(turn: u64, received: u64) -> pb::Frame {
    of(pb::frame::Kind::Beat(pb::Beat { turn, received }))
}

/// A batch as a frame; `received` is how many batches have come the other way, where there are several lanes.
pub(crate) fn batch(number: u64, room: Room, messages: Vec<(ExtentId, Message)>, received: u64) -> pb::Frame {
    let messages = messages
        .into_iter()
        .map(|(extent, message)| wire::encode(extent, message))
        .collect();
    let Room { crowded, low, full } = room;
    of(pb::frame::Kind::Batch(pb::Batch {
        number,
        messages,
        received,
        room: (room != Room::default()).then_some(pb::Room { crowded, low, full }),
    }))
}

/// What a batch says of its sender's disk.
pub(crate) fn room(batch: &pb::Batch) -> Room {
    let pb::Room { crowded, low, full } = batch.room.unwrap_or_default();
    Room { crowded, low, full }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::api::{Record, RecordBody};
    use holdfast_types::{BlockRange, Epoch, Lba, LogPos, Lsn};
    use proptest::prelude::*;

    fn probes(count: u64) -> Vec<(ExtentId, Message)> {
        (0..count)
            .map(|epoch| {
                let epoch = Epoch(epoch);
                (ExtentId::from_u128(7), Message::Probe { epoch })
            })
            .collect()
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let crowded = Room {
            crowded: true,
            ..Room::default()
        };
        let sent: Vec<pb::Frame> = (1..20).map(|n| batch(n, crowded, probes(n), n)).collect();
        let mut bytes = Vec::new();
        sent.iter().for_each(|frame| put(frame, &mut bytes));
        for step in [1, 7, 8, 9, 100, bytes.len()] {
            let (mut buffer, mut came) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = take(&mut buffer, false).unwrap() {
                    came.push(frame);
                }
                assert!(wanted(&buffer) > buffer.len());
            }
            assert_eq!(came, sent);
        }
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        let mut bytes = Vec::new();
        put(&batch(1, Room::default(), probes(3), 0), &mut bytes);
        // Behind the length, whose change makes the frame wait for more, or too long.
        for bit in 32..bytes.len() * 8 {
            let mut changed = BytesMut::from(&bytes[..]);
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(take(&mut changed, false), Err(FrameError::Checksum));
        }
    }

    #[test]
    fn other_protocols_are_told_at_their_first_bytes() {
        let mut http = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]);
        assert!(matches!(take(&mut http, false), Err(FrameError::TooLong(_))));
        let mut long = Vec::new();
        put(&batch(1, Room::default(), probes(1000), 0), &mut long);
        assert!(matches!(
            take(&mut BytesMut::from(&long[..]), true),
            Err(FrameError::TooLong(_))
        ));
    }

    #[test]
    fn the_largest_transfer_fits_and_nothing_is_much_longer() {
        let data = Bytes::from(vec![7; holdfast_types::TRANSFER_BYTES_MAX as usize]);
        let body = RecordBody::Write {
            range: BlockRange::new(Lba(u64::MAX >> 16), 16384).unwrap(),
            data,
        };
        let record = Record {
            pos: LogPos::EMPTY,
            commit: Lsn(u64::MAX),
            name: None,
            body,
        };
        let message = Message::Replicate {
            epoch: Epoch(u64::MAX),
            prev: LogPos::EMPTY,
            record,
        };
        let sent = batch(
            u64::MAX,
            Room::default(),
            vec![(ExtentId::from_u128(u128::MAX), message)],
            u64::MAX,
        );
        let mut bytes = Vec::new();
        put(&sent, &mut bytes);
        let mut buffer = BytesMut::from(&bytes[..]);
        assert_eq!(take(&mut buffer, false), Ok(Some(sent)));
        let longer = u32::try_from(BODY_MAX + 1).unwrap();
        let mut buffer = BytesMut::from(&[longer.to_le_bytes(), [0; 4]].concat()[..]);
        assert_eq!(take(&mut buffer, false), Err(FrameError::TooLong(BODY_MAX + 1)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut buffer, false) {}
        }
    }
}
