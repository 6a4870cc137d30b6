//! How much space a node's disk has.

use std::path::Path;

/// Space of the file system that holds a node's extents, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Its size; 0 if that is not known.
    pub total: u64,
    /// What this process may still write.
    pub free: u64,
}

/// The most that is kept free for what may be under way.
const RESERVE_MAX: u64 = 1 << 30;

impl Space {
    /// Asks the system.
    pub(super) fn of(dir: &Path) -> Self {
        rustix::fs::statvfs(dir).map_or_else(
            |_| Self::default(),
            |stat| Self {
                total: stat.f_blocks.saturating_mul(stat.f_frsize),
                free: stat.f_bavail.saturating_mul(stat.f_frsize),
            },
        )
    }

    /// What must stay free: records that were taken in before the disk was low find their space in it.
    pub fn reserve(&self) -> u64 {
        (self.total / 16).min(RESERVE_MAX)
    }

    /// Whether new space had better not be used; once it is so, only clearly more space ends it.
    pub(super) fn is_low(&self, was: bool) -> bool {
        let reserve = self.reserve();
        self.total > 0 && self.free < if was { reserve + reserve / 4 } else { reserve }
    }

    /// Share that is free, in percent; 100 if that is not known.
    pub fn free_percent(&self) -> u64 {
        self.free
            .saturating_mul(100)
            .checked_div(self.total)
            .unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_below_its_reserve_until_there_is_clearly_more() {
        let space = |free| Space { total: 1600, free };
        assert!(!space(100).is_low(false));
        assert!(space(99).is_low(false));
        assert!(space(124).is_low(true));
        assert!(!space(125).is_low(true));
        assert!(!Space::default().is_low(false), "not known");
        assert_eq!(space(400).free_percent(), 25);
        assert_eq!(Space::default().free_percent(), 100);
        assert!(Space::of(Path::new("/")).total > 0);
    }
}
