use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::out::Outgoing;
use crate::pdu::Opcode;

const LIMITS: FrameLimits = FrameLimits { data: 8192, ahs: 256 };

fn bytes_of(mut pdu: Outgoing) -> Bytes {
    pdu.copy_to_bytes(pdu.remaining())
}

fn framer(digests: Digests) -> Framer {
    let mut framer = Framer::new(LIMITS);
    framer.set(digests, LIMITS);
    framer
}

proptest! {
    #[test]
    fn pdus_come_out_as_they_went_in_whatever_the_chunks(
        pdus in prop::collection::vec((0usize..8, prop::collection::vec(any::<u8>(), 0..300)), 1..6),
        header: bool,
        data: bool,
        chunks in prop::collection::vec(1usize..200, 1..40),
    ) {
        let digests = Digests { header, data };
        let mut stream = BytesMut::new();
        for (words, payload) in &pdus {
            let ahs = vec![7; words * 4];
            let bhs = Bhs::new(Opcode::NOP_OUT, 0x80);
            stream.extend_from_slice(&bytes_of(Outgoing::new(bhs, &ahs, Bytes::from(payload.clone()).into(), digests)));
        }
        let mut framer = framer(digests);
        let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
        for chunk in chunks.iter().cycle() {
            if stream.is_empty() {
                break;
            }
            buffer.extend_from_slice(&stream.split_to((*chunk).min(stream.len())));
            while let Some(frame) = framer.next(&mut buffer).unwrap() {
                got.push((frame.ahs.len() / 4, frame.data.to_vec()));
            }
            prop_assert!(framer.needs(&buffer) > buffer.len(), "it says what it waits for");
        }
        prop_assert!(buffer.is_empty() && !framer.is_inside(buffer.len()));
        prop_assert_eq!(got, pdus);
    }

    #[test]
    fn a_flipped_bit_is_found(payload in prop::collection::vec(any::<u8>(), 1..100), at: prop::sample::Index, bit in 0u8..8) {
        let digests = Digests { header: true, data: true };
        let pdu = Outgoing::new(Bhs::new(Opcode::NOP_OUT, 0x80), &[], Bytes::from(payload).into(), digests);
        let mut bytes = BytesMut::from(&bytes_of(pdu)[..]);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        match framer(digests).next(&mut bytes) {
            Err(_) => {}
            // A longer length waits for more; it is found when that comes.
            Ok(None) => prop_assert!((4..8).contains(&at)),
            Ok(Some(frame)) => prop_assert!(false, "taken for good: {:?}", frame),
        }
    }

    #[test]
    fn any_bytes_end_in_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400), header: bool, data: bool) {
        let mut framer = framer(Digests { header, data });
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(frame)) = framer.next(&mut buffer) {
            prop_assert!(frame.data.len() <= LIMITS.data);
        }
    }
}

#[test]
fn a_huge_length_is_refused_by_the_header_alone() {
    let mut bhs = Bhs::new(Opcode::LOGIN_REQUEST, 0);
    bhs.set_lengths(0, (1 << 24) - 1);
    let mut buffer = BytesMut::from(&bhs.0[..]);
    let mut framer = Framer::new(LIMITS);
    assert!(
        framer.needs(&buffer) <= BHS_LEN + 256,
        "nothing is asked for by the peer's claim"
    );
    let error = framer.next(&mut buffer).unwrap_err().error;
    assert_eq!(
        error,
        FrameError::DataLength {
            len: (1 << 24) - 1,
            max: 8192
        }
    );
}

#[test]
fn a_header_of_too_many_extra_segments_is_refused() {
    let mut bhs = Bhs::new(Opcode::SCSI_COMMAND, 0);
    bhs.set_lengths(1020, 0);
    let error = Framer::new(LIMITS)
        .next(&mut BytesMut::from(&bhs.0[..]))
        .unwrap_err()
        .error;
    assert_eq!(error, FrameError::AhsLength { len: 1020, max: 256 });
}

#[test]
fn data_is_a_slice_of_the_buffer() {
    let pdu = Outgoing::new(
        Bhs::new(Opcode::DATA_OUT, 0x80),
        &[],
        Bytes::from(vec![5; 4096]).into(),
        Digests::default(),
    );
    let mut buffer = BytesMut::from(&bytes_of(pdu)[..]);
    let at = buffer.as_ptr() as usize + BHS_LEN;
    let frame = Framer::new(LIMITS).next(&mut buffer).unwrap().unwrap();
    assert_eq!(frame.data.as_ptr() as usize, at);
}
