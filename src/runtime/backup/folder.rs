//! Backups in a directory of this machine.

use super::target::{Listed, MOST_LISTED, Piece, TargetError};
use crate::clock::WallTime;
use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// What the name of an unfinished file ends with.
const PARTIAL: &str = ".partial";

/// Bytes written at a time. For more the system takes memory in larger pieces to keep them in, which it may have to
/// make up first: writes of 8 MiB take ten times as long then.
const WRITTEN: usize = 256 << 10;

/// A directory that holds objects as files.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

/// A file that is being written. It stays locked so long, so that others know that somebody does.
#[derive(Debug)]
pub(super) struct FolderUpload {
    object: String,
    partial: PathBuf,
    whole: PathBuf,
    file: Arc<File>,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Folder {
        Folder { root }
    }

    /// Where an object is. Names that lead outside are nobody's.
    fn path(&self, object: &str) -> Result<PathBuf, TargetError> {
        let strange = |part: &str| part == "." || part == ".." || part.is_empty();
        if object.trim_end_matches('/').split('/').any(strange) {
            let what = "is no object's name".to_owned();
            return Err(TargetError::Refused { object: object.to_owned(), what });
        }
        Ok(self.root.join(object))
    }

    pub(super) async fn begin(&self, object: &str) -> Result<FolderUpload, TargetError> {
        let whole = self.path(object)?;
        let partial = partial_of(&whole);
        let name = object.to_owned();
        blocking(&name.clone(), move || {
            let file = create(&partial)?;
            Ok(FolderUpload { object: name, partial, whole, file: Arc::new(file) })
        })
        .await
    }

    pub(super) async fn put(&self, object: &str, bytes: Bytes) -> Result<(), TargetError> {
        let whole = self.path(object)?;
        blocking(object, move || {
            let partial = partial_of(&whole);
            let file = create(&partial)?;
            let written = write_at(&file, &bytes, 0).and_then(|()| settle(&file, &partial, &whole));
            if written.is_err() {
                let _ = std::fs::remove_file(&partial);
            }
            written
        })
        .await
    }

    pub(super) async fn read(
        &self,
        object: &str,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, TargetError> {
        let path = self.path(object)?;
        blocking(object, move || {
            let file = File::open(path)?;
            let length = usize::try_from(length).map_err(io::Error::other)?;
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(Bytes::from(bytes))
        })
        .await
    }

    pub(super) async fn read_small(&self, object: &str, most: u64) -> Result<Bytes, TargetError> {
        let path = self.path(object)?;
        blocking(object, move || {
            let mut bytes = Vec::new();
            File::open(path)?.take(most).read_to_end(&mut bytes)?;
            Ok(Bytes::from(bytes))
        })
        .await
    }

    pub(super) async fn length(&self, object: &str) -> Result<u64, TargetError> {
        let path = self.path(object)?;
        blocking(object, move || Ok(std::fs::metadata(path)?.len())).await
    }

    /// Objects of a folder that come after that name, in the order of their names.
    pub(super) async fn list(&self, folder: &str, after: &str) -> Result<Vec<Listed>, TargetError> {
        let (path, folder) = (self.path(folder)?, folder.to_owned());
        let after = after.strip_prefix(&folder).unwrap_or_default().to_owned();
        blocking(&folder.clone(), move || {
            let names = names_in(&path, |name| !name.ends_with(PARTIAL) && name > &*after)?;
            let listed = names.into_iter().map(|name| {
                let stored = written(&path.join(&name));
                Listed { object: format!("{folder}{name}"), stored }
            });
            Ok(listed.collect())
        })
        .await
    }

    pub(super) async fn remove(&self, object: &str) -> Result<(), TargetError> {
        let path = self.path(object)?;
        blocking(object, move || removed(&path)).await
    }

    /// Removes unfinished files that nobody holds locked.
    pub(super) async fn sweep(&self, folder: &str) -> Result<(), TargetError> {
        let path = self.path(folder)?;
        blocking(folder, move || {
            for name in names_in(&path, |name| name.ends_with(PARTIAL))? {
                let left = path.join(name);
                let file = File::open(&left)?;
                if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    removed(&left)?;
                }
            }
            Ok(())
        })
        .await
    }
}

impl FolderUpload {
    pub(super) async fn part(&self, piece: &Piece) -> Result<(), TargetError> {
        let (file, bytes, offset) = (self.file.clone(), piece.bytes.clone(), piece.offset);
        blocking(&self.object, move || write_at(&file, &bytes, offset)).await
    }

    pub(super) async fn finish(&self) -> Result<(), TargetError> {
        let (file, partial, whole) = (self.file.clone(), self.partial.clone(), self.whole.clone());
        blocking(&self.object, move || settle(&file, &partial, &whole)).await
    }

    pub(super) async fn abort(&self) -> Result<(), TargetError> {
        let partial = self.partial.clone();
        blocking(&self.object, move || removed(&partial)).await
    }
}

fn partial_of(whole: &Path) -> PathBuf {
    let mut name = whole.as_os_str().to_owned();
    name.push(PARTIAL);
    PathBuf::from(name)
}

/// A new file that only this user can read, locked.
fn create(partial: &Path) -> io::Result<File> {
    if let Some(parent) = partial.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Writes all of it, from that place of the file on.
pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut strides = bytes.chunks(WRITTEN).zip((offset..).step_by(WRITTEN));
    strides.try_for_each(|(some, at)| file.write_all_at(some, at))
}

/// Makes a file durable and gives it its name.
fn settle(file: &File, partial: &Path, whole: &Path) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(partial, whole)?;
    match whole.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn removed(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// When a file was written last; now, if nobody knows.
fn written(path: &Path) -> WallTime {
    let modified = std::fs::metadata(path).and_then(|found| found.modified()).ok();
    let since = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let millis = since.and_then(|since| u64::try_from(since.as_millis()).ok());
    WallTime(millis.unwrap_or(u64::MAX))
}

/// The first of those files of a directory that are wanted, in order; none when it is not there.
fn names_in(path: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<BTreeSet<String>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok().filter(|name| wanted(name)));
        if names.len() > MOST_LISTED {
            names.pop_last();
        }
    }
    Ok(names)
}

async fn blocking<T: Send + 'static>(
    object: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, TargetError> {
    let refused = |what: String| TargetError::Refused { object: object.to_owned(), what };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
            Err(TargetError::Missing(object.to_owned()))
        }
        Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(refused("ends too early".to_owned()))
        }
        Ok(Err(error)) => Err(refused(error.to_string())),
        Err(_) => Err(refused("the work on it was broken off".to_owned())),
    }
}
