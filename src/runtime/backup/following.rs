//! A restored server becomes a replica of its cluster's primary.

use super::BackupError;
use super::restoring::{Destination, look, session};
use super::resuming;
use super::taking::CONNECT_LIMIT;
use crate::config::ClusterConfig;
use crate::decision::backup::manifest::Manifest;
use crate::decision::gtid::Gtids;
use crate::decision::report::{Receiver, Sight, Status, Writable};
use crate::decision::topology::{Flavor, ServerName, ServerSpec, Timing};
use crate::runtime::mysql::connect::connect;
use crate::runtime::mysql::dialect::{Change, Threads};
use crate::runtime::mysql::distance::Distance;
use crate::runtime::mysql::probe::Prober;
use crate::runtime::mysql::status::learn;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};
use std::time::Duration;

/// The first look at a server may take longer than one probe.
const LOOKS: u32 = 8;
const BETWEEN: Duration = Duration::from_millis(100);
/// The list of what came before is within so many of a log's first events.
const LIST_WITHIN: u32 = 8;
/// How often a new replica is looked at, with a pause in between, until it is connected.
const UNTIL_CONNECTED: u32 = 300;

/// The cluster that a restored server is of.
#[derive(Clone, Copy, Debug)]
pub struct Membership<'a> {
    /// The cluster.
    pub cluster: &'a ClusterConfig,
    /// How long things take.
    pub timing: Timing,
}

/// What the other servers of the cluster say.
#[derive(Clone, Debug)]
pub(super) struct Others {
    seen: Vec<(ServerSpec, Sight)>,
}

impl Membership<'_> {
    /// Looks at all declared servers but the one that is restored into.
    pub(super) async fn others(&self, destination: &Destination<'_>) -> Others {
        let mut seen = Vec::new();
        for server in &self.cluster.spec.servers {
            if server.address == destination.address {
                continue;
            }
            let account = self.cluster.credentials.monitor.clone();
            let mut prober = Prober::new(server, account, self.timing);
            let mut sight = prober.probe().await;
            for _ in 1..LOOKS {
                if !matches!(sight, Sight::Hung | Sight::Unreachable | Sight::Useless(_)) {
                    break;
                }
                tokio::time::sleep(BETWEEN).await;
                sight = prober.probe().await;
            }
            seen.push((server.clone(), sight));
        }
        Others { seen }
    }

    /// Whether the backup reaches so far that the primary can send the rest, as far as that can be told
    /// before it is tried.
    pub(super) async fn reaches(
        &self,
        (primary, at_primary): (&ServerSpec, &Status),
        manifest: &Manifest,
        status: &Status,
    ) -> Result<(), BackupError> {
        let name = &primary.name;
        if let Some(own) = passed_over(&at_primary.executed, &manifest.position, status) {
            return Err(BackupError::NotEmpty(format!(
                "the server itself wrote {own} after the backup, and would take that for its own and pass \
                 over it; give it a server_id that no server of the cluster had, or take a newer backup"
            )));
        }
        let account = &self.cluster.credentials.monitor;
        let mut conn = connect(&primary.address, account, CONNECT_LIMIT, &Distance::default())
            .await
            .map_err(|error| BackupError::Connect { server: name.to_string(), error })?;
        let gone = match manifest.flavor {
            Flavor::MySql => conn.query_first("SELECT @@global.gtid_purged").await,
            Flavor::MariaDb => before_oldest_log(&mut conn).await,
        };
        let gone = gone.map_err(|error: Error| BackupError::server(name, error))?;
        let gone = gone.unwrap_or_default();
        let sent_all = match manifest.flavor {
            Flavor::MySql => {
                let gone = Gtids::parse(Flavor::MySql, &gone);
                let gone = gone.map_err(|error| BackupError::server(name, error))?;
                manifest.position.contains(&gone)
            }
            Flavor::MariaDb => reaches_all(&manifest.position, &gone),
        };
        if sent_all {
            return Ok(());
        }
        Err(BackupError::NotEmpty(format!(
            "{name}, the primary, has not kept all binary logs since that backup; take a newer backup"
        )))
    }

    /// Lets the server follow, and waits until it does. The note of its restore goes when nothing is left to
    /// be done that could be gone on with.
    pub(super) async fn follow(
        &self,
        (destination, server): (&Destination<'_>, &ServerName),
        primary: &ServerSpec,
        noted: bool,
    ) -> Result<(), BackupError> {
        let mut conn = session(destination, server).await?;
        let refused = |error: Error| BackupError::server(server, error);
        let dialect = learn(&mut conn).await.map_err(|error| BackupError::server(server, error))?;
        conn.query_drop("SET SESSION sql_mode = ''").await.map_err(refused)?;
        if let Some(events) = dialect.stop_events() {
            conn.query_drop(events).await.map_err(refused)?;
        }
        let account = &self.cluster.credentials.replication;
        let change = dialect.change(&Change {
            channel: "",
            source: &primary.address,
            heartbeat: self.timing.replication_heartbeat,
            position_by_gtid: true,
            login: Some((&account.user, account.password.reveal())),
        });
        // The server's words may quote the password.
        conn.query_drop(change).await.map_err(|error| match error {
            Error::Server(error) => {
                BackupError::server(server, format!("no new source, error {}", error.code))
            }
            other => BackupError::server(server, other),
        })?;
        if noted {
            resuming::forget(&mut conn).await.map_err(refused)?;
        }
        conn.query_drop(dialect.start(Threads::Both, "")).await.map_err(refused)?;
        conn.query_drop(dialect.close(true)).await.map_err(refused)?;
        connected(destination, server, primary).await
    }
}

async fn connected(
    destination: &Destination<'_>,
    server: &ServerName,
    primary: &ServerSpec,
) -> Result<(), BackupError> {
    let mut last = None;
    for _ in 0..UNTIL_CONNECTED {
        let status = look(destination, server).await?;
        if let Some(channel) = status.channel() {
            if channel.receiver == Receiver::Connected && channel.applying {
                return Ok(());
            }
            last =
                channel.error.as_ref().map(|error| format!("error {}: {}", error.code, error.text));
            if channel.receiver == Receiver::Stopped && last.is_some() {
                break;
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
    let why = last.unwrap_or_else(|| "it does not connect".to_owned());
    let what = format!("it holds the backup, but cannot follow {}: {why}", primary.name);
    Err(BackupError::server(server, what))
}

impl Others {
    /// The one server that takes writes.
    pub(super) fn primary(&self) -> Result<(&ServerSpec, &Status), BackupError> {
        let open = self.seen.iter().filter_map(|(server, sight)| {
            let status = sight.status().filter(|status| status.writable == Writable::Open)?;
            Some((server, status))
        });
        let open: Vec<_> = open.collect();
        match open.as_slice() {
            [only] => Ok(*only),
            [] => {
                let why: Vec<String> = self
                    .seen
                    .iter()
                    .map(|(server, sight)| format!("{}: {sight}", server.name))
                    .collect();
                let why = why.join("; ");
                let text =
                    format!("there is no primary to follow, no other server takes writes ({why})");
                Err(BackupError::NotEmpty(text))
            }
            several => {
                let names: Vec<&str> =
                    several.iter().map(|(server, _)| server.name.as_str()).collect();
                let names = names.join(", ");
                let text = format!("several servers take writes ({names}), so none is the primary");
                Err(BackupError::NotEmpty(text))
            }
        }
    }

    /// A server that gets its data from the one that is restored into.
    pub(super) fn follower(&self, destination: &Destination<'_>) -> Option<&ServerName> {
        let follows = |status: &Status| {
            status.channels.iter().any(|channel| channel.source == destination.address)
        };
        let mut followers =
            self.seen.iter().filter(|(_, sight)| sight.status().is_some_and(follows));
        followers.next().map(|(server, _)| &server.name)
    }
}

/// What a server of MariaDB had executed when it began the oldest log that it keeps, as that log says.
async fn before_oldest_log(conn: &mut Conn) -> Result<Option<String>, Error> {
    let Some(first) = conn.query_first::<Row, _>("SHOW BINARY LOGS").await? else {
        return Ok(None);
    };
    let Some(Ok(file)) = first.get_opt::<String, _>(0) else { return Ok(None) };
    let question =
        format!("SHOW BINLOG EVENTS IN '{}' LIMIT {LIST_WITHIN}", file.replace('\'', "''"));
    let events: Vec<Row> = conn.query(question).await?;
    let list = events.iter().find(|event| {
        let kind = event.get_opt::<String, _>("Event_type");
        matches!(kind, Some(Ok(kind)) if kind == "Gtid_list")
    });
    Ok(list.and_then(|event| event.get_opt::<String, _>("Info")?.ok()))
}

/// Whether a position is as far in each domain as a list of GTIDs, such as `[0-1-7,2-1-3]`.
fn reaches_all(position: &Gtids, list: &str) -> bool {
    let text = position.to_wait_text();
    let newest = |domain: &str| {
        let of = text.split(',').filter_map(numbers).find(|(of, _)| of == domain);
        of.map_or(0, |(_, newest)| newest)
    };
    let listed = list.trim_matches(['[', ']']).split(',').filter_map(numbers);
    listed.into_iter().all(|(domain, number)| number <= newest(&domain))
}

/// What the primary has beyond the backup that this very server once numbered, by which a replica knows
/// its own transactions and passes over them.
fn passed_over(primary: &Gtids, backup: &Gtids, status: &Status) -> Option<String> {
    let own = primary.of_origin(status.uuid.as_deref(), status.server_id);
    match status.flavor {
        Flavor::MySql => {
            let beyond = own.minus(backup);
            (!beyond.is_empty()).then(|| beyond.to_string())
        }
        Flavor::MariaDb => {
            // In a domain numbers only grow, whoever gives them.
            let newest = |domain: &str| {
                let text = backup.to_wait_text();
                let of = text.split(',').filter_map(numbers).find(|(of, _)| of == domain);
                of.map_or(0, |(_, newest)| newest)
            };
            let text = own.to_string();
            let mut beyond = text.split(',').filter(|gtid| {
                numbers(gtid).is_some_and(|(domain, number)| number > newest(&domain))
            });
            beyond.next().map(|gtid| gtid.trim().to_owned())
        }
    }
}

/// The domain and the sequence number of one transaction.
fn numbers(gtid: &str) -> Option<(String, u64)> {
    let mut parts = gtid.trim().split('-');
    let (domain, _server) = (parts.next()?.to_owned(), parts.next()?);
    Some((domain, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::report::{SemiSync, Settings};
    use crate::decision::topology::Version;

    fn server(flavor: Flavor) -> Status {
        Status {
            flavor,
            version: Version::default(),
            server_id: 2,
            uuid: Some("1da1663f-e691-11f1-aa06-02fc00000002".to_owned()),
            writable: Writable::Closed,
            executed: Gtids::empty(flavor),
            replicated: None,
            channels: Vec::new(),
            semi_sync: SemiSync::default(),
            settings: Settings::default(),
            crowded: false,
        }
    }

    #[test]
    fn a_position_reaches_what_a_log_says_came_before_it() {
        let position = Gtids::parse(Flavor::MariaDb, "0-1-7,2-1-3").unwrap();
        for (list, reaches) in
            [("[]", true), ("[0-2-7,2-9-1]", true), ("[0-1-8]", false), ("[1-1-1]", false)]
        {
            assert_eq!(reaches_all(&position, list), reaches, "{list}");
        }
    }

    #[test]
    fn what_a_server_would_take_for_its_own_is_found() {
        let gtids = |text: &str| Gtids::parse(Flavor::MariaDb, text).unwrap();
        let found = |primary: &str, backup: &str| {
            passed_over(&gtids(primary), &gtids(backup), &server(Flavor::MariaDb))
        };
        assert_eq!(found("0-1-200,0-2-100", "0-1-150"), None, "it was before the backup");
        assert_eq!(found("0-1-200,0-2-180", "0-1-150"), Some("0-2-180".to_owned()));
        assert_eq!(found("0-1-200,3-2-1", "0-1-150"), Some("3-2-1".to_owned()));
        let uuid = "1da1663f-e691-11f1-aa06-02fc00000002";
        let gtids = |text: &str| Gtids::parse(Flavor::MySql, text).unwrap();
        let (primary, status) = (gtids(&format!("{uuid}:1-9")), server(Flavor::MySql));
        assert_eq!(passed_over(&primary, &gtids(&format!("{uuid}:1-9")), &status), None);
        let found = passed_over(&primary, &gtids(&format!("{uuid}:1-7")), &status);
        assert_eq!(found, Some(format!("{uuid}:8-9")));
    }
}
