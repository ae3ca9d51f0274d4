//! Bringing a backup back: into a file, or into a new server.

use super::accounts::{Accounts, MOST_BYTES};
use super::fetching::Opened;
use super::packing::Identities;
use super::taking::{CONNECT_LIMIT, OWN};
use super::target::Target;
use super::tool::{Reach, Tool};
use super::{BackupError, Progress};
use crate::config::Account;
use crate::config::backups::Tools;
use crate::decision::backup::manifest::Manifest;
use crate::decision::report::{Sight, Status, Writable};
use crate::decision::topology::{Endpoint, Flavor, ServerName, ServerSpec, Timing};
use crate::runtime::mysql::connect::connect;
use crate::runtime::mysql::distance::Distance;
use crate::runtime::mysql::probe::Prober;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::path::Path;
use std::time::Duration;
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::watch;

/// The first look at a server may take longer than one probe.
const LOOKS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);

/// A new server to restore into.
#[derive(Clone, Debug)]
pub struct Destination<'a> {
    /// Where it is.
    pub address: Endpoint,
    /// An account there with all privileges.
    pub account: Account,
    /// The programs.
    pub tools: &'a Tools,
}

/// What a restore brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Statements about accounts that the server refused, by what they begin with; everything else is
    /// there.
    pub refused: Vec<String>,
}

/// Writes a backup's SQL into a new file that only this user can read; a failure leaves none.
pub async fn into_file(
    target: &Target,
    manifest: &Manifest,
    identities: &Identities,
    path: &Path,
    progress: &watch::Sender<Progress>,
) -> Result<(), BackupError> {
    let what = path.display().to_string();
    let mut options = OpenOptions::new();
    let opening = options.write(true).create_new(true).mode(0o600).open(path).await;
    let mut file = opening.map_err(BackupError::io(what.clone()))?;
    let written = async {
        let mut opened = Opened::new(target, manifest, identities, progress).await?;
        opened.pass_on(manifest.plain_bytes, &mut file).await?;
        opened.end().await?;
        file.flush().await.map_err(BackupError::io(what.clone()))?;
        file.sync_all().await.map_err(BackupError::io(what.clone()))
    };
    let written = written.await;
    if written.is_err() {
        let _ = tokio::fs::remove_file(path).await;
    }
    written
}

/// Loads a backup into a server that holds nothing yet, and gives it the backup's position. With
/// `dry_run` it only looks whether that could be done.
pub async fn into_server(
    target: &Target,
    manifest: &Manifest,
    identities: &Identities,
    destination: &Destination<'_>,
    (dry_run, progress): (bool, &watch::Sender<Progress>),
) -> Result<Restored, BackupError> {
    if manifest.method.is_physical() {
        let text = format!(
            "backup {} is physical: restore it into an empty directory (--data-dir), and start a server on it",
            manifest.id
        );
        return Err(BackupError::Unknown(text));
    }
    let server = ServerName(destination.address.to_string());
    let mut conn = session(destination, &server).await?;
    let status = look(destination, &server).await?;
    fit(&mut conn, manifest, &status, &server).await?;
    if dry_run {
        return Ok(Restored { refused: Vec::new() });
    }
    // Nobody, not even this account, can write where this is set.
    let closed = status.flavor == Flavor::MySql && status.writable == Writable::Closed;
    if closed {
        ask(&mut conn, &server, "SET GLOBAL super_read_only = OFF").await?;
    }
    let loaded = load(target, manifest, identities, destination, progress).await;
    let placed = match loaded {
        Ok(script) => place(destination, manifest, &server, &script).await,
        Err(error) => Err(error),
    };
    if closed {
        let mut conn = session(destination, &server).await?;
        ask(&mut conn, &server, "SET GLOBAL super_read_only = ON").await?;
    }
    placed.map_err(|error| BackupError::Incomplete {
        server: server.to_string(),
        error: Box::new(error),
    })
}

async fn session(destination: &Destination<'_>, server: &ServerName) -> Result<Conn, BackupError> {
    let (address, account) = (&destination.address, &destination.account);
    connect(address, account, CONNECT_LIMIT, &Distance::default())
        .await
        .map_err(|error| BackupError::Connect { server: server.to_string(), error })
}

async fn ask(conn: &mut Conn, server: &ServerName, statement: &str) -> Result<(), BackupError> {
    conn.query_drop(statement).await.map_err(|error| BackupError::server(server, error))
}

async fn look(destination: &Destination<'_>, server: &ServerName) -> Result<Status, BackupError> {
    let spec = ServerSpec::new(server.clone(), destination.address.clone(), "new".into());
    let mut prober = Prober::new(&spec, destination.account.clone(), Timing::default());
    let mut sight = prober.probe().await;
    for _ in 1..LOOKS {
        if !matches!(sight, Sight::Hung | Sight::Unreachable) {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
        sight = prober.probe().await;
    }
    match sight {
        Sight::Alive(status) => Ok(*status),
        sight => Err(BackupError::server(server, sight)),
    }
}

/// Whether a server can take a backup without losing anything of its own.
async fn fit(
    conn: &mut Conn,
    manifest: &Manifest,
    status: &Status,
    server: &ServerName,
) -> Result<(), BackupError> {
    let refused = |why: String| Err(BackupError::NotEmpty(format!("{server} {why}")));
    if status.flavor != manifest.flavor {
        return refused(format!("is {}, the backup is of {}", status.flavor, manifest.flavor));
    }
    let (has, of) = (status.version, manifest.version);
    if (has.major, has.minor) < (of.major, of.minor) {
        return refused(format!("has version {has}, the backup is of {of}; use a newer server"));
    }
    if !status.channels.is_empty() {
        return refused("replicates already; restore into a new server".to_owned());
    }
    let question = format!(
        "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA \
         WHERE LOWER(SCHEMA_NAME) NOT IN ({OWN}) LIMIT 5"
    );
    let schemas: Vec<String> =
        conn.query(question).await.map_err(|error| BackupError::server(server, error))?;
    if !schemas.is_empty() {
        let schemas = schemas.join(", ");
        return refused(format!("holds data already ({schemas}); restore into a new server"));
    }
    if !status.executed.is_empty() {
        let clear = match status.flavor {
            Flavor::MySql => "RESET BINARY LOGS AND GTIDS",
            Flavor::MariaDb => "RESET MASTER",
        };
        let text = format!(
            "has executed transactions of its own ({}); if nothing of them is wanted, run {clear} there",
            status.executed.to_string().chars().take(100).collect::<String>()
        );
        return refused(text);
    }
    Ok(())
}

/// Feeds all data to the server; the statements about accounts are returned.
async fn load(
    target: &Target,
    manifest: &Manifest,
    identities: &Identities,
    destination: &Destination<'_>,
    progress: &watch::Sender<Progress>,
) -> Result<String, BackupError> {
    let accounts = manifest.plain_bytes.saturating_sub(manifest.accounts_at);
    if accounts > MOST_BYTES as u64 {
        let (object, what) = (manifest.object.clone(), format!("{accounts} bytes of accounts"));
        return Err(BackupError::Damaged { object, what });
    }
    let reach = Reach {
        flavor: manifest.flavor,
        address: &destination.address,
        account: &destination.account,
        tools: destination.tools,
    };
    let mut opened = Opened::new(target, manifest, identities, progress).await?;
    let mut tool = Tool::start(reach.load())?;
    let mut input = tool.input()?;
    let fed = feed(&mut opened, manifest.accounts_at, &mut input).await;
    drop(input);
    match (tool.finished().await, fed) {
        // A program that fails stops reading, and says why.
        (Err(error), Ok(()) | Err(BackupError::Io { .. })) => return Err(error),
        (_, fed) => fed?,
    }
    let mut script = Vec::new();
    opened.pass_on(accounts, &mut script).await?;
    opened.end().await?;
    String::from_utf8(script).map_err(|_| BackupError::Damaged {
        object: manifest.object.clone(),
        what: "its accounts are no text".to_owned(),
    })
}

async fn feed(
    opened: &mut Opened<'_>,
    bytes: u64,
    input: &mut ChildStdin,
) -> Result<(), BackupError> {
    opened.pass_on(bytes, input).await?;
    input.shutdown().await.map_err(BackupError::io("feeding the server"))
}

/// Makes the accounts and sets the position, then looks whether the server has it.
async fn place(
    destination: &Destination<'_>,
    manifest: &Manifest,
    server: &ServerName,
    script: &str,
) -> Result<Restored, BackupError> {
    let mut conn = session(destination, server).await?;
    ask(&mut conn, server, "SET SESSION sql_log_bin = 0").await?;
    let mut refused = Vec::new();
    for statement in Accounts::statements_of(script) {
        if let Err(error) = conn.query_drop(statement).await {
            let mysql_async::Error::Server(error) = error else {
                return Err(BackupError::server(server, error));
            };
            refused.push(format!("{} (error {})", named(statement), error.code));
        }
    }
    if manifest.flavor == Flavor::MariaDb {
        // A dump of MySQL sets it itself. A position holds digits, commas and dashes only.
        let position = manifest.position.to_wait_text();
        ask(&mut conn, server, &format!("SET GLOBAL gtid_slave_pos = '{position}'")).await?;
    }
    let status = look(destination, server).await?;
    if !status.executed.contains(&manifest.position) {
        let what = format!(
            "its position is {} and not the backup's, {}",
            status.executed, manifest.position
        );
        return Err(BackupError::server(server, what));
    }
    Ok(Restored { refused })
}

/// A statement about an account without what is secret in it.
fn named(statement: &str) -> String {
    let secret = [" IDENTIFIED ", " REQUIRE ", " AS "];
    let end = secret.iter().filter_map(|word| statement.find(word)).min();
    let shown = &statement[..end.unwrap_or(statement.len())];
    shown.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn no_password_is_shown() {
        let statement = "CREATE USER IF NOT EXISTS `a`@`%` IDENTIFIED BY PASSWORD '*6C7A'";
        assert_eq!(named(statement), "CREATE USER IF NOT EXISTS `a`@`%`");
        let statement = "GRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*6C7A'";
        assert_eq!(named(statement), "GRANT USAGE ON *.* TO `a`@`%`");
        assert_eq!(named("GRANT `r` TO `a`"), "GRANT `r` TO `a`");
    }
}
