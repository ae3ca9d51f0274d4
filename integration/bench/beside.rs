//! A backup that reads a replica while something else is measured.

use crate::backup;
use anyhow::{Context, Result, bail, ensure};
use regent::demo::cluster::Cluster;
use regent::demo::servers::accounts::BACKUP;
use regent::demo::servers::{DatabaseFlavor, Installation};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How much there is to back up: enough to take longer than what is measured.
pub const MEGABYTES: u64 = 1_000;

const LOOK: Duration = Duration::from_millis(20);
const BEGINS: Duration = Duration::from_secs(30);

/// What a backup that is held back stores each second.
const LIMIT: &str = "10MiB";

/// How fast a backup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// As fast as it can be.
    Full,
    /// With a limit, as on machines that do other things too.
    Limited,
}

/// One backup that is being made.
pub struct Beside {
    child: Child,
    folder: PathBuf,
}

/// Says in the cluster's configuration how it is backed up.
pub fn configure(cluster: &Cluster, flavor: DatabaseFlavor) -> Result<()> {
    let password = cluster.directory().join("backup-password");
    std::fs::write(&password, BACKUP.password)?;
    let installation = Installation::find(flavor)?;
    let tools = backup::tools(flavor, &installation);
    let section = format!(
        "    backups:
      targets: [ {{ name: local, folder: {} }} ]
      account: {{ user: {}, password_file: {} }}
      tools: {{ {tools} }}
",
        folder(cluster).display(),
        BACKUP.user,
        password.display()
    );
    let path = &cluster.configuration;
    let text = std::fs::read_to_string(path)? + &section;
    std::fs::write(limited(cluster), format!("{text}      rate_limit: {LIMIT}\n"))?;
    Ok(std::fs::write(path, text)?)
}

/// The same configuration, with a limit.
fn limited(cluster: &Cluster) -> PathBuf {
    cluster.directory().join("limited.yaml")
}

fn folder(cluster: &Cluster) -> PathBuf {
    cluster.directory().join("backups")
}

impl Beside {
    /// Begins one and returns when the first of it is stored.
    pub async fn begin(cluster: &Cluster, speed: Speed) -> Result<Beside> {
        let configuration = match speed {
            Speed::Full => cluster.configuration.clone(),
            Speed::Limited => limited(cluster),
        };
        let folder = folder(cluster);
        let child = Command::new(cluster.program())
            .args(["backup", "now", Cluster::NAME, "--method", "logical", "--json", "--config"])
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut beside = Beside { child, folder };
        let storing = async {
            while stored(&beside.folder.join(Cluster::NAME).join("data")) == 0 {
                ensure!(
                    beside.child.try_wait()?.is_none(),
                    "the backup ended before it stored anything"
                );
                sleep(LOOK).await;
            }
            Ok(())
        };
        timeout(BEGINS, storing).await.context("the backup stored nothing")??;
        Ok(beside)
    }

    /// As [`Beside::end`], where there is one.
    pub async fn ended(beside: Option<Beside>) -> Result<()> {
        match beside {
            Some(beside) => beside.end().await,
            None => Ok(()),
        }
    }

    /// Breaks it off; an error when it was not under way any more.
    async fn end(mut self) -> Result<()> {
        let early = self.child.try_wait()?;
        self.child.kill().await?;
        // What it left is taken away with everything it stored.
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)?,
            _ => {}
        }
        match early {
            Some(status) => {
                let mut said = String::new();
                if let Some(mut stderr) = self.child.stderr.take() {
                    stderr.read_to_string(&mut said).await?;
                }
                let said = said.lines().last().unwrap_or_default();
                bail!("the backup beside it had ended already, with {status}: {said}")
            }
            None => Ok(()),
        }
    }
}

/// Bytes of files in a directory.
fn stored(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|it| it.len()).sum()
}
