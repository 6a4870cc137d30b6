//! Generations of the cluster's certificates, and what is derived for each of them.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const AUTHORITY: &str = "holdfast 2026 certificate authority";
const HEARTBEAT: &str = "holdfast 2026 authenticated heartbeats";
const JOIN: &str = "holdfast 2026 certificate authority of one token";

/// 256 secret bits. Never shown.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Of its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes, for who hands it over or keeps it.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(&self, context: &str, generation: &Generation) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.0.as_slice());
        hasher.update(&generation.number.to_be_bytes());
        hasher.update(&(generation.salt.len() as u64).to_be_bytes());
        hasher.update(generation.salt.as_bytes());
        Self::new(*hasher.finalize().as_bytes())
    }

    /// What the authority's private key of a generation is made of.
    pub(crate) fn of_authority(&self, generation: &Generation) -> Self {
        self.derive(AUTHORITY, generation)
    }

    /// What heartbeats of a generation are authenticated with.
    pub(crate) fn of_heartbeats(&self, generation: &Generation) -> Self {
        self.derive(HEARTBEAT, generation)
    }

    /// What the authority of a token is made of; `self` is the token's key.
    pub(crate) fn of_join(&self) -> Self {
        Self::new(blake3::derive_key(JOIN, self.0.as_slice()))
    }
}

/// One generation of a cluster's certificates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation {
    /// Counts from 1.
    pub number: u64,
    /// Drawn when the generation is made, and known to the members alone; empty for the first one. Without it, who has an old copy of the
    /// cluster key cannot make certificates of this generation.
    #[serde(default)]
    pub salt: String,
}

impl Generation {
    /// That of a new cluster.
    pub const fn first() -> Self {
        Self {
            number: 1,
            salt: String::new(),
        }
    }
}

/// Which generations count at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generations {
    /// This node shows certificates of it.
    pub present: Generation,
    /// Taken from others as well, while a rotation goes on.
    #[serde(default)]
    pub also: Option<Generation>,
}

impl Default for Generations {
    fn default() -> Self {
        Self {
            present: Generation::first(),
            also: None,
        }
    }
}

impl Generations {
    /// All that count, the one that is shown first.
    pub fn all(&self) -> impl Iterator<Item = &Generation> {
        std::iter::once(&self.present).chain(&self.also)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_makes_another_key() {
        let key = Key::new([1; 32]);
        let one = Generation::first();
        let two = Generation {
            number: 2,
            ..one.clone()
        };
        let salted = Generation {
            salt: "5a".into(),
            ..two.clone()
        };
        let derived = [
            key.of_authority(&one),
            key.of_authority(&two),
            key.of_authority(&salted),
            key.of_heartbeats(&one),
            key.of_join(),
            Key::new([2; 32]).of_authority(&one),
        ];
        for (at, a) in derived.iter().enumerate() {
            assert!(derived[at + 1..].iter().all(|b| a.expose() != b.expose()), "{at}");
            assert_ne!(a.expose(), key.expose());
        }
        assert_eq!(
            key.of_authority(&salted).expose(),
            Key::new([1; 32]).of_authority(&salted).expose()
        );
        assert_eq!(format!("{key:?}"), "Key");
    }
}
