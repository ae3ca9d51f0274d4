//! The canary row: a write that finds storage which hangs.
//!
//! It is written only on order, by the leader while its lease holds, and never to the binary log:
//! so it waits for no replica's acknowledgement, and on a primary that is deposed while it writes
//! it leaves no transaction that the others lack.

use super::dialect::quoted;
use crate::decision::topology::{Epoch, WatcherName};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use std::time::Duration;

/// Why the row was not written.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// The commit did not end in time: storage or a lock holds it.
    #[error("the commit did not end within its limit")]
    Stalled,
    /// The server refused, or the connection broke.
    #[error("database: {0}")]
    Database(#[from] Error),
}

/// Writes the row of one watcher, making schema and table when they are missing.
///
/// After [`CanaryError::Stalled`] the connection must be dropped.
pub async fn write_canary(
    conn: &mut Conn,
    watcher: &WatcherName,
    epoch: Epoch,
    limit: Duration,
) -> Result<(), CanaryError> {
    let writing = async {
        conn.query_drop("SET SESSION sql_log_bin = 0").await?;
        match conn.query_drop(row(watcher, epoch)).await {
            // No such schema, no such table.
            Err(Error::Server(error)) if matches!(error.code, 1049 | 1146) => {
                conn.query_drop("CREATE DATABASE IF NOT EXISTS regent").await?;
                conn.query_drop(TABLE).await?;
                conn.query_drop(row(watcher, epoch)).await
            }
            ended => ended,
        }
    };
    Ok(tokio::time::timeout(limit, writing).await.map_err(|_| CanaryError::Stalled)??)
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
