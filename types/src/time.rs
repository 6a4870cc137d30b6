//! Monotonic time as an argument, and the calendar's for people.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime};

/// Whole seconds since 1970, zero before. To tell people when something was, and how old it is; nothing that has to be safe hangs on it,
/// since clocks are set.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A reading of a node's calendar, in milliseconds since 1970; zero before. As with [`unix_seconds`], nothing that has to be safe hangs on
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub u64);

impl From<SystemTime> for UnixMillis {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A reading of CLOCK_BOOTTIME (L2: it goes on while the machine sleeps), in nanoseconds. Only differences mean anything, and only on
/// the node that took it. Cores get it as an argument; only `node` reads the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(u64);

impl Mono {
    /// The clock's zero.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds since the clock's zero.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's zero.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to here, zero if `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Display for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 / 1000 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_before_1970_counts_as_1970() {
        let later = SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_999);
        assert_eq!(unix_seconds(later), 86_400);
        assert_eq!(unix_seconds(SystemTime::UNIX_EPOCH - Duration::from_secs(5)), 0);
    }

    #[test]
    fn differences_saturate() {
        let (a, b) = (Mono::from_nanos(5), Mono::from_nanos(9));
        assert_eq!(b.since(a), Duration::from_nanos(4));
        assert_eq!(a.since(b), Duration::ZERO);
        assert_eq!(a - Duration::from_secs(1), Mono::ZERO);
        assert_eq!(a + Duration::MAX, Mono::from_nanos(u64::MAX));
    }
}
