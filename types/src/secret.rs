//! Secrets that are shared with initiators.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Shortest secret in bytes: 96 bits (RFC 7143, 9.2.1).
pub const SECRET_BYTES_MIN: usize = 12;
/// Longest secret in bytes. RFC 7143 asks for at least 16; initiators in use go up to 255.
pub const SECRET_BYTES_MAX: usize = 255;

/// A CHAP secret: 12 to 255 bytes. Nothing shows it: `Debug` prints a placeholder, there is no `Display` and no serialization, and its
/// memory is overwritten when it is dropped. Comparing takes the same time whatever the contents.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why a text is no secret. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too short or too long.
    #[error("a CHAP secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, this one {0}")]
    Length(usize),
    /// A line break or another control character: nobody types these, and configuration files of initiators cannot hold them.
    #[error("a CHAP secret has no control characters")]
    Control,
}

impl Secret {
    /// Takes a secret over.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes);
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(SecretError::Length(bytes.len()));
        }
        if bytes.iter().any(u8::is_ascii_control) {
            return Err(SecretError::Control);
        }
        Ok(Self(bytes))
    }

    /// The secret itself, for hashing and sealing only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_characters_are_checked() {
        assert_eq!(Secret::new(b"elevenbytes".to_vec()), Err(SecretError::Length(11)));
        assert_eq!(Secret::new(vec![b'x'; 256]), Err(SecretError::Length(256)));
        assert_eq!(
            Secret::new(b"with a line\nbreak".to_vec()),
            Err(SecretError::Control)
        );
        assert!(Secret::new(vec![b'x'; 12]).is_ok() && Secret::new(vec![b'x'; 255]).is_ok());
    }

    #[test]
    fn nothing_shows_a_secret() {
        let secret = Secret::new(b"correct horse battery".to_vec()).unwrap();
        let shown = format!("{secret:?} {:?}", Some(&secret));
        assert!(!shown.contains("horse"), "{shown}");
        assert!(shown.contains("hidden"));
    }

    #[test]
    fn equal_secrets_are_equal() {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec()).unwrap();
        assert_eq!(secret("correct horse"), secret("correct horse"));
        assert_ne!(secret("correct horse"), secret("correct house"));
        assert_ne!(secret("correct horse"), secret("correct horses"));
    }
}
