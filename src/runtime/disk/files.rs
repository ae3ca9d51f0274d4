//! The files beside sled: the marker, the acknowledgement mark, the lock and the snapshots.

use super::{DiskError, io_error};
use crate::clock::Clock;
use crate::decision::topology::WatcherName;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;
const SNAPSHOT_MAGIC: &[u8; 8] = b"RGNTSNP1";
const SNAPSHOT_HEADER: usize = 20;

/// `watcher.json`: says that a store was begun here, by whom, and which one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Marker {
    format: u32,
    watcher: WatcherName,
    pub(super) store: String,
    created: String,
}

impl Marker {
    pub(super) fn new(own: &WatcherName) -> Result<Marker, DiskError> {
        let path = Path::new("/dev/urandom");
        let mut id = [0; 16];
        File::open(path)
            .and_then(|mut file| file.read_exact(&mut id))
            .map_err(|e| io_error(path, e))?;
        Ok(Marker {
            format: FORMAT,
            watcher: own.clone(),
            store: format!("{:032x}", u128::from_be_bytes(id)),
            created: Clock::start().now().wall.to_string(),
        })
    }

    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("watcher.json")
    }

    /// `None` when there is none.
    pub(super) fn read(dir: &Path) -> Result<Option<Marker>, DiskError> {
        let path = Marker::path(dir);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&path, error)),
        };
        match serde_json::from_slice(&text) {
            Ok(marker) => Ok(Some(marker)),
            Err(error) => Err(DiskError::Damaged { path, what: error.to_string() }),
        }
    }

    pub(super) fn check(&self, dir: &Path, own: &WatcherName) -> Result<(), DiskError> {
        let path = Marker::path(dir);
        if self.format != FORMAT {
            return Err(DiskError::Format { path, found: self.format, reads: FORMAT });
        }
        if &self.watcher != own {
            let (found, own) = (self.watcher.clone(), own.clone());
            return Err(DiskError::OtherWatcher { path: dir.to_owned(), found, own });
        }
        Ok(())
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), DiskError> {
        let path = Marker::path(dir);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| DiskError::Damaged { path: path.clone(), what: error.to_string() })?;
        write_whole(&path, &[&text])
    }
}

/// The number of the last acknowledged record, in two slots written by turns, so that a torn write
/// leaves the one before.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: File,
    number: u64,
}

impl Mark {
    const SLOT: u64 = 512;

    pub(super) fn open(dir: &Path, fresh: bool) -> Result<Mark, DiskError> {
        let path = dir.join("acknowledged");
        if !fresh && !path.exists() {
            return Err(DiskError::Missing { path });
        }
        let file =
            OpenOptions::new().read(true).write(true).create(fresh).truncate(false).open(&path);
        let file = file.map_err(|e| io_error(&path, e))?;
        let mut mark = Mark { path, file, number: 0 };
        if fresh {
            mark.set(0)?;
            mark.set(0)?;
        } else {
            let newest = (0..2).filter_map(|slot| mark.read_slot(slot)).max();
            let what = || "neither of its two numbers is whole".to_owned();
            mark.number = newest
                .ok_or_else(|| DiskError::Damaged { path: mark.path.clone(), what: what() })?;
        }
        Ok(mark)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn set(&mut self, number: u64) -> Result<(), DiskError> {
        let mut slot = number.to_be_bytes().to_vec();
        slot.extend_from_slice(&crc32fast::hash(&number.to_be_bytes()).to_be_bytes());
        let at = (number % 2) * Self::SLOT;
        let written = self.file.write_all_at(&slot, at).and_then(|()| self.file.sync_data());
        written.map_err(|e| io_error(&self.path, e))?;
        self.number = number;
        Ok(())
    }

    fn read_slot(&self, slot: u64) -> Option<u64> {
        let mut bytes = [0; 12];
        self.file.read_exact_at(&mut bytes, slot * Self::SLOT).ok()?;
        let (number, checksum) = bytes.split_first_chunk::<8>()?;
        let whole = crc32fast::hash(number).to_be_bytes() == checksum;
        whole.then_some(u64::from_be_bytes(*number))
    }
}

/// Takes the directory for this process until the file is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, DiskError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|e| io_error(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(DiskError::InUse { path: dir.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(io_error(&path, error)),
    }
}

/// Creates a directory and makes its name safe.
pub(super) fn create_dir(dir: &Path) -> Result<(), DiskError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|e| io_error(dir, e))?;
    sync_dir(dir)?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), DiskError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|e| io_error(dir, e))
}

/// The files in a directory, none when there is no such directory.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let found = match fs::read_dir(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(dir, error)),
    };
    let paths: io::Result<Vec<PathBuf>> = found.map(|entry| Ok(entry?.path())).collect();
    paths.map_err(|e| io_error(dir, e))
}

/// Removes older snapshots and half-written files.
pub(super) fn remove_others(dir: &Path, kept: Option<u64>) -> Result<(), DiskError> {
    let kept = kept.map(|index| format!("{index:020}.snapshot"));
    for path in list(dir)? {
        let name = path.file_name().and_then(|name| name.to_str());
        if name != kept.as_deref() {
            fs::remove_file(&path).map_err(|e| io_error(&path, e))?;
        }
    }
    Ok(())
}

pub(super) fn write_snapshot(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let length = (bytes.len() as u64).to_be_bytes();
    let checksum = crc32fast::hash(bytes).to_be_bytes();
    write_whole(path, &[SNAPSHOT_MAGIC, &length, &checksum, bytes])
}

pub(super) fn read_snapshot(path: &Path) -> Result<Vec<u8>, DiskError> {
    let mut found = match fs::read(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DiskError::Missing { path: path.to_owned() });
        }
        Err(error) => return Err(io_error(path, error)),
    };
    let what = |what: &str| DiskError::Damaged { path: path.to_owned(), what: what.to_owned() };
    if found.len() < SNAPSHOT_HEADER || !found.starts_with(SNAPSHOT_MAGIC) {
        return Err(what("no snapshot begins here"));
    }
    let bytes = found.split_off(SNAPSHOT_HEADER);
    if found[8..16] != (bytes.len() as u64).to_be_bytes() {
        return Err(what("it is cut off"));
    }
    if found[16..] != crc32fast::hash(&bytes).to_be_bytes() {
        return Err(what("its checksum does not match"));
    }
    Ok(bytes)
}

/// Writes a file so that it is there whole or not at all.
fn write_whole(path: &Path, parts: &[&[u8]]) -> Result<(), DiskError> {
    let unfinished = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&unfinished)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|e| io_error(path, e))?;
    path.parent().map_or(Ok(()), sync_dir)
}
