//! The thread that writes: records queue up while it syncs, and share the next sync.

use super::{Disk, DiskError};
use crate::watcher::Record;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Records waiting for the disk; a full queue means a disk that stalls.
const QUEUE: usize = 1024;

/// Records that share one sync at the most.
const TOGETHER: usize = 64;

/// Writes records in order on a thread of its own.
#[derive(Debug)]
pub struct DiskThread {
    queue: Option<SyncSender<(u64, Record)>>,
    thread: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// Takes the disk over. `done` hears the ticket up to which all is safe, or the error after
    /// which nothing more is written and the node must end.
    pub fn start(
        disk: Disk,
        done: impl FnMut(Result<u64, DiskError>) + Send + 'static,
    ) -> io::Result<DiskThread> {
        let (queue, records) = sync_channel(QUEUE);
        let work = move || write_all(disk, &records, done);
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(work)?;
        Ok(DiskThread { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a record; gives it back when the queue is full, to be tried again.
    pub fn write(&self, ticket: u64, record: Record) -> Result<Option<Record>, DiskError> {
        let queue = self.queue.as_ref().ok_or(DiskError::Ended)?;
        match queue.try_send((ticket, record)) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full((_, record))) => Ok(Some(record)),
            Err(TrySendError::Disconnected(_)) => Err(DiskError::Ended),
        }
    }
}

impl Drop for DiskThread {
    /// Waits until what is queued is written.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; the store stays as it was synced.
            let _ = thread.join();
        }
    }
}

fn write_all(
    mut disk: Disk,
    records: &Receiver<(u64, Record)>,
    mut done: impl FnMut(Result<u64, DiskError>),
) {
    while let Ok(first) = records.recv() {
        let queued = records.try_iter().take(TOGETHER - 1);
        let result = write_together(&mut disk, std::iter::once(first).chain(queued));
        let failed = result.is_err();
        done(result);
        if failed {
            return;
        }
    }
}

fn write_together(
    disk: &mut Disk,
    records: impl Iterator<Item = (u64, Record)>,
) -> Result<u64, DiskError> {
    let mut last = 0;
    for (ticket, record) in records {
        disk.write_unsynced(&record)?;
        last = ticket;
    }
    disk.sync()?;
    Ok(last)
}
