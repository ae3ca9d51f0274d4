//! Removing what nothing asks to keep, from one target.
//!
//! The manifest goes first: without it there is no backup, so a removal that breaks off leaves data
//! that nobody takes for one. The next removal finds that data and takes it away.

use super::BackupError;
use super::archive::{Removed, remove_superfluous};
use super::fetching::catalog;
use super::holds::held;
use super::target::{Target, TargetError};
use crate::clock::WallTime;
use crate::decision::backup::archive::removal::Needs;
use crate::decision::backup::catalog::{Catalog, Entry};
use crate::decision::backup::names::{self, BackupId};
use crate::decision::backup::retention::{Backup, Retention};
use crate::decision::topology::{ClusterName, ScheduleName};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a removal is about.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// Only this schedule's backups; those of all schedules when absent.
    pub schedule: Option<&'a ScheduleName>,
    /// Whether to say only what would be removed.
    pub dry_run: bool,
}

/// What became of the backups at one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The cluster.
    pub cluster: ClusterName,
    /// The target.
    pub target: String,
    /// Those that stay, each with all reasons.
    pub kept: BTreeMap<BackupId, Vec<String>>,
    /// Those that are removed, or would be.
    pub removed: Vec<BackupId>,
    /// Those that should go and could not be removed, with what hindered it.
    pub refused: BTreeMap<BackupId, String>,
    /// What became of the archived binary log, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<Removed>,
    /// Why nobody could tell what of the binary log is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_refused: Option<String>,
    /// Whether nothing was removed because nobody wanted it to be.
    pub dry_run: bool,
}

impl Pruned {
    /// What became of the archived binary log, for the log.
    pub(super) fn say_what_became_of_the_archive(&self) {
        let (cluster, target) = (&self.cluster, &self.target);
        if let Some(Removed { removed, oldest, .. }) = &self.archive
            && !removed.is_empty()
        {
            let count = removed.len();
            tracing::info!(%cluster, target, count, %oldest, "archived segments are removed");
        }
        let refused = self.archive.as_ref().and_then(|archive| archive.refused.as_ref());
        for why in refused.into_iter().chain(&self.archive_refused) {
            tracing::warn!(%cluster, target, "archived segments could not be removed: {why}");
        }
    }
}

/// Removes the scheduled backups that nothing asks to keep, then the archived binary logs that none of those
/// that stay can need. Backups that people asked for stay, and so does what cannot be read.
pub async fn prune(
    target: &Target,
    keep: &Retention,
    scope: Scope<'_>,
    now: WallTime,
) -> Result<Pruned, BackupError> {
    let Scope { cluster, dry_run, .. } = scope;
    let found = catalog(target, cluster).await?;
    let held = held(target, cluster).await?;
    let mut pruned = Pruned {
        cluster: cluster.clone(),
        target: target.name.clone(),
        kept: BTreeMap::new(),
        removed: Vec::new(),
        refused: BTreeMap::new(),
        archive: None,
        archive_refused: None,
        dry_run,
    };
    for (schedule, entries) in by_schedule(&found) {
        let Some(schedule) = schedule else {
            let by_hand = "somebody asked for it".to_owned();
            let stay = entries.iter().filter(|_| scope.schedule.is_none());
            pruned.kept.extend(stay.map(|entry| (entry.id.clone(), vec![by_hand.clone()])));
            continue;
        };
        if scope.schedule.is_some_and(|only| only != schedule) {
            continue;
        }
        let backups: Vec<_> =
            entries.iter().map(|entry| judged(entry, held.contains(&entry.id))).collect();
        let sorted = keep.prune(now, &backups);
        for (id, reasons) in sorted.kept {
            pruned.kept.insert(id, reasons.iter().map(ToString::to_string).collect());
        }
        for id in sorted.deleted {
            let Some(entry) = entries.iter().find(|entry| entry.id == id) else { continue };
            if !dry_run && let Err(error) = remove(target, cluster, entry).await {
                pruned.refused.insert(id, error.to_string());
                continue;
            }
            pruned.removed.push(id);
        }
    }
    let needs = Needs::new(&found, &pruned.removed, (keep.recovery, now));
    match remove_superfluous(target, cluster, &needs, dry_run).await {
        Ok(archive) => pruned.archive = archive,
        Err(error) => pruned.archive_refused = Some(error.to_string()),
    }
    Ok(pruned)
}

/// Removes the backup that somebody named, whoever asked for it, unless it is held or the last one that may be good.
pub async fn remove_named(
    target: &Target,
    cluster: &ClusterName,
    id: &str,
    dry_run: bool,
) -> Result<Entry, BackupError> {
    let refused = |text: String| Err(BackupError::Unknown(text));
    let found = catalog(target, cluster).await?;
    let Some(entry) = found.backups.iter().find(|entry| entry.id.to_string() == id) else {
        return refused(format!("there is no backup {id} of {cluster} at target {}", target.name));
    };
    if held(target, cluster).await?.contains(&entry.id) {
        return refused(format!(
            "somebody forbade to remove {id}; allow it with regent backup hold {cluster} {id} --off"
        ));
    }
    let good = |entry: &&Entry| !entry.proof.is_failed();
    let others = found.backups.iter().filter(|other| other.id != entry.id);
    if good(&entry) && !others.filter(good).any(|other| other.proof.worth() >= entry.proof.worth())
    {
        return refused(format!(
            "{id} is the last backup of {cluster} at target {} that is known to be as good; make and prove \
             another one first",
            target.name
        ));
    }
    if !dry_run {
        let removed = remove(target, cluster, entry).await;
        removed.map_err(|error| BackupError::Target { target: target.name.clone(), error })?;
    }
    Ok(entry.clone())
}

/// Removes one backup.
pub(super) async fn remove(
    target: &Target,
    cluster: &ClusterName,
    entry: &Entry,
) -> Result<(), TargetError> {
    target.remove(&names::manifest(cluster, &entry.id)).await?;
    for object in [&entry.object, &names::proof(cluster, &entry.id)] {
        if let Err(error) = target.remove(object).await {
            // It is no backup any more, and what is left of it only takes up room.
            tracing::warn!(object, %error, "something of a removed backup is left");
        }
    }
    Ok(())
}

fn by_schedule(catalog: &Catalog) -> BTreeMap<Option<&ScheduleName>, Vec<&Entry>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entry in &catalog.backups {
        let schedule = entry.run.as_ref().map(|run| &run.schedule);
        groups.entry(schedule).or_default().push(entry);
    }
    groups
}

/// A backup as far as its staying depends on it.
fn judged(entry: &Entry, held: bool) -> Backup {
    Backup {
        name: entry.id.clone(),
        at: entry.begun,
        gtids: entry.position.clone(),
        worth: entry.proof.worth(),
        // Whoever does not know what it holds cannot say what follows it.
        replays: !entry.position.is_empty(),
        held,
        locked_until: None,
        base: None,
    }
}
