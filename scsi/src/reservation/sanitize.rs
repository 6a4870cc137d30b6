//! SANITIZE as committed state (SBC-4, 4.11): what is to be done to the medium, how far that is, and how it ended. While it runs, nobody
//! reads or writes a block; the unit's primary carries it out, and whoever is primary next goes on.

use bytes::Bytes;
use holdfast_types::{BlockSize, Nexus, UnitVersion};
use serde::{Deserialize, Serialize};

/// What a SANITIZE makes of the medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SanitizeMethod {
    /// OVERWRITE: the pattern in every block, again and again.
    Overwrite {
        /// INITIALIZATION PATTERN: 1 byte to one block; repeated within a block, from its start.
        pattern: Vec<u8>,
        /// OVERWRITE COUNT: 1 to 31.
        count: u8,
        /// INVERT: every second pass writes the pattern's complement.
        invert: bool,
    },
    /// BLOCK ERASE: every block is deallocated, and reads as zeros (LBPRZ).
    BlockErase,
}

/// Most passes of an OVERWRITE: what its field holds.
pub(crate) const PASSES_MAX: u8 = 31;

impl SanitizeMethod {
    /// Whether it says something that can be done on a unit with blocks of that size; peers' fields are not trusted.
    pub fn is_valid(&self, size: BlockSize) -> bool {
        match self {
            Self::Overwrite { pattern, count, .. } => {
                (1..=size.bytes() as usize).contains(&pattern.len()) && (1..=PASSES_MAX).contains(count)
            }
            Self::BlockErase => true,
        }
    }

    /// How often each block is gone through.
    pub fn passes(&self) -> u8 {
        match self {
            Self::Overwrite { count, .. } => *count,
            Self::BlockErase => 1,
        }
    }

    /// What a pass (from 0 on) puts into so many blocks; `None` where they are deallocated.
    pub fn contents(&self, pass: u8, blocks: u64, size: BlockSize) -> Option<Bytes> {
        let Self::Overwrite {
            pattern,
            count,
            invert,
        } = self
        else {
            return None;
        };
        // The last pass leaves the pattern as it was given.
        let flip = if *invert && (count - 1).wrapping_sub(pass) % 2 == 1 {
            0xff
        } else {
            0
        };
        let block: Vec<u8> = pattern
            .iter()
            .map(|byte| byte ^ flip)
            .cycle()
            .take(size.bytes() as usize)
            .collect();
        Some(block.repeat(usize::try_from(blocks).unwrap_or(0)).into())
    }
}

/// A SANITIZE that an initiator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SanitizeOrder {
    /// What to do.
    pub method: SanitizeMethod,
    /// AUSE: EXIT FAILURE MODE may end the state that a failure leaves.
    pub unrestricted_exit: bool,
}

/// One that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sanitizing {
    /// What was asked for.
    pub order: SanitizeOrder,
    /// Who asked.
    pub by: Nexus,
    /// The version of the unit's state that it began with: its name.
    pub begun: UnitVersion,
    /// The pass under way, from 0 on.
    #[serde(default)]
    pub pass: u8,
    /// Blocks from the first on that this pass is through with.
    #[serde(default)]
    pub done: u64,
}

impl Sanitizing {
    /// PROGRESS INDICATION of a unit of so many blocks, in parts of 65,536 (SPC-4, 4.5.2.4.4).
    pub fn progress(&self, blocks: u64) -> u16 {
        let passes = u128::from(self.order.method.passes());
        let all = passes * u128::from(blocks.max(1));
        let done = u128::from(self.pass) * u128::from(blocks) + u128::from(self.done.min(blocks));
        u16::try_from(done * 65_536 / all).unwrap_or(u16::MAX)
    }
}

/// Where a unit is with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sanitize {
    /// None is under way, and none failed.
    #[default]
    Idle,
    /// One is under way: 02/04/1B to nearly everything.
    Running(Sanitizing),
    /// One could not be carried out: 03/31/03 to nearly everything, until another one succeeds or EXIT FAILURE MODE.
    Failed {
        /// Whether EXIT FAILURE MODE is allowed.
        unrestricted_exit: bool,
    },
}

impl Sanitize {
    /// The one under way.
    pub const fn running(&self) -> Option<&Sanitizing> {
        match self {
            Self::Running(running) => Some(running),
            Self::Idle | Self::Failed { .. } => None,
        }
    }

    /// Whether blocks may be read and written.
    pub const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// How far the one of that name is. Goes forward only, so that a report that comes late changes nothing.
    pub(super) fn advance(&mut self, begun: UnitVersion, pass: u8, done: u64) {
        if let Self::Running(running) = self
            && running.begun == begun
            && pass < running.order.method.passes()
            && (pass, done) > (running.pass, running.done)
        {
            (running.pass, running.done) = (pass, done);
        }
    }

    /// The one of that name has ended.
    pub(super) fn end(&mut self, begun: UnitVersion, failed: bool) {
        if let Self::Running(running) = self
            && running.begun == begun
        {
            let unrestricted_exit = running.order.unrestricted_exit;
            *self = if failed {
                Self::Failed { unrestricted_exit }
            } else {
                Self::Idle
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overwrite(pattern: &[u8], count: u8, invert: bool) -> SanitizeMethod {
        SanitizeMethod::Overwrite {
            pattern: pattern.to_vec(),
            count,
            invert,
        }
    }

    #[test]
    fn a_pattern_fills_each_block_from_its_start_and_the_last_pass_leaves_it_as_given() {
        let method = overwrite(&[1, 2, 3], 2, true);
        let first = method.contents(0, 2, BlockSize::B512).unwrap();
        let last = method.contents(1, 2, BlockSize::B512).unwrap();
        assert_eq!(last.len(), 1024);
        assert_eq!(last[..5], [1, 2, 3, 1, 2]);
        assert_eq!(last[512..515], [1, 2, 3]);
        assert_eq!(first[..4], [254, 253, 252, 254]);
        let plain = overwrite(&[9], 3, false);
        assert_eq!(
            plain.contents(0, 1, BlockSize::B4096),
            plain.contents(2, 1, BlockSize::B4096)
        );
        assert_eq!(SanitizeMethod::BlockErase.contents(0, 1, BlockSize::B512), None);
    }

    #[test]
    fn progress_is_that_of_all_passes() {
        let mut running = Sanitizing {
            order: SanitizeOrder {
                method: overwrite(&[0], 2, false),
                unrestricted_exit: false,
            },
            by: crate::fixture::Fixture::new().who,
            begun: UnitVersion(1),
            pass: 0,
            done: 0,
        };
        assert_eq!(running.progress(1000), 0);
        running.done = 1000;
        assert_eq!(running.progress(1000), 32_768);
        (running.pass, running.done) = (1, 1000);
        assert_eq!(running.progress(1000), u16::MAX);
        assert_eq!(running.progress(0), 0, "no block is no reason to divide by zero");
    }

    #[test]
    fn what_a_peer_says_must_be_possible() {
        for (pattern, count) in [(0, 1), (513, 1), (512, 0), (1, 32)] {
            assert!(!overwrite(&vec![0; pattern], count, false).is_valid(BlockSize::B512));
        }
        assert!(overwrite(&[0; 513], 31, false).is_valid(BlockSize::B4096));
    }
}
