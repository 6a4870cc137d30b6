use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::pdu::Opcode;

fn flatten(mut buf: impl Buf) -> Bytes {
    buf.copy_to_bytes(buf.remaining())
}

fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6)
}

fn payload(pieces: &[Vec<u8>]) -> Payload {
    pieces
        .iter()
        .map(|piece| Bytes::copy_from_slice(piece))
        .collect::<Vec<_>>()
        .into()
}

/// RFC 7143, appendix on CRC examples: 32 zero bytes have the digest aa 36 91 8a on the wire.
#[test]
fn digest_bytes_are_those_of_the_standard() {
    let digests = Digests {
        header: false,
        data: true,
    };
    let pdu = Outgoing::new(
        Bhs::new(Opcode::DATA_IN, 0x80),
        &[],
        Bytes::from_static(&[0; 32]).into(),
        digests,
    );
    let bytes = flatten(pdu);
    assert_eq!(bytes.len(), 48 + 32 + 4);
    assert_eq!(&bytes[80..], &[0xaa, 0x36, 0x91, 0x8a]);
}

#[test]
fn a_pdu_without_data_has_no_padding_and_no_data_digest() {
    let digests = Digests {
        header: true,
        data: true,
    };
    let pdu = Outgoing::new(Bhs::new(Opcode::NOP_IN, 0x80), &[], Payload::default(), digests);
    assert_eq!(pdu.remaining(), 52);
}

proptest! {
    #[test]
    fn splitting_a_payload_keeps_order_and_length(parts in pieces(), at in 0usize..100) {
        let whole = parts.concat();
        let mut rest = payload(&parts);
        prop_assert_eq!(rest.len(), whole.len());
        let taken = rest.split_to(at);
        let cut = at.min(whole.len());
        prop_assert_eq!(taken.len(), cut);
        prop_assert_eq!(&taken.into_bytes()[..], &whole[..cut]);
        prop_assert_eq!(&rest.into_bytes()[..], &whole[cut..]);
    }

    #[test]
    fn outbox_hands_out_the_same_bytes_in_any_steps(
        parts in prop::collection::vec(pieces(), 0..5),
        header: bool,
        data: bool,
        steps in prop::collection::vec(1usize..70, 1..50),
    ) {
        let digests = Digests { header, data };
        let mut outbox = Outbox::default();
        let mut wanted = BytesMut::new();
        for part in &parts {
            let pdu = Outgoing::new(Bhs::new(Opcode::NOP_IN, 0x80), &[], payload(part), digests);
            wanted.extend_from_slice(&flatten(pdu.clone()));
            outbox.push(pdu);
        }
        prop_assert_eq!(outbox.bytes(), wanted.len());
        let mut got = BytesMut::new();
        for step in steps.iter().cycle() {
            if !outbox.has_remaining() {
                break;
            }
            let mut slices = [IoSlice::new(&[]); 4];
            let used = outbox.chunks_vectored(&mut slices);
            let available: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            let step = available.min(*step);
            let mut left = step;
            for slice in &slices[..used] {
                let part = left.min(slice.len());
                got.extend_from_slice(&slice[..part]);
                left -= part;
            }
            outbox.advance(step);
        }
        prop_assert!(outbox.is_empty() && outbox.bytes() == 0);
        prop_assert_eq!(got, wanted);
    }
}
