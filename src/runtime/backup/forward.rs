//! What follows a copy of a server's files, before they are handed over: a server is started on them that
//! nobody else reaches, carries out what was archived, and is shut down in order.
//!
//! It writes no binary log of its own; its position stands in the files. What breaks off is thrown away with
//! the files, and begun anew.

use super::archive::replay::{Copied, Onto, Replay, Replayed};
use super::copied::{START, words};
use super::packing::Identities;
use super::proving::blame;
use super::target::Target;
use super::throwaway::{Opening, Site, Throwaway, wanted};
use super::{BackupError, Progress};
use crate::clock::Clock;
use crate::config::Account;
use crate::config::backups::Backups;
use crate::config::secret::Secret;
use crate::decision::backup::archive::recovery::Plan;
use crate::decision::backup::manifest::{Manifest, Method};
use crate::decision::gtid::Gtids;
use crate::decision::topology::Flavor;
use crate::runtime::mysql::status::learn;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

/// An account that is there only so long.
const USER: &str = "regent-restore";
/// Writing down what is still in memory takes no longer.
const ENDING: Duration = Duration::from_secs(1_800);
/// A server that is started on the files gives itself another name than this one had.
const NAME_OF_ITS_OWN: &str = "auto.cnf";

/// What is to be carried out on a copy.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The way to the moment.
    pub plan: &'a Plan,
    /// Where a server may be started, and with what.
    pub backups: &'a Backups,
    /// The clock.
    pub clock: Clock,
}

impl Forward<'_> {
    async fn site(&self, manifest: &Manifest) -> Result<Site, BackupError> {
        Site::make(&wanted((manifest, self.backups), self.clock)).await
    }

    /// Whether there is a server for it.
    pub(super) async fn fits(&self, manifest: &Manifest) -> Result<(), BackupError> {
        self.site(manifest).await.map(drop)
    }

    /// Brings the files to the moment.
    pub(super) async fn carry_out(
        &self,
        target: &Target,
        manifest: &Manifest,
        (files, identities): (&Path, &Identities),
        progress: &watch::Sender<Progress>,
    ) -> Result<Option<Replayed>, BackupError> {
        let site = self.site(manifest).await?.with_data(files);
        let script = site.directory().join("accounts.sql");
        let in_script = || BackupError::io(script.display().to_string());
        let login = login().map_err(in_script())?;
        write(&script, &login).map_err(in_script())?;
        let mut words = words(manifest.flavor, manifest.innodb.as_ref());
        words.push(format!("--init-file={}", script.display()).into());
        let opening = Opening { words, login: Some(login.clone()), limit: START };
        let server = site.open(opening).await?;
        let replayed = self.on((&server, &login), (target, manifest), identities, progress).await;
        let replayed = replayed.map_err(|error| blame(&server, error))?;
        // It knows nobody any more who could come back for that.
        server.shut_down(&format!("DROP USER '{USER}'@'localhost'"), ENDING).await?;
        match std::fs::remove_file(files.join(NAME_OF_ITS_OWN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BackupError::io(NAME_OF_ITS_OWN)(error))
            }
            _ => Ok(Some(replayed)),
        }
    }

    async fn on(
        &self,
        server: (&Throwaway, &Account),
        (target, manifest): (&Target, &Manifest),
        identities: &Identities,
        progress: &watch::Sender<Progress>,
    ) -> Result<Replayed, BackupError> {
        let onto = Onto::Copied(Copied::new(server, &self.backups.tools));
        let mut conn = onto.session().await?;
        let refused = |error| BackupError::server(&onto.name(), error);
        begin(&mut conn, manifest).await.map_err(refused)?;
        drop(conn);
        let held = onto.look().await?.executed;
        if !held.contains(&manifest.position) {
            let position = &manifest.position;
            let what = format!("it holds {held}, which lacks some of the backup's {position}");
            return Err(BackupError::server(&onto.name(), what));
        }
        let plan = self.plan.clone().going_on_from(&held)?;
        let replay = Replay { target, plan: &plan, identities, onto };
        replay.run(progress).await
    }
}

/// Lets go of whomever the copied server followed, and gives this one the copy's position.
async fn begin(conn: &mut Conn, manifest: &Manifest) -> Result<(), mysql_async::Error> {
    // Positions hold digits, letters, commas, colons and dashes only.
    let position = &manifest.position;
    match manifest.flavor {
        Flavor::MariaDb => {
            let text = position.to_wait_text();
            conn.query_drop(format!("SET GLOBAL gtid_slave_pos = '{text}'")).await
        }
        Flavor::MySql => {
            let strange = |error: String| mysql_async::Error::Other(error.into());
            let dialect = learn(conn).await.map_err(|error| strange(error.to_string()))?;
            let replica = dialect.columns().replica();
            conn.query_drop(format!("RESET {replica} ALL")).await?;
            if manifest.method == Method::PhysicalXtrabackup {
                adopt(conn, position).await?;
            }
            Ok(())
        }
    }
}

/// Counts as executed what is in the files and not written down there.
async fn adopt(conn: &mut Conn, position: &Gtids) -> Result<(), mysql_async::Error> {
    let text: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_executed").await?;
    let has = Gtids::parse(Flavor::MySql, &text.unwrap_or_default());
    let strange = |error: String| mysql_async::Error::Other(error.into());
    let lacks = position.minus(&has.map_err(|error| strange(error.to_string()))?);
    if lacks.is_empty() {
        return Ok(());
    }
    conn.query_drop(format!("SET GLOBAL gtid_purged = '+{lacks}'")).await
}

/// An account with a password that nobody has seen, and that any rule for passwords takes.
fn login() -> io::Result<Account> {
    let mut random = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Account { user: USER.to_owned(), password: Secret::new(format!("Rg-{digits}-7X")) })
}

/// What makes the account, a statement a line.
fn write(path: &Path, login: &Account) -> io::Result<()> {
    let (user, password) = (&login.user, login.password.reveal());
    let account = format!("'{user}'@'localhost'");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "SET SESSION sql_log_bin = 0;")?;
    writeln!(file, "DROP USER IF EXISTS {account};")?;
    writeln!(file, "CREATE USER {account} IDENTIFIED BY '{password}';")?;
    writeln!(file, "GRANT ALL ON *.* TO {account} WITH GRANT OPTION;")
}
