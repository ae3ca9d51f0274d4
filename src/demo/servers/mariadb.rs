//! MariaDB's start options, initialisation and replication statements.

use super::accounts::{self, REPLICATION};
use super::{DatabaseFlavor, Installation};
use crate::demo::process::Launch;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

/// What Regent recommends for production, as an option file.
pub(super) const RECOMMENDED: &str = include_str!("../../../docker/settings/mariadb.cnf");

/// What demonstrations add to that: small buffers.
pub(super) const SETTINGS: &[&str] = &[
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=32M",
    "--innodb-log-buffer-size=4M",
    "--aria-pagecache-buffer-size=8M",
    "--key-buffer-size=1M",
    "--table-open-cache=300",
    "--max-connections=200",
    "--performance-schema=ON",
    "--performance-schema-digests-size=200",
    "--performance-schema-max-table-instances=300",
    "--performance-schema-max-table-handles=300",
    "--performance-schema-max-thread-instances=250",
    "--performance-schema-max-mutex-instances=2000",
    "--performance-schema-max-rwlock-instances=2000",
    "--performance-schema-events-statements-history-long-size=100",
    "--performance-schema-events-stages-history-long-size=100",
    "--performance-schema-events-waits-history-long-size=100",
];

pub(super) const OPENED: &[&str] = &["--read-only=OFF"];

/// The scripts that `mariadb-install-db` runs, in its order; those that a version lacks are passed over.
const SCRIPTS: &[&str] = &[
    "mysql_system_tables.sql",
    "mariadb_system_tables.sql",
    "mysql_performance_tables.sql",
    "mariadb_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "mariadb_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_sys_schema.sql",
    "mariadb_sys_schema.sql",
];

/// Where an installation keeps what the server reads besides its data.
pub(super) fn places(installation: &Installation) -> Vec<OsString> {
    let mut all = super::mysql::places(installation);
    // Debian builds look for messages of this flavour below `share/mysql` or `share/mariadb`.
    if !installation.base().join("share/mysql").is_dir() {
        let share = installation.base().join("share/mariadb");
        all.push(format!("--lc-messages-dir={}", share.display()).into());
        all.push(format!("--character-sets-dir={}", share.join("charsets").display()).into());
    }
    all
}

/// How to fill an empty data directory, accounts included, without writing a binary log.
pub(super) fn initialization(
    installation: &Installation,
    work: &Path,
    datadir: &Path,
) -> io::Result<Launch> {
    let script = work.join("bootstrap.sql");
    let mut text = File::create(&script)?;
    text.write_all(b"create database if not exists mysql;\nuse mysql;\n")?;
    text.write_all(b"SET @auth_root_socket=NULL;\nSET @skip_auth_anonymous=1;\n")?;
    for name in SCRIPTS {
        for share in ["share/mysql", "share/mariadb"] {
            let path = installation.base().join(share).join(name);
            if path.is_file() {
                text.write_all(&std::fs::read(path)?)?;
                text.write_all(b"\n")?;
                break;
            }
        }
    }
    // The bootstrap runs without grant tables; accounts can be made once they are read.
    text.write_all(b"\nFLUSH PRIVILEGES;\n")?;
    for statement in accounts::statements(DatabaseFlavor::Mariadb) {
        writeln!(text, "{statement};")?;
    }
    std::fs::create_dir_all(datadir)?;
    let mut arguments = vec![OsString::from("--no-defaults")];
    arguments.extend(places(installation));
    arguments.push(format!("--datadir={}", datadir.display()).into());
    arguments.extend(
        [
            "--bootstrap",
            "--silent-startup",
            "--log-warnings=0",
            "--enforce-storage-engine=",
            "--max-allowed-packet=8M",
            "--net-buffer-length=16K",
            "--innodb-log-file-size=32M",
        ]
        .map(OsString::from),
    );
    arguments.extend(super::as_user());
    let log = work.join("initialize.log");
    Ok(Launch {
        program: installation.server().to_owned(),
        arguments,
        log,
        input: Some(script),
        ..Launch::default()
    })
}

/// Makes a fresh server follow the one at `source`, from its first transaction on.
pub(super) fn follow(source: SocketAddr) -> Vec<String> {
    let (host, port) = (source.ip(), source.port());
    let (user, password) = (REPLICATION.user, REPLICATION.password);
    vec![
        format!(
            "CHANGE MASTER TO MASTER_HOST='{host}', MASTER_PORT={port}, MASTER_USER='{user}', \
             MASTER_PASSWORD='{password}', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, \
             MASTER_HEARTBEAT_PERIOD=0.2"
        ),
        "START SLAVE".to_owned(),
    ]
}

pub(super) const OPEN: &[&str] = &["SET GLOBAL read_only=OFF"];
