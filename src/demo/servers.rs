//! Real database servers on this machine, for the demonstration, the tests and the benchmarks.

pub mod accounts;
mod installation;
mod mariadb;
mod mysql;
mod server;
mod template;

pub use installation::Installation;
pub(crate) use server::connect;
pub use server::{Server, ServerOptions};

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Servers of one flavour that share a directory; each dies with its [`Server`] value.
#[derive(Debug)]
pub struct ServerSet {
    directory: PathBuf,
    installation: Installation,
}

/// Which database to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DatabaseFlavor {
    /// MySQL 8.0 and newer.
    Mysql,
    /// MariaDB 10.5 and newer.
    Mariadb,
}

/// Why a server could not be run or asked.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Nothing to run was found.
    #[error("no {flavor} server in {} or in PATH; run scripts/setup", prefix.display())]
    NotInstalled {
        /// What was looked for.
        flavor: DatabaseFlavor,
        /// Where `scripts/setup` would have put it.
        prefix: PathBuf,
    },
    /// The data directory could not be prepared; says what the server printed.
    #[error("cannot initialise a data directory: {0}")]
    Template(String),
    /// It ended while starting, or never answered; says the end of its log.
    #[error("server {name} did not come up: {log}")]
    Start {
        /// The server's name.
        name: String,
        /// The end of its error log.
        log: String,
    },
    /// A query did not finish within its limit.
    #[error("no answer from {at} within {limit:?}")]
    Silent {
        /// Where it was sent.
        at: SocketAddr,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The server, or the way to it, refused.
    #[error("database: {0}")]
    Database(#[from] mysql_async::Error),
    /// A file or process could not be made.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl ServerSet {
    /// Servers will live below `directory`, which is created.
    pub fn new(
        directory: impl Into<PathBuf>,
        installation: Installation,
    ) -> Result<ServerSet, ServerError> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)?;
        Ok(ServerSet { directory: directory.canonicalize()?, installation })
    }

    /// The programs it runs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The directory that holds all servers' directories.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The prepared data directory that servers start from; made when this user has none yet.
    pub async fn template(&self) -> Result<PathBuf, ServerError> {
        template::template(&self.installation).await
    }

    /// Starts an empty server and waits until it answers. An earlier one of the same name is replaced.
    pub async fn start(
        &self,
        name: &str,
        port: u16,
        options: ServerOptions,
    ) -> Result<Server, ServerError> {
        let template = self.template().await?;
        let place = self.directory.join(name);
        let mut server =
            Server::new(name, port, place, self.installation.clone(), template, options);
        server.wipe_and_recreate().await?;
        Ok(server)
    }

    /// Opens `primary` for writes, lets each replica follow it, creates the shop's schema on it and waits
    /// until every replica has it.
    pub async fn replicate(
        &self,
        primary: &Server,
        replicas: &[&Server],
    ) -> Result<(), ServerError> {
        primary.open_for_writes().await?;
        for replica in replicas {
            replica.follow(primary).await?;
        }
        self.lay_out_shop(primary).await?;
        for replica in replicas {
            replica.wait_for("SELECT COUNT(*) FROM shop.orders", 0).await?;
        }
        Ok(())
    }

    /// Creates the schema of the shop.
    pub async fn lay_out_shop(&self, primary: &Server) -> Result<(), ServerError> {
        for statement in SHOP_SCHEMA {
            primary.execute(statement).await?;
        }
        Ok(())
    }
}

/// What the shop writes to: one row per acknowledged order, never written twice.
const SHOP_SCHEMA: &[&str] = &[
    "CREATE DATABASE IF NOT EXISTS shop",
    "CREATE TABLE IF NOT EXISTS shop.orders (
        client INT UNSIGNED NOT NULL,
        sequence BIGINT UNSIGNED NOT NULL,
        placed_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
        PRIMARY KEY (client, sequence)
    ) ENGINE=InnoDB",
];

/// The server refuses to run as root unless told so.
fn as_user() -> Option<OsString> {
    rustix::process::geteuid().is_root().then(|| OsString::from("--user=root"))
}

impl fmt::Display for DatabaseFlavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DatabaseFlavor::Mysql => "mysql",
            DatabaseFlavor::Mariadb => "mariadb",
        })
    }
}

impl FromStr for DatabaseFlavor {
    type Err = String;

    fn from_str(text: &str) -> Result<DatabaseFlavor, String> {
        match text {
            "mysql" => Ok(DatabaseFlavor::Mysql),
            "mariadb" => Ok(DatabaseFlavor::Mariadb),
            other => Err(format!("unknown flavor {other:?}: mysql or mariadb")),
        }
    }
}
