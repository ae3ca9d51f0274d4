//! How far a backup or its restore is, for whoever shows it: a terminal, or a watcher.

use super::target::TargetError;
use crate::clock::WallTime;
use crate::decision::backup::reached::Reached as Far;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;

/// How far a backup, or its restore, is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes of SQL so far.
    pub plain: u64,
    /// Bytes fetched so far, or stored at the target that has the least of those still in play.
    pub stored: u64,
    /// About how many bytes of SQL there will be.
    pub total: Option<u64>,
    /// The targets of a backup, one by one.
    pub targets: Vec<Reached>,
}

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Servers and targets are asked what must be known first.
    #[default]
    Beginning,
    /// The data is read.
    Reading,
    /// All data was read; its tables are counted.
    Counting,
    /// What targets do not have yet is sent.
    Sending,
    /// Objects are put in their places, and manifests written.
    Finishing,
}

/// How far one target is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Its name.
    pub target: String,
    /// Bytes stored there.
    pub stored: u64,
    /// Bytes that wait for it in the spool.
    pub spooled: u64,
    /// What it does not do now, if so.
    pub trouble: Option<Trouble>,
    /// Why it was given up, if it was.
    pub failed: Option<String>,
}

/// A target that does not do what it is asked for, and is asked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Since when.
    pub since: WallTime,
    /// Its last refusal.
    pub what: String,
}

impl Progress {
    /// Bytes of SQL a second.
    pub fn rate(&self, elapsed: Duration) -> f64 {
        self.plain as f64 / elapsed.as_secs_f64().max(0.001)
    }

    /// About how long it goes on, where that can be told.
    pub fn left(&self, elapsed: Duration) -> Option<Duration> {
        let left = self.total?.checked_sub(self.plain).filter(|left| *left > 0)?;
        let rate = self.rate(elapsed);
        (rate > 1.0).then(|| Duration::try_from_secs_f64(left as f64 / rate).ok()).flatten()
    }

    /// What the leader is told of a backup.
    pub(super) fn reached(&self, elapsed: Duration) -> Far {
        let troubles: Vec<String> = self.targets.iter().filter_map(Reached::told).collect();
        let far = Far {
            stored: self.stored,
            read: self.plain,
            expected: self.total,
            rate: self.rate(elapsed) as u64,
            spooled: self.targets.iter().map(|target| target.spooled).sum(),
            trouble: String::new(),
        };
        far.troubled_by(&troubles.join("; "))
    }

    fn least_stored(&self) -> Option<u64> {
        let in_play = self.targets.iter().filter(|target| target.failed.is_none());
        in_play.map(|target| target.stored).min()
    }
}

impl Reached {
    /// What the target does not do, if so.
    fn told(&self) -> Option<String> {
        let Reached { target, trouble, failed, .. } = self;
        let failed = failed.as_ref().map(|why| format!("{target} failed: {why}"));
        let tried = |it: &Trouble| format!("{target} since {}: {}", it.since, it.what);
        failed.or_else(|| trouble.as_ref().map(tried))
    }
}

/// Tells how far one target is.
#[derive(Clone, Debug)]
pub(super) struct Report {
    progress: watch::Sender<Progress>,
    at: usize,
}

impl Report {
    /// Of the target of that number.
    pub(super) fn of(progress: &watch::Sender<Progress>, at: usize) -> Report {
        Report { progress: progress.clone(), at }
    }

    pub(super) fn stored(&self, stored: u64, spooled: u64) {
        self.change(|reached| {
            reached.stored = stored;
            reached.spooled = spooled;
        });
    }

    pub(super) fn trouble(&self, trouble: Option<Trouble>) {
        self.change(|reached| reached.trouble = trouble);
    }

    pub(super) fn failed(&self, error: &TargetError) {
        self.change(|reached| {
            reached.trouble = None;
            reached.failed = Some(error.to_string());
        });
    }

    fn change(&self, change: impl FnOnce(&mut Reached)) {
        self.progress.send_modify(|progress| {
            if let Some(reached) = progress.targets.get_mut(self.at) {
                change(reached);
            }
            if let Some(least) = progress.least_stored() {
                progress.stored = least;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_what_every_target_in_play_has() {
        let named = |target: &str| Reached { target: target.to_owned(), ..Reached::default() };
        let targets = vec![named("a"), named("b")];
        let progress = watch::Sender::new(Progress { targets, ..Progress::default() });
        Report::of(&progress, 0).stored(100, 0);
        assert_eq!(progress.borrow().stored, 0);
        Report::of(&progress, 1).stored(60, 40);
        assert_eq!(progress.borrow().stored, 60);
        Report::of(&progress, 1).failed(&TargetError::Missing("x".to_owned()));
        assert_eq!(progress.borrow().stored, 100);
    }

    #[test]
    fn the_end_is_told_where_it_can_be() {
        let second = Duration::from_secs(1);
        let mut progress = Progress { plain: 10_000, ..Progress::default() };
        assert_eq!(progress.left(second), None);
        progress.total = Some(30_000);
        assert_eq!(progress.left(second), Some(2 * second));
        progress.total = Some(9_000);
        assert_eq!(progress.left(second), None, "the estimate was too low");
    }
}
