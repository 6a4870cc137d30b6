//! Text: `key=value` pairs, each ended by a zero byte (RFC 7143, 6.1), which may be split over several PDUs (the C bit).

/// Longest key name in bytes (RFC 7143, 6.1).
const KEY_MAX: usize = 63;
/// Most pairs of one text. Far more than there are keys; each may cost an answer.
const PAIRS_MAX: usize = 256;

/// Why a text cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A text, put together from its PDUs, is too long.
    #[error("text of more than {0} bytes")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("text is not UTF-8")]
    Encoding,
    /// A pair without '='.
    #[error("text without '='")]
    NoEquals,
    /// A key of no or more than 63 bytes, or with a character that keys do not have.
    #[error("not a key name")]
    Key,
    /// More pairs than anybody needs.
    #[error("more than {PAIRS_MAX} keys")]
    TooMany,
}

/// Reads all pairs, in order. A zero byte missing at the end, and more zero bytes than needed, are forgiven.
///
/// # Errors
/// [`TextError`]: what is wrong.
pub fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, TextError> {
    parse_up_to(bytes, PAIRS_MAX)
}

/// Reads all pairs without a bound on their number: for answers to SendTargets, whose length is bounded.
///
/// # Errors
/// [`TextError`]: what is wrong.
pub fn parse_many(bytes: &[u8]) -> Result<Vec<(String, String)>, TextError> {
    parse_up_to(bytes, usize::MAX)
}

fn parse_up_to(bytes: &[u8], max: usize) -> Result<Vec<(String, String)>, TextError> {
    let mut pairs = Vec::new();
    for part in bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty()) {
        if pairs.len() == max {
            return Err(TextError::TooMany);
        }
        let part = std::str::from_utf8(part).map_err(|_| TextError::Encoding)?;
        let (key, value) = part.split_once('=').ok_or(TextError::NoEquals)?;
        if !is_key(key) {
            return Err(TextError::Key);
        }
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// A standard-label of RFC 7143 (6.1), without its demand for a capital letter at the start: such a key is merely not understood.
fn is_key(key: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+' | b'@' | b'_' | b'/');
    (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(allowed)
}

/// Adds a pair to a text.
pub fn put(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// Writes pairs in order.
pub fn emit<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in pairs {
        put(&mut text, key.as_ref(), value.as_ref());
    }
    text
}

/// Puts a text together from the data segments of several PDUs.
#[derive(Debug)]
pub struct Assembler {
    text: Vec<u8>,
    max: usize,
}

impl Assembler {
    /// For texts of up to `max` bytes.
    pub const fn new(max: usize) -> Self {
        Self {
            text: Vec::new(),
            max,
        }
    }

    /// Adds a data segment.
    ///
    /// # Errors
    /// [`TextError::TooLong`].
    pub fn push(&mut self, segment: &[u8]) -> Result<(), TextError> {
        if self.text.len() + segment.len() > self.max {
            return Err(TextError::TooLong(self.max));
        }
        self.text.extend_from_slice(segment);
        Ok(())
    }

    /// Takes the whole text, unread, and starts over.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    /// Reads the whole text and starts over.
    ///
    /// # Errors
    /// [`TextError`], as for [`parse`].
    pub fn finish(&mut self) -> Result<Vec<(String, String)>, TextError> {
        parse(&self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn pairs_are_read_in_order() {
        assert_eq!(
            parse(b"A=1\0B=x=y\0C=\0"),
            Ok(owned(&[("A", "1"), ("B", "x=y"), ("C", "")]))
        );
        assert_eq!(parse(b"A=1\0\0\0"), Ok(owned(&[("A", "1")])));
        assert_eq!(parse(b"A=1"), Ok(owned(&[("A", "1")])));
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert_eq!(parse(b"A\0"), Err(TextError::NoEquals));
        assert_eq!(parse(b"=1\0"), Err(TextError::Key));
        assert_eq!(parse(b"A B=1\0"), Err(TextError::Key));
        assert_eq!(parse(b"A=\xff\0"), Err(TextError::Encoding));
        assert_eq!(
            parse(format!("{}=1\0", "k".repeat(64)).as_bytes()),
            Err(TextError::Key)
        );
        assert_eq!(parse(&b"A=1\0".repeat(257)), Err(TextError::TooMany));
    }

    #[test]
    fn a_text_may_not_grow_without_end() {
        let mut text = Assembler::new(10);
        assert_eq!(text.push(b"A=12345"), Ok(()));
        assert_eq!(text.push(b"6789"), Err(TextError::TooLong(10)));
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(pairs in prop::collection::vec(("[A-Z][a-zA-Z0-9]{0,20}", "[ -~]{0,40}"), 0..20), at in 0usize..500) {
            let text = emit(&pairs);
            let (first, second) = text.split_at(at.min(text.len()));
            let mut assembler = Assembler::new(8192);
            assembler.push(first).unwrap();
            assembler.push(second).unwrap();
            prop_assert_eq!(assembler.finish().unwrap(), pairs);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&bytes));
        }
    }
}
