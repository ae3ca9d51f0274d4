//! A directory for one server, locked as long as its maker lives. What a killed process left, its server
//! included, is found unlocked by the next one and removed.

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What the names of all these directories begin with.
pub(super) const PREFIX: &str = "regent-proof-";
/// Where a server listens in it.
pub(super) const SOCKET: &str = "s";
/// No socket has a longer path.
const LONGEST_SOCKET: usize = 107;
/// More directories are not looked through.
const MOST_LEFT: usize = 1_000;

/// A locked directory; removed with this.
#[derive(Debug)]
pub(super) struct Place {
    pub path: PathBuf,
    _lock: File,
}

impl Place {
    pub(super) fn make(directory: &Path, name: &str) -> io::Result<Place> {
        let path = directory.canonicalize()?.join(name);
        if path.join(SOCKET).as_os_str().len() > LONGEST_SOCKET {
            return Err(io::Error::other(
                "is too long a path for a socket; write a shorter one in backups.verify.directory",
            ));
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::create(path.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Place { path, _lock: lock })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not be removed");
        }
    }
}

/// Removes what killed processes left, as far as this user may.
pub(super) fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.take(MOST_LEFT).flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(path.join("lock")) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        kill_leftover(&path);
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a killed proof left"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "could not be removed"),
        }
    }
}

/// Kills the server of a directory whose maker is gone, if that process is really it.
fn kill_leftover(path: &Path) {
    let read = fs::read_to_string(path.join("pid")).unwrap_or_default();
    let Some(pid) = read.trim().parse().ok().and_then(Pid::from_raw) else { return };
    let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    if String::from_utf8_lossy(&command).contains(&*path.to_string_lossy()) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_others_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let used = Place::make(directory.path(), "regent-proof-used").unwrap();
        let left = directory.path().join("regent-proof-left");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("lock"), "").unwrap();
        fs::write(left.join("pid"), std::process::id().to_string()).unwrap();
        let other = directory.path().join("somebody-elses");
        fs::create_dir(&other).unwrap();
        sweep(directory.path());
        assert!(!left.exists() && other.exists() && used.path.exists());
        let path = used.path.clone();
        drop(used);
        assert!(!path.exists());
    }
}
