//! What a leader has to do about a schedule: begin a run, make another attempt, give one up.
//!
//! Whether an attempt is silent, or takes too long, a leader counts on its own monotonic clock from
//! what it saw itself. A new leader counts from its own beginning, so a change of leaders or a wall
//! clock that jumps ends no run that goes well.

use super::runs::{ATTEMPTS, Account, Attempt, Change, RunState, Runs};
use super::schedule::{Outlook, Owner, Schedule, Slot};
use crate::clock::{Moment, WallTime};
use crate::decision::topology::ScheduleName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two signs of life that a watcher gives while it makes a backup.
pub const BEAT: Duration = Duration::from_secs(2);

/// An attempt that is not heard for so long is taken over.
pub const SILENT: Duration = Duration::from_secs(15);

/// For so long after a sign of life that its leader confirmed, a watcher may go on with an attempt:
/// it has surely ended before anybody takes it over.
pub const TRUSTED: Duration = Duration::from_secs(12);

/// After the first failed attempt the next one waits so long, after each further one twice that.
pub const PAUSE: Duration = Duration::from_secs(60);

/// An attempt that made way is followed by the next one after so long, if nothing stands in its way.
pub const YIELDED: Duration = Duration::from_secs(5);

/// What is to be done about one schedule now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// The account is to be told what the schedule says.
    Declare {
        /// Its pattern and zone.
        says: String,
    },
    /// An attempt is to begin, on a server that is still to be chosen.
    Begin {
        /// Which.
        attempt: Attempt,
    },
    /// The newest attempt is given up, and with it the run.
    GiveUp {
        /// Which.
        attempt: Attempt,
        /// Why.
        why: String,
    },
}

/// What a leader saw of the open runs; it is lost with its office.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    seen: BTreeMap<ScheduleName, Seen>,
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    slot: Slot,
    attempt: u32,
    state: RunState,
    /// When the attempt was first seen.
    began: Moment,
    /// When anything of it last changed.
    heard: Moment,
}

/// What a schedule asks for, as far as its account goes.
pub fn outlook(owner: Owner<'_>, schedule: &Schedule, account: &Account, now: WallTime) -> Outlook {
    schedule.outlook(owner, account.past(&account.taken()), now)
}

impl Watch {
    /// Takes note of the runs as they stand: whenever the account has changed, and before
    /// [`Watch::duty`].
    pub fn look(&mut self, now: Moment, runs: &Runs) {
        let before = std::mem::take(&mut self.seen);
        for (name, account) in &runs.schedules {
            let Some(run) = &account.open else { continue };
            let known = before
                .get(name)
                .filter(|seen| (seen.slot, seen.attempt) == (run.slot, run.attempt));
            let unchanged = known.filter(|seen| seen.state == run.state);
            let seen = Seen {
                slot: run.slot,
                attempt: run.attempt,
                state: run.state.clone(),
                began: known.map_or(now, |seen| seen.began),
                heard: unchanged.map_or(now, |seen| seen.heard),
            };
            self.seen.insert(name.clone(), seen);
        }
    }

    /// An attempt gave a sign of life.
    pub fn heard(&mut self, now: Moment, attempt: &Attempt) {
        let seen = self.seen.get_mut(&attempt.schedule);
        let same = |seen: &&mut Seen| (seen.slot, seen.attempt) == (attempt.slot, attempt.number);
        if let Some(seen) = seen.filter(same) {
            seen.heard = now;
        }
    }

    /// What is to be done about a schedule; `None` when there is nothing to do now.
    pub fn duty(
        &self,
        owner: Owner<'_>,
        schedule: &Schedule,
        runs: &Runs,
        now: (WallTime, Moment),
    ) -> Option<Duty> {
        let (wall, moment) = now;
        let says = schedule.to_string();
        let declared = runs.schedules.get(owner.schedule).filter(|account| account.says == says);
        let Some(account) = declared else {
            return Some(Duty::Declare { says });
        };
        let attempt = |slot, number| Attempt { schedule: owner.schedule.clone(), slot, number };
        let Some(run) = &account.open else {
            let due = outlook(owner, schedule, account, wall).due?;
            return Some(Duty::Begin { attempt: attempt(due.slot, 1) });
        };
        let seen = self.seen.get(owner.schedule)?;
        let give_up =
            |why: String| Some(Duty::GiveUp { attempt: attempt(run.slot, run.attempt), why });
        let quiet = moment.since(seen.heard);
        match &run.state {
            RunState::Running { .. } if moment.since(seen.began) >= schedule.timeout => {
                give_up(format!("it took longer than {} s", schedule.timeout.as_secs()))
            }
            RunState::Running { watcher, .. } if quiet >= SILENT => {
                if run.failures() + 1 >= ATTEMPTS {
                    return give_up(format!("{watcher} was not heard for {} s", quiet.as_secs()));
                }
                Some(Duty::Begin { attempt: attempt(run.slot, run.attempt + 1) })
            }
            RunState::Running { .. } => None,
            RunState::Waiting { why, .. } if wall >= schedule.planned(owner, run.slot).until => {
                give_up(format!("its time is over; the last attempt ended with: {why}"))
            }
            RunState::Waiting { yielded, .. } => {
                let pause = if *yielded { YIELDED } else { pause(run.failures()) };
                let next = attempt(run.slot, run.attempt.saturating_add(1));
                (quiet >= pause).then_some(Duty::Begin { attempt: next })
            }
        }
    }
}

/// What is to be done about schedules that are declared no longer.
pub fn forgotten(runs: &Runs, declared: &BTreeSet<&ScheduleName>) -> Vec<Change> {
    let gone = runs.schedules.iter().filter(|(name, _)| !declared.contains(name));
    let change = |(name, account): (&ScheduleName, &Account)| match &account.open {
        None => Change::Forget { schedule: name.clone() },
        Some(run) => {
            let (schedule, slot, number) = (name.clone(), run.slot, run.attempt);
            let why = "its schedule is declared no longer".to_owned();
            Change::Fail { attempt: Attempt { schedule, slot, number }, why, again: false }
        }
    };
    gone.map(change).collect()
}

/// How long the attempt after so many failed ones waits.
fn pause(failed: u32) -> Duration {
    PAUSE * 2_u32.pow(failed.saturating_sub(1).min(ATTEMPTS))
}
