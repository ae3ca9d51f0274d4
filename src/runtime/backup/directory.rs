//! Bringing a physical backup back: into an empty directory, on which a server can be started.

use super::agent::Program;
use super::fetching::Opened;
use super::packing::Identities;
use super::target::Target;
use super::{BackupError, Progress};
use crate::config::backups::Tools;
use crate::decision::backup::manifest::{Manifest, Method};
use crate::decision::topology::Flavor;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

/// What is not whole yet stands in here, where no server looks for it.
const STAGING: &str = ".regent-restore";
/// A file system of its own has it.
const LOST_AND_FOUND: &str = "lost+found";
/// How the programs are told to unpack.
const STREAMED: &[&str] = &["-x"];
const ARCHIVED: &[&str] = &["--extract", "--file=-", "--no-same-owner", "--preserve-permissions"];
/// The programs end with this when the files can be used.
const WHOLE: &str = "completed OK!";

/// What a restore into a directory brought about, and what is left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The user that all files belong to.
    pub owner: u32,
    /// What to run on the server once it was started on them, before it replicates.
    pub statements: Vec<String>,
}

/// Unpacks a physical backup into an empty directory and makes the files fit to be started on. With
/// `dry_run` it only looks whether that could be done. What breaks off leaves no file that a server would
/// take for its own, and can be begun again.
pub async fn into_directory(
    target: &Target,
    manifest: &Manifest,
    identities: &Identities,
    (directory, tools): (&Path, &Tools),
    (dry_run, progress): (bool, &watch::Sender<Progress>),
) -> Result<Prepared, BackupError> {
    if !manifest.method.is_physical() {
        let text = format!(
            "backup {} is logical: restore it into a running server (--into), or into a --file",
            manifest.id
        );
        return Err(BackupError::Unknown(text));
    }
    let place = directory.display().to_string();
    fit(directory, manifest)?;
    if dry_run {
        let owner = directory.metadata().map_or(0, |found| found.uid());
        return Ok(Prepared { owner, statements: statements(manifest) });
    }
    let failed = BackupError::io;
    make(directory).map_err(failed(place.clone()))?;
    let staging = directory.join(STAGING);
    fresh(&staging).map_err(failed(place.clone()))?;
    let unpacked = async {
        unpack(target, manifest, identities, (&staging, tools), progress).await?;
        prepare(manifest.method, &staging, tools).await
    };
    if let Err(error) = unpacked.await {
        remove(&staging).await;
        return Err(error);
    }
    let (from, to) = (staging.clone(), directory.to_owned());
    let settling = tokio::task::spawn_blocking(move || settle(&from, &to));
    let broken_off = |_| BackupError::Unknown("moving the files was broken off".to_owned());
    let owner = settling.await.map_err(broken_off)?.map_err(failed(place))?;
    Ok(Prepared { owner, statements: statements(manifest) })
}

/// Whether the directory holds nothing, and has room.
fn fit(directory: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let place = directory.display().to_string();
    let within = match std::fs::read_dir(directory) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let within = within.map_err(BackupError::io(place.clone()))?;
    let spared = |name: &std::ffi::OsStr| name == STAGING || name == LOST_AND_FOUND;
    if let Some(found) = within.iter().find(|entry| !spared(&entry.file_name())) {
        let text = format!(
            "{place} is not empty (it holds {}); name an empty directory, or one that does not exist",
            found.file_name().display()
        );
        return Err(BackupError::NotEmpty(text));
    }
    let there = directory.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("."));
    let found = rustix::fs::statvfs(there).map_err(io::Error::from);
    let found = found.map_err(BackupError::io(there.display().to_string()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < manifest.plain_bytes {
        let text = format!(
            "{place} has room for {free} bytes, and the backup takes {}",
            manifest.plain_bytes
        );
        return Err(BackupError::NotEmpty(text));
    }
    Ok(())
}

fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().mode(0o750).create(directory)
}

/// An empty directory, whatever a former attempt left there.
fn fresh(staging: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(staging) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::DirBuilder::new().mode(0o700).create(staging)
}

async fn remove(staging: &Path) {
    if let Err(error) = tokio::fs::remove_dir_all(staging).await {
        tracing::warn!(%error, "{} could not be removed", staging.display());
    }
}

async fn unpack(
    target: &Target,
    manifest: &Manifest,
    identities: &Identities,
    (staging, tools): (&Path, &Tools),
    progress: &watch::Sender<Progress>,
) -> Result<(), BackupError> {
    let (mut program, words) = match manifest.method {
        Method::PhysicalClone => (Program::new("tar", &None), ARCHIVED),
        Method::PhysicalXtrabackup => (Program::new("xbstream", &tools.xbstream), STREAMED),
        Method::Logical | Method::PhysicalMariadbBackup => {
            (Program::new("mbstream", &tools.mbstream), STREAMED)
        }
    };
    // It works where it is started, whatever the directory is called.
    let command = program.command.args(words).current_dir(staging);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut opened = Opened::new(target, manifest, identities, progress).await?;
    let mut tool = program.start()?;
    let mut input = tool.input()?;
    let fed = async {
        opened.pass_on(manifest.plain_bytes, &mut input).await?;
        input.shutdown().await.map_err(BackupError::io("unpacking"))
    };
    let fed = fed.await;
    drop(input);
    match (tool.finished().await, fed) {
        // A program that fails stops reading, and says why.
        (Err(error), Ok(()) | Err(BackupError::Io { .. })) => return Err(error),
        (_, fed) => fed?,
    }
    opened.end().await
}

/// Applies what was written while the files were copied; a server does that itself to what CLONE made.
async fn prepare(method: Method, staging: &Path, tools: &Tools) -> Result<(), BackupError> {
    let mut program = match method {
        Method::PhysicalMariadbBackup => Program::new("mariadb-backup", &tools.mariadb_backup),
        Method::PhysicalXtrabackup => Program::new("xtrabackup", &tools.xtrabackup),
        Method::Logical | Method::PhysicalClone => return Ok(()),
    };
    let command = program.command.args(["--prepare", "--target-dir=."]).current_dir(staging);
    command.stdout(Stdio::null());
    let tool = program.start()?;
    let name = tool.name().to_owned();
    let said = tool.finished_saying().await?;
    if said.trim_end().ends_with(WHOLE) {
        return Ok(());
    }
    let what = format!("it did not end with {WHOLE:?} but with {said:?}");
    Err(BackupError::Tool { name, what })
}

/// Puts the files in their place, all within one file system, and gives them the directory's owner.
fn settle(staging: &Path, directory: &Path) -> io::Result<u32> {
    let above = directory.metadata()?;
    if rustix::process::geteuid().is_root() && (above.uid(), above.gid()) != (0, 0) {
        belong(staging, above.uid(), above.gid())?;
    }
    for entry in std::fs::read_dir(staging)? {
        let entry = entry?;
        std::fs::rename(entry.path(), directory.join(entry.file_name()))?;
    }
    std::fs::remove_dir(staging)?;
    rustix::fs::syncfs(std::fs::File::open(directory)?)?;
    Ok(above.uid())
}

fn belong(directory: &Path, user: u32, group: u32) -> io::Result<()> {
    let mut open: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        chown(&directory, Some(user), Some(group))?;
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => open.push(entry.path()),
                false => std::os::unix::fs::lchown(entry.path(), Some(user), Some(group))?,
            }
        }
    }
    Ok(())
}

/// What lets a server go on from the backup's position. One of MySQL finds that in its files, and with it
/// whom the server that was copied followed.
fn statements(manifest: &Manifest) -> Vec<String> {
    match manifest.flavor {
        Flavor::MySql => vec!["RESET REPLICA ALL".to_owned()],
        Flavor::MariaDb => {
            vec![format!("SET GLOBAL gtid_slave_pos = '{}'", manifest.position.to_wait_text())]
        }
    }
}
