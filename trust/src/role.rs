//! What somebody who administers a cluster may do, and how he is called in his certificate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of who administers, in characters.
pub const ADMIN_NAME_MAX: usize = 32;

/// What somebody may do with a cluster. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminRole {
    /// Nothing: for a certificate that only opens the connection, where an API token decides.
    None,
    /// Sees everything but secrets.
    Viewer,
    /// Also does what is daily and undone easily.
    Operator,
    /// Does everything.
    Admin,
}

impl AdminRole {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::None, Self::Viewer, Self::Operator, Self::Admin];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for AdminRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for AdminRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let role = Self::ALL.into_iter().find(|role| role.word() == text);
        role.ok_or_else(|| format!("'{text}' is no role: it is none, viewer, operator or admin"))
    }
}

/// Whether somebody may be called that: it is part of a DNS name in his certificate.
///
/// # Errors
/// One line: what is allowed.
pub fn check_admin_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=ADMIN_NAME_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        return Ok(());
    }
    Err(format!(
        "'{name}' cannot be the name of who administers: it is 1 to {ADMIN_NAME_MAX} of a-z, 0-9 and -, with no - at its ends"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_in_order_and_read_back() {
        assert!(AdminRole::ALL.is_sorted());
        for role in AdminRole::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!(
            "root"
                .parse::<AdminRole>()
                .unwrap_err()
                .contains("operator or admin")
        );
    }

    #[test]
    fn names_are_those_that_a_certificate_can_carry() {
        for good in ["a", "nagios", "jane-doe-2", &"n".repeat(ADMIN_NAME_MAX)] {
            assert_eq!(check_admin_name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "-",
            "-a",
            "a-",
            "A",
            "a.b",
            "a b",
            "ä",
            &"n".repeat(ADMIN_NAME_MAX + 1),
        ] {
            assert!(check_admin_name(bad).is_err(), "{bad}");
        }
    }
}
