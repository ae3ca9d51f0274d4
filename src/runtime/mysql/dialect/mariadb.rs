//! MariaDB's statements, 10.5 to 11.x; they are the same in all of these.

use super::{Change, quoted, seconds};

pub(super) fn status() -> String {
    "SELECT @@global.read_only AS read_only, NULL AS super_read_only, \
     @@global.server_id AS server_id, NULL AS uuid, \
     @@global.gtid_binlog_state AS executed, @@global.gtid_slave_pos AS slave_pos, \
     @@global.log_bin AS log_bin, @@global.log_slave_updates AS log_updates, \
     @@global.gtid_strict_mode AS gtids, @@global.relay_log_recovery AS relay_log_recovery, \
     @@global.sync_binlog AS sync_binlog, @@global.innodb_flush_log_at_trx_commit AS flush_log, \
     @@global.rpl_semi_sync_master_enabled AS ss_source, 1 AS ss_acks, \
     @@global.rpl_semi_sync_master_timeout AS ss_timeout, \
     @@global.rpl_semi_sync_slave_enabled AS ss_replica, \
     @@global.sync_relay_log AS sync_relay_log, NULL AS gtid_mode, \
     @@global.max_connections AS max_connections; \
     SHOW ALL SLAVES STATUS; \
     SHOW GLOBAL STATUS WHERE Variable_name IN ('Threads_connected', \
     'Rpl_semi_sync_master_clients', 'Rpl_semi_sync_master_wait_sessions')"
        .to_owned()
}

/// Nothing is said of a setting that was changed while the server ran: where it comes from at the
/// next start can no longer be known.
pub(super) const BACKGROUND: &str = "SELECT NULL AS admin_address, \
    @@global.extra_port AS admin_port, \
    CASE WHEN GLOBAL_VALUE_ORIGIN = 'COMPILE-TIME' THEN 1 \
    WHEN GLOBAL_VALUE_ORIGIN IN ('CONFIG', 'COMMAND-LINE') THEN GLOBAL_VALUE = 'OFF' END \
    AS restarts_open \
    FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'READ_ONLY'";

pub(super) fn change(change: &Change<'_>) -> String {
    let mut options = vec![
        format!("MASTER_HOST = {}", quoted(&change.source.host)),
        format!("MASTER_PORT = {}", change.source.port),
        format!("MASTER_HEARTBEAT_PERIOD = {}", seconds(change.heartbeat)),
        // Named each time: a change of host alone may fall back to file positions.
        "MASTER_USE_GTID = slave_pos".to_owned(),
    ];
    if let Some((user, password)) = change.login {
        options.extend([
            "MASTER_CONNECT_RETRY = 1".to_owned(),
            format!("MASTER_USER = {}", quoted(user)),
            format!("MASTER_PASSWORD = {}", quoted(password)),
        ]);
    }
    format!("CHANGE MASTER {} TO {}", quoted(change.channel), options.join(", "))
}

pub(super) fn waiting_settings() -> Vec<(String, String)> {
    [("wait_point", "AFTER_SYNC"), ("wait_no_slave", "ON"), ("timeout", "4294967295")]
        .map(|(name, value)| (format!("rpl_semi_sync_master_{name}"), value.to_owned()))
        .to_vec()
}
