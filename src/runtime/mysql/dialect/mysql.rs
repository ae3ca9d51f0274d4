//! MySQL's statements, 8.0 to 9.x.

use super::{Change, Dialect, Naming, quoted, seconds};
use crate::decision::topology::Version;

/// Since 8.0.22: `START REPLICA`, `SHOW REPLICA STATUS` and their columns.
pub(super) fn replica_words(version: Version) -> Naming {
    since(version, (8, 0, 22))
}

/// Since 8.0.23: `CHANGE REPLICATION SOURCE TO`.
fn source_words(version: Version) -> Naming {
    since(version, (8, 0, 23))
}

/// Since 8.0.26: variables and plugins.
fn variable_words(version: Version) -> Naming {
    since(version, (8, 0, 26))
}

/// Since 8.2: `SHOW BINARY LOG STATUS`.
pub(super) fn log_position(version: Version) -> &'static str {
    match since(version, (8, 2, 0)) {
        Naming::New => "SHOW BINARY LOG STATUS",
        Naming::Old => "SHOW MASTER STATUS",
    }
}

fn since(version: Version, first: (u16, u16, u16)) -> Naming {
    let new = (version.major, version.minor, version.patch) >= first;
    if new { Naming::New } else { Naming::Old }
}

pub(super) fn status(dialect: &Dialect) -> String {
    let replica = variable_words(dialect.version).replica();
    let show = replica_words(dialect.version).replica().to_ascii_uppercase();
    let source = dialect.semi_sync_source.map(Naming::source);
    let wait_for = match dialect.semi_sync_source {
        Some(Naming::Old) => "slave",
        _ => "replica",
    };
    let source_columns = source.map_or(
        "NULL AS ss_source, NULL AS ss_acks, NULL AS ss_timeout".to_owned(),
        |source| {
            format!(
                "@@global.rpl_semi_sync_{source}_enabled AS ss_source, \
             @@global.rpl_semi_sync_{source}_wait_for_{wait_for}_count AS ss_acks, \
             @@global.rpl_semi_sync_{source}_timeout AS ss_timeout"
            )
        },
    );
    let replica_column =
        dialect.semi_sync_replica.map_or("NULL AS ss_replica".to_owned(), |naming| {
            format!("@@global.rpl_semi_sync_{}_enabled AS ss_replica", naming.replica())
        });
    let counters = source.map_or(String::new(), |source| {
        format!(", 'Rpl_semi_sync_{source}_clients', 'Rpl_semi_sync_{source}_wait_sessions'")
    });
    format!(
        "SELECT @@global.read_only AS read_only, @@global.super_read_only AS super_read_only, \
         @@global.server_id AS server_id, @@global.server_uuid AS uuid, \
         @@global.gtid_executed AS executed, @@global.log_bin AS log_bin, \
         @@global.log_{replica}_updates AS log_updates, @@global.gtid_mode AS gtids, \
         @@global.relay_log_recovery AS relay_log_recovery, @@global.sync_binlog AS sync_binlog, \
         @@global.innodb_flush_log_at_trx_commit AS flush_log, {source_columns}, {replica_column}, \
         @@global.sync_relay_log AS sync_relay_log, @@global.gtid_mode AS gtid_mode, \
         @@global.max_connections AS max_connections; \
         SHOW {show} STATUS; \
         SELECT CHANNEL_NAME, COUNT_RECEIVED_HEARTBEATS \
         FROM performance_schema.replication_connection_status; \
         SHOW GLOBAL STATUS WHERE Variable_name IN ('Threads_connected'{counters})"
    )
}

pub(super) const BACKGROUND: &str = "SELECT @@global.admin_address AS admin_address, \
    @@global.admin_port AS admin_port, \
    CASE WHEN (SELECT COUNT(*) > 0 FROM performance_schema.persisted_variables \
    WHERE VARIABLE_NAME IN ('read_only', 'super_read_only') AND VARIABLE_VALUE = 'ON') THEN 0 \
    WHEN (SELECT COUNT(*) > 0 FROM performance_schema.persisted_variables \
    WHERE VARIABLE_NAME = 'read_only') THEN 1 \
    WHEN (SELECT COUNT(*) > 0 FROM performance_schema.variables_info \
    WHERE VARIABLE_NAME IN ('read_only', 'super_read_only') AND VARIABLE_SOURCE = 'DYNAMIC') \
    THEN NULL ELSE @@global.read_only = 0 END AS restarts_open";

pub(super) fn change(version: Version, change: &Change<'_>) -> String {
    let naming = source_words(version);
    let word = naming.source().to_ascii_uppercase();
    let statement = match naming {
        Naming::Old => "CHANGE MASTER TO",
        Naming::New => "CHANGE REPLICATION SOURCE TO",
    };
    let mut options = vec![
        format!("{word}_HOST = {}", quoted(&change.source.host)),
        format!("{word}_PORT = {}", change.source.port),
        format!("{word}_HEARTBEAT_PERIOD = {}", seconds(change.heartbeat)),
    ];
    if change.position_by_gtid {
        options.push(format!("{word}_AUTO_POSITION = 1"));
    }
    if let Some((user, password)) = change.login {
        let public_key = match naming {
            Naming::Old => "GET_MASTER_PUBLIC_KEY = 1",
            Naming::New => "GET_SOURCE_PUBLIC_KEY = 1",
        };
        options.extend([
            format!("{word}_CONNECT_RETRY = 1"),
            format!("{word}_RETRY_COUNT = 4000000000"),
            public_key.to_owned(),
            format!("{word}_USER = {}", quoted(user)),
            format!("{word}_PASSWORD = {}", quoted(password)),
        ]);
    }
    format!("{statement} {} FOR CHANNEL {}", options.join(", "), quoted(change.channel))
}

pub(super) fn install_source(version: Version) -> (&'static str, Naming) {
    match variable_words(version) {
        Naming::New => {
            ("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'", Naming::New)
        }
        Naming::Old => {
            ("INSTALL PLUGIN rpl_semi_sync_master SONAME 'semisync_master.so'", Naming::Old)
        }
    }
}

pub(super) fn install_replica(version: Version) -> (&'static str, Naming) {
    match variable_words(version) {
        Naming::New => {
            ("INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'", Naming::New)
        }
        Naming::Old => {
            ("INSTALL PLUGIN rpl_semi_sync_slave SONAME 'semisync_slave.so'", Naming::Old)
        }
    }
}

pub(super) fn waiting_settings(naming: Naming, acks: u32) -> Vec<(String, String)> {
    let (source, replica) = (naming.source(), naming.replica());
    let named = |name: &str, value: &str| (format!("rpl_semi_sync_{source}_{name}"), value.into());
    vec![
        named("wait_point", "AFTER_SYNC"),
        named(&format!("wait_for_{replica}_count"), &acks.to_string()),
        named(&format!("wait_no_{replica}"), "ON"),
        named("timeout", "4294967295"),
    ]
}
