//! What has to be written so that one piece of an extent equals one of an image.

use std::ops::Range;

/// A part of a piece that differs, in bytes from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Whole units, but for the last one of the piece.
    pub(crate) range: Range<usize>,
    /// All of it is to be zeros.
    pub(crate) zeros: bool,
}

/// Parts of `wanted` that `found` does not have, as few as there are, unit by unit. Both are of one length; what is missing in `found`
/// differs.
pub(crate) fn differences(found: &[u8], wanted: &[u8], unit: usize) -> Vec<Difference> {
    let mut all: Vec<Difference> = Vec::new();
    let unit = unit.max(1);
    for (number, want) in wanted.chunks(unit).enumerate() {
        let start = number * unit;
        let range = start..start + want.len();
        if found.get(range.clone()) == Some(want) {
            continue;
        }
        let zeros = want.iter().all(|byte| *byte == 0);
        match all.last_mut() {
            Some(last) if last.range.end == start && last.zeros == zeros => last.range.end = range.end,
            _ => all.push(Difference { range, zeros }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_equal_is_left_alone_and_zeros_are_told_apart() {
        let found = [1, 1, 2, 2, 0, 0, 3, 3];
        assert!(differences(&found, &found, 2).is_empty());
        let wanted = [1, 1, 9, 2, 0, 5, 0, 0];
        let all: Vec<(Range<usize>, bool)> = differences(&found, &wanted, 2)
            .into_iter()
            .map(|part| (part.range, part.zeros))
            .collect();
        assert_eq!(all, [(2..6, false), (6..8, true)]);
        // Nothing could be read.
        assert_eq!(differences(&[], &wanted, 4).len(), 1);
    }

    proptest! {
        #[test]
        fn writing_the_differences_makes_them_equal_and_a_second_time_there_are_none(
            found in proptest::collection::vec(0u8..3, 0..64), wanted in proptest::collection::vec(0u8..3, 64), unit in 1usize..9
        ) {
            let mut found = found;
            let all = differences(&found, &wanted, unit);
            found.resize(wanted.len(), 7);
            for part in &all {
                let want = &wanted[part.range.clone()];
                prop_assert_eq!(part.zeros, want.iter().all(|byte| *byte == 0));
                found[part.range.clone()].copy_from_slice(want);
            }
            prop_assert_eq!(&found, &wanted);
            prop_assert!(differences(&found, &wanted, unit).is_empty());
        }
    }
}
