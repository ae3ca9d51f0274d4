//! When a backup is to be proven by a restore, which one, and when nobody may rely on there being a
//! proven one any more. Told from the catalog and a wall clock alone.

use super::catalog::{Catalog, Entry};
use super::names::BackupId;
use super::proof::Verdict;
use super::schedule::{CLOCKS_DIFFER, Schedule, later};
use crate::clock::WallTime;
use std::fmt;
use std::time::Duration;

/// After an attempt of which nothing came, neither a proof nor a failure, the next one waits so long.
pub const PAUSE: Duration = Duration::from_secs(3_600);

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proving {
    /// When backups are proven.
    pub when: When,
    /// A newest proven backup whose data is older than this is worth an alert.
    pub alert_after: Duration,
}

/// When backups are proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// That long after the last proof.
    Every(Duration),
    /// At the times of a pattern.
    Cron(Box<Schedule>),
}

/// What is to be done about proofs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// This backup is to be proven now.
    Now(BackupId),
    /// Nothing before that.
    At(WallTime),
    /// Nothing as long as there is no newer backup.
    Nothing,
}

/// Nobody may rely on a proven backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproven {
    /// The newest proven backup, if there is any.
    pub newest: Option<BackupId>,
    /// How old its data is; without one, for how long there has been none.
    pub age: Duration,
    /// Newer backups that are known to be worth nothing.
    pub failed: usize,
}

/// What metrics say of proofs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many backups are listed.
    pub backups: usize,
    /// How many of them were restored.
    pub proven: usize,
    /// How many of them are known to be worth nothing.
    pub failed: usize,
    /// How old the data of the newest proven one is.
    pub proven_age: Option<Duration>,
}

impl Proving {
    /// What is to be done now. `tried` is the last attempt of any kind, for one may end without a
    /// result.
    ///
    /// The newest backup is proven. One that fails makes the next older one due at once, until there
    /// is a proven one: with a newest that failed, people ask which is the last good one.
    pub fn due(&self, catalog: &Catalog, tried: Option<WallTime>, now: WallTime) -> Due {
        let believed = later(now, CLOCKS_DIFFER);
        let mut good = catalog.backups.iter().filter(|entry| !entry.proof.is_failed());
        let Some(newest) = good.next() else {
            return Due::Nothing;
        };
        let Verdict::Proven { .. } = newest.proof else {
            let last = proofs(catalog).filter(|at| *at <= believed).max();
            let mut from = last.and_then(|last| self.after(last, now)).unwrap_or(WallTime(0));
            if let Some(tried) = tried.filter(|tried| *tried <= believed) {
                from = from.max(later(tried, PAUSE));
            }
            return if now >= from { Due::Now(newest.id.clone()) } else { Due::At(from) };
        };
        Due::Nothing
    }

    /// When a proof is due after one that was made then.
    fn after(&self, last: WallTime, now: WallTime) -> Option<WallTime> {
        match &self.when {
            When::Every(span) => Some(later(last, *span)),
            When::Cron(schedule) => {
                let slot = schedule.newest(now).filter(|slot| slot.0 > last);
                slot.or_else(|| schedule.after(last.max(now))).map(|slot| slot.0)
            }
        }
    }

    /// Why people should be told; `since` is when proofs were first wanted.
    pub fn alert(&self, catalog: &Catalog, since: WallTime, now: WallTime) -> Option<Unproven> {
        let newest = newest_proven(catalog, now).map(|entry| (&entry.id, entry.begun));
        let failed = catalog.backups.iter().filter(|entry| entry.proof.is_failed());
        let alert = Unproven::told(newest, failed.map(|entry| entry.begun), (since, now));
        (alert.age > self.alert_after).then_some(alert)
    }
}

impl Unproven {
    /// Of the newest proven backup and those that failed, by when they were begun; and since when proofs
    /// are wanted.
    pub(super) fn told(
        newest: Option<(&BackupId, WallTime)>,
        failed: impl Iterator<Item = WallTime>,
        (since, now): (WallTime, WallTime),
    ) -> Unproven {
        let from = newest.map_or(since, |(_, begun)| begun);
        Unproven {
            newest: newest.map(|(id, _)| id.clone()),
            age: age(from, now),
            failed: failed.filter(|begun| *begun > from).count(),
        }
    }
}

impl Figures {
    /// What a catalog says now.
    pub fn of(catalog: &Catalog, now: WallTime) -> Figures {
        let count = |fits: fn(&Verdict) -> bool| {
            catalog.backups.iter().filter(|entry| fits(&entry.proof)).count()
        };
        Figures {
            backups: catalog.backups.len(),
            proven: count(|proof| matches!(proof, Verdict::Proven { .. })),
            failed: count(Verdict::is_failed),
            proven_age: newest_proven(catalog, now).map(|entry| age(entry.begun, now)),
        }
    }
}

/// When each of the proofs was made.
fn proofs(catalog: &Catalog) -> impl Iterator<Item = WallTime> {
    catalog.backups.iter().filter_map(|entry| match entry.proof {
        Verdict::Proven { at } => Some(at),
        Verdict::Unproven | Verdict::Whole { .. } | Verdict::Failed { .. } => None,
    })
}

/// The proven backup with the newest data. One of a time to come says nothing about its age.
pub(super) fn newest_proven(catalog: &Catalog, now: WallTime) -> Option<&Entry> {
    let proven = |entry: &&Entry| matches!(entry.proof, Verdict::Proven { .. });
    let believed = later(now, CLOCKS_DIFFER);
    let mut proven = catalog.backups.iter().filter(proven);
    proven.find(|entry| entry.begun <= believed)
}

pub(super) fn age(from: WallTime, now: WallTime) -> Duration {
    Duration::from_millis(now.0.saturating_sub(from.0))
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.age.as_secs() / 60;
        let age =
            if minutes < 120 { format!("{minutes} min") } else { format!("{} h", minutes / 60) };
        match &self.newest {
            Some(newest) => {
                write!(
                    f,
                    "the newest backup that was restored as a proof, {newest}, is {age} old"
                )?;
            }
            None => write!(f, "for {age} no backup has been restored as a proof")?,
        }
        match self.failed {
            0 => Ok(()),
            failed => write!(f, "; {failed} newer one(s) turned out to be worth nothing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Method;
    use super::super::manifest::tests::manifest;
    use super::*;
    use jiff::tz::TimeZone;

    const HOUR: u64 = 3_600_000;
    /// 2026-11-22, midnight in UTC.
    const DAY: u64 = 1_795_305_600_000;

    fn hours(count: u64) -> WallTime {
        WallTime(DAY + count * HOUR)
    }

    fn daily() -> Proving {
        let when = When::Every(Duration::from_secs(24 * 3_600));
        Proving { when, alert_after: Duration::from_secs(26 * 3_600) }
    }

    /// Backups by the hour they were begun, each with what is known of it.
    fn catalog(backups: &[(u64, Verdict)]) -> Catalog {
        let mut catalog = Catalog::new("shop".into(), "s3".to_owned());
        for (begun, proof) in backups {
            let manifest = manifest(hours(*begun).0, "db2");
            catalog.add("x", Ok(manifest.clone()));
            let entries = catalog.backups.iter_mut().filter(|entry| entry.id == manifest.id);
            entries.for_each(|entry| entry.proof = proof.clone());
        }
        catalog
    }

    fn proven(at: u64) -> Verdict {
        Verdict::Proven { at: hours(at) }
    }

    fn failed(at: u64) -> Verdict {
        Verdict::Failed { at: hours(at), why: "part 2".to_owned() }
    }

    fn due(backups: &[(u64, Verdict)], now: u64) -> String {
        match daily().due(&catalog(backups), None, hours(now)) {
            Due::Now(id) => {
                let entry = catalog(backups).backups.into_iter().find(|entry| entry.id == id);
                format!("now {}", (entry.unwrap().begun.0 - DAY) / HOUR)
            }
            Due::At(at) => format!("at {}", (at.0 - DAY) / HOUR),
            Due::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn the_newest_is_proven_once_a_day() {
        use Verdict::{Unproven, Whole};
        assert_eq!(due(&[], 10), "nothing", "there is none");
        assert_eq!(due(&[(2, Unproven)], 3), "now 2", "the first one at once");
        assert_eq!(due(&[(2, proven(3))], 40), "nothing", "again and again proves no more");
        assert_eq!(due(&[(2, proven(3)), (8, Unproven)], 9), "at 27");
        assert_eq!(due(&[(2, proven(3)), (8, Unproven), (26, Unproven)], 27), "now 26");
        assert_eq!(due(&[(2, Whole { at: hours(3) })], 3), "now 2", "sums prove no restore");
    }

    #[test]
    fn after_one_that_fails_the_next_older_one_is_looked_at() {
        use Verdict::Unproven;
        let all = [(2, proven(3)), (8, Unproven), (26, failed(28))];
        assert_eq!(due(&all, 28), "now 8");
        assert_eq!(due(&[(2, failed(3)), (8, failed(9))], 10), "nothing");
        assert_eq!(
            due(&[(2, proven(3)), (26, failed(28))], 29),
            "nothing",
            "that is the last good"
        );
    }

    #[test]
    fn an_attempt_without_a_result_is_not_repeated_at_once() {
        let catalog = catalog(&[(2, Verdict::Unproven)]);
        assert_eq!(daily().due(&catalog, Some(hours(3)), hours(3)), Due::At(hours(4)));
        assert!(matches!(daily().due(&catalog, Some(hours(3)), hours(4)), Due::Now(_)));
        let ahead = daily().due(&catalog, Some(hours(900)), hours(4));
        assert!(matches!(ahead, Due::Now(_)), "a clock that was wrong stops no proof");
    }

    #[test]
    fn those_of_files_are_due_and_missed_like_others() {
        let mut both = catalog(&[(2, proven(3)), (8, Verdict::Unproven)]);
        both.backups[0].method = Method::PhysicalClone;
        assert_eq!(daily().due(&both, None, hours(27)), Due::Now(both.backups[0].id.clone()));
        assert!(daily().alert(&both, hours(0), hours(40)).is_some());
        both.backups[0].proof = proven(28);
        assert_eq!(daily().due(&both, None, hours(40)), Due::Nothing);
        assert_eq!(daily().alert(&both, hours(0), hours(30)), None);
    }

    #[test]
    fn a_pattern_names_the_times() {
        let schedule = Schedule::new("0 4 * * *", TimeZone::UTC).unwrap();
        let nightly = Proving { when: When::Cron(Box::new(schedule)), ..daily() };
        let both = catalog(&[(2, proven(3)), (26, Verdict::Unproven)]);
        assert_eq!(nightly.due(&both, None, hours(27)), Due::Now(both.backups[0].id.clone()));
        let just = catalog(&[(2, proven(28)), (26, Verdict::Unproven)]);
        assert_eq!(nightly.due(&just, None, hours(29)), Due::At(hours(52)));
        let ahead = catalog(&[(2, proven(9_000)), (26, Verdict::Unproven)]);
        assert!(matches!(nightly.due(&ahead, None, hours(29)), Due::Now(_)));
    }

    #[test]
    fn people_are_told_when_no_proven_one_is_new_enough() {
        let alert = |backups: &[(u64, Verdict)], now| {
            daily().alert(&catalog(backups), hours(0), hours(now)).map(|it| it.to_string())
        };
        assert_eq!(alert(&[], 26), None, "it was just set up");
        let said = alert(&[], 27).unwrap();
        assert_eq!(said, "for 27 h no backup has been restored as a proof");
        assert!(alert(&[(5, Verdict::Unproven)], 27).is_some(), "listed is not proven");
        assert_eq!(alert(&[(5, proven(6))], 31), None);
        let said = alert(&[(5, proven(6)), (29, failed(30))], 32).unwrap();
        assert!(said.contains("is 27 h old; 1 newer one(s)"), "{said}");
        assert!(alert(&[(5, proven(31))], 32).is_some(), "its data counts, not when it was proven");
        assert_eq!(alert(&[(5, proven(6)), (900, proven(6))], 31), None);
    }

    #[test]
    fn metrics_count_the_same() {
        let all = [(2, proven(3)), (8, failed(9)), (9, Verdict::Unproven)];
        let figures = Figures::of(&catalog(&all), hours(12));
        assert_eq!((figures.backups, figures.proven, figures.failed), (3, 1, 1));
        assert_eq!(figures.proven_age, Some(Duration::from_secs(10 * 3_600)));
        assert_eq!(Figures::of(&catalog(&[]), hours(12)), Figures::default());
    }
}
