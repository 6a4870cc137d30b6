//! Entries read back as they were written, and nothing else is read.

use proptest::prelude::*;

use super::*;
use crate::store::arbitrary;

proptest! {
    #[test]
    fn what_is_written_is_read(entry in arbitrary::entry(), id in any::<u128>()) {
        let extent = ExtentId::from_u128(id);
        let header = entry.header(extent);
        prop_assert_eq!(Entry::decode(&header, entry.payload()), Ok((extent, entry)));
    }

    #[test]
    fn a_cut_or_longer_header_is_refused(entry in arbitrary::entry(), cut in any::<prop::sample::Index>(), extra in any::<u8>()) {
        let mut header = entry.header(ExtentId::from_u128(1));
        prop_assert!(Entry::decode(&header[..cut.index(header.len())], entry.payload()).is_err());
        header.push(extra);
        prop_assert!(Entry::decode(&header, entry.payload()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        kind in 0u8..8,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        small in proptest::collection::vec(0u8..4, 0..200),
        payload in arbitrary::data(),
    ) {
        for rest in [&bytes, &small] {
            let mut header = vec![ENTRY_VERSION, kind];
            header.extend_from_slice(&[0; 16]);
            header.extend_from_slice(rest);
            if let Ok((extent, entry)) = Entry::decode(&header, payload.clone()) {
                // What is taken is what would have been written.
                prop_assert_eq!(entry.header(extent), header);
            }
            let _ = Entry::decode(rest, payload.clone());
        }
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut header = Entry::ClearBase.header(ExtentId::from_u128(1));
    header[0] = ENTRY_VERSION + 1;
    let error = Entry::decode(&header, Bytes::new()).unwrap_err();
    assert_eq!(error, DecodeError::Newer(ENTRY_VERSION + 1));
    assert!(
        error.to_string().contains("newer version of holdfast (3,"),
        "{error}"
    );
}

#[test]
fn a_count_that_cannot_be_allocates_nothing() {
    let mut out = start(ExtentId::from_u128(1), RESTART);
    put_base(
        &mut out,
        &Base {
            pos: LogPos::EMPTY,
            version: InSyncVersion(1),
        },
    );
    out.pos(LogPos::EMPTY);
    out.u64(u64::MAX / 16);
    assert_eq!(Entry::decode(&out.0, Bytes::new()), Err(DecodeError::Short));
}
