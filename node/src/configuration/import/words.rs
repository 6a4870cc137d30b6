//! Names of others made into names here.

use holdfast_raft::model::{NAME_MAX, check_name};

use super::super::document::ChapName;

/// A name that is allowed here and not taken, as close to `text` as can be.
pub(super) fn name(text: &str, taken: &[&str]) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') => c,
        _ => '-',
    };
    let mapped: String = text.chars().map(plain).collect();
    let stem = mapped.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let stem: String = stem.chars().take(NAME_MAX - 5).collect();
    let stem = if check_name(&stem).is_ok() {
        stem
    } else {
        "unnamed".to_owned()
    };
    if !taken.contains(&stem.as_str()) {
        return stem;
    }
    let mut numbered = (2..).map(|number: u32| format!("{stem}-{number}"));
    // There are more numbers than names.
    let free = numbered.find(|name| !taken.contains(&name.as_str()));
    free.unwrap_or(stem)
}

/// What stands behind the naming authority of an iSCSI name.
pub(super) fn tail(iqn: &str) -> &str {
    iqn.split_once(':').map_or(iqn, |(_, tail)| tail)
}

/// A CHAP name whose secret is to be put into a file by hand.
pub(super) fn chap(name: &str) -> ChapName {
    ChapName {
        name: name.to_owned(),
        secret_file: Some(format!("{}.secret", self::name(name, &[]))),
    }
}
