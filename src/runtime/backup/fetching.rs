//! Reading what a target holds: manifests, and the data part by part, each checked.

use super::packing::{Identities, IdentityError, Unpacking, unpacking};
use super::s3::sha256;
use super::target::{Target, TargetError};
use super::{BackupError, Progress};
use crate::decision::backup::catalog::{Catalog, Entry, Unusable};
use crate::decision::backup::manifest::{Kind, MOST_BYTES, Manifest, Part, Sha256};
use crate::decision::backup::names::{self, BackupId};
use crate::decision::backup::proof::{self, Proof, ProofError};
use crate::decision::topology::ClusterName;
use bytes::Bytes;
use sha2::Digest;
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is between fetching and unpacking.
const PIPE: usize = 256 << 10;
const BUFFER: usize = 128 << 10;
/// A part whose checksum is wrong is fetched again so often: it may have been damaged on its way.
const TRIES: u32 = 3;
/// What the newest backup is called.
const LATEST: &str = "latest";

/// The backups of a cluster at a target, told from the target alone.
pub async fn catalog(target: &Target, cluster: &ClusterName) -> Result<Catalog, BackupError> {
    let failed = |error| failed_at(target, error);
    let listed = target.list(&names::manifests_of(cluster)).await.map_err(failed)?;
    let mut catalog = Catalog::new(cluster.clone(), target.name.clone());
    for object in listed {
        let Some(id) = names::id_of(cluster, &object) else { continue };
        let bytes = match target.read_small(&object, MOST_BYTES as u64).await {
            Ok(bytes) => bytes,
            // Somebody removed it since.
            Err(TargetError::Missing(_)) => continue,
            // One that cannot be had must not hide the others.
            Err(TargetError::Refused { what, .. }) => {
                catalog.unusable.push(Unusable { object, why: what });
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        catalog.add(&object, Manifest::read(cluster, &id, &bytes));
    }
    judge(target, &mut catalog).await.map_err(failed)?;
    Ok(catalog)
}

/// Adds what is known of the backups' worth.
async fn judge(target: &Target, catalog: &mut Catalog) -> Result<(), TargetError> {
    let cluster = catalog.cluster.clone();
    let listed: BTreeSet<String> =
        target.list(&names::proofs_of(&cluster)).await?.into_iter().collect();
    let ids: Vec<BackupId> = catalog.backups.iter().map(|entry| entry.id.clone()).collect();
    for id in ids {
        let object = names::proof(&cluster, &id);
        if !listed.contains(&object) {
            continue;
        }
        match target.read_small(&object, proof::MOST_BYTES as u64).await {
            Ok(bytes) => catalog.judge(&object, &id, Proof::read(&cluster, &id, &bytes)),
            Err(TargetError::Missing(_)) => {}
            Err(TargetError::Refused { what, .. }) => {
                catalog.judge(&object, &id, Err(ProofError::Unreadable(what)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is known of a backup's worth, if anybody looked.
pub async fn proof(target: &Target, manifest: &Manifest) -> Result<Option<Proof>, BackupError> {
    let (cluster, id) = (&manifest.cluster, &manifest.id);
    let object = names::proof(cluster, id);
    match target.read_small(&object, proof::MOST_BYTES as u64).await {
        Ok(bytes) => {
            let read = Proof::read(cluster, id, &bytes);
            read.map(Some).map_err(|error| BackupError::Proof { object, error })
        }
        Err(TargetError::Missing(_)) => Ok(None),
        Err(error) => Err(failed_at(target, error)),
    }
}

/// The manifest of one backup; `latest` is the newest one's.
pub async fn manifest(
    target: &Target,
    cluster: &ClusterName,
    backup: &str,
) -> Result<Manifest, BackupError> {
    if backup == LATEST {
        return latest(target, cluster, None).await.map(|(manifest, _)| manifest);
    }
    let id = BackupId::parse(backup).map_err(|error| BackupError::Unknown(error.to_string()))?;
    by_id(target, cluster, &id).await
}

/// The manifest of one backup that is to be restored in a way that only that kind can; `latest` is the newest
/// one's of that kind. Names a newer one of the other kind that was passed over for it.
pub async fn manifest_of_kind(
    target: &Target,
    cluster: &ClusterName,
    (backup, kind): (&str, Kind),
) -> Result<(Manifest, Option<BackupId>), BackupError> {
    match backup {
        LATEST => latest(target, cluster, Some(kind)).await,
        id => Ok((manifest(target, cluster, id).await?, None)),
    }
}

async fn latest(
    target: &Target,
    cluster: &ClusterName,
    kind: Option<Kind>,
) -> Result<(Manifest, Option<BackupId>), BackupError> {
    let catalog = catalog(target, cluster).await?;
    let of_kind = kind.map_or_else(String::new, |kind| format!("{kind} "));
    let wanted = |entry: &&Entry| kind.is_none_or(|kind| entry.method.kind() == kind);
    let none = || match catalog.backups.iter().filter(wanted).count() {
        0 => format!("target {} holds no {of_kind}backup of {cluster}", target.name),
        failed => format!(
            "target {} holds no {of_kind}backup of {cluster} that is good; {failed} failed when they were \
             verified, and can be named by their ids",
            target.name
        ),
    };
    let newest = catalog.latest(kind).ok_or_else(|| BackupError::Unknown(none()))?;
    let passed_over = kind.and_then(|kind| catalog.passed_over(kind));
    let passed_over = passed_over.map(|entry| entry.id.clone());
    Ok((by_id(target, cluster, &newest.id).await?, passed_over))
}

async fn by_id(
    target: &Target,
    cluster: &ClusterName,
    id: &BackupId,
) -> Result<Manifest, BackupError> {
    let object = names::manifest(cluster, id);
    let bytes = match target.read_small(&object, MOST_BYTES as u64).await {
        Ok(bytes) => bytes,
        Err(TargetError::Missing(_)) => {
            let text = format!(
                "target {} holds no backup {id} of {cluster}; 'regent backup list {cluster}' shows \
                 those it holds",
                target.name
            );
            return Err(BackupError::Unknown(text));
        }
        Err(error) => return Err(failed_at(target, error)),
    };
    let read = Manifest::read(cluster, id, &bytes);
    read.map_err(|error| BackupError::Manifest { object, error })
}

/// Fetches all of a backup, checks every sum, decrypts and decompresses it.
pub async fn verify(
    target: &Target,
    manifest: &Manifest,
    identities: &Identities,
    progress: &watch::Sender<Progress>,
) -> Result<(), BackupError> {
    let mut opened = Opened::new(target, manifest, identities, progress).await?;
    opened.pass_on(manifest.plain_bytes, &mut tokio::io::sink()).await?;
    opened.end().await
}

/// A backup that is being read.
pub(super) struct Opened<'a> {
    manifest: &'a Manifest,
    plain: Unpacking,
    fetching: Fetching,
    progress: &'a watch::Sender<Progress>,
    read: u64,
}

/// The work of fetching; it ends with whoever drops this.
struct Fetching(JoinHandle<Result<(), BackupError>>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<'a> Opened<'a> {
    pub(super) async fn new(
        target: &Target,
        manifest: &'a Manifest,
        identities: &Identities,
        progress: &'a watch::Sender<Progress>,
    ) -> Result<Opened<'a>, BackupError> {
        let encrypted = !manifest.encrypted_to.is_empty();
        if encrypted && identities.is_empty() {
            return Err(IdentityError::Needed(manifest.encrypted_to.join(", ")).into());
        }
        progress.send_modify(|it| it.total = Some(manifest.plain_bytes));
        let (into, from) = tokio::io::duplex(PIPE);
        let work = fetch(target.clone(), manifest.clone(), into, progress.clone());
        let mut fetching = Fetching(tokio::spawn(work));
        match unpacking(from, encrypted, identities).await {
            Ok(plain) => Ok(Opened { manifest, plain, fetching, progress, read: 0 }),
            // What could not be fetched could not be decrypted either.
            Err(error) => Err(fetching.fault().await.unwrap_or_else(|| error.into())),
        }
    }

    /// Passes the next bytes on, exactly so many.
    pub(super) async fn pass_on(
        &mut self,
        bytes: u64,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), BackupError> {
        let mut left = bytes;
        let mut buffer = vec![0_u8; BUFFER];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let room = buffer.get_mut(..most).unwrap_or_default();
            let count = match self.plain.read(room).await {
                Ok(0) => {
                    return Err(self.damaged(format!("it ends after {} bytes", self.read)).await);
                }
                Ok(count) => count,
                Err(error) => return Err(self.damaged(error.to_string()).await),
            };
            let part = room.get(..count).unwrap_or_default();
            into.write_all(part).await.map_err(BackupError::io("writing what was unpacked"))?;
            left -= count as u64;
            self.read += count as u64;
            self.progress.send_modify(|it| it.plain = self.read);
        }
        Ok(())
    }

    /// Checks that nothing comes after what was read, and that all sums were right.
    pub(super) async fn end(mut self) -> Result<(), BackupError> {
        let mut more = [0_u8; 1];
        match self.plain.read(&mut more).await {
            Ok(0) => {}
            Ok(_) => {
                let what = format!("it has more than {} bytes", self.manifest.plain_bytes);
                return Err(self.damaged(what).await);
            }
            Err(error) => return Err(self.damaged(error.to_string()).await),
        }
        self.fetching.fault().await.map_or(Ok(()), Err)
    }

    /// Why it cannot be read on; a fault found while fetching explains all that comes after it.
    async fn damaged(&mut self, what: String) -> BackupError {
        // Fetching ends when nobody reads any more.
        self.plain = Box::new(tokio::io::empty());
        let object = self.manifest.object.clone();
        self.fetching.fault().await.unwrap_or(BackupError::Damaged { object, what })
    }
}

impl Fetching {
    /// How fetching failed, if it did.
    async fn fault(&mut self) -> Option<BackupError> {
        match (&mut self.0).await {
            Ok(fetched) => fetched.err(),
            Err(_) => Some(BackupError::Unknown("fetching was broken off".to_owned())),
        }
    }
}

/// Fetches part after part and checks each; the next one is on its way while one is passed on.
async fn fetch(
    target: Target,
    manifest: Manifest,
    mut into: DuplexStream,
    progress: watch::Sender<Progress>,
) -> Result<(), BackupError> {
    let mut whole = sha2::Sha256::new();
    let mut offset = 0;
    let mut parts = manifest.parts.iter().enumerate();
    let begin = |(at, part): (usize, &Part), offset: u64| {
        let (target, object, part) = (target.clone(), manifest.object.clone(), *part);
        Ahead(tokio::spawn(async move { checked(&target, &object, (at, part), offset).await }))
    };
    let mut ahead = parts.next().map(|first| begin(first, 0));
    while let Some(mut coming) = ahead.take() {
        let fetched = (&mut coming.0).await;
        let broken_off = |_| BackupError::Unknown("fetching was broken off".to_owned());
        let bytes = fetched.map_err(broken_off)??;
        offset += bytes.len() as u64;
        ahead = parts.next().map(|next| begin(next, offset));
        whole.update(&bytes);
        if into.write_all(&bytes).await.is_err() {
            // Whoever reads has found out more.
            return Ok(());
        }
        progress.send_modify(|it| it.stored = offset);
    }
    let sum = Sha256(whole.finalize().into());
    if sum != manifest.sha256 {
        let what = format!("all of it has the checksum {sum} and not {}", manifest.sha256);
        return Err(BackupError::Damaged { object: manifest.object, what });
    }
    Ok(())
}

/// A part on its way; it is not awaited when nobody wants it any more.
struct Ahead(JoinHandle<Result<Bytes, BackupError>>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn checked(
    target: &Target,
    object: &str,
    (at, part): (usize, Part),
    offset: u64,
) -> Result<Bytes, BackupError> {
    let number = at + 1;
    let mut tries = 1;
    loop {
        let bytes = target.read(object, offset, part.bytes).await;
        let bytes = bytes.map_err(|error| failed_at(target, error))?;
        let summed = bytes.clone();
        let summing = tokio::task::spawn_blocking(move || sha256(&summed));
        let broken_off = |_| BackupError::Unknown("checking was broken off".to_owned());
        let sum = summing.await.map_err(broken_off)?;
        if sum == part.sha256 {
            return Ok(bytes);
        }
        if tries == TRIES {
            let object = object.to_owned();
            let what = format!(
                "part {number}, {} bytes from byte {offset} on, has the checksum {sum} and not {}",
                part.bytes, part.sha256
            );
            return Err(BackupError::Damaged { object, what });
        }
        tries += 1;
    }
}

pub(super) fn failed_at(target: &Target, error: TargetError) -> BackupError {
    BackupError::Target { target: target.name.clone(), error }
}
