//! CHAP (RFC 7143, 12.1.3; RFC 1994): algorithms, challenges and responses. No randomness is drawn here: it comes in.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use holdfast_types::{Secret, hex, unhex};
use subtle::ConstantTimeEq;

/// Longest challenge and response in bytes that a key may carry (RFC 7143, 12.1.3).
pub const BINARY_MAX: usize = 1024;
/// Bytes of a challenge of ours: as many as the longest digest has.
pub const CHALLENGE_BYTES: usize = 32;

/// A digest, by its number in CHAP_A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// 5: MD5, which every initiator has.
    Md5,
    /// 6: SHA-1.
    Sha1,
    /// 7: SHA-256.
    Sha256,
    /// 8: SHA3-256.
    Sha3256,
}

impl Algorithm {
    /// All of them, weakest first.
    pub const ALL: [Self; 4] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha3256];

    /// The number in CHAP_A.
    pub const fn number(self) -> u8 {
        match self {
            Self::Md5 => 5,
            Self::Sha1 => 6,
            Self::Sha256 => 7,
            Self::Sha3256 => 8,
        }
    }

    /// The algorithm of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| u32::from(algorithm.number()) == number)
    }

    /// Picks from a list as CHAP_A offers it: the initiator's first choice that is known here.
    pub fn pick(list: &str) -> Option<Self> {
        list.split(',')
            .filter_map(crate::negotiate::number)
            .find_map(Self::from_number)
    }

    /// The response to a challenge: the digest of identifier, secret and challenge (RFC 1994, 4.1).
    pub fn response(self, id: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
        let parts = [&[id], secret.expose(), challenge];
        match self {
            Self::Md5 => digest::<md5::Md5>(parts),
            Self::Sha1 => digest::<sha1::Sha1>(parts),
            Self::Sha256 => digest::<sha2::Sha256>(parts),
            Self::Sha3256 => digest::<sha3::Sha3_256>(parts),
        }
    }
}

fn digest<D: md5::Digest>(parts: [&[u8]; 3]) -> Vec<u8> {
    let mut digest = D::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().to_vec()
}

/// What is asked of a peer: an identifier and random bytes, used once.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    /// CHAP_I.
    pub id: u8,
    /// CHAP_C.
    pub bytes: [u8; CHALLENGE_BYTES],
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Challenge({})", self.id)
    }
}

impl Challenge {
    /// Out of random bytes, which must be unpredictable and never given twice.
    pub fn from_random(random: [u8; CHALLENGE_BYTES + 1]) -> Self {
        let [id, rest @ ..] = random;
        Self { id, bytes: rest }
    }

    /// Whether `response` answers it. Takes the same time wherever they differ.
    pub fn is_answered(&self, algorithm: Algorithm, secret: &Secret, response: &[u8]) -> bool {
        algorithm
            .response(self.id, secret, &self.bytes)
            .ct_eq(response)
            .into()
    }
}

/// Reads a binary value: hexadecimal behind `0x`, or base64 behind `0b` (RFC 7143, 6.1). `None` for what is neither, for nothing, and for
/// more than [`BINARY_MAX`] bytes.
pub fn decode(value: &str) -> Option<Vec<u8>> {
    let (kind, digits) = value.split_at_checked(2)?;
    if digits.is_empty() || digits.len() > 2 * BINARY_MAX {
        return None;
    }
    let bytes = match kind {
        "0x" | "0X" => unhex(digits)?,
        "0b" | "0B" => BASE64.decode(digits).ok()?,
        _ => return None,
    };
    (1..=BINARY_MAX).contains(&bytes.len()).then_some(bytes)
}

/// Writes a binary value in hexadecimal, which every initiator reads.
pub fn encode(bytes: &[u8]) -> String {
    format!("0x{}", hex(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec()).unwrap()
    }

    /// Made with Python's hashlib: md5(b'\x27' + b'correct horse' + bytes(range(16))) and so on.
    #[test]
    fn responses_are_those_of_other_implementations() {
        let challenge: Vec<u8> = (0..16).collect();
        for (algorithm, wanted) in [
            (Algorithm::Md5, "0xeec1f385a48e678f426be9ac56a0fb9d"),
            (Algorithm::Sha1, "0x81cebc05f098cc86dd7a97d405b0cc4beb296198"),
            (
                Algorithm::Sha256,
                "0xe259f49913d64ada392e13051a3d93ea707b91b39b4e99e1a1186f06bf9fc0d5",
            ),
            (
                Algorithm::Sha3256,
                "0x0f6ed50ed280c55096b677ebf07a98ea4a0d348ba3c49798b37768581c9cb334",
            ),
        ] {
            let response = algorithm.response(0x27, &secret("correct horse"), &challenge);
            assert_eq!(encode(&response), wanted);
        }
    }

    #[test]
    fn the_first_known_algorithm_of_a_list_is_picked() {
        assert_eq!(Algorithm::pick("5"), Some(Algorithm::Md5));
        assert_eq!(Algorithm::pick("7,5"), Some(Algorithm::Sha256));
        assert_eq!(Algorithm::pick("99,8,7"), Some(Algorithm::Sha3256));
        assert_eq!(Algorithm::pick("0x6"), Some(Algorithm::Sha1));
        for none in ["", "4", "md5", ",", "-5", "5 "] {
            assert_eq!(Algorithm::pick(none), None, "{none}");
        }
    }

    #[test]
    fn binary_values_come_in_both_ways() {
        assert_eq!(decode("0x00ffA5"), Some(vec![0, 0xff, 0xa5]));
        assert_eq!(decode("0bAP+l"), Some(vec![0, 0xff, 0xa5]));
        for bad in [
            "",
            "0x",
            "0b",
            "0x1",
            "0xgg",
            "1234",
            "0bA",
            "0b====",
            "x",
            "0\u{e9}12",
        ] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert!(decode(&encode(&[7; BINARY_MAX])).is_some());
        assert_eq!(decode(&encode(&[7; BINARY_MAX + 1])), None);
    }

    #[test]
    fn a_wrong_response_is_no_answer() {
        let challenge = Challenge::from_random([9; CHALLENGE_BYTES + 1]);
        let (right, wrong) = (secret("correct horse"), secret("correct house"));
        for algorithm in Algorithm::ALL {
            let response = algorithm.response(9, &right, &challenge.bytes);
            assert!(challenge.is_answered(algorithm, &right, &response));
            assert!(!challenge.is_answered(algorithm, &wrong, &response));
            assert!(!challenge.is_answered(algorithm, &right, &response[1..]));
            assert!(!challenge.is_answered(algorithm, &right, &[]));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            drop((decode(&text), Algorithm::pick(&text)));
        }
    }
}
