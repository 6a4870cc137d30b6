//! Secrets as they stand in the cluster state: sealed with a key that is not part of it.
//!
//! The key is in a file of its own on each node. So whoever gets hold of a snapshot, a Raft log, a support bundle or what travels between
//! nodes has names but no secrets. It does not protect against who can read the key's file too (root on a node): CHAP needs the secret
//! itself on every node that lets initiators in.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use holdfast_types::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use holdfast_types::{hex, unhex};

const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
/// Longest sealed secret in bytes: nonce, the longest secret, and the seal of 16 bytes.
const SEALED_BYTES_MAX: usize = NONCE_BYTES + holdfast_types::SECRET_BYTES_MAX + 16;

/// Which key a cluster seals with: a hash of it, so that a node with another key knows that it has the wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeyId(u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for KeyId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(&text, 16)
            .ok()
            .filter(|_| fits)
            .map(Self)
            .ok_or_else(|| "a key id has 16 hexadecimal digits".to_owned())
    }
}

/// The key that a cluster's secrets are sealed with. Shown by nothing but [`Self::to_text`].
#[derive(Clone)]
pub struct ClusterKey(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({})", self.id())
    }
}

impl ClusterKey {
    /// Out of random bytes.
    pub fn from_random(random: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(random))
    }

    /// As it is kept and handed over: 64 hexadecimal digits.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(hex(self.0.as_slice()))
    }

    /// Reads what [`Self::to_text`] wrote; `None` for anything else.
    pub fn from_text(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(unhex(text)?);
        let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().ok()?;
        Some(Self::from_random(key))
    }

    /// As what certificates and heartbeats are proven with.
    pub fn to_trust(&self) -> holdfast_trust::Key {
        holdfast_trust::Key::new(*self.0)
    }

    /// Which key it is.
    pub fn id(&self) -> KeyId {
        let hash = Sha256::new()
            .chain_update(b"holdfast cluster key 1")
            .chain_update(self.0.as_slice())
            .finalize();
        let first = hash.first_chunk::<8>().expect("a SHA-256 has 32 bytes");
        KeyId(u64::from_be_bytes(*first))
    }

    /// Seals a secret for one `place` (whose it is): moved to another place it does not open. `nonce` is random and used once.
    pub fn seal(&self, secret: &Secret, place: &str, nonce: [u8; NONCE_BYTES]) -> SealedSecret {
        let payload = Payload {
            msg: secret.expose(),
            aad: place.as_bytes(),
        };
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a secret is far shorter than what this cipher can seal");
        SealedSecret([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed for this place with this key; `None` for anything else.
    pub fn open(&self, sealed: &SealedSecret, place: &str) -> Option<Secret> {
        let (nonce, text) = sealed.0.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload {
            msg: text,
            aad: place.as_bytes(),
        };
        let bytes = self.cipher().decrypt(&XNonce::from(*nonce), payload).ok()?;
        Secret::new(bytes).ok()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(
            self.0
                .as_slice()
                .try_into()
                .expect("the key has its length by its type"),
        )
    }
}

/// A secret that only the cluster's key opens: 24 bytes of nonce, then ciphertext and tag (XChaCha20-Poly1305), in hexadecimal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SealedSecret(Vec<u8>);

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedSecret")
    }
}

impl From<SealedSecret> for String {
    fn from(sealed: SealedSecret) -> Self {
        hex(&sealed.0)
    }
}

impl TryFrom<String> for SealedSecret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = unhex(&text).filter(|bytes| bytes.len() <= SEALED_BYTES_MAX);
        bytes
            .map(Self)
            .ok_or_else(|| "a sealed secret is written in hexadecimal".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(b"correct horse".to_vec()).unwrap()
    }

    fn key(byte: u8) -> ClusterKey {
        ClusterKey::from_random([byte; 32])
    }

    #[test]
    fn a_sealed_secret_opens_with_its_key_in_its_place_only() {
        let sealed = key(1).seal(&secret(), "group a, user u", [7; 24]);
        assert_eq!(key(1).open(&sealed, "group a, user u"), Some(secret()));
        assert_eq!(key(2).open(&sealed, "group a, user u"), None);
        assert_eq!(key(1).open(&sealed, "group b, user u"), None);
    }

    #[test]
    fn a_spoilt_seal_does_not_open() {
        let sealed = key(1).seal(&secret(), "p", [7; 24]);
        for at in 0..sealed.0.len() {
            let mut spoilt = sealed.clone();
            spoilt.0[at] ^= 1;
            assert_eq!(key(1).open(&spoilt, "p"), None, "byte {at}");
            spoilt.0.truncate(at);
            assert_eq!(key(1).open(&spoilt, "p"), None, "cut at {at}");
        }
    }

    #[test]
    fn what_is_stored_shows_no_secret_and_reads_back() {
        let sealed = key(1).seal(&secret(), "p", [7; 24]);
        let json = serde_json::to_string(&sealed).unwrap();
        assert!(
            !json.contains("horse") && !json.contains(&hex(b"horse")),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<SealedSecret>(&json).unwrap(), sealed);
        assert_eq!(format!("{sealed:?}"), "SealedSecret");
        for bad in ["\"1\"", "\"zz\"", "7"] {
            assert!(serde_json::from_str::<SealedSecret>(bad).is_err(), "{bad}");
        }
        let long = format!("\"{}\"", "00".repeat(SEALED_BYTES_MAX + 1));
        assert!(serde_json::from_str::<SealedSecret>(&long).is_err());
    }

    #[test]
    fn keys_read_back_and_are_told_apart() {
        let one = key(1);
        let again = ClusterKey::from_text(&one.to_text()).unwrap();
        assert_eq!(again.id(), one.id());
        assert_ne!(key(2).id(), one.id());
        assert!(!format!("{one:?}").contains(&*one.to_text()));
        assert!(ClusterKey::from_text("12").is_none() && ClusterKey::from_text(&"g".repeat(64)).is_none());
        let id: KeyId = serde_json::from_str(&serde_json::to_string(&one.id()).unwrap()).unwrap();
        assert_eq!(id, one.id());
    }
}
