//! What a server holds before a backup is restored into it, and how it is emptied where somebody
//! allowed that by typing its name.
//!
//! A restore that goes on is noted on the server itself, and the note goes with its end. So the next
//! attempt knows one that was broken off: all that is there came out of a backup.

use super::BackupError;
use super::resuming::Note;
use super::taking::OWN;
use crate::decision::report::{Receiver, Status, Writable};
use crate::decision::topology::{Flavor, ServerName};
use crate::runtime::mysql::dialect::{Dialect, Threads};
use crate::runtime::mysql::status::learn;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

/// Schemas that are told by their names.
const MOST_NAMED: usize = 5;
/// More schemas are not dropped.
const MOST_DROPPED: usize = 100_000;

/// What a server holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Its schemas, beside the server's own and Regent's.
    pub schemas: Vec<String>,
    /// The backup whose restore was broken off here.
    pub broken_off: Option<Note>,
    /// The sources it replicates from.
    pub sources: Vec<String>,
    /// What it has executed.
    pub executed: String,
}

impl Content {
    /// Looks at a server.
    pub(super) async fn of(
        conn: &mut Conn,
        status: &Status,
        server: &ServerName,
    ) -> Result<Content, BackupError> {
        let question = format!(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA \
             WHERE LOWER(SCHEMA_NAME) NOT IN ({OWN}) ORDER BY 1 LIMIT {MOST_DROPPED}"
        );
        let schemas: Vec<String> =
            conn.query(question).await.map_err(|error| BackupError::server(server, error))?;
        let executed = match status.executed.is_empty() {
            true => String::new(),
            false => status.executed.to_string().chars().take(100).collect(),
        };
        let sources = status.channels.iter().map(|channel| channel.source.to_string());
        let (broken_off, sources) = (Note::read(conn, server).await?, sources.collect());
        Ok(Content { schemas, broken_off, sources, executed })
    }

    pub(super) fn is_empty(&self) -> bool {
        self == &Content::default()
    }

    /// Why nothing is written over it.
    pub(super) fn objection(&self, flavor: Flavor) -> String {
        if let Some(Note { backup, begun, .. }) = &self.broken_off {
            return format!(
                "holds what a restore of {backup} left that began at {begun} UTC and did not come to its end; \
                 go on with it by --resume, or begin anew, by which nothing else is lost"
            );
        }
        if let Some(source) = self.sources.first() {
            return format!("replicates already from {source}; restore into a new server");
        }
        if !self.schemas.is_empty() {
            return format!("holds data already ({}); restore into a new server", self.named());
        }
        let clear = match flavor {
            Flavor::MySql => "RESET BINARY LOGS AND GTIDS",
            Flavor::MariaDb => "RESET MASTER",
        };
        format!(
            "has executed transactions of its own ({}); if nothing of them is wanted, run {clear} there",
            self.executed
        )
    }

    /// What is thrown away, in words.
    pub(super) fn lost(&self) -> String {
        let mut all = Vec::new();
        if !self.schemas.is_empty() {
            all.push(format!("{} schema(s) ({})", self.schemas.len(), self.named()));
        }
        if !self.sources.is_empty() {
            all.push(format!("its replication from {}", self.sources.join(", ")));
        }
        if !self.executed.is_empty() {
            all.push(format!("its binary logs and its position {}", self.executed));
        }
        all.join(", ")
    }

    fn named(&self) -> String {
        let first: Vec<&str> = self.schemas.iter().take(MOST_NAMED).map(String::as_str).collect();
        let more = self.schemas.len() - first.len();
        let end = if more > 0 { format!(" and {more} more") } else { String::new() };
        first.join(", ") + &end
    }

    /// Throws everything away but accounts. Ordinary accounts are kept out first.
    pub(super) async fn clear(&self, conn: &mut Conn, status: &Status) -> Result<(), Error> {
        let dialect = learn(conn).await.map_err(|error| Error::Other(error.to_string().into()))?;
        conn.query_drop("SET SESSION sql_mode = '', sql_log_bin = 0, foreign_key_checks = 0")
            .await?;
        close_to_others(conn, status).await?;
        for channel in &status.channels {
            if channel.receiver != Receiver::Stopped {
                conn.query_drop(dialect.stop(Threads::Receiver, &channel.name)).await?;
            }
            if channel.applying || channel.receiver != Receiver::Stopped {
                end_torn(conn, &dialect, &channel.name).await?;
                conn.query_drop(dialect.stop(Threads::Both, &channel.name)).await?;
            }
            conn.query_drop(dialect.forget(&channel.name)).await?;
        }
        for schema in &self.schemas {
            let name = schema.replace('`', "``");
            conn.query_drop(format!("DROP DATABASE IF EXISTS `{name}`")).await?;
        }
        match status.flavor {
            Flavor::MySql if (status.version.major, status.version.minor) >= (8, 2) => {
                conn.query_drop("RESET BINARY LOGS AND GTIDS").await
            }
            Flavor::MySql => conn.query_drop("RESET MASTER").await,
            Flavor::MariaDb => {
                conn.query_drop("RESET MASTER").await?;
                conn.query_drop("SET GLOBAL gtid_slave_pos = ''").await
            }
        }
    }
}

/// An applier that waits for the rest of a transaction, which nobody will send, does not stop for a minute.
async fn end_torn(conn: &mut Conn, dialect: &Dialect, channel: &str) -> Result<(), Error> {
    let Some(question) = dialect.torn_applier(channel) else { return Ok(()) };
    let appliers: Vec<u64> = conn.query(question).await?;
    for applier in appliers {
        // Where it may not be ended, or has ended, it is waited for.
        let _ = conn.query_drop(dialect.kill(applier)).await;
    }
    Ok(())
}

/// Lets nobody write but accounts with all privileges.
pub(super) async fn close_to_others(conn: &mut Conn, status: &Status) -> Result<(), Error> {
    if status.writable == Writable::Open {
        conn.query_drop("SET GLOBAL read_only = ON").await?;
    }
    if status.flavor == Flavor::MySql {
        conn.query_drop("SET GLOBAL super_read_only = OFF").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_was_broken_off_is_told_from_data() {
        let data = Content { schemas: vec!["shop".to_owned()], ..Content::default() };
        assert!(!data.is_empty() && Content::default().is_empty());
        assert!(data.objection(Flavor::MySql).starts_with("holds data already (shop)"));
        let broken_off = Note::of_backup("X", "noon");
        let half = Content { broken_off: Some(broken_off), ..data };
        let text = half.objection(Flavor::MySql);
        assert!(text.contains("a restore of X left that began at noon"), "{text}");
        let many = (0..7).map(|number| format!("s{number}")).collect();
        let many = Content { schemas: many, ..Content::default() };
        assert_eq!(many.lost(), "7 schema(s) (s0, s1, s2, s3, s4 and 2 more)");
    }
}
