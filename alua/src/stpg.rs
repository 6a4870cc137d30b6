//! Parameter data of SET TARGET PORT GROUPS (SPC-4), read.
//!
//! Explicit access is off unless a target has it switched on; until then the command is not in the command table and nothing calls this.

use holdfast_types::TpgId;

use crate::AccessState;

/// One wish of an initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The group.
    pub id: TpgId,
    /// The state it should get.
    pub state: AccessState,
}

/// Why parameter data is refused; nothing is changed then (I12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not a header of four bytes and whole descriptors: 05/1A/00, parameter list length error.
    #[error("the list of target port groups has {0} bytes, which is no header with whole descriptors")]
    Length(usize),
    /// A state that cannot be set: 05/26/00, invalid field in parameter list. Offset in bytes.
    #[error("byte {0} of the list of target port groups names a state that cannot be set")]
    State(usize),
}

/// Reads **all** descriptors: initiators send one or several, and an answer of GOOD covers every one of them.
///
/// # Errors
/// [`ReadError`] where the length is wrong or a state cannot be asked for (transitioning, offline, reserved codes).
pub fn decode(data: &[u8]) -> Result<Vec<Wish>, ReadError> {
    if data.len() < 4 || !data.len().is_multiple_of(4) {
        return Err(ReadError::Length(data.len()));
    }
    let (descriptors, _) = data[4..].as_chunks::<4>();
    descriptors
        .iter()
        .enumerate()
        .map(
            |(index, descriptor)| match AccessState::from_code(descriptor[0] & 0x0f) {
                None | Some(AccessState::Transitioning | AccessState::Offline) => {
                    Err(ReadError::State(4 + 4 * index))
                }
                Some(state) => Ok(Wish {
                    id: TpgId(u16::from_be_bytes([descriptor[2], descriptor[3]])),
                    state,
                }),
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_descriptor_is_read() {
        let wish = |id, state| Wish { id: TpgId(id), state };
        assert_eq!(
            decode(&[0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 1, 2]),
            Ok(vec![
                wish(1, AccessState::ActiveOptimized),
                wish(0x102, AccessState::Standby)
            ])
        );
        assert_eq!(decode(&[0; 4]), Ok(vec![]));
    }

    #[test]
    fn i12_bad_lists_are_refused() {
        assert_eq!(decode(&[]), Err(ReadError::Length(0)));
        assert_eq!(decode(&[0; 7]), Err(ReadError::Length(7)));
        assert_eq!(
            decode(&[0, 0, 0, 0, 0, 0, 0, 1, 0x0f, 0, 0, 2]),
            Err(ReadError::State(8))
        );
        assert_eq!(decode(&[0, 0, 0, 0, 4, 0, 0, 1]), Err(ReadError::State(4)));
    }

    proptest! {
        #![proptest_config(crate::seeded::seeded())]

        #[test]
        fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(wishes) = decode(&data) {
                prop_assert_eq!(wishes.len() * 4 + 4, data.len());
            }
        }
    }
}
