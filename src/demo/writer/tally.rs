//! What the clients of a writer saw, together.

use super::acknowledged::Acknowledged;
use crate::clock::{Moment, Now, WallTime};
use std::collections::BTreeMap;
use std::time::Duration;

/// Commit times are counted in buckets that each reach 1/8 further than the one before.
const BUCKETS_PER_DOUBLING: u32 = 8;
const BUCKETS: usize = 8 * 32;

/// The longest time in which no client got an acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// How long it was.
    pub length: Duration,
    /// When the last acknowledgement before it came.
    pub from: WallTime,
}

/// Counts of everything since the start, and the longest gap since the last mark.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) acknowledged: Vec<Acknowledged>,
    pub(super) errors: BTreeMap<String, u64>,
    last: Now,
    longest: Gap,
    commit_times: Vec<u64>,
}

impl Tally {
    pub(super) fn new(clients: usize, now: Now) -> Tally {
        Tally {
            acknowledged: vec![Acknowledged::default(); clients],
            errors: BTreeMap::new(),
            last: now,
            longest: Gap::default(),
            commit_times: vec![0; BUCKETS],
        }
    }

    pub(super) fn acknowledge(&mut self, client: usize, sequence: u64, sent: Moment, now: Now) {
        self.acknowledged[client].push(sequence);
        self.longest = self.longest_gap(now);
        self.last = now;
        self.commit_times[bucket(now.moment.since(sent))] += 1;
    }

    pub(super) fn error(&mut self, kind: String) {
        // Kinds are server error codes and a few words of ours; a bound all the same.
        if self.errors.len() < 100 || self.errors.contains_key(&kind) {
            *self.errors.entry(kind).or_default() += 1;
        }
    }

    /// Forgets the longest gap; the one that is open now counts from here.
    pub(super) fn mark(&mut self, now: Now) {
        self.longest = Gap::default();
        self.last = now;
    }

    /// The longest gap, or the one still open when that is longer.
    pub(super) fn longest_gap(&self, now: Now) -> Gap {
        let open = Gap { length: now.moment.since(self.last.moment), from: self.last.wall };
        if open.length > self.longest.length { open } else { self.longest }
    }

    pub(super) fn total(&self) -> u64 {
        self.acknowledged.iter().map(Acknowledged::count).sum()
    }

    /// The time within which this share of all commits was acknowledged, to an eighth.
    pub(super) fn commit_time(&self, share: f64) -> Duration {
        let total: u64 = self.commit_times.iter().sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut counted = 0;
        for (index, count) in self.commit_times.iter().enumerate() {
            counted += count;
            if counted >= wanted {
                return bucket_end(index);
            }
        }
        Duration::ZERO
    }
}

fn bucket(time: Duration) -> usize {
    let micros = (time.as_micros() as f64).max(1.0);
    ((micros.log2() * f64::from(BUCKETS_PER_DOUBLING)) as usize).min(BUCKETS - 1)
}

fn bucket_end(index: usize) -> Duration {
    let micros = ((index + 1) as f64 / f64::from(BUCKETS_PER_DOUBLING)).exp2();
    Duration::from_micros(micros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Now {
        Now { moment: Moment(millis * 1000), wall: WallTime(millis) }
    }

    #[test]
    fn the_longest_gap_is_kept_until_marked() {
        let mut tally = Tally::new(2, at(0));
        tally.acknowledge(0, 1, at(9).moment, at(10));
        tally.acknowledge(1, 1, at(10).moment, at(510));
        tally.acknowledge(0, 2, at(510).moment, at(520));
        assert_eq!(
            tally.longest_gap(at(600)),
            Gap { length: Duration::from_millis(500), from: WallTime(10) }
        );
        assert_eq!(tally.longest_gap(at(1520)).length, Duration::from_secs(1));
        tally.mark(at(2000));
        assert_eq!(tally.longest_gap(at(2001)).length, Duration::from_millis(1));
        assert_eq!(tally.total(), 3);
    }

    #[test]
    fn commit_times_are_true_to_an_eighth() {
        let mut tally = Tally::new(1, at(0));
        for sequence in 1..=100 {
            let sent = at(1000).moment;
            let taken = if sequence <= 90 { 2 } else { 40 };
            tally.acknowledge(0, sequence, sent, at(1000 + taken));
        }
        let (median, high) =
            (tally.commit_time(0.5).as_micros(), tally.commit_time(0.99).as_micros());
        assert!((2000..2250).contains(&median), "{median}");
        assert!((40_000..45_000).contains(&high), "{high}");
    }
}
