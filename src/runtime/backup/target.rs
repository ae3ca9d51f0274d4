//! Where backups are kept: objects by name, in a folder or in S3, asked again while they fail.

use super::folder::{Folder, FolderUpload};
use super::progress::Report;
use super::retry::{Doing, Retry};
use super::s3::{S3, S3Upload};
use crate::clock::{Clock, WallTime};
use crate::config::backups::{Backups, Place, Target as Declared};
use crate::decision::backup::manifest::Sha256;
use bytes::Bytes;
use std::time::Duration;

/// No cluster has so many objects of one kind at a target.
pub(super) const MOST_LISTED: usize = 100_000;

/// Where backups are kept.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in the configuration.
    pub name: String,
    store: Store,
    retry: Retry,
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
    /// Whoever asks may do so no longer; newer credentials may be there.
    #[error("{object}: {what}")]
    Expired {
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
    /// Somebody asked to stop.
    #[error("stopped on request")]
    Stopped,
}

impl TargetError {
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, TargetError::Passing { .. })
    }

    pub(super) fn has_expired(&self) -> bool {
        matches!(self, TargetError::Expired { .. })
    }

    /// The same after it was tried for so long.
    pub(super) fn given_up(self, tried: Duration) -> TargetError {
        match self {
            TargetError::Passing { object, what } | TargetError::Expired { object, what } => {
                let what = format!("{what}; given up after {} s", tried.as_secs());
                TargetError::Refused { object, what }
            }
            other => other,
        }
    }
}

/// An object of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub object: String,
    /// When it was stored, or begun.
    pub stored: WallTime,
}

/// An object that is being stored part by part; nobody sees it before it is finished.
#[derive(Debug)]
pub(super) struct Upload {
    open: Open,
    retry: Retry,
}

#[derive(Debug)]
enum Open {
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

impl Target {
    /// The target as declared; nothing is asked of it yet.
    pub fn open(declared: &Declared, backups: &Backups) -> Result<Target, TargetError> {
        let clock = Clock::start();
        let store = match &declared.place {
            Place::Folder(path) => Store::Folder(Folder::new(path.clone())),
            Place::S3(place) => Store::S3(S3::open(place, clock)),
        };
        let retry = Retry::new(clock, backups.storing.give_up_after);
        Ok(Target { name: declared.name.clone(), store, retry })
    }

    /// The same target, telling what goes wrong.
    pub(super) fn told(&self, report: Report) -> Target {
        let retry = self.retry.clone().told(report);
        Target { retry, ..self.clone() }
    }

    /// Whether parts for it may have to wait elsewhere.
    pub(super) fn is_far(&self) -> bool {
        matches!(self.store, Store::S3(_))
    }

    /// Begins an object.
    pub(super) async fn begin(&self, object: &str) -> Result<Upload, TargetError> {
        let open = self.retry.again(Doing::Beginning, || self.store.begin(object)).await?;
        Ok(Upload { open, retry: self.retry.clone() })
    }

    /// Stores a small object as a whole.
    pub(super) async fn put(&self, object: &str, bytes: Bytes) -> Result<(), TargetError> {
        self.retry.again(Doing::Working, || self.store.put(object, bytes.clone())).await
    }

    /// Reads consecutive bytes of an object, exactly so many.
    pub(super) async fn read(
        &self,
        object: &str,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, TargetError> {
        self.retry.again(Doing::Working, || self.store.read(object, offset, length)).await
    }

    /// Reads a whole object of at most so many bytes; one byte more tells that there is more.
    pub(super) async fn read_small(&self, object: &str, most: u64) -> Result<Bytes, TargetError> {
        self.retry.again(Doing::Asking, || self.store.read_small(object, most + 1)).await
    }

    /// Whether an object is there, with exactly so many bytes.
    pub(super) async fn holds(&self, object: &str, bytes: u64) -> Result<(), TargetError> {
        let found = self.retry.again(Doing::Working, || self.store.length(object)).await?;
        if found == bytes {
            return Ok(());
        }
        let what = format!("{found} bytes are there instead of the {bytes} that were sent");
        Err(TargetError::Refused { object: object.to_owned(), what })
    }

    /// The names of all objects that begin with a folder's name, which ends with a slash.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<String>, TargetError> {
        let listed = self.listed(folder).await?;
        Ok(listed.into_iter().map(|listed| listed.object).collect())
    }

    /// The first [`MOST_LISTED`] of those that come after that name, in the order of their names.
    pub(super) async fn list_after(
        &self,
        folder: &str,
        after: &str,
    ) -> Result<Vec<String>, TargetError> {
        let listed = self.retry.again(Doing::Asking, || self.store.list(folder, after)).await?;
        Ok(listed.into_iter().map(|listed| listed.object).collect())
    }

    /// The names of all, with their ages.
    pub(super) async fn listed(&self, folder: &str) -> Result<Vec<Listed>, TargetError> {
        self.retry.again(Doing::Asking, || self.store.list(folder, "")).await
    }

    /// Removes an object; one that is not there is no error.
    pub(super) async fn remove(&self, object: &str) -> Result<(), TargetError> {
        self.retry.again(Doing::Cleaning, || self.store.remove(object)).await
    }

    /// Removes what is left of uploads whose process died.
    pub(super) async fn sweep(&self, folder: &str, now: WallTime) -> Result<(), TargetError> {
        match &self.store {
            Store::Folder(store) => store.sweep(folder).await,
            Store::S3(s3) => s3.sweep(folder, now).await,
        }
    }
}

impl Store {
    async fn begin(&self, object: &str) -> Result<Open, TargetError> {
        match self {
            Store::Folder(folder) => folder.begin(object).await.map(Open::Folder),
            Store::S3(s3) => s3.begin(object).await.map(Open::S3),
        }
    }

    async fn put(&self, object: &str, bytes: Bytes) -> Result<(), TargetError> {
        match self {
            Store::Folder(folder) => folder.put(object, bytes).await,
            Store::S3(s3) => s3.put(object, bytes).await,
        }
    }

    async fn read(&self, object: &str, offset: u64, length: u64) -> Result<Bytes, TargetError> {
        match self {
            Store::Folder(folder) => folder.read(object, offset, length).await,
            Store::S3(s3) => s3.read(object, offset, length).await,
        }
    }

    async fn read_small(&self, object: &str, most: u64) -> Result<Bytes, TargetError> {
        match self {
            Store::Folder(folder) => folder.read_small(object, most).await,
            Store::S3(s3) => s3.read_small(object, most).await,
        }
    }

    async fn length(&self, object: &str) -> Result<u64, TargetError> {
        match self {
            Store::Folder(folder) => folder.length(object).await,
            Store::S3(s3) => s3.length(object).await,
        }
    }

    async fn list(&self, folder: &str, after: &str) -> Result<Vec<Listed>, TargetError> {
        match self {
            Store::Folder(store) => store.list(folder, after).await,
            Store::S3(s3) => s3.list(folder, after).await,
        }
    }

    async fn remove(&self, object: &str) -> Result<(), TargetError> {
        match self {
            Store::Folder(folder) => folder.remove(object).await,
            Store::S3(s3) => s3.remove(object).await,
        }
    }
}

impl Upload {
    /// Stores a part; parts may come in any order and at the same time.
    pub(super) async fn part(&self, piece: &Piece) -> Result<(), TargetError> {
        self.retry.again(Doing::Working, || self.open.part(piece)).await
    }

    /// Puts the object in its place, whole and durable.
    pub(super) async fn finish(&self) -> Result<(), TargetError> {
        self.retry.again(Doing::Working, || self.open.finish()).await
    }

    /// Removes all parts.
    pub(super) async fn abort(&self) -> Result<(), TargetError> {
        self.retry.again(Doing::Cleaning, || self.open.abort()).await
    }
}

impl Open {
    async fn part(&self, piece: &Piece) -> Result<(), TargetError> {
        match self {
            Open::Folder(upload) => upload.part(piece).await,
            Open::S3(upload) => upload.part(piece).await,
        }
    }

    async fn finish(&self) -> Result<(), TargetError> {
        match self {
            Open::Folder(upload) => upload.finish().await,
            Open::S3(upload) => upload.finish().await,
        }
    }

    async fn abort(&self) -> Result<(), TargetError> {
        match self {
            Open::Folder(upload) => upload.abort().await,
            Open::S3(upload) => upload.abort().await,
        }
    }
}
