//! The world-wide name of a logical unit.

use std::fmt;

use crate::ExtentId;

/// An NAA IEEE Registered Extended name (SPC-5, 7.8.6.6.5): 16 bytes, the same on every node.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Naa([u8; 16]);

/// The IEEE company id in the names. It is **not registered**: a made-up constant, the same in every release.
const COMPANY_ID: u32 = 0x48_4f_4c;

impl Naa {
    /// The name of an extent: 6, the company id, and the low 100 bits of its UUID.
    pub const fn of(extent: ExtentId) -> Self {
        let head = (0x6_u128 << 124) | ((COMPANY_ID as u128) << 100);
        Self((head | (extent.as_u128() & ((1 << 100) - 1))).to_be_bytes())
    }

    /// The 16 bytes of a designator.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Naa {
    /// 32 lower-case hexadecimal digits, as `multipath -ll` shows after its leading 3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Naa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_naa_6_with_the_company_id() {
        let naa = Naa::of(ExtentId::from_u128(u128::MAX));
        assert_eq!(naa.to_string(), "6484f4cfffffffffffffffffffffffff");
        assert_ne!(naa, Naa::of(ExtentId::from_u128(u128::MAX - 1)));
    }
}
