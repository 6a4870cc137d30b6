//! TransportIDs of iSCSI initiator ports (SPC-4, 7.6.4.6).

use holdfast_types::{IscsiName, Isid};

/// Format 01b, protocol identifier 5h: name and ISID.
const NAME_AND_ISID: u8 = 0x45;
/// Between a name and its ISID.
const SEPARATOR: &str = ",i,0x";
/// Shortest ADDITIONAL LENGTH.
const SHORTEST: usize = 20;

/// The TransportID of an initiator port.
pub(super) fn write(initiator: &IscsiName, isid: Isid) -> Vec<u8> {
    let text = format!("{initiator}{SEPARATOR}{isid}");
    // Ends in at least one zero, and on a border of four bytes.
    let length = (text.len() / 4 * 4 + 4).max(SHORTEST);
    let mut bytes = vec![0; 4 + length];
    bytes[0] = NAME_AND_ISID;
    let field = u16::try_from(length).unwrap_or(u16::MAX);
    bytes[2..4].copy_from_slice(&field.to_be_bytes());
    bytes[4..4 + text.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// Reads one TransportID at the start of `bytes`: the initiator port, and how long it is. `Err` is the offset of the byte at fault. An id
/// without ISID (format 00b) names no single port, so it is refused.
pub(super) fn read(bytes: &[u8]) -> Result<((IscsiName, Isid), usize), usize> {
    let &[kind, _, high, low, ..] = bytes else {
        return Err(0);
    };
    if kind != NAME_AND_ISID {
        return Err(0);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < SHORTEST || !length.is_multiple_of(4) {
        return Err(2);
    }
    let field = bytes.get(4..4 + length).ok_or(2_usize)?;
    let end = field.iter().position(|byte| *byte == 0).ok_or(4_usize)?;
    let text = std::str::from_utf8(&field[..end]).map_err(|_| 4_usize)?;
    let (name, isid) = text.split_once(SEPARATOR).ok_or(4_usize)?;
    let name = IscsiName::of_initiator(name).map_err(|_| 4_usize)?;
    Ok(((name, read_isid(isid).ok_or(4_usize)?), 4 + length))
}

fn read_isid(digits: &str) -> Option<Isid> {
    if digits.len() != 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let bits = u64::from_str_radix(digits, 16).ok()?.to_be_bytes();
    let [_, _, isid @ ..] = bits;
    Some(Isid(isid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_transport_id() {
        let name: IscsiName = "iqn.2026-11.example:host".parse().unwrap();
        let bytes = write(&name, Isid([0, 2, 0x3d, 0, 0, 0x0f]));
        assert_eq!(&bytes[..4], [0x45, 0, 0, 44]);
        assert_eq!(&bytes[4..45], b"iqn.2026-11.example:host,i,0x00023d00000f");
        assert!(bytes[45..].iter().all(|byte| *byte == 0) && bytes.len() == 48);
        assert_eq!(read(&bytes), Ok(((name, Isid([0, 2, 0x3d, 0, 0, 0x0f])), 48)));
    }

    #[test]
    fn i12_what_names_no_port_is_refused() {
        let good = write(&"iqn.2026-11.example:host".parse().unwrap(), Isid([1; 6]));
        for (at, to) in [
            (0, 0x05),
            (0, 0x44),
            (3, 43),
            (3, 16),
            (3, 200),
            (5, 0xff),
            (33, b'g'),
        ] {
            let mut bad = good.clone();
            bad[at] = to;
            assert!(read(&bad).is_err(), "byte {at} as {to:#x}");
        }
        assert_eq!(read(&good[..3]), Err(0));
    }

    proptest! {
        #![proptest_config(crate::seeded::seeded())]

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..80), known: bool) {
            if known && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&[NAME_AND_ISID, 0, 0, 40]);
            }
            if let Ok(((name, isid), length)) = read(&bytes) {
                prop_assert!(length <= bytes.len());
                prop_assert_eq!(read(&write(&name, isid)).map(|found| found.0), Ok((name, isid)));
            }
        }
    }
}
