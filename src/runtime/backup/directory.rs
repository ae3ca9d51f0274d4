//! Bringing a physical backup back: into an empty directory, on which a server can be started.

use super::agent::{Program, version_of};
use super::archive::replay::Replayed;
use super::fetching::Opened;
use super::forward::Forward;
use super::packing::Identities;
use super::target::Target;
use super::{BackupError, Progress};
use crate::config::backups::Tools;
use crate::decision::backup::manifest::{Manifest, Method};
use crate::decision::topology::{Flavor, Version};
use crate::runtime::mysql::dialect::Dialect;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

/// What is not whole yet stands in here, where no server looks for it. InnoDB of MySQL finds no file in a
/// directory whose name begins with a dot, so that this one's does not.
const STAGING: &str = "regent-restore";
/// A file system of its own has it.
const LOST_AND_FOUND: &str = "lost+found";
/// How the programs are told to unpack.
const STREAMED: &[&str] = &["-x"];
/// Zeros stand behind an archive, and whoever stops reading there hinders who writes them.
const ARCHIVED: &[&str] =
    &["--extract", "--file=-", "--ignore-zeros", "--no-same-owner", "--preserve-permissions"];
/// The programs end with this when the files can be used.
const WHOLE: &str = "completed OK!";

/// How a backup is laid into a directory.
#[derive(Clone, Copy, Debug)]
pub struct Laying<'a> {
    /// An empty one, or one that is not there yet.
    pub directory: &'a Path,
    /// The programs.
    pub tools: &'a Tools,
    /// Only look whether that could be done.
    pub dry_run: bool,
    /// What is carried out before the files stand there.
    pub then: Option<&'a Forward<'a>>,
}

/// What a restore into a directory brought about, and what is left to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The user that all files belong to.
    pub owner: u32,
    /// What to run on the server once it was started on them, before it replicates.
    pub statements: Vec<String>,
    /// What was carried out, where something was to be.
    pub replayed: Option<Replayed>,
}

/// Unpacks a physical backup into an empty directory, makes the files fit to be started on and carries out
/// what is to follow. What breaks off leaves no file that a server would take for its own, and can be begun
/// again.
pub async fn into_directory(
    target: &Target,
    manifest: &Manifest,
    identities: &Identities,
    laying: &Laying<'_>,
    progress: &watch::Sender<Progress>,
) -> Result<Prepared, BackupError> {
    let Laying { directory, tools, dry_run, then } = *laying;
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
        if let Some(then) = then {
            then.fits(manifest).await?;
        }
        return Ok(Prepared { owner, statements: statements(manifest), replayed: None });
    }
    let failed = BackupError::io;
    make(directory).map_err(failed(place.clone()))?;
    let staging = directory.join(STAGING);
    fresh(&staging).map_err(failed(place.clone()))?;
    let staged = async {
        laid_out(target, manifest, identities, (&staging, tools), progress).await?;
        match then {
            Some(then) => then.carry_out(target, manifest, (&staging, identities), progress).await,
            None => Ok(None),
        }
    };
    let replayed = match staged.await {
        Ok(replayed) => replayed,
        Err(error) => {
            remove(&staging).await;
            return Err(error);
        }
    };
    let (from, to) = (staging.clone(), directory.to_owned());
    let settling = tokio::task::spawn_blocking(move || settle(&from, &to));
    let broken_off = |_| BackupError::Unknown("moving the files was broken off".to_owned());
    let owner = settling.await.map_err(broken_off)?.map_err(failed(place))?;
    // What was carried out left nothing to be said to it.
    let statements = if replayed.is_some() { Vec::new() } else { statements(manifest) };
    Ok(Prepared { owner, statements, replayed })
}

/// Unpacks a physical backup and makes its files fit to be started on.
pub(super) async fn laid_out(
    target: &Target,
    manifest: &Manifest,
    identities: &Identities,
    (staging, tools): (&Path, &Tools),
    progress: &watch::Sender<Progress>,
) -> Result<(), BackupError> {
    unpack(target, manifest, identities, (staging, tools), progress).await?;
    prepare(manifest, staging, tools).await
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
    let free = free(there)?;
    if free < manifest.plain_bytes {
        let text = format!(
            "{place} has room for {free} bytes, and the backup takes {}",
            manifest.plain_bytes
        );
        return Err(BackupError::NotEmpty(text));
    }
    Ok(())
}

/// How many bytes are free there.
pub(super) fn free(there: &Path) -> Result<u64, BackupError> {
    let found = rustix::fs::statvfs(there).map_err(io::Error::from);
    let found = found.map_err(BackupError::io(there.display().to_string()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
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
async fn prepare(manifest: &Manifest, staging: &Path, tools: &Tools) -> Result<(), BackupError> {
    let found = || match manifest.method {
        Method::PhysicalMariadbBackup => {
            Some(Program::new("mariadb-backup", &tools.mariadb_backup))
        }
        Method::PhysicalXtrabackup => Some(Program::new("xtrabackup", &tools.xtrabackup)),
        Method::Logical | Method::PhysicalClone => None,
    };
    let Some(mut program) = found() else { return Ok(()) };
    let command = program.command.args(["--prepare", "--target-dir=."]).current_dir(staging);
    command.stdout(Stdio::null());
    let tool = program.start()?;
    let name = tool.name().to_owned();
    let said = match tool.finished_saying().await {
        Ok(said) => said,
        Err(error) => return Err(of_another_version(error, manifest, found()).await),
    };
    if said.trim_end().ends_with(WHOLE) {
        return Ok(());
    }
    let what = format!("it did not end with {WHOLE:?} but with {said:?}");
    Err(BackupError::Tool { name, what })
}

/// Says so where a program of another version than the server's failed, which may be all that is wrong.
async fn of_another_version(
    error: BackupError,
    manifest: &Manifest,
    program: Option<Program>,
) -> BackupError {
    let BackupError::Tool { what, .. } = &error else { return error };
    let Some(program) = program else { return error };
    let Ok(said) = version_of(program).await else { return error };
    match version_in(&said) {
        Some(has) if (has.major, has.minor) != (manifest.version.major, manifest.version.minor) => {
            let of = manifest.version;
            let text = format!("{said} failed on a backup of {of}; use it of that version: {what}");
            BackupError::Unknown(text)
        }
        _ => error,
    }
}

/// The version in how a program names itself, behind the first word that can be one.
fn version_in(said: &str) -> Option<Version> {
    let begins = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let word = said.split_whitespace().find(begins)?;
    Some(Dialect::new(word, &[]).version)
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
        // This program does not copy what the server wrote down last of its position.
        Flavor::MySql if manifest.method == Method::PhysicalXtrabackup => vec![
            "RESET REPLICA ALL".to_owned(),
            format!(
                "SET GLOBAL gtid_purged = CONCAT('+', GTID_SUBTRACT('{}', @@GLOBAL.gtid_executed))",
                manifest.position.to_wait_text()
            ),
        ],
        Flavor::MySql => vec!["RESET REPLICA ALL".to_owned()],
        Flavor::MariaDb => {
            vec![format!("SET GLOBAL gtid_slave_pos = '{}'", manifest.position.to_wait_text())]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_tell_their_version() {
        let said =
            "mariadb-backup based on MariaDB server 10.11.14-MariaDB debian-linux-gnu (x86_64)";
        let found = version_in(said).map(|version| version.to_string());
        assert_eq!(found.as_deref(), Some("10.11.14"));
        let said = "xtrabackup version 8.4.0-2 based on MySQL server 8.4.0 Linux (x86_64)";
        assert_eq!(version_in(said).map(|version| version.minor), Some(4));
        assert_eq!(version_in("some program"), None);
    }
}
