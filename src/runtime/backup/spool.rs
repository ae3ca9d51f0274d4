//! Parts that a target does not take now wait in files of this machine.
//!
//! ```text
//! FOLDER/CLUSTER/ID/lock           locked as long as a process works on it
//! FOLDER/CLUSTER/ID/TARGET/NUMBER  a part, compressed and encrypted as it will be stored
//! ```

use super::folder::write_at;
use super::target::{Piece, TargetError};
use crate::config::storing::Spool as Declared;
use crate::decision::backup::manifest::Sha256;
use crate::decision::backup::names::BackupId;
use crate::decision::topology::ClusterName;
use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// No more runs of one cluster are looked at.
const MOST_RUNS: usize = 1_000;
const LOCK: &str = "lock";

/// The spool of one backup. What is left in it is removed with whoever drops it last.
#[derive(Clone, Debug)]
pub(super) struct Spool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    place: PathBuf,
    limit: u64,
    used: AtomicU64,
    /// Others leave the place alone as long as this is open.
    _lock: File,
}

/// What waits for one target.
#[derive(Debug)]
pub(super) struct Waiting {
    spool: Spool,
    place: PathBuf,
    parts: VecDeque<Spooled>,
    bytes: u64,
    /// Why nothing more can be written, once that failed.
    full: bool,
}

/// A part in a file.
#[derive(Clone, Debug)]
pub(super) struct Spooled {
    pub number: u32,
    pub offset: u64,
    pub bytes: u64,
    pub sha256: Sha256,
    path: PathBuf,
}

impl Spool {
    /// An empty one for a backup.
    pub(super) fn make(
        declared: &Declared,
        cluster: &ClusterName,
        id: &BackupId,
    ) -> io::Result<Spool> {
        let place = of_cluster(declared, cluster).join(id.as_str());
        DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        let lock = locked(&place)?;
        let (limit, used) = (declared.limit, AtomicU64::new(0));
        Ok(Spool(Arc::new(Shared { place, limit, used, _lock: lock })))
    }

    /// What waits for that target: nothing yet.
    pub(super) fn waiting_for(&self, target: &str) -> io::Result<Waiting> {
        let place = self.0.place.join(target);
        DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        let parts = VecDeque::new();
        Ok(Waiting { spool: self.clone(), place, parts, bytes: 0, full: false })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.place) {
            let place = self.place.display();
            tracing::warn!(%place, %error, "what is left in the spool could not be removed");
        }
    }
}

impl Waiting {
    /// Whether so many bytes more may wait.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let shared = &self.spool.0;
        !self.full && shared.used.load(Ordering::Relaxed).saturating_add(bytes) <= shared.limit
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts a part into a file; gives it back when that fails, and takes none any more.
    pub(super) async fn add(&mut self, piece: Piece) -> Result<(), Piece> {
        let length = piece.bytes.len() as u64;
        let path = self.place.join(piece.number.to_string());
        let (written, bytes) = (path.clone(), piece.bytes.clone());
        let writing = move || {
            let file = write(&written, &bytes);
            if file.is_err() {
                let _ = std::fs::remove_file(&written);
            }
            file
        };
        self.spool.0.used.fetch_add(length, Ordering::Relaxed);
        let failed = match tokio::task::spawn_blocking(writing).await {
            Ok(Ok(())) => {
                let Piece { number, offset, sha256, .. } = piece;
                self.parts.push_back(Spooled { number, offset, bytes: length, sha256, path });
                self.bytes += length;
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the work on it was broken off".to_owned(),
        };
        let place = path.display();
        tracing::warn!(%place, failed, "the spool takes no more; the dump waits for the target");
        self.spool.0.used.fetch_sub(length, Ordering::Relaxed);
        self.full = true;
        Err(piece)
    }

    /// The part that waits for the longest time.
    pub(super) fn next(&mut self) -> Option<Spooled> {
        self.parts.pop_front()
    }

    /// A part is stored, and needs no file any more.
    pub(super) fn sent(&mut self, part: &Spooled) {
        if let Err(error) = std::fs::remove_file(&part.path) {
            tracing::warn!(place = %part.path.display(), %error, "a spooled part stays");
        }
        self.spool.0.used.fetch_sub(part.bytes, Ordering::Relaxed);
        self.bytes -= part.bytes;
        self.full = false;
    }
}

impl Spooled {
    /// The part as it was.
    pub(super) async fn read(&self) -> Result<Piece, TargetError> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || std::fs::read(path));
        let refused =
            |what: String| TargetError::Refused { object: self.path.display().to_string(), what };
        let read = reading.await.map_err(|error| refused(error.to_string()))?;
        let bytes = Bytes::from(read.map_err(|error| refused(error.to_string()))?);
        if bytes.len() as u64 != self.bytes {
            return Err(refused("is not what was spooled".to_owned()));
        }
        let Spooled { number, offset, sha256, .. } = *self;
        Ok(Piece { number, offset, bytes, sha256 })
    }
}

/// Removes what processes that died left in the spool.
pub(super) fn sweep(declared: &Declared, cluster: &ClusterName) -> io::Result<()> {
    let entries = match std::fs::read_dir(of_cluster(declared, cluster)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.take(MOST_RUNS) {
        let place = entry?.path();
        let ours = place.file_name().and_then(|name| name.to_str());
        if ours.is_some_and(|name| BackupId::parse(name).is_ok()) && locked(&place).is_ok() {
            std::fs::remove_dir_all(&place)?;
            tracing::info!(place = %place.display(), "removed what a process left in the spool");
        }
    }
    Ok(())
}

fn of_cluster(declared: &Declared, cluster: &ClusterName) -> PathBuf {
    declared.folder.join(cluster.as_str())
}

/// The lock of a place, unless another process has it.
fn locked(place: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(place.join(LOCK))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    write_at(&file, bytes, 0)
}
