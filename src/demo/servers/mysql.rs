//! MySQL's start options, initialisation and replication statements.

use super::accounts::{self, REPLICATION};
use super::{DatabaseFlavor, Installation};
use crate::demo::process::Launch;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// What Regent recommends for production, as an option file.
pub(super) const RECOMMENDED: &str = include_str!("../../../docker/settings/mysql.cnf");

/// What demonstrations add to that: small buffers, and no files or ports elsewhere.
pub(super) const SETTINGS: &[&str] = &[
    "--mysqlx=0",
    "--secure-file-priv=",
    "--innodb-buffer-pool-size=32M",
    "--innodb-redo-log-capacity=32M",
    "--innodb-log-buffer-size=4M",
    "--table-open-cache=300",
    "--table-definition-cache=400",
    "--max-connections=200",
    "--performance-schema=ON",
    "--performance-schema-digests-size=200",
    "--performance-schema-error-size=100",
    "--performance-schema-max-table-instances=300",
    "--performance-schema-max-table-handles=300",
    "--performance-schema-max-thread-instances=250",
    "--performance-schema-max-rwlock-instances=2000",
    "--performance-schema-max-mutex-instances=2000",
    "--performance-schema-max-prepared-statements-instances=200",
    "--performance-schema-events-statements-history-long-size=100",
    "--performance-schema-events-stages-history-long-size=100",
    "--performance-schema-events-waits-history-long-size=100",
    "--performance-schema-events-transactions-history-long-size=100",
];

pub(super) const OPENED: &[&str] = &["--read-only=OFF", "--super-read-only=OFF"];

/// Where an installation keeps what the server reads besides its data.
pub(super) fn places(installation: &Installation) -> Vec<OsString> {
    let base = installation.base();
    let mut all = vec![option("--basedir", base)];
    for (name, place) in [
        ("--lc-messages-dir", "share/mysql"),
        ("--character-sets-dir", "share/mysql/charsets"),
        ("--plugin-dir", "lib/mysql/plugin"),
    ] {
        let path = base.join(place);
        if path.is_dir() {
            all.push(option(name, &path));
        }
    }
    all
}

/// How to fill an empty data directory, accounts included, without writing a binary log.
pub(super) fn initialization(
    installation: &Installation,
    work: &Path,
    datadir: &Path,
) -> io::Result<Launch> {
    let script = work.join("accounts.sql");
    let lines: Vec<String> = accounts::statements(DatabaseFlavor::Mysql)
        .iter()
        .map(|line| format!("{line};\n"))
        .collect();
    std::fs::write(&script, lines.concat())?;
    let mut arguments = vec![OsString::from("--no-defaults")];
    arguments.extend(places(installation));
    arguments.push(option("--datadir", datadir));
    arguments.push(option("--init-file", &script));
    arguments.extend(
        ["--initialize-insecure", "--innodb-redo-log-capacity=32M", "--mysqlx=0"]
            .map(OsString::from),
    );
    arguments.extend(super::as_user());
    let log = work.join("initialize.log");
    Ok(Launch { program: installation.server().to_owned(), arguments, log, ..Launch::default() })
}

/// Makes a fresh server follow the one at `source`, from its first transaction on.
pub(super) fn follow(source: SocketAddr) -> Vec<String> {
    let (host, port) = (source.ip(), source.port());
    let (user, password) = (REPLICATION.user, REPLICATION.password);
    vec![
        format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='{host}', SOURCE_PORT={port}, SOURCE_USER='{user}', \
             SOURCE_PASSWORD='{password}', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, \
             SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=86400, SOURCE_HEARTBEAT_PERIOD=0.2"
        ),
        "START REPLICA".to_owned(),
    ]
}

pub(super) const OPEN: &[&str] = &["SET GLOBAL super_read_only=OFF", "SET GLOBAL read_only=OFF"];

fn option(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(path);
    text
}
