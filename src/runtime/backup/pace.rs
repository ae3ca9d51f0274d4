//! Holding a stream back, so that it leaves room on a line or a server for others.

use crate::clock::{Clock, Moment};
use std::time::Duration;

/// At most so many bytes a second, on average.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Clock,
    limit: Option<u64>,
    /// When all that went before is paid for.
    free: Moment,
}

impl Pace {
    pub(super) fn new(clock: Clock, limit: Option<u64>) -> Pace {
        Pace { clock, limit, free: Moment::ZERO }
    }

    /// How long to wait before the next so many bytes go.
    pub(super) fn wait_for(&mut self, bytes: u64) -> Duration {
        self.charged(bytes, self.clock.now().moment)
    }

    fn charged(&mut self, bytes: u64, now: Moment) -> Duration {
        let Some(limit) = self.limit else { return Duration::ZERO };
        let wait = now.until(self.free);
        let cost = bytes.saturating_mul(1_000_000) / limit.max(1);
        // What was not used earlier is not made up for.
        self.free = self.free.max(now) + Duration::from_micros(cost);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_kept_and_idling_earns_nothing() {
        let mut pace = Pace::new(Clock::start(), Some(1_000));
        let second = |number: u64| Moment(number * 1_000_000);
        assert_eq!(pace.charged(2_000, second(10)), Duration::ZERO);
        assert_eq!(pace.charged(500, second(11)), Duration::from_secs(1));
        assert_eq!(pace.charged(500, second(100)), Duration::ZERO);
        assert_eq!(pace.charged(500, second(100)), Duration::from_millis(500));
        assert_eq!(Pace::new(Clock::start(), None).charged(u64::MAX, second(1)), Duration::ZERO);
    }
}
