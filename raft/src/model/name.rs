//! Names that people give to clusters, nodes and extents.

use super::reply::Refusal;

/// Longest name, in bytes.
pub const NAME_MAX: usize = 63;

/// Checks a name: 1 to 63 lower-case letters, digits, `-`, `_` and `.`, starting with a letter or digit. Such names stand in commands,
/// file names and metrics without quoting.
///
/// # Errors
/// [`Refusal::BadName`] with the reason.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let bad = |why: &str| {
        Err(Refusal::BadName {
            name: name.chars().take(NAME_MAX + 1).collect(),
            why: why.to_owned(),
        })
    };
    if name.is_empty() || name.len() > NAME_MAX {
        return bad("it needs 1 to 63 characters");
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        return bad("it starts with a lower-case letter or a digit");
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
    {
        return bad("it has lower-case letters, digits, '-', '_' and '.' only");
    }
    Ok(())
}
