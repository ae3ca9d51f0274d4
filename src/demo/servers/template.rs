//! A data directory that is initialised once and copied for every further server.

use super::{DatabaseFlavor, Installation, ServerError, accounts, mariadb, mysql};
use crate::demo::process::{Process, tail};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Long enough for a slow disk; MySQL needs about three seconds on an ordinary one.
const INITIALIZATION_LIMIT: Duration = Duration::from_secs(180);

/// The template of this installation, made now unless an earlier run made it.
pub(super) async fn template(installation: &Installation) -> Result<PathBuf, ServerError> {
    let finished = installation.templates().join(identity(installation));
    if finished.join("data").is_dir() {
        return Ok(finished.join("data"));
    }
    fs::create_dir_all(installation.templates())?;
    let lock = File::create(installation.templates().join(".lock"))?;
    let locking = async {
        while let Err(refusal) = lock.try_lock() {
            if let TryLockError::Error(error) = refusal {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    tokio::time::timeout(INITIALIZATION_LIMIT, locking)
        .await
        .map_err(|_| ServerError::Template("another run holds the lock".to_owned()))??;
    // Somebody else may have made it while this run waited.
    if !finished.join("data").is_dir() {
        make(installation, &finished).await?;
    }
    Ok(finished.join("data"))
}

/// Copies a directory with all below it.
pub(super) async fn copy(from: PathBuf, to: PathBuf) -> Result<(), ServerError> {
    tokio::task::spawn_blocking(move || copy_now(&from, &to))
        .await
        .map_err(|_| ServerError::Template("the copy was interrupted".to_owned()))??;
    Ok(())
}

async fn make(installation: &Installation, finished: &Path) -> Result<(), ServerError> {
    let work = finished.with_extension("new");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    let datadir = work.join("data");
    let launch = match installation.flavor() {
        DatabaseFlavor::Mysql => mysql::initialization(installation, &work, &datadir)?,
        DatabaseFlavor::Mariadb => mariadb::initialization(installation, &work, &datadir)?,
    };
    let log = launch.log.clone();
    let mut process = Process::start(launch)?;
    let status = process.ended(INITIALIZATION_LIMIT).await;
    if !status.is_some_and(|status| status.success()) {
        return Err(ServerError::Template(tail(&log, 8)));
    }
    // Each server must make its own identity.
    match fs::remove_file(datadir.join("auto.cnf")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    fs::rename(&work, finished)?;
    Ok(())
}

/// Names the template after all that its content depends on: the program and the accounts.
fn identity(installation: &Installation) -> String {
    let mut content = crc32fast::Hasher::new();
    content.update(installation.server().as_os_str().as_encoded_bytes());
    // A launcher's own size says little; the installation's mark changes with each new unpacking.
    for path in [installation.server(), &installation.base().join("../.complete")] {
        if let Ok(found) = fs::metadata(path) {
            content.update(&found.len().to_le_bytes());
            let modified = found.modified().ok();
            let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            content.update(&since.unwrap_or_default().as_millis().to_le_bytes());
        }
    }
    for statement in accounts::statements(installation.flavor()) {
        content.update(statement.as_bytes());
    }
    format!("{}-{:08x}", installation.flavor(), content.finalize())
}

fn copy_now(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_now(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
