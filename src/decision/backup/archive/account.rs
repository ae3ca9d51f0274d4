//! The account of archiving by the watchers: what people were told of it, replicated, so that it is told once
//! whoever leads, and so that nobody must reach a target to say that the archive is behind.

use crate::clock::WallTime;
use crate::decision::backup::reason::shortened;
use crate::decision::cluster::Unknown;
use crate::decision::topology::{ClusterName, ServerName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What hinders archiving for so long is told; a failover hinders it for a moment.
const FAILING: Duration = Duration::from_secs(30);

/// That all is archived is looked after more often; when it was not for so long, nobody knows.
const FRESH: Duration = Duration::from_secs(30);

/// What is wanted of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The target that the binary log is archived at.
    pub target: String,
    /// An archive that is behind for longer is worth an alert.
    pub alert_after: Duration,
}

/// What is wanted of all clusters whose binary log the watchers archive.
pub type AllWanted = BTreeMap<ClusterName, Wanted>;

/// How far archiving is, as the watcher tells that does it. A field that another version lacks is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// The target.
    pub target: String,
    /// The server that is read, while there is one.
    pub source: Option<ServerName>,
    /// Up to when nothing is missing that was committed.
    pub reached: Option<WallTime>,
    /// Whether all was archived that was committed when it was looked last.
    pub complete: bool,
    /// How many segments this watcher has stored.
    pub segments: u64,
    /// How many transactions these have.
    pub transactions: u64,
    /// How many bytes these take.
    pub bytes: u64,
    /// How many holes the archive has, of which no moment can be restored.
    pub gaps: u64,
    /// How often something failed.
    pub errors: u64,
    /// What keeps it from going on at the moment; empty when nothing does.
    pub trouble: String,
    /// Since when.
    pub since: Option<WallTime>,
}

/// What is known of a cluster's archive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// The target; nothing is archived by watchers where there is none.
    #[serde(default)]
    pub target: Option<String>,
    /// Since when it is archived there.
    #[serde(default)]
    pub since: WallTime,
    /// Up to when nothing is missing, as it was written down last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<WallTime>,
    /// How many holes the archive has.
    #[serde(default)]
    pub gaps: u64,
    /// Whether people were told that archiving fails.
    #[serde(default)]
    pub failing: bool,
    /// Whether people were told that the archive is behind.
    #[serde(default)]
    pub alarmed: bool,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A change of the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The watchers archive at that target, or nowhere any more.
    Watch {
        /// Which.
        target: Option<String>,
    },
    /// The archive has got further, or has more holes or fewer.
    Learn {
        /// Up to when nothing is missing.
        reached: Option<WallTime>,
        /// How many holes it has.
        gaps: u64,
    },
    /// Archiving fails, or goes on again.
    Fail {
        /// Why it fails; absent when it goes on.
        why: Option<String>,
    },
    /// The archive is behind for too long, or has caught up.
    Alarm {
        /// How far it is behind; absent when it has caught up.
        why: Option<String>,
    },
}

/// Why a change had no effect: it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the binary log is not archived, or that is known")]
pub struct Rejected;

/// An archive that is behind for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// What was committed after that is not archived.
    pub reached: Option<WallTime>,
    /// Since when it is archived at all.
    pub since: WallTime,
    /// For how long.
    pub lag: Duration,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.lag.as_secs() / 60;
        match self.reached {
            Some(reached) => {
                write!(f, "nothing committed after {reached} is archived, {minutes} min ago")
            }
            None => write!(f, "nothing is archived, {minutes} min after it was to begin"),
        }
    }
}

impl Seen {
    /// Keeps no more of it than is kept.
    pub(in crate::decision::backup) fn bound(&mut self) {
        self.trouble = shortened(&self.trouble);
    }
}

impl Account {
    /// Whether nothing was ever archived by watchers.
    pub fn is_empty(&self) -> bool {
        *self == Account::default()
    }

    /// Records a change that was made at that time by the clock of the leader then; gives the kind of event
    /// and the sentence that people are told, if they are.
    pub fn apply(
        &mut self,
        at: WallTime,
        change: &Change,
    ) -> Result<Option<(&'static str, String)>, Rejected> {
        if let Change::Watch { target } = change {
            if *target == self.target {
                return Err(Rejected);
            }
            let unknown = std::mem::take(&mut self.unknown);
            *self = Account { target: target.clone(), since: at, unknown, ..Account::default() };
            return Ok(None);
        }
        let target = self.target.as_deref().ok_or(Rejected)?;
        let place = format!("binary log at target {target}");
        match change {
            Change::Watch { .. } => Err(Rejected),
            Change::Learn { reached, gaps } => {
                if (*reached, *gaps) == (self.reached, self.gaps) {
                    return Err(Rejected);
                }
                let more = gaps.saturating_sub(self.gaps);
                (self.reached, self.gaps) = (*reached, *gaps);
                let text = format!(
                    "{place}: {more} gap(s) more that no recovery can cross; take a backup now"
                );
                Ok((more > 0).then_some(("archive_gap", text)))
            }
            Change::Fail { why } => {
                if std::mem::replace(&mut self.failing, why.is_some()) == why.is_some() {
                    return Err(Rejected);
                }
                Ok(Some(match why {
                    Some(why) => ("archive_failing", format!("{place}: {}", shortened(why))),
                    None => ("archive_resumed", format!("{place}: it is archived again")),
                }))
            }
            Change::Alarm { why } => {
                if std::mem::replace(&mut self.alarmed, why.is_some()) == why.is_some() {
                    return Err(Rejected);
                }
                Ok(Some(match why {
                    Some(why) => ("archive_behind", format!("{place}: {}", shortened(why))),
                    None => ("archive_caught_up", format!("{place}: it has caught up")),
                }))
            }
        }
    }

    /// What is to be recorded, given what the watcher that archives tells, if one does.
    pub fn changes(
        &self,
        wanted: Option<&Wanted>,
        seen: Option<&Seen>,
        now: WallTime,
    ) -> Option<Change> {
        let target = wanted.map(|wanted| wanted.target.clone());
        if target != self.target {
            return Some(Change::Watch { target });
        }
        let wanted = wanted?;
        let seen = seen.filter(|seen| seen.target == wanted.target);
        if let Some(seen) = seen {
            // Where it stands is of interest only when nobody tells it, so it is written down seldom.
            let reached = self.reached.max(seen.reached);
            let further = age(self.reached.unwrap_or_default(), reached.unwrap_or_default());
            if further >= wanted.alert_after / 4 || seen.gaps != self.gaps {
                return Some(Change::Learn { reached, gaps: seen.gaps });
            }
            let long = seen.since.is_some_and(|since| age(since, now) >= FAILING);
            let failing = !seen.trouble.is_empty() && (long || self.failing);
            if failing != self.failing {
                let why = failing.then(|| seen.trouble.clone());
                return Some(Change::Fail { why });
            }
        }
        let behind = self.behind(wanted, seen, now);
        let why = behind.map(|behind| behind.to_string());
        (why.is_some() != self.alarmed).then_some(Change::Alarm { why })
    }

    /// Why people should be told that the archive is behind.
    pub fn behind(&self, wanted: &Wanted, seen: Option<&Seen>, now: WallTime) -> Option<Behind> {
        let (since, reached) = (self.since, self.reached.max(seen.and_then(|seen| seen.reached)));
        let lag = age(reached.map_or(since, |reached| reached.max(since)), now);
        (lag > wanted.alert_after).then_some(Behind { reached, since, lag })
    }
}

fn age(at: WallTime, now: WallTime) -> Duration {
    Duration::from_millis(now.0.saturating_sub(at.0))
}

/// The archive of a cluster as people see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveView {
    /// The target.
    pub target: String,
    /// The server that is read; absent while none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ServerName>,
    /// Up to when nothing is missing that was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<WallTime>,
    /// How long ago that was; 0 when all that was committed is archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<u64>,
    /// How many segments the watcher that does it has stored since it began.
    #[serde(default)]
    pub segments: u64,
    /// How many transactions these have.
    #[serde(default)]
    pub transactions: u64,
    /// How many bytes these take.
    #[serde(default)]
    pub bytes: u64,
    /// How many holes the archive has, of which no moment can be restored.
    #[serde(default)]
    pub gaps: u64,
    /// How often something failed since that watcher began.
    #[serde(default)]
    pub errors: u64,
    /// What keeps it from going on at the moment; empty when nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    /// That it is behind for too long, as a sentence; empty when it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alert: String,
}

/// The archive of a cluster whose watchers archive its binary log.
pub fn shown(
    account: &Account,
    wanted: &Wanted,
    seen: Option<&Seen>,
    now: WallTime,
) -> ArchiveView {
    let behind = account.behind(wanted, seen, now).map(|behind| behind.to_string());
    let reached = account.reached.max(seen.and_then(|seen| seen.reached));
    let complete = seen.is_some_and(|seen| seen.complete);
    let lag = |reached: WallTime| match age(reached, now) {
        short if complete && short <= FRESH => 0,
        lag => lag.as_secs(),
    };
    let seen = seen.cloned().unwrap_or_default();
    ArchiveView {
        target: wanted.target.clone(),
        source: seen.source,
        reached,
        lag_seconds: reached.map(lag),
        segments: seen.segments,
        transactions: seen.transactions,
        bytes: seen.bytes,
        gaps: account.gaps.max(seen.gaps),
        errors: seen.errors,
        trouble: seen.trouble,
        alert: behind.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(900);

    fn wanted() -> Wanted {
        Wanted { target: "s3".to_owned(), alert_after: LIMIT }
    }

    fn seen(reached: u64) -> Seen {
        let reached = Some(WallTime(reached * 1_000));
        Seen { target: "s3".to_owned(), reached, ..Seen::default() }
    }

    /// Goes on until nothing more is to be recorded; the kinds of events that were told.
    fn told(account: &mut Account, seen: Option<&Seen>, second: u64) -> Vec<&'static str> {
        let now = WallTime(second * 1_000);
        let mut told = Vec::new();
        while let Some(change) = account.changes(Some(&wanted()), seen, now) {
            told.extend(account.apply(now, &change).unwrap().map(|(kind, _)| kind));
            assert_eq!(account.apply(now, &change), Err(Rejected), "{change:?}");
        }
        told
    }

    #[test]
    fn an_archive_that_is_behind_is_told_once_and_when_it_has_caught_up() {
        let mut account = Account::default();
        assert!(told(&mut account, None, 1_000).is_empty());
        assert!(told(&mut account, None, 1_900).is_empty(), "it was just wanted");
        assert_eq!(told(&mut account, None, 1_901), ["archive_behind"]);
        let view = shown(&account, &wanted(), None, WallTime(1_960_000));
        assert_eq!(view.alert, "nothing is archived, 16 min after it was to begin");
        assert!(told(&mut account, None, 2_000).is_empty());
        assert_eq!(told(&mut account, Some(&seen(1_950)), 2_000), ["archive_caught_up"]);
        assert_eq!(account.reached, Some(WallTime(1_950_000)));
        // Another leader that hears nobody goes by what was written down.
        assert_eq!(told(&mut account, None, 2_851), ["archive_behind"]);
        let view = shown(&account, &wanted(), None, WallTime(2_851_000));
        assert!(view.alert.starts_with("nothing committed after 1970-01-01T00:32:30"), "{view:?}");
        assert_eq!(view.lag_seconds, Some(901));
        assert!(account.changes(None, None, WallTime(0)).is_some());
    }

    #[test]
    fn where_it_stands_is_written_down_seldom() {
        let mut account = Account::default();
        told(&mut account, Some(&seen(1_000)), 1_000);
        for (reached, written) in [(1_100, 1_000), (1_224, 1_000), (1_225, 1_225), (1_000, 1_225)] {
            told(&mut account, Some(&seen(reached)), 1_300);
            assert_eq!(account.reached, Some(WallTime(written * 1_000)), "{reached}");
        }
        let complete = Seen { complete: true, ..seen(1_290) };
        let lag =
            |seen: Seen| shown(&account, &wanted(), Some(&seen), WallTime(1_300_000)).lag_seconds;
        assert_eq!((lag(complete), lag(seen(1_290))), (Some(0), Some(10)));
        let stuck = Seen { complete: true, ..seen(1_260) };
        assert_eq!(lag(stuck), Some(40), "it has not looked since");
    }

    #[test]
    fn gaps_are_told_and_so_is_what_hinders_it_for_long() {
        let mut account = Account::default();
        told(&mut account, Some(&seen(1_000)), 1_000);
        let mut now = Seen { gaps: 1, ..seen(1_000) };
        assert_eq!(told(&mut account, Some(&now), 1_001), ["archive_gap"]);
        now.gaps = 0;
        assert!(told(&mut account, Some(&now), 1_002).is_empty(), "its segments were removed");
        now.trouble = "503".to_owned();
        now.since = Some(WallTime(1_000_000));
        assert!(told(&mut account, Some(&now), 1_029).is_empty());
        assert_eq!(told(&mut account, Some(&now), 1_030), ["archive_failing"]);
        now.since = Some(WallTime(1_031_000));
        assert!(told(&mut account, Some(&now), 1_032).is_empty(), "the same with another text");
        now.trouble.clear();
        assert_eq!(told(&mut account, Some(&now), 1_033), ["archive_resumed"]);
    }

    #[test]
    fn an_account_of_a_newer_version_keeps_what_is_added() {
        let text = r#"{"target":"s3","since":5,"moon":"full"}"#;
        let account: Account = serde_json::from_str(text).unwrap();
        assert_eq!(account.unknown.get("moon"), Some(&"full".into()));
        assert!(!account.is_empty() && Account::default().is_empty());
    }
}
