//! Medians and the like.

/// Sorted samples.
#[derive(Clone, Debug)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn new(samples: impl IntoIterator<Item = f64>) -> Samples {
        let mut all: Vec<f64> = samples.into_iter().collect();
        all.sort_by(f64::total_cmp);
        Samples(all)
    }

    /// The smallest sample that at least this share of all does not exceed; `None` without samples.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied()
    }

    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    pub fn worst(&self) -> Option<f64> {
        self.0.last().copied()
    }
}
