//! MySQL's CLONE: the server copies itself into a directory, which is sent as a tar archive.

use super::copying::{Beside, Copied, Program};
use super::sending::Sending;
use crate::decision::gtid::Gtids;
use crate::decision::topology::Flavor;
use crate::runtime::backup::BackupError;
use crate::runtime::mysql::dialect::quoted;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::path::Path;
use std::time::Duration;

const LOADED: &str = "SELECT COUNT(*) FROM information_schema.PLUGINS \
    WHERE PLUGIN_NAME = 'clone' AND PLUGIN_STATUS = 'ACTIVE'";

/// By itself tar writes 10 KiB at a time; this is 256 KiB, as much as is sent in one piece.
const AT_ONCE: &str = "--blocking-factor=512";

/// CLONE copies no rows of these.
const LEFT_OUT: &str = "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, ' (', ENGINE, ')') \
    FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' \
    AND ENGINE NOT IN ('InnoDB', 'MEMORY', 'BLACKHOLE', 'PERFORMANCE_SCHEMA') \
    AND TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys') LIMIT 3";

/// What a copy takes: tablespaces, and the redo log that is written meanwhile.
const SIZE: &str = "SELECT CAST((SELECT SUM(FILE_SIZE) FROM information_schema.INNODB_TABLESPACES) + \
    (SELECT COALESCE(SUM(TOTAL_EXTENTS * EXTENT_SIZE), 0) FROM information_schema.FILES \
     WHERE TABLESPACE_NAME = 'innodb_system') + @@global.innodb_redo_log_capacity AS UNSIGNED)";

const POSITION: &str = "SELECT @@global.gtid_executed";

const STATE: &str = "SELECT STATE FROM performance_schema.clone_status";

/// Copies into a directory, not those from another server.
const RUNNING: &str = "SELECT PID FROM performance_schema.clone_status \
    WHERE STATE = 'In Progress' AND DESTINATION =";

/// Another copy is being made.
const BUSY: u16 = 3634;

/// How long a copy may take to end after it was told to.
const ENDING: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Lets the server copy itself, and sends the copy.
pub(super) async fn copy(
    beside: &Beside,
    mut conn: Conn,
    sending: &mut Sending,
) -> Result<Copied, BackupError> {
    fit(beside, &mut conn).await?;
    // CLONE tells no position of a copy on this machine. All that was executed before it is in the copy, and
    // nothing that came after it; what came meanwhile is known to the server that is started on it.
    let position = executed(beside, &mut conn).await?;
    let place = beside.scratch.clone_place();
    let into = quoted(&place.display().to_string());
    let cloned = conn.query_drop(format!("CLONE LOCAL DATA DIRECTORY = {into}")).await;
    cloned.map_err(|error| match &error {
        mysql_async::Error::Server(server) if server.code == BUSY => {
            beside.refused("it copies itself already; try again later")
        }
        _ => beside.refused(format!("CLONE: {error}")),
    })?;
    let state: Option<String> =
        conn.query_first(STATE).await.map_err(|error| beside.refused(error))?;
    let at_most = executed(beside, &mut conn).await?;
    drop(conn);
    let state = state.unwrap_or_default();
    if state != "Completed" {
        return Err(beside.refused(format!("CLONE ended as {state:?}")));
    }
    if !place.join("ibdata1").is_file() && !place.join("mysql.ibd").is_file() {
        let what = format!(
            "CLONE wrote to {}, which the agent does not see; both must find scratch under one path",
            place.display()
        );
        return Err(beside.refused(what));
    }
    send(&place, sending).await?;
    Ok(Copied { position, at_most: Some(at_most) })
}

async fn executed(beside: &Beside, conn: &mut Conn) -> Result<Gtids, BackupError> {
    let told: Option<String> =
        conn.query_first(POSITION).await.map_err(|error| beside.refused(error))?;
    let told = told.unwrap_or_default();
    Gtids::parse(Flavor::MySql, &told).map_err(|error| beside.refused(error))
}

/// Whether the server can be copied, and there is room for it.
async fn fit(beside: &Beside, conn: &mut Conn) -> Result<(), BackupError> {
    let loaded: Option<u64> =
        conn.query_first(LOADED).await.map_err(|error| beside.refused(error))?;
    if loaded != Some(1) {
        let what = "it has no CLONE; run INSTALL PLUGIN clone SONAME 'mysql_clone.so' there once";
        return Err(beside.refused(what));
    }
    let left_out: Vec<String> =
        conn.query(LEFT_OUT).await.map_err(|error| beside.refused(error))?;
    if !left_out.is_empty() {
        let what = format!(
            "CLONE copies no rows of {}; convert these tables to InnoDB, or take logical backups",
            left_out.join(", ")
        );
        return Err(beside.refused(what));
    }
    let size: Option<Option<u64>> =
        conn.query_first(SIZE).await.map_err(|error| beside.refused(error))?;
    let size = size.flatten().unwrap_or_default();
    let in_scratch = |error| BackupError::io(beside.scratch.root().display().to_string())(error);
    let free = beside.scratch.free().map_err(in_scratch)?;
    if free < size {
        let what = format!(
            "CLONE needs about {size} bytes in {}, where {free} are free; nothing was begun",
            beside.scratch.root().display()
        );
        return Err(beside.refused(what));
    }
    Ok(())
}

async fn send(place: &Path, sending: &mut Sending) -> Result<(), BackupError> {
    let mut program = Program::new("tar", &None);
    program.command.args(["--create", "--file=-", "--numeric-owner", AT_ONCE]);
    program.command.arg("--directory").arg(place).arg(".");
    let mut tool = program.start()?;
    let passed = sending.pass_on(tool.output()?).await;
    tool.ended().await?;
    passed
}

/// Ends a copy that nobody waits for any more; without that it would go on into a directory that is being
/// removed.
pub(super) async fn end(beside: &Beside) {
    let place = beside.scratch.clone_place();
    if !place.is_dir() {
        return;
    }
    let question = format!("{RUNNING} {}", quoted(&place.display().to_string()));
    let ending = async {
        let mut conn = beside.connect().await?;
        let refused = |error| beside.refused(error);
        while let Some(session) = conn.query_first::<u64, _>(&question).await.map_err(refused)? {
            // It may just have ended.
            let _ = conn.query_drop(format!("KILL {session}")).await;
            tokio::time::sleep(LOOK).await;
        }
        Ok::<_, BackupError>(())
    };
    match tokio::time::timeout(ENDING, ending).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "whether a former CLONE still runs is not known"),
        Err(_) => tracing::warn!("a former CLONE does not end"),
    }
}
