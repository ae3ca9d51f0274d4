//! Reading a server's binary log as its replicas do, from a position given by GTIDs.

use super::events::{Boundaries, Seen, Strange, check};
use crate::config::Account;
use crate::decision::gtid::Gtids;
use crate::decision::topology::{Flavor, ServerName, ServerSpec, Version};
use crate::runtime::backup::taking::CONNECT_LIMIT;
use crate::runtime::mysql::connect::{ConnectError, connect_for_bulk};
use futures_util::StreamExt;
use mysql_async::binlog::events::Event;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, Error, Row, Sid};
use std::time::Duration;

/// How often a source that has nothing to say says so.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A source that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a source may take for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The server cannot send what it was asked for: its logs do not have it (any more).
const CANNOT_SEND: u16 = 1236;

/// Why a server's binary log is not read, or not any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Transactions that come next are in none of its files any more.
    #[error("its binary logs begin later: it has purged {}", cut(.missing))]
    Purged {
        /// Everything before its first file.
        before: Gtids,
        /// What of it was not archived.
        missing: Gtids,
    },
    /// It says that it cannot send what comes next.
    #[error("it refuses to send what comes next: {0}")]
    Refused(String),
    /// It is not there, or not any more.
    #[error("{0}")]
    Gone(String),
    /// What it sends cannot be archived.
    #[error("{0}")]
    Strange(#[from] Strange),
}

fn cut(gtids: &Gtids) -> String {
    gtids.to_string().chars().take(200).collect()
}

impl From<ConnectError> for Refusal {
    fn from(error: ConnectError) -> Refusal {
        Refusal::Gone(error.to_string())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        match error {
            Error::Server(error) if error.code == CANNOT_SEND => {
                Refusal::Refused(error.message.chars().take(200).collect())
            }
            error => Refusal::Gone(error.to_string().chars().take(200).collect()),
        }
    }
}

/// A server and what is needed to read from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub server: &'a ServerSpec,
    pub account: &'a Account,
    pub flavor: Flavor,
    pub version: Version,
    /// A number that no server of the cluster has, and no other reader.
    pub number: u32,
}

/// A binary log that is being read.
pub(super) struct Reading {
    pub server: ServerName,
    pub flavor: Flavor,
    pub version: Version,
    stream: BinlogStream,
    boundaries: Boundaries,
    /// What was read and not yet asked for.
    ahead: Option<(Event, Seen)>,
}

impl Source<'_> {
    /// A connection, and every transaction that its files do not hold any more.
    pub(super) async fn connect(&self) -> Result<(Conn, Gtids), Refusal> {
        let mut conn = connect_for_bulk(&self.server.address, self.account, CONNECT_LIMIT).await?;
        let asking = tokio::time::timeout(ANSWER, purged(&mut conn, self.flavor)).await;
        let before = asking.map_err(|_| Refusal::Gone("it does not answer".to_owned()))??;
        Ok((conn, before))
    }

    /// Reads on from that position.
    pub(super) async fn read(&self, conn: Conn, position: &Gtids) -> Result<Reading, Refusal> {
        let opening = tokio::time::timeout(ANSWER, self.open(conn, position)).await;
        let stream = opening.map_err(|_| Refusal::Gone("it does not answer".to_owned()))??;
        Ok(Reading {
            server: self.server.name.clone(),
            flavor: self.flavor,
            version: self.version,
            stream,
            boundaries: Boundaries::new(self.flavor),
            ahead: None,
        })
    }

    async fn open(&self, mut conn: Conn, position: &Gtids) -> Result<BinlogStream, Refusal> {
        let beat = HEARTBEAT.as_nanos();
        let request = BinlogStreamRequest::new(self.number).with_pos(4);
        match self.flavor {
            Flavor::MySql => {
                // Two readers of one UUID throw each other out.
                let uuid = format!("7265676e-7400-4000-8000-0000{:08x}", self.number);
                conn.query_drop(format!(
                    "SET @source_heartbeat_period = {beat}, @master_heartbeat_period = {beat}, \
                     @replica_uuid = '{uuid}', @slave_uuid = '{uuid}', \
                     @source_binlog_checksum = 'CRC32'"
                ))
                .await?;
                let wrong = |error: std::io::Error| Refusal::Gone(error.to_string());
                let sets: Result<Vec<Sid<'_>>, _> =
                    position.parts().iter().map(|part| part.parse().map_err(wrong)).collect();
                Ok(conn.get_binlog_stream(request.with_gtid().with_gtid_set(sets?)).await?)
            }
            Flavor::MariaDb => {
                // Digits, commas and dashes only.
                let position = position.to_wait_text();
                conn.query_drop(format!(
                    "SET @mariadb_slave_capability = 4, @slave_connect_state = '{position}', \
                     @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0, \
                     @master_heartbeat_period = {beat}"
                ))
                .await?;
                Ok(conn.get_binlog_stream(request).await?)
            }
        }
    }
}

impl Reading {
    /// Awaits the first event: a server that cannot send what it was asked for says so instead.
    pub(super) async fn first(&mut self) -> Result<(), Refusal> {
        self.ahead = Some(self.next().await?);
        Ok(())
    }

    /// The next event and what it is. It may be given up and awaited again.
    pub(super) async fn next(&mut self) -> Result<(Event, Seen), Refusal> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(ahead);
        }
        let next = tokio::time::timeout(SILENCE, self.stream.next()).await;
        let silent = |_| Refusal::Gone(format!("it was silent for {} s", SILENCE.as_secs()));
        let Some(event) = next.map_err(silent)?.transpose()? else {
            return Err(Refusal::Gone("it ended the stream".to_owned()));
        };
        check(&event)?;
        let seen = self.boundaries.take(&event)?;
        Ok((event, seen))
    }
}

/// Every transaction that a server's files do not hold any more.
async fn purged(conn: &mut Conn, flavor: Flavor) -> Result<Gtids, Refusal> {
    let set = match flavor {
        Flavor::MySql => {
            let set: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_purged").await?;
            set.unwrap_or_default()
        }
        Flavor::MariaDb => {
            let first: Option<Row> = conn.query_first("SHOW BINARY LOGS").await?;
            let first: String = first.and_then(|row| row.get(0)).unwrap_or_default();
            let first = first.replace('\'', "''");
            let head = format!("SHOW BINLOG EVENTS IN '{first}' LIMIT 4");
            let head: Vec<Row> = conn.query(head).await?;
            let list = head
                .iter()
                .find(|row| row.get::<String, usize>(2).is_some_and(|kind| kind == "Gtid_list"));
            let set: String = list.and_then(|row| row.get(5)).unwrap_or_default();
            set.trim_matches(['[', ']']).to_owned()
        }
    };
    Gtids::parse(flavor, &set).map_err(|error| Refusal::Gone(error.to_string()))
}
