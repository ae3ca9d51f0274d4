//! Notes at a target that forbid to remove a backup.

use super::BackupError;
use super::target::{Target, TargetError};
use crate::clock::WallTime;
use crate::decision::backup::names::{self, BackupId};
use crate::decision::topology::ClusterName;
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeSet;

/// The newest format of such a note.
const FORMAT: u32 = 1;

/// Forbids to remove a backup.
pub async fn hold(
    target: &Target,
    cluster: &ClusterName,
    id: &BackupId,
    (at, reason): (WallTime, &str),
) -> Result<(), BackupError> {
    let note = json!({ "format": FORMAT, "id": id, "at": at, "reason": reason });
    let object = names::hold(cluster, id);
    let put = target.put(&object, Bytes::from(note.to_string())).await;
    put.map_err(|error| failed(target, error))
}

/// Allows to remove it again.
pub async fn release(
    target: &Target,
    cluster: &ClusterName,
    id: &BackupId,
) -> Result<(), BackupError> {
    let removed = target.remove(&names::hold(cluster, id)).await;
    removed.map_err(|error| failed(target, error))
}

/// The backups that nobody may remove. A note's name says it all, so that a damaged one holds too.
pub(super) async fn held(
    target: &Target,
    cluster: &ClusterName,
) -> Result<BTreeSet<BackupId>, BackupError> {
    let listed = target.list(&names::holds_of(cluster)).await;
    let listed = listed.map_err(|error| failed(target, error))?;
    Ok(listed.iter().filter_map(|name| names::held_by(cluster, name)).collect())
}

fn failed(target: &Target, error: TargetError) -> BackupError {
    BackupError::Target { target: target.name.clone(), error }
}
