//! Logical unit numbers as SAM-5 writes them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A logical unit number: 0 to 16383 (single-level, peripheral or flat addressing; SAM-5, 4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub struct Lun(u16);

/// An eight-byte LUN field that names no logical unit that can exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LunError {
    /// Number above 16383.
    #[error("LUN {0} is above 16383")]
    TooLarge(u16),
    /// An addressing method or a second level that is not used here.
    #[error("LUN field {0:016x} uses an addressing method that is not supported")]
    Method(u64),
}

impl Lun {
    /// LUN 0, which every target answers on.
    pub const ZERO: Self = Self(0);

    /// The highest.
    pub const MAX: Self = Self(0x3fff);

    /// The number.
    pub const fn value(self) -> u16 {
        self.0
    }

    /// The eight-byte field of iSCSI PDUs and REPORT LUNS: peripheral addressing below 256, flat above (SAM-5, 4.7.7).
    pub const fn to_field(self) -> u64 {
        let first = if self.0 < 256 { self.0 } else { 0x4000 | self.0 };
        (first as u64) << 48
    }

    /// Reads the eight-byte field; takes peripheral (bus 0) and flat addressing of a single level.
    ///
    /// # Errors
    /// [`LunError::Method`] for everything else, well-known logical units included.
    pub const fn from_field(field: u64) -> Result<Self, LunError> {
        let first = (field >> 48) as u16;
        if field << 16 != 0 {
            return Err(LunError::Method(field));
        }
        match first >> 14 {
            0 if first < 256 => Ok(Self(first)),
            1 => Ok(Self(first & 0x3fff)),
            _ => Err(LunError::Method(field)),
        }
    }
}

impl TryFrom<u16> for Lun {
    type Error = LunError;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        if number <= Self::MAX.0 {
            Ok(Self(number))
        } else {
            Err(LunError::TooLarge(number))
        }
    }
}

impl From<Lun> for u16 {
    fn from(lun: Lun) -> Self {
        lun.0
    }
}

impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_round_trips_for_every_number() {
        for number in 0..1 << 14 {
            let lun = Lun::try_from(number).unwrap();
            assert_eq!(Lun::from_field(lun.to_field()), Ok(lun));
        }
        assert!(Lun::try_from(1 << 14).is_err());
    }

    #[test]
    fn flat_addressing_of_small_numbers_is_read_too() {
        assert_eq!(Lun::from_field(0x4005_0000_0000_0000), Ok(Lun(5)));
    }

    #[test]
    fn other_methods_are_refused() {
        for field in [
            0xc101_0000_0000_0000,
            0x8000_0000_0000_0000,
            0x0100_0000_0000_0000,
            1,
            0x0000_0001_0000_0000,
        ] {
            assert_eq!(Lun::from_field(field), Err(LunError::Method(field)));
        }
    }
}
