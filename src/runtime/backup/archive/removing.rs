//! Removing the segments that nothing needs any more, the oldest first.
//!
//! The manifest goes first: without it there is no segment. Data that a removal which broke off left, or
//! an archiver that was killed, is taken away by the next one.

use super::listing::{archived, failed_at, forks, segment};
use crate::decision::backup::archive::names::{self, SegmentName};
use crate::decision::backup::archive::removal::{Needs, Stays, left_over};
use crate::decision::backup::archive::segment::Segment;
use crate::decision::topology::ClusterName;
use crate::runtime::backup::BackupError;
use crate::runtime::backup::target::{Target, TargetError};
use serde::Serialize;

/// What became of the archived binary log at one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The segments that are removed, or would be: all backups that stay hold what is in them.
    pub removed: Vec<SegmentName>,
    /// How many segments stay.
    pub kept: usize,
    /// The oldest one that stays.
    pub oldest: SegmentName,
    /// Why it does, and with it all that follow.
    pub because: String,
    /// What hindered a removal; nothing more is removed then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// How many pieces of data that nothing belongs to were taken away, or would be.
    pub left_over: usize,
}

/// Removes the segments that nothing needs any more; on a dry run says only which. None where nothing is
/// archived.
pub async fn remove_superfluous(
    target: &Target,
    cluster: &ClusterName,
    needs: &Needs,
    dry_run: bool,
) -> Result<Option<Removed>, BackupError> {
    let archive = archived(target, cluster).await?;
    let Some((newest, older)) = archive.segments.split_last() else { return Ok(None) };
    let forks = forks(target, &archive).await?;
    let mut removed = Vec::new();
    let (mut because, mut refused) = (Stays::Newest, None);
    for name in older {
        let read = match segment(target, cluster, name).await {
            Ok(read) => read,
            Err(BackupError::Manifest { object, .. }) => {
                because = Stays::Unreadable(object);
                break;
            }
            Err(error) => return Err(error),
        };
        if let Some(stays) = needs.why_stays(&read, &forks) {
            because = stays;
            break;
        }
        if !dry_run && let Err(error) = remove(target, cluster, &read).await {
            refused = Some(error.to_string());
            break;
        }
        removed.push(read.name);
    }
    let oldest = older.get(removed.len()).unwrap_or(newest).clone();
    let kept = archive.segments.len() - removed.len();
    let left_over = match sweep(target, cluster, dry_run).await {
        Ok(count) => count,
        Err(error) => {
            refused.get_or_insert(error.to_string());
            0
        }
    };
    let because = because.to_string();
    Ok(Some(Removed { removed, kept, oldest, because, refused, left_over }))
}

/// Removes one segment. As long as its manifest may be there, so must the data.
async fn remove(
    target: &Target,
    cluster: &ClusterName,
    segment: &Segment,
) -> Result<(), TargetError> {
    target.remove(&names::manifest(cluster, &segment.name)).await?;
    if let Err(error) = target.remove(&segment.object).await {
        let object = &segment.object;
        tracing::warn!(object, %error, "the data of a removed segment is left; the next removal takes it");
    }
    Ok(())
}

/// Removes data that no manifest belongs to; how many pieces.
async fn sweep(
    target: &Target,
    cluster: &ClusterName,
    dry_run: bool,
) -> Result<usize, BackupError> {
    let failed = |error| failed_at(target, error);
    let (folder, data) = (names::manifests_of(cluster), names::data_of(cluster));
    let (mut after, mut count) = (String::new(), 0);
    let mut manifests = Vec::new();
    loop {
        let listed = target.list_after(&folder, &after).await.map_err(failed)?;
        manifests.extend(listed.iter().filter_map(|object| names::segment_of(cluster, object)));
        match listed.last().filter(|last| **last > after) {
            Some(last) => after.clone_from(last),
            None => break,
        }
    }
    after.clear();
    loop {
        let listed = target.list_after(&data, &after).await.map_err(failed)?;
        for object in left_over(cluster, &manifests, &listed) {
            if !dry_run {
                target.remove(&object).await.map_err(failed)?;
                tracing::info!(target = target.name, object, "removed data that has no manifest");
            }
            count += 1;
        }
        match listed.last().filter(|last| **last > after) {
            Some(last) => after.clone_from(last),
            None => return Ok(count),
        }
    }
}
