//! Backups: a database tool's output, compressed, encrypted and stored in parts, and the way back.
//!
//! Nothing here holds more of a backup in memory than a few parts, and a backup is listed only after
//! its manifest was written, which happens last.

mod accounts;
pub mod agent;
mod directory;
mod fetching;
mod folder;
mod packing;
mod physical;
mod position;
mod restoring;
mod s3;
mod source;
mod storing;
mod taking;
mod target;
mod tool;

pub use directory::{Prepared, into_directory};
pub use fetching::{catalog, manifest, verify};
pub use packing::{Identities, IdentityError};
pub use physical::agent_for;
pub use restoring::{Destination, Restored, into_file, into_server};
pub use source::{Source, choose, named};
pub use taking::{Order, take};
pub use target::{Target, TargetError};

use crate::decision::backup::manifest::ManifestError;
use crate::decision::backup::source::NoSource;
use crate::decision::topology::ServerName;
use crate::runtime::mysql::connect::ConnectError;
use std::io;

/// How far a backup, or its restore, is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of SQL, or of files, so far.
    pub plain: u64,
    /// Bytes stored or fetched so far.
    pub stored: u64,
    /// About how many of them there will be.
    pub total: Option<u64>,
}

/// Why there is no backup, or no restore.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Nothing is configured, or not what was asked for.
    #[error("{0}")]
    Unknown(String),
    /// No server is fit to be backed up.
    #[error("{0}")]
    NoSource(#[from] NoSource),
    /// A server is not to be had.
    #[error("{server}: {error}")]
    Connect {
        /// The server.
        server: String,
        /// Why.
        error: ConnectError,
    },
    /// A server refused a statement.
    #[error("{server}: {what}")]
    Server {
        /// The server.
        server: String,
        /// What it refused, and how.
        what: String,
    },
    /// The database's program failed.
    #[error("{name} failed: {what}")]
    Tool {
        /// The program.
        name: String,
        /// How it ended, and the end of what it complained about.
        what: String,
    },
    /// The agent beside a server has no copy for us.
    #[error("the agent of {server}: {what}")]
    Agent {
        /// The server.
        server: String,
        /// Why.
        what: String,
    },
    /// The target failed.
    #[error("target {target}: {error}")]
    Target {
        /// Its name.
        target: String,
        /// How.
        error: TargetError,
    },
    /// A manifest cannot be used.
    #[error("{object}: {error}")]
    Manifest {
        /// The object.
        object: String,
        /// Why.
        error: ManifestError,
    },
    /// What is stored is not what was stored.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// The object.
        object: String,
        /// Where and how.
        what: String,
    },
    /// It cannot be decrypted.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// The server to restore into is not fit for it.
    #[error("{0}")]
    NotEmpty(String),
    /// It broke off in the middle.
    #[error("{error}; {server} now holds a part of the backup: empty it before the next attempt")]
    Incomplete {
        /// The server that was restored into.
        server: String,
        /// Why.
        error: Box<BackupError>,
    },
    /// Compressing, or a file.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// How it failed.
        error: io::Error,
    },
    /// Somebody asked to stop.
    #[error("stopped on request; nothing of it is kept")]
    Stopped,
}

impl BackupError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> BackupError {
        let what = what.into();
        move |error| BackupError::Io { what, error }
    }

    fn server(server: &ServerName, what: impl ToString) -> BackupError {
        let what = what.to_string().chars().take(300).collect();
        BackupError::Server { server: server.to_string(), what }
    }
}
