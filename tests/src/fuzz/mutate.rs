//! Changes to inputs, as fuzzers make them.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// Bytes at borders.
const BYTES: [u8; 8] = [0, 1, 0x10, 0x7f, 0x80, 0xc0, 0xfe, 0xff];
/// Numbers at borders, written big-endian in two, four and eight bytes.
const NUMBERS: [u64; 12] = [
    0,
    1,
    255,
    256,
    511,
    512,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0xffff,
    u64::MAX >> 1,
    u64::MAX,
];

/// A source of mutated inputs.
pub(super) struct Mutator {
    random: StdRng,
    words: &'static [&'static [u8]],
    max: usize,
}

impl Mutator {
    pub(super) fn new(seed: u64, words: &'static [&'static [u8]], max: usize) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            words,
            max,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound.max(1))
    }

    /// A new input out of known ones. `known` is not empty.
    pub(super) fn next(&mut self, known: &[Vec<u8>]) -> Vec<u8> {
        let mut input = known[self.below(known.len())].clone();
        for _ in 0..1 << self.below(5) {
            self.change(&mut input, known);
        }
        input.truncate(self.max);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, known: &[Vec<u8>]) {
        let at = self.below(input.len());
        let length = self.below(input.len() - at.min(input.len())).min(256);
        match self.below(10) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = BYTES[self.below(BYTES.len())],
            2 if !input.is_empty() => input[at] = u8::try_from(self.below(256)).unwrap_or(0),
            3 => drop(input.drain(at.min(input.len())..(at + length).min(input.len()))),
            4 => {
                let mut bytes = vec![0; self.below(32)];
                self.random.fill_bytes(&mut bytes);
                splice(input, at, &bytes);
            }
            5 => {
                let copy = input[at.min(input.len())..(at + length).min(input.len())].to_vec();
                splice(input, at, &copy);
            }
            6 => {
                let number = NUMBERS[self.below(NUMBERS.len())].to_be_bytes();
                let width = 2 << self.below(3);
                overwrite(input, at, &number[8 - width..]);
            }
            7 if !self.words.is_empty() => {
                let word = self.words[self.below(self.words.len())];
                splice(input, at, word);
            }
            8 => {
                let other = &known[self.below(known.len())];
                let from = self.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(at),
        }
    }
}

fn splice(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let at = at.min(input.len());
    input.splice(at..at, bytes.iter().copied());
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in input.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}
