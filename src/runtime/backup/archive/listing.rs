//! Reading what a target holds of an archive.

use crate::decision::backup::archive::history::{Archive, Recoverable, for_retention};
use crate::decision::backup::archive::names::{self, Beginning, SegmentName};
use crate::decision::backup::archive::recovery::{Plan, Search, Until};
use crate::decision::backup::archive::segment::{MOST_BYTES, Reached, Segment};
use crate::decision::backup::catalog::{Catalog, Unusable};
use crate::decision::backup::manifest::Kind;
use crate::decision::backup::names::BackupId;
use crate::decision::backup::retention::{self, superfluous};
use crate::decision::gtid::Gtids;
use crate::decision::topology::ClusterName;
use crate::runtime::backup::BackupError;
use crate::runtime::backup::target::{Target, TargetError};

/// The archive of a cluster at a target, told from the target alone.
pub async fn archived(target: &Target, cluster: &ClusterName) -> Result<Archive, BackupError> {
    let listed = target.list(&names::manifests_of(cluster)).await;
    let listed = listed.map_err(|error| failed_at(target, error))?;
    let mut archive = Archive::new(cluster.clone(), target.name.clone(), &listed);
    let object = names::reached(cluster);
    match target.read_small(&object, MOST_BYTES as u64).await {
        Ok(bytes) => match Reached::read(&bytes) {
            Ok(reached) => archive.reached = Some(reached),
            Err(error) => archive.unusable.push(Unusable { object, why: error.to_string() }),
        },
        Err(TargetError::Missing(_)) => {}
        Err(error) => return Err(failed_at(target, error)),
    }
    Ok(archive)
}

/// The manifest of a segment.
pub async fn segment(
    target: &Target,
    cluster: &ClusterName,
    name: &SegmentName,
) -> Result<Segment, BackupError> {
    let object = names::manifest(cluster, name);
    let bytes = target.read_small(&object, MOST_BYTES as u64).await;
    let bytes = bytes.map_err(|error| failed_at(target, error))?;
    let read = Segment::read(cluster, name, &bytes);
    read.map_err(|error| BackupError::Manifest { object, error })
}

/// What of a cluster can be restored from a target, and to which moments.
pub async fn recoverable(
    target: &Target,
    archive: &Archive,
    catalog: &Catalog,
) -> Result<Recoverable, BackupError> {
    let mut begins: Vec<Option<Gtids>> = Vec::new();
    for stretch in archive.stretches() {
        let Some(name) = archive.segments.get(stretch.first) else { continue };
        // One that cannot be had must not hide the others.
        let first = segment(target, &archive.cluster, name).await;
        begins.push(first.ok().map(|first| first.from));
    }
    Ok(archive.recoverable(&begins, &catalog.backups))
}

/// The way to a moment, from that backup or from the newest one of that kind before it.
pub async fn way(
    target: &Target,
    (archive, catalog): (&Archive, &Catalog),
    wanted: (Option<&BackupId>, Kind, Until),
) -> Result<Plan, BackupError> {
    let forks = forks(target, archive).await?;
    let mut search = Search::new(archive, &forks, &catalog.backups, wanted)?;
    while let Some(name) = search.wants() {
        search.take(segment(target, &archive.cluster, name).await?)?;
    }
    Ok(search.plan()?)
}

/// All segments that begin with a fork.
async fn forks(target: &Target, archive: &Archive) -> Result<Vec<Segment>, BackupError> {
    let mut forks = Vec::new();
    for name in archive.segments.iter().filter(|name| name.begins == Beginning::Fork) {
        forks.push(segment(target, &archive.cluster, name).await?);
    }
    Ok(forks)
}

/// Removes the segments, from the oldest on, that no backup needs which logs may have to be replayed from;
/// never the newest one. Gives their names.
pub async fn prune(
    target: &Target,
    archive: &Archive,
    replayed_from: &[Gtids],
) -> Result<Vec<SegmentName>, BackupError> {
    let forks = forks(target, archive).await?;
    let mut before: Option<(Segment, retention::Segment)> = None;
    let mut gone = Vec::new();
    for name in &archive.segments {
        let read = segment(target, &archive.cluster, name).await?;
        let counted = for_retention(&read, &forks);
        if let Some((older, older_counted)) = before.take() {
            let pair = [older_counted, counted.clone()];
            if superfluous(&pair, replayed_from) == 0 {
                break;
            }
            // As long as the manifest may be there, so must the data.
            let manifest = names::manifest(&archive.cluster, &older.name);
            for object in [manifest, older.object] {
                target.remove(&object).await.map_err(|error| failed_at(target, error))?;
            }
            gone.push(older.name);
        }
        before = Some((read, counted));
    }
    Ok(gone)
}

pub(super) fn failed_at(target: &Target, error: TargetError) -> BackupError {
    BackupError::Target { target: target.name.clone(), error }
}
