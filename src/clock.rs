//! Time as the rest of the crate sees it: values passed in, and the one place that reads the clock.
//!
//! Decisions use [`Moment`], which only grows and is never compared between machines.
//! People read [`WallTime`]. Only what people date by it goes by it, such as the schedule and the
//! retention of backups, and must bear a clock that jumps; no failover does.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on one process's monotonic clock, in microseconds since that process's own zero.
///
/// Moments of two processes are unrelated numbers and must never be compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// The process's zero.
    pub const ZERO: Moment = Moment(0);

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// How long until `later`; zero when it has passed.
    pub fn until(self, later: Moment) -> Duration {
        later.since(self)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(micros(span)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, span: Duration) -> Moment {
        Moment(self.0.saturating_sub(micros(span)))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Wall-clock time in milliseconds since the Unix epoch, for people and what they date by it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallTime(pub u64);

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(stamp) => write!(f, "{stamp:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// Both times of one instant, read together so that one input has one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Now {
    /// For decisions.
    pub moment: Moment,
    /// For people.
    pub wall: WallTime,
}

/// The clock of a real process; the only reader of the machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: std::time::Instant,
}

impl Clock {
    /// Starts counting; moments of this clock begin near zero.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the monotonic clock")]
    pub fn start() -> Clock {
        Clock { zero: std::time::Instant::now() }
    }

    /// The present, monotonic and wall time together.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of both clocks")]
    pub fn now(&self) -> Now {
        // One second ahead of zero, so that `now - span` stays meaningful right after the start.
        let elapsed = self.zero.elapsed() + Duration::from_secs(1);
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Now { moment: Moment(micros(elapsed)), wall: WallTime(wall) }
    }
}
