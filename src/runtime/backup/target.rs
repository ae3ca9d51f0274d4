//! Where backups are kept: objects by name, in a folder or in S3.

use super::folder::{Folder, FolderUpload};
use super::s3::{S3, S3Upload};
use crate::clock::WallTime;
use crate::config::backups::{Place, Target as Declared};
use crate::decision::backup::manifest::Sha256;
use bytes::Bytes;
use std::time::Duration;

/// No cluster has so many objects of one kind at a target.
pub(super) const MOST_LISTED: usize = 100_000;

/// How often a failing request is made again, with growing pauses: about three minutes in all.
const TRIES: u32 = 10;
/// The same for cleaning up: some eight seconds in all.
const FEW_TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where backups are kept.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in the configuration.
    pub name: String,
    store: Store,
}

#[derive(Clone, Debug)]
enum Store {
    Folder(Folder),
    S3(S3),
}

/// Why a target did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is no such object.
    #[error("{0} is not there")]
    Missing(String),
    /// It may work when it is tried again.
    #[error("{object}: {what}")]
    Passing {
        /// The object.
        object: String,
        /// What was seen.
        what: String,
    },
    /// Trying again does not help.
    #[error("{object}: {what}")]
    Refused {
        /// The object.
        object: String,
        /// What was seen.
        what: String,
    },
}

/// An object that is being stored part by part; nobody sees it before it is finished.
#[derive(Debug)]
pub(super) enum Upload {
    Folder(FolderUpload),
    S3(S3Upload),
}

/// A part of an object on its way.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Counted from one.
    pub number: u32,
    /// Where in the object it begins.
    pub offset: u64,
    pub bytes: Bytes,
    pub sha256: Sha256,
}

/// What is left of the patience with a failing target.
#[derive(Debug)]
pub(super) struct Patience {
    left: u32,
    pause: Duration,
}

impl Patience {
    pub(super) fn new() -> Patience {
        Patience { left: TRIES, pause: FIRST_PAUSE }
    }

    /// For cleaning up, which somebody may be waiting for at a terminal.
    fn short() -> Patience {
        Patience { left: FEW_TRIES, pause: FIRST_PAUSE }
    }

    /// Waits until it makes sense to try again; gives the error back when it does not.
    pub(super) async fn after(&mut self, error: TargetError) -> Result<(), TargetError> {
        if self.left == 0 || !matches!(error, TargetError::Passing { .. }) {
            return Err(error);
        }
        tracing::warn!(%error, "trying again in {} ms", self.pause.as_millis());
        self.left -= 1;
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

impl Target {
    /// The target as declared; nothing is asked of it yet. Requests carry parts of up to that size.
    pub fn open(declared: &Declared, part_size: u64) -> Result<Target, TargetError> {
        let store = match &declared.place {
            Place::Folder(path) => Store::Folder(Folder::new(path.clone())),
            Place::S3(place) => Store::S3(S3::open(place, part_size)?),
        };
        Ok(Target { name: declared.name.clone(), store })
    }

    /// Begins an object.
    pub(super) async fn begin(&self, object: &str) -> Result<Upload, TargetError> {
        match &self.store {
            Store::Folder(folder) => folder.begin(object).await.map(Upload::Folder),
            Store::S3(s3) => {
                let mut patience = Patience::new();
                loop {
                    match s3.begin(object).await {
                        Ok(upload) => return Ok(Upload::S3(upload)),
                        Err(error) => patience.after(error).await?,
                    }
                }
            }
        }
    }

    /// Stores a small object as a whole.
    pub(super) async fn put(&self, object: &str, bytes: Bytes) -> Result<(), TargetError> {
        match &self.store {
            Store::Folder(folder) => folder.put(object, bytes).await,
            Store::S3(s3) => {
                let mut patience = Patience::new();
                loop {
                    match s3.put(object, bytes.clone()).await {
                        Ok(()) => return Ok(()),
                        Err(error) => patience.after(error).await?,
                    }
                }
            }
        }
    }

    /// Reads consecutive bytes of an object, exactly so many.
    pub(super) async fn read(
        &self,
        object: &str,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, TargetError> {
        match &self.store {
            Store::Folder(folder) => folder.read(object, offset, length).await,
            Store::S3(s3) => {
                let mut patience = Patience::new();
                loop {
                    match s3.read(object, offset, length).await {
                        Ok(bytes) => return Ok(bytes),
                        Err(error) => patience.after(error).await?,
                    }
                }
            }
        }
    }

    /// Reads a whole object of at most so many bytes; one byte more tells that there is more.
    pub(super) async fn read_small(&self, object: &str, most: u64) -> Result<Bytes, TargetError> {
        match &self.store {
            Store::Folder(folder) => folder.read_small(object, most + 1).await,
            Store::S3(s3) => {
                let mut patience = Patience::new();
                loop {
                    match s3.read_small(object, most + 1).await {
                        Ok(bytes) => return Ok(bytes),
                        Err(error) => patience.after(error).await?,
                    }
                }
            }
        }
    }

    /// The names of all objects that begin with a folder's name, which ends with a slash.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<String>, TargetError> {
        match &self.store {
            Store::Folder(store) => store.list(folder).await,
            Store::S3(s3) => {
                let mut patience = Patience::new();
                loop {
                    match s3.list(folder).await {
                        Ok(names) => return Ok(names),
                        Err(error) => patience.after(error).await?,
                    }
                }
            }
        }
    }

    /// Removes an object; one that is not there is no error.
    pub(super) async fn remove(&self, object: &str) -> Result<(), TargetError> {
        match &self.store {
            Store::Folder(folder) => folder.remove(object).await,
            Store::S3(s3) => {
                let mut patience = Patience::short();
                loop {
                    match s3.remove(object).await {
                        Ok(()) => return Ok(()),
                        Err(error) => patience.after(error).await?,
                    }
                }
            }
        }
    }

    /// Removes what is left of uploads whose process died. Failing at that hinders no backup.
    pub(super) async fn sweep(&self, folder: &str, now: WallTime) {
        let swept = match &self.store {
            Store::Folder(store) => store.sweep(folder).await,
            Store::S3(s3) => s3.sweep(folder, now).await,
        };
        if let Err(error) = swept {
            tracing::debug!(%error, "what former uploads left could not be looked for");
        }
    }
}

impl Upload {
    /// Stores a part; parts may come in any order and at the same time.
    pub(super) async fn part(&self, piece: &Piece) -> Result<(), TargetError> {
        match self {
            Upload::Folder(upload) => upload.part(piece).await,
            Upload::S3(upload) => {
                let mut patience = Patience::new();
                loop {
                    match upload.part(piece).await {
                        Ok(()) => return Ok(()),
                        Err(error) => patience.after(error).await?,
                    }
                }
            }
        }
    }

    /// Puts the object in its place, whole and durable.
    pub(super) async fn finish(&self, bytes: u64) -> Result<(), TargetError> {
        match self {
            Upload::Folder(upload) => upload.finish().await,
            Upload::S3(upload) => {
                let mut patience = Patience::new();
                loop {
                    match upload.finish(bytes).await {
                        Ok(()) => return Ok(()),
                        Err(error) => patience.after(error).await?,
                    }
                }
            }
        }
    }

    /// Removes all parts.
    pub(super) async fn abort(&self) -> Result<(), TargetError> {
        match self {
            Upload::Folder(upload) => upload.abort().await,
            Upload::S3(upload) => {
                let mut patience = Patience::short();
                loop {
                    match upload.abort().await {
                        Ok(()) => return Ok(()),
                        Err(error) => patience.after(error).await?,
                    }
                }
            }
        }
    }
}
