//! What heartbeats are authenticated with: a keyed hash (BLAKE3) over the whole datagram.

use crate::Key;

/// Bytes of the hash at the end of a datagram.
pub const MAC_LEN: usize = 32;

/// The keys that count at present.
#[derive(Debug, Clone)]
pub struct MacKeys {
    keys: Vec<Key>,
}

impl MacKeys {
    /// The first one signs; all are taken.
    pub(crate) fn new(first: Key, others: impl IntoIterator<Item = Key>) -> Self {
        let mut keys = vec![first];
        keys.extend(others);
        Self { keys }
    }

    /// For tests: one key.
    pub fn single(key: Key) -> Self {
        Self::new(key, [])
    }

    /// The hash over `bytes`.
    pub fn sign(&self, bytes: &[u8]) -> [u8; MAC_LEN] {
        // There is one at least, by how it is made.
        let key = self.keys.first().map_or(&[0; 32], |key| key.expose());
        *blake3::keyed_hash(key, bytes).as_bytes()
    }

    /// Whether a member has signed `bytes` so.
    pub fn verify(&self, bytes: &[u8], mac: &[u8; MAC_LEN]) -> bool {
        // Compared in constant time.
        self.keys
            .iter()
            .any(|key| blake3::keyed_hash(key.expose(), bytes) == *mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_that_counts_signs() {
        let (old, new) = (Key::new([1; 32]), Key::new([2; 32]));
        let both = MacKeys::new(new.clone(), [old.clone()]);
        let mac = MacKeys::single(old.clone()).sign(b"alive");
        assert!(both.verify(b"alive", &mac) && !both.verify(b"alivf", &mac));
        assert!(!MacKeys::single(new.clone()).verify(b"alive", &mac));
        assert!(MacKeys::single(new).verify(b"alive", &both.sign(b"alive")));
        assert!(!MacKeys::single(old).verify(b"alive", &both.sign(b"alive")));
    }
}
