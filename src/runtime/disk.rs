//! A watcher's Raft store: log and hard state in sled, snapshots in files of their own.
//!
//! sled alone does not suffice. Its flush is no fsync, it never syncs large values at all, and it
//! takes a damaged tail for an unfinished write and drops it. So every write syncs the files under
//! it, values stay small, snapshots live outside, and a mark beside sled says which records were
//! acknowledged: a store that falls short of its mark has lost something, and is refused.

mod files;
mod thread;

pub use thread::DiskThread;

use crate::decision::topology::WatcherName;
use crate::watcher::{Record, Stored, StoredSnapshot};
use files::{Mark, Marker};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// sled writes larger values into files of their own, which it never syncs.
const CHUNK: usize = 8 * 1024 - 64;
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Before the first chunk of a value: its length and checksum.
const HEADER: usize = 8;

const STORE_ID: &[u8] = b"i";
const NUMBER: &[u8] = b"n";
const HARD_STATE: &[u8] = b"h";
const SNAPSHOT: &[u8] = b"s";
const ENTRY: u8 = b'e';

/// An open store; one process at a time holds it.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    db: sled::Db,
    db_file: File,
    mark: Mark,
    blobs: BTreeMap<PathBuf, ()>,
    /// How many chunks each stored entry has.
    entries: BTreeMap<u64, u16>,
    snapshot: Option<u64>,
    number: u64,
    _lock: File,
}

impl Disk {
    /// Opens the store of watcher `own` in `dir`, or creates it if there was none.
    ///
    /// Whatever is missing or damaged is named; nothing is repaired or silently begun anew.
    pub fn open(dir: &Path, own: &WatcherName) -> Result<(Disk, Stored), DiskError> {
        files::create_dir(dir)?;
        let lock = files::lock(dir)?;
        let marker = Marker::read(dir)?;
        if let Some(marker) = &marker {
            marker.check(dir, own)?;
            // sled would create what is missing.
            for name in ["db", "conf"] {
                let path = sled_dir(dir).join(name);
                if !path.exists() {
                    return Err(DiskError::Missing { path });
                }
            }
        }
        let db = open_sled(&sled_dir(dir))?;
        let fresh = marker.is_none();
        let marker = match marker {
            Some(marker) => marker,
            // A first start that was cut short has written no record yet, and may begin again.
            None if was_used(dir, &db)? => {
                return Err(DiskError::Missing { path: Marker::path(dir) });
            }
            None => Marker::new(own)?,
        };
        let db_path = sled_dir(dir).join("db");
        let db_file = File::open(&db_path).map_err(|e| io_error(&db_path, e))?;
        if fresh {
            let id = marker.store.as_bytes();
            db.insert(STORE_ID, id).map_err(|e| sled_error(dir, e))?;
            db.insert(NUMBER, &0u64.to_be_bytes()).map_err(|e| sled_error(dir, e))?;
        }
        let mark = Mark::open(dir, fresh)?;
        files::create_dir(&snapshot_dir(dir))?;
        let mut disk = Disk {
            dir: dir.to_owned(),
            db,
            db_file,
            mark,
            blobs: BTreeMap::new(),
            entries: BTreeMap::new(),
            snapshot: None,
            number: 0,
            _lock: lock,
        };
        if fresh {
            disk.sync_sled()?;
            for inside in [sled_dir(dir), dir.to_owned()] {
                files::sync_dir(&inside)?;
            }
            // Written last: from here on an empty store is a lost one.
            marker.write(dir)?;
        }
        let stored = guarded(dir, || disk.load(&marker))?;
        files::remove_others(&snapshot_dir(dir), disk.snapshot)?;
        Ok((disk, stored))
    }

    /// Writes a record and syncs it.
    pub fn write(&mut self, record: &Record) -> Result<(), DiskError> {
        self.write_unsynced(record)?;
        self.sync()
    }

    /// Writes a record, as one batch; it counts only after [`Disk::sync`].
    pub fn write_unsynced(&mut self, record: &Record) -> Result<(), DiskError> {
        let mut batch = sled::Batch::default();
        if let Some(snapshot) = &record.snapshot {
            let path = snapshot_path(&self.dir, snapshot.index);
            files::write_snapshot(&path, &snapshot.encoded)?;
            batch.insert(SNAPSHOT, seal(&snapshot.index.to_be_bytes()));
        }
        let covered = record.compact_to.unwrap_or(0);
        let replaced = record.entries.first().map_or(u64::MAX, |(index, _)| *index);
        let gone = self.entries.range(..=covered).chain(self.entries.range(replaced..));
        let gone: BTreeMap<u64, u16> = gone.map(|(index, chunks)| (*index, *chunks)).collect();
        for (&index, &chunks) in &gone {
            (0..chunks).for_each(|chunk| batch.remove(entry_key(index, chunk)));
        }
        let mut added = Vec::new();
        for (index, encoded) in &record.entries {
            added.push((*index, put_entry(&mut batch, *index, encoded)?));
        }
        if let Some(hard_state) = &record.hard_state {
            batch.insert(HARD_STATE, seal(hard_state));
        }
        let number = self.number + 1;
        batch.insert(NUMBER, &number.to_be_bytes());
        let dir = self.dir.clone();
        guarded(&dir, || self.db.apply_batch(batch).map_err(|e| sled_error(&dir, e)))?;
        self.number = number;
        for index in gone.keys() {
            self.entries.remove(index);
        }
        self.entries.extend(added);
        if let Some(snapshot) = &record.snapshot {
            self.snapshot = Some(snapshot.index);
        }
        Ok(())
    }

    /// Makes all that was written safe, and notes that it is.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        self.sync_sled()?;
        self.mark.set(self.number)?;
        files::remove_others(&snapshot_dir(&self.dir), self.snapshot)
    }

    fn sync_sled(&mut self) -> Result<(), DiskError> {
        let dir = self.dir.clone();
        guarded(&dir, || self.db.flush().map_err(|e| sled_error(&dir, e)))?;
        let blobs = sled_dir(&self.dir).join("blobs");
        let known = files::list(&blobs)?;
        let mut added = false;
        for path in known.iter().filter(|path| !self.blobs.contains_key(*path)) {
            added = true;
            match File::open(path).and_then(|file| file.sync_all()) {
                // sled may have replaced it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(|e| io_error(path, e))?,
            }
        }
        if added {
            files::sync_dir(&blobs)?;
        }
        self.blobs = known.into_iter().map(|path| (path, ())).collect();
        self.db_file.sync_data().map_err(|e| io_error(&sled_dir(&self.dir).join("db"), e))
    }

    fn load(&mut self, marker: &Marker) -> Result<Stored, DiskError> {
        let dir = self.dir.clone();
        let get = |key| self.db.get(key).map_err(|e| sled_error(&dir, e));
        let damaged = |key: &str| DiskError::Damaged { path: sled_dir(&dir), what: key.to_owned() };
        let id = get(STORE_ID)?.ok_or_else(|| damaged("no store id: the store was emptied"))?;
        if id.as_ref() != marker.store.as_bytes() {
            return Err(DiskError::OtherStore { path: sled_dir(&dir) });
        }
        let number = get(NUMBER)?.ok_or_else(|| damaged("no record number"))?;
        let number = number.as_ref().try_into().map_err(|_| damaged("a record number"))?;
        self.number = u64::from_be_bytes(number);
        let acknowledged = self.mark.number();
        if self.number < acknowledged {
            return Err(DiskError::FellBehind { path: dir, found: self.number, acknowledged });
        }
        let mut stored = Stored::default();
        if let Some(sealed) = get(HARD_STATE)? {
            let bytes = unseal(&sealed).ok_or_else(|| damaged("the hard state"))?;
            stored.hard_state = Some(bytes.to_vec());
        }
        if let Some(sealed) = get(SNAPSHOT)? {
            let bytes = unseal(&sealed).ok_or_else(|| damaged("the snapshot's index"))?;
            let index = bytes.try_into().map_err(|_| damaged("the snapshot's index"))?;
            let index = u64::from_be_bytes(index);
            let encoded = files::read_snapshot(&snapshot_path(&dir, index))?;
            self.snapshot = Some(index);
            stored.snapshot = Some(StoredSnapshot { index, encoded });
        }
        stored.entries = self.load_entries()?;
        Ok(stored)
    }

    fn load_entries(&mut self) -> Result<Vec<(u64, Vec<u8>)>, DiskError> {
        let path = sled_dir(&self.dir);
        let mut joined: BTreeMap<u64, (u16, Vec<u8>)> = BTreeMap::new();
        for item in self.db.scan_prefix([ENTRY]) {
            let (key, chunk) = item.map_err(|e| sled_error(&self.dir, e))?;
            let damaged = |what: String| DiskError::Damaged { path: path.clone(), what };
            let (index, number) = split_entry_key(&key)
                .ok_or_else(|| damaged(format!("a log entry's key {key:?}")))?;
            let (chunks, bytes) = joined.entry(index).or_default();
            if *chunks != number {
                return Err(damaged(format!("log entry {index}: chunk {chunks} is missing")));
            }
            *chunks += 1;
            bytes.extend_from_slice(&chunk);
        }
        let mut entries = Vec::with_capacity(joined.len());
        for (index, (chunks, sealed)) in joined {
            let bytes = unseal(&sealed).ok_or_else(|| DiskError::Damaged {
                path: path.clone(),
                what: format!("log entry {index}"),
            })?;
            self.entries.insert(index, chunks);
            entries.push((index, bytes.to_vec()));
        }
        Ok(entries)
    }
}

fn was_used(dir: &Path, db: &sled::Db) -> Result<bool, DiskError> {
    let number = db.get(NUMBER).map_err(|e| sled_error(dir, e))?;
    Ok(number.is_some_and(|number| number.as_ref() != 0u64.to_be_bytes()))
}

fn put_entry(batch: &mut sled::Batch, index: u64, encoded: &[u8]) -> Result<u16, DiskError> {
    let mut chunks = 0u16;
    for chunk in seal(encoded).chunks(CHUNK) {
        batch.insert(entry_key(index, chunks).as_slice(), chunk);
        chunks = chunks.checked_add(1).ok_or(DiskError::TooLarge { bytes: encoded.len() })?;
    }
    Ok(chunks)
}

fn entry_key(index: u64, chunk: u16) -> Vec<u8> {
    let mut key = vec![ENTRY];
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

fn split_entry_key(key: &[u8]) -> Option<(u64, u16)> {
    let (index, chunk) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*index), u16::from_be_bytes(chunk.try_into().ok()?)))
}

fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(HEADER + bytes.len());
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    sealed.extend_from_slice(&length.to_be_bytes());
    sealed.extend_from_slice(&crc32fast::hash(bytes).to_be_bytes());
    sealed.extend_from_slice(bytes);
    sealed
}

fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (length, rest) = sealed.split_first_chunk::<4>()?;
    let (checksum, bytes) = rest.split_first_chunk::<4>()?;
    let whole = u32::from_be_bytes(*length) as usize == bytes.len()
        && u32::from_be_bytes(*checksum) == crc32fast::hash(bytes);
    whole.then_some(bytes)
}

fn sled_dir(dir: &Path) -> PathBuf {
    dir.join("raft")
}

fn snapshot_dir(dir: &Path) -> PathBuf {
    dir.join("snapshots")
}

fn snapshot_path(dir: &Path, index: u64) -> PathBuf {
    snapshot_dir(dir).join(format!("{index:020}.snapshot"))
}

fn open_sled(path: &Path) -> Result<sled::Db, DiskError> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
    guarded(path, || config.open().map_err(|e| sled_error(path, e)))
}

/// sled panics on some damage instead of saying so.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(DiskError::Damaged { path: path.to_owned(), what: format!("the store ({said})") })
    })
}

fn sled_error(path: &Path, error: sled::Error) -> DiskError {
    match error {
        sled::Error::Io(error) => io_error(path, error),
        other => DiskError::Damaged { path: path.to_owned(), what: format!("the store ({other})") },
    }
}

fn io_error(path: &Path, source: io::Error) -> DiskError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::Full { path },
        _ => DiskError::Io { path, source },
    }
}

/// Why the store cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// No space is left.
    #[error("the disk under {} is full", path.display())]
    Full {
        /// What was to be written.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A part of an existing store is gone.
    #[error("{} is missing from a store that was in use; it must not start empty", path.display())]
    Missing {
        /// The part.
        path: PathBuf,
    },
    /// Bytes are not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Which file or directory.
        path: PathBuf,
        /// What in it.
        what: String,
    },
    /// Records that were acknowledged are gone.
    #[error(
        "{} has lost acknowledged records: it holds {found} of {acknowledged}", path.display()
    )]
    FellBehind {
        /// The data directory.
        path: PathBuf,
        /// The last record found.
        found: u64,
        /// The last record acknowledged.
        acknowledged: u64,
    },
    /// The data directory is another watcher's.
    #[error("{} belongs to watcher {found}, not to {own}", path.display())]
    OtherWatcher {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        found: WatcherName,
        /// Who opened it.
        own: WatcherName,
    },
    /// Parts of two stores were mixed.
    #[error("{} is not the store that its directory names", path.display())]
    OtherStore {
        /// The part that does not belong.
        path: PathBuf,
    },
    /// Written by a newer version.
    #[error("{} is of format {found}; this version reads format {reads}", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// What this version reads.
        reads: u32,
    },
    /// A log entry beyond any limit.
    #[error("a log entry of {bytes} bytes is too large to store")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The writing thread has ended.
    #[error("the disk thread has ended")]
    Ended,
}
