//! Serial number arithmetic.

use std::cmp::Ordering;
use std::fmt;

/// A 32-bit sequence number (CmdSN, StatSN, ...) under the serial number arithmetic of RFC 1982 with SERIAL_BITS 32, as RFC 7143
/// (4.2.2.1) wants it: comparisons go the short way around, so numbers keep their order over a wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sn(pub u32);

impl Sn {
    /// The number `by` steps later.
    #[must_use]
    pub const fn add(self, by: u32) -> Self {
        Self(self.0.wrapping_add(by))
    }

    /// The next number.
    #[must_use]
    pub const fn next(self) -> Self {
        self.add(1)
    }

    /// Steps from `from` to here, negative where `from` is later. Exactly half the circle away counts as earlier (RFC 1982 leaves it open).
    pub const fn distance(self, from: Self) -> i32 {
        self.0.wrapping_sub(from.0).cast_signed()
    }

    /// Whether this one comes before `other`.
    pub const fn is_before(self, other: Self) -> bool {
        self.distance(other) < 0
    }

    /// Whether this one comes after `other`.
    pub const fn is_after(self, other: Self) -> bool {
        self.distance(other) > 0
    }
}

impl PartialOrd for Sn {
    /// The order on the circle. It is no total order: three numbers far apart may go around.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.distance(*other).cmp(&0))
    }
}

impl fmt::Display for Sn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A sequence number that also counts the wraps: the low half is what goes over the wire, and the whole is never used again in a
/// session (F1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WideSn(pub u64);

impl WideSn {
    /// A session's first number.
    pub const fn first(sn: Sn) -> Self {
        Self(sn.0 as u64)
    }

    /// The 32 bits of the wire.
    pub const fn narrow(self) -> Sn {
        Sn((self.0 & 0xffff_ffff) as u32)
    }

    /// The next number.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// The wide number that `sn` stands for, `sn` being less than half the circle away; `None` for one before the session's wraps began.
    pub const fn widen(self, sn: Sn) -> Option<Self> {
        match self.0.checked_add_signed(sn.distance(self.narrow()) as i64) {
            Some(wide) => Some(Self(wide)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_survives_the_wrap() {
        let (a, b) = (Sn(0xffff_fffe), Sn(1));
        assert!(a.is_before(b) && b.is_after(a) && !a.is_after(b));
        assert_eq!(b.distance(a), 3);
        assert!(a < b && a.add(3) == b);
        assert!(!a.is_before(a) && !a.is_after(a));
    }

    #[test]
    fn wide_numbers_count_the_wraps() {
        let first = WideSn::first(Sn(0xffff_ffff));
        assert_eq!(first.next(), WideSn(0x1_0000_0000));
        assert_eq!(first.next().narrow(), Sn(0));
        assert_eq!(first.next().widen(Sn(0xffff_ffff)), Some(first));
        assert_eq!(WideSn(0).widen(Sn(0xffff_ffff)), None);
    }

    proptest! {
        #[test]
        fn widening_undoes_narrowing(base in 0x8000_0000u64..u64::MAX / 2, step in -0x7fff_ffffi64..0x7fff_ffff) {
            let wide = WideSn(base.checked_add_signed(step).unwrap());
            prop_assert_eq!(WideSn(base).widen(wide.narrow()), Some(wide));
        }

        #[test]
        fn adding_less_than_half_the_circle_comes_after(start: u32, by in 1u32..0x8000_0000) {
            prop_assert!(Sn(start).add(by).is_after(Sn(start)));
            prop_assert!(Sn(start).is_before(Sn(start).add(by)));
        }
    }
}
