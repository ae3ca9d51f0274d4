//! The directory in which an agent works: nothing in it outlives a copy.

use crate::config::Account;
use crate::runtime::backup::BackupError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the program that copies works in.
const TOOL: &str = "tool";
/// What the server copies itself into.
const CLONE: &str = "clone";
const LOCK: &str = "agent.lock";
/// More is no file about a copy.
const MOST_TOLD: u64 = 4 << 20;

/// The directory in which an agent works. No other agent uses it so long.
#[derive(Debug)]
pub(super) struct Scratch {
    root: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes it when it is missing.
    pub(super) fn open(root: &Path) -> io::Result<Scratch> {
        if !root.is_dir() {
            DirBuilder::new().recursive(true).mode(0o750).create(root)?;
        }
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600);
        let lock = lock.open(root.join(LOCK))?;
        let taken = "another agent works in it; give each server's agent its own scratch";
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::new(ErrorKind::AddrInUse, taken))?;
        Ok(Scratch { root: root.to_owned(), _lock: lock })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the server copies itself to.
    pub(super) fn clone_place(&self) -> PathBuf {
        self.root.join(CLONE)
    }

    /// How many bytes are free here.
    pub(super) fn free(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.root)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Removes all that a copy left.
    pub(super) fn clear(&self) -> io::Result<()> {
        for name in [TOOL, CLONE] {
            match std::fs::remove_dir_all(self.root.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// A new directory for the program that copies, which only this user can read.
    pub(super) fn tool_place(&self) -> io::Result<PathBuf> {
        let place = self.root.join(TOOL);
        DirBuilder::new().mode(0o700).create(&place)?;
        Ok(place)
    }
}

/// Writes the password where no other user can read it: neither an argument nor the environment of a
/// program is as close.
pub(super) fn options_file(
    place: &Path,
    group: &str,
    account: &Account,
) -> Result<PathBuf, BackupError> {
    let path = place.join("options.cnf");
    let mut options = OpenOptions::new();
    let opening = options.write(true).create_new(true).mode(0o600).open(&path);
    let quoted = zeroize::Zeroizing::new(quoted(account.password.reveal()));
    let text = zeroize::Zeroizing::new(format!("[{group}]\npassword={}\n", *quoted));
    opening
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(BackupError::io(path.display().to_string()))?;
    Ok(path)
}

/// A value as option files have it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for each in text.chars() {
        match each {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Reads what a program wrote about its copy, under the first of these names that is there.
pub(super) fn told_in(place: &Path, names: &[&str]) -> io::Result<String> {
    let found = names.iter().map(|name| place.join(name)).find(|path| path.is_file());
    let path = found.ok_or(ErrorKind::NotFound)?;
    let mut text = String::new();
    File::open(path)?.take(MOST_TOLD).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_belongs_to_one_agent_and_is_left_empty() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("scratch");
        let scratch = Scratch::open(&root).unwrap();
        assert!(scratch.free().unwrap() > 0);
        assert_eq!(Scratch::open(&root).unwrap_err().kind(), ErrorKind::AddrInUse);
        std::fs::write(scratch.tool_place().unwrap().join("x"), "left").unwrap();
        std::fs::create_dir(scratch.clone_place()).unwrap();
        drop(scratch);
        let scratch = Scratch::open(&root).unwrap();
        scratch.clear().unwrap();
        let left: Vec<_> = std::fs::read_dir(scratch.root()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn passwords_are_quoted() {
        assert_eq!(quoted("a#b\"c\\d e"), "\"a#b\"c\\\\d e\"");
    }
}
