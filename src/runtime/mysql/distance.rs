//! How far away a server is, as its answers show.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Slower answers count by this part of what they were slower: they may be the server's, not the line's.
const WEIGHT: u64 = 16;

/// The time of a round trip to one server, in microseconds; clones share it.
///
/// A limit that is right within a data center is too short over a line of many milliseconds, and one that
/// is right there would let a fault within a data center go unnoticed. So limits take it from here.
#[derive(Clone, Debug, Default)]
pub struct Distance(Arc<AtomicU64>);

impl Distance {
    /// One question was answered after that time.
    pub fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let known = match self.0.load(Ordering::Relaxed) {
            0 => took,
            known => known.min(took) + took.saturating_sub(known) / WEIGHT,
        };
        self.0.store(known, Ordering::Relaxed);
    }

    /// The round trip; `None` until something was answered.
    pub fn round_trip(&self) -> Option<Duration> {
        let known = self.0.load(Ordering::Relaxed);
        (known > 0).then(|| Duration::from_micros(known))
    }

    /// So many round trips; nothing until something was answered.
    pub fn trips(&self, count: u32) -> Duration {
        self.round_trip().unwrap_or_default() * count
    }
}

#[cfg(test)]
mod tests {
    use super::Distance;
    use std::time::Duration;

    #[test]
    fn quick_answers_show_the_distance_and_slow_ones_hardly_change_it() {
        let distance = Distance::default();
        assert_eq!(distance.round_trip(), None);
        assert_eq!(distance.trips(3), Duration::ZERO);
        for (took, known) in [(130, 130), (120, 120), (280, 130), (60, 60), (60, 60)] {
            distance.clone().note(Duration::from_millis(took));
            assert_eq!(distance.round_trip(), Some(Duration::from_millis(known)));
        }
        assert_eq!(distance.trips(3), Duration::from_millis(180));
        // A line that became longer is believed in the end.
        (0..100).for_each(|_| distance.note(Duration::from_millis(160)));
        assert!(distance.round_trip() > Some(Duration::from_millis(155)), "{distance:?}");
    }
}
