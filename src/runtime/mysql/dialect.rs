//! The one query layer: every statement text, by flavour and version.

mod mariadb;
mod mysql;
#[cfg(test)]
mod tests;

use crate::decision::gtid::Gtids;
use crate::decision::topology::{Endpoint, Flavor, Version};
use std::time::Duration;

/// Which words a server understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Its product.
    pub flavor: Flavor,
    /// Its version.
    pub version: Version,
    /// The names of its semi-sync variables as a source; absent where the plugin is.
    pub semi_sync_source: Option<Naming>,
    /// The names of its semi-sync variables as a replica; absent where the plugin is.
    pub semi_sync_replica: Option<Naming>,
}

/// Old words or new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `master` and `slave`.
    Old,
    /// `source` and `replica`.
    New,
}

impl Naming {
    /// The word for the sending side.
    pub fn source(self) -> &'static str {
        match self {
            Naming::Old => "master",
            Naming::New => "source",
        }
    }

    /// The word for the receiving side.
    pub fn replica(self) -> &'static str {
        match self {
            Naming::Old => "slave",
            Naming::New => "replica",
        }
    }

    /// The word for the sending side as result columns begin with it.
    pub fn source_column(self) -> &'static str {
        match self {
            Naming::Old => "Master",
            Naming::New => "Source",
        }
    }

    /// The word for the receiving side as result columns begin with it.
    pub fn replica_column(self) -> &'static str {
        match self {
            Naming::Old => "Slave",
            Naming::New => "Replica",
        }
    }
}

/// Which replication threads a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The receiver.
    Receiver,
    /// The applier.
    Applier,
    /// Both.
    Both,
}

impl Threads {
    fn word(self) -> &'static str {
        match self {
            Threads::Receiver => " IO_THREAD",
            Threads::Applier => " SQL_THREAD",
            Threads::Both => "",
        }
    }
}

/// A change of source.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The channel; empty for the default one.
    pub channel: &'a str,
    /// The new source.
    pub source: &'a Endpoint,
    /// Between two heartbeats of the idle stream; always given, as both products reset it otherwise.
    pub heartbeat: Duration,
    /// Whether to switch positioning by GTID on; left alone otherwise.
    pub position_by_gtid: bool,
    /// User and password, for a channel that does not exist yet; kept as they are otherwise.
    pub login: Option<(&'a str, &'a str)>,
}

/// Asks what the dialect depends on; understood by every flavour and version.
pub const LEARN: &str = "SELECT @@version; \
    SELECT PLUGIN_NAME FROM information_schema.PLUGINS \
    WHERE PLUGIN_NAME LIKE 'rpl_semi_sync%' AND PLUGIN_STATUS = 'ACTIVE'";

/// Gives literals one meaning, whatever the server's own `sql_mode`; bounds waits for locks.
pub const PLAIN_MODE: &str = "SET SESSION sql_mode = '', lock_wait_timeout = 2";

impl Dialect {
    /// Chooses by `@@version` and the names of the active semi-sync plugins.
    pub fn new(version: &str, plugins: &[String]) -> Dialect {
        // The version is an identifier the server documents, unlike its messages.
        let mariadb = version.to_ascii_lowercase().contains("mariadb");
        let flavor = if mariadb { Flavor::MariaDb } else { Flavor::MySql };
        let has = |name: &str| plugins.iter().any(|plugin| plugin.eq_ignore_ascii_case(name));
        let named = |new: &str, old: &str| match () {
            () if mariadb => Some(Naming::Old),
            () if has(new) => Some(Naming::New),
            () if has(old) => Some(Naming::Old),
            () => None,
        };
        Dialect {
            flavor,
            version: version_of(version),
            semi_sync_source: named("rpl_semi_sync_source", "rpl_semi_sync_master"),
            semi_sync_replica: named("rpl_semi_sync_replica", "rpl_semi_sync_slave"),
        }
    }

    /// Reads the whole status in one round trip; results come in the order of `status`.
    pub fn status(&self) -> String {
        match self.flavor {
            Flavor::MySql => mysql::status(self),
            Flavor::MariaDb => mariadb::status(),
        }
    }

    /// Asks for what seldom changes: where administrators are let in, and how a restart leaves it.
    pub fn background(&self) -> &'static str {
        match self.flavor {
            Flavor::MySql => mysql::BACKGROUND,
            Flavor::MariaDb => mariadb::BACKGROUND,
        }
    }

    /// Asks for the log's position, which takes the lock that a commit holds while it writes there.
    pub fn log_position(&self) -> &'static str {
        match self.flavor {
            Flavor::MySql => mysql::log_position(self.version),
            Flavor::MariaDb => "SHOW MASTER STATUS",
        }
    }

    /// The words in the columns of the replication status.
    pub fn columns(&self) -> Naming {
        match self.flavor {
            Flavor::MySql => mysql::replica_words(self.version),
            Flavor::MariaDb => Naming::Old,
        }
    }

    /// Stops replication threads of one channel.
    pub fn stop(&self, threads: Threads, channel: &str) -> String {
        self.threads("STOP", threads, channel)
    }

    /// Starts replication threads of one channel.
    pub fn start(&self, threads: Threads, channel: &str) -> String {
        self.threads("START", threads, channel)
    }

    fn threads(&self, verb: &str, threads: Threads, channel: &str) -> String {
        let word = threads.word();
        match self.flavor {
            Flavor::MySql => {
                let replica = self.columns().replica().to_ascii_uppercase();
                format!("{verb} {replica}{word} FOR CHANNEL {}", quoted(channel))
            }
            Flavor::MariaDb => format!("{verb} SLAVE {}{word}", quoted(channel)),
        }
    }

    /// Points a channel at another source and keeps every option that is not named.
    pub fn change(&self, change: &Change<'_>) -> String {
        match self.flavor {
            Flavor::MySql => mysql::change(self.version, change),
            Flavor::MariaDb => mariadb::change(change),
        }
    }

    /// Forgets a channel; its relay log must have been applied.
    pub fn forget(&self, channel: &str) -> String {
        match self.flavor {
            Flavor::MySql => {
                let replica = self.columns().replica().to_ascii_uppercase();
                format!("RESET {replica} ALL FOR CHANNEL {}", quoted(channel))
            }
            Flavor::MariaDb => format!("RESET SLAVE {} ALL", quoted(channel)),
        }
    }

    /// Before a former primary's first channel: its own transactions count as replicated.
    pub fn adopt_position(&self) -> Option<&'static str> {
        match self.flavor {
            Flavor::MySql => None,
            Flavor::MariaDb => Some("SET GLOBAL gtid_slave_pos = @@global.gtid_current_pos"),
        }
    }

    /// Waits until `to` is applied; answers early when it is.
    pub fn wait_applied(&self, to: &Gtids, limit: Duration) -> String {
        let (to, seconds) = (quoted(&to.to_wait_text()), limit.as_secs_f64());
        match self.flavor {
            Flavor::MySql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET({to}, {seconds:.3})"),
            Flavor::MariaDb => format!("SELECT MASTER_GTID_WAIT({to}, {seconds:.3})"),
        }
    }

    /// Stops all writes, across a restart where `lasting` and the product can; best first.
    pub fn close(&self, lasting: bool) -> &'static str {
        match (self.flavor, lasting) {
            (Flavor::MySql, true) => "SET PERSIST super_read_only = ON",
            (Flavor::MySql, false) => "SET GLOBAL super_read_only = ON",
            (Flavor::MariaDb, _) => "SET GLOBAL read_only = 1",
        }
    }

    /// Leaves writes as they are until the next restart, and none after it.
    pub fn close_at_restart(&self) -> Option<&'static str> {
        match self.flavor {
            Flavor::MySql => Some("SET PERSIST_ONLY super_read_only = ON"),
            Flavor::MariaDb => None,
        }
    }

    /// Opens for writes until the next restart.
    pub fn open(&self) -> &'static str {
        match self.flavor {
            Flavor::MySql => "SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF",
            Flavor::MariaDb => "SET GLOBAL read_only = 0",
        }
    }

    /// Keeps scheduled events from writing past `read_only`, where that is possible at all.
    pub fn stop_events(&self) -> Option<&'static str> {
        match self.flavor {
            // `super_read_only` holds for events too.
            Flavor::MySql => None,
            Flavor::MariaDb => Some("SET GLOBAL event_scheduler = OFF"),
        }
    }

    /// Ends every later statement of the session that takes longer, on the server itself; zero
    /// lifts the limit. Absent where that holds for reading statements only.
    pub fn limit_statements(&self, limit: Duration) -> Option<String> {
        match self.flavor {
            Flavor::MySql => None,
            Flavor::MariaDb => Some(format!("SET SESSION max_statement_time = {}", seconds(limit))),
        }
    }

    /// Asks which settings the server itself keeps across a restart, as names and values.
    pub fn persisted(&self) -> Option<&'static str> {
        match self.flavor {
            Flavor::MySql => Some(
                "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.persisted_variables",
            ),
            Flavor::MariaDb => None,
        }
    }

    /// Names of users whom `read_only` does not stop, where nothing stronger exists.
    pub fn privileged_users(&self) -> Option<&'static str> {
        match self.flavor {
            Flavor::MySql => None,
            Flavor::MariaDb => Some(
                "SELECT DISTINCT GRANTEE FROM information_schema.USER_PRIVILEGES \
                 WHERE PRIVILEGE_TYPE IN ('SUPER', 'READ_ONLY ADMIN', 'READ ONLY ADMIN')",
            ),
        }
    }

    /// Asks for the server's own clock, in microseconds.
    pub fn clock(&self) -> &'static str {
        "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)"
    }

    /// Asks for the first events of a file of the binary log.
    pub fn log_head(&self, file: &str) -> String {
        format!("SHOW BINLOG EVENTS IN {} LIMIT 4", quoted(file))
    }

    /// Asks for names and types of a table's columns, in their order.
    pub fn columns_of(&self, schema: &str, table: &str) -> String {
        let (schema, table) = (quoted(schema), quoted(table));
        format!(
            "SELECT COLUMN_NAME, CAST(COLUMN_TYPE AS CHAR) FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {table} ORDER BY ORDINAL_POSITION"
        )
    }

    /// Keeps ordinary accounts out and lets a privileged one work, until it is closed again.
    pub fn lift_strict_closing(&self) -> &'static str {
        match self.flavor {
            Flavor::MySql => "SET GLOBAL super_read_only = OFF",
            // It has nothing stricter.
            Flavor::MariaDb => "DO 0",
        }
    }

    /// Asks for the session that applies a channel, where it waits within a transaction whose rest was
    /// not received. It does not stop then for a minute, and stops at once when its session is ended.
    pub fn torn_applier(&self, channel: &str) -> Option<String> {
        let channel = quoted(channel);
        match self.flavor {
            Flavor::MySql => Some(format!(
                "SELECT CAST(t.PROCESSLIST_ID AS UNSIGNED) \
                 FROM performance_schema.replication_applier_status_by_coordinator c \
                 JOIN performance_schema.threads t USING (THREAD_ID) \
                 WHERE c.CHANNEL_NAME = {channel} AND EXISTS (SELECT 1 \
                 FROM performance_schema.replication_applier_status_by_worker w \
                 WHERE w.CHANNEL_NAME = {channel} AND w.APPLYING_TRANSACTION <> '')"
            )),
            // Its applier stops there at once.
            Flavor::MariaDb => None,
        }
    }

    /// Ends a session.
    pub fn kill(&self, session: u64) -> String {
        format!("KILL {session}")
    }

    /// Loads the semi-sync plugin of the sending side, where that is needed.
    pub fn install_source(&self) -> Option<(&'static str, Naming)> {
        self.semi_sync_source.is_none().then(|| mysql::install_source(self.version))
    }

    /// Loads the semi-sync plugin of the receiving side, where that is needed.
    pub fn install_replica(&self) -> Option<(&'static str, Naming)> {
        self.semi_sync_replica.is_none().then(|| mysql::install_replica(self.version))
    }

    /// How `acks` acknowledgements are waited for without end: settings and their values, apart
    /// from the switch itself ([`Dialect::source_waits`]).
    pub fn waiting_settings(&self, acks: u32) -> Vec<(String, String)> {
        let naming = self.semi_sync_source.unwrap_or(Naming::New);
        match self.flavor {
            Flavor::MySql => mysql::waiting_settings(naming, acks),
            Flavor::MariaDb => mariadb::waiting_settings(),
        }
    }

    /// The name of the switch that lets commits wait.
    pub fn waiting_switch(&self) -> String {
        let source = self.semi_sync_source.unwrap_or(Naming::New).source();
        format!("rpl_semi_sync_{source}_enabled")
    }

    /// Switches the waiting of commits off, or on again as it was set, until the next restart.
    pub fn source_waits(&self, on: bool) -> String {
        let value = if on { "ON" } else { "OFF" };
        format!("SET GLOBAL {} = {value}", self.waiting_switch())
    }

    /// Says whether commits wait even while nobody is connected who could acknowledge.
    pub fn waits_without_clients(&self, on: bool) -> Option<String> {
        let naming = self.semi_sync_source.unwrap_or(Naming::New);
        let (source, replica) = (naming.source(), naming.replica());
        let value = if on { "ON" } else { "OFF" };
        match self.flavor {
            Flavor::MySql => {
                Some(format!("SET GLOBAL rpl_semi_sync_{source}_wait_no_{replica} = {value}"))
            }
            // This one's switch is quick.
            Flavor::MariaDb => None,
        }
    }

    /// Lets the receiver acknowledge, from its next connection on.
    pub fn acknowledges(&self, on: bool) -> String {
        let value = if on { "ON" } else { "OFF" };
        let naming = self.semi_sync_replica.unwrap_or(Naming::New);
        let replica = naming.replica();
        match self.flavor {
            Flavor::MySql => format!("SET PERSIST rpl_semi_sync_{replica}_enabled = {value}"),
            Flavor::MariaDb => format!("SET GLOBAL rpl_semi_sync_{replica}_enabled = {value}"),
        }
    }

    /// Asks whether the receiver's present connection acknowledges.
    pub fn acknowledging(&self) -> String {
        let replica = self.semi_sync_replica.unwrap_or(Naming::New).replica();
        format!("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_{replica}_status'")
    }

    /// Asks whether commits wait at this moment.
    pub fn waiting(&self) -> String {
        let source = self.semi_sync_source.unwrap_or(Naming::New).source();
        format!("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_{source}_status'")
    }
}

/// A text as an SQL literal, for sessions whose `sql_mode` is [`PLAIN_MODE`].
pub(in crate::runtime) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn version_of(text: &str) -> Version {
    let mut numbers =
        text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u16>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    Version { major: next(), minor: next(), patch: next() }
}

fn seconds(span: Duration) -> String {
    format!("{:.3}", span.as_secs_f64())
}
