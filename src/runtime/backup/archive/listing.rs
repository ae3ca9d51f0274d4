//! Reading what a target holds of an archive.

use crate::decision::backup::archive::history::{Archive, Recoverable};
use crate::decision::backup::archive::names::{self, Beginning, SegmentName};
use crate::decision::backup::archive::recovery::{Plan, Search, Until};
use crate::decision::backup::archive::segment::{MOST_BYTES, Reached, Segment};
use crate::decision::backup::catalog::{Catalog, Unusable};
use crate::decision::backup::manifest::Kind;
use crate::decision::backup::names::BackupId;
use crate::decision::gtid::Gtids;
use crate::decision::topology::ClusterName;
use crate::runtime::backup::BackupError;
use crate::runtime::backup::target::{MOST_LISTED, Target, TargetError};

/// Some years of one every minute; their names take a hundred megabytes.
const MOST_SEGMENTS: usize = 2_000_000;

/// The archive of a cluster at a target, told from the target alone.
pub async fn archived(target: &Target, cluster: &ClusterName) -> Result<Archive, BackupError> {
    let mut archive = Archive::new(cluster.clone(), target.name.clone(), &[]);
    let folder = names::manifests_of(cluster);
    let mut after = String::new();
    loop {
        let listed = target.list_after(&folder, &after).await;
        let listed = listed.map_err(|error| failed_at(target, error))?;
        archive.add(&listed);
        match listed.last().filter(|last| listed.len() >= MOST_LISTED && **last > after) {
            Some(last) => after.clone_from(last),
            None => break,
        }
        if archive.segments.len() > MOST_SEGMENTS {
            let text =
                format!("{folder} at {} holds more than {MOST_SEGMENTS} segments", target.name);
            return Err(BackupError::Unknown(text));
        }
    }
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
pub(super) async fn forks(target: &Target, archive: &Archive) -> Result<Vec<Segment>, BackupError> {
    let mut forks = Vec::new();
    for name in archive.segments.iter().filter(|name| name.begins == Beginning::Fork) {
        forks.push(segment(target, &archive.cluster, name).await?);
    }
    Ok(forks)
}

pub(super) fn failed_at(target: &Target, error: TargetError) -> BackupError {
    BackupError::Target { target: target.name.clone(), error }
}
