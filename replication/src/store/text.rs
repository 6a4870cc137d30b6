//! Small texts that an administrator can read: a first line with a name and a version, lines of a key and a value, and a check over all
//! of them at the end.

use std::path::Path;

use super::StoreError;

/// The first 16 hexadecimal digits of BLAKE3.
pub(super) fn check_of(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

/// Puts the check at the end.
pub(super) fn seal(text: &mut String) {
    let check = check_of(text);
    *text += &format!("check {check}\n");
}

/// Such a text, whole and of a version that is known.
#[derive(Debug)]
pub(super) struct Sealed<'a> {
    path: &'a Path,
    /// What it is, before what is wrong with it.
    what: &'static str,
    pub(super) version: u32,
    body: &'a str,
}

impl<'a> Sealed<'a> {
    /// Reads a text that begins with `magic` and a version, `known` at most.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Damaged`].
    pub(super) fn read(
        path: &'a Path,
        bytes: &'a [u8],
        (magic, known): (&str, u32),
        what: &'static str,
    ) -> Result<Self, StoreError> {
        let damaged = |why: &str| StoreError::damaged(path, format!("{what}{why}"));
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let version = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix(magic))
            .and_then(|rest| rest.trim().parse::<u32>().ok())
            .ok_or_else(|| damaged("its first line has no version"))?;
        if version > known {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                found: version,
                known,
            });
        }
        let (body, check) = text
            .trim_end()
            .rsplit_once("check ")
            .ok_or_else(|| damaged("its check is missing"))?;
        if check != check_of(body) {
            return Err(damaged("its check does not match"));
        }
        Ok(Self {
            path,
            what,
            version,
            body,
        })
    }

    /// What is wrong with it.
    pub(super) fn damaged(&self, why: &str) -> StoreError {
        StoreError::damaged(self.path, format!("{}{why}", self.what))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError::Damaged`]: there is none.
    pub(super) fn field(&self, key: &str) -> Result<&'a str, StoreError> {
        self.body
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
            .ok_or_else(|| self.damaged("a line is missing"))
    }
}
