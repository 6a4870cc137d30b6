//! Probes: datagrams with which the way between two nodes is measured, of any size.
//!
//! Whoever asks draws nothing himself: the other end gives him a number over a connection that is proven, and answers datagrams that carry
//! it, for a while. So nobody else gets an answer. An answer is as short as the shortest question.
//!
//! Layout (version 1), numbers big-endian: `H P`, version, kind, the number (16 bytes), sequence (u32), length (u32), zeros up to that
//! length.

use std::time::Duration;

use holdfast_types::Mono;

/// Bytes of an answer, and of the shortest question.
pub const PROBE_MIN: usize = 28;
/// Bytes of the longest question: what a frame of 9000 bytes carries, and some more.
pub const PROBE_MAX: usize = 9_216;
/// For how long a number is answered after it was given.
pub const PROBED_FOR: Duration = Duration::from_secs(15);

const VERSION: u8 = 1;
const KIND_ASK: u8 = 1;
const KIND_ANSWER: u8 = 2;
/// Numbers that are answered at a time, at most: the oldest goes.
const NONCES_MAX: usize = 64;

/// What a question must carry to be answered.
pub type Nonce = [u8; 16];

/// An answer, as whoever asked reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Which question.
    pub seq: u32,
    /// Its length in bytes as it arrived.
    pub len: usize,
}

fn put(kind: u8, nonce: &Nonce, seq: u32, len: usize) -> [u8; PROBE_MIN] {
    let mut bytes = [0; PROBE_MIN];
    bytes[..4].copy_from_slice(&[b'H', b'P', VERSION, kind]);
    bytes[4..20].copy_from_slice(nonce);
    bytes[20..24].copy_from_slice(&seq.to_be_bytes());
    // A datagram has at most 65,535 bytes.
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    bytes[24..].copy_from_slice(&len.to_be_bytes());
    bytes
}

fn take(bytes: &[u8], kind: u8) -> Option<(Nonce, u32, usize)> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let (nonce, rest) = rest.split_first_chunk::<16>()?;
    let (seq, rest) = rest.split_first_chunk::<4>()?;
    let (len, _) = rest.split_first_chunk::<4>()?;
    let is_one = *head == [b'H', b'P', VERSION, kind];
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    is_one.then_some((*nonce, u32::from_be_bytes(*seq), len))
}

/// A question of `len` bytes, which is taken as at least [`PROBE_MIN`] and at most [`PROBE_MAX`].
pub fn ask(nonce: &Nonce, seq: u32, len: usize) -> Vec<u8> {
    let len = len.clamp(PROBE_MIN, PROBE_MAX);
    let mut bytes = put(KIND_ASK, nonce, seq, len).to_vec();
    bytes.resize(len, 0);
    bytes
}

/// Reads an answer to a question with this number; anything else is `None`.
pub fn answered(bytes: &[u8], nonce: &Nonce) -> Option<Answered> {
    let (of, seq, len) = take(bytes, KIND_ANSWER)?;
    (bytes.len() == PROBE_MIN && of == *nonce).then_some(Answered { seq, len })
}

/// The numbers that are answered at present.
#[derive(Debug, Default)]
pub struct Nonces(Vec<(Nonce, Mono)>);

impl Nonces {
    /// From now on, for [`PROBED_FOR`], questions with this number are answered.
    pub fn add(&mut self, nonce: Nonce, now: Mono) {
        self.0.retain(|(_, until)| *until > now);
        if self.0.len() >= NONCES_MAX {
            self.0.remove(0);
        }
        self.0.push((nonce, now + PROBED_FOR));
    }

    /// When the last one is answered no more; `None` while none is.
    pub fn until(&self, now: Mono) -> Option<Mono> {
        let still = self
            .0
            .iter()
            .map(|(_, until)| *until)
            .filter(|until| *until > now);
        still.max()
    }

    /// The answer to what came; `None` where it is no question, or not one that is answered.
    pub fn answer(&self, bytes: &[u8], now: Mono) -> Option<[u8; PROBE_MIN]> {
        let (nonce, seq, len) = take(bytes, KIND_ASK)?;
        let known = self
            .0
            .iter()
            .any(|(known, until)| *known == nonce && *until > now);
        (known && len == bytes.len()).then(|| put(KIND_ANSWER, &nonce, seq, len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: Nonce = [7; 16];

    #[test]
    fn what_is_asked_with_a_known_number_is_answered_for_a_while_and_says_how_long_it_was() {
        let mut nonces = Nonces::default();
        let now = Mono::ZERO + Duration::from_secs(5);
        let question = ask(&NONCE, 9, 1472);
        assert_eq!(question.len(), 1472);
        assert_eq!(nonces.answer(&question, now), None, "a stranger's");
        nonces.add(NONCE, now);
        let answer = nonces.answer(&question, now).unwrap();
        assert_eq!(answered(&answer, &NONCE), Some(Answered { seq: 9, len: 1472 }));
        assert_eq!(answered(&answer, &[8; 16]), None);
        assert_eq!(answered(&question, &NONCE), None, "a question is no answer");
        // Cut on the way, or an answer that is sent back: nobody is answered for ever.
        assert_eq!(nonces.answer(&question[..1000], now), None);
        assert_eq!(nonces.answer(&answer, now), None);
        assert_eq!(nonces.until(now), Some(now + PROBED_FOR));
        assert_eq!(nonces.answer(&question, now + PROBED_FOR), None);
        assert_eq!(nonces.until(now + PROBED_FOR), None);
    }

    #[test]
    fn the_newest_numbers_are_kept_and_no_more_than_a_few() {
        let mut nonces = Nonces::default();
        for number in 0..200 {
            nonces.add([number; 16], Mono::ZERO);
        }
        assert_eq!(nonces.0.len(), NONCES_MAX);
        assert!(nonces.answer(&ask(&[199; 16], 1, 0), Mono::ZERO).is_some());
        assert!(nonces.answer(&ask(&[0; 16], 1, 0), Mono::ZERO).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_are_answered_longer_than_they_are(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut nonces = Nonces::default();
            nonces.add(NONCE, Mono::ZERO);
            let mut known = bytes.clone();
            if known.len() >= 20 {
                known[..4].copy_from_slice(&[b'H', b'P', VERSION, KIND_ASK]);
                known[4..20].copy_from_slice(&NONCE);
            }
            for bytes in [bytes, known] {
                if let Some(answer) = nonces.answer(&bytes, Mono::ZERO) {
                    prop_assert!(answer.len() <= bytes.len());
                }
            }
        }
    }
}
