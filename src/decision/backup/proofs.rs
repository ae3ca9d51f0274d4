//! The account of proofs: what the watchers have told people of each target, replicated, so that it is told
//! once whoever leads, and so that nobody must reach a target to say that nothing there is proven.

use super::catalog::{Catalog, Entry};
use super::names::BackupId;
use super::proof::Verdict;
use super::proving::{self, Figures, Unproven};
use super::reason::shortened;
use crate::clock::WallTime;
use crate::decision::cluster::Unknown;
use crate::decision::topology::ClusterName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Failed backups that are told of by name, the newest.
const MOST_FAILED: usize = 8;

/// Targets of one cluster that are kept account of.
const MOST_TARGETS: usize = 32;

/// What is wanted of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The targets that are looked at.
    pub targets: Vec<String>,
    /// A newest proven backup whose data is older than this is worth an alert.
    pub alert_after: Duration,
}

/// What is wanted of all clusters that have backups proven.
pub type AllWanted = BTreeMap<ClusterName, Wanted>;

/// What a watcher saw at one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// The target.
    pub target: String,
    /// The proven backup with the newest data.
    pub newest: Option<Proven>,
    /// Backups that are worth nothing, the newest first; at most eight.
    pub failed: Vec<Worthless>,
    /// How many backups there are.
    pub backups: u64,
    /// How many of them were restored as a proof.
    pub proven: u64,
    /// How many of them are worth nothing.
    pub worthless: u64,
}

/// A proven backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// Its name.
    pub backup: BackupId,
    /// When it was begun: how old its data is.
    pub begun: WallTime,
    /// When it was proven.
    pub at: WallTime,
}

/// A backup that a proof has shown to be worth nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worthless {
    /// Its name.
    pub backup: BackupId,
    /// When it was begun.
    pub begun: WallTime,
    /// What is wrong with it.
    pub why: String,
}

impl Seen {
    /// What a catalog says.
    pub fn of(catalog: &Catalog, now: WallTime) -> Seen {
        let Figures { backups, proven, failed, .. } = Figures::of(catalog, now);
        let newest = proving::newest_proven(catalog, now).and_then(|entry| match entry.proof {
            Verdict::Proven { at } => {
                Some(Proven { backup: entry.id.clone(), begun: entry.begun, at })
            }
            _ => None,
        });
        let worthless = |entry: &Entry| match &entry.proof {
            Verdict::Failed { why, .. } => {
                let (backup, begun) = (entry.id.clone(), entry.begun);
                Some(Worthless { backup, begun, why: shortened(why) })
            }
            _ => None,
        };
        Seen {
            target: catalog.target.clone(),
            newest,
            failed: catalog.backups.iter().filter_map(worthless).take(MOST_FAILED).collect(),
            backups: backups as u64,
            proven: proven as u64,
            worthless: failed as u64,
        }
    }

    /// The same with no more than is kept of it.
    pub(super) fn bound(&mut self) {
        self.failed.truncate(MOST_FAILED);
        self.failed.iter_mut().for_each(|failed| failed.why = shortened(&failed.why));
    }
}

/// The account of one cluster, per target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proofs {
    /// The targets that are looked at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, Account>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What is known of one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Since when proofs are wanted.
    pub since: WallTime,
    /// The proven backup with the newest data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Proven>,
    /// Backups that people were told are worth nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Worthless>,
    /// Whether people were told that nobody may rely on a proven backup.
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
    /// Proofs are wanted at a target.
    Watch {
        /// Which.
        target: String,
    },
    /// They are wanted there no longer.
    Forget {
        /// Which.
        target: String,
    },
    /// Something else is proven or worth nothing than before.
    Learn {
        /// What was seen.
        seen: Box<Seen>,
    },
    /// Nobody may rely on a proven backup, or may again.
    Alarm {
        /// At which target.
        target: String,
        /// Why nobody may; absent when one may again.
        why: Option<String>,
    },
}

/// Why a change had no effect: no proofs are wanted at that target, or that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no proofs are wanted at that target, or that is known")]
pub struct Rejected;

/// What people are told about a change: kinds of events, each with a sentence.
pub type Told = Vec<(&'static str, String)>;

impl Proofs {
    /// Whether nothing was ever wanted.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.unknown.is_empty()
    }

    /// Records a change that was made at that time by the clock of the leader then.
    pub fn apply(&mut self, at: WallTime, change: &Change) -> Result<Told, Rejected> {
        match change {
            Change::Watch { target } => {
                if self.targets.contains_key(target) || self.targets.len() >= MOST_TARGETS {
                    return Err(Rejected);
                }
                self.targets.insert(target.clone(), Account { since: at, ..Account::default() });
                Ok(Told::new())
            }
            Change::Forget { target } => {
                self.targets.remove(target).map(|_| Told::new()).ok_or(Rejected)
            }
            Change::Learn { seen } => {
                Ok(self.targets.get_mut(&seen.target).ok_or(Rejected)?.learn(seen))
            }
            Change::Alarm { target, why } => {
                let account = self.targets.get_mut(target).ok_or(Rejected)?;
                if std::mem::replace(&mut account.alarmed, why.is_some()) == why.is_some() {
                    return Err(Rejected);
                }
                Ok(vec![match why {
                    Some(why) => {
                        ("backup_unproven", format!("target {target}: {}", shortened(why)))
                    }
                    None => {
                        ("backup_unproven_over", format!("target {target}: that is over again"))
                    }
                }])
            }
        }
    }

    /// What is to be recorded, given what was seen lately.
    pub fn changes(&self, wanted: Option<&Wanted>, seen: &[Seen], now: WallTime) -> Vec<Change> {
        let targets = wanted.map_or(&[][..], |wanted| wanted.targets.as_slice());
        let gone = self.targets.keys().filter(|target| !targets.contains(target));
        let mut changes: Vec<_> =
            gone.map(|target| Change::Forget { target: target.clone() }).collect();
        let Some(wanted) = wanted else { return changes };
        for target in targets {
            let Some(account) = self.targets.get(target) else {
                changes.push(Change::Watch { target: target.clone() });
                continue;
            };
            let seen = seen.iter().find(|seen| seen.target == *target);
            if let Some(seen) = seen.filter(|seen| account.differs(seen)) {
                changes.push(Change::Learn { seen: Box::new(seen.clone()) });
                // Whether that is enough is told from what is recorded then.
                continue;
            }
            let why = account.alert(wanted.alert_after, now).map(|alert| alert.to_string());
            if why.is_some() != account.alarmed {
                changes.push(Change::Alarm { target: target.clone(), why });
            }
        }
        changes
    }
}

impl Account {
    fn learn(&mut self, seen: &Seen) -> Told {
        let mut told = Told::new();
        let target = &seen.target;
        let newer = |proven: &&Proven| {
            self.newest
                .as_ref()
                .is_none_or(|known| known.backup != proven.backup && proven.begun >= known.begun)
        };
        if let Some(proven) = seen.newest.as_ref().filter(newer) {
            let text = format!("{} at target {target} was restored as a proof", proven.backup);
            told.push(("backup_proven", text));
        }
        for failed in seen.failed.iter().rev() {
            let (backup, why) = (&failed.backup, shortened(&failed.why));
            if !self.failed.iter().any(|known| known.backup == *backup) {
                let text = format!("{backup} at target {target} is worth nothing: {why}");
                told.push(("backup_proof_failed", text));
            }
        }
        self.newest.clone_from(&seen.newest);
        self.failed.clone_from(&seen.failed);
        told
    }

    fn differs(&self, seen: &Seen) -> bool {
        (&self.newest, &self.failed) != (&seen.newest, &seen.failed)
    }

    /// Why people should be told that nobody may rely on a proven backup.
    pub fn alert(&self, after: Duration, now: WallTime) -> Option<Unproven> {
        let newest = self.newest.as_ref().map(|newest| (&newest.backup, newest.begun));
        let failed = self.failed.iter().map(|failed| failed.begun);
        let alert = Unproven::told(newest, failed, (self.since, now));
        (alert.age > after).then_some(alert)
    }
}

/// The proofs of one target as people see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofView {
    /// The target.
    pub target: String,
    /// The proven backup with the newest data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Proven>,
    /// How old its data is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// How many backups there are; absent while nobody has looked since the leader leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<u64>,
    /// How many of them were restored as a proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<u64>,
    /// Backups that are worth nothing, the newest first; at most eight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Worthless>,
    /// Why nobody may rely on a proven backup, as a sentence; empty when one may.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alert: String,
}

/// The proofs of all targets of a cluster.
pub fn shown(proofs: &Proofs, wanted: &Wanted, seen: &[Seen], now: WallTime) -> Vec<ProofView> {
    let view = |(target, account): (&String, &Account)| {
        let seen = seen.iter().find(|seen| seen.target == *target);
        let alert = account.alert(wanted.alert_after, now);
        let newest = account.newest.clone();
        ProofView {
            target: target.clone(),
            age_seconds: newest.as_ref().map(|it| proving::age(it.begun, now).as_secs()),
            newest,
            backups: seen.map(|seen| seen.backups),
            proven: seen.map(|seen| seen.proven),
            failed: account.failed.clone(),
            alert: alert.map(|alert| alert.to_string()).unwrap_or_default(),
        }
    };
    proofs.targets.iter().map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::*;
    use serde_json::json;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 1_795_305_600_000;

    fn hours(count: u64) -> WallTime {
        WallTime(DAY + count * HOUR)
    }

    fn wanted() -> Wanted {
        let alert_after = Duration::from_secs(26 * 3_600);
        Wanted { targets: vec!["s3".to_owned()], alert_after }
    }

    /// What was seen: backups by the hour they were begun, each proven (true), failed (false), or neither.
    fn seen(backups: &[(u64, Option<bool>)], now: u64) -> Vec<Seen> {
        let mut catalog = Catalog::new("shop".into(), "s3".to_owned());
        for (begun, proof) in backups {
            let manifest = manifest(hours(*begun).0, "db2");
            catalog.add("x", Ok(manifest.clone()));
            let at = hours(*begun + 1);
            let verdict = match proof {
                None => Verdict::Unproven,
                Some(true) => Verdict::Proven { at },
                Some(false) => Verdict::Failed { at, why: "part 2".to_owned() },
            };
            let entries = catalog.backups.iter_mut().filter(|entry| entry.id == manifest.id);
            entries.for_each(|entry| entry.proof = verdict.clone());
        }
        vec![Seen::of(&catalog, hours(now))]
    }

    /// Records all that is to be recorded, and says what people were told.
    fn follow(proofs: &mut Proofs, wanted: Option<&Wanted>, seen: &[Seen], now: u64) -> String {
        let mut told = Vec::new();
        for _ in 0..5 {
            let changes = proofs.changes(wanted, seen, hours(now));
            if changes.is_empty() {
                return told.join(", ");
            }
            for change in changes {
                told.extend(proofs.apply(hours(now), &change).unwrap().into_iter().map(|it| it.0));
            }
        }
        panic!("it never ends: {:?}", proofs.changes(wanted, seen, hours(now)));
    }

    #[test]
    fn people_are_told_once_of_each_change() {
        let mut proofs = Proofs::default();
        let wanted = wanted();
        let some = [(2, Some(true)), (5, None)];
        let more = [(2, Some(true)), (5, Some(false)), (28, None)];
        let good = [(2, Some(true)), (5, Some(false)), (28, Some(true))];
        let pruned = [(28, Some(true))];
        for (now, seen, told) in [
            (0, Vec::new(), ""),
            (1, seen(&[(0, None)], 1), ""),
            (3, seen(&some, 3), "backup_proven"),
            (4, seen(&some, 4), ""),
            (6, seen(&more, 6), "backup_proof_failed"),
            (27, seen(&more, 27), ""),
            // It needs nobody who looks.
            (29, Vec::new(), "backup_unproven"),
            (30, seen(&more, 30), ""),
            (31, seen(&good, 31), "backup_proven, backup_unproven_over"),
            (32, seen(&pruned, 32), ""),
            (33, seen(&[], 33), "backup_unproven"),
            (34, seen(&some, 34), "backup_proven"),
        ] {
            assert_eq!(follow(&mut proofs, Some(&wanted), &seen, now), told, "at hour {now}");
        }
        assert_eq!(follow(&mut proofs, None, &[], 40), "");
        assert!(proofs.is_empty());
    }

    #[test]
    fn one_that_fails_is_told_as_the_reason() {
        let mut proofs = Proofs::default();
        let wanted = wanted();
        let seen = seen(&[(2, Some(true)), (5, Some(false))], 40);
        follow(&mut proofs, Some(&wanted), &seen, 40);
        let views = shown(&proofs, &wanted, &seen, hours(40));
        assert!(views[0].alert.contains("is 38 h old; 1 newer one(s)"), "{}", views[0].alert);
        assert_eq!((views[0].backups, views[0].proven), (Some(2), Some(1)));
        assert_eq!(views[0].age_seconds, Some(38 * 3_600));
        assert_eq!(views[0].failed[0].why, "part 2");
    }

    #[test]
    fn what_is_not_known_is_kept() {
        let text = r#"{"targets":{"s3":{"since":5,"later":1}},"also":2}"#;
        let proofs: Proofs = serde_json::from_str(text).unwrap();
        let back: serde_json::Value = serde_json::to_value(&proofs).unwrap();
        assert_eq!((&back["also"], &back["targets"]["s3"]["later"]), (&json!(2), &json!(1)));
    }
}
