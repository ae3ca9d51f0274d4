//! Backups: a database tool's output, compressed, encrypted and stored in parts, and the way back.
//!
//! Nothing here holds more of a backup in memory than a few parts, and a backup is listed only after
//! its manifest was written, which happens last.

mod accounts;
pub mod agent;
pub mod archive;
mod archivers;
mod aside;
mod boundaries;
mod buffers;
pub mod chores;
mod clearing;
mod copied;
mod counting;
mod directory;
mod fetching;
mod folder;
mod following;
mod forward;
mod holds;
mod keys;
mod lane;
mod lanes;
mod locked;
mod pace;
mod packing;
mod physical;
mod position;
mod printed;
mod progress;
mod provers;
mod proving;
mod pruning;
mod rejoining;
mod restoring;
mod resuming;
mod retry;
mod s3;
pub mod scheduled;
mod source;
mod spool;
mod storing;
mod sweeping;
mod taking;
mod target;
mod throwaway;
mod tool;
mod turn;

pub use aside::step_back;
pub use directory::{Laying, Prepared, into_directory};
pub use fetching::{catalog, manifest, manifest_of_kind, proof, verify};
pub use following::Membership;
pub use forward::Forward;
pub use holds::{hold, release};
pub use lanes::Lacking;
pub use packing::{Identities, IdentityError};
pub use physical::agent_for;
pub use progress::{Progress, Reached, Stage, Trouble};
pub use proving::{Examination, Examined, examine};
pub use pruning::{Pruned, Scope, prune, remove_named};
pub use rejoining::{beyond, caught_up};
pub use restoring::{Destination, Restored, Wish, broken_off, into_file, into_server};
pub use source::{Source, choose, named};
pub use taking::{Order, Taken, take};
pub use target::{Target, TargetError};
pub use turn::{Priority, Turn};

use crate::decision::backup::archive::recovery::NoWay;
use crate::decision::backup::choice::NoSource;
use crate::decision::backup::manifest::ManifestError;
use crate::decision::backup::proof::ProofError;
use crate::decision::topology::ServerName;
use crate::runtime::mysql::connect::ConnectError;
use std::io;

/// Why there is no backup, or no restore.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Nothing is configured, or not what was asked for.
    #[error("{0}")]
    Unknown(String),
    /// No server is fit to be backed up.
    #[error("{0}; name a server with --server")]
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
    /// The database's program was killed, which says nothing about what it did.
    #[error("{name} failed: {what}")]
    ToolKilled {
        /// The program.
        name: String,
        /// By what, and the end of what it complained about.
        what: String,
    },
    /// The database's program is not to be had.
    #[error(
        "{name} cannot be started: {what}; install the database's client programs on this machine, name \
         their directory in REGENT_PROGRAMS, or write backups.tools"
    )]
    NoTool {
        /// The program.
        name: String,
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
    /// None of the targets has the backup.
    #[error("{}", shown(.0))]
    NoTarget(Vec<Lacking>),
    /// A manifest cannot be used.
    #[error("{object}: {error}")]
    Manifest {
        /// The object.
        object: String,
        /// Why.
        error: ManifestError,
    },
    /// A proof cannot be used.
    #[error("{object}: {error}")]
    Proof {
        /// The object.
        object: String,
        /// Why.
        error: ProofError,
    },
    /// There is no server to restore into for a proof.
    #[error("the server to try the restore on: {0}")]
    Throwaway(String),
    /// What is stored is not what was stored.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// The object.
        object: String,
        /// Where and how.
        what: String,
    },
    /// A moment cannot be reached.
    #[error("{0}")]
    NoWay(#[from] NoWay),
    /// Two archive the same binary log to the same place.
    #[error(
        "somebody else archives {cluster} at {target} too: segment {segment} is there already; one of both is \
         enough"
    )]
    Occupied {
        /// The cluster.
        cluster: String,
        /// The target.
        target: String,
        /// What the other one stored.
        segment: String,
    },
    /// It cannot be decrypted.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// The server to restore into is not fit for it.
    #[error("{0}")]
    NotEmpty(String),
    /// It broke off in the middle.
    #[error("{error}; {server} now holds a part of backup {backup}, and a note of how much")]
    Incomplete {
        /// The server that was restored into.
        server: String,
        /// What is restored.
        backup: String,
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

fn shown(lacking: &[Lacking]) -> String {
    let each = lacking.iter().map(|it| format!("target {}: {}", it.target, it.error));
    let each: Vec<String> = each.collect();
    if each.is_empty() { "no target is left".to_owned() } else { each.join("; ") }
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
