//! Every field the configuration knows, section by section.

/// A kind of mapping in the file and the fields it may have.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What messages and the documentation call it.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [&'static str],
    /// Whether its content stays out of messages.
    pub secret: bool,
}

const fn shape(name: &'static str, fields: &'static [&'static str]) -> Shape {
    Shape { name, fields, secret: false }
}

const fn secret(name: &'static str, fields: &'static [&'static str]) -> Shape {
    Shape { name, fields, secret: true }
}

/// The file itself.
pub const FILE: Shape = shape("file", &["watchers", "security", "clusters", "timing"]);
/// One item of `watchers`.
pub const WATCHER: Shape = shape("watcher", &["id", "data_center", "peer", "api"]);
/// `security`.
pub const SECURITY: Shape = shape("security", &["ca", "certificate", "key", "tokens", "insecure"]);
/// One item of `clusters`.
pub const CLUSTER: Shape = shape(
    "cluster",
    &["name", "servers", "credentials", "durability", "rules", "fence", "proxy", "backups"],
);
/// One item of `servers`.
pub const SERVER: Shape = shape(
    "server",
    &["name", "address", "data_center", "promotion", "follows", "admin_address", "fence", "agent"],
);
/// `agent`, of a server.
pub const AGENT: Shape = shape("agent", &["address", "listen", "token", "token_file", "scratch"]);
/// `fence`, of a cluster or a server.
pub const FENCE: Shape = shape("fence", &["command", "limit"]);
/// `credentials`.
pub const CREDENTIALS: Shape = secret("credentials", &["monitor", "replication"]);
/// `monitor` and `replication`.
pub const ACCOUNT: Shape = secret("account", &["user", "password", "password_file"]);
/// `durability`, when it is more than one word.
pub const DURABILITY: Shape = shape("durability", &["mode", "acknowledged_in", "on_quorum_loss"]);
/// `proxy`.
pub const PROXY: Shape =
    shape("proxy", &["write", "read", "max_replica_lag", "hold", "max_connections"]);
/// `backups`.
pub const BACKUPS: Shape = shape(
    "backups",
    &[
        "targets",
        "method",
        "encrypt_to",
        "compression",
        "part_size",
        "account",
        "binlogs",
        "tools",
        "give_up_after",
        "spool",
        "rate_limit",
        "checksums",
        "verify",
        "schedules",
        "keep",
    ],
);
/// One item of `targets`.
pub const TARGET: Shape = shape("target", &["name", "folder", "s3"]);
/// `s3`.
pub const S3: Shape = shape(
    "s3",
    &[
        "bucket",
        "prefix",
        "region",
        "endpoint",
        "storage_class",
        "access_key",
        "secret_key",
        "secret_key_file",
        "profile",
        "request_limit",
        "object_lock",
    ],
);
/// `object_lock`.
pub const OBJECT_LOCK: Shape = shape("object_lock", &["mode", "days"]);
/// `spool`.
pub const SPOOL: Shape = shape("spool", &["folder", "limit"]);
/// `binlogs`.
pub const BINLOGS: Shape =
    shape("binlogs", &["segment_size", "segment_age", "archive_to", "alert_after"]);
/// `tools`.
pub const TOOLS: Shape = shape(
    "tools",
    &[
        "mysqldump",
        "mysql",
        "mysqlbinlog",
        "mariadb_dump",
        "mariadb",
        "mariadb_binlog",
        "mariadb_backup",
        "mbstream",
        "xtrabackup",
        "xbstream",
    ],
);
/// `verify`.
pub const VERIFY: Shape = shape(
    "verify",
    &["server", "directory", "identity", "every", "cron", "time_zone", "alert_after"],
);
/// One item of `schedules`.
pub const SCHEDULE: Shape = shape(
    "schedule",
    &[
        "name",
        "cron",
        "time_zone",
        "jitter",
        "window",
        "timeout",
        "target",
        "targets",
        "from",
        "primary",
        "max_lag",
    ],
);
/// `keep`.
pub const KEEP: Shape =
    shape("keep", &["last", "days", "weeks", "months", "recovery_window", "time_zone"]);
/// `timing`.
pub const TIMING: Shape = shape(
    "timing",
    &[
        "probe_interval",
        "probe_timeout",
        "replication_heartbeat",
        "lease",
        "lease_renewal",
        "raft_tick",
        "raft_heartbeat_ticks",
        "raft_election_ticks",
    ],
);

/// All of them, in the order of the documentation.
pub const ALL: [Shape; 22] = [
    FILE,
    WATCHER,
    SECURITY,
    CLUSTER,
    SERVER,
    AGENT,
    CREDENTIALS,
    ACCOUNT,
    DURABILITY,
    FENCE,
    PROXY,
    BACKUPS,
    TARGET,
    S3,
    OBJECT_LOCK,
    SPOOL,
    BINLOGS,
    TOOLS,
    VERIFY,
    SCHEDULE,
    KEEP,
    TIMING,
];
