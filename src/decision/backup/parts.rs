//! How large the parts of a stream are whose length nobody knows: small ones at first, so that little is
//! in memory, and larger ones the longer it gets, so that S3's number of parts is enough for all of it.

use super::manifest::LARGEST_PART;

/// After so many parts they double.
const EVEN: usize = 900;

/// The size of the part of that number, counted from zero, where the first ones have the usual size.
pub fn size_of_part(number: usize, usual: u64) -> u64 {
    let doublings = u32::try_from(number / EVEN).unwrap_or(u32::MAX).min(20);
    usual.saturating_mul(1 << doublings).min(LARGEST_PART)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::backup::manifest::MOST_PARTS;

    fn all(usual: u64) -> u64 {
        (0..MOST_PARTS).map(|number| size_of_part(number, usual)).sum()
    }

    #[test]
    fn parts_are_even_for_long_and_reach_the_largest_object() {
        let usual = 16 << 20;
        assert_eq!(size_of_part(0, usual), usual);
        assert_eq!(size_of_part(899, usual), usual);
        assert_eq!(size_of_part(900, usual), 2 * usual);
        assert_eq!(size_of_part(MOST_PARTS, usual), LARGEST_PART);
        assert!(all(usual) > 5 << 40, "{} GiB", all(usual) >> 30);
        assert!(all(5 << 20) > 3 << 40, "{} GiB", all(5 << 20) >> 30);
    }
}
