//! Which rows a client was told are committed, in little memory.

/// A set of sequence numbers as ascending, disjoint, inclusive ranges.
///
/// Clients count upwards and skip a number only when its outcome is unknown, so there are few ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    ranges: Vec<(u64, u64)>,
}

impl Acknowledged {
    /// Adds a number larger than all before.
    pub fn push(&mut self, sequence: u64) {
        match self.ranges.last_mut() {
            Some((_, last)) if *last + 1 == sequence => *last = sequence,
            _ => self.ranges.push((sequence, sequence)),
        }
    }

    /// How many numbers it holds.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether it holds this number.
    pub fn contains(&self, sequence: u64) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= sequence);
        after > 0 && self.ranges[after - 1].1 >= sequence
    }

    /// The numbers here that `other` lacks, ascending, at most `limit` of them.
    pub fn missing_from(&self, other: &Acknowledged, limit: usize) -> Vec<u64> {
        self.ranges
            .iter()
            .flat_map(|(first, last)| *first..=*last)
            .filter(|sequence| !other.contains(*sequence))
            .take(limit)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Acknowledged;

    fn of(sequences: &[u64]) -> Acknowledged {
        let mut all = Acknowledged::default();
        sequences.iter().for_each(|sequence| all.push(*sequence));
        all
    }

    #[test]
    fn neighbours_share_a_range() {
        let all = of(&[1, 2, 3, 5, 6, 9]);
        assert_eq!(all.ranges, [(1, 3), (5, 6), (9, 9)]);
        assert_eq!(all.count(), 6);
        let held: Vec<u64> = (0..11).filter(|sequence| all.contains(*sequence)).collect();
        assert_eq!(held, [1, 2, 3, 5, 6, 9]);
    }

    #[test]
    fn missing_rows_are_named_up_to_the_limit() {
        let acknowledged = of(&[1, 2, 3, 5, 6, 9]);
        let present = of(&[2, 3, 4, 6]);
        assert_eq!(acknowledged.missing_from(&present, 10), [1, 5, 9]);
        assert_eq!(acknowledged.missing_from(&present, 2), [1, 5]);
        assert_eq!(present.missing_from(&acknowledged, 10), [4]);
        assert!(acknowledged.missing_from(&acknowledged, 10).is_empty());
    }
}
