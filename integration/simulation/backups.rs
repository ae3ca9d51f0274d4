//! Scheduled backups: attempts take a while, store something, and tell their watcher. A watcher may
//! die in the middle, or after it stored a backup and before it could say so.
//!
//! Whatever happens, nobody reads while another attempt of the same slot still does, and in the end a
//! slot has the one backup that the account tells of.

use crate::setting::{self, Setting};
use crate::world::{Event, MILLI, SECOND, World};
use jiff::tz::TimeZone;
use regent::decision::backup::choice::Wish;
use regent::decision::backup::declared::{Declared, Schedules};
use regent::decision::backup::names::BackupId;
use regent::decision::backup::runs::{Attempt, Outcome};
use regent::decision::backup::schedule::Schedule;
use regent::watcher::{BackupEnd, BackupNews, BackupOrder, BackupSaid, Input};
use std::collections::{BTreeMap, BTreeSet};

/// The target, and who is at work.
#[derive(Debug, Default)]
pub struct Backups {
    stored: BTreeMap<BackupId, Attempt>,
    /// Attempts under way, each with the watcher that makes it and which of its lives that is.
    running: BTreeSet<(usize, u32, Attempt)>,
}

impl Setting {
    /// One schedule, which comes once, while there are faults.
    pub fn schedules(&self) -> Schedules {
        if !self.backups {
            return Schedules::new();
        }
        let schedule = Schedule::new("14 22 * * *", TimeZone::UTC).unwrap();
        let declared = Declared { name: "nightly".into(), schedule, wish: Wish::default() };
        Schedules::from([(setting::cluster(), vec![declared])])
    }
}

impl World {
    /// A watcher orders something about a backup.
    pub fn order_backup(&mut self, watcher: usize, life: u32, order: BackupOrder) {
        self.say(|| format!("w{} orders {order:?}", watcher + 1));
        match order {
            BackupOrder::Make { attempt, .. } => self.make_backup(watcher, life, attempt),
            BackupOrder::BreakOff { attempt, .. } => {
                if self.backups.running.remove(&(watcher, life, attempt)) {
                    self.tally.count("backup", "broken off");
                }
            }
            BackupOrder::Discard { backup, .. } => {
                self.tally.count("backup", "discarded");
                self.backups.stored.remove(&backup);
            }
            BackupOrder::Prune { .. } => self.tally.count("backup", "counts"),
        }
    }

    fn make_backup(&mut self, watcher: usize, life: u32, attempt: Attempt) {
        let alive = |(other, life, _): &&(usize, u32, Attempt)| self.watchers[*other].life == *life;
        let other =
            self.backups.running.iter().filter(alive).find(|(.., other)| {
                (&other.schedule, other.slot) == (&attempt.schedule, attempt.slot)
            });
        if let Some((other, _, earlier)) = other {
            return self.broken(format!(
                "w{} makes {earlier}, w{} {attempt}",
                other + 1,
                watcher + 1
            ));
        }
        let mut stored = self.backups.stored.iter();
        let found = stored.find(|(_, by)| by.slot == attempt.slot).map(|(id, _)| id.clone());
        if let Some(backup) = found {
            self.tally.count("backup", "found");
            let end = BackupEnd::Found { backup, bytes: 1 };
            return self.tell_backup(watcher, life, attempt, end);
        }
        self.tally.count("backup", "begun");
        self.backups.running.insert((watcher, life, attempt.clone()));
        let lasts = self.random.range(SECOND, 14 * SECOND);
        self.after(lasts, Event::BackupStored { watcher, life, attempt });
    }

    /// An attempt has come to its end, if nobody broke it off and its watcher still lives.
    pub fn backup_stored(&mut self, watcher: usize, life: u32, attempt: Attempt) {
        let ours = self.backups.running.remove(&(watcher, life, attempt.clone()));
        if !ours || self.watchers[watcher].life != life {
            return;
        }
        let backup = BackupId::parse(&format!("b{}", self.id())).unwrap();
        self.tally.count("backup", "stored");
        self.say(|| format!("w{} has stored {backup} for {attempt}", watcher + 1));
        self.backups.stored.insert(backup.clone(), attempt.clone());
        if self.troubled() && self.random.permille(200) {
            self.tally.count("backup", "stored in vain");
            return self.fail_watcher(watcher);
        }
        self.tell_backup(
            watcher,
            life,
            attempt,
            BackupEnd::Made { backup, bytes: 1, lacking: Vec::new() },
        );
    }

    fn tell_backup(&mut self, watcher: usize, life: u32, attempt: Attempt, end: BackupEnd) {
        let said = BackupSaid::Ended(end);
        let news = BackupNews { cluster: setting::cluster(), attempt, said };
        self.after(10 * MILLI, Event::Input { watcher, life, input: Input::Backup(news) });
    }

    /// What is wrong with the backups; `None` while nothing is.
    pub fn backups_unwell(&self) -> Option<String> {
        if !self.setting.backups {
            return None;
        }
        let leader = self.watchers.iter().find(|host| host.leads())?.watcher.as_ref()?;
        let runs = &leader.state().clusters.get(&setting::cluster())?.backups;
        let account = runs.schedules.get(&"nightly".into());
        let Some(ended) = account.and_then(|account| account.ended.back()) else {
            return Some(format!("no run has ended: {account:?}"));
        };
        let stored: Vec<_> =
            self.backups.stored.iter().filter(|(_, by)| by.slot == ended.slot).collect();
        match (&ended.outcome, stored.as_slice()) {
            (Outcome::Done { backup, .. }, [(stored, _)]) if backup == *stored => None,
            (Outcome::Failed { .. }, []) => None,
            (outcome, stored) => Some(format!("{outcome:?}, and there is {stored:?}")),
        }
    }
}
