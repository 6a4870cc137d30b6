//! Datagrams on the wire.

use proptest::prelude::*;

use holdfast_types::{Incarnation, LeaseGeneration, NODES_MAX, NodeId, Revision, SuspicionId};

use holdfast_trust::{Key, MAC_LEN, MacKeys};

use super::*;

fn keys() -> MacKeys {
    MacKeys::single(Key::new([7; 32]))
}

fn hearing() -> impl Strategy<Value = Hearing> {
    (1u64.., any::<u16>(), any::<u16>()).prop_map(|(node, heard_ms, both_ms)| Hearing {
        node: NodeId(node),
        heard_ms,
        both_ms,
    })
}

fn run_out() -> impl Strategy<Value = RunOut> {
    (any::<u64>(), any::<u64>()).prop_map(|(node, suspicion)| RunOut {
        node: NodeId(node),
        suspicion: SuspicionId(suspicion),
    })
}

fn heartbeat() -> impl Strategy<Value = Datagram> {
    let numbers = prop::array::uniform10(any::<u64>());
    let hears = prop::collection::vec(hearing(), 0..=NODES_MAX);
    let reports = prop::collection::vec(run_out(), 0..=NODES_MAX);
    (numbers, any::<u32>(), hears, reports).prop_map(|(n, lease_ms, hears, run_out)| {
        Datagram::Heartbeat(Heartbeat {
            cluster: n[0],
            from: NodeId(n[1]),
            to: NodeId(n[2]),
            incarnation: Incarnation(n[3]),
            seq: n[4],
            generation: LeaseGeneration(n[5]),
            lease_ms,
            revision: Revision(n[6]),
            voter_set: n[7],
            term: n[8],
            leader: Some(NodeId(n[9])).filter(|node| node.0 != 0),
            hears,
            run_out,
        })
    })
}

fn ack() -> impl Strategy<Value = Datagram> {
    (prop::array::uniform8(any::<u64>()), any::<bool>()).prop_map(|(n, promise)| {
        Datagram::Ack(Ack {
            cluster: n[0],
            from: NodeId(n[1]),
            to: NodeId(n[2]),
            incarnation: Incarnation(n[3]),
            of_incarnation: Incarnation(n[4]),
            of_seq: n[5],
            promise,
            generation: LeaseGeneration(n[6]),
            voter_set: n[7],
        })
    })
}

proptest! {
    #[test]
    fn a_datagram_reads_back(datagram in prop_oneof![heartbeat(), ack()]) {
        let bytes = datagram.encode(&keys());
        prop_assert!(bytes.len() <= DATAGRAM_MAX);
        prop_assert_eq!(Datagram::decode(&bytes, &keys()), Ok(datagram));
    }

    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..DATAGRAM_MAX + 9)) {
        prop_assert!(Datagram::decode(&bytes, &keys()).is_err());
    }

    /// Garbage that a member has signed: the head is right and the hash fits.
    #[test]
    fn garbage_that_is_signed_does_no_harm(kind in 0u8..4, body in prop::collection::vec(any::<u8>(), 0..DATAGRAM_MAX - 36)) {
        let mut bytes = vec![b'H', b'F', 2, kind];
        bytes.extend(body);
        let mac = keys().sign(&bytes);
        bytes.extend(mac);
        if let Ok(datagram) = Datagram::decode(&bytes, &keys()) {
            prop_assert_eq!(datagram.encode(&keys()), bytes);
        }
    }

    #[test]
    fn a_changed_byte_is_noticed(datagram in prop_oneof![heartbeat(), ack()], at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = datagram.encode(&keys());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Datagram::decode(&bytes, &keys()).is_err());
    }

    #[test]
    fn a_cut_datagram_is_refused(datagram in prop_oneof![heartbeat(), ack()], at in any::<prop::sample::Index>()) {
        let bytes = datagram.encode(&keys());
        prop_assert!(Datagram::decode(&bytes[..at.index(bytes.len())], &keys()).is_err());
    }
}

/// Its numbers count up, as its bytes do.
fn counted() -> Ack {
    Ack {
        cluster: 1,
        from: NodeId(2),
        to: NodeId(3),
        incarnation: Incarnation(4),
        of_incarnation: Incarnation(5),
        of_seq: 6,
        promise: true,
        generation: LeaseGeneration(7),
        voter_set: 8,
    }
}

#[test]
fn the_layout_is_pinned() {
    let bytes = Datagram::Ack(counted()).encode(&keys());
    assert_eq!(&bytes[..4], b"HF\x02\x02");
    let numbers: Vec<u8> = bytes[11..52].iter().step_by(8).copied().collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(bytes[52], 1);
    assert_eq!((bytes[60], bytes[68], bytes.len()), (7, 8, 101));
}

#[test]
fn every_refusal_has_its_reason() {
    let decode = |bytes: &[u8]| Datagram::decode(bytes, &keys());
    let with_mac = |head: &[u8]| [head, &[0; MAC_LEN]].concat();
    assert_eq!(decode(b""), Err(WireError::Length));
    assert_eq!(decode(&with_mac(b"XX\x01\x01")), Err(WireError::Magic));
    assert_eq!(decode(&with_mac(b"HF\x01\x01")), Err(WireError::Version(1)));
    assert_eq!(decode(&with_mac(b"HF\x02\x01")), Err(WireError::Mac));
    assert_eq!(decode(&[0; DATAGRAM_MAX + 1]), Err(WireError::Length));
}

/// Whoever has not the cluster's key can neither make a heartbeat up nor change one.
#[test]
fn a_stranger_signs_in_vain() {
    let stranger = MacKeys::single(Key::new([8; 32]));
    let bytes = Datagram::Ack(counted()).encode(&stranger);
    assert_eq!(Datagram::decode(&bytes, &keys()), Err(WireError::Mac));
    assert!(Datagram::decode(&bytes, &stranger).is_ok());
}
