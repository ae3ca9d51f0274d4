//! Schedules and their runs as people are shown them.

use super::choice::Choice;
use super::declared::Declared;
use super::duty::outlook;
use super::names::BackupId;
use super::reached::Reached;
use super::runs::{Account, Ended, Outcome, Run, RunState, Runs};
use super::schedule::{Owner, Slot};
use crate::clock::WallTime;
use crate::decision::topology::{ClusterName, ScheduleName, ServerName, WatcherName};
use crate::decision::view::CandidateView;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One schedule: what it did, does and will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleView {
    /// Its name.
    pub name: ScheduleName,
    /// Its pattern and time zone.
    pub says: String,
    /// When the next run begins; absent when none ever does.
    pub next: Option<WallTime>,
    /// The run that goes on.
    pub run: Option<RunView>,
    /// The run that ended last.
    pub last: Option<EndedView>,
    /// The run that last made a backup.
    pub last_success: Option<EndedView>,
    /// How many runs have failed since.
    pub failures: usize,
    /// Slots that got no run and will get none, newest first; at most sixteen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<Slot>,
    /// Why nothing happens although a run is due, as a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waiting: String,
    /// The servers it could read from, best first; only in explanations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<CandidateView>,
}

/// A run that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Its slot.
    pub slot: Slot,
    /// The number of its newest attempt.
    pub attempt: u32,
    /// `running` or `waiting`.
    pub state: String,
    /// Who makes it, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watcher: Option<WatcherName>,
    /// Which server is read, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    /// Since when the attempt runs, or the next one is waited for.
    pub since: WallTime,
    /// Bytes stored so far.
    pub bytes: u64,
    /// Bytes read so far, before they were compressed.
    #[serde(default)]
    pub read_bytes: u64,
    /// About how many there will be, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_bytes: Option<u64>,
    /// Bytes read a second since it began.
    #[serde(default)]
    pub bytes_per_second: u64,
    /// About how long it still takes, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_seconds: Option<u64>,
    /// Bytes in the spool that the target has not taken yet.
    #[serde(default)]
    pub spooled_bytes: u64,
    /// What the target does not do now.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    /// Why the last attempt ended, while the next one is waited for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedView {
    /// Its slot.
    pub slot: Slot,
    /// When it ended.
    pub at: WallTime,
    /// How many attempts it took.
    pub attempts: u32,
    /// The backup it made; absent when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupId>,
    /// How many bytes that has.
    #[serde(default)]
    pub bytes: u64,
    /// The targets that do not have it, each with why; at most eight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What the leader knows besides the account.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// How far open runs are.
    pub reached: &'a BTreeMap<ScheduleName, Reached>,
    /// Why due runs do not begin.
    pub waiting: &'a BTreeMap<ScheduleName, String>,
}

/// All schedules of a cluster, in declared order.
pub fn schedules(
    cluster: &ClusterName,
    declared: &[Declared],
    runs: &Runs,
    known: Known<'_>,
    now: WallTime,
) -> Vec<ScheduleView> {
    let view = |declared: &Declared| {
        let fresh = Account { since: now, ..Account::default() };
        let account = runs.schedules.get(&declared.name).unwrap_or(&fresh);
        let owner = Owner { cluster, schedule: &declared.name };
        let outlook = outlook(owner, &declared.schedule, account, now);
        let run = account.open.as_ref();
        let reached = known.reached.get(&declared.name).cloned().unwrap_or_default();
        let next = outlook.due.filter(|_| run.is_none()).or(outlook.next);
        let done = |ended: &&Ended| matches!(ended.outcome, Outcome::Done { .. });
        ScheduleView {
            name: declared.name.clone(),
            says: declared.schedule.to_string(),
            next: next.map(|next| next.begins),
            run: run.map(|run| RunView::of(run, reached)),
            last: account.ended.back().map(EndedView::of),
            last_success: account.ended.iter().rev().find(done).map(EndedView::of),
            failures: account.ended.iter().rev().take_while(|ended| !done(ended)).count(),
            missed: outlook.missed,
            waiting: known.waiting.get(&declared.name).cloned().unwrap_or_default(),
            sources: Vec::new(),
        }
    };
    declared.iter().map(view).collect()
}

/// The servers of a choice, best first.
pub fn sources(choice: &Choice) -> Vec<CandidateView> {
    let view = |fitness: &super::choice::Fitness| CandidateView {
        server: fitness.server.clone(),
        eligible: fitness.refused.is_none(),
        reasons: fitness.refused.iter().chain(&fitness.reasons).cloned().collect(),
    };
    choice.servers.iter().map(view).collect()
}

impl RunView {
    fn of(run: &Run, reached: Reached) -> RunView {
        let (state, watcher, server, since, bytes, why) = match &run.state {
            RunState::Running { watcher, server, since, bytes, .. } => {
                let (watcher, server) = (Some(watcher.clone()), Some(server.clone()));
                ("running", watcher, server, *since, reached.stored.max(*bytes), String::new())
            }
            RunState::Waiting { why, since, .. } => ("waiting", None, None, *since, 0, why.clone()),
        };
        let (slot, attempt, state) = (run.slot, run.attempt, state.to_owned());
        let left_seconds = reached.left().map(|left| left.as_secs());
        let Reached { read, expected, rate, spooled, trouble, .. } = reached;
        RunView {
            slot,
            attempt,
            state,
            watcher,
            server,
            since,
            bytes,
            read_bytes: read,
            expected_bytes: expected,
            bytes_per_second: rate,
            left_seconds,
            spooled_bytes: spooled,
            trouble,
            why,
        }
    }
}

impl EndedView {
    fn of(ended: &Ended) -> EndedView {
        let (slot, at, attempts) = (ended.slot, ended.at, ended.attempts);
        let (backup, bytes, lacking, why) = match &ended.outcome {
            Outcome::Done { backup, bytes, lacking } => {
                (Some(backup.clone()), *bytes, lacking.clone(), String::new())
            }
            Outcome::Failed { why } => (None, 0, Vec::new(), why.clone()),
        };
        EndedView { slot, at, attempts, backup, bytes, lacking, why }
    }
}
