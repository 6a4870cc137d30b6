//! When an extent was scrubbed last, and what that found: `extents/<uuid>.scrub`, one line of text:
//!
//! ```text
//! holdfast-scrub 1 1764028800 took 16 found 3 repaired 3 lost 0 diverged 0 check 6d0c0f2a9b1e4c55
//! ```
//!
//! that is seconds since 1970, seconds, four counts, and the start of BLAKE3 over what stands before it. Where the extent was never
//! scrubbed, it has the time at which this node first saw it, and `never` for all behind. Whatever cannot be read counts
//! as not known.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_types::ExtentId;

use super::StoreError;
use super::extent_meta::replace_file;
use super::text::check_of;
use crate::core::api::ScrubOutcome;

const MAGIC: &str = "holdfast-scrub 1 ";

/// The last scrub of an extent that this node knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastScrub {
    /// When it ended, in seconds since 1970; or when this node first was to scrub the extent.
    pub at: u64,
    /// What it found; `None` where there was none yet.
    pub outcome: Option<ScrubOutcome>,
}

pub(super) fn scrub_path(dir: &Path, id: ExtentId) -> PathBuf {
    dir.join(format!("{id}.scrub"))
}

fn text_of(last: &LastScrub) -> String {
    let outcome = match &last.outcome {
        None => "never".to_owned(),
        Some(it) => format!(
            "took {} found {} repaired {} lost {} diverged {}",
            it.took.as_secs(),
            it.found,
            it.repaired,
            it.lost,
            it.diverged
        ),
    };
    let text = format!("{MAGIC}{} {outcome} check ", last.at);
    format!("{text}{}\n", check_of(&text))
}

fn parse(text: &str) -> Option<LastScrub> {
    let (body, check) = text.trim_end_matches('\n').rsplit_once(' ')?;
    (check == check_of(&format!("{body} "))).then_some(())?;
    let mut words = body.strip_prefix(MAGIC)?.split(' ');
    let at = words.next()?.parse().ok()?;
    let rest: Vec<&str> = words.collect();
    let outcome = match rest[..] {
        ["never", "check"] => None,
        [
            "took",
            took,
            "found",
            found,
            "repaired",
            repaired,
            "lost",
            lost,
            "diverged",
            diverged,
            "check",
        ] => Some(ScrubOutcome {
            took: Duration::from_secs(took.parse().ok()?),
            found: found.parse().ok()?,
            repaired: repaired.parse().ok()?,
            lost: lost.parse().ok()?,
            diverged: diverged.parse().ok()?,
        }),
        _ => return None,
    };
    Some(LastScrub { at, outcome })
}

/// What is known of the last scrub. A file that is there and cannot be read is said, in one line.
pub(crate) fn load_scrubbed(dir: &Path, id: ExtentId) -> Option<LastScrub> {
    let path = scrub_path(dir, id);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(extent = %id, path = %path.display(), %error, "the note of the last scrub cannot be read");
            return None;
        }
    };
    let last = std::str::from_utf8(&bytes).ok().and_then(parse);
    if last.is_none() {
        tracing::warn!(extent = %id, path = %path.display(), "the note of the last scrub is damaged: it counts as not known");
    }
    last
}

/// Notes it, stable on return.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn store_scrubbed(dir: &Path, id: ExtentId, last: &LastScrub) -> Result<(), StoreError> {
    replace_file(dir, &scrub_path(dir, id), text_of(last).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_known_and_no_flipped_bit_is() {
        let dir = tempfile::tempdir().unwrap();
        let id = ExtentId::from_u128(3);
        assert_eq!(load_scrubbed(dir.path(), id), None);
        let never = LastScrub {
            at: 76,
            outcome: None,
        };
        store_scrubbed(dir.path(), id, &never).unwrap();
        assert_eq!(load_scrubbed(dir.path(), id), Some(never));
        let outcome = Some(ScrubOutcome {
            took: Duration::from_secs(5),
            found: 4,
            repaired: 3,
            lost: 2,
            diverged: 1,
        });
        let last = LastScrub { at: 77, outcome };
        store_scrubbed(dir.path(), id, &last).unwrap();
        assert_eq!(load_scrubbed(dir.path(), id), Some(last));
        let whole = std::fs::read(scrub_path(dir.path(), id)).unwrap();
        for bit in 0..(whole.len() - 1) * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(scrub_path(dir.path(), id), &bytes).unwrap();
            assert_eq!(load_scrubbed(dir.path(), id), None, "bit {bit}");
        }
    }
}
