//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes; reads `1G`, `1GiB`, `1.5T`, `1073741824`. Every unit is a power of 1024, as with other storage tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with an optional unit.
    #[error("'{0}' is not a size; write for example 512M, 20G, 1.5TiB or a number of bytes")]
    Syntax(String),
    /// Not a whole number of bytes, or more than 2^63.
    #[error("'{0}' is not a whole number of bytes below 8 EiB")]
    Range(String),
}

const UNITS: [(&str, u32); 6] = [("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50), ("E", 60)];

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || SizeError::Syntax(text.chars().take(64).collect());
        let range = || SizeError::Range(text.chars().take(64).collect());
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let shift = unit_shift(unit.trim()).ok_or_else(syntax)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
            return Err(syntax());
        }
        // In units of 10^-digits bytes, so that 1.5T is exact and 1.1K is refused as no whole number of bytes.
        let digits = u32::try_from(fraction.len())
            .ok()
            .filter(|n| *n <= 15)
            .ok_or_else(range)?;
        let scaled: u128 = format!("{whole}{fraction}").parse().map_err(|_| range())?;
        let scale = 10_u128.pow(digits);
        let bytes = scaled.checked_mul(1 << shift).ok_or_else(range)?;
        if bytes % scale != 0 || bytes / scale >= 1 << 63 {
            return Err(range());
        }
        u64::try_from(bytes / scale).map(Self).map_err(|_| range())
    }
}

fn unit_shift(unit: &str) -> Option<u32> {
    let upper = unit.to_ascii_uppercase();
    if matches!(upper.as_str(), "" | "B") {
        return Some(0);
    }
    UNITS
        .iter()
        .find(|(name, _)| {
            upper
                .strip_prefix(name)
                .is_some_and(|rest| matches!(rest, "" | "B" | "IB"))
        })
        .map(|(_, shift)| *shift)
}

impl fmt::Display for ByteSize {
    /// The largest unit that leaves a whole number, else one decimal: `1 GiB`, `1.5 GiB`, `513 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((name, shift)) = UNITS.iter().rev().find(|(_, shift)| self.0 >> shift > 0) else {
            return write!(f, "{} B", self.0);
        };
        let tenths = (u128::from(self.0) * 10) >> shift;
        if tenths % 10 == 0 {
            write!(f, "{} {name}iB", tenths / 10)
        } else {
            write!(f, "{}.{} {name}iB", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        let cases = [
            ("1G", 1 << 30),
            ("1GiB", 1 << 30),
            ("1gb", 1 << 30),
            ("1073741824", 1 << 30),
            ("1.5T", 3 << 39),
            ("0.5K", 512),
            (" 20 MiB ", 20 << 20),
            ("0", 0),
            ("7EiB", 7 << 60),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for bad in [
            "",
            "G",
            "1X",
            "-1G",
            "1.2.3G",
            "1.",
            "1.1K",
            "8E",
            "99999999999999999999",
            "1G5",
        ] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_print_short() {
        assert_eq!(ByteSize(1 << 30).to_string(), "1 GiB");
        assert_eq!(ByteSize(3 << 29).to_string(), "1.5 GiB");
        assert_eq!(ByteSize(513).to_string(), "513 B");
    }
}
