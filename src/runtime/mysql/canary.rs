//! The canary row: a write that finds storage which hangs or refuses.
//!
//! It is written only on order, by the leader while its lease holds, and never to the binary log:
//! so it waits for no replica's acknowledgement, and on a primary that is deposed while it writes
//! it leaves no transaction that the others lack.

use super::connect::{ConnectError, connect, knock, resolve};
use super::dialect::{Dialect, quoted};
use super::distance::Distance;
use super::status;
use crate::config::Account;
use crate::decision::report::StorageFault;
use crate::decision::topology::{Endpoint, Epoch, ServerSpec, WatcherName};
use crate::watcher::CanaryResult;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use std::time::Duration;
use tokio::task::JoinHandle;
use tracing::debug;

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long one row may take.
const LIMIT: Duration = Duration::from_secs(2);

/// How long the host of a server whose write does not end may take to accept a connection.
const KNOCK_LIMIT: Duration = Duration::from_secs(1);

/// The canary of one server.
///
/// A write that does not end is left alone and awaited the next time, so that a server whose storage
/// hangs holds one connection for it and never more.
#[derive(Debug)]
pub struct Canary {
    server: ServerSpec,
    account: Account,
    idle: Option<Perch>,
    writing: Option<JoinHandle<Result<Perch, Error>>>,
}

/// A connection to write over.
#[derive(Debug)]
struct Perch {
    conn: Conn,
    dialect: Dialect,
}

impl Canary {
    /// Will write as `account`; connects when first asked to.
    pub fn new(server: ServerSpec, account: Account) -> Canary {
        Canary { server, account, idle: None, writing: None }
    }

    /// Writes the row of one watcher, making schema and table when they are missing.
    pub async fn write(&mut self, watcher: &WatcherName, epoch: Epoch) -> CanaryResult {
        let mut writing = match self.writing.take() {
            Some(writing) => writing,
            None => match self.perch().await {
                Some(perch) => tokio::spawn(write(perch, row(watcher, epoch))),
                None => return CanaryResult::Unknown,
            },
        };
        match tokio::time::timeout(LIMIT, &mut writing).await {
            Err(_) if self.host_answers().await => {
                self.writing = Some(writing);
                CanaryResult::Stalled
            }
            // The answer is lost with its connection, and that may take minutes to notice it.
            Err(_) => {
                writing.abort();
                CanaryResult::Unknown
            }
            Ok(Ok(Ok(perch))) => {
                self.idle = Some(perch);
                CanaryResult::Written
            }
            Ok(Ok(Err(error))) => {
                debug!(server = %self.server.name, "canary row not written: {error}");
                fault(&error).map_or(CanaryResult::Unknown, CanaryResult::Refused)
            }
            Ok(Err(_)) => CanaryResult::Unknown,
        }
    }

    /// Whether the server's host can be reached from here at all.
    async fn host_answers(&self) -> bool {
        let address = &self.server.address;
        match resolve(address, KNOCK_LIMIT).await {
            Ok(ips) => knock(address, &ips, KNOCK_LIMIT).await == ConnectError::Hung,
            Err(_) => false,
        }
    }

    async fn perch(&mut self) -> Option<Perch> {
        if let Some(perch) = self.idle.take() {
            return Some(perch);
        }
        let mut conn = open(&self.server, &self.account).await.ok()?;
        let learning = tokio::time::timeout(CONNECT_LIMIT, status::learn(&mut conn));
        let dialect = learning.await.ok()?.ok()?;
        Some(Perch { conn, dialect })
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        if let Some(writing) = &self.writing {
            writing.abort();
        }
    }
}

async fn open(server: &ServerSpec, account: &Account) -> Result<Conn, ConnectError> {
    let connecting = |address: &Endpoint| {
        let address = address.clone();
        async move { connect(&address, account, CONNECT_LIMIT, &Distance::default()).await }
    };
    match (connecting(&server.address).await, &server.admin_address) {
        (Err(ConnectError::TooManyConnections), Some(door)) => connecting(door).await,
        (connected, _) => connected,
    }
}

/// Writes the row, then asks for the log's position: where no room is left for the binary log, the
/// first needs none, and the second waits for the commit that does.
async fn write(mut perch: Perch, row: String) -> Result<Perch, Error> {
    let conn = &mut perch.conn;
    conn.query_drop("SET SESSION sql_log_bin = 0").await?;
    match conn.query_drop(&row).await {
        // No such schema, no such table.
        Err(Error::Server(error)) if matches!(error.code, 1049 | 1146) => {
            conn.query_drop("CREATE DATABASE IF NOT EXISTS regent").await?;
            conn.query_drop(TABLE).await?;
            conn.query_drop(&row).await?;
        }
        ended => ended?,
    }
    match conn.query_drop(perch.dialect.log_position()).await {
        // It may not ask, or there is no log.
        Ok(()) | Err(Error::Server(_)) => Ok(perch),
        Err(error) => Err(error),
    }
}

/// What the number of an error says about the storage.
fn fault(error: &Error) -> Option<StorageFault> {
    let Error::Server(error) = error else {
        return None;
    };
    match error.code {
        // Disk full, twice; a table's file cannot grow.
        20 | 1021 | 1114 => Some(StorageFault::Full),
        // A file cannot be made or written; the engine says that its files failed or are read-only.
        1 | 3 | 1004 | 1005 | 1006 | 1026 | 1030 | 1036 | 1836 | 1874 => {
            Some(StorageFault::Failing)
        }
        _ => None,
    }
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS regent.canary (
    watcher VARCHAR(64) NOT NULL PRIMARY KEY,
    epoch BIGINT UNSIGNED NOT NULL,
    written_at TIMESTAMP(6) NOT NULL
) ENGINE = InnoDB";

fn row(watcher: &WatcherName, epoch: Epoch) -> String {
    // A watcher's name holds letters, digits and hyphens, so no `sql_mode` changes its meaning.
    let (watcher, epoch) = (quoted(watcher.as_str()), epoch.0);
    format!("REPLACE INTO regent.canary VALUES ({watcher}, {epoch}, CURRENT_TIMESTAMP(6))")
}
