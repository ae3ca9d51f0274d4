//! Reading a server's status in one round trip.

mod rows;

use super::dialect::{Dialect, LEARN, PLAIN_MODE};
use crate::decision::gtid::Gtids;
use crate::decision::report::{
    Channel, Receiver, ReplicationError, SemiSync, Settings, Status, Writable,
};
use crate::decision::topology::{Endpoint, Flavor};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use rows::{flag, number, signed, text};
use std::time::Duration;

/// A server has at most this many channels; more are not read.
const MAX_CHANNELS: usize = 256;

/// Why a status could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The server, or the way to it, refused.
    #[error("database: {0}")]
    Database(#[from] mysql_async::Error),
    /// An answer was not understood.
    #[error("answer not understood: {0}")]
    Strange(String),
}

/// Learns which words the server at the other end understands; one round trip.
pub async fn learn(conn: &mut Conn) -> Result<Dialect, StatusError> {
    learn_with(conn, LEARN.to_owned()).await
}

/// As [`learn`], and gives what follows on the connection one meaning on every server.
pub(super) async fn learn_plainly(conn: &mut Conn) -> Result<Dialect, StatusError> {
    learn_with(conn, format!("{LEARN}; {PLAIN_MODE}")).await
}

async fn learn_with(conn: &mut Conn, statements: String) -> Result<Dialect, StatusError> {
    let mut results = conn.query_iter(statements).await?;
    let version: Vec<String> = results.collect().await?;
    let plugins: Vec<String> = results.collect().await?;
    results.drop_result().await?;
    let version = version.first().ok_or_else(|| strange("no version"))?;
    Ok(Dialect::new(version, &plugins))
}

/// Reads the whole status; one round trip. The caller limits its time.
pub async fn read(conn: &mut Conn, dialect: &Dialect) -> Result<Status, StatusError> {
    let mut results = conn.query_iter(dialect.status()).await?;
    let globals: Vec<Row> = results.collect().await?;
    let channels: Vec<Row> = results.collect().await?;
    let heartbeats: Vec<Row> = match dialect.flavor {
        Flavor::MySql => results.collect().await?,
        Flavor::MariaDb => Vec::new(),
    };
    let counters: Vec<Row> = results.collect().await?;
    results.drop_result().await?;
    let globals = globals.first().ok_or_else(|| strange("no settings"))?;
    let channels = channels
        .iter()
        .filter(|row| has_source(row, dialect))
        .take(MAX_CHANNELS)
        .map(|row| channel(row, dialect, &heartbeats))
        .collect::<Result<Vec<Channel>, StatusError>>()?;
    let own = gtids(dialect.flavor, text(globals, "executed"))?;
    let replicated = match dialect.flavor {
        Flavor::MySql => None,
        Flavor::MariaDb => Some(gtids(dialect.flavor, text(globals, "slave_pos"))?),
    };
    Ok(Status {
        flavor: dialect.flavor,
        version: dialect.version,
        server_id: u32::try_from(number(globals, "server_id")).unwrap_or(0),
        uuid: text(globals, "uuid").map(|uuid| uuid.to_ascii_lowercase()),
        writable: writable(globals, dialect.flavor),
        executed: replicated.iter().fold(own, |own, replicated| own.union(replicated)),
        replicated,
        channels,
        semi_sync: semi_sync(globals, &counters, dialect),
        settings: settings(globals),
        crowded: counter(&counters, "Threads_connected") >= number(globals, "max_connections"),
    })
}

/// While MySQL's `super_read_only` waits for commits under way it reads as set already, but
/// `read_only`, which it sets first, does not.
fn writable(globals: &Row, flavor: Flavor) -> Writable {
    let read_only = flag(globals, "read_only");
    let closed = match flavor {
        Flavor::MySql => read_only && flag(globals, "super_read_only"),
        Flavor::MariaDb => read_only,
    };
    match (closed, read_only) {
        (true, _) => Writable::Closed,
        (false, true) => Writable::ReadOnly,
        (false, false) => Writable::Open,
    }
}

fn gtids(flavor: Flavor, text: Option<String>) -> Result<Gtids, StatusError> {
    Gtids::parse(flavor, &text.unwrap_or_default()).map_err(|error| strange(&error.to_string()))
}

/// What of a server seldom changes and is costly to ask for.
#[derive(Clone, Debug, Default)]
pub struct Background {
    /// Where it lets administrators in when all connections are taken.
    pub side_door: Option<Endpoint>,
    /// Whether its next start leaves it writable, as far as it can tell.
    pub restarts_open: Option<bool>,
}

/// Asks for the background of the server at that address; nothing where it cannot tell.
pub async fn background(conn: &mut Conn, dialect: &Dialect, at: &Endpoint) -> Background {
    let Ok(Some(row)) = conn.query_first::<Row, _>(dialect.background()).await else {
        return Background::default();
    };
    let everywhere = ["*", "0.0.0.0", "::"];
    let host = match (dialect.flavor, text(&row, "admin_address")) {
        // Without an address of its own there is no such door.
        (Flavor::MySql, None) => None,
        (Flavor::MySql, Some(own)) if !everywhere.contains(&own.as_str()) => Some(own),
        (Flavor::MySql, Some(_)) | (Flavor::MariaDb, _) => Some(at.host.clone()),
    };
    let port = u16::try_from(number(&row, "admin_port")).ok().filter(|port| *port > 0);
    Background {
        side_door: host.zip(port).map(|(host, port)| Endpoint { host, port }),
        restarts_open: text(&row, "restarts_open").map(|_| flag(&row, "restarts_open")),
    }
}

fn counter(counters: &[Row], ending: &str) -> u64 {
    let named = |row: &&Row| text(row, "Variable_name").is_some_and(|name| name.ends_with(ending));
    counters.iter().find(named).map_or(0, |row| number(row, "Value"))
}

fn semi_sync(globals: &Row, counters: &[Row], dialect: &Dialect) -> SemiSync {
    let counter = |ending: &str| u32::try_from(counter(counters, ending)).unwrap_or(u32::MAX);
    SemiSync {
        available: dialect.semi_sync_source.is_some(),
        source: flag(globals, "ss_source"),
        replica: flag(globals, "ss_replica"),
        acks: u32::try_from(number(globals, "ss_acks")).unwrap_or(u32::MAX),
        timeout: Duration::from_millis(number(globals, "ss_timeout")),
        clients: counter("_clients"),
        waiting: counter("_wait_sessions"),
    }
}

fn settings(globals: &Row) -> Settings {
    Settings {
        binlog: flag(globals, "log_bin"),
        logs_replica_updates: flag(globals, "log_updates"),
        gtids: flag(globals, "gtids"),
        relay_log_recovery: flag(globals, "relay_log_recovery"),
        durable: number(globals, "sync_binlog") == 1 && number(globals, "flush_log") == 1,
        gtid_mode: text(globals, "gtid_mode"),
        restarts_open: None, // Not asked for with each probe.
        relay_log_synced: number(globals, "sync_relay_log") == 1,
    }
}

/// MariaDB still shows a channel that is being forgotten, when its source is gone from it already.
fn has_source(row: &Row, dialect: &Dialect) -> bool {
    let host = text(row, &format!("{}_Host", dialect.columns().source_column()));
    host.is_some_and(|host| !host.is_empty())
}

fn channel(row: &Row, dialect: &Dialect, heartbeats: &[Row]) -> Result<Channel, StatusError> {
    let (source, replica) = (dialect.columns().source_column(), dialect.columns().replica_column());
    let mariadb = dialect.flavor == Flavor::MariaDb;
    let name = text(row, if mariadb { "Connection_name" } else { "Channel_Name" });
    let name = name.unwrap_or_default();
    let received = text(row, if mariadb { "Gtid_IO_Pos" } else { "Retrieved_Gtid_Set" });
    let receiver = match text(row, &format!("{replica}_IO_Running")).as_deref() {
        Some("Yes") => Receiver::Connected,
        Some("No") | None => Receiver::Stopped,
        Some(_) => Receiver::Connecting,
    };
    let applying = text(row, &format!("{replica}_SQL_Running")).as_deref() == Some("Yes");
    let received_heartbeats = if mariadb {
        number(row, "Slave_received_heartbeats")
    } else {
        let of_channel = |row: &&Row| text(row, "CHANNEL_NAME").as_deref() == Some(name.as_str());
        let found = heartbeats.iter().find(of_channel);
        found.map_or(0, |row| number(row, "COUNT_RECEIVED_HEARTBEATS"))
    };
    let file = text(row, &format!("{source}_Log_File")).unwrap_or_default();
    let position = number(row, &format!("Read_{source}_Log_Pos"));
    let by_gtid = match dialect.flavor {
        Flavor::MySql => flag(row, "Auto_Position"),
        Flavor::MariaDb => text(row, "Using_Gtid").is_some_and(|using| using != "No"),
    };
    Ok(Channel {
        source: Endpoint {
            host: text(row, &format!("{source}_Host")).unwrap_or_default(),
            port: u16::try_from(number(row, &format!("{source}_Port"))).unwrap_or(0),
        },
        receiver,
        applying,
        received: gtids(dialect.flavor, received)?,
        beats: beats(received_heartbeats, &file, position),
        lag: signed(row, &format!("Seconds_Behind_{source}")).map(Duration::from_secs),
        delay: Duration::from_secs(number(row, "SQL_Delay")),
        error: error(row, applying, receiver),
        turned_away: (receiver == Receiver::Connecting)
            .then(|| u32::try_from(number(row, "Last_IO_Errno")).unwrap_or(u32::MAX))
            .filter(|code| *code != 0),
        by_gtid,
        name,
    })
}

/// Heartbeats plus how far the source's log was read. Every event, and the announcement of every
/// next log file, moves the second part up; only the source can cause either.
fn beats(heartbeats: u64, file: &str, position: u64) -> u64 {
    let file_number = file.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
    // Forty bits hold any position within a file; a rotation outweighs all of them.
    let read = file_number.unwrap_or(0).min(1 << 23) << 40 | position.min((1 << 40) - 1);
    read.saturating_add(heartbeats)
}

/// What stopped a thread; a receiver that tries to reconnect has an error too, but is not stopped.
fn error(row: &Row, applying: bool, receiver: Receiver) -> Option<ReplicationError> {
    let of = |thread: &str| {
        let code = u32::try_from(number(row, &format!("Last_{thread}_Errno"))).unwrap_or(u32::MAX);
        let said = text(row, &format!("Last_{thread}_Error")).unwrap_or_default();
        (code != 0).then(|| ReplicationError { code, text: super::connect::cut(&said) })
    };
    let applier = of("SQL").filter(|_| !applying);
    applier.or_else(|| of("IO").filter(|_| receiver == Receiver::Stopped))
}

fn strange(what: &str) -> StatusError {
    StatusError::Strange(super::connect::cut(what))
}

#[cfg(test)]
mod tests {
    use super::beats;

    #[test]
    fn beats_grow_with_heartbeats_positions_and_files() {
        let steps = [
            beats(0, "", 4),
            beats(0, "binlog.000001", 4),
            beats(1, "binlog.000001", 4),
            beats(1, "binlog.000001", 5_000_000_000),
            beats(1, "binlog.000002", 4),
            beats(2, "binlog.1000000", 4),
        ];
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
    }
}
