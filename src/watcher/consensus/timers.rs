//! When ticks are due, how long this watcher waits for a leader, and when it may vote.

use crate::clock::Moment;
use crate::decision::topology::Timing;
use std::time::Duration;

/// The times of one watcher's Raft.
#[derive(Debug)]
pub(super) struct Timers {
    tick: Duration,
    election_ticks: usize,
    spread: usize,
    ticked: Moment,
    votes_from: Moment,
    random: u64,
    drawn_for: Option<(u64, u8, u64)>,
    drawn: usize,
}

impl Timers {
    /// `voters` widens the spread of election timeouts, so that more watchers collide no more.
    pub(super) fn new(
        timing: Timing,
        seed: u64,
        voters: usize,
        now: Moment,
        restarted: bool,
    ) -> Timers {
        let election_ticks = timing.raft_election_ticks as usize;
        let tick = timing.raft_tick.max(Duration::from_millis(1));
        // Followers vouch for their leader by not voting for a while after hearing from it, and a
        // restarted watcher has forgotten when it last heard. So it first waits that long.
        let wait = tick * (timing.raft_election_ticks + 1);
        Timers {
            tick,
            election_ticks,
            spread: election_ticks / 2 + voters,
            ticked: now,
            votes_from: if restarted { now + wait } else { Moment::ZERO },
            // xorshift stands still at zero.
            random: mix(seed).max(1),
            drawn_for: None,
            drawn: election_ticks,
        }
    }

    /// How many ticks have come due; after a long stall fewer than have passed.
    pub(super) fn due(&mut self, now: Moment) -> u64 {
        let tick = u64::try_from(self.tick.as_micros()).unwrap_or(u64::MAX);
        let passed = now.0.saturating_sub(self.ticked.0) / tick;
        // A stall of this process must not look like a leader's silence.
        let most = (self.election_ticks as u64 / 2).max(1);
        if passed > most {
            self.ticked = now;
            return most;
        }
        self.ticked = Moment(self.ticked.0 + passed * tick);
        passed
    }

    pub(super) fn next(&self) -> Moment {
        self.ticked + self.tick
    }

    pub(super) fn election_ticks(&self) -> usize {
        self.election_ticks
    }

    pub(super) fn longest_election_ticks(&self) -> usize {
        self.election_ticks + self.spread
    }

    /// The timeout for this stay in this role; drawn anew only when term, role or leader change.
    pub(super) fn election_timeout(&mut self, term: u64, role: u8, leader: u64) -> usize {
        let stay = (term, role, leader);
        if self.drawn_for != Some(stay) {
            self.drawn_for = Some(stay);
            let draw = self.next_random() % (self.spread as u64 + 1);
            self.drawn = self.election_ticks + usize::try_from(draw).unwrap_or(0);
        }
        self.drawn
    }

    /// How long a quorum round asked for at `confirmed` keeps other leaders away.
    pub(super) fn lease_end(&self, confirmed: Moment) -> Moment {
        let ticks = u32::try_from(self.election_ticks).unwrap_or(u32::MAX);
        let whole = self.tick * ticks;
        confirmed + whole.saturating_sub(self.tick + whole / 10)
    }

    pub(super) fn votes_from(&self) -> Moment {
        self.votes_from
    }

    pub(super) fn withhold_votes_until(&mut self, until: Moment) {
        self.votes_from = self.votes_from.max(until);
    }

    /// After that a snapshot of which nothing was heard is sent again.
    pub(super) fn snapshot_patience(&self) -> Duration {
        self.tick * u32::try_from(self.election_ticks * 4).unwrap_or(u32::MAX)
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Spreads neighbouring seeds far apart.
fn mix(seed: u64) -> u64 {
    let a = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    b ^ (b >> 31)
}
