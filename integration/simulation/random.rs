//! The run's only source of chance.

/// A small generator (SplitMix64): the same seed draws the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ 0x5bd1_e995)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, without `high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % (high - low).max(1)
    }

    /// A place in something of that length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.draw() % length.max(1) as u64).unwrap()
    }

    /// True so many times in a thousand.
    pub fn permille(&mut self, chance: u64) -> bool {
        self.draw() % 1000 < chance
    }

    /// One of the weights' places, as often as it weighs.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.draw() % weights.iter().sum::<u64>().max(1);
        for (place, weight) in weights.iter().enumerate() {
            if left < *weight {
                return place;
            }
            left -= weight;
        }
        0
    }
}
