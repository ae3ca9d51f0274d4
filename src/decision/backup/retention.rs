//! Which backups stay, and why; what has no reason to stay is deleted.
//!
//! Time alone deletes nothing: places are counted among the backups there are, and the recovery
//! window reaches back from the newest good one. So a schedule that fails for weeks, or a clock that
//! jumps ahead, costs no backup. What is broken counts for nothing, but stays until a newer good one
//! exists.

use super::names::BackupId;
use super::schedule::{CLOCKS_DIFFER, later, stamp};
use crate::clock::WallTime;
use crate::decision::gtid::Gtids;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// How many backups of one schedule stay on one target. Nothing asked for means that all stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many.
    pub last: u32,
    /// The newest one of each of the newest so many days that have any.
    pub days: u32,
    /// The same for weeks, which begin on Monday.
    pub weeks: u32,
    /// The same for months.
    pub months: u32,
    /// How far back any moment can be restored, not only the moments of backups, provided that
    /// binary logs are archived.
    pub recovery: Option<Duration>,
    /// Where days begin.
    pub zone: TimeZone,
}

/// A backup that is listed, as far as its staying depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// Its name.
    pub name: BackupId,
    /// The moment whose data it holds.
    pub at: WallTime,
    /// The transactions it holds.
    pub gtids: Gtids,
    /// What is known of its worth.
    pub worth: Worth,
    /// Whether archived binary logs can be carried out after it.
    pub replays: bool,
    /// Whether somebody forbade to delete it.
    pub held: bool,
    /// Until when its target refuses to delete it.
    pub locked_until: Option<WallTime>,
    /// The backup without which it cannot be restored.
    pub base: Option<BackupId>,
}

/// What is known of a backup's worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worth {
    /// A part is missing or damaged, or a restore of it failed.
    Broken,
    /// It is whole.
    Good,
    /// It was restored.
    Proven,
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is the newest good one.
    Newest,
    /// It is the newest one that was restored.
    NewestProven,
    /// It is among the last so many.
    Last {
        /// Its place, the newest being first.
        place: u32,
        /// How many stay.
        of: u32,
    },
    /// It is the newest of that day.
    Day(Date),
    /// It is the newest of the week that begins on that Monday.
    Week(Date),
    /// It is the newest of the month of that day.
    Month(Date),
    /// It lies within the recovery window.
    InRecoveryWindow,
    /// The recovery window begins with it.
    BeginsRecoveryWindow,
    /// That one cannot be restored without it.
    NeededBy(BackupId),
    /// Somebody forbade to delete it.
    Held,
    /// Its target refuses to delete it until then.
    Locked(WallTime),
    /// It is broken, but no newer one is good.
    NothingBetter,
    /// It is of a time to come: the clock was wrong then, or is now.
    Ahead,
    /// Nothing was said about how many stay.
    AllStay,
}

/// What stays and what goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pruning {
    /// Those that stay, each with all reasons.
    pub kept: BTreeMap<BackupId, BTreeSet<Reason>>,
    /// Those to delete, in this order: none before those that need it.
    pub deleted: Vec<BackupId>,
}

impl Retention {
    /// Nothing asked for.
    pub fn all(zone: TimeZone) -> Retention {
        Retention { last: 0, days: 0, weeks: 0, months: 0, recovery: None, zone }
    }

    /// Sorts the backups of one schedule on one target; their names differ.
    pub fn prune(&self, now: WallTime, backups: &[Backup]) -> Pruning {
        let mut sorting = Sorting::new(now, backups);
        if self.says_nothing() {
            sorting.keep_all();
        }
        sorting.keep_newest();
        sorting.keep_last(self.last);
        let zone = &self.zone;
        sorting.keep_newest_of(zone, self.days, Some, Reason::Day);
        sorting.keep_newest_of(zone, self.weeks, monday, Reason::Week);
        let month = |day: Date| Some(day.first_of_month());
        sorting.keep_newest_of(zone, self.months, month, Reason::Month);
        if let Some(recovery) = self.recovery {
            sorting.keep_recoverable(recovery);
        }
        sorting.keep_protected();
        sorting.keep_needed();
        sorting.result()
    }

    fn says_nothing(&self) -> bool {
        self.last == 0
            && self.days == 0
            && self.weeks == 0
            && self.months == 0
            && self.recovery.is_none()
    }
}

struct Sorting<'a> {
    now: WallTime,
    by_name: BTreeMap<&'a BackupId, &'a Backup>,
    /// Those that can be restored and are not ahead of the clock, newest first.
    good: Vec<&'a Backup>,
    kept: BTreeMap<BackupId, BTreeSet<Reason>>,
}

impl<'a> Sorting<'a> {
    fn new(now: WallTime, backups: &'a [Backup]) -> Sorting<'a> {
        let by_name: BTreeMap<_, _> = backups.iter().map(|backup| (&backup.name, backup)).collect();
        let mut sorting = Sorting { now, by_name, good: Vec::new(), kept: BTreeMap::new() };
        let counts = |backup: &&Backup| sorting.restorable(backup) && !sorting.ahead(backup);
        let mut good: Vec<_> = sorting.by_name.values().copied().filter(counts).collect();
        good.sort_by_key(|backup| std::cmp::Reverse((backup.at, &backup.name)));
        sorting.good = good;
        sorting
    }

    /// A backup and those it cannot be restored without, as far as they are there; and whether all are.
    fn chain<'b>(&self, backup: &'b Backup) -> (Vec<&'b Backup>, bool)
    where
        'a: 'b,
    {
        let mut chain = vec![backup];
        let mut next = backup.base.as_ref();
        while let Some(name) = next {
            let Some(base) = self.by_name.get(name).copied() else {
                return (chain, false);
            };
            if chain.len() >= self.by_name.len() {
                return (chain, false);
            }
            chain.push(base);
            next = base.base.as_ref();
        }
        (chain, true)
    }

    fn restorable(&self, backup: &Backup) -> bool {
        let (chain, whole) = self.chain(backup);
        whole && chain.iter().all(|part| part.worth != Worth::Broken)
    }

    fn ahead(&self, backup: &Backup) -> bool {
        backup.at > later(self.now, CLOCKS_DIFFER) || stamp(backup.at).is_none()
    }

    fn keep(&mut self, backup: &Backup, reason: Reason) {
        self.kept.entry(backup.name.clone()).or_default().insert(reason);
    }

    fn keep_all(&mut self) {
        for backup in self.by_name.clone().into_values() {
            self.keep(backup, Reason::AllStay);
        }
    }

    fn keep_newest(&mut self) {
        if let Some(newest) = self.good.first().copied() {
            self.keep(newest, Reason::Newest);
        }
        let mut proven = self.good.iter().copied().filter(|good| good.worth == Worth::Proven);
        if let Some(proven) = proven.next() {
            self.keep(proven, Reason::NewestProven);
        }
    }

    fn keep_last(&mut self, most: u32) {
        for (place, backup) in (1..=most).zip(self.good.clone()) {
            self.keep(backup, Reason::Last { place, of: most });
        }
    }

    /// Keeps the newest one of each of the newest periods; `period` says when that of a day begins.
    fn keep_newest_of(
        &mut self,
        zone: &TimeZone,
        most: u32,
        period: fn(Date) -> Option<Date>,
        reason: fn(Date) -> Reason,
    ) {
        let mut seen = BTreeSet::new();
        for backup in self.good.clone() {
            let day = stamp(backup.at).map(|at| zone.to_datetime(at).date());
            let Some(begins) = day.and_then(period) else { continue };
            if seen.contains(&begins) {
                continue;
            }
            if u32::try_from(seen.len()).is_ok_and(|seen| seen >= most) {
                break;
            }
            seen.insert(begins);
            self.keep(backup, reason(begins));
        }
    }

    fn keep_recoverable(&mut self, recovery: Duration) {
        let good: Vec<_> = self.good.iter().copied().filter(|backup| backup.replays).collect();
        let Some(newest) = good.first() else { return };
        let span = u64::try_from(recovery.as_millis()).unwrap_or(u64::MAX);
        let begins = WallTime(newest.at.min(self.now).0.saturating_sub(span));
        for backup in good {
            if backup.at <= begins {
                self.keep(backup, Reason::BeginsRecoveryWindow);
                break;
            }
            self.keep(backup, Reason::InRecoveryWindow);
        }
    }

    fn keep_protected(&mut self) {
        let newest_good = self.good.first().map(|backup| backup.at);
        for backup in self.by_name.clone().into_values() {
            if backup.held {
                self.keep(backup, Reason::Held);
            }
            if let Some(until) = backup.locked_until.filter(|until| *until > self.now) {
                self.keep(backup, Reason::Locked(until));
            }
            if self.ahead(backup) {
                self.keep(backup, Reason::Ahead);
            } else if !self.restorable(backup) && newest_good.is_none_or(|at| at <= backup.at) {
                self.keep(backup, Reason::NothingBetter);
            }
        }
    }

    fn keep_needed(&mut self) {
        let kept: Vec<_> =
            self.kept.keys().filter_map(|name| self.by_name.get(name).copied()).collect();
        for backup in kept {
            for base in self.chain(backup).0.into_iter().skip(1) {
                self.keep(base, Reason::NeededBy(backup.name.clone()));
            }
        }
    }

    fn result(self) -> Pruning {
        let gone = |backup: &&Backup| !self.kept.contains_key(&backup.name);
        let mut deleted: Vec<_> = self.by_name.values().copied().filter(gone).collect();
        deleted.sort_by_key(|backup| {
            std::cmp::Reverse((self.chain(backup).0.len(), backup.at, &backup.name))
        });
        let deleted = deleted.into_iter().map(|backup| backup.name.clone()).collect();
        Pruning { kept: self.kept, deleted }
    }
}

fn monday(day: Date) -> Option<Date> {
    day.iso_week_date().first_of_week().ok().map(|monday| monday.date())
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Newest => f.write_str("the newest good one"),
            Reason::NewestProven => f.write_str("the newest one that was restored"),
            Reason::Last { place, of } => write!(f, "number {place} of the last {of}"),
            Reason::Day(day) => write!(f, "the newest of {day}"),
            Reason::Week(monday) => write!(f, "the newest of the week from {monday} on"),
            Reason::Month(first) => write!(f, "the newest of {}", first.strftime("%Y-%m")),
            Reason::InRecoveryWindow => f.write_str("within the recovery window"),
            Reason::BeginsRecoveryWindow => f.write_str("the recovery window begins with it"),
            Reason::NeededBy(name) => write!(f, "{name} cannot be restored without it"),
            Reason::Held => f.write_str("somebody forbade to delete it"),
            Reason::Locked(until) => write!(f, "locked until {until}"),
            Reason::NothingBetter => f.write_str("broken, but no newer one is good"),
            Reason::Ahead => f.write_str("of a time to come, so a clock was wrong"),
            Reason::AllStay => f.write_str("nothing was said about how many stay"),
        }
    }
}
