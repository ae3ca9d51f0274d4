//! The account of backup runs: replicated, so that every slot gets one run although any watcher may die.
//!
//! `apply` checks and records, and nothing else. A run consists of attempts with growing numbers, each
//! made by one watcher on one server. Only the newest attempt is heard: an older one that finishes
//! after it was given up is told so, and takes away what it uploaded.

use super::names::BackupId;
use super::reason::shortened;
use super::schedule::{CLOCKS_DIFFER, Past, Slot, later};
use crate::clock::WallTime;
use crate::decision::cluster::Unknown;
use crate::decision::topology::{ScheduleName, ServerName, WatcherName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// Attempts of one run that may fail; the next slot is another chance. What yields does not fail.
pub const ATTEMPTS: u32 = 5;

/// Targets without a backup that are kept account of.
const MOST_LACKING: usize = 8;

/// Ended runs kept per schedule.
const RUNS_KEPT: usize = 32;

/// All runs of one cluster, per schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    /// The schedules that are known, with their runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schedules: BTreeMap<ScheduleName, Account>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The runs of one schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Its pattern and zone, as a schedule prints itself.
    pub says: String,
    /// Since when it says that: slots before count for nothing.
    pub since: WallTime,
    /// The run that goes on, if any; there is never more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Run>,
    /// Runs that ended, in the order of their slots.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub ended: VecDeque<Ended>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A run that goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its slot.
    pub slot: Slot,
    /// When its first attempt began.
    pub opened: WallTime,
    /// The number of its newest attempt, from one on.
    pub attempt: u32,
    /// What that attempt does.
    pub state: RunState,
    /// Servers on which attempts of this run failed or fell silent, once per attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<ServerName>,
    /// The watchers that made those attempts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried_by: Vec<WatcherName>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What the newest attempt of a run does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// A watcher makes a backup.
    Running {
        /// Which watcher.
        watcher: WatcherName,
        /// Of which server.
        server: ServerName,
        /// Since when.
        since: WallTime,
        /// How often it was heard since; its silence is what a leader counts.
        #[serde(default)]
        beats: u64,
        /// How many bytes it has stored.
        #[serde(default)]
        bytes: u64,
    },
    /// The attempt failed, and another one is due after a while.
    Waiting {
        /// Why it failed.
        why: String,
        /// Since when.
        since: WallTime,
        /// Whether it only made way for something more important.
        #[serde(default)]
        yielded: bool,
    },
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Its slot.
    pub slot: Slot,
    /// When it ended.
    pub at: WallTime,
    /// How many attempts it took; none when nobody began it in its time.
    pub attempts: u32,
    /// How.
    pub outcome: Outcome,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With a backup.
    Done {
        /// Its name.
        backup: BackupId,
        /// How many bytes it has at each target.
        #[serde(default)]
        bytes: u64,
        /// The targets that do not have it, each with why.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lacking: Vec<String>,
    },
    /// Without.
    Failed {
        /// Why.
        why: String,
    },
}

/// One attempt to make the backup of one slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// Whose slot.
    pub schedule: ScheduleName,
    /// Which slot.
    pub slot: Slot,
    /// Which attempt, from one on.
    pub number: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backup {} of {}, attempt {}", self.schedule, self.slot, self.number)
    }
}

/// A change of the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A schedule is new, or says something else than before.
    Declare {
        /// Which.
        schedule: ScheduleName,
        /// Its pattern and zone.
        says: String,
    },
    /// A schedule is declared no longer.
    Forget {
        /// Which.
        schedule: ScheduleName,
    },
    /// A slot gets no run: nothing was begun while that was possible.
    Miss {
        /// Whose slot.
        schedule: ScheduleName,
        /// Which; older ones are missed with it.
        slot: Slot,
        /// Why.
        why: String,
    },
    /// An attempt begins: the first one of a slot, or the next one after a failed or silent one.
    Begin {
        /// Which.
        attempt: Attempt,
        /// Who makes it.
        watcher: WatcherName,
        /// The server that is read from.
        server: ServerName,
    },
    /// An attempt goes on.
    Progress {
        /// Which.
        attempt: Attempt,
        /// How many bytes it has stored.
        bytes: u64,
    },
    /// An attempt has made a backup that is whole.
    Finish {
        /// Which.
        attempt: Attempt,
        /// The backup.
        backup: BackupId,
        /// How many bytes it has at each target.
        #[serde(default)]
        bytes: u64,
        /// The targets that do not have it, each with why.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lacking: Vec<String>,
    },
    /// An attempt makes way for something more important, and another one follows it.
    Yield {
        /// Which.
        attempt: Attempt,
        /// For what.
        why: String,
    },
    /// An attempt failed, or is given up.
    Fail {
        /// Which.
        attempt: Attempt,
        /// Why.
        why: String,
        /// Whether another one may succeed; after the last one the run ends all the same.
        again: bool,
    },
}

/// Why a change had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Nobody declared it.
    #[error("no schedule of that name is declared")]
    NoSuchSchedule,
    /// It had its run.
    #[error("that slot had its run")]
    Served,
    /// A newer slot had its run.
    #[error("the newer slot {0} had its run")]
    Superseded(Slot),
    /// A run of the same schedule goes on.
    #[error("the run of {0} goes on")]
    Busy(Slot),
    /// Another attempt than the newest one, or no run of that slot goes on.
    #[error("that attempt is not, or no longer, the newest one of an open run")]
    Outdated,
    /// There were enough.
    #[error("no more than {ATTEMPTS} attempts of a run may fail")]
    TooMany,
}

/// What people are told about a change: the kind of event and a sentence.
pub type Told = Option<(&'static str, String)>;

impl Runs {
    /// Whether nothing was ever declared.
    pub fn is_empty(&self) -> bool {
        self.schedules.is_empty() && self.unknown.is_empty()
    }

    /// Records a change that was made at that time by the clock of the leader then.
    pub fn apply(&mut self, at: WallTime, change: &Change) -> Result<Told, Rejected> {
        match change {
            Change::Declare { schedule, says } => Ok(self.declare(at, schedule, says)),
            Change::Forget { schedule } => self.forget(schedule),
            Change::Miss { schedule, slot, why } => self.miss(at, schedule, *slot, why),
            Change::Begin { attempt, watcher, server } => {
                self.account(attempt)?.begin(at, attempt, watcher, server)?;
                let text = format!("{attempt}: {watcher} reads from {server}");
                Ok(Some(("backup_began", text)))
            }
            Change::Progress { attempt, bytes: stored } => {
                let run = self.account(attempt)?.current(attempt)?;
                let RunState::Running { beats, bytes, .. } = &mut run.state else {
                    return Err(Rejected::Outdated);
                };
                *beats = beats.saturating_add(1);
                *bytes = *stored;
                Ok(None)
            }
            Change::Finish { attempt, backup, bytes, lacking } => {
                let account = self.account(attempt)?;
                if !matches!(account.current(attempt)?.state, RunState::Running { .. }) {
                    return Err(Rejected::Outdated);
                }
                let lacking = lacking.iter().take(MOST_LACKING).map(|it| shortened(it));
                let lacking: Vec<_> = lacking.collect();
                let told = made(attempt, backup, &lacking);
                account.end(at, Outcome::Done { backup: backup.clone(), bytes: *bytes, lacking });
                Ok(Some(told))
            }
            Change::Yield { attempt, why } => self.make_way(at, attempt, why),
            Change::Fail { attempt, why, again } => self.fail(at, attempt, why, *again),
        }
    }

    fn declare(&mut self, at: WallTime, schedule: &ScheduleName, says: &str) -> Told {
        let account = self.schedules.entry(schedule.clone()).or_default();
        if account.says == says {
            return None;
        }
        says.clone_into(&mut account.says);
        account.since = at;
        Some(("backup_declared", format!("backup {schedule} comes at {says}")))
    }

    fn forget(&mut self, schedule: &ScheduleName) -> Result<Told, Rejected> {
        let account = self.schedules.get(schedule).ok_or(Rejected::NoSuchSchedule)?;
        if let Some(open) = &account.open {
            return Err(Rejected::Busy(open.slot));
        }
        self.schedules.remove(schedule);
        Ok(Some(("backup_forgotten", format!("backup {schedule} comes no longer"))))
    }

    fn miss(
        &mut self,
        at: WallTime,
        schedule: &ScheduleName,
        slot: Slot,
        why: &str,
    ) -> Result<Told, Rejected> {
        let account = self.schedules.get_mut(schedule).ok_or(Rejected::NoSuchSchedule)?;
        if let Some(open) = &account.open {
            return Err(Rejected::Busy(open.slot));
        }
        account.is_news(at, slot)?;
        let why = shortened(why);
        let text = format!("backup {schedule} of {slot} was not made: {why}");
        account.close(at, slot, 0, Outcome::Failed { why });
        Ok(Some(("backup_missed", text)))
    }

    fn fail(
        &mut self,
        at: WallTime,
        attempt: &Attempt,
        why: &str,
        again: bool,
    ) -> Result<Told, Rejected> {
        let account = self.account(attempt)?;
        let run = account.current(attempt)?;
        let why = shortened(why);
        if again && run.failures() + 1 < ATTEMPTS {
            if !matches!(run.state, RunState::Running { .. }) {
                return Err(Rejected::Outdated);
            }
            run.count_failure();
            let text = format!("{attempt}: {why}");
            run.state = RunState::Waiting { why, since: at, yielded: false };
            return Ok(Some(("backup_attempt_failed", text)));
        }
        let text = format!("{attempt}, the last one: {why}");
        account.end(at, Outcome::Failed { why });
        Ok(Some(("backup_failed", text)))
    }

    fn make_way(&mut self, at: WallTime, attempt: &Attempt, why: &str) -> Result<Told, Rejected> {
        let run = self.account(attempt)?.current(attempt)?;
        if !matches!(run.state, RunState::Running { .. }) {
            return Err(Rejected::Outdated);
        }
        let why = shortened(why);
        let text = format!("{attempt} makes way and will be made again: its server {why}");
        run.state = RunState::Waiting { why, since: at, yielded: true };
        Ok(Some(("backup_yielded", text)))
    }

    fn account(&mut self, attempt: &Attempt) -> Result<&mut Account, Rejected> {
        self.schedules.get_mut(&attempt.schedule).ok_or(Rejected::NoSuchSchedule)
    }
}

/// What people are told of a backup that was made.
fn made(attempt: &Attempt, backup: &BackupId, lacking: &[String]) -> (&'static str, String) {
    let text = format!("{attempt}: made {backup}");
    match lacking {
        [] => ("backup_done", text),
        lacking => ("backup_lacking", format!("{text}, which is not at {}", lacking.join("; "))),
    }
}

impl Run {
    /// How many of its attempts failed or fell silent.
    pub fn failures(&self) -> u32 {
        u32::try_from(self.tried.len()).unwrap_or(u32::MAX)
    }

    /// The newest attempt, while a watcher makes it.
    pub fn running(&self, schedule: &ScheduleName) -> Option<(Attempt, &WatcherName, &ServerName)> {
        let RunState::Running { watcher, server, .. } = &self.state else { return None };
        let (schedule, slot, number) = (schedule.clone(), self.slot, self.attempt);
        Some((Attempt { schedule, slot, number }, watcher, server))
    }

    /// The attempt that runs, if one does, has failed.
    fn count_failure(&mut self) {
        if let RunState::Running { watcher, server, .. } = &self.state {
            self.tried.push(server.clone());
            self.tried_by.push(watcher.clone());
        }
    }
}

impl Account {
    /// Slots that were served or are being served.
    pub fn taken(&self) -> BTreeSet<Slot> {
        let open = self.open.iter().map(|run| run.slot);
        self.ended.iter().map(|ended| ended.slot).chain(open).collect()
    }

    /// What a schedule is to know, `taken` being [`Account::taken`].
    pub fn past<'t>(&self, taken: &'t BTreeSet<Slot>) -> Past<'t> {
        Past { since: self.since, taken }
    }

    fn begin(
        &mut self,
        at: WallTime,
        attempt: &Attempt,
        watcher: &WatcherName,
        server: &ServerName,
    ) -> Result<(), Rejected> {
        let running = RunState::Running {
            watcher: watcher.clone(),
            server: server.clone(),
            since: at,
            beats: 0,
            bytes: 0,
        };
        if let Some(run) = &mut self.open {
            if run.slot != attempt.slot {
                return Err(Rejected::Busy(run.slot));
            }
            if attempt.number != run.attempt.saturating_add(1) {
                return Err(Rejected::Outdated);
            }
            let unanswered = matches!(run.state, RunState::Running { .. });
            if run.failures() + u32::from(unanswered) >= ATTEMPTS {
                return Err(Rejected::TooMany);
            }
            run.count_failure();
            run.attempt = attempt.number;
            run.state = running;
            return Ok(());
        }
        self.is_news(at, attempt.slot)?;
        if attempt.number != 1 {
            return Err(Rejected::Outdated);
        }
        self.forget_ahead(at);
        self.open = Some(Run {
            slot: attempt.slot,
            opened: at,
            attempt: 1,
            state: running,
            tried: Vec::new(),
            tried_by: Vec::new(),
            unknown: Unknown::new(),
        });
        Ok(())
    }

    /// Whether neither that slot nor a newer one had its run.
    fn is_news(&self, at: WallTime, slot: Slot) -> Result<(), Rejected> {
        let believed = Slot(later(at, CLOCKS_DIFFER));
        let newest = self.ended.iter().map(|ended| ended.slot).filter(|slot| *slot <= believed);
        match newest.max() {
            Some(newest) if newest == slot => Err(Rejected::Served),
            Some(newest) if newest > slot => Err(Rejected::Superseded(newest)),
            Some(_) | None => Ok(()),
        }
    }

    /// What a clock far ahead wrote down must not stand in the way when that time comes.
    fn forget_ahead(&mut self, at: WallTime) {
        let believed = Slot(later(at, CLOCKS_DIFFER));
        self.ended.retain(|ended| ended.slot <= believed);
    }

    /// The open run, if that is its newest attempt.
    fn current(&mut self, attempt: &Attempt) -> Result<&mut Run, Rejected> {
        let newest = |run: &&mut Run| run.slot == attempt.slot && run.attempt == attempt.number;
        self.open.as_mut().filter(newest).ok_or(Rejected::Outdated)
    }

    fn end(&mut self, at: WallTime, outcome: Outcome) {
        if let Some(run) = self.open.take() {
            self.close(at, run.slot, run.attempt, outcome);
        }
    }

    fn close(&mut self, at: WallTime, slot: Slot, attempts: u32, outcome: Outcome) {
        self.forget_ahead(at);
        self.ended.push_back(Ended { slot, at, attempts, outcome, unknown: Unknown::new() });
        let surplus = self.ended.len().saturating_sub(RUNS_KEPT);
        self.ended.drain(..surplus);
    }
}
