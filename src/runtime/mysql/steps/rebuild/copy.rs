//! MariaDB's copy: a dump of the donor, streamed into the server by its own client programs.
//!
//! The dump is one consistent moment of the donor and names its position. It is loaded without a
//! binary log, the server's former log is thrown away, and the position is set. The server keeps
//! its number: the donor holds everything the server ever sent to the others, so nothing of that
//! number comes after the position, where the server would pass it over.

use super::super::session::{Session, StepError, position};
use super::{LOOK, Order};
use crate::decision::gtid::Gtids;
use crate::decision::plan::Facts;
use crate::decision::topology::{Endpoint, Flavor};
use crate::runtime::mysql::dialect::quoted;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Held by the attempt that replaces the data; a later attempt ends whoever holds it.
const ATTEMPT: &str = "regent.rebuild";

/// Held by the client program that loads the dump.
const LOADING: &str = "regent.load";

/// How long an earlier attempt may take to end.
const TAKEOVER: Duration = Duration::from_secs(30);

/// Within so many of its last bytes a dump names its position.
const TAIL: usize = 64 * 1024;

/// The end of what a program complains about that is told.
const COMPLAINT: usize = 300;

/// Schemas that are the server's own.
const OWN: &str = "'mysql', 'information_schema', 'performance_schema', 'sys', 'regent'";

/// Tables that belong to one server, to one moment or to the program.
const LEFT_OUT: [&str; 10] = [
    "mysql.gtid_slave_pos",
    "mysql.innodb_index_stats",
    "mysql.innodb_table_stats",
    "mysql.general_log",
    "mysql.slow_log",
    "mysql.transaction_registry",
    "mysql.help_topic",
    "mysql.help_category",
    "mysql.help_keyword",
    "mysql.help_relation",
];

/// Statements that each table can do without: nobody else is there to lock out, and both programs speak
/// the same character set anyway. Each costs a round trip, for a minute in all over a slow line.
const SPARED: [&str; 3] = ["--skip-add-locks", "--skip-disable-keys", "--skip-set-charset"];

const MARKS: &str = "CREATE DATABASE IF NOT EXISTS regent; \
    CREATE TABLE IF NOT EXISTS regent.rebuilt (since BIGINT UNSIGNED NOT NULL PRIMARY KEY) \
    ENGINE = InnoDB; DELETE FROM regent.rebuilt";

pub(super) async fn bring_about(
    session: &mut Session,
    order: &Order<'_>,
) -> Result<Facts, StepError> {
    session.permitted()?;
    take_over(session, ATTEMPT).await?;
    take_over(session, LOADING).await?;
    session.change("DO RELEASE_LOCK('regent.load')").await?;
    if !is_marked(session, order.since).await? {
        session.change("SET SESSION sql_log_bin = 0, foreign_key_checks = 0").await?;
        session.change(MARKS).await?;
        let mut donor = session.to(order.donor).await?;
        let schemas = schemas(&mut donor).await?;
        let size = size(&mut donor).await?;
        let before = donor.status().await?.replicated;
        donor.close().await;
        drop_schemas(session).await?;
        let at = stream(session, order.donor, &schemas, size).await?;
        // The dump names what is in the donor's binary log. One that was rebuilt itself has an empty
        // log at first, and a domain that its log does not name has not moved since.
        let at = before.iter().fold(at, |at, before| at.with_domains_of(before));
        finish(session, &at, order.since).await?;
    }
    let status = session.status().await?;
    Ok(position(&status))
}

/// Ends whoever holds the lock and takes it.
async fn take_over(session: &mut Session, lock: &str) -> Result<(), StepError> {
    let lock = quoted(lock);
    let least = session.left().saturating_sub(TAKEOVER);
    loop {
        let got: Vec<Option<i64>> = session.ask(&format!("SELECT GET_LOCK({lock}, 1)")).await?;
        if got.first() == Some(&Some(1)) {
            return Ok(());
        }
        let holder: Vec<Option<u64>> = session.ask(&format!("SELECT IS_USED_LOCK({lock})")).await?;
        if let Some(Some(holder)) = holder.first() {
            let kill = session.dialect.kill(*holder);
            // It may have ended meanwhile.
            session.try_change(&kill).await?;
        }
        if session.left() <= least {
            return Err(StepError::Retry("an earlier attempt does not end".to_owned()));
        }
    }
}

/// Whether the copy that counts is there already.
async fn is_marked(session: &mut Session, since: u64) -> Result<bool, StepError> {
    let there: Vec<u64> = session
        .ask(
            "SELECT COUNT(*) FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = 'regent' AND TABLE_NAME = 'rebuilt'",
        )
        .await?;
    if there.first() == Some(&0) {
        return Ok(false);
    }
    let marks: Vec<u64> = session.ask("SELECT since FROM regent.rebuilt").await?;
    Ok(marks.contains(&since))
}

async fn schemas(session: &mut Session) -> Result<Vec<String>, StepError> {
    let question = format!(
        "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ({OWN})"
    );
    session.ask(&question).await
}

/// About how many bytes a dump may have.
async fn size(session: &mut Session) -> Result<u64, StepError> {
    let sizes: Vec<Option<u64>> = session
        .ask(
            "SELECT CAST(SUM(DATA_LENGTH) AS UNSIGNED) FROM information_schema.TABLES \
             WHERE TABLE_TYPE = 'BASE TABLE'",
        )
        .await?;
    Ok(sizes.first().copied().flatten().unwrap_or_default())
}

async fn drop_schemas(session: &mut Session) -> Result<(), StepError> {
    for schema in schemas(session).await? {
        session.report(format!("dropping {schema}"), 0, None);
        session.change(&format!("DROP DATABASE `{}`", schema.replace('`', "``"))).await?;
    }
    Ok(())
}

/// Pipes the donor's dump into the server and returns the position it has.
async fn stream(
    session: &mut Session,
    donor: &Endpoint,
    schemas: &[String],
    size: u64,
) -> Result<Gtids, StepError> {
    let mut dumping = start(&mut dump(session, donor, schemas))?;
    let mut loading = start(&mut load(session))?;
    let (Some(mut from), Some(mut into)) = (dumping.stdout.take(), loading.stdin.take()) else {
        return Err(StepError::Failed("a program has no pipe".to_owned()));
    };
    let pumped = pump(session, &mut from, &mut into, size).await;
    drop((from, into));
    if pumped.is_err() {
        // The other program ends by itself, and may say why.
        let _ = dumping.start_kill();
    }
    let (dumped, loaded) = (ended(dumping).await, ended(loading).await);
    loaded.map_err(|text| StepError::Retry(format!("mariadb failed: {text}")))?;
    let at = pumped?;
    dumped.map_err(|text| StepError::Retry(format!("mariadb-dump failed: {text}")))?;
    at.ok_or_else(|| StepError::Failed("the dump does not name its position".to_owned()))
}

async fn pump(
    session: &mut Session,
    from: &mut ChildStdout,
    into: &mut ChildStdin,
    size: u64,
) -> Result<Option<Gtids>, StepError> {
    let broken = |error: std::io::Error| StepError::Retry(format!("copying broke off: {error}"));
    let own = format!("SELECT GET_LOCK({}, 0);\n", quoted(LOADING));
    into.write_all(own.as_bytes()).await.map_err(broken)?;
    let (mut tail, mut done) = (Vec::new(), 0_u64);
    let mut looked = session.left();
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await.map_err(broken)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else {
            break;
        };
        into.write_all(part).await.map_err(broken)?;
        done += count as u64;
        tail.extend_from_slice(part);
        tail.drain(..tail.len().saturating_sub(TAIL));
        if looked.saturating_sub(session.left()) >= LOOK {
            looked = session.left();
            // Ended by a later attempt, this one must not go on.
            session.change("DO 0").await?;
            session.report("copying".to_owned(), done, Some(size.max(done)));
        }
    }
    into.flush().await.map_err(broken)?;
    Ok(position_in(&tail))
}

/// The position that a dump names at its end when system tables are part of it, in a comment that
/// has had this form since 10.0. No row has a line of its own before it.
fn position_in(tail: &[u8]) -> Option<Gtids> {
    let text = String::from_utf8_lossy(tail);
    let (_, rest) = text.rsplit_once("\n-- SET GLOBAL gtid_slave_pos='")?;
    let (position, _) = rest.split_once('\'')?;
    Gtids::parse(Flavor::MariaDb, position).ok()
}

async fn finish(session: &mut Session, at: &Gtids, since: u64) -> Result<(), StepError> {
    let own: Vec<Option<i64>> =
        session.ask(&format!("SELECT IS_USED_LOCK({}) = CONNECTION_ID()", quoted(ATTEMPT))).await?;
    if own.first() != Some(&Some(1)) {
        return Err(StepError::Retry("a later attempt took over".to_owned()));
    }
    // As on any replica: what the primary's scheduler does arrives by replication.
    session
        .change("UPDATE mysql.event SET status = 'SLAVESIDE_DISABLED' WHERE status = 'ENABLED'")
        .await?;
    session.change("FLUSH PRIVILEGES").await?;
    session.change("RESET MASTER").await?;
    let at = quoted(&at.to_wait_text());
    session.change(&format!("SET GLOBAL gtid_slave_pos = {at}")).await?;
    session.change(&format!("INSERT INTO regent.rebuilt VALUES ({since})")).await
}

fn dump(session: &Session, donor: &Endpoint, schemas: &[String]) -> Command {
    let mut command = program(session, "mariadb-dump", donor);
    command.args([
        "--single-transaction",
        "--master-data=2",
        "--gtid",
        "--routines",
        "--events",
        "--triggers",
        "--hex-blob",
        "--quick",
        "--default-character-set=utf8mb4",
    ]);
    command.args(SPARED);
    command.args(LEFT_OUT.map(|table| format!("--ignore-table={table}")));
    command.arg("--databases").args(schemas).arg("mysql");
    command.stdin(Stdio::null());
    command
}

fn load(session: &Session) -> Command {
    let mut command = program(session, "mariadb", session.address());
    command.args([
        "--batch",
        "--skip-reconnect",
        "--default-character-set=utf8mb4",
        "--init-command=SET SESSION sql_log_bin = 0",
    ]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command
}

/// A client program on its way to a server, without reading anybody's option files.
fn program(session: &Session, name: &str, server: &Endpoint) -> Command {
    let account = &session.credentials().monitor;
    let mut command = Command::new(session.program(name));
    command
        .arg("--no-defaults")
        .arg("--protocol=TCP")
        .arg(format!("--host={}", server.host))
        .arg(format!("--port={}", server.port))
        .arg(format!("--user={}", account.user))
        // Where the machine's other users cannot read it, unlike an argument.
        .env("MYSQL_PWD", account.password.reveal())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn start(command: &mut Command) -> Result<Child, StepError> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|error| {
        StepError::Failed(format!(
            "{name} cannot be started on this watcher's host: {error}; install MariaDB's client \
             programs there, or name their directory in REGENT_PROGRAMS"
        ))
    })
}

/// How a program ended; the end of its complaints when it failed.
async fn ended(child: Child) -> Result<(), String> {
    match child.wait_with_output().await {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let from = said.char_indices().rev().nth(COMPLAINT).map_or(0, |(at, _)| at);
            Err(format!("{}: {}", output.status, said.get(from..).unwrap_or_default()))
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_names_its_position() {
        let head = b"-- Preferably use GTID:\n\n-- SET GLOBAL gtid_slave_pos='0-1-7,1-2-3';\n--";
        let expected = Gtids::parse(Flavor::MariaDb, "0-1-7,1-2-3").unwrap();
        assert_eq!(position_in(head), Some(expected));
        assert_eq!(position_in(b"-- MariaDB dump"), None);
    }
}
